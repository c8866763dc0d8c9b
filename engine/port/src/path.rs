//! Paths as texts: JSON, RON and what programs read hold Unicode alone, which a path need not be.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Stands before the two hexadecimal digits of a byte that is no part of a character.
const ESCAPE: char = char::REPLACEMENT_CHARACTER;

/// A path as a text that [`path_of_text`] reads back: as it is where it is UTF-8, and U+FFFD with
/// two hexadecimal digits for each byte that is not. A U+FFFD in a path is written so as well.
pub fn path_to_text(path: &Path) -> Cow<'_, str> {
    if let Some(text) = path.to_str().filter(|text| !text.contains(ESCAPE)) {
        return Cow::Borrowed(text);
    }
    let mut text = String::new();
    let escape = |text: &mut String, bytes: &[u8]| {
        bytes.iter().for_each(|byte| text.push_str(&format!("{ESCAPE}{byte:02x}")));
    };
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                ESCAPE => escape(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes()),
                c => text.push(c),
            }
        }
        escape(&mut text, chunk.invalid());
    }
    Cow::Owned(text)
}

/// The path that [`path_to_text`] wrote. Where paths are no bytes (on Windows), one that was not
/// Unicode stays as it was written.
pub fn path_of_text(text: &str) -> PathBuf {
    #[cfg(unix)]
    if text.contains(ESCAPE) {
        use std::os::unix::ffi::OsStringExt;
        let mut pieces = text.split(ESCAPE);
        let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
        for piece in pieces {
            let digits = piece.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
            match digits {
                Some(byte) => {
                    bytes.push(byte);
                    bytes.extend_from_slice(&piece.as_bytes()[2..]);
                }
                None => {
                    bytes.extend_from_slice(ESCAPE.encode_utf8(&mut [0; 4]).as_bytes());
                    bytes.extend_from_slice(piece.as_bytes());
                }
            }
        }
        return std::ffi::OsString::from_vec(bytes).into();
    }
    PathBuf::from(text)
}

#[cfg(all(test, unix))]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn every_path_has_a_text_of_its_own_that_reads_back() {
        let cases: [(&[u8], &str); 7] = [
            (b"out/a.mp4", "out/a.mp4"),
            ("ä/蓝.png".as_bytes(), "ä/蓝.png"),
            (b"bad\xff/x", "bad\u{fffd}ff/x"),
            (b"\xc3", "\u{fffd}c3"),
            (b"a\xe8\x93b", "a\u{fffd}e8\u{fffd}93b"),
            ("\u{fffd}ff".as_bytes(), "\u{fffd}ef\u{fffd}bf\u{fffd}bdff"),
            (b"\\xff", "\\xff"),
        ];
        for (bytes, text) in cases {
            let path = Path::new(OsStr::from_bytes(bytes));
            assert_eq!(path_to_text(path), text);
            assert_eq!(path_of_text(text), path);
        }
        // What no path was written as is taken as it stands.
        assert_eq!(path_of_text("a\u{fffd}"), Path::new("a\u{fffd}"));
        assert_eq!(path_of_text("\u{fffd}zz"), Path::new("\u{fffd}zz"));
    }
}
