//! Tokenizers that the engine brings, for models that lack theirs: for which encoders. Which
//! families have these is not known here.

use serde::Deserialize;

use super::{clip, detect};
use crate::checkpoint::{BroughtTokenizer, Checkpoint, ModelFiles, part_names};
use crate::error::Result;

/// Encoders, and where their tokenizers lie.
const PLACES: [(&str, &str); 2] =
    [(part_names::TEXT_ENCODER, "tokenizer"), (part_names::TEXT_ENCODER_2, "tokenizer_2")];
/// Files that a tokenizer has one of.
const FILES: [&str; 3] = ["tokenizer.json", "spiece.model", "vocab.json"];
/// Rows of the tables of tokens of published encoders, small ones and large ones.
const UMT5_WORDS: usize = 256_384;
const T5_WORDS: usize = 32_128;
const CLIP_WORDS: usize = 49_408;
/// The longest text that any family has T5 or UMT5 read; each takes its own share.
const LONGEST_TEXT: usize = 512;

/// What the config of an encoder says of its words.
#[derive(Deserialize)]
struct Encoder {
    model_type: String,
    vocab_size: usize,
}

/// The tokenizers of the encoders of a model that lacks them: of such as stand alone in a file,
/// where none lies beside them, and of those that have as many words as the published ones. An
/// encoder that was trained on other words has another number of them.
///
/// # Errors
/// When one cannot be unpacked.
pub(crate) fn tokenizers(checkpoint: &Checkpoint) -> Result<Vec<BroughtTokenizer>> {
    let mut brought = Vec::new();
    for (encoder, folder) in PLACES {
        let config: Result<Encoder> = checkpoint.json(&format!("{encoder}/config.json"));
        let Ok(Encoder { model_type, vocab_size }) = config else { continue };
        if FILES.iter().any(|name| checkpoint.contains(&format!("{folder}/{name}"))) {
            continue;
        }
        let is_its = |words: usize| checkpoint.is_single(encoder) || vocab_size == words;
        let (name, files) = match model_type.as_str() {
            "umt5" if is_its(UMT5_WORDS) => {
                ("UMT5", detect::tokenizer(&model_type, folder, LONGEST_TEXT)?)
            }
            "t5" if is_its(T5_WORDS) => {
                ("T5 v1.1", detect::tokenizer(&model_type, folder, LONGEST_TEXT)?)
            }
            "clip_text_model" if is_its(CLIP_WORDS) => ("CLIP", clip::tokenizer(folder)?),
            _ => continue,
        };
        brought.push(BroughtTokenizer { name, files });
    }
    Ok(brought)
}
