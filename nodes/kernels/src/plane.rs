//! What stands between convolutions: norm, padding, upsampling, on channels-last frames.

use candle_core::{Tensor, bail};

use half::bf16;

use crate::buffer::{filled, with_scratch};
use crate::dense::{Dense, fast, fast_mixed, tensor};
use crate::layout::{Padding, check_activation};
use crate::math;
use crate::number::{Number, Slice};
use crate::tier::by_tier;
use crate::{Result, composite};

/// Does the same with the numbers of a tensor, whatever their type.
macro_rules! by_type {
    ($dense:ident, $data:ident => $body:block) => {
        match $dense.numbers().slice() {
            Slice::F32($data) => $body,
            Slice::Bf16($data) => $body,
        }
    };
}

/// x/‖x‖·√c·γ over the channels of each pixel (the norm at least 1e-12): the RMS norm of a video
/// VAE.
///
/// Shapes: `x` `[t, h, w, c]`, `gamma` `[c]`.
pub fn channel_norm(x: &Tensor, gamma: &Tensor) -> Result<Tensor> {
    check_gamma("channel_norm", x, gamma)?;
    if !fast_mixed(&[x, gamma]) {
        return composite::channel_norm(x, gamma);
    }
    normalized(x, gamma, [0; 4], norm_line)
}

/// SiLU of [`channel_norm`], written into a plane with `padding` zeros around it, ready for
/// [`crate::conv`].
///
/// Shapes: as [`channel_norm`]; the result is `[t, top + h + bottom, left + w + right, c]`.
pub fn channel_norm_silu(x: &Tensor, gamma: &Tensor, padding: Padding) -> Result<Tensor> {
    check_gamma("channel_norm_silu", x, gamma)?;
    if !fast_mixed(&[x, gamma]) {
        return composite::pad_plane(&composite::channel_norm(x, gamma)?.silu()?, padding);
    }
    normalized(x, gamma, padding, norm_silu_line)
}

fn check_gamma(what: &str, x: &Tensor, gamma: &Tensor) -> Result<[usize; 4]> {
    let size = check_activation(what, x)?;
    if gamma.dims() != [size[3]] {
        bail!("{what}: gamma {:?} for {} channels", gamma.dims(), size[3]);
    }
    Ok(size)
}

fn normalized(
    x: &Tensor,
    gamma: &Tensor,
    padding: Padding,
    line: impl Fn(&[f32], &[f32], &mut [f32]) + Sync + Send,
) -> Result<Tensor> {
    let gamma = Dense::widened(gamma)?;
    let gamma = gamma.read();
    let root = (gamma.len() as f32).sqrt();
    let gamma: Vec<f32> = gamma.iter().map(|g| g * root).collect();
    map_lines(x, padding, |_, x, y| line(x, &gamma, y))
}

/// The same planes with `padding` zeros around, line by line: `fill(row of all rows, line of the
/// input, line to write)`, in f32 whatever the type of `x`.
pub(crate) fn map_lines(
    x: &Tensor,
    padding: Padding,
    fill: impl Fn(usize, &[f32], &mut [f32]) + Sync + Send,
) -> Result<Tensor> {
    let dense = Dense::new(x)?;
    match dense.numbers().slice() {
        Slice::F32(data) => write_lines(x.dims4()?, padding, |row, y, source| {
            fill(row, &data[source], y);
        }),
        Slice::Bf16(data) => write_lines(x.dims4()?, padding, |row, y, source| {
            with_scratch(2 * source.len(), |wide| {
                let (x, wide) = wide.split_at_mut(source.len());
                bf16::widen(&data[source], x);
                fill(row, x, wide);
                bf16::narrow(wide, y);
            });
        }),
    }
}

/// Fills padded planes line by line: `fill(row of all rows, line to write, its range in the
/// input)`.
pub(crate) fn write_lines<T: Number>(
    (t, h, w, c): (usize, usize, usize, usize),
    [top, bottom, left, right]: Padding,
    fill: impl Fn(usize, &mut [T], std::ops::Range<usize>) + Sync + Send,
) -> Result<Tensor> {
    let (high, wide) = (top + h + bottom, left + w + right);
    let out = filled(t * high * wide * c, wide * c, |line, out| {
        let (frame, y) = (line / high, line % high);
        if y >= top && y < top + h {
            let row = frame * h + y - top;
            fill(row, &mut out[left * c..(left + w) * c], row * w * c..(row + 1) * w * c);
        }
    })?;
    tensor(out, (t, high, wide, c))
}

by_tier! {
    /// Norm of the pixels of a line; `gamma` holds √c·γ.
    fn norm_line<FMA>(x: &[f32], gamma: &[f32], y: &mut [f32]) {
        let c = gamma.len();
        for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
            let inverse = 1.0 / math::sum_squares::<FMA>(x, 0.0).sqrt().max(1e-12);
            for ((y, x), g) in y.iter_mut().zip(x).zip(gamma) {
                *y = x * inverse * g;
            }
        }
    }
}

