//! Latents to frames: `post_quant_conv` and `WanDecoder3d`.

use candle_core::Tensor;

use super::layers::{CausalConv, Head, Middle, Pointwise, ResidualBlock, enter};
use super::pass::Pass;
use super::resample::{Upsample, at_once, joined};
use super::shortcut::{Factors, repeat};
use crate::error::Result;
use crate::families::wan::autoencoder::VaeConfig;
use crate::weight::Weights;

/// One entry of `decoder.up_blocks`.
#[derive(Debug)]
struct Level {
    blocks: Vec<ResidualBlock>,
    up: Option<Upsample>,
    /// What the residual form adds to the level's result, and how many channels that has.
    shortcut: Option<(Factors, usize)>,
}

impl Level {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let first = pass.is_first();
        let mut y = x.clone();
        for block in &self.blocks {
            y = block.forward(&y, pass)?;
        }
        if let Some(up) = &self.up {
            y = up.forward(&y, pass)?;
        }
        match self.shortcut {
            Some((factors, cout)) => Ok((y + repeat(x, factors, cout, first)?)?),
            None => Ok(y),
        }
    }
}

/// The decoder's weights.
#[derive(Debug)]
pub(super) struct DecoderNet {
    quant: Pointwise,
    conv_in: CausalConv,
    middle: Middle,
    levels: Vec<Level>,
    head: Head,
    /// Levels past the last that doubles the frames: whatever follows can be done frame by frame.
    apart: usize,
    /// Channels of the last level.
    last: usize,
}

/// Large frames are worked on two at a time past the last level that doubles them: as many as a
/// causal convolution keeps, so that what it keeps is its input itself.
pub(super) const GROUP: usize = 2;

/// The first level past the last one that doubles the frames.
pub(super) fn first_apart(config: &VaeConfig) -> usize {
    let doubles: Vec<bool> = config.temperal_downsample.iter().rev().copied().collect();
    doubles.iter().rposition(|doubles| *doubles).map_or(0, |last| last + 1)
}

impl DecoderNet {
    pub(super) fn read(config: &VaeConfig, weights: &Weights) -> Result<Self> {
        let inner = weights.scope("decoder");
        let widths = level_channels(config);
        let top = widths[0][0];
        let last = widths[widths.len() - 1][1];
        let levels = widths.iter().enumerate().map(|(level, &channels)| {
            read_level(config, &inner.scope("up_blocks").scope(level), level, channels)
        });
        let z = config.z_dim;
        Ok(Self {
            quant: Pointwise::read(&weights.scope("post_quant_conv"), [z, z], 3)?,
            conv_in: CausalConv::read(&inner.scope("conv_in"), [z, top])?,
            middle: Middle::read(&inner.scope("mid_block"), top)?,
            levels: levels.collect::<Result<_>>()?,
            head: Head::read(&inner, [last, config.out_channels])?,
            apart: first_apart(config),
            last,
        })
    }

    /// One latent frame `[1, h, w, z]` → frames `[1 or 4, H, W, c]`, not clamped; in the residual
    /// form with their pixels folded.
    pub(super) fn forward(&self, latent: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let x = enter(&self.conv_in, &self.quant.forward(latent)?, pass)?;
        let mut x = self.middle.forward(&x, pass)?;
        let (together, apart) = self.levels.split_at(self.apart);
        for level in together {
            x = level.forward(&x, pass)?;
        }
        let (frames, h, w, _) = x.dims4()?;
        let grown = apart.iter().filter(|level| level.up.is_some()).count() as u32;
        let group = at_once(frames, 4usize.pow(grown) * h * w * self.last, GROUP);
        let place = pass.place();
        joined((0..frames).step_by(group).map(|from| {
            pass.back_to(place, from + group >= frames);
            let mut x = x.narrow(0, from, group.min(frames - from))?;
            for level in apart {
                x = level.forward(&x, pass)?;
            }
            self.head.forward(&x, pass)
        }))
    }
}

/// Channels into and out of the residual blocks of each level; upsampling halves them in between,
/// but in the residual form.
pub(super) fn level_channels(config: &VaeConfig) -> Vec<[usize; 2]> {
    let base = config.decoder_base_dim.unwrap_or(config.base_dim);
    let widths: Vec<usize> = config.dim_mult.iter().rev().map(|mult| base * mult).collect();
    let before = |level: usize| match level.checked_sub(1) {
        Some(before) if config.is_residual => widths[before],
        Some(before) => widths[before] / 2,
        None => widths[0],
    };
    widths.iter().enumerate().map(|(level, &out)| [before(level), out]).collect()
}

fn read_level(
    config: &VaeConfig,
    weights: &Weights,
    level: usize,
    [cin, out]: [usize; 2],
) -> Result<Level> {
    let blocks = (0..=config.num_res_blocks).map(|i| {
        let channels = if i == 0 { [cin, out] } else { [out, out] };
        ResidualBlock::read(&weights.scope("resnets").scope(i), channels)
    });
    // The decoder undoes the encoder's changes of level in the opposite order.
    let temporal = config.temperal_downsample.iter().rev().nth(level).copied();
    let (name, halved) = match config.is_residual {
        true => ("upsampler", out),
        false => ("upsamplers.0", out / 2),
    };
    let up = temporal
        .map(|temporal| Upsample::read(&weights.scope(name), [out, halved], temporal))
        .transpose()?;
    let shortcut = temporal.filter(|_| config.is_residual);
    let shortcut = shortcut.map(|temporal| (Factors::of_level(Some(temporal)), out));
    Ok(Level { blocks: blocks.collect::<Result<_>>()?, up, shortcut })
}
