//! Frames and tensors as plugins make, see and compute them.

use kino_abi::{DLDataType, DLManagedTensorVersioned, KinoStatus, KinoStr, KinoValue};
use kino_host::PluginValue;
use kino_node::{Error, Result, Value};

use super::pass::{borrow, clone_arc, text, to_status, write_result};
use crate::allocator::allocator;
use crate::view;

// SAFETY of all functions of the table: plugins hold the contract of `kino_abi`, which says of each
// argument what it points to and how long it lives. Native plugins are trusted with it by name.

pub(super) unsafe extern "C" fn new_frames(fps: f64, to: *mut *mut KinoValue) -> KinoStatus {
    // SAFETY: see above.
    unsafe { write_result(to, || allocator().frames((!fps.is_nan()).then_some(fps)).map(Some)) }
}

pub(super) unsafe extern "C" fn push_frames(
    frames: *mut KinoValue,
    chunk: *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above.
    to_status(|| unsafe { allocator().push(borrow(frames)?, borrow(chunk)?) })
}

pub(super) unsafe extern "C" fn new_tensor(
    dtype: DLDataType,
    shape: *const i64,
    ndim: usize,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above: `shape` points to `ndim` numbers.
    unsafe {
        write_result(to, || {
            allocator().tensor(view::from_dl(dtype)?, &sizes(shape, ndim)?).map(Some)
        })
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
        write_result(to, || {
            allocator().uninit(view::from_dl(dtype)?, &sizes(shape, ndim)?).map(Some)
        })
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
    to_status(|| unsafe {
        to.write(view::read(clone_arc(value)?)?);
        Ok(())
    })
}

pub(super) unsafe extern "C" fn write_tensor(
    value: *mut KinoValue,
    to: *mut *mut DLManagedTensorVersioned,
) -> KinoStatus {
    // SAFETY: see above.
    to_status(|| unsafe {
        to.write(view::write(clone_arc(value)?)?);
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
        write_result(to, || {
            let tensors = if count == 0 { &[] } else { std::slice::from_raw_parts(tensors, count) };
            let tensor = |value: &*mut KinoValue| {
                let item = borrow(*value)?;
                allocator().seal(item)?;
                item.tensor()
            };
            let tensors = tensors.iter().map(tensor);
            let tensors = tensors.collect::<Result<Vec<_>>>()?;
            let result = kino_host::ops::apply(&text(name), &tensors, &text(attributes))?;
            Ok(Some(PluginValue::Value(Value::Tensor(result))))
        })
    }
}
