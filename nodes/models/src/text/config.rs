//! `text_encoder/config.json` and `tokenizer/tokenizer_config.json`.

use serde::Deserialize;
use serde_json::Value;

use crate::checkpoint::{ModelFiles, invalid, require_positive, require_sizes, unsupported};
use crate::error::Result;

/// The most text tokens that a Wan pipeline passes on (diffusers' `max_sequence_length`).
const MAX_TEXT_LENGTH: usize = 512;

/// The sizes of a UMT5 encoder.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct TextConfig {
    model_type: String,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of an embedding.
    pub d_model: usize,
    /// Width of one head.
    pub d_kv: usize,
    /// Inner width of the feed-forward layers.
    pub d_ff: usize,
    /// Encoder layers.
    pub num_layers: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Rows of each layer's table of relative biases.
    #[serde(default = "buckets")]
    pub relative_attention_num_buckets: usize,
    /// The distance from which all tokens share the last bucket.
    #[serde(default = "max_distance")]
    pub relative_attention_max_distance: usize,
    /// Epsilon of the RMS norms.
    #[serde(default = "epsilon")]
    pub layer_norm_epsilon: f64,
    feed_forward_proj: String,
}

/// The most layers of an encoder.
const MAX_LAYERS: usize = 1024;

fn buckets() -> usize {
    32
}

fn max_distance() -> usize {
    128
}

fn epsilon() -> f64 {
    1e-6
}

impl TextConfig {
    const FILE: &'static str = "text_encoder/config.json";

    /// Reads and checks `text_encoder/config.json`.
    ///
    /// # Errors
    /// When it is missing, lacks a key, or describes another encoder than UMT5.
    pub fn read(folder: &impl ModelFiles) -> Result<Self> {
        let config: Self = folder.json(Self::FILE)?;
        let file = Self::FILE;
        if config.model_type != "umt5" {
            let what = format!("the text encoder `{}`", config.model_type);
            return Err(unsupported(folder, file, what));
        }
        if config.feed_forward_proj != "gated-gelu" {
            let what = format!("feed_forward_proj `{}`", config.feed_forward_proj);
            return Err(unsupported(folder, file, what));
        }
        let sizes = [
            ("vocab_size", config.vocab_size),
            ("d_model", config.d_model),
            ("d_kv", config.d_kv),
            ("d_ff", config.d_ff),
            ("num_heads", config.num_heads),
            ("num_heads", config.num_heads.saturating_mul(config.d_kv)),
            ("relative_attention_num_buckets", config.relative_attention_num_buckets),
            ("relative_attention_max_distance", config.relative_attention_max_distance),
        ];
        require_sizes(folder, file, &sizes)?;
        require_positive(folder, file, &[("layer_norm_epsilon", config.layer_norm_epsilon)])?;
        if config.num_layers > MAX_LAYERS {
            let reason = format!("`num_layers` is {}, which no model has", config.num_layers);
            return Err(invalid(folder, file, reason));
        }
        let (buckets, far) =
            (config.relative_attention_num_buckets, config.relative_attention_max_distance);
        if buckets < 4 || buckets % 4 != 0 || far <= buckets / 4 {
            let reason = format!("{buckets} buckets up to a distance of {far} cannot be spaced");
            return Err(invalid(folder, file, reason));
        }
        Ok(config)
    }
}

/// What the tokenizer's config says beside the tokenizer itself.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct TokenizerConfig {
    // transformers writes 1e30 where there is no limit.
    #[serde(default)]
    model_max_length: Option<f64>,
    // A string, or an object with `content`.
    #[serde(default)]
    eos_token: Option<Value>,
}

impl TokenizerConfig {
    const FILE: &'static str = "tokenizer/tokenizer_config.json";

    /// Reads `tokenizer/tokenizer_config.json`.
    ///
    /// # Errors
    /// When it is missing, is not JSON, or allows no token.
    pub fn read(folder: &impl ModelFiles) -> Result<Self> {
        let config: Self = folder.json(Self::FILE)?;
        if config.text_length() == 0 {
            return Err(invalid(folder, Self::FILE, "`model_max_length` must not be 0"));
        }
        Ok(config)
    }

    /// Rows of an encoded text: the smaller of `model_max_length` and 512.
    pub fn text_length(&self) -> usize {
        let longest = self.model_max_length.unwrap_or(f64::MAX);
        // A float becomes an integer by saturating, so 1e30 and negative values are harmless.
        (longest as usize).min(MAX_TEXT_LENGTH)
    }

    /// The token that ends a text: `</s>` unless the config names another.
    pub fn eos_token(&self) -> &str {
        let token = self.eos_token.as_ref();
        token.and_then(|t| t.as_str().or_else(|| t.get("content")?.as_str())).unwrap_or("</s>")
    }
}
