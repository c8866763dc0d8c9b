//! Steps in flight: what one step is computing, another one of the same key waits for rather than
//! computes again, be it of another run of the same runtime or of the same plan.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kino_node::{Cancel, GraphId, Outputs, Result, RunId};

use crate::stop::StopSignal;
use crate::wanted::{covers, holds};

/// How often a step that waits for another one looks whether its run was cancelled.
const LOOK: Duration = Duration::from_millis(20);

/// The steps in flight of all runs.
#[derive(Default)]
pub(crate) struct InFlight {
    by_key: Mutex<HashMap<[u8; 32], Arc<Computation>>>,
    /// By graph and run: how many sinks are writing.
    sinks: Mutex<BTreeMap<(Option<GraphId>, RunId), usize>>,
    /// Told when a sink has ended.
    written: Condvar,
}

/// One step in flight.
struct Computation {
    wanted: Vec<bool>,
    outcome: Mutex<Outcome>,
    told: Condvar,
}

enum Outcome {
    Pending,
    Done(Outputs),
    /// It failed or was cancelled.
    None,
}

/// Where a step's outputs come from.
pub(crate) enum Computed<'f> {
    /// They are to be computed; others may wait for them until the guard is dropped. There is no
    /// guard where another step of this key computes other outputs.
    Here(Option<InFlightGuard<'f>>),
    /// Another step computed them.
    There(Outputs),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl InFlight {
    /// Waits for the outputs if a step of this key is computing what is wanted; if there is none,
    /// or it does not come to have them, the caller computes them, and `all_wanted` with them.
    /// `kept` says what has been kept of one that ended meanwhile.
    ///
    /// # Errors
    /// When the run that waits is cancelled.
    pub(crate) fn join_or_start(
        &self,
        key: &[u8; 32],
        (wanted, all_wanted): (&[bool], &[bool]),
        cancel: &Cancel,
        kept: impl Fn() -> Option<Outputs>,
    ) -> Result<Computed<'_>> {
        loop {
            let other = match self.enter(key, all_wanted) {
                Ok(other) => other,
                // A step keeps its outputs before it leaves the table, so those of one that has
                // just left are found here.
                Err(guard) => {
                    return Ok(kept().map_or(Computed::Here(Some(guard)), Computed::There));
                }
            };
            if let Some(outputs) = kept() {
                return Ok(Computed::There(outputs));
            }
            if !covers(&other.wanted, wanted) {
                return Ok(Computed::Here(None));
            }
            if let Some(outputs) = other.wait(cancel)? {
                return Ok(Computed::There(outputs));
            }
        }
    }

    /// The step of this key that is in flight; if there is none, a guard for one that now is.
    fn enter(
        &self,
        key: &[u8; 32],
        wanted: &[bool],
    ) -> Result<Arc<Computation>, InFlightGuard<'_>> {
        let mut by_key = lock(&self.by_key);
        if let Some(other) = by_key.get(key) {
            return Ok(Arc::clone(other));
        }
        let computation = Arc::new(Computation::new(wanted));
        by_key.insert(*key, Arc::clone(&computation));
        Err(InFlightGuard { table: self, key: *key, computation })
    }

    /// A sink of a run begins to write, until the guard is dropped.
    pub(crate) fn begin_sink(&self, run: RunId, graph: Option<&GraphId>) -> SinkGuard<'_> {
        let of = (graph.cloned(), run);
        *lock(&self.sinks).entry(of.clone()).or_default() += 1;
        SinkGuard { table: self, of }
    }

    /// Waits until no older run of the same graph is writing: what stands in files is what the
    /// newest run wrote, and a run sees what those before it left. Runs of other graphs go on.
    pub(crate) fn wait_for_older_sinks(
        &self,
        run: RunId,
        graph: Option<&GraphId>,
        stop: &StopSignal,
    ) {
        let older = (graph.cloned(), RunId(0))..(graph.cloned(), run);
        let mut sinks = lock(&self.sinks);
        while sinks.range(older.clone()).next().is_some() && !stop.is_stopping() {
            let waited = self.written.wait_timeout(sinks, LOOK);
            sinks = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A sink that writes.
pub(crate) struct SinkGuard<'f> {
    table: &'f InFlight,
    of: (Option<GraphId>, RunId),
}

impl Drop for SinkGuard<'_> {
    fn drop(&mut self) {
        let mut sinks = lock(&self.table.sinks);
        if let Some(count) = sinks.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                sinks.remove(&self.of);
            }
        }
        drop(sinks);
        self.table.written.notify_all();
    }
}

