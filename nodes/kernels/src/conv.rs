//! Convolution over time and space of channels-last activations, without im2col.
//!
//! The input is padded already, so a pixel's neighbours in a row lie side by side: the kw·cin
//! inputs of a tap row are one contiguous run, and the matrix of all pixels has overlapping rows
//! cin apart. Each (time, row) of the kernel is then one product that accumulates into the output.

use candle_core::{Tensor, bail};

use crate::buffer::with_scratch;
use crate::conv_weights::{ConvInput, ConvWeights};
use crate::dense::{Dense, fast, tensor};
use crate::direct::{self, TapRow};
use crate::matrix::{Matrix, TileMut, filled_by_tiles};
use crate::{Result, composite, math};

/// Convolves padded, channels-last frames; the result may be added to `residual`.
///
/// Shapes: frames `[t, h, w, cin]`, already padded; the result and `residual` are
/// `[t', h', w', cout]` with t' = (zeros + past + t − kt)/stride + 1 and likewise h', w'.
pub fn conv(input: ConvInput, weights: &ConvWeights, residual: Option<&Tensor>) -> Result<Tensor> {
    let (t, h, w, c) = input.frames.dims4()?;
    let mut past = 0;
    if let Some(frames) = input.past {
        past = frames.dim(0)?;
        if frames.dims()[1..] != [h, w, c] {
            bail!("conv: past frames {:?} before {:?}", frames.dims(), input.frames.dims());
        }
    }
    if c != weights.channels[0] {
        bail!("conv: {c} channels for weights of {:?}", weights.channels);
    }
    let steps = |axis, length| weights.steps(axis, length);
    let size = [steps(0, input.zeros + past + t)?, steps(1, h)?, steps(2, w)?, weights.channels[1]];
    if let Some(residual) = residual
        && residual.dims() != size
    {
        bail!("conv: a residual of {:?} for a result of {size:?}", residual.dims());
    }
    let mut operands = vec![input.frames, weights.packed()];
    operands.extend(input.past.into_iter().chain(weights.bias()).chain(residual));
    match fast(&operands) {
        true => on_cpu(input, weights, residual, size),
        false => composite::conv(input, weights, residual, size),
    }
}

/// What the tasks of one convolution share.
struct Job<'a> {
    /// The frames under the kernel; `None` is a frame of zeros.
    frames: Vec<Option<&'a [f32]>>,
    weights: &'a [f32],
    padded: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
    kernel: [usize; 3],
    stride: [usize; 3],
    channels: [usize; 2],
    /// Pixels of an input row and of an output row.
    width: [usize; 2],
}

fn on_cpu(
    input: ConvInput,
    weights: &ConvWeights,
    residual: Option<&Tensor>,
    size: [usize; 4],
) -> Result<Tensor> {
    let (_, h, w, c) = input.frames.dims4()?;
    let (new, past) = (Dense::new(input.frames)?, Dense::optional(input.past)?);
    let (packed, bias) = (Dense::new(weights.packed())?, Dense::optional(weights.bias())?);
    let padded = match size[2] >= direct::LEAST_WIDTH {
        true => Dense::optional(weights.padded.as_ref())?,
        false => None,
    };
    let residual = Dense::optional(residual)?;
    let padded = padded.as_ref().map(Dense::read);
    let (new, past) = (new.read(), past.as_ref().map(Dense::read));
    let (packed, bias) = (packed.read(), bias.as_ref().map(Dense::read));
    let residual = residual.as_ref().map(Dense::read);
    let plane = h * w * c;
    let past = past.as_deref().unwrap_or_default();
    let given = past.chunks_exact(plane).chain(new.chunks_exact(plane));
    let frames = std::iter::repeat_n(None, input.zeros).chain(given.map(Some)).collect();
    let job = Job {
        frames,
        weights: &packed,
        padded: padded.as_deref(),
        bias: bias.as_deref(),
        kernel: weights.kernel,
        stride: weights.stride,
        channels: weights.channels,
        width: [w, size[2]],
    };
    tensor(job.run(residual.as_deref(), size)?, size.as_slice())
}

