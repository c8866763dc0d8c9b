//! Work that is slow and cannot be told to stop: waiting for it can.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use kino_node::Cancel;

use crate::error::{Error, Result};

/// How often somebody who waits looks whether that was cancelled.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// As much stack as the main thread usually has: graphs may be nested deeply.
const STACK: usize = 8 << 20;

/// Does something on a thread of its own, and waits for it until `cancel` is raised; it then goes
/// on alone, and what comes of it is dropped.
///
/// # Errors
/// When it was cancelled, or no thread can be started.
pub(crate) fn unless_cancelled<T: Send + 'static>(
    cancel: &Cancel,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let (tell, told) = mpsc::channel();
    let thread = std::thread::Builder::new().name("slow".into()).stack_size(STACK);
    let thread = thread.spawn(move || drop(tell.send(work())));
    let thread =
        thread.map_err(|error| Error::world(format!("no thread could be started: {error}")))?;
    loop {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        match told.recv_timeout(POLL_INTERVAL) {
            Ok(done) => return Ok(done),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => match thread.join() {
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(()) => return Err(Error::Cancelled),
            },
        }
    }
}
