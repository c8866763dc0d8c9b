//! Functions on values against plain loops, and what they refuse.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use kino_contract::{calls, code};
use kino_host::PluginValue;
use kino_host::ops::OpLimits;
use kino_node::{Error, Frames, FramesBuilder, Ledger, Result, Value};

use crate::array::{Array, Rng, all_types, layouts, place, with};

fn call(name: &str, values: &[PluginValue], attributes: &str) -> Result<Vec<PluginValue>> {
    let ledger = Ledger::new(1 << 30);
    let bounds = OpLimits { most: 1 << 30, check: &|| Ok(()) };
    kino_host::calls::call(name, values, attributes, &bounds, Some(&ledger))
}

fn of(tensor: Tensor) -> PluginValue {
    PluginValue::Value(Value::Tensor(tensor))
}

fn zeros(shape: &[usize]) -> PluginValue {
    of(Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap())
}

#[track_caller]
fn refused(name: &str, values: &[PluginValue], attributes: &str, message: &str, code: &str) {
    let error = call(name, values, attributes).err().expect("an error");
    assert_eq!((error.to_string().as_str(), error.code()), (message, code));
}

/// A part of an array along a dimension.
fn part(x: &Array, dim: usize, start: usize, size: usize) -> Array {
    let mut dims = x.dims.clone();
    dims[dim] = size;
    Array::made(x.dtype, &dims, |at| x.at(&with(at, dim, at[dim] + start)))
}

