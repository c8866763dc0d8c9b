//! What one call of a node may reach, and what it said.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use kino_abi::host_table::{HostError, call_pointer, error_from_raw};
use kino_abi::{KinoCall, KinoError};

use super::held::Outcome;
use crate::{Error, Result, code};

/// A message that a node logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// 1 error, 2 warning, 3 information, 4 debugging, 5 tracing.
    pub level: u32,
    /// Where it comes from: the module of the plugin.
    pub target: String,
    /// The message, then its fields.
    pub message: String,
}

/// What `KinoCall` points to.
pub(super) struct CallState {
    files: BTreeMap<PathBuf, Vec<u8>>,
    unwanted: Vec<usize>,
    /// How often the node may ask before it is cancelled.
    lasts: u64,
    asked: AtomicU64,
    said: Mutex<Said>,
}

/// What a node said during a call.
#[derive(Default)]
pub(super) struct Said {
    pub(super) progress: Vec<(u64, u64)>,
    pub(super) logs: Vec<Logged>,
}

impl CallState {
    pub(super) fn new(
        files: BTreeMap<PathBuf, Vec<u8>>,
        unwanted: Vec<usize>,
        lasts: Option<u64>,
    ) -> Self {
        CallState {
            files,
            unwanted,
            lasts: lasts.unwrap_or(u64::MAX),
            asked: AtomicU64::new(0),
            said: Mutex::default(),
        }
    }

    fn say(&self, say: impl FnOnce(&mut Said)) {
        say(&mut self.said.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn log(&self, level: u32, target: String, message: String) {
        self.say(|said| said.logs.push(Logged { level, target, message }));
    }

    pub(super) fn progress(&self, step: u64, of: u64) {
        self.say(|said| said.progress.push((step, of)));
    }

    pub(super) fn cancelled(&self) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed) >= self.lasts
    }

    pub(super) fn wants(&self, output: usize) -> bool {
        !self.unwanted.contains(&output)
    }

    /// A granted file, however its path is written.
    pub(super) fn file(&self, path: &str) -> Outcome<Vec<u8>> {
        let clean = kino_contract::path::clean(path)
            .map_err(|why| format!("`{path}` may not be read: {why}"))?;
        self.files
            .get(&clean)
            .cloned()
            .ok_or_else(|| format!("`{path}` is not granted: `.file(…)` of the test is"))
    }

    /// Runs a function of the plugin with this call, and gives what was said.
    ///
    /// # Safety
    /// `work` gives what a function of a plugin returned.
    pub(super) unsafe fn during(
        self,
        work: impl FnOnce(*mut KinoCall) -> *mut KinoError,
    ) -> (Result<()>, Said) {
        let error = work(call_pointer(&self));
        // SAFETY: as the caller promises: the error is one of the table's, and was given away.
        let ended = match unsafe { error_from_raw(error) } {
            None => Ok(()),
            Some(error) if error.code == code::CANCELLED => Err(Error::Cancelled),
            Some(HostError { message, hint, code }) => {
                Err(Error::new(message).hint(hint).with_code(code))
            }
        };
        (ended, self.said.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}
