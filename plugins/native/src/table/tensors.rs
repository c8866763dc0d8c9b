//! Frames and tensors as plugins make, see and compute them.

use kino_abi::{DLDataType, DLManagedTensorVersioned, KinoStatus, KinoStr, KinoValue};
use kino_host::Item;
use kino_node::{Error, Result, Value};

use super::pass::{answer, answer_with, look, share, text};
use crate::maker::maker;
use crate::view;

// SAFETY of all functions of the table: plugins hold the contract of `kino_abi`, which says of each
// argument what it points to and how long it lives. Native plugins are trusted with it by name.

pub(super) unsafe extern "C" fn new_frames(fps: f64, to: *mut *mut KinoValue) -> KinoStatus {
    // SAFETY: see above.
    unsafe { answer_with(to, || maker().frames((!fps.is_nan()).then_some(fps)).map(Some)) }
}

pub(super) unsafe extern "C" fn push_frames(
    frames: *mut KinoValue,
    chunk: *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above.
    answer(|| unsafe { maker().push(look(frames)?, look(chunk)?) })
}

pub(super) unsafe extern "C" fn new_tensor(
    dtype: DLDataType,
    shape: *const i64,
    ndim: usize,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above: `shape` points to `ndim` numbers.
    unsafe {
        answer_with(to, || maker().tensor(view::from_dl(dtype)?, &sizes(shape, ndim)?).map(Some))
    }
}

pub(super) unsafe extern "C" fn new_tensor_unwritten(
    dtype: DLDataType,
    shape: *const i64,
    ndim: usize,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above: `shape` points to `ndim` numbers.
    unsafe {
        answer_with(to, || maker().unwritten(view::from_dl(dtype)?, &sizes(shape, ndim)?).map(Some))
    }
}

/// The dimensions of a tensor.
///
/// # Safety
/// `shape` points to `ndim` numbers.
unsafe fn sizes(shape: *const i64, ndim: usize) -> Result<Vec<usize>> {
    // SAFETY: as the caller promises.
    let shape = if ndim == 0 { &[] } else { unsafe { std::slice::from_raw_parts(shape, ndim) } };
    let size =
        |dim: &i64| usize::try_from(*dim).map_err(|_| Error::failed(format!("{dim} is no size")));
    shape.iter().map(size).collect()
}

pub(super) unsafe extern "C" fn view_tensor(
    value: *mut KinoValue,
    to: *mut *mut DLManagedTensorVersioned,
) -> KinoStatus {
    // SAFETY: see above.
    answer(|| unsafe {
        to.write(view::read(share(value)?)?);
        Ok(())
    })
}

pub(super) unsafe extern "C" fn write_tensor(
    value: *mut KinoValue,
    to: *mut *mut DLManagedTensorVersioned,
) -> KinoStatus {
    // SAFETY: see above.
    answer(|| unsafe {
        to.write(view::write(share(value)?)?);
        Ok(())
    })
}

pub(super) unsafe extern "C" fn op(
    name: KinoStr,
    tensors: *const *mut KinoValue,
    count: usize,
    attributes: KinoStr,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above: `tensors` points to `count` values.
    unsafe {
        answer_with(to, || {
            let tensors = if count == 0 { &[] } else { std::slice::from_raw_parts(tensors, count) };
            let tensor = |value: &*mut KinoValue| {
                let item = look(*value)?;
                maker().settle(item)?;
                item.tensor()
            };
            let tensors = tensors.iter().map(tensor);
            let tensors = tensors.collect::<Result<Vec<_>>>()?;
            let result = kino_host::ops::apply(&text(name), &tensors, &text(attributes))?;
            Ok(Some(Item::Value(Value::Tensor(result))))
        })
    }
}
