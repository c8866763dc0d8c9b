//! What a model is to whoever runs it: traits that families implement.
//!
//! A family recognises a checkpoint and says what its parts are ([`TextEncoderSpec`],
//! [`DenoiserSpec`], [`VideoVae`]): everything that a plan needs, from configs alone. Weights are
//! loaded part by part, when they are computed with, and give [`TextEncoder`], [`Denoiser`],
//! [`FrameEncoder`], [`FrameDecoder`].
//!
//! Nothing here knows a concrete family.

use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Tensor};
use serde_json::Value;

use crate::cancel::CheckCancel;
use crate::checkpoint::{
    Checkpoint, Cut, DetectedPart, ModelFolder, PartFiles, SingleForm, SingleFormat,
};
use crate::error::{Error, Result};
use crate::patch::Grid;
use crate::preview::RgbMap;
use crate::sampling::{
    SchedulerConfig, StepCache, StepCacheKind, StepCacheRule, steps_of_strength,
};
use crate::tile::Tile;
use crate::weight::{FusedName, Weights};

/// A family of models.
pub trait Family: Send + Sync {
    /// Its name, for messages.
    fn name(&self) -> &str;

    /// Whether a checkpoint is of this family, by what it says of itself.
    fn recognises(&self, checkpoint: &Checkpoint) -> bool;

    /// The parts of a checkpoint, from its configs. Weights are not read.
    ///
    /// # Errors
    /// When a config is missing, wrong, or asks for what the family does not do.
    fn read(&self, checkpoint: &Checkpoint) -> Result<Model>;

    /// Which part of this family a file is, by the names and shapes of its weights; none where it
    /// is none.
    ///
    /// # Errors
    /// When it is one, but of sizes from which its config does not follow.
    fn detect(&self, _files: &PartFiles) -> Result<Option<DetectedPart>> {
        Ok(None)
    }

    /// The configs (path and contents) that a model of `parts`, which stand alone in files, has
    /// beside those of the parts. `folder` is what the others are taken from.
    ///
    /// # Errors
    /// When they cannot be made.
    fn configs(
        &self,
        _parts: &[(&str, Value)],
        _folder: Option<&ModelFolder>,
    ) -> Result<Vec<(String, Vec<u8>)>> {
        Ok(Vec::new())
    }

    /// How a part stands alone in a file of this format, as others read it; none where that is not
    /// known. `checkpoint` is the model that it is a part of.
    ///
    /// # Errors
    /// When what the form needs of the model cannot be read.
    fn single_form(
        &self,
        _checkpoint: &Checkpoint,
        _part: &str,
        _format: SingleFormat,
    ) -> Result<Option<SingleForm>> {
        Ok(None)
    }

    /// Layers of a part that stand otherwise in a file of its own, or in a folder (no format); none
    /// where all are those of the diffusers layout.
    fn joins(&self, _part: &str, _format: Option<SingleFormat>) -> Option<LayerJoins> {
        None
    }
}

/// Layers of a part that stand otherwise where it is written.
pub struct LayerJoins {
    /// Layers of the diffusers layout that are taken apart.
    pub cut: Cut,
    /// The layer that is written of which a layer is some rows; none where it is one by itself.
    pub join: fn(&str) -> Option<FusedName>,
}

/// A part of a model: what is known of it, and which weights of the checkpoint are its own.
pub struct Component<S: ?Sized> {
    /// The part of the checkpoint, as [`Checkpoint::part`] calls it.
    pub part: &'static str,
    /// What is known of it.
    pub spec: Arc<S>,
}

/// The parts of a model; those that it has.
#[derive(Default)]
pub struct Model {
    /// Text to conditioning.
    pub text_encoder: Option<Component<dyn TextEncoderSpec>>,
    /// Those that read the same prompt beside it (FLUX: T5 beside CLIP). Their outputs have other
    /// names, and all together are the conditioning.
    pub other_text_encoders: Vec<Component<dyn TextEncoderSpec>>,
    /// Pictures to conditioning.
    pub image_encoder: Option<Component<dyn ImageEncoderSpec>>,
    /// Patches to their velocity.
    pub denoiser: Option<Component<dyn DenoiserSpec>>,
    /// The same at low noise levels, where the model has two experts.
    pub low_noise: Option<LowNoise>,
    /// Frames to latents and back.
    pub vae: Option<Component<dyn VideoVae>>,
}

