//! What a node may reach: services, progress, cancelling.

use std::any::{Any, TypeId, type_name};
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use candle_core::Device;
use kino_port::PlannedRead;

use crate::{Answers, Error, Ledger, Result};

/// A flag that stops a run; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<Flag>);

#[derive(Debug, Default)]
struct Flag {
    raised: AtomicBool,
    above: Option<Cancel>,
}

impl Cancel {
    /// A flag that is raised with this one, and can be raised alone.
    pub fn child(&self) -> Self {
        let (raised, above) = (AtomicBool::new(false), Some(self.clone()));
        Cancel(Arc::new(Flag { raised, above }))
    }

    /// Stops everything that watches this flag.
    pub fn cancel(&self) {
        self.0.raised.store(true, Ordering::Relaxed);
    }

    /// Whether the flag is raised.
    pub fn is_cancelled(&self) -> bool {
        let Flag { raised, above } = &*self.0;
        raised.load(Ordering::Relaxed) || above.as_ref().is_some_and(Cancel::is_cancelled)
    }

    /// An error once the flag is raised.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// A small picture of a result in the making.
#[derive(Clone, Debug)]
pub struct Preview {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// RGB, `3·width·height` bytes.
    pub rgb: Arc<[u8]>,
}

/// How far a node is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub of: u64,
    /// What the result looks like by now.
    pub preview: Option<Preview>,
    /// What is to be said of the work when it is done; the rest tells nothing then.
    pub note: Option<String>,
}

/// Tells the runs of a process from each other, those of watches included; a run that began later
/// has a greater number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

impl RunId {
    /// The next number.
    pub fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        RunId(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// Tells graphs from each other, whatever their nodes are called: a service of each run.
///
/// All revisions of one graph, and all runs of them, have the same identity, so that what a node
/// keeps between runs stays with the graph while it is edited. Two graphs never share one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GraphId(pub Arc<str>);

/// Lets what computes below nodes see that their step is cancelled, while it is at work: a service
/// of the process.
///
/// The runtime calls this with the step's flag on the thread of the step, and drops what it gives
/// when the node is done. An operation that ends early gives an error of tensors that says
/// [`std::io::ErrorKind::Interrupted`], which is [`Error::Cancelled`] to a node.
#[derive(Clone, Copy, Debug)]
pub struct CancelScope(pub fn(&Cancel) -> Box<dyn Any>);

/// Removes what killed processes left in a folder: a service of the process.
///
/// Whoever writes a file clears its folder first. Where files are up to date nobody writes, so the
/// runtime calls this with their folders. Files of living processes must stay.
#[derive(Clone, Copy, Debug)]
pub struct RemoveLeftovers(pub fn(&Path));

/// What nodes reach beside their inputs: the device, the memory ledger, and whatever else
/// by its type.
///
/// There are two layers. What a process has once (models, hashes of files) is shared by all runs;
/// what belongs to one run (its folders, its identity) lies over it, see [`Services::layer`].
pub struct Services {
    /// Where tensors are computed.
    pub device: Device,
    /// Who holds how much main memory.
    pub ledger: Arc<Ledger>,
    /// The same of the device, where it has memory of its own.
    device_ledger: Option<Arc<Ledger>>,
    by_type: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
    /// Where a service is looked for that is not here.
    below: Option<Arc<Services>>,
}

impl Services {
    /// Services with nothing but a device and a budget.
    pub fn new(device: Device, ledger: Arc<Ledger>) -> Self {
        Services { device, ledger, device_ledger: None, by_type: HashMap::new(), below: None }
    }

    /// The same services for a device with memory of its own: what lies there (weights, the working
    /// memory of heavy steps) is counted by this ledger, and not as main memory.
    pub fn with_device_ledger(mut self, ledger: Arc<Ledger>) -> Self {
        self.device_ledger = Some(ledger);
        self
    }

    /// Who holds how much of the memory in which the device computes: main memory unless it has its
    /// own.
    pub fn device_ledger(&self) -> &Arc<Ledger> {
        self.device_ledger.as_ref().unwrap_or(&self.ledger)
    }

    /// The services of one run: all of these, and those that are added [`Services::with`] it,
    /// which hide services of the same type below.
    pub fn layer(self: &Arc<Self>) -> Self {
        Services {
            device: self.device.clone(),
            ledger: Arc::clone(&self.ledger),
            device_ledger: self.device_ledger.clone(),
            by_type: HashMap::new(),
            below: Some(Arc::clone(self)),
        }
    }

    /// The same services with one more, found by its type.
    pub fn with<T: Any + Send + Sync>(mut self, service: Arc<T>) -> Self {
        self.by_type.insert(TypeId::of::<T>(), service);
        self
    }

    /// The service of type `T`.
    ///
    /// # Errors
    /// When the engine was started without it.
    pub fn get<T: Any + Send + Sync>(&self) -> Result<Arc<T>> {
        self.find().ok_or_else(|| {
            Error::failed(format!("the engine was started without {}", type_name::<T>()))
        })
    }

    /// The service of type `T`, if there is one: that of the run, else that of the process.
    pub fn find<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let found = self.by_type.get(&TypeId::of::<T>()).map(Arc::clone);
        let found = found.and_then(|service| service.downcast().ok());
        found.or_else(|| self.below.as_ref()?.find())
    }

    /// Whether a graph is only checked. A node then reads the configurations of models, but no
    /// other file, hashes nothing, and starts no program: where its answer depends on that, it says
    /// [`PlanError::unseen`](kino_port::PlanError::unseen).
    pub fn only_checks(&self) -> bool {
        self.find::<OnlyCheck>().is_some()
    }
}

/// A service that stands among those of inference while a graph is only checked: see
/// [`Services::only_checks`].
#[derive(Clone, Copy, Debug)]
pub struct OnlyCheck;

/// What one step of a run may reach.
pub struct Cx<'a> {
    /// The step's name in the graph.
    pub name: &'a str,
    /// What all nodes share.
    pub services: &'a Services,
    /// The run's cancel flag.
    pub cancel: &'a Cancel,
    /// The whole workflow as a graph that runs again; sinks store [`Cx::recorded_workflow`].
    pub record: &'a str,
    /// The files that the step was planned to read, each as it was then.
    pub reads: &'a [PlannedRead],
    /// Whether each output, in the signature's order, is read by anybody.
    pub wanted: &'a [bool],
    /// Where progress goes.
    pub report: &'a (dyn Fn(Progress) + Sync),
}

