//! Operations element by element.

use candle_core::{DType, Tensor};
use kino_node::{Error, Result};

use super::attributes::Attributes;
use super::check_size;

/// Two tensors of one type, broadcast to one shape.
pub(super) fn joined(a: &Tensor, b: &Tensor) -> Result<(Tensor, Tensor)> {
    if a.dtype() != b.dtype() {
        return Err(Error::advised(
            format!("the tensors are {} and {}", a.dtype().as_str(), b.dtype().as_str()),
            "`cast` makes them alike",
        ));
    }
    if !a.device().same_device(b.device()) {
        return Err(Error::failed("the tensors lie on different devices"));
    }
    if a.dims() == b.dims() {
        return Ok((a.clone(), b.clone()));
    }
    let shape = common(a.dims(), b.dims())?;
    check_size(&shape, a.dtype().size_in_bytes())?;
    Ok((a.broadcast_as(shape.as_slice())?, b.broadcast_as(shape.as_slice())?))
}

/// The shape that two shapes broadcast to, as in NumPy.
fn common(a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |shape: &[usize], index: usize| {
        (index + shape.len()).checked_sub(rank).map_or(1, |index| shape[index])
    };
    (0..rank)
        .map(|index| match (at(a, index), at(b, index)) {
            (x, y) if x == y => Ok(x),
            (1, other) | (other, 1) => Ok(other),
            _ => Err(Error::failed(format!("{a:?} and {b:?} do not fit each other"))),
        })
        .collect()
}

macro_rules! binary {
    ($($name:ident),*) => {$(
        pub(super) fn $name(tensors: &[Tensor], _: &mut Attributes) -> Result<Tensor> {
            let (a, b) = joined(&tensors[0], &tensors[1])?;
            Ok(a.$name(&b)?)
        }
    )*};
}

binary!(add, sub, mul, eq, ne, lt, le, gt, ge);

pub(super) fn min(tensors: &[Tensor], _: &mut Attributes) -> Result<Tensor> {
    let (a, b) = joined(&tensors[0], &tensors[1])?;
    Ok(a.minimum(&b)?)
}

pub(super) fn max(tensors: &[Tensor], _: &mut Attributes) -> Result<Tensor> {
    let (a, b) = joined(&tensors[0], &tensors[1])?;
    Ok(a.maximum(&b)?)
}

/// Whole numbers are divided as real ones and cut: dividing them by 0 would end the process.
pub(super) fn div(tensors: &[Tensor], _: &mut Attributes) -> Result<Tensor> {
    let (a, b) = joined(&tensors[0], &tensors[1])?;
    if a.dtype().is_float() {
        return Ok(a.div(&b)?);
    }
    Ok(a.to_dtype(DType::F64)?.div(&b.to_dtype(DType::F64)?)?.to_dtype(a.dtype())?)
}

pub(super) fn pow(tensors: &[Tensor], _: &mut Attributes) -> Result<Tensor> {
    let (a, b) = joined(&tensors[0], &tensors[1])?;
    floats(&a)?;
    // Through f64 on the CPU: candle's own pow goes through logarithms and has no negative bases.
    if !a.device().is_cpu() {
        return Ok(a.pow(&b)?);
    }
    let list = |tensor: &Tensor| -> Result<Vec<f64>> {
        Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
    };
    let (bases, exponents) = (list(&a)?, list(&b)?);
    let powers: Vec<f64> = bases.iter().zip(&exponents).map(|(a, b)| a.powf(*b)).collect();
    Ok(Tensor::from_vec(powers, a.dims(), a.device())?.to_dtype(a.dtype())?)
}

pub(super) fn choose(tensors: &[Tensor], _: &mut Attributes) -> Result<Tensor> {
    let (a, b) = joined(&tensors[1], &tensors[2])?;
    let condition = &tensors[0];
    if condition.dtype() != DType::U8 {
        let found = condition.dtype().as_str();
        return Err(Error::failed(format!("the condition is u8, found {found}")));
    }
    let shape = common(condition.dims(), a.dims())?;
    check_size(&shape, a.dtype().size_in_bytes())?;
    let whole = |tensor: &Tensor| tensor.broadcast_as(shape.as_slice());
    Ok(whole(condition)?.where_cond(&whole(&a)?, &whole(&b)?)?)
}

pub(super) fn floats(tensor: &Tensor) -> Result<()> {
    if tensor.dtype().is_float() {
        return Ok(());
    }
    Err(Error::advised(
        format!("it takes real numbers, found {}", tensor.dtype().as_str()),
        "`cast` to f32 first",
    ))
}

macro_rules! unary {
    ($($name:ident),*) => {$(
        pub(super) fn $name(tensors: &[Tensor], _: &mut Attributes) -> Result<Tensor> {
            floats(&tensors[0])?;
            Ok(tensors[0].$name()?)
        }
    )*};
}

unary!(exp, log, sqrt, recip, sin, cos, tanh, relu, erf, floor, ceil, sign);

pub(super) fn gelu(tensors: &[Tensor], _: &mut Attributes) -> Result<Tensor> {
    floats(&tensors[0])?;
    Ok(tensors[0].gelu_erf()?)
}

pub(super) fn round(tensors: &[Tensor], _: &mut Attributes) -> Result<Tensor> {
    floats(&tensors[0])?;
    Ok(tensors[0].round()?)
}

pub(super) fn silu(tensors: &[Tensor], _: &mut Attributes) -> Result<Tensor> {
    floats(&tensors[0])?;
    Ok(tensors[0].silu()?)
}

/// 1/(1 + e^−x), as half of 1 + tanh(x/2): it neither overflows nor loses small values near 1.
pub(super) fn sigmoid(tensors: &[Tensor], _: &mut Attributes) -> Result<Tensor> {
    floats(&tensors[0])?;
    Ok(tensors[0].affine(0.5, 0.0)?.tanh()?.affine(0.5, 0.5)?)
}

pub(super) fn neg(tensors: &[Tensor], _: &mut Attributes) -> Result<Tensor> {
    signed(&tensors[0])?;
    Ok(if tensors[0].dtype().is_float() {
        tensors[0].neg()?
    } else {
        tensors[0].zeros_like()?.sub(&tensors[0])?
    })
}

pub(super) fn abs(tensors: &[Tensor], _: &mut Attributes) -> Result<Tensor> {
    if tensors[0].dtype().is_float() {
        return Ok(tensors[0].abs()?);
    }
    let negative = tensors[0].zeros_like()?.sub(&tensors[0])?;
    Ok(tensors[0].maximum(&negative)?)
}

fn signed(tensor: &Tensor) -> Result<()> {
    match tensor.dtype() {
        DType::U8 | DType::U32 => {
            Err(Error::failed(format!("{} has no negatives", tensor.dtype().as_str())))
        }
        _ => Ok(()),
    }
}

pub(super) fn affine(tensors: &[Tensor], attributes: &mut Attributes) -> Result<Tensor> {
    floats(&tensors[0])?;
    Ok(tensors[0].affine(attributes.real("mul")?, attributes.real("add")?)?)
}

pub(super) fn clamp(tensors: &[Tensor], attributes: &mut Attributes) -> Result<Tensor> {
    let (min, max) = (attributes.real("min")?, attributes.real("max")?);
    if min > max {
        return Err(Error::failed(format!("the least, {min}, is above the greatest, {max}")));
    }
    Ok(tensors[0].clamp(min, max)?)
}
