//! Names of what goes wrong, for programs: what an error's `code` may be.
//!
//! An error of a host function has one, and it stays on its way through a plugin up to the events
//! of a run. A plugin may give codes of its own; what is no [`is_code`] is left off.

use std::borrow::Cow;

/// The run was cancelled.
pub const CANCELLED: &str = "cancelled";
/// A file was not granted to the plugin, or the run may not read it.
pub const NOT_GRANTED: &str = "not-granted";
/// A file is not there, or is no file.
pub const NOT_FOUND: &str = "not-found";
/// Reading or writing failed in another way.
pub const IO: &str = "io";
/// The machine, or what was allowed of it, has no memory left for this.
pub const OUT_OF_MEMORY: &str = "out-of-memory";
/// A limit was reached: bytes of a result, time, handles, the size of a file.
pub const LIMIT: &str = "limit";
/// This host has no operation or function of that name.
pub const NO_SUCH_OP: &str = "no-such-op";
/// A value is of another kind or type than what was asked for.
pub const WRONG_KIND: &str = "wrong-kind";
/// What was given does not fit: a shape, a range, an attribute, a missing field, an index.
pub const INVALID: &str = "invalid";
/// It lies on another device, or the host does not lend memory of that device.
pub const DEVICE: &str = "device";
/// Code broke, or was stopped: a panic, a trap, a promise that was not kept.
pub const BROKEN: &str = "broken";

/// Every code that a host gives, with what it means: the table in `plugins/abi/OPERATIONS.md`.
pub const ALL: &[(&str, &str)] = &[
    (CANCELLED, "the run was cancelled"),
    (NOT_GRANTED, "a file was not granted to the plugin, or the run may not read it"),
    (NOT_FOUND, "a file is not there, or is no file"),
    (IO, "reading or writing failed in another way"),
    (OUT_OF_MEMORY, "the machine, or what was allowed of it, has no memory left for this"),
    (LIMIT, "a limit was reached: bytes of a result, time, handles, the size of a file"),
    (NO_SUCH_OP, "this host has no operation or function of that name"),
    (WRONG_KIND, "a value is of another kind or type than what was asked for"),
    (
        INVALID,
        "what was given does not fit: a shape, a range, an attribute, a missing field, an index",
    ),
    (DEVICE, "it lies on another device, or the host does not lend memory of that device"),
    (BROKEN, "code broke, or was stopped: a panic, a trap, a promise that was not kept"),
];

/// The longest code, in bytes.
const LONGEST: usize = 64;

/// Whether a text can be a code: at most 64 of `a-z`, `0-9`, `-`, `.`, `_`.
pub fn is_code(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
    !text.is_empty() && text.len() <= LONGEST && text.bytes().all(letter)
}

/// The text if it [`is_code`], else none, which is the empty text.
pub fn or_none(text: Cow<'static, str>) -> Cow<'static, str> {
    if is_code(&text) { text } else { Cow::Borrowed("") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_short_words() {
        assert!(ALL.iter().all(|(code, _)| is_code(code)));
        let long = "a".repeat(LONGEST + 1);
        for none in ["", "Not-Granted", "a b", "ä", "a\u{1b}[0m", &long] {
            assert_eq!(or_none(none.to_owned().into()), "", "{none}");
        }
        assert_eq!(or_none("film.too_dark".into()), "film.too_dark");
    }
}
