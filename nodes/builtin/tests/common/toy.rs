//! A family that exists only in tests: its own sizes, latents, conditioning, extra channels and a
//! timestep for each token.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Tensor};
use kino_models::cancel::CheckCancel;
use kino_models::checkpoint::ModelFiles;
use kino_models::model::{
    Component, Decode, Denoiser, DenoiserInputs, DenoiserSpec, Embedding, EmbeddingSpec,
    Embeddings, Encode, ExtraChannels, Family, FrameDecoder, FrameEncoder, GivenInput,
    LatentLayout, Model, Packed, Projected, RunSize, TextEncoder, TextEncoderSpec, TimestepInput,
    Timesteps, VideoVae,
};
use kino_models::sampling::SchedulerConfig;
use kino_models::tile::Tile;
use kino_models::{Checkpoint, Error, Result, Weights};

pub(crate) const CHANNELS: usize = 3;
pub(crate) const WORDS: (usize, usize) = (6, 5);
pub(crate) const MOOD: usize = 4;
const PATCH: (usize, usize, usize) = (1, 1, 2);
pub(crate) const EXTRA: usize = 2;
const SPATIAL: usize = 4;

/// What the network was given, call by call.
pub(crate) type Calls = Arc<Mutex<Vec<String>>>;

/// The family.
pub(crate) struct Toy(pub(crate) Calls);

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
            frame_rate: None,
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

    fn encode_memory(&self, _: (usize, [usize; 2]), _: Option<Tile>, _: DType) -> u64 {
        0
    }

    fn decode_memory(&self, _: (usize, [usize; 2]), _: Option<Tile>, _: DType) -> u64 {
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
    fn open(&self) -> Result<Box<dyn Encode>> {
        Ok(Box::new(self.clone()))
    }
}

impl FrameDecoder for LoadedCodec {
    fn open(&self) -> Result<Option<Box<dyn Decode>>> {
        Ok(Some(Box::new(self.clone())))
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

/// Writes a checkpoint of the family into a folder.
pub(crate) fn checkpoint(folder: &Path) {
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
}
