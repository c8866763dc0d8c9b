//! Norms, modulation and softmax along the last dimension.

use candle_core::{Tensor, bail};

use crate::dense::{Dense, fast_mixed};
use crate::rows::{PerRow, rows_like, rows_of};
use crate::tier::by_tier;
use crate::{Result, composite, math};

fn check_width(what: &str, x: &Tensor, operand: Option<&Tensor>) -> Result<()> {
    match (x.dims().last(), operand) {
        (None, _) => bail!("{what}: a scalar has no last dimension"),
        (Some(width), Some(operand)) if operand.dims() != [*width] => {
            bail!("{what}: a weight of {:?} for rows of {width}", operand.dims())
        }
        _ => Ok(()),
    }
}

fn all_fast<'a>(operands: impl IntoIterator<Item = &'a Tensor>) -> bool {
    operands.into_iter().all(|operand| fast_mixed(&[operand]))
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
    check_width("layer_norm", x, weight)?;
    check_width("layer_norm", x, bias)?;
    if !all_fast([Some(x), weight, bias].into_iter().flatten()) {
        return composite::layer_norm(x, weight, bias, eps);
    }
    let (_, width) = rows_of(x)?;
    let widened = |operand: Option<&Tensor>| operand.map(Dense::widened).transpose();
    let (x_dense, weight, bias) = (Dense::new(x)?, widened(weight)?, widened(bias)?);
    let data = x_dense.numbers();
    let (weight, bias) = (weight.as_ref().map(Dense::read), bias.as_ref().map(Dense::read));
    rows_like(x, width, |row, y| {
        data.with(row * width..(row + 1) * width, |x| standardize(x, eps as f32, y));
        scale_shift(y, weight.as_deref(), bias.as_deref(), 0.0);
    })
}

/// RMS norm over the last dimension: x/√(mean(x²) + eps)·weight.
///
/// Shapes: `x` `[…, d]`, `weight` `[d]`.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    check_width("rms_norm", x, Some(weight))?;
    if !fast_mixed(&[x, weight]) {
        return composite::rms_norm(x, weight, eps);
    }
    let (_, width) = rows_of(x)?;
    let (x_dense, weight) = (Dense::new(x)?, Dense::widened(weight)?);
    let (data, weight) = (x_dense.numbers(), weight.read());
    rows_like(x, width, |row, y| {
        data.with(row * width..(row + 1) * width, |x| rms_row(x, &weight, eps as f32, y));
    })
}

/// Layer norm without weights, then ·(1 + scale) + shift: the adaptive norm of a diffusion
/// transformer.
///
/// Shapes: `x` `[…, d]`; `shift` and `scale` each `[d]` (or `[1, d]`), or one row for each of x.
pub fn modulate(x: &Tensor, shift: &Tensor, scale: &Tensor, eps: f64) -> Result<Tensor> {
    if !fast_mixed(&[x, shift, scale]) {
        return composite::modulate(x, shift, scale, eps);
    }
    let (Some(shift), Some(scale)) = (PerRow::new(shift, x)?, PerRow::new(scale, x)?) else {
        return composite::modulate(x, shift, scale, eps);
    };
    let (_, width) = rows_of(x)?;
    let x_dense = Dense::new(x)?;
    let (data, shift, scale) = (x_dense.numbers(), shift.read(), scale.read());
    rows_like(x, width, |row, y| {
        data.with(row * width..(row + 1) * width, |x| standardize(x, eps as f32, y));
        shift.with(row, |shift| {
            scale.with(row, |scale| scale_shift(y, Some(scale), Some(shift), 1.0));
        });
    })
}

/// x + y·gate.
///
/// Shapes: `x` and `y` `[…, d]`; `gate` `[d]` (or `[1, d]`), or one row for each of x.
pub fn gate_add(x: &Tensor, y: &Tensor, gate: &Tensor) -> Result<Tensor> {
    if x.dims() != y.dims() {
        bail!("gate_add: x {:?} and y {:?}", x.dims(), y.dims());
    }
    if !fast_mixed(&[x, y, gate]) {
        return composite::gate_add(x, y, gate);
    }
    let Some(gate) = PerRow::new(gate, x)? else { return composite::gate_add(x, y, gate) };
    let (_, width) = rows_of(x)?;
    let (x_dense, y_dense) = (Dense::new(x)?, Dense::new(y)?);
    let (data, added, gate) = (x_dense.numbers(), y_dense.numbers(), gate.read());
    rows_like(x, width, |row, out| {
        let range = row * width..(row + 1) * width;
        data.with(range.clone(), |x| {
            added.with(range, |y| gate.with(row, |gate| gate_row(x, y, gate, out)));
        });
    })
}

/// Softmax over the last dimension.
pub fn softmax_last(x: &Tensor) -> Result<Tensor> {
    check_width("softmax_last", x, None)?;
    if !fast_mixed(&[x]) {
        return composite::softmax_last(x);
    }
    let (_, width) = rows_of(x)?;
    let dense = Dense::new(x)?;
    let data = dense.numbers();
    rows_like(x, width, |row, y| {
        data.with(row * width..(row + 1) * width, |x| softmax_row(x, y));
    })
}

by_tier! {
    /// (x − mean)/√(var + eps).
    fn standardize<FMA>(x: &[f32], eps: f32, y: &mut [f32]) {
        let width = x.len() as f32;
        let mean = math::sum(x) / width;
        let variance = math::sum_squares::<FMA>(x, mean) / width;
        let inverse = 1.0 / (variance + eps).sqrt();
        for (y, x) in y.iter_mut().zip(x) {
            *y = (x - mean) * inverse;
        }
    }
}

by_tier! {
    /// y·(plus + weight) + bias, in place.
    fn scale_shift<FMA>(y: &mut [f32], weight: Option<&[f32]>, bias: Option<&[f32]>, plus: f32) {
        match (weight, bias) {
            (Some(weight), Some(bias)) => {
                for ((y, w), b) in y.iter_mut().zip(weight).zip(bias) {
                    *y = math::madd::<FMA>(*y, plus + w, *b);
                }
            }
            (Some(weight), None) => y.iter_mut().zip(weight).for_each(|(y, w)| *y *= plus + w),
            (None, Some(bias)) => y.iter_mut().zip(bias).for_each(|(y, b)| *y += b),
            (None, None) => {}
        }
    }
}

by_tier! {
    /// x/√(mean(x²) + eps)·weight.
    pub(crate) fn rms_row<FMA>(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
        let mean = math::sum_squares::<FMA>(x, 0.0) / x.len() as f32;
        let inverse = 1.0 / (mean + eps).sqrt();
        for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
            *y = x * inverse * w;
        }
    }
}

by_tier! {
    fn gate_row<FMA>(x: &[f32], y: &[f32], gate: &[f32], out: &mut [f32]) {
        for (((out, x), y), g) in out.iter_mut().zip(x).zip(y).zip(gate) {
            *out = math::madd::<FMA>(*y, *g, *x);
        }
    }
}

by_tier! {
    fn softmax_row<FMA>(x: &[f32], y: &mut [f32]) {
        y.copy_from_slice(x);
        let top = math::largest(x);
        let inverse = 1.0 / math::exp_row::<FMA>(y, 1.0, top);
        y.iter_mut().for_each(|y| *y *= inverse);
    }
}
