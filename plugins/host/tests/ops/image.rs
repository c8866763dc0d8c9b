//! Convolution and sizes.

use candle_core::DType;

use crate::array::{Array, FLOATS, Rng, all_types, rounded};
use crate::check;

struct Case {
    x: [usize; 4],
    weight: [usize; 4],
    stride: usize,
    padding: usize,
    dilation: usize,
    groups: usize,
}

fn convolved(case: &Case, x: &Array, weight: &Array, bias: Option<&Array>) -> Array {
    let ([n, _, h, w], [o, share, kh, kw]) = (case.x, case.weight);
    let steps = |length: usize, taps: usize| {
        (length + 2 * case.padding - case.dilation * (taps - 1) - 1) / case.stride + 1
    };
    Array::made(x.dtype, &[n, o, steps(h, kh), steps(w, kw)], |place| {
        let &[image, channel, row, column] = place else { unreachable!() };
        let first = channel / (o / case.groups) * share;
        let mut sum = bias.map_or(0.0, |bias| bias.at(&[channel]));
        for (c, a, b) in
            (0..share).flat_map(|c| (0..kh).flat_map(move |a| (0..kw).map(move |b| (c, a, b))))
        {
            let y = (row * case.stride + a * case.dilation).checked_sub(case.padding);
            let z = (column * case.stride + b * case.dilation).checked_sub(case.padding);
            if let (Some(y), Some(z)) = (y.filter(|y| *y < h), z.filter(|z| *z < w)) {
                sum += x.at(&[image, first + c, y, z]) * weight.at(&[channel, c, a, b]);
            }
        }
        sum
    })
}

#[test]
fn convolutions() {
    let rng = &mut Rng::new();
    let cases = [
        ([1, 1, 1, 1], [1, 1, 1, 1], 1, 0, 1, 1),
        ([2, 3, 5, 7], [4, 3, 3, 3], 1, 1, 1, 1),
        ([1, 3, 6, 5], [2, 3, 2, 3], 2, 0, 1, 1),
        ([2, 2, 9, 8], [3, 2, 3, 3], 1, 2, 2, 1),
        ([1, 2, 9, 8], [3, 2, 3, 2], 3, 1, 2, 1),
        ([1, 4, 6, 6], [4, 1, 3, 3], 1, 1, 1, 4),
        ([1, 4, 6, 6], [4, 1, 3, 3], 2, 1, 2, 4),
        ([2, 4, 5, 5], [6, 2, 3, 3], 1, 1, 1, 2),
        ([1, 4, 5, 5], [8, 1, 2, 2], 1, 0, 1, 4),
        ([1, 2, 1, 1], [1, 2, 3, 3], 1, 1, 1, 1),
        ([0, 2, 4, 4], [1, 2, 3, 3], 1, 1, 1, 1),
        ([1, 2, 0, 3], [2, 2, 1, 1], 1, 1, 1, 1),
        ([1, 0, 3, 3], [2, 0, 2, 2], 1, 0, 1, 1),
        ([1, 2, 3, 3], [0, 2, 2, 2], 1, 0, 1, 1),
        ([1, 1, 3, 40], [1, 1, 1, 30], 1, 0, 1, 1),
    ];
    for (x, weight, stride, padding, dilation, groups) in cases {
        let case = Case { x, weight, stride, padding, dilation, groups };
        let attributes = format!(
            r#"{{"stride": {stride}, "padding": {padding}, "dilation": {dilation},
                "groups": {groups}}}"#
        );
        for dtype in FLOATS {
            let [x, weight] = [x, weight].map(|dims| Array::random(rng, dtype, &dims));
            let bias = Array::random(rng, dtype, &[weight.dims[0]]);
            let expected = convolved(&case, &x, &weight, None);
            check("conv2d", &[&x, &weight], &attributes, &expected);
            let expected = convolved(&case, &x, &weight, Some(&bias));
            check("conv2d", &[&x, &weight, &bias], &attributes, &expected);
        }
    }
}

/// The weight of a pixel at a distance from the centre, both in pixels of the wider grid.
fn weight(filter: &str, x: f64) -> f64 {
    let sinc = |x: f64| match x * std::f64::consts::PI {
        0.0 => 1.0,
        angle => angle.sin() / angle,
    };
    match filter {
        "bilinear" => (1.0 - x.abs()).max(0.0),
        _ if x.abs() < 3.0 => sinc(x) * sinc(x / 3.0),
        _ => 0.0,
    }
}

