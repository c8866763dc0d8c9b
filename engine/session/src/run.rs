//! Runs: under way, and what they left.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use candle_core::Tensor;
use kino_node::{Cancel, FileOut, RunId};
use kino_runtime::{Cached, Event, Report, RunRequest, Stop};

use crate::error::{Error, Result};
use crate::events::{EventQueue, RunEvent};
use crate::loaded::Planned;
use crate::output::FromOutput;
use crate::provenance::{self, Provenance};

/// Nodes may use much stack.
const STACK: usize = 8 << 20;

/// A file that a run wrote, or found up to date.
#[derive(Clone, Debug)]
pub struct Written {
    /// The file.
    pub file: FileOut,
    /// Whether this run wrote it.
    pub is_new: bool,
}

/// What a run left.
#[derive(Clone, Debug)]
pub struct Done {
    /// Outputs, what was computed, what was cached, what failed.
    pub report: Report,
    /// The files, in the order in which they were written.
    pub files: Vec<Written>,
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

impl Done {
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
            Error::usage(format!("the output `{name}` is {}, not {}", value.kind(), T::NAME))
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

/// Runs a plan to its end, or until it is stopped.
pub(crate) fn run_to_end(
    planned: &Planned,
    id: RunId,
    stop: &Stop,
    listener: Option<Listener<'_>>,
) -> Done {
    let Planned { loaded, services, plan } = planned;
    let core = &loaded.core;
    let made = Provenance::of(plan, core.device);
    let embedded_workflow = provenance::write(plan.embedded_workflow(), &made);
    let files = Mutex::new(Vec::new());
    let lock = || files.lock().unwrap_or_else(PoisonError::into_inner);
    let events = |event: Event| {
        if let Event::Finished { files: written, cached, .. } = &event
            && !written.is_empty()
        {
            let is_new = *cached == Cached::None;
            lock().extend(written.iter().map(|file| Written { file: file.clone(), is_new }));
        }
        if let Some(listener) = listener {
            listener(RunEvent { event, run: id });
        }
    };
    let services = services.layer().with(Arc::new(id));
    let request = RunRequest::new(plan, &loaded.registry, &services, stop);
    let embedded_workflow = &*embedded_workflow;
    let request = RunRequest { embedded_workflow, events: &events, id, ..request };
    core.base(); // before anything of it runs
    let report = core.runtime.run(request);
    let files = std::mem::take(&mut *lock());
    Done {
        peak_memory: core.services.ledger.peak(),
        predicted_memory: core.peak_of_process(report.forecast),
        process_memory: kino_runtime::peak_of_process(),
        report,
        files,
    }
}

#[derive(Default)]
struct End {
    done: Mutex<Option<Arc<Done>>>,
    told: Condvar,
}

/// A run under way. Clones are the same run; it goes on when all of them are dropped.
#[derive(Clone)]
pub struct Run {
    id: RunId,
    cancel: Cancel,
    end: Arc<End>,
}

impl Run {
    /// Starts a run on a thread of its own.
    pub(crate) fn start(
        planned: Arc<Planned>,
        listener: Option<Box<dyn FnMut(RunEvent) + Send>>,
        cancel: Cancel,
    ) -> Result<Run> {
        let failed =
            |error: std::io::Error| Error::world(format!("no thread could be started: {error}"));
        let queue = listener.map(EventQueue::start).transpose().map_err(failed)?;
        let (id, end) = (RunId::next(), Arc::new(End::default()));
        let run = Run { id, cancel: cancel.clone(), end: Arc::clone(&end) };
        let go = move || {
            let stop = Stop::whole(&cancel);
            let done = match &queue {
                Some(queue) => {
                    let done = run_to_end(&planned, id, &stop, Some(&|event| queue.push(event)));
                    queue.finish();
                    done
                }
                None => run_to_end(&planned, id, &stop, None),
            };
            *end.done.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(done));
            end.told.notify_all();
        };
        let thread = std::thread::Builder::new().name("run".into()).stack_size(STACK);
        thread.spawn(go).map_err(failed)?;
        Ok(run)
    }

    /// What tells it from other runs.
    pub fn id(&self) -> RunId {
        self.id
    }

    /// Cancels it: nodes stop at the next piece of work.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Whether it is over.
    pub fn is_done(&self) -> bool {
        self.end.done.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Waits for its end, whatever it is: also a run that failed or was cancelled has results. All
    /// events have been heard by then.
    pub fn finish(&self) -> Arc<Done> {
        let mut done = self.end.done.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &*done {
                Some(done) => return Arc::clone(done),
                None => done = self.end.told.wait(done).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When nodes failed, or it was cancelled. [`Run::finish`] gives what it left all the same.
    pub fn wait(&self) -> Result<Arc<Done>> {
        let done = self.finish();
        match &done.report {
            report if !report.failed.is_empty() => Err(Error::Nodes(report.failed.clone())),
            report if report.cancelled => Err(Error::Cancelled),
            _ => Ok(done),
        }
    }
}
