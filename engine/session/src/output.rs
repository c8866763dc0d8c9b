//! Outputs of a run as values of Rust.

use std::path::PathBuf;
use std::sync::Arc;

use candle_core::Tensor;
use kino_node::{Frames, OutputFile, Value};

/// What an output of a graph can be taken as.
pub trait FromOutput: Sized {
    /// What it is called in messages.
    const NAME: &'static str;

    /// The value as this, if it is one.
    fn from_output(value: &Value) -> Option<Self>;
}

macro_rules! from_output {
    ($($ty:ty, $name:literal, $pattern:pat => $value:expr;)*) => {
        $(impl FromOutput for $ty {
            const NAME: &'static str = $name;

            fn from_output(value: &Value) -> Option<Self> {
                match value {
                    $pattern => $value,
                    #[allow(unreachable_patterns)]
                    _ => None,
                }
            }
        })*
    };
}

from_output! {
    Value, "a value", value => Some(value.clone());
    Arc<Frames>, "frames", value => value.shared();
    Tensor, "a tensor", value => value.tensor().ok();
    Arc<OutputFile>, "a file", Value::File(file) => Some(Arc::clone(file));
    PathBuf, "a file", Value::File(file) => Some(file.path.clone());
    String, "a text", Value::Text(text) => Some(text.to_string());
    i128, "a whole number", Value::Int(number) => Some(*number);
    f64, "a number", value => match value {
        Value::Real(number) => Some(*number),
        Value::Int(number) => Some(*number as f64),
        _ => None,
    };
    bool, "true or false", Value::Bool(it) => Some(*it);
}
