//! Repairs text as ftfy does: mojibake, HTML entities, ligatures, widths, quotes, control
//! characters.
//!
//! A port of `ftfy.fix_text` 6.3.1 with its default configuration (Robyn Speer, Apache-2.0,
//! <https://github.com/rspeer/python-ftfy>): the captions that the text encoder was trained with
//! went through it. It knows text alone; tokens and models are others' concern.

mod badness;
mod encodings;
mod mojibake;

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;
use unicode_normalization::UnicodeNormalization;

use encodings::WINDOWS_1252;

/// ftfy repeats its fixes until nothing changes; no text that it was tried on needs as many turns.
const MAX_TURNS: usize = 16;
/// Lines are fixed one by one, and longer ones in pieces of so many characters.
const LONGEST_SEGMENT: usize = 1_000_000;

/// The text repaired.
pub(crate) fn fix_text(text: &str) -> String {
    let mut fixed = String::with_capacity(text.len());
    // Text with a `<` may be HTML, where entities must stay: from there on they do.
    let mut entities = true;
    for line in text.split_inclusive('\n') {
        let mut rest = line;
        while !rest.is_empty() {
            let end = rest.char_indices().nth(LONGEST_SEGMENT).map_or(rest.len(), |(at, _)| at);
            let (segment, after) = rest.split_at(end);
            entities &= !segment.contains('<');
            fixed += &fix_segment(segment, entities);
            rest = after;
        }
    }
    fixed
}

/// One line: the fixes in ftfy's order, until none changes anything.
fn fix_segment(segment: &str, entities: bool) -> String {
    let mut text = segment.to_owned();
    for _ in 0..MAX_TURNS {
        let unescaped = if entities { unescape_html(&text) } else { Cow::Borrowed(text.as_str()) };
        let decoded = mojibake::fix_encoding(&unescaped);
        let plain: String = decoded.chars().map(WINDOWS_1252.instead_of_control()).collect();
        let letters = plain_letters(&plain);
        let lines = fix_line_breaks(&letters);
        let shown = match lines.contains('\x1b') {
            true => TERMINAL_ESCAPE.replace_all(&lines, ""),
            false => Cow::Borrowed(lines.as_str()),
        };
        let kept = shown.chars().filter(|char| !is_control(*char));
        let fixed: String = kept.nfc().collect();
        if fixed == text {
            break;
        }
        text = fixed;
    }
    text
}

static ENTITY: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("&#?[0-9A-Za-z]{1,24};").expect("a valid expression"));
/// Colours and the like (ECMA-48 §8.3.117).
static TERMINAL_ESCAPE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\x1b\[[\d;]*[a-zA-Z]").expect("a valid expression"));

/// HTML entities that end with a semicolon, and those of them that were put in capitals.
fn unescape_html(text: &str) -> Cow<'_, str> {
    // Most texts have none, and to make the expression ready takes longer than all the rest.
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    ENTITY.replace_all(text, |found: &regex::Captures<'_>| {
        let entity = &found[0];
        match entity.strip_prefix("&#") {
            Some(number) => numbered(number).unwrap_or_else(|| entity.to_owned()),
            None => named(entity).unwrap_or_else(|| entity.to_owned()),
        }
    })
}

/// What a reference by number means (HTML §13.2.5.80, as Python's `html.unescape`).
fn numbered(digits_and_end: &str) -> Option<String> {
    let digits = digits_and_end.strip_suffix(';')?;
    let (digits, radix) = match digits.strip_prefix(['x', 'X']) {
        Some(digits) => (digits, 16),
        None => (digits, 10),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    // Beyond 32 bits it is as invalid as beyond Unicode.
    let number = u32::from_str_radix(digits, radix).unwrap_or(u32::MAX);
    let char = char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER);
    Some(match char {
        // ftfy takes a semicolon in the result for the end of the reference.
        ';' => return None,
        '\0' => char::REPLACEMENT_CHARACTER.into(),
        // Control characters mean what Windows-1252 has in their places.
        '\u{80}'..='\u{9f}' => WINDOWS_1252.instead_of_control()(char).into(),
        // Noncharacters.
        '\u{fdd0}'..='\u{fdef}' => String::new(),
        _ if number <= 0x10_ffff && number & 0xfffe == 0xfffe => String::new(),
        _ => char.into(),
    })
}

/// What a named entity means; one that is known in small letters alone is also taken in capitals.
fn named(entity: &str) -> Option<String> {
    let decode = |entity: &str| {
        let decoded = html_escape::decode_html_entities(entity);
        (decoded != entity).then(|| decoded.into_owned())
    };
    decode(entity).or_else(|| {
        // These need no semicolon, so what begins with one of them in capitals means that one.
        const BARE: [&str; 8] = ["AMP", "COPY", "ETH", "GT", "LT", "QUOT", "REG", "THORN"];
        let name = entity.get(1..)?;
        let capitals =
            name == name.to_uppercase() && !BARE.iter().any(|bare| name.starts_with(bare));
        capitals.then(|| decode(&entity.to_lowercase())).flatten().map(|text| text.to_uppercase())
    })
}

