//! The same operations written in candle's: slow, for every device and type, and the reference of
//! the fast paths. Norms, softmax and modulation are computed in f32 whatever the type.

use candle_core::{D, DType, Tensor, bail};

use crate::Result;

/// Queries per block of [`attention`], so that memory does not grow with their number squared.
const QUERY_BLOCK: usize = 1024;

/// See [`crate::linear`].
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (out, inner) = weight.dims2()?;
    let mut dims = x.dims().to_vec();
    if dims.last() != Some(&inner) {
        bail!(
            "linear: input {dims:?} does not end in {inner}, as the weight [{out}, {inner}] asks"
        );
    }
    let rows = x.elem_count() / inner.max(1);
    let x = x.contiguous()?.reshape((rows, inner))?;
    let y = x.matmul(&weight.t()?)?; // [rows, out]
    let y = match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    if let Some(last) = dims.last_mut() {
        *last = out;
    }
    y.reshape(dims)
}

/// See [`crate::softmax_last`].
pub fn softmax_last(x: &Tensor) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let top = wide.max_keepdim(D::Minus1)?.detach();
    let e = wide.broadcast_sub(&top)?.exp()?;
    let sum = e.sum_keepdim(D::Minus1)?;
    e.broadcast_div(&sum)?.to_dtype(x.dtype())
}

/// See [`crate::attention`].
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Result<Tensor> {
    let (_, queries, _) = q.dims3()?;
    let keys = k.transpose(1, 2)?.contiguous()?; // [heads, d, m]
    let v = v.contiguous()?;
    let mut blocks = Vec::new();
    for start in (0..queries).step_by(QUERY_BLOCK) {
        let q = q.narrow(1, start, QUERY_BLOCK.min(queries - start))?.contiguous()?;
        let scores = (q.matmul(&keys)? * scale)?; // [heads, block, m]
        blocks.push(softmax_last(&scores)?.matmul(&v)?);
    }
    Tensor::cat(&blocks, 1)
}

/// See [`crate::attention_with_bias`].
pub fn attention_with_bias(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    bias: &Tensor,
    scale: f64,
) -> Result<Tensor> {
    let keys = k.transpose(1, 2)?.contiguous()?; // [heads, d, m]
    let scores = (q.contiguous()?.matmul(&keys)? * scale)?; // [heads, n, m]
    let scores = scores.broadcast_add(&bias.to_dtype(scores.dtype())?)?;
    softmax_last(&scores)?.matmul(&v.contiguous()?)
}

/// See [`crate::layer_norm`].
pub fn layer_norm(
    x: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let mut y = centred.broadcast_div(&(variance + eps)?.sqrt()?)?;
    if let Some(weight) = weight {
        y = y.broadcast_mul(&weight.to_dtype(DType::F32)?)?;
    }
    if let Some(bias) = bias {
        y = y.broadcast_add(&bias.to_dtype(DType::F32)?)?;
    }
    y.to_dtype(x.dtype())
}

/// See [`crate::rms_norm`].
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let mean = wide.sqr()?.mean_keepdim(D::Minus1)?;
    let y = wide.broadcast_div(&(mean + eps)?.sqrt()?)?;
    y.broadcast_mul(&weight.to_dtype(DType::F32)?)?.to_dtype(x.dtype())
}

/// See [`crate::modulate`].
pub fn modulate(x: &Tensor, shift: &Tensor, scale: &Tensor, eps: f64) -> Result<Tensor> {
    let y = layer_norm(&x.to_dtype(DType::F32)?, None, None, eps)?;
    let scale = (scale.to_dtype(DType::F32)? + 1.0)?;
    let y = y.broadcast_mul(&scale)?.broadcast_add(&shift.to_dtype(DType::F32)?)?;
    y.to_dtype(x.dtype())
}

/// See [`crate::gate_add`].
pub fn gate_add(x: &Tensor, y: &Tensor, gate: &Tensor) -> Result<Tensor> {
    let wide = y.to_dtype(DType::F32)?.broadcast_mul(&gate.to_dtype(DType::F32)?)?;
    (x.to_dtype(DType::F32)? + wide)?.to_dtype(x.dtype())
}

/// See [`crate::rope_interleaved`].
pub fn rope_interleaved(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let (n, heads, d) = x.dims3()?;
    let pairs = x.to_dtype(DType::F32)?.reshape((n, heads, d / 2, 2))?; // [n, heads, d/2, 2]
    let (a, b) = (pairs.narrow(3, 0, 1)?, pairs.narrow(3, 1, 1)?);
    let cos = cos.to_dtype(DType::F32)?.reshape((n, 1, d / 2, 1))?;
    let sin = sin.to_dtype(DType::F32)?.reshape((n, 1, d / 2, 1))?;
    let real = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let imaginary = (a.broadcast_mul(&sin)? + b.broadcast_mul(&cos)?)?;
    Tensor::cat(&[real, imaginary], 3)?.reshape((n, heads, d))?.to_dtype(x.dtype())
}
