//! Operations on tensors against plain loops, the words of refusals, and whatever a plugin may
//! pass.

mod along;
mod array;
mod elements;
mod fuzz;
mod golden;
mod image;
mod layout;
mod refusals;

use array::{Array, Rng, layouts};
use kino_host::ops;

/// Checks one operation on tensors as they may lie in memory against what is expected.
#[track_caller]
fn check(name: &str, operands: &[&Array], attributes: &str, expected: &Array) {
    for layout in layouts() {
        let tensors: Vec<_> = operands.iter().map(|array| array.tensor(layout)).collect();
        let shapes: Vec<_> = operands.iter().map(|array| &array.dims).collect();
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
    let rows = contract.lines().filter_map(|line| line.strip_prefix("| `"));
    let named = rows.flat_map(|row| {
        let (first, _) = row.split_once(" | ").unwrap();
        first.split(' ').map(|name| name.trim_matches('`').to_owned()).collect::<Vec<_>>()
    });
    assert_eq!(named.collect::<Vec<_>>(), ops::NAMES);
}

/// Results are bounded, also by less than the engine allows.
#[test]
fn a_bound_holds() {
    let x = Array::random(&mut Rng::new(), candle_core::DType::F32, &[4]).tensor(layouts()[0]);
    let wide = r#"{"shape": [1000, 4]}"#;
    assert!(ops::apply_within("broadcast", std::slice::from_ref(&x), wide, 16_000).is_ok());
    let error = ops::apply_within("broadcast", &[x], wide, 15_999).unwrap_err();
    assert_eq!(
        error.to_string(),
        "op broadcast: a result of shape [1000, 4] (f32) is larger than the 15999 bytes that are \
         allowed"
    );
}
