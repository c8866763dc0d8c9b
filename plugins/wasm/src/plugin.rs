//! One compiled build of a plugin, and the instances of its nodes.

use std::sync::Arc;
use std::time::Duration;

use kino_host::{CallCx, Descriptor, Instance, Limits, Module, NoFiles, PluginError};
use kino_node::{Cancel, Error, Ledger, Result, Value};
use wasmtime::component::{ComponentExportIndex, InstancePre, Resource, ResourceAny};

use crate::engine::WasmEngine;
use crate::instance::{ComponentInstance, ExportIndices};
use crate::shared::{SharedStore, SharedStores};
use crate::stop::Stop;
use crate::store::{ResourceEntry, StoreState};
use crate::world;

/// What describing may use up.
const DESCRIBING: Limits = Limits { memory: 256 << 20, time: Duration::from_secs(10) };
/// The longest descriptor, in bytes.
const LONGEST: usize = 4 << 20;

/// One compiled build of a plugin. Its code is shared by all its instances.
pub struct WasmPlugin(Arc<Build>);

/// What instances need of their plugin.
struct Build {
    engine: WasmEngine,
    ready: InstancePre<StoreState>,
    names: ExportIndices,
    descriptor: Descriptor,
    stores: SharedStores,
}

/// Values as they cross: what was given, and what was made.
type Values = Vec<Option<Resource<ResourceEntry>>>;

impl WasmPlugin {
    /// Compiles a component, checks it, and asks it for its nodes. `plugin` is its id.
    ///
    /// # Errors
    /// When it is no component, one of another world or version, imports what plugins cannot have,
    /// or does not describe itself; the message says what it is, what was expected and what to do.
    pub fn load(engine: &WasmEngine, plugin: &str, bytes: &[u8]) -> Result<Arc<Self>, PluginError> {
        Ok(Self::compile(engine, plugin, bytes)?)
    }

    fn compile(engine: &WasmEngine, plugin: &str, bytes: &[u8]) -> Result<Arc<Self>> {
        let component = world::compile(engine, bytes)?;
        let node = world::exported(engine, &component)?;
        let linker = world::link(engine, &component)?;
        let ready = linker
            .instantiate_pre(&component)
            .map_err(|error| world::misfit(engine, &component, &error))?;
        let parent = component.get_export_index(None, &node);
        let find = |name: &str| -> Result<ComponentExportIndex> {
            let index = component.get_export_index(parent.as_ref(), name);
            index.ok_or_else(|| Error::failed(format!("`{node}` of this component lacks `{name}`")))
        };
        let names = ExportIndices {
            open: find("[static]instance.open")?,
            run: find("[method]instance.run")?,
            save: find("[method]instance.save")?,
        };
        let json = describe(engine, &ready, plugin, &find("describe")?)?;
        let descriptor = Descriptor::read(&json).map_err(Error::failed)?;
        let (engine, stores) = (engine.clone(), SharedStores::default());
        Ok(Arc::new(WasmPlugin(Arc::new(Build { engine, ready, names, descriptor, stores }))))
    }
}

/// Asks a component for its nodes, within limits of its own.
fn describe(
    engine: &WasmEngine,
    ready: &InstancePre<StoreState>,
    plugin: &str,
    describe: &ComponentExportIndex,
) -> Result<String> {
    let (cancel, ledger) = (Cancel::default(), Ledger::new(0));
    let outside = CallCx::outside(plugin, &ledger, &cancel, &NoFiles);
    let call = CallCx { wanted: &[], limits: DESCRIBING, ..outside };
    let mut component = ComponentInstance::new(engine, ready, &call)?;
    component.carry(LONGEST);
    let (text,): (String,) = component.call(&call, describe, ())?;
    Ok(text)
}

impl Module for WasmPlugin {
    fn descriptor(&self) -> &Descriptor {
        &self.0.descriptor
    }

    fn open(
        &self,
        node: &str,
        saved: Option<&[u8]>,
        call: &CallCx<'_>,
    ) -> Result<Box<dyn Instance>> {
        let (store, instance) = self.0.open(node, saved, call)?;
        let (build, node) = (Arc::clone(&self.0), node.to_owned());
        Ok(Box::new(NodeInstance { build, node, store, instance, broken: false }))
    }
}

