//! In which format a file of weights is.

use super::file::DataFile;
use super::header::Header;
use super::{gguf, safetensors};
use crate::error::{Error, Result};

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
    if bytes.len() >= 8 && bytes.iter().all(|byte| *byte == 0) {
        return reason(
            "it begins with zeros, as a file does whose download was not finished; download it again",
        );
    }
    // What a server says instead of the file.
    let is_text = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..=0x7e);
    if bytes.len() >= 8 && bytes.iter().all(is_text) {
        let said = String::from_utf8_lossy(bytes);
        return reason(&format!("it is a text, {:?}; download the file again", said.trim()));
    }
    Ok(())
}
