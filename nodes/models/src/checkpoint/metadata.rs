//! What a GGUF file says beside its tensors: sizes of networks, tokenizers, templates.
//!
//! Files of video models are opened without it. Lengths are a stranger's: what is kept is bounded
//! by the header's own length, and lists by their number of items.

use std::collections::HashMap;

use super::file::DataFile;
use super::gguf::{MAGIC, Reader};
use crate::error::{Error, Result};

/// Items of a list at most; the largest vocabularies have a quarter of a million tokens, and half a
/// million merges.
const MOST_ITEMS: u64 = 1 << 20;
/// The longest text outside of a list, in bytes.
const LONGEST_TEXT: u64 = 1 << 20;

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Whole(i128),
    Real(f64),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Numbers(Vec<f64>),
    /// A list that is not read.
    Other,
}

/// Values of a file's metadata by their keys.
#[derive(Debug, Clone)]
pub struct FileMetadata {
    file: String,
    values: HashMap<String, Value>,
}

impl FileMetadata {
    /// Reads the values of the keys that are asked for; none where the file is no GGUF.
    pub(super) fn read(file: &DataFile, keep: &dyn Fn(&str) -> bool) -> Result<Option<Self>> {
        let mut start = [0; 4];
        if file.length() < 4 {
            return Ok(None);
        }
        file.read(0, &mut start)?;
        if start != MAGIC {
            return Ok(None);
        }
        let (mut reader, _, entries) = Reader::begin(file)?;
        let mut values = HashMap::new();
        for number in 0..entries {
            let key = reader.name(&format!("the key {} of {entries}", number + 1))?;
            let kind = reader.u32(&format!("the type of `{key}`"))?;
            match keep(&key) {
                true => drop(values.insert(key.clone(), read_value(&mut reader, &key, kind)?)),
                false => reader.skip_value(&key, kind, 0)?,
            }
        }
        file.check_unchanged()?;
        Ok(Some(Self { file: file.name().to_owned(), values }))
    }

    /// An error about what a key says.
    pub fn wrong(&self, key: &str, reason: &str) -> Error {
        Error::Config { file: self.file.clone(), reason: format!("`{key}` {reason}") }
    }

    /// The file, as messages call it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Whether there is a value.
    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    fn value<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        of: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        of(value).map(Some).ok_or_else(|| self.wrong(key, &format!("is no {expected}")))
    }

    /// A text.
    ///
    /// # Errors
    /// When it is something else; so for all that follow.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.value(key, "text", |value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A list of texts.
    pub fn texts(&self, key: &str) -> Result<Option<&[String]>> {
        self.value(key, "list of texts", |value| match value {
            Value::Texts(texts) => Some(texts.as_slice()),
            _ => None,
        })
    }

    /// A list of numbers.
    pub fn numbers(&self, key: &str) -> Result<Option<&[f64]>> {
        self.value(key, "list of numbers", |value| match value {
            Value::Numbers(numbers) => Some(numbers.as_slice()),
            _ => None,
        })
    }

    /// A count or size.
    pub fn size(&self, key: &str) -> Result<Option<usize>> {
        self.value(key, "whole number that a size can be", |value| match value {
            Value::Whole(number) => usize::try_from(*number).ok(),
            _ => None,
        })
    }

    /// A number.
    pub fn real(&self, key: &str) -> Result<Option<f64>> {
        self.value(key, "finite number", |value| match value {
            Value::Whole(number) => Some(*number as f64),
            Value::Real(number) => Some(*number).filter(|number| number.is_finite()),
            _ => None,
        })
    }

    /// Yes or no.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.value(key, "yes or no", |value| match value {
            Value::Bool(bool) => Some(*bool),
            _ => None,
        })
    }
}

fn read_value(reader: &mut Reader<'_>, key: &str, kind: u32) -> Result<Value> {
    Ok(match kind {
        8 => Value::Text(text(reader, key)?),
        9 => return list(reader, key),
        kind => match number(reader, key, kind)? {
            Some(value) => value,
            None => {
                return reader.invalid(format!("`{key}` has the type {kind}, which is unknown"));
            }
        },
    })
}

/// A single number, by the format's number of its type.
fn number(reader: &mut Reader<'_>, key: &str, kind: u32) -> Result<Option<Value>> {
    let whole = |number: i128| Value::Whole(number);
    Ok(Some(match kind {
        0 => whole(u8::from_le_bytes(reader.array(key)?).into()),
        1 => whole(i8::from_le_bytes(reader.array(key)?).into()),
        2 => whole(u16::from_le_bytes(reader.array(key)?).into()),
        3 => whole(i16::from_le_bytes(reader.array(key)?).into()),
        4 => whole(reader.u32(key)?.into()),
        5 => whole(i32::from_le_bytes(reader.array(key)?).into()),
        6 => Value::Real(f32::from_le_bytes(reader.array(key)?).into()),
        7 => Value::Bool(reader.array::<1>(key)? != [0]),
        10 => whole(reader.u64(key)?.into()),
        11 => whole(i64::from_le_bytes(reader.array(key)?).into()),
        12 => Value::Real(f64::from_le_bytes(reader.array(key)?)),
        _ => return Ok(None),
    }))
}

fn text(reader: &mut Reader<'_>, key: &str) -> Result<String> {
    let length = reader.u64(key)?;
    if length > LONGEST_TEXT {
        return reader.invalid(format!(
            "the text of `{key}` is said to be {length} bytes long; {LONGEST_TEXT} at most"
        ));
    }
    // Some vocabularies have pieces of characters; they stand for no text of their own.
    Ok(String::from_utf8_lossy(reader.bytes(length, key)?).into_owned())
}

fn list(reader: &mut Reader<'_>, key: &str) -> Result<Value> {
    let of = reader.u32(key)?;
    let count = reader.u64(key)?;
    if count > MOST_ITEMS {
        return reader.invalid(format!("`{key}` has {count} items; {MOST_ITEMS} at most are read"));
    }
    if of == 8 {
        // Not set aside before they are there: each takes eight bytes of the file at least.
        let mut texts = Vec::new();
        for _ in 0..count {
            texts.push(text(reader, key)?);
        }
        return Ok(Value::Texts(texts));
    }
    let mut numbers = Vec::new();
    for _ in 0..count {
        match number(reader, key, of)? {
            Some(Value::Whole(number)) => numbers.push(number as f64),
            Some(Value::Real(number)) => numbers.push(number),
            Some(_) => numbers.push(0.0),
            None => {
                reader.skip_value(key, of, 1)?;
                numbers.clear();
            }
        }
    }
    Ok(if matches!(of, 0..=6 | 10..=12) { Value::Numbers(numbers) } else { Value::Other })
}
