//! Types of elements by their names in the contract.

use candle_core::DType;
use kino_contract::code;
use kino_node::{Error, Result};

use crate::ops;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_have_names() {
        for dtype in kino_contract::DType::ALL {
            assert_eq!(dtype_of_name(dtype.name()).unwrap().as_str(), dtype.name());
        }
        let error = dtype_of_name("f8").unwrap_err();
        assert!(error.hint().unwrap().contains("bf16"), "{error}");
    }
}
