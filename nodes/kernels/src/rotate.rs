//! Rotation of groups of numbers by a regular Hadamard matrix (ConvRot, arXiv:2512.03673), which
//! spreads outliers before numbers are rounded.

use candle_core::{DType, Device, Tensor, bail};

use crate::buffer::filled;
use crate::dense::{Dense, fast, tensor};
use crate::rows::rows_of;
use crate::{Result, card, composite};

/// Rows that one task rotates.
const ROWS: usize = 16;

/// x·H in every group of `group` numbers of the last dimension, where H = H₄ ⊗ … ⊗ H₄/√group and
///
/// H₄ = [[1, 1, 1, −1], [1, 1, −1, 1], [1, −1, 1, 1], [−1, 1, 1, 1]].
///
/// H is symmetric and its own inverse: rotating twice changes nothing.
///
/// Shapes: `x` `[…, n·group]`, the result the same in the type of `x`.
///
/// # Errors
/// When `group` is no power of 4, or the last dimension no multiple of it.
pub fn rotate_groups(x: &Tensor, group: usize) -> Result<Tensor> {
    let width = x.dims().last().copied().unwrap_or(0);
    if group < 4 || !group.is_power_of_two() || !group.trailing_zeros().is_multiple_of(2) {
        bail!("rotate_groups: groups of {group}, expected a power of 4");
    }
    if !width.is_multiple_of(group) {
        bail!("rotate_groups: {:?} does not end in whole groups of {group}", x.dims());
    }
    if matches!(x.device(), Device::Cpu) && x.dtype() != DType::F32 && !x.track_op() {
        return rotate_groups(&x.to_dtype(DType::F32)?, group)?.to_dtype(x.dtype());
    }
    if let Some(rotated) = card::rotate_groups(x, group) {
        return rotated;
    }
    if !fast(&[x]) {
        return composite::rotate_groups(x, group);
    }
    let (rows, width) = rows_of(x)?;
    let dense = Dense::new(x)?;
    let data = dense.read();
    let scale = 1.0 / (group as f32).sqrt(); // a power of two: exact
    let rotated = filled(rows * width, ROWS * width, |task, part| {
        let start = task * ROWS * width;
        part.copy_from_slice(&data[start..start + part.len()]);
        part.chunks_exact_mut(group).for_each(|group| rotate(group, scale));
    })?;
    tensor(rotated, x.dims())
}

/// One group, a factor H₄ of the product after another.
fn rotate(numbers: &mut [f32], scale: f32) {
    let mut step = 1;
    while step < numbers.len() {
        for block in numbers.chunks_exact_mut(4 * step) {
            let (low, high) = block.split_at_mut(2 * step);
            let ((a, b), (c, d)) = (low.split_at_mut(step), high.split_at_mut(step));
            for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
                let half = (*a + *b + *c + *d) * 0.5;
                // A row of H₄ is the sum of all less twice one of them.
                (*a, *b, *c, *d) =
                    (2.0 * (half - *d), 2.0 * (half - *c), 2.0 * (half - *b), 2.0 * (half - *a));
            }
        }
        step *= 4;
    }
    numbers.iter_mut().for_each(|number| *number *= scale);
}
