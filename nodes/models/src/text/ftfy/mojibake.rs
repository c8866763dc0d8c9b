//! UTF-8 that was read as another encoding, turned back.

use std::sync::LazyLock;

use regex::bytes::{Captures, Regex};

use super::badness::is_bad;
use super::encodings::{ENCODINGS, Encoding, WINDOWS_1252};

/// Text that was decoded wrongly several times over is undone one time a turn.
const MAX_TURNS: usize = 16;

/// The text with its encoding mended.
pub(super) fn fix_encoding(text: &str) -> String {
    let mut text = text.to_owned();
    for _ in 0..MAX_TURNS {
        let fixed = one_step(&text);
        if fixed == text {
            break;
        }
        text = fixed;
    }
    text
}

fn one_step(text: &str) -> String {
    if text.is_ascii() || !is_bad(text) {
        return text.to_owned();
    }
    if let Some(fixed) = ENCODINGS.iter().find_map(|encoding| decoded_anew(text, encoding)) {
        return fixed;
    }
    let fixed = fix_parts(text);
    if fixed != text {
        return fixed;
    }
    // What remains are control characters that were meant as Windows-1252 has them.
    text.chars().map(WINDOWS_1252.instead_of_control()).collect()
}

/// The text as UTF-8, if it is UTF-8 that was decoded by `encoding`.
fn decoded_anew(text: &str, encoding: &Encoding) -> Option<String> {
    let mut bytes = encoding.encode(text)?;
    if encoding.spaces && ALTERED_UTF8.is_match(&bytes) {
        bytes = restore_spaces(&bytes);
    }
    if encoding.lossy {
        bytes = LOSSY_UTF8.replace_all(&bytes, "\u{fffd}".as_bytes()).into_owned();
    }
    if bytes.contains(&0xed) || bytes.contains(&0xc0) {
        return decode_variants(&bytes);
    }
    String::from_utf8(bytes).ok()
}

fn expression(pattern: &str) -> Regex {
    Regex::new(&format!("(?-u){pattern}")).expect("a valid expression")
}

/// UTF-8 but for a byte 0xa0 that became a space. Lead bytes are left out where the space makes
/// an unlikely character.
static ALTERED_UTF8: LazyLock<Regex> = LazyLock::new(|| {
    expression(concat!(
        r"[\xc2\xc3\xc5\xce\xd0\xd9][ ]",
        r"|[\xe2\xe3][ ][\x80-\x84\x86-\x9f\xa1-\xbf]",
        r"|[\xe0-\xe3][\x80-\x84\x86-\x9f\xa1-\xbf][ ]",
        r"|[\xf0][ ][\x80-\xbf][\x80-\xbf]",
        r"|[\xf0][\x80-\xbf][ ][\x80-\xbf]",
        r"|[\xf0][\x80-\xbf][\x80-\xbf][ ]",
    ))
});

/// UTF-8 and CESU-8 sequences of which bytes were lost (0x1a), or at most one became a `?`.
static LOSSY_UTF8: LazyLock<Regex> = LazyLock::new(|| {
    expression(concat!(
        r"[\xc2-\xdf][\x1a]",
        r"|[\xc2-\xc3][?]",
        r"|\xed[\xa0-\xaf][\x1a?]\xed[\xb0-\xbf][\x1a?\x80-\xbf]",
        r"|\xed[\xa0-\xaf][\x1a?\x80-\xbf]\xed[\xb0-\xbf][\x1a?]",
        r"|[\xe0-\xef][\x1a?][\x1a\x80-\xbf]",
        r"|[\xe0-\xef][\x1a\x80-\xbf][\x1a?]",
        r"|[\xf0-\xf4][\x1a?][\x1a\x80-\xbf][\x1a\x80-\xbf]",
        r"|[\xf0-\xf4][\x1a\x80-\xbf][\x1a?][\x1a\x80-\xbf]",
        r"|[\xf0-\xf4][\x1a\x80-\xbf][\x1a\x80-\xbf][\x1a?]",
        r"|\x1a",
    ))
});

/// Spaces that were bytes 0xa0 become such again.
fn restore_spaces(bytes: &[u8]) -> Vec<u8> {
    // `Ã` and a space is most often the word `à`, whose space has to stay; but not in Portuguese
    // words that begin so.
    const PORTUGUESE: [&[u8]; 5] = [b" ", b"quele", b"quela", b"quilo", b"s "];
    let mut restored = Vec::with_capacity(bytes.len() + 8);
    let mut at = 0;
    while at < bytes.len() {
        let after = bytes[at..].strip_prefix(b"\xc3 ");
        match after.filter(|after| !PORTUGUESE.iter().any(|word| after.starts_with(word))) {
            Some(_) => {
                restored.extend(b"\xc3\xa0 ");
                at += 2;
            }
            None => {
                restored.push(bytes[at]);
                at += 1;
            }
        }
    }
    let replaced = ALTERED_UTF8.replace_all(&restored, |found: &Captures<'_>| {
        found[0].iter().map(|&byte| if byte == b' ' { 0xa0 } else { byte }).collect::<Vec<u8>>()
    });
    replaced.into_owned()
}

