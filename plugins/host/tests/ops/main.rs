//! Operations on tensors against plain loops, the words of refusals, and whatever a plugin may
//! pass. All of it is asked of the SDK's reference host, too: what a plugin's test sees is what the
//! engine does.

mod along;
mod array;
mod calls;
mod elements;
mod fuzz;
mod golden;
mod image;
mod layout;
mod refusals;

use std::cell::Cell;

use array::{Array, Rng, layouts, reference};
use candle_core::Tensor;
use kino_contract::code;
use kino_host::ops::{self, OpLimits};
use kino_node::Error;

/// Checks one operation on tensors as they may lie in memory against what is expected, here and in
/// the reference host.
#[track_caller]
fn check(name: &str, operands: &[&Array], attributes: &str, expected: &Array) {
    let shapes: Vec<_> = operands.iter().map(|array| &array.dims).collect();
    let what = format!("reference op {name} {attributes} of {shapes:?}");
    match reference(name, operands, attributes) {
        Ok(found) => found.expect_near(expected, &what),
        Err(error) => panic!("{what}: {error}"),
    }
    for layout in layouts() {
        let tensors: Vec<_> = operands.iter().map(|array| array.tensor(layout)).collect();
        let what = format!("op {name} {attributes} of {shapes:?}, {layout:?}");
        match ops::apply(name, &tensors, attributes) {
            Ok(found) => Array::read(&found).expect_near(expected, &what),
            Err(error) => panic!("{what}: {error}"),
        }
    }
}

/// The names are those of the contract, in its order.
#[test]
fn the_contract_lists_the_same_operations() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../abi/OPERATIONS.md");
    let contract = std::fs::read_to_string(path).unwrap();
    let (operations, _) = contract.split_once("\n## ").unwrap();
    let rows = operations.lines().filter_map(|line| line.strip_prefix("| `"));
    let named = rows.flat_map(|row| {
        let (first, _) = row.split_once(" | ").unwrap();
        first.split(' ').map(|name| name.trim_matches('`').to_owned()).collect::<Vec<_>>()
    });
    assert_eq!(named.collect::<Vec<_>>(), ops::NAMES);
}

/// So are the functions on values.
#[test]
fn the_contract_lists_the_same_functions() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../abi/OPERATIONS.md");
    let contract = std::fs::read_to_string(path).unwrap();
    let (_, functions) = contract.split_once("\n## Functions on values\n").unwrap();
    let (functions, _) = functions.split_once("\n## ").unwrap();
    let rows = functions.lines().filter_map(|line| line.strip_prefix("| `"));
    let named: Vec<_> = rows.filter_map(|row| row.split_once('`')).map(|(name, _)| name).collect();
    assert_eq!(named, kino_contract::calls::names().collect::<Vec<_>>());
}

/// So is the list of codes of errors.
#[test]
fn the_contract_lists_the_same_codes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../abi/OPERATIONS.md");
    let contract = std::fs::read_to_string(path).unwrap();
    let (_, errors) = contract.split_once("\n## Errors\n").unwrap();
    let rows: Vec<_> = errors.lines().filter(|line| line.starts_with("| `")).collect();
    let expected = code::ALL.iter().map(|(code, means)| format!("| `{code}` | {means} |"));
    assert_eq!(rows, expected.collect::<Vec<_>>());
}

/// Results are bounded, also by less than the engine allows.
#[test]
fn a_bound_holds() {
    let x = Array::random(&mut Rng::new(), candle_core::DType::F32, &[4]).tensor(layouts()[0]);
    let wide = r#"{"shape": [1000, 4]}"#;
    let apply = |tensors: &[Tensor], most| {
        ops::apply_within("broadcast", tensors, wide, &OpLimits { most, check: &|| Ok(()) })
    };
    assert!(apply(std::slice::from_ref(&x), 16_000).is_ok());
    let error = apply(&[x], 15_999).unwrap_err();
    assert_eq!(
        error.to_string(),
        "op broadcast: a result of shape [1000, 4] (f32) is larger than the 15999 bytes that are \
         allowed"
    );
    assert_eq!(error.code(), code::LIMIT);
}

/// Long operations ask whether to go on, and stop where they should not; in pieces they give what
/// they give whole.
#[test]
fn long_operations_stop_between_pieces() {
    let device = &candle_core::Device::Cpu;
    let random = |shape: &[usize]| Tensor::rand(-1f32, 1.0, shape, device).unwrap();
    let [x, weight] = [random(&[1, 8, 224, 224]), random(&[8, 8, 64, 64])];
    let dilated = [random(&[1, 8, 40, 40]), random(&[8, 8, 3, 3])];
    let matrices = [random(&[3000, 1000]), random(&[1000, 2000])];
    for (name, tensors, attributes) in [
        ("conv2d", [x, weight], ""),
        ("conv2d", dilated, r#"{"dilation": 2}"#),
        ("matmul", matrices, ""),
    ] {
        let asked = Cell::new(0);
        let count = || {
            asked.set(asked.get() + 1);
            Ok(())
        };
        let bounds = OpLimits { most: 1 << 30, check: &count };
        ops::apply_within(name, &tensors, attributes, &bounds).unwrap();
        assert!(asked.get() > 1, "{name}: {}", asked.get());
        asked.set(0);
        let stop = || {
            asked.set(asked.get() + 1);
            if asked.get() > 1 { Err(Error::Cancelled) } else { Ok(()) }
        };
        let bounds = OpLimits { most: 1 << 30, check: &stop };
        let stopped = ops::apply_within(name, &tensors, attributes, &bounds);
        assert!(matches!(stopped, Err(Error::Cancelled)));
        assert_eq!(asked.get(), 2, "{name}");
    }
}
