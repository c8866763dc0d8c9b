//! The configs of an encoder and of its tokenizer, and how a family has its prompts read.

use serde::Deserialize;
use serde_json::Value;

use crate::checkpoint::{ModelFiles, invalid, require_positive, require_sizes, unsupported};
use crate::error::Result;

/// How a family's pipeline hands prompts to its encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptForm {
    /// The encoder, as its config calls it (`model_type`): `t5` (v1.1) or `umt5`.
    pub model_type: &'static str,
    /// The folder of the encoder in the diffusers layout.
    pub encoder: &'static str,
    /// The folder of its tokenizer.
    pub tokenizer: &'static str,
    /// The most tokens that are read (diffusers' `max_sequence_length`); a tokenizer may allow
    /// fewer.
    pub max_rows: usize,
    /// Whether prompts are cleaned up before they are cut into tokens ([`clean::prompt`]).
    ///
    /// [`clean::prompt`]: super::clean::prompt
    pub is_cleaned: bool,
    /// What stands past the end of a prompt.
    pub padding: Padding,
}

/// What stands in the rows past the end of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// Zeros, which the encoder does not see.
    Zeros {
        /// Whether a mask says that they do not count (LTX-Video 0.9.5); without one they count as
        /// the rows of the prompt do (Wan).
        is_masked: bool,
    },
    /// Padding tokens, encoded with the prompt and seen by it.
    Tokens {
        /// Whether a mask says which rows are the prompt's own, and only they count (LTX-Video 0.9.0
        /// and 0.9.1); without one all do (FLUX).
        is_masked: bool,
    },
}

/// The sizes of a T5 encoder (v1.1), or of UMT5.
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
    #[serde(default)]
    pad_token_id: Option<u32>,
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
    /// Reads and checks the `config.json` of the encoder.
    ///
    /// # Errors
    /// When it is missing, lacks a key, or describes another encoder than the family's.
    pub fn read(folder: &impl ModelFiles, form: &PromptForm) -> Result<Self> {
        let file = &format!("{}/config.json", form.encoder);
        let config: Self = folder.json(file)?;
        if config.model_type != form.model_type {
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
        if config.pad_token() as usize >= config.vocab_size {
            let (token, vocabulary) = (config.pad_token(), config.vocab_size);
            let reason = format!("`pad_token_id` is {token}, `vocab_size` {vocabulary}");
            return Err(invalid(folder, file, reason));
        }
        Ok(config)
    }

    /// The token that fills up a prompt.
    pub fn pad_token(&self) -> u32 {
        self.pad_token_id.unwrap_or(0)
    }

    /// Whether the first layer's relative biases are those of all layers.
    pub fn shares_bias(&self) -> bool {
        self.model_type == "t5"
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
    /// Sentinels behind the vocabulary of a `spiece.model`.
    #[serde(default = "sentinels")]
    pub(super) extra_ids: usize,
    /// The most rows that the family reads.
    #[serde(skip)]
    max_rows: usize,
}

fn sentinels() -> usize {
    100
}

impl TokenizerConfig {
    /// Reads `tokenizer_config.json`.
    ///
    /// # Errors
    /// When it is missing, is not JSON, or allows no token.
    pub fn read(folder: &impl ModelFiles, form: &PromptForm) -> Result<Self> {
        let file = &format!("{}/tokenizer_config.json", form.tokenizer);
        let config = Self { max_rows: form.max_rows, ..folder.json(file)? };
        if config.text_length() == 0 {
            return Err(invalid(folder, file, "`model_max_length` must not be 0"));
        }
        require_sizes(folder, file, &[("extra_ids", config.extra_ids.max(1))])?;
        Ok(config)
    }

    /// Rows of an encoded text: the smaller of `model_max_length` and what the family reads.
    pub fn text_length(&self) -> usize {
        let longest = self.model_max_length.unwrap_or(f64::MAX);
        // A float becomes an integer by saturating, so 1e30 and negative values are harmless.
        (longest as usize).min(self.max_rows)
    }

    /// The token that ends a text: `</s>` unless the config names another.
    pub fn eos_token(&self) -> &str {
        let token = self.eos_token.as_ref();
        token.and_then(|t| t.as_str().or_else(|| t.get("content")?.as_str())).unwrap_or("</s>")
    }
}
