//! The tokenizer: byte-level BPE of lower-case words.

use serde::Deserialize;
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use crate::checkpoint::{ModelFiles, invalid};
use crate::error::{Error, Result};
use crate::model::PromptLoss;
use crate::text::tokens::within_vocabulary;

/// How words are cut before they are looked up, and what a text becomes before that
/// (`tokenization_clip.py` of transformers).
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// What `tokenizer_config.json` says beside the tokenizer itself.
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    // transformers writes 1e30 where there is no limit.
    #[serde(default)]
    model_max_length: Option<f64>,
    // Strings, or objects with `content`.
    #[serde(default)]
    bos_token: Option<Value>,
    #[serde(default)]
    eos_token: Option<Value>,
    #[serde(default)]
    pad_token: Option<Value>,
}

/// The text of a special token.
fn content(token: Option<&Value>) -> Option<&str> {
    token.and_then(|token| token.as_str().or_else(|| token.get("content")?.as_str()))
}

/// Turns text into token numbers between a beginning and an end, filled up to the model's length.
#[derive(Debug)]
pub struct ClipTokens {
    tokenizer: Tokenizer,
    begin: u32,
    end: u32,
    padding: u32,
    length: usize,
}

impl ClipTokens {
    /// Loads the tokenizer in `folder`: `tokenizer.json`, or `vocab.json` with `merges.txt`; `most`
    /// is how many tokens the encoder reads.
    ///
    /// # Errors
    /// When it is missing or no tokenizer, or lacks a token that begins or ends a text.
    pub fn load(files: &impl ModelFiles, folder: &str, most: usize) -> Result<Self> {
        let at = |name: &str| format!("{folder}/{name}");
        let config: TokenizerConfig = match files.json(&at("tokenizer_config.json")) {
            Err(Error::FileMissing { .. }) => TokenizerConfig::default(),
            config => config?,
        };
        let begin = content(config.bos_token.as_ref()).unwrap_or("<|startoftext|>");
        let end = content(config.eos_token.as_ref()).unwrap_or("<|endoftext|>");
        let padding = content(config.pad_token.as_ref()).unwrap_or(end);
        let (file, bytes) = match files.bytes(&at("tokenizer.json")) {
            Err(missing @ Error::FileMissing { .. }) => match files.text(&at("vocab.json")) {
                Err(Error::FileMissing { .. }) => return Err(missing),
                vocabulary => {
                    (at("vocab.json"), joined(files, folder, &vocabulary?, &[begin, end, padding])?)
                }
            },
            bytes => (at("tokenizer.json"), bytes?),
        };
        let refuse = |reason: String| Error::Config { file: files.describe(&file), reason };
        let mut tokenizer = Tokenizer::from_bytes(bytes)
            .map_err(|error| refuse(format!("not a tokenizer: {error}")))?;
        // Length and padding are ours to decide, whatever was saved with the tokenizer.
        tokenizer.with_truncation(None).map_err(|error| refuse(error.to_string()))?;
        tokenizer.with_padding(None);
        let special = |token: &str| {
            let id = tokenizer.token_to_id(token);
            id.ok_or_else(|| refuse(format!("has no token `{token}`")))
        };
        let (begin, end, padding) = (special(begin)?, special(end)?, special(padding)?);
        // A float becomes an integer by saturating, so 1e30 and negative values are harmless.
        let length = (config.model_max_length.unwrap_or(f64::MAX) as usize).min(most);
        if length < 2 {
            let reason = format!("`model_max_length` leaves {length} tokens: a text needs 2");
            return Err(invalid(files, &at("tokenizer_config.json"), reason));
        }
        Ok(Self { tokenizer, begin, end, padding, length })
    }

    /// The tokens of a text: cut so that the token that ends it fits, and filled up.
    ///
    /// # Errors
    /// When the tokenizer fails on the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        // Special tokens are not left to the file's post-processor, which cuts after adding them.
        let encoding = self.tokenizer.encode_fast(text, false).map_err(failed)?;
        let ids = encoding.get_ids();
        let own = ids[..ids.len().min(self.length - 2)].iter().copied();
        let mut ids: Vec<u32> = [self.begin].into_iter().chain(own).chain([self.end]).collect();
        ids.resize(self.length, self.padding);
        Ok(ids)
    }

    /// What of a text is lost on the way to the tokens of an encoder that knows so many.
    ///
    /// # Errors
    /// As [`ClipTokens::encode`], and when there is a token that the encoder does not know.
    pub fn loss(&self, text: &str, vocabulary: usize) -> Result<PromptLoss> {
        let encoding = self.tokenizer.encode(text, false).map_err(failed)?;
        let ids = encoding.get_ids();
        within_vocabulary(&ids[..ids.len().min(self.length - 2)], vocabulary)?;
        within_vocabulary(&[self.begin, self.end, self.padding], vocabulary)?;
        let first_cut = encoding.get_offsets().get(self.length - 2);
        let cut = first_cut.and_then(|(from, _)| text.get(*from..)).unwrap_or_default();
        // Words are cut into bytes at last, so none is unknown.
        Ok(PromptLoss { cut: cut.to_owned(), ..PromptLoss::default() })
    }

    /// How many tokens a text becomes.
    pub fn length(&self) -> usize {
        self.length
    }
}

fn failed(error: tokenizers::Error) -> Error {
    Error::input(format!("the tokenizer failed: {error}"))
}

/// A `tokenizer.json` of `vocab.json` and `merges.txt`.
fn joined(
    files: &impl ModelFiles,
    folder: &str,
    vocabulary: &str,
    special: &[&str],
) -> Result<Vec<u8>> {
    let file = format!("{folder}/vocab.json");
    let parsed = serde_json::from_str::<Value>(vocabulary);
    let vocabulary = parsed.map_err(|error| invalid(files, &file, format!("no JSON: {error}")))?;
    let merges = files.text(&format!("{folder}/merges.txt"))?;
    let pairs = merges.lines().map(str::trim).filter(|line| !line.starts_with("#version"));
    let pairs: Vec<&str> = pairs.filter(|line| line.contains(' ')).collect();
    let mut added: Vec<Value> = Vec::new();
    for (at, token) in special.iter().enumerate() {
        if special[..at].contains(token) {
            continue;
        }
        let id = &vocabulary[*token];
        if !id.is_u64() {
            return Err(invalid(files, &file, format!("has no token `{token}`")));
        }
        added.push(json!({
            "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        }));
    }
    let unknown = special.get(1).copied().unwrap_or_default();
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": unknown,
            "continuing_subword_prefix": "", "end_of_word_suffix": "</w>",
            "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": pairs,
        },
    });
    Ok(tokenizer.to_string().into_bytes())
}
