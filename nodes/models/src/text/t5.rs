//! The encoders T5 v1.1 and UMT5 (arXiv:1910.10683, arXiv:2304.09151; transformers'
//! `modeling_t5.py` and `modeling_umt5.py`).
//!
//! Pre-norm RMS, no biases in linears, no 1/√d in attention, gated GELU (tanh form). They differ in
//! one thing: UMT5 has a table of relative biases in every layer, T5 one in the first, which all
//! share.

use candle_core::{DType, Tensor};
use kino_kernels::{self as kernels, LinearEpilogue};

use crate::cancel::CheckCancel;
use crate::error::{Error, Result};
use crate::text::config::TextConfig;
use crate::text::tokens::within_vocabulary;
use crate::weight::{BlockList, Blocks, Embedding, Linear, RmsNorm, Weights};

/// The encoder.
#[derive(Debug)]
pub struct T5 {
    embedding: Embedding, // [vocabulary, d_model]
    layers: Blocks<Layer>,
    norm: RmsNorm,
    buckets: usize,
    max_distance: usize,
}

impl T5 {
    /// Takes the weights from a `text_encoder` folder.
    ///
    /// The table of token embeddings is called `shared` or `encoder.embed_tokens`: both are taken.
    ///
    /// # Errors
    /// When a weight is missing or has another shape than `config` says.
    pub fn load(config: &TextConfig, weights: &Weights) -> Result<Self> {
        let (width, eps) = (config.d_model, config.layer_norm_epsilon);
        let encoder = weights.scope("encoder");
        let named = ["encoder.embed_tokens", "shared"].map(|name| weights.scope(name));
        // Where both are there, they are the same.
        let found = named.clone().map(|table| table.contains("weight"));
        let table = &named[usize::from(!found[0])];
        weights.leave("shared.");
        let own = config.clone();
        let layer = move |index, weights: &Weights| {
            let is_biased = index == 0 || !own.shares_bias();
            Layer::load(&own, is_biased, &weights.scope("layer"))
        };
        let list = BlockList::new("layers", config.num_layers);
        Ok(Self {
            embedding: Embedding::load(table, config.vocab_size, width)?,
            layers: Blocks::load(&encoder.scope("block"), list, layer)?,
            norm: RmsNorm::load(&encoder.scope("final_layer_norm"), width, eps)?,
            buckets: config.relative_attention_num_buckets,
            max_distance: config.relative_attention_max_distance,
        })
    }

    /// Encodes tokens, each of which sees all others; `check_cancel` runs after every layer and may
    /// cancel. Without the padding this equals padding with a mask.
    ///
    /// Shape: `[tokens, d_model]`.
    ///
    /// # Errors
    /// When a token lies outside the vocabulary, or `check_cancel` cancels.
    pub fn encode(&self, ids: &[u32], check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        let mut x = self.embed(ids)?;
        let buckets = self.distance_buckets(ids.len())?;
        let mut bias = None;
        let mut layers = self.layers.pass(0..self.layers.len())?;
        for index in 0..self.layers.len() {
            x = layers.with(index, |layer| {
                // One layer without a table takes what the last with one made of it.
                bias = layer.relative_bias(&buckets)?.or(bias.take());
                let bias = bias.as_ref();
                let bias = bias.ok_or_else(|| Error::input("no layer has relative biases"))?;
                layer.forward(x, bias)
            })?;
            check_cancel()?;
        }
        self.norm.forward(&x)
    }

    /// The layers, first to last.
    pub fn layers(&self) -> &Blocks<Layer> {
        &self.layers
    }

    /// The embeddings of tokens. Shape: `[tokens, d_model]`.
    ///
    /// # Errors
    /// When a token lies outside the vocabulary.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        within_vocabulary(ids, self.embedding.rows())?;
        self.embedding.lookup(ids)
    }

    /// The bucket of each distance between tokens, from 1 − tokens to tokens − 1. Shape:
    /// `[2·tokens − 1]`.
    ///
    /// # Errors
    /// When the device refuses the tensor.
    pub fn distance_buckets(&self, tokens: usize) -> Result<Tensor> {
        let tokens = tokens as i64;
        let bucket = |rel| relative_bucket(rel, self.buckets, self.max_distance);
        Ok(Tensor::from_iter((1 - tokens..tokens).map(bucket), self.embedding.device())?)
    }
}

