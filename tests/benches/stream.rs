//! How fast does a transformer run whose weights do not fit into memory? Against the disk alone,
//! and against arithmetic alone.
//!
//! `cargo bench --bench stream -- FOLDER [LAYERS]` writes a transformer of Wan 14B's widths in
//! scaled fp8 to FOLDER (40 layers, 14 GB, unless fewer are asked for; it stays there), and then,
//! each in a process of its own and with the file dropped from the system's cache: reads the file
//! past that cache; loads what stays in `KINO_STREAM_MEMORY` (6GiB) and computes one forward, the
//! other blocks streamed; reads the file once more, as disks that others share are not always as
//! fast; computes with blocks in memory; and samples a graph in that memory.
//! `KINO_STREAM_TOKENS` says how many tokens a forward has (64,512).

#[path = "stream/checkpoint.rs"]
mod checkpoint;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use checkpoint::{Form, Sizes};
use kino_models::ModelFolder;
use kino_models::families::wan::TransformerConfig;
use kino_models::families::wan::dit::Dit;
use kino_models::model::Timesteps;
use kino_models::patch::Grid;
use kino_models::weight::{Probe, Weights};
use kino_session::Inputs;
use serde_json::{Value, json};

/// The command's own: what it keeps of what was freed is part of the peak.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Wan 14B (`Wan-AI/Wan2.2-T2V-A14B-Diffusers`).
const SIZES: Sizes =
    Sizes { heads: 40, head_dim: 128, inner: 13_824, layers: 40, text: 4096, freq: 256 };
/// Blocks that are computed with in memory to know what arithmetic alone takes.
const MEASURED: usize = 10;
/// How often that is measured; the least counts.
const RUNS: usize = 4;
/// Set for a child: what it measures.
const CHILD: &str = "KINO_STREAM_CHILD";

fn weights_file(folder: &Path) -> PathBuf {
    folder.join("transformer/diffusion_pytorch_model.safetensors")
}

/// Has the system drop what it keeps of the file.
fn drop_cache(folder: &Path) {
    let file = format!("if={}", weights_file(folder).display());
    let dropped = Command::new("dd").args([&file, "iflag=nocache", "count=0"]).output();
    assert!(dropped.expect("dd of GNU").status.success());
}

/// Processor seconds of this process so far, its own and the system's.
fn cpu() -> [f64; 2] {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks = |field: usize| fields.get(field).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
    [ticks(11) / 100.0, ticks(12) / 100.0]
}

/// Bytes that this process has read so far, from whatever lies behind.
fn read() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}

/// Seconds since then, with those of the processor.
fn since((begun, before): (Instant, [f64; 2])) -> [f64; 3] {
    let now = cpu();
    [begun.elapsed().as_secs_f64(), now[0] - before[0], now[1] - before[1]]
}

fn memory() -> u64 {
    let size = std::env::var("KINO_STREAM_MEMORY").unwrap_or_else(|_| "6GiB".to_owned());
    kino_port::parse_bytes(&size).expect("a size")
}

fn tokens() -> Vec<usize> {
    let tokens = std::env::var("KINO_STREAM_TOKENS").unwrap_or_else(|_| "64,512".to_owned());
    tokens.split(',').map(|count| count.trim().parse().expect("a number of tokens")).collect()
}

/// Bytes a second of the disk alone: the file read in order, past the system's cache.
fn disk(folder: &Path) -> Value {
    use std::os::unix::fs::OpenOptionsExt;
    const PIECE: usize = 8 << 20;
    const ALIGNED: usize = 4096;
    /// `O_DIRECT` of Linux on x86-64 and aarch64.
    const DIRECT: i32 = if cfg!(target_arch = "aarch64") { 0o200_000 } else { 0o40_000 };
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).custom_flags(DIRECT).open(weights_file(folder));
    let mut file = file.expect("a file system that reads past its cache");
    let mut buffer = vec![0_u8; PIECE + ALIGNED];
    let start = buffer.as_ptr().align_offset(ALIGNED);
    let (begun, mut bytes) = (Instant::now(), 0);
    loop {
        match file.read(&mut buffer[start..start + PIECE]).expect("it can be read") {
            0 => break,
            read => bytes += read,
        }
    }
    json!({ "bytes": bytes, "seconds": begun.elapsed().as_secs_f64() })
}

struct Opened {
    config: TransformerConfig,
    weights: Weights,
    sizes: kino_models::weight::BlockSizes,
}

