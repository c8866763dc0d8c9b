//! The instances that nodes with state keep between runs, or what these saved.
//!
//! State belongs to a step of a graph: two graphs with steps of one name never meet, and what
//! belonged to a graph is gone when the graph is. All builds of a plugin share one [`NodeStates`],
//! so that a newer build finds the state of the one before.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kino_node::{Cancel, Error, GraphId, Result};
use kino_port::PlannedRead;

use crate::module::{CallCx, Instance};

/// Instances that are kept open; of those that ran longest ago, the state is saved instead.
pub(crate) const MAX_OPEN: usize = 64;
/// So many of all plugins of the process together: components have places for twice as many
/// instances, and those that run need some.
pub(crate) const MAX_OPEN_OF_ALL: usize = 128;
/// Steps whose state is kept; what ran longest ago is forgotten.
const MAX_STEPS: usize = 4096;
/// What may be kept of saved state, in bytes; what ran longest ago is forgotten.
const MAX_SAVED: usize = 256 << 20;
/// How often a run that waits for another one looks whether it was cancelled.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Whose state it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StateKey {
    /// The graph; none where a node runs outside of one.
    pub(crate) graph: Option<GraphId>,
    /// The step's name in the graph.
    pub(crate) step: String,
    /// The node's id.
    pub(crate) node: String,
}

/// What is kept of a step.
#[derive(Default)]
pub(crate) enum NodeState {
    /// Nothing.
    #[default]
    Empty,
    /// An instance.
    Open(Box<dyn Instance>, Kept),
    /// What an instance saved before it was closed.
    Saved(Vec<u8>),
}

/// Counts an instance that is kept open, for as long as it is.
pub(crate) struct Kept(());

static KEPT: AtomicUsize = AtomicUsize::new(0);

impl Kept {
    pub(crate) fn new() -> Self {
        KEPT.fetch_add(1, Ordering::Relaxed);
        Kept(())
    }

    /// How many there are in the process.
    fn count() -> usize {
        KEPT.load(Ordering::Relaxed)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        KEPT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The state of a step, and what it was made of.
#[derive(Default)]
pub(crate) struct StepState {
    pub(crate) state: NodeState,
    /// What the plugin could read when the state was made: it is good only beside these files.
    pub(crate) reads: Vec<PlannedRead>,
    /// The build that made it, counted from the first one.
    pub(crate) build: u64,
}

/// The state of all steps that nodes of one plugin have.
#[derive(Default)]
pub(crate) struct NodeStates {
    steps: Mutex<Steps>,
    /// A run has given a step's state back.
    returned: Condvar,
}

#[derive(Default)]
struct Steps {
    by_key: HashMap<StateKey, Slot>,
    /// Counts what is taken: who has the least number ran longest ago.
    clock: u64,
}

struct Slot {
    /// The state; none while a run has it.
    state: Option<StepState>,
    /// When it was taken last; tells the holder from one that took a forgotten step before.
    taken: u64,
}

/// A step's state in the hands of one run. Others wait until this is dropped.
pub(crate) struct Held<'a> {
    states: &'a NodeStates,
    key: StateKey,
    taken: u64,
    /// What is kept when this is dropped.
    pub(crate) step: StepState,
}

impl NodeStates {
    fn lock(&self) -> MutexGuard<'_, Steps> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the state of a step; waits while another run has it.
    ///
    /// # Errors
    /// When the run is cancelled meanwhile.
    pub(crate) fn take(&self, key: StateKey, cancel: &Cancel) -> Result<Held<'_>> {
        let mut steps = self.lock();
        loop {
            steps.clock += 1;
            let taken = steps.clock;
            let step = match steps.by_key.entry(key.clone()) {
                Entry::Vacant(slot) => {
                    slot.insert(Slot { state: None, taken });
                    Some(StepState::default())
                }
                Entry::Occupied(mut slot) => {
                    let step = slot.get_mut().state.take();
                    if step.is_some() {
                        slot.get_mut().taken = taken;
                    }
                    step
                }
            };
            if let Some(step) = step {
                return Ok(Held { states: self, key, taken, step });
            }
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let waited = self.returned.wait_timeout(steps, POLL_INTERVAL);
            steps = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Closes instances and forgets state where there is more than is kept.
    pub(crate) fn trim(&self, plugin: &str, call: &CallCx<'_>) {
        while let Some(mut held) = self.oldest_open() {
            held.step.state = match std::mem::take(&mut held.step.state) {
                NodeState::Open(instance, _kept) => saved(instance, plugin, call),
                other => other,
            };
        }
        let forgotten = self.lock().forget_beyond(MAX_STEPS, MAX_SAVED);
        // Closing runs code of the plugin: not while all others wait.
        drop(forgotten);
    }

    /// The instance that ran longest ago, where too many are open: of this plugin, or of all. In the
    /// second case others may have more, but only a plugin's own run can have it save its state.
    fn oldest_open(&self) -> Option<Held<'_>> {
        let mut steps = self.lock();
        let is_open = |slot: &Slot| {
            slot.state.as_ref().is_some_and(|step| matches!(step.state, NodeState::Open(..)))
        };
        let open = steps.by_key.values().filter(|slot| is_open(slot)).count();
        if open <= MAX_OPEN && Kept::count() <= MAX_OPEN_OF_ALL {
            return None;
        }
        let oldest = steps.by_key.iter_mut().filter(|(_, slot)| is_open(slot));
        let (key, slot) = oldest.min_by_key(|(_, slot)| slot.taken)?;
        let (key, taken) = (key.clone(), slot.taken);
        let step = slot.state.take()?;
        Some(Held { states: self, key, taken, step })
    }

