//! The network: pre-norm RMS, attention with rotary positions whose keys and values are kept, a
//! feed-forward that is gated by SiLU (transformers' `modeling_llama.py`, `modeling_qwen3.py`).

use candle_core::{DType, Device, Tensor};
use kino_kernels::{self as kernels, LinearEpilogue};

use super::config::{Architecture, LanguageConfig};
use super::rope::{Angles, Rope};
use crate::cancel::CheckCancel;
use crate::error::{Error, Result};
use crate::weight::{Embedding, Linear, RmsNorm, Weights};

/// Tokens of a prompt that pass together: their scores are held at once.
const AT_ONCE: usize = 128;
/// What is added to the score of a token that lies ahead.
const AHEAD: f32 = -1e30;

/// A language model, its weights read.
#[derive(Debug)]
pub struct Decoder {
    config: LanguageConfig,
    embedding: Embedding, // [vocabulary, width]
    layers: Vec<Layer>,
    norm: RmsNorm,
    output: Linear, // [vocabulary, width]
    rope: Rope,
}

/// Keys and values of the tokens that were read, layer by layer, each `[kv_heads, capacity, head]`.
pub struct KvCache {
    layers: Vec<(Tensor, Tensor)>,
    length: usize,
    capacity: usize,
}

impl KvCache {
    /// Tokens that were read.
    pub fn length(&self) -> usize {
        self.length
    }
}

impl Decoder {
    /// Reads the weights by the names that llama.cpp gives them.
    ///
    /// # Errors
    /// When one is missing or has another shape than `config` says.
    pub fn load(config: &LanguageConfig, weights: &Weights) -> Result<Self> {
        let (width, vocabulary) = (config.width, config.vocabulary);
        let mut rope = config.rope.clone();
        if weights.contains(Rope::DIVISORS) {
            let divisors = weights.get_as(Rope::DIVISORS, config.head / 2, Rope::DIVISORS_TYPE)?;
            rope = rope.divided(&divisors.to_vec1::<f32>()?);
        }
        let embedding = Embedding::load(&weights.scope("token_embd"), vocabulary, width)?;
        let output = match config.tied {
            true => embedding.as_linear(),
            false => Linear::load_plain(&weights.scope("output"), width, vocabulary)?,
        };
        let blocks = weights.scope("blk");
        let layers = (0..config.layers).map(|at| Layer::load(config, &blocks.scope(at)));
        Ok(Self {
            layers: layers.collect::<Result<_>>()?,
            norm: RmsNorm::load(&weights.scope("output_norm"), width, config.eps)?,
            embedding,
            output,
            rope,
            config: config.clone(),
        })
    }

    /// A cache for so many tokens.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn cache(&self, capacity: usize) -> Result<KvCache> {
        let device = self.embedding.device();
        let shape = (self.config.kv_heads, capacity, self.config.head);
        let zeros = || Tensor::zeros(shape, DType::F32, device);
        let layers = self.layers.iter().map(|_| Ok((zeros()?, zeros()?)));
        Ok(KvCache { layers: layers.collect::<Result<_>>()?, length: 0, capacity })
    }

    /// How likely each token of the vocabulary is to follow, as logits: reads tokens behind those
    /// that the cache has, some at a time; `read` is told how many.
    ///
    /// # Errors
    /// When a token lies outside the vocabulary, the cache is full, or it is cancelled.
    pub fn logits(
        &self,
        ids: &[u32],
        cache: &mut KvCache,
        read: &mut dyn FnMut(usize),
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Vec<f32>> {
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.embedding.rows()) {
            return Err(Error::input(format!("token {id} lies outside the vocabulary")));
        }
        if ids.is_empty() || cache.length + ids.len() > cache.capacity {
            let (length, capacity) = (cache.length, cache.capacity);
            return Err(Error::input(format!(
                "{} tokens behind {length} do not fit into a cache of {capacity}",
                ids.len()
            )));
        }
        let mut last = None;
        for ids in ids.chunks(AT_ONCE) {
            last = Some(self.pass(ids, cache, check_cancel)?);
            read(ids.len());
        }
        let last = last.ok_or_else(|| Error::input("no token was read"))?;
        let last = last.narrow(0, last.dim(0)? - 1, 1)?.contiguous()?;
        let logits = self.output.forward(&self.norm.forward(&last)?)?;
        Ok(logits.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?)
    }

    /// Some tokens through all layers: `[n, width]`.
    fn pass(
        &self,
        ids: &[u32],
        cache: &mut KvCache,
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        let (n, past) = (ids.len(), cache.length);
        let device = self.embedding.device();
        let angles = self.rope.angles(past..past + n, device)?;
        let groups = self.config.heads / self.config.kv_heads;
        let ahead = (n > 1).then(|| ahead(groups, n, past, device)).transpose()?;
        let step = Step { angles, ahead, past, rope: &self.rope };
        let mut x = self.embedding.lookup(ids)?;
        for (layer, kept) in self.layers.iter().zip(&cache.layers) {
            x = layer.forward(&x, kept, &step)?;
            check_cancel()?;
        }
        cache.length += n;
        Ok(x)
    }
}

