//! How a checkpoint of FLUX.1 is recognised, and what its parts are.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::{DType, Tensor};
use serde_json::Value;

use super::autoencoder::AutoencoderConfig;
use super::config::{ModelConfig, ModelIndex, PROMPTS, TOKENIZER};
use super::detect;
use super::dit::Dit;
use super::names;
use super::transformer::{PATCH, TransformerConfig};
use super::vae::{self, Decoder, Encoder};
use crate::cancel::CheckCancel;
use crate::checkpoint::{
    Checkpoint, DetectedPart, ModelFiles, ModelFolder, NarrowWeight, PartFiles, SingleForm,
    SingleFormat, part_names, written,
};
use crate::error::{Error, Result};
use crate::model::{
    Component, Denoiser, DenoiserInputs, DenoiserSpec, EmbeddingSpec, Embeddings, Family,
    FrameDecoder, FrameEncoder, GivenInput, GuidanceInput, LatentLayout, LayerJoins, Model, Packed,
    Projected, RunSize, TextEncoderSpec, TimestepInput, VideoVae,
};
use crate::patch::Grid;
use crate::sampling::{SchedulerConfig, StepCache, StepCacheKind, StepCacheRule};
use crate::text::clip::ClipTextSpec;
use crate::text::{self, T5Spec};
use crate::tile::Tile;
use crate::weight::{FusedName, WIDENED_ROWS, Weights};

/// The names of the conditioning that the transformer reads: rows of text, and all of it as one
/// vector.
const TEXT: &str = "text";
const POOLED: &str = "pooled";

/// FLUX.1 in the diffusers layout.
pub struct Flux;

impl Family for Flux {
    fn name(&self) -> &str {
        "FLUX.1"
    }

    fn recognises(&self, checkpoint: &Checkpoint) -> bool {
        ModelIndex::is_one(checkpoint)
    }

    fn read(&self, checkpoint: &Checkpoint) -> Result<Model> {
        let ModelConfig { clip, text, transformer, vae, scheduler } =
            ModelConfig::read(checkpoint)?;
        let rows = text.as_ref().map_or(PROMPTS.max_rows, |(_, tokens)| tokens.text_length());
        let clip = clip.map(|config| Component::<dyn TextEncoderSpec> {
            part: part_names::TEXT_ENCODER,
            spec: Arc::new(ClipTextSpec::new(POOLED, config, TOKENIZER)),
        });
        let text = text.map(|(config, tokens)| Component::<dyn TextEncoderSpec> {
            part: PROMPTS.encoder,
            spec: Arc::new(T5Spec::new(TEXT, &PROMPTS, config, &tokens)),
        });
        let mut encoders = clip.into_iter().chain(text);
        Ok(Model {
            text_encoder: encoders.next(),
            other_text_encoders: encoders.collect(),
            denoiser: transformer.map(|config| Component::<dyn DenoiserSpec> {
                part: part_names::TRANSFORMER,
                spec: Arc::new(FluxDenoiser::new(config, scheduler, rows)),
            }),
            vae: vae.map(|config| Component::<dyn VideoVae> {
                part: part_names::VAE,
                spec: Arc::new(FluxVae(config)),
            }),
            ..Model::default()
        })
    }

    fn detect(&self, files: &PartFiles) -> Result<Option<DetectedPart>> {
        let own = detect::detect(files)?;
        let shared = || text::clip::detect(files).or_else(|| text::detect(files, &PROMPTS));
        Ok(own.or_else(shared))
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

    /// The label is that of ComfyUI-GGUF's converter. An autoencoder keeps the names of diffusers,
    /// which ComfyUI and stable-diffusion.cpp read as well.
    fn single_form(
        &self,
        checkpoint: &Checkpoint,
        part: &str,
        format: SingleFormat,
    ) -> Result<Option<SingleForm>> {
        let form = |rename, narrow| SingleForm::new("flux", rename, narrow);
        Ok(Some(match part {
            part_names::TRANSFORMER => {
                let own = |name: &str| names::original_weight(name);
                form(Box::new(move |name| own(name).or_else(|| Some(name.to_owned()))), narrow)
            }
            part_names::VAE => {
                form(Box::new(|name| Some(name.to_owned())), |_| NarrowWeight::Never)
            }
            part_names::TEXT_ENCODER => text::clip::single_form(),
            part_names::TEXT_ENCODER_2 => text::single_form(checkpoint, &PROMPTS, format)?,
            _ => return Ok(None),
        }))
    }

    fn joins(&self, part: &str, format: Option<SingleFormat>) -> Option<LayerJoins> {
        (part == part_names::TRANSFORMER).then(|| LayerJoins {
            cut: Box::new(names::diffusers_pieces),
            join: if format.is_some() { names::fused } else { names::diffusers_fused },
        })
    }
}

/// The matrices of the blocks of a transformer, by the names of diffusers.
fn narrow(name: &str) -> NarrowWeight {
    let in_block =
        name.starts_with("transformer_blocks.") || name.starts_with("single_transformer_blocks.");
    match in_block && name.ends_with(".weight") && !name.contains(".attn.norm_") {
        true => NarrowWeight::Any,
        false => NarrowWeight::Never,
    }
}

/// The transformer before its weights are read.
struct FluxDenoiser {
    config: TransformerConfig,
    scheduler: SchedulerConfig,
    inputs: DenoiserInputs,
}

impl FluxDenoiser {
    /// `rows` are those of a text.
    fn new(config: TransformerConfig, scheduler: SchedulerConfig, rows: usize) -> Self {
        let named = |name, rows, width| EmbeddingSpec { name: Cow::Borrowed(name), rows, width };
        let inputs = DenoiserInputs {
            channels: config.latent_channels(),
            extra: Vec::new(),
            patch: (1, PATCH, PATCH),
            conditioning: vec![
                named(TEXT, Some(rows), config.joint_attention_dim),
                named(POOLED, None, config.pooled_projection_dim),
            ],
            timesteps: TimestepInput::PerClip,
            given: GivenInput::None,
            frame_rate: None,
        };
        Self { config, scheduler, inputs }
    }
}

impl DenoiserSpec for FluxDenoiser {
    fn inputs(&self) -> &DenoiserInputs {
        &self.inputs
    }

