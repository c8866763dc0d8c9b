//! The reference forms of operations against NumPy 2.4, and Pillow 13 for sizes of images.

use kino_plugin::prelude::*;
use kino_plugin::testing::{self, assert_close};

/// Numbers that are exact in every type: ((37·i) mod 11) / 8 − 0.5.
fn ramp(dims: &[usize]) -> Tensor {
    let number = |i: usize| ((i * 37) % 11) as f32 / 8.0 - 0.5;
    Tensor::new_with(dims, |out| out.iter_mut().enumerate().for_each(|(i, o)| *o = number(i)))
        .unwrap()
}

#[track_caller]
fn check(found: Result<Tensor>, dims: &[usize], expected: &[f32]) {
    let expected = Tensor::from_slice(expected, dims).unwrap();
    assert_close(&found.unwrap(), &expected, 2e-6);
}

#[track_caller]
fn check_indices(found: Result<Tensor>, dims: &[usize], expected: &[u32]) {
    let found = found.unwrap();
    assert_eq!(found.dims(), dims);
    assert_eq!(found.as_slice::<u32>().unwrap(), expected);
}

#[test]
fn products_and_convolutions() {
    let product = ramp(&[2, 2, 3]).matmul(&ramp(&[1, 3, 2]));
    let expected = [0.3125, 0.3125, 0.328125, 0.34375, 0.34375, 0.375, 0.1875, -0.453125];
    check(product, &[2, 2, 2], &expected);
    let bias = Tensor::from_slice(&[0.5f32, -1.0, 2.0, 0.25], &[4]).unwrap();
    let conv = Conv { stride: 2, padding: 1, dilation: 2, groups: 2 };
    let found = ramp(&[1, 4, 5, 4]).conv2d(&ramp(&[4, 2, 3, 2]), Some(&bias), conv);
    let expected = [
        0.875, 0.0625, 0.28125, 0.203125, -1.1875, -0.390625, -1.09375, -0.421875, 1.90625, 1.75,
        1.75, 2.25, 0.0625, -0.078125, 0.421875, 0.078125,
    ];
    check(found, &[1, 4, 2, 2], &expected);
    let plain = ramp(&[1, 1, 2, 2]).conv2d(&ramp(&[1, 1, 1, 1]), None, Conv::default());
    assert_close(&plain.unwrap(), &ramp(&[1, 1, 2, 2]).mul(-0.5).unwrap(), 0.0);
}

#[test]
fn along_dimensions() {
    let s = ramp(&[2, 3]);
    let expected = [0.4687906, 0.4687906, 0.4687906, 0.5312094, 0.5312094, 0.5312094];
    check(s.softmax(0), &[2, 3], &expected);
    check(s.cumsum(-1), &[2, 3], &[-0.5, -0.5, 0.0, -0.375, -0.25, 0.375]);
    check(s.mean(&[0]), &[3], &[-0.4375, 0.0625, 0.5625]);
    check(s.sum(&[]), &[], &[0.375]);
    check(s.min_of(&[-1]), &[2], &[-0.5, -0.375]);
    check(s.reduce("max_of", &[1], true), &[2, 1], &[0.5, 0.625]);
    check_indices(s.argmax(1), &[2], &[2, 2]);
    check_indices(Tensor::zeros::<f32>(&[2, 3]).unwrap().argmin(0), &[3], &[0, 0, 0]);
}

#[test]
fn sizes_of_images() {
    let image = ramp(&[1, 1, 4, 6]);
    let expected = [
        -0.5, -0.1875, 0.1875, 0.390625, -0.265625, -0.0625, 0.3125, 0.625, -0.325, -0.0125,
        0.3625, 0.565625, -0.090625, 0.1125, 0.1265625, -0.1625, -0.125, 0.1875, 0.3046875,
        0.1640625, 0.0234375, 0.3125, 0.171875, -0.375, 0.075, 0.3875, 0.246875, -0.2375, 0.1375,
        0.2546875, 0.1140625, -0.175, 0.25, 0.5625, 0.421875, -0.0625, 0.3125, -0.171875, -0.3125,
        0.0,
    ];
    check(image.resize(5, 8, Filter::Bilinear), &[1, 1, 5, 8], &expected);
    let expected = [-0.0277325, 0.2145467, 0.09565816, 0.298607, 0.1361604, -0.03482802];
    check(image.resize(2, 3, Filter::Lanczos), &[1, 1, 2, 3], &expected);
    let expected = [
        -0.2375,
        0.3111111,
        -0.03611111,
        0.2546875,
        0.0625,
        0.2291667,
        0.1875,
        -0.046875,
        0.3625,
        0.1472222,
        0.09027778,
        -0.1078125,
    ];
    check(image.resize(3, 4, Filter::Bilinear), &[1, 1, 3, 4], &expected);
    let twice = ramp(&[1, 1, 1, 2]).resize(2, 4, Filter::Nearest);
    check(twice, &[1, 1, 2, 4], &[-0.5, -0.5, 0.0, 0.0, -0.5, -0.5, 0.0, 0.0]);
}

