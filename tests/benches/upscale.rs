//! How near does the embedded upscaler come to the convolution that it is made of?
//!
//! `cargo bench -p kino-tests --bench upscale`. One layer of the network (3×3, 64 → 64 channels)
//! and the whole node `upscale` on one frame of the same size, in turns, so that both meet the same
//! machine; the median of the pairs counts. `KINO_BENCH_SIZE=480x832` sets the size.

use std::hint::black_box;
use std::time::Instant;

use candle_core::{Device, Tensor};
use kino_kernels::{ConvInput, ConvWeights};
use kino_node::{Cancel, Cx, Frames, Inputs, Ledger, NodeDef, Services, Value};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Operations of the network for a pixel of its input: 3 → 64, 16 times 64 → 64, 64 → 48 channels.
const NETWORK: f64 = 2.0 * 9.0 * (3.0 * 64.0 + 16.0 * 64.0 * 64.0 + 64.0 * 48.0);
/// The same of one of its layers.
const LAYER: f64 = 2.0 * 9.0 * 64.0 * 64.0;
const PAIRS: usize = 9;

fn random(shape: &[usize]) -> Tensor {
    Tensor::rand(0f32, 1.0, shape, &Device::Cpu).expect("memory")
}

/// Billions of operations a second.
fn rate(operations: f64, work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    operations / begun.elapsed().as_secs_f64() / 1e9
}

fn enlarge(node: &NodeDef, services: &Services, frames: &Value) {
    let values = [
        Some(frames.clone()),
        Some(Value::Int(4)),
        Some(Value::Text("video-x4".into())),
        Some(Value::Int(0)),
    ];
    let cancel = Cancel::default();
    let mut cx = Cx {
        reads: &[],
        name: "bench",
        services,
        cancel: &cancel,
        record: "",
        wanted: &[true],
        report: &|_| {},
    };
    let inputs = Inputs::new(&node.signature.inputs, &values);
    black_box((node.run)(&mut cx, &inputs).expect("it fits"));
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let size = std::env::var("KINO_BENCH_SIZE").unwrap_or_else(|_| "480x832".to_owned());
    let (height, width) = size.split_once('x').expect("a size such as 480x832");
    let [height, width]: [usize; 2] = [height, width].map(|side| side.parse().expect("a number"));
    let pixels = (height * width) as f64;
    let weights = ConvWeights::pack(&random(&[64, 64, 3, 3]), Some(&random(&[64])), [1, 1, 1]);
    let weights = weights.expect("a kernel");
    let plane = random(&[1, height + 2, width + 2, 64]);
    let node = kino_nodes::NODES.iter().find(|node| node.signature.name == "upscale");
    let node = node.expect("the node");
    let services = kino_nodes::services(Device::Cpu, Ledger::new(u64::MAX));
    let frames = Frames::from_tensor(&random(&[1, height, width, 3]), None).expect("frames");
    let frames = Value::from(frames);
    let layer = || {
        // As many layers as the network has, so that both take about as long.
        for _ in 0..17 {
            let input = ConvInput::new(black_box(&plane));
            black_box(kino_kernels::conv(input, &weights, None).expect("it fits"));
        }
    };
    layer();
    enlarge(node, &services, &frames);
    let mut pairs = Vec::new();
    for _ in 0..PAIRS {
        let kernel = rate(17.0 * LAYER * pixels, layer);
        pairs.push((kernel, rate(NETWORK * pixels, || enlarge(node, &services, &frames))));
    }
    let kernel = median(pairs.iter().map(|pair| pair.0).collect());
    let whole = median(pairs.iter().map(|pair| pair.1).collect());
    let ratio = median(pairs.iter().map(|pair| pair.1 / pair.0).collect());
    println!("{height}x{width}, {} threads", kino_kernels::threads());
    println!("convolution 3x3, 64 to 64: {kernel:.0} GFLOP/s");
    println!("upscale by video-x4:       {whole:.0} GFLOP/s, {ratio:.2} of it");
}
