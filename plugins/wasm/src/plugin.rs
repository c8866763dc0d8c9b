//! One compiled build of a plugin, and the instances of its nodes.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use kino_host::{CallCx, Descriptor, Instance, Limits, Module, NoFiles, PluginError};
use kino_node::{Cancel, Error, Ledger, Result, Value};
use wasmtime::component::{
    Component, ComponentExportIndex, InstancePre, Linker, Resource, ResourceAny,
};

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
    plugin: String,
    descriptor: Descriptor,
    code: OnceLock<Code>,
    /// The component, until it is compiled: where its descriptor is known, its code is needed by
    /// the first call alone.
    component: Mutex<Option<Vec<u8>>>,
    stores: SharedStores,
}

/// Compiled code that fits the contract.
struct Code {
    ready: InstancePre<StoreState>,
    names: ExportIndices,
    describe: ComponentExportIndex,
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
        world::check_form(bytes)?;
        let known = engine.kept_descriptor(bytes);
        let known = known.and_then(|descriptor| Descriptor::read(&descriptor).ok());
        let (descriptor, code, component) = match known {
            Some(descriptor) => (descriptor, OnceLock::new(), Some(bytes.to_vec())),
            None => {
                let code = Code::compile(engine, plugin, bytes, &|| false)?;
                let text = code.describe(engine, plugin)?;
                let descriptor = Descriptor::read(&text).map_err(Error::failed)?;
                engine.keep_descriptor(bytes, &text);
                (descriptor, OnceLock::from(code), None)
            }
        };
        let (engine, plugin, component) =
            (engine.clone(), plugin.to_owned(), Mutex::new(component));
        let stores = SharedStores::default();
        let build = Build { engine, plugin, descriptor, code, component, stores };
        Ok(Arc::new(WasmPlugin(Arc::new(build))))
    }
}

impl Code {
    /// Compiles a component and looks whether it fits.
    fn compile(
        engine: &WasmEngine,
        plugin: &str,
        bytes: &[u8],
        stopped: &dyn Fn() -> bool,
    ) -> Result<Self> {
        let component = engine.compile(plugin, bytes, stopped)?;
        let node = world::exported(engine, &component)?;
        let linker = world::link(engine, &component)?;
        Code::link(engine, &component, &node, &linker)
    }

    /// Looks whether a component fits what a host offers.
    fn link(
        engine: &WasmEngine,
        component: &Component,
        node: &str,
        linker: &Linker<StoreState>,
    ) -> Result<Self> {
        let ready = linker
            .instantiate_pre(component)
            .map_err(|error| world::misfit(engine, component, &error))?;
        let parent = component.get_export_index(None, node);
        let find = |name: &str| -> Result<ComponentExportIndex> {
            let index = component.get_export_index(parent.as_ref(), name);
            index.ok_or_else(|| Error::failed(format!("`{node}` of this component lacks `{name}`")))
        };
        let names = ExportIndices {
            open: find("[static]instance.open")?,
            run: find("[method]instance.run")?,
            save: find("[method]instance.save")?,
        };
        let describe = find("describe")?;
        Ok(Code { ready, names, describe })
    }

    /// Asks the component for its nodes, within limits of its own.
    fn describe(&self, engine: &WasmEngine, plugin: &str) -> Result<String> {
        let (cancel, ledger) = (Cancel::default(), Ledger::new(0));
        let outside = CallCx::outside(plugin, &ledger, &cancel, &NoFiles);
        let call = CallCx { wanted: &[], limits: DESCRIBING, ..outside };
        let mut component = ComponentInstance::new(engine, &self.ready, &call)?;
        component.carry(LONGEST);
        let (text,): (String,) = component.call(&call, &self.describe, ())?;
        Ok(text)
    }
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
    /// The compiled code; the first call of a component whose descriptor was known compiles it.
    fn code(&self, call: &CallCx<'_>) -> Result<&Code> {
        if let Some(code) = self.code.get() {
            return Ok(code);
        }
        let mut component = self.component.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = &*component {
            let stopped = || call.cancel.is_cancelled();
            let code = Code::compile(&self.engine, &self.plugin, bytes, &stopped)?;
            let _ = self.code.set(code);
            *component = None;
        }
        self.code.get().ok_or_else(|| Error::failed("the component is not compiled"))
    }

