//! Opening files that are read: regular ones alone. A pipe or a device would be waited for, or read,
//! for ever.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

use crate::{Error, Result};

/// Why a file was not opened.
#[derive(Debug, thiserror::Error)]
pub enum NotOpened {
    /// It is something else than a file: what.
    #[error("expected a file, found {0}")]
    Irregular(&'static str),
    /// The system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Opens a regular file; links are followed. Says as well what the file was like then.
///
/// # Errors
/// When it cannot be opened, or is a folder, a pipe, a socket or a device.
pub fn open_regular(path: &Path) -> std::result::Result<(File, Metadata), NotOpened> {
    let mut options = OpenOptions::new();
    options.read(true);
    // A pipe that nobody writes to is opened at once instead of being waited for.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        rustix::fs::OFlags::NONBLOCK.bits() as i32,
    );
    let file = match options.open(path) {
        Ok(file) => file,
        // A socket cannot be opened at all; what it is says more than the system's error.
        Err(error) => match std::fs::metadata(path).map(|about| irregular_kind(&about)) {
            Ok(Some(found)) => return Err(NotOpened::Irregular(found)),
            _ => return Err(error.into()),
        },
    };
    let about = file.metadata()?;
    match irregular_kind(&about) {
        Some(found) => Err(NotOpened::Irregular(found)),
        None => Ok((file, about)),
    }
}

/// All bytes of a regular file, where there are at most `most`.
///
/// # Errors
/// As [`open_regular`], or when it holds more or cannot be read.
pub fn read_regular(path: &Path, most: u64) -> Result<Vec<u8>> {
    let at = |error: &dyn std::fmt::Display| Error::failed(format!("{}: {error}", path.display()));
    let (file, about) = open_regular(path).map_err(|error| at(&error))?;
    let mut bytes = Vec::new();
    if about.len() <= most {
        file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| at(&error))?;
    }
    if about.len().max(bytes.len() as u64) > most {
        let what = format!("it is larger than {most} bytes, which is the most that is read here");
        return Err(at(&what));
    }
    Ok(bytes)
}

/// The text of a regular file, where it has at most `most` bytes; nothing where there is no file.
///
/// # Errors
/// As [`read_regular`], or when it is no text in UTF-8.
pub fn read_text_if_there(path: &Path, most: u64) -> Result<Option<String>> {
    let is_missing = |error: io::Error| error.kind() == io::ErrorKind::NotFound;
    if std::fs::metadata(path).is_err_and(is_missing) {
        return Ok(None);
    }
    let text = String::from_utf8(read_regular(path, most)?);
    text.map(Some).map_err(|_| Error::failed(format!("{}: it is no text", path.display())))
}

/// What something is that is no regular file.
fn irregular_kind(about: &Metadata) -> Option<&'static str> {
    let kind = about.file_type();
    if kind.is_file() {
        return None;
    }
    if kind.is_dir() {
        return Some("a folder");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return Some("a pipe");
        }
        if kind.is_socket() {
            return Some("a socket");
        }
    }
    Some("a device")
}
