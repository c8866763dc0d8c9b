//! The blocks: double ones, in which text and picture have layers of their own, and single ones.

use candle_core::Tensor;
use kino_kernels::{self as kernels, LinearEpilogue};

use super::condition::Modulation;
use super::rope::Rotation;
use crate::error::{Error, Result};
use crate::families::flux::transformer::TransformerConfig;
use crate::weight::{FeedForward, Heads, Linear, RmsNorm, Weights, by_rows};

/// Epsilon of the norms.
pub(super) const EPS: f64 = 1e-6;

/// Attention of a sequence to itself. Shapes: `[n, heads, head]` to `[n, dim]`.
fn mix(heads: Heads, [query, key, value]: [Tensor; 3], rotation: &Rotation) -> Result<Tensor> {
    let turned =
        |x: Tensor| kernels::rope_interleaved(&x, &rotation.cos, &rotation.sin)?.transpose(0, 1);
    heads.mix(&turned(query)?, &turned(key)?, &value.transpose(0, 1)?)
}

/// Queries, keys and values; the first two normalised within each head.
#[derive(Debug)]
struct Projections {
    layers: [Linear; 3],
    norms: [RmsNorm; 2],
    heads: Heads,
}

impl Projections {
    /// Reads layers and norms of these names.
    fn load(
        config: &TransformerConfig,
        weights: &Weights,
        (layers, norms): ([&str; 3], [&str; 2]),
    ) -> Result<Self> {
        let dim = config.dim();
        let layer = |name: &str| Linear::load(&weights.scope(name), dim, dim);
        let norm = |name: &str| RmsNorm::load(&weights.scope(name), config.attention_head_dim, EPS);
        let ([query, key, value], [of_query, of_key]) = (layers, norms);
        Ok(Self {
            layers: [layer(query)?, layer(key)?, layer(value)?],
            norms: [norm(of_query)?, norm(of_key)?],
            heads: config.heads(),
        })
    }

    /// `[n, dim]` → three times `[n, heads, head]`.
    fn forward(&self, x: &Tensor) -> Result<[Tensor; 3]> {
        let split = |layer: &Linear| self.heads.split(&layer.forward(x)?);
        let [query, key, value] = &self.layers;
        Ok([
            self.norms[0].forward(&split(query)?)?,
            self.norms[1].forward(&split(key)?)?,
            split(value)?,
        ])
    }
}

/// The names of the picture's projections, and of the text's beside them.
const OWN: ([&str; 3], [&str; 2]) = (["to_q", "to_k", "to_v"], ["norm_q", "norm_k"]);
const ADDED: ([&str; 3], [&str; 2]) =
    (["add_q_proj", "add_k_proj", "add_v_proj"], ["norm_added_q", "norm_added_k"]);

/// The layers that text or picture has for itself in a double block.
#[derive(Debug)]
struct Stream {
    modulation: Modulation,
    projections: Projections,
    out: Linear,
    feed: FeedForward,
}

/// Shift, scale and gate of attention, then of the feed-forward.
type Six = [Tensor; 6];

impl Stream {
    fn load(
        config: &TransformerConfig,
        weights: &Weights,
        [norm, out, feed]: [&str; 3],
        names: ([&str; 3], [&str; 2]),
    ) -> Result<Self> {
        let (dim, inner) = (config.dim(), config.inner());
        let attention = weights.scope("attn");
        Ok(Self {
            modulation: Modulation::load(&weights.scope(norm), dim, 6)?,
            projections: Projections::load(config, &attention, names)?,
            out: Linear::load(&attention.scope(out), dim, dim)?,
            feed: FeedForward::load(&weights.scope(feed), dim, inner)?,
        })
    }

    fn modulation(&self, steering: &Tensor) -> Result<Six> {
        let parts: Result<Six, _> = self.modulation.of(steering)?.try_into();
        parts.map_err(|_| Error::input("a modulation of other than six parts"))
    }

    /// Queries, keys and values of `[n, dim]`.
    fn project(&self, x: &Tensor, [shift, scale, ..]: &Six) -> Result<[Tensor; 3]> {
        self.projections.forward(&kernels::modulate(x, shift, scale, EPS)?)
    }

