//! The operations of a transformer: shapes checked here, computed by a fast path or [`composite`].

use candle_core::{Tensor, bail};

use crate::{Result, composite};

/// x·Wᵀ + b over the last dimension.
///
/// Shapes: `x` `[…, in]`, `weight` `[out, in]`, `bias` `[out]`; the result is `[…, out]`.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    composite::linear(x, weight, bias)
}

/// Softmax(q·kᵀ·scale)·v without a mask, in blocks: the matrix of scores never exists whole.
///
/// Shapes: `q` `[heads, n, d]`, `k` and `v` `[heads, m, d]`; the result is `[heads, n, d]`. Views
/// of `[n, heads, d]` (by `transpose(0, 1)`) are taken as they are, and then the result lies in
/// memory as `[n, heads, d]` too: transposing it back and reshaping copies nothing.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Result<Tensor> {
    check_attention(q, k, v)?;
    composite::attention(q, k, v, scale)
}

/// Softmax(q·kᵀ·scale + bias)·v: for the short sequences of a text encoder.
///
/// Shapes: as [`attention`]; `bias` broadcasts to `[heads, n, m]`.
pub fn attention_with_bias(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    bias: &Tensor,
    scale: f64,
) -> Result<Tensor> {
    check_attention(q, k, v)?;
    composite::attention_with_bias(q, k, v, bias, scale)
}

fn check_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<()> {
    let (heads, _, d) = q.dims3()?;
    let (key_heads, m, key_d) = k.dims3()?;
    if (heads, d) != (key_heads, key_d) || v.dims3()? != (heads, m, d) || m == 0 {
        bail!(
            "attention: q {:?}, k {:?}, v {:?}; expected [heads, n, d] and twice [heads, m, d]",
            q.dims(),
            k.dims(),
            v.dims()
        );
    }
    Ok(())
}

/// Layer norm over the last dimension: (x − mean)/√(var + eps), then ·weight + bias where given.
///
/// Shapes: `x` `[…, d]`, `weight` and `bias` `[d]`.
pub fn layer_norm(
    x: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    composite::layer_norm(x, weight, bias, eps)
}

/// RMS norm over the last dimension: x/√(mean(x²) + eps)·weight.
///
/// Shapes: `x` `[…, d]`, `weight` `[d]`.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    composite::rms_norm(x, weight, eps)
}

/// Layer norm without weights, then ·(1 + scale) + shift: the adaptive norm of a diffusion
/// transformer.
///
/// Shapes: `x` `[…, d]`; `shift` and `scale` each `[d]` (or `[1, d]`), or one row for each of x.
pub fn modulate(x: &Tensor, shift: &Tensor, scale: &Tensor, eps: f64) -> Result<Tensor> {
    composite::modulate(x, shift, scale, eps)
}

/// x + y·gate.
///
/// Shapes: `x` and `y` `[…, d]`; `gate` `[d]` (or `[1, d]`), or one row for each of x.
pub fn gate_add(x: &Tensor, y: &Tensor, gate: &Tensor) -> Result<Tensor> {
    composite::gate_add(x, y, gate)
}

/// GELU in its tanh form: x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))).
pub fn gelu_tanh(x: &Tensor) -> Result<Tensor> {
    x.gelu()
}

/// GELU in its exact form: x/2·(1 + erf(x/√2)).
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    x.gelu_erf()
}

/// x·sigmoid(x).
pub fn silu(x: &Tensor) -> Result<Tensor> {
    x.silu()
}

/// Softmax over the last dimension.
pub fn softmax_last(x: &Tensor) -> Result<Tensor> {
    composite::softmax_last(x)
}

/// Rotates the pairs (x₂ᵢ, x₂ᵢ₊₁) of each head by an angle of the row.
///
/// Shapes: `x` `[n, heads, d]`, `cos` and `sin` `[n, d/2]`.
pub fn rope_interleaved(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let (n, _, d) = x.dims3()?;
    if d % 2 != 0 || cos.dims() != [n, d / 2] || sin.dims() != [n, d / 2] {
        bail!(
            "rope: x {:?}, cos {:?}, sin {:?}; expected [n, heads, d] and twice [n, d/2]",
            x.dims(),
            cos.dims(),
            sin.dims()
        );
    }
    composite::rope_interleaved(x, cos, sin)
}
