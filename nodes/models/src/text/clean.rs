//! Clean-up of prompts, as the training captions were cleaned.

use super::ftfy::fix_text;

/// A prompt as the tokenizer must see it: text repaired, HTML entities decoded twice, white space
/// folded to single spaces.
///
/// Follows `prompt_clean` of diffusers' `pipeline_wan.py`, where ftfy repairs the text: full-width
/// letters and punctuation become ASCII, ligatures letters, curly quotes straight.
pub fn prompt(text: &str) -> String {
    let fixed = fix_text(text);
    let once = html_escape::decode_html_entities(&fixed);
    let twice = html_escape::decode_html_entities(&once);
    twice.split_whitespace().collect::<Vec<_>>().join(" ")
}
