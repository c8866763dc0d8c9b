//! What passes between host and plugin: texts, counted values, calls, and errors.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::{Arc, OnceLock};

use super::backend::{Backend, HostError, HostResult};
use super::lent::View;
use crate::{KinoCall, KinoError, KinoStr, KinoValue};

/// Text or bytes, lent to the other side.
pub fn lend(bytes: &[u8]) -> KinoStr {
    KinoStr { data: bytes.as_ptr().cast(), len: bytes.len() }
}

/// Text or bytes that the other side lends.
///
/// # Safety
/// `text` points to `len` bytes that stay as they are for `'a`, or is null or of length 0.
pub unsafe fn lent_bytes<'a>(text: KinoStr) -> &'a [u8] {
    if text.data.is_null() || text.len == 0 {
        return &[];
    }
    // SAFETY: not null, and as the caller promises.
    unsafe { std::slice::from_raw_parts(text.data.cast(), text.len) }
}

/// A text that the other side lends; what is no UTF-8 is replaced.
///
/// # Safety
/// As [`lent_bytes`].
pub(super) unsafe fn lent_text(text: KinoStr) -> String {
    // SAFETY: as the caller promises.
    String::from_utf8_lossy(unsafe { lent_bytes(text) }).into_owned()
}

/// What the pointer to a value leads to: the value, and where it lies once somebody has asked.
pub(super) struct Handle<B: Backend> {
    pub(super) value: B::Value,
    pub(super) view: OnceLock<Box<View<B>>>,
}

/// Gives a value away: whoever has the pointer owns a count.
pub fn into_raw<B: Backend>(value: B::Value) -> *mut KinoValue {
    Arc::into_raw(Arc::new(Handle::<B> { value, view: OnceLock::new() })).cast_mut().cast()
}

/// Takes back what was given away.
///
/// # Safety
/// `value` is null or comes from [`into_raw`] of the same backend, and its count belongs to the
/// caller.
pub unsafe fn from_raw<B: Backend>(value: *mut KinoValue) -> Option<B::Value> {
    if value.is_null() {
        return None;
    }
    // SAFETY: not null and from `Arc::into_raw`, as the caller promises.
    let handle = unsafe { Arc::from_raw(value.cast_const().cast::<Handle<B>>()) };
    Some(match Arc::try_unwrap(handle) {
        Ok(handle) => handle.value,
        Err(shared) => shared.value.clone(),
    })
}

/// How a plugin is told of a call: good as long as the call lasts.
pub fn call_pointer<C>(call: &C) -> *mut KinoCall {
    std::ptr::from_ref(call).cast_mut().cast()
}

pub(super) fn absent() -> HostError {
    HostError::new("a value was expected, found null")
}

/// Gives an error away.
pub fn error_into_raw(error: HostError) -> *mut KinoError {
    Box::into_raw(Box::new(error)).cast()
}

/// Takes an error back; none where it is null.
///
/// # Safety
/// `error` is null or comes from [`error_into_raw`] and belongs to the caller.
pub unsafe fn error_from_raw(error: *mut KinoError) -> Option<HostError> {
    // SAFETY: not null and from `Box::into_raw`, as the caller promises.
    (!error.is_null()).then(|| unsafe { *Box::from_raw(error.cast::<HostError>()) })
}

/// Does what a function of the table does: errors and panics become a `KinoError`.
pub(super) fn outcome(work: impl FnOnce() -> HostResult<()>) -> *mut KinoError {
    error_into_raw(match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => return null_mut(),
        Ok(Err(error)) => error,
        Err(_) => HostError::coded(
            "broken",
            "the host panicked: this is a bug of Kinograph; please report it",
        ),
    })
}

/// As [`outcome`], of a function that cannot fail.
pub(super) fn quietly(work: impl FnOnce()) {
    let done = outcome(|| {
        work();
        Ok(())
    });
    // SAFETY: the error was made just now, and belongs to this function.
    drop(unsafe { error_from_raw(done) });
}

/// As [`outcome`], and writes the value that comes out.
///
/// # Safety
/// `to` can be written.
pub(super) unsafe fn write_value<B: Backend>(
    to: *mut *mut KinoValue,
    work: impl FnOnce() -> HostResult<B::Value>,
) -> *mut KinoError {
    outcome(|| {
        let value = work()?;
        // SAFETY: as the caller promises.
        unsafe { to.write(into_raw::<B>(value)) };
        Ok(())
    })
}
