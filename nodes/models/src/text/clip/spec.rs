//! What is known of a CLIP text encoder before its weights are read.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use candle_core::DType;

use super::config::ClipTextConfig;
use super::network::ClipText;
use super::tokens::ClipTokens;
use crate::cancel::CheckCancel;
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::model::{
    Embedding, EmbeddingSpec, Embeddings, PromptLoss, TextEncoder, TextEncoderSpec,
};
use crate::weight::Weights;

/// A CLIP text encoder that gives one vector.
pub struct ClipTextSpec {
    config: ClipTextConfig,
    outputs: [EmbeddingSpec; 1],
    /// The folder of its tokenizer.
    tokenizer: &'static str,
    /// Read when a prompt is first looked at before it is encoded.
    tokens: OnceLock<ClipTokens>,
}

impl ClipTextSpec {
    /// An encoder of these sizes, whose result is called `name` and whose tokenizer lies in the
    /// folder `tokenizer`.
    pub fn new(name: &'static str, config: ClipTextConfig, tokenizer: &'static str) -> Self {
        let width = config.hidden_size;
        let outputs = [EmbeddingSpec { name: Cow::Borrowed(name), rows: None, width }];
        Self { config, outputs, tokenizer, tokens: OnceLock::new() }
    }

    fn read_tokens(&self, checkpoint: &Checkpoint) -> Result<ClipTokens> {
        ClipTokens::load(checkpoint, self.tokenizer, self.config.max_position_embeddings)
    }
}

impl TextEncoderSpec for ClipTextSpec {
    fn outputs(&self) -> &[EmbeddingSpec] {
        &self.outputs
    }

    /// One layer is alive at a time, with its attention and the activations of its feed-forward.
    fn memory(&self, _: DType) -> u64 {
        let (config, wide) = (&self.config, |n: usize| n as u128);
        let rows = wide(config.max_position_embeddings);
        let layer =
            rows * (8 * wide(config.hidden_size) + 3 * wide(config.intermediate_size) + 2 * rows);
        u64::try_from(4 * layer).unwrap_or(u64::MAX)
    }

    fn load(&self, checkpoint: &Checkpoint, weights: &Weights) -> Result<Arc<dyn TextEncoder>> {
        let tokens = self.read_tokens(checkpoint)?;
        let model = ClipText::load(&self.config, weights)?;
        Ok(Arc::new(Loaded { name: self.outputs[0].name.to_string(), tokens, model }))
    }

    fn probe(&self, weights: &Weights) -> Result<()> {
        ClipText::load(&self.config, weights).map(drop)
    }

    fn loss(&self, checkpoint: &Checkpoint, prompt: &str) -> Result<PromptLoss> {
        if self.tokens.get().is_none() {
            // Where another thread was quicker, this one goes.
            let _ = self.tokens.set(self.read_tokens(checkpoint)?);
        }
        let Some(tokens) = self.tokens.get() else { return Ok(PromptLoss::default()) };
        tokens.loss(prompt, self.config.vocab_size)
    }
}

struct Loaded {
    name: String,
    tokens: ClipTokens,
    model: ClipText,
}

impl TextEncoder for Loaded {
    fn encode(&self, prompt: &str, check_cancel: &mut CheckCancel<'_>) -> Result<Embeddings> {
        let tensor = self.model.pooled(&self.tokens.encode(prompt)?, check_cancel)?;
        Ok(Embeddings::from([(self.name.clone(), Embedding { tensor, mask: None })]))
    }
}
