//! One file of a checkpoint, read where it is asked: an opened file on disk, or bytes in the
//! binary.
//!
//! Files are read with `pread`, never mapped: a file that somebody cuts while it is read is an
//! error and no signal, and there is no second copy of it in memory.

use std::fs::{File, Metadata};
use std::path::Path;

use kino_port::FileStamp;

use super::direct::DirectFile;
use crate::error::{Error, Result};

/// The stamp of the file at `path`, links followed; none where there is no file.
pub(crate) fn stamp_at(path: &Path) -> Option<FileStamp> {
    let about = std::fs::metadata(path).ok().filter(Metadata::is_file)?;
    Some(FileStamp::of(&about))
}

/// A stamp as bytes, for a hash.
pub(crate) fn stamp_bytes(stamp: &FileStamp) -> Vec<u8> {
    let FileStamp { device, inode, length, modified, changed } = *stamp;
    let nanoseconds =
        |(seconds, rest): (i64, u32)| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
    let mut bytes = Vec::with_capacity(56);
    [device, inode, length].iter().for_each(|n| bytes.extend(n.to_le_bytes()));
    [modified, changed].iter().for_each(|time| bytes.extend(nanoseconds(*time).to_le_bytes()));
    bytes
}

/// A file on disk as it was opened.
#[derive(Debug)]
struct OpenedFile {
    file: File,
    stamp: FileStamp,
    /// Names that led to it then.
    names: u64,
    /// The same file, read past the system's cache.
    direct: DirectFile,
}

impl OpenedFile {
    /// Whether the file still has the contents that it had.
    ///
    /// A file that lost a name since (it was replaced by a rename, or removed) was changed as a
    /// file, but its contents, which the handle still reads, were not.
    fn is_unchanged(&self) -> std::io::Result<bool> {
        let about = self.file.metadata()?;
        let (was, now) = (&self.stamp, FileStamp::of(&about));
        let lost_name = names(&about) < self.names;
        Ok((was.length, was.modified) == (now.length, now.modified)
            && (was.changed == now.changed || lost_name))
    }
}

/// How many names lead to a file; 0 where the system does not say.
#[cfg(unix)]
fn names(about: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(about)
}

/// How many names lead to a file; 0 where the system does not say.
#[cfg(not(unix))]
fn names(_: &Metadata) -> u64 {
    0
}

/// Where the bytes are.
#[derive(Debug)]
enum Backing {
    Disk(OpenedFile),
    Binary {
        bytes: &'static [u8],
        /// Their digest, where it is known.
        digest: Option<blake3::Hash>,
    },
}

/// An opened file of a checkpoint.
#[derive(Debug)]
pub struct DataFile {
    name: String,
    backing: Backing,
}

