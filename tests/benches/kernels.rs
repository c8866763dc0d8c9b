//! How fast are the kernels and the autoencoder, beside the same in candle's own operations?
//!
//! `cargo bench -p kino-tests --bench kernels`. Convolution and products report the elements per
//! second as floating-point operations: Gelem/s are GFLOP/s.

use std::hint::black_box;

use candle_core::{DType, Device, Tensor};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kino_kernels::{ConvInput, ConvWeights, Filter};
use kino_models::ModelFolder;
use kino_models::families::wan::VaeConfig;
use kino_models::families::wan::vae::Vae;

fn random(shape: &[usize]) -> Tensor {
    Tensor::rand(-1f32, 1.0, shape, &Device::Cpu).expect("memory")
}

/// 96 → 96 channels at 480×832: the dearest layer of Wan's decoder, one frame, one tap in time.
fn convolution(c: &mut Criterion) {
    let mut group = c.benchmark_group("conv 3x3, 96 to 96, 480x832");
    group.sample_size(10).throughput(Throughput::Elements(2 * 9 * 96 * 96 * 480 * 832));
    let weight = random(&[96, 96, 3, 3]);
    let packed = ConvWeights::pack(&weight, None, [1, 1, 1]).expect("fits");
    let padded = random(&[1, 482, 834, 96]);
    group.bench_function("ours, channels last", |b| {
        b.iter(|| kino_kernels::conv(ConvInput::new(black_box(&padded)), &packed, None));
    });
    let planar = random(&[1, 96, 480, 832]);
    group.bench_function("candle", |b| {
        b.iter(|| black_box(&planar).conv2d(&weight, 1, 1, 1, 1));
    });
    group.finish();
}

/// Norm and SiLU between those convolutions.
fn channel_norm(c: &mut Criterion) {
    let mut group = c.benchmark_group("channel norm and SiLU, 480x832x96");
    group.sample_size(10);
    let (x, gamma) = (random(&[1, 480, 832, 96]), random(&[96]));
    group.bench_function("ours, padding included", |b| {
        b.iter(|| kino_kernels::channel_norm_silu(black_box(&x), &gamma, [1; 4]));
    });
    group.bench_function("candle", |b| {
        b.iter(|| kino_kernels::composite::channel_norm(black_box(&x), &gamma)?.silu());
    });
    group.finish();
}

/// Self-attention of a 1.3B transformer over 2048 tokens.
fn attention(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention, 12 heads, 2048 tokens, 128 wide");
    group.sample_size(10).throughput(Throughput::Elements(4 * 12 * 2048 * 2048 * 128));
    let [q, k, v] = [(); 3].map(|()| random(&[12, 2048, 128]));
    group.bench_function("ours", |b| {
        b.iter(|| kino_kernels::attention(black_box(&q), &k, &v, 0.088));
    });
    group.bench_function("candle", |b| {
        b.iter(|| kino_kernels::composite::attention(black_box(&q), &k, &v, 0.088));
    });
    group.finish();
}

/// What else a transformer block does, at 4096 tokens of 1536.
fn rows(c: &mut Criterion) {
    let mut group = c.benchmark_group("4096 tokens of 1536");
    group.sample_size(10);
    let (x, row) = (random(&[4096, 1536]), random(&[1536]));
    let wide = random(&[4096, 8960]);
    group.bench_function("modulate, ours", |b| {
        b.iter(|| kino_kernels::modulate(black_box(&x), &row, &row, 1e-6));
    });
    group.bench_function("modulate, candle", |b| {
        b.iter(|| kino_kernels::composite::modulate(black_box(&x), &row, &row, 1e-6));
    });
    group.bench_function("GELU of 8960, ours", |b| {
        b.iter(|| kino_kernels::gelu_tanh(black_box(&wide)));
    });
    group.bench_function("GELU of 8960, candle", |b| b.iter(|| black_box(&wide).gelu()));
    group.finish();
}

/// The embedded model's autoencoder on a clip of its own size, and the upscaling of that clip.
fn clip(c: &mut Criterion) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../nodes/shapes/model");
    let folder = ModelFolder::directory(path).expect("the repository holds it");
    let config = VaeConfig::read(&folder).expect("it is valid");
    let weights = folder.weights("vae", DType::F32, &Device::Cpu).expect("they are whole");
    let vae = Vae::load(&config, &weights).expect("it is Wan's");
    let latent = random(&[16, 5, 8, 12]);
    let frames = vae.decode(&latent, None, &mut || Ok(())).expect("it fits");
    let mut group = c.benchmark_group("17 frames of 64x96");
    group.sample_size(10);
    group.bench_function("decode", |b| {
        b.iter(|| vae.decode(black_box(&latent), None, &mut || Ok(())));
    });
    group.bench_function("encode", |b| {
        b.iter(|| vae.encode(black_box(&frames), None, &mut || Ok(())));
    });
    group.bench_function("Lanczos to 256x384", |b| {
        b.iter(|| kino_kernels::resize(black_box(&frames), 256, 384, Filter::Lanczos));
    });
    group.finish();
}

criterion_group!(benches, convolution, channel_norm, attention, rows, clip);
criterion_main!(benches);