fn open(folder: &Path) -> Opened {
    let model = ModelFolder::directory(folder).expect("it was written");
    let config = TransformerConfig::read(&model).expect("it is Wan's");
    let dtype = match kino_kernels::has_bf16_products() {
        true => DType::BF16,
        false => DType::F32,
    };
    let files = Arc::new(model.part("transformer").expect("it is whole"));
    let weights = Weights::new(Arc::clone(&files), dtype, &Device::Cpu).expect("a type");
    let probe = Arc::new(Probe::default());
    Dit::load(&config, &weights.clone().probing(&probe)).expect("it fits");
    let sizes = probe.block_sizes(&files, dtype);
    Opened { config, weights, sizes }
}

fn numbers(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let wave = |i: usize| ((i * 7919) as f64 * 0.618_034).fract() as f32 - 0.5;
    Tensor::from_vec((0..count).map(wave).collect(), shape, &Device::Cpu).expect("memory")
}

/// Seconds of one forward of so many tokens, the least of `runs`, with those of the processor.
fn forward(dit: &Dit, tokens: usize, runs: usize, before: impl Fn()) -> [f64; 3] {
    let context = dit.context(&numbers(&[512, SIZES.text])).expect("it fits");
    let grid = Grid { frames: 1, rows: tokens / 8, columns: 8 };
    let patches = numbers(&[tokens, 64]);
    let times = Timesteps::PerClip(&[417.0]);
    let once = |_| {
        before();
        let begun = (Instant::now(), cpu());
        let velocity = dit.velocity(&patches, &[grid], times, &[&context], &mut || Ok(()));
        velocity.expect("it fits");
        since(begun)
    };
    (0..runs).map(once).min_by(|a, b| a[0].total_cmp(&b[0])).expect("a run")
}

/// Loads in the memory that is allowed, and computes forwards of which each reads what does not
/// stay.
fn streamed(folder: &Path) -> Value {
    let Opened { config, weights, sizes } = open(folder);
    let most = tokens().into_iter().max().unwrap_or(0);
    // What the forward itself takes: rows of tokens, and keys and values of the text.
    let run = (most * 16 * 5120 * 4 + config.num_layers * 2 * 512 * 5120 * 4) as u64;
    let fit = sizes.fit(memory().saturating_sub(run));
    drop_cache(folder);
    let (begun, before) = ((Instant::now(), cpu()), read());
    let dit = Dit::load(&config, &weights.with_residency(fit.residency.clone())).expect("it fits");
    let (load, loaded) = (since(begun), read() - before);
    let times: Vec<Value> = tokens()
        .into_iter()
        .map(|tokens| json!([tokens, forward(&dit, tokens, 1, || drop_cache(folder))]))
        .collect();
    json!({
        "blocks": fit.blocks, "resident": fit.resident, "streamed": fit.streamed,
        "loaded": loaded, "load": load, "times": times,
        "peak": kino_runtime::peak_of_process(),
    })
}

/// Seconds of a forward with all blocks in memory, by tokens.
fn resident(folder: &Path) -> Value {
    let Opened { config, weights, .. } = open(folder);
    let [half, whole] = [MEASURED / 2, MEASURED].map(|layers| {
        let mut config = config.clone();
        config.num_layers = config.num_layers.min(layers);
        Dit::load(&config, &weights).expect("it fits")
    });
    let of = |tokens: usize| {
        // In turns, so that both see the machine as it is.
        let [mut least, mut most] = [f64::INFINITY; 2];
        for _ in 0..RUNS {
            least = least.min(forward(&half, tokens, 1, || ())[0]);
            most = most.min(forward(&whole, tokens, 1, || ())[0]);
        }
        // What lies outside of blocks is in both.
        let block = (most - least) / (MEASURED - MEASURED / 2) as f64;
        most + block * (config.num_layers as f64 - MEASURED as f64)
    };
    let times: Vec<Value> =
        tokens().into_iter().map(|tokens| json!([tokens, of(tokens)])).collect();
    json!({ "times": times })
}

