//! The tokenizer of a language model, made of its file's metadata: byte-level BPE (`gpt2`), split
//! as `tokenizer.ggml.pre` says.

use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;

use crate::checkpoint::FileMetadata;
use crate::error::{Error, Result};

/// ggml's types of tokens: special ones, and ones that somebody added.
const CONTROL: f64 = 3.0;
const USER_DEFINED: f64 = 4.0;

/// What ends an answer in the templates of the models that are read, if the vocabulary has it.
const ENDS: [&str; 6] =
    ["<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>", "<|eom_id|>", "</s>"];

const TOKENS: &str = "tokenizer.ggml.tokens";
const MERGES: &str = "tokenizer.ggml.merges";
const TYPES: &str = "tokenizer.ggml.token_type";
const PRE: &str = "tokenizer.ggml.pre";
const MODEL: &str = "tokenizer.ggml.model";

/// How a text is split before it is cut into tokens.
struct Split {
    /// Of numbers, so many digits stand together.
    digits: &'static str,
    /// Whether a text is normalised first (NFC).
    nfc: bool,
    /// Whether a word that is a token is one, whatever merges lead there.
    whole_words: bool,
}

/// The ways of splitting that are read, by the names of llama.cpp.
fn split_of(pre: &str) -> Option<Split> {
    let (digits, nfc, whole_words) = match pre {
        "llama-bpe" | "llama3" | "llama-v3" => (r"\p{N}{1,3}", false, true),
        "qwen2" | "deepseek-r1-qwen" => (r"\p{N}", true, false),
        _ => return None,
    };
    Some(Split { digits, nfc, whole_words })
}

/// Turns text into the numbers of tokens and back.
#[derive(Debug)]
pub struct ChatTokens {
    tokenizer: Tokenizer,
    begin: Option<(u32, String)>,
    end: Option<String>,
    ends: Vec<u32>,
    adds_begin: bool,
}

impl ChatTokens {
    /// Whether a key of the metadata is one of those that are read here.
    pub(super) fn keeps(key: &str) -> bool {
        key.strip_prefix("tokenizer.ggml.").is_some_and(|key| {
            ["tokens", "merges", "token_type", "pre", "model"].contains(&key)
                || key.ends_with("_token_id")
                || key.starts_with("add_")
        })
    }

