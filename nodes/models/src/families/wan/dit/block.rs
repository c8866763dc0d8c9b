//! One transformer block: self-attention, cross-attention to the text, feed-forward.

use candle_core::{DType, Tensor};
use kino_kernels::{self as kernels, LinearEpilogue};

use super::condition::{Modulation, ProjectedText};
use crate::error::{Error, Result};
use crate::families::wan::transformer::TransformerConfig;
use crate::weight::{FeedForward, Heads, Linear, RmsNorm, Weights};

/// The tokens of one clip among the packed ones, and what they are led by in this block.
pub(super) struct Clip<'a> {
    pub(super) start: usize,
    pub(super) tokens: usize,
    pub(super) context: &'a BlockContext,
}

/// A text, and pictures where there are any, as one block's cross-attention reads them: keys and
/// values, each `[heads, rows, head_dim]`, with what is added to the scores of the text's rows.
#[derive(Debug, Clone)]
pub(super) struct BlockContext {
    text: (Tensor, Tensor),
    text_bias: Option<Tensor>,
    image: Option<(Tensor, Tensor)>,
}

/// What turns a text, and pictures, into keys and values of a block. It is computed with once a
/// run, and the rest of the block in every pass.
#[derive(Debug)]
pub(super) struct BlockText {
    key: Linear,
    key_norm: RmsNorm,
    value: Linear,
    image: Option<Added>,
    heads: Heads,
}

impl BlockText {
    pub(super) fn load(config: &TransformerConfig, weights: &Weights) -> Result<Self> {
        let (dim, weights) = (config.dim(), weights.scope("attn2"));
        let image = config.image_dim.map(|_| Added::load(config, &weights));
        Ok(Self {
            key: Linear::load(&weights.scope("to_k"), dim, dim)?,
            key_norm: RmsNorm::load(&weights.scope("norm_k"), dim, config.eps)?,
            value: Linear::load(&weights.scope("to_v"), dim, dim)?,
            image: image.transpose()?,
            heads: config.heads(),
        })
    }

    /// Keys and values of a projected text and of projected pictures. Shapes: `[rows, dim]` to
    /// twice `[heads, rows, head]`.
    pub(super) fn context(
        &self,
        text: &ProjectedText,
        image: Option<&Tensor>,
    ) -> Result<BlockContext> {
        let place = |t: Tensor| -> Result<Tensor> {
            Ok(self.heads.split(&t)?.transpose(0, 1)?.contiguous()?)
        };
        let both = |key: &Linear, norm: &RmsNorm, value: &Linear, rows: &Tensor| {
            Ok::<_, Error>((
                place(norm.forward(&key.forward(rows)?)?)?,
                place(value.forward(rows)?)?,
            ))
        };
        let image = image.zip(self.image.as_ref());
        Ok(BlockContext {
            text: both(&self.key, &self.key_norm, &self.value, &text.rows)?,
            text_bias: text.bias.clone(),
            image: image
                .map(|(rows, added)| both(&added.key, &added.key_norm, &added.value, rows))
                .transpose()?,
        })
    }
}

/// A block, but for its [`BlockText`].
#[derive(Debug)]
pub(super) struct Block {
    table: Tensor, // [1, 6, dim], f32
    own: Attention,
    text: Query,
    text_norm: Option<(Tensor, Tensor)>, // weight and bias, f32
    feed: FeedForward,
    eps: f64,
}

impl Block {
    pub(super) fn load(config: &TransformerConfig, weights: &Weights) -> Result<Self> {
        let dim = config.dim();
        let norm = weights.scope("norm2");
        let norm = |name| norm.get_as(name, dim, DType::F32);
        let text_norm = config
            .cross_attn_norm
            .then(|| Ok::<_, Error>((norm("weight")?, norm("bias")?)))
            .transpose()?;
        Ok(Self {
            table: weights.get_as("scale_shift_table", (1, 6, dim), DType::F32)?,
            own: Attention::load(config, &weights.scope("attn1"))?,
            text: Query::load(config, &weights.scope("attn2"))?,
            text_norm,
            feed: FeedForward::load(&weights.scope("ffn"), dim, config.ffn_dim)?,
            eps: config.eps,
        })
    }

    /// This block's shifts, scales and gates.
    pub(super) fn modulation(&self, added: &Tensor, rows: Option<&Tensor>) -> Result<Modulation> {
        Ok(Modulation::new(self.table.broadcast_add(added)?, rows.cloned()))
    }

    /// The whole block. Shapes: `x` and the result `[tokens, dim]`; `rotation` twice
    /// `[tokens, head_dim/2]`.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        modulation: &Modulation,
        clips: &[Clip<'_>],
        rotation: (&Tensor, &Tensor),
    ) -> Result<Tensor> {
        let (shift, scale) = (modulation.part(0)?, modulation.part(1)?);
        let y = kernels::modulate(x, &shift, &scale, self.eps)?;
        let gate = modulation.part(2)?;
        let x = self.attend(y, clips, rotation, LinearEpilogue::GateAdd { to: x, gate: &gate })?;
        let y = match &self.text_norm {
            Some((weight, bias)) => kernels::layer_norm(&x, Some(weight), Some(bias), self.eps)?,
            None => x.clone(),
        };
        let x = self.attend_text(y, clips, LinearEpilogue::Add(&x))?;
        let (shift, scale) = (modulation.part(3)?, modulation.part(4)?);
        let y = kernels::modulate(&x, &shift, &scale, self.eps)?;
        self.feed.gate_add(&y, &x, &modulation.part(5)?)
    }

