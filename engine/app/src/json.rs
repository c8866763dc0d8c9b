//! What `--json` prints. Values become JSON by [`ToJson`] and by nothing else, so that a path goes
//! one way, whatever its bytes are: `serde_json` refuses one that is not UTF-8.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use serde_json::{Map, Value};

/// What has a form in JSON.
pub(crate) trait ToJson {
    /// The form.
    fn to_json(&self) -> Value;
}

/// An object, or one value, written as in JSON: `json!({ "path": path })`, `json!(7)`.
macro_rules! json {
    ({ $($key:literal : $value:expr),* $(,)? }) => {
        $crate::json::object([$(($key, $crate::json::ToJson::to_json(&$value))),*])
    };
    ($value:expr) => {
        $crate::json::ToJson::to_json(&$value)
    };
}
pub(crate) use json;

/// An object of these members.
pub(crate) fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::Object(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

impl ToJson for Path {
    fn to_json(&self) -> Value {
        Value::String(kino_port::path_to_text(self).into_owned())
    }
}

impl ToJson for PathBuf {
    fn to_json(&self) -> Value {
        self.as_path().to_json()
    }
}

impl<T: ToJson + ?Sized> ToJson for &T {
    fn to_json(&self) -> Value {
        (**self).to_json()
    }
}

impl<T: ToJson + ?Sized> ToJson for Arc<T> {
    fn to_json(&self) -> Value {
        (**self).to_json()
    }
}

impl<T: ToJson> ToJson for Option<T> {
    fn to_json(&self) -> Value {
        self.as_ref().map_or(Value::Null, ToJson::to_json)
    }
}

impl<T: ToJson> ToJson for [T] {
    fn to_json(&self) -> Value {
        self.iter().map(ToJson::to_json).collect()
    }
}

impl<T: ToJson, const N: usize> ToJson for [T; N] {
    fn to_json(&self) -> Value {
        self.as_slice().to_json()
    }
}

impl<T: ToJson> ToJson for Vec<T> {
    fn to_json(&self) -> Value {
        self.as_slice().to_json()
    }
}

impl<T: ToJson + Clone> ToJson for Cow<'_, [T]> {
    fn to_json(&self) -> Value {
        self.as_ref().to_json()
    }
}

impl<T: ToJson> ToJson for BTreeSet<T> {
    fn to_json(&self) -> Value {
        self.iter().map(ToJson::to_json).collect()
    }
}

/// Values that hold no path, and types of ours, whose paths `kino_node::path_text` writes.
macro_rules! as_serde_has_them {
    ($($ty:ty),* $(,)?) => {$(
        impl ToJson for $ty {
            fn to_json(&self) -> Value {
                serde_json::to_value(self).unwrap_or_default()
            }
        }
    )*};
}

as_serde_has_them!(
    Value, Map<String, Value>, str, String, Cow<'_, str>, bool, u32, u64, usize, i64, f64,
    kino_graph::Diagnostics, kino_host::LockEntry, kino_host::RawLimits,
    kino_host::ResourceRequest, kino_session::CacheStatus,
    kino_session::provenance::Provenance,
);
