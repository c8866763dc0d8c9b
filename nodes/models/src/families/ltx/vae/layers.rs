//! The layers of the autoencoder, on channels-last activations `[t, h, w, c]`.

use candle_core::{DType, Tensor};
use kino_kernels::{self as kernels, ConvInput, Padding};

use crate::cancel::CheckCancel;
use crate::error::Result;
use crate::timestep::sinusoids;
use crate::weight::{Conv, LayerNorm, Linear, Weights};

/// One pixel of zeros on every side: what a kernel of three needs.
const BORDER: Padding = [1; 4];
/// Epsilon of the norms without weights.
const EPS: f64 = 1e-8;
/// Width of the sinusoids of a timestep.
const FREQ_DIM: usize = 256;

/// Draws normal noise of height × width, other each time.
pub(super) type Draw<'a> = dyn FnMut(usize, usize) -> Result<Tensor> + 'a;

/// What a network takes through its layers.
pub(super) struct Pass<'a> {
    /// What the convolutions kept of the chunk before, in the order in which they run; none where
    /// a clip passes whole.
    pub(super) cache: Option<&'a mut Vec<Option<Tensor>>>,
    /// Which convolution is next.
    pub(super) next: usize,
    /// The noise that layers add.
    pub(super) draw: Option<&'a mut Draw<'a>>,
    pub(super) check_cancel: &'a mut CheckCancel<'a>,
}

impl Pass<'_> {
    /// Whether no chunk went before this one.
    pub(super) fn is_first(&self) -> bool {
        self.cache.as_ref().is_none_or(|cache| cache.get(self.next).is_none_or(Option::is_none))
    }
}

/// A 3×3×3 convolution. Time is padded by copies of the first frame, or of the first and the last
/// where frames to come are seen: `LTXVideoCausalConv3d`.
#[derive(Debug)]
pub(super) struct TimeConv {
    conv: Conv,
    is_causal: bool,
    /// Frames by which it moves.
    stride: usize,
}

impl TimeConv {
    /// Reads it from the scope in which its `conv` lies.
    pub(super) fn read(
        weights: &Weights,
        channels: [usize; 2],
        stride: usize,
        is_causal: bool,
    ) -> Result<Self> {
        let conv = Conv::load(&weights.scope("conv"), channels, &[3, 3, 3], [stride; 3])?;
        Ok(Self { conv, is_causal, stride })
    }

    /// Convolves frames.
    pub(super) fn forward(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        self.padded(&kernels::pad_plane(x, BORDER)?, None, pass)
    }

    /// Convolves frames that are padded in space already, and adds `residual` if there is one.
    pub(super) fn padded(
        &self,
        frames: &Tensor,
        residual: Option<&Tensor>,
        pass: &mut Pass<'_>,
    ) -> Result<Tensor> {
        (pass.check_cancel)()?;
        let first = frames.narrow(0, 0, 1)?;
        let input = |past, frames| ConvInput { zeros: 0, past: Some(past), frames };
        if !self.is_causal {
            let last = frames.narrow(0, frames.dim(0)? - 1, 1)?;
            let frames = Tensor::cat(&[frames, &last], 0)?;
            return self.conv.forward(input(&first, &frames), residual);
        }
        let index = pass.next;
        let kept = pass.cache.as_ref().and_then(|cache| cache.get(index).cloned().flatten());
        let past = match kept {
            Some(past) => past,
            None => Tensor::cat(&[&first, &first], 0)?,
        };
        let y = self.conv.forward(input(&past, frames), residual)?;
        if let Some(cache) = &mut pass.cache {
            // From where the next window begins.
            let all = Tensor::cat(&[&past, frames], 0)?;
            let begins = y.dim(0)? * self.stride;
            let kept = all.narrow(0, begins, all.dim(0)? - begins)?.force_contiguous()?;
            cache.resize((index + 1).max(cache.len()), None);
            cache[index] = Some(kept);
        }
        pass.next += 1;
        Ok(y)
    }
}

/// Norm, SiLU, convolution, twice, around a shortcut: `LTXVideoResnetBlock3d`.
#[derive(Debug)]
pub(super) struct ResidualBlock {
    ones: [Tensor; 2],
    convs: [TimeConv; 2],
    shortcut: Option<(LayerNorm, Linear)>,
    /// How much noise is added behind each convolution, `[c]`.
    noise: Option<[Tensor; 2]>,
    /// Shifts and scales, `[4, c]` in f32, to which those of a timestep are added.
    table: Option<Tensor>,
}

/// What makes a residual block other than the usual one.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockForm {
    pub(super) is_causal: bool,
    pub(super) adds_noise: bool,
    pub(super) is_timed: bool,
    /// Epsilon of the norm before a shortcut.
    pub(super) eps: f64,
}

