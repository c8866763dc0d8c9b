//! What goes wrong with files.

use std::io;
use std::path::{Path, PathBuf};

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("{} cannot be {action}: {}", path.display(), reason(source))]
    Io {
        /// What was tried, such as `written`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The contents are not what was expected.
    #[error("{}: {message}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What was expected, what was found.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// Something that is not allowed or not possible.
    #[error("{message}")]
    Refused {
        /// What and why.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
}

/// A result of reading or writing.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    }

    pub(crate) fn content(path: &Path, message: impl Into<String>) -> Error {
        let message = message.into();
        let is_cut = message.contains("ends early") || message.contains("damaged");
        let hint = is_cut.then(|| "copy or download it again".to_owned());
        Error::Content { path: path.to_owned(), message, hint }
    }

    pub(crate) fn refused(message: impl Into<String>, hint: &str) -> Error {
        Error::Refused {
            message: message.into(),
            hint: (!hint.is_empty()).then(|| hint.to_owned()),
        }
    }

    pub(crate) fn advise(self, advice: &str) -> Error {
        match self {
            Error::Content { path, message, .. } => {
                Error::Content { path, message, hint: Some(advice.to_owned()) }
            }
            other => other,
        }
    }

    /// What to do about it, if that is known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::Io { action: "run", .. } => {
                Some("name another with `kino config set ffmpeg PATH` or in KINO_FFMPEG")
            }
            Error::Io { source, action, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Some("free some space, or write elsewhere")
                }
                io::ErrorKind::PermissionDenied => Some("check the permissions of the folder"),
                io::ErrorKind::NotFound if matches!(*action, "made" | "written") => {
                    Some("write elsewhere with `--out DIR`")
                }
                io::ErrorKind::NotFound => {
                    Some("check the path; it is relative to the graph's file")
                }
                io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                    Some("move that file away, or write elsewhere with `--out DIR`")
                }
                _ => None,
            },
            Error::Content { hint, .. } | Error::Refused { hint, .. } => hint.as_deref(),
        }
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull => "the disk is full".to_owned(),
        io::ErrorKind::QuotaExceeded => "the disk quota is used up".to_owned(),
        io::ErrorKind::NotFound => "there is no such file or folder".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "a file is where a folder should be".to_owned()
        }
        io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_full_disk_is_called_by_its_name() {
        let path = Path::new("/dev/full");
        let written = std::fs::File::create(path).and_then(|mut file| file.write_all(b"x"));
        let error = written.map_err(Error::io("written", path)).unwrap_err();
        assert_eq!(error.to_string(), "/dev/full cannot be written: the disk is full");
        assert_eq!(error.hint(), Some("free some space, or write elsewhere"));
    }
}
