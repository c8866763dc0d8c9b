//! Convolution of images.
//!
//! f16 and bf16 are computed in f32 and rounded once. Each way is a sum over the taps of the
//! kernel; nothing unfolds the image.

use candle_core::{DType, Tensor};
use kino_contract::code;
use kino_contract::ops::Conv;
use kino_kernels::{ConvInput, ConvWeights};
use kino_node::{Error, Result};

use super::call::OpCall;
use super::linear::rows_by;
use super::shape::{plain, wide};

/// How a kernel moves over an image.
#[derive(Clone, Copy)]
struct Moves {
    stride: usize,
    dilation: usize,
    groups: usize,
    /// Height and width of the kernel.
    kernel: [usize; 2],
    /// Height and width of the result.
    result: [usize; 2],
}

pub(super) fn conv2d(call: &OpCall, moves: Conv) -> Result<Tensor> {
    let ([x, weight], shape) = ([&call.tensors[0], &call.tensors[1]], call.shape());
    let ((n, c, h, w), (o, _, kh, kw)) = (x.dims4()?, weight.dims4()?);
    let Conv { stride, padding, dilation, groups } = moves;
    let result = [shape[2], shape[3]];
    let moves = Moves { stride, dilation, groups, kernel: [kh, kw], result };
    let dtype = wide(x.dtype());
    call.scratch(shape, dtype)?;
    let bias = call.tensors.get(2).map(|bias| plain(&bias.to_dtype(dtype)?)).transpose()?;
    if x.elem_count() == 0 || weight.elem_count() == 0 {
        let bias = bias.map_or_else(|| Tensor::zeros(o, dtype, x.device()), Ok)?;
        let bias = bias.to_dtype(x.dtype())?.reshape((1, o, 1, 1))?;
        return plain(&bias.broadcast_as(shape)?);
    }
    // The plan has seen that these do not overflow.
    call.scratch(&[n, h + 2 * padding, w + 2 * padding, c], dtype)?;
    let x32 = plain(&x.permute((0, 2, 3, 1))?)?.to_dtype(dtype)?; // [n, h, w, c]
    let x32 = padded(&padded(&x32, 1, padding)?, 2, padding)?;
    let weight = plain(weight)?.to_dtype(dtype)?;
    let y = by_groups(call, &x32, &weight, bias.as_ref(), moves)?; // [n, h', w', o]
    Ok(plain(&y.permute((0, 3, 1, 2))?)?.to_dtype(x.dtype())?)
}

fn padded(x: &Tensor, dim: usize, zeros: usize) -> Result<Tensor> {
    Ok(x.pad_with_zeros(dim, zeros, zeros)?)
}

/// Shapes: `x` `[n, h, w, c]`, already padded; the result is `[n, h', w', o]`.
fn by_groups(
    call: &OpCall,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    moves: Moves,
) -> Result<Tensor> {
    let (o, share, ..) = weight.dims4()?;
    let (groups, each) = (moves.groups, o / moves.groups);
    if groups == 1 {
        return group(call, x, weight, bias, moves);
    }
    if share == 1 && each == 1 {
        return depthwise(call, x, weight, bias, moves);
    }
    let parts = (0..groups).map(|index| {
        let x = plain(&x.narrow(3, index * share, share)?)?;
        let weight = plain(&weight.narrow(0, index * each, each)?)?;
        let bias = bias.map(|bias| plain(&bias.narrow(0, index * each, each)?)).transpose()?;
        group(call, &x, &weight, bias.as_ref(), moves)
    });
    Ok(Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 3)?)
}

/// All channels see each other.
fn group(
    call: &OpCall,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    moves: Moves,
) -> Result<Tensor> {
    let (o, c, taps, columns) = weight.dims4()?;
    if moves.dilation == 1 && x.dtype() == DType::F32 {
        let stride = [1, moves.stride, moves.stride];
        let weights = ConvWeights::pack(weight, bias, stride)?;
        let work = x.dim(0)? * moves.result[1] * o * c * taps * columns;
        return call.piecewise(moves.result[0], work, 1, |first, count| {
            let rows = x.narrow(1, first * moves.stride, (count - 1) * moves.stride + taps)?;
            Ok(kino_kernels::conv(ConvInput::new(&plain(&rows)?), &weights, None)?)
        });
    }
    sum_of_taps(call, x, bias, moves, |part, [kh, kw]| {
        let [n, h, w] = [part.dim(0)?, part.dim(1)?, part.dim(2)?];
        let tap = plain(&weight.narrow(2, kh, 1)?.narrow(3, kw, 1)?)?.reshape((o, c))?;
        let pixels = plain(part)?.reshape((n * h * w, c))?;
        let product = rows_by(call, &pixels, &tap.t()?)?; // [n·h·w, o]
        Ok(product.reshape((n, h, w, o))?)
    })
}

/// Each channel sees itself only.
fn depthwise(
    call: &OpCall,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    moves: Moves,
) -> Result<Tensor> {
    let o = weight.dim(0)?;
    sum_of_taps(call, x, bias, moves, |part, [kh, kw]| {
        let tap = plain(&weight.narrow(2, kh, 1)?.narrow(3, kw, 1)?)?.reshape((1, 1, 1, o))?;
        Ok(part.broadcast_mul(&tap)?)
    })
}

/// Adds what each tap of the kernel gives for the pixels that it lies over.
fn sum_of_taps(
    call: &OpCall,
    x: &Tensor,
    bias: Option<&Tensor>,
    moves: Moves,
    tap: impl Fn(&Tensor, [usize; 2]) -> Result<Tensor>,
) -> Result<Tensor> {
    let mut sum: Option<Tensor> = None;
    for kh in 0..moves.kernel[0] {
        let rows = every(x, 1, kh * moves.dilation, moves.stride, moves.result[0])?;
        for kw in 0..moves.kernel[1] {
            call.go_on()?;
            let part = every(&rows, 2, kw * moves.dilation, moves.stride, moves.result[1])?;
            let term = tap(&part, [kh, kw])?;
            sum = Some(match sum {
                Some(sum) => sum.add(&term)?,
                None => term,
            });
        }
    }
    let sum = sum.ok_or_else(|| Error::coded(code::INVALID, "a kernel without taps"))?;
    match bias {
        Some(bias) => Ok(sum.broadcast_add(bias)?),
        None => Ok(sum),
    }
}

/// `count` slices of an axis, from `start` on, `step` apart.
fn every(x: &Tensor, axis: usize, start: usize, step: usize, count: usize) -> Result<Tensor> {
    if step == 1 || count == 1 {
        return Ok(x.narrow(axis, start, count)?);
    }
    let places: Vec<i64> = (0..count).map(|index| (start + index * step) as i64).collect();
    Ok(plain(x)?.index_select(&Tensor::new(places, x.device())?, axis)?)
}
