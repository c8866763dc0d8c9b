//! Ctrl-C: once cancels the run, so that everything ends in order; twice ends the process at once.
//! SIGTERM, SIGHUP and SIGQUIT do the same; what `nohup` started does not hear SIGHUP.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use kino_node::Cancel;

use crate::failure::CANCELLED;

/// What a signal does.
type Handler = Box<dyn Fn() + Send>;

/// What a signal does now; without it, the process ends.
static HANDLER: Mutex<Option<Handler>> = Mutex::new(None);

/// Takes the signals on, by one thread that waits for them. To be called before any other thread is
/// there: each inherits that the signals are left to the one that is started here.
///
/// # Errors
/// When the machine does not allow it: then a signal ends the process at once.
#[cfg(unix)]
pub(crate) fn take_on() -> std::io::Result<()> {
    use nix::sys::signal::{SigSet, Signal};
    let signals: SigSet =
        [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT].into_iter().collect();
    signals.thread_block()?;
    let wait = move || {
        while let Ok(signal) = signals.wait() {
            if signal != Signal::SIGHUP || !hang_up_is_ignored() {
                signalled();
            }
        }
    };
    let started = std::thread::Builder::new().name("signals".into()).spawn(wait);
    if started.is_err() {
        signals.thread_unblock()?;
    }
    started.map(|_| ())
}

/// As on Unix.
#[cfg(not(unix))]
pub(crate) fn take_on() -> std::io::Result<()> {
    ctrlc::set_handler(signalled).map_err(std::io::Error::other)
}

/// Whether whoever started this process asked that it lives on when the terminal is closed.
#[cfg(unix)]
fn hang_up_is_ignored() -> bool {
    use nix::sys::signal::Signal;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (Signal::SIGHUP as u32 - 1) & 1 == 1
}

fn signalled() {
    match &*HANDLER.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(handler) => handler(),
        None => std::process::exit(i32::from(CANCELLED)),
    }
}

/// Lets signals cancel the run. What is written appears by renaming finished files, so that nothing
/// stays half-written either way.
pub(crate) fn watch(cancel: &Cancel) {
    watch_and(cancel, || {});
}

/// As [`watch`], and tells whoever waits for something else.
pub(crate) fn watch_and(cancel: &Cancel, tell: impl Fn() + Send + 'static) {
    let cancel = cancel.clone();
    let times = AtomicU32::new(0);
    let handler = move || match times.fetch_add(1, Ordering::Relaxed) {
        0 => {
            cancel.cancel();
            tell();
        }
        _ => std::process::exit(i32::from(CANCELLED)),
    };
    *HANDLER.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(handler));
}
