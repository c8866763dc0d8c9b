//! Parts of Wan that stand alone in files, by the names that their authors gave the weights and
//! without a config (`tests/ref/single_files.py`): which part a file is and its sizes follow from
//! names and shapes, and the numbers are those of diffusers and transformers.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use common::{close, golden, numbers, values};
use kino_models::Result;
use kino_models::checkpoint::Checkpoint;
use kino_models::families::Families;
use kino_models::families::wan::dit::Dit;
use kino_models::families::wan::vae::Vae;
use kino_models::families::wan::{TransformerConfig, VaeConfig};
use kino_models::image::{ClipConfig, ClipVision, PrepareConfig, prepare};
use kino_models::model::{Packed, Timesteps};
use kino_models::patch::{Grid, patchify, unpatchify};
use kino_models::weight::{Probe, Weights};

const PATCH: (usize, usize, usize) = (1, 2, 2);

fn go_on() -> Result<()> {
    Ok(())
}

/// Names and shapes of the weights of each file.
type Shapes = BTreeMap<String, BTreeMap<String, Vec<usize>>>;

fn shapes(name: &str) -> Shapes {
    let text = std::fs::read_to_string(common::reference(&format!("single_files/{name}.json")));
    serde_json::from_str(&text.unwrap()).unwrap()
}

/// Writes such a file and opens it as a stranger's; with it `more` of which the recipe knows
/// nothing.
fn opened(weights: &BTreeMap<String, Vec<usize>>, more: &[(&str, Tensor)]) -> Opened {
    let of = |(seed, (name, shape)): (usize, (&String, &Vec<usize>))| {
        (name.clone(), numbers(shape, seed))
    };
    let mut tensors: HashMap<String, Tensor> = weights.iter().enumerate().map(of).collect();
    tensors.extend(more.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone())));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stranger.safetensors");
    candle_core::safetensors::save(&tensors, &path).unwrap();
    Opened { checkpoint: Families::default().open_file(&path).unwrap(), _folder: folder }
}

struct Opened {
    checkpoint: Checkpoint,
    /// Kept as long as weights are read.
    _folder: tempfile::TempDir,
}

impl Opened {
    /// Loads a part with `load`, which must read every weight of the file.
    fn load<T>(&self, part: &str, load: impl Fn(&Weights) -> Result<T>) -> T {
        let files = self.checkpoint.part(part).unwrap();
        let probe = Arc::new(Probe::default());
        let weights = Weights::new(Arc::clone(&files), DType::F32, &Device::Cpu).unwrap();
        load(&weights.clone().probing(&probe)).unwrap();
        assert!(probe.left_over(&files).is_empty(), "{part}: {:?}", probe.left_over(&files));
        load(&weights).unwrap()
    }
}

/// Every published variety as a file alone, by the names of Wan's authors: what it is and its sizes
/// follow from names and shapes.
#[test]
fn transformers_of_every_variety_are_known_and_equal_the_reference() {
    let varieties = shapes("weights");
    assert_eq!(varieties.len(), 6);
    let golden = golden("single_files/golden.safetensors");
    for (name, weights) in varieties {
        let channels = weights["patch_embedding.weight"][1];
        let opened = opened(&weights, &[]);
        let config = TransformerConfig::read(&opened.checkpoint).unwrap();
        let dit = opened.load("transformer", |weights| Dit::load(&config, weights));
        let text = numbers(&[512, 40], 1001);
        let rows = match (name.as_str(), config.image_dim) {
            (_, None) => None,
            ("flf2v", Some(width)) => Some(numbers(&[2, 3, width], 1002).flatten(0, 1).unwrap()),
            (_, Some(width)) => Some(numbers(&[5, width], 1002)),
        };
        let context = dit.context_with(&text, rows.as_ref()).unwrap();
        let cut = |latent: &Tensor| patchify(latent, PATCH).unwrap();
        let own = if channels == 48 { 48 } else { 16 };
        let latent = (numbers(&[channels, 1, 4, 4], 1000) * 6.0).unwrap();
        let patches = cut(&latent.narrow(0, 0, own).unwrap());
        let extra = match name.as_str() {
            "vace" => Some(cut(&(numbers(&[96, 1, 4, 4], 1003) * 6.0).unwrap())),
            _ if channels > own => Some(cut(&latent.narrow(0, own, channels - own).unwrap())),
            _ => None,
        };
        let grid = Grid { frames: 1, rows: 2, columns: 2 };
        let latents = Packed {
            patches: &patches,
            extra: extra.as_ref(),
            grids: &[grid],
            timesteps: Timesteps::PerClip(&[417.0]),
            strengths: &[1.0],
            frame_rate: None,
            guidance: None,
        };
        let found = dit.velocity_of(&latents, &[&context], &mut go_on).unwrap();
        close(&name, &unpatchify(&found, grid, PATCH).unwrap(), &golden.get(&name), 2e-5);
    }
}

