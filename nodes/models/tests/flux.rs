//! FLUX.1 against diffusers and transformers (`tests/ref/flux.py`): CLIP's text encoder, the image
//! autoencoder, the transformer.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{Golden, close, distance, golden, model};
use kino_models::ModelFolder;
use kino_models::families::flux::dit::Dit;
use kino_models::families::flux::vae::{Decoder, Encoder};
use kino_models::families::flux::{AutoencoderConfig, TransformerConfig};
use kino_models::model::{Packed, Timesteps};
use kino_models::patch::Grid;
use kino_models::text::clip::{ClipText, ClipTextConfig, ClipTokens};
use kino_models::tile::Tile;

fn values() -> Golden {
    golden("flux/golden.safetensors")
}

/// CLIP with the config of a folder; the weights are the same in both.
fn clip(folder: &str) -> (ClipTokens, ClipText) {
    let files = model(folder);
    let config = ClipTextConfig::read(&files, "text_encoder").unwrap();
    let weights = model("flux/dev").weights("text_encoder", DType::F32, &Device::Cpu).unwrap();
    let tokens = ClipTokens::load(&files, "tokenizer", config.max_position_embeddings).unwrap();
    (tokens, ClipText::load(&config, &weights).unwrap())
}

/// Both conventions of where a text ends, both activations, and both forms of the vocabulary.
#[test]
fn texts_are_pooled_as_transformers_does() {
    let golden = values();
    let meta = std::fs::read(common::reference("flux/meta.json")).unwrap();
    let meta: serde_json::Value = serde_json::from_slice(&meta).unwrap();
    let texts = meta["texts"].as_array().unwrap();
    assert_eq!(texts.len(), 4);
    for (folder, pooled, odd) in
        [("flux/dev", "pooled", "clip.odd"), ("flux/schnell", "older", "clip.odd_older")]
    {
        let (tokens, clip) = clip(folder);
        for (index, text) in texts.iter().enumerate() {
            let ids = tokens.encode(text.as_str().unwrap()).unwrap();
            let expected = golden.f64s(&format!("clip.ids.{index}"));
            let found: Vec<f64> = ids.iter().map(|id| f64::from(*id)).collect();
            assert_eq!(found, expected, "{folder}: {text}");
            let found = clip.pooled(&ids, &mut || Ok(())).unwrap();
            let what = format!("{folder}, text {index}");
            close(&what, &found, &golden.get(&format!("clip.{pooled}.{index}")), 1e-5);
        }
        let ids: Vec<u32> = golden.f64s("clip.odd_ids").iter().map(|id| *id as u32).collect();
        let found = clip.pooled(&ids, &mut || Ok(())).unwrap();
        close(&format!("{folder}, odd"), &found, &golden.get(odd), 1e-5);
        let loss = tokens.loss(texts[3].as_str().unwrap(), 1000).unwrap();
        assert!(loss.cut.starts_with(|c: char| c.is_ascii()) && loss.cut.len() > 100, "{loss:?}");
        assert_eq!(tokens.loss(texts[0].as_str().unwrap(), 1000).unwrap(), Default::default());
        let few = tokens.loss(texts[0].as_str().unwrap(), 3);
        assert!(few.is_err(), "the encoder knows fewer tokens");
        assert!(clip.pooled(&[9999], &mut || Ok(())).is_err(), "a token of another vocabulary");
        assert!(clip.encode(&[1; 78], &mut || Ok(())).is_err(), "too many tokens");
    }
}

fn autoencoder(folder: &str) -> (Encoder, Decoder) {
    autoencoder_in(folder, DType::F32)
}

fn autoencoder_in(folder: &str, dtype: DType) -> (Encoder, Decoder) {
    let files = model(folder);
    let config = AutoencoderConfig::read(&files).unwrap();
    let weights = files.weights("vae", dtype, &Device::Cpu).unwrap();
    (Encoder::load(&config, &weights).unwrap(), Decoder::load(&config, &weights).unwrap())
}

/// With attention and without, with the convolutions of one pixel and without, at odd sizes.
#[test]
fn pictures_are_encoded_and_decoded_as_diffusers_does() {
    let golden = values();
    for (folder, name, count) in [("flux/dev", "vae", 2), ("flux/plain_vae", "plain", 1)] {
        let (encoder, decoder) = autoencoder(folder);
        for index in 0..count {
            let get = |what: &str| golden.get(&format!("{name}.{index}.{what}"));
            let picture = get("picture").unsqueeze(0).unwrap();
            let latent = encoder.encode(&picture, &mut || Ok(())).unwrap();
            close(name, &latent.squeeze(1).unwrap(), &get("latent"), 2e-5);
            let frame = decoder.decode(&get("z"), &mut || Ok(())).unwrap();
            close(name, &frame.squeeze(0).unwrap(), &get("decoded"), 2e-5);
        }
    }
    let (encoder, decoder) = autoencoder("flux/dev");
    let wrong = Tensor::zeros((1, 14, 16, 3), DType::F32, &Device::Cpu).unwrap();
    let error = encoder.encode(&wrong, &mut || Ok(())).unwrap_err();
    assert!(error.to_string().contains("multiples of 4"), "{error}");
    let wrong = Tensor::zeros((3, 4, 4), DType::F32, &Device::Cpu).unwrap();
    assert!(decoder.decode(&wrong, &mut || Ok(())).is_err());
}

