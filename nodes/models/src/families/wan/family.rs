//! How a checkpoint of Wan is recognised, and what its parts are.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::{DType, Tensor};
use serde_json::Value;

use super::autoencoder::VaeConfig;
use super::config::{ModelConfig, ModelIndex, PROMPTS};
use super::detect;
use super::dit::Dit;
use super::names;
use super::tea_cache;
use super::transformer::TransformerConfig;
use super::vae::{self, Vae};
use crate::cancel::CheckCancel;
use crate::checkpoint::{
    Checkpoint, DetectedPart, ModelFiles, ModelFolder, NarrowWeight, PartFiles, SingleForm,
    SingleFormat, part_names, written,
};
use crate::error::{Error, Result};
use crate::image::{self, ClipSpec};
use crate::model::{
    Component, Decode, Denoiser, DenoiserInputs, DenoiserSpec, EmbeddingSpec, Embeddings, Encode,
    ExtraChannels, Family, FrameDecoder, FrameEncoder, GivenInput, ImageEncoderSpec, LatentLayout,
    LowNoise, Model, Packed, Projected, RunSize, TextEncoderSpec, TimestepInput, VideoVae,
    WholeDecode,
};
use crate::patch::Grid;
use crate::preview::RgbMap;
use crate::sampling::{SchedulerConfig, StepCache, StepCacheKind, StepCacheRule, TeaCacheFit};
use crate::text::{self, T5Spec};
use crate::tile::Tile;
use crate::weight::{WIDENED_ROWS, Weights};

/// The name of the conditioning that the transformer reads.
const TEXT: &str = "text";
/// Rows of a text where the model does not say.
const TEXT_ROWS: usize = 512;
/// Rows of a picture where the model does not say.
const IMAGE_ROWS: usize = 257;

/// Wan 2.1 and 2.2 in the diffusers layout.
pub struct Wan;

impl Family for Wan {
    fn name(&self) -> &str {
        "Wan"
    }

    fn recognises(&self, checkpoint: &Checkpoint) -> bool {
        let class = ModelIndex::class(checkpoint);
        class.is_ok_and(|class| ModelIndex::CLASSES.contains(&class.as_str()))
    }

    fn read(&self, checkpoint: &Checkpoint) -> Result<Model> {
        let ModelConfig { index, text, image, transformer, low_noise, vae, scheduler } =
            ModelConfig::read(checkpoint)?;
        let rows = text.as_ref().map_or(TEXT_ROWS, |(_, tokens)| tokens.text_length());
        let timesteps = match index.expand_timesteps {
            true => TimestepInput::PerToken,
            false => TimestepInput::PerClip,
        };
        let image_rows = image.as_ref().map_or(IMAGE_ROWS, |(config, _)| config.rows());
        let is_expert = low_noise.is_some();
        let denoiser = |part, config| {
            let (scheduler, rows) = (scheduler.clone(), [rows, image_rows]);
            let spec = WanDenoiser::new(config, scheduler, timesteps, rows);
            let fit = tea_cache::own(checkpoint, part)?;
            let spec = WanDenoiser { is_expert, fit, ..spec };
            Ok::<_, Error>(Component::<dyn DenoiserSpec> { part, spec: Arc::new(spec) })
        };
        let low_noise = low_noise.map(|(below, config)| {
            Ok::<_, Error>(LowNoise { below, denoiser: denoiser("transformer_2", config)? })
        });
        Ok(Model {
            image_encoder: image.map(|(config, prepare)| Component::<dyn ImageEncoderSpec> {
                part: "image_encoder",
                spec: Arc::new(ClipSpec::new(config, prepare)),
            }),
            text_encoder: text.map(|(config, tokens)| Component::<dyn TextEncoderSpec> {
                part: "text_encoder",
                spec: Arc::new(T5Spec::new(TEXT, &PROMPTS, config, &tokens)),
            }),
            denoiser: transformer.map(|config| denoiser("transformer", config)).transpose()?,
            low_noise: low_noise.transpose()?,
            vae: vae.map(|config| Component::<dyn VideoVae> {
                part: "vae",
                spec: Arc::new(WanVae(config)),
            }),
            other_text_encoders: Vec::new(),
        })
    }

