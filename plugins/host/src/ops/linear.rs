//! Products of matrices.

use candle_core::{DType, Tensor};
use kino_node::{Error, Result};

use super::call::Call;
use super::shape::{common, floating, plain, same_type};

pub(super) fn matmul(call: &Call) -> Result<Tensor> {
    let [a, b] = [&call.tensors[0], &call.tensors[1]];
    floating(a)?;
    same_type(a, b)?;
    let refuse = |why: &str| Err(Error::failed(format!("{:?} by {:?}: {why}", a.dims(), b.dims())));
    let ([a_lead @ .., m, k], [b_lead @ .., rows, n]) = (a.dims(), b.dims()) else {
        return refuse("both must have two dimensions or more");
    };
    if k != rows {
        return refuse("the inner dimensions differ");
    }
    let Ok(lead) = common(a_lead, b_lead) else {
        return refuse("the leading dimensions do not broadcast");
    };
    let shape = [lead.as_slice(), &[*m, *n]].concat();
    call.room(&shape, a.dtype())?;
    if shape.contains(&0) || *k == 0 {
        return Ok(Tensor::zeros(shape, a.dtype(), a.device())?);
    }
    let batch: usize = lead.iter().product();
    if b_lead.iter().all(|size| *size == 1) {
        // One b for all: the rows of all a are one matrix.
        let a = dense(a)?.reshape((batch * m, *k))?; // [batch·m, k]
        let b = dense(b)?.reshape((*k, *n))?;
        return Ok(rows_by(call, &a, &b)?.reshape(shape)?); // [batch·m, n]
    }
    let a_shape = [lead.as_slice(), &[*m, *k]].concat();
    let b_shape = [lead.as_slice(), &[*k, *n]].concat();
    call.scratch(&a_shape, a.dtype())?;
    call.scratch(&b_shape, b.dtype())?;
    let a = dense(&a.broadcast_as(a_shape)?)?.reshape((batch, *m, *k))?;
    let b = dense(&b.broadcast_as(b_shape)?)?.reshape((batch, *k, *n))?;
    let product = call.piecewise(batch, m * k * n, 0, |first, count| {
        let (a, b) = (a.narrow(0, first, count)?, b.narrow(0, first, count)?);
        match count {
            1 => Ok(rows_by(call, &a.squeeze(0)?, &b.squeeze(0)?)?.unsqueeze(0)?),
            _ => Ok(a.matmul(&b)?),
        }
    })?;
    Ok(product.reshape(shape)?)
}

/// `[m, k]` by `[k, n]`, some rows at a time.
pub(super) fn rows_by(call: &Call, a: &Tensor, b: &Tensor) -> Result<Tensor> {
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
