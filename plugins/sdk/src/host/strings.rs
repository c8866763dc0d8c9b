//! Texts and bytes that are lent across the C table.

use kino_abi::KinoStr;

/// A text that is lent for a call.
pub(crate) fn lend(text: &str) -> KinoStr {
    KinoStr { data: text.as_ptr(), len: text.len() }
}

/// Bytes that are lent for a call.
pub(crate) fn lend_bytes(bytes: &[u8]) -> KinoStr {
    KinoStr { data: bytes.as_ptr(), len: bytes.len() }
}

/// What lies behind a borrowed string of the other side.
///
/// # Safety
/// `text` must point to `len` bytes that stay as they are for `'a`, or have the length 0.
pub(crate) unsafe fn bytes<'a>(text: KinoStr) -> &'a [u8] {
    if text.len == 0 || text.data.is_null() {
        return &[];
    }
    // SAFETY: as this function demands.
    unsafe { std::slice::from_raw_parts(text.data, text.len) }
}