/// Ligatures and digraphs as their letters, full-width and half-width characters in their usual
/// width, curly quotes straight.
fn plain_letters(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\u{3000}' => plain.push(' '),
            '\u{ff01}'..='\u{ffef}' => plain.extend(std::iter::once(char).nfkc()),
            '\u{2bc}' | '\u{2018}'..='\u{201b}' => plain.push('\''),
            '\u{201c}'..='\u{201f}' => plain.push('"'),
            _ => match ligature(char) {
                Some(letters) => plain.push_str(letters),
                None => plain.push(char),
            },
        }
    }
    plain
}

fn ligature(char: char) -> Option<&'static str> {
    Some(match char {
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        // Afrikaans; its apostrophe is a curly one.
        'ŉ' => "'n",
        'Ǳ' => "DZ",
        'ǲ' => "Dz",
        'ǳ' => "dz",
        'Ǆ' => "DŽ",
        'ǅ' => "Dž",
        'ǆ' => "dž",
        'Ǉ' => "LJ",
        'ǈ' => "Lj",
        'ǉ' => "lj",
        'Ǌ' => "NJ",
        'ǋ' => "Nj",
        'ǌ' => "nj",
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' => "ſt",
        'ﬆ' => "st",
        _ => return None,
    })
}

fn fix_line_breaks(text: &str) -> String {
    text.replace("\r\n", "\n").replace(['\r', '\u{2028}', '\u{2029}', '\u{85}'], "\n")
}

/// Characters that are not meant to be in text (Unicode TR 20, §3), but for white space.
fn is_control(char: char) -> bool {
    matches!(char,
        '\0'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}' | '\u{206a}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffc}')
}

#[cfg(test)]
mod tests {
    use super::fix_text;

    /// What ftfy 6.3.1 makes of them.
    const FIXED: &[(&str, &str)] = &[
        ("âœ” No problems", "✔ No problems"),
        ("ÄŒeÅ¡tina", "Čeština"),
        ("GÃ idhlig", "GÃ idhlig"),
        ("SlovenÄ�ina", "Sloven�ina"),
        ("Tiáº¿ng Viá»‡t", "Tiếng Việt"),
        ("Î•Î»Î»Î·Î½Î¹ÎºÎ¬", "Ελληνικά"),
        ("Ð ÑƒÑ�Ñ�ÐºÐ¸Ð¹", "Ру��кий"),
        ("æ—¥æœ¬èªž", "日本語"),
        (
            "Le Schtroumpf Docteur conseille g√¢teaux pour un r√©gime √©quilibr√©.",
            "Le Schtroumpf Docteur conseille gâteaux pour un régime équilibré.",
        ),
        ("РґРѕСЂРѕРіРµ РР·-РїРѕРґ #С„СѓС‚Р±РѕР»", "РґРѕСЂРѕРіРµ РР·-РїРѕРґ #футбол"),
        ("voilÃ le travail", "voilà le travail"),
        ("Ã la mode, Ã quel point", "à la mode, à quel point"),
        ("Hi guys í\u{a0}½í¸\u{8d}", "Hi guys 😍"),
        ("a â€œquoteâ€� and ‘curly’ “ones”", "a \"quote� and 'curly' \"ones\""),
        (
            "P&EACUTE;REZ &ntilde; &Ntilde; &NTILDE; &nTILDE; BUNDESSTRA&SZLIG;E",
            "PÉREZ ñ Ñ Ñ &nTILDE; BUNDESSTRASSE",
        ),
        ("&lt;tag&gt; &#x2019; &#128; &#0; &ltcc; &LTCC;", "<tag> ' € � ⪦ &LTCC;"),
        ("<b>&amp;</b> &eacute;", "<b>&amp;</b> &eacute;"),
        ("ＬＯＵＤ　ＮＯＩＳＥＳ Ｕﾀｰﾝ", "LOUD NOISES Uターン"),
        ("ﬂuﬃeﬆ ŉ Ĳ", "fluffiest 'n IJ"),
        ("\u{1b}[36;44mI'm blue\u{1b}[0m", "I'm blue"),
        ("what\u{0} is\u{7} \u{feff}this\u{7f}", "what is this"),
        ("one\u{d}\u{a}two\u{d}three\u{2028}four", "one\u{a}two\u{a}three\u{a}four"),
        ("e\u{301} A\u{30a} 한", "é Å 한"),
        ("plain ascii, nothing to do", "plain ascii, nothing to do"),
        ("10³ µm ½ — fine as it is…", "10³ µm ½ — fine as it is…"),
        ("ðŸ˜\u{8d} love", "😍 love"),
        ("l’humanitÃ©", "l'humanité"),
        ("cafÃ© and naïve in one", "café and naïve in one"),
        ("Beta Haber: HÄ±rsÄ±zÄ±", "Beta Haber: Hırsızı"),
        ("ÃƒÂ© twice", "é twice"),
        ("\u{85} and \u{91}quoted\u{92}", "… and 'quoted'"),
        ("├⌐ from DOS", "é from DOS"),
        ("āÄ“ Baltic LatvieÅ¡u", "āÄ\" Baltic LatvieÅ¡u"),
    ];

    #[test]
    fn texts_are_fixed_like_the_reference() {
        for (text, fixed) in FIXED {
            assert_eq!(fix_text(text), *fixed, "of {text:?}");
            assert_eq!(fix_text(&format!("{text}\n{text}")), format!("{fixed}\n{fixed}"));
        }
    }
}
