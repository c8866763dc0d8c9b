//! The autoencoder against values computed by diffusers, and against itself.

use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use kino_models::families::wan::VaeConfig;
use kino_models::families::wan::vae::{self, Vae};
use kino_models::tile::Tile;
use kino_models::{Error, ModelFolder, Result};

/// The limit of issue and documentation: what float32 sums in another order may differ by.
const LIMIT: f32 = 2e-5;

fn repository(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(path)
}

fn load(path: &str) -> Vae {
    load_in(path, DType::F32)
}

fn load_in(path: &str, dtype: DType) -> Vae {
    let folder = ModelFolder::directory(repository(path)).unwrap();
    let config = VaeConfig::read(&folder).unwrap();
    Vae::load(&config, &folder.weights("vae", dtype, &Device::Cpu).unwrap()).unwrap()
}

fn wan() -> Vae {
    load("tests/ref/wan_t2v/model")
}

/// The residual form of Wan 2.2.
fn residual() -> Vae {
    load("tests/ref/wan22_ti2v/model")
}

fn shapes() -> Vae {
    load("nodes/shapes/model")
}

struct Reference(std::collections::HashMap<String, Tensor>);

impl Reference {
    fn read(path: &str) -> Self {
        Self(candle_core::safetensors::load(repository(path), &Device::Cpu).unwrap())
    }

    fn golden() -> Self {
        Self::read("tests/ref/wan_t2v/golden/vae.safetensors")
    }

    fn residual() -> Self {
        Self::read("tests/ref/wan22_ti2v/golden/vae.safetensors")
    }

    /// One tensor without its batch dimension.
    fn get(&self, name: &str) -> Tensor {
        self.0[name].squeeze(0).unwrap()
    }

    /// `[3, f, h, w]` in 0…255 → `[f, h, w, 3]` in −1…1.
    fn video(&self, name: &str) -> Tensor {
        let video = self.get(name).permute((1, 2, 3, 0)).unwrap().to_dtype(DType::F32).unwrap();
        video.contiguous().unwrap().affine(1.0 / 127.5, -1.0).unwrap()
    }

    /// `[3, f, h, w]` → `[f, h, w, 3]`.
    fn frames(&self, name: &str) -> Tensor {
        self.get(name).permute((1, 2, 3, 0)).unwrap().contiguous().unwrap()
    }
}

fn go_on() -> Result<()> {
    Ok(())
}

/// The largest difference, in f64 so that bytes compare too.
#[track_caller]
fn distance(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let wide = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
    let gap = (wide(a) - wide(b)).unwrap().abs().unwrap().flatten_all().unwrap();
    gap.max(0).unwrap().to_scalar::<f64>().unwrap() as f32
}

#[track_caller]
fn close(a: &Tensor, b: &Tensor, limit: f32) {
    let gap = distance(a, b);
    assert!(gap <= limit, "differ by {gap:e}, more than {limit:e}");
    println!("within {gap:e}");
}

