//! Texts and bytes that are lent across the C table.

use kino_abi::KinoStr;
pub(crate) use kino_abi::host_table::{lend as lend_bytes, lent_bytes as bytes};

/// A text that is lent for a call.
pub(crate) fn lend(text: &str) -> KinoStr {
    lend_bytes(text.as_bytes())
}
