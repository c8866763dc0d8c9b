//! The header of a safetensors file.

use std::collections::HashSet;

use candle_core::DType;
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::file::DataFile;
use super::header::{Header, StoredTensor, StoredType};
use crate::error::{Error, Result};

/// The longest header that the format allows.
const LONGEST_HEADER: u64 = 100_000_000;

/// Reads the header of a safetensors file, and that the file is as long as it says.
///
/// # Errors
/// A truncated file, or a header that does not follow the format.
pub(crate) fn read(file: &DataFile) -> Result<Header> {
    let found = file.length();
    let truncated =
        |expected| Err(Error::Truncated { file: file.name().to_owned(), expected, found });
    let invalid = |reason: String| Err(Error::Safetensors { file: file.name().to_owned(), reason });
    if found < 8 {
        return truncated(8);
    }
    let mut length = [0; 8];
    file.read(0, &mut length)?;
    let length = u64::from_le_bytes(length);
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
    let data_start = 8 + length;
    let metadata = tensors.metadata().clone().unwrap_or_default();
    let stored = tensors.offset_keys().into_iter().filter_map(|name| {
        let info = tensors.info(&name)?;
        let (start, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        Some(StoredTensor {
            stored: readable(info.dtype),
            type_name: info.dtype.to_string().into(),
            shape: info.shape.clone(),
            offset: data_start + start,
            length: end - start,
            name,
        })
    });
    Ok(Header { data_start, tensors: stored.collect(), metadata })
}

/// The stored types that are read.
fn readable(dtype: Dtype) -> Option<StoredType> {
    let dtype = match dtype {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F8_E4M3 => DType::F8E4M3,
        Dtype::I8 => return Some(StoredType::Int8),
        _ => return None,
    };
    Some(StoredType::Plain(dtype))
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

/// The bytes of data that the header's offsets ask for, as far as the header can be read.
fn promised_length(header: &[u8]) -> Option<u64> {
    let json: serde_json::Value = serde_json::from_slice(header).ok()?;
    let ends = json.as_object()?.values().filter_map(|v| v.get("data_offsets")?.get(1)?.as_u64());
    ends.max()
}