/// Latents that mean `raw` once the decoder has put the statistics back.
fn normalized(vae: &Vae, raw: &Tensor) -> Tensor {
    let column = |values: &[f64]| {
        let values = Tensor::new(values, &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
        values.reshape((values.elem_count(), 1, 1, 1)).unwrap()
    };
    let config = vae.config();
    let centred = raw.broadcast_sub(&column(&config.latents_mean)).unwrap();
    centred.broadcast_div(&column(&config.latents_std)).unwrap()
}

/// Raw mean and log-variance of a whole clip.
fn moments(vae: &Vae, video: &Tensor) -> (Tensor, Tensor) {
    let mut encoder = vae.encoder().unwrap();
    let (mut means, mut variances, mut start) = (Vec::new(), Vec::new(), 0);
    while start < video.dim(0).unwrap() {
        let count = encoder.next_frames();
        let chunk = video.narrow(0, start, count).unwrap();
        let (mean, variance) = encoder.push_moments(&chunk, &mut go_on).unwrap();
        means.push(mean);
        variances.push(variance);
        start += count;
    }
    (Tensor::cat(&means, 1).unwrap(), Tensor::cat(&variances, 1).unwrap())
}

const TILE: Tile = Tile { height: 32, width: 24, stride_height: 24, stride_width: 16 };

#[test]
fn encoding_equals_the_reference() {
    encodes_as(&wan(), &Reference::golden());
}

#[test]
fn the_residual_form_encodes_as_the_reference() {
    encodes_as(&residual(), &Reference::residual());
}

#[track_caller]
fn encodes_as(vae: &Vae, golden: &Reference) {
    for case in ["a", "b", "c"] {
        let video = golden.video(&format!("{case}.video_u8"));
        let (mean, variance) = moments(vae, &video);
        close(&mean, &golden.get(&format!("{case}.mean")), LIMIT);
        close(&variance, &golden.get(&format!("{case}.logvar_unclamped")), LIMIT);
        let latent = vae.encode(&video, None, &mut go_on).unwrap();
        close(&latent, &normalized(vae, &golden.get(&format!("{case}.mean"))), LIMIT);
    }
}

#[test]
fn decoding_equals_the_reference() {
    decodes_as(&wan(), &Reference::golden());
}

#[test]
fn the_residual_form_decodes_as_the_reference() {
    decodes_as(&residual(), &Reference::residual());
}

#[track_caller]
fn decodes_as(vae: &Vae, golden: &Reference) {
    for case in ["a", "b", "c"] {
        let latent = normalized(vae, &golden.get(&format!("{case}.z")));
        let frames = vae.decode(&latent, None, &mut go_on).unwrap();
        close(&frames, &golden.frames(&format!("{case}.dec")), LIMIT);
    }
}

/// Weights and activations of bf16 are as near to diffusers' values in f32 as diffusers in bf16 is
/// to itself: its root mean square of the difference is at most the limit of
/// that of the values (decoded, encoded; `torch_dtype=torch.bfloat16`, torch 2.15 on a CPU).
#[test]
fn in_bf16_it_is_as_near_to_the_reference_as_diffusers_is() {
    for (family, golden, limits) in [
        ("wan_t2v", Reference::golden(), [0.0282, 0.0163]),
        ("wan22_ti2v", Reference::residual(), [0.0170, 0.0134]),
    ] {
        let vae = load_in(&format!("tests/ref/{family}/model"), DType::BF16);
        for case in ["a", "b", "c"] {
            let latent = normalized(&vae, &golden.get(&format!("{case}.z")));
            let frames = vae.decode(&latent, None, &mut go_on).unwrap();
            let (mean, _) = moments(&vae, &golden.video(&format!("{case}.video_u8")));
            let decoded = off(&frames, &golden.frames(&format!("{case}.dec")));
            let encoded = off(&mean, &golden.get(&format!("{case}.mean")));
            println!("{family} {case}: decoded {decoded:e}, encoded {encoded:e}");
            assert!(decoded > 0.0 && decoded < limits[0], "{family} {case}: {decoded}");
            assert!(encoded > 0.0 && encoded < limits[1], "{family} {case}: {encoded}");
        }
    }
}

/// The root mean square of the difference, relative to that of what is expected.
fn off(found: &Tensor, expected: &Tensor) -> f64 {
    let square = |x: Tensor| {
        let x = x.to_dtype(DType::F64).unwrap();
        x.sqr().unwrap().mean_all().unwrap().to_scalar::<f64>().unwrap()
    };
    (square((found - expected).unwrap()) / square(expected.clone())).sqrt()
}

#[test]
fn tiles_equal_the_reference() {
    let (vae, golden) = (wan(), Reference::golden());
    let latent = vae.encode(&golden.video("b.video_u8"), Some(TILE), &mut go_on).unwrap();
    close(&latent, &normalized(&vae, &golden.get("b.mean_tiled")), LIMIT);
    let latent = normalized(&vae, &golden.get("b.z"));
    let frames = vae.decode(&latent, Some(TILE), &mut go_on).unwrap();
    close(&frames, &golden.frames("b.dec_tiled"), LIMIT);
    let whole = vae.decode(&latent, None, &mut go_on).unwrap();
    assert!(distance(&frames, &whole) > 1e-3, "tiles see less, so they must differ");
}

/// In the residual form tiles are blended where pixels are still folded into channels.
#[test]
fn tiles_of_the_residual_form_equal_the_reference() {
    let (vae, golden) = (residual(), Reference::residual());
    let tile = Tile { height: 48, width: 32, stride_height: 32, stride_width: 16 };
    let latent = normalized(&vae, &golden.get("b.z"));
    let frames = vae.decode(&latent, Some(tile), &mut go_on).unwrap();
    close(&frames, &golden.frames("b.dec_tiled"), LIMIT);
    let whole = vae.decode(&latent, None, &mut go_on).unwrap();
    assert!(distance(&frames, &whole) > 1e-3, "tiles see less, so they must differ");
    // Encoding in tiles: a tile that holds all of a frame is no tile, smaller ones are near.
    let video = golden.video("b.video_u8");
    let whole = vae.encode(&video, None, &mut go_on).unwrap();
    let one = vae.encode(&video, Some(Tile::square(64, 16)), &mut go_on).unwrap();
    assert_eq!(distance(&whole, &one), 0.0);
    let tiled = vae.encode(&video, Some(Tile::square(32, 16)), &mut go_on).unwrap();
    assert_eq!(tiled.dims(), whole.dims());
    let odd = Tile { width: 24, ..tile };
    assert!(vae.encode(&video, Some(odd), &mut go_on).is_err(), "24 is no multiple of 16");
}

#[test]
fn a_residual_form_of_other_widths_equals_the_reference() {
    let vae = load("tests/ref/wan22_vae/model");
    let golden = Reference::read("tests/ref/wan22_vae/golden.safetensors");
    let of = |name: &str| golden.0[name].clone();
    let pixels = |name: &str| of(name).permute((1, 2, 3, 0)).unwrap().contiguous().unwrap();
    let (mean, variance) = moments(&vae, &pixels("video"));
    close(&mean, &of("mean"), LIMIT);
    close(&variance, &of("logvar"), LIMIT);
    let frames = vae.decode(&normalized(&vae, &of("z")), None, &mut go_on).unwrap();
    close(&frames, &pixels("dec"), LIMIT);
}

#[test]
fn one_tile_equals_no_tiles() {
    let (vae, golden) = (wan(), Reference::golden());
    let latent = normalized(&vae, &golden.get("b.z"));
    let whole = vae.decode(&latent, None, &mut go_on).unwrap();
    let tiled = vae.decode(&latent, Some(Tile::default()), &mut go_on).unwrap();
    assert_eq!(distance(&whole, &tiled), 0.0);
    let video = golden.video("b.video_u8");
    let whole = vae.encode(&video, None, &mut go_on).unwrap();
    let tiled = vae.encode(&video, Some(Tile::square(64, 8)), &mut go_on).unwrap();
    assert_eq!(distance(&whole, &tiled), 0.0);
}

#[test]
fn pipelines_decode_to_their_frames() {
    let vae = wan();
    for case in ["pipe_a", "pipe_b", "pipe_image"] {
        let golden = Reference::read(&format!("tests/ref/wan_t2v/golden/{case}.safetensors"));
        let latent = normalized(&vae, &golden.get("vae_in"));
        let frames = vae.decode(&latent, None, &mut go_on).unwrap();
        let bytes = frames.affine(127.5, 127.5).unwrap().round().unwrap();
        let expected = golden.0["frames_u8"].to_dtype(DType::F32).unwrap();
        close(&bytes, &expected, 1.0);
    }
}

#[test]
fn the_embedded_model_decodes_to_its_frames() {
    let vae = shapes();
    for case in ["t2v_wide", "t2v_tall", "t2v_zh", "image"] {
        let reference = Reference::read(&format!("tests/ref/shapes/{case}.safetensors"));
        let frames = vae.decode(&reference.get("latents"), None, &mut go_on).unwrap();
        let bytes = frames.affine(127.5, 127.5).unwrap().round().unwrap();
        let expected = reference.0["frames_u8"].to_dtype(DType::F32).unwrap();
        close(&bytes, &expected, 1.0);
    }
}

#[test]
fn a_clip_begins_as_its_beginning() {
    // Causal: what comes later changes nothing before it, and chunks are what whole clips are.
    let vae = shapes();
    let reference = Reference::read("tests/ref/shapes/t2v_wide.safetensors");
    let latent = reference.get("latents");
    let whole = vae.decode(&latent, None, &mut go_on).unwrap();
    let short = vae.decode(&latent.narrow(1, 0, 2).unwrap(), None, &mut go_on).unwrap();
    assert_eq!(distance(&whole.narrow(0, 0, 5).unwrap(), &short), 0.0);
    let again = vae.encode(&whole, None, &mut go_on).unwrap();
    let short = vae.encode(&whole.narrow(0, 0, 9).unwrap(), None, &mut go_on).unwrap();
    assert_eq!(distance(&again.narrow(1, 0, 3).unwrap(), &short), 0.0);
}

#[test]
fn memory_does_not_grow_with_length() {
    keeps_little(&wan(), [32, 48], TILE);
    let tile = Tile { height: 64, width: 48, stride_height: 48, stride_width: 32 };
    keeps_little(&residual(), [64, 96], tile);
    keeps_little(&load_in("tests/ref/wan_t2v/model", DType::BF16), [32, 48], TILE);
}

#[test]
fn behind_the_last_chunk_nothing_is_kept() {
    let vae = wan();
    let over = "this clip has had its last chunk";
    let latent = Tensor::randn(0f32, 1.0, (vae.config().z_dim, 4, 6), &Device::Cpu).unwrap();
    let (mut kept, mut ended) = (vae.decoder().unwrap(), vae.decoder().unwrap());
    for _ in 0..2 {
        for decoder in [&mut kept, &mut ended] {
            decoder.push(&latent, &mut go_on).unwrap();
        }
    }
    let last = [kept.push(&latent, &mut go_on), ended.finish(&latent, &mut go_on)];
    let [pushed, finished] = last.map(Result::unwrap);
    assert_eq!(distance(&pushed, &finished), 0.0);
    assert!(kept.cache_bytes() > 0 && ended.cache_bytes() == 0);
    assert!(ended.push(&latent, &mut go_on).unwrap_err().to_string().contains(over));

    let frames = Tensor::randn(0f32, 1.0, (4, 32, 48, 3), &Device::Cpu).unwrap();
    let first = frames.narrow(0, 0, 1).unwrap();
    let (mut kept, mut ended) = (vae.encoder().unwrap(), vae.encoder().unwrap());
    for encoder in [&mut kept, &mut ended] {
        encoder.push(&first, &mut go_on).unwrap();
    }
    let last = [kept.push(&frames, &mut go_on), ended.finish(&frames, &mut go_on)];
    let [pushed, finished] = last.map(Result::unwrap);
    assert_eq!(distance(&pushed, &finished), 0.0);
    assert!(kept.cache_bytes() > 0 && ended.cache_bytes() == 0);
    assert!(ended.push(&frames, &mut go_on).unwrap_err().to_string().contains(over));
}

/// What is kept between chunks is as predicted, however many there were.
fn keeps_little(vae: &Vae, size: [usize; 2], tile: Tile) {
    let peak = vae::decode_peak(vae.config(), (21, size), None, vae.dtype());
    let latent = Tensor::randn(0f32, 1.0, (vae.config().z_dim, 4, 6), &Device::Cpu).unwrap();
    let mut decoder = vae.decoder().unwrap();
    for index in 0..6 {
        assert_eq!(decoder.next_frames(), if index == 0 { 1 } else { 4 });
        decoder.push(&latent, &mut go_on).unwrap();
        if index >= 2 {
            assert_eq!(decoder.cache_bytes(), peak.cache, "after latent frame {index}");
        }
    }
    let peak = vae::encode_peak(vae.config(), (21, size), None, vae.dtype());
    let mut encoder = vae.encoder().unwrap();
    let frame = Tensor::zeros((4, size[0], size[1], 3), DType::F32, &Device::Cpu).unwrap();
    for index in 0..6 {
        let chunk = frame.narrow(0, 0, encoder.next_frames()).unwrap();
        encoder.push(&chunk, &mut go_on).unwrap();
        if index >= 2 {
            assert_eq!(encoder.cache_bytes(), peak.cache, "after chunk {index}");
        }
    }
    // Tile by tile, what is kept is of one tile, and only the joining of frames knows the length.
    let [one, tiled] = [[tile.height, tile.width], size].map(|size| {
        let peak = |tile| vae::encode_peak(vae.config(), (21, size), tile, vae.dtype());
        [peak(None).cache, peak(Some(tile)).cache]
    });
    assert_eq!((one[0], one[0]), (one[1], tiled[1]));
    let peak =
        |frames: usize| vae::decode_peak(vae.config(), (frames, size), Some(tile), vae.dtype());
    let largest =
        vae::decode_peak(vae.config(), (13, [tile.height, tile.width]), None, vae.dtype());
    assert_eq!(peak(13).cache, largest.cache);
    assert_eq!(peak(13).cache, peak(77).cache);
    assert!(peak(13).live < peak(77).live);
    let of = |tile| vae::decode_peak(vae.config(), (21, [480, 832]), tile, vae.dtype());
    assert!(of(Some(Tile::default())).total() < of(None).total());
}

/// The real widths of Wan 2.1: 81 frames of 480×832 in tiles need less than 3 GiB with weights and
/// frames.
#[test]
fn a_clip_at_real_widths_is_decoded_in_3_gib() {
    let config = r#"{
        "_class_name": "AutoencoderKLWan", "base_dim": 96, "z_dim": 16, "dim_mult": [1, 2, 4, 4],
        "num_res_blocks": 2, "temperal_downsample": [false, true, true],
        "latents_mean": [0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0],
        "latents_std": [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]
    }"#;
    let config: VaeConfig = serde_json::from_str(config).unwrap();
    let whole = vae::decode_peak(&config, (81, [480, 832]), None, DType::F32);
    let tiled = vae::decode_peak(&config, (81, [480, 832]), Some(Tile::default()), DType::F32);
    let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
    println!("whole {:.2} GiB, in tiles {:.2} GiB", gib(whole.total()), gib(tiled.total()));
    let (weights, frames) = (4 * 73_000_000, 4 * 81 * 480 * 832 * 3);
    assert!(tiled.total() + weights + frames < 3 << 30, "{tiled:?}");
}

