//! A family that exists only here: its own sizes, latents, conditioning, extra channels and a
//! timestep for each token. The nodes run it as they run any other.

mod common;

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Tensor};
use common::{Rig, close, fact_list, int, known, number, text, values};
use kino_models::cancel::CheckCancel;
use kino_models::checkpoint::ModelFiles;
use kino_models::families::Families;
use kino_models::model::{
    Component, Decode, Denoiser, DenoiserInputs, DenoiserSpec, Embedding, EmbeddingSpec,
    Embeddings, Encode, ExtraChannels, Family, FrameDecoder, FrameEncoder, GivenInput,
    LatentLayout, Model, Packed, Projected, RunSize, TextEncoder, TextEncoderSpec, TimestepInput,
    Timesteps, VideoVae,
};
use kino_models::sampling::SchedulerConfig;
use kino_models::tile::Tile;
use kino_models::{Checkpoint, Error, Result, Weights};
use kino_node::{ConditioningFact, Frames, Latent, Value};
use kino_nodes::Models;

const CHANNELS: usize = 3;
const WORDS: (usize, usize) = (6, 5);
const MOOD: usize = 4;
const PATCH: (usize, usize, usize) = (1, 1, 2);
const EXTRA: usize = 2;
const SPATIAL: usize = 4;

/// What the network was given, call by call.
type Calls = Arc<Mutex<Vec<String>>>;

struct Toy(Calls);

impl Family for Toy {
    fn name(&self) -> &str {
        "Toy"
    }

    fn recognises(&self, checkpoint: &Checkpoint) -> bool {
        let index = checkpoint.json::<serde_json::Value>("model_index.json");
        index.is_ok_and(|index| index["_class_name"] == "ToyPipeline")
    }

    fn read(&self, checkpoint: &Checkpoint) -> Result<Model> {
        let named = |name, rows, width| EmbeddingSpec { name: Cow::Borrowed(name), rows, width };
        let conditioning = vec![named("words", Some(WORDS.0), WORDS.1), named("mood", None, MOOD)];
        let extra = vec![ExtraChannels { name: Cow::Borrowed("mask"), channels: EXTRA }];
        let inputs = DenoiserInputs {
            channels: CHANNELS,
            extra,
            patch: PATCH,
            conditioning: conditioning.clone(),
            timesteps: TimestepInput::PerToken,
            given: GivenInput::Tokens,
        };
        let scheduler = SchedulerConfig::read(checkpoint)?;
        Ok(Model {
            text_encoder: Some(Component { part: "reader", spec: Arc::new(Reader(conditioning)) }),
            denoiser: Some(Component {
                part: "net",
                spec: Arc::new(Net { inputs, scheduler, calls: Arc::clone(&self.0) }),
            }),
            vae: Some(Component { part: "codec", spec: Arc::new(Codec) }),
            ..Model::default()
        })
    }
}

struct Reader(Vec<EmbeddingSpec>);

impl TextEncoderSpec for Reader {
    fn outputs(&self) -> &[EmbeddingSpec] {
        &self.0
    }

    fn memory(&self, _: DType) -> u64 {
        0
    }

    fn load(&self, _: &Checkpoint, weights: &Weights) -> Result<Arc<dyn TextEncoder>> {
        Ok(Arc::new(LoadedReader(weights.get("mood", MOOD)?)))
    }
}

struct LoadedReader(Tensor);

impl TextEncoder for LoadedReader {
    fn encode(&self, prompt: &str, _: &mut CheckCancel<'_>) -> Result<Embeddings> {
        let words = Tensor::full(prompt.len() as f32, WORDS, &Device::Cpu)?;
        let rows: Vec<f32> = (0..WORDS.0).map(|row| f32::from(row < prompt.len())).collect();
        let mask = Some(Tensor::new(rows, &Device::Cpu)?);
        let mood = (&self.0 * prompt.len() as f64)?;
        Ok(Embeddings::from([
            ("words".to_owned(), Embedding { tensor: words, mask }),
            ("mood".to_owned(), Embedding { tensor: mood, mask: None }),
        ]))
    }
}

struct Net {
    inputs: DenoiserInputs,
    scheduler: SchedulerConfig,
    calls: Calls,
}

impl DenoiserSpec for Net {
    fn inputs(&self) -> &DenoiserInputs {
        &self.inputs
    }

    fn scheduler(&self) -> &SchedulerConfig {
        &self.scheduler
    }

    fn memory(&self, size: &RunSize) -> u64 {
        size.tokens as u64
    }

    fn load(&self, weights: &Weights) -> Result<Arc<dyn Denoiser>> {
        let gain = weights.get("gain", 1)?;
        Ok(Arc::new(LoadedNet { gain, calls: Arc::clone(&self.calls) }))
    }
}

struct LoadedNet {
    gain: Tensor,
    calls: Calls,
}