/// The second of two experts (Wan 2.2 A14B): it reads what the first reads.
pub struct LowNoise {
    /// It computes at timesteps below this one, the first at all others.
    pub below: f64,
    /// The expert.
    pub denoiser: Component<dyn DenoiserSpec>,
}

/// A named tensor of conditioning, before it exists: `text` `[rows, width]`, `pooled` `[width]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddingSpec {
    /// Its name.
    pub name: Cow<'static, str>,
    /// Rows, the padding included: what an encoder gives; what a denoiser usually reads. None where
    /// it is one vector.
    pub rows: Option<usize>,
    /// The width of a row.
    pub width: usize,
}

impl EmbeddingSpec {
    /// The name of what an image encoder gives.
    pub const IMAGE: &str = "image";

    /// Its shape: `[rows, width]` or `[width]`.
    pub fn shape(&self) -> Vec<usize> {
        self.rows.into_iter().chain([self.width]).collect()
    }
}

/// A named tensor of conditioning.
#[derive(Debug, Clone)]
pub struct Embedding {
    /// `[rows, width]` or `[width]`.
    pub tensor: Tensor,
    /// Which rows count, `[rows]`; none where all do.
    pub mask: Option<Tensor>,
}

/// Conditioning by name, of one prompt.
pub type Embeddings = BTreeMap<String, Embedding>;

/// What is known of a text encoder before its weights are read.
pub trait TextEncoderSpec: Send + Sync {
    /// The tensors that it gives.
    fn outputs(&self) -> &[EmbeddingSpec];

    /// Bytes that encoding needs besides weights and results.
    fn memory(&self, dtype: DType) -> u64;

    /// Reads its weights, and whatever else of the checkpoint it needs (a tokenizer).
    ///
    /// # Errors
    /// When they cannot be read or do not fit.
    fn load(&self, checkpoint: &Checkpoint, weights: &Weights) -> Result<Arc<dyn TextEncoder>>;

    /// Asks for all weights, without their tokenizer: of [`Weights::probing`] this says what they
    /// lack. Unless it is implemented, that is known when they are read.
    ///
    /// # Errors
    /// When one is missing or does not fit.
    fn probe(&self, weights: &Weights) -> Result<()> {
        let _ = weights;
        Ok(())
    }

    /// What of a prompt it will not read; nothing where that is not known before weights are.
    ///
    /// # Errors
    /// When the tokenizer cannot be read.
    fn loss(&self, checkpoint: &Checkpoint, prompt: &str) -> Result<PromptLoss> {
        let _ = (checkpoint, prompt);
        Ok(PromptLoss::default())
    }
}

/// What of a prompt a text encoder does not read, and how much it does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PromptLoss {
    /// The end of the text, beyond the tokens that the model reads; empty where all is read.
    pub cut: String,
    /// Words that stand for nothing in its vocabulary, each once, in the order of the text.
    pub unknown: Vec<String>,
    /// The tokens that it does read, or more than those; none where that is not known.
    pub tokens: Option<usize>,
}

/// Turns text into conditioning.
pub trait TextEncoder: Send + Sync {
    /// Encodes a prompt as it was written: the tensors of [`TextEncoderSpec::outputs`].
    ///
    /// # Errors
    /// When it is cancelled or a tensor operation fails.
    fn encode(&self, prompt: &str, check_cancel: &mut CheckCancel<'_>) -> Result<Embeddings>;
}

/// What is known of an image encoder before its weights are read.
pub trait ImageEncoderSpec: Send + Sync {
    /// Rows and width of what one picture becomes.
    fn shape(&self) -> [usize; 2];

    /// Bytes that encoding a picture needs besides weights and results.
    fn memory(&self, dtype: DType) -> u64;

