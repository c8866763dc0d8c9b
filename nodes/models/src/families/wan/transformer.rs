//! `transformer/config.json`: the sizes of `WanTransformer3DModel` and `WanVACETransformer3DModel`.

use serde::Deserialize;

use crate::checkpoint::{
    LARGEST_SIZE, ModelFiles, invalid, require_positive, require_sizes, unsupported, value_or_null,
};
use crate::error::Result;
use crate::weight::Heads;

/// The sizes of `WanTransformer3DModel`, and of `WanVACETransformer3DModel`.
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
    /// Channels that go in: those of the latent, and where frames are given by channels, a mask and
    /// the latent of what is given.
    pub in_channels: usize,
    /// Channels of the velocity that comes out; as many as go in where the file does not say.
    #[serde(default, deserialize_with = "or_none")]
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
    /// Width of an image embedding, where the transformer reads one (2.1 I2V).
    #[serde(default)]
    pub image_dim: Option<usize>,
    #[serde(default)]
    added_kv_proj_dim: Option<usize>,
    /// Rows of image embeddings where each has a learned position: those of two pictures (2.1
    /// FLF2V).
    #[serde(default)]
    pub pos_embed_seq_len: Option<usize>,
    #[serde(default)]
    vace_layers: Option<Vec<usize>>,
    #[serde(default)]
    vace_in_channels: Option<usize>,
}

/// The blocks beside the main ones, which read a control (Wan VACE).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlConfig {
    /// The main blocks after which what they found is added, rising: one of them for each.
    pub layers: Vec<usize>,
    /// Channels of the control.
    pub channels: usize,
}

/// The most transformer blocks.
const MAX_LAYERS: usize = 1024;

fn yes() -> bool {
    true
}

/// A size that may be null, which is 0 then.
fn or_none<'de, D: serde::Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(0))
}

fn epsilon() -> f64 {
    1e-6
}

impl TransformerConfig {
    pub(crate) const FILE: &'static str = "transformer/config.json";
    /// The class of a transformer with blocks beside the main ones.
    const VACE: &'static str = "WanVACETransformer3DModel";
    /// The second of two experts.
    pub(crate) const LOW_NOISE: &'static str = "transformer_2/config.json";

    /// Reads and checks `transformer/config.json`.
    ///
    /// # Errors
    /// When it is missing, lacks a key, or describes a transformer that this version does not run.
    pub fn read(folder: &impl ModelFiles) -> Result<Self> {
        Self::read_from(folder, Self::FILE)
    }

    /// Reads and checks a config of another name.
    pub(crate) fn read_from(folder: &impl ModelFiles, file: &str) -> Result<Self> {
        let mut config: Self = folder.json(file)?;
        if config.out_channels == 0 {
            config.out_channels = config.in_channels; // `out_channels or in_channels` in diffusers
        }
        config.check_family(folder, file)?;
        config.check_sizes(folder, file)?;
        Ok(config)
    }

