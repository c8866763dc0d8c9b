//! `transformer/config.json`: the sizes of `FluxTransformer2DModel`.

use serde::Deserialize;

use crate::checkpoint::{LARGEST_SIZE, ModelFiles, invalid, require_sizes, unsupported};
use crate::error::Result;
use crate::weight::Heads;

/// The sizes of `FluxTransformer2DModel`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct TransformerConfig {
    #[serde(rename = "_class_name")]
    class: String,
    #[serde(default = "one")]
    patch_size: usize,
    /// Width of a patch: the latent's channels, four pixels of each.
    #[serde(default = "sixty_four")]
    pub in_channels: usize,
    #[serde(default)]
    out_channels: Option<usize>,
    /// Blocks in which text and picture have layers of their own.
    pub num_layers: usize,
    /// Blocks in which they share them.
    pub num_single_layers: usize,
    /// Width of one head.
    pub attention_head_dim: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Width of a row of text.
    pub joint_attention_dim: usize,
    /// Width of the vector of the whole text.
    pub pooled_projection_dim: usize,
    /// Whether it is told how strongly the text leads (dev), or was distilled without (schnell).
    #[serde(default)]
    pub guidance_embeds: bool,
    /// How much of a head turns by frame, row and column.
    #[serde(default = "axes")]
    pub axes_dims_rope: [usize; 3],
}

/// The most blocks of a kind.
const MAX_LAYERS: usize = 1024;
/// Latent pixels along each side of a patch.
pub(super) const PATCH: usize = 2;

fn one() -> usize {
    1
}

fn sixty_four() -> usize {
    64
}

fn axes() -> [usize; 3] {
    [16, 56, 56]
}

impl TransformerConfig {
    pub(crate) const FILE: &'static str = "transformer/config.json";

    /// Reads and checks `transformer/config.json`.
    ///
    /// # Errors
    /// When it is missing, lacks a key, or describes a transformer that this version does not run.
    pub fn read(files: &impl ModelFiles) -> Result<Self> {
        let config: Self = files.json(Self::FILE)?;
        config.check(files)?;
        Ok(config)
    }

    fn check(&self, files: &impl ModelFiles) -> Result<()> {
        let refuse = |what: String| Err(unsupported(files, Self::FILE, what));
        if self.class != "FluxTransformer2DModel" {
            return refuse(format!("the transformer `{}`", self.class));
        }
        if self.patch_size != 1 {
            return refuse(format!("patch_size {}", self.patch_size));
        }
        let out = self.out_channels.unwrap_or(self.in_channels);
        if out != self.in_channels {
            let given = self.in_channels;
            return refuse(format!("out_channels {out} of in_channels {given}"));
        }
        let sizes = [
            ("in_channels", self.in_channels),
            ("num_attention_heads", self.num_attention_heads),
            ("attention_head_dim", self.attention_head_dim),
            ("joint_attention_dim", self.joint_attention_dim),
            ("pooled_projection_dim", self.pooled_projection_dim),
        ];
        require_sizes(files, Self::FILE, &sizes)?;
        let wrong = |reason: String| Err(invalid(files, Self::FILE, reason));
        let (double, single) = (self.num_layers, self.num_single_layers);
        if self.dim() > LARGEST_SIZE / 8 || double.max(single) > MAX_LAYERS {
            let wide = self.dim();
            return wrong(format!("{double} and {single} layers {wide} wide, which no model has"));
        }
        if !self.in_channels.is_multiple_of(PATCH * PATCH) {
            let found = self.in_channels;
            return wrong(format!("`in_channels` is {found}: a patch is four pixels of a latent"));
        }
        let axes = self.axes_dims_rope;
        let sum = axes.iter().try_fold(0usize, |sum, axis| sum.checked_add(*axis));
        if axes.iter().any(|axis| axis % 2 == 1) || sum != Some(self.attention_head_dim) {
            let head = self.attention_head_dim;
            return wrong(format!(
                "`axes_dims_rope` is {axes:?}: even numbers whose sum is `attention_head_dim` {head}"
            ));
        }
        Ok(())
    }

    /// Width of a token: heads × head width.
    pub fn dim(&self) -> usize {
        self.num_attention_heads.saturating_mul(self.attention_head_dim)
    }

    /// The heads of an attention.
    pub(super) fn heads(&self) -> Heads {
        Heads { count: self.num_attention_heads, width: self.attention_head_dim }
    }

    /// Inner width of the feed-forward layers.
    pub fn inner(&self) -> usize {
        4 * self.dim()
    }

    /// Channels of a latent.
    pub fn latent_channels(&self) -> usize {
        self.in_channels / (PATCH * PATCH)
    }
}
