//! One call of an operation, and where elements lie.

use kino_contract::ops::OpPlan;

use super::super::array::Array;

/// What an operation works on.
pub(crate) struct OpCall<'a> {
    /// They fit the plan.
    pub(super) tensors: &'a [&'a Array],
    pub(super) plan: &'a OpPlan,
}

/// Elements from one to the next along each dimension.
fn strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for dim in (1..dims.len()).rev() {
        strides[dim - 1] = strides[dim] * dims[dim];
    }
    strides
}

/// The place along each dimension of an element.
pub(super) fn place(index: usize, dims: &[usize]) -> Vec<usize> {
    let mut place = vec![0; dims.len()];
    let mut rest = index;
    for dim in (0..dims.len()).rev() {
        place[dim] = rest % dims[dim];
        rest /= dims[dim];
    }
    place
}

/// The index of a place.
pub(super) fn index_of(place: &[usize], dims: &[usize]) -> usize {
    place.iter().zip(strides(dims)).map(|(at, stride)| at * stride).sum()
}

/// The index in a tensor of shape `from` of an element of a shape that it broadcasts to.
pub(super) fn spread(index: usize, to: &[usize], from: &[usize]) -> usize {
    let place = place(index, to);
    let place = &place[to.len() - from.len()..];
    let own: Vec<_> =
        place.iter().zip(from).map(|(at, &dim)| if dim == 1 { 0 } else { *at }).collect();
    index_of(&own, from)
}
