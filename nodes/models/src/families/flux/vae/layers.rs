//! What encoder and decoder are made of.

use candle_core::{DType, Tensor};
use kino_kernels::{
    self as kernels, ConvInput, GroupNorm, Padding, attention, pad_plane, upsample_nearest2,
};

use crate::cancel::CheckCancel;
use crate::error::Result;
use crate::weight::{Conv, Linear, Weight, Weights};

/// One pixel of zeros on every side: what a kernel of three needs.
const BORDER: Padding = [1; 4];
/// Zeros below and at the right: what halving the sides needs.
const CORNER: Padding = [0, 1, 0, 1];

/// A convolution of 3×3 pixels.
#[derive(Debug)]
pub(super) struct Conv3(Conv);

impl Conv3 {
    pub(super) fn read(weights: &Weights, channels: [usize; 2]) -> Result<Self> {
        Ok(Self(Conv::load(weights, channels, &[3, 3], [1, 1, 1])?))
    }

    /// One that halves the sides.
    fn halving(weights: &Weights, channels: usize) -> Result<Self> {
        Ok(Self(Conv::load(weights, [channels; 2], &[3, 3], [1, 2, 2])?))
    }

    /// Convolves a frame that is padded already, and adds `residual` if there is one.
    fn padded(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        self.0.forward(ConvInput::new(x), residual)
    }

    /// `[1, h, w, cin]` → `[1, h, w, cout]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.padded(&pad_plane(x, BORDER)?, None)
    }
}

/// A product over the channels of each pixel: a convolution of one pixel, or a linear layer.
#[derive(Debug)]
pub(super) struct Pointwise(Linear);

impl Pointwise {
    /// Reads it; its weight is `[cout, cin, 1, 1]` or `[cout, cin]`.
    pub(super) fn read(weights: &Weights, [cin, cout]: [usize; 2]) -> Result<Self> {
        let is_linear = weights.shape("weight").is_some_and(|shape| shape.len() == 2);
        if is_linear {
            return Ok(Self(Linear::load(weights, cin, cout)?));
        }
        let weight = weights.get("weight", (cout, cin, 1, 1))?.reshape((cout, cin))?;
        let weight = Weight::Dense(weight).packed(weights.dtype())?;
        Ok(Self(Linear::new(weight, Some(weights.get("bias", cout)?))))
    }

    /// `[…, cin]` → `[…, cout]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x)
    }
}

/// Epsilon of the norms.
const EPS: f64 = 1e-6;

/// A group norm.
#[derive(Debug)]
pub(super) struct Norm {
    weight: Tensor,
    bias: Tensor,
    groups: usize,
}

impl Norm {
    pub(super) fn read(weights: &Weights, channels: usize, groups: usize) -> Result<Self> {
        let read = |name| weights.get_as(name, channels, DType::F32);
        Ok(Self { weight: read("weight")?, bias: read("bias")?, groups })
    }

    fn parts(&self) -> GroupNorm<'_> {
        GroupNorm { weight: &self.weight, bias: &self.bias, groups: self.groups, eps: EPS }
    }

    /// SiLU of the norm, padded for a convolution.
    fn silu(&self, x: &Tensor) -> Result<Tensor> {
        Ok(kernels::group_norm_silu(x, &self.parts(), BORDER)?)
    }
}

/// Norm, SiLU, convolution, twice, around a shortcut: `ResnetBlock2D`.
#[derive(Debug)]
pub(super) struct ResidualBlock {
    norms: [Norm; 2],
    convs: [Conv3; 2],
    shortcut: Option<Pointwise>,
}

impl ResidualBlock {
    pub(super) fn read(weights: &Weights, [cin, cout]: [usize; 2], groups: usize) -> Result<Self> {
        let shortcut = (cin != cout)
            .then(|| Pointwise::read(&weights.scope("conv_shortcut"), [cin, cout]))
            .transpose()?;
        Ok(Self {
            norms: [
                Norm::read(&weights.scope("norm1"), cin, groups)?,
                Norm::read(&weights.scope("norm2"), cout, groups)?,
            ],
            convs: [
                Conv3::read(&weights.scope("conv1"), [cin, cout])?,
                Conv3::read(&weights.scope("conv2"), [cout, cout])?,
            ],
            shortcut,
        })
    }

    /// `[1, h, w, cin]` → `[1, h, w, cout]`.
    pub(super) fn forward(&self, x: &Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        check_cancel()?;
        // Assigning frees each activation as soon as the next one stands.
        let mut y = self.norms[0].silu(x)?;
        y = self.convs[0].padded(&y, None)?;
        check_cancel()?;
        y = self.norms[1].silu(&y)?;
        let residual = match &self.shortcut {
            Some(shortcut) => &shortcut.forward(x)?,
            None => x,
        };
        self.convs[1].padded(&y, Some(residual))
    }
}

