//! Products of matrices, convolutions, sizes of images.

use serde_json::Value as Json;

use super::super::array::Array;
use super::super::held::Outcome;
use super::{Call, expect_same_type, joined, spread};

/// `[…, m, k]` times `[…, k, n]`; leading dimensions broadcast.
pub(super) fn matmul(call: &Call<'_>) -> Outcome<Array> {
    let [a, b] = call.exactly()?;
    let refused =
        || format!("expected […, m, k] and […, k, n], found {:?} and {:?}", a.dims, b.dims);
    let ([lead_a @ .., m, k], [lead_b @ .., k_too, n]) = (a.dims.as_slice(), b.dims.as_slice())
    else {
        return Err(refused());
    };
    if k != k_too {
        return Err(refused());
    }
    let lead = joined(lead_a, lead_b)?;
    let dims: Vec<_> = lead.iter().copied().chain([*m, *n]).collect();
    Ok(Array::made(expect_same_type(a, b)?, &dims, |index| {
        let (batch, row, column) = (index / (m * n), index / n % m, index % n);
        let (in_a, in_b) = (spread(batch, &lead, lead_a), spread(batch, &lead, lead_b));
        let term = |i: usize| a.get((in_a * m + row) * k + i) * b.get((in_b * k + i) * n + column);
        (0..*k).map(term).sum()
    }))
}

/// The sizes of a convolution.
struct Sizes {
    channels: usize,
    height: usize,
    width: usize,
    of_group: usize,
    outs_of_group: usize,
    kernel: [usize; 2],
    stride: usize,
    padding: usize,
    dilation: usize,
}

/// Convolves `[n, c, h, w]` with `[o, c/groups, kh, kw]`.
pub(super) fn conv2d(call: &Call<'_>) -> Outcome<Array> {
    let (x, weight, bias) = match call.tensors {
        [x, weight] => (*x, *weight, None),
        [x, weight, bias] => (*x, *weight, Some(*bias)),
        other => return Err(format!("expected 2 or 3 tensors, found {}", other.len())),
    };
    let refused = || format!("weight {:?} does not fit {:?}", weight.dims, x.dims);
    let (&[n, channels, height, width], &[outs, of_group, kh, kw]) =
        (x.dims.as_slice(), weight.dims.as_slice())
    else {
        return Err(refused());
    };
    let size = |key: &str, unless: usize| {
        let size = call.get(key, |json| json.as_u64().map(|size| size as usize));
        size.map(|size| size.unwrap_or(unless))
    };
    let (stride, padding) = (size("stride", 1)?, size("padding", 0)?);
    let (dilation, groups) = (size("dilation", 1)?, size("groups", 1)?);
    let odd = [stride, dilation, groups, kh, kw].contains(&0);
    if odd || channels != of_group * groups || outs % groups != 0 {
        return Err(refused());
    }
    if bias.is_some_and(|bias| bias.dims != [outs]) {
        return Err(format!("expected a bias [{outs}]"));
    }
    let length = |size: usize, kernel: usize| {
        (size + 2 * padding).checked_sub(dilation * (kernel - 1) + 1).map(|rest| rest / stride + 1)
    };
    let (rows, columns) = (length(height, kh), length(width, kw));
    let (rows, columns) = (rows.ok_or_else(refused)?, columns.ok_or_else(refused)?);
    let outs_of_group = outs / groups;
    let kernel = [kh, kw];
    let sizes = Sizes {
        channels,
        height,
        width,
        of_group,
        outs_of_group,
        kernel,
        stride,
        padding,
        dilation,
    };
    Ok(Array::made(expect_same_type(x, weight)?, &[n, outs, rows, columns], |index| {
        let (image, out) = (index / (outs * rows * columns), index / (rows * columns) % outs);
        let (row, column) = (index / columns % rows, index % columns);
        convolved(x, weight, &sizes, [image, out, row, column])
            + bias.map_or(0.0, |bias| bias.get(out))
    }))
}

fn convolved(x: &Array, weight: &Array, sizes: &Sizes, at: [usize; 4]) -> f64 {
    let [image, out, row, column] = at;
    let [kh, kw] = sizes.kernel;
    let first = out / sizes.outs_of_group * sizes.of_group;
    let mut sum = 0.0;
    for (c, y, z) in
        (0..sizes.of_group).flat_map(|c| (0..kh).flat_map(move |y| (0..kw).map(move |z| (c, y, z))))
    {
        let from = |at: usize, k: usize| {
            (at * sizes.stride + k * sizes.dilation).checked_sub(sizes.padding)
        };
        let (Some(row), Some(column)) = (from(row, y), from(column, z)) else { continue };
        if row < sizes.height && column < sizes.width {
            let channel = image * sizes.channels + first + c;
            sum += x.get((channel * sizes.height + row) * sizes.width + column)
                * weight.get(((out * sizes.of_group + c) * kh + y) * kw + z);
        }
    }
    sum
}

/// What one element of a resized line is made of: from where on, and with which weights.
type Taps = (usize, Vec<f64>);

/// `[n, c, h, w]` in another size, half-pixel centres.
pub(super) fn resize(call: &Call<'_>) -> Outcome<Array> {
    let a = call.only()?;
    let &[n, c, h, w] = a.dims.as_slice() else {
        return Err(format!("expected [n, c, h, w], found {:?}", a.dims));
    };
    let (height, width) = (call.size("height")?, call.size("width")?);
    let filter = call.get("filter", |json: &Json| json.as_str().map(str::to_owned))?;
    let filter = filter.unwrap_or_else(|| "bilinear".into());
    if !["nearest", "bilinear", "lanczos"].contains(&filter.as_str()) {
        return Err(format!("there is no filter `{filter}`"));
    }
    if h == 0 || w == 0 {
        return Err(format!("{:?} has no pixel", a.dims));
    }
    let (rows, columns) = (taps(h, height, &filter), taps(w, width, &filter));
    Ok(Array::made(a.dtype, &[n, c, height, width], |index| {
        let (plane, row, column) =
            (index / (height * width), index / width % height, index % width);
        let ((top, down), (left, across)) = (&rows[row], &columns[column]);
        let mut sum = 0.0;
        for (y, v) in down.iter().enumerate() {
            for (x, u) in across.iter().enumerate() {
                sum += v * u * a.get((plane * h + top + y) * w + left + x);
            }
        }
        sum
    }))
}

fn taps(from: usize, to: usize, filter: &str) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let tap = |at: usize| {
        let centre = (at as f64 + 0.5) * scale;
        if filter == "nearest" {
            return ((centre as usize).min(from - 1), vec![1.0]);
        }
        let wide = scale.max(1.0);
        let support = wide * if filter == "lanczos" { 3.0 } else { 1.0 };
        let first = (centre - support + 0.5).max(0.0) as usize;
        let last = ((centre + support + 0.5) as usize).min(from);
        let weight = |at: usize| {
            let x = (at as f64 + 0.5 - centre) / wide;
            if filter == "lanczos" { lanczos(x) } else { (1.0 - x.abs()).max(0.0) }
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
