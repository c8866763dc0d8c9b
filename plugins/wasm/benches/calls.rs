//! What a component costs: a call of an empty node, and a gain over a clip, beside their floors.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use criterion::{Criterion, criterion_group, criterion_main};
use kino_host::{Artifact, Call, Limits, NoFiles};
use kino_node::{Cancel, Frames, FramesBuilder, Spill, Value};
use kino_wasm::{Engine, WasmPlugin};

const GUESTS: &[u8] = include_bytes!("../tests/components/guests.wasm");

fn run(plugin: &WasmPlugin, node: &str, spill: &Arc<Spill>, inputs: &[Option<Value>]) -> Value {
    let call = Call {
        plugin: "guests",
        step: "step",
        device: &Device::Cpu,
        spill,
        cancel: &Cancel::default(),
        wanted: &[true],
        report: &|_| {},
        files: &NoFiles,
        limits: Limits::default(),
        listener: None,
    };
    let outputs = plugin.open(node, None, &call).unwrap().run(&call, inputs).unwrap();
    outputs.into_iter().next().flatten().unwrap()
}

fn empty(criterion: &mut Criterion) {
    let plugin = WasmPlugin::load(&Engine::new(None).unwrap(), "guests", GUESTS).unwrap();
    let spill = Spill::new(std::env::temp_dir(), 1 << 32);
    criterion.bench_function("an empty node, fresh instance", |bencher| {
        bencher.iter(|| run(&plugin, "good.empty", &spill, &[]));
    });
}

fn gain(criterion: &mut Criterion) {
    let plugin = WasmPlugin::load(&Engine::new(None).unwrap(), "guests", GUESTS).unwrap();
    let spill = Spill::new(Path::new("/tmp"), 1 << 33);
    let chunk = Tensor::rand(0f32, 1.0, (9, 480, 832, 3), &Device::Cpu).unwrap();
    let make = |scale: f64| {
        let mut builder = FramesBuilder::new(&spill, None);
        for _ in 0..9 {
            builder.push(&(chunk.to_dtype(DType::F32).unwrap() * scale).unwrap()).unwrap();
        }
        Arc::new(builder.finish().unwrap())
    };
    let frames = make(0.5);
    let mut group = criterion.benchmark_group("gain over 81 frames 480x832");
    group.sample_size(10);
    group.bench_function("in a component", |bencher| {
        let input = [Some(Value::Frames(Arc::clone(&frames)))];
        bencher.iter(|| run(&plugin, "good.gain", &spill, &input));
    });
    group.bench_function("built in", |bencher| bencher.iter(|| built_in(&frames, &spill)));
    let whole = frames.whole().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    group.bench_function("memcpy of the bytes", |bencher| bencher.iter(|| whole.clone()));
}

/// The same with candle, chunk by chunk.
fn built_in(frames: &Frames, spill: &Arc<Spill>) -> Frames {
    let mut out = FramesBuilder::new(spill, None);
    for chunk in frames.chunks() {
        out.push(&(chunk.unwrap() * 2.0).unwrap()).unwrap();
    }
    out.finish().unwrap()
}

criterion_group!(benches, empty, gain);
criterion_main!(benches);
