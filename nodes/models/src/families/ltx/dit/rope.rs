//! Rotary position embedding by seconds and pixels.

use candle_core::{Device, Tensor};

use crate::error::Result;
use crate::patch::Grid;

/// The base of the frequencies.
const THETA: f64 = 10_000.0;
/// Seconds, and pixels along a side, that are half a turn of the slowest pair.
const BASE: [f32; 3] = [20.0, 2048.0, 2048.0];

/// Frames and pixels along a side that a latent pixel stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Scale {
    /// Frames.
    pub(in super::super) temporal: usize,
    /// Pixels.
    pub(in super::super) spatial: usize,
    /// Whether time is counted from the last frame that a latent frame stands for, and not from its
    /// number (`LTXConditionPipeline`).
    pub(in super::super) counts_from_end: bool,
}

impl Scale {
    /// Seconds from the start to a latent frame.
    fn seconds(self, frame: usize, fps: f64) -> f32 {
        let temporal = self.temporal;
        match self.counts_from_end {
            true => (frame * temporal + 1).saturating_sub(temporal) as f32 * (1.0 / fps) as f32,
            false => frame as f32 * (temporal as f64 / fps) as f32,
        }
    }
}

/// The rotation of each token of a grid, over all heads together.
///
/// A position p is the seconds or pixels from the start, divided by 20 s or 2048 px. Of a token's
/// width D, ⌊D/6⌋ pairs turn by each of the three, pair i of n by (2p − 1)·π/2·10000^(i/(n − 1));
/// time, height and width take turns, and pairs that are over come first and do not turn
/// (`LTXVideoRotaryPosEmbed`). Computed in f32 as there: the fastest pair turns by up to 15,708, so
/// that the rounding of an angle shows in the third digit of its sine.
///
/// Shapes: cosine and sine, each `[tokens, D/2]`, f32.
///
/// # Errors
/// When the device refuses the tensors.
pub(super) fn rotation(
    grid: Grid,
    scale: Scale,
    fps: f64,
    (dim, device): (usize, &Device),
) -> Result<(Tensor, Tensor)> {
    let frequencies = frequencies(dim / 6);
    let spatial = scale.spatial as f32;
    let still = dim / 2 - 3 * frequencies.len();
    let mut angles: Vec<f32> = Vec::with_capacity(grid.tokens() * dim / 2);
    for frame in 0..grid.frames {
        for row in 0..grid.rows {
            for column in 0..grid.columns {
                let (down, across) = (row as f32 * spatial, column as f32 * spatial);
                let at = [scale.seconds(frame, fps), down, across];
                let place = |axis: usize| at[axis] / BASE[axis] * 2.0 - 1.0;
                let places = [place(0), place(1), place(2)];
                angles.extend(std::iter::repeat_n(0.0, still));
                for frequency in &frequencies {
                    angles.extend(places.map(|place| frequency * place));
                }
            }
        }
    }
    let shape = (grid.tokens(), dim / 2);
    let cos = angles.iter().map(|angle| f64::from(*angle).cos() as f32).collect();
    let sin = angles.iter().map(|angle| f64::from(*angle).sin() as f32).collect();
    Ok((Tensor::from_vec(cos, shape, device)?, Tensor::from_vec(sin, shape, device)?))
}

/// π/2·10000^(i/(n − 1)), each step rounded to f32 as torch does: exponents are counted from both
/// ends.
fn frequencies(count: usize) -> Vec<f32> {
    let step = 1.0 / count.saturating_sub(1).max(1) as f32;
    let exponent = |i: usize| match i < count / 2 {
        _ if count == 1 => 0.0,
        true => step * i as f32,
        false => 1.0 - step * (count - 1 - i) as f32,
    };
    let power = |i: usize| THETA.powf(f64::from(exponent(i))) as f32;
    (0..count).map(|i| power(i) * std::f32::consts::PI / 2.0).collect()
}
