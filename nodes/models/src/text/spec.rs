//! What is known of a T5 or UMT5 encoder before its weights are read.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use candle_core::DType;

use super::config::{PromptForm, TextConfig, TokenizerConfig};
use super::encoder::{T5Encoder, prepared};
use super::t5::T5;
use super::tokens::Tokens;
use crate::cancel::CheckCancel;
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::model::{EmbeddingSpec, Embeddings, PromptLoss, TextEncoder, TextEncoderSpec};
use crate::weight::Weights;

/// A T5 or UMT5 encoder that gives one tensor.
pub struct T5Spec {
    form: PromptForm,
    config: TextConfig,
    outputs: [EmbeddingSpec; 1],
    /// Read when a prompt is first looked at before it is encoded.
    tokens: OnceLock<Tokens>,
}

/// A vocabulary of fewer words is that of a small model, which is read in no time.
const SMALL_VOCABULARY: usize = 10_000;

impl T5Spec {
    /// An encoder of these sizes, whose result is called `name`.
    pub fn new(
        name: &'static str,
        form: &PromptForm,
        config: TextConfig,
        tokens: &TokenizerConfig,
    ) -> Self {
        let (rows, width) = (Some(tokens.text_length()), config.d_model);
        let outputs = [EmbeddingSpec { name: Cow::Borrowed(name), rows, width }];
        Self { form: *form, config, outputs, tokens: OnceLock::new() }
    }
}

impl TextEncoderSpec for T5Spec {
    fn outputs(&self) -> &[EmbeddingSpec] {
        &self.outputs
    }

    /// One layer is alive at a time, in attention with its queries, keys and values, the latter two
    /// packed as well, or in its feed-forward with its two inner activations.
    fn memory(&self, _: DType) -> u64 {
        let (config, rows) = (&self.config, self.outputs[0].rows.unwrap_or(1) as u128);
        let wide = |n: usize| n as u128;
        let attended = wide(config.num_heads) * wide(config.d_kv);
        let layer = 3 * wide(config.d_model) + (6 * attended).max(2 * wide(config.d_ff));
        u64::try_from(4 * rows * layer).unwrap_or(u64::MAX)
    }

    fn load(&self, checkpoint: &Checkpoint, weights: &Weights) -> Result<Arc<dyn TextEncoder>> {
        let name = self.outputs[0].name.to_string();
        Ok(Arc::new(Named { name, encoder: T5Encoder::load(checkpoint, &self.form, weights)? }))
    }

    fn probe(&self, weights: &Weights) -> Result<()> {
        T5::load(&self.config, weights).map(drop)
    }

    fn loss(&self, checkpoint: &Checkpoint, prompt: &str) -> Result<PromptLoss> {
        let text = prepared(prompt, &self.form);
        let rows = self.outputs[0].rows.unwrap_or(usize::MAX);
        // A token is a byte at least, and a large vocabulary has one for every byte: where the text
        // fits in any case, its tokenizer, which takes a second to read, need not say so.
        if self.config.vocab_size > SMALL_VOCABULARY && text.len() + 2 <= rows {
            return Ok(PromptLoss { tokens: Some(text.len() + 2), ..PromptLoss::default() });
        }
        if self.tokens.get().is_none() {
            let config = TokenizerConfig::read(checkpoint, &self.form)?;
            let tokens = Tokens::load(checkpoint, &config, &self.form)?;
            // Where another thread was quicker, this one goes.
            let _ = self.tokens.set(tokens);
        }
        let Some(tokens) = self.tokens.get() else { return Ok(PromptLoss::default()) };
        tokens.loss(&text, self.config.vocab_size)
    }
}

/// An encoder and what its result is called.
struct Named {
    name: String,
    encoder: T5Encoder,
}

impl TextEncoder for Named {
    fn encode(&self, prompt: &str, check_cancel: &mut CheckCancel<'_>) -> Result<Embeddings> {
        let embedding = self.encoder.encode(prompt, check_cancel)?; // [rows, d_model]
        Ok(Embeddings::from([(self.name.clone(), embedding)]))
    }
}
