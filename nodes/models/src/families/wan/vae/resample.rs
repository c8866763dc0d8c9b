//! Between levels: half the size on the way in, twice on the way out (`WanResample`).

use candle_core::Tensor;
use kino_kernels::{ConvInput, halves_to_frames, pad_plane, upsample_nearest2};

use super::layers::{BORDER, CausalConv};
use super::pass::Pass;
use crate::error::Result;
use crate::weight::{Conv, Weights};

/// A frame of more numbers than this is large: several at once no longer fit a cache, and take
/// memory for nothing.
const LARGE: usize = if cfg!(test) { 64 } else { 4 << 20 };

/// How many of so many frames are worked on at once, each of so many numbers: `most` of large ones.
pub(super) fn at_once(frames: usize, numbers: usize, most: usize) -> usize {
    if numbers > LARGE { frames.min(most) } else { frames }
}

/// Half the height and width; half the frames too where `time` is there.
#[derive(Debug)]
pub(super) struct Downsample {
    space: Conv,
    time: Option<Conv>,
}

impl Downsample {
    pub(super) fn read(weights: &Weights, channels: usize, temporal: bool) -> Result<Self> {
        let same = [channels, channels];
        let space = Conv::load(&weights.scope("resample.1"), same, &[3, 3], [1, 2, 2])?;
        let time = temporal
            .then(|| Conv::load(&weights.scope("time_conv"), same, &[3, 1, 1], [2, 1, 1]))
            .transpose()?;
        Ok(Self { space, time })
    }

    /// `[t, h, w, c]` → `[t', h/2, w/2, c]`, t' = t/2, but 1 for the first frame.
    pub(super) fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        pass.check_cancel()?;
        let x = pad_plane(x, [0, 1, 0, 1])?;
        let x = self.space.forward(ConvInput::new(&x), None)?;
        let Some(time) = &self.time else { return Ok(x) };
        let past = pass.recall();
        pass.keep(|| Ok(Some(x.narrow(0, x.dim(0)? - 1, 1)?.force_contiguous()?)))?;
        match &past {
            // The first frame stands for itself and becomes the past of the next chunk.
            None => Ok(x),
            past => time.forward(ConvInput { zeros: 0, past: past.as_ref(), frames: &x }, None),
        }
    }
}

/// Twice the height and width, fewer channels; twice the frames too where `time` is there.
#[derive(Debug)]
pub(super) struct Upsample {
    space: Conv,
    time: Option<CausalConv>,
}

impl Upsample {
    pub(super) fn read(
        weights: &Weights,
        [channels, out]: [usize; 2],
        temporal: bool,
    ) -> Result<Self> {
        let space = Conv::load(&weights.scope("resample.1"), [channels, out], &[3, 3], [1, 1, 1])?;
        let time = temporal
            .then(|| {
                let twice = [channels, 2 * channels];
                CausalConv::read_temporal(&weights.scope("time_conv"), twice)
            })
            .transpose()?;
        Ok(Self { space, time })
    }

    /// `[t, h, w, c]` → `[t', 2h, 2w, c']`, t' = 2t, but 1 for the first frame.
    pub(super) fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        pass.check_cancel()?;
        let x = match &self.time {
            Some(time) => &double_time(time, x, pass)?,
            None => x,
        };
        let (frames, h, w, c) = x.dims4()?;
        let group = at_once(frames, 4 * h * w * c, 1);
        let grow = |from: usize| {
            pass.check_cancel()?;
            let x = upsample_nearest2(&x.narrow(0, from, group.min(frames - from))?, BORDER)?;
            self.space.forward(ConvInput::new(&x), None)
        };
        joined((0..frames).step_by(group).map(grow))
    }
}

/// Groups of frames one after another, without a copy where there is one.
pub(super) fn joined(groups: impl Iterator<Item = Result<Tensor>>) -> Result<Tensor> {
    let mut groups = groups.collect::<Result<Vec<_>>>()?;
    match groups.len() {
        1 => Ok(groups.remove(0)),
        _ => Ok(Tensor::cat(&groups, 0)?),
    }
}

/// Doubles the frames, but not the first one, which does not enter the history either: the frame
/// after it sees zeros.
fn double_time(time: &CausalConv, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
    if pass.is_first() {
        pass.recall();
        pass.keep(|| Ok(None))?;
        return Ok(x.clone());
    }
    Ok(halves_to_frames(&time.forward(x, None, pass)?)?)
}