/// Bytes of frames by the recipe's formula, as numbers of 0…255.
fn picture(shape: &[usize]) -> Tensor {
    let bytes = (0..shape.iter().product::<usize>()).map(|i| (i * 7919 % 256) as f32);
    Tensor::from_iter(bytes, &Device::Cpu).unwrap().reshape(shape).unwrap()
}

/// Every so-manyth number, which is what the reference holds.
fn thinned(tensor: &Tensor, step: usize) -> Tensor {
    let some: Vec<f64> = values(tensor).into_iter().step_by(step).collect();
    Tensor::new(some, &Device::Cpu).unwrap()
}

/// `wan2.2_vae`: its channels say which statistics its latents have, and that it is residual.
#[test]
fn an_autoencoder_of_48_channels_is_known_and_equals_the_reference() {
    let golden = golden("single_files/parts.safetensors");
    let opened = opened(&shapes("parts")["wan2.2_vae"], &[]);
    let config = VaeConfig::read(&opened.checkpoint).unwrap();
    let vae = opened.load("vae", |weights| {
        let vae = Vae::load(&config, weights)?;
        vae.encoder()?;
        vae.decoder()?;
        Ok(vae)
    });
    let frames = picture(&[5, 32, 64, 3]).affine(1.0 / 127.5, -1.0).unwrap();
    let latent = vae.encode(&frames, None, &mut go_on).unwrap();
    close("encoded", &latent, &golden.get("latent"), 2e-5);
    let latent = (numbers(&[48, 2, 1, 2], 1001) * 6.0).unwrap();
    let frames = vae.decode(&latent, None, &mut go_on).unwrap();
    assert_eq!(frames.dims(), [5, 16, 32, 3]);
    close("decoded", &thinned(&frames, 7), &golden.get("decoded"), 2e-5);
}

/// `clip_vision_h`, and OpenAI's ViT-L: heads and activation follow from the width, and how a
/// picture is made ready from the positions.
#[test]
fn image_encoders_are_known_by_their_width_and_equal_the_reference() {
    let golden = golden("single_files/parts.safetensors");
    let mut parts = shapes("parts");
    parts.retain(|name, _| name.starts_with("clip_vision"));
    assert_eq!(parts.len(), 2);
    let positions = Tensor::arange(0i64, 5, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    for (name, weights) in parts {
        // As files of older versions of transformers have it.
        let beside = ("vision_model.embeddings.position_ids", positions.clone());
        let opened = opened(&weights, &[beside]);
        let config = ClipConfig::read(&opened.checkpoint).unwrap();
        let how = PrepareConfig::read(&opened.checkpoint, &config).unwrap();
        let clip = opened.load("image_encoder", |weights| ClipVision::load(&config, weights));
        let pixels = prepare(&(picture(&[40, 52, 3]) / 255.0).unwrap(), &how).unwrap();
        let states = clip.encode(&pixels, &mut go_on).unwrap();
        let expected = golden.get(&name);
        let largest = values(&expected).into_iter().fold(0.0, |m: f64, value| m.max(value.abs()));
        let scaled = |tensor: &Tensor| (tensor / largest).unwrap();
        let found = thinned(&states, 7);
        close(&name, &scaled(&found), &scaled(&expected.to_dtype(DType::F64).unwrap()), 2e-5);
    }
}
