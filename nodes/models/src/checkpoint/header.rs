//! The header of a safetensors file.

use std::collections::HashSet;

use safetensors::tensor::Metadata;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::file::DataFile;
use crate::error::{Error, Result};

/// The longest header that the format allows.
const LONGEST_HEADER: u64 = 100_000_000;

/// The header of a weight file, as bytes and as it is understood.
pub(crate) struct Header {
    /// As it lies in the file, without its length.
    pub(crate) bytes: Vec<u8>,
    /// Names, types, shapes and places of tensors.
    pub(crate) tensors: Metadata,
    /// Where the data begin.
    pub(crate) data_start: u64,
}

/// Reads the header of a safetensors file, and that the file is as long as it says.
///
/// # Errors
/// A pickle, a truncated file, or a header that does not follow the format.
pub(crate) fn read(file: &DataFile) -> Result<Header> {
    let found = file.length();
    let truncated =
        |expected| Err(Error::Truncated { file: file.name().to_owned(), expected, found });
    let invalid = |reason: String| Err(Error::Safetensors { file: file.name().to_owned(), reason });
    let mut start = vec![0; found.min(64) as usize];
    file.read(0, &mut start)?;
    refuse_other_formats(&start, file.name())?;
    let Some(length) =
        start.get(..8).and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)))
    else {
        return truncated(8);
    };
    if length > LONGEST_HEADER {
        return invalid("header too large".to_owned());
    }
    if length + 8 > found {
        return truncated(length + 8);
    }
    let mut bytes = vec![0; length as usize];
    file.read(8, &mut bytes)?;
    let data = found - 8 - length;
    let tensors: Metadata = match serde_json::from_slice(&bytes) {
        Ok(tensors) => tensors,
        Err(error) => {
            return match promised_length(&bytes).filter(|promised| *promised > data) {
                Some(promised) => truncated(promised.saturating_add(8 + length)),
                None => invalid(error.to_string()),
            };
        }
    };
    if let Some(name) = repeated_name(&bytes) {
        return invalid(format!("its header names `{name}` twice"));
    }
    let end = tensors.tensors().values().map(|info| info.data_offsets.1 as u64).max().unwrap_or(0);
    if end > data {
        return truncated(end.saturating_add(8 + length));
    }
    if end != data {
        return invalid(format!("it goes on for {} bytes behind its last tensor", data - end));
    }
    Ok(Header { bytes, tensors, data_start: 8 + length })
}

/// A name that a header has twice, of which readers take one or the other.
fn repeated_name(header: &[u8]) -> Option<String> {
    struct Names(Option<String>);
    impl<'de> Deserialize<'de> for Names {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            from.deserialize_map(Names(None))
        }
    }
    impl<'de> Visitor<'de> for Names {
        type Value = Names;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a map of tensors")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Names, A::Error> {
            let mut seen = HashSet::new();
            while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
                if !seen.insert(name.clone()) {
                    self.0.get_or_insert(name);
                }
            }
            Ok(self)
        }
    }
    serde_json::from_slice::<Names>(header).ok()?.0
}

/// Recognises by their first bytes what people mistake for safetensors.
///
/// A safetensors header starts with `{` at byte 8; that decides, for a header of 640 bytes begins
/// with the same two bytes as a pickle.
fn refuse_other_formats(bytes: &[u8], file: &str) -> Result<()> {
    if bytes.get(8) == Some(&b'{') {
        return Ok(());
    }
    let reason =
        |reason: &str| Err(Error::Safetensors { file: file.to_owned(), reason: reason.to_owned() });
    let pickle = matches!(bytes, [0x80, 1..=5, ..]) || bytes.starts_with(b"PK");
    if pickle {
        return Err(Error::Pickle { file: file.to_owned() });
    }
    if bytes.starts_with(b"GGUF") {
        return Err(Error::Unsupported { file: file.to_owned(), what: "GGUF".to_owned() });
    }
    if bytes.starts_with(b"version https://git-lfs") {
        return reason("it is a Git LFS pointer; fetch the file itself (`git lfs pull`)");
    }
    if bytes.trim_ascii_start().starts_with(b"<") {
        return reason("it is a web page; download the file itself, not the page about it");
    }
    Ok(())
}

/// The bytes of data that the header's offsets ask for, as far as the header can be read.
fn promised_length(header: &[u8]) -> Option<u64> {
    let json: serde_json::Value = serde_json::from_slice(header).ok()?;
    let ends = json.as_object()?.values().filter_map(|v| v.get("data_offsets")?.get(1)?.as_u64());
    ends.max()
}
