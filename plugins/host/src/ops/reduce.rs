//! Operations along dimensions.
//!
//! f16 and bf16 are summed in f32, whole numbers in i64.

use candle_core::{DType, Tensor};
use kino_node::{Error, Result};

use super::call::Call;
use super::shape::{any, dimension, dimensions, filled, floating, nan, pick, plain, wide};
use super::unary::range;

/// Which dimensions of a tensor are reduced, and what is left.
struct Reduction<'a> {
    x: &'a Tensor,
    dims: Vec<usize>,
    /// The shape of the result.
    shape: Vec<usize>,
}

impl<'a> Reduction<'a> {
    fn new(call: &Call<'a>, dims: Vec<usize>) -> Result<Self> {
        let x = &call.tensors[0];
        let keep = call.flag("keep")?;
        let mut kept = x.dims().to_vec();
        dims.iter().for_each(|dim| kept[*dim] = 1);
        let left = (0..x.rank()).filter(|dim| keep || !dims.contains(dim));
        let shape = left.map(|dim| kept[dim]).collect();
        Ok(Self { x, dims, shape })
    }

    /// Over the dimensions `dims`, else over all.
    fn of_dims(call: &Call<'a>) -> Result<Self> {
        let x = &call.tensors[0];
        let dims = match call.ints_given("dims")? {
            Some(dims) => dimensions(&dims, x.dims())?,
            None => (0..x.rank()).collect(),
        };
        Self::new(call, dims)
    }

    /// Elements that become one.
    fn count(&self) -> usize {
        self.dims.iter().map(|dim| self.x.dims()[*dim]).product()
    }

    /// Whether the result has no elements.
    fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    fn zeros(&self, dtype: DType) -> Result<Tensor> {
        Ok(Tensor::zeros(self.shape.as_slice(), dtype, self.x.device())?)
    }

    /// The sum, in the wider type.
    fn sum(&self) -> Result<Tensor> {
        let dtype = wide(self.x.dtype());
        if self.is_empty() || self.count() == 0 {
            return self.zeros(dtype);
        }
        let mut dims: Vec<_> =
            self.dims.iter().copied().filter(|d| self.x.dims()[*d] > 1).collect();
        dims.sort_unstable();
        let mut sum = plain(self.x)?.to_dtype(dtype)?;
        if !dims.is_empty() {
            sum = sum.sum_keepdim(dims)?;
        }
        Ok(sum.reshape(self.shape.as_slice())?)
    }

    /// Refuses to choose from nothing.
    fn some(&self) -> Result<()> {
        if self.count() == 0 && !self.is_empty() {
            let shape = self.x.dims();
            return Err(Error::failed(format!("there is no element to choose in {shape:?}")));
        }
        Ok(())
    }

    /// The greatest or least, with its dimensions kept; what is not a number wins.
    fn extreme(&self, along: Along) -> Result<Tensor> {
        let best = self.fold(plain(self.x)?, along)?;
        if !self.x.dtype().is_float() {
            return Ok(best);
        }
        let bad = self.fold(nan(self.x)?, |marks, dim| marks.max_keepdim(dim))?;
        pick(&bad, &filled(f64::NAN, &best)?, &best)
    }

    fn fold(&self, x: Tensor, along: Along) -> Result<Tensor> {
        let dims = self.dims.iter().filter(|dim| self.x.dims()[**dim] > 1);
        dims.copied().try_fold(x, |x, dim| plain(&along(&x, dim)?))
    }
}

type Along = fn(&Tensor, usize) -> candle_core::Result<Tensor>;

fn greatest(x: &Tensor, dim: usize) -> candle_core::Result<Tensor> {
    x.max_keepdim(dim)
}

fn least(x: &Tensor, dim: usize) -> candle_core::Result<Tensor> {
    x.min_keepdim(dim)
}

/// Back to the type of the operand; sums of whole numbers may leave it.
fn narrowed(sum: Tensor, dtype: DType) -> Result<Tensor> {
    if !dtype.is_float() && dtype != DType::I64 {
        let [min, max] = range(dtype);
        let [min, max] = [min, max].map(|end| Tensor::new(end, sum.device()));
        let outside = sum.broadcast_lt(&min?)?.maximum(&sum.broadcast_gt(&max?)?)?;
        if any(&outside)? {
            return Err(Error::advised(
                format!("the sum leaves the range of {}", dtype.as_str()),
                "`cast` to i64 first",
            ));
        }
    }
    Ok(sum.to_dtype(dtype)?)
}

