//! One transformer block: self-attention, cross-attention to the text, feed-forward.

use candle_core::{DType, Tensor};
use kino_kernels::{self as kernels, LinearEpilogue};

use super::TransformerConfig;
use crate::error::Result;
use crate::weight::{FeedForward, Heads, Linear, RmsNorm, Weights};

/// Epsilon of the norms of queries and keys.
const QK_EPS: f64 = 1e-5;

/// The tokens of one clip among the packed ones, and its text in this block.
pub(super) struct Clip<'a> {
    pub(super) start: usize,
    pub(super) tokens: usize,
    pub(super) text: &'a (Tensor, Tensor),
}

/// Rows of shifts, scales and gates, one set a distinct timestep, and which token takes which.
#[derive(Debug)]
pub(super) struct Modulation {
    table: Tensor,        // [distinct, parts, dim], f32
    rows: Option<Tensor>, // [tokens]; none where all tokens take row 0
}

impl Modulation {
    pub(super) fn new(table: Tensor, rows: Option<Tensor>) -> Self {
        Self { table, rows }
    }

    /// One shift, scale or gate. Shape: `[1, dim]`, or `[tokens, dim]` where tokens differ.
    pub(super) fn part(&self, index: usize) -> Result<Tensor> {
        let part = self.table.narrow(1, index, 1)?.squeeze(1)?.contiguous()?; // [distinct, dim]
        match &self.rows {
            Some(rows) => Ok(part.index_select(rows, 0)?), // [tokens, dim]
            None => Ok(part),
        }
    }
}

/// What turns a text into keys and values of a block. It is computed with once a run, and the rest
/// of the block in every pass.
#[derive(Debug)]
pub(super) struct BlockText {
    key: Linear,
    key_norm: RmsNorm,
    value: Linear,
    heads: Heads,
}

impl BlockText {
    /// Reads them from the scope of a block.
    pub(super) fn load(config: &TransformerConfig, weights: &Weights) -> Result<Self> {
        Self::of(config, &weights.scope("attn2"))
    }

    /// Reads them from the scope of an attention.
    fn of(config: &TransformerConfig, weights: &Weights) -> Result<Self> {
        let dim = config.dim();
        Ok(Self {
            key: Linear::load(&weights.scope("to_k"), dim, dim)?,
            key_norm: RmsNorm::load(&weights.scope("norm_k"), dim, QK_EPS)?,
            value: Linear::load(&weights.scope("to_v"), dim, dim)?,
            heads: config.heads(),
        })
    }

    /// Keys and values of a projected text. Shapes: `[rows, dim]` to twice `[heads, rows, head]`.
    pub(super) fn context(&self, text: &Tensor) -> Result<(Tensor, Tensor)> {
        let place = |t: Tensor| -> Result<Tensor> {
            Ok(self.heads.split(&t)?.transpose(0, 1)?.contiguous()?)
        };
        let key = place(self.key_norm.forward(&self.key.forward(text)?)?)?;
        Ok((key, place(self.value.forward(text)?)?))
    }
}

/// A block, but for its [`BlockText`].
#[derive(Debug)]
pub(super) struct Block {
    table: Tensor, // [1, 6, dim], f32
    ones: Tensor,  // [dim], f32
    own: Query,
    own_keys: BlockText,
    text: Query,
    feed: FeedForward,
    eps: f64,
}

impl Block {
    pub(super) fn load(config: &TransformerConfig, weights: &Weights) -> Result<Self> {
        let dim = config.dim();
        Ok(Self {
            table: weights.get_as("scale_shift_table", (6, dim), DType::F32)?.unsqueeze(0)?,
            ones: Tensor::ones(dim, DType::F32, weights.device())?,
            own: Query::load(config, &weights.scope("attn1"))?,
            own_keys: BlockText::of(config, &weights.scope("attn1"))?,
            text: Query::load(config, &weights.scope("attn2"))?,
            feed: FeedForward::load(&weights.scope("ff"), dim, 4 * dim)?,
            eps: config.norm_eps,
        })
    }

    /// This block's shifts, scales and gates.
    pub(super) fn modulation(&self, added: &Tensor, rows: Option<&Tensor>) -> Result<Modulation> {
        Ok(Modulation::new(self.table.broadcast_add(added)?, rows.cloned()))
    }

