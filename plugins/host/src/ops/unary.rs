//! Operations on one tensor, element by element.
//!
//! Functions of f16 and bf16 are computed in f32 and rounded once.

use candle_core::{DType, Tensor};
use kino_node::{Error, Result};

use super::call::Call;
use super::shape::{TYPES, filled, floating, nan, pick, scalar, wide};

type Function = fn(&Tensor) -> candle_core::Result<Tensor>;

/// A function of real numbers.
fn real(call: &Call, function: Function) -> Result<Tensor> {
    let x = &call.tensors[0];
    floating(x)?;
    call.room(x.dims(), x.dtype())?;
    if x.elem_count() == 0 {
        return Ok(x.clone());
    }
    Ok(function(&x.to_dtype(wide(x.dtype()))?)?.to_dtype(x.dtype())?)
}

macro_rules! functions {
    ($($name:ident: $function:expr;)*) => {$(
        pub(super) fn $name(call: &Call) -> Result<Tensor> {
            real(call, $function)
        }
    )*};
}

functions! {
    exp: |x| x.exp();
    log: |x| x.log();
    sqrt: |x| x.sqrt();
    recip: |x| x.recip();
    sin: |x| x.sin();
    cos: |x| x.cos();
    tanh: |x| x.tanh();
    sigmoid: |x| x.neg()?.exp()?.affine(1.0, 1.0)?.recip();
    silu: kino_kernels::silu;
    gelu: kino_kernels::gelu;
    erf: |x| x.erf();
}

/// A function that leaves whole numbers alone.
fn rounded(call: &Call, function: Function) -> Result<Tensor> {
    match call.tensors[0].dtype().is_float() {
        true => real(call, function),
        false => Ok(call.tensors[0].clone()),
    }
}

pub(super) fn floor(call: &Call) -> Result<Tensor> {
    rounded(call, |x| x.floor())
}

pub(super) fn ceil(call: &Call) -> Result<Tensor> {
    rounded(call, |x| x.ceil())
}

pub(super) fn round(call: &Call) -> Result<Tensor> {
    rounded(call, |x| x.round())
}

/// A function of real numbers, and another of whole ones that have a sign: candle has none.
fn signed(call: &Call, function: Function, whole: fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let x = &call.tensors[0];
    call.room(x.dims(), x.dtype())?;
    match x.dtype().is_float() {
        true => real(call, function),
        false if x.elem_count() == 0 => Ok(x.clone()),
        false => whole(x),
    }
}

fn is_unsigned(x: &Tensor) -> bool {
    matches!(x.dtype(), DType::U8 | DType::U32)
}

fn negative(x: &Tensor) -> Result<Tensor> {
    Ok(filled(0.0, x)?.sub(x)?)
}

pub(super) fn neg(call: &Call) -> Result<Tensor> {
    signed(
        call,
        |x| x.neg(),
        |x| {
            if is_unsigned(x) {
                let found = x.dtype().as_str();
                return Err(Error::advised(format!("{found} has no negatives"), "`cast` it first"));
            }
            negative(x)
        },
    )
}

pub(super) fn abs(call: &Call) -> Result<Tensor> {
    signed(
        call,
        |x| x.abs(),
        |x| match is_unsigned(x) {
            true => Ok(x.clone()),
            false => Ok(x.maximum(&negative(x)?)?),
        },
    )
}

pub(super) fn relu(call: &Call) -> Result<Tensor> {
    let x = &call.tensors[0];
    call.room(x.dims(), x.dtype())?;
    within(x, Some(&scalar(0.0, x.dtype(), x.device())?), None)
}

pub(super) fn sign(call: &Call) -> Result<Tensor> {
    signed(
        call,
        |x| x.sign(),
        |x| {
            let zero = filled(0.0, x)?;
            let [above, below] =
                [x.gt(&zero)?.to_dtype(x.dtype())?, x.lt(&zero)?.to_dtype(x.dtype())?];
            Ok(above.sub(&below)?)
        },
    )
}

pub(super) fn affine(call: &Call) -> Result<Tensor> {
    /// Whole numbers up to here are exact in f64.
    const EXACT: f64 = (1u64 << 53) as f64;
    let x = &call.tensors[0];
    let (mul, add) = (call.real("mul")?, call.real("add")?);
    call.room(x.dims(), x.dtype())?;
    if !x.dtype().is_float() {
        call.scratch(x.dims(), DType::I64)?;
        for (key, value) in [("mul", mul), ("add", add)] {
            if value.fract() != 0.0 || value.abs() > EXACT {
                let found = x.dtype().as_str();
                return Err(Error::advised(
                    format!(
                        "attribute `{key}`: expected a whole number for {found}, found {value}"
                    ),
                    "`cast` the tensor first",
                ));
            }
        }
    }
    if x.elem_count() == 0 {
        return Ok(x.clone());
    }
    Ok(x.to_dtype(wide(x.dtype()))?.affine(mul, add)?.to_dtype(x.dtype())?)
}

pub(super) fn clamp(call: &Call) -> Result<Tensor> {
    let x = &call.tensors[0];
    let (min, max) = (call.bound("min")?, call.bound("max")?);
    call.room(x.dims(), x.dtype())?;
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        return Err(Error::failed(format!("`min` {min} is greater than `max` {max}")));
    }
    let ends = match x.dtype().is_float() {
        true => [min, max].map(|end| end.map(|end| scalar(end, x.dtype(), x.device()))),
        false => whole_ends(x.dtype(), min, max)?.map(|end| {
            let end = Tensor::new(end, x.device()).and_then(|end| end.to_dtype(x.dtype()));
            Some(end.map_err(Error::from))
        }),
    };
    let [min, max] = ends.map(Option::transpose);
    within(x, min?.as_ref(), max?.as_ref())
}

/// The whole numbers of a type from `min` to `max`.
fn whole_ends(dtype: DType, min: Option<f64>, max: Option<f64>) -> Result<[i64; 2]> {
    let [least, most] = range(dtype);
    let low = min.map_or(least, |min| (min.ceil() as i64).max(least));
    let high = max.map_or(most, |max| (max.floor() as i64).min(most));
    if low > high {
        let (min, max) = (low, high);
        return Err(Error::failed(format!(
            "no {} lies within both: from {min} up, and to {max}",
            dtype.as_str()
        )));
    }
    Ok([low, high])
}

/// The least and the greatest whole number of a type.
pub(super) fn range(dtype: DType) -> [i64; 2] {
    match dtype {
        DType::U8 => [0, u8::MAX.into()],
        DType::U32 => [0, u32::MAX.into()],
        DType::I16 => [i16::MIN.into(), i16::MAX.into()],
        DType::I32 => [i32::MIN.into(), i32::MAX.into()],
        _ => [i64::MIN, i64::MAX],
    }
}

/// Kept within scalars; what is not a number stays.
fn within(x: &Tensor, min: Option<&Tensor>, max: Option<&Tensor>) -> Result<Tensor> {
    if x.elem_count() == 0 {
        return Ok(x.clone());
    }
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

pub(super) fn cast(call: &Call) -> Result<Tensor> {
    let x = &call.tensors[0];
    let dtype = call.choice("dtype", &TYPES)?;
    call.room(x.dims(), dtype)?;
    match x.elem_count() {
        0 => Ok(Tensor::zeros(x.shape(), dtype, x.device())?),
        _ => Ok(x.to_dtype(dtype)?),
    }
}
