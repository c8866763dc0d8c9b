//! Row by row, in parallel: how the fast paths of norms and activations walk their data. They
//! compute in f32; numbers of bf16 are widened and rounded a row at a time.

use std::ops::Range;

use candle_core::{DType, Tensor, bail};
use half::bf16;

use crate::Result;
use crate::buffer::{filled, with_scratch};
use crate::dense::{Dense, Numbers, tensor};
use crate::number::Number;

/// Elements of one task: enough to be worth a thread, few enough to share evenly.
const TASK: usize = 16 * 1024;

/// A tensor of the shape of `like` and of type `dtype` (f32 or bf16), filled in pieces of `piece`
/// elements: `fill(range, what to write)`.
fn written(
    like: &Tensor,
    dtype: DType,
    piece: usize,
    fill: impl Fn(Range<usize>, &mut [f32]) + Sync + Send,
) -> Result<Tensor> {
    let length = like.elem_count();
    let pieces = (TASK / piece.max(1)).max(1);
    let part = pieces * piece.max(1);
    let range = |task: usize, index: usize, length: usize| {
        let start = task * part + index * piece;
        start..start + length
    };
    if dtype == DType::BF16 {
        let out = filled(length, part, |task, out: &mut [bf16]| {
            with_scratch(piece, |wide| {
                for (index, out) in out.chunks_mut(piece.max(1)).enumerate() {
                    let wide = &mut wide[..out.len()];
                    fill(range(task, index, out.len()), wide);
                    bf16::narrow(wide, out);
                }
            });
        })?;
        return tensor(out, like.shape());
    }
    let out = filled(length, part, |task, out: &mut [f32]| {
        for (index, out) in out.chunks_mut(piece.max(1)).enumerate() {
            fill(range(task, index, out.len()), out);
        }
    })?;
    tensor(out, like.shape())
}

/// Computes `fill(row index, row to write)` for all rows of `width` elements of f32.
pub(crate) fn write_rows(
    count: usize,
    width: usize,
    fill: impl Fn(usize, &mut [f32]) + Sync + Send,
) -> Result<Vec<f32>> {
    let rows = (TASK / width.max(1)).max(1);
    filled(count * width, rows * width, |task, block| {
        for (row, out) in block.chunks_exact_mut(width.max(1)).enumerate() {
            fill(task * rows + row, out);
        }
    })
}

/// A tensor of the shape and type of `like`, whose rows of `width` elements are each computed by
/// `fill(row index, row to write)`. What the row holds at first is not defined.
pub(crate) fn rows_like(
    like: &Tensor,
    width: usize,
    fill: impl Fn(usize, &mut [f32]) + Sync + Send,
) -> Result<Tensor> {
    written(like, like.dtype(), width, |range, row| fill(range.start / width.max(1), row))
}

/// Elements of a block of a function of single numbers.
const BLOCK: usize = 2 * 1024;

/// A tensor of the shape and type of `x`, by `fill(input, output)` for blocks of elements.
pub(crate) fn map_blocks(
    x: &Tensor,
    fill: impl Fn(&[f32], &mut [f32]) + Sync + Send,
) -> Result<Tensor> {
    let dense = Dense::new(x)?;
    let numbers = dense.numbers();
    written(x, x.dtype(), BLOCK, |range, out| numbers.with(range, |x| fill(x, out)))
}

/// The same of two operands of one shape: `fill(x, y, output)`; the type is that of `x`.
pub(crate) fn zip_blocks(
    x: &Tensor,
    y: &Tensor,
    fill: impl Fn(&[f32], &[f32], &mut [f32]) + Sync + Send,
) -> Result<Tensor> {
    let (x_dense, y_dense) = (Dense::new(x)?, Dense::new(y)?);
    let (of_x, of_y) = (x_dense.numbers(), y_dense.numbers());
    written(x, x.dtype(), BLOCK, |range, out| {
        of_x.with(range.clone(), |x| of_y.with(range, |y| fill(x, y, out)));
    })
}

/// Number and width of the rows along the last dimension.
pub(crate) fn rows_of(x: &Tensor) -> Result<(usize, usize)> {
    match x.dims().last() {
        Some(&width) if width > 0 => Ok((x.elem_count() / width, width)),
        _ => bail!("{:?} has no rows", x.dims()),
    }
}

/// An operand that has one row for all rows of another tensor, or one for each.
pub(crate) struct PerRow {
    dense: Dense,
    width: usize,
    single: bool,
}

impl PerRow {
    /// `None` where the shapes broadcast in some other way.
    pub(crate) fn new(operand: &Tensor, x: &Tensor) -> Result<Option<Self>> {
        let (_, width) = rows_of(x)?;
        let single = operand.elem_count() == width && operand.dims().last() == Some(&width);
        if !single && operand.dims() != x.dims() {
            return Ok(None);
        }
        // One row is widened once.
        let dense = if single { Dense::widened(operand)? } else { Dense::new(operand)? };
        Ok(Some(Self { dense, width, single }))
    }

    pub(crate) fn read(&self) -> Rows<'_> {
        Rows { data: self.dense.numbers(), width: self.width, single: self.single }
    }
}

/// The rows of a [`PerRow`] operand.
pub(crate) struct Rows<'a> {
    data: Numbers<'a>,
    width: usize,
    single: bool,
}

impl Rows<'_> {
    /// Runs `work` on the row that belongs to row `index`.
    pub(crate) fn with<R>(&self, index: usize, work: impl FnOnce(&[f32]) -> R) -> R {
        let start = if self.single { 0 } else { index * self.width };
        self.data.with(start..start + self.width, work)
    }
}
