//! From a prompt to the embeddings that a transformer reads: encoders that families share.

pub mod clean;
mod config;
mod detect;
mod encoder;
mod ftfy;
mod single;
mod spec;
mod tokens;
mod umt5;

pub use config::{TextConfig, TokenizerConfig};
pub(crate) use detect::{detect, tokenizer};
pub(crate) use single::single_form;
pub use encoder::Umt5Encoder;
pub use spec::Umt5Spec;
pub use tokens::Tokens;
pub use umt5::{Layer, Umt5, relative_bucket};
