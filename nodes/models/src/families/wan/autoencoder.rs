//! `vae/config.json`: the sizes of `AutoencoderKLWan`.

use serde::Deserialize;

use crate::checkpoint::{ModelFiles, invalid, require_positive, require_sizes, unsupported};
use crate::error::Result;

/// The sizes of `AutoencoderKLWan` (2.1 and 2.2 form).
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
    /// When it is missing, lacks a key, contradicts itself, or describes another autoencoder.
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
        require_sizes(folder, file, &[("patch_size", self.patch())])?;
        let channels = 3 * self.patch().saturating_pow(2);
        if (self.in_channels, self.out_channels) != (channels, channels) {
            let what = "an autoencoder for other than three channels a pixel";
            return Err(unsupported(folder, file, what));
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
        self.check_shortcuts(folder)?;
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

    /// The shortcuts of the residual form average and repeat whole groups of channels.
    fn check_shortcuts(&self, folder: &impl ModelFiles) -> Result<()> {
        if !self.is_residual {
            return Ok(());
        }
        let wider = |inner: usize, outer: usize, level: usize| {
            let volume = match self.temperal_downsample.get(level) {
                Some(true) => 8,
                Some(false) => 4,
                None => 1,
            };
            (inner * volume).is_multiple_of(outer)
        };
        let before = |level: usize| level.checked_sub(1).map_or(1, |level| self.dim_mult[level]);
        let down = |level: usize| wider(before(level), self.dim_mult[level], level);
        let last = self.dim_mult.len() - 1;
        // The decoder's level `up` undoes the encoder's `last − 1 − up` and begins as wide as the
        // level before it.
        let mult = |up: usize| self.dim_mult[last - up];
        let up = |up: usize| {
            let widths = (mult(up), mult(up.saturating_sub(1)));
            wider(widths.0, widths.1, last - 1 - up)
        };
        if (0..=last).all(down) && (0..last).all(up) {
            return Ok(());
        }
        let reason = "`dim_mult` does not divide into the groups of a residual autoencoder";
        Err(invalid(folder, Self::FILE, reason))
    }

    /// Pixels along each side that are folded into one before the first level: 2 in the 2.2 form.
    pub fn patch(&self) -> usize {
        self.patch_size.unwrap_or(1)
    }

    /// Pixels along each side of one latent pixel: 8 in published models, 16 in the 2.2 form.
    pub fn spatial_factor(&self) -> usize {
        self.patch() << (self.dim_mult.len() - 1)
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
