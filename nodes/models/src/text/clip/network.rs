//! The network: tokens to states, each of which sees the tokens before it.

use candle_core::{DType, Tensor};

use super::config::ClipTextConfig;
use crate::cancel::CheckCancel;
use crate::clip::Layer;
use crate::error::{Error, Result};
use crate::text::tokens::within_vocabulary;
use crate::weight::{Embedding, LayerNorm, Weights};

/// The encoder.
#[derive(Debug)]
pub struct ClipText {
    config: ClipTextConfig,
    tokens: Embedding,
    positions: Tensor, // [most tokens, hidden], f32
    layers: Vec<Layer>,
    norm: LayerNorm,
}

impl ClipText {
    /// Takes the weights from a `text_encoder` folder; their names may begin with `text_model`.
    ///
    /// # Errors
    /// When a weight is missing or has another shape than `config` says.
    pub fn load(config: &ClipTextConfig, weights: &Weights) -> Result<Self> {
        // Files of whole CLIP models have it, and nothing here reads it.
        weights.contains("text_projection.weight");
        let named = weights.contains("text_model.final_layer_norm.weight");
        let weights = if named { &weights.scope("text_model") } else { weights };
        let (width, eps) = (config.hidden_size, config.layer_norm_eps);
        let embeddings = weights.scope("embeddings");
        let positions = (config.max_position_embeddings, width);
        let layers = (0..config.num_hidden_layers)
            .map(|index| {
                Layer::load(&config.layers(), &weights.scope("encoder.layers").scope(index))
            })
            .collect::<Result<_>>()?;
        let table = embeddings.scope("token_embedding");
        Ok(Self {
            tokens: Embedding::load(&table, config.vocab_size, width)?,
            positions: embeddings.get_as("position_embedding.weight", positions, DType::F32)?,
            layers,
            norm: LayerNorm::load(&weights.scope("final_layer_norm"), width, eps)?,
            config: config.clone(),
        })
    }

    /// The state of a text at its end, which is taken where `config` says among the tokens, padding
    /// included (`pooler_output`). Shape: `[hidden]`, in f32.
    ///
    /// # Errors
    /// When there is no token or too many, one lies outside the vocabulary, or it is cancelled.
    pub fn pooled(&self, ids: &[u32], check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        // No token sees those behind it: they need not be computed.
        let end = self.config.end_of(ids);
        let states = self.encode(ids.get(..=end).unwrap_or_default(), check_cancel)?;
        Ok(states.get(end)?.to_dtype(DType::F32)?)
    }

    /// The states of tokens after the last norm; `check_cancel` runs after every layer.
    ///
    /// Shape: `[tokens, hidden]`.
    ///
    /// # Errors
    /// As [`ClipText::pooled`].
    pub fn encode(&self, ids: &[u32], check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        let (count, most) = (ids.len(), self.config.max_position_embeddings);
        if count == 0 || count > most {
            return Err(Error::input(format!("{count} tokens; this encoder reads 1 to {most}")));
        }
        within_vocabulary(ids, self.tokens.rows())?;
        let embedded = self.tokens.lookup(ids)?;
        let dtype = embedded.dtype();
        let placed = (embedded.to_dtype(DType::F32)? + self.positions.narrow(0, 0, count)?)?;
        let mut x = placed.to_dtype(dtype)?;
        let later = |at: usize| {
            (0..count).map(move |other| if other > at { f32::NEG_INFINITY } else { 0.0 })
        };
        let mask = (0..count).flat_map(later).collect();
        let mask = Tensor::from_vec(mask, (1, count, count), x.device())?;
        for layer in &self.layers {
            x = layer.forward(&x, Some(&mask))?;
            check_cancel()?;
        }
        self.norm.forward(&x)
    }
}
