//! The image autoencoder `AutoencoderKL` (arXiv:2112.10752; diffusers' `autoencoder_kl.py` and
//! `vae.py`): a frame to a latent and back, each frame for itself.
//!
//! Activations are channels-last, `[1, h, w, c]`; latents that leave this module are normalised, (z
//! − shift)·scaling with the constants of the config.

mod layers;
mod networks;
mod size;

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::autoencoder::AutoencoderConfig;
use crate::cancel::CheckCancel;
use crate::error::{Error, Result};
use crate::model::{Decode, Encode, FrameDecoder, FrameEncoder, WholeDecode};
use crate::preview::RgbMap;
use crate::tile::{Grid, Tile, TileJoin};
use crate::weight::Weights;
use networks::{DecoderNet, EncoderNet};
pub use size::{decode_peak, encode_peak};

/// What both networks share: sizes, and where and in which type they compute.
#[derive(Debug, Clone)]
struct Setup {
    config: AutoencoderConfig,
    device: Device,
    dtype: DType,
}

impl Setup {
    fn new(config: &AutoencoderConfig, weights: &Weights) -> Self {
        let (device, dtype) = (weights.device().clone(), weights.dtype());
        Self { config: config.clone(), device, dtype }
    }
}

/// The loaded encoder.
#[derive(Debug, Clone)]
pub struct Encoder {
    setup: Setup,
    net: Arc<EncoderNet>,
}

impl Encoder {
    /// Takes the encoder's weights from a `vae` folder.
    ///
    /// # Errors
    /// When a weight is missing or has another shape than `config` says.
    pub fn load(config: &AutoencoderConfig, weights: &Weights) -> Result<Self> {
        let net = Arc::new(EncoderNet::read(config, weights)?);
        Ok(Self { setup: Setup::new(config, weights), net })
    }

    /// Encodes a frame: the mode of the distribution, normalised.
    ///
    /// Shapes: `frame` `[1, H, W, 3]` in −1…1; the result is `[c, 1, h, w]` in f32.
    ///
    /// # Errors
    /// When the shape does not fit, or `check_cancel` stops it.
    pub fn encode(&self, frame: &Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        let Setup { config, device, dtype } = &self.setup;
        let factor = config.spatial_factor();
        match frame.dims() {
            &[1, h, w, 3] if h > 0 && w > 0 && h % factor == 0 && w % factor == 0 => {}
            found => {
                return Err(Error::input(format!(
                    "a frame {found:?}; expected [1, height, width, 3] with sizes that are \
                     multiples of {factor}"
                )));
            }
        }
        let frame = frame.to_device(device)?.to_dtype(*dtype)?;
        let moments = self.net.forward(&frame, check_cancel)?; // [1, h, w, 2c]
        let mean = moments.narrow(3, 0, config.latent_channels)?.to_dtype(DType::F32)?;
        let scaling = config.scaling_factor;
        let latent = mean.affine(scaling, -config.shift() * scaling)?;
        Ok(latent.permute((3, 0, 1, 2))?.force_contiguous()?)
    }
}

impl FrameEncoder for Encoder {
    fn open(&self) -> Result<Box<dyn Encode>> {
        Ok(Box::new(self.clone()))
    }
}

impl Encode for Encoder {
    fn next_frames(&self) -> usize {
        1
    }

    fn push(&mut self, frames: &Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        self.encode(frames, check_cancel)
    }
}

/// The loaded decoder.
#[derive(Debug, Clone)]
pub struct Decoder {
    setup: Setup,
    net: Arc<DecoderNet>,
}

impl Decoder {
    /// Takes the decoder's weights from a `vae` folder.
    ///
    /// # Errors
    /// When a weight is missing or has another shape than `config` says.
    pub fn load(config: &AutoencoderConfig, weights: &Weights) -> Result<Self> {
        let net = Arc::new(DecoderNet::read(config, weights)?);
        Ok(Self { setup: Setup::new(config, weights), net })
    }

    /// Decodes a frame of a normalised latent.
    ///
    /// Shapes: `latent` `[c, h, w]`; the result is `[1, H, W, 3]` in f32, not clamped.
    ///
    /// # Errors
    /// When the shape does not fit, or `check_cancel` stops it.
    pub fn decode(&self, latent: &Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        let Setup { config, device, dtype } = &self.setup;
        let channels = config.latent_channels;
        match latent.dims() {
            &[found, h, w] if found == channels && h > 0 && w > 0 => {}
            found => {
                return Err(Error::input(format!(
                    "a latent frame {found:?}; expected [{channels}, height, width]"
                )));
            }
        }
        let latent = latent.to_device(device)?.to_dtype(DType::F32)?;
        let z = latent.permute((1, 2, 0))?.unsqueeze(0)?.force_contiguous()?; // [1, h, w, c]
        let z = z.affine(1.0 / config.scaling_factor, config.shift())?;
        let frame = self.net.forward(&z.to_dtype(*dtype)?, check_cancel)?;
        Ok(frame.to_dtype(DType::F32)?)
    }

    /// Decodes a whole latent in tiles, one after another, each picture for itself.
    ///
    /// Shapes: `latent` `[c, f, h, w]`, normalised; the result has for each latent frame its `[1, H,
    /// W, 3]` in −1…1 and f32. `done` is told how many of how many latent frames of all tiles have
    /// passed.
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
        let (_, count, height, width) = latent.dims4()?;
        let factor = self.setup.config.spatial_factor();
        let size = [height * factor, width * factor];
        let grid = Grid::new(tile, size, factor, true)?;
        let mut joined = TileJoin::new(&grid, count);
        let (mut passed, all) = (0, grid.count() * count);
        for place in grid.places() {
            for index in 0..count {
                let frame = latent.narrow(1, index, 1)?.squeeze(1)?; // [c, h, w]
                let tile = self.decode(&place.of(&frame, 1)?, check_cancel)?;
                joined.add(&place, index, &tile)?;
                passed += 1;
                done(passed, all);
            }
        }
        let whole = |frames: Result<Tensor>| Ok(frames?.clamp(-1f32, 1f32)?);
        joined.finish(&self.setup.device).map(whole).collect()
    }
}

impl FrameDecoder for Decoder {
    fn open(&self) -> Result<Option<Box<dyn Decode>>> {
        Ok(Some(Box::new(self.clone())))
    }

    fn decode_whole(
        &self,
        latent: &Tensor,
        how: &WholeDecode,
        done: &mut dyn FnMut(usize, usize),
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Vec<Tensor>> {
        let (_, _, height, width) = latent.dims4()?;
        let factor = self.setup.config.spatial_factor();
        let whole = Tile::square(height.max(width) * factor, factor);
        self.decode_tiles(latent, how.tile.unwrap_or(whole), done, check_cancel)
    }

    fn rgb_map(&self) -> Result<Option<RgbMap>> {
        let config = &self.setup.config;
        let map = RgbMap::derive(config.latent_channels, config.spatial_factor(), |latent| {
            self.decode(latent, &mut || Ok(()))
        });
        map.map(Some)
    }
}

impl Decode for Decoder {
    fn push(&mut self, latent: &Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        Ok(self.decode(latent, check_cancel)?.clamp(-1f32, 1f32)?)
    }
}
