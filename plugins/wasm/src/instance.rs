//! An instance of a node: an instance of its component, with a store of its own.

use kino_host::{CallCx, Instance};
use kino_node::{Error, Result, Value};
use wasmtime::Store;
use wasmtime::component::{
    ComponentExportIndex, ComponentNamedList, InstancePre, Lift, Lower, Resource,
};

use crate::engine::WasmEngine;
use crate::queue::{HostQueue, drive};
use crate::stop::StopContext;
use crate::store::{ResourceEntry, StoreState};
use crate::types::Failure;

/// Where the functions of a component are.
#[derive(Clone, Copy)]
pub(crate) struct ExportIndices {
    pub(crate) open: ComponentExportIndex,
    pub(crate) run: ComponentExportIndex,
    pub(crate) save: ComponentExportIndex,
}

/// What the plugin's functions give.
type CallResult<T> = (std::result::Result<T, Failure>,);
type Values = Vec<Option<Resource<ResourceEntry>>>;

/// An instance of a component.
pub(crate) struct ComponentInstance {
    engine: WasmEngine,
    store: Store<StoreState>,
    queue: HostQueue,
    instance: Option<wasmtime::component::Instance>,
    broken: bool,
}

impl ComponentInstance {
    /// An instance without a node; it lives in a store of its own.
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

    /// The most bytes that one call into or out of the plugin carries.
    pub(crate) fn carry(&mut self, most: usize) {
        self.store.set_hostcall_fuel(most);
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
        let state = self.store.data();
        let (plugin, limits) = (call.plugin, call.limits);
        let context = StopContext {
            plugin,
            limits,
            last_error: state.last_error.as_deref(),
            memory_refused: state.memory_refused,
        };
        let outcome = match driven {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => context.to_error(&error),
            Err(stop) => context.stop_error(&stop),
        };
        self.broken = true;
        Err(outcome)
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

    /// What a plugin's own failure means.
    fn finish<T>(&self, call: &CallCx<'_>, answer: CallResult<T>) -> Result<T> {
        answer.0.map_err(|failure| match failure {
            Failure::Cancelled => call.cancelled(),
            Failure::Failed((message, hint)) if hint.is_empty() => Error::failed(message),
            Failure::Failed((message, hint)) => Error::advised(message, hint),
        })
    }
}

/// An instance of a node.
pub(crate) struct WasmInstance {
    component: ComponentInstance,
    names: ExportIndices,
}

impl WasmInstance {
    /// Makes an instance of a component that of a node.
    pub(crate) fn open(
        mut component: ComponentInstance,
        names: ExportIndices,
        node: &str,
        saved: Option<&[u8]>,
        call: &CallCx<'_>,
    ) -> Result<Self> {
        component.carry(most(call));
        let answer: CallResult<()> = component.call(call, &names.open, (node, saved))?;
        component.finish(call, answer)?;
        Ok(WasmInstance { component, names })
    }

    /// Gives the plugin its inputs.
    fn give(&mut self, inputs: &[Option<Value>]) -> Result<Values> {
        let state = self.component.store.data_mut();
        let give = |input: &Option<Value>| {
            input.as_ref().map(|value| state.give_input(value.clone())).transpose()
        };
        inputs.iter().map(give).collect()
    }

    /// Takes the outputs of the plugin.
    fn take(&mut self, outputs: Values) -> Result<Vec<Option<Value>>> {
        let state = self.component.store.data_mut();
        let entries: Vec<Option<Result<ResourceEntry, _>>> = outputs
            .into_iter()
            .map(|output| output.map(|output| state.take(output.rep())))
            .collect();
        let value = |entry: Option<Result<ResourceEntry, crate::stop::Stop>>| {
            let entry = entry.transpose().map_err(|stop| Error::failed(stop.to_string()))?;
            entry.map(|entry| entry.item.into_value()).transpose()
        };
        entries.into_iter().map(value).collect()
    }
}

/// The most bytes that one call carries: those of its memory.
fn most(call: &CallCx<'_>) -> usize {
    usize::try_from(call.limits.memory).unwrap_or(usize::MAX)
}

impl Instance for WasmInstance {
    fn run(&mut self, call: &CallCx<'_>, inputs: &[Option<Value>]) -> Result<Vec<Option<Value>>> {
        self.component.store.data_mut().begin(call);
        self.component.carry(most(call));
        let inputs = self.give(inputs)?;
        let answer: CallResult<Values> = self.component.call(call, &self.names.run, (inputs,))?;
        let outputs = self.component.finish(call, answer)?;
        self.take(outputs)
    }

    fn save(&mut self, call: &CallCx<'_>) -> Result<Option<Vec<u8>>> {
        self.component.store.data_mut().begin(call);
        self.component.carry(most(call));
        let answer: CallResult<Option<Vec<u8>>> =
            self.component.call(call, &self.names.save, ())?;
        self.component.finish(call, answer)
    }

    fn charge_retained(&mut self, call: &CallCx<'_>) -> Result<()> {
        self.component.store.data_mut().charge_retained().map_err(|error| {
            self.component.broken = true;
            let (plugin, megabytes) = (call.plugin, call.limits.memory.div_ceil(1 << 20));
            Error::broken(
                format!("the plugin `{plugin}` goes on holding inputs after its call: {error}"),
                format!(
                    "`kino plugin trust {plugin} --memory {}MB` lets it use more",
                    megabytes.saturating_mul(4)
                ),
            )
        })
    }

    fn is_broken(&self) -> bool {
        self.component.broken
    }
}
