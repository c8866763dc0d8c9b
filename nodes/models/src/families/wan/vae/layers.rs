//! The layers of the autoencoder, on channels-last activations `[t, h, w, c]`.

use candle_core::Tensor;
use kino_kernels::{ConvInput, Padding, attention, channel_norm, channel_norm_silu, pad_plane};

use super::pass::Pass;
use crate::error::Result;
use crate::weight::{Conv, Linear, Weights};

/// One pixel of zeros on every side: what a kernel of three needs.
pub(super) const BORDER: Padding = [1; 4];

/// A 3×3×3 convolution that sees two frames back: `WanCausalConv3d`.
#[derive(Debug)]
pub(super) struct CausalConv(Conv);

impl CausalConv {
    pub(super) fn read(weights: &Weights, channels: [usize; 2]) -> Result<Self> {
        Ok(Self(Conv::load(weights, channels, &[3, 3, 3], [1, 1, 1])?))
    }

    /// A convolution over time alone, (3, 1, 1).
    pub(super) fn read_temporal(weights: &Weights, channels: [usize; 2]) -> Result<Self> {
        Ok(Self(Conv::load(weights, channels, &[3, 1, 1], [1, 1, 1])?))
    }

    /// Convolves frames that are padded in space already; time is padded by the past or by zeros.
    pub(super) fn forward(
        &self,
        frames: &Tensor,
        residual: Option<&Tensor>,
        pass: &mut Pass,
    ) -> Result<Tensor> {
        let past = pass.recall();
        let known = past.as_ref().map_or(Ok(0), |past| past.dim(0))?;
        let input = ConvInput { zeros: 2 - known.min(2), past: past.as_ref(), frames };
        let y = self.0.forward(input, residual)?;
        pass.keep(|| last_two(past.as_ref(), frames).map(Some))?;
        Ok(y)
    }
}

/// The last two of past and new frames, in memory of their own.
fn last_two(past: Option<&Tensor>, frames: &Tensor) -> Result<Tensor> {
    let count = frames.dim(0)?;
    Ok(match past {
        _ if count > 2 => frames.narrow(0, count - 2, 2)?.force_contiguous()?,
        Some(past) if count == 1 => {
            let last = past.narrow(0, past.dim(0)? - 1, 1)?;
            Tensor::cat(&[&last, frames], 0)?
        }
        _ => frames.clone(),
    })
}

/// A 1×1×1 convolution: a product over the channels.
#[derive(Debug)]
pub(super) struct Pointwise(Linear);

impl Pointwise {
    /// Reads it; `ones` are the kernel's trailing dimensions of 1: three, or two where it is 2-D.
    pub(super) fn read(weights: &Weights, [cin, cout]: [usize; 2], ones: usize) -> Result<Self> {
        let shape = [vec![cout, cin], vec![1; ones]].concat();
        let weight = weights.get("weight", shape)?.reshape((cout, cin))?;
        Ok(Self(Linear::new(weights.pack(weight)?, Some(weights.get("bias", cout)?))))
    }

    /// `[…, cin]` → `[…, cout]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x)
    }
}

/// The scale of an RMS norm over channels.
pub(super) fn read_gamma(weights: &Weights, channels: usize, ones: usize) -> Result<Tensor> {
    let shape = [vec![channels], vec![1; ones]].concat();
    Ok(weights.get("gamma", shape)?.reshape(channels)?)
}

/// Norm, SiLU, convolution, twice, around a shortcut: `WanResidualBlock`.
#[derive(Debug)]
pub(super) struct ResidualBlock {
    norms: [Tensor; 2],
    convs: [CausalConv; 2],
    shortcut: Option<Pointwise>,
}

impl ResidualBlock {
    pub(super) fn read(weights: &Weights, [cin, cout]: [usize; 2]) -> Result<Self> {
        let norms = [
            read_gamma(&weights.scope("norm1"), cin, 3)?,
            read_gamma(&weights.scope("norm2"), cout, 3)?,
        ];
        let convs = [
            CausalConv::read(&weights.scope("conv1"), [cin, cout])?,
            CausalConv::read(&weights.scope("conv2"), [cout, cout])?,
        ];
        let shortcut = (cin != cout)
            .then(|| Pointwise::read(&weights.scope("conv_shortcut"), [cin, cout], 3))
            .transpose()?;
        Ok(Self { norms, convs, shortcut })
    }

