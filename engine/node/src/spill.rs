//! A memory budget for frames, and the temporary file that takes what exceeds it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::{Error, Result};

/// The memory budget that all frames of a process share, and the folder for what exceeds it.
#[derive(Debug)]
pub struct Spill {
    folder: PathBuf,
    budget: u64,
    resident: AtomicU64,
}

/// Bytes counted against the budget until dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    spill: Arc<Spill>,
    bytes: u64,
}

/// An unnamed temporary file, gone when dropped or when the process ends.
#[derive(Debug)]
pub(crate) struct Scratch {
    file: Mutex<File>,
    folder: PathBuf,
}

impl Spill {
    /// A budget in bytes; what exceeds it goes to unnamed files in `folder`.
    pub fn new(folder: impl Into<PathBuf>, budget: u64) -> Arc<Self> {
        Arc::new(Spill { folder: folder.into(), budget, resident: AtomicU64::new(0) })
    }

    /// The bytes of frames now held in memory.
    pub fn resident(&self) -> u64 {
        self.resident.load(Ordering::Relaxed)
    }

    /// A lease on `bytes` of memory, or none where the budget is used up.
    pub(crate) fn lease(self: &Arc<Self>, bytes: u64) -> Option<Lease> {
        let fits = |now: u64| (now + bytes <= self.budget).then_some(now + bytes);
        self.resident.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(Lease { spill: Arc::clone(self), bytes })
    }

    /// A new temporary file.
    pub(crate) fn scratch(&self) -> Result<Scratch> {
        let opened = std::fs::create_dir_all(&self.folder)
            .and_then(|()| tempfile::tempfile_in(&self.folder));
        let file = opened.map_err(|error| {
            Error::advised(
                format!("no temporary file can be made in {}: {error}", self.folder.display()),
                "free some space there, or name another folder in TMPDIR",
            )
        })?;
        Ok(Scratch { file: Mutex::new(file), folder: self.folder.clone() })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.spill.resident.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Scratch {
    /// Appends bytes and returns where they begin.
    pub(crate) fn append(&self, bytes: &[u8]) -> Result<u64> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let at = file.seek(SeekFrom::End(0))?;
        file.write_all(bytes).map_err(|error| {
            Error::advised(
                format!(
                    "frames could not be moved to a temporary file in {}: {error}",
                    self.folder.display()
                ),
                "free some space there, or name another folder in TMPDIR",
            )
        })?;
        Ok(at)
    }

    /// Reads `len` bytes from `at`.
    pub(crate) fn read(&self, at: u64, len: usize) -> Result<Vec<u8>> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(at))?;
        let mut bytes = vec![0; len];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}
