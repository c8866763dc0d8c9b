//! Operations that join two or three tensors element by element.

use candle_core::{DType, Tensor};
use kino_node::{Error, Result};

use super::call::Call;
use super::shape::{any, common, filled, floating, nan, pick, plain, same_type};

/// The first two tensors, of one type, broadcast to one shape; `None` where that has no elements.
struct Pair {
    a: Tensor,
    b: Tensor,
}

impl Pair {
    fn new(call: &Call, result: Option<DType>) -> Result<Self> {
        let [a, b] = [&call.tensors[0], &call.tensors[1]];
        same_type(a, b)?;
        let shape = common(a.dims(), b.dims())?;
        call.room(&shape, result.unwrap_or(a.dtype()))?;
        let shape = shape.as_slice();
        Ok(Self { a: a.broadcast_as(shape)?, b: b.broadcast_as(shape)? })
    }

    fn is_empty(&self) -> bool {
        self.a.elem_count() == 0
    }

    /// A result without elements.
    fn empty(&self, dtype: DType) -> Result<Tensor> {
        Ok(Tensor::zeros(self.a.shape(), dtype, self.a.device())?)
    }
}

macro_rules! arithmetic {
    ($($name:ident),*) => {$(
        pub(super) fn $name(call: &Call) -> Result<Tensor> {
            let pair = Pair::new(call, None)?;
            if pair.is_empty() {
                return pair.empty(pair.a.dtype());
            }
            Ok(pair.a.$name(&pair.b)?)
        }
    )*};
}

arithmetic!(add, sub, mul);

macro_rules! comparisons {
    ($($name:ident),*) => {$(
        pub(super) fn $name(call: &Call) -> Result<Tensor> {
            let pair = Pair::new(call, Some(DType::U8))?;
            if pair.is_empty() {
                return pair.empty(DType::U8);
            }
            Ok(pair.a.$name(&pair.b)?)
        }
    )*};
}

comparisons!(eq, ne, lt, le, gt, ge);

pub(super) fn min(call: &Call) -> Result<Tensor> {
    extreme(call, |a, b| a.minimum(b))
}

pub(super) fn max(call: &Call) -> Result<Tensor> {
    extreme(call, |a, b| a.maximum(b))
}

fn extreme(
    call: &Call,
    join: fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>,
) -> Result<Tensor> {
    let Pair { a, b } = &Pair::new(call, None)?;
    if a.elem_count() == 0 {
        return Ok(Tensor::zeros(a.shape(), a.dtype(), a.device())?);
    }
    let joined = join(a, b)?;
    if !a.dtype().is_float() {
        return Ok(joined);
    }
    // Devices differ in whether they keep what is not a number.
    pick(&nan(a)?, a, &pick(&nan(b)?, b, &joined)?)
}

/// Whole numbers are cut towards zero; dividing them by 0 would end the process.
pub(super) fn div(call: &Call) -> Result<Tensor> {
    let pair = Pair::new(call, None)?;
    if pair.is_empty() {
        return pair.empty(pair.a.dtype());
    }
    let Pair { a, b } = &pair;
    if a.dtype().is_float() {
        return Ok(a.div(b)?);
    }
    let divisor = &call.tensors[1];
    if any(&divisor.eq(&filled(0.0, divisor)?)?)? {
        return Err(Error::failed(format!("a whole number ({}) by 0", a.dtype().as_str())));
    }
    if matches!(a.dtype(), DType::U8 | DType::U32) {
        return Ok(a.div(b)?);
    }
    // The least number by −1 overflows: such quotients are differences instead, which wrap.
    let minus = b.eq(&filled(-1.0, b)?)?;
    let quotient = a.div(&pick(&minus, &filled(1.0, b)?, b)?)?;
    pick(&minus, &filled(0.0, a)?.sub(a)?, &quotient)
}

pub(super) fn choose(call: &Call) -> Result<Tensor> {
    let [condition, a, b] = [&call.tensors[0], &call.tensors[1], &call.tensors[2]];
    if condition.dtype() != DType::U8 {
        let found = condition.dtype().as_str();
        return Err(Error::advised(
            format!("the condition is {found}, expected u8"),
            "comparisons give one",
        ));
    }
    same_type(a, b)?;
    let shape = common(condition.dims(), &common(a.dims(), b.dims())?)?;
    call.room(&shape, a.dtype())?;
    let shape = shape.as_slice();
    if shape.contains(&0) {
        return Ok(Tensor::zeros(shape, a.dtype(), a.device())?);
    }
    let [a, b] = [a.broadcast_as(shape)?, b.broadcast_as(shape)?];
    pick(&condition.broadcast_as(shape)?, &a, &b)
}

pub(super) fn pow(call: &Call) -> Result<Tensor> {
    floating(&call.tensors[0])?;
    let pair = Pair::new(call, None)?;
    if pair.is_empty() {
        return pair.empty(pair.a.dtype());
    }
    let dtype = pair.a.dtype();
    let exponent = &call.tensors[1];
    if exponent.elem_count() == 1 {
        let exponent = plain(exponent)?.reshape(())?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
        return Ok(pair.a.to_dtype(wide)?.powf(exponent)?.to_dtype(dtype)?);
    }
    call.scratch(pair.a.dims(), DType::F64)?;
    let result = power(&pair.a.to_dtype(DType::F64)?, &pair.b.to_dtype(DType::F64)?)?;
    Ok(result.to_dtype(dtype)?)
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