impl Cx<'_> {
    /// Reports that `step` of `of` are done.
    pub fn progress(&self, step: usize, of: usize) {
        self.preview(step, of, None);
    }

    /// Reports that `step` of `of` are done, with a picture.
    pub fn preview(&self, step: usize, of: usize, preview: Option<Preview>) {
        (self.report)(Progress { step: step as u64, of: of as u64, preview, note: None });
    }

    /// Says something of the work that is told when it is done, in a short sentence without a full
    /// stop: what was saved, for instance.
    pub fn note(&self, note: impl Into<String>) {
        (self.report)(Progress { step: 0, of: 0, preview: None, note: Some(note.into()) });
    }

    /// The whole workflow as sinks store it: with the answers of services outside that were used.
    pub fn recorded_workflow(&self) -> Cow<'_, str> {
        let answers = self.services.find::<Answers>();
        let embedded = answers.and_then(|answers| answers.embedded(self.record));
        embedded.map_or(Cow::Borrowed(self.record), Cow::Owned)
    }

    /// An error once the run is cancelled; call it between pieces of work.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn check_cancel(&self) -> Result<()> {
        self.cancel.check()
    }

    /// Whether anybody reads output `index`.
    pub fn wants(&self, index: usize) -> bool {
        self.wanted.get(index).copied().unwrap_or(false)
    }

    /// The device that tensors are computed on.
    pub fn device(&self) -> &Device {
        &self.services.device
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_of_a_run_lie_over_those_of_the_process() {
        let ledger = Ledger::new(0);
        let process = Services::new(Device::Cpu, ledger).with(Arc::new(1u8)).with(Arc::new("all"));
        let process = Arc::new(process);
        let (one, two) = (process.layer().with(Arc::new(2u8)), process.layer());
        assert_eq!((*one.get::<u8>().unwrap(), *two.get::<u8>().unwrap()), (2, 1));
        assert_eq!(*one.get::<&str>().unwrap(), "all");
        assert!(one.get::<u16>().is_err() && process.find::<u16>().is_none());
    }
}
