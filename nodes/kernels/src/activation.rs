//! Activations and the rotation of positions: elementwise, or nearly.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{Tensor, bail};

use crate::dense::{Dense, fast, fast_mixed};
use crate::norm::rms_row;
use crate::rows::{map_blocks, rows_like, zip_blocks};
use crate::tier::by_tier;
use crate::{Result, card, composite, math};

/// GELU in its tanh form: x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))).
pub fn gelu_tanh(x: &Tensor) -> Result<Tensor> {
    if fast_mixed(&[x]) { map_blocks(x, gelu_tanh_block) } else { x.gelu() }
}

/// GELU in its exact form: x/2·(1 + erf(x/√2)).
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    if fast_mixed(&[x]) { map_blocks(x, gelu_block) } else { x.gelu_erf() }
}

/// x·sigmoid(x).
pub fn silu(x: &Tensor) -> Result<Tensor> {
    if fast_mixed(&[x]) { map_blocks(x, silu_block) } else { x.silu() }
}

/// x + y, of one shape, in the type of x.
pub fn add(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    check_pair("add", x, y)?;
    if !fast_mixed(&[x, y]) {
        return x + y.to_dtype(x.dtype())?;
    }
    zip_blocks(x, y, add_block)
}

/// x·y, of one shape, in the type of x.
pub fn multiply(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    check_pair("multiply", x, y)?;
    if !fast_mixed(&[x, y]) {
        return x * y.to_dtype(x.dtype())?;
    }
    zip_blocks(x, y, multiply_block)
}

fn check_pair(what: &str, x: &Tensor, y: &Tensor) -> Result<()> {
    match x.dims() == y.dims() {
        true => Ok(()),
        false => bail!("{what}: {:?} and {:?}", x.dims(), y.dims()),
    }
}

by_tier! {
    fn add_block<FMA>(x: &[f32], y: &[f32], out: &mut [f32]) {
        for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
            *out = x + y;
        }
    }
}

by_tier! {
    fn multiply_block<FMA>(x: &[f32], y: &[f32], out: &mut [f32]) {
        for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
            *out = x * y;
        }
    }
}

/// (x + y)·(sigmoid(y) − 1/2): the attention without parameters of SPAN (arXiv:2311.12770).
///
/// Shapes: `x` and `y` of one shape. Zeros stay zeros.
pub fn span_attention(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    check_pair("span_attention", x, y)?;
    if !fast(&[x, y]) {
        return composite::span_attention(x, y);
    }
    zip_blocks(x, y, span_attention_block)
}

by_tier! {
    fn span_attention_block<FMA>(x: &[f32], y: &[f32], out: &mut [f32]) {
        for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
            *out = (x + y) * (1.0 / (1.0 + math::exp::<FMA>(-y)) - 0.5);
        }
    }
}

/// Each value within `low`…`high`; none where a value is infinite or no number.
pub fn clamp_finite(x: &Tensor, low: f32, high: f32) -> Result<Option<Tensor>> {
    if !fast(&[x]) {
        return composite::clamp_finite(x, low, high);
    }
    let finite = AtomicBool::new(true);
    let out = map_blocks(x, |x, y| {
        if !clamp_block(x, y, low, high) {
            finite.store(false, Ordering::Relaxed);
        }
    })?;
    Ok(finite.into_inner().then_some(out))
}

by_tier! {
    fn clamp_block<FMA>(x: &[f32], y: &mut [f32], low: f32, high: f32) -> bool {
        let mut finite = true;
        for (y, x) in y.iter_mut().zip(x) {
            finite &= x.abs() < f32::INFINITY;
            let above = if *x < low { low } else { *x };
            *y = if above > high { high } else { above };
        }
        finite
    }
}

by_tier! {
    fn gelu_tanh_block<FMA>(x: &[f32], y: &mut [f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = math::gelu_tanh::<FMA>(*x);
        }
    }
}

by_tier! {
    fn silu_block<FMA>(x: &[f32], y: &mut [f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = math::silu::<FMA>(*x);
        }
    }
}

