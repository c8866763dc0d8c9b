//! The device, which one heavy step occupies at a time, over all runs of a runtime.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kino_node::{Cancel, Result};

/// How often a step that waits for the device looks whether its run was cancelled.
const LOOK: Duration = Duration::from_millis(20);

/// Whether the device is occupied.
#[derive(Default)]
pub(crate) struct Device {
    busy: Mutex<bool>,
    free: Condvar,
}

/// The device is occupied until this is dropped.
pub(crate) struct Occupied<'d>(&'d Device);

impl Device {
    fn busy(&self) -> MutexGuard<'_, bool> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the device is free and occupies it.
    ///
    /// # Errors
    /// When the run is cancelled before.
    pub(crate) fn occupy(&self, cancel: &Cancel) -> Result<Occupied<'_>> {
        let mut busy = self.busy();
        while *busy {
            cancel.check()?;
            busy = self.free.wait_timeout(busy, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        *busy = true;
        Ok(Occupied(self))
    }
}

impl Drop for Occupied<'_> {
    fn drop(&mut self) {
        *self.0.busy() = false;
        self.0.free.notify_one();
    }
}
