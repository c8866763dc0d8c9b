//! The runs of a watch: the current one, and those before it that make way.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kino_graph::{Key, Plan, StepInput};
use kino_node::{Cancel, RunId};
use kino_runtime::{CacheStatus, Report, StopSignal};
use kino_world::FileChange;

use super::event::WatchEvent;
use super::signal::{Ended, Signal};
use crate::core::Core;
use crate::events::EventQueue;
use crate::loaded::Planned;
use crate::run::{guarded, run_to_end};

/// Nodes may use much stack.
const STACK: usize = 8 << 20;
/// Runs that make way and have not ended: as long as there are so many, a newer one waits.
const MAX_RUNNING: usize = 4;
/// A change is told so long after it happened at most; until then what a run read is in doubt.
const DOUBTFUL: Duration = Duration::from_secs(10);

/// A run under way.
struct Running {
    id: RunId,
    planned: Arc<Planned>,
    stop: Arc<StopSignal>,
    thread: JoinHandle<()>,
    /// Steps that may have read something else than they were planned with.
    doubtful: HashSet<Key>,
}

/// What a run computed that ended a short while ago.
struct Past {
    at: Instant,
    planned: Arc<Planned>,
    evaluated: HashSet<Key>,
}

/// All runs of a watch.
pub(crate) struct Runs {
    core: Arc<Core>,
    events: Arc<EventQueue<WatchEvent>>,
    cancel: Cancel,
    signals: Sender<Signal>,
    running: Vec<Running>,
    /// What runs once one of those has ended that make way.
    next: Option<Arc<Planned>>,
    past: Vec<Past>,
    /// The last run that began.
    last: Option<RunId>,
    /// Whether that one left nothing to be done.
    good: bool,
}

impl Runs {
    pub(crate) fn new(
        core: &Arc<Core>,
        events: &Arc<EventQueue<WatchEvent>>,
        cancel: &Cancel,
        signals: &Sender<Signal>,
    ) -> Self {
        Runs {
            core: Arc::clone(core),
            events: Arc::clone(events),
            cancel: cancel.clone(),
            signals: signals.clone(),
            running: Vec::new(),
            next: None,
            past: Vec::new(),
            last: None,
            good: false,
        }
    }

    /// Whether the last run that began is under way.
    pub(crate) fn is_running(&self) -> bool {
        self.next.is_some() || self.running.iter().any(|run| Some(run.id) == self.last)
    }

    /// Whether the last run did all that it should, or still may.
    pub(crate) fn is_good(&self) -> bool {
        self.good || self.is_running()
    }

    /// Begins a run; those before it make way.
    pub(crate) fn begin(&mut self, planned: Arc<Planned>, status: &[CacheStatus]) {
        let steps = planned.plan.steps.iter().zip(status);
        let needed = steps.filter(|(_, own)| matches!(own, CacheStatus::Run | CacheStatus::Lazy));
        let needed: Vec<Key> = needed.map(|(step, _)| step.key).collect();
        for run in &self.running {
            let doubtful = |key: &&Key| !run.doubtful.contains(*key);
            run.stop.supersede(needed.iter().filter(doubtful).copied());
        }
        self.good = false;
        // A node that does not hear that it is cancelled keeps its run alive. Newer runs are not
        // piled on it: the newest waits, and takes the place of one that waited before.
        if self.running.len() >= MAX_RUNNING {
            self.next = Some(planned);
            return;
        }
        self.next = None;
        self.start(planned);
    }

    fn start(&mut self, planned: Arc<Planned>) {
        let id = RunId::next();
        self.last = Some(id);
        let stop = Arc::new(StopSignal::new(&self.cancel));
        let thread = self.thread(id, Arc::clone(&planned), Arc::clone(&stop));
        if let Some(thread) = thread {
            let doubtful = HashSet::new();
            self.running.push(Running { id, planned, stop, thread, doubtful });
        }
    }

