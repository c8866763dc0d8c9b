//! What a convolution is given: packed weights, and frames with their past.

use candle_core::{Tensor, bail};

use crate::dense::fast;
use crate::{Result, direct, math};

/// Weights of a convolution, packed once when they are loaded.
#[derive(Debug, Clone)]
pub struct ConvWeights {
    /// `[kt, kh, kw·cin, cout]`
    pub(crate) packed: Tensor,
    /// The same with channels padded to whole vectors, where those are few.
    pub(crate) padded: Option<Tensor>,
    pub(crate) bias: Option<Tensor>,
    pub(crate) kernel: [usize; 3],
    pub(crate) stride: [usize; 3],
    pub(crate) channels: [usize; 2],
}

impl ConvWeights {
    /// Packs `weight`, `[cout, cin, kt, kh, kw]` or `[cout, cin, kh, kw]`, and `bias`, `[cout]`.
    ///
    /// `stride` is that of time, height and width.
    pub fn pack(weight: &Tensor, bias: Option<&Tensor>, stride: [usize; 3]) -> Result<Self> {
        let weight = if weight.rank() == 4 { weight.unsqueeze(2)? } else { weight.clone() };
        let (cout, cin, kt, kh, kw) = weight.dims5()?;
        if stride.contains(&0) || [cout, cin, kt, kh, kw].contains(&0) {
            bail!("conv: weight {:?} with stride {stride:?}", weight.dims());
        }
        if let Some(bias) = bias
            && bias.dims() != [cout]
        {
            bail!("conv: bias {:?} for {cout} channels", bias.dims());
        }
        let packed = weight.permute((2, 3, 4, 1, 0))?.force_contiguous()?;
        let packed = packed.reshape((kt, kh, kw * cin, cout))?; // [kt, kh, kw·cin, cout]
        let (kernel, channels) = ([kt, kh, kw], [cin, cout]);
        let padded = pad_channels(&packed, cout)?;
        Ok(Self { packed, padded, bias: bias.cloned(), kernel, stride, channels })
    }

    /// Kernel size in time, height and width.
    pub fn kernel(&self) -> [usize; 3] {
        self.kernel
    }

    /// Steps in time, height and width.
    pub fn stride(&self) -> [usize; 3] {
        self.stride
    }

    /// Channels in and out.
    pub fn channels(&self) -> [usize; 2] {
        self.channels
    }

    /// The packed weights, `[kt, kh, kw·cin, cout]`.
    pub fn packed(&self) -> &Tensor {
        &self.packed
    }

    /// The bias, `[cout]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// Steps of a window of `kernel` over `length`.
    pub(crate) fn steps(&self, axis: usize, length: usize) -> Result<usize> {
        match length.checked_sub(self.kernel[axis]) {
            Some(room) => Ok(room / self.stride[axis] + 1),
            None => bail!("conv: an axis of {length} under a kernel of {}", self.kernel[axis]),
        }
    }
}

/// Weights for [`direct`], where it can be used.
fn pad_channels(packed: &Tensor, cout: usize) -> Result<Option<Tensor>> {
    let lanes = cout.next_multiple_of(math::LANES);
    let size = packed.elem_count() / cout * lanes;
    if cout > direct::MAX_CHANNELS || size > direct::MAX_WEIGHTS || !fast(&[packed]) {
        return Ok(None);
    }
    let missing = lanes - cout;
    packed.pad_with_zeros(3, 0, missing)?.force_contiguous().map(Some)
}

/// Frames that enter a convolution: `zeros` black ones, then the past, then the new.
#[derive(Debug, Clone, Copy)]
pub struct ConvInput<'a> {
    /// Frames of zeros before everything; they cost nothing.
    pub zeros: usize,
    /// Frames kept from the chunk before, `[p, h, w, c]`.
    pub past: Option<&'a Tensor>,
    /// The frames of this chunk, `[t, h, w, c]`.
    pub frames: &'a Tensor,
}

impl<'a> ConvInput<'a> {
    /// Frames without a past.
    pub fn new(frames: &'a Tensor) -> Self {
        Self { zeros: 0, past: None, frames }
    }
}
