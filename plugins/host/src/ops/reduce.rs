//! Operations along dimensions.

use candle_core::{D, DType, Tensor};
use kino_node::{Error, Result};

use super::attributes::Attributes;
use super::dimension;
use super::elementwise::floats;

/// The dimensions to reduce, all unless given, and whether they stay with size 1.
fn which(tensor: &Tensor, attributes: &mut Attributes) -> Result<(Vec<usize>, bool)> {
    let rank = tensor.rank();
    let mut dims = match attributes.ints_or_none("dims")? {
        None => (0..rank).collect(),
        Some(dims) => {
            dims.into_iter().map(|dim| dimension(dim, rank)).collect::<Result<Vec<_>>>()?
        }
    };
    dims.sort_unstable();
    dims.dedup();
    Ok((dims, attributes.truth_or("keep", false)?))
}

/// Takes the dimensions of size 1 away that are not to stay.
fn dropped(tensor: Tensor, dims: &[usize], keep: bool) -> Result<Tensor> {
    if keep {
        return Ok(tensor);
    }
    let left = tensor.dims().iter().enumerate().filter(|(index, _)| !dims.contains(index));
    let shape: Vec<usize> = left.map(|(_, size)| *size).collect();
    Ok(tensor.reshape(shape)?)
}

pub(super) fn sum(tensors: &[Tensor], attributes: &mut Attributes) -> Result<Tensor> {
    let (dims, keep) = which(&tensors[0], attributes)?;
    dropped(tensors[0].sum_keepdim(dims.as_slice())?, &dims, keep)
}

pub(super) fn mean(tensors: &[Tensor], attributes: &mut Attributes) -> Result<Tensor> {
    floats(&tensors[0])?;
    let (dims, keep) = which(&tensors[0], attributes)?;
    let count: usize = dims.iter().map(|dim| tensors[0].dims()[*dim]).product();
    let sum = tensors[0].sum_keepdim(dims.as_slice())?;
    dropped(sum.affine(1.0 / count as f64, 0.0)?, &dims, keep)
}

fn extreme(
    tensors: &[Tensor],
    attributes: &mut Attributes,
    along: fn(&Tensor, usize) -> candle_core::Result<Tensor>,
) -> Result<Tensor> {
    let (dims, keep) = which(&tensors[0], attributes)?;
    let mut result = tensors[0].clone();
    for dim in &dims {
        not_empty(&result, *dim)?;
        result = along(&result.contiguous()?, *dim)?;
    }
    dropped(result, &dims, keep)
}

fn not_empty(tensor: &Tensor, dim: usize) -> Result<()> {
    if tensor.elem_count() == 0 {
        return Err(Error::failed(format!(
            "nothing is the greatest or least along dimension {dim} of {:?}",
            tensor.dims()
        )));
    }
    Ok(())
}

pub(super) fn max_of(tensors: &[Tensor], attributes: &mut Attributes) -> Result<Tensor> {
    extreme(tensors, attributes, |tensor, dim| tensor.max_keepdim(dim))
}

pub(super) fn min_of(tensors: &[Tensor], attributes: &mut Attributes) -> Result<Tensor> {
    extreme(tensors, attributes, |tensor, dim| tensor.min_keepdim(dim))
}

fn index(
    tensors: &[Tensor],
    attributes: &mut Attributes,
    along: fn(&Tensor, usize) -> candle_core::Result<Tensor>,
) -> Result<Tensor> {
    let dim = dimension(attributes.int("dim")?, tensors[0].rank())?;
    let keep = attributes.truth_or("keep", false)?;
    not_empty(&tensors[0], dim)?;
    dropped(along(&tensors[0].contiguous()?, dim)?, &[dim], keep)
}

pub(super) fn argmax(tensors: &[Tensor], attributes: &mut Attributes) -> Result<Tensor> {
    index(tensors, attributes, |tensor, dim| tensor.argmax_keepdim(dim))
}

pub(super) fn argmin(tensors: &[Tensor], attributes: &mut Attributes) -> Result<Tensor> {
    index(tensors, attributes, |tensor, dim| tensor.argmin_keepdim(dim))
}

pub(super) fn softmax(tensors: &[Tensor], attributes: &mut Attributes) -> Result<Tensor> {
    floats(&tensors[0])?;
    let dim = dimension(attributes.int_or("dim", -1)?, tensors[0].rank())?;
    if tensors[0].elem_count() == 0 {
        return Ok(tensors[0].clone());
    }
    let exp = tensors[0].broadcast_sub(&tensors[0].contiguous()?.max_keepdim(dim)?)?.exp()?;
    Ok(exp.broadcast_div(&exp.sum_keepdim(dim)?)?)
}

/// Sums are kept in f64.
pub(super) fn cumsum(tensors: &[Tensor], attributes: &mut Attributes) -> Result<Tensor> {
    floats(&tensors[0])?;
    let dim = dimension(attributes.int("dim")?, tensors[0].rank())?;
    let (dtype, size) = (tensors[0].dtype(), tensors[0].dims()[dim]);
    if tensors[0].elem_count() == 0 {
        return Ok(tensors[0].clone());
    }
    let last = tensors[0].to_dtype(DType::F32)?.transpose(dim, D::Minus1)?.contiguous()?;
    let mut sums: Vec<f32> = last.to_device(&candle_core::Device::Cpu)?.flatten_all()?.to_vec1()?;
    for row in sums.chunks_exact_mut(size) {
        let mut sum = 0.0;
        for value in row {
            sum += f64::from(*value);
            *value = sum as f32;
        }
    }
    let sums = Tensor::from_vec(sums, last.dims(), tensors[0].device())?;
    Ok(sums.transpose(dim, D::Minus1)?.contiguous()?.to_dtype(dtype)?)
}
