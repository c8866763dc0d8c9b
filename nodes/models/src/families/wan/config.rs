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
use crate::image::{ClipConfig, PrepareConfig};
use crate::sampling::SchedulerConfig;
use crate::text::{Padding, PromptForm, TextConfig, TokenizerConfig};

/// How Wan's pipelines hand prompts to UMT5 (diffusers' `pipeline_wan.py`).
pub const PROMPTS: PromptForm = PromptForm {
    model_type: "umt5",
    encoder: "text_encoder",
    tokenizer: "tokenizer",
    max_rows: 512,
    is_cleaned: true,
    padding: Padding::Zeros { is_masked: false },
};

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
    /// The pipelines that are run.
    pub(super) const CLASSES: [&'static str; 3] =
        ["WanPipeline", "WanImageToVideoPipeline", "WanVACEPipeline"];

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
        if !Self::CLASSES.contains(&index.class.as_str()) {
            return Err(unsupported(folder, Self::FILE, format!("`{}`", index.class)));
        }
        index.check(folder)?;
        Ok(index)
    }

    /// Two experts and where they are switched go together.
    fn check(&self, folder: &impl ModelFiles) -> Result<()> {
        let reason = match (self.has("transformer_2"), self.boundary_ratio) {
            (true, None) => "`transformer_2` needs a `boundary_ratio`: where it takes over",
            (false, Some(_)) => "`boundary_ratio` needs a `transformer_2`: what takes over",
            (true, Some(ratio)) if !(0.0..=1.0).contains(&ratio) => {
                "`boundary_ratio` is a part of the noise, from 0 to 1"
            }
            (true, Some(_)) if !self.has("transformer") => {
                "`transformer_2` without `transformer`: one expert alone is no model"
            }
            _ => return Ok(()),
        };
        Err(invalid(folder, Self::FILE, reason))
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
    /// The image encoder and how pictures are made ready for it, if the model has them.
    pub image: Option<(ClipConfig, PrepareConfig)>,
    /// The transformer, if the model has one.
    pub transformer: Option<TransformerConfig>,
    /// The second of two experts, if the model has one, and the timestep below which it computes.
    pub low_noise: Option<(f64, TransformerConfig)>,
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
            .then(|| {
                let config = TextConfig::read(folder, &PROMPTS)?;
                Ok::<_, Error>((config, TokenizerConfig::read(folder, &PROMPTS)?))
            })
            .transpose()?;
        let image = index
            .has("image_encoder")
            .then(|| {
                let config = ClipConfig::read(folder)?;
                let prepare = PrepareConfig::read(folder, &config)?;
                Ok::<_, Error>((config, prepare))
            })
            .transpose()?;
        let transformer =
            index.has("transformer").then(|| TransformerConfig::read(folder)).transpose()?;
        let vae = index.has("vae").then(|| VaeConfig::read(folder)).transpose()?;
        let scheduler = SchedulerConfig::read(folder)?;
        let low_noise = index
            .boundary_ratio
            .map(|ratio| {
                let config = TransformerConfig::read_from(folder, TransformerConfig::LOW_NOISE)?;
                Ok::<_, Error>((ratio * scheduler.num_train_timesteps as f64, config))
            })
            .transpose()?;
        let config = Self { index, text, image, transformer, low_noise, vae, scheduler };
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
        if let Some((_, low)) = &self.low_noise {
            let differences = low.differences(transformer);
            if !differences.is_empty() {
                let reason = format!(
                    "the second expert reads other sizes than the first: {}",
                    differences.join(", ")
                );
                return Err(invalid(folder, TransformerConfig::LOW_NOISE, reason));
            }
        }
        self.check_given(folder, transformer)?;
        self.check_control(folder, transformer)
    }

    /// A control is two latents and a mask of each pixel that a latent pixel stands for.
    fn check_control(
        &self,
        folder: &impl ModelFiles,
        transformer: &TransformerConfig,
    ) -> Result<()> {
        let (Some(control), Some(vae)) = (transformer.control(), &self.vae) else { return Ok(()) };
        let (latent, pixels) = (vae.z_dim, vae.spatial_factor().saturating_pow(2));
        if control.channels == 2 * latent + pixels {
            return Ok(());
        }
        let found = control.channels;
        Err(unsupported(
            folder,
            TransformerConfig::FILE,
            format!(
                "a control of {found} channels, which is not two latents of {latent} and a mask of \
                 {pixels} pixels"
            ),
        ))
    }

    /// What an image encoder and the autoencoder give is what the transformer reads.
    fn check_given(&self, folder: &impl ModelFiles, transformer: &TransformerConfig) -> Result<()> {
        let wrong = |reason: String| Err(invalid(folder, TransformerConfig::FILE, reason));
        if let (Some((image, _)), Some(width)) = (&self.image, transformer.image_dim)
            && image.hidden_size != width
        {
            let found = image.hidden_size;
            return wrong(format!("image_dim is {width}, but the image encoder's is {found}"));
        }
        if let (Some((image, _)), Some(rows)) = (&self.image, transformer.pos_embed_seq_len)
            && rows != 2 * image.rows()
        {
            let found = 2 * image.rows();
            return wrong(format!(
                "pos_embed_seq_len is {rows}, but two pictures are {found} rows"
            ));
        }
        if let (Some(vae), Some(mask)) = (&self.vae, transformer.mask_channels())
            && vae.temporal_factor() != mask
        {
            let (frames, given, out) =
                (vae.temporal_factor(), transformer.in_channels, transformer.out_channels);
            return Err(unsupported(
                folder,
                TransformerConfig::FILE,
                format!(
                    "conditioning by extra channels ({given} in, {out} out) that is no mask of \
                     {frames} frames and a latent"
                ),
            ));
        }
        Ok(())
    }
}
