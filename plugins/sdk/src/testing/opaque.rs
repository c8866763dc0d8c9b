//! Values that can only be passed on.

use std::sync::Arc;

use kino_abi::host_table::into_raw;

use super::held::Held;
use super::table::{HeldValues, table};
use crate::host::native::host;
use crate::{Any, Value};

/// A value that can only be passed on, of a type such as `Vae`, for nodes that take one.
///
/// # Panics
/// When an engine has loaded this plugin.
#[track_caller]
pub fn opaque(type_name: &str) -> Any {
    assert!(std::ptr::eq(host(), table()), "only the reference host makes such values");
    // SAFETY: the value is one of the reference host, with the count that it was made with.
    let value = unsafe {
        Value::from_raw(into_raw::<HeldValues>(Arc::new(Held::Opaque(type_name.into()))))
    };
    value.map_or_else(|| unreachable!(), Any)
}