    fn detect(&self, files: &PartFiles) -> Result<Option<DetectedPart>> {
        let own = detect::detect(files)?;
        match own.or_else(|| text::detect(files, &PROMPTS)) {
            Some(found) => Ok(Some(found)),
            None => image::detect(files),
        }
    }

    fn configs(
        &self,
        parts: &[(&str, Value)],
        folder: Option<&ModelFolder>,
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let index = folder.map(|folder| folder.json("model_index.json")).transpose()?;
        let has = |path: &str| folder.is_some_and(|folder| folder.contains(path));
        let made = detect::complete(parts, index, has("scheduler/scheduler_config.json"));
        let mut configs = written(made);
        let images = parts.iter().filter(|(part, _)| *part == part_names::IMAGE_ENCODER);
        configs.extend(images.map(|(_, config)| image::processor(config)));
        Ok(configs)
    }

    /// Labels are those of ComfyUI-GGUF's converter (`wan`) and of llama.cpp (`t5encoder`); of files
    /// of autoencoders none is agreed on, and nobody reads it.
    fn single_form(
        &self,
        checkpoint: &Checkpoint,
        part: &str,
        format: SingleFormat,
    ) -> Result<Option<SingleForm>> {
        let form = |rename, narrow| SingleForm::new("wan", rename, narrow);
        let keep = |name: &str, own: Option<String>| Some(own.unwrap_or_else(|| name.to_owned()));
        Ok(Some(match part {
            part_names::TRANSFORMER | part_names::LOW_NOISE => {
                form(Box::new(move |name| keep(name, names::original(name))), narrow)
            }
            part_names::VAE => {
                let nested = "encoder.down_blocks.0.resnets.0.conv1.weight";
                let is_nested = checkpoint.part(part)?.shape(nested).is_some();
                let rename = move |name: &str| keep(name, names::vae_original(name, is_nested));
                form(Box::new(rename), |_| NarrowWeight::Never)
            }
            part_names::TEXT_ENCODER => text::single_form(checkpoint, &PROMPTS, format)?,
            part_names::IMAGE_ENCODER => image::single_form(),
            _ => return Ok(None),
        }))
    }
}

/// The matrices of attention and feed-forward in the blocks of a transformer, by the names of
/// diffusers.
fn narrow(name: &str) -> NarrowWeight {
    const MATRICES: [&str; 4] = [".attn1.to_", ".attn2.to_", ".attn2.add_", ".ffn.net."];
    let in_block = name.starts_with("blocks.") || name.starts_with("vace_blocks.");
    match in_block && MATRICES.iter().any(|inner| name.contains(inner)) {
        true => NarrowWeight::Any,
        false => NarrowWeight::Never,
    }
}

/// The transformer before its weights are read.
struct WanDenoiser {
    config: TransformerConfig,
    scheduler: SchedulerConfig,
    inputs: DenoiserInputs,
    /// Whether it is one of two.
    is_expert: bool,
    /// What its folder says was fitted to it for TeaCache.
    fit: Option<TeaCacheFit>,
}

