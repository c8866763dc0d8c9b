//! Whether a file is a component of the right world; if not, what it is and what to do.

use kino_node::{Error, Result};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker};

use crate::compile::asynchronous;
use crate::stop::root;
use crate::store::StoreState;
use crate::{WasmEngine, imports, wasi};

/// The major version of the contract.
const MAJOR: u64 = 2;
const BUILD: &str = "build it for wasm32-wasip2, or turn a module into a component with `wit-component`; \
     `plugins/LANGUAGES.md` says how for each language";
const WORLD: &str = "it was built for another world; plugins are built with the `kino-plugin` crate, \
     or against plugins/abi/wit/kino-plugin.wit";

/// Looks whether a file is a component at all.
///
/// # Errors
/// When it is none.
pub(crate) fn check_form(bytes: &[u8]) -> Result<()> {
    let what = match bytes.get(..8).unwrap_or(bytes) {
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0] => return Ok(()),
        [0, b'a', b's', b'm', _, 0, 0, 0] => {
            "this is a WebAssembly module; a plugin is a component"
        }
        [0, b'a', b's', b'm', ..] => {
            "this is WebAssembly of a form that this Kinograph does not know"
        }
        _ => "this is no WebAssembly",
    };
    Err(Error::advised(what, BUILD))
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
        Some((_, version)) => Err(other_version(version)),
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
                WORLD,
            ))
        }
    }
}

fn other_version(version: &str) -> Error {
    let what = format!(
        "this plugin was built for version {version} of the contract, this Kinograph has version \
         {MAJOR}"
    );
    let hint = match major(version) {
        Some(major) if major < MAJOR => {
            "build it anew with the SDK of this Kinograph: `kino plugin build` in its folder, or in \
             other languages against its plugins/abi/wit/kino-plugin.wit"
        }
        _ => "use a newer Kinograph, or build it with the SDK of this one",
    };
    Error::advised(what, hint)
}

/// All that a component may import.
///
/// # Errors
/// When it imports something else.
pub(crate) fn link(engine: &WasmEngine, component: &Component) -> Result<Linker<StoreState>> {
    link_as(engine, component, imports::HOST)
}

/// The same, of a host whose interface has a certain name.
pub(crate) fn link_as(
    engine: &WasmEngine,
    component: &Component,
    host: &str,
) -> Result<Linker<StoreState>> {
    let mut linker = Linker::new(engine.wasmtime());
    let fault = |error: wasmtime::Error| Error::failed(root(&error));
    imports::add(&mut linker, host).map_err(fault)?;
    let ty = component.component_type();
    let mut seen = Vec::new();
    for (name, item) in ty.imports(engine.wasmtime()) {
        let ours = name.strip_prefix("kino:plugin/").and_then(|name| name.split_once('@'));
        if let Some(("host" | "types", version)) = ours {
            if major(version) != Some(MAJOR) {
                return Err(other_version(version));
            }
        } else if let (Some((_, version)), true) = (name.split_once('@'), name.starts_with("wasi:"))
            && !version.starts_with("0.2")
        {
            return Err(asynchronous(&format!("it imports `{name}`")));
        } else if let (true, ComponentItem::ComponentInstance(wanted)) =
            (name.starts_with("wasi:"), &item.ty)
        {
            wasi::add(&mut linker, engine.wasmtime(), name, wanted, &mut seen).map_err(fault)?;
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
pub(crate) fn misfit(engine: &WasmEngine, component: &Component, error: &wasmtime::Error) -> Error {
    match later_function(engine, component) {
        Some((function, version)) => Error::advised(
            format!(
                "this component calls `{function}` of version {version} of the contract, which \
                 this Kinograph does not have (it has {})",
                imports::HOST.split_once('@').map_or("", |(_, version)| version)
            ),
            "use a newer Kinograph; a plugin for both reaches what is new by name, through `op` and \
             `call`, where `has` says that it is there",
        ),
        None => Error::advised(
            format!("this component asks for what this Kinograph does not offer: {error:#}"),
            "it was built against a changed contract: build it against the \
             plugins/abi/wit/kino-plugin.wit of this Kinograph",
        ),
    }
}

/// A function that a component imports from our interface and that this version does not have,
/// with the version that the component was built for.
fn later_function(engine: &WasmEngine, component: &Component) -> Option<(String, String)> {
    let known = imports::functions_of("host");
    let ty = component.component_type();
    ty.imports(engine.wasmtime()).find_map(|(name, item)| {
        let version = version(name, "kino:plugin/host")?;
        let ComponentItem::ComponentInstance(wanted) = item.ty else { return None };
        let mut functions = wanted.exports(engine.wasmtime());
        let (later, _) = functions.find(|(name, item)| {
            matches!(item.ty, ComponentItem::ComponentFunc(_)) && !known.contains(*name)
        })?;
        Some((later.to_owned(), version.to_owned()))
    })
}
