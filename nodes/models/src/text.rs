//! From a prompt to the embeddings that a transformer reads: encoders that families share.

pub mod clean;
pub mod clip;
mod config;
mod detect;
mod encoder;
mod ftfy;
mod spec;
mod tokens;
mod umt5;

pub use config::{TextConfig, TokenizerConfig};
pub(crate) use detect::{detect, tokenizer};
pub use encoder::Umt5Encoder;
pub use spec::Umt5Spec;
pub use tokens::Tokens;
pub use umt5::{Layer, Umt5, relative_bucket};