    /// Makes an instance of a node: with the others of the graph where it has state, else in a
    /// store of its own.
    fn open(
        &self,
        node: &str,
        saved: Option<&[u8]>,
        call: &CallCx<'_>,
    ) -> Result<(Arc<SharedStore>, ResourceAny)> {
        let code = self.code(call)?;
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
                let component = ComponentInstance::new(&self.engine, &code.ready, call)?;
                running.component = Some(Box::new(component));
            }
            let component = running.begin(call);
            let opened =
                component.and_then(|it| it.try_call(call, &code.names.open, (node, saved)));
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
        let names = self.build.code(call)?.names;
        loop {
            let store = Arc::clone(&self.store);
            let mut running = store.take(call)?;
            if store.is_broken() {
                (self.store, self.instance) = self.build.open(&self.node, None, call)?;
                continue;
            }
            let component = running.begin(call);
            let outcome = component.and_then(|it| work(it, names, self.instance));
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

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};
    use kino_node::Record;

    use super::*;

    /// The build of 2.0 that every later host must run.
    const GUESTS_2_0: &[u8] = include_bytes!("../tests/compiled/guests-2.0.wasm");

    /// A host of a later version: it has another function, another method of values, another
    /// resource, another interface, and values of types that 2.0 did not know.
    #[test]
    fn a_later_host_runs_a_component_of_2_0() {
        struct Later;
        let engine = WasmEngine::new(None).unwrap();
        let component = engine.compile("guests", GUESTS_2_0, &|| false).unwrap();
        let host = "kino:plugin/host@2.7.0";
        let mut linker = world::link_as(&engine, &component, host).unwrap();
        let mut more = linker.instance(host).unwrap();
        let later = wasmtime::component::ResourceType::host::<Later>();
        more.resource("audio-builder", later, |_, _| Ok(())).unwrap();
        more.func_wrap("new-date", |_, (days,): (i64,)| Ok((days,))).unwrap();
        more.func_wrap("[method]value.as-date", |_, (_,): (Resource<ResourceEntry>,)| Ok((1i64,)))
            .unwrap();
        let mut other = linker.instance("kino:plugin/screens@2.7.0").unwrap();
        other.func_wrap("show", |_, (_,): (String,)| Ok(())).unwrap();
        let node = world::exported(&engine, &component).unwrap();
        let code = Code::link(&engine, &component, &node, &linker).unwrap();
        let text = code.describe(&engine, "guests").unwrap();
        let build = Arc::new(Build {
            engine,
            plugin: "guests".into(),
            descriptor: Descriptor::read(&text).unwrap(),
            code: OnceLock::from(code),
            component: Mutex::default(),
            stores: SharedStores::default(),
        });
        let plugin = WasmPlugin(build);
        let (cancel, ledger) = (Cancel::default(), Ledger::new(1 << 30));
        let call = CallCx::outside("guests", &ledger, &cancel, &NoFiles);
        let run = |node: &str, value: Value| {
            let mut instance = plugin.open(node, None, &call).unwrap();
            let outputs = instance.run(&call, &[Some(value)]).unwrap();
            outputs.into_iter().next().flatten().unwrap()
        };
        let field = Value::Tensor(Tensor::zeros(2, DType::F8E4M3, &Device::Cpu).unwrap());
        let record = Record { ty: "later.sound".into(), fields: vec![("wave".into(), field)] };
        let Value::Custom(back) = run("good.echo", Value::Custom(Arc::new(record))) else {
            panic!("a record comes back as it went")
        };
        assert_eq!((&*back.ty, &*back.fields[0].0), ("later.sound", "wave"));
        let square = Tensor::new(&[3f32], &Device::Cpu).unwrap();
        let Value::Tensor(nine) = run("good.square", Value::Tensor(square)) else { panic!() };
        assert_eq!(nine.to_vec1::<f32>().unwrap(), [9.0]);
    }
}
