//! The product of activations and a weight matrix of whole numbers of eight bits.

use candle_core::{DType, Device, Tensor, bail};

use crate::widened::linear_widened;
use crate::{Result, composite};

/// x·(diag(scales)·W)ᵀ + b over the last dimension, where W is held as signed bytes.
///
/// A few rows of W are widened at a time, so that the matrix never lies in memory in a wider type.
///
/// Shapes: `x` `[…, in]`, `weight` `[out, in]` in U8 (two's complement), `scales` `[out]` in f32,
/// `bias` `[out]`; the result is `[…, out]` in the type of `x`.
pub fn linear_int8(
    x: &Tensor,
    weight: &Tensor,
    scales: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let (out, inner) = weight.dims2()?;
    if weight.dtype() != DType::U8 || scales.dtype() != DType::F32 || scales.dims() != [out] {
        bail!(
            "linear_int8: a weight of {out} rows in {:?}, scales {:?} in {:?}",
            weight.dtype(),
            scales.dims(),
            scales.dtype()
        );
    }
    if !matches!((x.device(), weight.device()), (Device::Cpu, Device::Cpu)) {
        return composite::linear_int8(x, weight, scales, bias);
    }
    let scales: Vec<f32> = scales.to_vec1()?;
    let widen = |row: usize, bytes: &[u8], wide: &mut [f32]| {
        let rows = bytes.chunks_exact(inner.max(1)).zip(wide.chunks_exact_mut(inner.max(1)));
        for (scale, (bytes, wide)) in scales[row..].iter().zip(rows) {
            wide.iter_mut().zip(bytes).for_each(|(wide, b)| *wide = f32::from(*b as i8) * scale);
        }
    };
    linear_widened(x, weight, inner, widen, bias)
}
