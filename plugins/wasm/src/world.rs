//! Whether a file is a component of the right world; if not, what it is and what to do.

use kino_node::{Error, Result};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker};

use crate::stop::root;
use crate::store::StoreState;
use crate::{WasmEngine, imports, wasi};

/// The major version of the contract.
const MAJOR: u64 = 1;
const BUILD: &str = "build it for wasm32-wasip2, or turn a module into a component with `wit-component`; \
     `plugins/README.md` says how";

/// Compiles a component.
///
/// # Errors
/// When it is none, or cannot be compiled.
pub(crate) fn compile(engine: &WasmEngine, bytes: &[u8]) -> Result<Component> {
    let head = bytes.get(..8).unwrap_or(bytes);
    match head {
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0] => {}
        [0, b'a', b's', b'm', _, 0, 0, 0] => {
            let what = "this is a WebAssembly module; a plugin is a component";
            return Err(Error::advised(what, BUILD));
        }
        [0, b'a', b's', b'm', ..] => {
            let what = "this is WebAssembly of a form that this Kinograph does not know";
            return Err(Error::advised(what, BUILD));
        }
        _ => return Err(Error::advised("this is no WebAssembly", BUILD)),
    }
    Component::from_binary(engine.wasmtime(), bytes).map_err(|error| {
        Error::advised(
            format!("this component cannot be compiled: {}", root(&error)),
            "the file is damaged, or uses what WebAssembly 2.0 with SIMD does not have",
        )
    })
}

/// The version after `name@`.
fn version<'a>(full: &'a str, name: &str) -> Option<&'a str> {
    full.strip_prefix(name)?.strip_prefix('@')
}

fn major(version: &str) -> Option<u64> {
    version.split('.').next()?.parse().ok()
}

/// The name under which a component exports `kino:plugin/node`.
///
/// # Errors
/// When it does not, or in another major version.
pub(crate) fn exported(engine: &WasmEngine, component: &Component) -> Result<String> {
    let ty = component.component_type();
    let names: Vec<&str> = ty.exports(engine.wasmtime()).map(|(name, _)| name).collect();
    let node = names.iter().find_map(|name| Some((*name, version(name, "kino:plugin/node")?)));
    match node {
        Some((name, version)) if major(version) == Some(MAJOR) => Ok(name.to_owned()),
        Some((name, _)) => Err(other_version(name)),
        None => {
            let exports = match names.as_slice() {
                [] => "nothing".to_owned(),
                some => some.join(", "),
            };
            Err(Error::advised(
                format!(
                    "this component is no Kinograph plugin: it exports {exports} instead of \
                     kino:plugin/node@{MAJOR}"
                ),
                "it was built for another world; plugins are built with the `kino-plugin` crate, \
                 or against plugins/abi/wit/kino-plugin.wit",
            ))
        }
    }
}

fn other_version(name: &str) -> Error {
    Error::advised(
        format!("this plugin was built for {name}, this Kinograph offers version {MAJOR}"),
        "build it with the SDK of this Kinograph, or use the Kinograph that it was made for",
    )
}

/// All that a component may import.
///
/// # Errors
/// When it imports something else.
pub(crate) fn link(engine: &WasmEngine, component: &Component) -> Result<Linker<StoreState>> {
    let mut linker = Linker::new(engine.wasmtime());
    let fault = |error: wasmtime::Error| Error::failed(root(&error));
    imports::add(&mut linker).map_err(fault)?;
    let ty = component.component_type();
    for (name, item) in ty.imports(engine.wasmtime()) {
        if let Some(version) = version(name, "kino:plugin/host") {
            if major(version) != Some(MAJOR) {
                return Err(other_version(name));
            }
        } else if let (true, ComponentItem::ComponentInstance(wanted)) =
            (name.starts_with("wasi:"), &item.ty)
        {
            wasi::add(&mut linker, engine.wasmtime(), name, wanted).map_err(fault)?;
        } else {
            return Err(Error::advised(
                format!("this component imports `{name}`, which plugins cannot have"),
                "plugins import kino:plugin/host and nothing else, beside parts of WASI 0.2 that \
                 come from a standard library",
            ));
        }
    }
    Ok(linker)
}

/// What is said of a component whose imports do not fit.
pub(crate) fn misfit(error: &wasmtime::Error) -> Error {
    Error::advised(
        format!("this component asks for what this Kinograph does not offer: {error:#}"),
        "it was built for a newer Kinograph, or against a changed contract",
    )
}
