//! Functions on values of any kind that plugins call by name, with any number of results. What
//! takes tensors and gives one is an operation ([`crate::ops`]).

use kino_contract::code;
use kino_node::{Error, Result};

use crate::ops::OpLimits;
use crate::value::PluginValue;

/// The names of all functions.
pub const NAMES: &[&str] = &[];

/// Calls one function; `attributes` is a JSON object, or empty where there are none.
///
/// # Errors
/// When there is no such function, or values or attributes do not fit, when results would be larger
/// than the limits say, and what `check` says.
pub fn call_within(
    name: &str,
    _values: &[PluginValue],
    _attributes: &str,
    _limits: &OpLimits<'_>,
) -> Result<Vec<PluginValue>> {
    let brief: String = name.chars().take(60).collect();
    let unknown = Error::coded(code::NO_SUCH_OP, format!("there is no function `{brief}`"));
    let near = kino_port::did_you_mean(name, NAMES.iter().copied());
    Err(unknown.with_hint(near.or_else(|| Some("plugins/abi/OPERATIONS.md lists them".to_owned()))))
}
