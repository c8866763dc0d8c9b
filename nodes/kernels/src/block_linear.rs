//! The product of activations and a weight matrix that is held in blocks.

use candle_core::{Device, Tensor};

use crate::blocks::{BlockType, row_numbers, widen_blocks};
use crate::widened::linear_widened;
use crate::{Result, composite};

/// x·Wᵀ + b over the last dimension, where W is held in blocks.
///
/// A few rows of W are widened at a time, so that the matrix never lies in memory in a wider type.
///
/// Shapes: `x` `[…, in]`, `weight` `[out, bytes of a row]` in U8, `bias` `[out]`; the result is
/// `[…, out]` in the type of `x`.
pub fn linear_blocks(
    x: &Tensor,
    weight: &Tensor,
    blocks: BlockType,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let inner = row_numbers(weight, blocks)?;
    match (x.device(), weight.device()) {
        (Device::Cpu, Device::Cpu) => {
            let widen =
                |_: usize, bytes: &[u8], wide: &mut [f32]| widen_blocks(blocks, bytes, wide);
            linear_widened(x, weight, inner, widen, bias)
        }
        _ => composite::linear_blocks(x, weight, blocks, bias),
    }
}
