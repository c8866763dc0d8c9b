//! Products, convolutions, resizing.

use candle_core::{DType, Tensor};
use kino_kernels::Filter;
use kino_node::{Error, Result};

use super::attributes::Attributes;
use super::check_size;
use super::elementwise::floats;

pub(super) fn matmul(tensors: &[Tensor], _: &mut Attributes) -> Result<Tensor> {
    let [a, b] = [&tensors[0], &tensors[1]];
    floats(a)?;
    if a.dtype() != b.dtype() {
        let (a, b) = (a.dtype().as_str(), b.dtype().as_str());
        return Err(Error::failed(format!("the tensors are {a} and {b}")));
    }
    let ([.., m, k], [.., rows, n]) = (a.dims(), b.dims()) else {
        let (a, b) = (a.dims(), b.dims());
        return Err(Error::failed(format!("matrices have two dimensions or more: {a:?} by {b:?}")));
    };
    if k != rows {
        let (a, b) = (a.dims(), b.dims());
        return Err(Error::failed(format!("{a:?} by {b:?}: the inner dimensions differ")));
    }
    let batch: Vec<usize> = a.dims()[..a.rank() - 2].to_vec();
    let other: Vec<usize> = b.dims()[..b.rank() - 2].to_vec();
    let size: usize = batch.iter().chain(&other).fold(1usize, |n, dim| n.saturating_mul(*dim));
    check_size(&[size, *m, *n], a.dtype().size_in_bytes())?;
    if a.elem_count() == 0 || b.elem_count() == 0 {
        let a = a.sum_keepdim(a.rank() - 1)?;
        let b = b.sum_keepdim(b.rank() - 2)?;
        return Ok(a.broadcast_mul(&b)?.zeros_like()?);
    }
    Ok(a.contiguous()?.broadcast_matmul(&b.contiguous()?)?)
}

pub(super) fn conv2d(tensors: &[Tensor], attributes: &mut Attributes) -> Result<Tensor> {
    let [x, weight] = [&tensors[0], &tensors[1]];
    floats(x)?;
    let stride = attributes.size_or("stride", 1)?;
    let padding = attributes.size_or("padding", 0)?;
    let dilation = attributes.size_or("dilation", 1)?;
    let groups = attributes.size_or("groups", 1)?;
    let (Ok((n, c, h, w)), Ok((o, per_group, kh, kw))) = (x.dims4(), weight.dims4()) else {
        let (x, weight) = (x.dims(), weight.dims());
        return Err(Error::failed(format!(
            "x is [n, c, h, w] and weight [o, c/groups, kh, kw], found {x:?} and {weight:?}"
        )));
    };
    if stride == 0 || dilation == 0 || groups == 0 {
        return Err(Error::failed("stride, dilation and groups are at least 1"));
    }
    if per_group.checked_mul(groups) != Some(c) || !o.is_multiple_of(groups) {
        return Err(Error::failed(format!(
            "{c} channels in {groups} groups do not fit weights {:?}",
            weight.dims()
        )));
    }
    let out = |size: usize, kernel: usize| {
        let reach = dilation.checked_mul(kernel.checked_sub(1)?)?.checked_add(1)?;
        let padded = size.checked_add(padding.checked_mul(2)?)?;
        Some(padded.checked_sub(reach)? / stride + 1)
    };
    let (Some(rows), Some(columns)) = (out(h, kh), out(w, kw)) else {
        return Err(Error::failed(format!("a {kw}x{kh} kernel does not fit into {w}x{h}")));
    };
    let size = x.dtype().size_in_bytes();
    check_size(&[n, o, rows, columns], size)?;
    check_size(&[n, c, h + 2 * padding, w + 2 * padding], size)?;
    let shape = (n, o, rows, columns);
    if n * o * rows * columns == 0 || per_group == 0 {
        return Ok(Tensor::zeros(shape, x.dtype(), x.device())?);
    }
    // candle's conv2d on the CPU has no bf16, and views are copied whole.
    let wide = |tensor: &Tensor| tensor.force_contiguous()?.to_dtype(DType::F32);
    let f64s = x.dtype() == DType::F64;
    let (x32, weight32) = if f64s {
        (x.force_contiguous()?, weight.force_contiguous()?)
    } else {
        (wide(x)?, wide(weight)?)
    };
    let mut result = x32.conv2d(&weight32, padding, stride, dilation, groups)?;
    if let Some(bias) = tensors.get(2) {
        if bias.dims() != [o] {
            return Err(Error::failed(format!("bias is [{o}], found {:?}", bias.dims())));
        }
        result = result.broadcast_add(&bias.to_dtype(result.dtype())?.reshape((1, o, 1, 1))?)?;
    }
    Ok(result.to_dtype(x.dtype())?)
}

pub(super) fn resize(tensors: &[Tensor], attributes: &mut Attributes) -> Result<Tensor> {
    let x = &tensors[0];
    floats(x)?;
    let (height, width) = (attributes.size("height")?, attributes.size("width")?);
    let filter: Filter = attributes
        .text_or("filter", "bilinear")?
        .parse()
        .map_err(|_| Error::failed("attribute `filter`: nearest, bilinear, bicubic or lanczos"))?;
    let (n, c, h, w) = x
        .dims4()
        .map_err(|_| Error::failed(format!("it takes [n, c, h, w], found {:?}", x.dims())))?;
    check_size(&[n, c, height.max(h), width.max(w)], 4)?;
    if h * w == 0 || height * width == 0 {
        return Err(Error::failed(format!("{w}x{h} cannot become {width}x{height}")));
    }
    if n * c == 0 {
        return Ok(Tensor::zeros((n, c, height, width), x.dtype(), x.device())?);
    }
    // kino-kernels resizes channels-last frames.
    let frames = x.to_dtype(DType::F32)?.reshape((n * c, h, w, 1))?;
    let resized = kino_kernels::resize(&frames, height, width, filter)?;
    Ok(resized.reshape((n, c, height, width))?.to_dtype(x.dtype())?)
}
