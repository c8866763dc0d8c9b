//! Families of models, each with its networks, configs and detection.

mod registry;
pub mod wan;

pub use registry::Families;