/// What is added to scores so that no token sees those behind it: `[groups·n, past + n]`.
fn ahead(groups: usize, n: usize, past: usize, device: &Device) -> Result<Tensor> {
    let row = |at: usize| (0..past + n).map(move |key| if key > past + at { AHEAD } else { 0.0 });
    let one: Vec<f32> = (0..n).flat_map(row).collect();
    Ok(Tensor::from_vec(one.repeat(groups), (groups * n, past + n), device)?)
}

/// What all layers of a pass share.
struct Step<'a> {
    angles: Angles,
    ahead: Option<Tensor>,
    past: usize,
    rope: &'a Rope,
}

/// One layer: self-attention and a feed-forward, each after a norm and added to its input.
#[derive(Debug)]
struct Layer {
    attention_norm: RmsNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    /// Norms of the heads of queries and of keys.
    head_norms: Option<[RmsNorm; 2]>,
    heads: [usize; 3], // of queries, of keys and values, width of one
    forward_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Layer {
    fn load(config: &LanguageConfig, weights: &Weights) -> Result<Self> {
        let (width, head, eps) = (config.width, config.head, config.eps);
        let [attended, kept] = [config.heads, config.kv_heads].map(|heads| heads * head);
        let plain = |name: &str, inner, out| Linear::load_plain(&weights.scope(name), inner, out);
        let project = |name: &str, out| match config.architecture {
            Architecture::Qwen2 => Linear::load(&weights.scope(name), width, out),
            _ => plain(name, width, out),
        };
        let norm = |name: &str, width| RmsNorm::load(&weights.scope(name), width, eps);
        let head_norms = match config.architecture {
            Architecture::Qwen3 => Some([norm("attn_q_norm", head)?, norm("attn_k_norm", head)?]),
            _ => None,
        };
        Ok(Self {
            attention_norm: norm("attn_norm", width)?,
            query: project("attn_q", attended)?,
            key: project("attn_k", kept)?,
            value: project("attn_v", kept)?,
            out: plain("attn_output", attended, width)?,
            head_norms,
            heads: [config.heads, config.kv_heads, head],
            forward_norm: norm("ffn_norm", width)?,
            gate: plain("ffn_gate", width, config.inner)?,
            up: plain("ffn_up", width, config.inner)?,
            down: plain("ffn_down", config.inner, width)?,
        })
    }

    /// Shapes: `x` and the result `[n, width]`.
    fn forward(&self, x: &Tensor, kept: &(Tensor, Tensor), step: &Step<'_>) -> Result<Tensor> {
        let mixed = self.attend(&self.attention_norm.forward(x)?, kept, step)?;
        let x = self.out.finished(&mixed, LinearEpilogue::Add(x))?;
        let y = self.forward_norm.forward(&x)?;
        let gate = kernels::silu(&self.gate.forward(&y)?)?;
        let gated = self.up.finished(&y, LinearEpilogue::Times(&gate))?;
        self.down.finished(&gated, LinearEpilogue::Add(&x))
    }

    /// Attention to all tokens up to each one. Shapes: `y` `[n, width]`; the result
    /// `[n, heads·head]`.
    fn attend(&self, y: &Tensor, kept: &(Tensor, Tensor), step: &Step<'_>) -> Result<Tensor> {
        let ([heads, kv_heads, head], n) = (self.heads, y.dim(0)?);
        let split = |x: Tensor, heads: usize| Ok::<_, Error>(x.reshape((n, heads, head))?);
        let mut query = split(self.query.forward(y)?, heads)?;
        let mut key = split(self.key.forward(y)?, kv_heads)?;
        let value = split(self.value.forward(y)?, kv_heads)?;
        if let Some([of_query, of_key]) = &self.head_norms {
            (query, key) = (of_query.forward(&query)?, of_key.forward(&key)?);
        }
        query = step.rope.turn(&query, &step.angles)?;
        key = step.rope.turn(&key, &step.angles)?;
        let (keys, values) = kept;
        keys.slice_set(&key.transpose(0, 1)?.contiguous()?, 1, step.past)?;
        values.slice_set(&value.transpose(0, 1)?.contiguous()?, 1, step.past)?;
        let known = step.past + n;
        let (keys, values) = (keys.narrow(1, 0, known)?, values.narrow(1, 0, known)?);
        // The queries of all heads that share their keys stand below each other.
        let query = query.transpose(0, 1)?.contiguous()?; // [heads, n, head]
        let query = query.reshape((kv_heads, heads / kv_heads * n, head))?;
        let scale = 1.0 / (head as f64).sqrt();
        let mixed = match &step.ahead {
            Some(ahead) => kernels::attention_with_bias(&query, &keys, &values, ahead, scale)?,
            None => kernels::attention(&query, &keys, &values, scale)?,
        };
        let mixed = mixed.reshape((heads, n, head))?.transpose(0, 1)?;
        Ok(mixed.reshape((n, heads * head))?)
    }
}
