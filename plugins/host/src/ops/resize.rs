//! Images in other sizes.

use candle_core::{DType, Tensor};
use kino_contract::ops::Filter;
use kino_node::Result;

use super::call::OpCall;
use super::shape::{of_candle, plain};

pub(super) fn resize(call: &OpCall, filter: Filter) -> Result<Tensor> {
    let x = &call.tensors[0];
    let ((n, c, h, w), shape) = (x.dims4()?, call.shape());
    let [height, width] = [shape[2], shape[3]];
    if (h, w) == (height, width) {
        return Ok(x.clone());
    }
    call.scratch(shape, DType::F32)?;
    call.scratch(&[n, c, h, width], DType::F32)?;
    call.scratch(x.dims(), DType::F32)?;
    let filter = match filter {
        Filter::Nearest => return nearest(&nearest(x, 2, height)?, 3, width),
        Filter::Bilinear => kino_kernels::Filter::Bilinear,
        Filter::Lanczos => kino_kernels::Filter::Lanczos,
    };
    // Each channel is a frame of its own, so nothing is reordered.
    let planes = plain(x)?.reshape((n * c, h, w, 1))?.to_dtype(DType::F32)?;
    let resized = kino_kernels::resize(&planes, height, width, filter)?.reshape(shape)?;
    narrowed(&resized, x.dtype())
}

/// The pixel under the centre of each new one; the elements stay as they are.
fn nearest(x: &Tensor, axis: usize, to: usize) -> Result<Tensor> {
    let from = x.dim(axis)?;
    if from == to {
        return Ok(x.clone());
    }
    // ⌊(i + ½)·from/to⌋, in whole numbers.
    let place = |index: usize| (2 * index as u128 + 1) * from as u128 / (2 * to as u128);
    let places: Vec<i64> = (0..to).map(|index| place(index) as i64).collect();
    Ok(plain(x)?.index_select(&Tensor::new(places, x.device())?, axis)?)
}

/// To whole numbers it is rounded, and kept within their range.
fn narrowed(x: &Tensor, dtype: DType) -> Result<Tensor> {
    let Some([min, max]) = of_candle(dtype)?.range() else { return Ok(x.to_dtype(dtype)?) };
    let kept = x.round()?.to_dtype(DType::F64)?.clamp(min as f64, max as f64)?;
    Ok(kept.to_dtype(dtype)?)
}
