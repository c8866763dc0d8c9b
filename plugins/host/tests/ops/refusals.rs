//! What is refused, and in which words.

use std::slice::from_ref;

use candle_core::{DType, Device, Tensor};
use kino_contract::code;
use kino_host::ops;

use crate::array::{Array, reference};

fn zeros(dtype: DType, dims: &[usize]) -> Tensor {
    Tensor::zeros(dims, dtype, &Device::Cpu).unwrap()
}

fn f(dims: &[usize]) -> Tensor {
    zeros(DType::F32, dims)
}

#[track_caller]
fn refused(name: &str, tensors: &[Tensor], attributes: &str, message: &str) {
    refused_with(name, tensors, attributes, message, None);
}

#[track_caller]
fn refused_with(
    name: &str,
    tensors: &[Tensor],
    attributes: &str,
    message: &str,
    hint: Option<&str>,
) {
    let error = ops::apply(name, tensors, attributes).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.hint()), (message, hint));
    let expected = match message {
        _ if message.contains("there is no operation") => code::NO_SUCH_OP,
        _ if message.contains("bytes that are allowed") => code::LIMIT,
        _ => code::INVALID,
    };
    assert_eq!(error.code(), expected, "{message}");
    // What the reference host cannot hold, and what hangs on candle's ways.
    let foreign = tensors.is_empty()
        || tensors.iter().any(|x| x.dtype() == DType::F8E4M3 || x.rank() > 8)
        || message.contains("an intermediate result");
    if !foreign {
        let arrays: Vec<_> = tensors.iter().map(Array::read).collect();
        let error = reference(name, &arrays.iter().collect::<Vec<_>>(), attributes).unwrap_err();
        let said = hint.map_or(message.to_owned(), |hint| format!("{message} ({hint})"));
        assert_eq!(error.to_string(), said);
    }
}

#[test]
fn names() {
    let unknown = |name| format!("there is no operation `{name}` on tensors");
    refused_with("sofmax", &[], "", &unknown("sofmax"), Some("did you mean `softmax`?"));
    let list = "plugins/abi/OPERATIONS.md lists them";
    refused_with("", &[], "", &unknown(""), Some(list));
    refused_with("zzz", &[], "", &unknown("zzz"), Some(list));
}

#[test]
fn numbers_of_tensors() {
    refused("add", &[f(&[1])], "", "op add: expected 2 tensors (a, b), found 1");
    refused("exp", &[], "", "op exp: expected 1 tensor (a), found 0");
    refused("conv2d", &[], "", "op conv2d: expected 2 to 3 tensors (x, weight, bias), found 0");
    refused("concat", &[], "", "op concat: expected 1 or more tensors (a, …), found 0");
}

