//! Reference forms of every operation of the contract: one loop each.
//!
//! [`kino_contract::ops::plan`] says what is to be computed, here as in the engine. Whole numbers
//! are computed exactly and wrap around, all others in f64 and rounded once.

mod along;
mod call;
mod elements;
mod functions;
mod image;
mod shapes;

use kino_contract::ops::{Op, OpPlan, Operand};

pub(crate) use elements::cast;
pub(crate) use functions::{Host, call, refused};

use self::call::{OpCall, spread};
use super::array::Array;

/// Computes an operation.
pub(crate) fn compute(
    name: &str,
    tensors: &[&Array],
    attributes: &str,
) -> kino_contract::ops::Result<Array> {
    let operands: Vec<_> =
        tensors.iter().map(|array| Operand { dtype: array.dtype, dims: &array.dims }).collect();
    let plan = kino_contract::ops::plan(name, &operands, attributes)?;
    run(&OpCall { tensors, plan: &plan }).map_err(|why| why.of(name))
}

fn run(call: &OpCall<'_>) -> kino_contract::ops::Result<Array> {
    let OpPlan { op, dtype, shape } = call.plan;
    kino_contract::ops::fits("a result", shape, *dtype, kino_contract::ops::MAX_BYTES)?;
    if let Op::Gather(dim) | Op::IndexSelect(dim) = op {
        shapes::check_indices(call.tensors[1], call.tensors[0], *dim)?;
    }
    if shape.contains(&0) {
        return Ok(Array::zeros(*dtype, shape));
    }
    let a = call.tensors[0];
    Ok(match op {
        Op::Binary(by) => return elements::join(call, *by),
        Op::Reduce { by, dims } => return along::reduce(call, *by, dims),
        Op::CumSum(dim) => return along::cumsum(a, *dim),
        Op::Cmp(by) => elements::compare(call, *by),
        Op::Where => elements::choose(call),
        Op::Unary(by) => elements::map(a, *by),
        Op::Affine { mul, add } => elements::affine(a, *mul, *add),
        Op::Clamp { min, max } => elements::clamp(a, *min, *max),
        Op::ClampWhole(ends) => elements::clamp_whole(a, *ends),
        Op::Cast => elements::cast(a, *dtype),
        Op::Arg { of, dim } => along::arg(call, *of, *dim),
        Op::Softmax(dim) => along::softmax(a, *dim),
        Op::MatMul => image::matmul(call),
        Op::Conv2d(moves) => image::conv2d(call, *moves),
        Op::Resize(filter) => image::resize(call, *filter),
        Op::Reshape => a.moved(shape, Some),
        Op::Permute(order) => shapes::permute(call, order),
        Op::Slice { dim, start } => shapes::along(call, *dim, |at| Some(start + at)),
        Op::Concat(dim) => shapes::concat(call, *dim),
        Op::Gather(dim) => shapes::gather(call, *dim),
        Op::IndexSelect(dim) => shapes::index_select(call, *dim),
        Op::Broadcast => a.moved(shape, |index| Some(spread(index, shape, &a.dims))),
        Op::Flip(dims) => shapes::flip(a, dims),
        Op::Pad { dim, before, with, .. } => shapes::pad(call, *dim, *before, *with),
        Op::Contiguous | Op::ToHost => a.clone(),
    })
}
