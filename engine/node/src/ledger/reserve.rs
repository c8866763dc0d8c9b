//! What was set aside for the step that a thread runs, from which leases on that thread are drawn.
//! It knows a ledger by a number alone.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

/// What an admitted step may still draw.
pub(crate) struct Reserve {
    /// Which ledger it was set aside by.
    ledger: usize,
    left: Mutex<u64>,
}

thread_local! {
    /// What leases of this thread draw from: the step that it runs.
    static RESERVE: RefCell<Option<Arc<Reserve>>> = const { RefCell::new(None) };
}

impl Reserve {
    /// So many bytes, set aside by a ledger.
    pub(crate) fn new(ledger: usize, bytes: u64) -> Arc<Self> {
        Arc::new(Reserve { ledger, left: Mutex::new(bytes) })
    }

    fn change<T>(&self, change: impl FnOnce(&mut u64) -> T) -> T {
        change(&mut self.left.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes all that was not drawn.
    pub(crate) fn take_rest(&self) -> u64 {
        self.change(std::mem::take)
    }

    /// Does `f` on this thread, where leases draw from this meanwhile.
    pub(crate) fn scope<T>(self: &Arc<Self>, f: impl FnOnce() -> T) -> T {
        /// Puts back what was there before, also when `f` panics.
        struct Restore(Option<Arc<Reserve>>);
        impl Drop for Restore {
            fn drop(&mut self) {
                RESERVE.set(self.0.take());
            }
        }
        let _restore = Restore(RESERVE.replace(Some(Arc::clone(self))));
        f()
    }
}

/// Takes up to `bytes` of what a ledger has set aside for the step that this thread runs.
pub(crate) fn draw(ledger: usize, bytes: u64) -> u64 {
    let drawn = of_thread(ledger, |left| {
        let drawn = bytes.min(*left);
        *left -= drawn;
        drawn
    });
    drawn.unwrap_or(0)
}

/// Puts back what was drawn.
pub(crate) fn put_back(ledger: usize, bytes: u64) {
    of_thread(ledger, |left| *left += bytes);
}

fn of_thread<T>(ledger: usize, change: impl FnOnce(&mut u64) -> T) -> Option<T> {
    RESERVE.with_borrow(|reserve| {
        let reserve = reserve.as_ref().filter(|reserve| reserve.ledger == ledger)?;
        Some(reserve.change(change))
    })
}