    /// Why it cannot stand in for another: the sizes that it reads or gives otherwise, each beside
    /// that of the other. Empty where it can.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let sizes = |config: &Self| {
            let (pt, ph, pw) = config.patch_size;
            [
                ("in_channels", config.in_channels.to_string()),
                ("out_channels", config.out_channels.to_string()),
                ("patch_size", format!("[{pt}, {ph}, {pw}]")),
                ("text_dim", config.text_dim.to_string()),
                ("image_dim", value_or_null(config.image_dim)),
                ("pos_embed_seq_len", value_or_null(config.pos_embed_seq_len)),
                ("vace_in_channels", value_or_null(config.vace_in_channels)),
            ]
        };
        let pairs = sizes(self).into_iter().zip(sizes(other));
        let differs = |((name, own), (_, other)): ((&str, String), (&str, String))| {
            (own != other).then(|| format!("`{name}` is {own}, not {other}"))
        };
        pairs.filter_map(differs).collect()
    }

    fn check_family(&self, folder: &impl ModelFiles, file: &str) -> Result<()> {
        let refuse = |what: String| Err(unsupported(folder, file, what));
        match self.class.as_str() {
            Self::VACE => self.check_control(folder, file)?,
            "WanTransformer3DModel" if self.vace_layers.is_none() => {}
            other => return refuse(format!("the transformer `{other}`")),
        }
        let extra = self.in_channels.checked_sub(self.out_channels);
        let is_control = self.vace_layers.is_some();
        if !extra.is_some_and(|extra| extra == 0 || extra > self.out_channels && !is_control) {
            let (given, out) = (self.in_channels, self.out_channels);
            return refuse(format!("conditioning by extra channels ({given} in, {out} out)"));
        }
        match self.qk_norm.as_deref() {
            // diffusers has this norm whatever the file says.
            Some("rms_norm_across_heads") | None => Ok(()),
            Some(other) => refuse(format!("a transformer whose `qk_norm` is {other}")),
        }
    }

    /// The blocks beside the main ones begin with the first of these, and each has one of its own.
    fn check_control(&self, folder: &impl ModelFiles, file: &str) -> Result<()> {
        let wrong = |reason: String| Err(invalid(folder, file, reason));
        let Some(ControlConfig { layers, channels }) = self.control() else {
            return wrong(
                "a transformer of VACE needs `vace_layers` and `vace_in_channels`".to_owned(),
            );
        };
        let latent = self.out_channels;
        if channels <= latent.saturating_mul(2) {
            return wrong(format!(
                "`vace_in_channels` is {channels}: two latents of {latent} and a mask are more"
            ));
        }
        if layers.first() != Some(&0) || layers.windows(2).any(|pair| pair[0] == pair[1]) {
            return wrong("`vace_layers` begins with 0 and names each layer once".to_owned());
        }
        match layers.last().filter(|last| **last >= self.num_layers) {
            Some(last) => wrong(format!(
                "`vace_layers` names the layer {last}; there are {} from 0 on",
                self.num_layers
            )),
            None => Ok(()),
        }
    }

    fn check_sizes(&self, folder: &impl ModelFiles, file: &str) -> Result<()> {
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
            ("out_channels", self.out_channels),
            ("image_dim", self.image_dim.unwrap_or(1)),
            ("pos_embed_seq_len", self.pos_embed_seq_len.unwrap_or(1)),
            ("vace_in_channels", self.vace_in_channels.unwrap_or(1)),
        ];
        require_sizes(folder, file, &sizes)?;
        require_positive(folder, file, &[("eps", self.eps)])?;
        // After each is bounded, their product does not overflow.
        if self.dim() > LARGEST_SIZE || self.num_layers > MAX_LAYERS {
            let (wide, layers) = (self.dim(), self.num_layers);
            let reason = format!("{layers} layers {wide} wide, which no model has");
            return Err(invalid(folder, file, reason));
        }
        let image = self.image_dim.map(|_| self.dim());
        if self.added_kv_proj_dim != image {
            let dim = self.dim();
            let reason = format!(
                "`added_kv_proj_dim` is {}, `image_dim` {}: a transformer {dim} wide that reads \
                 images has both, the first {dim}",
                value_or_null(self.added_kv_proj_dim),
                value_or_null(self.image_dim)
            );
            return Err(invalid(folder, file, reason));
        }
        if self.pos_embed_seq_len.is_some_and(|rows| image.is_none() || rows % 2 == 1) {
            let reason = "`pos_embed_seq_len` must be even, with an `image_dim`: two pictures";
            return Err(invalid(folder, file, reason));
        }
        let odd = [("attention_head_dim", self.attention_head_dim), ("freq_dim", self.freq_dim)];
        match odd.iter().find(|(_, size)| size % 2 == 1) {
            Some((key, _)) => Err(invalid(folder, file, format!("`{key}` must be even"))),
            None => Ok(()),
        }
    }

    /// Width of a token: heads × head width.
    pub fn dim(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// The heads of an attention.
    pub(super) fn heads(&self) -> Heads {
        Heads { count: self.num_attention_heads, width: self.attention_head_dim }
    }

    /// Width of a patch of all that goes in: channels × patch volume.
    pub fn patch_dim(&self) -> usize {
        self.in_channels * self.patch_volume()
    }

    /// Width of a patch of the latent, and of its velocity.
    pub fn latent_patch_dim(&self) -> usize {
        self.out_channels * self.patch_volume()
    }

    /// The blocks beside the main ones, where it has some.
    pub fn control(&self) -> Option<ControlConfig> {
        let mut layers = self.vace_layers.clone()?;
        layers.sort_unstable();
        Some(ControlConfig { layers, channels: self.vace_in_channels? })
    }

    /// Latent pixels of a patch.
    pub(super) fn patch_volume(&self) -> usize {
        let (pt, ph, pw) = self.patch_size;
        pt * ph * pw
    }

    /// Channels of the mask of given frames: what goes in beside the latent and that of what is
    /// given.
    pub fn mask_channels(&self) -> Option<usize> {
        self.in_channels.checked_sub(2 * self.out_channels).filter(|mask| *mask > 0)
    }
}