    /// Reads its weights.
    ///
    /// # Errors
    /// When they cannot be read or do not fit.
    fn load(&self, weights: &Weights) -> Result<Arc<dyn ImageEncoder>>;
}

/// Turns pictures into conditioning.
pub trait ImageEncoder: Send + Sync {
    /// Encodes a picture of any size. Shapes: `picture` `[h, w, 3]` in 0…1; the result is
    /// [`ImageEncoderSpec::shape`], in f32.
    ///
    /// # Errors
    /// When it is cancelled or a tensor operation fails.
    fn encode(&self, picture: &Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor>;
}

/// Channels that a denoiser reads beside the latent's own: a mask, given frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraChannels {
    /// What they are.
    pub name: Cow<'static, str>,
    /// How many.
    pub channels: usize,
}

impl ExtraChannels {
    /// Which frames are given: a channel for each frame that a latent frame stands for, 1 where it
    /// is given. The first latent frame says for each channel what holds for its one frame.
    pub const MASK: &str = "mask";
    /// The latent of the clip, grey where nothing is given.
    pub const GIVEN: &str = "given";
    /// The latent of what stays of a control: grey where the clip is made.
    pub const INACTIVE: &str = "inactive";
    /// The latent of what a control asks to be made: grey where the clip stays.
    pub const REACTIVE: &str = "reactive";
    /// Where a clip is made, 1, and where it stays, 0: a channel for each pixel that a latent pixel
    /// stands for, row by row.
    pub const PIXELS: &str = "pixels";
}

/// How a denoiser is told of frames that are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenInput {
    /// It has no way.
    None,
    /// Their tokens stand in the latent as they are, at timestep 0 (Wan 2.2 TI2V).
    Tokens,
    /// They come as [`ExtraChannels`] (Wan 2.1 I2V, FLF2V).
    Channels,
    /// They are part of a control, which comes as [`ExtraChannels`] and counts as strongly as
    /// [`Packed::strengths`] says (Wan VACE): a clip to follow or to change, and pictures of
    /// subjects as latent frames before it.
    Control,
}

/// How a denoiser is told the noise level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestepInput {
    /// One timestep a clip.
    PerClip,
    /// One a token, so that given frames can stand at 0.
    PerToken,
}

/// What a denoiser can be given.
#[derive(Debug, Clone, PartialEq)]
pub struct DenoiserInputs {
    /// Channels of a latent, and of its velocity.
    pub channels: usize,
    /// Channels beside them, in order. What is not given is 0.
    pub extra: Vec<ExtraChannels>,
    /// Latent frames, rows and columns of one patch.
    pub patch: (usize, usize, usize),
    /// The conditioning that it reads.
    pub conditioning: Vec<EmbeddingSpec>,
    /// How it is told the noise level.
    pub timesteps: TimestepInput,
    /// How it is told of frames that are given.
    pub given: GivenInput,
    /// Frames a second that a clip has where nobody says; none where it is not told.
    pub frame_rate: Option<f64>,
}

impl DenoiserInputs {
    /// Width of a patch of `channels` channels.
    fn width(&self, channels: usize) -> usize {
        let (pt, ph, pw) = self.patch;
        channels * pt * ph * pw
    }

    /// Width of a patch of the latent.
    pub fn patch_width(&self) -> usize {
        self.width(self.channels)
    }

    /// Width of a patch of all extra channels, in order.
    pub fn extra_width(&self) -> usize {
        self.width(self.extra.iter().map(|extra| extra.channels).sum())
    }
}

/// The sizes of a sampling run.
#[derive(Debug, Clone, Copy)]
pub struct RunSize {
    /// Tokens of all clips.
    pub tokens: usize,
    /// Tokens in one call.
    pub tokens_at_once: usize,
    /// Texts, each with its negative prompt.
    pub texts: usize,
    /// Rows of a text up to those past its end, which are equal; none where that is not known.
    pub distinct_rows: Option<usize>,
    /// Bytes of a number in the compute type.
    pub number: usize,
    /// The step cache that stands beside it, if one does.
    pub step_cache: Option<StepCacheKind>,
}

impl RunSize {
    /// Rows of a text that a denoiser computes with which reads those past its end once, or not at
    /// all; `rows` are all.
    pub fn rows_of_text(&self, rows: usize) -> usize {
        self.distinct_rows.map_or(rows, |distinct| distinct.min(rows))
    }
}

