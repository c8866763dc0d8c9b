//! Convolution over time and space of channels-last activations, without im2col.
//!
//! The input is padded already, so a pixel's neighbours in a row lie side by side: the kw·cin
//! inputs of a tap row are one contiguous run, and the matrix of all pixels has overlapping rows
//! cin apart. Each (time, row) of the kernel is then one product that accumulates into the output.
//! Here is which path takes a convolution, and what it must fulfil.

use candle_core::{Tensor, bail};

use crate::conv_output::Output;
use crate::conv_weights::{ConvInput, ConvWeights};
use crate::dense::{Dense, fast_mixed};
use crate::epilogue::{Activation, DenseEpilogue, Epilogue};
use crate::micro::Precision;
use crate::packed::PackedMatrix;
use crate::{Result, card, composite, conv_panels};

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
    let dtype = activations[0].dtype();
    let packed = parts.iter().map(|(_, weights)| weights.packed());
    let packed = packed.collect::<Option<Vec<_>>>().filter(|packed| {
        let fits = |matrix: &PackedMatrix| matrix.precision() == Precision::of(dtype);
        fast_mixed(&operands)
            && activations.iter().all(|x| x.dtype() == dtype)
            && packed.iter().all(|weights| fits(&weights.matrix))
    });
    match packed {
        Some(packed) => with_output(parts, epilogue, size, |output| {
            conv_panels::conv_sum(parts, &packed, output, (dtype, size))
        }),
        None => composite::conv_sum(parts, epilogue, size),
    }
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
    let ([t, h, w, c], [top, bottom, left, right]) = (size, epilogue.padding);
    let whole = [t, top + h + bottom, left + w + right, c];
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