impl Denoiser for LoadedNet {
    fn project(&self, conditioning: &Embeddings) -> Result<Projected> {
        let missing = || Error::Input("no mood".to_owned());
        let mood = &conditioning.get("mood").ok_or_else(missing)?.tensor;
        let words = conditioning.get("words").ok_or_else(missing)?;
        assert_eq!(words.tensor.dims(), [WORDS.0, WORDS.1]);
        assert_eq!(words.mask.as_ref().map(Tensor::dims), Some(&[WORDS.0][..]));
        Ok(Projected::new(f64::from(mood.sum_all()?.to_scalar::<f32>()?)))
    }

    /// gain·x + mood: one clip after another.
    fn velocity(
        &self,
        latents: &Packed<'_>,
        conditioning: &[&Projected],
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        check_cancel()?;
        let tokens = latents.patches.dim(0)?;
        let extra = latents.extra.expect("the extra channels");
        let Timesteps::PerToken(timesteps) = latents.timesteps else { panic!("one a token") };
        let call = format!("{:?} {:?} {}", latents.patches.dims(), extra.dims(), timesteps.len());
        self.calls.lock().unwrap().push(call);
        assert_eq!(
            latents.grids.iter().map(kino_models::patch::Grid::tokens).sum::<usize>(),
            tokens
        );
        let mut clips = Vec::new();
        let mut start = 0;
        for (grid, mood) in latents.grids.iter().zip(conditioning) {
            let clip = latents.patches.narrow(0, start, grid.tokens())?;
            start += grid.tokens();
            clips.push((clip.broadcast_mul(&self.gain)? + *mood.get::<f64>()?)?);
        }
        Ok(Tensor::cat(&clips, 0)?)
    }
}

/// Two frames to a latent frame, also to the first; a latent pixel is 4 by 4 pixels of its colour.
struct Codec;

impl VideoVae for Codec {
    fn latents(&self) -> LatentLayout {
        LatentLayout { channels: CHANNELS, temporal: 2, first: 2, spatial: SPATIAL }
    }

    fn encode_memory(&self, _: usize, _: [usize; 2], _: Option<Tile>) -> u64 {
        0
    }

    fn decode_memory(&self, _: usize, _: [usize; 2], _: Option<Tile>) -> u64 {
        0
    }

    fn encoder_weights(&self) -> &[&str] {
        &["scale"]
    }

    fn decoder_weights(&self) -> &[&str] {
        &["scale"]
    }

    fn load_encoder(&self, weights: &Weights) -> Result<Arc<dyn FrameEncoder>> {
        Ok(Arc::new(LoadedCodec(weights.get("scale", 1)?)))
    }

    fn load_decoder(&self, weights: &Weights) -> Result<Arc<dyn FrameDecoder>> {
        Ok(Arc::new(LoadedCodec(weights.get("scale", 1)?)))
    }
}

#[derive(Clone)]
struct LoadedCodec(Tensor);

impl FrameEncoder for LoadedCodec {
    fn open(&self, _: Option<Tile>) -> Result<Box<dyn Encode>> {
        Ok(Box::new(self.clone()))
    }
}

impl FrameDecoder for LoadedCodec {
    fn open(&self, _: Option<Tile>) -> Result<Box<dyn Decode>> {
        Ok(Box::new(self.clone()))
    }
}

impl Encode for LoadedCodec {
    fn next_frames(&self) -> usize {
        2
    }

    fn push(&mut self, frames: &Tensor, _: &mut CheckCancel<'_>) -> Result<Tensor> {
        let (t, h, w, _) = frames.dims4()?;
        let split = frames.reshape(&[t, h / SPATIAL, SPATIAL, w / SPATIAL, SPATIAL, 3][..])?;
        let mean = split.mean(4)?.mean(2)?.mean(0)?; // [h, w, 3]
        Ok(mean.broadcast_div(&self.0)?.permute((2, 0, 1))?.unsqueeze(1)?.contiguous()?)
    }
}

impl Decode for LoadedCodec {
    fn push(&mut self, latent: &Tensor, _: &mut CheckCancel<'_>) -> Result<Tensor> {
        let large = latent.broadcast_mul(&self.0)?.unsqueeze(0)?;
        let (_, _, h, w) = large.dims4()?;
        let large = large.upsample_nearest2d(h * SPATIAL, w * SPATIAL)?;
        let frame = large.permute((0, 2, 3, 1))?.contiguous()?.clamp(-1f32, 1f32)?;
        Ok(Tensor::cat(&[&frame, &frame], 0)?)
    }
}

