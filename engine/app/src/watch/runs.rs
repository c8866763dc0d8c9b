//! The runs of a watch: the current one, and those before it that make way.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kino_graph::{Input, Key, Plan};
use kino_node::Cancel;
use kino_runtime::{CacheStatus, Stop};
use kino_world::Change;

use super::Signal;
use super::reading::Generation;
use super::view::View;
use crate::engine::Engine;
use crate::run::outcome::{Outcome, Turn};
use crate::run::preview::Previews;

/// Nodes may use much stack.
const STACK: usize = 8 << 20;
/// A change is told so long after it happened at most; until then what a run read is in doubt.
const DOUBTFUL: Duration = Duration::from_secs(10);

/// A run that ended.
pub(super) struct Ended {
    number: u64,
    pub(super) generation: Arc<Generation>,
    pub(super) outcome: Outcome,
    at: Instant,
}

/// A run under way.
struct Running {
    number: u64,
    generation: Arc<Generation>,
    stop: Arc<Stop>,
    thread: JoinHandle<()>,
    /// Steps that may have read something else than they were planned with.
    doubtful: HashSet<Key>,
}

/// What a run computed that ended a short while ago.
struct Past {
    at: Instant,
    generation: Arc<Generation>,
    evaluated: HashSet<Key>,
}

/// All runs of a watch.
pub(super) struct Runs {
    engine: Arc<Engine>,
    view: Arc<View>,
    previews: Option<Arc<Previews>>,
    cancel: Cancel,
    signals: Sender<Signal>,
    running: Vec<Running>,
    past: Vec<Past>,
    /// The number of the last run that began.
    last: u64,
    /// Whether that one left nothing to be done.
    good: bool,
}

impl Runs {
    pub(super) fn new(
        engine: &Arc<Engine>,
        view: &Arc<View>,
        previews: Option<Previews>,
        cancel: &Cancel,
        signals: &Sender<Signal>,
    ) -> Self {
        Runs {
            engine: Arc::clone(engine),
            view: Arc::clone(view),
            previews: previews.map(Arc::new),
            cancel: cancel.clone(),
            signals: signals.clone(),
            running: Vec::new(),
            past: Vec::new(),
            last: 0,
            good: false,
        }
    }

    /// Whether the last run that began is under way.
    pub(super) fn is_running(&self) -> bool {
        self.running.iter().any(|run| run.number == self.last)
    }

    /// Whether the last run did all that it should, or still may.
    pub(super) fn is_good(&self) -> bool {
        self.good || self.is_running()
    }

    /// Begins a run; those before it make way.
    pub(super) fn begin(&mut self, generation: Arc<Generation>, status: &[CacheStatus]) {
        let steps = generation.plan.steps.iter().zip(status);
        let needed = steps.filter(|(_, own)| matches!(own, CacheStatus::Run | CacheStatus::Lazy));
        let needed: Vec<Key> = needed.map(|(step, _)| step.key).collect();
        for run in &self.running {
            let doubtful = |key: &&Key| !run.doubtful.contains(*key);
            run.stop.supersede(needed.iter().filter(doubtful).copied());
        }
        self.last += 1;
        self.good = false;
        let number = self.last;
        let stop = Arc::new(Stop::new(&self.cancel));
        let thread = self.thread(number, Arc::clone(&generation), Arc::clone(&stop));
        if let Some(thread) = thread {
            let doubtful = HashSet::new();
            self.running.push(Running { number, generation, stop, thread, doubtful });
        }
    }

    fn thread(
        &self,
        number: u64,
        generation: Arc<Generation>,
        stop: Arc<Stop>,
    ) -> Option<JoinHandle<()>> {
        let (engine, view) = (Arc::clone(&self.engine), Arc::clone(&self.view));
        let (previews, signals) = (self.previews.clone(), self.signals.clone());
        let take = move || {
            let plan = &generation.plan;
            let turn = Turn { engine: &engine, registry: &generation.sheet.registry, plan };
            let see = |event: &_| view.see(number, event);
            let outcome = turn.take(&stop, previews.as_deref(), &see);
            let at = Instant::now();
            let ended = Ended { number, generation, outcome, at };
            let _ = signals.send(Signal::Ended(Box::new(ended)));
        };
        let thread = std::thread::Builder::new().name("run".into()).stack_size(STACK);
        let failed = |error: &std::io::Error| {
            tracing::error!("No thread could be started: {error}. Nothing runs until a change.");
        };
        thread.spawn(take).inspect_err(failed).ok()
    }

    /// Enters the end of a run, and returns whether its outcome is worth telling: that of a run
    /// which made way is not what stands there now.
    pub(super) fn end(&mut self, ended: &Ended) -> bool {
        let Some(at) = self.running.iter().position(|run| run.number == ended.number) else {
            return false;
        };
        let run = self.running.swap_remove(at);
        let _ = run.thread.join();
        let report = &ended.outcome.report;
        let evaluated: HashSet<_> = report.evaluated.iter().collect();
        let steps = ended.generation.plan.steps.iter();
        let evaluated = steps.filter(|step| evaluated.contains(&step.name)).map(|step| step.key);
        let evaluated: HashSet<Key> = evaluated.collect();
        self.forget(evaluated.intersection(&run.doubtful).copied());
        let now = Instant::now();
        self.past.retain(|past| now.duration_since(past.at) < DOUBTFUL);
        let generation = Arc::clone(&ended.generation);
        self.past.push(Past { at: ended.at, generation, evaluated });
        if ended.number != self.last {
            return false;
        }
        self.good = report.is_complete();
        !report.cancelled
    }

    /// Files changed while a run may have been reading them: what it made of them is not what it
    /// was planned to be, and must not be found under its key again.
    pub(super) fn doubt(&mut self, changes: &[Change]) {
        for run in &mut self.running {
            run.doubtful.extend(dependents(&run.generation, changes.iter()));
        }
        let mut forget = HashSet::new();
        for past in &self.past {
            let during = changes.iter().filter(|change| change.since <= past.at);
            let doubtful = dependents(&past.generation, during);
            forget.extend(past.evaluated.intersection(&doubtful).copied());
        }
        self.forget(forget.into_iter());
    }

    fn forget(&self, keys: impl Iterator<Item = Key>) {
        keys.for_each(|key| self.engine.runtime.forget(&key));
    }

    /// Stops all runs and waits for their ends.
    pub(super) fn stop(&mut self) {
        self.cancel.cancel();
        for run in self.running.drain(..) {
            let _ = run.thread.join();
        }
    }
}

/// The keys of all steps that read one of the changed paths, and of those behind them.
fn dependents<'c>(
    generation: &Generation,
    changes: impl Iterator<Item = &'c Change>,
) -> HashSet<Key> {
    let changed: HashSet<&Path> = changes.map(|change| change.path.as_path()).collect();
    if changed.is_empty() {
        return HashSet::new();
    }
    let Plan { steps, .. } = &generation.plan;
    let mut places = HashMap::new();
    let mut touched = vec![false; steps.len()];
    for (at, step) in steps.iter().enumerate() {
        let mut sources = step.inputs.iter().flat_map(Input::sources);
        let behind = sources.any(|source| touched[source.step as usize]);
        touched[at] = behind
            || step.reads.iter().any(|read| {
                let place = places.entry(&read.path);
                let place = place.or_insert_with(|| generation.sheet.place(&read.path));
                place.as_deref().is_some_and(|place| changed.contains(place))
            });
    }
    let touched = steps.iter().zip(touched).filter(|(_, touched)| *touched);
    touched.map(|(step, _)| step.key).collect()
}
