//! Convolution over time and space of channels-last activations, without im2col.
//!
//! The input is padded already, so a pixel's neighbours in a row lie side by side: the kw·cin
//! inputs of a tap row are one contiguous run, and the matrix of all pixels has overlapping rows
//! cin apart. Each (time, row) of the kernel is then one product that accumulates into the output.

use candle_core::{Tensor, bail};

use crate::buffer::with_scratch;
use crate::conv_output::{Output, Rows};
use crate::conv_weights::{ConvInput, ConvWeights, Held};
use crate::dense::{Dense, Elements, fast, fast_mixed, tensor};
use crate::direct::{self, TapRow};
use crate::epilogue::{Activation, DenseEpilogue, Epilogue};
use crate::layout::Padding;
use crate::matrix::{Matrix, TileMut};
use crate::micro::Precision;
use crate::{Result, card, composite, conv_panels, math};

/// Convolves padded, channels-last frames; the result may be added to `residual`.
///
/// Shapes: frames `[t, h, w, cin]`, already padded; the result and `residual` are
/// `[t', h', w', cout]` with t' = (zeros + past + t − kt)/stride + 1 and likewise h', w'.
pub fn conv(input: ConvInput, weights: &ConvWeights, residual: Option<&Tensor>) -> Result<Tensor> {
    conv_sum(&[(input, weights)], &Epilogue { residual, ..Epilogue::default() })
}

/// The sum of convolutions, finished by an epilogue: a convolution whose input channels lie in
/// several tensors need not have them copied together. The first may have a bias.
///
/// Shapes: as [`conv`] for each, with the same t', h', w' and cout; the result has the padding of
/// the epilogue around its planes, `[t', top + h' + bottom, left + w' + right, cout]`.
pub fn conv_sum(parts: &[(ConvInput, &ConvWeights)], epilogue: &Epilogue) -> Result<Tensor> {
    let Some(size) = common_size(parts)? else { bail!("conv: nothing to convolve") };
    check_epilogue(epilogue, size)?;
    if let Some(sum) = card::conv_sum(parts, epilogue, size) {
        return sum;
    }
    let frames = parts.iter().flat_map(|(input, _)| input.past.into_iter().chain([input.frames]));
    let activations: Vec<&Tensor> = frames.chain(epilogue.residual).collect();
    let biases = parts.iter().filter_map(|(_, weights)| weights.bias());
    let operands: Vec<&Tensor> =
        epilogue.operands().chain(biases).chain(activations.clone()).collect();
    let of_rows = parts.iter().map(|(_, weights)| match weights.held() {
        Held::Rows { rows, padded } if fast(&[rows]) => Some((rows, padded.as_ref())),
        _ => None,
    });
    let of_panels = parts.iter().map(|(_, weights)| match weights.held() {
        Held::Panels(matrix) => Some(matrix),
        Held::Rows { .. } => None,
    });
    let dtype = activations[0].dtype();
    if fast(&operands)
        && let Some(rows) = of_rows.collect::<Option<Vec<_>>>()
    {
        return on_cpu(parts, &rows, epilogue, size);
    }
    if fast_mixed(&operands)
        && activations.iter().all(|x| x.dtype() == dtype)
        && let Some(matrices) = of_panels.collect::<Option<Vec<_>>>()
        && matrices.iter().all(|matrix| matrix.precision() == Precision::of(dtype))
    {
        return with_output(parts, epilogue, size, |output| {
            conv_panels::conv_sum(parts, &matrices, output, (dtype, size))
        });
    }
    composite::conv_sum(parts, epilogue, size)
}

/// The size `[t', h', w', cout]` that all parts have; none where there are none.
fn common_size(parts: &[(ConvInput, &ConvWeights)]) -> Result<Option<[usize; 4]>> {
    let mut common = None;
    for (index, (input, weights)) in parts.iter().enumerate() {
        let size = size_of(input, weights)?;
        if index > 0 && weights.bias().is_some() {
            bail!("conv: part {index} of a sum has a bias; the first may have one");
        }
        if *common.get_or_insert(size) != size {
            bail!("conv: a sum of parts of {common:?} and {size:?}");
        }
    }
    Ok(common)
}

fn size_of(input: &ConvInput, weights: &ConvWeights) -> Result<[usize; 4]> {
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
    Ok([steps(0, input.zeros + past + t)?, steps(1, h)?, steps(2, w)?, weights.channels[1]])
}

