//! Whether text looks like mojibake: characters beside each other that rarely mean themselves.

use std::sync::LazyLock;

use regex::Regex;

/// Categories of the characters that UTF-8 becomes in other encodings, as members of a class.
const CATEGORIES: [(&str, &str); 14] = [
    ("common", "\u{a0}\u{ad}·´–—―…’"),
    ("c1", "\u{80}-\u{9f}"),
    ("bad", "¦¤¨¬¯¸ƒˆˇ˘˛˜†‡‰⌐◊\u{fffd}ªº"),
    ("law", "¶§"),
    ("currency", "¢£¥₧€"),
    ("start_punctuation", "¡«¿©΄΅‘‚“„•‹\u{f8ff}"),
    ("end_punctuation", "®»˝”›™"),
    ("numeric", "²³¹±¼½¾×µ÷⁄∂∆∏∑√∞∩∫≈≠≡≤≥№"),
    ("kaomoji", "Ò-ÖÙ-Üò-öø-üŐŌŪŲ°"),
    ("upper_accented", "À-ÑØÜÝĂĀĄĆČĎĐĘĚĒĖĞĢİĪĶĹĽŁĻŃŇŅŒŘŚŞŠŢŤŮŰŸŹŻŽҐ"),
    ("lower_accented", "ßà-ñăąāćčďđęěēėğģįīķĺľłļœŕśşšťüźżžґﬁﬂ"),
    ("upper_common", "ÞΑ-ΩΆΈΉΊΌΎΏΪΫЁ-Я"),
    ("lower_common", "α-ωάέήίΰа-џ"),
    ("box", "│┌┐┘├┤┬┼═-╬▀▄█▌▐░▒▓"),
];

/// Sequences that are unlikely in any language. Verbose: blanks that count are written `\x20`.
const UNLIKELY: &str = r"
  [{c1}]
| [{bad}{lower_accented}{upper_accented}{box}{start_punctuation}{end_punctuation}{currency}{numeric}{law}] [{bad}]
| [a-zA-Z] [{lower_common}{upper_common}] [{bad}]
| [{bad}] [{lower_accented}{upper_accented}{box}{start_punctuation}{end_punctuation}{currency}{numeric}{law}]
| [{lower_accented}{lower_common}{box}{end_punctuation}{currency}{numeric}] [{upper_accented}]
| [{box}{end_punctuation}{currency}{numeric}] [{lower_accented}]
| [{lower_accented}{box}{end_punctuation}] [{currency}]
| [\s\x1c-\x1f] [{upper_accented}] [{currency}]
| [{upper_accented}{box}] [{numeric}{law}]
| [{lower_accented}{upper_accented}{box}{currency}{end_punctuation}] [{start_punctuation}] [{numeric}]
| [{lower_accented}{upper_accented}{currency}{numeric}{box}{law}] [{end_punctuation}] [{start_punctuation}]
| [{currency}{numeric}{box}] [{start_punctuation}]
| [a-z] [{upper_accented}] [{start_punctuation}{currency}]
| [{box}] [{kaomoji}]
| [{lower_accented}{upper_accented}{currency}{numeric}{start_punctuation}{end_punctuation}{law}] [{box}]
| [{box}] [{end_punctuation}]
| [{lower_accented}{upper_accented}] [{start_punctuation}{end_punctuation}] [\p{L}\p{N}_]
# The ligature œ, but before an unaccented letter.
| [Œœ] [^A-Za-z]
# A degree sign after a capital.
| [{upper_accented}] °
# Two characters of Windows-1252.
| [ÂÃÎÐ] [€œŠš¢£Ÿž\xa0\xad®©°·»{start_punctuation}{end_punctuation}–—´]
| × [²³]
# Arabic in Windows-1252: all four characters, as many of them are common.
| [ØÙ] [{common}{currency}{bad}{numeric}{start_punctuation}ŸŠ®°µ»]
  [ØÙ] [{common}{currency}{bad}{numeric}{start_punctuation}ŸŠ®°µ»]
# South Asian alphabets in Windows-1252.
| à [²µ¹¼½¾]
# Mac Roman.
| √ [±∂†≠®™´≤≥¥µø]
| ≈ [°¢]
| ‚Ä [ìîïòôúùû†°¢π]
| ‚ [âó] [àä°ê]
# Characters from U+2000 in Windows-1251.
| вЂ
# Latin-1 and Cyrillic in Windows-1251.
| [ВГРС] [{c1}{bad}{start_punctuation}{end_punctuation}{currency}°µ] [ВГРС]
# Windows-1251 on top of Latin-1 of Windows-1252, beside a Latin letter.
| ГўВЂВ . [A-Za-z\x20]
# à, á and a no-break space in Windows-1252.
| Ã [\xa0¡]
| [a-z] [\s\x1c-\x1f]? [ÃÂ] \x20
| ^ [ÃÂ] \x20
# Â before what it encodes.
| [a-z.,?!{end_punctuation}] Â [\x20{start_punctuation}{end_punctuation}]
# Characters from U+2000 in Windows-1253.
| β€ [™\xa0Ά\xad®°]
# Latin-1 and Greek in Windows-1253.
| [ΒΓΞΟ] [{c1}{bad}{start_punctuation}{end_punctuation}{currency}°] [ΒΓΞΟ]
# Characters from U+2000 in Windows-1257.
| ā€
";

static BADNESS: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = CATEGORIES.iter().fold(format!("(?x){UNLIKELY}"), |pattern, (name, members)| {
        pattern.replace(&format!("{{{name}}}"), members)
    });
    Regex::new(&pattern).expect("a valid expression")
});

/// Whether the text looks like mojibake.
pub(super) fn is_bad(text: &str) -> bool {
    BADNESS.is_match(text)
}
