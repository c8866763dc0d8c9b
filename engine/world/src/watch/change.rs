//! What is told of a watched file or folder.

use std::path::PathBuf;
use std::time::Instant;

/// A watched file or folder that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// The path as it was given.
    pub path: PathBuf,
    /// What became of it.
    pub kind: FileChangeKind,
    /// When it began to change, at the latest.
    pub since: Instant,
}

/// What became of a file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileChangeKind {
    /// It was not there.
    Appeared,
    /// Its contents differ; of a folder: those of a file in it, or which files there are.
    Changed,
    /// It is gone.
    Vanished,
}
