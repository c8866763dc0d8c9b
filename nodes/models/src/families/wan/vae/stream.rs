//! Encoding and decoding chunk by chunk: memory does not grow with the length of a clip.

use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor};

use super::decoder::DecoderNet;
use super::encoder::EncoderNet;
use super::pass::{Cache, Chunk, Pass};
use super::shortcut::{fold, unfold};
use crate::cancel::CheckCancel;
use crate::error::{Error, Result};
use crate::families::wan::autoencoder::VaeConfig;

/// What encoder and decoder streams share: sizes, and where and in which type they compute.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) config: Arc<VaeConfig>,
    pub(super) device: Device,
    pub(super) dtype: DType,
    /// Mean and standard deviation of the latent channels, `[z]` in f32.
    pub(super) statistics: [Tensor; 2],
}

impl Setup {
    /// (z − μ)/σ over the last dimension.
    pub(super) fn normalize(&self, latent: &Tensor) -> Result<Tensor> {
        let [mean, deviation] = &self.statistics;
        Ok(latent.broadcast_sub(mean)?.broadcast_div(deviation)?)
    }

    /// z·σ + μ over the last dimension.
    fn restore(&self, latent: &Tensor) -> Result<Tensor> {
        let [mean, deviation] = &self.statistics;
        Ok(latent.broadcast_mul(deviation)?.broadcast_add(mean)?)
    }

    /// A normalised latent frame `[z, h, w]` as the decoder takes it: `[1, h, w, z]`.
    pub(super) fn enter(&self, latent: &Tensor) -> Result<Tensor> {
        let x = self.take(latent, DType::F32)?.permute((1, 2, 0))?; // [h, w, z]
        Ok(self.restore(&x)?.to_dtype(self.dtype)?.unsqueeze(0)?)
    }

    fn take(&self, x: &Tensor, dtype: DType) -> Result<Tensor> {
        Ok(x.to_device(&self.device)?.to_dtype(dtype)?)
    }
}

/// The state of a stream: the size of its frames, and what is kept between chunks.
#[derive(Debug, Default)]
struct Stream {
    size: Option<[usize; 2]>,
    cache: Cache,
    failed: bool,
    ended: bool,
}

impl Stream {
    fn started(&self) -> bool {
        self.size.is_some()
    }

    /// Runs one chunk of frames of `size` pixels.
    fn run(
        &mut self,
        x: &Tensor,
        (size, chunk): ([usize; 2], Chunk),
        check_cancel: &mut CheckCancel<'_>,
        network: impl Fn(&Tensor, &mut Pass) -> Result<Tensor>,
    ) -> Result<Tensor> {
        if self.failed {
            return Err(Error::input("this stream stopped with an error; open a new one"));
        }
        if self.ended {
            return Err(Error::input("this clip has had its last chunk; open a new stream"));
        }
        let [h, w] = *self.size.get_or_insert(size);
        if size != [h, w] {
            let [high, wide] = size;
            return Err(Error::input(format!(
                "a frame of {high}×{wide} pixels in a stream of {h}×{w}"
            )));
        }
        self.failed = true; // until it has passed
        let done = network(x, &mut Pass::new(&mut self.cache, chunk, check_cancel))?;
        self.failed = false;
        self.ended = chunk == Chunk::Last;
        Ok(done)
    }

    fn cache_bytes(&self) -> usize {
        self.cache.bytes()
    }
}

/// A clip being encoded: one frame, then chunks of [`Encoder::next_frames`].
#[derive(Debug)]
pub struct Encoder {
    net: Arc<EncoderNet>,
    setup: Setup,
    stream: Stream,
}

impl Encoder {
    pub(super) fn new(net: Arc<EncoderNet>, setup: Setup) -> Self {
        Self { net, setup, stream: Stream::default() }
    }

    /// Frames that the next chunk must have: 1 first, then the temporal factor (4).
    pub fn next_frames(&self) -> usize {
        if self.stream.started() { self.setup.config.temporal_factor() } else { 1 }
    }

    /// Encodes the next chunk into one latent frame: the mode of the distribution, normalised.
    ///
    /// Shapes: `frames` `[t, H, W, 3]` in −1…1, t = [`Encoder::next_frames`]; the result is
    /// `[z, 1, h, w]` in f32.
    ///
    /// # Errors
    /// When the shape does not fit, or `check_cancel` stops it. After an error the stream is over.
    pub fn push(&mut self, frames: &Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        let moments = self.run(frames, Chunk::Inner, check_cancel)?;
        self.mode(&moments)
    }

    /// Encodes the last chunk, behind which nothing is kept; otherwise as [`Encoder::push`].
    ///
    /// # Errors
    /// As [`Encoder::push`]. After it the stream is over.
    pub fn finish(
        &mut self,
        frames: &Tensor,
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        let moments = self.run(frames, Chunk::Last, check_cancel)?;
        self.mode(&moments)
    }

