//! T5 and UMT5 encoders as files of their own, for others to read: the names of transformers, or
//! those of llama.cpp with the tokenizer in the metadata.

use std::collections::HashSet;

use serde_json::Value;

use super::config::PromptForm;
use super::detect::llama;
use crate::checkpoint::{
    Checkpoint, GgufValue, ModelFiles, NarrowWeight, Rename, SingleForm, SingleFormat,
};
use crate::error::{Error, Result};

/// The table of tokens by its other name.
const TIED: &str = "encoder.embed_tokens";

/// How an encoder stands alone in a file: as it is, or as llama.cpp has it, with its tokenizer.
///
/// # Errors
/// When its config or its tokenizer cannot be read.
pub(crate) fn single_form(
    checkpoint: &Checkpoint,
    form: &PromptForm,
    format: SingleFormat,
) -> Result<SingleForm> {
    let files = checkpoint.part(form.encoder)?;
    let spiece = format!("{}/spiece.model", form.tokenizer);
    let (mut beside, mut notes) = (Vec::new(), Vec::new());
    let (rename, metadata): (Rename, _) = match format {
        SingleFormat::Safetensors => {
            // Of T5 it brings one along.
            let is_needed = form.model_type == "umt5" && files.shape(TOKENIZER).is_none();
            match checkpoint.contains(&spiece) {
                _ if !is_needed => {}
                true => beside.push((TOKENIZER.to_owned(), checkpoint.bytes(&spiece)?)),
                false => notes.push(format!(
                    "ComfyUI reads the tokenizer from a tensor `{TOKENIZER}` in the file, which the \
                     source has not; with {spiece} in its folder it will"
                )),
            }
            (Box::new(|name| Some(name.to_owned())), Vec::new())
        }
        SingleFormat::Gguf => {
            let is_twice = files.shape("shared.weight").is_some();
            let rename = move |name: &str| match is_twice && name.starts_with(TIED) {
                true => None,
                // The table of tokens has one name there.
                false if name.starts_with(TIED) => llama("shared.weight"),
                false => Some(llama(name).unwrap_or_else(|| name.to_owned())),
            };
            (Box::new(rename), gguf_metadata(checkpoint, form)?)
        }
    };
    let architecture = "t5encoder";
    Ok(SingleForm { rename, narrow, architecture, metadata, beside, config: None, notes })
}

/// The tensor in which ComfyUI looks for a SentencePiece model.
const TOKENIZER: &str = "spiece_model";

/// The matrices of the layers, and the table of tokens.
fn narrow(name: &str) -> NarrowWeight {
    let is_matrix = [".q.weight", ".k.weight", ".v.weight", ".o.weight"]
        .iter()
        .any(|end| name.contains(".SelfAttention.") && name.ends_with(end));
    match name {
        "shared.weight" | "encoder.embed_tokens.weight" => NarrowWeight::Blocks,
        _ if is_matrix || name.contains(".DenseReluDense.") => NarrowWeight::Any,
        _ => NarrowWeight::Never,
    }
}

/// Sizes and tokenizer of an encoder as llama.cpp writes them (`convert_hf_to_gguf.py`):
/// ComfyUI-GGUF makes its tokenizer of them.
fn gguf_metadata(checkpoint: &Checkpoint, form: &PromptForm) -> Result<Vec<(String, GgufValue)>> {
    let path = format!("{}/config.json", form.encoder);
    let config: Value = checkpoint.json(&path)?;
    let mut metadata = Vec::new();
    let number = |key: &str| config[key].as_u64().and_then(|number| u32::try_from(number).ok());
    for (key, own) in [
        ("embedding_length", "d_model"),
        ("feed_forward_length", "d_ff"),
        ("block_count", "num_layers"),
        ("attention.head_count", "num_heads"),
        ("attention.key_length", "d_kv"),
        ("attention.value_length", "d_kv"),
        ("attention.relative_buckets_count", "relative_attention_num_buckets"),
    ] {
        let value = number(own).map(GgufValue::U32);
        metadata.extend(value.map(|value| (format!("t5encoder.{key}"), value)));
    }
    metadata.push(("t5encoder.context_length".to_owned(), GgufValue::U32(form.max_rows as u32)));
    let epsilon = config["layer_norm_epsilon"].as_f64().unwrap_or(1e-6) as f32;
    for key in ["attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon"] {
        metadata.push((format!("t5encoder.{key}"), GgufValue::F32(epsilon)));
    }
    let words = number("vocab_size").unwrap_or(0) as usize;
    metadata.extend(gguf_tokenizer(checkpoint, form, words)?);
    Ok(metadata)
}

