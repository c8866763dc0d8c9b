//! What networks that find motion do between convolutions: sampling along a flow, shrinking without
//! a filter, and channels of several tensors side by side.

use candle_core::{Tensor, bail};

use crate::dense::{Dense, Elements, fast, tensor};
use crate::layout::{Padding, check_activation};
use crate::plane::write_lines;
use crate::rows::write_rows;
use crate::{Result, composite};

/// Each pixel from where its flow points to, bilinear, the border repeated: torch's `grid_sample`
/// with `align_corners` and `padding_mode="border"`.
///
/// Shapes: `x` `[t, h, w, c]`; `flow` `[t, h, w, 2]`, how far to the right and down in pixels; the
/// result is that of `x`.
pub fn warp(x: &Tensor, flow: &Tensor) -> Result<Tensor> {
    let [t, h, w, c] = check_activation("warp", x)?;
    if flow.dims() != [t, h, w, 2] {
        bail!("warp: a flow of {:?} for {:?}", flow.dims(), x.dims());
    }
    if !fast(&[x, flow]) {
        return composite::warp(x, flow);
    }
    let (dense, of_flow) = (Dense::new(x)?, Dense::new(flow)?);
    let (data, of_flow) = (dense.read(), of_flow.read());
    let out = write_rows(t * h, w * c, |row, out| {
        let (frame, y) = (row / h, row % h);
        let plane = &data[frame * h * w * c..][..h * w * c];
        let flow = &of_flow[row * w * 2..][..w * 2];
        for (x, (pixel, flow)) in out.chunks_exact_mut(c).zip(flow.chunks_exact(2)).enumerate() {
            let (left, across) = place(x, flow[0], w);
            let (top, down) = place(y, flow[1], h);
            let at = |y: usize, x: usize| &plane[(y.min(h - 1) * w + x.min(w - 1)) * c..][..c];
            let (a, b) = (at(top, left), at(top, left + 1));
            let (d, e) = (at(top + 1, left), at(top + 1, left + 1));
            for (channel, value) in pixel.iter_mut().enumerate() {
                let upper = a[channel] + (b[channel] - a[channel]) * across;
                let lower = d[channel] + (e[channel] - d[channel]) * across;
                *value = upper + (lower - upper) * down;
            }
        }
    })?;
    tensor(out, x.shape())
}

/// The pixel before a place that is `moved` from `at`, and how far the place lies beyond it. Flow
/// that is no number stays where it is.
fn place(at: usize, moved: f32, length: usize) -> (usize, f32) {
    let moved = if moved.is_nan() { 0.0 } else { moved };
    let place = (at as f32 + moved).clamp(0.0, (length - 1) as f32);
    (place as usize, place - place.floor())
}

/// Smaller by a whole factor, bilinear and without a filter, as torch's `interpolate` does it: of
/// the pixels that become one, the mean of those around the middle.
///
/// Shapes: `x` `[t, h, w, c]`, sides multiples of `factor`, which is 1 or even; the result is
/// `[t, h/factor, w/factor, c]`.
pub fn shrink_bilinear(x: &Tensor, factor: usize) -> Result<Tensor> {
    let [t, h, w, c] = check_activation("shrink_bilinear", x)?;
    if factor == 1 {
        return Ok(x.clone());
    }
    let divides = |side: usize| factor != 0 && side.is_multiple_of(factor);
    if !factor.is_multiple_of(2) || !divides(h) || !divides(w) {
        bail!("shrink_bilinear: {h}×{w} by {factor}");
    }
    if !fast(&[x]) {
        return composite::shrink_bilinear(x, factor);
    }
    let dense = Dense::new(x)?;
    let data = dense.read();
    let (high, wide) = (h / factor, w / factor);
    let out = write_rows(t * high, wide * c, |row, out| {
        let (frame, y) = (row / high, row % high);
        let first = frame * h + y * factor + factor / 2 - 1;
        let (upper, lower) =
            (&data[first * w * c..][..w * c], &data[(first + 1) * w * c..][..w * c]);
        for (x, pixel) in out.chunks_exact_mut(c).enumerate() {
            let left = (x * factor + factor / 2 - 1) * c;
            for (channel, value) in pixel.iter_mut().enumerate() {
                let at = left + channel;
                *value = 0.25 * (upper[at] + upper[at + c] + lower[at] + lower[at + c]);
            }
        }
    })?;
    tensor(out, (t, high, wide, c))
}

/// The channels of several tensors side by side, with zeros around their planes.
///
/// Shapes: each `[t, h, w, cᵢ]`; the result is `[t, top + h + bottom, left + w + right, Σcᵢ]`.
pub fn concat_channels(parts: &[&Tensor], padding: Padding) -> Result<Tensor> {
    let Some(first) = parts.first() else { bail!("concat_channels: nothing to put together") };
    let [t, h, w, _] = check_activation("concat_channels", first)?;
    let mut channels = 0;
    for part in parts {
        let [of_t, of_h, of_w, c] = check_activation("concat_channels", part)?;
        if [of_t, of_h, of_w] != [t, h, w] {
            bail!("concat_channels: {:?} beside {:?}", part.dims(), first.dims());
        }
        channels += c;
    }
    if !fast(parts) {
        return composite::pad_plane(&Tensor::cat(parts, 3)?, padding);
    }
    let dense = parts.iter().map(|part| Dense::new(part)).collect::<Result<Vec<_>>>()?;
    let data: Vec<Elements> = dense.iter().map(Dense::read).collect();
    let widths: Vec<usize> = data.iter().map(|data| data.len() / (t * h * w)).collect();
    write_lines((t, h, w, channels), padding, |row, y, _| {
        let mut from = 0;
        for (data, c) in data.iter().zip(&widths) {
            let source = data[row * w * c..][..w * c].chunks_exact(*c);
            for (pixel, source) in y.chunks_exact_mut(channels).zip(source) {
                pixel[from..from + c].copy_from_slice(source);
            }
            from += c;
        }
    })
}
