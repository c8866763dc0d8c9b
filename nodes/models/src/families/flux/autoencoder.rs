//! `vae/config.json`: the sizes of `AutoencoderKL`.

use serde::Deserialize;

use crate::checkpoint::{ModelFiles, invalid, require_positive, require_sizes, unsupported};
use crate::error::Result;

/// The sizes of `AutoencoderKL`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct AutoencoderConfig {
    #[serde(rename = "_class_name")]
    class: String,
    #[serde(default = "rgb")]
    in_channels: usize,
    #[serde(default = "rgb")]
    out_channels: usize,
    #[serde(default)]
    down_block_types: Option<Vec<String>>,
    #[serde(default)]
    up_block_types: Option<Vec<String>>,
    /// Channels of each level, from the frames' side.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of a level (the decoder has one more).
    #[serde(default = "one")]
    pub layers_per_block: usize,
    #[serde(default = "silu")]
    act_fn: String,
    /// Channels of the latent.
    #[serde(default = "four")]
    pub latent_channels: usize,
    /// Groups of channels of each norm.
    #[serde(default = "groups")]
    pub norm_num_groups: usize,
    /// A latent is normalised as (z − shift)·scaling.
    #[serde(default = "scaling")]
    pub scaling_factor: f64,
    #[serde(default)]
    shift_factor: Option<f64>,
    #[serde(default)]
    latents_mean: Option<Vec<f64>>,
    #[serde(default)]
    latents_std: Option<Vec<f64>>,
    /// Whether a convolution of one pixel follows the encoder.
    #[serde(default = "yes")]
    pub use_quant_conv: bool,
    /// Whether one stands before the decoder.
    #[serde(default = "yes")]
    pub use_post_quant_conv: bool,
    /// Whether there is attention among the pixels in the middle of both networks.
    #[serde(default = "yes")]
    pub mid_block_add_attention: bool,
}

/// The most levels: each halves the sides, so that published ones have four.
const MAX_LEVELS: usize = 16;
/// The most residual blocks of a level.
const MAX_BLOCKS: usize = 256;

fn rgb() -> usize {
    3
}

fn one() -> usize {
    1
}

fn silu() -> String {
    "silu".to_owned()
}

fn four() -> usize {
    4
}

fn groups() -> usize {
    32
}

fn scaling() -> f64 {
    0.18215
}

fn yes() -> bool {
    true
}

impl AutoencoderConfig {
    pub(crate) const FILE: &'static str = "vae/config.json";

    /// Reads and checks `vae/config.json`.
    ///
    /// # Errors
    /// When it is missing, lacks a key, contradicts itself, or describes another autoencoder.
    pub fn read(files: &impl ModelFiles) -> Result<Self> {
        let config: Self = files.json(Self::FILE)?;
        config.check_kind(files)?;
        config.check_sizes(files)?;
        Ok(config)
    }

    fn check_kind(&self, files: &impl ModelFiles) -> Result<()> {
        let refuse = |what: String| Err(unsupported(files, Self::FILE, what));
        if self.class != "AutoencoderKL" {
            return refuse(format!("the autoencoder `{}`", self.class));
        }
        if (self.in_channels, self.out_channels) != (3, 3) {
            let (given, out) = (self.in_channels, self.out_channels);
            return refuse(format!("in_channels {given} and out_channels {out}"));
        }
        for (key, kinds, own) in [
            ("down_block_types", &self.down_block_types, "DownEncoderBlock2D"),
            ("up_block_types", &self.up_block_types, "UpDecoderBlock2D"),
        ] {
            let Some(kinds) = kinds else { continue };
            if let Some(other) = kinds.iter().find(|kind| *kind != own) {
                return refuse(format!("`{other}` among the {key}"));
            }
            if kinds.len() != self.block_out_channels.len() {
                let (found, levels) = (kinds.len(), self.block_out_channels.len());
                let reason = format!("`{key}` names {found} levels, `block_out_channels` {levels}");
                return Err(invalid(files, Self::FILE, reason));
            }
        }
        if !["silu", "swish"].contains(&self.act_fn.as_str()) {
            return refuse(format!("act_fn `{}`", self.act_fn));
        }
        match (&self.latents_mean, &self.latents_std) {
            (None, None) => Ok(()),
            (Some(_), _) => refuse("the option `latents_mean`".to_owned()),
            (None, Some(_)) => refuse("the option `latents_std`".to_owned()),
        }
    }

    fn check_sizes(&self, files: &impl ModelFiles) -> Result<()> {
        let wrong = |reason: String| Err(invalid(files, Self::FILE, reason));
        let levels = self.block_out_channels.len();
        let mut sizes = vec![
            ("block_out_channels", levels),
            ("layers_per_block", self.layers_per_block),
            ("latent_channels", self.latent_channels),
            ("norm_num_groups", self.norm_num_groups),
        ];
        sizes.extend(
            self.block_out_channels.iter().map(|channels| ("block_out_channels", *channels)),
        );
        require_sizes(files, Self::FILE, &sizes)?;
        require_positive(files, Self::FILE, &[("scaling_factor", self.scaling_factor)])?;
        if levels > MAX_LEVELS || self.layers_per_block > MAX_BLOCKS {
            let blocks = self.layers_per_block;
            return wrong(format!("{levels} levels of {blocks} blocks, which no model has"));
        }
        if !self.shift().is_finite() {
            return wrong("`shift_factor` must be finite".to_owned());
        }
        let groups = self.norm_num_groups;
        match self.block_out_channels.iter().find(|channels| !channels.is_multiple_of(groups)) {
            Some(channels) => wrong(format!(
                "`block_out_channels` has {channels}, which `norm_num_groups` {groups} does not \
                 divide"
            )),
            None => Ok(()),
        }
    }

    /// What is taken from a latent before it is scaled.
    pub fn shift(&self) -> f64 {
        self.shift_factor.unwrap_or(0.0)
    }

    /// Pixels along each side of a latent pixel.
    pub fn spatial_factor(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }
}
