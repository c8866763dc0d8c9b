//! Latents to frames, a whole clip at once.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::Statistics;
use super::layers::{
    BlockForm, Head, Layers, Pass, ResidualBlock, TimeConv, TimeEmbedder, spread, spread_pixels,
};
use crate::cancel::CheckCancel;
use crate::error::{Error, Result};
use crate::families::ltx::autoencoder::{UpBlock, VaeConfig};
use crate::model::{Decode, DecodeNoise, FrameDecoder, WholeDecode};
use crate::noise::normal;
use crate::preview::RgbMap;
use crate::tile::{Grid, TileJoin};
use crate::weight::Weights;

/// The decoder of a model.
#[derive(Debug, Clone)]
pub(in super::super) struct Decoder(Arc<Net>);

#[derive(Debug)]
struct Net {
    config: VaeConfig,
    device: Device,
    dtype: DType,
    statistics: Statistics,
    enter: TimeConv,
    middle: Layers,
    blocks: Vec<Up>,
    /// How the end is told the noise, where it is.
    timed: Option<Timed>,
    head: Head,
}

/// The timestep at the end of the decoder.
#[derive(Debug)]
struct Timed {
    embedder: TimeEmbedder,
    table: Tensor, // [2, c], f32
    /// What timesteps of 0…1 are multiplied by.
    multiplier: f64,
}

/// A block of the decoder behind the middle.
#[derive(Debug)]
struct Up {
    enter: Option<ResidualBlock>,
    double: Option<TimeConv>,
    block: UpBlock,
    layers: Layers,
}

impl Up {
    fn read(weights: &Weights, block: UpBlock, form: BlockForm) -> Result<Self> {
        let (channels, factor) = (block.channels, block.factor);
        let form = BlockForm { adds_noise: block.adds_noise, ..form };
        let enter = |cin| ResidualBlock::read(&weights.scope("conv_in"), [cin, channels], form);
        let inner = channels * factor;
        let double = || {
            let own = weights.scope("upsamplers.0.conv");
            TimeConv::read(&own, [inner, 8 * inner / factor], 1, form.is_causal)
        };
        Ok(Self {
            enter: block.widened_from.map(enter).transpose()?,
            double: block.doubles.then(double).transpose()?,
            block,
            layers: Layers::read(weights, channels, block.layers, form)?,
        })
    }

    fn forward(&self, x: Tensor, timestep: Option<f64>, pass: &mut Pass<'_>) -> Result<Tensor> {
        let mut x = match &self.enter {
            Some(enter) => enter.forward(&x, None, pass)?,
            None => x,
        };
        if let Some(conv) = &self.double {
            // The first of two frames made of the first one is dropped.
            let behind = |doubled: Tensor| {
                let count = doubled.dim(0)?;
                Ok::<_, Error>(doubled.narrow(0, 1, count - 1)?)
            };
            let doubled = behind(spread(&conv.forward(&x, pass)?, [2; 3])?)?;
            x = match self.block.is_residual {
                true => {
                    let repeated = vec![behind(spread(&x, [2; 3])?)?; 8 / self.block.factor];
                    (doubled + Tensor::cat(&repeated, 3)?)?
                }
                false => doubled.contiguous()?,
            };
        }
        self.layers.forward(x, timestep, pass)
    }
}

impl Decoder {
    /// Reads `decoder`.
    ///
    /// # Errors
    /// When a weight is missing or has another shape than `config` says.
    pub(in super::super) fn load(config: &VaeConfig, weights: &Weights) -> Result<Self> {
        let (own, is_causal) = (weights.scope("decoder"), config.decoder_causal);
        let is_timed = config.timestep_conditioning;
        let blocks = config.up_blocks();
        let (middle, rest) =
            blocks.split_first().ok_or_else(|| Error::input("a decoder without blocks"))?;
        let eps = config.resnet_norm_eps;
        let form = BlockForm { is_causal, adds_noise: middle.adds_noise, is_timed, eps };
        let block = |(index, block): (usize, &UpBlock)| {
            Up::read(&own.scope("up_blocks").scope(index), *block, form)
        };
        let last = rest.last().map_or(middle.channels, |block| block.channels);
        let timed = || {
            // GGUF has no number that is no row.
            let name = "timestep_scale_multiplier";
            let shape = own.shape(name).filter(|shape| *shape == [1]).unwrap_or_default().to_vec();
            let multiplier = own.get_as(name, shape, DType::F32)?.reshape(())?;
            Ok::<_, Error>(Timed {
                embedder: TimeEmbedder::read(&own, 2 * last)?,
                table: own.get_as("scale_shift_table", (2, last), DType::F32)?,
                multiplier: f64::from(multiplier.to_scalar::<f32>()?),
            })
        };
        let (z, wide) = (config.latent_channels, middle.channels);
        Ok(Self(Arc::new(Net {
            device: weights.device().clone(),
            dtype: weights.dtype(),
            statistics: Statistics::read(config, weights)?,
            enter: TimeConv::read(&own.scope("conv_in"), [z, wide], 1, is_causal)?,
            middle: Layers::read(&own.scope("mid_block"), wide, middle.layers, form)?,
            blocks: rest.iter().enumerate().map(block).collect::<Result<_>>()?,
            timed: is_timed.then(timed).transpose()?,
            head: Head::read(&own, [last, config.folded_channels()], is_causal)?,
            config: config.clone(),
        })))
    }
}

