//! Native plugins: a real one in C, isolation, and what is refused, the compiled one of version 1.0
//! among it.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{World, as_frames, build, frames, numbers, trust};
use kino_host::Module;
use kino_native::{NativePlugin, TrustedLibrary};
use kino_node::{Error, Value};

fn text(text: &str) -> [Option<Value>; 1] {
    [Some(Value::Text(text.into()))]
}

/// Blends two videos and holds every number against the formula.
fn blends(plugin: &dyn Module) {
    let world = World::new();
    let (a, b) = (frames(&world.ledger, 6, 0.0), frames(&world.ledger, 6, 100.0));
    let inputs = [Some(a), Some(b), Some(Value::Real(0.25))];
    let blended = as_frames(world.run(plugin, "c.blend", &inputs).unwrap());
    assert_eq!((blended.count(), blended.fps(), blended.chunk_count()), (6, Some(12.0), 3));
    let found = numbers(&blended);
    assert!(found.iter().enumerate().all(|(at, found)| *found == at as f32 + 25.0), "{found:?}");
    let short = frames(&world.ledger, 4, 0.0);
    let inputs = [inputs[0].clone(), Some(short), inputs[2].clone()];
    let error = world.run(plugin, "c.blend", &inputs).unwrap_err().to_string();
    assert_eq!(error, "`a` and `b` have different numbers of frames");
    world.cancel.cancel();
    let error = world.run(plugin, "c.blend", &[inputs[0].clone(), inputs[0].clone(), None]);
    assert!(error.is_err());
}

/// State lives from run to run, and from one build to the next.
fn counts(plugin: &dyn Module) {
    let world = World::new();
    let count = |saved: Option<&[u8]>, runs: usize| {
        world.call(|call| {
            let mut instance = plugin.open("c.count", saved, call).unwrap();
            let mut last = 0;
            for _ in 0..runs {
                let Some(Value::Int(count)) = instance.run(call, &[]).unwrap()[0] else { panic!() };
                last = count;
            }
            (last, instance.save(call).unwrap())
        })
    };
    let (last, saved) = count(None, 3);
    assert_eq!(last, 3);
    assert_eq!(count(saved.as_deref(), 2).0, 5);
}

#[test]
fn a_plugin_in_c_works() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = NativePlugin::load(trust(&build(folder.path(), "blend", &[]))).unwrap();
    blends(&plugin);
    counts(&plugin);
}

/// What was built for 2.0, from its source and its header of then and as it was compiled: every
/// later host must load both. Never build it again, never change its source.
#[test]
fn plugins_of_2_0_work() {
    let folder = tempfile::tempdir().unwrap();
    let built = build(folder.path(), "2.0/blend", &[]);
    let compiled =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compiled/blend-2.0-x86_64-linux.so");
    let is_here = cfg!(all(target_os = "linux", target_arch = "x86_64"));
    for path in [Some(built), is_here.then_some(compiled)].into_iter().flatten() {
        let plugin = NativePlugin::load(trust(&path)).unwrap();
        if path.ends_with("blend-2.0-x86_64-linux.so") {
            let sha256 = include_str!("compiled/blend-2.0-x86_64-linux.so.sha256");
            assert_eq!(plugin.sha256(), sha256.trim());
        }
        blends(&plugin);
        counts(&plugin);
    }
}

/// A build of 1.0 is told what to do, whoever loads it.
#[test]
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn the_compiled_plugin_of_1_0_is_told_what_to_rebuild() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compiled/blend-1.0-x86_64-linux.so");
    let error = NativePlugin::load(trust(&path)).err().expect("it is refused");
    let said = "it is built for version 1.0 of the plugin contract, this Kinograph has 2.0";
    assert!(error.to_string().ends_with(said), "{error}");
    assert!(error.hint().unwrap().contains("`kino plugin build`"), "{error:?}");
}

