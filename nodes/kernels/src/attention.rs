//! Attention in blocks with an online softmax: the matrix of scores never exists whole.

use candle_core::{Tensor, bail};

use crate::buffer::with_scratch;
use crate::dense::{Elements, fast, tensor};
use crate::matrix::{Matrix, TileMut, filled_by_tiles};
use crate::tier::by_tier;
use crate::{Result, composite, math};

/// Queries of a task, and keys that it looks at together: their scores fit the cache.
const QUERIES: usize = 96;
const KEYS: usize = 512;

/// Softmax(q·kᵀ·scale)·v without a mask.
///
/// Shapes: `q` `[heads, n, d]`, `k` and `v` `[heads, m, d]`; the result is `[heads, n, d]`. Views
/// of `[n, heads, d]` (by `transpose(0, 1)`) are read where they lie. If `q` is one, the result
/// lies in memory as `[n, heads, d]` too: transposing it back and reshaping copies nothing.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Result<Tensor> {
    check(q, k, v)?;
    if !fast(&[q, k, v]) || scale <= 0.0 {
        return composite::attention(q, k, v, scale);
    }
    let (heads, n, d) = q.dims3()?;
    let by_token = heads > 1 && q.stride()[0] < q.stride()[1];
    let (q, k, v) = (Operand::new(q)?, Operand::new(k)?, Operand::new(v)?);
    let (q, k, v) = (q.read()?, k.read()?, v.read()?);
    let block = |head: usize, tile: TileMut| {
        attend(q.head(head), k.head(head), v.head(head), [k.length, d], scale as f32, tile);
    };
    if by_token {
        let out = filled_by_tiles(1, [n, heads * d], [QUERIES, d], |_, tile| {
            block(tile.columns.start / d, tile);
        })?;
        tensor(out, (n, heads, d))?.transpose(0, 1)
    } else {
        let out = filled_by_tiles(heads, [n, d], [QUERIES, d], block)?;
        tensor(out, (heads, n, d))
    }
}

/// Softmax(q·kᵀ·scale + bias)·v: for the short sequences of a text encoder.
///
/// Shapes: as [`attention`]; `bias` broadcasts to `[heads, n, m]`.
pub fn attention_with_bias(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    bias: &Tensor,
    scale: f64,
) -> Result<Tensor> {
    check(q, k, v)?;
    let keys = k.transpose(1, 2)?.contiguous()?; // [heads, d, m]
    let scores = (q.contiguous()?.matmul(&keys)? * scale)?; // [heads, n, m]
    let scores = scores.broadcast_add(&bias.to_dtype(scores.dtype())?)?;
    crate::softmax_last(&scores)?.matmul(&v.contiguous()?)
}

fn check(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<()> {
    let (heads, _, d) = q.dims3()?;
    let (key_heads, m, key_d) = k.dims3()?;
    if (heads, d) != (key_heads, key_d) || v.dims3()? != (heads, m, d) || m == 0 {
        bail!(
            "attention: q {:?}, k {:?}, v {:?}; expected [heads, n, d] and twice [heads, m, d]",
            q.dims(),
            k.dims(),
            v.dims()
        );
    }
    Ok(())
}

/// A tensor `[heads, length, d]` whose vectors are contiguous, wherever they lie.
struct Operand(Tensor);

impl Operand {
    fn new(x: &Tensor) -> Result<Self> {
        let contiguous_vectors = x.stride()[2] == 1 || x.dims()[2] == 1;
        Ok(Self(if contiguous_vectors { x.clone() } else { x.force_contiguous()? }))
    }

    fn read(&self) -> Result<Heads<'_>> {
        let (stride, first) = (self.0.stride(), self.0.layout().start_offset());
        Ok(Heads {
            data: Elements::whole(&self.0)?,
            first,
            step: [stride[0], stride[1]],
            length: self.0.dim(1)?,
        })
    }
}

/// The vectors of an [`Operand`], by head.
struct Heads<'a> {
    data: Elements<'a>,
    first: usize,
    step: [usize; 2],
    length: usize,
}

impl Heads<'_> {
    /// The vectors of a head as rows.
    fn head(&self, head: usize) -> Matrix<'_> {
        Matrix::rows(&self.data[self.first + head * self.step[0]..], self.step[1])
    }
}

/// Rows `start..` of a matrix.
fn below(matrix: Matrix, start: usize) -> Matrix {
    Matrix { data: &matrix.data[start * matrix.row_step..], ..matrix }
}

/// The result for some queries of one head: `tile` is `[queries, d]`.
///
/// For each block of keys: scores s, new maximum m' ≥ m of each row, p = exp(s − m'); what was
/// summed before shrinks by exp(m − m').
fn attend(q: Matrix, k: Matrix, v: Matrix, [m, d]: [usize; 2], scale: f32, mut tile: TileMut) {
    let (q, queries) = (below(q, tile.rows.start), tile.rows.len());
    let mut tops = [f32::NEG_INFINITY; QUERIES];
    let mut sums = [0.0; QUERIES];
    with_scratch(QUERIES * KEYS, |scores| {
        for start in (0..m).step_by(KEYS) {
            let keys = KEYS.min(m - start);
            TileMut::new(scores, queries, keys, keys).multiply(
                d,
                q,
                below(k, start).transposed(),
                false,
            );
            for row in 0..queries {
                let scores = &mut scores[row * keys..][..keys];
                let (top, sum) = (&mut tops[row], &mut sums[row]);
                let shrink = absorb(scores, scale, top, sum);
                if start > 0 && shrink != 1.0 {
                    scale_row(tile.row(row), shrink);
                }
            }
            tile.multiply(keys, Matrix::rows(scores, keys), below(v, start), start > 0);
        }
    });
    for (row, sum) in sums.iter().enumerate().take(queries) {
        scale_row(tile.row(row), 1.0 / sum);
    }
}

by_tier! {
    /// Turns a row of scores into weights; returns by how much the earlier ones shrink.
    fn absorb<FMA>(scores: &mut [f32], scale: f32, top: &mut f32, sum: &mut f32) -> f32 {
        let before = *top;
        let here = math::largest(scores) * scale;
        let now = if here > before { here } else { before };
        let added = math::exp_row::<FMA>(scores, scale, now);
        let shrink = if before == now { 1.0 } else { math::exp::<FMA>(before - now) };
        *sum = math::madd::<FMA>(*sum, shrink, added);
        *top = now;
        shrink
    }
}

by_tier! {
    fn scale_row<FMA>(row: &mut [f32], factor: f32) {
        row.iter_mut().for_each(|x| *x *= factor);
    }
}