/// The bucket of a distance `key − query`: exact near by, logarithmic up to `max_distance`, each
/// half of the buckets for one direction.
///
/// As `_relative_position_bucket` of transformers' `modeling_t5.py`, in f32 like there.
pub fn relative_bucket(relative: i64, buckets: usize, max_distance: usize) -> u32 {
    let half = buckets / 2;
    let exact = half / 2;
    let distance = relative.unsigned_abs() as usize;
    let bucket = if distance < exact {
        distance
    } else {
        let far = (distance as f32 / exact as f32).ln() / (max_distance as f32 / exact as f32).ln();
        (exact + (far * (half - exact) as f32) as usize).min(half - 1)
    };
    (bucket + if relative > 0 { half } else { 0 }) as u32
}

/// One layer: self-attention and a gated feed-forward, each after a norm and added to its input.
#[derive(Debug)]
pub struct Layer {
    attention_norm: RmsNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    /// Relative biases, `[buckets, heads]`; none where those of a layer before count.
    bias: Option<Tensor>,
    heads: usize,
    forward_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Layer {
    fn load(config: &TextConfig, is_biased: bool, weights: &Weights) -> Result<Self> {
        let (width, inner, eps) = (config.d_model, config.d_ff, config.layer_norm_epsilon);
        let heads = config.num_heads;
        let attended = heads * config.d_kv;
        let (first, second) = (weights.scope(0), weights.scope(1));
        let (attention, dense) = (first.scope("SelfAttention"), second.scope("DenseReluDense"));
        let table = (config.relative_attention_num_buckets, heads);
        let bias = || attention.get_as("relative_attention_bias.weight", table, DType::F32);
        Ok(Self {
            attention_norm: RmsNorm::load(&first.scope("layer_norm"), width, eps)?,
            query: Linear::load_plain(&attention.scope("q"), width, attended)?,
            key: Linear::load_plain(&attention.scope("k"), width, attended)?,
            value: Linear::load_plain(&attention.scope("v"), width, attended)?,
            out: Linear::load_plain(&attention.scope("o"), attended, width)?,
            bias: is_biased.then(bias).transpose()?,
            heads,
            forward_norm: RmsNorm::load(&second.scope("layer_norm"), width, eps)?,
            gate: Linear::load_plain(&dense.scope("wi_0"), width, inner)?,
            up: Linear::load_plain(&dense.scope("wi_1"), width, inner)?,
            down: Linear::load_plain(&dense.scope("wo"), inner, width)?,
        })
    }

    /// The whole layer. Shapes: `x` and the result `[tokens, d_model]`; `bias` is
    /// [`Layer::relative_bias`] of this layer, or of the last before it that has one.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn forward(&self, x: Tensor, bias: &Tensor) -> Result<Tensor> {
        let x = {
            let before = x;
            self.attended(&before, bias, LinearEpilogue::Add(&before))?
        };
        let gated = {
            let y = self.forward_norm.forward(&x)?;
            let gate = self.gate.finished(&y, LinearEpilogue::GeluTanh)?;
            self.up.finished(&y, LinearEpilogue::Times(&gate))?
        };
        self.down.finished(&gated, LinearEpilogue::Add(&x))
    }

    /// What self-attention adds to `x`. Shapes as in [`Layer::forward`].
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn attend(&self, x: &Tensor, bias: &Tensor) -> Result<Tensor> {
        self.attended(x, bias, LinearEpilogue::None)
    }

    /// Self-attention, and what `epilogue` makes of it.
    fn attended(&self, x: &Tensor, bias: &Tensor, epilogue: LinearEpilogue<'_>) -> Result<Tensor> {
        let (tokens, _) = x.dims2()?;
        let mixed = {
            let [query, key, value] = {
                let y = self.attention_norm.forward(x)?;
                let split = |linear: &Linear| -> Result<Tensor> {
                    let heads = linear.forward(&y)?.reshape((tokens, self.heads, ()))?;
                    Ok(heads.transpose(0, 1)?) // [heads, tokens, d_kv]
                };
                [split(&self.query)?, split(&self.key)?, split(&self.value)?]
            };
            kernels::attention_by_distance(&query, &key, &value, bias, 1.0)?
        };
        let mixed = mixed.transpose(0, 1)?.reshape((tokens, ()))?; // [tokens, heads·d_kv]
        self.out.finished(&mixed, epilogue)
    }

    /// What its own table adds to the scores of tokens so far apart, `[heads, 2·tokens − 1]`; none
    /// where it has no table. `buckets` is [`T5::distance_buckets`].
    ///
    /// # Errors
    /// When a bucket is none of the table.
    pub fn relative_bias(&self, buckets: &Tensor) -> Result<Option<Tensor>> {
        let Some(table) = &self.bias else { return Ok(None) };
        Ok(Some(table.t()?.contiguous()?.index_select(buckets, 1)?))
    }
}