pub(super) fn sum(call: &Call) -> Result<Tensor> {
    let reduction = Reduction::of_dims(call)?;
    let x = reduction.x;
    call.room(&reduction.shape, x.dtype())?;
    call.scratch(x.dims(), wide(x.dtype()))?;
    match reduction.is_empty() {
        true => reduction.zeros(x.dtype()),
        false => narrowed(reduction.sum()?, x.dtype()),
    }
}

pub(super) fn mean(call: &Call) -> Result<Tensor> {
    let reduction = Reduction::of_dims(call)?;
    let x = reduction.x;
    floating(x)?;
    call.room(&reduction.shape, x.dtype())?;
    call.scratch(x.dims(), wide(x.dtype()))?;
    if reduction.is_empty() {
        return reduction.zeros(x.dtype());
    }
    let sum = reduction.sum()?;
    let count = filled(reduction.count() as f64, &sum)?;
    Ok(sum.div(&count)?.to_dtype(x.dtype())?)
}

fn extreme(call: &Call, along: Along) -> Result<Tensor> {
    let reduction = Reduction::of_dims(call)?;
    let dtype = reduction.x.dtype();
    call.room(&reduction.shape, dtype)?;
    call.scratch(reduction.x.dims(), dtype)?;
    reduction.some()?;
    if reduction.is_empty() {
        return reduction.zeros(dtype);
    }
    Ok(reduction.extreme(along)?.reshape(reduction.shape.as_slice())?)
}

pub(super) fn max_of(call: &Call) -> Result<Tensor> {
    extreme(call, greatest)
}

pub(super) fn min_of(call: &Call) -> Result<Tensor> {
    extreme(call, least)
}

/// The first index of the greatest or least. Devices differ in which of equals they report, so it
/// is the least among the indices of all of them.
fn arg(call: &Call, along: Along) -> Result<Tensor> {
    let x = &call.tensors[0];
    let dim = dimension(call.int("dim")?, x.dims())?;
    let reduction = Reduction::new(call, vec![dim])?;
    call.room(&reduction.shape, DType::U32)?;
    call.scratch(x.dims(), DType::U32)?;
    reduction.some()?;
    if reduction.is_empty() {
        return reduction.zeros(DType::U32);
    }
    let Ok(size) = u32::try_from(x.dims()[dim]) else {
        return Err(Error::failed(format!("dimension {dim} of {:?} exceeds u32", x.dims())));
    };
    let best = reduction.extreme(along)?.broadcast_as(x.shape())?;
    let mut found = x.eq(&best)?;
    if x.dtype().is_float() {
        found = found.maximum(&nan(x)?)?;
    }
    let mut line = vec![1; x.rank()];
    line[dim] = x.dims()[dim];
    let places = Tensor::arange(0, size, x.device())?.reshape(line)?.broadcast_as(x.shape())?;
    let none = Tensor::new(u32::MAX, x.device())?.broadcast_as(x.shape())?;
    let places = plain(&pick(&found, &places, &none)?)?;
    Ok(reduction.fold(places, least)?.reshape(reduction.shape.as_slice())?)
}

pub(super) fn argmax(call: &Call) -> Result<Tensor> {
    arg(call, greatest)
}

pub(super) fn argmin(call: &Call) -> Result<Tensor> {
    arg(call, least)
}

pub(super) fn softmax(call: &Call) -> Result<Tensor> {
    let x = &call.tensors[0];
    let dim = dimension(call.int("dim")?, x.dims())?;
    floating(x)?;
    let dtype = wide(x.dtype());
    call.room(x.dims(), x.dtype())?;
    call.scratch(x.dims(), dtype)?;
    if x.elem_count() == 0 {
        return Ok(x.clone());
    }
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
pub(super) fn cumsum(call: &Call) -> Result<Tensor> {
    let x = &call.tensors[0];
    let dim = dimension(call.int("dim")?, x.dims())?;
    let dtype = wide(x.dtype());
    call.room(x.dims(), x.dtype())?;
    call.scratch(x.dims(), dtype)?;
    if x.elem_count() == 0 {
        return Ok(x.clone());
    }
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
