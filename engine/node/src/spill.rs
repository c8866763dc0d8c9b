//! Temporary files that take frames which memory has no room for, or which wait for long.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::ledger::{Ledger, SpillLease};
use crate::{Error, Result};

/// One temporary file for frames of several values that wait for the same reader: what is moved
/// there lies in it until the last of these values is gone.
pub struct SpillFile {
    ledger: Arc<Ledger>,
    scratch: Mutex<Weak<Scratch>>,
}

impl SpillFile {
    /// A file that is made when the first frames are moved to it; `ledger` counts them.
    pub fn new(ledger: &Arc<Ledger>) -> Self {
        SpillFile { ledger: Arc::clone(ledger), scratch: Mutex::default() }
    }

    /// The file, made anew where nothing lies in one.
    pub(crate) fn scratch(&self) -> Result<Arc<Scratch>> {
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(scratch) = scratch.upgrade() {
            return Ok(scratch);
        }
        let made = Arc::new(Scratch::new(&self.ledger)?);
        *scratch = Arc::downgrade(&made);
        Ok(made)
    }
}

/// An unnamed temporary file, gone when dropped or when the process ends.
pub(crate) struct Scratch {
    inside: Mutex<Inside>,
    ledger: Arc<Ledger>,
    folder: PathBuf,
}

/// A piece of a temporary file that is being written.
pub(crate) struct Piece<'s> {
    inside: MutexGuard<'s, Inside>,
    at: u64,
    folder: &'s Path,
}

impl Piece<'_> {
    /// Where it begins in the file.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Appends to it.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.inside.file.write_all(bytes).map_err(|error| {
            Error::advised(
                format!(
                    "frames could not be moved to a temporary file in {}: {error}",
                    self.folder.display()
                ),
                "free some space there, or name another folder in TMPDIR",
            )
        })
    }
}

struct Inside {
    file: File,
    leases: Vec<SpillLease>,
}

impl Scratch {
    /// A new temporary file, whose bytes `ledger` counts.
    pub(crate) fn new(ledger: &Arc<Ledger>) -> Result<Self> {
        let folder = ledger.folder();
        let opened = std::fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder));
        let file = opened.map_err(|error| {
            Error::advised(
                format!("no temporary file can be made in {}: {error}", folder.display()),
                "free some space there, or name another folder in TMPDIR",
            )
        })?;
        Ok(Scratch {
            inside: Mutex::new(Inside { file, leases: Vec::new() }),
            ledger: Arc::clone(ledger),
            folder: folder.to_owned(),
        })
    }

    /// Begins a piece of so many bytes at the end of the file. Nobody else reads or appends until it
    /// is dropped.
    pub(crate) fn begin(&self, bytes: u64) -> Result<Piece<'_>> {
        let lease = self.ledger.spill(bytes)?;
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let at = inside.file.seek(SeekFrom::End(0))?;
        inside.leases.push(lease);
        Ok(Piece { inside, at, folder: &self.folder })
    }

    /// Reads `len` bytes from `at`.
    pub(crate) fn read(&self, at: u64, len: usize) -> Result<Vec<u8>> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.file.seek(SeekFrom::Start(at))?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|_| {
            Error::failed(format!("this machine has no {len} bytes for a chunk of frames"))
        })?;
        bytes.resize(len, 0);
        inside.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}
