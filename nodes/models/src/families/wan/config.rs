//! What a model says about itself in its config files: sizes and kinds, never weights.
//!
//! Plans are made from these alone. Keys are those of diffusers and transformers; unknown ones are
//! ignored, a missing one is an error that names file and key, and whatever this version cannot run
//! is refused here, before any weight is touched.

use serde::Deserialize;

use super::autoencoder::VaeConfig;
use super::transformer::TransformerConfig;
use crate::checkpoint::{ModelFiles, invalid, unsupported};
use crate::error::{Error, Result};
use crate::sampling::SchedulerConfig;
use crate::text::{TextConfig, TokenizerConfig};

/// A part as `model_index.json` lists it: library and class, or two nulls where it has none.
type PartEntry = Option<(Option<String>, Option<String>)>;

/// `model_index.json`: which parts a model has and how its pipeline drives them.
#[derive(Debug, Clone, Deserialize)]
pub struct ModelIndex {
    #[serde(rename = "_class_name")]
    class: String,
    /// Whether every token has its own timestep (Wan 2.2 TI2V), so that given frames can stand at
    /// 0.
    #[serde(default)]
    pub expand_timesteps: bool,
    /// The part of the noise above which the first of two experts runs (Wan 2.2 A14B).
    #[serde(default)]
    pub boundary_ratio: Option<f64>,
    #[serde(default)]
    text_encoder: PartEntry,
    #[serde(default)]
    transformer: PartEntry,
    #[serde(default)]
    transformer_2: PartEntry,
    #[serde(default)]
    vae: PartEntry,
    #[serde(default)]
    image_encoder: PartEntry,
}

impl ModelIndex {
    const FILE: &'static str = "model_index.json";

    /// The pipeline that a model names.
    ///
    /// # Errors
    /// When `model_index.json` is missing or unreadable.
    pub fn class(files: &impl ModelFiles) -> Result<String> {
        #[derive(Deserialize)]
        struct Class {
            #[serde(rename = "_class_name")]
            class: String,
        }
        Ok(files.json::<Class>(Self::FILE)?.class)
    }

    /// Reads and checks `model_index.json`.
    ///
    /// # Errors
    /// When it is missing or unreadable, or names a pipeline that this version does not run.
    pub fn read(folder: &impl ModelFiles) -> Result<Self> {
        let index: Self = folder.json(Self::FILE)?;
        if index.class != "WanPipeline" {
            return Err(unsupported(folder, Self::FILE, format!("`{}`", index.class)));
        }
        if index.has("transformer_2") || index.boundary_ratio.is_some() {
            let what = "a second expert (transformer_2, as in Wan 2.2 A14B)";
            return Err(unsupported(folder, Self::FILE, what));
        }
        Ok(index)
    }

    /// Whether the model has the part `text_encoder`, `transformer`, `transformer_2`, `vae` or
    /// `image_encoder`.
    pub fn has(&self, part: &str) -> bool {
        let entry = match part {
            "text_encoder" => &self.text_encoder,
            "transformer" => &self.transformer,
            "transformer_2" => &self.transformer_2,
            "vae" => &self.vae,
            "image_encoder" => &self.image_encoder,
            _ => return false,
        };
        matches!(entry, Some((_, Some(_))))
    }
}

/// All configs of a model, read and checked against each other.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    /// Which parts there are.
    pub index: ModelIndex,
    /// The text encoder and its tokenizer, if the model has them.
    pub text: Option<(TextConfig, TokenizerConfig)>,
    /// The transformer, if the model has one.
    pub transformer: Option<TransformerConfig>,
    /// The video autoencoder, if the model has one.
    pub vae: Option<VaeConfig>,
    /// The scheduler that the model was made for.
    pub scheduler: SchedulerConfig,
}

impl ModelConfig {
    /// Reads every config of a model. Weights are not touched.
    ///
    /// # Errors
    /// When a config is missing, lacks a key, asks for something that this version does not do, or
    /// contradicts another one.
    pub fn read(folder: &impl ModelFiles) -> Result<Self> {
        let index = ModelIndex::read(folder)?;
        let text = index
            .has("text_encoder")
            .then(|| Ok::<_, Error>((TextConfig::read(folder)?, TokenizerConfig::read(folder)?)))
            .transpose()?;
        let transformer =
            index.has("transformer").then(|| TransformerConfig::read(folder)).transpose()?;
        let vae = index.has("vae").then(|| VaeConfig::read(folder)).transpose()?;
        let scheduler = SchedulerConfig::read(folder)?;
        let config = Self { index, text, transformer, vae, scheduler };
        config.check(folder)?;
        Ok(config)
    }

    fn check(&self, folder: &impl ModelFiles) -> Result<()> {
        let Some(transformer) = &self.transformer else { return Ok(()) };
        let file = TransformerConfig::FILE;
        if let Some((text, _)) = &self.text
            && text.d_model != transformer.text_dim
        {
            let (a, b) = (transformer.text_dim, text.d_model);
            let reason = format!("text_dim is {a}, but the text encoder's d_model is {b}");
            return Err(invalid(folder, file, reason));
        }
        if let Some(vae) = &self.vae
            && vae.z_dim != transformer.out_channels
        {
            let (a, b) = (transformer.out_channels, vae.z_dim);
            return Err(invalid(folder, file, format!("out_channels is {a}, but the VAE has {b}")));
        }
        Ok(())
    }
}