#[test]
fn a_single_frame_needs_less() {
    let vae = wan();
    let latent = Tensor::randn(0f32, 1.0, (16, 4, 6), &Device::Cpu).unwrap();
    let mut decoder = vae.decoder().unwrap();
    decoder.finish(&latent, &mut go_on).unwrap();
    let peak = vae::decode_peak(vae.config(), (1, [32, 48]), None, DType::F32);
    assert_eq!(decoder.cache_bytes(), peak.cache);
    let mut encoder = vae.encoder().unwrap();
    let frame = Tensor::zeros((1, 32, 48, 3), DType::F32, &Device::Cpu).unwrap();
    encoder.finish(&frame, &mut go_on).unwrap();
    assert_eq!(
        encoder.cache_bytes(),
        vae::encode_peak(vae.config(), (1, [32, 48]), None, DType::F32).cache
    );
    assert!(
        2 * peak.total() < vae::decode_peak(vae.config(), (5, [32, 48]), None, DType::F32).total()
    );
}

#[test]
fn a_tick_stops_it_within_a_block() {
    let vae = wan();
    let latent = Tensor::zeros((16, 3, 4, 6), DType::F32, &Device::Cpu).unwrap();
    let mut ticks = 0;
    vae.decode(&latent, None, &mut || {
        ticks += 1;
        Ok(())
    })
    .unwrap();
    assert!(ticks > 60, "{ticks} ticks for three latent frames");
    let mut left = 20;
    let mut stop = || match left {
        0 => Err(Error::Cancelled),
        _ => {
            left -= 1;
            Ok(())
        }
    };
    let mut decoder = vae.decoder().unwrap();
    let frame = latent.narrow(1, 0, 1).unwrap().squeeze(1).unwrap();
    assert!(matches!(decoder.push(&frame, &mut stop), Err(Error::Cancelled)));
    let after = decoder.push(&frame, &mut go_on).unwrap_err();
    assert!(after.to_string().contains("open a new one"), "{after}");
}

