//! Elements and slices at indices that are themselves tensors.

use candle_core::{DType, Tensor};
use kino_contract::ops::OpError;
use kino_node::Result;

use super::call::{OpCall, refused};
use super::shape::plain;

/// Refuses indices that do not lie within dimension `dim` of `x`: candle takes the greatest one for
/// a zero, and some devices check none.
pub(super) fn check(indices: &Tensor, x: &Tensor, dim: usize) -> Result<()> {
    if indices.elem_count() == 0 {
        return Ok(());
    }
    let all = plain(indices)?.flatten_all()?;
    let scalar = |end: Tensor| end.to_dtype(DType::I64)?.to_scalar::<i64>();
    let ends = [scalar(all.min(0)?)?, scalar(all.max(0)?)?];
    let lies_within = |end: i64| usize::try_from(end).is_ok_and(|end| end < x.dims()[dim]);
    match ends.into_iter().find(|end| !lies_within(*end)) {
        Some(index) => Err(refused(OpError::outside(index, x.dims(), dim))),
        None => Ok(()),
    }
}

pub(super) fn gather(call: &OpCall, dim: usize) -> Result<Tensor> {
    let [x, indices] = [&call.tensors[0], &call.tensors[1]];
    let mut part = x.clone();
    for at in (0..x.rank()).filter(|at| *at != dim) {
        part = part.narrow(at, 0, indices.dims()[at])?;
    }
    Ok(plain(&part)?.gather(&plain(indices)?, dim)?)
}

pub(super) fn index_select(call: &OpCall, dim: usize) -> Result<Tensor> {
    Ok(plain(&call.tensors[0])?.index_select(&plain(&call.tensors[1])?, dim)?)
}