/// Weights and activations of bf16 come near to the values of f32: numbers are rounded to eight
/// bits in each of some dozen layers.
#[test]
fn pictures_in_bf16_are_near_the_reference() {
    let golden = values();
    for (folder, name) in [("flux/dev", "vae"), ("flux/plain_vae", "plain")] {
        let (encoder, decoder) = autoencoder_in(folder, DType::BF16);
        let get = |what: &str| golden.get(&format!("{name}.0.{what}"));
        let picture = get("picture").unsqueeze(0).unwrap();
        let latent = encoder.encode(&picture, &mut || Ok(())).unwrap();
        close(name, &latent.squeeze(1).unwrap(), &get("latent"), 0.05);
        let frame = decoder.decode(&get("z"), &mut || Ok(())).unwrap();
        close(name, &frame.squeeze(0).unwrap(), &get("decoded"), 0.05);
    }
}

/// A tile that holds a whole picture changes nothing; the part of a smaller one that no other
/// covers is what it is alone, and every picture of several is decoded for itself.
#[test]
fn tiles_of_pictures_are_joined() {
    let golden = values();
    let (_, decoder) = autoencoder("flux/dev");
    let z = golden.get("vae.0.z"); // [4, 3, 5]
    let large = z.repeat((1, 3, 2)).unwrap().contiguous().unwrap(); // [4, 9, 10]
    let two = Tensor::stack(&[&large, &(&large * 0.5).unwrap()], 1).unwrap();
    let alone = |index: usize, [high, wide]: [usize; 2]| {
        let latent = two.narrow(1, index, 1).unwrap().squeeze(1).unwrap();
        let part = latent.narrow(1, 0, high).unwrap().narrow(2, 0, wide).unwrap();
        decoder.decode(&part, &mut || Ok(())).unwrap().clamp(-1f32, 1f32).unwrap()
    };
    let tiled = |side: usize| {
        let tile = Tile::square(side, 4);
        decoder.decode_tiles(&two, tile, &mut |_, _| (), &mut || Ok(())).unwrap()
    };
    for (index, frame) in tiled(40).iter().enumerate() {
        assert_eq!(distance(frame, &alone(index, [9, 10])), 0.0);
    }
    for (index, frame) in tiled(32).iter().enumerate() {
        assert_eq!(frame.dims(), [1, 36, 40, 3]);
        let corner = |x: &Tensor| x.narrow(1, 0, 24).unwrap().narrow(2, 0, 24).unwrap();
        assert_eq!(distance(&corner(frame), &corner(&alone(index, [8, 8]))), 0.0);
        assert!(distance(frame, &alone(index, [9, 10])) > 0.0);
    }
}

fn dit(folder: &str, dtype: DType) -> Dit {
    let files = model(folder);
    let config = TransformerConfig::read(&files).unwrap();
    Dit::load(&config, &files.weights("transformer", dtype, &Device::Cpu).unwrap()).unwrap()
}

const GRID: Grid = Grid { frames: 1, rows: 3, columns: 5 };

fn velocity(dit: &Dit, timestep: f64, guidance: Option<f64>) -> kino_models::Result<Tensor> {
    let golden = values();
    let context = dit.context(&golden.get("x_text"), &golden.get("x_pooled")).unwrap();
    let patches = golden.get("x");
    let latents = Packed {
        patches: &patches,
        extra: None,
        grids: &[GRID],
        timesteps: Timesteps::PerClip(&[timestep]),
        strengths: &[],
        frame_rate: None,
        guidance,
    };
    dit.velocity_of(&latents, &[&context], &mut || Ok(()))
}

/// Told a guidance (dev) and not (schnell).
#[test]
fn the_transformer_equals_diffusers() {
    let golden = values();
    for (name, guidance) in [("dev", Some(3.5)), ("schnell", None)] {
        let dit = dit(&format!("flux/{name}"), DType::F32);
        for timestep in [1000.0, 437.25] {
            let found = velocity(&dit, timestep, guidance).unwrap();
            let expected = golden.get(&format!("{name}.velocity.{timestep}"));
            close(&format!("{name} at {timestep}"), &found, &expected, 2e-5);
        }
        assert_eq!(velocity(&dit, 500.0, None).is_err(), name == "dev", "a guidance is needed");
    }
    let narrow = velocity(&dit("flux/dev", DType::BF16), 437.25, Some(3.5)).unwrap();
    let expected = golden.get("dev.velocity.437.25");
    let largest = common::values(&expected).into_iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    let gap = distance(&narrow, &expected) / largest;
    println!("bf16: {gap:.2e} of the largest");
    assert!(gap > 0.0 && gap < 0.05, "{gap}");
}

