//! How a checkpoint of LTX-Video is recognised, and what its parts are.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::{DType, Tensor};
use serde_json::Value;

use super::autoencoder::VaeConfig;
use super::config::{ModelConfig, ModelIndex, PROMPTS};
use super::detect;
use super::dit::{Dit, Scale};
use super::names::{self, VaePlaces};
use super::transformer::TransformerConfig;
use super::vae::{self, Decoder, Encoder};
use crate::cancel::CheckCancel;
use crate::checkpoint::{
    Checkpoint, DetectedPart, ModelFiles, ModelFolder, NarrowWeight, PartFiles, SingleForm,
    SingleFormat, part_names, written,
};
use crate::error::{Error, Result};
use crate::model::{
    Component, DecodeNoise, Denoiser, DenoiserInputs, DenoiserSpec, EmbeddingSpec, Embeddings,
    Family, FrameDecoder, FrameEncoder, GivenInput, LatentLayout, Model, Packed, Projected,
    RunSize, TextEncoderSpec, TimestepInput, VideoVae,
};
use crate::sampling::SchedulerConfig;
use crate::text::{self, T5Spec};
use crate::tile::Tile;
use crate::weight::{WIDENED_ROWS, Weights};

/// The name of the conditioning that the transformer reads.
const TEXT: &str = "text";
/// Frames a second that a clip has where nobody says (diffusers' `frame_rate`).
const FRAME_RATE: f64 = 25.0;
/// Frames and pixels that a latent pixel stands for where no autoencoder says so.
const COMPRESSION: [usize; 2] = [8, 32];
/// Noise level and share of noise with which a decoder that is told them decodes where nobody says
/// (the authors' examples of 0.9.1 and later).
const DECODE: DecodeNoise = DecodeNoise { timestep: 0.05, scale: 0.025, seed: 0 };

/// LTX-Video 0.9.x in the diffusers layout.
pub struct Ltx;

impl Family for Ltx {
    fn name(&self) -> &str {
        "LTX-Video"
    }

    fn recognises(&self, checkpoint: &Checkpoint) -> bool {
        ModelIndex::is_one(checkpoint)
    }

    fn read(&self, checkpoint: &Checkpoint) -> Result<Model> {
        let config = ModelConfig::read(checkpoint)?;
        let ModelConfig { text, transformer, vae, scheduler, prompts, counts_from_end } = config;
        let rows = text.as_ref().map_or(prompts.max_rows, |(_, tokens)| tokens.text_length());
        let [temporal, spatial] =
            vae.as_ref().map_or(COMPRESSION, |vae| [vae.temporal_factor(), vae.spatial_factor()]);
        let scale = Scale { temporal, spatial, counts_from_end };
        Ok(Model {
            text_encoder: text.map(|(config, tokens)| Component::<dyn TextEncoderSpec> {
                part: prompts.encoder,
                spec: Arc::new(T5Spec::new(TEXT, &prompts, config, &tokens)),
            }),
            denoiser: transformer.map(|config| Component::<dyn DenoiserSpec> {
                part: part_names::TRANSFORMER,
                spec: Arc::new(LtxDenoiser::new(config, scale, scheduler, rows)),
            }),
            vae: vae.map(|config| Component::<dyn VideoVae> {
                part: part_names::VAE,
                spec: Arc::new(LtxVae(config)),
            }),
            ..Model::default()
        })
    }

    fn detect(&self, files: &PartFiles) -> Result<Option<DetectedPart>> {
        Ok(detect::detect(files)?.or_else(|| text::detect(files, &PROMPTS)))
    }

    fn configs(
        &self,
        parts: &[(&str, Value)],
        folder: Option<&ModelFolder>,
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let index = folder.map(|folder| folder.json("model_index.json")).transpose()?;
        let has = |path: &str| folder.is_some_and(|folder| folder.contains(path));
        let made = detect::complete(parts, index, has("scheduler/scheduler_config.json"));
        Ok(written(made))
    }

    /// The label is that of ComfyUI-GGUF's converter; of files of autoencoders none is agreed on, and
    /// nobody reads it.
    fn single_form(
        &self,
        checkpoint: &Checkpoint,
        part: &str,
        format: SingleFormat,
    ) -> Result<Option<SingleForm>> {
        let config = || {
            let config = checkpoint.json(&format!("{part}/config.json"))?;
            Ok::<_, Error>(detect::config_alone(config, ModelIndex::is_new(checkpoint)))
        };
        let form = |rename, narrow, config| SingleForm {
            config: Some(config),
            ..SingleForm::new("ltxv", rename, narrow)
        };
        Ok(Some(match part {
            part_names::TRANSFORMER => {
                let rename =
                    |name: &str| Some(names::original(name).unwrap_or_else(|| name.to_owned()));
                form(Box::new(rename), narrow, config()?)
            }
            part_names::VAE => {
                let places = VaePlaces::of(&*checkpoint.part(part)?);
                let rename = move |name: &str| Some(places.original(name));
                form(Box::new(rename), |_| NarrowWeight::Never, config()?)
            }
            part_names::TEXT_ENCODER => text::single_form(checkpoint, &PROMPTS, format)?,
            _ => return Ok(None),
        }))
    }
}