/// Where the noise of a decoder begins among the normal numbers of a seed, and how many of them
/// each draw has for itself: beyond those of `latent.noise` and of schedulers.
const OF_DECODER: u64 = 1 << 52;
const OF_DRAW: u64 = 1 << 40;

/// The `index`-th tensor of noise of a decoder's seed; element i of it is number 2⁵² + index·2⁴⁰ +
/// i.
fn noise_of(seed: u64, index: u64, shape: &[usize]) -> Result<Tensor> {
    let (first, count) = (OF_DECODER + index * OF_DRAW, shape.iter().product::<usize>() as u64);
    let values: Vec<f32> = (0..count).map(|i| normal(seed, first + i)).collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

impl Net {
    /// A latent as the network takes it, with noise mixed in: `[c, f, h, w]`, normalised, to `[f, h,
    /// w, c]`.
    fn restored(&self, latent: &Tensor, noise: Option<DecodeNoise>) -> Result<Tensor> {
        let x = latent.to_device(&self.device)?.to_dtype(DType::F32)?;
        let x = self.statistics.restore(&x.permute((1, 2, 3, 0))?)?;
        let Some(DecodeNoise { scale, seed, .. }) = noise.filter(|noise| noise.scale > 0.0) else {
            return Ok(x);
        };
        let drawn = noise_of(seed, 0, latent.dims())?.to_device(&self.device)?;
        Ok(((x * (1.0 - scale))? + (drawn.permute((1, 2, 3, 0))? * scale)?)?)
    }

    /// Decodes `[f, h, w, c]` to `[t, H, W, 3]` in −1…1 and f32, not cut off.
    fn forward(
        &self,
        x: &Tensor,
        noise: Option<DecodeNoise>,
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        let x = x.to_dtype(self.dtype)?.contiguous()?;
        let timestep = self.timed.as_ref().zip(noise);
        let timestep = timestep.map(|(timed, noise)| timed.multiplier * noise.timestep);
        let (mut drawn, seed) = (0, noise.map(|noise| noise.seed));
        let mut draw = |h: usize, w: usize| {
            drawn += 1;
            match seed {
                Some(seed) => noise_of(seed, drawn, &[h, w]),
                None => Ok(Tensor::zeros((h, w), DType::F32, &Device::Cpu)?),
            }
        };
        let mut tick = || check_cancel();
        let draw = Some(&mut draw as &mut _);
        let mut pass = Pass { cache: None, next: 0, draw, check_cancel: &mut tick };
        let x = self.enter.forward(&x, &mut pass)?;
        let mut x = self.middle.forward(x, timestep, &mut pass)?;
        for block in &self.blocks {
            x = block.forward(x, timestep, &mut pass)?;
        }
        let timed = match (&self.timed, timestep) {
            (Some(timed), Some(timestep)) => {
                let table = (&timed.table + timed.embedder.forward(timestep, 2, &x)?)?;
                let row = |row: usize| table.narrow(0, row, 1)?.squeeze(0);
                Some((row(0)?, row(1)?.affine(1.0, 1.0)?))
            }
            _ => None,
        };
        let x = self.head.forward(&x, timed, &mut pass)?;
        spread_pixels(&x.to_dtype(DType::F32)?, self.config.patch_size)
    }
}

impl FrameDecoder for Decoder {
    /// The decoder sees frames that are still to come.
    fn open(&self) -> Result<Option<Box<dyn Decode>>> {
        Ok(None)
    }

    fn decode_whole(
        &self,
        latent: &Tensor,
        how: &WholeDecode,
        done: &mut dyn FnMut(usize, usize),
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Vec<Tensor>> {
        let net = &self.0;
        let (channels, count, height, width) = latent.dims4()?;
        let z = net.config.latent_channels;
        if channels != z || count == 0 || height == 0 || width == 0 {
            let found = latent.dims();
            let message = format!("a latent {found:?}; expected [{z}, frames, height, width]");
            return Err(Error::input(message));
        }
        let noise = how.noise.filter(|_| net.config.timestep_conditioning);
        let x = net.restored(latent, noise)?;
        let factor = net.config.spatial_factor();
        let size = [height * factor, width * factor];
        let Some(tile) = how.tile.filter(|tile| tile.cuts(size)) else {
            let frames = net.forward(&x, noise, check_cancel)?;
            done(count, count);
            return Ok(vec![frames.clamp(-1f32, 1f32)?]);
        };
        let grid = Grid::new(tile, size, factor, true)?;
        let (mut joined, all) = (TileJoin::new(&grid, 1), grid.count() * count);
        for (index, place) in grid.places().enumerate() {
            let frames = net.forward(&place.of(&x, 1)?, noise, check_cancel)?;
            joined.add(&place, 0, &frames)?;
            done((index + 1) * count, all);
        }
        let whole = |frames: Result<Tensor>| Ok(frames?.clamp(-1f32, 1f32)?);
        joined.finish(&net.device).map(whole).collect()
    }

    fn rgb_map(&self) -> Result<Option<RgbMap>> {
        let net = &self.0;
        let noise = Some(DecodeNoise { timestep: 0.0, scale: 0.0, seed: 0 });
        let map =
            RgbMap::derive(net.config.latent_channels, net.config.spatial_factor(), |latent| {
                let x = net.restored(&latent.unsqueeze(1)?, None)?;
                Ok(net.forward(&x, noise, &mut || Ok(()))?.squeeze(0)?)
            })?;
        Ok(Some(map))
    }
}
