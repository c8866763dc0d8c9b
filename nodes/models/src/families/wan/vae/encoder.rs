//! Frames to moments: `WanEncoder3d` and `quant_conv`.

use candle_core::Tensor;

use super::layers::{CausalConv, FrameAttention, Head, Middle, Pointwise, ResidualBlock, enter};
use super::pass::Pass;
use super::resample::Downsample;
use crate::error::Result;
use crate::families::wan::autoencoder::VaeConfig;
use crate::weight::Weights;

/// One entry of `encoder.down_blocks`.
#[derive(Debug)]
enum Block {
    Residual(ResidualBlock),
    Attention(FrameAttention),
    Down(Downsample),
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

    /// One chunk `[t, H, W, 3]` → mean and log-variance `[t', h, w, 2z]`.
    pub(super) fn forward(&self, frames: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let mut x = enter(&self.conv_in, frames, pass)?;
        for block in &self.blocks {
            x = match block {
                Block::Residual(block) => block.forward(&x, pass)?,
                Block::Attention(block) => block.forward(&x, pass)?,
                Block::Down(block) => block.forward(&x, pass)?,
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
        for _ in 0..config.num_res_blocks {
            let block = ResidualBlock::read(&weights.scope(blocks.len()), [channels, out])?;
            blocks.push(Block::Residual(block));
            channels = out;
            if config.attn_scales.contains(&scale) {
                let block = FrameAttention::read(&weights.scope(blocks.len()), out)?;
                blocks.push(Block::Attention(block));
            }
        }
        if let Some(&temporal) = config.temperal_downsample.get(level) {
            let block = Downsample::read(&weights.scope(blocks.len()), out, temporal)?;
            blocks.push(Block::Down(block));
            scale /= 2.0;
        }
    }
    Ok((blocks, channels))
}
