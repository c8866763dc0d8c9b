//! Products with matrices that are held in fewer bits and widened where they are multiplied.

use candle_core::{CpuStorage, Device, Storage, Tensor, bail};
use rayon::prelude::*;

use crate::Result;
use crate::dense::fast_mixed;
use crate::linear::{LinearEpilogue, linear, linear_packed};
use crate::micro::Precision;
use crate::packed::PackedMatrix;

/// Rows of the matrix that are widened at a time: enough for the product to be as fast as that of a
/// dense matrix, and few beside the whole of it.
const CHUNK: usize = 1024;
/// Numbers that one task widens, at least.
const PIECE: usize = 1 << 16;

/// x·Wᵀ + b over the last dimension, on the CPU, where `widen` makes rows of `inner` numbers of
/// rows of bytes; it is told which row is the first.
///
/// Shapes: `x` `[…, inner]`, `weight` `[out, bytes of a row]` in U8, `bias` `[out]`; the result is
/// `[…, out]` in the type of `x`.
pub(crate) fn linear_widened(
    x: &Tensor,
    weight: &Tensor,
    inner: usize,
    widen: impl Fn(usize, &[u8], &mut [f32]) + Sync,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let (out, row) = weight.dims2()?;
    let weight = weight.contiguous()?;
    let (storage, layout) = weight.storage_and_layout();
    let start = layout.start_offset();
    let bytes = match &*storage {
        Storage::Cpu(CpuStorage::U8(bytes)) => &bytes[start..start + out * row],
        _ => bail!("a CPU kernel was given {:?} on {:?}", weight.dtype(), weight.device()),
    };
    let mut parts = Vec::with_capacity(out.div_ceil(CHUNK));
    for start in (0..out).step_by(CHUNK) {
        let rows = CHUNK.min(out - start);
        let bytes = &bytes[start * row..(start + rows) * row];
        let mut wide = vec![0.0; rows * inner];
        let each = PIECE.div_ceil(inner.max(1));
        let pieces = wide.par_chunks_mut((each * inner).max(1));
        let pieces = pieces.zip(bytes.par_chunks((each * row).max(1))).enumerate();
        pieces.for_each(|(piece, (wide, bytes))| widen(start + piece * each, bytes, wide));
        let wide = Tensor::from_vec(wide, (rows, inner), &Device::Cpu)?;
        let bias = bias.map(|bias| bias.narrow(0, start, rows)).transpose()?;
        let bias = bias.as_ref();
        let operands: Vec<&Tensor> = bias.into_iter().chain([x, &wide]).collect();
        parts.push(match fast_mixed(&operands) {
            true => {
                let packed = PackedMatrix::pack(&wide, Precision::of(x.dtype()))?;
                linear_packed(x, &packed, bias, LinearEpilogue::None)?
            }
            false => linear(x, &wide.to_dtype(x.dtype())?, bias)?,
        });
    }
    match parts.len() {
        1 => Ok(parts.remove(0)),
        _ => Tensor::cat(&parts, candle_core::D::Minus1),
    }
}