#[test]
fn element_by_element() {
    let v = Tensor::from_slice(&[-2.0f32, -0.5, 0.0, 0.25, 1.5, 3.0], &[6]).unwrap();
    let check = |found: Result<Tensor>, expected: [f32; 6]| check(found, &[6], &expected);
    check(v.gelu(), [-0.04550026, -0.1542688, 0.0, 0.1496766, 1.399789, 2.99595]);
    check(v.erf(), [-0.9953223, -0.5204999, 0.0, 0.2763264, 0.9661051, 0.9999779]);
    check(v.silu(), [-0.2384058, -0.1887703, 0.0, 0.1405441, 1.226362, 2.857722]);
    check(v.tanh(), [-0.9640276, -0.4621172, 0.0, 0.2449187, 0.9051483, 0.9950548]);
    check(v.abs().unwrap().pow(1.5), [2.828427, 0.3535534, 0.0, 0.125, 1.837117, 5.196152]);
    check(v.round(), [-2.0, -1.0, 0.0, 0.0, 2.0, 3.0]);
    check(v.floor(), [-2.0, -1.0, 0.0, 0.0, 1.0, 3.0]);
    check(v.ceil(), [-2.0, 0.0, 0.0, 1.0, 2.0, 3.0]);
    check(v.sign(), [-1.0, -1.0, 0.0, 1.0, 1.0, 1.0]);
    check(v.relu(), [0.0, 0.0, 0.0, 0.25, 1.5, 3.0]);
    check(v.clamp(-1.0, 2.0), [-1.0, -0.5, 0.0, 0.25, 1.5, 2.0]);
    check(v.max(0.25), [0.25, 0.25, 0.25, 0.25, 1.5, 3.0]);
    check(v.min(&v.neg().unwrap()), [-2.0, -0.5, 0.0, -0.25, -1.5, -3.0]);
    check(v.sub(1.0), [-3.0, -1.5, -1.0, -0.75, 0.5, 2.0]);
    check(v.div(4.0), [-0.5, -0.125, 0.0, 0.0625, 0.375, 0.75]);
    let back = v.exp().unwrap().log();
    check(back, [-2.0, -0.5, 0.0, 0.25, 1.5, 3.0]);
    let squares = v.mul(&v).unwrap();
    check(squares.sqrt(), [2.0, 0.5, 0.0, 0.25, 1.5, 3.0]);
    check(squares.add(1.0).unwrap().recip(), [0.2, 0.8, 1.0, 16.0 / 17.0, 4.0 / 13.0, 0.1]);
    let one = v.sin().unwrap().pow(2.0).unwrap().add(&v.cos().unwrap().pow(2.0).unwrap());
    check(one, [1.0; 6]);
    check(v.sigmoid().unwrap().add(&v.neg().unwrap().sigmoid().unwrap()), [1.0; 6]);
}

#[test]
fn comparisons_choose() {
    let (a, b) = (ramp(&[2, 3]), ramp(&[1, 3]));
    let bytes = |found: Result<Tensor>| found.unwrap().to_vec::<u8>().unwrap();
    assert_eq!(bytes(a.gt(&b)), [0, 0, 0, 1, 1, 1]);
    assert_eq!(bytes(a.ge(&b)), [1; 6]);
    assert_eq!(bytes(a.lt(0.0)), [1, 0, 0, 1, 0, 0]);
    assert_eq!(bytes(a.le(0.5)), [1, 1, 1, 1, 1, 0]);
    assert_eq!(bytes(a.eq(&b)), [1, 1, 1, 0, 0, 0]);
    assert_eq!(bytes(a.ne(&b)), [0, 0, 0, 1, 1, 1]);
    let positive = a.ge(0.0).unwrap().choose(&a, &a.neg().unwrap());
    assert_close(&positive.unwrap(), &a.abs().unwrap(), 0.0);
}