    /// `[t, h, w, cin]` → `[t, h, w, cout]`.
    pub(super) fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        pass.check_cancel()?;
        // Assigning frees each activation as soon as the next one stands.
        let mut y = channel_norm_silu(x, &self.norms[0], BORDER)?;
        y = self.convs[0].forward(&y, None, pass)?;
        pass.check_cancel()?;
        y = channel_norm_silu(&y, &self.norms[1], BORDER)?;
        let residual = match &self.shortcut {
            Some(shortcut) => &shortcut.forward(x)?,
            None => x,
        };
        self.convs[1].forward(&y, Some(residual), pass)
    }
}

/// Attention of one head among the pixels of each frame: `WanAttentionBlock`.
#[derive(Debug)]
pub(super) struct FrameAttention {
    norm: Tensor,
    qkv: Pointwise,
    proj: Pointwise,
}

impl FrameAttention {
    pub(super) fn read(weights: &Weights, channels: usize) -> Result<Self> {
        Ok(Self {
            norm: read_gamma(&weights.scope("norm"), channels, 2)?,
            qkv: Pointwise::read(&weights.scope("to_qkv"), [channels, 3 * channels], 2)?,
            proj: Pointwise::read(&weights.scope("proj"), [channels, channels], 2)?,
        })
    }

    /// `[t, h, w, c]` → the same shape.
    pub(super) fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        pass.check_cancel()?;
        let (t, h, w, c) = x.dims4()?;
        let qkv = self.qkv.forward(&channel_norm(x, &self.norm)?)?; // [t, h, w, 3c]
        let qkv = qkv.reshape((t, h * w, 3 * c))?; // the frames stand where heads would
        let part = |i: usize| qkv.narrow(2, i * c, c); // [t, h·w, c]
        let y = attention(&part(0)?, &part(1)?, &part(2)?, 1.0 / (c as f64).sqrt())?;
        let y = self.proj.forward(&y)?.reshape((t, h, w, c))?;
        Ok((x + y)?)
    }
}

/// Residual block, attention, residual block: `WanMidBlock`.
#[derive(Debug)]
pub(super) struct Middle {
    blocks: [ResidualBlock; 2],
    attention: FrameAttention,
}

impl Middle {
    pub(super) fn read(weights: &Weights, channels: usize) -> Result<Self> {
        let block =
            |i| ResidualBlock::read(&weights.scope("resnets").scope(i), [channels, channels]);
        let attention = FrameAttention::read(&weights.scope("attentions.0"), channels)?;
        Ok(Self { blocks: [block(0)?, block(1)?], attention })
    }

    pub(super) fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let x = self.blocks[0].forward(x, pass)?;
        let x = self.attention.forward(&x, pass)?;
        self.blocks[1].forward(&x, pass)
    }
}

/// Norm, SiLU, convolution: the end of encoder and decoder.
#[derive(Debug)]
pub(super) struct Head {
    norm: Tensor,
    conv: CausalConv,
}

impl Head {
    pub(super) fn read(weights: &Weights, [cin, cout]: [usize; 2]) -> Result<Self> {
        let norm = read_gamma(&weights.scope("norm_out"), cin, 3)?;
        Ok(Self { norm, conv: CausalConv::read(&weights.scope("conv_out"), [cin, cout])? })
    }

    pub(super) fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        pass.check_cancel()?;
        let x = channel_norm_silu(x, &self.norm, BORDER)?;
        self.conv.forward(&x, None, pass)
    }
}

/// The first convolution of encoder and decoder.
pub(super) fn enter(conv: &CausalConv, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
    pass.check_cancel()?;
    conv.forward(&pad_plane(x, BORDER)?, None, pass)
}
