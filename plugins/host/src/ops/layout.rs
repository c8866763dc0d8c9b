//! Operations that move elements and compute nothing.

use candle_core::{Device, Tensor};
use kino_node::{Error, Result};

use super::call::Call;
use super::shape::{dimension, dimensions, plain, same_type};

pub(super) fn reshape(call: &Call) -> Result<Tensor> {
    let x = &call.tensors[0];
    let shape = completed(&call.ints("shape")?, x.elem_count()).ok_or_else(|| {
        let wanted = call.ints("shape").unwrap_or_default();
        Error::failed(format!("{:?} does not become {wanted:?}", x.dims()))
    })?;
    call.room(&shape, x.dtype())?;
    Ok(x.reshape(shape)?)
}

/// The shape of `count` elements that is asked for; one entry may be −1.
fn completed(wanted: &[i64], count: usize) -> Option<Vec<usize>> {
    let known = wanted.iter().filter(|size| **size != -1);
    let known = known.map(|size| usize::try_from(*size).ok()).collect::<Option<Vec<_>>>()?;
    let product = known.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    // Beyond usize is not `count`, unless a later size is 0.
    let product = product.or_else(|| known.contains(&0).then_some(0))?;
    let open = match wanted.len() - known.len() {
        0 if product == count => 0,
        1 if product > 0 && count.is_multiple_of(product) => count / product,
        _ => return None,
    };
    Some(wanted.iter().map(|size| usize::try_from(*size).unwrap_or(open)).collect())
}

pub(super) fn permute(call: &Call) -> Result<Tensor> {
    let x = &call.tensors[0];
    let dims = dimensions(&call.ints("dims")?, x.dims())?;
    if dims.len() != x.rank() {
        let (found, shape) = (dims.len(), x.dims());
        return Err(Error::failed(format!("{found} dimensions in another order, of {shape:?}")));
    }
    call.room(x.dims(), x.dtype())?;
    Ok(x.permute(dims)?)
}

pub(super) fn slice(call: &Call) -> Result<Tensor> {
    let x = &call.tensors[0];
    let dim = dimension(call.int("dim")?, x.dims())?;
    let (start, len) = (call.size("start", 0)?, call.size("len", 0)?);
    if start.checked_add(len).is_none_or(|end| end > x.dims()[dim]) {
        let shape = x.dims();
        return Err(Error::failed(format!(
            "{len} from {start} on reach past the end of dimension {dim} of {shape:?}"
        )));
    }
    Ok(x.narrow(dim, start, len)?)
}

pub(super) fn concat(call: &Call) -> Result<Tensor> {
    let first = &call.tensors[0];
    let dim = dimension(call.int("dim")?, first.dims())?;
    let mut shape = first.dims().to_vec();
    for other in &call.tensors[1..] {
        same_type(first, other)?;
        let fits = other.rank() == first.rank()
            && (0..first.rank()).all(|at| at == dim || other.dims()[at] == first.dims()[at]);
        if !fits {
            let [first, other] = [first.dims(), other.dims()];
            return Err(Error::failed(format!(
                "{first:?} and {other:?} do not join along dimension {dim}"
            )));
        }
        shape[dim] = shape[dim].saturating_add(other.dims()[dim]);
    }
    call.room(&shape, first.dtype())?;
    joined(call.tensors, dim, &shape)
}

/// Tensors that fit, joined along a dimension to a shape.
fn joined(parts: &[Tensor], dim: usize, shape: &[usize]) -> Result<Tensor> {
    let some: Vec<Tensor> =
        parts.iter().filter(|part| part.elem_count() > 0).map(plain).collect::<Result<_>>()?;
    match some.as_slice() {
        [] => Ok(Tensor::zeros(shape, parts[0].dtype(), parts[0].device())?),
        [one] => Ok(one.clone()),
        some => Ok(Tensor::cat(some, dim)?),
    }
}

pub(super) fn broadcast(call: &Call) -> Result<Tensor> {
    let x = &call.tensors[0];
    let wanted = call.ints("shape")?;
    let refuse = || Error::failed(format!("{:?} does not broadcast to {wanted:?}", x.dims()));
    let shape: Option<Vec<usize>> = wanted.iter().map(|size| usize::try_from(*size).ok()).collect();
    let shape = shape.ok_or_else(refuse)?;
    let mut pairs = x.dims().iter().rev().zip(shape.iter().rev());
    if x.rank() > shape.len() || !pairs.all(|(from, to)| from == to || *from == 1) {
        return Err(refuse());
    }
    call.room(&shape, x.dtype())?;
    if shape.contains(&0) {
        return Ok(Tensor::zeros(shape, x.dtype(), x.device())?);
    }
    plain(&x.broadcast_as(shape)?)
}

pub(super) fn flip(call: &Call) -> Result<Tensor> {
    let x = &call.tensors[0];
    let dims = dimensions(&call.ints("dims")?, x.dims())?;
    call.room(x.dims(), x.dtype())?;
    let mut flipped = x.clone();
    for dim in dims.into_iter().filter(|dim| x.elem_count() > 0 && x.dims()[*dim] > 1) {
        let order: Vec<i64> = (0..x.dims()[dim] as i64).rev().collect();
        flipped = plain(&flipped)?.index_select(&Tensor::new(order, x.device())?, dim)?;
    }
    Ok(flipped)
}

/// What lies beyond the ends of a padded dimension.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Zeros,
    Edge,
}

pub(super) fn pad(call: &Call) -> Result<Tensor> {
    let x = &call.tensors[0];
    let dim = dimension(call.int("dim")?, x.dims())?;
    let (before, after) = (call.size("before", 0)?, call.size("after", 0)?);
    let mode = call.choice("mode", &[("zeros", Mode::Zeros), ("edge", Mode::Edge)])?;
    let size = x.dims()[dim];
    let mut shape = x.dims().to_vec();
    shape[dim] = size.saturating_add(before).saturating_add(after);
    call.room(&shape, x.dtype())?;
    if size == 0 && mode == Mode::Edge && before + after > 0 {
        return Err(Error::failed(format!(
            "dimension {dim} of {:?} has no edge to repeat",
            x.dims()
        )));
    }
    if shape.contains(&0) {
        return Ok(Tensor::zeros(shape, x.dtype(), x.device())?);
    }
    let beyond = |count: usize, edge: usize| -> Result<Tensor> {
        let mut shape = shape.clone();
        shape[dim] = count;
        match mode {
            Mode::Edge if count > 0 => Ok(x.narrow(dim, edge, 1)?.broadcast_as(shape)?),
            _ => Ok(Tensor::zeros(shape, x.dtype(), x.device())?),
        }
    };
    let parts = [beyond(before, 0)?, x.clone(), beyond(after, size.saturating_sub(1))?];
    joined(&parts, dim, &shape)
}

pub(super) fn contiguous(call: &Call) -> Result<Tensor> {
    let x = &call.tensors[0];
    call.room(x.dims(), x.dtype())?;
    match x.elem_count() {
        0 => Ok(Tensor::zeros(x.shape(), x.dtype(), x.device())?),
        _ => plain(x),
    }
}

pub(super) fn to_host(call: &Call) -> Result<Tensor> {
    let x = &call.tensors[0];
    if matches!(x.device(), Device::Cpu) {
        return Ok(x.clone());
    }
    // A view would bring all that lies behind it along.
    Ok(x.force_contiguous()?.to_device(&Device::Cpu)?)
}
