//! The video autoencoder `AutoencoderKLWan`: frames to latents and back. Its 2.2 form, the residual
//! one, folds pixels into channels and adds shortcuts around whole levels (`shortcut`).
//!
//! Formulas follow `autoencoder_kl_wan.py` of diffusers. Every convolution over time is causal:
//! the first frame is encoded alone, then chunks of four; a latent frame decodes to one frame
//! first, then to four. What a layer needs of the chunk before stands in a feature cache, so that
//! memory depends on the size of a frame, not on the length of a clip.
//!
//! Activations are channels-last, `[t, h, w, c]`; latents that leave this module are `[c, f, h, w]`
//! and normalised, (z − μ)/σ with the constants of the config.

mod decoder;
mod encoder;
mod layers;
mod pass;
mod resample;
mod shortcut;
mod size;
mod stream;
mod tiles;

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};

use crate::cancel::CheckCancel;
use crate::error::{Error, Result};
use crate::families::wan::autoencoder::VaeConfig;
use crate::preview::RgbMap;
use crate::tile::{Grid, Tile, TileJoin};
use crate::weight::Weights;
use decoder::DecoderNet;
use encoder::EncoderNet;
use pass::Chunk;
use stream::Setup;

pub use size::{MemoryPeak, decode_peak, encode_peak, frames_shape, latent_shape};
pub use stream::{Decoder, Encoder};

/// A network that is read when it is first needed: a clip made from text never needs the encoder.
type Lazy<T> = Mutex<Option<Arc<T>>>;

/// The autoencoder of a model.
#[derive(Debug)]
pub struct Vae {
    setup: Setup,
    weights: Weights,
    encoder: Lazy<EncoderNet>,
    decoder: Lazy<DecoderNet>,
    map: Lazy<RgbMap>,
}

impl Vae {
    /// The autoencoder of this config; its two networks are read from `weights` on first use.
    ///
    /// # Errors
    /// When the config contradicts itself.
    pub fn load(config: &VaeConfig, weights: &Weights) -> Result<Self> {
        check(config)?;
        let statistic = |values: &[f64]| {
            let values: Vec<f32> = values.iter().map(|value| *value as f32).collect();
            Tensor::from_vec(values, config.z_dim, weights.device())
        };
        let setup = Setup {
            config: Arc::new(config.clone()),
            device: weights.device().clone(),
            dtype: weights.dtype(),
            statistics: [statistic(&config.latents_mean)?, statistic(&config.latents_std)?],
        };
        let weights = weights.clone();
        Ok(Self {
            setup,
            weights,
            encoder: Lazy::default(),
            decoder: Lazy::default(),
            map: Lazy::default(),
        })
    }

    /// The sizes of this autoencoder.
    pub fn config(&self) -> &VaeConfig {
        &self.setup.config
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.setup.device
    }

    /// In which type it computes.
    pub fn dtype(&self) -> DType {
        self.setup.dtype
    }

    /// Opens a stream of frames to encode.
    ///
    /// # Errors
    /// When the encoder's weights cannot be read.
    pub fn encoder(&self) -> Result<Encoder> {
        let read = || EncoderNet::read(&self.setup.config, &self.weights);
        Ok(Encoder::new(once(&self.encoder, read)?, self.setup.clone()))
    }

    /// Opens a stream of latent frames to decode.
    ///
    /// # Errors
    /// When the decoder's weights cannot be read.
    pub fn decoder(&self) -> Result<Decoder> {
        Ok(Decoder::new(self.decoder_net()?, self.setup.clone()))
    }

    fn decoder_net(&self) -> Result<Arc<DecoderNet>> {
        once(&self.decoder, || DecoderNet::read(&self.setup.config, &self.weights))
    }