#[test]
fn previews_resemble_the_frames() {
    let vae = shapes();
    let map = vae.rgb_map().unwrap();
    for case in ["t2v_wide", "t2v_tall", "t2v_two", "image"] {
        let reference = Reference::read(&format!("tests/ref/shapes/{case}.safetensors"));
        let latent = reference.get("latents").narrow(1, 0, 1).unwrap().squeeze(1).unwrap();
        let small = map.apply(&latent).unwrap(); // [h, w, 3]
        let (h, w, _) = small.dims3().unwrap();
        let frame = reference.0["frames_u8"].get(0).unwrap().to_dtype(DType::F32).unwrap();
        let blocks = frame.reshape((h, 8, w, 24)).unwrap().reshape(((), 3));
        let blocks = blocks.unwrap().reshape((h, 8, w, 8, 3)).unwrap().mean((1, 3)).unwrap();
        let similarity = correlation(&small, &blocks);
        println!("{case}: correlation {similarity}");
        assert!(similarity > 0.6, "{case}: correlation {similarity}");
    }
}

fn correlation(a: &Tensor, b: &Tensor) -> f32 {
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let centred = |values: Vec<f32>| {
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        values.into_iter().map(|v| v - mean).collect::<Vec<_>>()
    };
    let (a, b) = (centred(flat(a)), centred(flat(b)));
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
}

