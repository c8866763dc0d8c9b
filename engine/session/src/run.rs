//! Runs: under way, and what they left.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use candle_core::Tensor;
use kino_node::{Cancel, OutputFile, RunId};
use kino_runtime::{Cached, Event, Report, RunSpec, StopSignal};
use kino_world::Folders;

use crate::error::{Error, Result};
use crate::events::{EventQueue, RunEvent};
use crate::loaded::Planned;
use crate::output::FromOutput;
use crate::outputs::{self, FileState, OutputWatch};
use crate::provenance::{self, Provenance};

/// Nodes may use much stack.
const STACK: usize = 8 << 20;

/// A file that a run wrote, or found up to date.
#[derive(Clone, Debug)]
pub struct WrittenFile {
    /// The file.
    pub file: OutputFile,
    /// Whether this run wrote it, and in the place of another.
    pub state: FileState,
}

/// What a run left.
#[derive(Clone, Debug)]
pub struct RunResult {
    /// Outputs, what was computed, what was cached, what failed.
    pub report: Report,
    /// The files, in the order in which they were written.
    pub files: Vec<WrittenFile>,
    /// The most memory that all runs of the engine together have used so far, in bytes, as the
    /// ledger counts it.
    pub peak_memory: u64,
    /// The most memory that the process was expected to take while this ran, as [`Plan::peak_memory`]
    /// says it.
    ///
    /// [`Plan::peak_memory`]: crate::Plan::peak_memory
    pub predicted_memory: u64,
    /// The most memory that the process ever took, where the system says.
    pub process_memory: Option<u64>,
}

impl RunResult {
    /// An output of the graph, as frames, a tensor, a path, a number, or whatever it is.
    ///
    /// # Errors
    /// When there is no such output, or it is something else.
    pub fn output<T: FromOutput>(&self, name: &str) -> Result<T> {
        let Some(value) = self.report.output(name) else {
            let names: Vec<_> = self.report.outputs.iter().map(|(name, _)| &**name).collect();
            let error = Error::usage(format!("the run has no output `{name}`"));
            return Err(error.advising(format!("it has {}", names.join(", "))));
        };
        T::from_output(value).ok_or_else(|| {
            Error::usage(format!("the output `{name}` is {}, not {}", value.type_name(), T::NAME))
        })
    }

    /// An output as a tensor.
    ///
    /// # Errors
    /// When there is no such output, or it is no tensor.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        self.output(name)
    }

    /// Where the file of an output lies.
    ///
    /// # Errors
    /// When there is no such output, or it is no file.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        self.output(name)
    }
}

/// Where events of a run go; called from several threads, and must not wait.
pub(crate) type Listener<'a> = &'a (dyn Fn(RunEvent) + Sync);

/// The folders of a run that writes anything.
fn folders_of(planned: &Planned) -> Option<Arc<Folders>> {
    let writes = planned.plan.steps.iter().any(|step| step.traits.sink);
    writes.then(|| planned.services.find::<Folders>()).flatten()
}

/// Runs a plan to its end, or until it is stopped.
pub(crate) fn run_to_end(
    planned: &Planned,
    id: RunId,
    stop: &StopSignal,
    listener: Option<Listener<'_>>,
) -> RunResult {
    let Planned { loaded, services, plan, overwrites } = planned;
    let core = &loaded.core;
    // Only sinks store it.
    let embedded_workflow = match plan.steps.iter().any(|step| step.traits.sink) {
        true => provenance::write(plan.embedded_workflow(), &Provenance::of(plan, core.device)),
        false => String::new(),
    };
    let (folders, owner) = (folders_of(planned), loaded.source.owner());
    let watched =
        folders.as_ref().map(|folders| OutputWatch::begin(plan, folders, &core.outputs, owner));
    let services = match (&folders, &watched) {
        (Some(folders), Some(watched)) if !overwrites => {
            let before = watched.before.clone();
            let guard = outputs::guard(core, plan, folders, owner, before);
            &Arc::new(services.layer().with(Arc::new(guard)))
        }
        _ => services,
    };
    let files = Mutex::new(Vec::new());
    let lock = || files.lock().unwrap_or_else(PoisonError::into_inner);
    let events = |event: Event| {
        if let Event::Finished { name, files: written, cached, .. } = &event
            && !written.is_empty()
            && let Some(watched) = &watched
        {
            let states = watched.finished(name, written, *cached != Cached::None);
            let files = written.iter().cloned().zip(states);
            lock().extend(files.map(|(file, state)| WrittenFile { file, state }));
        }
        if let Some(listener) = listener {
            listener(RunEvent { event, run: id });
        }
    };
    let (registry, embedded_workflow) = (&*loaded.registry, &*embedded_workflow);
    core.base(); // before anything of it runs
    let report = core.runtime.run(RunSpec {
        plan,
        registry,
        services,
        stop,
        embedded_workflow,
        events: &events,
        id,
    });
    let files = std::mem::take(&mut *lock());
    RunResult {
        peak_memory: core.services.ledger.peak(),
        predicted_memory: core.peak_of_process(report.forecast),
        process_memory: kino_runtime::peak_of_process(),
        report,
        files,
    }
}

