//! Whatever a plugin may pass gives a result or an error.

use std::panic::{AssertUnwindSafe, catch_unwind};

use candle_core::DType;
use kino_host::ops;

use crate::array::{Array, Rng, all_types, layouts, reference};

/// Every attribute there is, and one that is not.
const KEYS: [&str; 23] = [
    "mul", "add", "min", "max", "dims", "keep", "dim", "stride", "padding", "dilation", "groups",
    "height", "width", "filter", "dtype", "shape", "start", "len", "before", "after", "mode", "x",
    "",
];

/// Small ones, and such as no memory could hold: what lies between would be computed.
fn number(rng: &mut Rng) -> String {
    match rng.below(12) {
        0 => rng.of(&[i64::MIN, i64::MAX, 1 << 62, -(1 << 62), 1 << 50]).to_string(),
        1 => rng.of(&[u64::MAX, u64::MAX - 1, 1 << 63]).to_string(),
        2 => rng.of(&["1.5", "-0.0", "1e308", "-1e99", "1e-400", "2.0"]).to_owned(),
        _ => (rng.below(9) as i64 - 3).to_string(),
    }
}

fn value(rng: &mut Rng, depth: usize) -> String {
    const WORDS: [&str; 12] = [
        "nearest",
        "bilinear",
        "lanczos",
        "zeros",
        "edge",
        "f32",
        "u8",
        "i64",
        "bf16",
        "f16",
        "",
        "\\u0000é",
    ];
    match rng.below(10) {
        0 => "null".into(),
        1 => rng.of(&["true", "false"]).into(),
        2 | 3 => format!("\"{}\"", rng.of(&WORDS)),
        4 | 5 if depth < 3 => {
            let items: Vec<_> = (0..rng.below(5)).map(|_| value(rng, depth + 1)).collect();
            format!("[{}]", items.join(","))
        }
        6 => {
            let items: Vec<_> = (0..rng.below(5)).map(|_| number(rng)).collect();
            format!("[{}]", items.join(","))
        }
        7 if depth < 2 => "{\"a\": {}}".into(),
        _ => number(rng),
    }
}

/// What belongs to an attribute, mostly.
fn fitting(rng: &mut Rng, key: &str) -> String {
    let list = |rng: &mut Rng| {
        let items: Vec<_> = (0..rng.below(4)).map(|_| number(rng)).collect();
        format!("[{}]", items.join(","))
    };
    match key {
        "dims" | "shape" => list(rng),
        "keep" => rng.of(&["true", "false"]).into(),
        "filter" => rng.of(&["\"nearest\"", "\"bilinear\"", "\"lanczos\""]).into(),
        "mode" => rng.of(&["\"zeros\"", "\"edge\""]).into(),
        "dtype" => format!("\"{}\"", all_types().nth(rng.below(9)).unwrap().as_str()),
        "dim" if rng.below(4) > 0 => (rng.below(3) as i64 - 1).to_string(),
        _ if rng.below(4) > 0 => rng.below(3).to_string(),
        _ => number(rng),
    }
}

/// The attributes of an operation.
fn keys(name: &str) -> &'static [&'static str] {
    match name {
        "affine" => &["mul", "add"],
        "clamp" => &["min", "max"],
        "sum" | "mean" | "max_of" | "min_of" => &["dims", "keep"],
        "argmax" | "argmin" => &["dim", "keep"],
        "softmax" | "cumsum" | "concat" | "gather" | "index_select" => &["dim"],
        "conv2d" => &["stride", "padding", "dilation", "groups"],
        "resize" => &["height", "width", "filter"],
        "cast" => &["dtype"],
        "reshape" | "broadcast" => &["shape"],
        "permute" | "flip" => &["dims"],
        "slice" => &["dim", "start", "len"],
        "pad" => &["dim", "before", "after", "mode"],
        _ => &[],
    }
}

