//! Row by row, in parallel: how the fast paths of norms and activations walk their data.

use candle_core::{Tensor, bail};

use crate::Result;
use crate::buffer::filled;
use crate::dense::{Dense, Elements};

/// Elements of one task: enough to be worth a thread, few enough to share evenly.
const TASK: usize = 16 * 1024;

/// Computes `fill(row index, row to write)` for all rows of `width` elements.
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

/// Computes `fill(input, output)` for blocks of elements of any shape.
pub(crate) fn map_blocks(
    x: &[f32],
    fill: impl Fn(&[f32], &mut [f32]) + Sync + Send,
) -> Result<Vec<f32>> {
    filled(x.len(), TASK, |task, out| fill(&x[task * TASK..][..out.len()], out))
}

/// Computes `fill(x, y, output)` for blocks of elements of two operands of one shape.
pub(crate) fn zip_blocks(
    x: &[f32],
    y: &[f32],
    fill: impl Fn(&[f32], &[f32], &mut [f32]) + Sync + Send,
) -> Result<Vec<f32>> {
    filled(x.len(), TASK, |task, out| {
        let block = task * TASK..task * TASK + out.len();
        fill(&x[block.clone()], &y[block], out);
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
        Ok(Some(Self { dense: Dense::new(operand)?, width, single }))
    }

    pub(crate) fn read(&self) -> Rows<'_> {
        Rows { data: self.dense.read(), width: self.width, single: self.single }
    }
}

/// The rows of a [`PerRow`] operand.
pub(crate) struct Rows<'a> {
    data: Elements<'a>,
    width: usize,
    single: bool,
}

impl Rows<'_> {
    /// The row that belongs to row `index`.
    pub(crate) fn row(&self, index: usize) -> &[f32] {
        let start = if self.single { 0 } else { index * self.width };
        &self.data[start..start + self.width]
    }
}
