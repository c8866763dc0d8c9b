//! Operations element by element.

use kino_contract::ops::{BinaryOp, CmpOp, OpError, Result, UnaryOp};

use super::super::array::Array;
use super::call::{OpCall, spread};
use crate::DType;

/// Two tensors, element by element.
pub(super) fn join(call: &OpCall<'_>, by: BinaryOp) -> Result<Array> {
    let (a, b, dims) = (call.tensors[0], call.tensors[1], &call.plan.shape);
    let both = |index| (spread(index, dims, &a.dims), spread(index, dims, &b.dims));
    if a.dtype.is_float() {
        return Ok(Array::real(a.dtype, dims, |index| {
            let (i, k) = both(index);
            let (x, y) = (a.get(i), b.get(k));
            match by {
                BinaryOp::Add => x + y,
                BinaryOp::Sub => x - y,
                BinaryOp::Mul => x * y,
                BinaryOp::Div => x / y,
                BinaryOp::Min => least(x, y),
                BinaryOp::Max => -least(-x, -y),
                // By logarithms -0 counts as 0: it has no sign to keep.
                BinaryOp::Pow if x == 0.0 && b.count() > 1 => 0f64.powf(y),
                BinaryOp::Pow => x.powf(y),
            }
        }));
    }
    if by == BinaryOp::Div && (0..b.count()).any(|index| b.int(index) == 0) {
        return Err(OpError::zero_divisor(a.dtype));
    }
    Ok(Array::whole(a.dtype, dims, |index| {
        let (i, k) = both(index);
        let (x, y) = (a.int(i), b.int(k));
        match by {
            BinaryOp::Add => x + y,
            BinaryOp::Sub => x - y,
            BinaryOp::Mul => x * y,
            BinaryOp::Div => x / y,
            BinaryOp::Min => x.min(y),
            BinaryOp::Max => x.max(y),
            BinaryOp::Pow => unreachable!("it takes no whole numbers"),
        }
    }))
}

/// The lesser one; what is not a number wins.
pub(super) fn least(x: f64, y: f64) -> f64 {
    if x.is_nan() || x < y { x } else { y }
}

pub(super) fn compare(call: &OpCall<'_>, by: CmpOp) -> Array {
    let (a, b, dims) = (call.tensors[0], call.tensors[1], &call.plan.shape);
    Array::whole(DType::U8, dims, |index| {
        let (i, k) = (spread(index, dims, &a.dims), spread(index, dims, &b.dims));
        i128::from(match a.dtype.is_float() {
            true => holds(by, &a.get(i), &b.get(k)),
            false => holds(by, &a.int(i), &b.int(k)),
        })
    })
}

fn holds<T: PartialOrd>(by: CmpOp, x: &T, y: &T) -> bool {
    match by {
        CmpOp::Eq => x == y,
        CmpOp::Ne => x != y,
        CmpOp::Lt => x < y,
        CmpOp::Le => x <= y,
        CmpOp::Gt => x > y,
        CmpOp::Ge => x >= y,
    }
}

/// An element of a where the condition holds, else of b.
pub(super) fn choose(call: &OpCall<'_>) -> Array {
    let (&[condition, a, b], dims) = (call.tensors, &call.plan.shape) else {
        unreachable!("the plan has counted them")
    };
    let chosen = |index| {
        let from = if condition.int(spread(index, dims, &condition.dims)) != 0 { a } else { b };
        (from, spread(index, dims, &from.dims))
    };
    match a.dtype.is_float() {
        true => Array::real(a.dtype, dims, |index| {
            let (from, at) = chosen(index);
            from.get(at)
        }),
        false => Array::whole(a.dtype, dims, |index| {
            let (from, at) = chosen(index);
            from.int(at)
        }),
    }
}

/// One tensor, element by element.
pub(super) fn map(a: &Array, by: UnaryOp) -> Array {
    match a.dtype.is_float() {
        true => Array::real(a.dtype, &a.dims, |index| function(by, a.get(index))),
        false => Array::whole(a.dtype, &a.dims, |index| whole(by, a.int(index))),
    }
}

fn function(by: UnaryOp, x: f64) -> f64 {
    match by {
        UnaryOp::Neg => -x,
        UnaryOp::Abs => x.abs(),
        UnaryOp::Exp => x.exp(),
        UnaryOp::Log => x.ln(),
        UnaryOp::Sqrt => x.sqrt(),
        UnaryOp::Recip => x.recip(),
        UnaryOp::Sin => x.sin(),
        UnaryOp::Cos => x.cos(),
        UnaryOp::Tanh => x.tanh(),
        UnaryOp::Sigmoid => sigmoid(x),
        UnaryOp::Relu if x < 0.0 => 0.0,
        UnaryOp::Relu => x,
        UnaryOp::Silu => x * sigmoid(x),
        UnaryOp::Gelu => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        UnaryOp::Erf => erf(x),
        UnaryOp::Floor => x.floor(),
        UnaryOp::Ceil => x.ceil(),
        UnaryOp::Round => x.round(),
        UnaryOp::Sign if x > 0.0 => 1.0,
        UnaryOp::Sign if x < 0.0 => -1.0,
        UnaryOp::Sign => 0.0,
    }
}

fn whole(by: UnaryOp, x: i128) -> i128 {
    match by {
        UnaryOp::Neg => -x,
        UnaryOp::Abs => x.abs(),
        UnaryOp::Relu => x.max(0),
        UnaryOp::Sign => x.signum(),
        _ => x,
    }
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

/// All but f64 is computed in f32.
pub(super) fn affine(a: &Array, mul: f64, add: f64) -> Array {
    match a.dtype {
        DType::F64 => Array::real(a.dtype, &a.dims, |index| a.get(index) * mul + add),
        dtype if dtype.is_float() => Array::real(dtype, &a.dims, |index| {
            f64::from(a.get(index) as f32 * mul as f32 + add as f32)
        }),
        dtype => Array::whole(dtype, &a.dims, |index| a.int(index) * mul as i128 + add as i128),
    }
}

/// The bounds are rounded to the type first.
pub(super) fn clamp(a: &Array, min: Option<f64>, max: Option<f64>) -> Array {
    let end = |end| Array::real(a.dtype, &[], |_| end).get(0);
    let (min, max) = (min.map(end), max.map(end));
    Array::real(a.dtype, &a.dims, |index| {
        let x = a.get(index);
        let x = min.filter(|min| x < *min).unwrap_or(x);
        max.filter(|max| x > *max).unwrap_or(x)
    })
}

pub(super) fn clamp_whole(a: &Array, [min, max]: [i64; 2]) -> Array {
    Array::whole(a.dtype, &a.dims, |index| a.int(index).clamp(min.into(), max.into()))
}

pub(crate) fn cast(a: &Array, dtype: DType) -> Array {
    match a.dtype.is_float() {
        true => Array::real(dtype, &a.dims, |index| a.get(index)),
        false => Array::whole(dtype, &a.dims, |index| a.int(index)),
    }
}
