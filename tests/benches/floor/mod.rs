//! What wasmtime itself takes to instantiate a component and call it once: the least that an empty
//! node in a fresh instance can cost.

use wasmtime::component::{
    Component, ComponentExportIndex, ComponentType, InstancePre, Lift, Linker,
};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Result, Store,
};

/// Why a call of a plugin did not succeed.
#[derive(ComponentType, Lift)]
#[component(variant)]
enum Failure {
    #[component(name = "cancelled")]
    Cancelled,
    #[component(name = "failed")]
    Failed((String, String)),
}

/// A plugin's component in wasmtime alone: pooled instances, and nothing behind its imports.
pub(crate) struct Floor {
    engine: Engine,
    ready: InstancePre<()>,
    save: ComponentExportIndex,
}

impl Floor {
    pub(crate) fn new(bytes: &[u8]) -> Result<Self> {
        let mut config = Config::new();
        let pool = PoolingAllocationConfig::new();
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        let engine = Engine::new(&config)?;
        let component = Component::new(&engine, bytes)?;
        let mut linker = Linker::new(&engine);
        linker.define_unknown_imports_as_traps(&component)?;
        let ready = linker.instantiate_pre(&component)?;
        let node = component.component_type();
        let mut exports = node.exports(&engine);
        let (node, _) = exports.next().expect("the interface of nodes");
        let parent = component.get_export_index(None, node);
        let save = component.get_export_index(parent.as_ref(), "save").expect("`save`");
        drop(exports);
        Ok(Floor { engine, ready, save })
    }

    /// A fresh instance, and one call of a function that has nothing to do: no node is open.
    pub(crate) fn call(&self) -> Result<()> {
        type Saved = (std::result::Result<Option<Vec<u8>>, Failure>,);
        let mut store = Store::new(&self.engine, ());
        let instance = self.ready.instantiate(&mut store)?;
        let function = instance.get_typed_func::<(), Saved>(&mut store, &self.save)?;
        match function.call(&mut store, ())? {
            (Err(Failure::Failed((message, _))),) => assert_eq!(message, "no node is open"),
            (Err(Failure::Cancelled) | Ok(_),) => panic!("no node is open"),
        }
        Ok(())
    }
}
