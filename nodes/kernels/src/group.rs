//! Group norm of channels-last frames: each frame's pixels and a group of channels together.

use candle_core::{Tensor, bail};

use crate::buffer::filled;
use crate::dense::{Dense, fast_mixed};
use crate::layout::{GroupNorm, Padding, check_activation};
use crate::plane::map_lines;
use crate::tier::by_tier;
use crate::{Result, composite, math};

/// (x − mean)/√(variance + eps)·weight + bias, mean and variance over the pixels of a frame and the
/// channels of a group (arXiv:1803.08494).
///
/// Shapes: `x` `[t, h, w, c]`.
pub fn group_norm(x: &Tensor, norm: &GroupNorm) -> Result<Tensor> {
    check(x, norm)?;
    if !fast_mixed(&[x, norm.weight, norm.bias]) {
        return composite::group_norm(x, norm);
    }
    normalized(x, norm, [0; 4], normalize)
}

/// SiLU of [`group_norm`], written into a plane with `padding` zeros around it, ready for
/// [`crate::conv`].
///
/// Shapes: as [`group_norm`]; the result is `[t, top + h + bottom, left + w + right, c]`.
pub fn group_norm_silu(x: &Tensor, norm: &GroupNorm, padding: Padding) -> Result<Tensor> {
    check(x, norm)?;
    if !fast_mixed(&[x, norm.weight, norm.bias]) {
        return composite::pad_plane(&composite::group_norm(x, norm)?.silu()?, padding);
    }
    normalized(x, norm, padding, normalize_silu)
}

fn check(x: &Tensor, norm: &GroupNorm) -> Result<()> {
    let [_, _, _, c] = check_activation("group_norm", x)?;
    if norm.weight.dims() != [c] || norm.bias.dims() != [c] {
        let (weight, bias) = (norm.weight.dims(), norm.bias.dims());
        bail!("group_norm: a weight of {weight:?} and a bias of {bias:?} for {c} channels");
    }
    if norm.groups == 0 || !c.is_multiple_of(norm.groups) {
        bail!("group_norm: {c} channels in {} groups", norm.groups);
    }
    Ok(())
}

fn normalized(
    x: &Tensor,
    norm: &GroupNorm,
    padding: Padding,
    line: impl Fn(&[f32], [&[f32]; 3], &mut [f32]) + Sync + Send,
) -> Result<Tensor> {
    let (t, h, w, c) = x.dims4()?;
    let (x_dense, weight, bias) =
        (Dense::new(x)?, Dense::widened(norm.weight)?, Dense::widened(norm.bias)?);
    let (data, weight, bias) = (x_dense.numbers(), weight.read(), bias.read());
    // A line at a time: means by channel first, then squares around them, so that neither a large
    // mean nor many pixels cost digits.
    let lines = |work: fn(&[f32], &[f64], &mut [f64]), centres: &[f64]| {
        filled(t * h * c, c, |row, sums: &mut [f64]| {
            let centre = &centres[row / h * c..][..c];
            data.with(row * w * c..(row + 1) * w * c, |line| work(line, centre, sums));
        })
    };
    let by_group = |lines: &[f64]| -> Vec<f64> {
        let width = c / norm.groups;
        let of_frame = |frame: usize| {
            let mut sums = vec![0.0; c];
            for line in lines[frame * h * c..(frame + 1) * h * c].chunks_exact(c) {
                sums.iter_mut().zip(line).for_each(|(sum, value)| *sum += value);
            }
            let count = (h * w * width) as f64;
            let means =
                sums.chunks_exact(width).map(move |group| group.iter().sum::<f64>() / count);
            means.flat_map(|mean| std::iter::repeat_n(mean, width)).collect::<Vec<f64>>()
        };
        (0..t).flat_map(of_frame).collect()
    };
    let means = by_group(&lines(add_line, &vec![0.0; t * c])?); // [t, c]
    let variances = by_group(&lines(add_squares, &means)?);
    let scale = |(index, variance): (usize, &f64)| {
        (f64::from(weight[index % c]) / (variance + norm.eps).sqrt()) as f32
    };
    let scales: Vec<f32> = variances.iter().enumerate().map(scale).collect();
    let means: Vec<f32> = means.into_iter().map(|mean| mean as f32).collect();
    map_lines(x, padding, |row, x, y| {
        let frame = row / h * c..(row / h + 1) * c;
        line(x, [&means[frame.clone()], &scales[frame], &bias], y);
    })
}

/// Adds the pixels of a line, by channel.
fn add_line(line: &[f32], _: &[f64], sums: &mut [f64]) {
    for pixel in line.chunks_exact(sums.len()) {
        sums.iter_mut().zip(pixel).for_each(|(sum, x)| *sum += f64::from(*x));
    }
}

/// Adds the squares of their distances from the means.
fn add_squares(line: &[f32], means: &[f64], sums: &mut [f64]) {
    for pixel in line.chunks_exact(sums.len()) {
        for ((sum, x), mean) in sums.iter_mut().zip(pixel).zip(means) {
            let distance = f64::from(*x) - mean;
            *sum += distance * distance;
        }
    }
}

by_tier! {
    fn normalize<FMA>(x: &[f32], factors: [&[f32]; 3], y: &mut [f32]) {
        let [means, scales, biases] = factors;
        let c = scales.len();
        for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
            let factors = means.iter().zip(scales).zip(biases);
            for ((y, x), ((mean, scale), bias)) in y.iter_mut().zip(x).zip(factors) {
                *y = math::madd::<FMA>(x - mean, *scale, *bias);
            }
        }
    }
}

by_tier! {
    fn normalize_silu<FMA>(x: &[f32], factors: [&[f32]; 3], y: &mut [f32]) {
        let [means, scales, biases] = factors;
        let c = scales.len();
        for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
            let factors = means.iter().zip(scales).zip(biases);
            for ((y, x), ((mean, scale), bias)) in y.iter_mut().zip(x).zip(factors) {
                *y = math::silu::<FMA>(math::madd::<FMA>(x - mean, *scale, *bias));
            }
        }
    }
}
