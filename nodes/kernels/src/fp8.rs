//! The product of activations and a weight matrix that is held in eight bits a number.

use candle_core::{CpuStorage, DType, Device, Storage, Tensor, bail};
use rayon::prelude::*;

use crate::e4m3::E4M3;
use crate::linear::linear;
use crate::{Result, composite};

/// Rows of the matrix that are widened at a time: enough for the product to be as fast as that of a
/// dense matrix, and few beside the whole of it.
const CHUNK: usize = 1024;
/// Numbers that one task widens.
const PIECE: usize = 1 << 16;

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
    let (out, _) = weight.dims2()?;
    if weight.dtype() != DType::U8 {
        bail!("linear_e4m3: a weight of {:?}, expected U8", weight.dtype());
    }
    let fast = matches!((x.device(), weight.device()), (Device::Cpu, Device::Cpu))
        && x.dtype() == DType::F32
        && !x.track_op();
    if !fast {
        return composite::linear_e4m3(x, weight, scale, bias);
    }
    let weight = weight.contiguous()?;
    let inner = weight.dim(1)?;
    let (storage, layout) = weight.storage_and_layout();
    let start = layout.start_offset();
    let bytes = match &*storage {
        Storage::Cpu(CpuStorage::U8(bytes)) => &bytes[start..start + out * inner],
        _ => bail!("a CPU kernel was given {:?} on {:?}", weight.dtype(), weight.device()),
    };
    let mut parts = Vec::with_capacity(out.div_ceil(CHUNK));
    for start in (0..out).step_by(CHUNK) {
        let rows = CHUNK.min(out - start);
        let wide = widen(&bytes[start * inner..(start + rows) * inner], scale);
        let wide = Tensor::from_vec(wide, (rows, inner), &Device::Cpu)?;
        let bias = bias.map(|bias| bias.narrow(0, start, rows)).transpose()?;
        parts.push(linear(x, &wide, bias.as_ref())?);
    }
    match parts.len() {
        1 => Ok(parts.remove(0)),
        _ => Tensor::cat(&parts, candle_core::D::Minus1),
    }
}

/// The numbers that bytes stand for, times `scale`.
fn widen(bytes: &[u8], scale: f32) -> Vec<f32> {
    let table = E4M3.map(|number| number * scale);
    let mut wide = vec![0.0; bytes.len()];
    let pieces = wide.par_chunks_mut(PIECE).zip(bytes.par_chunks(PIECE));
    pieces.for_each(|(wide, bytes)| {
        wide.iter_mut().zip(bytes).for_each(|(wide, byte)| *wide = table[usize::from(*byte)]);
    });
    wide
}