#[test]
fn attributes() {
    let images = [f(&[1, 1, 3, 3]), f(&[1, 1, 3, 3])];
    let conv = |attributes: &str, message: &str| {
        refused("conv2d", &images, attributes, &format!("op conv2d: {message}"));
    };
    let whole = "attribute `stride`: expected a whole number, found";
    conv(r#"{"stride": "x"}"#, &format!(r#"{whole} "x""#));
    conv(r#"{"stride": 1.5}"#, &format!("{whole} 1.5"));
    conv(r#"{"stride": null}"#, &format!("{whole} null"));
    conv(r#"{"stride": 1e99}"#, &format!("{whole} 1e+99"));
    conv(r#"{"stride": 0}"#, "attribute `stride`: expected 1 or more, found 0");
    conv(r#"{"dilation": 0}"#, "attribute `dilation`: expected 1 or more, found 0");
    conv(r#"{"groups": -2}"#, "attribute `groups`: expected 1 or more, found -2");
    conv(r#"{"padding": -1}"#, "attribute `padding`: expected 0 or more, found -1");
    conv(
        r#"{"stride": 1, "stride": 2}"#,
        r#"attributes: "stride" is given twice at line 1 column 26"#,
    );
    conv("7", "attributes: invalid type: integer `7`, expected a JSON object at line 1 column 1");
    conv("{", "attributes: EOF while parsing an object at line 1 column 1");
    refused_with(
        "conv2d",
        &images,
        r#"{"strides": 1}"#,
        r#"op conv2d: there is no attribute "strides""#,
        Some("it takes `stride`, `padding`, `dilation`, `groups`"),
    );
    refused_with(
        "exp",
        &[f(&[1])],
        r#"{"x": 1}"#,
        r#"op exp: there is no attribute "x""#,
        Some("it takes none"),
    );
    refused("softmax", &[f(&[1])], "", "op softmax: the attribute `dim` is missing");
    let long = format!(r#"{{"dims": "{}"}}"#, "x".repeat(100));
    let cut = format!("\"{}…", "x".repeat(59));
    let message =
        format!("op sum: attribute `dims`: expected a list of whole numbers, found {cut}");
    refused("sum", &[f(&[1])], &long, &message);
    let keep = r#"{"keep": 1}"#;
    let message = "op sum: attribute `keep`: expected true or false, found 1";
    refused("sum", &[f(&[1])], keep, message);
    let message = "op affine: attribute `mul`: expected a number, found \"2\"";
    refused("affine", &[f(&[1])], r#"{"mul": "2", "add": 0}"#, message);
    let message = "op cast: attribute `dtype`: expected one of u8, u32, i16, i32, i64, bf16, f16, \
                   f32, f64, found \"f8e4m3\"";
    refused("cast", &[f(&[1])], r#"{"dtype": "f8e4m3"}"#, message);
    let size = r#"{"height": 2, "width": 2, "filter": "bicubic"}"#;
    let message = "op resize: attribute `filter`: expected one of nearest, bilinear, lanczos, \
                   found \"bicubic\"";
    refused("resize", &[f(&[1, 1, 1, 1])], size, message);
}

#[test]
fn element_types() {
    let differ = "f32 and f64: the element types differ";
    let alike = Some("`cast` makes them alike");
    let pair = [f(&[1]), zeros(DType::F64, &[1])];
    refused_with("add", &pair, "", &format!("op add: {differ}"), alike);
    refused_with("matmul", &pair, "", &format!("op matmul: {differ}"), alike);
    refused_with("concat", &pair, r#"{"dim": 0}"#, &format!("op concat: {differ}"), alike);
    let whole = zeros(DType::I64, &[2, 2]);
    let first = Some("`cast` it first");
    for (name, attributes) in [("exp", ""), ("mean", ""), ("softmax", r#"{"dim": 0}"#)] {
        let message = format!("op {name}: expected f16, bf16, f32 or f64, found i64");
        refused_with(name, from_ref(&whole), attributes, &message, first);
    }
    for name in ["matmul", "pow"] {
        let message = format!("op {name}: expected f16, bf16, f32 or f64, found i64");
        refused_with(name, &[whole.clone(), whole.clone()], "", &message, first);
    }
    let u8s = zeros(DType::U8, &[2]);
    refused_with("neg", from_ref(&u8s), "", "op neg: u8 has no negatives", first);
    refused("div", &[u8s.clone(), u8s.clone()], "", "op div: a whole number (u8) by 0");
    refused_with(
        "where",
        &[f(&[1]), f(&[1]), f(&[1])],
        "",
        "op where: the condition is f32, expected u8",
        Some("comparisons give one"),
    );
    refused_with(
        "affine",
        from_ref(&u8s),
        r#"{"mul": 0.5, "add": 0}"#,
        "op affine: attribute `mul`: expected a whole number for u8, found 0.5",
        Some("`cast` the tensor first"),
    );
    let message = "op clamp: no u8 lies within both: from 300 up, and to 255";
    refused("clamp", from_ref(&u8s), r#"{"min": 300, "max": 400}"#, message);
    let message = "op clamp: `min` 2 is greater than `max` 1";
    refused("clamp", from_ref(&u8s), r#"{"min": 2, "max": 1}"#, message);
    let message = "op gather: the indices are f32, expected u32 or i64";
    refused("gather", &[f(&[2]), f(&[2])], r#"{"dim": 0}"#, message);
    let f8 = f(&[1]).to_dtype(DType::F8E4M3).unwrap();
    refused("exp", &[f8], "", "op exp: operations do not take f8e4m3");
}

#[test]
fn shapes() {
    let message = "op add: [2, 3] and [4] do not broadcast to one shape: 3 against 4";
    refused("add", &[f(&[2, 3]), f(&[4])], "", message);
    let message = "op matmul: [2, 3] by [4, 5]: the inner dimensions differ";
    refused("matmul", &[f(&[2, 3]), f(&[4, 5])], "", message);
    let message = "op matmul: [3] by [3, 5]: both must have two dimensions or more";
    refused("matmul", &[f(&[3]), f(&[3, 5])], "", message);
    let message = "op matmul: [2, 1, 3] by [4, 3, 5]: the leading dimensions do not broadcast";
    refused("matmul", &[f(&[2, 1, 3]), f(&[4, 3, 5])], "", message);
    refused("softmax", &[f(&[2])], r#"{"dim": 1}"#, "op softmax: shape [2] has no dimension 1");
    refused("softmax", &[f(&[])], r#"{"dim": -1}"#, "op softmax: shape [] has no dimension -1");
    let message = "op sum: dimension 1 of [2, 3] is named twice";
    refused("sum", &[f(&[2, 3])], r#"{"dims": [1, -1]}"#, message);
    let message = "op argmax: there is no element to choose in [2, 0]";
    refused("argmax", &[f(&[2, 0])], r#"{"dim": 1}"#, message);
    refused("max_of", &[f(&[0])], "", "op max_of: there is no element to choose in [0]");
    let message = "op reshape: [2, 3] does not become [4, -1]";
    refused("reshape", &[f(&[2, 3])], r#"{"shape": [4, -1]}"#, message);
    let message = "op reshape: [0] does not become [0, -1]";
    refused("reshape", &[f(&[0])], r#"{"shape": [0, -1]}"#, message);
    let message = "op reshape: [2] does not become [-2, -1]";
    refused("reshape", &[f(&[2])], r#"{"shape": [-2, -1]}"#, message);
    let message = "op permute: 1 dimensions in another order, of [2, 3]";
    refused("permute", &[f(&[2, 3])], r#"{"dims": [0]}"#, message);
    let message = "op slice: 2 from 2 on reach past the end of dimension 0 of [3]";
    refused("slice", &[f(&[3])], r#"{"dim": 0, "start": 2, "len": 2}"#, message);
    let message = "op concat: [2, 3] and [2, 4] do not join along dimension 0";
    refused("concat", &[f(&[2, 3]), f(&[2, 4])], r#"{"dim": 0}"#, message);
    let message = "op broadcast: [2] does not broadcast to [3]";
    refused("broadcast", &[f(&[2])], r#"{"shape": [3]}"#, message);
    let message = "op pad: dimension 0 of [0] has no edge to repeat";
    let edge = r#"{"dim": 0, "before": 1, "after": 0, "mode": "edge"}"#;
    refused("pad", &[f(&[0])], edge, message);
    let indices = zeros(DType::U32, &[3, 1]);
    let message = "op gather: indices [3, 1] do not fit [2, 2] along dimension 1";
    refused("gather", &[f(&[2, 2]), indices.clone()], r#"{"dim": 1}"#, message);
    let message = "op index_select: indices [3, 1], expected [n]";
    refused("index_select", &[f(&[2, 2]), indices], r#"{"dim": 1}"#, message);
}

#[test]
fn images() {
    let [x, weight] = [f(&[1, 4, 3, 3]), f(&[2, 4, 5, 5])];
    let message = "op conv2d: a kernel of 5 (dilation 1) does not fit into 3 (padding 0)";
    refused("conv2d", &[x.clone(), weight.clone()], "", message);
    let message = "op conv2d: [1, 4, 3, 3] by [2, 4, 5, 5]: the channels do not fit 3 groups";
    refused("conv2d", &[x.clone(), weight.clone()], r#"{"groups": 3}"#, message);
    let message = "op conv2d: bias [3], expected [2]";
    refused("conv2d", &[x.clone(), weight.clone(), f(&[3])], r#"{"padding": 2}"#, message);
    let message = "op conv2d: [3] by [2, 4, 5, 5]: expected [n, c, h, w] by [o, c/groups, kh, kw]";
    refused("conv2d", &[f(&[3]), weight], "", message);
    let size = r#"{"height": 2, "width": 2, "filter": "lanczos"}"#;
    refused("resize", &[f(&[3, 3])], size, "op resize: [3, 3]: expected [n, c, h, w]");
    let message = "op resize: [1, 1, 0, 3] has no pixels";
    refused("resize", &[f(&[1, 1, 0, 3])], size, message);
    let size = r#"{"height": 0, "width": 2, "filter": "lanczos"}"#;
    let message = "op resize: attribute `height`: expected 1 or more, found 0";
    refused("resize", &[x], size, message);
}

/// Indices are checked on whatever device; the greatest of a type means nothing special.
#[test]
fn indices() {
    let x = f(&[3, 3]);
    for index in [-1, 3, i64::MAX, i64::MIN] {
        let message = format!("index {index} lies outside dimension 1 of [3, 3]");
        let at = Tensor::new(&[0, index], &Device::Cpu).unwrap();
        let select = format!("op index_select: {message}");
        refused("index_select", &[x.clone(), at.clone()], r#"{"dim": 1}"#, &select);
        let at = at.reshape((1, 2)).unwrap();
        refused("gather", &[x.clone(), at], r#"{"dim": -1}"#, &format!("op gather: {message}"));
    }
    let at = Tensor::new(&[u32::MAX], &Device::Cpu).unwrap();
    let message = "op index_select: index 4294967295 lies outside dimension 0 of [3, 3]";
    refused("index_select", &[x, at], r#"{"dim": 0}"#, message);
}

#[test]
fn sizes() {
    let large = "is larger than the 68719476736 bytes that are allowed";
    let huge = i64::MAX;
    let message = format!("op broadcast: a result of shape [{huge}, {huge}] (f32) {large}");
    let shape = format!(r#"{{"shape": [{huge}, {huge}]}}"#);
    refused("broadcast", &[f(&[])], &shape, &message);
    let message = format!("op broadcast: a result of shape [0, {huge}, {huge}] (f32) {large}");
    let shape = format!(r#"{{"shape": [0, {huge}, {huge}]}}"#);
    refused("broadcast", &[f(&[])], &shape, &message);
    let shape = format!(r#"{{"shape": [{huge}, {huge}, 0]}}"#);
    let message = format!("op reshape: a result of shape [{huge}, {huge}, 0] (f32) {large}");
    refused("reshape", &[f(&[0])], &shape, &message);
    let message = "op reshape: a result of 9 dimensions: at most 8 are possible";
    refused("reshape", &[f(&[1])], r#"{"shape": [1, 1, 1, 1, 1, 1, 1, 1, 1]}"#, message);
    let message = "op exp: 9 dimensions: at most 8 are possible";
    refused("exp", &[f(&[1; 9])], "", message);
    let long = usize::MAX;
    let message = format!("op pad: a result of shape [{long}] (f32) {large}");
    let pad = format!(r#"{{"dim": 0, "before": {long}, "after": 1, "mode": "zeros"}}"#);
    refused("pad", &[f(&[1])], &pad, &message);
    let size = format!(r#"{{"height": {huge}, "width": 1, "filter": "nearest"}}"#);
    let message = format!("op resize: a side of {huge}: at most 4194304 is possible");
    refused("resize", &[f(&[1, 1, 1, 1])], &size, &message);
    let images = [f(&[1, 1, 1, 1]), f(&[1, 1, 1, 1])];
    let padding = 1i64 << 40;
    let message = format!(
        "op conv2d: an intermediate result of shape [1, {0}, {0}, 1] (f32) {large}",
        2 * padding + 1
    );
    let attributes = format!(r#"{{"padding": {padding}, "stride": {padding}}}"#);
    refused("conv2d", &images, &attributes, &message);
}