fn check_epilogue(epilogue: &Epilogue, size: [usize; 4]) -> Result<()> {
    let whole = padded(size, epilogue.padding);
    if let Some(residual) = epilogue.residual
        && residual.dims() != whole
    {
        bail!("conv: a residual of {:?} for a result of {whole:?}", residual.dims());
    }
    match epilogue.activation {
        Activation::Prelu(slopes) if slopes.dims() != [size[3]] => {
            bail!("conv: slopes {:?} for {} channels", slopes.dims(), size[3])
        }
        _ => Ok(()),
    }
}

/// A size with padding around its planes.
fn padded([t, h, w, c]: [usize; 4], [top, bottom, left, right]: Padding) -> [usize; 4] {
    [t, top + h + bottom, left + w + right, c]
}

/// One of the convolutions whose sum is computed.
struct Part<'a> {
    /// The frames under the kernel; `None` is a frame of zeros.
    frames: Vec<Option<&'a [f32]>>,
    weights: &'a [f32],
    padded: Option<&'a [f32]>,
    kernel: [usize; 3],
    stride: [usize; 3],
    cin: usize,
    /// Pixels of an input row.
    width: usize,
}

/// What the tasks of one sum of convolutions share.
struct Job<'a> {
    parts: Vec<Part<'a>>,
    output: &'a Output<'a>,
}

/// The tensors of a part, locked for reading.
struct Operands<'a> {
    frames: Elements<'a>,
    past: Option<Elements<'a>>,
    packed: Elements<'a>,
    padded: Option<Elements<'a>>,
}

/// The tensors of a part, made contiguous.
struct DensePart {
    frames: Dense,
    past: Option<Dense>,
    packed: Dense,
    padded: Option<Dense>,
}

impl DensePart {
    fn new(input: &ConvInput, (rows, padded): (&Tensor, Option<&Tensor>)) -> Result<Self> {
        Ok(Self {
            frames: Dense::new(input.frames)?,
            past: Dense::optional(input.past)?,
            packed: Dense::new(rows)?,
            padded: Dense::optional(padded)?,
        })
    }

    fn read(&self) -> Operands<'_> {
        Operands {
            frames: self.frames.read(),
            past: self.past.as_ref().map(Dense::read),
            packed: self.packed.read(),
            padded: self.padded.as_ref().map(Dense::read),
        }
    }
}

/// Runs `work` on what all tasks share about the result.
fn with_output<R>(
    parts: &[(ConvInput, &ConvWeights)],
    epilogue: &Epilogue,
    size: [usize; 4],
    work: impl FnOnce(&Output) -> Result<R>,
) -> Result<R> {
    let first_bias = parts.first().and_then(|(_, weights)| weights.bias());
    let bias = first_bias.map(Dense::widened).transpose()?;
    let bias = bias.as_ref().map(Dense::read);
    let finish = DenseEpilogue::new(epilogue)?;
    let finish = finish.read(bias.as_deref(), size[3]);
    work(&Output { finish, cout: size[3], width: size[2], padding: epilogue.padding })
}

fn on_cpu(
    parts: &[(ConvInput, &ConvWeights)],
    rows: &[(&Tensor, Option<&Tensor>)],
    epilogue: &Epilogue,
    size: [usize; 4],
) -> Result<Tensor> {
    let dense = parts.iter().zip(rows).map(|((input, _), rows)| DensePart::new(input, *rows));
    let dense = dense.collect::<Result<Vec<_>>>()?;
    let operands: Vec<Operands> = dense.iter().map(DensePart::read).collect();
    with_output(parts, epilogue, size, |output| {
        let parts = parts.iter().zip(&operands).map(part).collect::<Result<Vec<_>>>()?;
        let job = Job { parts, output };
        tensor(job.run(size)?, padded(size, epilogue.padding).as_slice())
    })
}

fn part<'a>(
    ((input, weights), operands): (&(ConvInput, &ConvWeights), &'a Operands<'a>),
) -> Result<Part<'a>> {
    let (_, h, w, cin) = input.frames.dims4()?;
    let plane = h * w * cin;
    let past = operands.past.as_deref().unwrap_or_default();
    let given = past.chunks_exact(plane).chain(operands.frames.chunks_exact(plane));
    Ok(Part {
        frames: std::iter::repeat_n(None, input.zeros).chain(given.map(Some)).collect(),
        weights: &operands.packed,
        padded: operands.padded.as_deref(),
        kernel: weights.kernel,
        stride: weights.stride,
        cin,
        width: w,
    })
}