/// Scalar: it runs only on the few tokens of an image encoder.
fn gelu_block(x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = 0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2));
    }
}

/// Rotates the pairs (x₂ᵢ, x₂ᵢ₊₁) of each head by an angle of the row.
///
/// Shapes: `x` `[n, heads, d]`, `cos` and `sin` `[n, d/2]`.
pub fn rope_interleaved(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let (n, heads, d) = x.dims3()?;
    check_angles("rope", x, [n, d], cos, sin)?;
    if !fast_mixed(&[x, cos, sin]) {
        return composite::rope_interleaved(x, cos, sin);
    }
    let (x_dense, cos, sin) = (Dense::new(x)?, Dense::widened(cos)?, Dense::widened(sin)?);
    let (data, cos, sin) = (x_dense.numbers(), cos.read(), sin.read());
    let (width, half) = (heads * d, d / 2);
    rows_like(x, width, |row, y| {
        let angles = row * half..(row + 1) * half;
        data.with(row * width..(row + 1) * width, |x| y.copy_from_slice(x));
        rotate(y, &cos[angles.clone()], &sin[angles]);
    })
}

/// RMS norm over the last dimension, then the rotation of each head: [`crate::rms_norm`] and
/// [`rope_interleaved`] in one pass, rounded once.
///
/// Shapes: `x` `[n, heads·d]`, `weight` `[heads·d]`, `cos` and `sin` `[n, d/2]`; the result is
/// `[n, heads, d]`.
pub fn rms_norm_rope(
    x: &Tensor,
    weight: &Tensor,
    eps: f64,
    heads: usize,
    (cos, sin): (&Tensor, &Tensor),
) -> Result<Tensor> {
    let (n, width) = x.dims2()?;
    if heads == 0 || !width.is_multiple_of(heads) || weight.dims() != [width] {
        bail!(
            "rms_norm_rope: {heads} heads and a weight of {:?} for {:?}",
            weight.dims(),
            x.dims()
        );
    }
    let d = width / heads;
    check_angles("rms_norm_rope", x, [n, d], cos, sin)?;
    if let Some(turned) = card::rms_norm_rope(x, [weight, cos, sin], eps, heads) {
        return turned;
    }
    if !fast_mixed(&[x, weight, cos, sin]) {
        return composite::rms_norm_rope(x, weight, eps, heads, (cos, sin));
    }
    let (x_dense, weight) = (Dense::new(x)?, Dense::widened(weight)?);
    let (cos, sin) = (Dense::widened(cos)?, Dense::widened(sin)?);
    let (data, weight, cos, sin) = (x_dense.numbers(), weight.read(), cos.read(), sin.read());
    let half = d / 2;
    let turned = rows_like(x, width, |row, y| {
        let angles = row * half..(row + 1) * half;
        data.with(row * width..(row + 1) * width, |x| rms_row(x, &weight, eps as f32, y));
        rotate(y, &cos[angles.clone()], &sin[angles]);
    })?;
    turned.reshape((n, heads, d))
}

fn check_angles(
    what: &str,
    x: &Tensor,
    [n, d]: [usize; 2],
    cos: &Tensor,
    sin: &Tensor,
) -> Result<()> {
    if d % 2 != 0 || cos.dims() != [n, d / 2] || sin.dims() != [n, d / 2] {
        bail!(
            "{what}: x {:?}, cos {:?}, sin {:?}; expected {n} rows of heads of {d}, an even number, \
             and twice [n, d/2]",
            x.dims(),
            cos.dims(),
            sin.dims()
        );
    }
    Ok(())
}

by_tier! {
    /// The heads of one row, in place.
    fn rotate<FMA>(row: &mut [f32], cos: &[f32], sin: &[f32]) {
        for head in row.chunks_exact_mut(2 * cos.len()) {
            for ((pair, c), s) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
                let [x, y] = *pair;
                pair[0] = math::madd::<FMA>(x, *c, -(y * s));
                pair[1] = math::madd::<FMA>(x, *s, y * c);
            }
        }
    }
}
