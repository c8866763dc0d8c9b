//! What plugins cost, each figure beside its floor in the same run: calls of empty nodes, and a
//! gain over 81 frames of 480×832, built in, native, isolated and as a component.

#![cfg(unix)]

mod floor;

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use candle_core::{Device, Tensor};
use floor::Floor;
use kino_host::{CallCx, Limits, Module, NoFiles};
use kino_native::{IsolatedPlugin, NativePlugin, TrustedLibrary};
use kino_node::{Cancel, Frames, FramesBuilder, Ledger, Value};

const WORKER: &str = "worker";
const COUNT: usize = 81;
const CHUNK: usize = 9;

/// The plugin's folder.
fn folder() -> PathBuf {
    kino_tests::root().join("tests/benches/costs")
}

/// Builds the plugin as a native library.
fn native_build() -> PathBuf {
    let target = kino_tests::root().join("target/costs");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "--target-dir"])
        .arg(&target)
        .current_dir(folder())
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the plugin builds");
    target.join("release").join(kino_host::library_name("costs"))
}

struct World {
    ledger: Arc<Ledger>,
}

impl World {
    fn run(&self, plugin: &dyn Module, node: &str, inputs: &[Option<Value>]) -> Value {
        self.call(|call| {
            let outputs = plugin.open(node, None, call).unwrap().run(call, inputs).unwrap();
            outputs.into_iter().next().flatten().unwrap()
        })
    }

