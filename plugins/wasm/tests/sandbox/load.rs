//! What is no plugin, or not one for this engine, is refused by what it is.

use std::time::Instant;

use kino_host::{Module, PluginError};
use kino_node::Value;
use kino_wasm::{CompileOptions, WasmEngine, WasmPlugin};

use crate::{GUESTS, World, engine, guests};

/// An error as users read it: what happened, and what to do.
fn text(error: &PluginError) -> String {
    format!("{error}\n{}", error.hint().unwrap_or_default())
}

#[track_caller]
fn refused(bytes: &[u8], expected: &str) {
    let error = WasmPlugin::load(engine(), "guests", bytes).err().expect("it was loaded");
    assert!(text(&error).contains(expected), "{}", text(&error));
}

/// The component with all occurrences of a text replaced by another one of the same length.
fn patched(from: &str, to: &str) -> Vec<u8> {
    let (from, to) = (from.as_bytes(), to.as_bytes());
    assert_eq!(from.len(), to.len());
    let mut bytes = GUESTS.to_vec();
    let mut found = 0;
    for at in 0..bytes.len() - from.len() {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
            found += 1;
        }
    }
    assert!(found > 0, "{from:?}");
    bytes
}

/// The world `world w { export run; }` of `package a:b@1.0.0; interface run { run: func(); }`, as
/// `wit_component::dummy_module` makes it.
const OTHER_WORLD: &[u8] = include_bytes!("../components/other-world.wasm");
/// The world `world w { import files; }` of
/// `package a:b; interface files { delete: func(path: string); }`, likewise.
const EXPORTS_NOTHING: &[u8] = include_bytes!("../components/exports-nothing.wasm");
/// A plugin that 1.0 built.
const GUESTS_1_0: &[u8] = include_bytes!("../compiled/guests-1.0.wasm");

#[test]
fn the_descriptor_is_read() {
    let plugin = guests();
    let node = plugin.descriptor().node("good.state").unwrap();
    assert!(node.state);
    assert_eq!(node.signature.inputs[0].name, "x");
    assert!(plugin.descriptor().nodes.len() > 30);
}

#[test]
fn what_is_no_component_is_called_by_its_name() {
    refused(b"", "this is no WebAssembly");
    refused(b"\x7fELF and so on", "this is no WebAssembly");
    refused(b"\0asm\x01\0\0\0", "this is a WebAssembly module; a plugin is a component");
    refused(b"\0asm\x0d\0\x01\0", "exports nothing instead of kino:plugin/node@2");
    refused(b"\0asm\xff\xff\xff\xff", "of a form that this Kinograph does not know");
    refused(&GUESTS[..GUESTS.len() / 2], "cannot be compiled");
    let mut damaged = GUESTS.to_vec();
    damaged[200..400].fill(0xAA);
    refused(&damaged, "cannot be compiled");
}

#[test]
fn components_of_other_worlds_and_versions_are_refused() {
    refused(OTHER_WORLD, "it exports a:b/run@1.0.0 instead of kino:plugin/node@2");
    refused(EXPORTS_NOTHING, "exports nothing");
    refused(
        &patched("kino:plugin/node@2.0.0", "kino:plugin/node@3.0.0"),
        "version 3.0.0 of the contract, this Kinograph has version 2\nuse a newer Kinograph",
    );
    refused(
        &patched("kino:plugin/host@2.0.0", "kino:plugin/host@3.0.0"),
        "built for version 3.0.0 of the contract",
    );
    refused(
        GUESTS_1_0,
        "version 1.0.0 of the contract, this Kinograph has version 2\nbuild it anew",
    );
    refused(&patched("wasi:sockets/", "evil:sockets/"), "which plugins cannot have");
    refused(&patched("new-wide", "new-wid!"), "cannot be compiled");
}

#[test]
fn a_component_of_a_later_version_is_told_which_function_is_missing() {
    refused(
        &patched("new-wide", "new-wise"),
        "this component calls `new-wise` of version 2.0.0 of the contract, which this Kinograph",
    );
}

#[test]
fn asynchronous_components_are_called_so() {
    // The canonical function `task.cancel`.
    let cancel = b"\0asm\x0d\0\x01\0\x08\x02\x01\x05";
    refused(cancel, "this component is built for WASI 0.3 or asynchronous calls");
    refused(cancel, "--backend-qjs-disable-async");
    refused(
        &patched("wasi:random/random@0.2.3", "wasi:random/random@0.3.0"),
        "it imports `wasi:random/random@0.3.0`",
    );
}

#[test]
fn a_newer_minor_version_still_fits() {
    let minor = patched("kino:plugin/host@2.0.0", "kino:plugin/host@2.7.2");
    WasmPlugin::load(engine(), "guests", &minor).map(|_| ()).map_err(|error| text(&error)).unwrap();
}

