//! An instance of a node: an instance of its component, with a store of its own.

use kino_host::{Call, Instance};
use kino_node::{Error, Result, Value};
use wasmtime::Store;
use wasmtime::component::{
    ComponentExportIndex, ComponentNamedList, InstancePre, Lift, Lower, Resource,
};

use crate::engine::Engine;
use crate::mail::{Mail, drive};
use crate::stop::Scene;
use crate::store::{Entry, Own};
use crate::types::Failure;

/// Where the functions of a component are.
#[derive(Clone, Copy)]
pub(crate) struct Names {
    pub(crate) open: ComponentExportIndex,
    pub(crate) run: ComponentExportIndex,
    pub(crate) save: ComponentExportIndex,
}

/// What the plugin's functions give.
type Answer<T> = (std::result::Result<T, Failure>,);
type Values = Vec<Option<Resource<Entry>>>;

/// An instance of a component.
pub(crate) struct Body {
    engine: Engine,
    store: Store<Own>,
    mail: Mail,
    instance: Option<wasmtime::component::Instance>,
    broken: bool,
}

impl Body {
    /// An instance without a node; it lives in a store of its own.
    pub(crate) fn new(engine: &Engine, ready: &InstancePre<Own>, call: &Call<'_>) -> Result<Self> {
        let own = Own::new(call);
        let mail = own.mail.clone();
        let mut store = Store::new(engine.wasmtime(), own);
        store.limiter(|own| own);
        store.epoch_deadline_async_yield_and_update(1);
        let (engine, instance) = (engine.clone(), None);
        let mut body = Body { engine, store, mail, instance, broken: false };
        let made = body.drive(call, async |store| ready.instantiate_async(store).await)?;
        body.instance = Some(made);
        Ok(body)
    }

    /// The most bytes that one call into or out of the plugin carries.
    pub(crate) fn carry(&mut self, most: usize) {
        self.store.set_hostcall_fuel(most);
    }

    /// Lets the plugin do something, under the call's limits.
    fn drive<T>(
        &mut self,
        call: &Call<'_>,
        work: impl AsyncFnOnce(&mut Store<Own>) -> wasmtime::Result<T>,
    ) -> Result<T> {
        let _running = self.engine.run()?;
        self.store.set_epoch_deadline(1);
        let driven = drive(&self.mail, call, work(&mut self.store));
        let own = self.store.data();
        let (plugin, limits) = (call.plugin, call.limits);
        let scene = Scene { plugin, limits, said: own.said.as_deref(), starved: own.starved };
        let outcome = match driven {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => scene.tell(&error),
            Err(stop) => scene.stopped(&stop),
        };
        self.broken = true;
        Err(outcome)
    }

    /// Calls a function of the plugin.
    pub(crate) fn call<P, R>(
        &mut self,
        call: &Call<'_>,
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
    fn settle<T>(&self, call: &Call<'_>, answer: Answer<T>) -> Result<T> {
        answer.0.map_err(|failure| match failure {
            Failure::Cancelled => call.cancelled(),
            Failure::Failed((message, hint)) if hint.is_empty() => Error::failed(message),
            Failure::Failed((message, hint)) => Error::advised(message, hint),
        })
    }
}

/// An instance of a node.
pub(crate) struct WasmInstance {
    body: Body,
    names: Names,
}

impl WasmInstance {
    /// Makes an instance of a component that of a node.
    pub(crate) fn open(
        mut body: Body,
        names: Names,
        node: &str,
        saved: Option<&[u8]>,
        call: &Call<'_>,
    ) -> Result<Self> {
        body.carry(most(call));
        let answer: Answer<()> = body.call(call, &names.open, (node, saved))?;
        body.settle(call, answer)?;
        Ok(WasmInstance { body, names })
    }

    /// Gives the plugin its inputs.
    fn give(&mut self, inputs: &[Option<Value>]) -> Result<Values> {
        let own = self.body.store.data_mut();
        let give = |input: &Option<Value>| {
            input.as_ref().map(|value| own.give_input(value.clone())).transpose()
        };
        inputs.iter().map(give).collect()
    }

    /// Takes the outputs of the plugin.
    fn take(&mut self, outputs: Values) -> Result<Vec<Option<Value>>> {
        let own = self.body.store.data_mut();
        let entries: Vec<Option<Result<Entry, _>>> =
            outputs.into_iter().map(|output| output.map(|output| own.take(output.rep()))).collect();
        let value = |entry: Option<Result<Entry, crate::stop::Stop>>| {
            let entry = entry.transpose().map_err(|stop| Error::failed(stop.to_string()))?;
            entry.map(|entry| entry.item.into_value()).transpose()
        };
        entries.into_iter().map(value).collect()
    }
}

/// The most bytes that one call carries: those of its memory.
fn most(call: &Call<'_>) -> usize {
    usize::try_from(call.limits.memory).unwrap_or(usize::MAX)
}

impl Instance for WasmInstance {
    fn run(&mut self, call: &Call<'_>, inputs: &[Option<Value>]) -> Result<Vec<Option<Value>>> {
        self.body.store.data_mut().begin(call);
        self.body.carry(most(call));
        let inputs = self.give(inputs)?;
        let answer: Answer<Values> = self.body.call(call, &self.names.run, (inputs,))?;
        let outputs = self.body.settle(call, answer)?;
        self.take(outputs)
    }

    fn save(&mut self, call: &Call<'_>) -> Result<Option<Vec<u8>>> {
        self.body.store.data_mut().begin(call);
        self.body.carry(most(call));
        let answer: Answer<Option<Vec<u8>>> = self.body.call(call, &self.names.save, ())?;
        self.body.settle(call, answer)
    }

    fn is_broken(&self) -> bool {
        self.body.broken
    }
}
