//! From a prompt to the embeddings that a transformer reads: encoders that families share.

mod brought;
pub mod clean;
pub mod clip;
mod config;
mod detect;
mod encoder;
mod ftfy;
mod rows;
mod single;
mod spec;
mod spiece;
mod t5;
mod tokens;

pub(crate) use brought::tokenizers as brought_tokenizers;
pub use config::{Padding, PromptForm, TextConfig, TokenizerConfig};
pub(crate) use detect::detect;
pub use encoder::T5Encoder;
pub use rows::distinct_rows;
pub(crate) use single::single_form;
pub use spec::T5Spec;
pub use t5::{Layer, T5, relative_bucket};
pub use tokens::Tokens;
