//! What a node may reach: services, progress, cancelling.

use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Device;
use kino_port::Read;

use crate::{Error, Ledger, Result};

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
}

/// What all nodes of a process share: the device, the memory ledger, and whatever else by its type.
pub struct Services {
    /// Where tensors are computed.
    pub device: Device,
    /// Who holds how much memory.
    pub ledger: Arc<Ledger>,
    by_type: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
}

impl Services {
    /// Services with nothing but a device and a ledger.
    pub fn new(device: Device, ledger: Arc<Ledger>) -> Self {
        Services { device, ledger, by_type: HashMap::new() }
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
        let found = self.by_type.get(&TypeId::of::<T>()).map(Arc::clone);
        found.and_then(|service| service.downcast().ok()).ok_or_else(|| {
            Error::failed(format!("the engine was started without {}", type_name::<T>()))
        })
    }
}

/// What one step of a run may reach.
pub struct Cx<'a> {
    /// The step's name in the graph.
    pub name: &'a str,
    /// What all nodes share.
    pub services: &'a Services,
    /// The run's cancel flag.
    pub cancel: &'a Cancel,
    /// The whole workflow as a graph that runs again, for sinks to store in what they write.
    pub record: &'a str,
    /// The files that the step was planned to read, each as it was then.
    pub reads: &'a [Read],
    /// Whether each output, in the signature's order, is read by anybody.
    pub wanted: &'a [bool],
    /// Where progress goes.
    pub report: &'a (dyn Fn(Progress) + Sync),
}

impl Cx<'_> {
    /// Reports that `step` of `of` are done.
    pub fn progress(&self, step: usize, of: usize) {
        (self.report)(Progress { step: step as u64, of: of as u64, preview: None });
    }

    /// Reports that `step` of `of` are done, with a picture.
    pub fn preview(&self, step: usize, of: usize, preview: Option<Preview>) {
        (self.report)(Progress { step: step as u64, of: of as u64, preview });
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
