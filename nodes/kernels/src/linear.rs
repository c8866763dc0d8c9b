//! The product of activations and a weight matrix.

use candle_core::{Tensor, bail};

use crate::dense::{Dense, fast, tensor};
use crate::matrix::{Matrix, filled_by_tiles};
use crate::rows::rows_of;
use crate::{Result, composite};

/// Rows and columns of a task: large enough that packing both operands costs little beside the
/// product, and the result stays in the second-level cache.
const TILE: [usize; 2] = [512, 512];

/// x·Wᵀ + b over the last dimension.
///
/// Shapes: `x` `[…, in]`, `weight` `[out, in]`, `bias` `[out]`; the result is `[…, out]`.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (out, inner) = weight.dims2()?;
    if x.dims().last() != Some(&inner) {
        bail!("linear: input {:?} does not end in {inner} as the weight's rows", x.dims());
    }
    if let Some(bias) = bias
        && bias.dims() != [out]
    {
        bail!("linear: a bias of {:?} for {out} outputs", bias.dims());
    }
    if !fast(&[x, weight]) || bias.is_some_and(|bias| !fast(&[bias])) {
        return composite::linear(x, weight, bias);
    }
    let (rows, _) = rows_of(x)?;
    let (x_dense, weight, bias) = (Dense::new(x)?, Dense::new(weight)?, Dense::optional(bias)?);
    let (data, weight) = (x_dense.read(), weight.read());
    let bias = bias.as_ref().map(Dense::read);
    let y = filled_by_tiles(1, [rows, out], TILE, |_, mut tile| {
        let lhs = Matrix::rows(&data[tile.rows.start * inner..], inner);
        let rhs = Matrix::rows(&weight[tile.columns.start * inner..], inner).transposed();
        tile.multiply(inner, lhs, rhs, false);
        if let Some(bias) = &bias {
            let bias = &bias[tile.columns.clone()];
            for row in 0..tile.rows.len() {
                tile.row(row).iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
        }
    })?;
    let mut shape = x.dims().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = out;
    }
    tensor(y, shape)
}
