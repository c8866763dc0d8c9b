//! What a host of this version has, by name: what a plugin asks before it uses what came later.

use kino_port::PortType;

use crate::{DType, calls, ops};

/// All that a host has, as `op.NAME`, `call.NAME`, `type.NAME` and `dtype.NAME`.
pub fn names() -> impl Iterator<Item = String> {
    let ops = ops::NAMES.iter().map(|name| format!("op.{name}"));
    let calls = calls::names().map(|name| format!("call.{name}"));
    let types = PortType::NAMED.iter().map(|row| format!("type.{}", row.name));
    let dtypes = DType::ALL.iter().map(|dtype| format!("dtype.{}", dtype.name()));
    ops.chain(calls).chain(types).chain(dtypes)
}

/// Whether a host has something: an operation `op.NAME`, a function `call.NAME`, a type of values
/// `type.NAME`, a type of elements `dtype.NAME`.
pub fn has(name: &str) -> bool {
    let Some((kind, name)) = name.split_once('.') else { return false };
    match kind {
        "op" => ops::NAMES.contains(&name),
        "call" => calls::names().any(|known| known == name),
        "type" => PortType::NAMED.iter().any(|row| row.name == name),
        "dtype" => DType::from_name(name).is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_named_is_there() {
        assert!(names().all(|name| has(&name)));
        for known in ["op.matmul", "call.frames.slice", "type.Mask", "dtype.bf16"] {
            assert!(has(known), "{known}");
        }
        for unknown in ["", "op", "op.", "op.topk", "call.add", "type.mask", "dtype.f8e4m3", "x.y"]
        {
            assert!(!has(unknown), "{unknown}");
        }
    }
}