    /// The whole block. Shapes: `x` and the result `[tokens, dim]`; `rotation` twice
    /// `[tokens, dim/2]`.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        modulation: &Modulation,
        clips: &[Clip<'_>],
        rotation: (&Tensor, &Tensor),
    ) -> Result<Tensor> {
        let y = self.normed(x, &modulation.part(0)?, &modulation.part(1)?)?;
        let gate = modulation.part(2)?;
        let x = self.attend(y, clips, rotation, LinearEpilogue::GateAdd { to: x, gate: &gate })?;
        let x = self.attend_text(&x, clips)?;
        let y = self.normed(&x, &modulation.part(3)?, &modulation.part(4)?)?;
        self.feed.gate_add(&y, &x, &modulation.part(5)?)
    }

    /// RMS norm without weights, then ·(1 + scale) + shift. Shapes: `x` `[tokens, dim]`, `shift` and
    /// `scale` `[1, dim]` or `[tokens, dim]`.
    fn normed(&self, x: &Tensor, shift: &Tensor, scale: &Tensor) -> Result<Tensor> {
        let scale = scale.affine(1.0, 1.0)?;
        let y = match scale.dim(0)? {
            1 => kernels::rms_norm(x, &scale.squeeze(0)?, self.eps)?,
            _ => kernels::multiply(&kernels::rms_norm(x, &self.ones, self.eps)?, &scale)?,
        };
        match shift.dim(0)? {
            1 => Ok(y.broadcast_add(&shift.to_dtype(y.dtype())?)?),
            _ => Ok(kernels::add(&y, shift)?),
        }
    }

    /// Self-attention within each clip, and what `epilogue` makes of it.
    fn attend(
        &self,
        y: Tensor,
        clips: &[Clip<'_>],
        (cos, sin): (&Tensor, &Tensor),
        epilogue: LinearEpilogue<'_>,
    ) -> Result<Tensor> {
        let (own, BlockText { key, key_norm, value, heads }) = (&self.own, &self.own_keys);
        let turned = |normed: Tensor| -> Result<Tensor> {
            // All heads turn as one.
            let whole = normed.unsqueeze(1)?; // [tokens, 1, dim]
            heads.split(&kernels::rope_interleaved(&whole, cos, sin)?)
        };
        let query = turned(own.norm.forward(&own.query.forward(&y)?)?)?;
        let key = turned(key_norm.forward(&key.forward(&y)?)?)?;
        let value = heads.split(&value.forward(&y)?)?; // [tokens, heads, head_dim]
        drop(y);
        let within = |clip: &Clip<'_>| {
            let own_rows = |t: &Tensor| t.narrow(0, clip.start, clip.tokens)?.transpose(0, 1);
            heads.mix(&own_rows(&query)?, &own_rows(&key)?, &own_rows(&value)?)
        };
        let mixed = joined(clips.iter().map(within).collect::<Result<Vec<_>>>()?)?;
        drop((query, key, value));
        own.out.finished(&mixed, epilogue)
    }

    /// Cross-attention of each clip to its text, added to `x`.
    fn attend_text(&self, x: &Tensor, clips: &[Clip<'_>]) -> Result<Tensor> {
        let (text, heads) = (&self.text, self.own_keys.heads);
        let query = heads.split(&text.norm.forward(&text.query.forward(x)?)?)?;
        let to_text = |clip: &Clip<'_>| {
            let query = query.narrow(0, clip.start, clip.tokens)?.transpose(0, 1)?;
            heads.mix(&query, &clip.text.0, &clip.text.1)
        };
        let mixed = clips.iter().map(to_text).collect::<Result<Vec<_>>>()?;
        text.out.finished(&joined(mixed)?, LinearEpilogue::Add(x))
    }
}

/// The clips' rows one after another, without a copy where there is one clip.
pub(super) fn joined(mut clips: Vec<Tensor>) -> Result<Tensor> {
    match clips.len() {
        1 => Ok(clips.remove(0)),
        _ => Ok(Tensor::cat(&clips, 0)?),
    }
}

/// What an attention makes of the tokens that ask, and of what it finds. Queries and keys are
/// normalised over all heads together.
#[derive(Debug)]
struct Query {
    query: Linear,
    norm: RmsNorm,
    out: Linear,
}

impl Query {
    fn load(config: &TransformerConfig, weights: &Weights) -> Result<Self> {
        let dim = config.dim();
        Ok(Self {
            query: Linear::load(&weights.scope("to_q"), dim, dim)?,
            norm: RmsNorm::load(&weights.scope("norm_q"), dim, QK_EPS)?,
            out: Linear::load(&weights.scope("to_out.0"), dim, dim)?,
        })
    }
}
