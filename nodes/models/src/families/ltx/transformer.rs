//! `transformer/config.json`: the sizes of `LTXVideoTransformer3DModel`.

use serde::Deserialize;

use crate::checkpoint::{
    LARGEST_SIZE, ModelFiles, invalid, require_positive, require_sizes, unsupported, value_or_null,
};
use crate::error::Result;
use crate::weight::Heads;

/// The sizes of the transformer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct TransformerConfig {
    #[serde(rename = "_class_name")]
    class: String,
    /// Channels of a latent.
    pub(super) in_channels: usize,
    /// Channels of its velocity.
    #[serde(default)]
    out_channels: Option<usize>,
    #[serde(default = "one")]
    patch_size: usize,
    #[serde(default = "one")]
    patch_size_t: usize,
    /// Attention heads.
    pub(super) num_attention_heads: usize,
    /// Width of one head.
    pub(super) attention_head_dim: usize,
    /// Width of a text where cross-attention reads it: that of a token.
    cross_attention_dim: usize,
    /// Transformer blocks.
    pub(super) num_layers: usize,
    #[serde(default)]
    activation_fn: Option<String>,
    #[serde(default)]
    qk_norm: Option<String>,
    #[serde(default)]
    norm_elementwise_affine: bool,
    /// Epsilon of the norms in a block.
    #[serde(default = "epsilon")]
    pub(super) norm_eps: f64,
    /// Width of a text as its encoder gives it.
    pub(super) caption_channels: usize,
    #[serde(default = "yes")]
    attention_bias: bool,
    #[serde(default = "yes")]
    attention_out_bias: bool,
}

/// The most transformer blocks.
const MAX_LAYERS: usize = 1024;

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

fn epsilon() -> f64 {
    1e-6
}

impl TransformerConfig {
    pub(super) const FILE: &'static str = "transformer/config.json";
    /// The class that is run.
    pub(super) const CLASS: &'static str = "LTXVideoTransformer3DModel";

    /// Reads and checks `transformer/config.json`.
    ///
    /// # Errors
    /// When it is missing, lacks a key, or describes a transformer that this version does not run.
    pub(super) fn read(folder: &impl ModelFiles) -> Result<Self> {
        let config: Self = folder.json(Self::FILE)?;
        config.check(folder)?;
        Ok(config)
    }

    fn check(&self, folder: &impl ModelFiles) -> Result<()> {
        let refuse = |what: String| Err(unsupported(folder, Self::FILE, what));
        if self.class != Self::CLASS {
            return refuse(format!("the transformer `{}`", self.class));
        }
        let sizes = [
            ("in_channels", self.in_channels),
            ("num_attention_heads", self.num_attention_heads),
            ("attention_head_dim", self.attention_head_dim),
            ("num_layers", self.num_layers),
            ("caption_channels", self.caption_channels),
        ];
        require_sizes(folder, Self::FILE, &sizes)?;
        require_positive(folder, Self::FILE, &[("norm_eps", self.norm_eps)])?;
        if self.dim() > LARGEST_SIZE / 4 || self.num_layers > MAX_LAYERS {
            let (wide, layers) = (self.dim(), self.num_layers);
            let reason = format!("{layers} layers {wide} wide, which no model has");
            return Err(invalid(folder, Self::FILE, reason));
        }
        let odd = [
            ("patch_size", self.patch_size.to_string(), self.patch_size == 1),
            ("patch_size_t", self.patch_size_t.to_string(), self.patch_size_t == 1),
            (
                "out_channels",
                value_or_null(self.out_channels),
                self.out_channels.is_none_or(|out| out == 0 || out == self.in_channels),
            ),
            (
                "attention_head_dim",
                self.attention_head_dim.to_string(),
                self.attention_head_dim.is_multiple_of(2),
            ),
            (
                "cross_attention_dim",
                self.cross_attention_dim.to_string(),
                self.cross_attention_dim == self.dim(),
            ),
            (
                "activation_fn",
                value_or_null(self.activation_fn.as_deref()),
                self.activation_fn.as_deref().is_none_or(|name| name == "gelu-approximate"),
            ),
            (
                "qk_norm",
                value_or_null(self.qk_norm.as_deref()),
                self.qk_norm.as_deref().is_none_or(|name| name == "rms_norm_across_heads"),
            ),
            ("norm_elementwise_affine", "true".to_owned(), !self.norm_elementwise_affine),
            ("attention_bias", "false".to_owned(), self.attention_bias),
            ("attention_out_bias", "false".to_owned(), self.attention_out_bias),
        ];
        match odd.into_iter().find(|(.., fits)| !fits) {
            Some((key, value, _)) => refuse(format!("a transformer whose `{key}` is {value}")),
            None => Ok(()),
        }
    }

    /// Width of a token: heads × head width.
    pub(super) fn dim(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// The heads of an attention.
    pub(super) fn heads(&self) -> Heads {
        Heads { count: self.num_attention_heads, width: self.attention_head_dim }
    }
}
