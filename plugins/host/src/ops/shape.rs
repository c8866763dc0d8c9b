//! Shapes and element types: dimensions by number, broadcasting, sizes that do not overflow.

use candle_core::{DType, Device, Tensor};
use kino_node::{Error, Result};

/// More dimensions than candle's loops can walk are refused.
pub(super) const MOST_DIMENSIONS: usize = 8;

/// The element types that operations take.
pub(super) const TYPES: [(&str, DType); 9] = [
    ("u8", DType::U8),
    ("u32", DType::U32),
    ("i16", DType::I16),
    ("i32", DType::I32),
    ("i64", DType::I64),
    ("bf16", DType::BF16),
    ("f16", DType::F16),
    ("f32", DType::F32),
    ("f64", DType::F64),
];

/// Bytes of a tensor; `None` beyond what can be counted. A size of 0 hides no overflow: strides
/// are products of the other sizes.
pub(super) fn bytes(shape: &[usize], dtype: DType) -> Option<u64> {
    let full = shape.iter().try_fold(dtype.size_in_bytes() as u64, |bytes, size| {
        bytes.checked_mul((*size).max(1) as u64).filter(|bytes| *bytes <= i64::MAX as u64)
    })?;
    Some(if shape.contains(&0) { 0 } else { full })
}

/// The dimension that a number means; negative ones count from the end.
pub(super) fn dimension(dim: i64, shape: &[usize]) -> Result<usize> {
    let rank = shape.len() as i64;
    let at = if dim < 0 { dim.saturating_add(rank) } else { dim };
    match (0..rank).contains(&at) {
        true => Ok(at as usize),
        false => Err(Error::failed(format!("shape {shape:?} has no dimension {dim}"))),
    }
}

/// The same for some dimensions, none of which may come twice; the order stays.
pub(super) fn dimensions(dims: &[i64], shape: &[usize]) -> Result<Vec<usize>> {
    let mut found = Vec::with_capacity(shape.len());
    for dim in dims {
        let at = dimension(*dim, shape)?;
        if found.contains(&at) {
            return Err(Error::failed(format!("dimension {at} of {shape:?} is named twice")));
        }
        found.push(at);
    }
    Ok(found)
}

/// The shape that two shapes broadcast to, as in NumPy.
pub(super) fn common(a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |shape: &[usize], index: usize| {
        (index + shape.len()).checked_sub(rank).map_or(1, |index| shape[index])
    };
    (0..rank)
        .map(|index| match (at(a, index), at(b, index)) {
            (x, y) if x == y => Ok(x),
            (1, other) | (other, 1) => Ok(other),
            (x, y) => Err(Error::failed(format!(
                "{a:?} and {b:?} do not broadcast to one shape: {x} against {y}"
            ))),
        })
        .collect()
}

/// Refuses two element types.
pub(super) fn same_type(a: &Tensor, b: &Tensor) -> Result<()> {
    if a.dtype() == b.dtype() {
        return Ok(());
    }
    Err(Error::advised(
        format!("{} and {}: the element types differ", a.dtype().as_str(), b.dtype().as_str()),
        "`cast` makes them alike",
    ))
}

/// Refuses whole numbers.
pub(super) fn floating(tensor: &Tensor) -> Result<()> {
    if tensor.dtype().is_float() {
        return Ok(());
    }
    Err(Error::advised(
        format!("expected f16, bf16, f32 or f64, found {}", tensor.dtype().as_str()),
        "`cast` it first",
    ))
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
    if marks.elem_count() == 0 {
        return Ok(false);
    }
    Ok(plain(marks)?.flatten_all()?.max(0)?.to_scalar::<u8>()? != 0)
}