impl WanDenoiser {
    /// `rows` are those of a text and of a picture.
    fn new(
        config: TransformerConfig,
        scheduler: SchedulerConfig,
        timesteps: TimestepInput,
        [text_rows, image_rows]: [usize; 2],
    ) -> Self {
        let named = |name, rows, width| EmbeddingSpec {
            name: Cow::Borrowed(name),
            rows: Some(rows),
            width,
        };
        let image_rows = config.pos_embed_seq_len.unwrap_or(image_rows);
        let image = config.image_dim.map(|width| named(EmbeddingSpec::IMAGE, image_rows, width));
        let extra = |name, channels| ExtraChannels { name: Cow::Borrowed(name), channels };
        let latent = config.out_channels;
        let channels = match (config.control(), config.mask_channels()) {
            (Some(control), _) => vec![
                extra(ExtraChannels::INACTIVE, latent),
                extra(ExtraChannels::REACTIVE, latent),
                extra(ExtraChannels::PIXELS, control.channels.saturating_sub(2 * latent)),
            ],
            (None, Some(mask)) => {
                vec![extra(ExtraChannels::MASK, mask), extra(ExtraChannels::GIVEN, latent)]
            }
            (None, None) => Vec::new(),
        };
        let given = match (config.control(), channels.is_empty(), timesteps) {
            (Some(_), ..) => GivenInput::Control,
            (None, false, _) => GivenInput::Channels,
            (None, true, TimestepInput::PerToken) => GivenInput::Tokens,
            (None, true, TimestepInput::PerClip) => GivenInput::None,
        };
        let text = named(TEXT, text_rows, config.text_dim);
        let inputs = DenoiserInputs {
            channels: latent,
            extra: channels,
            patch: config.patch_size,
            conditioning: [text].into_iter().chain(image).collect(),
            timesteps,
            given,
            frame_rate: None,
        };
        Self { config, scheduler, inputs, is_expert: false, fit: None }
    }
}

impl DenoiserSpec for WanDenoiser {
    fn inputs(&self) -> &DenoiserInputs {
        &self.inputs
    }

    fn scheduler(&self) -> &SchedulerConfig {
        &self.scheduler
    }

    fn check_rows(&self, name: &str, rows: usize) -> Result<()> {
        match self.config.pos_embed_seq_len {
            Some(own) if name == EmbeddingSpec::IMAGE && rows != own => {
                let each = own / 2;
                Err(Error::input(format!(
                    "this transformer reads two pictures, the first and the last of a clip ({own} \
                     rows, {each} each), found {rows} rows"
                )))
            }
            _ => Ok(()),
        }
    }

    fn original_name(&self, name: &str) -> Option<String> {
        names::original(name)
    }

    fn step_cache(&self, kind: StepCacheKind, grid: Grid) -> Option<StepCacheRule> {
        match kind {
            // Of a single block nothing is left to reuse.
            StepCacheKind::FirstBlock if self.config.num_layers < 2 => None,
            StepCacheKind::FirstBlock => Some(StepCacheRule::FirstBlock),
            StepCacheKind::TeaCache => {
                let published = || tea_cache::published(&self.config, self.is_expert, grid);
                self.fit.or_else(published).map(StepCacheRule::TeaCache)
            }
        }
    }

    /// Keys and values of the texts, and of pictures, in every block; and within a block, for every
    /// token in a call, six rows of the model's width in its attention (what comes in, modulated,
    /// queries, keys, values and their norm, or the result), with keys and values of some heads
    /// packed, or four in its feed-forward, with some rows of the inner width; and the rows of a
    /// product that are packed.
    /// A step cache keeps a row a token of what the blocks added, one more of what the first did,
    /// with and without text, and two in a call.
    fn memory(&self, size: &RunSize) -> u64 {
        let (config, wide) = (&self.config, |n: usize| n as u128);
        let rows = |input: &EmbeddingSpec| match input.rows {
            Some(rows) if input.name == TEXT => size.rows_of_text(rows),
            rows => rows.unwrap_or(0),
        };
        let rows: usize = self.inputs.conditioning.iter().map(rows).sum();
        let beside = config.control().map_or(0, |control| control.layers.len());
        let layers = wide(config.num_layers + beside);
        let contexts = 4 * wide(size.texts) * layers * wide(rows * config.dim());
        // A control and what it adds are two rows more.
        let kept = if beside > 0 { 2 } else { 0 };
        let (in_call, cached) = match size.step_cache {
            None => (0, 0),
            Some(StepCacheKind::TeaCache) => (2, 2),
            Some(StepCacheKind::FirstBlock) => (2, 4),
        };
        let (dim, inner) = (config.dim(), config.ffn_dim);
        let cached = wide(cached * size.tokens) * wide(dim);
        let tokens = size.tokens_at_once;
        let attention = wide(tokens) * wide(6 * dim) + config.heads().packed(tokens, size.number);
        let feed = wide(tokens) * wide(4 * dim) + wide(tokens.min(WIDENED_ROWS)) * wide(inner);
        let packed = wide(tokens.min(kino_kernels::PACKED_ROWS)) * wide(inner.max(dim));
        let added = wide(tokens) * wide((kept + in_call) * dim);
        let block = attention.max(feed) + packed + added;
        // Tables of angles, the latents, and what UniPC remembers of the steps before.
        let latents = wide(size.tokens) * wide(config.attention_head_dim + 8 * config.patch_dim());
        let bytes = wide(size.number) * (contexts + block + cached) + 4 * latents;
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
        let image = conditioning.get(EmbeddingSpec::IMAGE).map(|image| &image.tensor);
        let image = image.filter(|_| self.config().image_dim.is_some());
        Ok(Projected::new(self.context_with(&text.tensor, image)?))
    }

