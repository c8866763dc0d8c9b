//! Products of matrices, convolutions, sizes of images.

use kino_contract::ops::{Conv, Filter};

use super::super::array::Array;
use super::call::{OpCall, spread};

/// `[…, m, k]` times `[…, k, n]`; leading dimensions broadcast.
pub(super) fn matmul(call: &OpCall<'_>) -> Array {
    let (a, b, dims) = (call.tensors[0], call.tensors[1], &call.plan.shape);
    let (lead, lead_a) = (&dims[..dims.len() - 2], &a.dims[..a.dims.len() - 2]);
    let (lead_b, [k, n]) = (&b.dims[..b.dims.len() - 2], [b.dims.len() - 2, b.dims.len() - 1]);
    let (m, k, n) = (dims[dims.len() - 2], b.dims[k], b.dims[n]);
    Array::real(a.dtype, dims, |index| {
        let (batch, row, column) = (index / (m * n), index / n % m, index % n);
        let (in_a, in_b) = (spread(batch, lead, lead_a), spread(batch, lead, lead_b));
        let term = |i: usize| a.get((in_a * m + row) * k + i) * b.get((in_b * k + i) * n + column);
        (0..k).map(term).sum()
    })
}

/// Convolves `[n, c, h, w]` with `[o, c/groups, kh, kw]`.
pub(super) fn conv2d(call: &OpCall<'_>, moves: Conv) -> Array {
    let (x, weight, bias) = (call.tensors[0], call.tensors[1], call.tensors.get(2));
    let &[_, outs, rows, columns] = call.plan.shape.as_slice() else {
        unreachable!("the plan has four sizes")
    };
    Array::real(x.dtype, &call.plan.shape, |index| {
        let (image, out) = (index / (outs * rows * columns), index / (rows * columns) % outs);
        let (row, column) = (index / columns % rows, index % columns);
        let bias = bias.map_or(0.0, |bias| bias.get(out));
        convolved(x, weight, moves, [image, out, row, column]) + bias
    })
}

fn convolved(x: &Array, weight: &Array, moves: Conv, at: [usize; 4]) -> f64 {
    let [image, out, row, column] = at;
    let (&[_, channels, height, width], &[outs, of_group, kh, kw]) =
        (x.dims.as_slice(), weight.dims.as_slice())
    else {
        unreachable!("the plan has seen four sizes of each")
    };
    let first = out / (outs / moves.groups) * of_group;
    let mut sum = 0.0;
    for (c, y, z) in
        (0..of_group).flat_map(|c| (0..kh).flat_map(move |y| (0..kw).map(move |z| (c, y, z))))
    {
        let from = |at: usize, k: usize| {
            (at * moves.stride + k * moves.dilation).checked_sub(moves.padding)
        };
        let (Some(row), Some(column)) = (from(row, y), from(column, z)) else { continue };
        if row < height && column < width {
            let channel = image * channels + first + c;
            sum += x.get((channel * height + row) * width + column)
                * weight.get(((out * of_group + c) * kh + y) * kw + z);
        }
    }
    sum
}

/// What one element of a resized line is made of: from where on, and with which weights.
type Taps = (usize, Vec<f64>);

/// `[n, c, h, w]` in another size, half-pixel centres.
pub(super) fn resize(call: &OpCall<'_>, filter: Filter) -> Array {
    let (a, shape) = (call.tensors[0], &call.plan.shape);
    let (&[_, _, h, w], &[_, _, height, width]) = (a.dims.as_slice(), shape.as_slice()) else {
        unreachable!("the plan has seen four sizes of each")
    };
    let (rows, columns) = (taps(h, height, filter), taps(w, width, filter));
    if filter == Filter::Nearest || (h, w) == (height, width) {
        return a.moved(shape, |index| {
            let (plane, row, column) =
                (index / (height * width), index / width % height, index % width);
            Some((plane * h + nearest(h, height, row)) * w + nearest(w, width, column))
        });
    }
    Array::real(a.dtype, shape, |index| {
        let (plane, row, column) =
            (index / (height * width), index / width % height, index % width);
        let ((top, down), (left, across)) = (&rows[row], &columns[column]);
        let mut sum = 0.0;
        for (y, v) in down.iter().enumerate() {
            for (x, u) in across.iter().enumerate() {
                sum += v * u * a.get((plane * h + top + y) * w + left + x);
            }
        }
        if a.dtype.is_float() { sum } else { sum.round() }
    })
}

/// ⌊(at + ½)·from/to⌋, in whole numbers.
fn nearest(from: usize, to: usize, at: usize) -> usize {
    ((2 * at as u128 + 1) * from as u128 / (2 * to as u128)) as usize
}

fn taps(from: usize, to: usize, filter: Filter) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let wide = scale.max(1.0);
    let support = wide * if filter == Filter::Lanczos { 3.0 } else { 1.0 };
    let tap = |at: usize| {
        let centre = (at as f64 + 0.5) * scale;
        let first = (centre - support + 0.5).max(0.0) as usize;
        let last = ((centre + support + 0.5) as usize).min(from);
        let weight = |at: usize| {
            let x = (at as f64 + 0.5 - centre) / wide;
            if filter == Filter::Lanczos { lanczos(x) } else { (1.0 - x.abs()).max(0.0) }
        };
        let weights: Vec<_> = (first..last).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        (first, weights.iter().map(|weight| weight / sum).collect())
    };
    (0..to).map(tap).collect()
}

/// sinc(x) · sinc(x/3) for |x| < 3.
fn lanczos(x: f64) -> f64 {
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { x.sin() / x };
    let x = std::f64::consts::PI * x;
    if x.abs() < 3.0 * std::f64::consts::PI { sinc(x) * sinc(x / 3.0) } else { 0.0 }
}