/// How a denoiser is led by its text more strongly than it was trained to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuidanceInput {
    /// By the difference to a second pass without the text (classifier-free guidance).
    Passes,
    /// It was distilled to be told how strongly ([`Packed::guidance`]), and one pass is enough
    /// (FLUX.1 dev).
    Embedded,
    /// It was distilled for one strength: nothing leads it further (FLUX.1 schnell).
    None,
}

/// What is known of a denoiser before its weights are read.
pub trait DenoiserSpec: Send + Sync {
    /// What it can be given.
    fn inputs(&self) -> &DenoiserInputs;

    /// The scheduler that the model was made for.
    fn scheduler(&self) -> &SchedulerConfig;

    /// Whether conditioning of this name may have so many rows, where that is not free.
    ///
    /// # Errors
    /// When it may not; the message says how many it has and why.
    fn check_rows(&self, _name: &str, _rows: usize) -> Result<()> {
        Ok(())
    }

    /// How it is led by its text.
    fn guidance(&self) -> GuidanceInput {
        GuidanceInput::Passes
    }

    /// Whether it can make a clip of this grid: pictures alone, for example.
    ///
    /// # Errors
    /// When it cannot; the message says what it makes.
    fn check_grid(&self, _grid: Grid) -> Result<()> {
        Ok(())
    }

    /// How many of a number of steps are run where `strength` of a given start is made anew, 0 for
    /// none: cut to a whole number, unless the family's pipeline rounds otherwise.
    fn steps_of_strength(&self, steps: usize, strength: f64) -> usize {
        steps_of_strength(steps, strength)
    }

    /// What the family's authors call a layer or weight in the files that they publish, where that
    /// is another name than the checkpoint's: files of adapters often have it.
    fn original_name(&self, _name: &str) -> Option<String> {
        None
    }

    /// The layer of those files of which this one is some rows, where they have several as one.
    fn fused_name(&self, _name: &str) -> Option<FusedName> {
        None
    }

    /// How a step cache of this kind decides for a clip of this grid; none where the network has no
    /// such cache: the default.
    fn step_cache(&self, _kind: StepCacheKind, _grid: Grid) -> Option<StepCacheRule> {
        None
    }

    /// Bytes that a run of this size needs besides the weights.
    fn memory(&self, size: &RunSize) -> u64;

    /// Makes the network of its weights: read, or taken from where they are kept.
    ///
    /// # Errors
    /// When they cannot be read or do not fit.
    fn load(&self, weights: &Weights) -> Result<Arc<dyn Denoiser>>;
}

/// Conditioning as one denoiser reads it, made once a run and not once a step.
pub struct Projected(Box<dyn Any + Send + Sync>);

impl Projected {
    /// What a denoiser makes of conditioning.
    pub fn new<T: Any + Send + Sync>(projected: T) -> Self {
        Self(Box::new(projected))
    }

    /// The same again.
    ///
    /// # Errors
    /// When another denoiser made it.
    pub fn get<T: Any>(&self) -> Result<&T> {
        let found = self.0.downcast_ref();
        found.ok_or_else(|| Error::input("conditioning was projected by another denoiser"))
    }

    /// [`Projected::get`] of each.
    ///
    /// # Errors
    /// As there.
    pub fn all<'a, T: Any>(projected: &[&'a Projected]) -> Result<Vec<&'a T>> {
        projected.iter().map(|projected| projected.get()).collect()
    }
}

/// Noisy latents on their way through a denoiser: packed clips of any sizes.
pub struct Packed<'a> {
    /// `[tokens, c·pt·ph·pw]`, clip after clip.
    pub patches: &'a Tensor,
    /// The extra channels, `[tokens, e·pt·ph·pw]`; none where the denoiser has none.
    pub extra: Option<&'a Tensor>,
    /// The grid of each clip.
    pub grids: &'a [Grid],
    /// The noise levels, as the denoiser is told them.
    pub timesteps: Timesteps<'a>,
    /// How strongly the extra channels of each clip count, where they are a control: 1 as in
    /// training, 0 not at all. Empty where they are none.
    pub strengths: &'a [f64],
    /// How strongly the text leads, for a denoiser that is told ([`GuidanceInput::Embedded`]).
    pub guidance: Option<f64>,
    /// Frames a second of the clips, for a denoiser that is told
    /// ([`DenoiserInputs::frame_rate`]).
    pub frame_rate: Option<f64>,
}