/// Pictures of any sizes and texts, packed, are what they are alone.
#[test]
fn packed_pictures_are_what_they_are_alone() {
    let golden = values();
    let dit = dit("flux/dev", DType::F32);
    let context = dit.context(&golden.get("x_text"), &golden.get("x_pooled")).unwrap();
    let rows = golden.get("x_text").narrow(0, 0, 4).unwrap();
    let other = dit.context(&rows, &(golden.get("x_pooled") * 0.5).unwrap()).unwrap();
    let small = Grid { frames: 1, rows: 2, columns: 3 };
    let (x, part) = (golden.get("x"), golden.get("x").narrow(0, 5, 6).unwrap());
    let both = Tensor::cat(&[&x, &part], 0).unwrap();
    let run = |patches: &Tensor, grids: &[Grid], times: &[f64], contexts: &[_]| {
        let timesteps = Timesteps::PerClip(times);
        let guidance = Some(2.0);
        let latents = Packed {
            patches,
            extra: None,
            grids,
            timesteps,
            strengths: &[],
            frame_rate: None,
            guidance,
        };
        dit.velocity_of(&latents, contexts, &mut || Ok(())).unwrap()
    };
    let packed = run(&both, &[GRID, small], &[700.0, 700.0], &[&context, &other]);
    let first = run(&x, &[GRID], &[700.0], &[&context]);
    let second = run(&part, &[small], &[700.0], &[&other]);
    assert_eq!(distance(&packed, &Tensor::cat(&[first, second], 0).unwrap()), 0.0);
}

/// What this version does not run is refused by the name of its key.
#[test]
fn odd_configs_are_refused_by_name() {
    let folder = std::env::temp_dir().join(format!("kino-flux-odd-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let refused = |part: &str, key: &str, value: serde_json::Value, at: &str| {
        let path = format!("{part}/config.json");
        let own = std::fs::read(common::reference("flux/dev").join(&path)).unwrap();
        let mut config: serde_json::Value = serde_json::from_slice(&own).unwrap();
        config[key] = value;
        std::fs::create_dir_all(folder.join(part)).unwrap();
        std::fs::write(folder.join(&path), config.to_string()).unwrap();
        let files = ModelFolder::directory(&folder).unwrap();
        let error = match part {
            "vae" => AutoencoderConfig::read(&files).map(drop),
            "transformer" => TransformerConfig::read(&files).map(drop),
            _ => ClipTextConfig::read(&files, part).map(drop),
        };
        let error = error.expect_err(key).to_string();
        assert!(error.contains(at) && error.contains("config.json"), "{key}: {error}");
    };
    use serde_json::json;
    for (part, key, value, at) in [
        ("transformer", "_class_name", json!("SD3Transformer2DModel"), "SD3Transformer2DModel"),
        ("transformer", "patch_size", json!(2), "patch_size"),
        ("transformer", "out_channels", json!(4), "out_channels"),
        ("transformer", "in_channels", json!(6), "in_channels"),
        ("transformer", "axes_dims_rope", json!([1, 3, 4]), "axes_dims_rope"),
        ("transformer", "axes_dims_rope", json!([4, 4, 4]), "axes_dims_rope"),
        ("transformer", "num_attention_heads", json!(0), "num_attention_heads"),
        ("transformer", "num_layers", json!(1_000_000), "layers"),
        ("vae", "_class_name", json!("AutoencoderTiny"), "AutoencoderTiny"),
        (
            "vae",
            "down_block_types",
            json!(["AttnDownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"]),
            "down_block_types",
        ),
        ("vae", "up_block_types", json!(["UpDecoderBlock2D"]), "up_block_types"),
        ("vae", "act_fn", json!("relu"), "act_fn"),
        ("vae", "norm_num_groups", json!(3), "norm_num_groups"),
        ("vae", "latents_mean", json!([0.0]), "latents_mean"),
        ("vae", "scaling_factor", json!(0.0), "scaling_factor"),
        ("vae", "in_channels", json!(4), "in_channels"),
        ("vae", "block_out_channels", json!([]), "block_out_channels"),
        ("text_encoder", "model_type", json!("bert"), "bert"),
        ("text_encoder", "num_attention_heads", json!(3), "num_attention_heads"),
        ("text_encoder", "hidden_act", json!("relu"), "relu"),
        ("text_encoder", "max_position_embeddings", json!(1), "max_position_embeddings"),
    ] {
        refused(part, key, value, at);
    }
    std::fs::remove_dir_all(folder).unwrap();
}