    fn velocity(
        &self,
        latents: &Packed<'_>,
        conditioning: &[&Projected],
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        self.velocity_of(latents, &Projected::all(conditioning)?, check_cancel)
    }

    fn velocity_cached(
        &self,
        latents: &Packed<'_>,
        conditioning: &[&Projected],
        caches: &mut [&mut StepCache],
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        let contexts = Projected::all(conditioning)?;
        Dit::velocity_cached(self, latents, &contexts, caches, check_cancel)
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

    fn encode_memory(&self, clip: (usize, [usize; 2]), tile: Option<Tile>, dtype: DType) -> u64 {
        vae::encode_peak(&self.0, clip, tile, dtype).total() as u64
    }

    fn decode_memory(&self, clip: (usize, [usize; 2]), tile: Option<Tile>, dtype: DType) -> u64 {
        vae::decode_peak(&self.0, clip, tile, dtype).total() as u64
    }

    fn encoder_weights(&self) -> &[&str] {
        &["encoder.", "quant_conv."]
    }

    fn decoder_weights(&self) -> &[&str] {
        &["decoder.", "post_quant_conv."]
    }

    fn load_encoder(&self, weights: &Weights) -> Result<Arc<dyn FrameEncoder>> {
        let vae = Vae::load(&self.0, weights)?;
        vae.encoder()?; // reads the network
        Ok(Arc::new(vae))
    }

    fn load_decoder(&self, weights: &Weights) -> Result<Arc<dyn FrameDecoder>> {
        let vae = Vae::load(&self.0, weights)?;
        vae.decoder()?; // reads the network
        Ok(Arc::new(vae))
    }
}

impl FrameEncoder for Vae {
    fn open(&self) -> Result<Box<dyn Encode>> {
        Ok(Box::new(self.encoder()?))
    }
}

impl FrameDecoder for Vae {
    fn open(&self) -> Result<Option<Box<dyn Decode>>> {
        Ok(Some(Box::new(self.decoder()?)))
    }

    fn decode_whole(
        &self,
        latent: &Tensor,
        how: &WholeDecode,
        done: &mut dyn FnMut(usize, usize),
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Vec<Tensor>> {
        match how.tile {
            Some(tile) => self.decode_tiles(latent, tile, done, check_cancel),
            None => Ok(vec![self.decode(latent, None, check_cancel)?]),
        }
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

    fn finish(&mut self, frames: &Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        vae::Encoder::finish(self, frames, check_cancel)
    }
}

impl Decode for vae::Decoder {
    fn push(&mut self, latent: &Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        vae::Decoder::push(self, latent, check_cancel)
    }

    fn finish(&mut self, latent: &Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        vae::Decoder::finish(self, latent, check_cancel)
    }
}