impl ResidualBlock {
    pub(super) fn read(
        weights: &Weights,
        [cin, cout]: [usize; 2],
        form: BlockForm,
    ) -> Result<Self> {
        let conv =
            |name, channels| TimeConv::read(&weights.scope(name), channels, 1, form.is_causal);
        let shortcut = || {
            let own = weights.scope("conv_shortcut.conv");
            let matrix = own.get("weight", (cout, cin, 1, 1, 1))?.reshape((cout, cin))?;
            let linear = Linear::new(own.pack(matrix)?, Some(own.get("bias", cout)?));
            Ok::<_, crate::Error>((
                LayerNorm::load(&weights.scope("norm3"), cin, form.eps)?,
                linear,
            ))
        };
        let noise = |name| Ok::<_, crate::Error>(weights.get(name, (cin, 1, 1))?.reshape(cin)?);
        let noise = || {
            let first = noise("per_channel_scale1")?;
            Ok::<_, crate::Error>([first, noise("per_channel_scale2")?])
        };
        let table = || weights.get_as("scale_shift_table", (4, cin), DType::F32);
        let ones = |channels: usize| Tensor::ones(channels, DType::F32, weights.device());
        Ok(Self {
            ones: [ones(cin)?, ones(cout)?],
            convs: [conv("conv1", [cin, cout])?, conv("conv2", [cout, cout])?],
            shortcut: (cin != cout).then(shortcut).transpose()?,
            noise: form.adds_noise.then(noise).transpose()?,
            table: form.is_timed.then(table).transpose()?,
        })
    }

    /// `[t, h, w, cin]` → `[t, h, w, cout]`; `time` `[4, c]` is added to the block's table.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        time: Option<&Tensor>,
        pass: &mut Pass<'_>,
    ) -> Result<Tensor> {
        let table = match (&self.table, time) {
            (Some(table), Some(time)) => Some((table + time)?),
            _ => None,
        };
        let part = |index| table.as_ref().map(|table| shift_and_scale(table, index)).transpose();
        let mut y = self.convs[0].padded(&normed(x, &self.ones[0], part(0)?)?, None, pass)?;
        y = self.noised(y, 0, pass)?;
        y = normed(&y, &self.ones[1], part(1)?)?;
        let residual = match &self.shortcut {
            Some((norm, linear)) => &linear.forward(&norm.forward(x)?)?,
            None => x,
        };
        y = self.convs[1].padded(&y, Some(residual), pass)?;
        self.noised(y, 1, pass)
    }

    /// With noise of its own in every pixel, the same for all frames.
    fn noised(&self, y: Tensor, index: usize, pass: &mut Pass<'_>) -> Result<Tensor> {
        let (Some(scales), Some(draw)) = (&self.noise, &mut pass.draw) else { return Ok(y) };
        let (_, h, w, c) = y.dims4()?;
        let noise = draw(h, w)?.to_device(y.device())?.to_dtype(y.dtype())?; // [h, w]
        let noise = noise.reshape((1, h, w, 1))?;
        let scaled = noise.broadcast_mul(&scales[index].reshape((1, 1, 1, c))?)?;
        Ok(y.broadcast_add(&scaled)?)
    }
}

/// Two rows of a table `[4, c]`: shift and 1 + scale.
fn shift_and_scale(table: &Tensor, index: usize) -> Result<(Tensor, Tensor)> {
    let row = |row: usize| table.narrow(0, row, 1)?.squeeze(0);
    Ok((row(2 * index)?, row(2 * index + 1)?.affine(1.0, 1.0)?))
}

/// SiLU of the RMS norm over channels, shifted and scaled where a timestep says so, with a border
/// of zeros for the next convolution.
fn normed(x: &Tensor, ones: &Tensor, timed: Option<(Tensor, Tensor)>) -> Result<Tensor> {
    let y = match timed {
        Some((shift, scale)) => {
            let y = kernels::rms_norm(x, &scale, EPS)?;
            y.broadcast_add(&shift.to_dtype(x.dtype())?)?
        }
        None => kernels::rms_norm(x, ones, EPS)?,
    };
    Ok(kernels::pad_plane(&kernels::silu(&y)?, BORDER)?)
}

/// A timestep as a block reads it.
#[derive(Debug)]
pub(super) struct TimeEmbedder([Linear; 2]);

impl TimeEmbedder {
    /// Reads `time_embedder`; it gives `width` numbers.
    pub(super) fn read(weights: &Weights, width: usize) -> Result<Self> {
        let own = weights.scope("time_embedder.timestep_embedder");
        let first = Linear::load_f32(&own.scope("linear_1"), FREQ_DIM, width)?;
        Ok(Self([first, Linear::load_f32(&own.scope("linear_2"), width, width)?]))
    }