#[test]
fn what_is_no_plugin_is_refused_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let good = build(folder.path(), "blend", &[]);
    let whole = std::fs::read(&good).unwrap();
    let refused = |path: &Path| {
        let error = NativePlugin::load(trust(path)).err().expect("it is refused");
        error.to_string().replace(&path.display().to_string(), "FILE")
    };
    for (bytes, expected) in [
        (&b""[..], "FILE: the library is damaged: it is empty"),
        (b"#!/bin/sh\nrm -rf /\n", "FILE: it is no native library of this platform"),
        (&whole[..whole.len() / 2], "FILE: the library is damaged"),
        (&whole[..whole.len() - 1], "FILE: the library is damaged"),
    ] {
        let path = folder.path().join("bytes.so");
        std::fs::write(&path, bytes).unwrap();
        assert!(refused(&path).starts_with(expected), "{}", refused(&path));
    }
    for (flags, expected) in [
        (&["-DENTRY=not_it"][..], "it is a library, but no plugin: it exports no `kino_plugin`"),
        (
            &["-DMAJOR=3"],
            "it is built for version 3.0 of the plugin contract, this Kinograph has 2.0",
        ),
        (&["-DENTRY=_Z11kino_pluginPK8KinoHost"], "it exports `_Z11kino_pluginPK8KinoHost`, not"),
        (&["-DMAGIC=7"], "its entry gives no table of a Kinograph plugin"),
        (&["-DSMALL"], "its table has 8 bytes, version 2.0 has 96"),
        (&["-DNO_SAVE"], "its table has no `save`"),
        (&["-DREFUSE"], "the plugin refuses to start: this machine has no flux capacitor"),
        (&["-DGARBAGE"], "the plugin's descriptor: invalid type: integer `3`, expected a sequence"),
    ] {
        let error = refused(&build(folder.path(), "bad", flags));
        assert!(error.contains(expected), "{flags:?}: {error}");
    }
    let other = TrustedLibrary { path: &good, sha256: Some("00") };
    let error = NativePlugin::load(other).err().unwrap().to_string();
    assert!(error.contains("another than the one that was trusted"), "{error}");
}

/// Every cut of a library is refused or loads; none kills the process.
#[test]
fn a_library_that_is_cut_anywhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(build(folder.path(), "blend", &[])).unwrap();
    let path = folder.path().join("cut.so");
    for cut in (0..whole.len()).step_by(97) {
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert!(NativePlugin::load(trust(&path)).is_err(), "cut at {cut}");
    }
}

#[test]
fn a_node_that_fails_says_so_and_the_next_runs() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = NativePlugin::load(trust(&build(folder.path(), "bad", &[]))).unwrap();
    let world = World::new();
    let run = |mode: &str| world.run(&plugin, "bad.node", &text(mode));
    assert_eq!(
        run("silent").unwrap_err().to_string(),
        "the plugin `test` failed and did not say why"
    );
    let secret = run("secret").unwrap_err().to_string();
    assert!(secret.contains("`../secret` may not be read"), "{secret}");
    let unasked = run("unasked").unwrap_err().to_string();
    assert!(unasked.contains("nobody cancelled it"), "{unasked}");
    let huge = run("huge").unwrap_err().to_string();
    assert!(huge.contains("no 70368744177664 bytes of memory"), "{huge}");
    assert!(matches!(run("null").unwrap()[..], [None]));
    assert!(matches!(run("hello").unwrap()[..], [Some(Value::Text(_))]));
}

/// What a plugin gives is held against what it promised, by the node that the engine sees.
#[test]
fn a_plugin_that_lies_about_its_ports_is_caught() {
    use kino_host::{Limits, NoFiles, Plugin};
    use kino_node::{Cancel, Cx, Inputs, Services};
    let folder = tempfile::tempdir().unwrap();
    let native = NativePlugin::load(trust(&build(folder.path(), "bad", &[]))).unwrap();
    let limits = Limits::default();
    let plugin =
        Plugin::new("bad", "", std::sync::Arc::new(native), std::sync::Arc::new(NoFiles), limits);
    let world = World::new();
    let services = Services::new(candle_core::Device::Cpu, world.ledger.clone());
    let nodes = kino_host::plugin_nodes(&plugin);
    let mut cx = Cx {
        reads: &[],
        name: "liar",
        services: &services,
        cancel: &Cancel::default(),
        record: "",
        wanted: &[true],
        report: &|_| {},
    };
    let inputs = text("lie");
    let inputs = Inputs::new(&nodes[0].signature().inputs, &inputs);
    assert_eq!(
        nodes[0].run(&mut cx, &inputs).unwrap_err().to_string(),
        "the plugin `bad` breaks its promise: output `text`: expected Text, found Int"
    );
}

