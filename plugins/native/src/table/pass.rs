//! What passes between host and plugin: texts, counted values, and how a function ended.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use kino_abi::{KINO_CANCELLED, KINO_FAILED, KINO_OK, KinoField, KinoStatus, KinoStr, KinoValue};
use kino_host::PluginValue;
use kino_node::{Error, Result};

thread_local! {
    /// Why the last function failed on this thread, and what to do about it.
    static LAST_ERROR: RefCell<(String, String)> = const { RefCell::new((String::new(), String::new())) };
}

/// Why the last function failed on this thread.
pub(super) fn last_error<T>(f: impl FnOnce(&str, &str) -> T) -> T {
    LAST_ERROR.with_borrow(|(message, hint)| f(message, hint))
}

/// A text of a plugin.
///
/// # Safety
/// `text` points to `len` bytes for the time of the call, as the contract demands of strings.
pub(crate) unsafe fn bytes<'a>(text: KinoStr) -> &'a [u8] {
    if text.data.is_null() || text.len == 0 {
        return &[];
    }
    // SAFETY: not null, and as the caller promises.
    unsafe { std::slice::from_raw_parts(text.data, text.len) }
}

/// As [`bytes`]; what is no UTF-8 is replaced.
///
/// # Safety
/// As [`bytes`].
pub(super) unsafe fn text(text: KinoStr) -> String {
    // SAFETY: as the caller promises.
    String::from_utf8_lossy(unsafe { bytes(text) }).into_owned()
}

pub(super) fn lent(text: &[u8]) -> KinoStr {
    KinoStr { data: text.as_ptr(), len: text.len() }
}

/// Gives a value away: whoever has the pointer owns a count.
pub(crate) fn into_raw(item: PluginValue) -> *mut KinoValue {
    Arc::into_raw(Arc::new(item)).cast_mut().cast()
}

/// Takes back what was given away.
///
/// # Safety
/// `value` is null or comes from [`give`], and its count belongs to the caller.
pub(crate) unsafe fn from_raw(value: *mut KinoValue) -> Option<Arc<PluginValue>> {
    // SAFETY: not null and from `Arc::into_raw` in `give`, as the caller promises.
    (!value.is_null()).then(|| unsafe { Arc::from_raw(value.cast_const().cast::<PluginValue>()) })
}

/// Looks at a value that somebody else owns.
///
/// # Safety
/// `value` is null or comes from [`give`] and lives on for the time of the call.
pub(super) unsafe fn borrow<'a>(value: *mut KinoValue) -> Result<&'a PluginValue> {
    // SAFETY: as the caller promises.
    unsafe { value.cast_const().cast::<PluginValue>().as_ref() }
        .ok_or_else(|| Error::failed("a value was expected, found null"))
}

/// Another count of a value that somebody else owns.
///
/// # Safety
/// As [`look`], and not null.
pub(super) unsafe fn clone_arc(value: *mut KinoValue) -> Result<Arc<PluginValue>> {
    if value.is_null() {
        return Err(Error::failed("a value was expected, found null"));
    }
    let item = value.cast_const().cast::<PluginValue>();
    // SAFETY: it comes from `Arc::into_raw` and is alive, as the caller promises.
    unsafe {
        Arc::increment_strong_count(item);
        Ok(Arc::from_raw(item))
    }
}

/// Does what a function of the table does: errors and panics become a status.
pub(super) fn to_status(f: impl FnOnce() -> Result<()>) -> KinoStatus {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(())) => KINO_OK,
        Ok(Err(Error::Cancelled)) => KINO_CANCELLED,
        Ok(Err(error)) => {
            LAST_ERROR.set((error.to_string(), error.hint().unwrap_or_default().to_owned()));
            KINO_FAILED
        }
        Err(_) => {
            let bug = "the host panicked: this is a bug of Kinograph; please report it";
            LAST_ERROR.set((bug.to_owned(), String::new()));
            KINO_FAILED
        }
    }
}

/// As [`answer`], and writes the item that comes out.
///
/// # Safety
/// `to` can be written.
pub(super) unsafe fn write_result(
    to: *mut *mut KinoValue,
    f: impl FnOnce() -> Result<Option<PluginValue>>,
) -> KinoStatus {
    to_status(|| {
        let item = f()?;
        // SAFETY: as the caller promises.
        unsafe { to.write(item.map_or(std::ptr::null_mut(), into_raw)) };
        Ok(())
    })
}

/// A field list of a plugin.
///
/// # Safety
/// `fields` points to `count` fields whose names and values hold the contract.
pub(super) unsafe fn fields(
    fields: *const KinoField,
    count: usize,
) -> Result<Vec<(Arc<str>, PluginValue)>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    if fields.is_null() {
        return Err(Error::failed("fields were expected, found null"));
    }
    // SAFETY: not null, and as the caller promises; so for each field below.
    let fields = unsafe { std::slice::from_raw_parts(fields, count) };
    let read = |field: &KinoField| unsafe {
        // SAFETY: as above.
        Ok((Arc::from(text(field.name)), borrow(field.value)?.clone()))
    };
    fields.iter().map(read).collect()
}