fn attributes(rng: &mut Rng, name: &str) -> String {
    let whole = match rng.below(8) {
        0 => String::new(),
        1 => value(rng, 0),
        2 => {
            let keys = (0..rng.below(4)).map(|_| rng.of(&KEYS)).collect::<Vec<_>>();
            let pairs = keys.into_iter().map(|key| format!("\"{key}\": {}", value(rng, 0)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
        }
        _ => {
            let name = if rng.below(8) == 0 { rng.of(ops::NAMES) } else { name };
            let pairs = keys(name).iter().map(|key| format!("\"{key}\": {}", fitting(rng, key)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
        }
    };
    match rng.below(20) {
        0 => whole.chars().take(whole.chars().count() / 2).collect(),
        _ => whole,
    }
}

fn array(rng: &mut Rng, alike: Option<&Array>) -> Array {
    let dtype = match alike {
        Some(other) if rng.below(4) > 0 => other.dtype,
        _ => all_types().nth(rng.below(9)).unwrap(),
    };
    let dims = match alike {
        Some(other) if rng.below(3) > 0 => other.dims.clone(),
        _ => {
            let rank = rng.of(&[0, 1, 1, 2, 2, 3, 4, 4, 4, 5, 8, 9]);
            let sizes: &[usize] = if rank > 4 { &[0, 1, 1, 1, 2] } else { &[0, 1, 1, 2, 3, 4] };
            (0..rank).map(|_| rng.of(sizes)).collect::<Vec<_>>()
        }
    };
    let mut array = Array::random(rng, dtype, &dims);
    if rng.below(3) == 0 {
        for value in &mut array.data {
            let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 1e300, -9e18, 9e18];
            if rng.below(3) == 0 {
                *value = crate::array::rounded(rng.of(&special), dtype);
            }
        }
    }
    array
}

/// What an operation takes, mostly.
fn arrays(rng: &mut Rng, name: &str) -> Vec<Array> {
    let mut arrays = vec![array(rng, None)];
    let usual = match name {
        "where" => 3,
        "conv2d" => 2 + rng.below(2),
        "matmul" | "gather" | "index_select" | "concat" => 2,
        _ if keys(name).is_empty() => 1 + rng.below(2),
        _ => 1,
    };
    let count = if rng.below(9) == 0 { rng.below(4) } else { usual };
    while arrays.len() < count {
        let next = array(rng, arrays.first());
        arrays.push(next);
    }
    arrays.truncate(count);
    if rng.below(4) > 0 {
        fit(rng, name, &mut arrays);
    }
    arrays
}

/// Makes likely what chance rarely gives.
fn fit(rng: &mut Rng, name: &str, arrays: &mut [Array]) {
    let mut sizes = |count: usize| (0..count).map(|_| rng.of(&[0, 1, 2, 3, 4])).collect::<Vec<_>>();
    let shapes: [Vec<usize>; 3] = match name {
        "conv2d" => {
            let (x, mut weight) = (sizes(4), sizes(4));
            weight[1] = x[1];
            let bias = vec![weight[0]];
            [x, weight, bias]
        }
        "resize" => [sizes(4), vec![], vec![]],
        "permute" | "flip" | "reshape" => [sizes(2), vec![], vec![]],
        "index_select" => [sizes(2), sizes(1), vec![]],
        "where" | "gather" | "matmul" => [sizes(2), sizes(2), sizes(2)],
        _ => return,
    };
    let dtype = arrays.first().map(|array| array.dtype);
    for (index, (array, dims)) in arrays.iter_mut().zip(shapes).enumerate() {
        let dtype = match (name, index) {
            ("where", 0) => DType::U8,
            ("gather" | "index_select", 1) => rng.of(&[DType::U32, DType::I64]),
            ("conv2d" | "matmul", _) => dtype.filter(DType::is_float).unwrap_or(DType::F32),
            _ => array.dtype,
        };
        *array = Array::random(rng, dtype, &dims);
        if matches!(name, "gather" | "index_select") && index == 1 {
            *array = array.map(|index| if index > 6.0 { index } else { index.abs() % 2.0 });
        }
    }
}

#[test]
fn nothing_panics() {
    let rng = &mut Rng::new();
    let mut computed = vec![0; ops::NAMES.len()];
    for round in 0..60_000 {
        let name = rng.below(ops::NAMES.len());
        let arrays = arrays(rng, ops::NAMES[name]);
        let tensors: Vec<_> = arrays.iter().map(|array| array.tensor(rng.of(&layouts()))).collect();
        let attributes = attributes(rng, ops::NAMES[name]);
        let shapes: Vec<_> = tensors.iter().map(|x| (x.dtype(), x.dims().to_vec())).collect();
        let what = format!("{round}: {} {attributes} {shapes:?}", ops::NAMES[name]);
        let apply = || ops::apply(ops::NAMES[name], &tensors, &attributes);
        match catch_unwind(AssertUnwindSafe(apply)).unwrap_or_else(|_| panic!("{what}")) {
            Ok(result) => {
                computed[name] += 1;
                same(ops::NAMES[name], &arrays, &attributes, &Array::read(&result), &what);
            }
            Err(error) => {
                assert!(error.to_string().len() < 500, "{what}: {error}");
                let kino_node::Error::Failed { message, hint, .. } = &error else {
                    panic!("{what}: {error}")
                };
                let foreign = arrays.is_empty()
                    || arrays.iter().any(|array| array.dims.len() > 8)
                    || message.contains("an intermediate result");
                if !foreign {
                    let said = match hint {
                        Some(hint) => format!("{message} ({hint})"),
                        None => message.clone(),
                    };
                    let operands: Vec<_> = arrays.iter().collect();
                    match reference(ops::NAMES[name], &operands, &attributes) {
                        Ok(_) => panic!("{what}: the reference does not refuse it: {message}"),
                        Err(refused) => assert_eq!(refused.to_string(), said, "{what}"),
                    }
                }
            }
        }
    }
    let idle: Vec<_> = ops::NAMES.iter().zip(&computed).filter(|(_, count)| **count == 0).collect();
    assert!(idle.is_empty(), "never computed: {idle:?}");
}

/// The reference host computes the same.
fn same(name: &str, operands: &[Array], attributes: &str, found: &Array, what: &str) {
    let mut expected = match reference(name, &operands.iter().collect::<Vec<_>>(), attributes) {
        Ok(expected) => expected,
        Err(error) => panic!("{what}: only the reference refuses it: {error}"),
    };
    let mut found = found.clone();
    let odd = operands.iter().any(|x| x.data.iter().any(|x| !x.is_finite()));
    match name {
        // Zeros of a border, and of weights, are multiplied by what is not finite, or are not.
        "conv2d" | "matmul" | "resize" | "silu" if odd => {
            assert_eq!((found.dtype, &found.dims), (expected.dtype, &expected.dims), "{what}");
        }
        "resize" if found.dtype.is_int() => {
            // The last bit of an f32 decides about halves.
            let scale = expected.data.iter().fold(1.0f64, |scale, x| scale.max(x.abs()));
            for (found, expected) in found.data.iter().zip(&expected.data) {
                assert!((found - expected).abs() <= 1.0 + 4e-6 * scale, "{what}");
            }
        }
        _ => {
            if name == "resize" && found.dtype == DType::F64 {
                // It is computed in f32.
                (found.dtype, expected.dtype) = (DType::F32, DType::F32);
            }
            found.expect_near(&expected, what);
        }
    }
}

#[test]
fn names_do_not_panic() {
    let rng = &mut Rng::new();
    for _ in 0..2000 {
        let name: String =
            (0..rng.below(9)).map(|_| rng.of(&['a', 'd', 'm', '_', 'é', '\0'])).collect();
        let known = ops::NAMES.contains(&name.as_str());
        assert!(known || ops::apply(&name, &[], "").is_err());
    }
}
