//! What the contract rules on holds alike in the engine's process and in one of its own.

mod common;

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use common::{World, as_frames, build, trust};
use kino_host::{CallCx, GrantedFiles, Module, PluginValue};
use kino_native::NativePlugin;
use kino_node::{
    Cancel, Error, Frames, Guider, GuiderHandle, GuiderState, Latent, LatentSpace, Ledger, Result,
    Value,
};

fn mode(text: &str) -> Option<Value> {
    Some(Value::Text(text.into()))
}

fn rules(folder: &Path) -> std::path::PathBuf {
    build(folder, "rules", &["-pthread"])
}

/// What a node gave, as text: its text, or its error, what it advises, and its code.
fn told(result: Result<Vec<Option<Value>>>) -> String {
    match result.map(|outputs| outputs.into_iter().next().flatten()) {
        Ok(Some(Value::Text(text))) => text.to_string(),
        Ok(other) => format!("{other:?}"),
        Err(error) => {
            let mut told = error.to_string();
            if let Some(hint) = error.hint() {
                told += &format!(" ({hint})");
            }
            if !error.code().is_empty() {
                told += &format!(" [{}]", error.code());
            }
            told
        }
    }
}

const RULES: &[(&str, &str)] = &[
    ("read-back", "5 fields, 2 chunks, 4 of 2x4, 2"),
    (
        "numbers",
        "get_i64: expected a whole number that fits into i64, found 18446744073709551615; get_u64: \
         expected a whole number that fits into u64, found -1; get_bool: expected Bool, found Int",
    ),
    (
        "devices",
        "1: 0 2 4, strides 3 1, given back 1, then 1; new_tensor_on: this host does not lend memory \
         of a device of DLPack's type 2 here (device); take_tensor: this host does not lend memory of \
         a device of DLPack's type 2 here (device); given back 2",
    ),
    ("has", "10110 there is no function `nothing` on values (no-such-op)"),
    ("no-frames", "finish_frames: a video has at least one frame, found none [invalid]"),
    ("two-sizes", "push_frames: frames of one video have one size: 2x4 so far, then 2x6 [invalid]"),
    ("rate 0", "new_frames_builder: a rate is a number above 0, found 0 [invalid]"),
    ("rate -8", "new_frames_builder: a rate is a number above 0, found -8 [invalid]"),
    ("rate inf", "new_frames_builder: a rate is a number above 0, found inf [invalid]"),
    ("nothing", "push_frames: a builder was expected, found null [invalid]"),
    ("half", "half of it"),
    ("silent", "the plugin `test` failed and did not say why"),
    ("own", "the film is too dark (turn a lamp on) [film.dark]"),
    // What is no code is left off.
    ("own-code", "the film is too dark"),
    ("kind", "get_i64: expected Int, found Text [wrong-kind]"),
    (
        "no-value",
        "op: a value was expected, found null (what `field` finds of a field that is not there is \
         null) [invalid]",
    ),
    (
        "secret",
        "`../secret` may not be read: paths are relative to the graph, without `..` \
         (nothing was granted) [not-granted]",
    ),
];

/// Runs all rules, and tells every one that does not hold.
fn hold(plugin: &dyn Module) {
    let world = World::new();
    let broken: Vec<String> = RULES
        .iter()
        .filter_map(|(rule, expected)| {
            let found = told(world.run(plugin, "rules.node", &[mode(rule), None]));
            (found != *expected).then(|| format!("{rule}: {found}"))
        })
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// A record with a part that stays with the engine goes through a function and comes back with a
/// field more.
fn records_are_open(plugin: &dyn Module) {
    let space = LatentSpace { id: [7; 32], channels: 2, temporal: 4, spatial: 8 };
    let tensor = Tensor::zeros((2, 1, 2, 2), DType::F32, &Device::Cpu).unwrap();
    let latent = Value::from(Latent { tensor, space: Some(space.clone()) });
    let outputs = World::new().run(plugin, "rules.node", &[mode("with"), Some(latent)]).unwrap();
    let found = outputs.into_iter().next().flatten().unwrap();
    assert_eq!(found.get::<Latent>().and_then(|latent| latent.space.clone()), Some(space));
    let note = PluginValue::Value(found).field("note").unwrap().expect("a field");
    assert_eq!(note.text().unwrap(), "with");
}

/// What a function on values gives is a value like any other, where it was made or sent.
fn what_functions_give_goes_on(plugin: &dyn Module) {
    let whole = Tensor::rand(0f32, 1.0, (3, 2, 2, 3), &Device::Cpu).unwrap();
    let frames = Value::from(Frames::from_tensor(&whole, Some(8.0)).unwrap());
    let run = |name| World::new().run(plugin, "rules.node", &[mode(name), Some(frames.clone())]);
    let fitted = as_frames(run("fit").unwrap()).whole().unwrap();
    let elements = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(elements(&fitted), elements(&whole));
    assert_eq!(told(run("no-chunk")), "item: it has no item 9, only 1 [invalid]");
    let guider = || Some(Value::from(GuiderHandle(Arc::new(Quiet))));
    let run = |name| World::new().run(plugin, "rules.node", &[mode(name), guider()]);
    let found = told(run("fit"));
    assert_eq!(found, "call fit: expected Frames, found Guider [wrong-kind]");
    let given = run("fit-guider").unwrap().remove(0).expect("a guider");
    assert_eq!(given.type_name(), "Guider");
}

struct Quiet;

impl Guider for Quiet {
    fn begin(&self, _: &Cancel) -> Box<dyn GuiderState> {
        unreachable!("nobody samples here")
    }
}

/// Threads of a plugin that read files at once get what each has asked for.
fn files_do_not_mix(plugin: &dyn Module) {
    let folder = tempfile::tempdir().unwrap();
    for letter in ["a", "b", "c", "d"] {
        std::fs::write(folder.path().join(letter), letter).unwrap();
    }
    let mut world = World::new();
    world.files = GrantedFiles::new(folder.path(), &["a", "b", "c", "d"].map(str::to_owned));
    let found = told(world.run(plugin, "rules.node", &[mode("files"), None]));
    assert_eq!(found, "0 wrong");
}

/// The table of `rules` is longer than this host's, as that of a later version is.
#[test]
fn the_rules_hold_in_the_engines_process() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = NativePlugin::load(trust(&rules(folder.path()))).unwrap();
    hold(&plugin);
    records_are_open(&plugin);
    what_functions_give_goes_on(&plugin);
    files_do_not_mix(&plugin);
}