#[test]
fn shapes() {
    let s = ramp(&[2, 3]);
    check(s.permute(&[1, 0]), &[3, 2], &[-0.5, -0.375, 0.0, 0.125, 0.5, 0.625]);
    assert_close(&s.transpose(0, -1).unwrap(), &s.permute(&[1, 0]).unwrap(), 0.0);
    check(s.reshape(&[-1, 2]), &[3, 2], &[-0.5, 0.0, 0.5, -0.375, 0.125, 0.625]);
    check(s.slice(-1, 1, 2), &[2, 2], &[0.0, 0.5, 0.125, 0.625]);
    let joined = Tensor::concat(&[&s, &s.slice(1, 0, 1).unwrap()], 1);
    check(joined, &[2, 4], &[-0.5, 0.0, 0.5, -0.5, -0.375, 0.125, 0.625, -0.375]);
    check(s.flip(&[0, 1]), &[2, 3], &[0.625, 0.125, -0.375, 0.5, 0.0, -0.5]);
    let indices = Tensor::from_slice(&[2u32, 0, 1, 1], &[2, 2]).unwrap();
    check(s.gather(&indices, 1), &[2, 2], &[0.5, -0.5, 0.125, 0.125]);
    let indices = Tensor::from_slice(&[2i64, 0], &[2]).unwrap();
    check(s.index_select(&indices, 1), &[2, 2], &[0.5, -0.5, 0.625, -0.375]);
    let row = s.slice(0, 0, 1).unwrap();
    check(row.broadcast(&[2, 3]), &[2, 3], &[-0.5, 0.0, 0.5, -0.5, 0.0, 0.5]);
    check(row.pad(1, 2, 1, Padding::Edge), &[1, 6], &[-0.5, -0.5, -0.5, 0.0, 0.5, 0.5]);
    check(row.pad(0, 0, 1, Padding::Zeros), &[2, 3], &[-0.5, 0.0, 0.5, 0.0, 0.0, 0.0]);
    assert_close(&s.contiguous().unwrap().to_host().unwrap(), &s, 0.0);
}

#[test]
fn types_are_converted() {
    let v = Tensor::from_slice(&[-1.75f32, 0.5, 300.0], &[3]).unwrap();
    assert_eq!(v.cast(DType::I32).unwrap().to_vec::<i32>().unwrap(), [-1, 0, 300]);
    assert_eq!(v.cast(DType::I16).unwrap().to_vec::<i16>().unwrap(), [-1, 0, 300]);
    for dtype in DType::ALL.into_iter().filter(|dtype| dtype.name().contains('f')) {
        let there = v.cast(dtype).unwrap();
        assert_eq!(there.dtype(), dtype);
        assert_close(&there.cast(DType::F32).unwrap(), &v, 0.0);
    }
    let big = Tensor::from_slice(&[i64::MAX, i64::MIN], &[2]).unwrap();
    assert_eq!(big.flip(&[0]).unwrap().to_vec::<i64>().unwrap(), [i64::MIN, i64::MAX]);
}

#[test]
fn what_does_not_fit_is_refused_with_its_name() {
    let s = ramp(&[2, 3]);
    let why = |found: Result<Tensor>| found.unwrap_err().to_string();
    assert_eq!(why(s.matmul(&s)), "op matmul: [2, 3] by [2, 3]: the inner dimensions differ");
    assert_eq!(why(s.sum(&[2])), "op sum: shape [2, 3] has no dimension 2");
    assert_eq!(why(s.sum(&[0, -2])), "op sum: dimension 0 of [2, 3] is named twice");
    assert_eq!(why(s.reshape(&[4, -1])), "op reshape: [2, 3] does not become [4, -1]");
    assert_eq!(
        why(s.op("wobble", &[], "")),
        "there is no operation `wobble` on tensors (plugins/abi/OPERATIONS.md lists them)"
    );
    assert_eq!(why(s.op("add", &[], "")), "op add: expected 2 tensors (a, b), found 1");
    assert_eq!(why(s.op("clamp", &[], "{}")), "op clamp: the attribute `min` is missing");
    assert_eq!(
        why(s.add(&s.cast(DType::F16).unwrap())),
        "op add: f32 and f16: the element types differ (`cast` makes them alike)"
    );
    let far = Tensor::from_slice(&[3u32], &[1]).unwrap();
    assert_eq!(
        why(s.index_select(&far, 1)),
        "op index_select: index 3 lies outside dimension 1 of [2, 3]"
    );
    let whole = s.cast(DType::I32).unwrap();
    assert_eq!(
        why(whole.mean(&[])),
        "op mean: expected f16, bf16, f32 or f64, found i32 (`cast` it first)"
    );
    assert_eq!(why(whole.div(0.0)), "op div: a whole number (i32) by 0");
}

