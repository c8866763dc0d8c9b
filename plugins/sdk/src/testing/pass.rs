//! What passes between the reference host and a plugin: values with their counts, texts, and how a
//! function ended.

use std::cell::RefCell;
use std::sync::Arc;

use kino_abi::{KINO_FAILED, KINO_OK, KinoStatus, KinoStr, KinoValue};

use super::held::{Handle, Held, Outcome};
use crate::host::strings::{bytes, lend};

thread_local! {
    static ERROR: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps the reason of a failure for `error`.
pub(super) fn ended(outcome: Outcome<()>) -> KinoStatus {
    match outcome {
        Ok(()) => KINO_OK,
        Err(why) => {
            ERROR.set(why);
            KINO_FAILED
        }
    }
}

/// Gives a value to the caller.
///
/// # Safety
/// `to` must be a valid place.
pub(super) unsafe fn give(made: Outcome<Handle>, to: *mut *mut KinoValue) -> KinoStatus {
    // SAFETY: as this function demands.
    ended(made.map(|made| unsafe { to.write(raw(made)) }))
}

/// A value as plugins hold it, with its count.
pub(super) fn raw(value: Handle) -> *mut KinoValue {
    Arc::into_raw(value).cast_mut().cast()
}

/// What a plugin's pointer means.
///
/// # Safety
/// `value` must come from `raw` and be alive for `'a`, or be null.
pub(super) unsafe fn held<'a>(value: *mut KinoValue) -> Outcome<&'a Held> {
    // SAFETY: as this function demands.
    unsafe { value.cast::<Held>().as_ref() }.ok_or_else(|| "there is no value".to_owned())
}

/// A count of its own of a plugin's value.
///
/// # Safety
/// As for [`held`].
pub(super) unsafe fn shared(value: *mut KinoValue) -> Outcome<Handle> {
    // SAFETY: as this function demands; the count is raised before it is owned.
    unsafe {
        held(value)?;
        Arc::increment_strong_count(value.cast_const().cast::<Held>());
        Ok(Arc::from_raw(value.cast_const().cast()))
    }
}

/// # Safety
/// As for [`bytes`].
pub(super) unsafe fn text(of: KinoStr) -> String {
    // SAFETY: as this function demands.
    String::from_utf8_lossy(unsafe { bytes(of) }).into_owned()
}

/// Why the last function failed on this thread.
pub(super) fn last_error() -> KinoStr {
    ERROR.with_borrow(|error| lend(error))
}
