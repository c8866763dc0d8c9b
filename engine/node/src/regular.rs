//! Opening files that are read: regular ones alone. A pipe or a device would be waited for, or
//! read, for ever.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

/// Something else than a file was found: what.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("expected a file, found {0}")]
pub struct Irregular(pub &'static str);

impl Irregular {
    /// Whether this is why something was not opened.
    pub fn is_reason(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|reason| reason.is::<Irregular>())
    }
}

impl From<Irregular> for io::Error {
    fn from(irregular: Irregular) -> Self {
        io::Error::new(io::ErrorKind::InvalidInput, irregular)
    }
}

/// Opens a regular file; links are followed. Says as well what the file was like then.
///
/// # Errors
/// When it cannot be opened, or is a folder, a pipe, a socket or a device ([`Irregular`]).
pub fn open_regular(path: &Path) -> io::Result<(File, Metadata)> {
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
            Ok(Some(found)) => return Err(Irregular(found).into()),
            _ => return Err(error),
        },
    };
    let about = file.metadata()?;
    match irregular_kind(&about) {
        Some(found) => Err(Irregular(found).into()),
        None => Ok((file, about)),
    }
}

/// All bytes of a regular file, where there are at most `most`.
///
/// # Errors
/// As [`open_regular`], or when it holds more or cannot be read.
pub fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let (file, about) = open_regular(path)?;
    let mut bytes = Vec::new();
    if about.len() <= most {
        file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    }
    if about.len().max(bytes.len() as u64) > most {
        let what = format!("it is larger than {most} bytes, which is the most that is read here");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(bytes)
}

/// The text of a regular file, where it has at most `most` bytes.
///
/// # Errors
/// As [`read_regular`], or when it is no text in UTF-8.
pub fn read_regular_text(path: &Path, most: u64) -> io::Result<String> {
    let text = String::from_utf8(read_regular(path, most)?);
    text.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no text"))
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
