//! Operations that move elements and compute none.

use candle_core::{DType, Device, Tensor};
use kino_node::{Error, Result};

use super::attributes::Attributes;
use super::{check_size, dimension};

pub(super) fn cast(tensors: &[Tensor], attributes: &mut Attributes) -> Result<Tensor> {
    let name = attributes.text("dtype")?;
    let dtype = match name.as_str() {
        "u8" => DType::U8,
        "u32" => DType::U32,
        "i16" => DType::I16,
        "i32" => DType::I32,
        "i64" => DType::I64,
        "bf16" => DType::BF16,
        "f16" => DType::F16,
        "f32" => DType::F32,
        "f64" => DType::F64,
        _ => return Err(Error::failed(format!("attribute `dtype`: there is no `{name}`"))),
    };
    Ok(tensors[0].to_dtype(dtype)?)
}

pub(super) fn reshape(tensors: &[Tensor], attributes: &mut Attributes) -> Result<Tensor> {
    let shape = attributes.ints("shape")?;
    let count = tensors[0].elem_count();
    let fault = || {
        Error::failed(format!(
            "{:?} has {count} elements, {shape:?} another number",
            tensors[0].dims()
        ))
    };
    let mut known = shape.iter().filter(|size| **size >= 0);
    let known =
        known.try_fold(1usize, |n, size| n.checked_mul(*size as usize)).ok_or_else(fault)?;
    let open = shape.iter().filter(|size| **size < 0).count();
    if open > 1 || shape.iter().any(|size| *size < -1) || (open == 1 && known == 0) {
        return Err(Error::failed(format!("attribute `shape`: {shape:?} is no shape")));
    }
    let sizes: Vec<usize> =
        shape.iter().map(|size| if *size < 0 { count / known } else { *size as usize }).collect();
    if sizes.iter().product::<usize>() != count {
        return Err(fault());
    }
    Ok(tensors[0].reshape(sizes)?)
}

pub(super) fn permute(tensors: &[Tensor], attributes: &mut Attributes) -> Result<Tensor> {
    let rank = tensors[0].rank();
    let dims = attributes.ints("dims")?;
    let dims = dims.iter().map(|dim| dimension(*dim, rank)).collect::<Result<Vec<_>>>()?;
    let mut sorted = dims.clone();
    sorted.sort_unstable();
    if sorted != (0..rank).collect::<Vec<_>>() {
        return Err(Error::failed(format!("attribute `dims`: {dims:?} is no order of {rank}")));
    }
    Ok(tensors[0].permute(dims)?)
}

pub(super) fn slice(tensors: &[Tensor], attributes: &mut Attributes) -> Result<Tensor> {
    let dim = dimension(attributes.int("dim")?, tensors[0].rank())?;
    let (start, len) = (attributes.size("start")?, attributes.size("len")?);
    let size = tensors[0].dims()[dim];
    if start.checked_add(len).is_none_or(|end| end > size) {
        return Err(Error::failed(format!(
            "{len} from {start} lie beyond the {size} of dimension {dim}"
        )));
    }
    Ok(tensors[0].narrow(dim, start, len)?)
}

pub(super) fn concat(tensors: &[Tensor], attributes: &mut Attributes) -> Result<Tensor> {
    let first = &tensors[0];
    let dim = dimension(attributes.int("dim")?, first.rank())?;
    let mut total = 0usize;
    for tensor in tensors {
        let fits = tensor.rank() == first.rank()
            && tensor.dtype() == first.dtype()
            && tensor.device().same_device(first.device())
            && (0..first.rank()).all(|at| at == dim || tensor.dims()[at] == first.dims()[at]);
        if !fits {
            return Err(Error::failed(format!(
                "{:?} {} and {:?} {} are not joined along dimension {dim}",
                first.dims(),
                first.dtype().as_str(),
                tensor.dims(),
                tensor.dtype().as_str()
            )));
        }
        total = total.saturating_add(tensor.dims()[dim]);
    }
    let mut shape = first.dims().to_vec();
    shape[dim] = total;
    check_size(&shape, first.dtype().size_in_bytes())?;
    Ok(Tensor::cat(tensors, dim)?)
}

fn indices(tensor: &Tensor, size: usize) -> Result<Tensor> {
    if !matches!(tensor.dtype(), DType::U8 | DType::U32 | DType::I64) {
        let found = tensor.dtype().as_str();
        return Err(Error::failed(format!("indices are u32 or i64, found {found}")));
    }
    let all: Vec<i64> = tensor.to_dtype(DType::I64)?.flatten_all()?.to_vec1()?;
    if let Some(index) = all.iter().find(|index| **index < 0 || **index >= size as i64) {
        return Err(Error::failed(format!("there is no index {index} among {size}")));
    }
    Ok(tensor.contiguous()?)
}