#[test]
fn sizes_that_do_not_fit_are_named_with_near_ones() {
    let vae = wan();
    let config = vae.config();
    assert_eq!(vae::latent_shape(config, 17, 64, 96).unwrap(), [16, 5, 8, 12]);
    assert_eq!(vae::frames_shape(config, [16, 5, 8, 12]), [17, 64, 96, 3]);
    let message = |f, h, w| vae::latent_shape(config, f, h, w).unwrap_err().to_string();
    assert_eq!(message(16, 64, 96), "16 frames: the model needs 4k+1; near are 13 and 17");
    assert!(message(0, 64, 96).contains("near are 1 and 5"));
    assert!(message(17, 60, 96).contains("near are 56 and 64"));
    assert!(message(17, 64, 3).contains("near are 8 and 16"));
    let wrong = Tensor::zeros((8, 1, 4, 4), DType::F32, &Device::Cpu).unwrap();
    let error = vae.decode(&wrong, None, &mut go_on).unwrap_err().to_string();
    assert_eq!(error, "a latent frame [8, 4, 4]; expected [16, height, width]");
    let gap = Tile { stride_width: 40, ..TILE };
    let frames = Tensor::zeros((1, 64, 64, 3), DType::F32, &Device::Cpu).unwrap();
    assert!(vae.encode(&frames, Some(gap), &mut go_on).is_err());
}

#[test]
fn bf16_stays_near() {
    let folder = ModelFolder::directory(repository("nodes/shapes/model")).unwrap();
    let config = VaeConfig::read(&folder).unwrap();
    let weights = folder.weights("vae", DType::BF16, &Device::Cpu).unwrap();
    let vae = Vae::load(&config, &weights).unwrap();
    let reference = Reference::read("tests/ref/shapes/image.safetensors");
    let latent = reference.get("latents");
    let rough = vae.decode(&latent, None, &mut go_on).unwrap();
    let exact = shapes().decode(&latent, None, &mut go_on).unwrap();
    let gap = (rough - exact).unwrap().abs().unwrap().mean_all().unwrap();
    assert!(gap.to_scalar::<f32>().unwrap() < 0.02);
}