/// Gives the velocity of packed latents.
pub trait Denoiser: Send + Sync {
    /// Conditioning as this denoiser reads it.
    ///
    /// # Errors
    /// When a tensor that it reads is missing or has another width.
    fn project(&self, conditioning: &Embeddings) -> Result<Projected>;

    /// The velocity, noise − data, in f32 and of the shape of the patches. `conditioning` has one
    /// entry a clip.
    ///
    /// # Errors
    /// When shapes do not fit, or it is cancelled.
    fn velocity(
        &self,
        latents: &Packed<'_>,
        conditioning: &[&Projected],
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor>;

    /// The same where each clip has a step cache, by [`DenoiserSpec::step_cache`]: the network looks
    /// at what each rule looks at, asks each whether it must compute ([`StepCache::must_compute`]),
    /// computes the clips that must and keeps what was added, and adds that to the others.
    ///
    /// # Errors
    /// As [`Denoiser::velocity`]; when it has no step cache: the default.
    fn velocity_cached(
        &self,
        _latents: &Packed<'_>,
        _conditioning: &[&Projected],
        _caches: &mut [&mut StepCache],
        _check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        Err(Error::input("this network has no step cache"))
    }
}

/// The timesteps of a model call: σ·1000.
#[derive(Debug, Clone, Copy)]
pub enum Timesteps<'a> {
    /// One a clip.
    PerClip(&'a [f64]),
    /// One a token, over all clips in order: given frames stand at 0 (Wan 2.2 TI2V).
    PerToken(&'a [f64]),
}

impl Timesteps<'_> {
    /// The distinct values in order of appearance, and for each token which of them is its own.
    ///
    /// # Errors
    /// When there are not as many as clips or tokens.
    pub fn distinct(&self, grids: &[Grid]) -> Result<(Vec<f64>, Vec<u32>)> {
        let tokens: usize = grids.iter().map(Grid::tokens).sum();
        let (given, expected, each) = match self {
            Self::PerClip(values) => (values.len(), grids.len(), "clip"),
            Self::PerToken(values) => (values.len(), tokens, "token"),
        };
        if given != expected {
            let reason = format!("{given} timesteps, but {expected} are needed, one a {each}");
            return Err(Error::input(reason));
        }
        let mut values: Vec<f64> = Vec::new();
        let mut rows = Vec::with_capacity(tokens);
        let mut row_of = |value: f64| match values.iter().position(|v| *v == value) {
            Some(row) => row as u32,
            None => {
                values.push(value);
                (values.len() - 1) as u32
            }
        };
        match self {
            Self::PerClip(given) => {
                for (value, grid) in given.iter().zip(grids) {
                    let row = row_of(*value);
                    rows.extend(std::iter::repeat_n(row, grid.tokens()));
                }
            }
            Self::PerToken(given) => rows.extend(given.iter().map(|value| row_of(*value))),
        }
        Ok((values, rows))
    }
}

/// How latents of an autoencoder stand for frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatentLayout {
    /// Channels of a latent.
    pub channels: usize,
    /// Frames that a latent frame stands for, but for the first.
    pub temporal: usize,
    /// Frames that the first latent frame stands for: 1 where time is causal.
    pub first: usize,
    /// Pixels along each side of a latent pixel.
    pub spatial: usize,
}

impl LatentLayout {
    /// Latent frames of a clip, or none where `frames` is not a whole number of chunks past the
    /// first.
    pub fn latent_frames(&self, frames: usize) -> Option<usize> {
        let past_first = frames.checked_sub(self.first)?;
        past_first.is_multiple_of(self.temporal).then_some(past_first / self.temporal + 1)
    }

    /// Frames of a clip of so many latent frames.
    pub fn frames(&self, latent_frames: usize) -> usize {
        match latent_frames {
            0 => 0,
            count => (count - 1).saturating_mul(self.temporal).saturating_add(self.first),
        }
    }
}

/// A video autoencoder. Its two networks are loaded apart: a clip made from text never needs the
/// encoder.
pub trait VideoVae: Send + Sync {
    /// How its latents stand for frames.
    fn latents(&self) -> LatentLayout;

