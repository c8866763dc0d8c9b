//! Steps in flight: what one step is computing, another one of the same key waits for rather than
//! computes again, be it of another run of the same runtime or of the same plan.

use std::collections::BTreeMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kino_node::{Cancel, GraphId, Outputs, Result, RunId};

use crate::by_key::ByKey;
use crate::stop::StopSignal;
use crate::wanted::{covers, has};

/// How often a step that waits for another one looks whether its run was cancelled.
const LOOK: Duration = Duration::from_millis(20);

/// The steps in flight of all runs.
#[derive(Default)]
pub(crate) struct InFlight {
    by_key: Mutex<ByKey<Arc<Computation>>>,
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
///
/// Few plans have any, so a step that has none is told without a lock.
#[derive(Default)]
pub(crate) struct Twins {
    /// By step: which of `groups` it is of; empty where there are none.
    group: Vec<Option<u32>>,
    groups: Vec<Group>,
}

/// Steps of one key.
struct Group {
    /// The outputs that any of them is wanted for.
    wanted: Vec<bool>,
    held: Mutex<Held>,
}

struct Held {
    /// How many steps have not taken the outputs yet.
    left: usize,
    outputs: Option<Outputs>,
}

impl Twins {
    /// Finds the keys that several of so many steps have; `some` are the steps that count, each
    /// with its key and the outputs wanted.
    pub(crate) fn new<'k>(
        steps: usize,
        some: impl Iterator<Item = (usize, &'k [u8; 32], &'k [bool])>,
    ) -> Self {
        let mut twins = Twins::default();
        // The first step of each key, with what it is wanted for.
        let mut firsts: ByKey<(usize, &[bool])> = ByKey::default();
        firsts.reserve(steps);
        for (step, key, wanted) in some {
            let first = match firsts.entry(*key) {
                Entry::Vacant(vacant) => {
                    vacant.insert((step, wanted));
                    continue;
                }
                Entry::Occupied(first) => *first.get(),
            };
            twins.group.resize(steps, None);
            let next = twins.groups.len() as u32;
            let group = *twins.group[first.0].get_or_insert(next);
            if group == next {
                twins.groups.push(Group::of(first.1));
            }
            twins.group[step] = Some(group);
            twins.groups[group as usize].add(wanted);
        }
        twins
    }

    fn group(&self, step: usize) -> Option<&Group> {
        let group = (*self.group.get(step)?)?;
        self.groups.get(group as usize)
    }

    /// The outputs that any step of this one's key is wanted for, if several have it.
    pub(crate) fn wanted(&self, step: usize) -> Option<&[bool]> {
        self.group(step).map(|group| &*group.wanted)
    }

    /// The outputs that another step of this one's key left, if they have all that is wanted.
    pub(crate) fn find(&self, step: usize, wanted: &[bool]) -> Option<Outputs> {
        let outputs = lock(&self.group(step)?.held).outputs.clone()?;
        has(&outputs, wanted).then_some(outputs)
    }

    /// A step has its outputs: they stay for the others of its key, if there are any left.
    pub(crate) fn leave(&self, step: usize, outputs: &Outputs) {
        let Some(group) = self.group(step) else { return };
        let mut held = lock(&group.held);
        held.left = held.left.saturating_sub(1);
        held.outputs = (held.left > 0).then(|| outputs.clone());
    }
}

impl Group {
    fn of(wanted: &[bool]) -> Self {
        let held = Mutex::new(Held { left: 1, outputs: None });
        Group { wanted: wanted.to_vec(), held }
    }

    fn add(&mut self, wanted: &[bool]) {
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner);
        held.left += 1;
        self.wanted.iter_mut().zip(wanted).for_each(|(all, own)| *all |= own);
    }
}