#[test]
fn numbers_take_the_type_of_the_tensor() {
    for dtype in [DType::F32, DType::F64, DType::F16, DType::Bf16, DType::I32, DType::U8] {
        let two = Tensor::scalar(2.0, dtype).unwrap();
        for joined in [two.mul(4.0), two.add(6.0), two.max(8.0), two.mul(12.0).unwrap().div(3.0)] {
            let eight = joined.unwrap();
            assert_eq!((eight.dtype(), eight.dims()), (dtype, [].as_slice()));
            assert_eq!(eight.cast(DType::F64).unwrap().to_scalar::<f64>().unwrap(), 8.0);
        }
    }
    // Rounded once: 0.1 as bf16 would be 0.10009765625.
    let hundred = Tensor::scalar(100.0, DType::Bf16).unwrap();
    let tenth = hundred.div(0.1).unwrap().cast(DType::F32).unwrap();
    assert_eq!(tenth.to_scalar::<f32>().unwrap(), 1000.0);
    let endless = Tensor::scalar(1.0, DType::F32).unwrap().add(f64::INFINITY).unwrap();
    assert_eq!(endless.to_scalar::<f32>().unwrap(), f32::INFINITY);
}

/// Nothing is cut without a word.
#[test]
fn numbers_that_a_type_does_not_have_are_refused() {
    let why = |found: Result<Tensor>| found.unwrap_err().to_string();
    let whole = Tensor::from_slice(&[0i32, 1], &[2]).unwrap();
    assert_eq!(why(whole.lt(0.5)), "lt: 0.5 is no i32: `cast` the tensor to a type that has it");
    assert!(why(whole.div(0.5)).starts_with("div: 0.5 is no i32"));
    assert!(why(whole.eq(1e10)).starts_with("eq: 10000000000 is no i32"));
    assert!(why(whole.max(f64::NAN)).starts_with("max: NaN is no i32"));
    assert!(why(whole.mul(0.5)).contains("`mul`: expected a whole number for i32, found 0.5"));
    let v = ramp(&[2]);
    assert_eq!(why(v.affine(f64::NAN, 0.0)), "affine: expected finite numbers, found NaN, 0");
    assert_eq!(why(v.clamp(f64::NAN, 1.0)), "clamp: expected two bounds, found NaN and 1");
    assert_close(&v.clamp(f64::NEG_INFINITY, f64::INFINITY).unwrap(), &v, 0.0);
    check(v.clamp(0.0, f64::INFINITY), &[2], &[0.0, 0.0]);
}

#[test]
fn comparing_says_where_and_how_much() {
    let a = ramp(&[2, 3]);
    let mut other = a.to_vec::<f32>().unwrap();
    other[4] += 0.25;
    other[1] += 0.125;
    let b = Tensor::from_vec(other, &[2, 3]).unwrap();
    assert_eq!(
        testing::compare(&b, &a, 0.1).unwrap_err().message(),
        "2 of 6 elements differ by more than 1e-1; most of all at [1, 1]: expected 0.125, found \
         0.375, 2.5e-1 apart"
    );
    assert!(testing::compare(&b, &a, 0.25).is_ok());
    assert!(testing::compare(&a, &a.cast(DType::F64).unwrap(), 1.0).is_err());
    let nan = Tensor::from_slice(&[f32::NAN], &[1]).unwrap();
    assert!(testing::compare(&nan, &nan, 0.0).is_ok());
    assert!(testing::compare(&nan, &Tensor::zeros::<f32>(&[1]).unwrap(), 1e9).is_err());
}

#[test]
fn a_golden_file_is_compared_with() {
    // Written once with KINO_BLESS=1.
    testing::golden("tests/golden/ramp.txt", &ramp(&[2, 2]).exp().unwrap(), 1e-6);
    if std::env::var_os("KINO_BLESS").is_none() {
        let missing = || testing::golden("tests/golden/missing.txt", &ramp(&[1]), 0.0);
        assert!(std::panic::catch_unwind(missing).is_err());
        let other = || testing::golden("tests/golden/ramp.txt", &ramp(&[2, 2]), 1e-6);
        assert!(std::panic::catch_unwind(other).is_err());
    }
}

