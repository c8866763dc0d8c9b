//! From a picture to the embeddings that a transformer reads: encoders that families share.

mod clip;
mod config;
mod detect;
mod prepare;
mod spec;

pub use clip::ClipVision;
pub use config::{ClipConfig, PrepareConfig};
pub(crate) use detect::{detect, processor, single_form};
pub use prepare::prepare;
pub use spec::ClipSpec;
