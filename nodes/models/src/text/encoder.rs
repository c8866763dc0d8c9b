//! From a prompt to rows: clean-up, tokens, UMT5 encoder.

use candle_core::Tensor;

use super::clean;
use super::config::{TextConfig, TokenizerConfig};
use super::tokens::Tokens;
use super::umt5::Umt5;
use crate::cancel::CheckCancel;
use crate::checkpoint::ModelFiles;
use crate::error::Result;
use crate::weight::Weights;

/// A tokenizer and its encoder, ready to encode prompts.
#[derive(Debug)]
pub struct Umt5Encoder {
    tokens: Tokens,
    model: Umt5,
}

impl Umt5Encoder {
    /// Loads `tokenizer/` of a model, and its encoder from the weights of `text_encoder/`.
    ///
    /// # Errors
    /// When a file is missing or does not fit, or the encoder is not UMT5.
    pub fn load(files: &impl ModelFiles, weights: &Weights) -> Result<Self> {
        let config = TextConfig::read(files)?;
        let tokens = Tokens::load(files, &TokenizerConfig::read(files)?)?;
        Ok(Self { tokens, model: Umt5::load(&config, weights)? })
    }

    /// The tokenizer.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The encoder.
    pub fn model(&self) -> &Umt5 {
        &self.model
    }

    /// Encodes a prompt as it was written; `check_cancel` runs after every layer and may cancel.
    ///
    /// Shape: `[text length, d_model]`. Rows past the prompt are zero, as the models were trained:
    /// cross-attention reads them too.
    ///
    /// # Errors
    /// When `check_cancel` cancels or a tensor operation fails.
    pub fn encode(&self, prompt: &str, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        let ids = self.tokens.encode(&clean::prompt(prompt))?;
        let embedded = self.model.encode(&ids, check_cancel)?; // [tokens, d_model]
        let missing = self.tokens.length() - ids.len();
        Ok(embedded.pad_with_zeros(0, 0, missing)?) // [text length, d_model]
    }
}