/// Functions on values give here what they give in the engine (`plugins/host/tests/ops/calls.rs`).
#[test]
fn functions_on_values_are_there() {
    use kino_plugin::Value;
    let numbers = [3f32, 1.0, f32::NAN, 2.0, 1.0, 5.0];
    let a = Tensor::from_slice(&numbers, &[2, 3]).unwrap();
    let tensor = |value: &Value| a_tensor(value.clone());
    let parts = Value::call("split", &[a.value()], r#"{"dim": 1, "sizes": [1, 2]}"#).unwrap();
    assert_eq!(tensor(&parts[0]).to_vec::<f32>().unwrap(), [3.0, 2.0]);
    assert_eq!(tensor(&parts[1]).dims(), [2, 2]);
    let best = Value::call("topk", &[a.value()], r#"{"k": 2, "dim": 1}"#).unwrap();
    let found = tensor(&best[0]).to_vec::<f32>().unwrap();
    assert!(found[0].is_nan() && found[1..] == [3.0, 5.0, 2.0], "{found:?}");
    assert_eq!(tensor(&best[1]).to_vec::<u32>().unwrap(), [2, 0, 2, 0]);
    let least = Value::call("topk", &[a.value()], r#"{"k": 1, "dim": 1, "least": true}"#).unwrap();
    assert_eq!(tensor(&least[1]).to_vec::<u32>().unwrap(), [1, 1]);
    let video = Frames::random(1, [5, 2, 3, 3]);
    let value = kino_plugin::port::IntoValue::into_value(video.clone()).unwrap();
    let some = Value::call("frames.slice", &[&value], r#"{"start": 1, "count": 3}"#).unwrap();
    let all = Value::call("fit", &[&some[0]], r#"{"type": "Tensor"}"#).unwrap();
    let expected = video.joined().unwrap().slice(0, 1, 3).unwrap();
    testing::assert_close(&tensor(&all[0]), &expected, 0.0);
    let scene = Value::text("beach").unwrap();
    let more = Value::call("with", &[&value, &scene], r#"{"fields": ["scene"]}"#).unwrap();
    let some = Value::call("frames.slice", &[&more[0]], r#"{"start": 4, "count": 1}"#).unwrap();
    assert_eq!(some[0].field("scene").unwrap().unwrap().as_text().unwrap(), "beach");
    let parts = a.split(1, &[1, 2]).unwrap();
    assert_eq!((parts.len(), parts[1].dims()), (2, &[2, 2][..]));
    let (_, best) = a.topk(-1, 2).unwrap();
    assert_eq!(best.to_vec::<u32>().unwrap(), [2, 0, 2, 0]);
    let (least, _) = a.topk_least(1, 1).unwrap();
    assert_eq!(least.to_vec::<f32>().unwrap(), [1.0, 1.0]);
    assert!(a.topk(1, 4).unwrap_err().message().starts_with("call topk: "));
    let record = Value::record("example.depth", &[("tensor", a.value())]).unwrap();
    let near = Value::real(0.5).unwrap();
    let more = Value::call("with", &[&record, &near], r#"{"fields": ["near"]}"#).unwrap();
    assert_eq!((more[0].len(), more[0].item(1).unwrap().0), (2, "near".to_owned()));
    let error = Value::call("topk", &[&near], r#"{"k": 1, "dim": 0}"#).err().unwrap();
    assert_eq!(
        (error.code(), error.message()),
        ("wrong-kind", "call topk: expected a tensor, found Real")
    );
}

/// Levels keep what they came with.
#[test]
fn sigmas_are_open() {
    use kino_plugin::Value;
    use kino_plugin::port::{FromValue, IntoValue};
    let levels = Tensor::from_slice(&[1.0f64, 0.5, 0.0], &[3]).unwrap();
    let kind = Value::text("karras").unwrap();
    let record = Value::record("Sigmas", &[("tensor", levels.value()), ("kind", &kind)]).unwrap();
    let sigmas = Sigmas::from_value(record).unwrap();
    assert_eq!((sigmas.len(), sigmas.clone()), (3, Sigmas(vec![1.0, 0.5, 0.0])));
    let other = sigmas.with(vec![1.0, 0.25, 0.0]).into_value().unwrap();
    assert_eq!(other.field("kind").unwrap().unwrap().as_text().unwrap(), "karras");
    assert_eq!(Sigmas::from_value(other).unwrap()[1], 0.25);
    let plain = Sigmas(vec![1.0, 0.0]).into_value().unwrap();
    assert!(Sigmas::from_value(plain).unwrap().field("kind").unwrap().is_none());
}

fn a_tensor(value: kino_plugin::Value) -> Tensor {
    kino_plugin::port::FromValue::from_value(value).unwrap()
}
