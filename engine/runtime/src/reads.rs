//! Whether files are still what a step was planned with.
//!
//! A key holds the hashes of the files that a step reads, taken while planning. The step reads them
//! later, perhaps minutes later. What it made of them belongs to its key only if none of them
//! changed in between, which their stamps tell.

use std::fs;
use std::io::ErrorKind;

use kino_node::{Error, Result};
use kino_port::{FileStamp, PlannedFile, PlannedRead};

/// Fails unless all files are as they were when the plan was made.
///
/// # Errors
/// The name of the first that is not.
pub(crate) fn verify(reads: &[PlannedRead]) -> Result<()> {
    match reads.iter().find(|read| !read.files.iter().all(is_unchanged)) {
        None => Ok(()),
        Some(read) => Err(Error::advised(
            format!("{} changed while it ran", read.path),
            "run again: the result would not be that of the file as it was when the run began",
        )),
    }
}

fn is_unchanged(file: &PlannedFile) -> bool {
    match fs::metadata(&file.path) {
        Ok(about) => file.stamp == Some(FileStamp::of(&about)),
        Err(error) if error.kind() == ErrorKind::NotFound => file.stamp.is_none(),
        Err(_) => false,
    }
}
