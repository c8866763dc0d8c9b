//! Operations along dimensions.
//!
//! f16 and bf16 are summed in f32, whole numbers in i64.

use candle_core::{DType, Tensor};
use kino_contract::ops::{Extremum, OpError, ReduceOp};
use kino_node::Result;

use super::call::{OpCall, refused};
use super::shape::{any, filled, nan, of_candle, pick, plain, wide};

pub(super) fn reduce(call: &OpCall, by: ReduceOp, dims: &[usize]) -> Result<Tensor> {
    let x = &call.tensors[0];
    let count: usize = dims.iter().map(|dim| x.dims()[*dim]).product();
    let reduced = match by {
        ReduceOp::Sum => narrowed(sum(call, dims)?, x.dtype())?,
        ReduceOp::Mean => {
            let sum = sum(call, dims)?;
            sum.div(&filled(count as f64, &sum)?)?.to_dtype(x.dtype())?
        }
        ReduceOp::Extreme(of) => {
            call.scratch(x.dims(), x.dtype())?;
            extreme(x, of, dims)?
        }
    };
    Ok(reduced.reshape(call.shape())?)
}

/// The sum in the wider type, with its dimensions kept.
fn sum(call: &OpCall, dims: &[usize]) -> Result<Tensor> {
    let x = &call.tensors[0];
    let dtype = wide(x.dtype());
    if x.elem_count() == 0 {
        return Ok(Tensor::zeros(call.shape(), dtype, x.device())?);
    }
    call.scratch(x.dims(), dtype)?;
    let mut dims: Vec<_> = dims.iter().copied().filter(|dim| x.dims()[*dim] > 1).collect();
    dims.sort_unstable();
    let wide = plain(x)?.to_dtype(dtype)?;
    Ok(if dims.is_empty() { wide } else { wide.sum_keepdim(dims)? })
}

/// Back to the type of the operand; sums of whole numbers may leave it.
fn narrowed(sum: Tensor, dtype: DType) -> Result<Tensor> {
    if let Some(ends) = of_candle(dtype)?.range()
        && dtype != DType::I64
    {
        let [min, max] = ends.map(|end| Tensor::new(end, sum.device()));
        let outside = sum.broadcast_lt(&min?)?.maximum(&sum.broadcast_gt(&max?)?)?;
        if any(&outside)? {
            return Err(refused(OpError::sum_leaves(of_candle(dtype)?)));
        }
    }
    Ok(sum.to_dtype(dtype)?)
}

/// The greatest or least, with its dimensions kept; what is not a number wins.
fn extreme(x: &Tensor, of: Extremum, dims: &[usize]) -> Result<Tensor> {
    let best = fold(plain(x)?, of, dims)?;
    if !x.dtype().is_float() {
        return Ok(best);
    }
    let bad = fold(nan(x)?, Extremum::Max, dims)?;
    pick(&bad, &filled(f64::NAN, &best)?, &best)
}

fn fold(x: Tensor, of: Extremum, dims: &[usize]) -> Result<Tensor> {
    let dims: Vec<_> = dims.iter().copied().filter(|dim| x.dims()[*dim] > 1).collect();
    dims.into_iter().try_fold(x, |x, dim| {
        plain(&match of {
            Extremum::Max => x.max_keepdim(dim)?,
            Extremum::Min => x.min_keepdim(dim)?,
        })
    })
}

/// The first index of the greatest or least. Devices differ in which of equals they report, so it
/// is the least among the indices of all of them.
pub(super) fn arg(call: &OpCall, of: Extremum, dim: usize) -> Result<Tensor> {
    let x = &call.tensors[0];
    call.scratch(x.dims(), DType::U32)?;
    let best = extreme(x, of, &[dim])?.broadcast_as(x.shape())?;
    let mut found = x.eq(&best)?;
    if x.dtype().is_float() {
        found = found.maximum(&nan(x)?)?;
    }
    let mut line = vec![1; x.rank()];
    line[dim] = x.dims()[dim];
    // The plan has seen that it fits.
    let places = Tensor::arange(0, x.dims()[dim] as u32, x.device())?.reshape(line)?;
    let none = Tensor::new(u32::MAX, x.device())?.broadcast_as(x.shape())?;
    let places = plain(&pick(&found, &places.broadcast_as(x.shape())?, &none)?)?;
    Ok(fold(places, Extremum::Min, &[dim])?.reshape(call.shape())?)
}

pub(super) fn softmax(call: &OpCall, dim: usize) -> Result<Tensor> {
    let x = &call.tensors[0];
    let dtype = wide(x.dtype());
    call.scratch(x.dims(), dtype)?;
    let last = x.rank() - 1;
    let lines = plain(&x.transpose(dim, last)?)?.to_dtype(dtype)?; // dim comes last
    let shares = match dtype {
        DType::F64 => {
            let powers = lines.broadcast_sub(&lines.max_keepdim(last)?)?.exp()?;
            powers.broadcast_div(&powers.sum_keepdim(last)?)?
        }
        _ => kino_kernels::softmax_last(&lines)?,
    };
    plain(&shares.transpose(dim, last)?.to_dtype(x.dtype())?)
}

/// In steps that double: log₂ n passes, whatever the device.
pub(super) fn cumsum(call: &OpCall, dim: usize) -> Result<Tensor> {
    let x = &call.tensors[0];
    let dtype = wide(x.dtype());
    call.scratch(x.dims(), dtype)?;
    let size = x.dims()[dim];
    let mut sums = plain(x)?.to_dtype(dtype)?;
    let mut step = 1;
    while step < size {
        let head = plain(&sums.narrow(dim, 0, step)?)?;
        let earlier = sums.narrow(dim, 0, size - step)?;
        let tail = sums.narrow(dim, step, size - step)?.add(&earlier)?;
        sums = Tensor::cat(&[head, tail], dim)?;
        step *= 2;
    }
    narrowed(sums, x.dtype())
}