    fn call<T>(&self, f: impl FnOnce(&CallCx<'_>) -> T) -> T {
        let cancel = Cancel::default();
        let limits = Limits { memory: 4 << 30, ..Limits::default() };
        let outside = CallCx::outside("costs", &self.ledger, &cancel, &NoFiles);
        f(&CallCx { step: "step", limits, ..outside })
    }

    fn frames(&self) -> Arc<Frames> {
        let mut builder = FramesBuilder::new(&self.ledger, Some(16.0));
        for _ in 0..COUNT / CHUNK {
            builder
                .push(&Tensor::rand(0f32, 1.0, (CHUNK, 480, 832, 3), &Device::Cpu).unwrap())
                .unwrap();
        }
        Arc::new(builder.finish().unwrap())
    }

    /// The gain as a built-in node computes it, chunk by chunk.
    fn built_in(&self, frames: &Frames, gain: f64) -> Value {
        let mut builder = FramesBuilder::new(&self.ledger, frames.fps());
        for chunk in frames.chunks() {
            builder.push(&chunk.unwrap().affine(gain, 0.0).unwrap()).unwrap();
        }
        Value::from(builder.finish().unwrap())
    }
}

/// The median of several times, in seconds; `inner` calls are one measurement.
fn median(times: usize, inner: usize, mut f: impl FnMut()) -> f64 {
    f();
    let mut all: Vec<f64> = (0..times)
        .map(|_| {
            let begun = Instant::now();
            (0..inner).for_each(|_| f());
            begun.elapsed().as_secs_f64() / inner as f64
        })
        .collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

extern "C" fn nothing(call: *const u8, out: *mut i64) -> i32 {
    i32::from(call.is_null() && out.is_null()) - 1
}

fn line(what: &str, seconds: f64, floor: f64) {
    let (value, unit) = match seconds {
        s if s < 1e-6 => (s * 1e9, "ns"),
        s if s < 1e-3 => (s * 1e6, "µs"),
        s => (s * 1e3, "ms"),
    };
    println!("{what:<58} {value:>9.1} {unit}  {:>8.2}", seconds / floor);
}

fn empty_calls(
    world: &World,
    native: &NativePlugin,
    component: &dyn Module,
    alone: &Floor,
    isolated: &IsolatedPlugin,
) {
    let function: extern "C" fn(*const u8, *mut i64) -> i32 = nothing;
    let floor = median(50, 100_000, || {
        black_box(black_box(function)(
            black_box(std::ptr::null()),
            black_box(std::ptr::null_mut()),
        ));
    });
    line("a plain extern \"C\" call", floor, floor);
    world.call(|call| {
        let mut instance = native.open("costs.empty", None, call).unwrap();
        let seconds = median(50, 10_000, || {
            black_box(instance.run(call, &[]).unwrap());
        });
        line("an empty native node", seconds, floor);
    });
    let seconds = median(50, 10_000, || {
        black_box(world.run(native, "costs.empty", &[]));
    });
    line("an empty native node, opened and closed", seconds, floor);
    let seconds = median(50, 20, || {
        black_box(world.run(isolated, "costs.empty", &[]));
    });
    line("an empty isolated node, opened and closed", seconds, floor);
    let least = median(50, 200, || alone.call().expect("a call"));
    line("wasmtime's own instantiate-and-call", least, floor);
    let seconds = median(50, 200, || {
        black_box(world.run(component, "costs.empty", &[]));
    });
    line("an empty component, fresh instance", seconds, floor);
    println!("{:<58} {:>22.2}", "    against wasmtime's own", seconds / least);
}

fn gains(world: &World, native: &NativePlugin, component: &dyn Module, isolated: &IsolatedPlugin) {
    let frames = world.frames();
    let source: Vec<u8> = vec![1; frames.bytes() as usize];
    let mut target = vec![0u8; source.len()];
    let floor = median(7, 1, || black_box(&mut target).copy_from_slice(black_box(&source)));
    drop(target);
    println!(
        "\ngain over {COUNT} frames of 480×832, {} MB                      in copies",
        source.len() / 1_000_000
    );
    line("memcpy of the bytes", floor, floor);
    let fresh = median(7, 1, || drop(black_box(source.clone())));
    line("memcpy into fresh memory", fresh, floor);
    let inputs = [Some(Value::from(Arc::clone(&frames))), Some(Value::Real(0.5))];
    let built_in = median(7, 1, || drop(black_box(world.built_in(&frames, 0.5))));
    line("built in", built_in, floor);
    for (name, plugin) in
        [("native", native as &dyn Module), ("isolated", isolated), ("component", component)]
    {
        let expected = world.built_in(&frames, 0.5).tensor().unwrap();
        let found = world.run(plugin, "costs.gain", &inputs).tensor().unwrap();
        assert_eq!(kino_tests::difference(&expected, &found), 0.0, "{name}");
        drop((expected, found));
        let seconds = median(7, 1, || drop(black_box(world.run(plugin, "costs.gain", &inputs))));
        line(name, seconds, floor);
        println!("{:<58} {:>22.2}", format!("    {name} against built in"), seconds / built_in);
    }
    for (name, plugin) in [("native", native as &dyn Module), ("component", component)] {
        for (node, by) in [("costs.kept", "by Sample"), ("costs.kept_f32", "by f32::min")] {
            let seconds = median(7, 1, || drop(black_box(world.run(plugin, node, &inputs))));
            line(&format!("{name}, kept below 1 {by}"), seconds, floor);
        }
    }
}

/// Tensors come and go as they do in the command.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    if std::env::args().any(|argument| argument == WORKER) {
        kino_native::serve().expect("a socket");
        return;
    }
    // `cargo bench --no-run` and `cargo test` only see that this builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let world = World { ledger: Ledger::new(8 << 30) };
    let library = native_build();
    let trusted = TrustedLibrary { path: &library, sha256: None };
    let native = NativePlugin::load(trusted).expect("a plugin");
    let program = std::env::current_exe().expect("this program");
    let isolated =
        IsolatedPlugin::start(Path::new(&program), &[WORKER], trusted).expect("a worker");
    let engine = kino_wasm::WasmEngine::new(None).expect("an engine");
    let bytes = std::fs::read(folder().join("costs.wasm"))
        .expect("costs.wasm: `kino plugin build tests/benches/costs --wasm` makes it");
    let component = kino_wasm::WasmPlugin::load(&engine, "costs", &bytes).expect("a component");
    let alone = Floor::new(&bytes).expect("a component");
    println!("{:<58} {:>12}  {:>8}", "a call", "median", "in calls");
    empty_calls(&world, &native, &*component, &alone, &isolated);
    gains(&world, &native, &*component, &isolated);
}