    fn mode(&self, moments: &Tensor) -> Result<Tensor> {
        let mean = moments.narrow(D::Minus1, 0, self.setup.config.z_dim)?;
        Ok(self.setup.normalize(&mean)?.permute((3, 0, 1, 2))?.force_contiguous()?)
    }

    /// Encodes the next chunk into the raw mean and log-variance, each `[z, 1, h, w]` in f32.
    ///
    /// # Errors
    /// As [`Encoder::push`].
    pub fn push_moments(
        &mut self,
        frames: &Tensor,
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<(Tensor, Tensor)> {
        let moments = self.run(frames, Chunk::Inner, check_cancel)?;
        let moments = moments.permute((3, 0, 1, 2))?; // [2z, t, h, w]
        let z = self.setup.config.z_dim;
        let half = |start| moments.narrow(0, start, z)?.force_contiguous();
        Ok((half(0)?, half(z)?))
    }

    /// Bytes kept between chunks; they do not depend on how many there were.
    pub fn cache_bytes(&self) -> usize {
        self.stream.cache_bytes()
    }

    fn run(
        &mut self,
        frames: &Tensor,
        chunk: Chunk,
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        let (config, expected) = (&self.setup.config, self.next_frames());
        let factor = config.spatial_factor();
        let size = match frames.dims() {
            &[t, h, w, 3]
                if t == expected && h > 0 && w > 0 && (h % factor, w % factor) == (0, 0) =>
            {
                [h, w]
            }
            found => {
                return Err(Error::input(format!(
                    "a chunk of frames {found:?}; expected [{expected}, height, width, 3] with \
                     sizes that are multiples of {factor}"
                )));
            }
        };
        let x = self.setup.take(frames, self.setup.dtype)?;
        let net = &self.net;
        let network = |x: &Tensor, pass: &mut Pass| net.forward(x, pass);
        let x = fold(&x, config.patch())?;
        let moments = self.stream.run(&x, (size, chunk), check_cancel, network)?;
        Ok(moments.to_dtype(DType::F32)?)
    }
}

/// A latent being decoded, frame by frame.
#[derive(Debug)]
pub struct Decoder {
    net: Arc<DecoderNet>,
    setup: Setup,
    stream: Stream,
}

impl Decoder {
    pub(super) fn new(net: Arc<DecoderNet>, setup: Setup) -> Self {
        Self { net, setup, stream: Stream::default() }
    }

    /// Frames that the next latent frame gives: 1 first, then the temporal factor (4).
    pub fn next_frames(&self) -> usize {
        if self.stream.started() { self.setup.config.temporal_factor() } else { 1 }
    }

    /// Decodes the next frame of a normalised latent.
    ///
    /// Shapes: `latent` `[z, h, w]`; the result is `[t, H, W, 3]` in −1…1 and f32, t =
    /// [`Decoder::next_frames`].
    ///
    /// # Errors
    /// When the shape does not fit, or `check_cancel` stops it. After an error the stream is over.
    pub fn push(&mut self, latent: &Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        Ok(self.unclamped(latent, Chunk::Inner, check_cancel)?.clamp(-1f32, 1f32)?)
    }

    /// Decodes the last frame, behind which nothing is kept; otherwise as [`Decoder::push`].
    ///
    /// # Errors
    /// As [`Decoder::push`]. After it the stream is over.
    pub fn finish(
        &mut self,
        latent: &Tensor,
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        Ok(self.unclamped(latent, Chunk::Last, check_cancel)?.clamp(-1f32, 1f32)?)
    }

    /// The same without the final clamp.
    pub(super) fn unclamped(
        &mut self,
        latent: &Tensor,
        chunk: Chunk,
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        let z = self.setup.config.z_dim;
        let factor = self.setup.config.spatial_factor();
        let size = match latent.dims() {
            &[channels, h, w] if channels == z && h > 0 && w > 0 => [h * factor, w * factor],
            found => {
                return Err(Error::input(format!(
                    "a latent frame {found:?}; expected [{z}, height, width]"
                )));
            }
        };
        let x = self.setup.enter(latent)?;
        let net = &self.net;
        let network = |x: &Tensor, pass: &mut Pass| net.forward(x, pass);
        let frames = self.stream.run(&x, (size, chunk), check_cancel, network)?;
        Ok(unfold(&frames, self.setup.config.patch())?.to_dtype(DType::F32)?)
    }

    /// Bytes kept between frames; they do not depend on how many there were.
    pub fn cache_bytes(&self) -> usize {
        self.stream.cache_bytes()
    }
}