impl Job<'_> {
    /// Output rows of one task: its sums stay in the second-level cache.
    fn rows_per_task(&self, height: usize) -> usize {
        let pixels = (96 * 1024 / self.channels[1]).clamp(128, 512);
        (pixels / self.width[0]).clamp(1, height)
    }

    fn run(&self, residual: Option<&[f32]>, [t, h, w, c]: [usize; 4]) -> Result<Vec<f32>> {
        filled_by_tiles(t, [h, w * c], [self.rows_per_task(h), w * c], |frame, tile| {
            let start = (frame * h + tile.rows.start) * w * c;
            let residual = residual.map(|all| &all[start..]);
            match self.padded {
                Some(weights) if self.stride[1..] == [1, 1] => {
                    self.rows_directly(weights, frame, tile, residual);
                }
                _ => self.rows(frame, tile, residual),
            }
        })
    }

    /// Computes some whole rows of frame `t`.
    fn rows(&self, t: usize, mut tile: TileMut, residual: Option<&[f32]>) {
        let ([_, cout], [_, width]) = (self.channels, self.width);
        let (first, rows) = (tile.rows.start, tile.rows.len());
        let step = if self.stride[2] == 1 && self.stride[1] == 1 { self.width[0] } else { width };
        with_scratch(((rows - 1) * step + width) * cout, |sums| {
            let mut started = false;
            for kt in 0..self.kernel[0] {
                let Some(frame) = self.frames[t * self.stride[0] + kt] else { continue };
                for kh in 0..self.kernel[1] {
                    self.tap_row(frame, [kt, kh], first, rows, sums, started);
                    started = true;
                }
            }
            if !started {
                sums.fill(0.0);
            }
            let line = width * cout;
            for row in 0..rows {
                let sums = &sums[row * step * cout..][..line];
                let residual = residual.map(|all| &all[row * line..][..line]);
                let out = tile.row(row);
                out.copy_from_slice(sums);
                add_operands(out, self.bias, residual);
            }
        });
    }

    /// The same by [`direct`].
    fn rows_directly(
        &self,
        weights: &[f32],
        t: usize,
        mut tile: TileMut,
        residual: Option<&[f32]>,
    ) {
        let ([cin, cout], [wide, width]) = (self.channels, self.width);
        let lanes = cout.next_multiple_of(math::LANES);
        let size = self.kernel[2] * cin * lanes;
        let line = width * cout;
        let mut taps = Vec::with_capacity(self.kernel[0] * self.kernel[1]);
        for row in 0..tile.rows.len() {
            taps.clear();
            for kt in 0..self.kernel[0] {
                let Some(frame) = self.frames[t * self.stride[0] + kt] else { continue };
                taps.extend((0..self.kernel[1]).map(|kh| TapRow {
                    input: &frame[(tile.rows.start + row + kh) * wide * cin..],
                    weights: &weights[(kt * self.kernel[1] + kh) * size..][..size],
                }));
            }
            let out = tile.row(row);
            direct::row(&taps, [cin, lanes], out, cout);
            add_operands(out, self.bias, residual.map(|all| &all[row * line..][..line]));
        }
    }

    /// Adds one (time, row) of the kernel to the sums of all pixels of some rows.
    fn tap_row(
        &self,
        frame: &[f32],
        [kt, kh]: [usize; 2],
        row: usize,
        rows: usize,
        sums: &mut [f32],
        accumulate: bool,
    ) {
        let ([cin, cout], [wide, width]) = (self.channels, self.width);
        let [_, down, right] = self.stride;
        let k = self.kernel[2] * cin;
        let tap = &self.weights[(kt * self.kernel[1] + kh) * k * cout..][..k * cout];
        let rhs = Matrix::rows(tap, cout);
        let first = (row * down + kh) * wide * cin;
        let lhs = |start: usize| Matrix::rows(&frame[start..], right * cin);
        if down == 1 && right == 1 {
            // All rows at once: pixels in the padding between them are computed and not used.
            let pixels = (rows - 1) * wide + width;
            TileMut::new(sums, pixels, cout, cout).multiply(k, lhs(first), rhs, accumulate);
        } else {
            for (r, sums) in sums.chunks_exact_mut(width * cout).enumerate() {
                let start = first + r * down * wide * cin;
                TileMut::new(sums, width, cout, cout).multiply(k, lhs(start), rhs, accumulate);
            }
        }
    }
}

/// Adds bias and residual.
fn add_operands(out: &mut [f32], bias: Option<&[f32]>, residual: Option<&[f32]>) {
    if let Some(bias) = bias {
        for pixel in out.chunks_exact_mut(bias.len()) {
            pixel.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
        }
    }
    if let Some(residual) = residual {
        out.iter_mut().zip(residual).for_each(|(y, r)| *y += r);
    }
}