    /// Bytes that encoding so many frames of `[height, width]` pixels needs besides weights and
    /// results, where it computes in `dtype`.
    fn encode_memory(&self, clip: (usize, [usize; 2]), tile: Option<Tile>, dtype: DType) -> u64;

    /// The same for decoding.
    fn decode_memory(&self, clip: (usize, [usize; 2]), tile: Option<Tile>, dtype: DType) -> u64;

    /// Whether a latent is decoded whole, since a frame depends on those after it: all frames are
    /// held then.
    fn decodes_whole(&self) -> bool {
        false
    }

    /// The noise with which a latent is decoded where nobody says otherwise; none where the decoder
    /// takes none: the default.
    fn decode_noise(&self) -> Option<DecodeNoise> {
        None
    }

    /// How the names of the encoder's weights begin.
    fn encoder_weights(&self) -> &[&str];

    /// How the names of the decoder's weights begin.
    fn decoder_weights(&self) -> &[&str];

    /// Reads the encoder.
    ///
    /// # Errors
    /// When its weights cannot be read or do not fit.
    fn load_encoder(&self, weights: &Weights) -> Result<Arc<dyn FrameEncoder>>;

    /// Reads the decoder.
    ///
    /// # Errors
    /// When its weights cannot be read or do not fit.
    fn load_decoder(&self, weights: &Weights) -> Result<Arc<dyn FrameDecoder>>;
}

/// Noise that a decoder is told of, and that it adds (LTX-Video 0.9.1 and later).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DecodeNoise {
    /// The noise level at which it decodes, from 0 to 1.
    pub timestep: f64,
    /// How much of the latent is noise, from 0 to 1.
    pub scale: f64,
    /// Which noise.
    pub seed: u64,
}

/// How a whole latent is decoded.
#[derive(Debug, Clone, Copy, Default)]
pub struct WholeDecode {
    /// The tiles into which frames are cut; none where they are taken whole.
    pub tile: Option<Tile>,
    /// The noise, for a decoder that takes some ([`VideoVae::decode_noise`]).
    pub noise: Option<DecodeNoise>,
}

/// The loaded encoder of an autoencoder.
pub trait FrameEncoder: Send + Sync {
    /// Begins a clip, or one tile of it.
    ///
    /// # Errors
    /// When the network cannot be made ready.
    fn open(&self) -> Result<Box<dyn Encode>>;
}

/// The loaded decoder of an autoencoder.
pub trait FrameDecoder: Send + Sync {
    /// Begins a clip that is decoded frame by frame; none where latents are decoded whole alone
    /// ([`VideoVae::decodes_whole`]).
    ///
    /// # Errors
    /// When the network cannot be made ready.
    fn open(&self) -> Result<Option<Box<dyn Decode>>>;

    /// Decodes a whole latent, in tiles where some are asked for, one after another, so that what is
    /// kept between latent frames is that of one tile; the frames of the whole clip are held
    /// meanwhile. Without an implementation of its own, frames are not cut.
    ///
    /// Shapes: `latent` `[c, f, h, w]`; the result is all frames, in chunks `[t, H, W, 3]` in −1…1
    /// and f32. `done` is told how many of how many latent frames of all tiles have passed.
    ///
    /// # Errors
    /// When the shape or the tile does not fit, or it is cancelled.
    fn decode_whole(
        &self,
        latent: &Tensor,
        _how: &WholeDecode,
        done: &mut dyn FnMut(usize, usize),
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Vec<Tensor>> {
        let none = || Error::input("this decoder has no way to decode a latent");
        let (mut decoder, count) = (self.open()?.ok_or_else(none)?, latent.dim(1)?);
        let mut frame = |index: usize| {
            let latent = latent.narrow(1, index, 1)?.squeeze(1)?;
            let frames = match index + 1 < count {
                true => decoder.push(&latent, check_cancel)?,
                false => decoder.finish(&latent, check_cancel)?,
            };
            done(index + 1, count);
            Ok(frames)
        };
        (0..count).map(&mut frame).collect()
    }

    /// A linear map from latents to colours, for previews; none where there is none.
    ///
    /// # Errors
    /// When decoding fails.
    fn rgb_map(&self) -> Result<Option<RgbMap>> {
        Ok(None)
    }
}

/// A clip being encoded, chunk by chunk.
pub trait Encode {
    /// Frames that the next chunk must have.
    fn next_frames(&self) -> usize;

