//! One file of a checkpoint, read where it is asked: an opened file on disk, or bytes in the
//! binary.
//!
//! Files are read with `pread`, never mapped: a file that somebody cuts while it is read is an
//! error and no signal, and there is no second copy of it in memory.

use std::fs::{File, Metadata};
use std::path::Path;

use crate::error::{Error, Result};

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStamp {
    /// The device and the file's number on it; 0 where the system has no such numbers.
    pub inode: (u64, u64),
    /// Names that lead to it.
    pub links: u64,
    /// Its length in bytes.
    pub length: u64,
    /// When its contents were last changed, in nanoseconds since 1970.
    pub modified: i128,
    /// When anything of it was last changed, likewise.
    pub changed: i128,
}

impl FileStamp {
    /// The stamp of a file that was looked at.
    #[cfg(unix)]
    fn of(about: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        let nanoseconds =
            |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Self {
            inode: (about.dev(), about.ino()),
            links: about.nlink(),
            length: about.len(),
            modified: nanoseconds(about.mtime(), about.mtime_nsec()),
            changed: nanoseconds(about.ctime(), about.ctime_nsec()),
        }
    }

    /// The stamp of a file that was looked at.
    #[cfg(not(unix))]
    fn of(about: &Metadata) -> Self {
        let modified = about.modified().ok();
        let modified = modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let modified = modified.map_or(0, |time| time.as_nanos() as i128);
        Self { inode: (0, 0), links: 0, length: about.len(), modified, changed: modified }
    }

    /// The stamp of the file at `path`, links followed; none where there is no file.
    pub fn at(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().filter(Metadata::is_file).map(|about| Self::of(&about))
    }

    /// Whether an open file still has the contents that it had when its stamp was `self`.
    ///
    /// A file that lost a name since (it was replaced by a rename, or removed) was changed as a
    /// file, but its contents, which the handle still reads, were not.
    fn same_contents(&self, now: &Self) -> bool {
        let unlinked = now.links < self.links;
        (self.length, self.modified) == (now.length, now.modified)
            && (self.changed == now.changed || unlinked)
    }

    /// The stamp as bytes, for a hash. The number of names is no part of what a file is.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let (device, inode) = self.inode;
        let mut bytes = Vec::with_capacity(56);
        [device, inode, self.length].iter().for_each(|n| bytes.extend(n.to_le_bytes()));
        [self.modified, self.changed].iter().for_each(|n| bytes.extend(n.to_le_bytes()));
        bytes
    }
}

/// Where the bytes are.
#[derive(Debug)]
enum Backing {
    Disk(File, FileStamp),
    Binary(&'static [u8]),
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
        let stamp = FileStamp::of(&file.metadata().map_err(io)?);
        Ok(Self { name: name.to_owned(), backing: Backing::Disk(file, stamp) })
    }

    /// A file that lies in the binary.
    pub fn embedded(bytes: &'static [u8], name: &str) -> Self {
        Self { name: name.to_owned(), backing: Backing::Binary(bytes) }
    }

    /// How messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its stamp when it was opened; none for one in the binary, which never changes.
    pub fn stamp(&self) -> Option<&FileStamp> {
        match &self.backing {
            Backing::Disk(_, stamp) => Some(stamp),
            Backing::Binary(_) => None,
        }
    }

    /// Its length when it was opened.
    pub fn length(&self) -> u64 {
        match &self.backing {
            Backing::Disk(_, stamp) => stamp.length,
            Backing::Binary(bytes) => bytes.len() as u64,
        }
    }

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// When the file ends before, or was changed since it was opened.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        match &self.backing {
            Backing::Disk(file, _) => match read_at(file, offset, buffer) {
                Ok(()) => Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    Err(Error::Changed { file: self.name.clone() })
                }
                Err(source) => Err(Error::Io { file: self.name.clone(), source }),
            },
            Backing::Binary(bytes) => {
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

    /// An error where the file was changed since it was opened: what was read of it then and what
    /// was read now need not belong together.
    ///
    /// # Errors
    /// [`Error::Changed`], or when the system does not say.
    pub fn check_unchanged(&self) -> Result<()> {
        let Backing::Disk(file, stamp) = &self.backing else { return Ok(()) };
        let about =
            file.metadata().map_err(|source| Error::Io { file: self.name.clone(), source })?;
        match stamp.same_contents(&FileStamp::of(&about)) {
            true => Ok(()),
            false => Err(Error::Changed { file: self.name.clone() }),
        }
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
