//! What passes between host and plugin: texts, calls, and errors.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;

use super::backend::{HostError, HostResult};
use crate::{KinoCall, KinoError, KinoStr};

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

/// How a plugin is told of a call: good as long as the call lasts.
pub fn call_pointer<C>(call: &C) -> *mut KinoCall {
    std::ptr::from_ref(call).cast_mut().cast()
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

/// Does what a function of the table does: errors, which name the function, and panics become a
/// `KinoError`. Without a name are functions whose errors name what they were asked for.
pub(super) fn outcome(name: &str, work: impl FnOnce() -> HostResult<()>) -> *mut KinoError {
    error_into_raw(match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => return null_mut(),
        Ok(Err(error)) if name.is_empty() => error,
        Ok(Err(error)) => named(name, error),
        Err(_) => HostError::coded(
            "broken",
            "the host panicked: this is a bug of Kinograph; please report it",
        ),
    })
}

fn named(name: &str, error: HostError) -> HostError {
    HostError { message: format!("{name}: {}", error.message), ..error }
}

/// What a function of this name found in its arguments.
///
/// # Errors
/// The same, with the function's name.
pub(super) fn of<T>(name: &str, found: HostResult<T>) -> HostResult<T> {
    found.map_err(|error| named(name, error))
}

/// As [`outcome`], of a function that cannot fail.
pub(super) fn quietly(work: impl FnOnce()) {
    let done = outcome("", || {
        work();
        Ok(())
    });
    // SAFETY: the error was made just now, and belongs to this function.
    drop(unsafe { error_from_raw(done) });
}
