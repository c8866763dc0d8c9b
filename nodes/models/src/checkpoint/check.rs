//! What is wrong with a config file, in one way for all families.

use super::folder::ModelFolder;
use crate::error::{Error, Result};

/// An [`Error::Unsupported`] about a config file.
pub fn unsupported(folder: &ModelFolder, file: &str, what: impl Into<String>) -> Error {
    Error::Unsupported { file: folder.describe(file), what: what.into() }
}

/// An [`Error::Config`] about a config file.
pub fn invalid(folder: &ModelFolder, file: &str, reason: impl Into<String>) -> Error {
    Error::Config { file: folder.describe(file), reason: reason.into() }
}

/// Refuses the zero sizes among these.
pub fn require_positive(folder: &ModelFolder, file: &str, sizes: &[(&str, usize)]) -> Result<()> {
    match sizes.iter().find(|(_, size)| *size == 0) {
        Some((key, _)) => Err(invalid(folder, file, format!("`{key}` must not be 0"))),
        None => Ok(()),
    }
}
