//! Cancelling from outside while a kernel is at work.
//!
//! One product or attention of a large model takes minutes, far longer than anybody waits for a
//! cancelled run. Whoever computes says on its thread what tells that it is cancelled, and every
//! kernel that is called there looks between its tiles. A kernel that is not cancelled computes
//! the same bits as without.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Error;

use crate::Result;

/// Tells whether what is computed is not wanted any more; asked often, and from many threads.
pub type IsCancelled = Arc<dyn Fn() -> bool + Send + Sync>;

thread_local! {
    static CANCELLED: RefCell<Option<IsCancelled>> = const { RefCell::new(None) };
}

/// Kernels that are called on this thread can be cancelled until this is dropped.
#[must_use = "kernels are cancelled as long as this lives"]
pub struct CancelGuard {
    before: Option<IsCancelled>,
    /// It belongs to its thread.
    _here: PhantomData<*const ()>,
}

/// From here on, kernels that are called on this thread fail once `cancelled` says so, with an
/// error that [`is_cancelled`] knows.
pub fn cancelled_by(cancelled: IsCancelled) -> CancelGuard {
    CancelGuard { before: CANCELLED.replace(Some(cancelled)), _here: PhantomData }
}

/// What tells that the work of this thread is not wanted any more, for a thread that works for it.
pub fn cancellation() -> Option<IsCancelled> {
    CANCELLED.with_borrow(Clone::clone)
}

/// Fails where the work of this thread is not wanted any more.
///
/// # Errors
/// One that [`is_cancelled`] knows.
pub fn check_cancelled() -> Result<()> {
    let flag = CancelFlag::of_thread();
    flag.is_raised();
    flag.check()
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        CANCELLED.set(self.before.take());
    }
}

/// Why a kernel did not finish: it was cancelled.
#[derive(Clone, Copy, Debug)]
struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cancelled")
    }
}

impl std::error::Error for Cancelled {}

/// Whether an operation failed because it was cancelled. It is an [`io::ErrorKind::Interrupted`]
/// that no system gives.
pub fn is_cancelled(error: &Error) -> bool {
    match error {
        Error::Io(error) => error.get_ref().is_some_and(|reason| reason.is::<Cancelled>()),
        Error::WithBacktrace { inner, .. }
        | Error::Context { inner, .. }
        | Error::WithPath { inner, .. } => is_cancelled(inner),
        _ => false,
    }
}

/// What a kernel asks between its tiles, taken from the thread that called it. Once raised it stays
/// so, whatever it is told later.
pub(crate) struct CancelFlag {
    asked: Option<IsCancelled>,
    raised: AtomicBool,
}

impl CancelFlag {
    pub(crate) fn of_thread() -> Self {
        CancelFlag { asked: cancellation(), raised: AtomicBool::new(false) }
    }

    /// Whether the tile that asks, and every later one, is left out.
    pub(crate) fn is_raised(&self) -> bool {
        let Some(asked) = &self.asked else { return false };
        if !self.raised.load(Ordering::Relaxed) && asked() {
            self.raised.store(true, Ordering::Relaxed);
        }
        self.raised.load(Ordering::Relaxed)
    }

    /// An error where a tile was left out; asked when all are done.
    pub(crate) fn check(&self) -> Result<()> {
        match self.raised.load(Ordering::Relaxed) {
            true => Err(Error::Io(io::Error::new(io::ErrorKind::Interrupted, Cancelled))),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_that_was_raised_stays_raised() {
        let turns = std::sync::atomic::AtomicUsize::new(0);
        let guard = cancelled_by(Arc::new(move || turns.fetch_add(1, Ordering::Relaxed) == 1));
        let flag = CancelFlag::of_thread();
        assert!(!flag.is_raised() && flag.check().is_ok());
        assert!(flag.is_raised() && flag.is_raised());
        assert!(is_cancelled(&flag.check().unwrap_err().context("in a layer")));
        drop(guard);
        assert!(!CancelFlag::of_thread().is_raised());
        assert!(!is_cancelled(&Error::Io(io::ErrorKind::Interrupted.into())));
    }

    #[test]
    fn guards_nest_and_belong_to_their_threads() {
        let raised = || CancelFlag::of_thread().is_raised();
        let outer = cancelled_by(Arc::new(|| true));
        let inner = cancelled_by(Arc::new(|| false));
        assert!(!raised() && check_cancelled().is_ok());
        assert!(!std::thread::spawn(raised).join().unwrap());
        drop(inner);
        assert!(raised() && is_cancelled(&check_cancelled().unwrap_err()));
        let handed = cancellation().unwrap();
        let there = std::thread::spawn(move || {
            let _guard = cancelled_by(handed);
            CancelFlag::of_thread().is_raised()
        });
        assert!(there.join().unwrap());
        drop(outer);
        assert!(!raised());
    }
}
