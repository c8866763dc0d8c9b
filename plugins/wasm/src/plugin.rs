//! One compiled build of a plugin.

use std::sync::Arc;
use std::time::Duration;

use candle_core::Device;
use kino_host::{Artifact, Call, Descriptor, Instance, Limits, NoFiles};
use kino_node::{Cancel, Error, Ledger, Result};
use wasmtime::component::{ComponentExportIndex, InstancePre};

use crate::engine::Engine;
use crate::instance::{Body, Names, WasmInstance};
use crate::store::Own;
use crate::world;

/// What describing may use up.
const DESCRIBING: Limits = Limits { memory: 256 << 20, time: Duration::from_secs(10) };
/// The longest descriptor, in bytes.
const LONGEST: usize = 4 << 20;

/// One compiled build of a plugin. Its code is shared by all its instances.
pub struct WasmPlugin {
    engine: Engine,
    ready: InstancePre<Own>,
    names: Names,
    descriptor: Descriptor,
}

impl WasmPlugin {
    /// Compiles a component, checks it, and asks it for its nodes. `plugin` is its id.
    ///
    /// # Errors
    /// When it is no component, one of another world or version, imports what plugins cannot have,
    /// or does not describe itself; the message says what it is, what was expected and what to do.
    pub fn load(engine: &Engine, plugin: &str, bytes: &[u8]) -> Result<Arc<Self>> {
        let component = world::compile(engine, bytes)?;
        let node = world::exported(engine, &component)?;
        let linker = world::link(engine, &component)?;
        let ready = linker.instantiate_pre(&component).map_err(|error| world::misfit(&error))?;
        let parent = component.get_export_index(None, &node);
        let find = |name: &str| -> Result<ComponentExportIndex> {
            let index = component.get_export_index(parent.as_ref(), name);
            index.ok_or_else(|| Error::failed(format!("`{node}` of this component lacks `{name}`")))
        };
        let names = Names { open: find("open")?, run: find("run")?, save: find("save")? };
        let json = describe(engine, &ready, plugin, &find("describe")?)?;
        let descriptor = Descriptor::read(&json).map_err(Error::failed)?;
        Ok(Arc::new(WasmPlugin { engine: engine.clone(), ready, names, descriptor }))
    }
}

/// Asks a component for its nodes, within limits of its own.
fn describe(
    engine: &Engine,
    ready: &InstancePre<Own>,
    plugin: &str,
    describe: &ComponentExportIndex,
) -> Result<String> {
    let (cancel, ledger) = (Cancel::default(), Ledger::new(0));
    let call = Call {
        plugin,
        step: "",
        device: &Device::Cpu,
        ledger: &ledger,
        cancel: &cancel,
        wanted: &[],
        report: &|_| {},
        files: &NoFiles,
        limits: DESCRIBING,
        listener: None,
    };
    let mut body = Body::new(engine, ready, &call)?;
    body.carry(LONGEST);
    let (text,): (String,) = body.call(&call, describe, ())?;
    Ok(text)
}

impl Artifact for WasmPlugin {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn open(&self, node: &str, saved: Option<&[u8]>, call: &Call<'_>) -> Result<Box<dyn Instance>> {
        let body = Body::new(&self.engine, &self.ready, call)?;
        Ok(Box::new(WasmInstance::open(body, self.names, node, saved, call)?))
    }
}