    fn thread(
        &self,
        id: RunId,
        planned: Arc<Planned>,
        stop: Arc<StopSignal>,
    ) -> Option<JoinHandle<()>> {
        let (events, signals) = (Arc::clone(&self.events), self.signals.clone());
        let take = move || {
            let listener = |event| events.push(WatchEvent::Run(event));
            let done = guarded(|| Ok(run_to_end(&planned, id, &stop, Some(&listener))));
            let (at, done) = (Instant::now(), done.map(Arc::new));
            let _ = signals.send(Signal::Ended(Box::new(Ended { id, planned, done, at })));
        };
        let thread = std::thread::Builder::new().name("run".into()).stack_size(STACK);
        let failed = |error: &std::io::Error| {
            tracing::error!("No thread could be started: {error}. Nothing runs until a change.");
        };
        thread.spawn(take).inspect_err(failed).ok()
    }

    /// Enters the end of a run, and returns whether its outcome is worth telling: that of a run
    /// which made way is not what stands there now.
    pub(crate) fn end(&mut self, ended: &Ended) -> bool {
        let Some(at) = self.running.iter().position(|run| run.id == ended.id) else {
            return false;
        };
        let run = self.running.swap_remove(at);
        let _ = run.thread.join();
        let next = self.next.take();
        let was_last = Some(ended.id) == self.last && next.is_none();
        let report = ended.done.as_ref().ok().map(|done| &done.report);
        let evaluated: HashSet<_> = report.iter().flat_map(|report| &report.evaluated).collect();
        let steps = ended.planned.plan.steps.iter();
        let evaluated = steps.filter(|step| evaluated.contains(&step.name)).map(|step| step.key);
        let evaluated: HashSet<Key> = evaluated.collect();
        self.forget(evaluated.intersection(&run.doubtful).copied());
        self.prune();
        let planned = Arc::clone(&ended.planned);
        self.past.push(Past { at: ended.at, planned, evaluated });
        if let Some(next) = next {
            self.start(next);
        }
        if !was_last {
            return false;
        }
        self.good = report.is_some_and(Report::is_complete);
        !report.is_some_and(|report| report.cancelled)
    }

    /// Lets go of runs that ended so long ago that no change is told any more which happened while
    /// they ran.
    pub(crate) fn prune(&mut self) {
        let now = Instant::now();
        self.past.retain(|past| now.duration_since(past.at) < DOUBTFUL);
    }

    /// Files changed while a run may have been reading them: what it made of them is not what it
    /// was planned to be, and must not be found under its key again.
    pub(crate) fn doubt(&mut self, changes: &[FileChange]) {
        for run in &mut self.running {
            run.doubtful.extend(dependents(&run.planned, changes.iter()));
        }
        let mut forget = HashSet::new();
        for past in &self.past {
            let during = changes.iter().filter(|change| change.since <= past.at);
            let doubtful = dependents(&past.planned, during);
            forget.extend(past.evaluated.intersection(&doubtful).copied());
        }
        self.forget(forget.into_iter());
    }

    fn forget(&self, keys: impl Iterator<Item = Key>) {
        keys.for_each(|key| self.core.runtime.forget(&key));
    }

    /// Stops all runs and waits for their ends.
    pub(crate) fn stop(&mut self) {
        self.cancel.cancel();
        for run in self.running.drain(..) {
            let _ = run.thread.join();
        }
    }
}

/// The keys of all steps that read one of the changed paths, and of those behind them.
fn dependents<'c>(
    planned: &Planned,
    changes: impl Iterator<Item = &'c FileChange>,
) -> HashSet<Key> {
    let changed: HashSet<&Path> = changes.map(|change| change.path.as_path()).collect();
    if changed.is_empty() {
        return HashSet::new();
    }
    let Plan { steps, .. } = &planned.plan;
    let mut places = HashMap::new();
    let mut touched = vec![false; steps.len()];
    for (at, step) in steps.iter().enumerate() {
        let mut sources = step.inputs.iter().flat_map(StepInput::sources);
        let behind = sources.any(|source| touched[source.step as usize]);
        touched[at] = behind
            || step.reads.iter().any(|read| {
                let place = places.entry(&read.path);
                let place = place.or_insert_with(|| planned.loaded.path_of_read(&read.path));
                place.as_deref().is_some_and(|place| changed.contains(place))
            });
    }
    let touched = steps.iter().zip(touched).filter(|(_, touched)| *touched);
    touched.map(|(step, _)| step.key).collect()
}
