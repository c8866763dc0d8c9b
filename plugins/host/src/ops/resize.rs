//! Images in other sizes.

use candle_core::{DType, Tensor};
use kino_kernels::Filter;
use kino_node::{Error, Result};

use super::call::Call;
use super::shape::plain;
use super::unary::range;

/// Larger sides are refused: each has its own weights.
const MOST: usize = 1 << 22;

const FILTERS: [(&str, Filter); 3] =
    [("nearest", Filter::Nearest), ("bilinear", Filter::Bilinear), ("lanczos", Filter::Lanczos)];

pub(super) fn resize(call: &Call) -> Result<Tensor> {
    let x = &call.tensors[0];
    let (height, width) = (call.size("height", 1)?, call.size("width", 1)?);
    let filter = call.choice("filter", &FILTERS)?;
    let &[n, c, h, w] = x.dims() else {
        return Err(Error::failed(format!("{:?}: expected [n, c, h, w]", x.dims())));
    };
    if height > MOST || width > MOST {
        let found = height.max(width);
        return Err(Error::failed(format!("a side of {found}: at most {MOST} is possible")));
    }
    let shape = [n, c, height, width];
    call.room(&shape, x.dtype())?;
    if n * c == 0 {
        return Ok(Tensor::zeros(&shape, x.dtype(), x.device())?);
    }
    if h * w == 0 {
        return Err(Error::failed(format!("{:?} has no pixels", x.dims())));
    }
    if (h, w) == (height, width) {
        return Ok(x.clone());
    }
    call.scratch(&shape, DType::F32)?;
    call.scratch(&[n, c, h, width], DType::F32)?;
    call.scratch(x.dims(), DType::F32)?;
    if filter == Filter::Nearest {
        return nearest(&nearest(x, 2, height)?, 3, width);
    }
    // Each channel is a frame of its own, so nothing is reordered.
    let planes = plain(x)?.reshape((n * c, h, w, 1))?.to_dtype(DType::F32)?;
    let resized = kino_kernels::resize(&planes, height, width, filter)?.reshape(&shape)?;
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
    if dtype.is_float() {
        return Ok(x.to_dtype(dtype)?);
    }
    let [min, max] = range(dtype);
    let kept = x.round()?.to_dtype(DType::F64)?.clamp(min as f64, max as f64)?;
    Ok(kept.to_dtype(dtype)?)
}