/// Does what a run consists of. A panic of the engine itself is an error of the run: whoever waits
/// for its end must not wait for ever.
pub(crate) fn guarded<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        Err(Error::world("the engine panicked in this run")
            .advising("this is a bug of Kinograph; please report it"))
    })
}

fn no_thread(error: std::io::Error) -> Error {
    Error::world(format!("no thread could be started: {error}"))
}

/// Plans and runs; events go to the queue, if there is one.
fn work(
    plan: impl FnOnce() -> Result<Arc<Planned>>,
    id: RunId,
    queue: Option<&EventQueue<RunEvent>>,
    cancel: &Cancel,
) -> Result<Arc<RunResult>> {
    let stop = StopSignal::whole(cancel);
    guarded(|| {
        let planned = plan()?;
        let push = queue.map(|queue| |event| queue.push(event));
        let listener = push.as_ref().map(|push| push as Listener<'_>);
        Ok(Arc::new(run_to_end(&planned, id, &stop, listener)))
    })
}

/// How a run ended.
#[derive(Default)]
struct End {
    state: Mutex<EndState>,
    told: Condvar,
}

#[derive(Default)]
struct EndState {
    done: Option<Result<Arc<RunResult>>>,
    /// The listener has heard all events, or there is none.
    heard: bool,
}

impl End {
    fn state(&self) -> MutexGuard<'_, EndState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, change: impl FnOnce(&mut EndState)) {
        change(&mut self.state());
        self.told.notify_all();
    }
}

/// A run under way. Clones are the same run; it goes on when all of them are dropped.
#[derive(Clone)]
pub struct Run {
    id: RunId,
    cancel: Cancel,
    end: Arc<End>,
    /// The thread on which the listener is called.
    listener: Option<ThreadId>,
}

impl Run {
    /// Starts a run on a thread of its own, which plans it first.
    pub(crate) fn start(
        plan: impl FnOnce() -> Result<Arc<Planned>> + Send + 'static,
        listener: Option<Box<dyn FnMut(RunEvent) + Send>>,
        cancel: Cancel,
    ) -> Result<Run> {
        let queue = listener.map(EventQueue::start).transpose().map_err(no_thread)?;
        let (id, end) = (RunId::next(), Arc::new(End::default()));
        let listener = queue.as_ref().and_then(EventQueue::thread);
        let run = Run { id, cancel: cancel.clone(), end: Arc::clone(&end), listener };
        let go = move || {
            let done = work(plan, id, queue.as_ref(), &cancel);
            end.enter(|state| state.done = Some(done));
            if let Some(queue) = &queue {
                queue.finish();
            }
            end.enter(|state| state.heard = true);
        };
        let thread = std::thread::Builder::new().name("run".into()).stack_size(STACK);
        thread.spawn(go).map_err(no_thread)?;
        Ok(run)
    }

    /// Runs on this thread: a thread more costs as much as a hundred trivial nodes. When it is over,
    /// the listener, which has a thread of its own, has heard all.
    pub(crate) fn here(
        plan: impl FnOnce() -> Result<Arc<Planned>>,
        listener: Option<Box<dyn FnMut(RunEvent) + Send>>,
        cancel: &Cancel,
    ) -> Result<Arc<RunResult>> {
        let queue = listener.map(EventQueue::start).transpose().map_err(no_thread)?;
        let done = work(plan, RunId::next(), queue.as_ref(), cancel);
        if let Some(queue) = &queue {
            queue.finish();
        }
        done
    }

    /// What tells it from other runs.
    pub fn id(&self) -> RunId {
        self.id
    }

    /// Cancels it: planning ends, and nodes stop at the next piece of work.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Whether it is over; its listener may still be hearing of it.
    pub fn is_done(&self) -> bool {
        self.end.state().done.is_some()
    }

    /// What it left, once it is over. Waits for nobody, its listener included.
    pub fn result(&self) -> Option<Result<Arc<RunResult>>> {
        self.end.state().done.clone()
    }

    /// Waits for its end: also a run that failed or was cancelled has results. All events have been
    /// heard by then, so it waits for a listener that is slow; [`Run::result`] does not. The
    /// listener itself may call it: it then waits for the run alone, and hears the rest later.
    ///
    /// # Errors
    /// When it did not begin: everything that stands against the plan, or that it was cancelled
    /// before there was one.
    pub fn finish(&self) -> Result<Arc<RunResult>> {
        let hears = self.listener == Some(std::thread::current().id());
        let mut state = self.end.state();
        loop {
            match &state.done {
                Some(done) if state.heard || hears => return done.clone(),
                _ => state = self.end.told.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Waits for its end, as [`Run::finish`] does.
    ///
    /// # Errors
    /// When something stands against its plan, nodes failed, or it was cancelled. [`Run::finish`]
    /// gives what it left all the same.
    pub fn wait(&self) -> Result<Arc<RunResult>> {
        let done = self.finish()?;
        match &done.report {
            report if !report.failed.is_empty() => Err(Error::Nodes(report.failed.clone())),
            report if report.cancelled => Err(Error::Cancelled),
            _ => Ok(done),
        }
    }
}