#[test]
fn split_cuts_along_a_dimension() {
    let rng = &mut Rng::new();
    for (dims, dim, sizes) in [
        (&[7][..], 0, &[3, 4][..]),
        (&[2, 6, 3], 1, &[1, 0, 5]),
        (&[2, 6, 3], -1, &[1, 1, 1]),
        (&[0, 4], 1, &[2, 2]),
        (&[3], 0, &[3]),
    ] {
        for (dtype, layout) in all_types().flat_map(|dtype| layouts().map(|of| (dtype, of))) {
            let x = Array::random(rng, dtype, dims);
            let what = format!("split {dims:?} along {dim} into {sizes:?}, {dtype:?} {layout:?}");
            let attributes = format!(r#"{{"dim": {dim}, "sizes": {sizes:?}}}"#);
            let parts = call("split", &[of(x.tensor(layout))], &attributes).unwrap();
            assert_eq!(parts.len(), sizes.len(), "{what}");
            let dim = if dim < 0 { dims.len() - 1 } else { dim as usize };
            let mut start = 0;
            for (found, size) in parts.iter().zip(sizes) {
                let found = Array::read(&found.tensor().unwrap());
                found.expect_near(&part(&x, dim, start, *size), &what);
                start += size;
            }
        }
    }
}

/// What `topk` gives of a row: places by their elements, of equals the first, NaN the greatest.
fn chosen(row: &[f64], k: usize, least: bool) -> Vec<usize> {
    let key = |x: f64| if x.is_nan() { (1, 0.0) } else { (0, x) };
    let mut places: Vec<usize> = (0..row.len()).collect();
    places.sort_by(|a, b| {
        let order = key(row[*a]).partial_cmp(&key(row[*b])).unwrap();
        if least { order } else { order.reverse() }
    });
    places.truncate(k);
    places
}

#[test]
fn topk_is_the_head_of_a_sorted_row() {
    let rng = &mut Rng::new();
    let shapes: [(&[usize], i64); 5] =
        [(&[9], 0), (&[3, 8], 1), (&[8, 3], 0), (&[2, 5, 3], 1), (&[0, 4], 1)];
    for ((dims, dim), dtype) in shapes.iter().flat_map(|of| all_types().map(move |ty| (*of, ty))) {
        for layout in layouts() {
            let mut x = Array::random(rng, dtype, dims);
            if dtype.is_float() && !x.data.is_empty() {
                for special in [f64::NAN, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0, 1.0] {
                    let at = rng.below(x.data.len());
                    x.data[at] = special;
                }
            }
            let size = dims[dim as usize];
            let (k, least) = (1 + rng.below(size), rng.below(2) == 1);
            let what = format!("topk {k} of {x:?} along {dim}, least {least}, {layout:?}");
            let attributes = format!(r#"{{"k": {k}, "dim": {dim}, "least": {least}}}"#);
            let found = call("topk", &[of(x.tensor(layout))], &attributes).unwrap();
            let [values, indices] = &found[..] else { panic!("{what}") };
            let (values, indices) = (values.tensor().unwrap(), indices.tensor().unwrap());
            assert_eq!((values.dtype(), indices.dtype()), (dtype, DType::U32), "{what}");
            let mut shape = dims.to_vec();
            shape[dim as usize] = k;
            let best = |at: &[usize]| {
                let row: Vec<f64> = (0..size).map(|i| x.at(&with(at, dim as usize, i))).collect();
                chosen(&row, k, least)[at[dim as usize]]
            };
            let expected = Array::made(DType::U32, &shape, |at| best(at) as f64);
            Array::read(&indices).expect_near(&expected, &what);
            let expected = Array::made(dtype, &shape, |at| x.at(&with(at, dim as usize, best(at))));
            let found = Array::read(&values);
            for (index, (found, expected)) in found.data.iter().zip(&expected.data).enumerate() {
                let same = found == expected || (found.is_nan() && expected.is_nan());
                assert!(same, "{what}: {found} at {:?}, expected {expected}", place(index, &shape));
            }
        }
    }
}

#[test]
fn frames_slice_takes_frames_over_chunks() {
    let ledger = Ledger::new(1 << 30);
    let all = Tensor::rand(0f32, 1.0, (10, 2, 3, 3), &Device::Cpu).unwrap();
    let mut frames = FramesBuilder::new(&ledger, Some(12.5));
    for (start, count) in [(0, 4), (4, 1), (5, 5)] {
        frames.push(&all.narrow(0, start, count).unwrap()).unwrap();
    }
    let frames = PluginValue::Value(frames.finish().unwrap().into());
    let chunks = frames.field("chunks").unwrap().unwrap();
    let fps = frames.field("fps").unwrap().unwrap();
    let scene = PluginValue::Value(Value::Text("beach".into()));
    let fields = [("chunks", chunks), ("fps", fps), ("scene", scene)];
    let fields = fields.map(|(name, value)| (Arc::from(name), value)).to_vec();
    let frames = PluginValue::record("Frames", fields).unwrap();
    for (start, count) in [(0, 10), (0, 1), (3, 3), (4, 1), (9, 1), (2, 7)] {
        let attributes = format!(r#"{{"start": {start}, "count": {count}}}"#);
        let bounds = OpLimits { most: 1 << 30, check: &|| Ok(()) };
        // With a ledger as in the engine, without one as in a worker.
        for ledger in [Some(&ledger), None] {
            let values = std::slice::from_ref(&frames);
            let found =
                kino_host::calls::call("frames.slice", values, &attributes, &bounds, ledger);
            let found = found.unwrap().remove(0);
            assert_eq!(found.type_name(), "Frames");
            let fps = found.field("fps").unwrap().unwrap().real().unwrap();
            assert_eq!(fps, 12.5);
            let scene = found.field("scene").unwrap().expect("a field that nobody knows");
            assert_eq!(scene.text().unwrap(), "beach");
            let chunks = found.field("chunks").unwrap().unwrap();
            let chunks = (0..chunks.len()).map(|at| chunks.item(at).unwrap().tensor().unwrap());
            let joined = Tensor::cat(&chunks.collect::<Vec<_>>(), 0).unwrap();
            let expected = all.narrow(0, start, count).unwrap();
            assert_eq!(
                joined.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
                expected.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
                "{start} {count}"
            );
        }
    }
    for (attributes, message) in [
        (r#"{"start": 4, "count": 7}"#, "call frames.slice: 7 frames from 4 on, of 10"),
        (
            r#"{"start": 18446744073709551615, "count": 1}"#,
            "call frames.slice: 1 frames from 18446744073709551615 on, of 10",
        ),
        (
            r#"{"start": 0, "count": 0}"#,
            "call frames.slice: attribute `count`: expected 1 or more, found 0",
        ),
    ] {
        refused("frames.slice", std::slice::from_ref(&frames), attributes, message, code::INVALID);
    }
    let message = "call split: expected a tensor, found Frames";
    refused("split", &[frames], r#"{"dim": 0, "sizes": [10]}"#, message, code::WRONG_KIND);
}

#[test]
fn fit_is_what_a_port_does() {
    let frames = call("fit", &[zeros(&[2, 4, 6, 3])], r#"{"type": "Frames"}"#).unwrap().remove(0);
    assert_eq!(frames.type_name(), "Frames");
    let tensor = call("fit", &[frames], r#"{"type": "Tensor"}"#).unwrap().remove(0);
    assert_eq!(tensor.tensor().unwrap().dims(), [2, 4, 6, 3]);
    let whole = PluginValue::Value(Value::Int(3));
    let real = call("fit", &[whole], r#"{"type": "Real"}"#).unwrap().remove(0);
    assert_eq!(real.type_name(), "Real");
    let shape = "call fit: a mask is [f, h, w] or [1, f, h, w], found a tensor [4]";
    refused("fit", &[zeros(&[4])], r#"{"type": "Mask"}"#, shape, code::WRONG_KIND);
    let unknown = "call fit: there is no type `Mesh`";
    refused("fit", &[zeros(&[4])], r#"{"type": "Mesh"}"#, unknown, code::INVALID);
}

#[test]
fn what_a_function_does_not_take_is_told() {
    let none = "there is no function `topq` on values";
    refused("topq", &[], "", none, code::NO_SUCH_OP);
    let count = "call split: expected 1 tensor, found 0 values";
    refused("split", &[], "", count, code::INVALID);
    let text = PluginValue::Value(Value::Text("a".into()));
    let kind = "call topk: expected a tensor, found Text";
    refused("topk", &[text], r#"{"k": 1, "dim": 0}"#, kind, code::WRONG_KIND);
    for (name, attributes, message) in [
        (
            "split",
            r#"{"dim": 1, "sizes": [1, 1]}"#,
            "call split: sizes that make up dimension 1 of [2, 3], which these do not",
        ),
        (
            "split",
            r#"{"dim": 1, "sizes": [4, -1]}"#,
            "call split: sizes that make up dimension 1 of [2, 3], which these do not",
        ),
        ("split", r#"{"dim": 2, "sizes": []}"#, "call split: shape [2, 3] has no dimension 2"),
        ("topk", r#"{"k": 4, "dim": 1}"#, "call topk: `k` 4 of 3 elements along dimension 1"),
        ("topk", r#"{"k": 0, "dim": 1}"#, "call topk: attribute `k`: expected 1 or more, found 0"),
        (
            "topk",
            r#"{"k": 1, "dim": 1, "largest": true}"#,
            "call topk: there is no attribute \"largest\"",
        ),
    ] {
        refused(name, &[zeros(&[2, 3])], attributes, message, code::INVALID);
    }
    let many = vec![0; calls::MAX_RESULTS + 1];
    let many = format!(r#"{{"dim": 0, "sizes": {many:?}}}"#);
    let message = "call split: 4097 parts: at most 4096 are possible";
    refused("split", &[zeros(&[2, 3])], &many, message, code::LIMIT);
}

#[test]
fn functions_stay_within_bounds_and_stop() {
    let x = of(Tensor::rand(0f32, 1.0, (64, 4096), &Device::Cpu).unwrap());
    let values = std::slice::from_ref(&x);
    let attributes = r#"{"k": 4096, "dim": 1}"#;
    let most = 64 * 4096 * 8;
    let call = |most, check: &dyn Fn() -> Result<()>| {
        kino_host::calls::call("topk", values, attributes, &OpLimits { most, check }, None)
    };
    assert!(call(most, &|| Ok(())).is_ok());
    let error = call(most - 1, &|| Ok(())).err().unwrap();
    assert_eq!(
        (error.to_string().as_str(), error.code()),
        (
            "call topk: results of 2097152 bytes are larger than the 2097151 bytes that are \
             allowed",
            code::LIMIT
        )
    );
    assert!(matches!(call(most, &|| Err(Error::Cancelled)), Err(Error::Cancelled)));
    // Frames that are joined are bounded, too.
    let frames =
        Frames::from_tensor(&Tensor::zeros((4, 8, 8, 3), DType::F32, &Device::Cpu).unwrap(), None);
    let frames = PluginValue::Value(Value::from(Arc::new(frames.unwrap())));
    let bounds = OpLimits { most: 3071, check: &|| Ok(()) };
    let joined = kino_host::calls::call("fit", &[frames], r#"{"type": "Tensor"}"#, &bounds, None);
    assert_eq!(joined.err().unwrap().code(), code::LIMIT);
}
