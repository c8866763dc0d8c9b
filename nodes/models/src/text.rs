//! From a prompt to the embeddings that a transformer reads: clean-up, tokens, UMT5 encoder.

pub mod clean;
pub(crate) mod config;
mod ftfy;
mod tokens;
mod umt5;

use candle_core::{DType, Device, Tensor};

pub use config::{TextConfig, TokenizerConfig};
pub use tokens::Tokens;
pub use umt5::{Layer, Umt5, relative_bucket};

use crate::cancel::CheckCancel;
use crate::checkpoint::ModelFolder;
use crate::error::Result;

/// A tokenizer and its encoder, ready to encode prompts.
#[derive(Debug)]
pub struct TextEncoder {
    tokens: Tokens,
    model: Umt5,
}

impl TextEncoder {
    /// Loads `tokenizer/` and `text_encoder/` of a model.
    ///
    /// # Errors
    /// When a file is missing or does not fit, or the encoder is not UMT5.
    pub fn load(folder: &ModelFolder, dtype: DType, device: &Device) -> Result<Self> {
        let config = TextConfig::read(folder)?;
        let tokens = Tokens::load(folder, &TokenizerConfig::read(folder)?)?;
        let model = Umt5::load(&config, &folder.weights("text_encoder", dtype, device)?)?;
        Ok(Self { tokens, model })
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