    /// What attention and the feed-forward make of `x`. Shapes: `[n, dim]`, all of them.
    fn finish(
        &self,
        x: &Tensor,
        mixed: &Tensor,
        [_, _, gate, shift, scale, last]: &Six,
    ) -> Result<Tensor> {
        let x = self.out.finished(mixed, LinearEpilogue::GateAdd { to: x, gate })?;
        let y = kernels::modulate(&x, shift, scale, EPS)?;
        self.feed.gate_add(&y, &x, last)
    }
}

/// A block in which text and picture have layers of their own and one attention.
#[derive(Debug)]
pub(super) struct DoubleBlock {
    picture: Stream,
    text: Stream,
    heads: Heads,
}

impl DoubleBlock {
    pub(super) fn load(config: &TransformerConfig, weights: &Weights) -> Result<Self> {
        let picture = ["norm1", "to_out.0", "ff"];
        let text = ["norm1_context", "to_add_out", "ff_context"];
        Ok(Self {
            picture: Stream::load(config, weights, picture, OWN)?,
            text: Stream::load(config, weights, text, ADDED)?,
            heads: config.heads(),
        })
    }

    /// Shapes: `text` `[rows, dim]`, `x` `[tokens, dim]`, and so the results; `steering` `[1, dim]`.
    pub(super) fn forward(
        &self,
        (text, x): (&Tensor, &Tensor),
        steering: &Tensor,
        rotation: &Rotation,
    ) -> Result<(Tensor, Tensor)> {
        let of_text = self.text.modulation(steering)?;
        let of_picture = self.picture.modulation(steering)?;
        let [first, second] =
            [self.text.project(text, &of_text)?, self.picture.project(x, &of_picture)?];
        let joined = |index: usize| Tensor::cat(&[&first[index], &second[index]], 0);
        let joined = [joined(0)?, joined(1)?, joined(2)?];
        drop((first, second));
        let mixed = mix(self.heads, joined, rotation)?; // [rows + tokens, dim]
        let rows = text.dim(0)?;
        let of_rows = mixed.narrow(0, 0, rows)?;
        let of_tokens = mixed.narrow(0, rows, x.dim(0)?)?;
        Ok((
            self.text.finish(text, &of_rows, &of_text)?,
            self.picture.finish(x, &of_tokens, &of_picture)?,
        ))
    }
}

/// A block in which attention and feed-forward stand side by side, for text and picture alike.
#[derive(Debug)]
pub(super) struct SingleBlock {
    modulation: Modulation,
    projections: Projections,
    widen: Linear,
    out: Linear,
    heads: Heads,
}

impl SingleBlock {
    pub(super) fn load(config: &TransformerConfig, weights: &Weights) -> Result<Self> {
        let (dim, inner) = (config.dim(), config.inner());
        Ok(Self {
            modulation: Modulation::load(&weights.scope("norm"), dim, 3)?,
            projections: Projections::load(config, &weights.scope("attn"), OWN)?,
            widen: Linear::load(&weights.scope("proj_mlp"), dim, inner)?,
            out: Linear::load(&weights.scope("proj_out"), dim + inner, dim)?,
            heads: config.heads(),
        })
    }

    /// Shapes: `x` and the result `[rows + tokens, dim]`; `steering` `[1, dim]`.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        steering: &Tensor,
        rotation: &Rotation,
    ) -> Result<Tensor> {
        let parts = self.modulation.of(steering)?;
        let [shift, scale, gate] = parts.as_slice() else {
            return Err(Error::input("a modulation of other than three parts"));
        };
        let y = kernels::modulate(x, shift, scale, EPS)?;
        let mixed = mix(self.heads, self.projections.forward(&y)?, rotation)?;
        by_rows(x.dim(0)?, |start, count| {
            let rows = |tensor: &Tensor| tensor.narrow(0, start, count);
            let wide = self.widen.finished(&rows(&y)?, LinearEpilogue::GeluTanh)?;
            let both = Tensor::cat(&[rows(&mixed)?, wide], 1)?; // [count, dim + inner]
            self.out.finished(&both, LinearEpilogue::GateAdd { to: &rows(x)?, gate })
        })
    }
}