#[test]
fn bad_descriptors_are_refused() {
    let mode = |mode: u32| patched("MODE=000", &format!("MODE={mode:03}"));
    refused(&mode(1), "the plugin `guests`");
    refused(&mode(3), "the plugin's descriptor");
    refused(&mode(4), "the plugin `guests` stopped itself");
    refused(&mode(5), "the plugin `guests`");
    refused(&mode(6), "the plugin's descriptor");
}

#[test]
fn compiled_code_is_kept_between_engines() {
    let folder = tempfile::tempdir().unwrap();
    let load = || {
        let engine = WasmEngine::new(Some(folder.path())).unwrap();
        let begun = Instant::now();
        let plugin = WasmPlugin::load(&engine, "guests", GUESTS).unwrap();
        assert_eq!(plugin.descriptor(), guests().descriptor());
        begun.elapsed()
    };
    let files = || -> Vec<_> {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        entries.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect()
    };
    let first = load();
    let kept = files();
    assert_eq!(kept.len(), 2, "the code, and what it says of its nodes");
    let second = load();
    eprintln!("compiled in {first:?}, found in {second:?}");
    assert!(files() == kept, "it was written again");
}

/// A graph is checked without the code of its plugins, which the first call compiles.
#[test]
fn a_descriptor_that_is_known_needs_no_code() {
    let folder = tempfile::tempdir().unwrap();
    let load = || {
        let engine = WasmEngine::new(Some(folder.path())).unwrap();
        WasmPlugin::load(&engine, "guests", GUESTS).unwrap()
    };
    let code = || {
        let entries = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        entries
            .filter(|path| path.extension().is_some_and(|end| end == "compiled"))
            .collect::<Vec<_>>()
    };
    load();
    std::fs::remove_file(&code()[0]).unwrap();
    let plugin = load();
    assert_eq!(plugin.descriptor(), guests().descriptor());
    assert!(code().is_empty(), "nothing was compiled");
    let world = World { plugin, ..World::new() };
    assert!(matches!(world.run("good.empty", None), Ok(Some(Value::Int(1)))));
    assert_eq!(code().len(), 1);
    // A descriptor that was damaged is asked for again.
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "descriptor") {
            let mut bytes = std::fs::read(&path).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    assert_eq!(load().descriptor(), guests().descriptor());
}

#[test]
fn a_cache_that_cannot_be_written_is_no_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let engine = WasmEngine::new(Some(&file.path().join("below"))).unwrap();
    WasmPlugin::load(&engine, "guests", GUESTS).unwrap();
}

/// A program that compiles: a shell with this script, to which the arguments of an engine come.
#[cfg(unix)]
fn compiled_by(script: &str) -> Result<(), String> {
    let args = ["-c", script, "sh"].map(str::to_owned).into();
    let program = Some(("/bin/sh".into(), args));
    let engine = WasmEngine::with_options(None, CompileOptions { program, notice: None }).unwrap();
    let plugin = WasmPlugin::load(&engine, "guests", GUESTS).map_err(|error| text(&error))?;
    assert_eq!(plugin.descriptor(), guests().descriptor());
    Ok(())
}

#[test]
#[cfg(unix)]
fn a_process_compiles_or_says_why_not() {
    assert_eq!(compiled_by("exit 2"), Ok(()), "a program that does not compile");
    assert_eq!(compiled_by("true"), Ok(()), "one that makes nothing");
    let refused = compiled_by("echo no such instruction > $3; exit 3").unwrap_err();
    assert!(refused.starts_with("this component cannot be compiled: no such instruction"));
    let killed = compiled_by("kill -9 $$").unwrap_err();
    assert!(killed.starts_with("compiling this component ended its process"), "{killed}");
    let garbage = compiled_by("echo garbage > $3").unwrap_err();
    assert!(!garbage.is_empty());
}

#[test]
fn a_file_that_is_larger_than_any_component_is_not_compiled() {
    let mut large = b"\0asm\x0d\0\x01\0".to_vec();
    large.resize((128 << 20) + 1, 0);
    refused(&large, "this component has 129 MB, at most 128 are compiled");
}

#[test]
fn an_engine_ends_while_an_instance_lives() {
    let engine = WasmEngine::new(None).unwrap();
    let plugin = WasmPlugin::load(&engine, "guests", GUESTS).unwrap();
    drop(engine);
    let world = World::new();
    let mut instance = world.call(|call| plugin.open("good.empty", None, call)).unwrap();
    drop(plugin);
    assert_eq!(world.call(|call| instance.run(call, &[])).unwrap().len(), 1);
}
