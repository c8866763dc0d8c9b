//! Ctrl-C: once cancels the run, so that everything ends in order; twice ends the process at once.

use std::sync::atomic::{AtomicU32, Ordering};

use kino_node::Cancel;

use crate::failure::CANCELLED;

/// Lets SIGINT, SIGTERM and SIGHUP cancel the run. What is written appears by renaming finished
/// files, so that nothing stays half-written either way.
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
    if let Err(error) = ctrlc::set_handler(handler) {
        tracing::warn!("Ctrl-C will end the run at once: {error}.");
    }
}
