//! Tensors of candle: types, and what several operations need.

use candle_core::{DType, Device, Tensor};
use kino_contract::code;
use kino_node::{Error, Result};

/// The element types that operations take, here and in candle.
const TYPES: [(kino_contract::DType, DType); 9] = [
    (kino_contract::DType::U8, DType::U8),
    (kino_contract::DType::U32, DType::U32),
    (kino_contract::DType::I16, DType::I16),
    (kino_contract::DType::I32, DType::I32),
    (kino_contract::DType::I64, DType::I64),
    (kino_contract::DType::Bf16, DType::BF16),
    (kino_contract::DType::F16, DType::F16),
    (kino_contract::DType::F32, DType::F32),
    (kino_contract::DType::F64, DType::F64),
];

/// The type of candle's as operations name it.
pub(crate) fn of_candle(dtype: DType) -> Result<kino_contract::DType> {
    let known = TYPES.iter().find(|(_, candle)| *candle == dtype).map(|(dtype, _)| *dtype);
    known.ok_or_else(|| {
        Error::coded(code::INVALID, format!("operations do not take {}", dtype.as_str()))
    })
}

/// The same the other way.
pub(crate) fn in_candle(dtype: kino_contract::DType) -> DType {
    TYPES.iter().find(|(known, _)| *known == dtype).map_or(DType::F32, |(_, candle)| *candle)
}

/// The type in which elements are computed: f32 for the halves, i64 for whole numbers.
pub(super) fn wide(dtype: DType) -> DType {
    match dtype {
        DType::F64 => DType::F64,
        dtype if dtype.is_float() => DType::F32,
        _ => DType::I64,
    }
}

/// Row-major without gaps, with strides that say so even where a size is 1.
pub(super) fn plain(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.reshape(tensor.shape())?)
}

/// A number as a scalar tensor.
pub(super) fn scalar(value: f64, dtype: DType, device: &Device) -> Result<Tensor> {
    Ok(Tensor::new(value, device)?.to_dtype(dtype)?)
}

/// The same in the shape of another tensor, and in its type.
pub(super) fn filled(value: f64, like: &Tensor) -> Result<Tensor> {
    Ok(scalar(value, like.dtype(), like.device())?.broadcast_as(like.shape())?)
}

/// a where `condition` (u8) is not 0, else b; all have one shape.
pub(super) fn pick(condition: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(condition.where_cond(a, b)?)
}

/// 1 (u8) where an element is not a number.
pub(super) fn nan(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.ne(tensor)?)
}

/// Whether any element of a u8 tensor is not 0.
pub(super) fn any(marks: &Tensor) -> Result<bool> {
    Ok(plain(marks)?.flatten_all()?.max(0)?.to_scalar::<u8>()? != 0)
}