/// Frames that a thread of the plugin's own makes count against the budget of its call.
#[test]
fn a_thread_of_a_plugin_has_no_budget_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = NativePlugin::load(trust(&rules(folder.path()))).unwrap();
    let mut world = World::new();
    world.ledger = Ledger::with_spill(1 << 30, folder.path(), u64::MAX);
    // The budget that counts is the latest call's, and tests run side by side.
    let made = (0..100).any(|_| {
        let made = world.run(&plugin, "rules.node", &[mode("thread"), None]);
        let made = as_frames(made.unwrap());
        assert_eq!(made.count(), 4);
        world.ledger.used() > 0
    });
    assert!(made, "its frames are nowhere");
}

#[cfg(unix)]
mod isolated {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;
    use common::{WORKER, isolated};

    /// This test is also the worker that the others start.
    #[test]
    fn serves_as_worker() {
        common::serve(WORKER[1]);
    }

    #[test]
    fn the_rules_hold_in_a_process_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let plugin = isolated(&rules(folder.path()));
        hold(&plugin);
        records_are_open(&plugin);
        what_functions_give_goes_on(&plugin);
        files_do_not_mix(&plugin);
    }

    #[test]
    fn a_tensor_beyond_the_limit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let plugin = isolated(&rules(folder.path()));
        let mut world = World::new();
        world.limits.memory = 40;
        let found = told(world.run(&plugin, "rules.node", &[mode("tensor"), None]));
        let expected = "the plugin `test` gave 48 bytes at once, at most 40 are allowed \
                        (`kino plugin trust test --isolate --memory 1MB` allows it)";
        assert_eq!(found, expected);
        world.limits.memory = 48;
        let found = world.run(&plugin, "rules.node", &[mode("tensor"), None]).unwrap();
        assert!(matches!(found[..], [Some(Value::Tensor(_))]));
    }

    /// A cancel that comes when its run is over is not for the next one.
    #[test]
    fn a_late_cancel_is_for_the_run_before() {
        let folder = tempfile::tempdir().unwrap();
        let plugin = isolated(&rules(folder.path()));
        let open = |call: &CallCx<'_>| plugin.open("rules.node", None, call).unwrap();
        let mut instance = World::new().call(open);
        for pause in 0..40 {
            let world = World::new();
            let cancel = world.cancel.clone();
            let thread = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_micros(8000 + 100 * pause));
                cancel.cancel();
            });
            let _ = world.call(|call| instance.run(call, &[mode("brief"), None]));
            let asked = World::new().call(|call| instance.run(call, &[mode("asked"), None]));
            assert_eq!(told(asked), "not cancelled");
            thread.join().unwrap();
        }
    }

    /// A process that says what nobody understands is stopped, and the next one serves.
    #[test]
    fn a_process_that_talks_garbage_is_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let plugin = isolated(&rules(folder.path()));
        let found = told(World::new().run(&plugin, "rules.node", &[mode("garbage"), None]));
        assert!(
            found.starts_with("the plugin's process was stopped: it sent a message"),
            "{found}"
        );
        let found = told(World::new().run(&plugin, "rules.node", &[mode("asked"), None]));
        assert_eq!(found, "not cancelled");
    }

    /// A process that reads nothing does not hold the engine beyond the time of a call, nor beyond
    /// a cancel.
    #[test]
    fn a_process_that_does_not_read_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let plugin = isolated(&rules(folder.path()));
        // More than what lies between two processes, and no text that lies in a file.
        let text: Arc<str> = "x".repeat(1 << 19).into();
        let many: Vec<_> = (0..8).map(|_| (None, Value::Text(text.clone()))).collect();
        let many = Some(Value::List(many.into()));
        let mut world = World::new();
        for cancelled in [false, true] {
            let mut instance = world.call(|call| plugin.open("rules.node", None, call)).unwrap();
            world.call(|call| instance.run(call, &[mode("deaf"), None])).unwrap();
            std::thread::sleep(Duration::from_millis(300));
            world.limits.time = Duration::from_secs(if cancelled { 60 } else { 1 });
            if cancelled {
                world.cancel.cancel();
            }
            let begun = std::time::Instant::now();
            let run = world.call(|call| instance.run(call, &[mode("asked"), many.clone()]));
            let error = run.unwrap_err();
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
            match cancelled {
                true => assert!(matches!(error, Error::Cancelled), "{error}"),
                false => assert!(error.to_string().contains("took longer than 1 s"), "{error}"),
            }
            assert!(instance.is_broken());
            world.limits.time = Duration::from_secs(20);
        }
        let found = told(World::new().run(&plugin, "rules.node", &[mode("asked"), None]));
        assert_eq!(found, "not cancelled");
    }

    const ENGINE: &str = "isolated::is_an_engine_that_waits";

    /// This test is also an engine in a process of its own, whose plugin never ends.
    #[test]
    fn is_an_engine_that_waits() {
        let Some(folder) = std::env::var_os("KINO_TEST_ENGINE") else { return };
        let folder = Path::new(&folder);
        let plugin = isolated(&build(folder, "bad", &[]));
        std::fs::write(folder.join("begun"), "").unwrap();
        let _ = World::new().run(&plugin, "bad.node", &[mode("hang")]);
    }

    fn until(what: &str, done: impl Fn() -> bool) {
        for _ in 0..1000 {
            if done() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{what}");
    }

    /// A terminal interrupts all processes of a group: the worker is in another, sees that its
    /// engine is gone, and leaves nothing behind.
    #[test]
    fn a_worker_whose_engine_was_interrupted_cleans_up() {
        let folder = tempfile::tempdir().unwrap();
        let mut engine = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", ENGINE])
            .env("KINO_TEST_ENGINE", folder.path())
            .env("TMPDIR", folder.path())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let workers = || {
            let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap());
            let is_worker = |name: &str| name.starts_with("kino-worker-");
            names.filter(|entry| is_worker(&entry.file_name().to_string_lossy())).count()
        };
        until("the engine did not begin", || folder.path().join("begun").exists());
        assert_eq!(workers(), 1);

        let kill = format!("kill -s INT -- -{}", engine.id());
        let told = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(told.success());
        engine.wait().unwrap();
        until("the worker left its folder", || workers() == 0);
    }

    /// A value that only passes through a plugin lives as long as the plugin holds it.
    #[test]
    fn what_a_plugin_lets_go_of_goes() {
        let folder = tempfile::tempdir().unwrap();
        let plugin = isolated(&rules(folder.path()));
        World::new().call(|call| {
            let mut instance = plugin.open("rules.node", None, call).unwrap();
            let mut run = |text: &str| {
                let guider: Arc<dyn Guider> = Arc::new(Quiet);
                let weak = Arc::downgrade(&guider);
                (instance.run(call, &[mode(text), Some(Value::from(GuiderHandle(guider)))]), weak)
            };
            for ignored in ["read-back", "silent", "half"] {
                assert!(run(ignored).1.upgrade().is_none(), "{ignored}");
            }
            let (_, first) = run("hold");
            assert!(first.upgrade().is_some());
            let (given, second) = run("hold");
            let given = given.unwrap().remove(0).and_then(|value| value.shared::<GuiderHandle>());
            let given = given.expect("a guider");
            assert!(std::ptr::addr_eq(Arc::as_ptr(&given.0), first.as_ptr()));
            drop(given);
            assert!(first.upgrade().is_none());
            assert!(second.upgrade().is_some());
        });
    }

    #[test]
    fn a_process_that_ends_while_the_run_is_cancelled_is_cancelled() {
        let folder = tempfile::tempdir().unwrap();
        let plugin = isolated(&build(folder.path(), "bad", &[]));
        let world = World::new();
        world.cancel.cancel();
        let error = world.run(&plugin, "bad.node", &[mode("abort")]).unwrap_err();
        assert!(matches!(error, Error::Cancelled), "{error}");
    }
}
