//! The one way out: every text for a terminal, a pipe or a log passes [`visible`], every JSON
//! [`json_line`]. What graphs, files and plugins say is data; a terminal obeys none of it.

use std::borrow::Cow;
use std::io::{self, Write};

use kino_port::{is_hidden, is_plain};
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

/// A text as it may be shown: hidden characters are written out, but for the colours that the
/// command itself sets, where it sets any.
pub(crate) fn visible(text: &str, has_colours: bool) -> Cow<'_, str> {
    if is_plain(text) || !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(at) = rest.find(is_hidden) {
        shown.push_str(&rest[..at]);
        rest = &rest[at..];
        let colour = if has_colours { colour(rest) } else { None };
        let end = match colour {
            Some(end) => {
                shown.push_str(&rest[..end]);
                end
            }
            None => {
                let end = rest.chars().next().map_or(0, char::len_utf8);
                shown.push_str(&kino_port::escape_hidden(&rest[..end]));
                end
            }
        };
        rest = &rest[end..];
    }
    shown.push_str(rest);
    Cow::Owned(shown)
}

/// The length of the colour that a text begins with: `ESC [ … m` (ECMA-48, SGR) of weights,
/// underlines and the sixteen colours of letters. Nothing among them hides a letter.
fn colour(text: &str) -> Option<usize> {
    let codes = text.strip_prefix("\x1b[")?;
    let end = codes.find('m')?;
    let is_colour = |code: &str| {
        matches!(code, "" | "0" | "1" | "2" | "3" | "4" | "22" | "23" | "24" | "39")
            || matches!(code.parse(), Ok(30_u8..=37 | 90..=97) if code.len() == 2)
    };
    codes[..end].split(';').all(is_colour).then_some(2 + end + 1)
}

/// Writes a text to the output stream.
///
/// # Errors
/// When it is closed or full.
pub(crate) fn print(text: &str, has_colours: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(visible(text, has_colours).as_bytes())?;
    out.flush()
}

/// Writes a text to the error stream, if anybody reads it.
pub(crate) fn tell(text: &str, has_colours: bool) {
    let _ = io::stderr().write_all(visible(text, has_colours).as_bytes());
}

/// The output stream, for lines that have passed already.
pub(crate) fn lines_out() -> Box<dyn Write + Send> {
    Box::new(io::stdout())
}

/// The error stream, for lines that have passed already.
pub(crate) fn lines_err() -> Box<dyn Write + Send> {
    Box::new(io::stderr())
}

/// Writes lines of JSON to the output stream.
///
/// # Errors
/// When it is closed or full.
pub(crate) fn print_bytes(lines: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(lines)?;
    out.flush()
}

/// A value as a line of JSON, in which nothing hidden stands as it is.
///
/// # Errors
/// When it has no form in JSON.
pub(crate) fn json_line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut line, Visible))?;
    line.push(b'\n');
    Ok(line)
}

/// Compact JSON. Whole numbers beyond 2^53 are texts, as doubles would lose them. Texts hold hidden
/// characters as `\u001b`, of two units where they lie beyond U+FFFF (RFC 8259 §7).
struct Visible;

/// The largest whole number that every reader of JSON holds, as a double (RFC 8259 §6).
const MAX_EXACT: u64 = 1 << 53;

/// Writes a whole number; as a text where doubles would lose it.
fn write_whole<W: ?Sized + Write>(
    writer: &mut W,
    number: &impl std::fmt::Display,
    is_exact: bool,
) -> io::Result<()> {
    if is_exact { write!(writer, "{number}") } else { write!(writer, "\"{number}\"") }
}

impl Formatter for Visible {
    fn write_i64<W: ?Sized + Write>(&mut self, writer: &mut W, value: i64) -> io::Result<()> {
        write_whole(writer, &value, value.unsigned_abs() <= MAX_EXACT)
    }

    fn write_u64<W: ?Sized + Write>(&mut self, writer: &mut W, value: u64) -> io::Result<()> {
        write_whole(writer, &value, value <= MAX_EXACT)
    }

    fn write_i128<W: ?Sized + Write>(&mut self, writer: &mut W, value: i128) -> io::Result<()> {
        write_whole(writer, &value, value.unsigned_abs() <= u128::from(MAX_EXACT))
    }

    fn write_u128<W: ?Sized + Write>(&mut self, writer: &mut W, value: u128) -> io::Result<()> {
        write_whole(writer, &value, value <= u128::from(MAX_EXACT))
    }

    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(is_hidden) {
            CompactFormatter.write_string_fragment(writer, &rest[..at])?;
            let hidden = rest[at..].chars().next().unwrap_or_default();
            for unit in hidden.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = &rest[at + hidden.len_utf8()..];
        }
        CompactFormatter.write_string_fragment(writer, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_of_the_command_pass_and_nothing_else() {
        let text = "\x1b[1;31mbad\x1b[0m \x1b[2J\x1b[8mhidden\x1b]0;t\x07 \u{9b}1m \x1b[38;5;1mx";
        let shown = "\x1b[1;31mbad\x1b[0m \\u{1b}[2J\\u{1b}[8mhidden\\u{1b}]0;t\\u{7} \\u{9b}1m \
            \\u{1b}[38;5;1mx";
        assert_eq!(visible(text, true), shown);
        assert_eq!(visible(text, false), shown.replace('\x1b', "\\u{1b}"));
    }

    /// A reader that takes all numbers for doubles loses none.
    #[test]
    fn large_numbers_are_texts() {
        let line = |value: &dyn Fn() -> io::Result<Vec<u8>>| String::from_utf8(value().unwrap());
        let shown = line(&|| json_line(&[1i64 << 53, (1 << 53) + 1, i64::MIN, -3])).unwrap();
        let expected = "[9007199254740992,\"9007199254740993\",\"-9223372036854775808\",-3]\n";
        assert_eq!(shown, expected);
        let value: serde_json::Value = serde_json::from_str("18446744073709551615").unwrap();
        assert_eq!(line(&|| json_line(&value)).unwrap(), "\"18446744073709551615\"\n");
        assert_eq!(line(&|| json_line(&i128::MAX)).unwrap(), format!("\"{}\"\n", i128::MAX));
    }

    #[test]
    fn json_says_the_same_and_hides_nothing() {
        let text = "a\u{1b}\u{9b}\u{202e}\u{e0041}\"\n\u{7f}é";
        let line = String::from_utf8(json_line(&text).unwrap()).unwrap();
        assert_eq!(line, "\"a\\u001b\\u009b\\u202e\\udb40\\udc41\\\"\\n\\u007fé\"\n");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
    }
}