by_tier! {
    /// SiLU of [`norm_line`].
    fn norm_silu_line<FMA>(x: &[f32], gamma: &[f32], y: &mut [f32]) {
        let c = gamma.len();
        for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
            let inverse = 1.0 / math::sum_squares::<FMA>(x, 0.0).sqrt().max(1e-12);
            for ((y, x), g) in y.iter_mut().zip(x).zip(gamma) {
                *y = x * inverse * g;
            }
        }
        for y in y.iter_mut() {
            *y = math::silu::<FMA>(*y);
        }
    }
}

/// Puts zeros around each plane.
///
/// Shapes: `x` `[t, h, w, c]`; the result is `[t, top + h + bottom, left + w + right, c]`.
pub fn pad_plane(x: &Tensor, padding: Padding) -> Result<Tensor> {
    check_activation("pad_plane", x)?;
    if !fast_mixed(&[x]) {
        return composite::pad_plane(x, padding);
    }
    let dense = Dense::new(x)?;
    let size = x.dims4()?;
    by_type!(dense, data => {
        write_lines(size, padding, |_, y, source| y.copy_from_slice(&data[source]))
    })
}

/// Doubles height and width, each pixel four times, with `padding` zeros around.
///
/// Shapes: `x` `[t, h, w, c]`; the result is `[t, top + 2h + bottom, left + 2w + right, c]`.
pub fn upsample_nearest2(x: &Tensor, padding: Padding) -> Result<Tensor> {
    let [t, h, w, c] = check_activation("upsample_nearest2", x)?;
    if !fast_mixed(&[x]) {
        return composite::upsample_nearest2(x, padding);
    }
    let dense = Dense::new(x)?;
    by_type!(dense, data => {
        write_lines((t, 2 * h, 2 * w, c), padding, |row, y, _| {
            let source = &data[row / 2 * w * c..][..w * c]; // rows of 2h over t frames halve as one
            for (pixel, twice) in source.chunks_exact(c).zip(y.chunks_exact_mut(2 * c)) {
                twice[..c].copy_from_slice(pixel);
                twice[c..].copy_from_slice(pixel);
            }
        })
    })
}

/// Turns the two halves of the channels into two successive frames.
///
/// Shapes: `x` `[t, h, w, 2c]`; the result is `[2t, h, w, c]`.
pub fn halves_to_frames(x: &Tensor) -> Result<Tensor> {
    let [t, h, w, twice] = check_activation("halves_to_frames", x)?;
    if twice % 2 != 0 {
        bail!("halves_to_frames: {twice} channels");
    }
    let c = twice / 2;
    if !fast_mixed(&[x]) {
        return composite::halves_to_frames(x);
    }
    let dense = Dense::new(x)?;
    by_type!(dense, data => {
        write_lines((2 * t, h, w, c), [0; 4], |row, y, _| {
            let (frame, line) = (row / h, row % h);
            let source = &data[(frame / 2 * h + line) * w * twice..][..w * twice];
            let half = frame % 2 * c;
            for (pixel, y) in source.chunks_exact(twice).zip(y.chunks_exact_mut(c)) {
                y.copy_from_slice(&pixel[half..half + c]);
            }
        })
    })
}

/// Spreads groups of factor² channels over squares of pixels, as torch's `PixelShuffle` does, and
/// adds `base` to every pixel of a square.
///
/// Shapes: `x` `[t, h, w, c·factor²]`, `base` `[t, h, w, c]`; the result is
/// `[t, h·factor, w·factor, c]`.
pub fn pixel_shuffle(x: &Tensor, factor: usize, base: Option<&Tensor>) -> Result<Tensor> {
    let [t, h, w, wide] = check_activation("pixel_shuffle", x)?;
    let square = factor * factor;
    if square == 0 || wide % square != 0 {
        bail!("pixel_shuffle: {wide} channels for squares of {factor}");
    }
    let c = wide / square;
    if let Some(base) = base
        && base.dims() != [t, h, w, c]
    {
        bail!("pixel_shuffle: a base of {:?} for {:?}", base.dims(), [t, h, w, c]);
    }
    let operands: Vec<&Tensor> = base.into_iter().chain([x]).collect();
    if !fast(&operands) {
        return composite::pixel_shuffle(x, factor, base);
    }
    let (dense, base) = (Dense::new(x)?, Dense::optional(base)?);
    let (data, base) = (dense.read(), base.as_ref().map(Dense::read));
    let size = (t, h * factor, w * factor, c);
    write_lines(size, [0; 4], |row, y: &mut [f32], _| {
        // Rows of h·factor over t frames divide as one.
        let (line, down) = (row / factor, row % factor);
        let source = &data[line * w * wide..][..w * wide];
        let pixels = source.chunks_exact(wide).zip(y.chunks_exact_mut(factor * c));
        for (x, (source, square_row)) in pixels.enumerate() {
            for (across, pixel) in square_row.chunks_exact_mut(c).enumerate() {
                for (channel, value) in pixel.iter_mut().enumerate() {
                    *value = source[channel * square + down * factor + across];
                }
                if let Some(base) = &base {
                    let base = &base[(line * w + x) * c..][..c];
                    pixel.iter_mut().zip(base).for_each(|(y, b)| *y += b);
                }
            }
        }
    })
}
