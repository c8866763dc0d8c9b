//! Families of models, each with its networks, configs and detection.

pub mod flux;
pub mod ltx;
mod registry;
pub mod wan;

pub use registry::{Families, SingleFiles, open_folder};