    fn scheduler(&self) -> &SchedulerConfig {
        &self.scheduler
    }

    fn original_name(&self, name: &str) -> Option<String> {
        names::original(name)
    }

    fn fused_name(&self, name: &str) -> Option<FusedName> {
        names::fused(name)
    }

    fn guidance(&self) -> GuidanceInput {
        match self.config.guidance_embeds {
            true => GuidanceInput::Embedded,
            false => GuidanceInput::None,
        }
    }

    fn step_cache(&self, kind: StepCacheKind, _: Grid) -> Option<StepCacheRule> {
        let (double, single) = (self.config.num_layers, self.config.num_single_layers);
        // Of a single block nothing is left to reuse.
        let is_one = kind == StepCacheKind::FirstBlock && double > 0 && double + single > 1;
        is_one.then_some(StepCacheRule::FirstBlock)
    }

    fn check_grid(&self, grid: Grid) -> Result<()> {
        match grid.frames {
            1 => Ok(()),
            frames => Err(Error::input(format!(
                "this transformer makes pictures: clips of one frame, found {frames} latent frames"
            ))),
        }
    }

    /// `get_timesteps` of diffusers' `pipeline_flux_img2img.py`: what is left out is cut to a whole
    /// number, not what is run.
    fn steps_of_strength(&self, steps: usize, strength: f64) -> usize {
        let run = (steps as f64 * strength).min(steps as f64);
        steps - (steps as f64 - run).max(0.0) as usize
    }

    /// Within a block, for every row of text and every token of a picture, seven rows of the model's
    /// width in its attention (what comes in, modulated, queries, keys and values, one of them
    /// turned, the result), with keys and values of some heads packed, or five in its feed-forward,
    /// with both halves of some rows of a single block and their concatenation; and the rows of a
    /// product that are packed. Pictures are computed one after another.
    fn memory(&self, size: &RunSize) -> u64 {
        let (config, wide) = (&self.config, |n: usize| n as u128);
        let (dim, inner) = (config.dim(), config.inner());
        let text: usize = self.inputs.conditioning.iter().filter_map(|input| input.rows).sum();
        let contexts = 2 * wide(size.texts) * wide((text + 4) * dim);
        let rows = text.saturating_add(size.tokens_at_once);
        let attention = wide(rows) * wide(7 * dim) + config.heads().packed(rows, size.number);
        let some = wide(rows.min(WIDENED_ROWS));
        let feed = wide(rows) * wide(5 * dim) + some * wide(dim + 2 * inner);
        let packed = wide(rows.min(kino_kernels::PACKED_ROWS)) * wide(dim + inner);
        let block = attention.max(feed) + packed;
        // Tables of angles, and the latents.
        let latents = wide(size.tokens) * wide(8 * config.in_channels);
        let tables = wide(rows) * wide(config.attention_head_dim);
        // What the first block added and what all others did, with text and without, and two in a
        // call.
        let cached = if size.step_cache.is_some() { 6 * wide(size.tokens) * wide(dim) } else { 0 };
        let bytes = wide(size.number) * (contexts + block + cached) + 4 * (latents + tables);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    fn load(&self, weights: &Weights) -> Result<Arc<dyn Denoiser>> {
        Ok(Arc::new(Dit::load(&self.config, weights)?))
    }
}

impl Denoiser for Dit {
    fn project(&self, conditioning: &Embeddings) -> Result<Projected> {
        let get = |name: &str| {
            let found = conditioning.get(name).map(|embedding| &embedding.tensor);
            found.ok_or_else(|| Error::input(format!("there is no `{name}` in the conditioning")))
        };
        Ok(Projected::new(self.context(get(TEXT)?, get(POOLED)?)?))
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
        Dit::velocity_cached(self, latents, &Projected::all(conditioning)?, caches, check_cancel)
    }
}

/// The autoencoder before its weights are read.
struct FluxVae(AutoencoderConfig);

impl VideoVae for FluxVae {
    fn latents(&self) -> LatentLayout {
        LatentLayout {
            channels: self.0.latent_channels,
            temporal: 1,
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

    fn encoder_weights(&self) -> &[&str] {
        &["encoder.", "quant_conv."]
    }

    fn decoder_weights(&self) -> &[&str] {
        &["decoder.", "post_quant_conv."]
    }

    fn load_encoder(&self, weights: &Weights) -> Result<Arc<dyn FrameEncoder>> {
        Ok(Arc::new(Encoder::load(&self.0, weights)?))
    }

    fn load_decoder(&self, weights: &Weights) -> Result<Arc<dyn FrameDecoder>> {
        Ok(Arc::new(Decoder::load(&self.0, weights)?))
    }
}
