//! The temporary file that takes frames which memory has no room for.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::ledger::{Ledger, SpillLease};
use crate::{Error, Result};

/// An unnamed temporary file, gone when dropped or when the process ends.
pub(crate) struct Scratch {
    inside: Mutex<Inside>,
    ledger: Arc<Ledger>,
    folder: PathBuf,
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

    /// Appends bytes and returns where they begin.
    pub(crate) fn append(&self, bytes: &[u8]) -> Result<u64> {
        let lease = self.ledger.spill(bytes.len() as u64)?;
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let at = inside.file.seek(SeekFrom::End(0))?;
        inside.file.write_all(bytes).map_err(|error| {
            Error::advised(
                format!(
                    "frames could not be moved to a temporary file in {}: {error}",
                    self.folder.display()
                ),
                "free some space there, or name another folder in TMPDIR",
            )
        })?;
        inside.leases.push(lease);
        Ok(at)
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
