//! Operations on one tensor, element by element.
//!
//! Functions of f16 and bf16 are computed in f32 and rounded once.

use candle_core::{DType, Tensor};
use kino_contract::ops::UnaryOp;
use kino_node::Result;

use super::call::OpCall;
use super::shape::{filled, nan, pick, scalar, wide};

pub(super) fn map(x: &Tensor, by: UnaryOp) -> Result<Tensor> {
    if by == UnaryOp::Relu {
        return within(x, Some(scalar(0.0, x.dtype(), x.device())?), None);
    }
    if !x.dtype().is_float() {
        return whole(x, by);
    }
    let wide = x.to_dtype(wide(x.dtype()))?;
    Ok(function(&wide, by)?.to_dtype(x.dtype())?)
}

fn function(x: &Tensor, by: UnaryOp) -> candle_core::Result<Tensor> {
    match by {
        UnaryOp::Neg => x.neg(),
        UnaryOp::Abs => x.abs(),
        UnaryOp::Exp => x.exp(),
        UnaryOp::Log => x.log(),
        UnaryOp::Sqrt => x.sqrt(),
        UnaryOp::Recip => x.recip(),
        UnaryOp::Sin => x.sin(),
        UnaryOp::Cos => x.cos(),
        UnaryOp::Tanh => x.tanh(),
        UnaryOp::Sigmoid => x.neg()?.exp()?.affine(1.0, 1.0)?.recip(),
        UnaryOp::Relu => x.relu(),
        UnaryOp::Silu => kino_kernels::silu(x),
        UnaryOp::Gelu => kino_kernels::gelu(x),
        UnaryOp::Erf => x.erf(),
        UnaryOp::Floor => x.floor(),
        UnaryOp::Ceil => x.ceil(),
        UnaryOp::Round => x.round(),
        UnaryOp::Sign => x.sign(),
    }
}

/// Functions of whole numbers, of which candle has none.
fn whole(x: &Tensor, by: UnaryOp) -> Result<Tensor> {
    let is_unsigned = matches!(x.dtype(), DType::U8 | DType::U32);
    let zero = filled(0.0, x)?;
    match by {
        UnaryOp::Neg => Ok(zero.sub(x)?),
        UnaryOp::Abs if !is_unsigned => Ok(x.maximum(&zero.sub(x)?)?),
        UnaryOp::Sign => {
            let [above, below] = [x.gt(&zero)?, x.lt(&zero)?];
            Ok(above.to_dtype(x.dtype())?.sub(&below.to_dtype(x.dtype())?)?)
        }
        _ => Ok(x.clone()),
    }
}

pub(super) fn affine(call: &OpCall, mul: f64, add: f64) -> Result<Tensor> {
    let x = &call.tensors[0];
    let wide = wide(x.dtype());
    if wide == DType::I64 {
        call.scratch(x.dims(), wide)?;
    }
    Ok(x.to_dtype(wide)?.affine(mul, add)?.to_dtype(x.dtype())?)
}

pub(super) fn clamp(x: &Tensor, min: Option<f64>, max: Option<f64>) -> Result<Tensor> {
    let end = |end: f64| scalar(end, x.dtype(), x.device());
    within(x, min.map(end).transpose()?, max.map(end).transpose()?)
}

pub(super) fn clamp_whole(x: &Tensor, ends: [i64; 2]) -> Result<Tensor> {
    let end = |end: i64| Tensor::new(end, x.device())?.to_dtype(x.dtype());
    within(x, Some(end(ends[0])?), Some(end(ends[1])?))
}

/// Kept within scalars; what is not a number stays.
fn within(x: &Tensor, min: Option<Tensor>, max: Option<Tensor>) -> Result<Tensor> {
    let mut kept = x.clone();
    if let Some(min) = min {
        kept = kept.maximum(&min.broadcast_as(x.shape())?)?;
    }
    if let Some(max) = max {
        kept = kept.minimum(&max.broadcast_as(x.shape())?)?;
    }
    match x.dtype().is_float() {
        true => pick(&nan(x)?, x, &kept),
        false => Ok(kept),
    }
}
