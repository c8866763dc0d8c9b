//! The layer that CLIP's two encoders share (arXiv:2103.00020; transformers' `modeling_clip.py`).

use candle_core::Tensor;
use kino_kernels::{self as kernels, LinearEpilogue};
use serde::Deserialize;

use crate::checkpoint::NarrowWeight;
use crate::error::Result;
use crate::weight::{LayerNorm, Linear, Weights};

/// The activation of the feed-forward layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// GELU in its exact form.
    Gelu,
    /// x·sigmoid(1.702·x).
    QuickGelu,
}

/// In how few bits a weight of either encoder may be held: the matrices of its layers.
pub(crate) fn narrow(name: &str) -> NarrowWeight {
    let in_layer = name.contains("encoder.layers.");
    match in_layer && [".self_attn.", ".mlp."].iter().any(|inner| name.contains(inner)) {
        true => NarrowWeight::Any,
        false => NarrowWeight::Never,
    }
}

/// The sizes of a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerSizes {
    /// Width of a row.
    pub(crate) width: usize,
    /// Inner width of the feed-forward.
    pub(crate) inner: usize,
    /// Attention heads.
    pub(crate) heads: usize,
    /// Epsilon of the norms.
    pub(crate) eps: f64,
    /// The activation of the feed-forward.
    pub(crate) activation: Activation,
}

/// Attention and feed-forward, each after a norm and added to its input.
#[derive(Debug)]
pub(crate) struct Layer {
    norms: [LayerNorm; 2],
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    widen: Linear,
    narrow: Linear,
    heads: usize,
    activation: Activation,
}

impl Layer {
    pub(crate) fn load(sizes: &LayerSizes, weights: &Weights) -> Result<Self> {
        let LayerSizes { width, inner, heads, eps, activation } = *sizes;
        let attention = weights.scope("self_attn");
        let linear = |name: &str| Linear::load(&attention.scope(name), width, width);
        let norm = |name: &str| LayerNorm::load(&weights.scope(name), width, eps);
        let feed = weights.scope("mlp");
        Ok(Self {
            norms: [norm("layer_norm1")?, norm("layer_norm2")?],
            query: linear("q_proj")?,
            key: linear("k_proj")?,
            value: linear("v_proj")?,
            out: linear("out_proj")?,
            widen: Linear::load(&feed.scope("fc1"), width, inner)?,
            narrow: Linear::load(&feed.scope("fc2"), inner, width)?,
            heads,
            activation,
        })
    }

    /// The whole layer; `mask` is added to the scores of each pair of rows, if there is one.
    ///
    /// Shapes: `x` and the result `[rows, width]`; `mask` `[1, rows, rows]`.
    pub(crate) fn forward(&self, x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let (rows, width) = x.dims2()?;
        let y = self.norms[0].forward(x)?;
        let split = |t: Tensor| t.reshape((rows, self.heads, ()))?.transpose(0, 1);
        let (query, key) = (split(self.query.forward(&y)?)?, split(self.key.forward(&y)?)?);
        let value = split(self.value.forward(&y)?)?; // [heads, rows, head]
        let scale = ((width / self.heads) as f64).sqrt().recip();
        let mixed = match mask {
            Some(mask) => kernels::attention_with_bias(&query, &key, &value, mask, scale)?,
            None => kernels::attention(&query, &key, &value, scale)?,
        };
        let mixed = mixed.transpose(0, 1)?.reshape((rows, width))?;
        let x = self.out.finished(&mixed, LinearEpilogue::Add(x))?;
        let y = self.widen.forward(&self.norms[1].forward(&x)?)?;
        let y = match self.activation {
            Activation::Gelu => kernels::gelu(&y)?,
            Activation::QuickGelu => {
                let gate = ((&y * -1.702)?.exp()? + 1.0)?.recip()?; // the logistic function
                (y * gate)?
            }
        };
        self.narrow.finished(&y, LinearEpilogue::Add(&x))
    }
}
