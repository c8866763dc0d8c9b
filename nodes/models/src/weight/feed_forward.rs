//! The feed-forward of a block, and what is computed with some rows of a sequence at a time.

use candle_core::Tensor;
use kino_kernels::{self as kernels, LinearEpilogue};

use super::{Linear, Weights};
use crate::error::Result;

/// Rows of a sequence that are widened at a time, at most: a feed-forward is four to nine times as
/// wide as what it reads, and for each row by itself. Products pack as many rows, or half of them.
pub const WIDENED_ROWS: usize = 2 * kernels::PACKED_ROWS;

/// W₂·gelu(W₁·y + b₁) + b₂, GELU in its tanh form.
#[derive(Debug)]
pub struct FeedForward {
    widen: Linear,
    narrow: Linear,
}

impl FeedForward {
    /// Reads `net.0.proj` and `net.2`, as diffusers names them.
    ///
    /// # Errors
    /// When a weight is missing or has another shape.
    pub fn load(weights: &Weights, dim: usize, inner: usize) -> Result<Self> {
        let net = weights.scope("net");
        Ok(Self {
            widen: Linear::load(&net.scope("0.proj"), dim, inner)?,
            narrow: Linear::load(&net.scope(2), inner, dim)?,
        })
    }

    /// What it makes of `y`, times `gate`, added to `to`. Shapes: `y`, `to` and the result
    /// `[tokens, dim]`; `gate` `[1, dim]` or `[tokens, dim]`.
    ///
    /// # Errors
    /// When shapes or types do not fit.
    pub fn gate_add(&self, y: &Tensor, to: &Tensor, gate: &Tensor) -> Result<Tensor> {
        let tokens = y.dim(0)?;
        let is_for_all = gate.dim(0)? == 1;
        by_rows(tokens, |start, count| {
            let rows = |tensor: &Tensor| tensor.narrow(0, start, count);
            let gate = if is_for_all { gate.clone() } else { rows(gate)? };
            let wide = self.widen.finished(&rows(y)?, LinearEpilogue::GeluTanh)?;
            self.narrow.finished(&wide, LinearEpilogue::GateAdd { to: &rows(to)?, gate: &gate })
        })
    }
}

/// The rows of a result, of which `compute(start, count)` makes some: at most [`WIDENED_ROWS`] at a
/// time, in parts that are nearly equal.
///
/// # Errors
/// Those of `compute`, and where the parts are not alike.
pub fn by_rows(
    rows: usize,
    mut compute: impl FnMut(usize, usize) -> Result<Tensor>,
) -> Result<Tensor> {
    let parts = rows.div_ceil(WIDENED_ROWS);
    if parts <= 1 {
        return compute(0, rows);
    }
    let place = |part: usize| rows * part / parts;
    let parts = (0..parts).map(|part| compute(place(part), place(part + 1) - place(part)));
    Ok(Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::weight::Weight;

    /// In parts or as a whole: the same bits.
    #[test]
    fn a_long_sequence_is_computed_with_in_parts() {
        let (dim, inner, tokens) = (24, 40, 2 * WIDENED_ROWS + 5);
        let random = |rows: usize, columns: usize| {
            Tensor::randn(0f32, 1.0, (rows, columns), &Device::Cpu).unwrap()
        };
        let layer = |out, inner| Linear::new(Weight::Dense(random(out, inner)), None);
        let feed = FeedForward { widen: layer(inner, dim), narrow: layer(dim, inner) };
        let (y, to) = (random(tokens, dim), random(tokens, dim));
        for gates in [1, tokens] {
            let gate = random(gates, dim);
            let found = feed.gate_add(&y, &to, &gate).unwrap();
            let wide = feed.widen.finished(&y, LinearEpilogue::GeluTanh).unwrap();
            let end = LinearEpilogue::GateAdd { to: &to, gate: &gate };
            let whole = feed.narrow.finished(&wide, end).unwrap();
            let [found, whole] = [found, whole].map(|t| t.to_vec2::<f32>().unwrap());
            assert_eq!(found.len(), tokens);
            assert!(found == whole, "{gates} gates");
        }
    }

    #[test]
    fn parts_are_nearly_equal_and_none_is_too_long() {
        for rows in [1, WIDENED_ROWS, WIDENED_ROWS + 1, 5 * WIDENED_ROWS - 3] {
            let mut seen = Vec::new();
            let made = by_rows(rows, |start, count| {
                seen.push(start..start + count);
                Ok(Tensor::arange(start as u32, (start + count) as u32, &Device::Cpu)?)
            });
            assert_eq!(made.unwrap().to_vec1::<u32>().unwrap(), Vec::from_iter(0..rows as u32));
            let lengths = seen.iter().map(ExactSizeIterator::len);
            let (least, most) = (lengths.clone().min().unwrap(), lengths.max().unwrap());
            assert!(most <= WIDENED_ROWS && most - least <= 1, "{seen:?}");
        }
    }
}