impl Computation {
    fn new(wanted: &[bool]) -> Self {
        let (wanted, outcome) = (wanted.to_vec(), Mutex::new(Outcome::Pending));
        Computation { wanted, outcome, told: Condvar::new() }
    }

    /// Waits for the outputs; none if the other step did not come to have them.
    fn wait(&self, cancel: &Cancel) -> Result<Option<Outputs>> {
        let mut outcome = lock(&self.outcome);
        loop {
            match &*outcome {
                Outcome::Done(outputs) => return Ok(Some(outputs.clone())),
                Outcome::None => return Ok(None),
                Outcome::Pending => cancel.check()?,
            }
            let waited = self.told.wait_timeout(outcome, LOOK);
            outcome = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A step in flight, for whoever computes it.
pub(crate) struct InFlightGuard<'f> {
    table: &'f InFlight,
    key: [u8; 32],
    computation: Arc<Computation>,
}

impl InFlightGuard<'_> {
    /// Gives the outputs to all who wait for them.
    pub(crate) fn complete(self, outputs: &Outputs) {
        *lock(&self.computation.outcome) = Outcome::Done(outputs.clone());
    }
}

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        lock(&self.table.by_key).remove(&self.key);
        let mut outcome = lock(&self.computation.outcome);
        if matches!(*outcome, Outcome::Pending) {
            *outcome = Outcome::None;
        }
        drop(outcome);
        self.computation.told.notify_all();
    }
}

/// The steps of one plan that have a key in common (common subexpressions): the first one that runs
/// computes what any of them is wanted for, and its outputs are held until the last one took them.
#[derive(Default)]
pub(crate) struct Twins {
    by_key: Mutex<HashMap<[u8; 32], Held>>,
}

struct Held {
    /// The outputs that any of the steps is wanted for.
    wanted: Vec<bool>,
    /// How many steps have not taken the outputs yet.
    left: usize,
    outputs: Option<Outputs>,
}

impl Twins {
    /// Finds the keys that several steps have; `steps` are keys, each with the outputs wanted.
    pub(crate) fn new<'k>(steps: impl Iterator<Item = (&'k [u8; 32], &'k [bool])>) -> Self {
        let mut by_key: HashMap<[u8; 32], Held> = HashMap::new();
        for (key, wanted) in steps {
            let new = || Held { wanted: vec![false; wanted.len()], left: 0, outputs: None };
            let held = by_key.entry(*key).or_insert_with(new);
            held.left += 1;
            held.wanted.iter_mut().zip(wanted).for_each(|(all, own)| *all |= own);
        }
        by_key.retain(|_, held| held.left > 1);
        Twins { by_key: Mutex::new(by_key) }
    }

    /// The outputs that any step of this key is wanted for, if several have it.
    pub(crate) fn wanted(&self, key: &[u8; 32]) -> Option<Vec<bool>> {
        lock(&self.by_key).get(key).map(|held| held.wanted.clone())
    }

    /// The outputs that another step of this key left, if they have all that is wanted.
    pub(crate) fn find(&self, key: &[u8; 32], wanted: &[bool]) -> Option<Outputs> {
        let outputs = lock(&self.by_key).get(key)?.outputs.clone()?;
        covers(&holds(&outputs), wanted).then_some(outputs)
    }

    /// A step of this key has its outputs: they stay for the others, if there are any left.
    pub(crate) fn leave(&self, key: &[u8; 32], outputs: &Outputs) {
        let mut by_key = lock(&self.by_key);
        let Some(held) = by_key.get_mut(key) else { return };
        held.left = held.left.saturating_sub(1);
        if held.left == 0 {
            by_key.remove(key);
        } else {
            held.outputs = Some(outputs.clone());
        }
    }
}