    /// `rows` of equal width, in f32.
    pub(super) fn forward(&self, timestep: f64, rows: usize, like: &Tensor) -> Result<Tensor> {
        let waves = sinusoids(timestep, FREQ_DIM, like.device())?;
        let time = self.0[1].forward(&kernels::silu(&self.0[0].forward(&waves)?)?)?;
        Ok(time.reshape((rows, ()))?)
    }
}

/// Residual blocks of one width, and the timestep as they read it: `LTXVideoMidBlock3d`.
#[derive(Debug)]
pub(super) struct Layers {
    time: Option<TimeEmbedder>,
    blocks: Vec<ResidualBlock>,
}

impl Layers {
    /// Reads `resnets`, and `time_embedder` where the form says so.
    pub(super) fn read(
        weights: &Weights,
        channels: usize,
        count: usize,
        form: BlockForm,
    ) -> Result<Self> {
        let block = |index: usize| {
            let own = weights.scope("resnets").scope(index);
            ResidualBlock::read(&own, [channels, channels], form)
        };
        let time = || TimeEmbedder::read(weights, 4 * channels);
        let blocks = (0..count).map(block).collect::<Result<_>>()?;
        Ok(Self { time: form.is_timed.then(time).transpose()?, blocks })
    }

    /// `[t, h, w, c]` → the same shape.
    pub(super) fn forward(
        &self,
        mut x: Tensor,
        timestep: Option<f64>,
        pass: &mut Pass<'_>,
    ) -> Result<Tensor> {
        let time = match (&self.time, timestep) {
            (Some(embedder), Some(timestep)) => Some(embedder.forward(timestep, 4, &x)?),
            _ => None,
        };
        for block in &self.blocks {
            x = block.forward(&x, time.as_ref(), pass)?;
        }
        Ok(x)
    }
}

/// The end of a network: norm, SiLU, convolution.
#[derive(Debug)]
pub(super) struct Head {
    ones: Tensor,
    conv: TimeConv,
}

impl Head {
    pub(super) fn read(weights: &Weights, channels: [usize; 2], is_causal: bool) -> Result<Self> {
        let ones = Tensor::ones(channels[0], DType::F32, weights.device())?;
        let conv = TimeConv::read(&weights.scope("conv_out"), channels, 1, is_causal)?;
        Ok(Self { ones, conv })
    }

    /// `timed` are a shift and 1 + a scale.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        timed: Option<(Tensor, Tensor)>,
        pass: &mut Pass<'_>,
    ) -> Result<Tensor> {
        self.conv.padded(&normed(x, &self.ones, timed)?, None, pass)
    }
}

/// Frames, rows and columns folded into channels, (c, t, h, w): `[t, h, w, c]` → `[t/a, h/b, w/c,
/// c·volume]`.
pub(super) fn fold(x: &Tensor, [a, b, d]: [usize; 3]) -> Result<Tensor> {
    let (t, h, w, c) = x.dims4()?;
    let split = x.reshape(&[t / a, a, h / b, b, w / d, d, c][..])?;
    let sorted = split.permute([0, 2, 4, 6, 1, 3, 5])?.contiguous()?; // [t', h', w', c, a, b, d]
    Ok(sorted.reshape((t / a, h / b, w / d, c * a * b * d))?)
}

/// The inverse of [`fold`].
pub(super) fn spread(x: &Tensor, [a, b, d]: [usize; 3]) -> Result<Tensor> {
    let (t, h, w, wide) = x.dims4()?;
    let c = wide / (a * b * d);
    let split = x.reshape(&[t, h, w, c, a, b, d][..])?;
    let sorted = split.permute([0, 4, 1, 5, 2, 6, 3])?.contiguous()?; // [t, a, h, b, w, d, c]
    Ok(sorted.reshape((t * a, h * b, w * d, c))?)
}

/// Pixels folded into channels, (c, w, h): `[t, H, W, 3]` → `[t, h, w, 3·p·p]`.
pub(super) fn fold_pixels(x: &Tensor, p: usize) -> Result<Tensor> {
    let (t, h, w, c) = x.dims4()?;
    let split = x.reshape(&[t, h / p, p, w / p, p, c][..])?;
    let sorted = split.permute([0, 1, 3, 5, 4, 2])?.contiguous()?; // [t, h, w, c, across, down]
    Ok(sorted.reshape((t, h / p, w / p, c * p * p))?)
}

/// The inverse of [`fold_pixels`].
pub(super) fn spread_pixels(x: &Tensor, p: usize) -> Result<Tensor> {
    let (t, h, w, wide) = x.dims4()?;
    let c = wide / (p * p);
    let split = x.reshape(&[t, h, w, c, p, p][..])?; // [t, h, w, c, across, down]
    let sorted = split.permute([0, 1, 5, 2, 4, 3])?.contiguous()?; // [t, h, down, w, across, c]
    Ok(sorted.reshape((t, h * p, w * p, c))?)
}
