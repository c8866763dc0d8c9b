//! One compiled build of a plugin.

use std::sync::Arc;
use std::time::Duration;

use kino_host::{CallCx, Descriptor, Instance, Limits, Module, NoFiles, PluginError};
use kino_node::{Cancel, Error, Ledger, Result};
use wasmtime::component::{ComponentExportIndex, InstancePre};

use crate::engine::WasmEngine;
use crate::instance::{ComponentInstance, ExportIndices, WasmInstance};
use crate::store::StoreState;
use crate::world;

/// What describing may use up.
const DESCRIBING: Limits = Limits { memory: 256 << 20, time: Duration::from_secs(10) };
/// The longest descriptor, in bytes.
const LONGEST: usize = 4 << 20;

/// One compiled build of a plugin. Its code is shared by all its instances.
pub struct WasmPlugin {
    engine: WasmEngine,
    ready: InstancePre<StoreState>,
    names: ExportIndices,
    descriptor: Descriptor,
}

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
        let ready = linker.instantiate_pre(&component).map_err(|error| world::misfit(&error))?;
        let parent = component.get_export_index(None, &node);
        let find = |name: &str| -> Result<ComponentExportIndex> {
            let index = component.get_export_index(parent.as_ref(), name);
            index.ok_or_else(|| Error::failed(format!("`{node}` of this component lacks `{name}`")))
        };
        let names = ExportIndices { open: find("open")?, run: find("run")?, save: find("save")? };
        let json = describe(engine, &ready, plugin, &find("describe")?)?;
        let descriptor = Descriptor::read(&json).map_err(Error::failed)?;
        Ok(Arc::new(WasmPlugin { engine: engine.clone(), ready, names, descriptor }))
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
        &self.descriptor
    }

    fn open(
        &self,
        node: &str,
        saved: Option<&[u8]>,
        call: &CallCx<'_>,
    ) -> Result<Box<dyn Instance>> {
        let component = ComponentInstance::new(&self.engine, &self.ready, call)?;
        Ok(Box::new(WasmInstance::open(component, self.names, node, saved, call)?))
    }
}
