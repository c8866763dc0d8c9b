//! From a picture to the embeddings that a transformer reads: encoders that families share.

mod clip;
mod config;
mod prepare;
mod spec;

pub use clip::ClipVision;
pub use config::{ClipConfig, PrepareConfig};
pub use prepare::prepare;
pub use spec::ClipSpec;
