//! Operations element by element.

use serde_json::Value as Json;

use super::super::array::Array;
use super::super::held::Outcome;
use super::{Call, expect_same_type, joined, spread};
use crate::DType;

/// Two tensors, element by element.
pub(super) fn join(name: &str, call: &Call<'_>) -> Outcome<Array> {
    let [a, b] = call.exactly()?;
    let dims = joined(&a.dims, &b.dims)?;
    let dtype = expect_same_type(a, b)?;
    let (dtype, of): (_, fn(f64, f64) -> f64) = match name {
        "add" => (dtype, |a, b| a + b),
        "sub" => (dtype, |a, b| a - b),
        "mul" => (dtype, |a, b| a * b),
        "div" => (dtype, |a, b| a / b),
        "min" => (dtype, f64::min),
        "max" => (dtype, f64::max),
        "pow" => (dtype, f64::powf),
        "eq" => (DType::U8, |a, b| f64::from(a == b)),
        "ne" => (DType::U8, |a, b| f64::from(a != b)),
        "lt" => (DType::U8, |a, b| f64::from(a < b)),
        "le" => (DType::U8, |a, b| f64::from(a <= b)),
        "gt" => (DType::U8, |a, b| f64::from(a > b)),
        _ => (DType::U8, |a, b| f64::from(a >= b)),
    };
    Ok(Array::made(dtype, &dims, |index| {
        of(a.get(spread(index, &dims, &a.dims)), b.get(spread(index, &dims, &b.dims)))
    }))
}

/// The function of one number that an operation is.
pub(super) fn function(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "neg" => |x| -x,
        "abs" => f64::abs,
        "exp" => f64::exp,
        "log" => f64::ln,
        "sqrt" => f64::sqrt,
        "recip" => f64::recip,
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tanh" => f64::tanh,
        "sigmoid" => sigmoid,
        "relu" => |x| if x < 0.0 { 0.0 } else { x },
        "silu" => |x| x * sigmoid(x),
        "gelu" => |x| 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        "erf" => erf,
        "floor" => f64::floor,
        "ceil" => f64::ceil,
        "round" => f64::round,
        "sign" => |x| if x == 0.0 { 0.0 } else { x.signum() },
        _ => return None,
    })
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// erf(x) = 2/√π · e^(−x²) · Σ 2ⁿ x^(2n+1) / (2n+1)!!, whose terms all have one sign.
fn erf(x: f64) -> f64 {
    if x.is_nan() || x.abs() > 6.0 {
        return if x.is_nan() { x } else { x.signum() };
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}

/// One tensor, element by element.
pub(super) fn map(call: &Call<'_>, function: fn(f64) -> f64) -> Outcome<Array> {
    let a = call.only()?;
    Ok(Array::made(a.dtype, &a.dims, |index| function(a.get(index))))
}

/// An element of a where the condition holds, else of b.
pub(super) fn choose(call: &Call<'_>) -> Outcome<Array> {
    let [condition, a, b] = call.exactly()?;
    if condition.dtype != DType::U8 {
        return Err(format!("the condition must be u8, found {}", condition.dtype));
    }
    let dims = joined(&condition.dims, &joined(&a.dims, &b.dims)?)?;
    Ok(Array::made(expect_same_type(a, b)?, &dims, |index| {
        let from = if condition.get(spread(index, &dims, &condition.dims)) != 0.0 { a } else { b };
        from.get(spread(index, &dims, &from.dims))
    }))
}

pub(super) fn affine(call: &Call<'_>) -> Outcome<Array> {
    let a = call.only()?;
    let (mul, add) = (call.need("mul", Json::as_f64)?, call.need("add", Json::as_f64)?);
    Ok(Array::made(a.dtype, &a.dims, |index| a.get(index) * mul + add))
}

pub(super) fn clamp(call: &Call<'_>) -> Outcome<Array> {
    let a = call.only()?;
    let (min, max) = (call.need("min", Json::as_f64)?, call.need("max", Json::as_f64)?);
    if min > max || min.is_nan() || max.is_nan() {
        return Err(format!("the least, {min}, is not below the greatest, {max}"));
    }
    Ok(Array::made(a.dtype, &a.dims, |index| a.get(index).clamp(min, max)))
}

pub(super) fn cast(call: &Call<'_>) -> Outcome<Array> {
    let a = call.only()?;
    let name = call.text("dtype")?;
    let dtype = DType::from_name(&name).ok_or_else(|| format!("there is no type `{name}`"))?;
    if dtype == a.dtype {
        return Ok(a.clone());
    }
    Ok(Array::made(dtype, &a.dims, |index| a.get(index)))
}