impl Build {
    /// Makes an instance of a node: with the others of the graph where it has state, else in a
    /// store of its own.
    fn open(
        &self,
        node: &str,
        saved: Option<&[u8]>,
        call: &CallCx<'_>,
    ) -> Result<(Arc<SharedStore>, ResourceAny)> {
        let has_state = self.descriptor.node(node).is_some_and(|spec| spec.state);
        let graph = call.graph.filter(|_| has_state);
        loop {
            let store = self.stores.find(graph, call);
            let mut running = store.take(call)?;
            if store.is_broken() {
                // The call that ran there meanwhile was stopped.
                continue;
            }
            if running.component.is_none() {
                let component = ComponentInstance::new(&self.engine, &self.ready, call)?;
                running.component = Some(Box::new(component));
            }
            let component = running.begin(call);
            let opened =
                component.and_then(|it| it.try_call(call, &self.names.open, (node, saved)));
            if running.was_stopped() {
                tell_others(call, Arc::strong_count(&store) - 1);
            }
            drop(running);
            return Ok((store, opened?));
        }
    }
}

/// An instance of a node, in a store that it may share.
struct NodeInstance {
    build: Arc<Build>,
    node: String,
    store: Arc<SharedStore>,
    instance: ResourceAny,
    /// Whether a call of this instance was stopped.
    broken: bool,
}

impl Drop for NodeInstance {
    fn drop(&mut self) {
        // A store that nobody else uses goes as a whole.
        if !self.store.is_broken() && Arc::strong_count(&self.store) > 1 {
            self.store.close(self.instance);
        }
    }
}

impl NodeInstance {
    /// Does something in the store. Where another instance was stopped there before, this one is
    /// opened anew in another store.
    fn within<T>(
        &mut self,
        call: &CallCx<'_>,
        work: impl FnOnce(&mut ComponentInstance, ExportIndices, ResourceAny) -> Result<T>,
    ) -> Result<T> {
        if self.broken {
            return Err(Error::failed("this instance was stopped before"));
        }
        loop {
            let store = Arc::clone(&self.store);
            let mut running = store.take(call)?;
            if store.is_broken() {
                (self.store, self.instance) = self.build.open(&self.node, None, call)?;
                continue;
            }
            let component = running.begin(call);
            let outcome = component.and_then(|it| work(it, self.build.names, self.instance));
            self.broken = running.was_stopped();
            if self.broken {
                tell_others(call, Arc::strong_count(&store) - 2);
            }
            return outcome;
        }
    }
}

/// Says that a store was given up which other instances were in.
fn tell_others(call: &CallCx<'_>, others: usize) {
    if others > 0 {
        let message = format!(
            "{others} more nodes with state of the plugin `{}` begin anew: they shared the instance \
             that was stopped",
            call.plugin
        );
        call.log(2, "kino", &message);
    }
}

/// Gives the plugin its inputs.
fn give(state: &mut StoreState, inputs: &[Option<Value>]) -> Result<Values> {
    let give = |input: &Option<Value>| {
        input.as_ref().map(|value| state.give_input(value.clone())).transpose()
    };
    inputs.iter().map(give).collect()
}

/// Takes the outputs of the plugin; all of them, whatever becomes of one.
fn take(state: &mut StoreState, outputs: Values) -> Result<Vec<Option<Value>>> {
    let entries: Vec<Option<Result<ResourceEntry, Stop>>> =
        outputs.into_iter().map(|output| output.map(|output| state.take(output.rep()))).collect();
    let value = |entry: Option<Result<ResourceEntry, Stop>>| {
        let entry = entry.transpose().map_err(|stop| Error::failed(stop.to_string()))?;
        entry.map(|entry| entry.item.into_value()).transpose()
    };
    entries.into_iter().map(value).collect()
}

impl Instance for NodeInstance {
    fn run(&mut self, call: &CallCx<'_>, inputs: &[Option<Value>]) -> Result<Vec<Option<Value>>> {
        self.within(call, |component, names, instance| {
            let inputs = give(component.state(), inputs)?;
            let outputs: Values = component.try_call(call, &names.run, (instance, inputs))?;
            take(component.state(), outputs)
        })
    }

    fn save(&mut self, call: &CallCx<'_>) -> Result<Option<Vec<u8>>> {
        if self.store.is_broken() {
            // What there was to save is gone.
            return Ok(None);
        }
        self.within(call, |component, names, instance| {
            component.try_call(call, &names.save, (instance,))
        })
    }

    fn charge_retained(&mut self, call: &CallCx<'_>) -> Result<()> {
        let store = Arc::clone(&self.store);
        let mut running = store.take(call)?;
        let Some(component) = running.component.as_mut() else { return Ok(()) };
        component.state().charge_retained().map_err(|error| {
            component.set_broken();
            self.broken = true;
            tell_others(call, Arc::strong_count(&store) - 2);
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
        self.broken
    }
}
