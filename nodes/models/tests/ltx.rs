//! LTX-Video against diffusers, part by part, and what its configs may say.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{Golden, close, distance, golden, reference};
use kino_models::families::Families;
use kino_models::model::{
    DecodeNoise, Embedding, Embeddings, Model, Packed, Timesteps, VideoVae, WholeDecode,
};
use kino_models::patch::Grid;
use kino_models::tile::Tile;
use kino_models::{Checkpoint, Error, ModelFolder, Result, Weights};
use serde_json::{Value, json};

fn go_on() -> Result<()> {
    Ok(())
}

/// A tiny model of the family, as the registry reads it.
fn opened(name: &str) -> (Checkpoint, Model) {
    let folder = ModelFolder::directory(reference(&format!("ltx/{name}/model"))).unwrap();
    let checkpoint = Checkpoint::open(&folder).unwrap();
    assert_eq!(Families::default().name_of(&checkpoint), Some("LTX-Video"));
    let model = Families::default().read(&checkpoint).unwrap();
    (checkpoint, model)
}

fn weights(checkpoint: &Checkpoint, part: &str) -> Weights {
    weights_in(checkpoint, part, DType::F32)
}

fn weights_in(checkpoint: &Checkpoint, part: &str, dtype: DType) -> Weights {
    Weights::new(checkpoint.part(part).unwrap(), dtype, &Device::Cpu).unwrap()
}

