//! `text_encoder/config.json` of a CLIP text encoder.

use serde::Deserialize;

use crate::checkpoint::{ModelFiles, invalid, require_positive, require_sizes, unsupported};
use crate::clip::{Activation, LayerSizes};
use crate::error::Result;

/// The sizes of `CLIPTextModel`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ClipTextConfig {
    model_type: String,
    /// Tokens in the vocabulary.
    #[serde(default = "vocabulary")]
    pub vocab_size: usize,
    /// Width of a token.
    pub hidden_size: usize,
    /// Inner width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Transformer layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// The most tokens of a text.
    #[serde(default = "positions")]
    pub max_position_embeddings: usize,
    /// Epsilon of the norms.
    #[serde(default = "epsilon")]
    pub layer_norm_eps: f64,
    /// The activation of the feed-forward layers.
    #[serde(default = "quick")]
    pub hidden_act: Activation,
    /// The token at which the state of the whole text is taken; 2, which older files say whatever
    /// their vocabulary is, stands for the token of the highest number.
    #[serde(default = "end")]
    pub eos_token_id: u32,
}

fn vocabulary() -> usize {
    49_408
}

fn positions() -> usize {
    77
}

fn epsilon() -> f64 {
    1e-5
}

fn quick() -> Activation {
    Activation::QuickGelu
}

fn end() -> u32 {
    49_407
}

/// The most layers.
const MAX_LAYERS: usize = 1024;
/// The `eos_token_id` of older files.
const LEGACY_END: u32 = 2;

impl ClipTextConfig {
    /// Reads and checks `FOLDER/config.json`.
    ///
    /// # Errors
    /// When it is missing, lacks a key, contradicts itself, or is not CLIP.
    pub fn read(files: &impl ModelFiles, folder: &str) -> Result<Self> {
        let file = &format!("{folder}/config.json");
        let config: Self = files.json(file)?;
        config.check(files, file)?;
        Ok(config)
    }

    fn check(&self, files: &impl ModelFiles, file: &str) -> Result<()> {
        if self.model_type != "clip_text_model" {
            let what = format!("the text encoder `{}`", self.model_type);
            return Err(unsupported(files, file, what));
        }
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        require_sizes(files, file, &sizes)?;
        require_positive(files, file, &[("layer_norm_eps", self.layer_norm_eps)])?;
        let reason = if self.num_hidden_layers > MAX_LAYERS {
            format!("`num_hidden_layers` is {}, which no model has", self.num_hidden_layers)
        } else if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            "`hidden_size` must be a multiple of `num_attention_heads`".to_owned()
        } else if self.max_position_embeddings < 2 {
            "`max_position_embeddings` must be 2 or more: a beginning and an end".to_owned()
        } else {
            return Ok(());
        };
        Err(invalid(files, file, reason))
    }

    /// Where among padded tokens the state of the whole text is taken: at the first token that ends
    /// a text, or where the file is an older one at the first of the highest number.
    pub(super) fn end_of(&self, ids: &[u32]) -> usize {
        let end = match self.eos_token_id {
            LEGACY_END => ids.iter().max().copied().unwrap_or(0),
            end => end,
        };
        // Without one it is the first token, as in transformers.
        ids.iter().position(|id| *id == end).unwrap_or(0)
    }

    /// The sizes of its layers.
    pub(super) fn layers(&self) -> LayerSizes {
        LayerSizes {
            width: self.hidden_size,
            inner: self.intermediate_size,
            heads: self.num_attention_heads,
            eps: self.layer_norm_eps,
            activation: self.hidden_act,
        }
    }
}
