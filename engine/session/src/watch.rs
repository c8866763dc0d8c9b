//! Runs a graph, and again whatever changes.
//!
//! One thread waits for signals: files changed, a run ended, an end is asked for. After a change
//! everything is read anew; what checks and plans becomes the current revision, and its run begins
//! at once. The run before it makes way: it starts no further step, and what it is computing is
//! cancelled unless the new run needs just that, which then waits for it rather than computes it
//! again.

mod event;
mod reader;
mod runs;
mod signal;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use kino_node::{Cancel, FilePolicy};
use kino_world::{FileChange, FileWatch};

use crate::core::Core;
use crate::error::{Error, Result};
use crate::events::EventQueue;
use crate::graph::random_seed;
use crate::inputs::Inputs;
use crate::loaded::Planned;
use crate::plan::Plan;
use crate::source;
pub use event::WatchEvent;
use reader::{Reader, Reading, differ};
use runs::Runs;
use signal::Signal;

/// Files may appear in a plan as long as others appear; nobody means that to go on for ever.
const MAX_LOOKS: usize = 8;

/// A listener that has not heard of so many events is told of no newer revision.
const MAX_UNHEARD: usize = 1024;
/// How often is looked whether a listener goes on.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How often is looked, while nothing happens, whether something need not be kept any more.
const IDLE: Duration = Duration::from_secs(10);

/// A watch that is to be started.
#[must_use = "nothing is watched until it is started"]
pub struct WatchRequest {
    reader: Reader,
    stop: WatchStop,
    inbox: Receiver<Signal>,
}

/// Ends a watch. Clones end the same one.
#[derive(Clone)]
pub struct WatchStop {
    cancel: Cancel,
    signals: Sender<Signal>,
}

impl WatchStop {
    /// Cancels what runs, and ends the watch.
    pub fn stop(&self) {
        self.cancel.cancel();
        let _ = self.signals.send(Signal::Stopped);
    }
}

impl WatchRequest {
    pub(crate) fn new(core: Arc<Core>, graph: PathBuf, policy: FilePolicy) -> Self {
        let (signals, inbox) = mpsc::channel();
        let cancel = Cancel::default();
        let reader = Reader {
            core,
            graph,
            policy,
            inputs: Inputs::new(),
            out: PathBuf::from("out"),
            until: None,
            overwrites: false,
            session_seed: random_seed(),
            cancel: cancel.clone(),
        };
        WatchRequest { reader, stop: WatchStop { cancel, signals }, inbox }
    }

    /// Values of inputs, read by the types that each revision declares.
    pub fn inputs(mut self, inputs: Inputs) -> Self {
        self.reader.inputs = inputs;
        self
    }

    /// Where files are written; `out` unless said otherwise.
    pub fn out(mut self, folder: impl Into<PathBuf>) -> Self {
        self.reader.out = folder.into();
        self
    }

    /// Only this node, and what it needs.
    pub fn until(mut self, node: Option<&str>) -> Self {
        self.reader.until = node.map(str::to_owned);
        self
    }

    /// Whether it may replace files that this graph did not write, as [`RunRequest::overwrite`].
    ///
    /// [`RunRequest::overwrite`]: crate::RunRequest::overwrite
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.reader.overwrites = overwrite;
        self
    }

    /// Ends it, from any thread.
    pub fn stopper(&self) -> WatchStop {
        self.stop.clone()
    }

    /// Watches until it is stopped, and tells what happens. The listener is called on a thread of
    /// its own; while it is slow, it misses progress and nothing else; while it is very slow, what
    /// stands in the files is looked at once it goes on.
    ///
    /// # Errors
    /// When there is no such graph to begin with, or files cannot be watched.
    pub fn run(self, listener: impl FnMut(WatchEvent) + Send + 'static) -> Result<()> {
        let WatchRequest { reader, stop, inbox } = self;
        let world = |error: std::io::Error| Error::world(error.to_string());
        source::open(&reader.graph)?;
        let events = Arc::new(EventQueue::start(listener).map_err(world)?);
        let changed = stop.signals.clone();
        let files = FileWatch::start(move |changes| drop(changed.send(Signal::Changed(changes))));
        let files = files.map_err(|error| Error::world(error.to_string()))?;
        let runs = Runs::new(&reader.core, &events, &stop.cancel, &stop.signals);
        let mut watch = Watch {
            reader: Arc::new(reader),
            events: Arc::clone(&events),
            files,
            watched: BTreeSet::new(),
            current: None,
            runs,
        };
        watch.look();
        watch.until_stopped(&inbox);
        events.finish();
        Ok(())
    }
}

