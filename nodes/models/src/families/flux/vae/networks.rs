//! The encoder and the decoder.

use candle_core::Tensor;

use super::layers::{Conv3, Head, Level, Middle, Pointwise, Resample};
use crate::cancel::CheckCancel;
use crate::error::Result;
use crate::families::flux::autoencoder::AutoencoderConfig;
use crate::weight::Weights;

/// A frame to the moments of its latent.
#[derive(Debug)]
pub(super) struct EncoderNet {
    conv_in: Conv3,
    levels: Vec<Level>,
    middle: Middle,
    head: Head,
    quant: Option<Pointwise>,
}

impl EncoderNet {
    pub(super) fn read(config: &AutoencoderConfig, weights: &Weights) -> Result<Self> {
        let (inner, widths) = (weights.scope("encoder"), &config.block_out_channels);
        let groups = config.norm_num_groups;
        let (first, last) = (widths[0], widths[widths.len() - 1]);
        let moments = 2 * config.latent_channels;
        let level = |(index, out): (usize, &usize)| {
            let weights = inner.scope("down_blocks").scope(index);
            let before = index.checked_sub(1).map_or(first, |before| widths[before]);
            let down = (index + 1 < widths.len()).then(|| Resample::down(&weights, *out));
            let blocks = (config.layers_per_block, [before, *out]);
            Level::read(&weights, blocks, groups, down.transpose()?)
        };
        let quant = config
            .use_quant_conv
            .then(|| Pointwise::read(&weights.scope("quant_conv"), [moments; 2]));
        let middle = (groups, config.mid_block_add_attention);
        Ok(Self {
            conv_in: Conv3::read(&inner.scope("conv_in"), [3, first])?,
            levels: widths.iter().enumerate().map(level).collect::<Result<_>>()?,
            middle: Middle::read(&inner.scope("mid_block"), last, middle)?,
            head: Head::read(&inner, [last, moments], groups)?,
            quant: quant.transpose()?,
        })
    }

    /// `[1, H, W, 3]` → mean and log-variance, `[1, h, w, 2c]`.
    pub(super) fn forward(
        &self,
        frame: &Tensor,
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        let mut x = self.conv_in.forward(frame)?;
        for level in &self.levels {
            x = level.forward(x, check_cancel)?;
        }
        x = self.middle.forward(&x, check_cancel)?;
        x = self.head.forward(&x)?;
        match &self.quant {
            Some(quant) => quant.forward(&x),
            None => Ok(x),
        }
    }
}

/// A latent to a frame.
#[derive(Debug)]
pub(super) struct DecoderNet {
    quant: Option<Pointwise>,
    conv_in: Conv3,
    middle: Middle,
    levels: Vec<Level>,
    head: Head,
}

impl DecoderNet {
    pub(super) fn read(config: &AutoencoderConfig, weights: &Weights) -> Result<Self> {
        let inner = weights.scope("decoder");
        let widths: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let (groups, z) = (config.norm_num_groups, config.latent_channels);
        let (first, last) = (widths[0], widths[widths.len() - 1]);
        let level = |(index, out): (usize, &usize)| {
            let weights = inner.scope("up_blocks").scope(index);
            let before = index.checked_sub(1).map_or(first, |before| widths[before]);
            let up = (index + 1 < widths.len()).then(|| Resample::up(&weights, *out));
            let blocks = (config.layers_per_block + 1, [before, *out]);
            Level::read(&weights, blocks, groups, up.transpose()?)
        };
        let quant = config
            .use_post_quant_conv
            .then(|| Pointwise::read(&weights.scope("post_quant_conv"), [z; 2]));
        let middle = (groups, config.mid_block_add_attention);
        Ok(Self {
            quant: quant.transpose()?,
            conv_in: Conv3::read(&inner.scope("conv_in"), [z, first])?,
            middle: Middle::read(&inner.scope("mid_block"), first, middle)?,
            levels: widths.iter().enumerate().map(level).collect::<Result<_>>()?,
            head: Head::read(&inner, [last, 3], groups)?,
        })
    }

    /// `[1, h, w, c]` → `[1, H, W, 3]`, not clamped.
    pub(super) fn forward(
        &self,
        latent: &Tensor,
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        let latent = match &self.quant {
            Some(quant) => &quant.forward(latent)?,
            None => latent,
        };
        let mut x = self.middle.forward(&self.conv_in.forward(latent)?, check_cancel)?;
        for level in &self.levels {
            x = level.forward(x, check_cancel)?;
        }
        self.head.forward(&x)
    }
}
