//! Shortcuts around whole levels, without weights: what the residual form adds to a level's result
//! (`AvgDown3D`, `DupUp3D`). Activations are `[t, h, w, c]`.

use candle_core::{D, Tensor};

use crate::error::Result;

/// How much smaller a level makes its input, in time and along each side.
#[derive(Debug, Clone, Copy)]
pub(super) struct Factors {
    pub(super) time: usize,
    pub(super) space: usize,
}

impl Factors {
    /// Those of a level that changes size, in time too or not, or that keeps it.
    pub(super) fn of_level(temporal: Option<bool>) -> Self {
        match temporal {
            Some(true) => Self { time: 2, space: 2 },
            Some(false) => Self { time: 1, space: 2 },
            None => Self { time: 1, space: 1 },
        }
    }

    /// Pixels of a block: what becomes one, or what one becomes.
    pub(super) fn volume(self) -> usize {
        self.time * self.space * self.space
    }
}

/// The mean of groups of channels and pixels: `[t, h, w, cin]` → `[t/ft, h/fs, w/fs, cout]`.
///
/// Time is filled up with zeros before the first frame.
pub(super) fn average(x: &Tensor, factors: Factors, cout: usize) -> Result<Tensor> {
    let Factors { time, space } = factors;
    let (t, h, w, cin) = x.dims4()?;
    let missing = t.next_multiple_of(time) - t;
    let x = x.pad_with_zeros(0, missing, 0)?;
    let (t, h, w) = ((t + missing) / time, h / space, w / space);
    let x = x.reshape(&[t, time, h, space, w, space, cin][..])?;
    let x = x.permute([0, 2, 4, 6, 1, 3, 5])?.contiguous()?; // [t, h, w, cin, ft, fs, fs]
    Ok(x.reshape((t, h, w, cout, ()))?.mean(D::Minus1)?)
}

/// Every value repeated over a block: `[t, h, w, cin]` → `[t·ft, h·fs, w·fs, cout]`; the first
/// chunk of a stream has no frames before its first, so that it gives ft − 1 fewer.
pub(super) fn repeat(x: &Tensor, factors: Factors, cout: usize, first: bool) -> Result<Tensor> {
    let Factors { time, space } = factors;
    let (t, h, w, cin) = x.dims4()?;
    let times = cout * factors.volume() / cin;
    let x = x.unsqueeze(D::Minus1)?.broadcast_as((t, h, w, cin, times))?.contiguous()?;
    let x = x.reshape(&[t, h, w, cout, time, space, space][..])?;
    let x = x.permute([0, 4, 1, 5, 2, 6, 3])?.contiguous()?; // [t, ft, h, fs, w, fs, cout]
    let x = x.reshape((t * time, h * space, w * space, cout))?;
    let dropped = if first { time - 1 } else { 0 };
    Ok(x.narrow(0, dropped, t * time - dropped)?)
}

/// Pixels folded into channels, as the residual form reads frames: `[t, h, w, c]` → `[t, h/p, w/p,
/// c·p·p]`, the channel c·p² + column·p + row.
pub(super) fn fold(x: &Tensor, patch: usize) -> Result<Tensor> {
    if patch == 1 {
        return Ok(x.clone());
    }
    let (t, h, w, c) = x.dims4()?;
    let x = x.reshape(&[t, h / patch, patch, w / patch, patch, c][..])?;
    let x = x.permute([0, 1, 3, 5, 4, 2])?.contiguous()?; // [t, h/p, w/p, c, column, row]
    Ok(x.reshape((t, h / patch, w / patch, c * patch * patch))?)
}

/// The inverse of [`fold`].
pub(super) fn unfold(x: &Tensor, patch: usize) -> Result<Tensor> {
    if patch == 1 {
        return Ok(x.clone());
    }
    let (t, h, w, folded) = x.dims4()?;
    let c = folded / (patch * patch);
    let x = x.reshape(&[t, h, w, c, patch, patch][..])?; // [t, h, w, c, column, row]
    let x = x.permute([0, 1, 5, 2, 4, 3])?.contiguous()?; // [t, h, row, w, column, c]
    Ok(x.reshape((t, h * patch, w * patch, c))?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn ramp(shape: [usize; 4]) -> Tensor {
        let count = shape.iter().product::<usize>() as f32;
        Tensor::arange(0f32, count, &Device::Cpu).unwrap().reshape(&shape[..]).unwrap()
    }

    fn values(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn folding_comes_back() {
        let x = ramp([2, 4, 6, 3]);
        let folded = fold(&x, 2).unwrap();
        assert_eq!(folded.dims(), [2, 2, 3, 12]);
        // Channel 0 of the pixels (0, 0), (1, 0), (0, 1), (1, 1): row first, then column.
        assert_eq!(values(&folded)[..4], [0.0, 18.0, 3.0, 21.0]);
        assert_eq!(values(&unfold(&folded, 2).unwrap()), values(&x));
    }

    #[test]
    fn averages_and_repetitions_keep_what_is_even() {
        let factors = Factors { time: 2, space: 2 };
        let even = Tensor::full(3f32, (2, 4, 4, 4), &Device::Cpu).unwrap();
        let small = average(&even, factors, 8).unwrap();
        assert_eq!((small.dims(), values(&small)[0]), (&[1, 2, 2, 8][..], 3.0));
        let large = repeat(&small, factors, 4, false).unwrap();
        assert_eq!((large.dims(), values(&large)[0]), (&[2, 4, 4, 4][..], 3.0));
        let first = repeat(&small, factors, 4, true).unwrap();
        assert_eq!(first.dims(), [1, 4, 4, 4]);
        // One frame is filled up with zeros before it: four pixels of each channel, then its own.
        let alone = average(&even.narrow(0, 0, 1).unwrap(), factors, 32).unwrap();
        assert_eq!(values(&alone)[..8], [0.0, 0.0, 0.0, 0.0, 3.0, 3.0, 3.0, 3.0]);
    }
}