impl Job<'_> {
    /// Whether [`direct`] can compute all parts.
    fn is_direct(&self) -> bool {
        let fits = |part: &Part| part.padded.is_some() && part.stride[1..] == [1, 1];
        self.output.width >= direct::LEAST_WIDTH && self.parts.iter().all(fits)
    }

    fn run(&self, size: [usize; 4]) -> Result<Vec<f32>> {
        let widest = self.parts.iter().map(|part| part.width).max().unwrap_or(1);
        let is_direct = self.is_direct();
        self.output.filled(size, widest, |rows, tile| match is_direct {
            true => self.rows_directly(rows, tile),
            false => self.rows(rows, tile),
        })
    }

    /// Computes some whole rows of a frame.
    fn rows(&self, rows: &Rows, mut tile: TileMut) {
        let (&Output { width, cout, .. }, count) = (self.output, rows.rows.len());
        // All parts have planes of one width where they have no stride: those of one kernel.
        let step = match self.parts.iter().all(|part| part.stride[1..] == [1, 1]) {
            true => self.parts.iter().map(|part| part.width).max().unwrap_or(width),
            false => width,
        };
        with_scratch(((count - 1) * step + width) * cout, |sums| {
            let mut started = false;
            for part in &self.parts {
                for kt in 0..part.kernel[0] {
                    let Some(frame) = part.frames[rows.frame * part.stride[0] + kt] else {
                        continue;
                    };
                    for kh in 0..part.kernel[1] {
                        self.tap_row(part, frame, [kt, kh], rows, (&mut *sums, step), started);
                        started = true;
                    }
                }
            }
            if !started {
                sums.fill(0.0);
            }
            for (index, row) in rows.rows.clone().enumerate() {
                let out = self.output.line(&mut tile, row);
                out.copy_from_slice(&sums[index * step * cout..][..width * cout]);
                self.output.finish(rows, row, out);
            }
        });
    }

    /// The same by [`direct`].
    fn rows_directly(&self, rows: &Rows, mut tile: TileMut) {
        let cout = self.output.cout;
        let lanes = cout.next_multiple_of(math::LANES);
        let mut taps = Vec::new();
        for row in rows.rows.clone() {
            taps.clear();
            for part in &self.parts {
                let size = part.kernel[2] * part.cin * lanes;
                let weights = part.padded.unwrap_or_default();
                for kt in 0..part.kernel[0] {
                    let Some(frame) = part.frames[rows.frame * part.stride[0] + kt] else {
                        continue;
                    };
                    taps.extend((0..part.kernel[1]).map(|kh| TapRow {
                        input: &frame[(row + kh) * part.width * part.cin..],
                        weights: &weights[(kt * part.kernel[1] + kh) * size..][..size],
                        step: part.cin,
                    }));
                }
            }
            let out = self.output.line(&mut tile, row);
            direct::row(&taps, lanes, out, cout);
            self.output.finish(rows, row, out);
        }
    }

    /// Adds one (time, row) of a kernel to the sums of all pixels of some rows, which lie `step`
    /// pixels apart.
    fn tap_row(
        &self,
        part: &Part,
        frame: &[f32],
        [kt, kh]: [usize; 2],
        rows: &Rows,
        (sums, step): (&mut [f32], usize),
        accumulate: bool,
    ) {
        let (cin, wide) = (part.cin, part.width);
        let &Output { width, cout, .. } = self.output;
        let [_, down, right] = part.stride;
        let k = part.kernel[2] * cin;
        let tap = &part.weights[(kt * part.kernel[1] + kh) * k * cout..][..k * cout];
        let rhs = Matrix::rows(tap, cout);
        let first = (rows.rows.start * down + kh) * wide * cin;
        let lhs = |start: usize| Matrix::rows(&frame[start..], right * cin);
        if down == 1 && right == 1 && step == wide {
            // All rows at once: pixels in the padding between them are computed and not used.
            let pixels = (rows.rows.len() - 1) * wide + width;
            TileMut::new(sums, pixels, cout, cout).multiply(k, lhs(first), rhs, accumulate);
        } else {
            for r in 0..rows.rows.len() {
                let start = first + r * down * wide * cin;
                let sums = &mut sums[r * step * cout..][..width * cout];
                TileMut::new(sums, width, cout, cout).multiply(k, lhs(start), rhs, accumulate);
            }
        }
    }
}
