//! Ctrl-C: once cancels the run, so that everything ends in order; twice ends the process at once.
//! SIGTERM, SIGHUP and SIGQUIT do the same.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use kino_node::Cancel;

use crate::failure::CANCELLED;

/// What a signal does.
type Handler = Box<dyn Fn() + Send>;

/// What a signal does now; without it, the process ends.
static HANDLER: Mutex<Option<Handler>> = Mutex::new(None);

/// Takes on SIGQUIT, which what handles Ctrl-C leaves alone. To be called before any other thread
/// is there: each inherits that the signal waits for the one that is started here.
pub(crate) fn take_on_quit() {
    #[cfg(unix)]
    {
        use nix::sys::signal::{SigSet, Signal};
        let quit = SigSet::from(Signal::SIGQUIT);
        if quit.thread_block().is_err() {
            return;
        }
        let wait = move || {
            while quit.wait().is_ok() {
                signalled();
            }
        };
        if std::thread::Builder::new().name("quit".into()).spawn(wait).is_err() {
            let _ = quit.thread_unblock();
        }
    }
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
    if let Err(error) = ctrlc::set_handler(signalled) {
        tracing::warn!("Ctrl-C will end the run at once: {error}.");
    }
}
