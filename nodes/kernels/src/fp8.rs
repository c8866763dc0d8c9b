//! The product of activations and a weight matrix that is held in eight bits a number.

use candle_core::{DType, Device, Tensor, bail};

use crate::e4m3::E4M3;
use crate::widened::linear_widened;
use crate::{Result, composite};

/// x·(scale·W)ᵀ + b over the last dimension, where W is held as E4M3.
///
/// A few rows of W are widened at a time, so that the matrix never lies in memory in a wider type.
///
/// Shapes: `x` `[…, in]`, `weight` `[out, in]` in U8, `bias` `[out]`; the result is `[…, out]` in
/// the type of `x`.
pub fn linear_e4m3(
    x: &Tensor,
    weight: &Tensor,
    scale: f32,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let (_, inner) = weight.dims2()?;
    if weight.dtype() != DType::U8 {
        bail!("linear_e4m3: a weight of {:?}, expected U8", weight.dtype());
    }
    if !matches!((x.device(), weight.device()), (Device::Cpu, Device::Cpu)) {
        return composite::linear_e4m3(x, weight, scale, bias);
    }
    let table = E4M3.map(|number| number * scale);
    let widen = |_: usize, bytes: &[u8], wide: &mut [f32]| {
        wide.iter_mut().zip(bytes).for_each(|(wide, byte)| *wide = table[usize::from(*byte)]);
    };
    linear_widened(x, weight, inner, widen, bias)
}