/// A checkpoint of the family in a folder of its own, and a rig whose models know the family.
fn toy(name: &str) -> (Rig, PathBuf, Calls) {
    let folder = std::env::temp_dir().join(format!("kino-toy-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let save = |part: &str, name: &str, values: &[f32]| {
        std::fs::create_dir_all(folder.join(part)).unwrap();
        let tensor = Tensor::new(values, &Device::Cpu).unwrap();
        let file = folder.join(part).join("model.safetensors");
        candle_core::safetensors::save(&HashMap::from([(name, tensor)]), file).unwrap();
    };
    save("reader", "mood", &[0.01, 0.02, 0.0, 0.01]);
    save("net", "gain", &[0.5]);
    save("codec", "scale", &[0.25]);
    std::fs::write(folder.join("model_index.json"), r#"{"_class_name": "ToyPipeline"}"#).unwrap();
    std::fs::create_dir_all(folder.join("scheduler")).unwrap();
    let scheduler = r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0}"#;
    std::fs::write(folder.join("scheduler/scheduler_config.json"), scheduler).unwrap();
    let calls = Calls::default();
    let mut rig = Rig::new(name);
    let families = Families::default().with(Arc::new(Toy(Arc::clone(&calls))));
    let models = Models::with_families(Device::Cpu, Arc::clone(&rig.services.ledger), families);
    let old = std::mem::replace(
        &mut rig.services,
        kino_node::Services::new(Device::Cpu, kino_node::Ledger::new(0)),
    );
    rig.services = old.with(models);
    (rig, folder, calls)
}

#[test]
fn a_family_of_a_test_runs_through_the_nodes() {
    let (rig, folder, calls) = toy("runs");
    let model = rig.model(folder.to_str().unwrap());
    let prompt = [("encoder", model.text), ("prompt", text("four"))];
    let prompt = rig.one("text.encode", &prompt);
    let noise = [
        ("vae", model.vae.clone()),
        ("width", int(16)),
        ("height", int(8)),
        ("frames", int(4)),
        ("seed", int(1)),
    ];
    let noise = rig.one("latent.noise", &noise);
    let x = noise.tensor().unwrap();
    assert_eq!(x.dims(), [CHANNELS, 2, 2, 4]);
    let patches = rig.one("patchify", &[("dit", model.dit.clone()), ("latents", noise)]);
    let sigmas = rig.one("schedule", &[("dit", model.dit.clone()), ("steps", int(2))]);
    let levels = values(&sigmas.tensor().unwrap());
    let sample = [
        ("dit", model.dit),
        ("patches", patches),
        ("text", prompt),
        ("steps", int(2)),
        ("guidance", Value::Real(1.0)),
    ];
    let sampled = rig.one("dit.sample", &sample);
    // 2 latent frames, 2 rows, 2 patches of 1×1×2 in each; a timestep for each token.
    let call = format!("[8, {}] [8, {}] 8", CHANNELS * 2, EXTRA * 2);
    assert_eq!(*calls.lock().unwrap(), [call.clone(), call]);
    let latent = rig.one("unpatchify", &[("patches", sampled)]);
    let mood = 4.0 * (0.01 + 0.02 + 0.01);
    let mut expected = x;
    for level in levels.windows(2) {
        let velocity = ((&expected * 0.5).unwrap() + mood).unwrap();
        expected = (&expected + (velocity * (level[1] - level[0])).unwrap()).unwrap();
    }
    close("latent", &latent.tensor().unwrap(), &expected, 1e-5);

    let decode = [("vae", model.vae.clone()), ("latent", latent.clone())];
    let frames = rig.one("vae.decode", &decode);
    assert_eq!(frames.shared::<Frames>().unwrap().count(), 4);
    let encode = [("vae", model.vae), ("frames", frames)];
    let encoded = rig.one("vae.encode", &encode);
    assert!(encoded.shared::<Latent>().unwrap().space.is_some());
    let within = (expected * 0.25).unwrap().clamp(-1f32, 1f32).unwrap();
    let encoded = (encoded.tensor().unwrap() * 0.25).unwrap();
    close("there and back", &encoded, &within, 1e-5);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_a_family_says_of_itself_is_known_before_anything_runs() {
    let (rig, folder, _) = toy("facts");
    let model = rig.model_facts(folder.to_str().unwrap());
    let encoded = rig.fact("text.encode", &[("encoder", model.text), ("prompt", known("x"))], 0);
    let fact: &ConditioningFact = encoded.get().unwrap();
    assert_eq!(fact.shape("words"), Some(&[WORDS.0, WORDS.1][..]));
    assert_eq!(fact.shape("mood"), Some(&[MOOD][..]));
    let noise = [
        ("vae", model.vae),
        ("width", number(12)),
        ("height", number(8)),
        ("frames", number(5)),
        ("seed", number(1)),
    ];
    assert_eq!(
        rig.objects("latent.noise", &noise),
        "width: width must be a multiple of 8 for this model, found 12; near it: 8 and 16\n\
         frames: frames must be 2k for this VAE, found 5; near it: 4 and 6"
    );
    let other = rig.model_facts("embedded:shapes");
    let text = rig.fact("text.encode", &[("encoder", other.text), ("prompt", known("x"))], 0);
    let patches = fact_list(&[]);
    let inputs = [("dit", model.dit), ("text", text), ("patches", patches)];
    let refused = rig.objects("dit.sample", &inputs);
    assert!(refused.contains("reads `words` of the conditioning, found text"), "{refused}");
    assert!(refused.contains("reads `mood` of the conditioning, found text"), "{refused}");
    std::fs::remove_dir_all(folder).unwrap();
}