/// The parts of a tokenizer's file that are read here.
#[derive(serde::Deserialize)]
struct TokenizerFile {
    model: TokenizerModel,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
}

#[derive(serde::Deserialize)]
struct TokenizerModel {
    #[serde(rename = "type")]
    kind: Option<String>,
    unk_id: Option<usize>,
    #[serde(default)]
    vocab: Value,
}

#[derive(serde::Deserialize)]
struct AddedToken {
    id: usize,
    content: String,
    #[serde(default)]
    special: bool,
}

/// A SentencePiece model of the kind unigram, as metadata; none where the tokenizer is another.
fn gguf_tokenizer(
    checkpoint: &Checkpoint,
    form: &PromptForm,
    words: usize,
) -> Result<Vec<(String, GgufValue)>> {
    // llama.cpp's LLAMA_TOKEN_TYPE.
    const NORMAL: i32 = 1;
    const UNKNOWN: i32 = 2;
    const CONTROL: i32 = 3;
    const UNUSED: i32 = 5;
    const BYTE: i32 = 6;
    let path = format!("{}/tokenizer.json", form.tokenizer);
    if !checkpoint.contains(&path) {
        return Ok(Vec::new());
    }
    let file: TokenizerFile = checkpoint.json(&path)?;
    if file.model.kind.as_deref() != Some("Unigram") {
        return Ok(Vec::new());
    }
    let pieces: Vec<(String, f64)> =
        serde_json::from_value(file.model.vocab).map_err(|error| Error::Config {
            file: checkpoint.describe(&path),
            reason: format!("`model.vocab` is no list of pieces with scores ({error})"),
        })?;
    let special: HashSet<usize> =
        file.added_tokens.iter().filter(|token| token.special).map(|token| token.id).collect();
    let is_byte =
        |piece: &str| piece.len() == 6 && piece.starts_with("<0x") && piece.ends_with('>');
    let kind = |index: usize, piece: &str| match () {
        () if file.model.unk_id == Some(index) => UNKNOWN,
        () if special.contains(&index) => CONTROL,
        () if is_byte(piece) => BYTE,
        () => NORMAL,
    };
    let mut kinds: Vec<i32> =
        pieces.iter().enumerate().map(|(index, (piece, _))| kind(index, piece)).collect();
    let mut scores: Vec<f32> = pieces.iter().map(|(_, score)| *score as f32).collect();
    let mut tokens: Vec<String> = pieces.into_iter().map(|(piece, _)| piece).collect();
    // The table has more rows than the tokenizer words.
    for index in tokens.len()..words.max(tokens.len()) {
        tokens.push(format!("[PAD{index}]"));
        scores.push(-10000.0);
        kinds.push(UNUSED);
    }
    let find = |name: &str, otherwise: usize| {
        let own = file.added_tokens.iter().find(|token| token.content == name);
        GgufValue::U32(own.map_or(otherwise, |token| token.id) as u32)
    };
    let named = [
        ("model", GgufValue::Text("t5".to_owned())),
        ("eos_token_id", find("</s>", 1)),
        ("padding_token_id", find("<pad>", 0)),
        ("unknown_token_id", GgufValue::U32(file.model.unk_id.unwrap_or(2) as u32)),
        ("add_space_prefix", GgufValue::Bool(true)),
        ("remove_extra_whitespaces", GgufValue::Bool(true)),
        ("add_bos_token", GgufValue::Bool(false)),
        ("add_eos_token", GgufValue::Bool(true)),
        ("tokens", GgufValue::Texts(tokens)),
        ("scores", GgufValue::F32s(scores)),
        ("token_type", GgufValue::I32s(kinds)),
    ];
    Ok(named.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect())
}
