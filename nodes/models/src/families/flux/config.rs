//! What a model says about itself in its config files, read and checked against each other.

use serde::Deserialize;

use super::autoencoder::AutoencoderConfig;
use super::transformer::TransformerConfig;
use crate::checkpoint::{ModelFiles, invalid, part_names};
use crate::error::{Error, Result};
use crate::sampling::{SchedulerConfig, Spacing};
use crate::text::clip::ClipTextConfig;
use crate::text::{Padding, PromptForm, TextConfig, TokenizerConfig};

/// How prompts are handed to T5: padding tokens are encoded with the prompt, and count.
pub(super) const PROMPTS: PromptForm = PromptForm {
    model_type: "t5",
    encoder: part_names::TEXT_ENCODER_2,
    tokenizer: "tokenizer_2",
    max_rows: 512,
    is_cleaned: false,
    padding: Padding::Tokens { is_masked: false },
};

/// The folder of CLIP's tokenizer.
pub(super) const TOKENIZER: &str = "tokenizer";

/// A part as `model_index.json` lists it: library and class, or two nulls where it has none.
type PartEntry = Option<(Option<String>, Option<String>)>;

/// `model_index.json`: which parts a model has.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ModelIndex {
    #[serde(rename = "_class_name")]
    class: String,
    #[serde(default)]
    text_encoder: PartEntry,
    #[serde(default)]
    text_encoder_2: PartEntry,
    #[serde(default)]
    transformer: PartEntry,
    #[serde(default)]
    vae: PartEntry,
}

impl ModelIndex {
    const FILE: &'static str = "model_index.json";
    /// The pipelines that are run: one network, whatever it begins with.
    const CLASSES: [&'static str; 2] = ["FluxPipeline", "FluxImg2ImgPipeline"];

    /// Whether a model names one of the pipelines.
    pub(super) fn is_one(files: &impl ModelFiles) -> bool {
        let index = files.json::<Self>(Self::FILE);
        index.is_ok_and(|index| Self::CLASSES.contains(&index.class.as_str()))
    }
}

/// All configs of a model, read and checked against each other.
#[derive(Debug, Clone)]
pub(super) struct ModelConfig {
    /// CLIP, if the model has it.
    pub(super) clip: Option<ClipTextConfig>,
    /// T5 and its tokenizer, if the model has it.
    pub(super) text: Option<(TextConfig, TokenizerConfig)>,
    pub(super) transformer: Option<TransformerConfig>,
    pub(super) vae: Option<AutoencoderConfig>,
    pub(super) scheduler: SchedulerConfig,
}

impl ModelConfig {
    /// Reads every config of a model. Weights are not touched.
    pub(super) fn read(files: &impl ModelFiles) -> Result<Self> {
        let index: ModelIndex = files.json(ModelIndex::FILE)?;
        let has = |entry: &PartEntry| matches!(entry, Some((_, Some(_))));
        let text = || {
            let config = TextConfig::read(files, &PROMPTS)?;
            Ok::<_, Error>((config, TokenizerConfig::read(files, &PROMPTS)?))
        };
        let clip = || ClipTextConfig::read(files, part_names::TEXT_ENCODER);
        let transformer = || TransformerConfig::read(files);
        let vae = || AutoencoderConfig::read(files);
        let config = Self {
            clip: has(&index.text_encoder).then(clip).transpose()?,
            text: has(&index.text_encoder_2).then(text).transpose()?,
            transformer: has(&index.transformer).then(transformer).transpose()?,
            vae: has(&index.vae).then(vae).transpose()?,
            scheduler: SchedulerConfig::read(files)?.spaced(Spacing::Steps),
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
        let (pooled, rows) = (transformer.pooled_projection_dim, transformer.joint_attention_dim);
        match (&self.clip, &self.text, &self.vae) {
            (Some(clip), ..) if clip.hidden_size != pooled => {
                differ("pooled_projection_dim", pooled, "CLIP's `hidden_size`", clip.hidden_size)
            }
            (_, Some((text, _)), _) if text.d_model != rows => {
                differ("joint_attention_dim", rows, "T5's `d_model`", text.d_model)
            }
            (_, _, Some(vae)) if vae.latent_channels != transformer.latent_channels() => {
                let (own, found) = (transformer.in_channels, 4 * vae.latent_channels);
                differ("in_channels", own, "four times the VAE's `latent_channels`", found)
            }
            _ => Ok(()),
        }
    }
}
