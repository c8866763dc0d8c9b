//! What is wrong with a config file, in one way for all families.

use super::folder::ModelFiles;
use crate::error::{Error, Result};

/// An [`Error::Unsupported`] about a config file.
pub fn unsupported(folder: &impl ModelFiles, file: &str, what: impl Into<String>) -> Error {
    Error::Unsupported { file: folder.describe(file), what: what.into() }
}

/// An [`Error::Config`] about a config file.
pub fn invalid(folder: &impl ModelFiles, file: &str, reason: impl Into<String>) -> Error {
    Error::Config { file: folder.describe(file), reason: reason.into() }
}

/// The largest size that is taken from a config: far above what any model has, and so small that
/// products of three sizes do not overflow.
pub const LARGEST_SIZE: usize = 1 << 20;

/// Refuses sizes of 0 and those above [`LARGEST_SIZE`].
///
/// # Errors
/// [`Error::Config`], with the key.
pub fn require_sizes(folder: &impl ModelFiles, file: &str, sizes: &[(&str, usize)]) -> Result<()> {
    sizes.iter().try_for_each(|(key, size)| match *size {
        0 => Err(invalid(folder, file, format!("`{key}` must not be 0"))),
        size if size > LARGEST_SIZE => {
            let reason = format!("`{key}` is {size}, which no model has ({LARGEST_SIZE} at most)");
            Err(invalid(folder, file, reason))
        }
        _ => Ok(()),
    })
}

/// Refuses numbers that are not above 0 and finite.
///
/// # Errors
/// [`Error::Config`], with the key.
pub fn require_positive(
    folder: &impl ModelFiles,
    file: &str,
    numbers: &[(&str, f64)],
) -> Result<()> {
    match numbers.iter().find(|(_, number)| !(number.is_finite() && *number > 0.0)) {
        Some((key, number)) => {
            Err(invalid(folder, file, format!("`{key}` must be greater than 0, found {number}")))
        }
        None => Ok(()),
    }
}
