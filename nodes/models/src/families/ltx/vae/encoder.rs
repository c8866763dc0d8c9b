//! Frames to latents, one chunk after another.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::Statistics;
use super::layers::{BlockForm, Head, Layers, Pass, ResidualBlock, TimeConv, fold, fold_pixels};
use crate::cancel::CheckCancel;
use crate::error::{Error, Result};
use crate::families::ltx::autoencoder::{DownBlock, Downsample, VaeConfig};
use crate::model::{Encode, FrameEncoder};
use crate::weight::Weights;

/// The encoder of a model.
#[derive(Debug, Clone)]
pub(in super::super) struct Encoder(Arc<Net>);

#[derive(Debug)]
struct Net {
    config: VaeConfig,
    device: Device,
    dtype: DType,
    statistics: Statistics,
    enter: TimeConv,
    blocks: Vec<Down>,
    middle: Layers,
    head: Head,
}

impl Encoder {
    /// Reads `encoder`.
    ///
    /// # Errors
    /// When a weight is missing or has another shape than `config` says.
    pub(in super::super) fn load(config: &VaeConfig, weights: &Weights) -> Result<Self> {
        let own = weights.scope("encoder");
        let eps = config.resnet_norm_eps;
        let form = BlockForm { is_causal: true, adds_noise: false, is_timed: false, eps };
        let blocks = config.down_blocks();
        let block = |(index, block): (usize, &DownBlock)| {
            Down::read(&own.scope("down_blocks").scope(index), *block, form)
        };
        let [channels, layers] = config.encoder_middle();
        let first = blocks.first().map_or(channels, |block| block.channels[0]);
        let folded = config.folded_channels();
        let enter = TimeConv::read(&own.scope("conv_in"), [folded, first], 1, true)?;
        Ok(Self(Arc::new(Net {
            device: weights.device().clone(),
            dtype: weights.dtype(),
            statistics: Statistics::read(config, weights)?,
            enter,
            blocks: blocks.iter().enumerate().map(block).collect::<Result<_>>()?,
            middle: Layers::read(&own.scope("mid_block"), channels, layers, form)?,
            head: Head::read(&own, [channels, config.latent_channels + 1], true)?,
            config: config.clone(),
        })))
    }
}

/// A block of the encoder.
#[derive(Debug)]
struct Down {
    layers: Layers,
    downsample: Option<Shrink>,
    out: Option<ResidualBlock>,
}

/// What halves the sides.
#[derive(Debug)]
enum Shrink {
    Strided(TimeConv),
    /// A convolution whose result is folded, beside the mean over groups of folded channels.
    Folded {
        conv: TimeConv,
        factors: [usize; 3],
        group: usize,
    },
}

impl Down {
    fn read(weights: &Weights, block: DownBlock, form: BlockForm) -> Result<Self> {
        let [cin, cout] = block.channels;
        let own = weights.scope("downsamplers.0");
        let downsample = match block.downsample {
            None => None,
            Some(Downsample::Strided) => {
                Some(Shrink::Strided(TimeConv::read(&own, [cin, cin], 2, true)?))
            }
            Some(Downsample::Folded(factors)) => {
                let volume: usize = factors.iter().product();
                let channels = [cin, cout / volume];
                let conv = TimeConv::read(&own.scope("conv"), channels, 1, true)?;
                Some(Shrink::Folded { conv, factors, group: cin * volume / cout })
            }
        };
        let is_folded = matches!(downsample, Some(Shrink::Folded { .. }));
        let out = || ResidualBlock::read(&weights.scope("conv_out"), [cin, cout], form);
        let layers = Layers::read(weights, cin, block.layers, form)?;
        let out = (cin != cout && !is_folded).then(out).transpose()?;
        Ok(Self { layers, downsample, out })
    }

    fn forward(&self, x: Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        let mut x = self.layers.forward(x, None, pass)?;
        x = match &self.downsample {
            None => x,
            Some(Shrink::Strided(conv)) => conv.forward(&x, pass)?,
            Some(Shrink::Folded { conv, factors, group }) => {
                // The first frame alone stands for a whole group.
                if pass.is_first() && factors[0] > 1 {
                    let first = x.narrow(0, 0, 1)?;
                    let before = vec![first; factors[0] - 1];
                    x = Tensor::cat(&[before, vec![x]].concat(), 0)?;
                }
                let mean = fold(&x, *factors)?; // [t, h, w, c·volume]
                let (t, h, w, wide) = mean.dims4()?;
                let mean = mean.reshape((t, h, w, wide / group, *group))?.mean(4)?;
                (fold(&conv.forward(&x, pass)?, *factors)? + mean)?
            }
        };
        match &self.out {
            Some(out) => out.forward(&x, None, pass),
            None => Ok(x),
        }
    }
}

impl FrameEncoder for Encoder {
    fn open(&self) -> Result<Box<dyn Encode>> {
        Ok(Box::new(Stream { net: Arc::clone(&self.0), cache: Vec::new(), size: None }))
    }
}

/// A clip being encoded.
struct Stream {
    net: Arc<Net>,
    cache: Vec<Option<Tensor>>,
    /// Height and width of its frames, once one has passed.
    size: Option<[usize; 2]>,
}

impl Encode for Stream {
    fn next_frames(&self) -> usize {
        if self.size.is_some() { self.net.config.temporal_factor() } else { 1 }
    }

    fn push(&mut self, frames: &Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        let (net, due) = (Arc::clone(&self.net), self.next_frames());
        let (count, height, width, colours) = frames.dims4()?;
        let factor = net.config.spatial_factor();
        let fits = |side: usize| side > 0 && side.is_multiple_of(factor);
        let is_whole = fits(height) && fits(width) && colours == 3;
        if count != due || !is_whole || self.size.is_some_and(|size| size != [height, width]) {
            return Err(Error::input(format!(
                "frames {:?}: {due} of one size in multiples of {factor} pixels are due",
                frames.dims()
            )));
        }
        self.size = Some([height, width]);
        let x = frames.to_device(&net.device)?.to_dtype(net.dtype)?;
        let x = fold_pixels(&x, net.config.patch_size)?;
        let mut tick = || check_cancel();
        let cache = Some(&mut self.cache);
        let mut pass = Pass { cache, next: 0, draw: None, check_cancel: &mut tick };
        let mut x = net.enter.forward(&x, &mut pass)?;
        for block in &net.blocks {
            x = block.forward(x, &mut pass)?;
        }
        let x = net.middle.forward(x, None, &mut pass)?;
        let x = net.head.forward(&x, None, &mut pass)?; // [1, h, w, c + 1]
        let mean = x.narrow(3, 0, net.config.latent_channels)?.to_dtype(DType::F32)?;
        let latent = net.statistics.normalize(&mean.contiguous()?)?;
        Ok(latent.permute((3, 0, 1, 2))?.force_contiguous()?) // [c, 1, h, w]
    }
}
