//! How a run is stopped: altogether, or as far as a newer plan has no use for it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kino_graph::Key;
use kino_node::Cancel;

/// Stops one run.
#[derive(Debug, Default)]
pub struct StopSignal {
    cancel: Cancel,
    /// Whether it can only be stopped altogether, so that nobody asks for its steps.
    whole: bool,
    superseded: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Set once the run is superseded: the steps that may end what they are doing.
    keep: Option<HashSet<Key>>,
    /// The steps that are being computed, each with its own flag.
    running: HashMap<u32, (Key, Cancel)>,
}

impl StopSignal {
    /// Stops the run when `cancel` is raised.
    pub fn new(cancel: &Cancel) -> Self {
        StopSignal { cancel: cancel.clone(), ..StopSignal::default() }
    }

    /// Stops the run when `cancel` is raised; it makes way for no other.
    pub fn whole(cancel: &Cancel) -> Self {
        StopSignal { cancel: cancel.clone(), whole: true, ..StopSignal::default() }
    }

    /// Stops the whole run.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Makes way for a newer run: no further step begins, and steps that are being computed are
    /// cancelled, but for those with one of these keys. Their results go to the caches, and to runs
    /// that wait for them.
    ///
    /// May be called again for a still newer run.
    pub fn supersede(&self, keep: impl IntoIterator<Item = Key>) {
        let keep: HashSet<Key> = keep.into_iter().collect();
        let mut state = self.state();
        for (key, cancel) in state.running.values() {
            if !keep.contains(key) {
                cancel.cancel();
            }
        }
        state.keep = Some(keep);
        self.superseded.store(true, Ordering::Relaxed);
    }

    /// Whether no further step may begin.
    pub(crate) fn is_stopping(&self) -> bool {
        self.superseded.load(Ordering::Relaxed) || self.cancel.is_cancelled()
    }

    /// A step begins: its own flag, until the guard is dropped.
    pub(crate) fn begin(&self, step: u32, key: Key) -> Begun<'_> {
        if self.whole {
            return Begun { stop: self, step, own: None };
        }
        let cancel = self.cancel.child();
        let mut state = self.state();
        if state.keep.as_ref().is_some_and(|keep| !keep.contains(&key)) {
            cancel.cancel();
        }
        state.running.insert(step, (key, cancel.clone()));
        drop(state);
        Begun { stop: self, step, own: Some(cancel) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A step that is being computed.
pub(crate) struct Begun<'s> {
    stop: &'s StopSignal,
    step: u32,
    /// Its own flag; none where the run is stopped altogether or not at all.
    own: Option<Cancel>,
}

impl Begun<'_> {
    /// The flag that stops the step.
    pub(crate) fn cancel(&self) -> &Cancel {
        self.own.as_ref().unwrap_or(&self.stop.cancel)
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if self.own.is_some() {
            self.stop.state().running.remove(&self.step);
        }
    }
}
