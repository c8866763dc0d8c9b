//! The header of a safetensors file, by the rule that all who read such files share
//! ([`SafetensorsHeader`]).

use candle_core::DType;
use kino_port::{SafetensorsError, SafetensorsHeader};

use super::file::DataFile;
use super::header::{Header, StoredTensor, StoredType};
use crate::error::{Error, Result};

/// Reads the header of a safetensors file, and that the file is as long as it says.
///
/// # Errors
/// A truncated file, or a header that does not follow the format.
pub(crate) fn read(file: &DataFile) -> Result<Header> {
    let found = file.length();
    let failed = |error| match error {
        SafetensorsError::EndsEarly { expected } => {
            Error::Truncated { file: file.name().to_owned(), expected, found }
        }
        other => Error::Safetensors { file: file.name().to_owned(), reason: other.to_string() },
    };
    if found < 8 {
        return Err(failed(SafetensorsError::EndsEarly { expected: 8 }));
    }
    let mut start = [0; 8];
    file.read(0, &mut start)?;
    let mut bytes = vec![0; SafetensorsHeader::length(start, found).map_err(failed)?];
    file.read(8, &mut bytes)?;
    let SafetensorsHeader { data_start, tensors, metadata } =
        SafetensorsHeader::parse(&bytes, found).map_err(failed)?;
    let stored = tensors.into_iter().map(|tensor| StoredTensor {
        stored: readable(&tensor.dtype),
        name: tensor.name,
        is_rows: false,
        type_name: tensor.dtype,
        shape: tensor.shape,
        offset: tensor.offset,
        length: tensor.length,
    });
    Ok(Header { data_start, tensors: stored.collect(), metadata })
}

/// The stored types that are read.
fn readable(dtype: &str) -> Option<StoredType> {
    let dtype = match dtype {
        "F32" => DType::F32,
        "F16" => DType::F16,
        "BF16" => DType::BF16,
        "F8_E4M3" => DType::F8E4M3,
        "F8_E5M2" => return Some(StoredType::E5m2),
        "I8" => return Some(StoredType::Int8),
        _ => return None,
    };
    Some(StoredType::Plain(dtype))
}
