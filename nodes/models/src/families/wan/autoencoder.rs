//! `vae/config.json`: the sizes of `AutoencoderKLWan`.

use serde::Deserialize;

use crate::checkpoint::{ModelFiles, invalid, require_positive, require_sizes, unsupported};
use crate::error::Result;

/// The sizes of `AutoencoderKLWan` (2.1 form).
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct VaeConfig {
    #[serde(rename = "_class_name")]
    class: String,
    /// Channels of the first level.
    pub base_dim: usize,
    /// Channels of the decoder's last level, where they differ from the encoder's first.
    #[serde(default)]
    pub decoder_base_dim: Option<usize>,
    /// Channels of the latent.
    pub z_dim: usize,
    /// Channels of each level, in units of `base_dim`.
    pub dim_mult: Vec<usize>,
    /// Residual blocks a level (the decoder has one more).
    pub num_res_blocks: usize,
    /// Scales at which the encoder has attention outside the middle (none in published models).
    #[serde(default)]
    pub attn_scales: Vec<f64>,
    /// For each change of level, whether time is halved too (diffusers' spelling).
    pub temperal_downsample: Vec<bool>,
    /// Mean of each latent channel: a latent is normalised as (z − mean)/std.
    pub latents_mean: Vec<f64>,
    /// Standard deviation of each latent channel.
    pub latents_std: Vec<f64>,
    /// The 2.2 form, with shortcuts around whole levels.
    #[serde(default)]
    pub is_residual: bool,
    /// Channels of a frame.
    #[serde(default = "rgb")]
    pub in_channels: usize,
    /// Channels of a decoded frame.
    #[serde(default = "rgb")]
    pub out_channels: usize,
    /// Pixels folded into channels before the first level (2.2 form).
    #[serde(default)]
    pub patch_size: Option<usize>,
}

/// The most levels of an autoencoder: each halves the sides, so that published ones have four.
const MAX_LEVELS: usize = 16;
/// The most residual blocks of a level.
const MAX_BLOCKS: usize = 256;

fn rgb() -> usize {
    3
}

impl VaeConfig {
    pub(crate) const FILE: &'static str = "vae/config.json";

    /// Reads and checks `vae/config.json`.
    ///
    /// # Errors
    /// When it is missing, lacks a key, contradicts itself, or describes another autoencoder than
    /// the 2.1 form.
    pub fn read(folder: &impl ModelFiles) -> Result<Self> {
        let config: Self = folder.json(Self::FILE)?;
        config.check(folder)?;
        Ok(config)
    }

    fn check(&self, folder: &impl ModelFiles) -> Result<()> {
        let file = Self::FILE;
        if self.class != "AutoencoderKLWan" {
            return Err(unsupported(folder, file, format!("the autoencoder `{}`", self.class)));
        }
        let patched = self.patch_size.is_some_and(|size| size != 1);
        if self.is_residual || patched {
            let what = "the residual autoencoder of Wan 2.2 (is_residual)";
            return Err(unsupported(folder, file, what));
        }
        if (self.in_channels, self.out_channels) != (3, 3) {
            return Err(unsupported(folder, file, "an autoencoder for other than three channels"));
        }
        let sizes = [
            ("base_dim", self.base_dim),
            ("decoder_base_dim", self.decoder_base_dim.unwrap_or(1)),
            ("z_dim", self.z_dim),
            ("num_res_blocks", self.num_res_blocks),
            ("dim_mult", self.dim_mult.len()),
        ];
        require_sizes(folder, file, &sizes)?;
        if self.dim_mult.len() > MAX_LEVELS || self.num_res_blocks > MAX_BLOCKS {
            let reason = format!(
                "`dim_mult` has {} levels of {} blocks, which no model has",
                self.dim_mult.len(),
                self.num_res_blocks
            );
            return Err(invalid(folder, file, reason));
        }
        for base in [self.base_dim, self.decoder_base_dim.unwrap_or(1)] {
            let widths = self.dim_mult.iter().map(|mult| ("dim_mult", base.saturating_mul(*mult)));
            require_sizes(folder, file, &widths.collect::<Vec<_>>())?;
        }
        if self.temperal_downsample.len() + 1 != self.dim_mult.len() {
            let reason = "`temperal_downsample` must be one shorter than `dim_mult`";
            return Err(invalid(folder, file, reason));
        }
        for (key, values) in
            [("latents_mean", &self.latents_mean), ("latents_std", &self.latents_std)]
        {
            if values.len() != self.z_dim {
                let reason =
                    format!("`{key}` has {} values, z_dim is {}", values.len(), self.z_dim);
                return Err(invalid(folder, file, reason));
            }
        }
        let deviations = self.latents_std.iter().map(|std| ("latents_std", *std));
        require_positive(folder, file, &deviations.collect::<Vec<_>>())
    }

    /// Pixels along each side of one latent pixel: 8 in published models.
    pub fn spatial_factor(&self) -> usize {
        1 << (self.dim_mult.len() - 1)
    }

    /// Frames to one latent frame, after the first: 4 in published models.
    pub fn temporal_factor(&self) -> usize {
        1 << self.temperal_downsample.iter().filter(|down| **down).count()
    }

    /// Latent frames of a clip, or `None` where `frames` is not a whole number of chunks past one
    /// (4k+1 in published models).
    pub fn latent_frames(&self, frames: usize) -> Option<usize> {
        let (past_first, factor) = (frames.checked_sub(1)?, self.temporal_factor());
        past_first.is_multiple_of(factor).then_some(past_first / factor + 1)
    }

    /// Frames of a clip of so many latent frames.
    pub fn frames(&self, latent_frames: usize) -> usize {
        latent_frames.saturating_sub(1) * self.temporal_factor() + usize::from(latent_frames > 0)
    }
}