#[cfg(unix)]
mod isolated {
    use super::*;
    use common::{WORKER, isolated};

    /// This test is also the worker that the others start.
    #[test]
    fn serves_as_worker() {
        common::serve(WORKER[1]);
    }

    #[test]
    fn a_plugin_in_a_process_of_its_own_gives_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let plugin = isolated(&build(folder.path(), "blend", &[]));
        blends(&plugin);
        counts(&plugin);
    }

    #[test]
    fn a_crash_is_the_nodes_error_and_the_next_run_has_a_fresh_process() {
        let folder = tempfile::tempdir().unwrap();
        let plugin = isolated(&build(folder.path(), "bad", &[]));
        let world = World::new();
        for (mode, expected) in [("abort", "signal: 6"), ("segfault", "signal: 11")] {
            let error = world.run(&plugin, "bad.node", &text(mode)).unwrap_err().to_string();
            assert!(error.contains("the plugin's process ended"), "{error}");
            assert!(error.contains(expected), "{error}");
            let good = world.run(&plugin, "bad.node", &text("hello")).unwrap();
            assert!(matches!(good[..], [Some(Value::Text(_))]));
        }
        let secret = world.run(&plugin, "bad.node", &text("secret")).unwrap_err().to_string();
        assert!(secret.contains("`../secret` may not be read"), "{secret}");
    }

    /// What a process cannot say or keep is its node's error; the same process goes on.
    #[test]
    fn what_does_not_fit_between_processes_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let plugin = isolated(&build(folder.path(), "bad", &[]));
        let world = World::new();
        let fails = |input: &[Option<Value>], expected: &str| {
            let error = world.run(&plugin, "bad.node", input).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        fails(&text("many"), "do not go to or from an isolated plugin");
        fails(&text("deep"), "more than 32 deep");
        fails(&text("huge"), "there is no room for a tensor of 70368744177664 bytes");
        fails(&text("unasked"), "nobody cancelled it");
        let many = vec![(None, Value::Text("a".repeat(1 << 20).into())); 70];
        fails(&[Some(Value::List(many.into()))], "do not go to or from an isolated plugin");
        let mut deep = Value::Int(0);
        for _ in 0..60 {
            deep = Value::List(vec![(None, deep)].into());
        }
        fails(&[Some(deep)], "more than 32 deep");
        let good = world.run(&plugin, "bad.node", &text("hello")).unwrap();
        assert!(matches!(good[..], [Some(Value::Text(_))]));
    }

    /// Texts that no message takes go there and back.
    #[test]
    fn a_long_text_is_no_matter() {
        let folder = tempfile::tempdir().unwrap();
        let plugin = isolated(&build(folder.path(), "bad", &[]));
        for long in ["long", &"ä".repeat(35 << 20)] {
            let given = World::new().run(&plugin, "bad.node", &text(long)).unwrap();
            let [Some(Value::Text(given))] = &given[..] else { panic!("no text") };
            assert_eq!(given.len(), 70 << 20);
        }
    }

    #[test]
    fn time_and_cancel_are_enforced_from_outside() {
        let folder = tempfile::tempdir().unwrap();
        let plugin = isolated(&build(folder.path(), "bad", &[]));
        let mut world = World::new();
        world.limits.time = Duration::from_millis(300);
        let begun = Instant::now();
        let error = world.run(&plugin, "bad.node", &text("hang")).unwrap_err().to_string();
        assert!(error.contains("took longer than 0.3 s"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(10));
        let world = World::new();
        let cancel = world.cancel.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            cancel.cancel();
        });
        let error = world.run(&plugin, "bad.node", &text("spin")).unwrap_err();
        assert!(matches!(error, Error::Cancelled), "{error}");
        thread.join().unwrap();
    }
}