impl DataFile {
    /// Opens the file at `path`; messages name it `name`.
    ///
    /// # Errors
    /// When the system refuses it.
    pub fn open(path: &Path, name: &str) -> Result<Self> {
        let io = |source| Error::Io { file: name.to_owned(), source };
        // A pipe would be waited for, and a device has no end.
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            return Err(io(std::io::Error::other("it is no regular file")));
        }
        let file = File::open(path).map_err(io)?;
        let about = file.metadata().map_err(io)?;
        let (stamp, names) = (FileStamp::of(&about), names(&about));
        let opened = OpenedFile { file, stamp, names, direct: DirectFile::default() };
        Ok(Self { name: name.to_owned(), backing: Backing::Disk(opened) })
    }

    /// A file that lies in the binary, with its BLAKE3 digest in hexadecimal where it is known.
    pub fn embedded(bytes: &'static [u8], name: &str, digest: Option<&str>) -> Self {
        let digest = digest.and_then(|hex| blake3::Hash::from_hex(hex).ok());
        Self { name: name.to_owned(), backing: Backing::Binary { bytes, digest } }
    }

    /// How messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its stamp when it was opened; none for one in the binary, which never changes.
    pub fn stamp(&self) -> Option<&FileStamp> {
        match &self.backing {
            Backing::Disk(opened) => Some(&opened.stamp),
            Backing::Binary { .. } => None,
        }
    }

    /// Its length when it was opened.
    pub fn length(&self) -> u64 {
        match &self.backing {
            Backing::Disk(opened) => opened.stamp.length,
            Backing::Binary { bytes, .. } => bytes.len() as u64,
        }
    }

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// When the file ends before, or was changed since it was opened.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        match &self.backing {
            Backing::Disk(opened) => {
                read_at(&opened.file, offset, buffer).map_err(|error| self.failed(error))
            }
            Backing::Binary { bytes, .. } => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let end = start.saturating_add(buffer.len());
                let part = bytes.get(start..end).ok_or_else(|| Error::Truncated {
                    file: self.name.clone(),
                    expected: end as u64,
                    found: bytes.len() as u64,
                })?;
                buffer.copy_from_slice(part);
                Ok(())
            }
        }
    }

    /// The same past the system's cache, where it knows how.
    ///
    /// What is read in turns, and is more than the system keeps, is never found there again; yet
    /// its copies would take memory that a budget leaves to others, and to fill, copy and drop them
    /// costs a processor more than the disk takes.
    ///
    /// # Errors
    /// As [`DataFile::read`].
    pub(crate) fn read_past_cache(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if let Backing::Disk(opened) = &self.backing
            && opened
                .direct
                .read(&opened.file, offset, buffer)
                .map_err(|error| self.failed(error))?
        {
            return Ok(());
        }
        self.read(offset, buffer)
    }

    /// What it means that the file could not be read.
    fn failed(&self, source: std::io::Error) -> Error {
        let file = self.name.clone();
        match source.kind() {
            std::io::ErrorKind::UnexpectedEof => Error::Changed { file },
            _ => Error::Io { file, source },
        }
    }

    /// Has the system drop its copy of some bytes, where it knows how: those that were not read past
    /// it, since the file system does not know that.
    pub(crate) fn drop_cached(&self, offset: u64, length: u64) {
        #[cfg(target_os = "linux")]
        if let Backing::Disk(opened) = &self.backing {
            let length = std::num::NonZeroU64::new(length);
            // It is advice: where it is not taken, nothing is wrong.
            let _ = length.map(|length| {
                rustix::fs::fadvise(
                    &opened.file,
                    offset,
                    Some(length),
                    rustix::fs::Advice::DontNeed,
                )
            });
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (offset, length);
    }

    /// An error where the file was changed since it was opened: what was read of it then and what
    /// was read now need not belong together.
    ///
    /// # Errors
    /// [`Error::Changed`], or when the system does not say.
    pub fn check_unchanged(&self) -> Result<()> {
        let Backing::Disk(opened) = &self.backing else { return Ok(()) };
        match opened.is_unchanged() {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::Changed { file: self.name.clone() }),
            Err(source) => Err(Error::Io { file: self.name.clone(), source }),
        }
    }

    /// The BLAKE3 digest of all its bytes.
    ///
    /// # Errors
    /// As [`DataFile::read`].
    pub(crate) fn digest(&self) -> Result<blake3::Hash> {
        let bytes = match &self.backing {
            Backing::Binary { digest: Some(digest), .. } => return Ok(*digest),
            Backing::Binary { bytes, digest: None } => return Ok(blake3::hash(bytes)),
            Backing::Disk(opened) => opened.stamp.length,
        };
        let mut hasher = blake3::Hasher::new();
        let mut buffer = Vec::new();
        let mut at = 0;
        while at < bytes {
            buffer.resize((bytes - at).min(1 << 20) as usize, 0);
            self.read(at, &mut buffer)?;
            hasher.update(&buffer);
            at += buffer.len() as u64;
        }
        Ok(hasher.finalize())
    }

    /// All of a small file.
    ///
    /// # Errors
    /// When it is longer than `limit`, or as [`DataFile::read`].
    pub fn read_all(&self, limit: u64) -> Result<Vec<u8>> {
        let length = self.length();
        if length > limit {
            let reason = format!("{length} bytes are too many for a config ({limit} at most)");
            return Err(Error::Config { file: self.name.clone(), reason });
        }
        let mut bytes = vec![0; length as usize];
        self.read(0, &mut bytes)?;
        self.check_unchanged()?;
        Ok(bytes)
    }
}

#[cfg(unix)]
fn read_at(file: &File, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_at(file: &File, mut offset: u64, mut buffer: &mut [u8]) -> std::io::Result<()> {
    while !buffer.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buffer, offset)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => {
                buffer = &mut buffer[count..];
                offset += count as u64;
            }
        }
    }
    Ok(())
}