/// UTF-8 with what others write: surrogate pairs as three bytes each (CESU-8), and U+0000 as two
/// bytes (Java).
fn decode_variants(bytes: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        let special = (0..rest.len()).find(|&at| is_special(&rest[at..])).unwrap_or(rest.len());
        let (plain, after) = rest.split_at(special);
        text += std::str::from_utf8(plain).ok()?;
        rest = match after {
            [] => after,
            [0xc0, 0x80, after @ ..] => {
                text.push('\0');
                after
            }
            [0xed, 0xa0..=0xaf, 0x80..=0xbf, 0xed, 0xb0..=0xbf, 0x80..=0xbf, ..] => {
                let bits = |at: usize, mask: u8| u32::from(after[at] & mask);
                let code = (bits(1, 0x0f) << 16)
                    + (bits(2, 0x3f) << 10)
                    + (bits(4, 0x0f) << 6)
                    + bits(5, 0x3f)
                    + 0x10000;
                text.push(char::from_u32(code)?);
                &after[6..]
            }
            // A surrogate on its own, or cut off: no character.
            _ => return None,
        };
    }
    Some(text)
}

/// Whether the bytes begin with what UTF-8 has not.
fn is_special(bytes: &[u8]) -> bool {
    matches!(bytes, [0xc0] | [0xc0, 0x80, ..] | [0xed] | [0xed, 0xa0..=0xbf, ..])
}

// Letters by the UTF-8 bytes that they stand for in Latin-1 and its like.
const FIRST_OF_2: &str = "ĂÂÄĀÅÃÆĆČÇĎĐÉĚÊËĖÈĒĘÐĞĢÍÎÏİÌĪĶĹĻŁŃŇŅÑÓÔÖŐÒŌØÕŘŚŠŞŢÞÚÛÜŰÙŪŲŮÝŹŽŻß×ΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩΪΫάέήίВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ";
const FIRST_OF_3: &str = "áăâäàāąåãæćčçďéěêëėèēęęģíîïìīįķĺļŕźΰαβγδεζηθικλμνξοабвгдежзийклмноп";
const FIRST_OF_4: &str = "đðğóšπσру";
/// Of bytes 0x80 to 0xbf: letters and signs beyond Latin-1 that rarely stand for themselves.
const CONTINUATION: &str =
    "ĄÆĽŁØŖŚŠŞŤŸŹŽŻŒąæƒľłøŗśšşťźžżœˆˇ˘˛˜˝΄΅ΆΈΉΊΌΎΏЁЂЃЄЅІЇЈЉЊЋЌЎЏёђѓєѕіїјљњћќўџҐґ†‡‰‹›€№™";
/// The same, of which some often do: dashes, quotes, ellipses, and a space for 0xa0.
const LOOSE_CONTINUATION: &str = " –—―‘’‚“”„•…";

fn is_strict_continuation(char: char) -> bool {
    matches!(char, '\u{80}'..='\u{bf}') || CONTINUATION.contains(char)
}

fn is_continuation(char: char) -> bool {
    is_strict_continuation(char) || LOOSE_CONTINUATION.contains(char)
}

/// The length of a sequence of letters that looks like one character of UTF-8, in bytes.
fn sequence(text: &str) -> Option<usize> {
    let mut chars = text.chars();
    let first = chars.next()?;
    let holds = |count: usize| {
        let mut after = text[first.len_utf8()..].chars();
        let mut length = first.len_utf8();
        for _ in 0..count {
            length += after.next().filter(|char| is_continuation(*char))?.len_utf8();
        }
        Some(length)
    };
    let of = |firsts: &str, count| firsts.contains(first).then(|| holds(count)).flatten();
    of(FIRST_OF_2, 1).or_else(|| of(FIRST_OF_3, 2)).or_else(|| of(FIRST_OF_4, 3))
}

/// Mends runs of letters that look like UTF-8 one by one, where the text as a whole could not be.
fn fix_parts(text: &str) -> String {
    let mut fixed = String::with_capacity(text.len());
    let mut at = 0;
    let mut before = None;
    while let Some(char) = text[at..].chars().next() {
        let mut end = at;
        // Few characters out of a longer garble are better left alone.
        if !before.is_some_and(is_strict_continuation) {
            while let Some(length) = sequence(&text[end..]) {
                end += length;
            }
        }
        if end == at {
            fixed.push(char);
            at += char.len_utf8();
            before = Some(char);
            continue;
        }
        let part = &text[at..end];
        match part.len() < text.len() && is_bad(part) {
            true => fixed += &fix_encoding(part),
            false => fixed += part,
        }
        before = part.chars().next_back();
        at = end;
    }
    fixed
}
