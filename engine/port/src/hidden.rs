//! Characters that a terminal obeys instead of showing, and how they are shown.

use std::borrow::Cow;

/// Whether a character moves the cursor, changes colours, orders text otherwise than it is stored,
/// or cannot be seen at all, instead of being shown. Line feed and tab are not among them.
///
/// C0 and C1 controls and DEL; U+2028 and U+2029; the bidirectional controls of UAX #9 §2 ("Trojan
/// Source", CVE-2021-42574); U+FEFF; interlinear annotations; the tags U+E0000…U+E007F;
/// noncharacters. Joiners, which scripts and emoji need, are shown as they are.
pub fn is_hidden(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' => true,
        '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' => true,
        '\u{fdd0}'..='\u{fdef}' | '\u{e0000}'..='\u{e007f}' => true,
        c => c.is_control() || (u32::from(c) & 0xfffe) == 0xfffe,
    }
}

/// Whether a text is printable ASCII alone, with line feeds and tabs: most are, and this is seen
/// many bytes at a time.
pub fn is_plain(text: &str) -> bool {
    // No early end, which would keep it from being seen so.
    text.bytes().fold(true, |plain, byte| {
        plain & (matches!(byte, b' '..=b'~') | matches!(byte, b'\n' | b'\t'))
    })
}

/// A text with its hidden characters written as in RON and Rust: `\u{1b}`. In a text between
/// quotation marks of a graph that means the same.
pub fn escape_hidden(text: &str) -> Cow<'_, str> {
    if is_plain(text) { Cow::Borrowed(text) } else { escape_where(text, is_hidden) }
}

/// The same on one line: line feeds and tabs are written as `\n` and `\t`.
pub fn escape_line(text: &str) -> Cow<'_, str> {
    escape_where(text, |c| matches!(c, '\n' | '\t') || is_hidden(c))
}

fn escape_where(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' if is_escaped(c) => escaped.push_str("\\n"),
            '\t' if is_escaped(c) => escaped.push_str("\\t"),
            c if is_escaped(c) => escaped.extend(c.escape_unicode()),
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_written_out() {
        for c in char::MIN..=char::MAX {
            let plain = is_plain(c.encode_utf8(&mut [0; 4]));
            assert_eq!(plain, c.is_ascii() && !is_hidden(c), "{c:?}");
        }
        for (raw, shown) in [
            ("plain, grün, 漢字, 👩‍🚀", "plain, grün, 漢字, 👩‍🚀"),
            ("\u{1b}]52;c;eA==\u{7}", "\\u{1b}]52;c;eA==\\u{7}"),
            ("a\rb\u{8}\u{7f}", "a\\u{d}b\\u{8}\\u{7f}"),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("\u{202e}gnp.exe\u{2066}", "\\u{202e}gnp.exe\\u{2066}"),
            ("\u{e0041}\u{feff}\u{fffe}\u{1fffe}", "\\u{e0041}\\u{feff}\\u{fffe}\\u{1fffe}"),
            ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ] {
            assert_eq!(escape_hidden(raw), shown);
            assert_eq!(escape_line(raw), shown.replace('\n', "\\n").replace('\t', "\\t"));
        }
    }
}