/// The matrices of attention and feed-forward in the blocks of a transformer.
fn narrow(name: &str) -> NarrowWeight {
    const MATRICES: [&str; 3] = [".attn1.to_", ".attn2.to_", ".ff.net."];
    let in_block = name.starts_with("transformer_blocks.");
    match in_block && MATRICES.iter().any(|inner| name.contains(inner)) {
        true => NarrowWeight::Any,
        false => NarrowWeight::Never,
    }
}

/// The transformer before its weights are read.
struct LtxDenoiser {
    config: TransformerConfig,
    scale: Scale,
    scheduler: SchedulerConfig,
    inputs: DenoiserInputs,
}

impl LtxDenoiser {
    /// `rows` are those of a text.
    fn new(
        config: TransformerConfig,
        scale: Scale,
        scheduler: SchedulerConfig,
        rows: usize,
    ) -> Self {
        let text = EmbeddingSpec {
            name: Cow::Borrowed(TEXT),
            rows: Some(rows),
            width: config.caption_channels,
        };
        let inputs = DenoiserInputs {
            channels: config.in_channels,
            extra: Vec::new(),
            patch: (1, 1, 1),
            conditioning: vec![text],
            timesteps: TimestepInput::PerToken,
            given: GivenInput::Tokens,
            frame_rate: Some(FRAME_RATE),
        };
        Self { config, scale, scheduler, inputs }
    }
}

impl DenoiserSpec for LtxDenoiser {
    fn inputs(&self) -> &DenoiserInputs {
        &self.inputs
    }

    fn scheduler(&self) -> &SchedulerConfig {
        &self.scheduler
    }

    fn original_name(&self, name: &str) -> Option<String> {
        names::original(name)
    }

    /// Keys and values of the texts in every block; and within a block, for every token in a call,
    /// seven rows of the model's width in its attention (what comes in, modulated, queries, keys,
    /// values, their norm and what is turned of it), with keys and values of some heads packed, or
    /// four in its feed-forward, with some rows of the inner width; and the rows of a product that
    /// are packed.
    fn memory(&self, size: &RunSize) -> u64 {
        let (dim, wide) = (self.config.dim(), |n: usize| n as u128);
        let rows = size.rows_of_text(self.inputs.conditioning[0].rows.unwrap_or(0));
        let contexts = 4 * wide(size.texts) * wide(self.config.num_layers) * wide(rows * dim);
        let tokens = size.tokens_at_once;
        let attention =
            wide(tokens) * wide(7 * dim) + self.config.heads().packed(tokens, size.number);
        let feed = wide(tokens) * wide(4 * dim) + wide(tokens.min(WIDENED_ROWS)) * wide(4 * dim);
        let packed = wide(tokens.min(kino_kernels::PACKED_ROWS)) * wide(4 * dim);
        let block = attention.max(feed) + packed;
        // Tables of angles, in f32, and the latents.
        let beside = wide(size.tokens) * wide(dim + 8 * self.config.in_channels);
        let bytes = wide(size.number) * (contexts + block) + 4 * beside;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    fn load(&self, weights: &Weights) -> Result<Arc<dyn Denoiser>> {
        Ok(Arc::new(Dit::load(&self.config, self.scale, weights)?))
    }
}

impl Denoiser for Dit {
    fn project(&self, conditioning: &Embeddings) -> Result<Projected> {
        let text = conditioning.get(TEXT);
        let text = text.ok_or_else(|| Error::input("there is no text among the conditioning"))?;
        Ok(Projected::new(self.context(text)?))
    }

    fn velocity(
        &self,
        latents: &Packed<'_>,
        conditioning: &[&Projected],
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        Dit::velocity(self, latents, &Projected::all(conditioning)?, check_cancel)
    }
}

/// The autoencoder before its weights are read.
struct LtxVae(VaeConfig);

impl VideoVae for LtxVae {
    fn latents(&self) -> LatentLayout {
        LatentLayout {
            channels: self.0.latent_channels,
            temporal: self.0.temporal_factor(),
            first: 1,
            spatial: self.0.spatial_factor(),
        }
    }

    fn encode_memory(&self, clip: (usize, [usize; 2]), tile: Option<Tile>, dtype: DType) -> u64 {
        vae::encode_peak(&self.0, clip, tile, dtype)
    }

    fn decode_memory(&self, clip: (usize, [usize; 2]), tile: Option<Tile>, dtype: DType) -> u64 {
        vae::decode_peak(&self.0, clip, tile, dtype)
    }

    fn decodes_whole(&self) -> bool {
        true
    }

    fn decode_noise(&self) -> Option<DecodeNoise> {
        self.0.timestep_conditioning.then_some(DECODE)
    }

    fn encoder_weights(&self) -> &[&str] {
        &["encoder.", "latents_"]
    }

    fn decoder_weights(&self) -> &[&str] {
        &["decoder.", "latents_"]
    }

    fn load_encoder(&self, weights: &Weights) -> Result<Arc<dyn FrameEncoder>> {
        Ok(Arc::new(Encoder::load(&self.0, weights)?))
    }

    fn load_decoder(&self, weights: &Weights) -> Result<Arc<dyn FrameDecoder>> {
        Ok(Arc::new(Decoder::load(&self.0, weights)?))
    }
}
