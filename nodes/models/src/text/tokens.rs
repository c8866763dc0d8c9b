//! The tokenizer of a model: its `tokenizer.json`, or the `spiece.model` that it was made of.

use tokenizers::Tokenizer;

use super::config::{PromptForm, TokenizerConfig};
use super::spiece;
use crate::checkpoint::ModelFiles;
use crate::error::{Error, Result};
use crate::model::PromptLoss;

/// Whether an encoder of so many tokens knows all of these.
///
/// # Errors
/// When it does not, which is so of a tokenizer of another encoder.
pub(crate) fn within_vocabulary(ids: &[u32], vocabulary: usize) -> Result<()> {
    match ids.iter().find(|id| **id as usize >= vocabulary) {
        None => Ok(()),
        Some(id) => Err(Error::input(format!(
            "token {id} lies outside the encoder's vocabulary of {vocabulary}: tokenizer and text \
             encoder do not belong together; load the encoder from a folder that has its own tokenizer"
        ))),
    }
}

/// Turns text into token numbers that end with the end-of-text token.
#[derive(Debug)]
pub struct Tokens {
    tokenizer: Tokenizer,
    end: u32,
    length: usize,
}

impl Tokens {
    /// Loads `tokenizer.json`, or `spiece.model` where that is missing.
    ///
    /// # Errors
    /// When both are missing or no tokenizer, or lack the end-of-text token.
    pub fn load(
        folder: &impl ModelFiles,
        config: &TokenizerConfig,
        form: &PromptForm,
    ) -> Result<Self> {
        let named =
            ["tokenizer.json", "spiece.model"].map(|name| format!("{}/{name}", form.tokenizer));
        let [json, pieces] = &named;
        let (path, tokenizer) = match folder.bytes(json) {
            Ok(bytes) => {
                let read = Tokenizer::from_bytes(bytes);
                let refuse = |error| format!("not a tokenizer: {error}");
                (json, read.map_err(refuse))
            }
            Err(Error::FileMissing { file, hint }) => match folder.bytes(pieces) {
                Ok(bytes) => (pieces, spiece::read(&bytes, config)),
                Err(Error::FileMissing { .. }) => {
                    let hint = format!(
                        "{hint}; a tokenizer is this file, or the `spiece.model` that was published \
                         with it: put one of them there (google/t5-v1_1-xxl has that of T5, \
                         google/umt5-xxl that of UMT5)"
                    );
                    return Err(Error::FileMissing { file, hint });
                }
                Err(error) => return Err(error),
            },
            Err(error) => return Err(error),
        };
        let refuse = |reason: String| Error::Config { file: folder.describe(path), reason };
        let mut tokenizer = tokenizer.map_err(refuse)?;
        // Length and padding are ours to decide, whatever was saved with the tokenizer.
        tokenizer.with_truncation(None).map_err(|error| refuse(error.to_string()))?;
        tokenizer.with_padding(None);
        let end = tokenizer.token_to_id(config.eos_token()).ok_or_else(|| {
            refuse(format!("has no token `{}` to end a text with", config.eos_token()))
        })?;
        Ok(Self { tokenizer, end, length: config.text_length() })
    }

    /// The tokens of a cleaned text: cut so that the end-of-text token, which is always last, fits.
    ///
    /// # Errors
    /// When the tokenizer fails on the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        // Special tokens are not left to the file's post-processor: some add `</s>`, some do not.
        let encoding = self
            .tokenizer
            .encode_fast(text, false)
            .map_err(|error| Error::input(format!("the tokenizer failed: {error}")))?;
        let ids = encoding.get_ids();
        let kept = ids.len().min(self.length - 1);
        Ok(ids[..kept].iter().copied().chain([self.end]).collect())
    }

    /// What of a cleaned text is lost on the way to the tokens of an encoder that knows so many.
    ///
    /// # Errors
    /// As [`Tokens::encode`], and when there is a token that the encoder does not know.
    pub fn loss(&self, text: &str, vocabulary: usize) -> Result<PromptLoss> {
        let encoding = self
            .tokenizer
            .encode(text, false)
            .map_err(|error| Error::input(format!("the tokenizer failed: {error}")))?;
        let (ids, places) = (encoding.get_ids(), encoding.get_offsets());
        within_vocabulary(&ids[..ids.len().min(self.length - 1)], vocabulary)?;
        within_vocabulary(&[self.end], vocabulary)?;
        let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
        let first_cut = places.get(self.length - 1);
        let cut = first_cut.map_or("", |(from, _)| part(*from, text.len())).to_owned();
        let mut unknown: Vec<String> = Vec::new();
        let no_word = self.tokenizer.token_to_id("<unk>");
        for (id, (from, to)) in ids.iter().zip(places).take(self.length - 1) {
            let word = part(*from, *to);
            // Marks of a sentence are nobody's loss.
            let is_word = word.chars().any(|c| c.is_alphanumeric() || is_picture(c));
            if Some(*id) == no_word && is_word && !unknown.iter().any(|known| known == word) {
                unknown.push(word.to_owned());
            }
        }
        let tokens = Some(ids.len().min(self.length - 1) + 1);
        Ok(PromptLoss { cut, unknown, tokens })
    }

    /// Rows of an encoded text: the most tokens that the model reads.
    pub fn length(&self) -> usize {
        self.length
    }
}

/// Whether a character is an arrow, a sign or an emoji, and no mark of a sentence.
fn is_picture(c: char) -> bool {
    matches!(c, '\u{2190}'..='\u{2fff}' | '\u{1f000}'..='\u{1faff}')
}
