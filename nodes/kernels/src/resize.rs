//! Resizing of frames: separable filters, antialiased when they shrink.
//!
//! The convention is that of Pillow (`Resample.c`): pixel centres at half-integers, the filter
//! widened by the factor of shrinking, weights normalised at the borders. Width first, then height.

use candle_core::{Tensor, bail};

use crate::dense::{Dense, fast, tensor};
use crate::filter::{Filter, Window, windows};
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
