//! Products of matrices.

use candle_core::{D, DType, Device, Tensor};
use kino_node::Result;

use super::call::OpCall;
use super::shape::plain;

pub(super) fn matmul(call: &OpCall) -> Result<Tensor> {
    let ([a, b], shape) = ([&call.tensors[0], &call.tensors[1]], call.shape());
    let (lead, [m, n]) = (&shape[..shape.len() - 2], [a.dim(D::Minus2)?, b.dim(D::Minus1)?]);
    let k = a.dim(D::Minus1)?;
    if k == 0 {
        return Ok(Tensor::zeros(shape, a.dtype(), a.device())?);
    }
    let [a, b] = [accumulating(call, a)?, accumulating(call, b)?];
    let product = batched(call, &a, &b, lead, [m, k, n])?;
    Ok(product.reshape(shape)?.to_dtype(call.tensors[0].dtype())?)
}

/// In a type whose products are summed in f32: on the CPU those of f16 with few rows are not.
fn accumulating(call: &OpCall, x: &Tensor) -> Result<Tensor> {
    match (x.dtype(), x.device()) {
        (DType::F16, Device::Cpu) => {
            call.scratch(x.dims(), DType::F32)?;
            Ok(x.to_dtype(DType::F32)?)
        }
        _ => Ok(x.clone()),
    }
}

/// `a` `[…, m, k]` by `b` `[…, k, n]`, whose leading dimensions broadcast to `lead`; the shape of
/// the result is left open.
fn batched(
    call: &OpCall,
    a: &Tensor,
    b: &Tensor,
    lead: &[usize],
    [m, k, n]: [usize; 3],
) -> Result<Tensor> {
    let batch: usize = lead.iter().product();
    if b.elem_count() == k * n {
        // One b for all: the rows of all a are one matrix.
        let a = dense(a)?.reshape((batch * m, k))?; // [batch·m, k]
        let b = dense(b)?.reshape((k, n))?;
        return rows_by(call, &a, &b); // [batch·m, n]
    }
    let a_shape = [lead, &[m, k]].concat();
    let b_shape = [lead, &[k, n]].concat();
    call.scratch(&a_shape, a.dtype())?;
    call.scratch(&b_shape, b.dtype())?;
    let a = dense(&a.broadcast_as(a_shape)?)?.reshape((batch, m, k))?;
    let b = dense(&b.broadcast_as(b_shape)?)?.reshape((batch, k, n))?;
    call.piecewise(batch, m * k * n, 0, |first, count| {
        let (a, b) = (a.narrow(0, first, count)?, b.narrow(0, first, count)?);
        match count {
            1 => Ok(rows_by(call, &a.squeeze(0)?, &b.squeeze(0)?)?.unsqueeze(0)?),
            _ => Ok(a.matmul(&b)?),
        }
    })
}

/// `[m, k]` by `[k, n]`, some rows at a time.
pub(super) fn rows_by(call: &OpCall, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let ((m, k), n) = (a.dims2()?, b.dim(1)?);
    call.piecewise(m, k * n, 0, |first, count| match count == m {
        true => Ok(a.matmul(b)?),
        false => Ok(dense(&a.narrow(0, first, count)?)?.matmul(b)?),
    })
}

/// Without gaps. On the CPU a product of bf16 widens all that lies behind a view, so those are
/// always copied.
fn dense(x: &Tensor) -> Result<Tensor> {
    match x.dtype() {
        DType::BF16 => Ok(x.force_contiguous()?),
        _ => plain(x),
    }
}
