//! Frames to moments: `WanEncoder3d` and `quant_conv`.

use candle_core::Tensor;

use super::layers::{CausalConv, FrameAttention, Head, Middle, Pointwise, ResidualBlock, enter};
use super::pass::Pass;
use super::resample::Downsample;
use super::shortcut::{Factors, average};
use crate::error::Result;
use crate::families::wan::autoencoder::VaeConfig;
use crate::weight::Weights;

/// One entry of `encoder.down_blocks`.
#[derive(Debug)]
enum Block {
    Residual(ResidualBlock),
    Attention(FrameAttention),
    Down(Downsample),
    Level(Level),
}

/// A level of the residual form: `WanResidualDownBlock`.
#[derive(Debug)]
struct Level {
    blocks: Vec<ResidualBlock>,
    down: Option<Downsample>,
    factors: Factors,
    cout: usize,
}

impl Level {
    fn read(
        weights: &Weights,
        (count, [cin, cout]): (usize, [usize; 2]),
        temporal: Option<bool>,
    ) -> Result<Self> {
        let blocks = (0..count).map(|i| {
            let channels = if i == 0 { [cin, cout] } else { [cout, cout] };
            ResidualBlock::read(&weights.scope("resnets").scope(i), channels)
        });
        let down = temporal
            .map(|temporal| Downsample::read(&weights.scope("downsampler"), cout, temporal))
            .transpose()?;
        let factors = Factors::of_level(temporal);
        Ok(Self { blocks: blocks.collect::<Result<_>>()?, down, factors, cout })
    }

    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let mut y = x.clone();
        for block in &self.blocks {
            y = block.forward(&y, pass)?;
        }
        if let Some(down) = &self.down {
            y = down.forward(&y, pass)?;
        }
        Ok((y + average(x, self.factors, self.cout)?)?)
    }
}

/// The encoder's weights.
#[derive(Debug)]
pub(super) struct EncoderNet {
    conv_in: CausalConv,
    blocks: Vec<Block>,
    middle: Middle,
    head: Head,
    quant: Pointwise,
}

impl EncoderNet {
    pub(super) fn read(config: &VaeConfig, weights: &Weights) -> Result<Self> {
        let inner = weights.scope("encoder");
        let (blocks, top) = read_blocks(config, &inner.scope("down_blocks"))?;
        let moments = 2 * config.z_dim;
        let first = [config.in_channels, config.base_dim];
        Ok(Self {
            conv_in: CausalConv::read(&inner.scope("conv_in"), first)?,
            blocks,
            middle: Middle::read(&inner.scope("mid_block"), top)?,
            head: Head::read(&inner, [top, moments])?,
            quant: Pointwise::read(&weights.scope("quant_conv"), [moments, moments], 3)?,
        })
    }

    /// One chunk `[t, H, W, c]`, in the residual form with its pixels folded, → mean and
    /// log-variance `[t', h, w, 2z]`.
    pub(super) fn forward(&self, frames: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let mut x = enter(&self.conv_in, frames, pass)?;
        for block in &self.blocks {
            x = match block {
                Block::Residual(block) => block.forward(&x, pass)?,
                Block::Attention(block) => block.forward(&x, pass)?,
                Block::Down(block) => block.forward(&x, pass)?,
                Block::Level(level) => level.forward(&x, pass)?,
            };
        }
        let x = self.middle.forward(&x, pass)?;
        self.quant.forward(&self.head.forward(&x, pass)?)
    }
}

/// The blocks of all levels, numbered through as diffusers does, and the channels after them.
fn read_blocks(config: &VaeConfig, weights: &Weights) -> Result<(Vec<Block>, usize)> {
    let mut blocks = Vec::new();
    let mut channels = config.base_dim;
    let mut scale = 1.0;
    for (level, mult) in config.dim_mult.iter().enumerate() {
        let out = config.base_dim * mult;
        let temporal = config.temperal_downsample.get(level);
        if config.is_residual {
            let sizes = (config.num_res_blocks, [channels, out]);
            let level = Level::read(&weights.scope(level), sizes, temporal.copied())?;
            blocks.push(Block::Level(level));
            channels = out;
            continue;
        }
        for _ in 0..config.num_res_blocks {
            let block = ResidualBlock::read(&weights.scope(blocks.len()), [channels, out])?;
            blocks.push(Block::Residual(block));
            channels = out;
            if config.attn_scales.contains(&scale) {
                let block = FrameAttention::read(&weights.scope(blocks.len()), out)?;
                blocks.push(Block::Attention(block));
            }
        }
        if let Some(&temporal) = temporal {
            let block = Downsample::read(&weights.scope(blocks.len()), out, temporal)?;
            blocks.push(Block::Down(block));
            scale /= 2.0;
        }
    }
    Ok((blocks, channels))
}
