//! What a file of weights says of its tensors, whatever its format: names, types, shapes, places.

use std::borrow::Cow;
use std::collections::HashMap;

use candle_core::DType;
use kino_kernels::BlockType;

use super::file::DataFile;
use super::{gguf, safetensors};
use crate::error::{Error, Result};

/// A form in which numbers are stored that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredType {
    /// Each number alone.
    Plain(DType),
    /// Blocks of numbers that share their scales (GGUF).
    Blocks(BlockType),
}

/// A tensor as a header tells of it.
pub(crate) struct StoredTensor {
    pub(crate) name: String,
    /// The form in which it is stored, where that is read.
    pub(crate) stored: Option<StoredType>,
    /// What its format calls that form.
    pub(crate) type_name: Cow<'static, str>,
    pub(crate) shape: Vec<usize>,
    /// Its first byte in the file.
    pub(crate) offset: u64,
    /// Its bytes.
    pub(crate) length: u64,
}

/// The header of a file of weights: every tensor lies inside the file, and no name stands twice.
pub(crate) struct Header {
    /// Where the data begin; all before them is the header.
    pub(crate) data_start: u64,
    /// In the order of their places.
    pub(crate) tensors: Vec<StoredTensor>,
    /// What the file says about itself.
    pub(crate) metadata: HashMap<String, String>,
}

/// Reads the header of a file, in whichever format it is.
///
/// # Errors
/// A pickle or another format, a truncated file, or a header that does not follow its format.
pub(crate) fn read(file: &DataFile) -> Result<Header> {
    let mut start = vec![0; file.length().min(64) as usize];
    file.read(0, &mut start)?;
    if start.starts_with(gguf::MAGIC) {
        return gguf::read(file);
    }
    refuse_other_formats(&start, file.name())?;
    safetensors::read(file)
}

/// Recognises by their first bytes what people mistake for weights.
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
    if bytes.starts_with(b"version https://git-lfs") {
        return reason("it is a Git LFS pointer; fetch the file itself (`git lfs pull`)");
    }
    if bytes.trim_ascii_start().starts_with(b"<") {
        return reason("it is a web page; download the file itself, not the page about it");
    }
    Ok(())
}
