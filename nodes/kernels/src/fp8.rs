//! The product of activations and a weight matrix that is held in eight bits a number.

use candle_core::{CpuStorage, DType, Device, Storage, Tensor, bail};
use rayon::prelude::*;

use crate::linear::linear;
use crate::{Result, composite};

/// Rows of the matrix that are widened at a time: enough for the product to be as fast as that of a
/// dense matrix, and few beside the whole of it.
const CHUNK: usize = 1024;
/// Numbers that one task widens.
const PIECE: usize = 1 << 16;

/// The number that a byte stands for in E4M3 (arXiv:2209.05433; `float8_e4m3fn` of torch): a sign,
/// four bits of exponent with a bias of 7, three of mantissa; no infinity, and NaN where all but
/// the sign are set.
pub const fn e4m3(byte: u8) -> f32 {
    let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = ((byte >> 3) & 0xf, (byte & 7) as f32);
    if byte & 0x7f == 0x7f {
        return f32::NAN;
    }
    if exponent == 0 {
        return sign * mantissa / 512.0;
    }
    let mut power = 1.0 / 64.0; // 2⁻⁶
    let mut step = 1;
    while step < exponent {
        power *= 2.0;
        step += 1;
    }
    sign * (1.0 + mantissa / 8.0) * power
}

/// The numbers of all bytes.
pub(crate) const E4M3: [f32; 256] = {
    let mut numbers = [0.0; 256];
    let mut byte = 0;
    while byte < 256 {
        numbers[byte] = e4m3(byte as u8);
        byte += 1;
    }
    numbers
};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_numbers_of_the_format() {
        // The corners of float8_e4m3fn.
        for (byte, number) in [
            (0x00, 0.0),
            (0x01, 0.001953125),
            (0x07, 0.013671875),
            (0x08, 0.015625),
            (0x38, 1.0),
            (0x39, 1.125),
            (0x7e, 448.0),
            (0xfe, -448.0),
            (0xb8, -1.0),
        ] {
            assert_eq!(e4m3(byte), number, "{byte:#04x}");
        }
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
        // Rising with the byte.
        assert!((0..0x7e_u8).all(|byte| e4m3(byte) < e4m3(byte + 1)));
    }
}