/// The share of each old pixel in a new one: all are asked, those far away have none.
fn shares(filter: &str, from: usize, to: usize, at: usize) -> Vec<f64> {
    let step = from as f64 / to as f64;
    let centre = (at as f64 + 0.5) * step;
    if filter == "nearest" {
        return (0..from).map(|x| f64::from(u8::from(x == centre as usize))).collect();
    }
    let wide = step.max(1.0);
    let all: Vec<_> = (0..from).map(|x| weight(filter, (x as f64 + 0.5 - centre) / wide)).collect();
    let sum: f64 = all.iter().sum();
    all.iter().map(|share| share / sum).collect()
}

fn resized(x: &Array, filter: &str, height: usize, width: usize) -> Array {
    let &[n, c, h, w] = x.dims.as_slice() else { unreachable!() };
    let mut result = Array::new(x.dtype, &[n, c, height, width], vec![0.0; n * c * height * width]);
    for (index, value) in result.data.iter_mut().enumerate() {
        let place = crate::array::place(index, &result.dims);
        let down = shares(filter, h, height, place[2]);
        let across = shares(filter, w, width, place[3]);
        for (y, down) in down.iter().enumerate() {
            for (z, across) in across.iter().enumerate() {
                *value += down * across * x.at(&[place[0], place[1], y, z]);
            }
        }
        if x.dtype.is_int() {
            *value = value.round();
        }
        *value = rounded(*value, x.dtype);
    }
    result
}

#[test]
fn sizes() {
    let rng = &mut Rng::new();
    for filter in ["nearest", "bilinear", "lanczos"] {
        for dtype in all_types() {
            for (dims, height, width) in [
                ([1, 1, 1, 1], 3, 2),
                ([2, 3, 5, 7], 5, 7),
                ([1, 2, 5, 7], 11, 4),
                ([1, 1, 9, 1], 2, 1),
                ([2, 1, 8, 8], 4, 16),
                ([1, 1, 13, 17], 3, 5),
                ([0, 3, 4, 4], 2, 2),
            ] {
                let mut x = Array::random(rng, dtype, &dims);
                if dtype.is_int() {
                    // No halves: how those are rounded hangs on the last bit.
                    x = x.map(|x| x * 9.0);
                }
                let attributes =
                    format!(r#"{{"height": {height}, "width": {width}, "filter": "{filter}"}}"#);
                let expected = resized(&x, filter, height, width);
                match dtype.is_int() {
                    false => {
                        // Computed in f32, also for f64.
                        let f32s = |x: &Array| Array { dtype: DType::F32, ..x.clone() };
                        if dtype == DType::F64 {
                            check_loosely(&x, &attributes, &f32s(&expected));
                        } else {
                            check("resize", &[&x], &attributes, &expected);
                        }
                    }
                    true => check_whole(&x, &attributes, &expected),
                }
            }
        }
    }
}

/// f64 comes with the precision of f32.
fn check_loosely(x: &Array, attributes: &str, expected: &Array) {
    for layout in crate::layouts() {
        let found = kino_host::ops::apply("resize", &[x.tensor(layout)], attributes).unwrap();
        assert_eq!(found.dtype(), DType::F64);
        let found = Array { dtype: DType::F32, ..Array::read(&found) };
        found.expect_near(expected, attributes);
    }
}

/// Whole numbers may differ by one, where the last bit decides about a half.
fn check_whole(x: &Array, attributes: &str, expected: &Array) {
    for layout in crate::layouts() {
        let found = kino_host::ops::apply("resize", &[x.tensor(layout)], attributes).unwrap();
        let found = Array::read(&found);
        assert_eq!((found.dtype, &found.dims), (expected.dtype, &expected.dims));
        let mut differ = 0;
        for (found, expected) in found.data.iter().zip(&expected.data) {
            assert!((found - expected).abs() <= 1.0, "{attributes}: {found}, expected {expected}");
            differ += usize::from(found != expected);
        }
        assert!(differ <= 1 + found.data.len() / 10, "{attributes}: {differ} differ");
    }
}

/// Whole numbers are rounded and kept within their range: Lanczos overshoots at edges.
#[test]
fn whole_numbers_do_not_wrap_when_resized() {
    let edge = Array::new(DType::U8, &[1, 1, 1, 4], vec![0.0, 0.0, 255.0, 255.0]);
    let attributes = r#"{"height": 1, "width": 8, "filter": "lanczos"}"#;
    let found = kino_host::ops::apply("resize", &[edge.tensor(crate::layouts()[0])], attributes);
    let found = Array::read(&found.unwrap());
    assert_eq!(found.data, [10.0, 0.0, 0.0, 54.0, 201.0, 255.0, 255.0, 245.0]);
}