/// A watch under way.
struct Watch {
    reader: Arc<Reader>,
    events: Arc<EventQueue<WatchEvent>>,
    files: FileWatch,
    watched: BTreeSet<PathBuf>,
    /// The last that checked and planned.
    current: Option<Arc<Planned>>,
    runs: Runs,
}

impl Watch {
    fn until_stopped(mut self, inbox: &Receiver<Signal>) {
        let mut changed = BTreeMap::new();
        loop {
            let wait = if changed.is_empty() { IDLE } else { POLL_INTERVAL };
            match inbox.recv_timeout(wait) {
                Ok(Signal::Changed(changes)) => {
                    self.runs.doubt(&changes);
                    merge(&mut changed, changes);
                }
                Ok(Signal::Ended(ended)) => {
                    if self.runs.end(&ended) {
                        let plan = Plan { planned: ended.planned };
                        self.events.push(match ended.done {
                            Ok(done) => WatchEvent::RunResult { plan, done },
                            Err(error) => WatchEvent::Failed { error, has_last: true },
                        });
                        self.waiting();
                    }
                }
                Ok(Signal::Stopped) | Err(RecvTimeoutError::Disconnected) => {
                    return self.runs.stop();
                }
                Err(RecvTimeoutError::Timeout) => self.runs.prune(),
            }
            // A listener that stalls is told of what stands there when it goes on: revisions that
            // it has not heard of are not piled up.
            if !changed.is_empty() && self.events.waiting() < MAX_UNHEARD {
                let changes = std::mem::take(&mut changed);
                self.events.push(WatchEvent::Changed(changes.into_values().collect()));
                self.look();
            }
        }
    }

    fn waiting(&self) {
        self.events.push(WatchEvent::Waiting(self.watched.clone()));
    }

    /// Reads what stands there now, and runs what is new of it.
    fn look(&mut self) {
        let reading = self.read();
        match reading.found {
            Ok(planned) => self.take_on(planned),
            Err(Error::Cancelled) => return,
            Err(error) => {
                let has_last = self.current.is_some();
                self.events.push(WatchEvent::Failed { error, has_last });
                self.look_at_last();
            }
        }
        if !self.runs.is_running() {
            self.waiting();
        }
    }

    /// Reads until all that the reading depends on is watched, so that no change is lost between.
    fn read(&mut self) -> Reading {
        let mut looks = 0;
        loop {
            let reading = self.reader.read();
            let mut files = reading.files.clone();
            if reading.found.is_err() {
                // The last good graph goes on, with whatever it reads.
                files.extend(self.watched.iter().cloned());
            }
            let grew = self.files.set(files.iter().cloned());
            self.watched = files;
            looks += 1;
            if !grew || looks == MAX_LOOKS {
                return reading;
            }
        }
    }

    /// The graph as it stands is no good: the last good one goes on with what it reads.
    fn look_at_last(&mut self) {
        let Some(last) = self.current.clone() else { return };
        match self.reader.read_again(&last.loaded).found {
            Ok(planned) if differ(&planned.plan, &last.plan) => self.take_on(planned),
            Ok(_) => {}
            Err(error) => tracing::debug!("The last good graph does not plan either: {error}."),
        }
    }

    /// Makes a revision the current one, and runs it unless it is what runs or ran already.
    fn take_on(&mut self, new: Planned) {
        let new = Arc::new(new);
        let last = self.current.replace(Arc::clone(&new));
        let status = self.reader.core.runtime.status(&new.plan, &new.loaded.registry);
        if let Some(last) = &last {
            let diff = kino_graph::diff(&last.plan, &new.plan);
            let plan = Plan { planned: Arc::clone(&new) };
            self.events.push(WatchEvent::Diff { diff, plan, status: status.clone() });
            if !differ(&new.plan, &last.plan) && self.runs.is_good() {
                return;
            }
        }
        let warnings = new.plan.warnings.clone();
        if last.is_none_or(|last| last.plan.warnings.list != warnings.list) {
            self.events.push(WatchEvent::Warnings(warnings));
        }
        self.runs.begin(new, &status);
    }
}

/// Adds changes to earlier ones that have not been told: each file is told once.
fn merge(earlier: &mut BTreeMap<PathBuf, FileChange>, changes: Vec<FileChange>) {
    for change in changes {
        match earlier.get_mut(&change.path) {
            Some(known) => known.kind = change.kind,
            None => drop(earlier.insert(change.path.clone(), change)),
        }
    }
}
