//! A part of a model in another form: what becomes of each tensor is planned from headers alone,
//! and then written a piece at a time, so that memory does not grow with the model.
//!
//! Nothing here knows where the bytes go: they are given to whoever writes a file.

mod plan;
mod target;
mod write;

pub use plan::Conversion;
pub use target::{ConvertTo, Destination};
pub use write::Sink;