    /// Whether a file has a tokenizer of the kind that is read, without making it.
    ///
    /// # Errors
    /// When it has none, or one of another kind.
    pub(super) fn check(metadata: &FileMetadata) -> Result<()> {
        let unsupported = |what: String| Error::Unsupported { file: metadata.file().into(), what };
        let Some(model) = metadata.text(MODEL)? else {
            return Err(metadata.wrong(
                MODEL,
                "is missing: the file has no tokenizer; take one that was converted whole",
            ));
        };
        if model != "gpt2" {
            let model = kino_port::escape_line(model);
            let what = format!("a tokenizer of the kind `{model}` (`{MODEL}`; `gpt2` is read)");
            return Err(unsupported(what));
        }
        let pre = metadata.text(PRE)?.unwrap_or("default");
        if split_of(pre).is_none() {
            let pre = kino_port::escape_line(pre);
            let what =
                format!("the way `{pre}` of splitting text (`{PRE}`; llama-bpe and qwen2 are)");
            return Err(unsupported(what));
        }
        let tokens = metadata.texts(TOKENS)?.ok_or_else(|| metadata.wrong(TOKENS, "is missing"))?;
        if tokens.is_empty() {
            return Err(metadata.wrong(TOKENS, "is empty"));
        }
        if metadata.texts(MERGES)?.is_none() {
            return Err(metadata.wrong(MERGES, "is missing"));
        }
        match metadata.numbers(TYPES)? {
            Some(types) if types.len() != tokens.len() => Err(metadata.wrong(
                TYPES,
                &format!(
                    "has {} items, expected one for each of {} tokens",
                    types.len(),
                    tokens.len()
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Makes the tokenizer.
    ///
    /// # Errors
    /// As [`ChatTokens::check`], or when merges lead to tokens that are not there.
    pub(super) fn load(metadata: &FileMetadata) -> Result<Self> {
        Self::check(metadata)?;
        let tokens = metadata.texts(TOKENS)?.unwrap_or_default();
        let types = metadata.numbers(TYPES)?.unwrap_or_default();
        let split = split_of(metadata.text(PRE)?.unwrap_or_default());
        let split = split.ok_or_else(|| metadata.wrong(PRE, "is not read"))?;
        let text =
            tokenizer_json(tokens, types, metadata.texts(MERGES)?.unwrap_or_default(), &split);
        let tokenizer = Tokenizer::from_bytes(text).map_err(|error| {
            metadata.wrong(TOKENS, &format!("and merges are no tokenizer: {error}"))
        })?;
        let named = |name: &str| -> Result<Option<(u32, String)>> {
            let key = format!("tokenizer.ggml.{name}_token_id");
            let Some(id) = metadata.size(&key)? else { return Ok(None) };
            let token = tokens.get(id).ok_or_else(|| metadata.wrong(&key, "is no token"))?;
            Ok(Some((id as u32, token.clone())))
        };
        let (begin, end) = (named("bos")?, named("eos")?);
        let mut ends: Vec<u32> = ENDS.iter().filter_map(|end| tokenizer.token_to_id(end)).collect();
        ends.extend(end.iter().chain(&named("eot")?).map(|(id, _)| *id));
        Ok(Self {
            tokenizer,
            adds_begin: metadata.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(false),
            begin,
            end: end.map(|(_, token)| token),
            ends,
        })
    }

    /// The token that begins a text; empty where there is none.
    pub fn begin(&self) -> &str {
        self.begin.as_ref().map_or("", |(_, token)| token)
    }

    /// The token that ends a text; empty where there is none.
    pub fn end(&self) -> &str {
        self.end.as_deref().unwrap_or_default()
    }

    /// Whether a token ends an answer.
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// The tokens of a text; special ones that are written in it are themselves.
    ///
    /// # Errors
    /// When it cannot be split.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoded = self.tokenizer.encode_fast(text, false);
        let encoded = encoded.map_err(|error| Error::input(format!("the tokenizer: {error}")))?;
        Ok(encoded.get_ids().to_vec())
    }

    /// The tokens of a conversation: with the one that begins a text, once.
    ///
    /// # Errors
    /// As [`ChatTokens::encode`].
    pub fn encode_chat(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.encode(text)?;
        if let Some((begin, _)) = self.begin.as_ref().filter(|_| self.adds_begin)
            && ids.first() != Some(begin)
        {
            ids.insert(0, *begin);
        }
        Ok(ids)
    }

    /// The text of tokens, without special ones.
    ///
    /// # Errors
    /// When they are no text.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let text = self.tokenizer.decode(ids, true);
        text.map_err(|error| Error::input(format!("the tokenizer: {error}")))
    }
}

/// A `tokenizer.json` of the same tokens.
fn tokenizer_json(tokens: &[String], types: &[f64], merges: &[String], split: &Split) -> Vec<u8> {
    let vocabulary: Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
    let added = tokens.iter().zip(types).enumerate().filter_map(|(id, (token, kind))| {
        let is_special = *kind == CONTROL;
        (is_special || *kind == USER_DEFINED).then(|| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": is_special})
        })
    });
    let added: Vec<Value> = added.filter(|token| token["content"] != "").collect();
    // What the published tokenizers of Llama 3 and of Qwen2 split by.
    let pattern = format!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        split.digits
    );
    let by_bytes = |adds_space: bool| {
        json!({"type": "ByteLevel", "add_prefix_space": adds_space, "trim_offsets": false,
            "use_regex": false})
    };
    let whole = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": if split.nfc { json!({"type": "NFC"}) } else { Value::Null },
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
            by_bytes(false),
        ]},
        "post_processor": null,
        "decoder": by_bytes(true),
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false, "ignore_merges": split.whole_words,
            "vocab": vocabulary, "merges": merges},
    });
    whole.to_string().into_bytes()
}
