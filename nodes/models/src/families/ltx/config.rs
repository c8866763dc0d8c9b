//! What a model says about itself in its config files, read and checked against each other.

use serde::Deserialize;

use super::autoencoder::VaeConfig;
use super::transformer::TransformerConfig;
use crate::checkpoint::{ModelFiles, invalid, part_names};
use crate::error::{Error, Result};
use crate::sampling::{SchedulerConfig, Spacing};
use crate::text::{Padding, PromptForm, TextConfig, TokenizerConfig};

/// How prompts are handed to T5 before 0.9.5: it sees its padding, the transformer does not
/// (diffusers' `pipeline_ltx.py`).
pub(super) const PROMPTS: PromptForm = PromptForm {
    model_type: "t5",
    encoder: part_names::TEXT_ENCODER,
    tokenizer: "tokenizer",
    max_rows: 128,
    is_cleaned: false,
    padding: Padding::Tokens { is_masked: true },
};

/// The same from 0.9.5 on: neither sees it (`pipeline_ltx_condition.py`).
const NEW_PROMPTS: PromptForm =
    PromptForm { max_rows: 256, padding: Padding::Zeros { is_masked: true }, ..PROMPTS };

/// A part as `model_index.json` lists it: library and class, or two nulls where it has none.
type PartEntry = Option<(Option<String>, Option<String>)>;

/// `model_index.json`: which parts a model has, and which pipeline drives them.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ModelIndex {
    #[serde(rename = "_class_name")]
    class: String,
    #[serde(default)]
    text_encoder: PartEntry,
    #[serde(default)]
    transformer: PartEntry,
    #[serde(default)]
    vae: PartEntry,
}

impl ModelIndex {
    pub(super) const FILE: &'static str = "model_index.json";
    /// Pipelines of 0.9.0 and 0.9.1; and that of 0.9.5 and later, which counts time from the end of
    /// what a latent frame stands for, and has other noise levels.
    pub(super) const CLASSES: [&'static str; 3] =
        ["LTXPipeline", "LTXImageToVideoPipeline", Self::NEW];
    pub(super) const NEW: &'static str = "LTXConditionPipeline";

    /// Whether a model is driven as those of 0.9.5 and later.
    pub(super) fn is_new(files: &impl ModelFiles) -> bool {
        files.json::<Self>(Self::FILE).is_ok_and(|index| index.class == Self::NEW)
    }

    /// Whether a model names one of the pipelines.
    pub(super) fn is_one(files: &impl ModelFiles) -> bool {
        let index = files.json::<Self>(Self::FILE);
        index.is_ok_and(|index| Self::CLASSES.contains(&index.class.as_str()))
    }
}

/// All configs of a model, read and checked against each other.
#[derive(Debug, Clone)]
pub(super) struct ModelConfig {
    /// T5 and its tokenizer, if the model has it.
    pub(super) text: Option<(TextConfig, TokenizerConfig)>,
    pub(super) transformer: Option<TransformerConfig>,
    pub(super) vae: Option<VaeConfig>,
    pub(super) scheduler: SchedulerConfig,
    /// How prompts are handed to the text encoder.
    pub(super) prompts: PromptForm,
    /// Whether time is counted from the end of what a latent frame stands for.
    pub(super) counts_from_end: bool,
}

impl ModelConfig {
    /// Reads every config of a model. Weights are not touched.
    ///
    /// # Errors
    /// When a config is missing, lacks a key, asks for something that this version does not do, or
    /// contradicts another one.
    pub(super) fn read(files: &impl ModelFiles) -> Result<Self> {
        let index: ModelIndex = files.json(ModelIndex::FILE)?;
        let has = |entry: &PartEntry| matches!(entry, Some((_, Some(_))));
        let is_new = index.class == ModelIndex::NEW;
        let prompts = if is_new { NEW_PROMPTS } else { PROMPTS };
        let text = || {
            let config = TextConfig::read(files, &prompts)?;
            Ok::<_, Error>((config, TokenizerConfig::read(files, &prompts)?))
        };
        let transformer = || TransformerConfig::read(files);
        let vae = || VaeConfig::read(files);
        let spacing = if is_new { Spacing::LinearQuadratic } else { Spacing::Steps };
        let config = Self {
            text: has(&index.text_encoder).then(text).transpose()?,
            transformer: has(&index.transformer).then(transformer).transpose()?,
            vae: has(&index.vae).then(vae).transpose()?,
            scheduler: SchedulerConfig::read(files)?.spaced(spacing),
            prompts,
            counts_from_end: is_new,
        };
        config.check(files)?;
        Ok(config)
    }

    fn check(&self, files: &impl ModelFiles) -> Result<()> {
        let Some(transformer) = &self.transformer else { return Ok(()) };
        let differ = |key: &str, own: usize, other: &str, found: usize| {
            let reason = format!("`{key}` is {own}, but {other} is {found}");
            Err(invalid(files, TransformerConfig::FILE, reason))
        };
        let (rows, channels) = (transformer.caption_channels, transformer.in_channels);
        match (&self.text, &self.vae) {
            (Some((text, _)), _) if text.d_model != rows => {
                differ("caption_channels", rows, "T5's `d_model`", text.d_model)
            }
            (_, Some(vae)) if vae.latent_channels != channels => {
                differ("in_channels", channels, "the VAE's `latent_channels`", vae.latent_channels)
            }
            _ => Ok(()),
        }
    }
}
