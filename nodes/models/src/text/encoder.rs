//! From a prompt to rows: clean-up, tokens, encoder.

use std::borrow::Cow;

use candle_core::{DType, Tensor};

use super::clean;
use super::config::{Padding, PromptForm, TextConfig, TokenizerConfig};
use super::t5::T5;
use super::tokens::Tokens;
use crate::cancel::CheckCancel;
use crate::checkpoint::ModelFiles;
use crate::error::Result;
use crate::model::Embedding;
use crate::weight::Weights;

/// A tokenizer and its encoder, ready to encode prompts.
#[derive(Debug)]
pub struct T5Encoder {
    form: PromptForm,
    tokens: Tokens,
    pad: u32,
    model: T5,
}

impl T5Encoder {
    /// Loads the tokenizer of a model, and its encoder from `weights`.
    ///
    /// # Errors
    /// When a file is missing or does not fit, or the encoder is neither T5 v1.1 nor UMT5.
    pub fn load(files: &impl ModelFiles, form: &PromptForm, weights: &Weights) -> Result<Self> {
        let config = TextConfig::read(files, form)?;
        let tokens = Tokens::load(files, &TokenizerConfig::read(files, form)?, form)?;
        Ok(Self {
            form: *form,
            tokens,
            pad: config.pad_token(),
            model: T5::load(&config, weights)?,
        })
    }

    /// The tokenizer.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The encoder.
    pub fn model(&self) -> &T5 {
        &self.model
    }

    /// Encodes a prompt as it was written; `check_cancel` runs after every layer and may cancel.
    ///
    /// Shape: `[text length, d_model]`, in f32; what stands past the prompt, and whether it counts,
    /// the [`Padding`] says.
    ///
    /// # Errors
    /// When `check_cancel` cancels or a tensor operation fails.
    pub fn encode(&self, prompt: &str, check_cancel: &mut CheckCancel<'_>) -> Result<Embedding> {
        let mut ids = self.tokens.encode(&prepared(prompt, &self.form))?;
        let (own, rows) = (ids.len(), self.tokens.length());
        let is_masked = match self.form.padding {
            Padding::Zeros { is_masked } => is_masked,
            Padding::Tokens { is_masked } => {
                ids.resize(rows, self.pad);
                is_masked
            }
        };
        let embedded = self.model.encode(&ids, check_cancel)?; // [tokens, d_model]
        let tensor = embedded.pad_with_zeros(0, 0, rows - ids.len())?.to_dtype(DType::F32)?;
        let counts: Vec<f32> = (0..rows).map(|row| f32::from(row < own)).collect();
        let mask = is_masked.then(|| Tensor::from_vec(counts, rows, tensor.device()));
        Ok(Embedding { tensor, mask: mask.transpose()? })
    }
}

/// A prompt as the tokenizer must see it.
pub(super) fn prepared<'p>(prompt: &'p str, form: &PromptForm) -> Cow<'p, str> {
    match form.is_cleaned {
        true => Cow::Owned(clean::prompt(prompt)),
        false => Cow::Borrowed(prompt),
    }
}
