//! Operations that join two or three tensors element by element.

use candle_core::{DType, Tensor};
use kino_contract::ops::{BinaryOp, CmpOp, OpError};
use kino_node::Result;

use super::call::{OpCall, refused};
use super::shape::{any, filled, nan, of_candle, pick, plain, wide};

pub(super) fn join(call: &OpCall, by: BinaryOp) -> Result<Tensor> {
    let shape = call.shape();
    let [a, b] = [call.tensors[0].broadcast_as(shape)?, call.tensors[1].broadcast_as(shape)?];
    match by {
        BinaryOp::Add => Ok(a.add(&b)?),
        BinaryOp::Sub => Ok(a.sub(&b)?),
        BinaryOp::Mul => Ok(a.mul(&b)?),
        BinaryOp::Div => div(&a, &b, &call.tensors[1]),
        BinaryOp::Min => extreme(&a, &b, a.minimum(&b)?),
        BinaryOp::Max => extreme(&a, &b, a.maximum(&b)?),
        BinaryOp::Pow => pow(call, &a, &b),
    }
}

pub(super) fn compare(call: &OpCall, by: CmpOp) -> Result<Tensor> {
    let shape = call.shape();
    let [a, b] = [call.tensors[0].broadcast_as(shape)?, call.tensors[1].broadcast_as(shape)?];
    Ok(match by {
        CmpOp::Eq => a.eq(&b)?,
        CmpOp::Ne => a.ne(&b)?,
        CmpOp::Lt => a.lt(&b)?,
        CmpOp::Le => a.le(&b)?,
        CmpOp::Gt => a.gt(&b)?,
        CmpOp::Ge => a.ge(&b)?,
    })
}

/// Devices differ in whether the lesser or greater one keeps what is not a number.
fn extreme(a: &Tensor, b: &Tensor, joined: Tensor) -> Result<Tensor> {
    match a.dtype().is_float() {
        true => pick(&nan(a)?, a, &pick(&nan(b)?, b, &joined)?),
        false => Ok(joined),
    }
}

/// Whole numbers are cut towards zero; dividing them by 0 would end the process. `b` is `divisor`,
/// broadcast.
fn div(a: &Tensor, b: &Tensor, divisor: &Tensor) -> Result<Tensor> {
    if a.dtype().is_float() {
        return Ok(a.div(b)?);
    }
    if any(&divisor.eq(&filled(0.0, divisor)?)?)? {
        return Err(refused(OpError::zero_divisor(of_candle(a.dtype())?)));
    }
    if matches!(a.dtype(), DType::U8 | DType::U32) {
        return Ok(a.div(b)?);
    }
    // The least number by −1 overflows: such quotients are differences instead, which wrap.
    let minus = b.eq(&filled(-1.0, b)?)?;
    let quotient = a.div(&pick(&minus, &filled(1.0, b)?, b)?)?;
    pick(&minus, &filled(0.0, a)?.sub(a)?, &quotient)
}

pub(super) fn choose(call: &OpCall) -> Result<Tensor> {
    let spread = |index: usize| call.tensors[index].broadcast_as(call.shape());
    pick(&spread(0)?, &spread(1)?, &spread(2)?)
}

fn pow(call: &OpCall, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (dtype, exponent) = (a.dtype(), &call.tensors[1]);
    if exponent.elem_count() == 1 {
        let exponent = plain(exponent)?.reshape(())?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        return Ok(a.to_dtype(wide(dtype))?.powf(exponent)?.to_dtype(dtype)?);
    }
    call.scratch(a.dims(), DType::F64)?;
    Ok(power(&a.to_dtype(DType::F64)?, &b.to_dtype(DType::F64)?)?.to_dtype(dtype)?)
}

/// a to the power of b by logarithms, with the sign and the exceptions of C's `pow`.
fn power(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let [zero, one] = [filled(0.0, a)?, filled(1.0, a)?];
    let infinite = filled(f64::INFINITY, a)?;
    let size = a.abs()?;
    let magnitude = b.mul(&size.log()?)?.exp()?;
    let half = b.affine(0.5, 0.0)?;
    let whole = b.floor()?.eq(b)?;
    let odd = whole.mul(&half.floor()?.ne(&half)?)?;
    // Negative numbers have powers at whole exponents only; infinity has all.
    let real = whole.maximum(&size.eq(&infinite)?)?;
    let signed = pick(&odd, &magnitude.neg()?, &magnitude)?;
    let signed = pick(&real, &signed, &filled(f64::NAN, a)?)?;
    let result = pick(&a.lt(&zero)?, &signed, &magnitude)?;
    // 1 to any power, anything to 0, and −1 to ±∞ are 1, even what is not a number.
    let alternating = size.eq(&one)?.mul(&b.abs()?.eq(&infinite)?)?;
    let ones = a.eq(&one)?.maximum(&b.eq(&zero)?)?.maximum(&alternating)?;
    pick(&ones, &one, &result)
}