pub(super) fn gather(tensors: &[Tensor], attributes: &mut Attributes) -> Result<Tensor> {
    let [a, at] = [&tensors[0], &tensors[1]];
    let dim = dimension(attributes.int("dim")?, a.rank())?;
    let fits = at.rank() == a.rank()
        && (0..a.rank()).all(|other| other == dim || at.dims()[other] <= a.dims()[other]);
    if !fits {
        let (a, at) = (a.dims(), at.dims());
        return Err(Error::failed(format!("indices {at:?} do not fit {a:?} along {dim}")));
    }
    let at = indices(at, a.dims()[dim])?;
    let mut a = a.clone();
    for other in (0..a.rank()).filter(|other| *other != dim) {
        a = a.narrow(other, 0, at.dims()[other])?;
    }
    Ok(a.contiguous()?.gather(&at, dim)?)
}

pub(super) fn index_select(tensors: &[Tensor], attributes: &mut Attributes) -> Result<Tensor> {
    let [a, at] = [&tensors[0], &tensors[1]];
    let dim = dimension(attributes.int("dim")?, a.rank())?;
    if at.rank() != 1 {
        return Err(Error::failed(format!("indices are [n], found {:?}", at.dims())));
    }
    let mut shape = a.dims().to_vec();
    shape[dim] = at.elem_count();
    check_size(&shape, a.dtype().size_in_bytes())?;
    Ok(a.contiguous()?.index_select(&indices(at, a.dims()[dim])?, dim)?)
}

pub(super) fn broadcast(tensors: &[Tensor], attributes: &mut Attributes) -> Result<Tensor> {
    let shape = attributes.ints("shape")?;
    let sizes = shape.iter().map(|size| usize::try_from(*size).ok()).collect::<Option<Vec<_>>>();
    let sizes = sizes.ok_or_else(|| Error::failed(format!("{shape:?} is no shape")))?;
    check_size(&sizes, tensors[0].dtype().size_in_bytes())?;
    let dims = tensors[0].dims();
    let fits = dims.len() <= sizes.len()
        && dims.iter().rev().zip(sizes.iter().rev()).all(|(from, to)| from == to || *from == 1);
    if !fits {
        return Err(Error::failed(format!("{dims:?} does not broadcast to {sizes:?}")));
    }
    Ok(tensors[0].broadcast_as(sizes)?.contiguous()?)
}

pub(super) fn flip(tensors: &[Tensor], attributes: &mut Attributes) -> Result<Tensor> {
    let dims = attributes.ints("dims")?;
    let mut result = tensors[0].clone();
    for dim in dims {
        let dim = dimension(dim, result.rank())?;
        let size = result.dims()[dim];
        if size == 0 {
            continue;
        }
        let order: Vec<u32> = (0..size as u32).rev().collect();
        let order = Tensor::from_vec(order, size, result.device())?;
        result = result.contiguous()?.index_select(&order, dim)?;
    }
    Ok(result)
}

pub(super) fn pad(tensors: &[Tensor], attributes: &mut Attributes) -> Result<Tensor> {
    let dim = dimension(attributes.int("dim")?, tensors[0].rank())?;
    let (before, after) = (attributes.size_or("before", 0)?, attributes.size_or("after", 0)?);
    let mode = attributes.text_or("mode", "zeros")?;
    let mut shape = tensors[0].dims().to_vec();
    shape[dim] = shape[dim].saturating_add(before).saturating_add(after);
    check_size(&shape, tensors[0].dtype().size_in_bytes())?;
    match mode.as_str() {
        "zeros" => Ok(tensors[0].pad_with_zeros(dim, before, after)?),
        "edge" if tensors[0].elem_count() == 0 => {
            Err(Error::failed(format!("{:?} has no edge to repeat", tensors[0].dims())))
        }
        "edge" => Ok(tensors[0].pad_with_same(dim, before, after)?),
        other => Err(Error::failed(format!("attribute `mode`: zeros or edge, found \"{other}\""))),
    }
}

pub(super) fn contiguous(tensors: &[Tensor], _: &mut Attributes) -> Result<Tensor> {
    Ok(tensors[0].contiguous()?)
}

pub(super) fn to_host(tensors: &[Tensor], _: &mut Attributes) -> Result<Tensor> {
    Ok(tensors[0].to_device(&Device::Cpu)?)
}
