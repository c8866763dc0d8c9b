//! Clean-up of prompts, as the training captions were cleaned.

use plsfix::{TextFixerConfig, fix_text};

/// A prompt as the tokenizer must see it: text repaired, HTML entities decoded twice, white space
/// folded to single spaces.
///
/// Follows `prompt_clean` of diffusers' `pipeline_wan.py`, where ftfy repairs the text: full-width
/// letters and punctuation become ASCII, ligatures letters, curly quotes straight.
pub fn prompt(text: &str) -> String {
    // Pieces of a fixed number of bytes could end inside a character: take the text whole.
    let config = TextFixerConfig { max_decode_length: i32::MAX, ..TextFixerConfig::default() };
    let fixed = fix_text(text, Some(&config));
    let once = html_escape::decode_html_entities(&fixed);
    let twice = html_escape::decode_html_entities(&once);
    twice.split_whitespace().collect::<Vec<_>>().join(" ")
}