    /// Self-attention within each clip, and what `epilogue` makes of it.
    fn attend(
        &self,
        y: Tensor,
        clips: &[Clip<'_>],
        rotation: (&Tensor, &Tensor),
        epilogue: LinearEpilogue<'_>,
    ) -> Result<Tensor> {
        let Attention { query: asking, key, key_norm, value } = &self.own;
        let heads = asking.heads;
        let query = asking.norm.rotated(&asking.query.forward(&y)?, heads.count, rotation)?;
        let key = key_norm.rotated(&key.forward(&y)?, heads.count, rotation)?;
        let value = heads.split(&value.forward(&y)?)?; // [tokens, heads, head_dim]
        drop(y);
        let within = |clip: &Clip<'_>| {
            let own_rows = |t: &Tensor| t.narrow(0, clip.start, clip.tokens)?.transpose(0, 1);
            heads.mix(&own_rows(&query)?, &own_rows(&key)?, &own_rows(&value)?)
        };
        let mixed = joined(clips.iter().map(within))?;
        drop((query, key, value));
        asking.out.finished(&mixed, epilogue)
    }

    /// Cross-attention of each clip to its text, and to pictures where there are any: each for
    /// itself, and their sum. Zero rows of the text are not masked.
    fn attend_text(
        &self,
        y: Tensor,
        clips: &[Clip<'_>],
        epilogue: LinearEpilogue<'_>,
    ) -> Result<Tensor> {
        let (text, heads) = (&self.text, self.text.heads);
        let query = heads.split(&text.forward(&y)?)?;
        drop(y);
        let to_text = |clip: &Clip<'_>| {
            let query = query.narrow(0, clip.start, clip.tokens)?.transpose(0, 1)?;
            let BlockContext { text: (key, value), text_bias, image } = clip.context;
            let mixed = match text_bias {
                Some(bias) => heads.mix_with_bias(&query, (key, value), bias)?,
                None => heads.mix(&query, key, value)?,
            };
            match image {
                Some((key, value)) => Ok((mixed + heads.mix(&query, key, value)?)?),
                None => Ok(mixed),
            }
        };
        let mixed = joined(clips.iter().map(to_text))?;
        drop(query);
        text.out.finished(&mixed, epilogue)
    }
}

/// The clips' rows one after another, without a copy where there is one clip.
fn joined(clips: impl Iterator<Item = Result<Tensor>>) -> Result<Tensor> {
    let mut clips = clips.collect::<Result<Vec<_>>>()?;
    match clips.len() {
        1 => Ok(clips.remove(0)),
        _ => Ok(Tensor::cat(&clips, 0)?),
    }
}

/// Keys and values of pictures, beside those of the text in one attention.
#[derive(Debug)]
struct Added {
    key: Linear,
    key_norm: RmsNorm,
    value: Linear,
}

impl Added {
    fn load(config: &TransformerConfig, weights: &Weights) -> Result<Self> {
        let dim = config.dim();
        Ok(Self {
            key: Linear::load(&weights.scope("add_k_proj"), dim, dim)?,
            key_norm: RmsNorm::load(&weights.scope("norm_added_k"), dim, config.eps)?,
            value: Linear::load(&weights.scope("add_v_proj"), dim, dim)?,
        })
    }
}

/// What asks in an attention, and its way out. Queries and keys are normalised over all heads
/// together.
#[derive(Debug)]
struct Query {
    query: Linear,
    norm: RmsNorm,
    out: Linear,
    heads: Heads,
}

impl Query {
    fn load(config: &TransformerConfig, weights: &Weights) -> Result<Self> {
        let dim = config.dim();
        Ok(Self {
            query: Linear::load(&weights.scope("to_q"), dim, dim)?,
            norm: RmsNorm::load(&weights.scope("norm_q"), dim, config.eps)?,
            out: Linear::load(&weights.scope("to_out.0"), dim, dim)?,
            heads: config.heads(),
        })
    }

    /// Queries, `[tokens, dim]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.norm.forward(&self.query.forward(x)?)
    }
}

/// The layers of self-attention.
#[derive(Debug)]
struct Attention {
    query: Query,
    key: Linear,
    key_norm: RmsNorm,
    value: Linear,
}

impl Attention {
    fn load(config: &TransformerConfig, weights: &Weights) -> Result<Self> {
        let dim = config.dim();
        Ok(Self {
            query: Query::load(config, weights)?,
            key: Linear::load(&weights.scope("to_k"), dim, dim)?,
            key_norm: RmsNorm::load(&weights.scope("norm_k"), dim, config.eps)?,
            value: Linear::load(&weights.scope("to_v"), dim, dim)?,
        })
    }
}
