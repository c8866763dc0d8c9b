//! Values by other programs: convolution and activations as in PyTorch (worked out by hand),
//! sizes by Pillow 13 (`Image.resize` of floating-point images).

use candle_core::DType;

use crate::array::Array;
use crate::check;

fn f32s(dims: &[usize], data: &[f64]) -> Array {
    Array::new(DType::F32, dims, data.to_vec())
}

/// 0 to 15 in rows of four under kernels of ones.
#[test]
fn convolution() {
    let x = f32s(&[1, 1, 4, 4], &(0..16).map(f64::from).collect::<Vec<_>>());
    let ones = |side: usize| f32s(&[1, 1, side, side], &vec![1.0; side * side]);
    let four = |data: [f64; 4]| f32s(&[1, 1, 2, 2], &data);
    check("conv2d", &[&x, &ones(3)], "", &four([45.0, 54.0, 81.0, 90.0]));
    let moved = r#"{"stride": 2, "padding": 1}"#;
    check("conv2d", &[&x, &ones(3)], moved, &four([10.0, 24.0, 51.0, 90.0]));
    let wide = r#"{"dilation": 2}"#;
    check("conv2d", &[&x, &ones(2)], wide, &four([20.0, 24.0, 36.0, 40.0]));
    let bias = f32s(&[1], &[0.5]);
    check("conv2d", &[&x, &ones(2), &bias], wide, &four([20.5, 24.5, 36.5, 40.5]));
    // Not flipped: this is a correlation, as everywhere in this field.
    let slope = f32s(&[1, 1, 1, 2], &[-1.0, 1.0]);
    check("conv2d", &[&x, &slope], "", &f32s(&[1, 1, 4, 3], &[1.0; 12]));
    // Two groups: each sees its own channel.
    let x = f32s(&[1, 2, 1, 2], &[1.0, 2.0, 30.0, 40.0]);
    let weight = f32s(&[2, 1, 1, 1], &[2.0, 3.0]);
    let expected = f32s(&[1, 2, 1, 2], &[2.0, 4.0, 90.0, 120.0]);
    check("conv2d", &[&x, &weight], r#"{"groups": 2}"#, &expected);
}

#[test]
fn activations() {
    let x = f32s(&[4], &[1.0, -1.0, 2.0, 0.5]);
    let gelu = [0.841_344_746, -0.158_655_254, 1.954_499_736, 0.345_731_231];
    check("gelu", &[&x], "", &f32s(&[4], &gelu));
    let erf = [0.842_700_793, -0.842_700_793, 0.995_322_265, 0.520_499_878];
    check("erf", &[&x], "", &f32s(&[4], &erf));
    let silu = [0.731_058_579, -0.268_941_421, 1.761_594_156, 0.311_229_666];
    check("silu", &[&x], "", &f32s(&[4], &silu));
    let x = f32s(&[3], &[1.0, 2.0, 3.0]);
    let shares = [0.090_030_573, 0.244_728_471, 0.665_240_956];
    check("softmax", &[&x], r#"{"dim": 0}"#, &f32s(&[3], &shares));
}

#[track_caller]
fn resized(filter: &str, width: usize, height: usize, expected: &[f64]) {
    #[rustfmt::skip]
    let x = f32s(&[1, 1, 3, 5], &[
        0.0, 1.0, 4.0, 9.0, 16.0,
        25.0, 36.0, 49.0, 64.0, 81.0,
        3.0, 1.0, 4.0, 1.0, 5.0,
    ]);
    let attributes = format!(r#"{{"width": {width}, "height": {height}, "filter": "{filter}"}}"#);
    check("resize", &[&x], &attributes, &f32s(&[1, 1, height, width], expected));
}

#[test]
fn smaller() {
    resized("bilinear", 2, 2, &[14.85227, 30.35227, 15.22159, 26.11932]);
    resized("bilinear", 3, 1, &[13.46939, 23.22222, 36.2449]);
    resized("lanczos", 2, 2, &[14.53741, 34.80219, 15.55641, 29.45497]);
    resized("lanczos", 3, 1, &[11.53282, 20.65894, 33.9706]);
}

#[rustfmt::skip]
#[test]
fn larger() {
    resized("bilinear", 7, 5, &[
        0.0, 0.5714286, 1.857143, 4.0, 7.571429, 12.0, 16.0,
        10.0, 12.85714, 17.0, 22.0, 28.42857, 35.71429, 42.0,
        25.0, 31.28572, 39.71429, 49.0, 59.71429, 71.28571, 81.0,
        11.8, 13.62857, 17.0, 22.0, 25.0, 30.14286, 35.4,
        3.0, 1.857143, 1.857143, 4.0, 1.857143, 2.714286, 5.0,
    ]);
    resized("lanczos", 7, 5, &[
        -3.340992, -3.774804, -3.778261, -2.33581, -0.5375984, 3.873105, 6.845144,
        10.20584, 12.95202, 18.16969, 23.40472, 29.72288, 39.85321, 45.83477,
        24.44483, 29.86766, 40.01975, 49.0, 58.51193, 73.19875, 81.98621,
        12.7141, 13.87624, 18.25439, 23.40472, 25.47825, 31.91811, 37.29056,
        0.143838, -2.490737, -3.660583, -2.33581, -6.434824, -7.15145, -5.025681,
    ]);
}

/// Pixel centres lie at halves.
#[test]
fn centres() {
    let two = f32s(&[1, 1, 1, 2], &[0.0, 1.0]);
    let four = |data: [f64; 4]| f32s(&[1, 1, 1, 4], &data);
    let of = |filter| format!(r#"{{"height": 1, "width": 4, "filter": "{filter}"}}"#);
    check("resize", &[&two], &of("bilinear"), &four([0.0, 0.25, 0.75, 1.0]));
    check("resize", &[&two], &of("nearest"), &four([0.0, 0.0, 1.0, 1.0]));
    let five = f32s(&[1, 1, 1, 5], &[0.0, 1.0, 2.0, 3.0, 4.0]);
    let two = r#"{"height": 1, "width": 2, "filter": "nearest"}"#;
    check("resize", &[&five], two, &f32s(&[1, 1, 1, 2], &[1.0, 3.0]));
}
