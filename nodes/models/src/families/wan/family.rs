//! How a checkpoint of Wan is recognised, and what its parts are.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::Tensor;

use super::autoencoder::VaeConfig;
use super::config::{ModelConfig, ModelIndex};
use super::dit::{Context, Dit};
use super::transformer::TransformerConfig;
use super::vae::{self, Vae};
use crate::cancel::CheckCancel;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::model::{
    Component, Decode, Denoiser, DenoiserInputs, DenoiserSpec, EmbeddingSpec, Embeddings, Encode,
    Family, FrameDecoder, FrameEncoder, LatentLayout, Model, Packed, Projected, RunSize,
    TextEncoderSpec, TimestepInput, VideoVae,
};
use crate::preview::RgbMap;
use crate::sampling::SchedulerConfig;
use crate::text::Umt5Spec;
use crate::tile::Tile;
use crate::weight::Weights;

/// The name of the conditioning that the transformer reads.
const TEXT: &str = "text";
/// Rows of a text where the model does not say.
const TEXT_ROWS: usize = 512;

/// Wan 2.1 and 2.2 in the diffusers layout.
pub struct Wan;

impl Family for Wan {
    fn name(&self) -> &str {
        "Wan"
    }

    fn recognises(&self, checkpoint: &Checkpoint) -> bool {
        ModelIndex::class(checkpoint).is_ok_and(|class| class == "WanPipeline")
    }

    fn read(&self, checkpoint: &Checkpoint) -> Result<Model> {
        let ModelConfig { index, text, transformer, vae, scheduler } =
            ModelConfig::read(checkpoint)?;
        let rows = text.as_ref().map_or(TEXT_ROWS, |(_, tokens)| tokens.text_length());
        let timesteps = match index.expand_timesteps {
            true => TimestepInput::PerToken,
            false => TimestepInput::PerClip,
        };
        Ok(Model {
            text_encoder: text.map(|(config, tokens)| Component::<dyn TextEncoderSpec> {
                part: "text_encoder",
                spec: Arc::new(Umt5Spec::new(TEXT, config, &tokens)),
            }),
            denoiser: transformer.map(|config| Component::<dyn DenoiserSpec> {
                part: "transformer",
                spec: Arc::new(WanDenoiser::new(config, scheduler, timesteps, rows)),
            }),
            vae: vae.map(|config| Component::<dyn VideoVae> {
                part: "vae",
                spec: Arc::new(WanVae(config)),
            }),
        })
    }
}

/// The transformer before its weights are read.
struct WanDenoiser {
    config: TransformerConfig,
    scheduler: SchedulerConfig,
    inputs: DenoiserInputs,
    /// Rows of a text.
    rows: usize,
}

impl WanDenoiser {
    fn new(
        config: TransformerConfig,
        scheduler: SchedulerConfig,
        timesteps: TimestepInput,
        rows: usize,
    ) -> Self {
        let text =
            EmbeddingSpec { name: Cow::Borrowed(TEXT), rows: Some(rows), width: config.text_dim };
        let inputs = DenoiserInputs {
            channels: config.in_channels,
            extra: Vec::new(),
            patch: config.patch_size,
            conditioning: vec![text],
            timesteps,
        };
        Self { config, scheduler, inputs, rows }
    }
}

impl DenoiserSpec for WanDenoiser {
    fn inputs(&self) -> &DenoiserInputs {
        &self.inputs
    }

    fn scheduler(&self) -> &SchedulerConfig {
        &self.scheduler
    }

    /// Keys and values of the texts in every block; and within a block, for every token in a call,
    /// eight rows of the model's width and two of the inner width.
    fn memory(&self, size: &RunSize) -> u64 {
        let (config, wide) = (&self.config, |n: usize| n as u128);
        let rows = self.rows;
        let contexts = 4 * wide(size.texts) * wide(config.num_layers) * wide(rows * config.dim());
        let block = wide(size.tokens_at_once) * wide(8 * config.dim() + 2 * config.ffn_dim);
        // Tables of angles, the latents, and what UniPC remembers of the steps before.
        let latents = wide(size.tokens) * wide(config.attention_head_dim + 8 * config.patch_dim());
        let bytes = wide(size.number) * (contexts + block) + 4 * latents;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    fn load(&self, weights: &Weights) -> Result<Arc<dyn Denoiser>> {
        Ok(Arc::new(Dit::load(&self.config, weights)?))
    }
}

impl Denoiser for Dit {
    fn project(&self, conditioning: &Embeddings) -> Result<Projected> {
        let text = conditioning.get(TEXT);
        let text = text.ok_or_else(|| Error::input("there is no text among the conditioning"))?;
        Ok(Projected::new(self.context(&text.tensor)?))
    }

    fn velocity(
        &self,
        latents: &Packed<'_>,
        conditioning: &[&Projected],
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        let contexts = conditioning.iter().map(|projected| projected.get::<Context>());
        let contexts = contexts.collect::<Result<Vec<_>>>()?;
        let Packed { patches, grids, timesteps, .. } = *latents;
        Dit::velocity(self, patches, grids, timesteps, &contexts, check_cancel)
    }
}

/// The autoencoder before its weights are read.
struct WanVae(VaeConfig);

impl VideoVae for WanVae {
    fn latents(&self) -> LatentLayout {
        LatentLayout {
            channels: self.0.z_dim,
            temporal: self.0.temporal_factor(),
            first: 1,
            spatial: self.0.spatial_factor(),
        }
    }

    fn encode_memory(&self, frames: usize, size: [usize; 2], tile: Option<Tile>) -> u64 {
        vae::encode_peak(&self.0, frames, size, tile).total() as u64
    }

    fn decode_memory(&self, frames: usize, size: [usize; 2], tile: Option<Tile>) -> u64 {
        vae::decode_peak(&self.0, frames, size, tile).total() as u64
    }

    fn encoder_weights(&self) -> &[&str] {
        &["encoder.", "quant_conv."]
    }

    fn decoder_weights(&self) -> &[&str] {
        &["decoder.", "post_quant_conv."]
    }

    fn load_encoder(&self, weights: &Weights) -> Result<Arc<dyn FrameEncoder>> {
        let vae = Vae::load(&self.0, weights)?;
        vae.encoder(None)?; // reads the network
        Ok(Arc::new(vae))
    }

    fn load_decoder(&self, weights: &Weights) -> Result<Arc<dyn FrameDecoder>> {
        let vae = Vae::load(&self.0, weights)?;
        vae.decoder(None)?; // reads the network
        Ok(Arc::new(vae))
    }
}

impl FrameEncoder for Vae {
    fn open(&self, tile: Option<Tile>) -> Result<Box<dyn Encode>> {
        Ok(Box::new(self.encoder(tile)?))
    }
}

impl FrameDecoder for Vae {
    fn open(&self, tile: Option<Tile>) -> Result<Box<dyn Decode>> {
        Ok(Box::new(self.decoder(tile)?))
    }

    fn rgb_map(&self) -> Result<Option<RgbMap>> {
        Ok(Some((*Vae::rgb_map(self)?).clone()))
    }
}

impl Encode for vae::Encoder {
    fn next_frames(&self) -> usize {
        vae::Encoder::next_frames(self)
    }

    fn push(&mut self, frames: &Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        vae::Encoder::push(self, frames, check_cancel)
    }
}

impl Decode for vae::Decoder {
    fn push(&mut self, latent: &Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        vae::Decoder::push(self, latent, check_cancel)
    }
}
