//! The vocabulary of SentencePiece (`spiece.model`) as a tokenizer.
//!
//! The file is a protobuf message (`sentencepiece_model.proto`). Of it are read the pieces with
//! their scores, the kind of model, and the table by which text is normalised; around them stands
//! what transformers puts there (`tokenization_t5.py`).

use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::{NormalizerWrapper, Precompiled};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::{AddedToken, Tokenizer};

use super::config::TokenizerConfig;

/// What a reader of a file finds wrong with it.
type Result<T> = std::result::Result<T, String>;

/// `ModelProto`: pieces, how they were trained, how text is normalised.
const PIECES: u64 = 1;
const TRAINER: u64 = 2;
const NORMALIZER: u64 = 3;
/// `SentencePiece`.
const PIECE: u64 = 1;
const SCORE: u64 = 2;
const PIECE_TYPE: u64 = 3;
/// `SentencePiece.Type`.
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
/// `TrainerSpec.model_type`, and the one that is read.
const MODEL_TYPE: u64 = 3;
const UNIGRAM: u64 = 1;
/// `NormalizerSpec`.
const CHARSMAP: u64 = 2;

/// The tokenizer that such a file describes; `config` says how many sentinels follow its pieces.
pub(super) fn read(bytes: &[u8], config: &TokenizerConfig) -> Result<Tokenizer> {
    let mut pieces: Vec<(String, f64)> = Vec::new();
    let (mut unknown, mut special, mut charsmap): (_, Vec<String>, &[u8]) = (None, Vec::new(), &[]);
    for field in fields(bytes) {
        match field? {
            (PIECES, Value::Bytes(inner)) => {
                let (text, score, kind) = piece(inner)?;
                if kind == UNKNOWN {
                    unknown = Some(pieces.len());
                }
                if kind == UNKNOWN || kind == CONTROL {
                    special.push(text.clone());
                }
                pieces.push((text, score));
            }
            (TRAINER, Value::Bytes(inner)) => {
                for field in fields(inner) {
                    if let (MODEL_TYPE, Value::Number(kind)) = field?
                        && kind != UNIGRAM
                    {
                        return Err(format!(
                            "its model is of type {kind}; type 1 (unigram) is read"
                        ));
                    }
                }
            }
            (NORMALIZER, Value::Bytes(inner)) => {
                for field in fields(inner) {
                    if let (CHARSMAP, Value::Bytes(map)) = field? {
                        charsmap = map;
                    }
                }
            }
            _ => {}
        }
    }
    let unknown = unknown.ok_or("it has no piece for what is unknown")?;
    let sentinels = (0..config.extra_ids).rev().map(|index| format!("<extra_id_{index}>"));
    for sentinel in sentinels {
        pieces.push((sentinel.clone(), 0.0));
        special.push(sentinel);
    }
    let model = Unigram::from(pieces, Some(unknown), false).map_err(|error| error.to_string())?;
    let mut tokenizer = Tokenizer::new(model);
    if !charsmap.is_empty() {
        let map =
            Precompiled::from(charsmap).map_err(|error| format!("its charsmap: {error:?}"))?;
        tokenizer
            .with_normalizer(Some(NormalizerWrapper::Precompiled(map)))
            .map_err(|error| error.to_string())?;
    }
    let split = Sequence::new(vec![
        PreTokenizerWrapper::WhitespaceSplit(WhitespaceSplit),
        PreTokenizerWrapper::Metaspace(Metaspace::new('▁', PrependScheme::Always, true)),
    ]);
    tokenizer.with_pre_tokenizer(Some(PreTokenizerWrapper::Sequence(split)));
    let special: Vec<AddedToken> =
        special.into_iter().map(|text| AddedToken::from(text, true)).collect();
    tokenizer.add_special_tokens(special).map_err(|error| error.to_string())?;
    Ok(tokenizer)
}

/// Text, score and type of a piece.
fn piece(bytes: &[u8]) -> Result<(String, f64, u64)> {
    let (mut text, mut score, mut kind) = (String::new(), 0.0, 1);
    for field in fields(bytes) {
        match field? {
            (PIECE, Value::Bytes(bytes)) => {
                text = String::from_utf8(bytes.to_vec()).map_err(|_| "a piece is not UTF-8")?;
            }
            (SCORE, Value::Word(bits)) => score = f64::from(f32::from_bits(bits)),
            (PIECE_TYPE, Value::Number(number)) => kind = number,
            _ => {}
        }
    }
    Ok((text, score, kind))
}

/// What stands in a field.
#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Word(u32),
    Bytes(&'a [u8]),
    /// Eight bytes, which no field that is read has.
    Double,
}

/// The fields of a message, with their numbers; an error ends them.
fn fields(mut rest: &[u8]) -> impl Iterator<Item = Result<(u64, Value<'_>)>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = field(&mut rest);
        if field.is_err() {
            rest = &[];
        }
        Some(field)
    })
}

fn field<'a>(rest: &mut &'a [u8]) -> Result<(u64, Value<'a>)> {
    let key = number(rest)?;
    let value = match key & 7 {
        0 => Value::Number(number(rest)?),
        1 => {
            taken(rest, 8)?;
            Value::Double
        }
        2 => {
            let length = number(rest)?;
            Value::Bytes(taken(rest, usize::try_from(length).unwrap_or(usize::MAX))?)
        }
        5 => {
            let bytes = taken(rest, 4)?;
            Value::Word(u32::from_le_bytes(bytes.try_into().map_err(|_| CUT)?))
        }
        other => {
            return Err(format!("it is no SentencePiece model: a field has the wire type {other}"));
        }
    };
    Ok((key >> 3, value))
}

const CUT: &str = "it is no SentencePiece model, or was cut off; download it again";

fn taken<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length).ok_or(CUT)?;
    *rest = after;
    Ok(taken)
}

/// A base-128 varint, of ten bytes at most.
fn number(rest: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let byte = taken(rest, 1)?[0];
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(CUT.to_owned())
}
