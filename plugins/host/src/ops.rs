//! Operations on tensors that plugins call by name. The contract is `plugins/abi/OPERATIONS.md`.
//!
//! [`kino_contract::ops::plan`] checks a call; everything then goes through candle and
//! `kino-kernels`, so it runs where the tensors lie. Whatever a plugin passes gives a result or an
//! error, never a panic: sizes are checked before candle sees them, and what candle does wrong or
//! differently on some device (views, tensors without elements, indices, ties, what is not a
//! number) is avoided here.

mod call;
mod conv;
mod elementwise;
mod index;
mod layout;
mod linear;
mod reduce;
mod resize;
mod shape;
mod unary;

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use kino_contract::code;
use kino_contract::ops::{Op, OpPlan, Operand};
use kino_node::{Error, Result};

use call::OpCall;

pub use call::OpLimits;
pub(crate) use call::refused;
pub use kino_contract::ops::NAMES;
pub(crate) use shape::{in_candle, of_candle};

/// Computes one operation; `attributes` is a JSON object, or empty where there are none.
///
/// # Errors
/// When there is no such operation, or tensors or attributes do not fit; the message names the
/// operation, what was found and what was expected.
pub fn apply(name: &str, tensors: &[Tensor], attributes: &str) -> Result<Tensor> {
    apply_within(
        name,
        tensors,
        attributes,
        &OpLimits { most: kino_contract::ops::MAX_BYTES, check: &|| Ok(()) },
    )
}

/// Computes one operation within bounds.
///
/// # Errors
/// As [`apply`], when the result would be larger, and what `check` says.
pub fn apply_within(
    name: &str,
    tensors: &[Tensor],
    attributes: &str,
    bounds: &OpLimits<'_>,
) -> Result<Tensor> {
    let within = |error| match error {
        Error::Tensor(error) => Error::failed(format!("op {name}: {error}")),
        error => error.within(format_args!("op {name}")),
    };
    let operand = |tensor| operand(tensor).map_err(within);
    let operands = tensors.iter().map(operand).collect::<Result<Vec<_>>>()?;
    let plan = kino_contract::ops::plan(name, &operands, attributes).map_err(refused)?;
    let bounds =
        OpLimits { most: bounds.most.min(kino_contract::ops::MAX_BYTES), check: bounds.check };
    together(tensors)
        .and_then(|tensors| run(&OpCall { tensors: &tensors, plan: &plan, bounds: &bounds }))
        .map_err(within)
}

fn operand(tensor: &Tensor) -> Result<Operand<'_>> {
    Ok(Operand { dtype: of_candle(tensor.dtype())?, dims: tensor.dims() })
}

/// The tensors on one device. Single elements in main memory go to where the others lie: constants
/// are made there.
fn together(tensors: &[Tensor]) -> Result<Cow<'_, [Tensor]>> {
    let far = tensors.iter().map(Tensor::device).find(|device| !matches!(device, Device::Cpu));
    let device = far.unwrap_or(&Device::Cpu);
    if tensors.iter().all(|tensor| tensor.device().same_device(device)) {
        return Ok(Cow::Borrowed(tensors));
    }
    let gathered = tensors.iter().map(|tensor| match tensor.device() {
        near if near.same_device(device) => Ok(tensor.clone()),
        Device::Cpu if tensor.elem_count() == 1 => Ok(tensor.to_device(device)?),
        _ => Err(Error::coded(code::DEVICE, "the tensors lie on different devices")),
    });
    Ok(Cow::Owned(gathered.collect::<Result<_>>()?))
}

fn run(call: &OpCall) -> Result<Tensor> {
    let OpPlan { op, dtype, shape } = call.plan;
    call.room()?;
    if let Op::Gather(dim) | Op::IndexSelect(dim) = op {
        index::check(&call.tensors[1], &call.tensors[0], *dim)?;
    }
    if shape.contains(&0) {
        return Ok(Tensor::zeros(shape.as_slice(), in_candle(*dtype), call.device())?);
    }
    let x = &call.tensors[0];
    match op {
        Op::Binary(by) => elementwise::join(call, *by),
        Op::Cmp(by) => elementwise::compare(call, *by),
        Op::Where => elementwise::choose(call),
        Op::Unary(by) => unary::map(x, *by),
        Op::Affine { mul, add } => unary::affine(call, *mul, *add),
        Op::Clamp { min, max } => unary::clamp(x, *min, *max),
        Op::ClampWhole(ends) => unary::clamp_whole(x, *ends),
        Op::Reduce { by, dims } => reduce::reduce(call, *by, dims),
        Op::Arg { of, dim } => reduce::arg(call, *of, *dim),
        Op::Softmax(dim) => reduce::softmax(call, *dim),
        Op::CumSum(dim) => reduce::cumsum(call, *dim),
        Op::MatMul => linear::matmul(call),
        Op::Conv2d(moves) => conv::conv2d(call, *moves),
        Op::Resize(filter) => resize::resize(call, *filter),
        Op::Cast => Ok(x.to_dtype(in_candle(*dtype))?),
        Op::Reshape => Ok(x.reshape(shape.as_slice())?),
        Op::Permute(order) => Ok(x.permute(order.as_slice())?),
        Op::Slice { dim, start } => Ok(x.narrow(*dim, *start, shape[*dim])?),
        Op::Concat(dim) => layout::concat(call.tensors, *dim),
        Op::Gather(dim) => index::gather(call, *dim),
        Op::IndexSelect(dim) => index::index_select(call, *dim),
        Op::Broadcast => shape::plain(&x.broadcast_as(shape.as_slice())?),
        Op::Flip(dims) => layout::flip(x, dims),
        Op::Pad { dim, before, after, with } => layout::pad(call, *dim, [*before, *after], *with),
        Op::Contiguous => shape::plain(x),
        Op::ToHost => layout::to_host(x),
    }
}
