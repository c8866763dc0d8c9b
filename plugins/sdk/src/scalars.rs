//! Texts, numbers, truth values and paths as ports.

use std::fmt;
use std::ops::Deref;

use serde_json::Value as Json;

pub use crate::literal::Literal;
use crate::port::{FromValue, IntoValue, PortSpec, Typed};
use crate::{Error, Result, Value};

impl Typed for String {
    fn type_name() -> String {
        "Text".into()
    }
}

impl FromValue for String {
    fn from_value(value: Value) -> Result<Self> {
        value.as_text()
    }
}

impl IntoValue for String {
    fn into_value(self) -> Result<Value> {
        Value::text(&self)
    }
}

impl Typed for &str {
    fn type_name() -> String {
        "Text".into()
    }
}

impl IntoValue for &str {
    fn into_value(self) -> Result<Value> {
        Value::text(self)
    }
}

macro_rules! whole_numbers {
    ($($ty:ty: $told:ty),*) => {$(
        impl Typed for $ty {
            fn type_name() -> String {
                "Int".into()
            }

            fn describe(port: &mut PortSpec) {
                port.add_range(Json::from(<$told>::MIN), Json::from(<$told>::MAX));
            }
        }

        impl FromValue for $ty {
            fn from_value(value: Value) -> Result<Self> {
                let found = value.as_int()?;
                <$ty>::try_from(found).map_err(|_| {
                    let (least, most) = (<$told>::MIN, <$told>::MAX);
                    Error::new(format!("expected a number from {least} to {most}, found {found}"))
                })
            }
        }

        impl IntoValue for $ty {
            fn into_value(self) -> Result<Value> {
                Value::int(self as i128)
            }
        }
    )*};
}

// Both builds of a plugin say the same of a port: `usize` has 32 bits in a component.
whole_numbers!(
    u8: u8, u16: u16, u32: u32, u64: u64, usize: u32, i8: i8, i16: i16, i32: i32, i64: i64
);

impl Typed for i128 {
    fn type_name() -> String {
        "Int".into()
    }
}

impl FromValue for i128 {
    fn from_value(value: Value) -> Result<Self> {
        value.as_int()
    }
}

impl IntoValue for i128 {
    fn into_value(self) -> Result<Value> {
        Value::int(self)
    }
}

macro_rules! real_numbers {
    ($($ty:ty),*) => {$(
        impl Typed for $ty {
            fn type_name() -> String {
                "Real".into()
            }
        }

        impl FromValue for $ty {
            fn from_value(value: Value) -> Result<Self> {
                Ok(value.as_real()? as $ty)
            }
        }

        impl IntoValue for $ty {
            fn into_value(self) -> Result<Value> {
                Value::real(f64::from(self))
            }
        }
    )*};
}

real_numbers!(f32, f64);

impl Typed for bool {
    fn type_name() -> String {
        "Bool".into()
    }
}

impl FromValue for bool {
    fn from_value(value: Value) -> Result<Self> {
        value.as_bool()
    }
}

impl IntoValue for bool {
    fn into_value(self) -> Result<Value> {
        Value::truth(self)
    }
}

/// The path of a file or folder, relative to the graph; [`crate::Cx::read`] reads it if the user
/// granted it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Path(pub String);

impl Deref for Path {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Path {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Typed for Path {
    fn type_name() -> String {
        "Path".into()
    }
}

impl FromValue for Path {
    fn from_value(value: Value) -> Result<Self> {
        value.as_text().map(Path)
    }
}

impl IntoValue for Path {
    fn into_value(self) -> Result<Value> {
        Value::text(&self.0)
    }
}
