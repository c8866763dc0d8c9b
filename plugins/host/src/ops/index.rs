//! Elements and slices at indices that are themselves tensors.
//!
//! Every index is checked before it is used: candle takes the greatest one for a zero, and some
//! devices check none.

use candle_core::{DType, Tensor};
use kino_node::{Error, Result};

use super::call::Call;
use super::shape::{dimension, plain};

/// The indices without gaps, all of them within dimension `dim` of `x`.
fn checked(indices: &Tensor, x: &Tensor, dim: usize) -> Result<Tensor> {
    if !matches!(indices.dtype(), DType::U32 | DType::I64) {
        let found = indices.dtype().as_str();
        return Err(Error::failed(format!("the indices are {found}, expected u32 or i64")));
    }
    let indices = plain(indices)?;
    if indices.elem_count() == 0 {
        return Ok(indices);
    }
    let all = indices.flatten_all()?;
    let scalar = |end: Tensor| end.to_dtype(DType::I64)?.to_scalar::<i64>();
    let ends = [scalar(all.min(0)?)?, scalar(all.max(0)?)?];
    let size = x.dims()[dim];
    let lies_within = |end: i64| usize::try_from(end).is_ok_and(|end| end < size);
    match ends.into_iter().find(|end| !lies_within(*end)) {
        Some(index) => Err(Error::failed(format!(
            "index {index} lies outside dimension {dim} of {:?}",
            x.dims()
        ))),
        None => Ok(indices),
    }
}

pub(super) fn gather(call: &Call) -> Result<Tensor> {
    let [x, indices] = [&call.tensors[0], &call.tensors[1]];
    let dim = dimension(call.int("dim")?, x.dims())?;
    let fits = indices.rank() == x.rank()
        && (0..x.rank()).all(|at| at == dim || indices.dims()[at] <= x.dims()[at]);
    if !fits {
        return Err(Error::failed(format!(
            "indices {:?} do not fit {:?} along dimension {dim}",
            indices.dims(),
            x.dims()
        )));
    }
    call.room(indices.dims(), x.dtype())?;
    let indices = checked(indices, x, dim)?;
    if indices.elem_count() == 0 {
        return Ok(Tensor::zeros(indices.shape(), x.dtype(), x.device())?);
    }
    let mut part = x.clone();
    for at in (0..x.rank()).filter(|at| *at != dim) {
        part = part.narrow(at, 0, indices.dims()[at])?;
    }
    Ok(plain(&part)?.gather(&indices, dim)?)
}

pub(super) fn index_select(call: &Call) -> Result<Tensor> {
    let [x, indices] = [&call.tensors[0], &call.tensors[1]];
    let dim = dimension(call.int("dim")?, x.dims())?;
    let &[count] = indices.dims() else {
        return Err(Error::failed(format!("indices {:?}, expected [n]", indices.dims())));
    };
    let mut shape = x.dims().to_vec();
    shape[dim] = count;
    call.room(&shape, x.dtype())?;
    let indices = checked(indices, x, dim)?;
    if shape.contains(&0) {
        return Ok(Tensor::zeros(shape, x.dtype(), x.device())?);
    }
    Ok(plain(x)?.index_select(&indices, dim)?)
}
