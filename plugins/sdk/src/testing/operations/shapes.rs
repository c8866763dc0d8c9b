//! Operations that move elements without changing them.

use kino_contract::ops::{OpError, Padding, Result};

use super::super::array::Array;
use super::call::{OpCall, index_of, place};

pub(super) fn permute(call: &OpCall<'_>, order: &[usize]) -> Array {
    let (a, dims) = (call.tensors[0], &call.plan.shape);
    a.moved(dims, |index| {
        let mut from = vec![0; dims.len()];
        order.iter().zip(place(index, dims)).for_each(|(&dim, at)| from[dim] = at);
        Some(index_of(&from, &a.dims))
    })
}

/// Moves along one dimension: `from` says for a place where to look, if anywhere.
pub(super) fn along(call: &OpCall<'_>, dim: usize, from: impl Fn(usize) -> Option<usize>) -> Array {
    let (a, dims) = (call.tensors[0], &call.plan.shape);
    a.moved(dims, |index| {
        let mut place = place(index, dims);
        place[dim] = from(place[dim])?;
        Some(index_of(&place, &a.dims))
    })
}

pub(super) fn concat(call: &OpCall<'_>, dim: usize) -> Array {
    let (mut made, size) =
        (Array::zeros(call.plan.dtype, &call.plan.shape), call.plan.dtype.size());
    let mut before = 0;
    for part in call.tensors {
        for index in 0..part.count() {
            let mut to = place(index, &part.dims);
            to[dim] += before;
            let to = index_of(&to, &call.plan.shape) * size;
            made.bytes_mut()[to..to + size].copy_from_slice(&part.bytes()[index * size..][..size]);
        }
        before += part.dims[dim];
    }
    made
}

/// Refuses indices that do not lie within dimension `dim` of `a`; the least one is told first.
pub(super) fn check_indices(indices: &Array, a: &Array, dim: usize) -> Result<()> {
    let all = || (0..indices.count()).map(|index| indices.int(index));
    let outside = |index: &i128| *index < 0 || *index >= a.dims[dim] as i128;
    match all().min().filter(outside).or_else(|| all().max().filter(outside)) {
        Some(index) => Err(OpError::outside(index as i64, &a.dims, dim)),
        None => Ok(()),
    }
}

pub(super) fn gather(call: &OpCall<'_>, dim: usize) -> Array {
    let (a, at) = (call.tensors[0], call.tensors[1]);
    a.moved(&at.dims, |index| {
        let mut from = place(index, &at.dims);
        from[dim] = at.int(index) as usize;
        Some(index_of(&from, &a.dims))
    })
}

pub(super) fn index_select(call: &OpCall<'_>, dim: usize) -> Array {
    let indices = call.tensors[1];
    along(call, dim, |at| Some(indices.int(at) as usize))
}

pub(super) fn flip(a: &Array, dims: &[usize]) -> Array {
    a.moved(&a.dims, |index| {
        let mut place = place(index, &a.dims);
        dims.iter().for_each(|&dim| place[dim] = a.dims[dim] - 1 - place[dim]);
        Some(index_of(&place, &a.dims))
    })
}

pub(super) fn pad(call: &OpCall<'_>, dim: usize, before: usize, with: Padding) -> Array {
    let size = call.tensors[0].dims[dim];
    along(call, dim, |at| match at.checked_sub(before) {
        Some(at) if at < size => Some(at),
        _ if with == Padding::Zeros => None,
        Some(_) => Some(size - 1),
        None => Some(0),
    })
}
