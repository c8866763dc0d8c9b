//! What the contract calls by name, so that it can grow: types of elements, and what a host has.

use candle_core::DType;
use kino_contract::code;
use kino_node::{Error, Result};
use kino_port::PortType;

use crate::{call, ops};

/// The type of elements of a name: `f32`.
///
/// # Errors
/// When the engine has none of this name; the message lists those that there are.
pub fn dtype_of_name(name: &str) -> Result<DType> {
    let known = kino_contract::DType::from_name(name).map(ops::in_candle);
    known.ok_or_else(|| {
        let all = kino_contract::DType::ALL.map(kino_contract::DType::name).join(", ");
        let brief: String = name.chars().take(60).collect();
        let what = format!("there are no elements of type `{brief}`");
        Error::advised(what, format!("there are {all}")).with_code(code::INVALID)
    })
}

/// Whether this host has what a plugin asks for: `op.NAME` an operation, `call.NAME` a function on
/// values, `type.NAME` a type of value, `dtype.NAME` a type of elements.
pub fn has(name: &str) -> bool {
    match name.split_once('.') {
        Some(("op", op)) => ops::NAMES.contains(&op),
        Some(("call", function)) => call::NAMES.contains(&function),
        Some(("type", ty)) => PortType::NAMED.iter().any(|row| row.name == ty),
        Some(("dtype", dtype)) => kino_contract::DType::from_name(dtype).is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_says_what_it_has() {
        for name in ["op.matmul", "type.Frames", "type.Int", "dtype.bf16"] {
            assert!(has(name), "{name}");
        }
        for name in ["", "op.", "op.matmul2", "matmul", "type.frames", "dtype.f8", "later.x"] {
            assert!(!has(name), "{name}");
        }
        let error = dtype_of_name("f8").unwrap_err();
        assert!(error.hint().unwrap().contains("bf16"), "{error}");
    }
}
