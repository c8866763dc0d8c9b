//! How much processor time do four blocks of a transformer of Wan 1.3B take, in each compute type?
//!
//! `cargo bench -p kino-tests --bench transformer -- [TOKENS] [RUNS]`, 512 and 5 where nothing is
//! said. The types take turns within one process, so that whatever else the machine does meets all
//! of them. The weights are random, of the published widths, stored in bf16 (and in fp8 for the
//! last row). `RAYON_NUM_THREADS` says with how many threads.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use kino_models::ModelFolder;
use kino_models::families::wan::TransformerConfig;
use kino_models::families::wan::dit::Dit;
use kino_models::model::Timesteps;
use kino_models::patch::Grid;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BLOCKS: usize = 4;
const DIM: usize = 1536;
const INNER: usize = 8960;
const TEXT: usize = 4096;

/// Small reproducible numbers, as bf16.
fn random(seed: &mut u64, shape: &[usize], size: f32) -> Tensor {
    let count = shape.iter().product();
    let mut next = || {
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((*seed >> 40) as f32 / 8_388_608.0 - 1.0) * size
    };
    let numbers: Vec<f32> = (0..count).map(|_| next()).collect();
    let tensor = Tensor::from_vec(numbers, shape, &Device::Cpu).expect("memory");
    tensor.to_dtype(DType::BF16).expect("a type of candle")
}

fn write(folder: &Path, eight_bits: bool) {
    let mut tensors = HashMap::new();
    let mut seed = 7;
    let mut add = |name: String, shape: &[usize]| {
        let inner = shape[shape.len() - 1] as f32;
        let tensor =
            random(&mut seed, shape, if shape.len() > 1 { inner.sqrt().recip() } else { 0.1 });
        let narrow = eight_bits && name.starts_with("blocks") && shape.len() == 2;
        let tensor = match narrow {
            true => tensor.to_dtype(DType::F8E4M3).expect("a type of candle"),
            false => tensor,
        };
        tensors.insert(name, tensor);
    };
    let mut linear = |name: &str, inner: usize, out: usize| {
        add(format!("{name}.weight"), &[out, inner]);
        add(format!("{name}.bias"), &[out]);
    };
    linear("condition_embedder.time_embedder.linear_1", 256, DIM);
    linear("condition_embedder.time_embedder.linear_2", DIM, DIM);
    linear("condition_embedder.time_proj", DIM, 6 * DIM);
    linear("condition_embedder.text_embedder.linear_1", TEXT, DIM);
    linear("condition_embedder.text_embedder.linear_2", DIM, DIM);
    linear("proj_out", DIM, 64);
    for block in 0..BLOCKS {
        for name in ["attn1", "attn2"] {
            for part in ["to_q", "to_k", "to_v", "to_out.0"] {
                linear(&format!("blocks.{block}.{name}.{part}"), DIM, DIM);
            }
        }
        linear(&format!("blocks.{block}.ffn.net.0.proj"), DIM, INNER);
        linear(&format!("blocks.{block}.ffn.net.2"), INNER, DIM);
    }
    for block in 0..BLOCKS {
        for name in ["attn1.norm_q", "attn1.norm_k", "attn2.norm_q", "attn2.norm_k", "norm2"] {
            add(format!("blocks.{block}.{name}.weight"), &[DIM]);
        }
        add(format!("blocks.{block}.norm2.bias"), &[DIM]);
        add(format!("blocks.{block}.scale_shift_table"), &[1, 6, DIM]);
    }
    add("scale_shift_table".to_owned(), &[1, 2, DIM]);
    add("patch_embedding.weight".to_owned(), &[DIM, 16, 1, 2, 2]);
    add("patch_embedding.bias".to_owned(), &[DIM]);
    std::fs::create_dir_all(folder.join("transformer")).expect("a temporary folder");
    let config = format!(
        r#"{{"_class_name": "WanTransformer3DModel", "patch_size": [1, 2, 2],
        "num_attention_heads": 12, "attention_head_dim": 128, "in_channels": 16,
        "out_channels": 16, "text_dim": {TEXT}, "freq_dim": 256, "ffn_dim": {INNER},
        "num_layers": {BLOCKS}, "cross_attn_norm": true, "eps": 1e-6}}"#
    );
    std::fs::write(folder.join("transformer/config.json"), config).expect("it can be written");
    let file = folder.join("transformer/diffusion_pytorch_model.safetensors");
    candle_core::safetensors::save(&tensors, file).expect("it can be written");
}

fn load(folder: &Path, dtype: DType) -> Dit {
    let folder = ModelFolder::directory(folder).expect("it was written");
    let config = TransformerConfig::read(&folder).expect("it is Wan's");
    let weights = folder.weights("transformer", dtype, &Device::Cpu).expect("they are whole");
    Dit::load(&config, &weights).expect("they fit")
}

/// Processor seconds of this process so far.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks = |field: usize| fields.get(field).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let tokens = numbers.first().copied().unwrap_or(512);
    let runs = numbers.get(1).copied().unwrap_or(5);
    let place = tempfile::tempdir().expect("a temporary folder");
    let (wide, narrow) = (place.path().join("bf16"), place.path().join("fp8"));
    write(&wide, false);
    write(&narrow, true);
    let networks = [
        ("f32", load(&wide, DType::F32)),
        ("bf16", load(&wide, DType::BF16)),
        ("fp8 in f32", load(&narrow, DType::F32)),
        ("fp8 in bf16", load(&narrow, DType::BF16)),
    ];
    let mut seed = 11;
    let patches = random(&mut seed, &[tokens, 64], 1.0).to_dtype(DType::F32).expect("f32");
    let text = random(&mut seed, &[512, TEXT], 0.1).to_dtype(DType::F32).expect("f32");
    let grid = Grid { frames: 1, rows: tokens, columns: 1 };
    let contexts = networks.iter().map(|(_, dit)| dit.context(&text).expect("it fits"));
    let contexts: Vec<_> = contexts.collect();
    let mut best = vec![(f64::MAX, f64::MAX); networks.len()];
    let mut all = vec![Vec::new(); networks.len()];
    for _ in 0..runs {
        for (index, (_, dit)) in networks.iter().enumerate() {
            let (before, start) = (cpu(), Instant::now());
            let times = Timesteps::PerClip(&[417.0]);
            let context = &[&contexts[index]];
            dit.velocity(&patches, &[grid], times, context, &mut || Ok(())).expect("it fits");
            let (spent, wall) = (cpu() - before, start.elapsed().as_secs_f64());
            best[index] = (best[index].0.min(spent), best[index].1.min(wall));
            all[index].push(spent);
        }
    }
    for ((name, _), ((cpu, wall), all)) in networks.iter().zip(best.iter().zip(&mut all)) {
        all.sort_by(f64::total_cmp);
        let middle = all[all.len() / 2];
        println!(
            "{tokens} tokens, {name}: least {cpu:.2} s of processor time, {wall:.2} s of wall; \
             median {middle:.2} s of processor time"
        );
    }
}
