//! What wasmtime itself takes to instantiate a component and call it once: the least that an empty
//! node in a fresh instance can cost.

use wasmtime::component::{
    Component, ComponentExportIndex, ComponentType, InstancePre, Lift, Linker, ResourceAny,
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
    Failed(Fault),
}

/// What went wrong.
#[derive(ComponentType, Lift)]
#[component(record)]
struct Fault {
    message: String,
    hint: String,
    code: String,
}

/// A plugin's component in wasmtime alone: pooled instances, and nothing behind its imports.
pub(crate) struct Floor {
    engine: Engine,
    ready: InstancePre<()>,
    open: ComponentExportIndex,
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
        let open = component.get_export_index(parent.as_ref(), "[static]instance.open");
        let open = open.expect("the function that opens an instance");
        drop(exports);
        Ok(Floor { engine, ready, open })
    }

    /// A fresh instance, and one call of a function that has nothing to do: there is no such node.
    pub(crate) fn call(&self) -> Result<()> {
        type Opened = (std::result::Result<ResourceAny, Failure>,);
        type Asked = (String, Option<Vec<u8>>);
        let mut store = Store::new(&self.engine, ());
        let instance = self.ready.instantiate(&mut store)?;
        let function = instance.get_typed_func::<Asked, Opened>(&mut store, &self.open)?;
        match function.call(&mut store, (String::new(), None))? {
            (Err(Failure::Failed(Fault { message, hint, code })),) => {
                assert_eq!(message, "there is no node `` here", "{hint} {code}");
            }
            (Err(Failure::Cancelled) | Ok(_),) => panic!("there is no such node"),
        }
        Ok(())
    }
}
