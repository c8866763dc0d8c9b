//! Stores that instances of nodes with state share.
//!
//! An instance of a component may be large (an interpreter with its libraries), so the nodes with
//! state of one component in one graph live in one store. One call at a time runs in it; others
//! wait, and can be cancelled. When a call is stopped there (a trap, a limit), the whole store is
//! given up: each of its instances is opened anew when it runs next. A node without state has a
//! store of its own for every call, so that nothing of one call reaches another.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use kino_host::CallCx;
use kino_node::{Error, GraphId, Result};
use wasmtime::component::ResourceAny;

use crate::instance::ComponentInstance;

/// How often a call that waits for another one looks whether it was cancelled.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A store, and whether a call runs in it.
pub(crate) struct SharedStore {
    slot: Mutex<Slot>,
    /// A call has ended.
    returned: Condvar,
    /// Instances that are to be closed when the next call begins: closing runs code of the plugin,
    /// which needs a call's limits.
    closed: Mutex<Vec<ResourceAny>>,
    /// Whether a call was stopped here.
    broken: AtomicBool,
    /// Bytes of memory in use after the last call.
    used: AtomicU64,
}

enum Slot {
    /// No call has begun yet.
    Empty,
    Idle(Box<ComponentInstance>),
    Running,
}

/// A store in the hands of one call.
pub(crate) struct RunningStore<'a> {
    shared: &'a SharedStore,
    /// None until the component has an instance here.
    pub(crate) component: Option<Box<ComponentInstance>>,
}

impl SharedStore {
    fn new() -> Arc<Self> {
        Arc::new(SharedStore {
            slot: Mutex::new(Slot::Empty),
            returned: Condvar::new(),
            closed: Mutex::default(),
            broken: AtomicBool::new(false),
            used: AtomicU64::new(0),
        })
    }

    /// Takes the store for a call; waits while another one has it.
    ///
    /// # Errors
    /// When the run is cancelled meanwhile.
    pub(crate) fn take(&self, call: &CallCx<'_>) -> Result<RunningStore<'_>> {
        let mut slot = lock(&self.slot);
        loop {
            match std::mem::replace(&mut *slot, Slot::Running) {
                Slot::Empty => return Ok(RunningStore { shared: self, component: None }),
                Slot::Idle(component) => {
                    return Ok(RunningStore { shared: self, component: Some(component) });
                }
                Slot::Running => {}
            }
            if call.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let waited = self.returned.wait_timeout(slot, POLL_INTERVAL);
            slot = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether a call was stopped here.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Has an instance closed when the next call begins.
    pub(crate) fn close(&self, instance: ResourceAny) {
        lock(&self.closed).push(instance);
    }

    /// Whether another instance of a node fits: what is kept must leave room for calls.
    fn has_room(&self, call: &CallCx<'_>) -> bool {
        self.used.load(Ordering::Relaxed) <= call.limits.memory / 2
    }
}

impl RunningStore<'_> {
    /// Another call begins: closes what is to be closed.
    ///
    /// # Errors
    /// When the plugin is stopped while it does so.
    pub(crate) fn begin(&mut self, call: &CallCx<'_>) -> Result<&mut ComponentInstance> {
        let Some(component) = &mut self.component else {
            return Err(Error::failed("the component has no instance"));
        };
        component.begin(call);
        let closed = std::mem::take(&mut *lock(&self.shared.closed));
        component.close(call, closed)?;
        Ok(component)
    }

    /// Whether the call was stopped.
    pub(crate) fn was_stopped(&self) -> bool {
        self.component.as_ref().is_some_and(|component| component.is_broken())
    }
}

impl Drop for RunningStore<'_> {
    fn drop(&mut self) {
        let mut slot = Slot::Empty;
        if self.was_stopped() {
            self.shared.broken.store(true, Ordering::Release);
            self.component = None;
        }
        if let Some(mut component) = self.component.take() {
            self.shared.used.store(component.state().used(), Ordering::Relaxed);
            slot = Slot::Idle(component);
        }
        *lock(&self.shared.slot) = slot;
        self.shared.returned.notify_all();
    }
}

/// The stores of a component that instances share, by graph.
#[derive(Default)]
pub(crate) struct SharedStores(Mutex<HashMap<GraphId, Vec<Weak<SharedStore>>>>);

impl SharedStores {
    /// The store for another instance of a node: one that the graph has, where there is room, or a
    /// new one. Without a graph it is always a new one.
    pub(crate) fn find(&self, graph: Option<&GraphId>, call: &CallCx<'_>) -> Arc<SharedStore> {
        let Some(graph) = graph else { return SharedStore::new() };
        let mut by_graph = lock(&self.0);
        by_graph.retain(|_, stores| {
            stores.retain(|store| store.strong_count() > 0);
            !stores.is_empty()
        });
        let stores = by_graph.entry(graph.clone()).or_default();
        let fits = |store: &Arc<SharedStore>| !store.is_broken() && store.has_room(call);
        if let Some(store) = stores.iter().filter_map(Weak::upgrade).find(fits) {
            return store;
        }
        let store = SharedStore::new();
        stores.push(Arc::downgrade(&store));
        store
    }
}
