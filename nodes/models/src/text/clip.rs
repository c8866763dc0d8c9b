//! The CLIP text encoder (arXiv:2103.00020; transformers' `CLIPTextModel`): a prompt to one vector,
//! the state at its end.

mod config;
mod detect;
mod network;
mod spec;
mod tokens;

pub use config::ClipTextConfig;
pub(crate) use detect::{detect, single_form, tokenizer};
pub use network::ClipText;
pub use spec::ClipTextSpec;
pub use tokens::ClipTokens;