    /// Encodes the next chunk. Shapes: `frames` `[t, H, W, 3]` in −1…1; the result `[c, 1, h, w]`,
    /// normalised, in f32.
    ///
    /// # Errors
    /// When the shape does not fit, or it is cancelled.
    fn push(&mut self, frames: &Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor>;

    /// Encodes the last chunk: the same numbers, but nothing needs to be kept behind it. Nothing is
    /// encoded after it.
    ///
    /// # Errors
    /// As [`Encode::push`].
    fn finish(&mut self, frames: &Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        self.push(frames, check_cancel)
    }
}

/// A latent being decoded, frame by frame.
pub trait Decode {
    /// Decodes the next latent frame. Shapes: `latent` `[c, h, w]`, normalised; the result
    /// `[t, H, W, 3]` in −1…1 and f32.
    ///
    /// # Errors
    /// When the shape does not fit, or it is cancelled.
    fn push(&mut self, latent: &Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor>;

    /// Decodes the last latent frame: the same numbers, but nothing needs to be kept behind it.
    /// Nothing is decoded after it.
    ///
    /// # Errors
    /// As [`Decode::push`].
    fn finish(&mut self, latent: &Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        self.push(latent, check_cancel)
    }
}

/// What is known of a network that enlarges frames, before its weights are read.
pub trait UpscalerSpec: Send + Sync {
    /// Its architecture, for messages.
    fn name(&self) -> &str;

    /// How many times wider and higher its frames are.
    fn factor(&self) -> usize;

    /// How far it sees: enlarged pixels depend on no pixel that lies farther away, in pixels of the
    /// input.
    fn reach(&self) -> usize;

    /// Where it may be cut: tiles begin at multiples of this.
    fn multiple(&self) -> usize {
        1
    }

    /// Bytes that a tile of `[height, width]` pixels needs besides the weights, its result
    /// included.
    fn memory(&self, size: [usize; 2]) -> u64;

    /// Reads its weights.
    ///
    /// # Errors
    /// When they cannot be read or do not fit.
    fn load(&self, weights: &Weights) -> Result<Arc<dyn Upscaler>>;
}

/// Enlarges frames.
pub trait Upscaler: Send + Sync {
    /// Enlarges whole frames. Shapes: `frames` `[n, h, w, 3]` in 0…1; the result
    /// `[n, factor·h, factor·w, 3]`, which may leave 0…1.
    ///
    /// # Errors
    /// When it is cancelled or a tensor operation fails.
    fn upscale(&self, frames: &Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor>;
}

/// What is known of a network that makes frames between frames, before its weights are read.
pub trait InterpolatorSpec: Send + Sync {
    /// Its architecture, for messages.
    fn name(&self) -> &str;

    /// Bytes that a frame between two of `[height, width]` pixels needs besides the weights, those
    /// two as the network sees them included.
    fn memory(&self, size: [usize; 2]) -> u64;

    /// Reads its weights.
    ///
    /// # Errors
    /// When they cannot be read or do not fit.
    fn load(&self, weights: &Weights) -> Result<Arc<dyn Interpolator>>;
}

/// A frame as a network that interpolates sees it, made once for the frames on both its sides.
pub struct PreparedFrame {
    /// `[1, H, W, 3]`, at a size that the network takes.
    pub frame: Tensor,
    /// What the network finds in it, `[1, H, W, c]`.
    pub features: Tensor,
    /// Height and width of the frame as it was.
    pub size: [usize; 2],
}

/// Makes frames between frames.
pub trait Interpolator: Send + Sync {
    /// Looks at a frame `[1, h, w, 3]` in 0…1.
    ///
    /// # Errors
    /// When a tensor operation fails.
    fn prepare(&self, frame: &Tensor) -> Result<PreparedFrame>;

    /// The frame at a moment between two of one size, 0 at the first and 1 at the second:
    /// `[1, h, w, 3]`.
    ///
    /// # Errors
    /// When it is cancelled or a tensor operation fails.
    fn between(
        &self,
        first: &PreparedFrame,
        second: &PreparedFrame,
        at: f32,
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor>;
}
