//! What passes between host and plugin: texts, counted values, and how a function ended.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::backend::{HostError, HostResult};
use crate::{KINO_CANCELLED, KINO_FAILED, KINO_OK, KinoCall, KinoStatus, KinoStr, KinoValue};

/// Text or bytes, lent to the other side.
pub fn lend(bytes: &[u8]) -> KinoStr {
    KinoStr { data: bytes.as_ptr(), len: bytes.len() }
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
    unsafe { std::slice::from_raw_parts(text.data, text.len) }
}

/// A text that the other side lends; what is no UTF-8 is replaced.
///
/// # Safety
/// As [`lent_bytes`].
pub(super) unsafe fn lent_text(text: KinoStr) -> String {
    // SAFETY: as the caller promises.
    String::from_utf8_lossy(unsafe { lent_bytes(text) }).into_owned()
}

/// Gives a value away: whoever has the pointer owns a count.
pub fn into_raw<V>(value: Arc<V>) -> *mut KinoValue {
    Arc::into_raw(value).cast_mut().cast()
}

/// Takes back what was given away.
///
/// # Safety
/// `value` is null or comes from [`into_raw`] of the same type, and its count belongs to the
/// caller.
pub unsafe fn from_raw<V>(value: *mut KinoValue) -> Option<Arc<V>> {
    // SAFETY: not null and from `Arc::into_raw`, as the caller promises.
    (!value.is_null()).then(|| unsafe { Arc::from_raw(value.cast_const().cast::<V>()) })
}

/// How a plugin is told of a call: good as long as the call lasts.
pub fn call_pointer<C>(call: &C) -> *mut KinoCall {
    std::ptr::from_ref(call).cast_mut().cast()
}

pub(super) fn absent() -> HostError {
    HostError::new("a value was expected, found null")
}

thread_local! {
    /// Why the last function failed on this thread, and what to do about it.
    static LAST_ERROR: RefCell<(String, String)> =
        const { RefCell::new((String::new(), String::new())) };
}

/// Does what a function of the table does: errors and panics become a status.
pub(super) fn to_status(work: impl FnOnce() -> HostResult<()>) -> KinoStatus {
    let (message, hint) = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => return KINO_OK,
        Ok(Err(HostError::Cancelled)) => return KINO_CANCELLED,
        Ok(Err(HostError::Failed { message, hint })) => (message, hint),
        Err(_) => {
            let bug = "the host panicked: this is a bug of Kinograph; please report it";
            (bug.to_owned(), String::new())
        }
    };
    LAST_ERROR.set((message, hint));
    KINO_FAILED
}

/// As [`to_status`], and writes the value that comes out.
///
/// # Safety
/// `to` can be written.
pub(super) unsafe fn write_value<V>(
    to: *mut *mut KinoValue,
    work: impl FnOnce() -> HostResult<Arc<V>>,
) -> KinoStatus {
    to_status(|| {
        let value = work()?;
        // SAFETY: as the caller promises.
        unsafe { to.write(into_raw(value)) };
        Ok(())
    })
}

/// Does something with why the last function failed on this thread.
pub(super) fn with_last_error<T>(f: impl FnOnce(&str, &str) -> T) -> T {
    LAST_ERROR.with_borrow(|(message, hint)| f(message, hint))
}
