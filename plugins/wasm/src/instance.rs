//! An instance of a component in a store of its own, and the functions of it that are called.

use kino_host::CallCx;
use kino_node::{Error, Result};
use wasmtime::Store;
use wasmtime::component::{
    ComponentExportIndex, ComponentNamedList, InstancePre, Lift, Lower, ResourceAny,
};

use crate::engine::WasmEngine;
use crate::queue::{HostQueue, drive};
use crate::stop::StopContext;
use crate::store::StoreState;
use crate::types::WitResult;

/// Where the functions of a component are.
#[derive(Clone, Copy)]
pub(crate) struct ExportIndices {
    pub(crate) open: ComponentExportIndex,
    pub(crate) run: ComponentExportIndex,
    pub(crate) save: ComponentExportIndex,
}

/// An instance of a component.
pub(crate) struct ComponentInstance {
    engine: WasmEngine,
    store: Store<StoreState>,
    queue: HostQueue,
    instance: Option<wasmtime::component::Instance>,
    broken: bool,
}

impl ComponentInstance {
    /// An instance in a store of its own.
    pub(crate) fn new(
        engine: &WasmEngine,
        ready: &InstancePre<StoreState>,
        call: &CallCx<'_>,
    ) -> Result<Self> {
        let state = StoreState::new(call);
        let queue = state.queue.clone();
        let mut store = Store::new(engine.wasmtime(), state);
        store.limiter(|state| state);
        store.epoch_deadline_async_yield_and_update(1);
        let (engine, instance) = (engine.clone(), None);
        let mut component = ComponentInstance { engine, store, queue, instance, broken: false };
        let made = component.drive(call, async |store| ready.instantiate_async(store).await)?;
        component.instance = Some(made);
        Ok(component)
    }

    /// Another call begins; it carries at most its memory's bytes into or out of the plugin.
    pub(crate) fn begin(&mut self, call: &CallCx<'_>) {
        self.store.data_mut().begin(call);
        self.carry(usize::try_from(call.limits.memory).unwrap_or(usize::MAX));
    }

    /// The most bytes that one call into or out of the plugin carries.
    pub(crate) fn carry(&mut self, most: usize) {
        self.store.set_hostcall_fuel(most);
    }

    /// What belongs to the store.
    pub(crate) fn state(&mut self) -> &mut StoreState {
        self.store.data_mut()
    }

    /// Whether it was stopped and can never run again.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// It must not run again.
    pub(crate) fn set_broken(&mut self) {
        self.broken = true;
    }

    /// Lets the plugin do something, under the call's limits.
    fn drive<T>(
        &mut self,
        call: &CallCx<'_>,
        work: impl AsyncFnOnce(&mut Store<StoreState>) -> wasmtime::Result<T>,
    ) -> Result<T> {
        let _running = self.engine.run()?;
        self.store.set_epoch_deadline(1);
        let driven = drive(&self.queue, call, work(&mut self.store));
        let stopped = match driven {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => Ok(error),
            Err(stop) => Err(stop),
        };
        self.broken = true;
        let state = self.store.data_mut();
        crate::wasi::flush(state);
        self.queue.deliver(call);
        let context = StopContext {
            plugin: call.plugin,
            limits: call.limits,
            said: &self.store.data().said,
            memory_refused: self.store.data().memory_refused,
        };
        Err(match stopped {
            Ok(error) => context.to_error(&error),
            Err(stop) => context.stop_error(&stop),
        })
    }

    /// Calls a function of the plugin.
    pub(crate) fn call<P, R>(
        &mut self,
        call: &CallCx<'_>,
        function: &ComponentExportIndex,
        parameters: P,
    ) -> Result<R>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: ComponentNamedList + Lift + Send + Sync + 'static,
    {
        let instance = self.instance.filter(|_| !self.broken);
        let instance = instance.ok_or_else(|| Error::failed("this instance was stopped before"))?;
        self.drive(call, async |store| {
            let function = instance.get_typed_func::<P, R>(&mut *store, function)?;
            function.call_async(store, parameters).await
        })
    }

    /// Calls a function that may fail by itself.
    pub(crate) fn try_call<P, T>(
        &mut self,
        call: &CallCx<'_>,
        function: &ComponentExportIndex,
        parameters: P,
    ) -> Result<T>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        (WitResult<T>,): ComponentNamedList + Lift + Send + Sync + 'static,
    {
        let (answer,): (WitResult<T>,) = self.call(call, function, parameters)?;
        answer.map_err(|failure| failure.into_error(call))
    }

    /// Has the plugin close instances of nodes.
    pub(crate) fn close(&mut self, call: &CallCx<'_>, closed: Vec<ResourceAny>) -> Result<()> {
        if closed.is_empty() || self.broken {
            return Ok(());
        }
        self.drive(call, async |store| {
            for instance in closed {
                instance.resource_drop_async(&mut *store).await?;
            }
            Ok(())
        })
    }
}