/// One sampling step of a graph in the memory that is allowed, as the command runs it.
fn graph(folder: &Path) -> Value {
    let own = tempfile::tempdir().expect("a folder");
    let tensor = |name: &str, shape: &[usize]| {
        let named = std::collections::HashMap::from([("x", numbers(shape))]);
        let path = own.path().join(name);
        candle_core::safetensors::save(&named, &path).expect("it can be written");
        path.display().to_string()
    };
    let (latent, text) =
        (tensor("latent.safetensors", &[16, 1, 16, 16]), tensor("text.safetensors", &[512, 4096]));
    let model = weights_file(folder).display().to_string();
    let graph = format!(
        r#"Graph(version: 1, nodes: {{
            "model": (op: "model.load", with: {{"transformer": "{model}"}}),
            "latent": (op: "tensor.read", with: {{"path": "{latent}", "name": "x"}}),
            "text": (op: "tensor.read", with: {{"path": "{text}", "name": "x"}}),
            "patches": (op: "patchify", in: {{"dit": "model.dit", "latents": "latent"}}),
            "sample": (op: "dit.sample", in: {{"dit": "model.dit", "patches": "patches", "text": "text"}},
                with: {{"steps": 1, "guidance": 1.0}}),
        }}, outputs: {{"patches": "sample.patches"}})"#
    );
    std::fs::write(own.path().join("stream.ron"), graph).expect("it can be written");
    let engine = kino_tests::engine(own.path()).keep_results(false);
    let engine = engine.memory(&memory().to_string()).build().expect("an engine");
    let graph = engine.open(own.path().join("stream.ron")).expect("the graph");
    let plan = graph.plan(&Inputs::new()).expect("it fits");
    let said = plan.steps().iter().find_map(|step| step.streamed);
    let predicted = plan.peak_memory();
    drop_cache(folder);
    let begun = Instant::now();
    let run = graph.run(Inputs::new()).out(own.path().join("out")).start().expect("a thread");
    run.wait().unwrap_or_else(|error| panic!("{error}"));
    json!({
        "seconds": begun.elapsed().as_secs_f64(), "predicted": predicted,
        "peak": kino_runtime::peak_of_process(), "ledger": engine.ledger().peak(),
        "said": said.map(|streamed| streamed.to_string()),
    })
}

/// What a child of this program measures.
fn measure(what: &str, folder: &Path) -> Value {
    drop_cache(folder);
    let program = std::env::current_exe().expect("this program");
    let out = Command::new(program).arg(folder).env(CHILD, what).output().expect("a child");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("what it measured")
}

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let Some(folder) = args.next().map(PathBuf::from) else {
        println!("name a folder in which 14 GB may be written: -- FOLDER [LAYERS]");
        return;
    };
    if let Ok(what) = std::env::var(CHILD) {
        let measured = match what.as_str() {
            "disk" => disk(&folder),
            "streamed" => streamed(&folder),
            "resident" => resident(&folder),
            _ => graph(&folder),
        };
        println!("{measured}");
        return;
    }
    let layers = args.next().map_or(SIZES.layers, |layers| layers.parse().expect("a number"));
    if !weights_file(&folder).exists() {
        let sizes = Sizes { layers, ..SIZES };
        let bytes = checkpoint::write(&folder, &sizes, Form::Fp8).expect("room on the disk");
        println!("written: {layers} layers, {:.1} GB", bytes as f64 / 1e9);
    }
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let giga = |value: &Value| number(value) / 1e9;
    let disk = || {
        let read = measure("disk", &folder);
        let (bytes, seconds) = (giga(&read["bytes"]), number(&read["seconds"]));
        println!("disk alone: {bytes:.1} GB in {seconds:.1} s, {:.2} GB/s", bytes / seconds);
        seconds / bytes
    };
    let before = disk();
    let streamed = measure("streamed", &folder);
    let speed = 2.0 / (before + disk());
    let load = giga(&streamed["loaded"]) / number(&streamed["load"][0]);
    println!(
        "loaded: {} of {} blocks stay, {:.1} GB in {:.1} s (processor: {} and {} s), {load:.2} GB/s: {:.2} of the disk",
        streamed["resident"],
        streamed["blocks"],
        giga(&streamed["loaded"]),
        number(&streamed["load"][0]),
        streamed["load"][1],
        streamed["load"][2],
        load / speed
    );
    let resident = measure("resident", &folder);
    let both = streamed["times"].as_array().into_iter().flatten();
    for (streamed_time, alone) in both.zip(resident["times"].as_array().into_iter().flatten()) {
        let (seconds, arithmetic) = (number(&streamed_time[1][0]), number(&alone[1]));
        let reading = giga(&streamed["streamed"]) / speed;
        println!(
            "{} tokens: a forward takes {seconds:.1} s (processor: {} and {} s); reading alone {reading:.1} s, arithmetic \
             alone {arithmetic:.1} s: {:.2} of the slower's speed",
            streamed_time[0],
            streamed_time[1][1],
            streamed_time[1][2],
            reading.max(arithmetic) / seconds
        );
    }
    println!("peak of the process: {:.2} GiB", number(&streamed["peak"]) / f64::from(1 << 30));
    let graph = measure("graph", &folder);
    println!(
        "a graph of one step in {:.2} GiB: {:.1} s, peak {:.2} GiB, planned {:.2} GiB, counted \
         {:.2} GiB; {}",
        memory() as f64 / f64::from(1 << 30),
        number(&graph["seconds"]),
        number(&graph["peak"]) / f64::from(1 << 30),
        number(&graph["predicted"]) / f64::from(1 << 30),
        number(&graph["ledger"]) / f64::from(1 << 30),
        graph["said"].as_str().unwrap_or("all weights stay")
    );
}
