//! `transformer/config.json`: the sizes of `WanTransformer3DModel`.

use serde::Deserialize;
use serde_json::Value;

use crate::checkpoint::{
    LARGEST_SIZE, ModelFiles, invalid, require_positive, require_sizes, unsupported,
};
use crate::error::Result;

/// The sizes of `WanTransformer3DModel` (2.1 T2V, 2.2 TI2V).
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct TransformerConfig {
    #[serde(rename = "_class_name")]
    class: String,
    /// Latent frames, rows and columns of one patch.
    pub patch_size: (usize, usize, usize),
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Width of one head.
    pub attention_head_dim: usize,
    /// Channels of the latent that goes in.
    pub in_channels: usize,
    /// Channels of the velocity that comes out.
    pub out_channels: usize,
    /// Width of a text embedding.
    pub text_dim: usize,
    /// Width of the sinusoidal timestep embedding.
    pub freq_dim: usize,
    /// Inner width of the feed-forward layers.
    pub ffn_dim: usize,
    /// Transformer blocks.
    pub num_layers: usize,
    /// Whether the input of cross-attention is normalised with a learned scale.
    #[serde(default = "yes")]
    pub cross_attn_norm: bool,
    /// Epsilon of the norms.
    #[serde(default = "epsilon")]
    pub eps: f64,
    #[serde(default)]
    qk_norm: Option<String>,
    #[serde(default)]
    image_dim: Option<usize>,
    #[serde(default)]
    added_kv_proj_dim: Option<usize>,
    #[serde(default)]
    pos_embed_seq_len: Option<usize>,
    #[serde(default)]
    vace_layers: Option<Value>,
}

/// The most transformer blocks.
const MAX_LAYERS: usize = 1024;

fn yes() -> bool {
    true
}

fn epsilon() -> f64 {
    1e-6
}

impl TransformerConfig {
    pub(crate) const FILE: &'static str = "transformer/config.json";

    /// Reads and checks `transformer/config.json`.
    ///
    /// # Errors
    /// When it is missing, lacks a key, or describes a transformer that this version does not run.
    pub fn read(folder: &impl ModelFiles) -> Result<Self> {
        let config: Self = folder.json(Self::FILE)?;
        config.check_family(folder)?;
        config.check_sizes(folder)?;
        Ok(config)
    }

    fn check_family(&self, folder: &impl ModelFiles) -> Result<()> {
        let refuse = |what: String| Err(unsupported(folder, Self::FILE, what));
        if self.class == "WanVACETransformer3DModel" || self.vace_layers.is_some() {
            return refuse("VACE (control channels beside the main blocks)".to_owned());
        }
        if self.class != "WanTransformer3DModel" {
            return refuse(format!("the transformer `{}`", self.class));
        }
        if self.image_dim.is_some()
            || self.added_kv_proj_dim.is_some()
            || self.pos_embed_seq_len.is_some()
        {
            let keys = "image_dim, added_kv_proj_dim, pos_embed_seq_len";
            return refuse(format!("conditioning on an image encoder ({keys}; Wan 2.1 I2V)"));
        }
        if self.in_channels != self.out_channels {
            let (given, out) = (self.in_channels, self.out_channels);
            return refuse(format!("conditioning by extra channels ({given} in, {out} out)"));
        }
        match self.qk_norm.as_deref() {
            Some("rms_norm_across_heads") => Ok(()),
            other => refuse(format!("qk_norm {other:?}")),
        }
    }

    fn check_sizes(&self, folder: &impl ModelFiles) -> Result<()> {
        let (pt, ph, pw) = self.patch_size;
        let sizes = [
            ("patch_size", pt),
            ("patch_size", ph),
            ("patch_size", pw),
            (
                "patch_size",
                pt.saturating_mul(ph).saturating_mul(pw).saturating_mul(self.in_channels),
            ),
            ("num_layers", self.num_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("attention_head_dim", self.attention_head_dim),
            ("in_channels", self.in_channels),
            ("text_dim", self.text_dim),
            ("freq_dim", self.freq_dim),
            ("ffn_dim", self.ffn_dim),
        ];
        require_sizes(folder, Self::FILE, &sizes)?;
        require_positive(folder, Self::FILE, &[("eps", self.eps)])?;
        // After each is bounded, their product does not overflow.
        if self.dim() > LARGEST_SIZE || self.num_layers > MAX_LAYERS {
            let (wide, layers) = (self.dim(), self.num_layers);
            let reason = format!("{layers} layers {wide} wide, which no model has");
            return Err(invalid(folder, Self::FILE, reason));
        }
        let odd = [("attention_head_dim", self.attention_head_dim), ("freq_dim", self.freq_dim)];
        match odd.iter().find(|(_, size)| size % 2 == 1) {
            Some((key, _)) => Err(invalid(folder, Self::FILE, format!("`{key}` must be even"))),
            None => Ok(()),
        }
    }

    /// Width of a token: heads × head width.
    pub fn dim(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// Width of a patch: channels × patch volume.
    pub fn patch_dim(&self) -> usize {
        let (pt, ph, pw) = self.patch_size;
        self.in_channels * pt * ph * pw
    }
}