/// Attention of one head among the pixels.
#[derive(Debug)]
struct PixelAttention {
    norm: Norm,
    query: Pointwise,
    key: Pointwise,
    value: Pointwise,
    out: Pointwise,
}

impl PixelAttention {
    fn read(weights: &Weights, channels: usize, groups: usize) -> Result<Self> {
        let layer = |name: &str| Pointwise::read(&weights.scope(name), [channels; 2]);
        Ok(Self {
            norm: Norm::read(&weights.scope("group_norm"), channels, groups)?,
            query: layer("to_q")?,
            key: layer("to_k")?,
            value: layer("to_v")?,
            out: layer("to_out.0")?,
        })
    }

    /// `[1, h, w, c]` → the same shape.
    fn forward(&self, x: &Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        check_cancel()?;
        let (_, h, w, c) = x.dims4()?;
        let y = kernels::group_norm(x, &self.norm.parts())?.reshape((1, h * w, c))?;
        let (query, key) = (self.query.forward(&y)?, self.key.forward(&y)?);
        let mixed = attention(&query, &key, &self.value.forward(&y)?, 1.0 / (c as f64).sqrt())?;
        let y = self.out.forward(&mixed)?.reshape((1, h, w, c))?;
        Ok((x + y)?)
    }
}

/// Residual block, attention where there is one, residual block: `UNetMidBlock2D`.
#[derive(Debug)]
pub(super) struct Middle {
    blocks: [ResidualBlock; 2],
    attention: Option<PixelAttention>,
}

impl Middle {
    pub(super) fn read(
        weights: &Weights,
        channels: usize,
        (groups, has_attention): (usize, bool),
    ) -> Result<Self> {
        let block = |index: usize| {
            ResidualBlock::read(&weights.scope("resnets").scope(index), [channels; 2], groups)
        };
        let attention = || PixelAttention::read(&weights.scope("attentions.0"), channels, groups);
        Ok(Self {
            blocks: [block(0)?, block(1)?],
            attention: has_attention.then(attention).transpose()?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        let mut x = self.blocks[0].forward(x, check_cancel)?;
        if let Some(attention) = &self.attention {
            x = attention.forward(&x, check_cancel)?;
        }
        self.blocks[1].forward(&x, check_cancel)
    }
}

/// What changes the size between two levels.
#[derive(Debug)]
pub(super) enum Resample {
    /// Halves the sides.
    Down(Conv3),
    /// Doubles them, each pixel four times, and convolves.
    Up(Conv3),
}

impl Resample {
    pub(super) fn down(weights: &Weights, channels: usize) -> Result<Self> {
        Ok(Self::Down(Conv3::halving(&weights.scope("downsamplers.0.conv"), channels)?))
    }

    pub(super) fn up(weights: &Weights, channels: usize) -> Result<Self> {
        Ok(Self::Up(Conv3::read(&weights.scope("upsamplers.0.conv"), [channels; 2])?))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Down(conv) => conv.padded(&pad_plane(x, CORNER)?, None),
            Self::Up(conv) => conv.padded(&upsample_nearest2(x, BORDER)?, None),
        }
    }
}

/// Residual blocks of one size, and what changes it behind them.
#[derive(Debug)]
pub(super) struct Level {
    blocks: Vec<ResidualBlock>,
    resample: Option<Resample>,
}

impl Level {
    pub(super) fn read(
        weights: &Weights,
        (count, [cin, cout]): (usize, [usize; 2]),
        groups: usize,
        resample: Option<Resample>,
    ) -> Result<Self> {
        let blocks = (0..count).map(|index| {
            let channels = if index == 0 { [cin, cout] } else { [cout, cout] };
            ResidualBlock::read(&weights.scope("resnets").scope(index), channels, groups)
        });
        Ok(Self { blocks: blocks.collect::<Result<_>>()?, resample })
    }

    pub(super) fn forward(&self, x: Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        let mut x = x;
        for block in &self.blocks {
            x = block.forward(&x, check_cancel)?;
        }
        check_cancel()?;
        match &self.resample {
            Some(resample) => resample.forward(&x),
            None => Ok(x),
        }
    }
}

/// Norm, SiLU, convolution: the end of both networks.
#[derive(Debug)]
pub(super) struct Head {
    norm: Norm,
    conv: Conv3,
}

impl Head {
    pub(super) fn read(weights: &Weights, channels: [usize; 2], groups: usize) -> Result<Self> {
        Ok(Self {
            norm: Norm::read(&weights.scope("conv_norm_out"), channels[0], groups)?,
            conv: Conv3::read(&weights.scope("conv_out"), channels)?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.conv.padded(&self.norm.silu(x)?, None)
    }
}