    /// Decodes a whole latent in tiles, one after another. What is kept between latent frames is
    /// that of one tile, and all frames of the clip are held.
    ///
    /// Shapes: `latent` `[z, f, h, w]`, normalised; the result has for each latent frame its
    /// `[t, H, W, 3]` in −1…1 and f32. `done` is told how many of how many latent frames of all
    /// tiles have passed.
    ///
    /// # Errors
    /// When the shape or the tile does not fit, or `check_cancel` stops it.
    pub fn decode_tiles(
        &self,
        latent: &Tensor,
        tile: Tile,
        done: &mut dyn FnMut(usize, usize),
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Vec<Tensor>> {
        let net = self.decoder_net()?;
        tiles::decode_tiles(&net, &self.setup, (latent, tile), done, check_cancel)
    }

    /// Encodes a whole clip: the mode of the distribution, normalised.
    ///
    /// Shapes: `frames` `[f, H, W, 3]` in −1…1; the result is `[z, f', h, w]` in f32.
    ///
    /// # Errors
    /// When the sizes do not fit the model (f = 4k+1, H and W multiples of 8 or 16), or `check_cancel`
    /// stops it.
    pub fn encode(
        &self,
        frames: &Tensor,
        tile: Option<Tile>,
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        let (count, height, width, _) = frames.dims4()?;
        let [_, of, ..] = latent_shape(self.config(), count, height, width)?;
        let Some(tile) = tile else {
            return Ok(Tensor::cat(&self.encode_chunks(frames, check_cancel)?, 1)?);
        };
        let grid = Grid::new(tile, [height, width], self.config().spatial_factor(), false)?;
        let mut joined = TileJoin::new(&grid, of);
        for place in grid.places() {
            let part = place.of(frames, 1)?.contiguous()?;
            for (index, latent) in self.encode_chunks(&part, check_cancel)?.iter().enumerate() {
                joined.add(&place, index, &latent.permute((1, 2, 3, 0))?)?; // [1, h, w, z]
            }
        }
        let latents = joined.finish(self.device()).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&latents, 0)?.permute((3, 0, 1, 2))?.contiguous()?)
    }

    /// The latent frames of a clip, each `[z, 1, h, w]`.
    fn encode_chunks(
        &self,
        frames: &Tensor,
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Vec<Tensor>> {
        let (mut encoder, count) = (self.encoder()?, frames.dim(0)?);
        let (mut latents, mut start) = (Vec::new(), 0);
        while start < count {
            let length = encoder.next_frames();
            let chunk = frames.narrow(0, start, length)?;
            start += length;
            latents.push(match start < count {
                true => encoder.push(&chunk, check_cancel)?,
                false => encoder.finish(&chunk, check_cancel)?,
            });
        }
        Ok(latents)
    }

    /// Decodes a whole latent; for long clips, [`Vae::decoder`] gives the frames as they come.
    ///
    /// Shapes: `latent` `[z, f, h, w]`, normalised; the result is `[f', H, W, 3]` in −1…1 and f32.
    ///
    /// # Errors
    /// When the shape does not fit, or `check_cancel` stops it.
    pub fn decode(
        &self,
        latent: &Tensor,
        tile: Option<Tile>,
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        let (_, count, _, _) = latent.dims4()?;
        if count == 0 {
            return Err(Error::input("a latent without frames cannot be decoded"));
        }
        if let Some(tile) = tile {
            let frames = self.decode_tiles(latent, tile, &mut |_, _| (), check_cancel)?;
            return Ok(Tensor::cat(&frames, 0)?);
        }
        let mut decoder = self.decoder()?;
        let mut frames = Vec::with_capacity(count);
        for index in 0..count {
            let latent = latent.narrow(1, index, 1)?.squeeze(1)?; // [z, h, w]
            frames.push(match index + 1 < count {
                true => decoder.push(&latent, check_cancel)?,
                false => decoder.finish(&latent, check_cancel)?,
            });
        }
        Ok(Tensor::cat(&frames, 0)?)
    }

    /// The linear map from latents to colours, derived from this autoencoder once.
    ///
    /// # Errors
    /// When the decoder's weights cannot be read.
    pub fn rgb_map(&self) -> Result<Arc<RgbMap>> {
        let derive = || {
            let config = self.config();
            RgbMap::derive(config.z_dim, config.spatial_factor(), |latent| {
                self.decoder()?.unclamped(latent, Chunk::Last, &mut || Ok(()))
            })
        };
        once(&self.map, derive)
    }
}

/// The value, made by `make` the first time.
fn once<T>(place: &Lazy<T>, make: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
    // A panic while reading leaves nothing half-made: the place is filled after it.
    let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(made) = place.as_ref() {
        return Ok(Arc::clone(made));
    }
    let made = Arc::new(make()?);
    *place = Some(Arc::clone(&made));
    Ok(made)
}

/// Refuses a config that contradicts itself.
fn check(config: &VaeConfig) -> Result<()> {
    if config.temperal_downsample.len() + 1 != config.dim_mult.len() {
        return Err(Error::input("`temperal_downsample` must be one shorter than `dim_mult`"));
    }
    if [config.latents_mean.len(), config.latents_std.len()] != [config.z_dim; 2] {
        return Err(Error::input("`latents_mean` and `latents_std` need one value a channel"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::checkpoint::ModelFolder;

    /// Here every frame counts as large, so that frames are worked on in groups.
    #[test]
    fn frames_in_groups_are_those_of_the_reference() {
        for family in ["wan_t2v", "wan22_ti2v"] {
            let place = |path: &str| {
                let top = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/ref");
                PathBuf::from(top).join(family).join(path)
            };
            let folder = ModelFolder::directory(place("model")).unwrap();
            let config = VaeConfig::read(&folder).unwrap();
            let weights = folder.weights("vae", DType::F32, &Device::Cpu).unwrap();
            let vae = Vae::load(&config, &weights).unwrap();
            let golden = place("golden/vae.safetensors");
            let golden = candle_core::safetensors::load(golden, &Device::Cpu).unwrap();
            for case in ["a", "b", "c"] {
                let of = |name: &str| golden[&format!("{case}.{name}")].squeeze(0).unwrap();
                let z = of("z").permute((1, 2, 3, 0)).unwrap();
                let latent = vae.setup.normalize(&z).unwrap().permute((3, 0, 1, 2)).unwrap();
                let frames = vae.decode(&latent.contiguous().unwrap(), None, &mut || Ok(()));
                let expected = of("dec").permute((1, 2, 3, 0)).unwrap();
                let gap = (frames.unwrap() - expected).unwrap().abs().unwrap().max_all().unwrap();
                let gap = gap.to_scalar::<f32>().unwrap();
                println!("{family} {case}: {gap:e}");
                assert!(gap <= 2e-5, "{family} {case}: {gap:e}");
            }
        }
    }
}
