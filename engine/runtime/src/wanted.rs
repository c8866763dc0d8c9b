//! Which outputs of a step are there, and which are wanted.

use kino_node::Value;

/// Which outputs are there, in the signature's order.
pub(crate) fn holds(outputs: &[Option<Value>]) -> Vec<bool> {
    outputs.iter().map(Option::is_some).collect()
}

/// Whether outputs of which those in `holds` are there have all that are `wanted`.
pub(crate) fn covers(holds: &[bool], wanted: &[bool]) -> bool {
    holds.len() == wanted.len() && holds.iter().zip(wanted).all(|(holds, wanted)| *holds || !wanted)
}

/// Whether all `wanted` outputs are there.
pub(crate) fn has(outputs: &[Option<Value>], wanted: &[bool]) -> bool {
    let mut both = outputs.iter().zip(wanted);
    outputs.len() == wanted.len() && both.all(|(output, wanted)| output.is_some() || !wanted)
}