fn case(name: &str) -> Value {
    let path = reference(&format!("ltx/{name}/case.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn the_transformer_equals_the_reference() {
    let golden = golden("ltx/v090/golden.safetensors");
    let (checkpoint, model) = opened("v090");
    let spec = model.denoiser.unwrap().spec;
    assert_eq!(spec.inputs().frame_rate, Some(25.0));
    let dit = spec.load(&weights(&checkpoint, "transformer")).unwrap();
    let text = Embedding { tensor: golden.get("x_text"), mask: Some(golden.get("x_mask")) };
    let text = dit.project(&Embeddings::from([("text".to_owned(), text)])).unwrap();
    let (x, times) = (golden.get("x"), golden.f64s("x_times"));
    let grid = Grid { frames: 3, rows: 2, columns: 2 };
    let velocity = |patches: &Tensor, grids: &[Grid], times: &[f64], frame_rate| {
        let timesteps = Timesteps::PerToken(times);
        let (extra, strengths) = (None, &[][..]);
        let guidance = None;
        let packed = Packed { patches, extra, grids, timesteps, strengths, frame_rate, guidance };
        dit.velocity(&packed, &vec![&text; grids.len()], &mut go_on)
    };
    let found = velocity(&x, &[grid], &times, Some(25.0)).unwrap();
    close("velocity", &found, &golden.get("x_velocity"), 5e-5);
    // Beside another clip it is the same, at another rate not, and without one it is an error.
    let other = (x.narrow(0, 0, 4).unwrap() * 0.5).unwrap();
    let both = Tensor::cat(&[&other, &x], 0).unwrap();
    let small = Grid { frames: 1, rows: 2, columns: 2 };
    let times_of_both = [&[300.0; 4][..], &times].concat();
    let packed = velocity(&both, &[small, grid], &times_of_both, Some(25.0)).unwrap();
    close("packed", &packed.narrow(0, 4, 12).unwrap(), &found, 1e-5);
    let slow = velocity(&x, &[grid], &times, Some(8.0)).unwrap();
    assert!(distance(&slow, &found) > 1e-3);
    assert!(velocity(&x, &[grid], &times, None).unwrap_err().to_string().contains("frame rate"));
    let mut calls = 0;
    let timesteps = Timesteps::PerToken(&times);
    let grids = [grid];
    let packed = Packed {
        patches: &x,
        extra: None,
        grids: &grids,
        timesteps,
        strengths: &[],
        frame_rate: Some(25.0),
        guidance: None,
    };
    let cancelled = dit.velocity(&packed, &[&text], &mut || {
        calls += 1;
        Err(Error::Cancelled)
    });
    assert!(matches!(cancelled, Err(Error::Cancelled)) && calls == 1);
}

/// Frames `[f, H, W, 3]` in 0…1 through the encoder: `[c, f', h, w]`.
fn encoded(vae: &dyn VideoVae, weights: &Weights, frames: &Tensor) -> Tensor {
    let mut stream = vae.load_encoder(weights).unwrap().open().unwrap();
    let (mut latents, mut at) = (Vec::new(), 0);
    while at < frames.dim(0).unwrap() {
        let chunk = frames.narrow(0, at, stream.next_frames()).unwrap();
        at += stream.next_frames();
        latents.push(stream.push(&chunk.affine(2.0, -1.0).unwrap(), &mut go_on).unwrap());
    }
    Tensor::cat(&latents, 1).unwrap()
}

/// Weights and activations of bf16 come as near to the values of f32 as diffusers in bf16 does,
/// whose decoded frames (0…1) are off by up to 0.204 (torch 2.15 on a CPU).
#[test]
fn the_autoencoder_in_bf16_is_near_the_reference() {
    let golden: Golden = golden("ltx/v090/golden.safetensors");
    let (checkpoint, model) = opened("v090");
    let (vae, weights) = (model.vae.unwrap().spec, weights_in(&checkpoint, "vae", DType::BF16));
    let decoder = vae.load_decoder(&weights).unwrap();
    for case in case("v090")["vae"].as_array().unwrap() {
        let of = |part: &str| golden.get(&format!("{}.{part}", case["name"].as_str().unwrap()));
        let frames = of("video_u8").to_dtype(DType::F32).unwrap();
        let latent = encoded(&*vae, &weights, &(frames / 255.0).unwrap());
        close("latent", &latent, &of("latent"), 0.1);
        let how = WholeDecode { tile: None, noise: None };
        let frames = decoder.decode_whole(&of("z"), &how, &mut |_, _| (), &mut go_on).unwrap();
        let frames = Tensor::cat(&frames, 0).unwrap().affine(0.5, 0.5).unwrap();
        close("frames", &frames, &of("decoded"), 0.204);
    }
}

fn check_vae(name: &str) {
    let golden: Golden = golden(&format!("ltx/{name}/golden.safetensors"));
    let (checkpoint, model) = opened(name);
    let (vae, weights) = (model.vae.unwrap().spec, weights(&checkpoint, "vae"));
    assert!(vae.decodes_whole());
    let decoder = vae.load_decoder(&weights).unwrap();
    assert!(decoder.open().unwrap().is_none());
    for case in case(name)["vae"].as_array().unwrap() {
        let of = |part: &str| golden.get(&format!("{}.{part}", case["name"].as_str().unwrap()));
        let frames = of("video_u8").to_dtype(DType::F32).unwrap();
        let latent = encoded(&*vae, &weights, &(frames / 255.0).unwrap());
        close(&format!("{name} {}: latent", case["name"]), &latent, &of("latent"), 2e-5);
        let noise = case["noise"].as_array().map(|noise| DecodeNoise {
            timestep: noise[0].as_f64().unwrap(),
            scale: noise[1].as_f64().unwrap(),
            seed: noise[2].as_u64().unwrap(),
        });
        assert_eq!(vae.decode_noise().is_some(), noise.is_some());
        let decode = |how: &WholeDecode| {
            let mut passed = Vec::new();
            let mut done = |now, all| passed.push((now, all));
            let frames = decoder.decode_whole(&of("z"), how, &mut done, &mut go_on).unwrap();
            let last = passed.last().unwrap();
            assert_eq!(last.0, last.1);
            Tensor::cat(&frames, 0).unwrap().affine(0.5, 0.5).unwrap()
        };
        let whole = decode(&WholeDecode { tile: None, noise });
        close(&format!("{name} {}: frames", case["name"]), &whole, &of("decoded"), 2e-5);
        // A tile as large as the frames is the frames; smaller ones have all of them, too.
        let large = Tile::square(64, vae.latents().spatial);
        assert_eq!(distance(&decode(&WholeDecode { tile: Some(large), noise }), &whole), 0.0);
        let small = Tile::square(2 * vae.latents().spatial, vae.latents().spatial);
        let cut = decode(&WholeDecode { tile: Some(small), noise });
        assert_eq!(cut.dims(), whole.dims());
        if let Some(noise) = noise {
            let other = DecodeNoise { seed: noise.seed + 1, ..noise };
            let other = decode(&WholeDecode { tile: None, noise: Some(other) });
            assert!(distance(&other, &whole) > 1e-3, "another seed is other noise");
        }
    }
}

#[test]
fn the_autoencoder_of_0_9_0_equals_the_reference() {
    check_vae("v090");
}

#[test]
fn the_autoencoder_of_0_9_1_equals_the_reference() {
    check_vae("vae091");
}

#[test]
fn the_autoencoder_of_0_9_5_equals_the_reference() {
    check_vae("v095");
}

#[test]
fn a_decoder_that_sees_no_frames_to_come_equals_the_reference() {
    check_vae("vae_causal");
}

#[test]
fn frames_of_other_sizes_than_are_due_are_refused() {
    let (checkpoint, model) = opened("v090");
    let (vae, weights) = (model.vae.unwrap().spec, weights(&checkpoint, "vae"));
    let layout = vae.latents();
    assert_eq!((layout.temporal, layout.spatial, layout.latent_frames(6)), (4, 8, None));
    let frames = |count: usize, height: usize| {
        Tensor::zeros((count, height, 8, 3), DType::F32, &Device::Cpu).unwrap()
    };
    let mut stream = vae.load_encoder(&weights).unwrap().open().unwrap();
    for wrong in [frames(2, 8), frames(1, 12), frames(1, 0)] {
        let error = stream.push(&wrong, &mut go_on).unwrap_err().to_string();
        assert!(error.contains("1 of one size in multiples of 8 pixels are due"), "{error}");
    }
    stream.push(&frames(1, 8), &mut go_on).unwrap();
    let error = stream.push(&frames(4, 16), &mut go_on).unwrap_err().to_string();
    assert!(error.contains("4 of one size"), "{error}");
    let decoder = vae.load_decoder(&weights).unwrap();
    let latent = Tensor::zeros((5, 1, 1, 1), DType::F32, &Device::Cpu).unwrap();
    let wrong = decoder.decode_whole(&latent, &WholeDecode::default(), &mut |_, _| (), &mut go_on);
    assert!(wrong.unwrap_err().to_string().contains("expected [6, frames, height, width]"));
}

/// Sets one key of one config of a copy and expects that the model is refused with these words.
#[track_caller]
fn refused(name: &str, file: &str, key: &str, value: Value, says: &str) {
    let place = tempfile::tempdir().unwrap();
    copy(&reference(&format!("ltx/{name}/model")), place.path());
    let path = place.path().join(file);
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config[key] = value.clone();
    std::fs::write(&path, config.to_string()).unwrap();
    let folder = ModelFolder::directory(place.path()).unwrap();
    let read = Families::default().read(&Checkpoint::open(&folder).unwrap());
    let message = match read {
        Ok(_) => panic!("{key} {value} is taken"),
        Err(error) => error.to_string(),
    };
    assert!(message.contains(file) && message.contains(says), "{key} {value}: {message}");
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn what_is_not_run_is_refused_by_the_name_of_its_key() {
    let file = "transformer/config.json";
    for (key, value) in [
        ("patch_size", json!(2)),
        ("patch_size_t", json!(2)),
        ("out_channels", json!(12)),
        ("attention_head_dim", json!(7)),
        ("cross_attention_dim", json!(20)),
        ("activation_fn", json!("silu")),
        ("qk_norm", json!("layer_norm")),
        ("norm_elementwise_affine", json!(true)),
        ("attention_bias", json!(false)),
        ("attention_out_bias", json!(false)),
        ("num_layers", json!(0)),
        ("norm_eps", json!(0.0)),
        ("caption_channels", json!(24)),
    ] {
        refused("v090", file, key, value, &format!("`{key}`"));
    }
    refused("v090", file, "_class_name", json!("Other"), "the transformer `Other`");
    refused("v090", file, "num_layers", json!(1 << 15), "which no model has");
    let file = "vae/config.json";
    for (name, key, value) in [
        ("v090", "patch_size_t", json!(2)),
        ("v090", "in_channels", json!(4)),
        ("v090", "encoder_causal", json!(false)),
        ("v090", "layers_per_block", json!([1, 1])),
        ("v090", "decoder_layers_per_block", json!([1, 1, 1, 999])),
        ("v090", "block_out_channels", json!([])),
        ("v090", "block_out_channels", json!([2, 0, 4])),
        (
            "v090",
            "down_block_types",
            json!(["LTXVideoDownBlock3D", "Other", "LTXVideoDownBlock3D"]),
        ),
        ("v090", "spatio_temporal_scaling", json!([true, false, false])),
        ("v090", "upsample_factor", json!([2, 1, 1])),
        ("v090", "timestep_conditioning", json!(true)),
        ("v090", "spatial_compression_ratio", json!(32)),
        ("v095", "downsample_type", json!(["spatial", "temporal", "other"])),
        ("v095", "downsample_type", json!(["spatial"])),
        ("v095", "block_out_channels", json!([2, 4, 4, 7])),
        ("v095", "upsample_factor", json!([2, 3])),
        ("v095", "temporal_compression_ratio", json!(8)),
    ] {
        let shown = match (key, name) {
            ("decoder_layers_per_block", _) => "layers_per_block",
            ("spatio_temporal_scaling", _) => "decoder_spatio_temporal_scaling",
            _ => key,
        };
        refused(name, file, key, value, &format!("`{shown}`"));
    }
}
