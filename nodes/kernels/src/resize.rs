//! Resizing of frames: separable filters, antialiased when they shrink.
//!
//! The convention is that of Pillow (`Resample.c`): pixel centres at half-integers, the filter
//! widened by the factor of shrinking, weights normalised at the borders. Width first, then height.

use candle_core::{Device, Tensor, bail};

use crate::dense::{Dense, fast, tensor};
use crate::filter::{Filter, WEIGHT_BITS, Window, byte_windows, windows};
use crate::layout::check_activation;
use crate::rows::write_rows;
use crate::tier::by_tier;
use crate::{Result, composite, math};

/// Resizes frames to `height` × `width`.
///
/// Shapes: `frames` `[f, h, w, c]`; the result is `[f, height, width, c]`. Bicubic and Lanczos can
/// leave the range of the input by some percent: clamp where that matters.
pub fn resize(frames: &Tensor, height: usize, width: usize, filter: Filter) -> Result<Tensor> {
    let [f, h, w, c] = check_activation("resize", frames)?;
    if [h, w, height, width].contains(&0) {
        bail!("resize: {h}×{w} to {height}×{width}");
    }
    if (h, w) == (height, width) {
        return Ok(frames.clone());
    }
    let (columns, rows) = (windows(filter, w, width), windows(filter, h, height));
    if !fast(&[frames]) {
        return composite::resize(frames, &rows, &columns);
    }
    let dense = Dense::new(frames)?;
    let data = dense.read();
    let lines = write_rows(f * h, width * c, |line, out| {
        mix_columns(&data[line * w * c..][..w * c], &columns, c, out);
    })?;
    let line = width * c;
    let out = write_rows(f * height, line, |index, out| {
        let (frame, window) = (index / height, &rows[index % height]);
        for (k, weight) in window.weights.iter().enumerate() {
            let source = &lines[(frame * h + window.start + k) * line..][..line];
            add_scaled(source, *weight, out);
        }
    })?;
    tensor(out, (f, height, width, c))
}

/// Resizes pictures of bytes to bytes, exactly as Pillow does: values in 0…1 are rounded to the 256
/// levels, mixed in whole numbers, and rounded again after each of the two axes, the width first.
/// (Pillow 13 takes the height first where that is cheaper: a byte may then be off by one.)
///
/// Shapes: `frames` `[f, h, w, c]`, f32; the result is `[f, height, width, c]`, in main memory.
pub fn resize_levels(
    frames: &Tensor,
    height: usize,
    width: usize,
    filter: Filter,
) -> Result<Tensor> {
    let [f, h, w, c] = check_activation("resize", frames)?;
    if [h, w, height, width].contains(&0) {
        bail!("resize: {h}×{w} to {height}×{width}");
    }
    let frames = frames.to_device(&Device::Cpu)?.contiguous()?;
    let dense = Dense::new(&frames)?;
    let bytes: Vec<f32> =
        dense.read().iter().map(|value| (value.clamp(0.0, 1.0) * 255.0).round()).collect();
    let lines = match w == width {
        true => bytes,
        false => {
            let columns = byte_windows(filter, w, width);
            write_rows(f * h, width * c, |line, out| {
                let line = &bytes[line * w * c..][..w * c];
                for ((start, weights), pixel) in columns.iter().zip(out.chunks_exact_mut(c)) {
                    for (channel, value) in pixel.iter_mut().enumerate() {
                        let sources = line[start * c + channel..].iter().step_by(c);
                        *value = mixed(sources.zip(weights));
                    }
                }
            })?
        }
    };
    let whole = match h == height {
        true => lines,
        false => {
            let (rows, line) = (byte_windows(filter, h, height), width * c);
            write_rows(f * height, line, |index, out| {
                let (frame, (start, weights)) = (index / height, &rows[index % height]);
                let from = (frame * h + start) * line;
                for (at, value) in out.iter_mut().enumerate() {
                    *value = mixed(lines[from + at..].iter().step_by(line).zip(weights));
                }
            })?
        }
    };
    let levels = whole.into_iter().map(|byte| byte / 255.0).collect();
    Tensor::from_vec(levels, (f, height, width, c), &Device::Cpu)
}

/// A byte mixed of others, rounded half up and cut off at both ends.
fn mixed<'a>(sources: impl Iterator<Item = (&'a f32, &'a i64)>) -> f32 {
    let half = 1i64 << (WEIGHT_BITS - 1);
    let sum = sources.fold(half, |sum, (byte, weight)| sum + *byte as i64 * weight);
    (sum >> WEIGHT_BITS).clamp(0, 255) as f32
}

/// One line of pixels, each mixed from its window.
fn mix_columns(line: &[f32], windows: &[Window], channels: usize, out: &mut [f32]) {
    for (window, pixel) in windows.iter().zip(out.chunks_exact_mut(channels)) {
        let sources = line[window.start * channels..].chunks_exact(channels);
        for (source, weight) in sources.zip(&window.weights) {
            pixel.iter_mut().zip(source).for_each(|(sum, x)| *sum += x * weight);
        }
    }
}

by_tier! {
    fn add_scaled<FMA>(x: &[f32], weight: f32, out: &mut [f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = math::madd::<FMA>(*x, weight, *out);
        }
    }
}
