//! Operations that move elements and compute nothing.

use candle_core::{Device, Tensor};
use kino_contract::ops::Padding;
use kino_node::Result;

use super::call::OpCall;
use super::shape::plain;

/// Joins tensors that fit, of which at least one has elements.
pub(super) fn concat(parts: &[Tensor], dim: usize) -> Result<Tensor> {
    let some: Vec<Tensor> =
        parts.iter().filter(|part| part.elem_count() > 0).map(plain).collect::<Result<_>>()?;
    match some.as_slice() {
        [one] => Ok(one.clone()),
        some => Ok(Tensor::cat(some, dim)?),
    }
}

pub(super) fn flip(x: &Tensor, dims: &[usize]) -> Result<Tensor> {
    let mut flipped = x.clone();
    for dim in dims.iter().copied().filter(|dim| x.dims()[*dim] > 1) {
        let order: Vec<i64> = (0..x.dims()[dim] as i64).rev().collect();
        flipped = plain(&flipped)?.index_select(&Tensor::new(order, x.device())?, dim)?;
    }
    Ok(flipped)
}

/// `counts` before and after.
pub(super) fn pad(call: &OpCall, dim: usize, counts: [usize; 2], with: Padding) -> Result<Tensor> {
    let x = &call.tensors[0];
    let beyond = |count: usize, edge: usize| -> Result<Tensor> {
        let mut shape = x.dims().to_vec();
        shape[dim] = count;
        match with {
            Padding::Edge if count > 0 => Ok(x.narrow(dim, edge, 1)?.broadcast_as(shape)?),
            _ => Ok(Tensor::zeros(shape, x.dtype(), x.device())?),
        }
    };
    let [before, after] = counts;
    let last = x.dims()[dim].saturating_sub(1);
    concat(&[beyond(before, 0)?, x.clone(), beyond(after, last)?], dim)
}

pub(super) fn to_host(x: &Tensor) -> Result<Tensor> {
    if matches!(x.device(), Device::Cpu) {
        return Ok(x.clone());
    }
    // A view would bring all that lies behind it along.
    Ok(x.force_contiguous()?.to_device(&Device::Cpu)?)
}
