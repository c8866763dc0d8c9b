//! Files that the command itself writes: whole or not at all.

use std::io::Write;
use std::path::Path;

use kino_world::AtomicFile;

use crate::failure::Failure;

/// Writes a file by renaming a finished temporary one; folders are made as needed.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write(path: &Path, contents: &[u8]) -> Result<(), Failure> {
    let failed = |error: kino_world::Error| Failure::world(error.to_string());
    let mut file = AtomicFile::create(path).map_err(failed)?;
    if let Err(error) = file.write_all(contents) {
        return Err(failed(file.failed()(error)));
    }
    file.finish().map(drop).map_err(failed)
}