    /// Forgets the state of a graph but for that of steps that `keep` names by step and node. What
    /// a run has just now goes when the run gives it back.
    pub(crate) fn forget(&self, graph: &GraphId, keep: &dyn Fn(&str, &str) -> bool) {
        let goes =
            |key: &StateKey| key.graph.as_ref() == Some(graph) && !keep(&key.step, &key.node);
        let forgotten: Vec<_> = self.lock().by_key.extract_if(|key, _| goes(key)).collect();
        drop(forgotten);
    }
}

impl Steps {
    /// Takes out what ran longest ago until few enough are left.
    fn forget_beyond(&mut self, most: usize, most_saved: usize) -> Vec<Slot> {
        let size = |slot: &Slot| match slot.state.as_ref().map(|step| &step.state) {
            Some(NodeState::Saved(saved)) => saved.len(),
            _ => 0,
        };
        let mut saved: usize = self.by_key.values().map(size).sum();
        let mut forgotten = Vec::new();
        while self.by_key.len() > most || saved > most_saved {
            let too_many = self.by_key.len() > most;
            let goes = |slot: &Slot| slot.state.is_some() && (too_many || size(slot) > 0);
            let oldest = self.by_key.iter().filter(|(_, slot)| goes(slot));
            let Some((key, _)) = oldest.min_by_key(|(_, slot)| slot.taken) else { break };
            let key = key.clone();
            let slot = self.by_key.remove(&key);
            saved -= slot.as_ref().map_or(0, size);
            forgotten.extend(slot);
        }
        forgotten
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let step = std::mem::take(&mut self.step);
        let mut steps = self.states.lock();
        let mut unneeded = None;
        match steps.by_key.get_mut(&self.key) {
            Some(slot) if slot.taken == self.taken => match step.state {
                NodeState::Empty => drop(steps.by_key.remove(&self.key)),
                _ => slot.state = Some(step),
            },
            // The graph was forgotten meanwhile.
            _ => unneeded = Some(step),
        }
        drop(steps);
        self.states.returned.notify_all();
        drop(unneeded);
    }
}

/// What an instance saves as it is closed; nothing where it has no state, or cannot save it.
pub(crate) fn saved(mut instance: Box<dyn Instance>, plugin: &str, call: &CallCx<'_>) -> NodeState {
    match instance.save(call) {
        Ok(Some(saved)) => NodeState::Saved(saved),
        Ok(None) => NodeState::Empty,
        Err(error) => {
            tracing::warn!(plugin, "State is not saved: {error}");
            NodeState::Empty
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(step: &str) -> StateKey {
        let graph = Some(GraphId("a".into()));
        StateKey { graph, step: step.into(), node: "a.node".into() }
    }

    fn save(states: &NodeStates, step: &str, bytes: usize) {
        let mut held = states.take(key(step), &Cancel::default()).unwrap();
        held.step.state = NodeState::Saved(vec![0; bytes]);
    }

    fn has(states: &NodeStates, step: &str) -> bool {
        let held = states.take(key(step), &Cancel::default()).unwrap();
        matches!(held.step.state, NodeState::Saved(_))
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let states = NodeStates::default();
        for step in ["a", "b", "c", "d"] {
            save(&states, step, 10);
        }
        save(&states, "a", 10);
        drop(states.lock().forget_beyond(3, 100));
        assert_eq!(["a", "b", "c", "d"].map(|step| has(&states, step)), [true, false, true, true]);
        save(&states, "c", 95);
        drop(states.lock().forget_beyond(3, 110));
        assert_eq!(["a", "c", "d"].map(|step| has(&states, step)), [false, true, true]);
    }

    /// A run that has state while its graph is closed does not bring it back.
    #[test]
    fn what_is_forgotten_stays_so() {
        let states = NodeStates::default();
        let mut held = states.take(key("a"), &Cancel::default()).unwrap();
        held.step.state = NodeState::Saved(vec![1]);
        states.forget(&GraphId("a".into()), &|_, _| false);
        drop(held);
        assert!(states.lock().by_key.is_empty());
        save(&states, "a", 1);
        states.forget(&GraphId("b".into()), &|_, _| false);
        assert!(has(&states, "a"));
    }

    #[test]
    fn steps_that_a_graph_still_has_keep_their_state() {
        let states = NodeStates::default();
        save(&states, "stays", 1);
        save(&states, "goes", 1);
        states.forget(&GraphId("a".into()), &|step, node| (step, node) == ("stays", "a.node"));
        assert!(has(&states, "stays") && !has(&states, "goes"));
        states.forget(&GraphId("a".into()), &|step, node| (step, node) == ("stays", "a.other"));
        assert!(!has(&states, "stays"), "another node has taken its name");
    }
}
