//! Shapes: dimensions by number, broadcasting, sizes that do not overflow.

use super::error::{OpError, Result};
use super::op::{MAX_DIMENSIONS, Operand};
use crate::{DType, code};

/// Refuses what has more than `most` bytes or too many dimensions; `what` says what it is.
///
/// # Errors
/// When it does not fit.
pub fn fits(what: &str, shape: &[usize], dtype: DType, most: u64) -> Result<u64> {
    if shape.len() > MAX_DIMENSIONS {
        return Err(OpError::new(format!(
            "{what} of {} dimensions: at most {MAX_DIMENSIONS} are possible",
            shape.len()
        )));
    }
    bytes(shape, dtype).filter(|bytes| *bytes <= most).ok_or_else(|| {
        OpError::new(format!(
            "{what} of shape {shape:?} ({dtype}) is larger than the {most} bytes that are allowed"
        ))
        .code(code::LIMIT)
    })
}

/// Bytes of a tensor; `None` beyond what can be counted. A size of 0 hides no overflow: strides
/// are products of the other sizes.
fn bytes(shape: &[usize], dtype: DType) -> Option<u64> {
    let full = shape.iter().try_fold(dtype.size() as u64, |bytes, size| {
        bytes.checked_mul((*size).max(1) as u64).filter(|bytes| *bytes <= i64::MAX as u64)
    })?;
    Some(if shape.contains(&0) { 0 } else { full })
}

/// The dimension that a number means; negative ones count from the end.
pub(crate) fn dimension(dim: i64, shape: &[usize]) -> Result<usize> {
    let rank = shape.len() as i64;
    let at = if dim < 0 { dim.saturating_add(rank) } else { dim };
    match (0..rank).contains(&at) {
        true => Ok(at as usize),
        false => Err(OpError::new(format!("shape {shape:?} has no dimension {dim}"))),
    }
}

/// The same for some dimensions, none of which may come twice; the order stays.
pub(crate) fn dimensions(dims: &[i64], shape: &[usize]) -> Result<Vec<usize>> {
    let mut found = Vec::with_capacity(shape.len());
    for dim in dims {
        let at = dimension(*dim, shape)?;
        if found.contains(&at) {
            return Err(OpError::new(format!("dimension {at} of {shape:?} is named twice")));
        }
        found.push(at);
    }
    Ok(found)
}

/// The shape that two shapes broadcast to, as in NumPy.
pub(crate) fn common(a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |shape: &[usize], index: usize| {
        (index + shape.len()).checked_sub(rank).map_or(1, |index| shape[index])
    };
    (0..rank)
        .map(|index| match (at(a, index), at(b, index)) {
            (x, y) if x == y => Ok(x),
            (1, other) | (other, 1) => Ok(other),
            (x, y) => Err(OpError::new(format!(
                "{a:?} and {b:?} do not broadcast to one shape: {x} against {y}"
            ))),
        })
        .collect()
}

/// The shape of `count` elements that is asked for; one entry may be −1.
pub(crate) fn completed(wanted: &[i64], count: usize) -> Option<Vec<usize>> {
    let known = wanted.iter().filter(|size| **size != -1);
    let known = known.map(|size| usize::try_from(*size).ok()).collect::<Option<Vec<_>>>()?;
    let product = known.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    // Beyond usize is not `count`, unless a later size is 0.
    let product = product.or_else(|| known.contains(&0).then_some(0))?;
    let open = match wanted.len() - known.len() {
        0 if product == count => 0,
        1 if product > 0 && count.is_multiple_of(product) => count / product,
        _ => return None,
    };
    Some(wanted.iter().map(|size| usize::try_from(*size).unwrap_or(open)).collect())
}

/// Refuses two element types.
pub(crate) fn same_type(a: Operand<'_>, b: Operand<'_>) -> Result<()> {
    if a.dtype == b.dtype {
        return Ok(());
    }
    Err(OpError::new(format!("{} and {}: the element types differ", a.dtype, b.dtype))
        .hint("`cast` makes them alike"))
}

/// Refuses whole numbers.
pub(crate) fn floating(dtype: DType) -> Result<()> {
    if dtype.is_float() {
        return Ok(());
    }
    Err(OpError::new(format!("expected f16, bf16, f32 or f64, found {dtype}"))
        .hint("`cast` it first"))
}
