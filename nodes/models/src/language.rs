//! Language models that answer in text: Llama, Qwen2 and Qwen3 from GGUF files, which bring their
//! tokenizer and their chat template along.
//!
//! Weights stay in the blocks of their file. Keys and values of earlier tokens are kept
//! ([`KvCache`]), so that each token costs one pass of one row.

mod config;
mod decoder;
mod rope;
mod sampling;
mod spec;
mod template;
mod tokens;

pub use config::{Architecture, LanguageConfig};
pub use decoder::{Decoder, KvCache};
pub use rope::Rope;
pub use sampling::Sampling;
pub use spec::{
    Answer, GenerateRequest, LanguageModel, LanguageSpec, LanguageSummary, read_language_model,
    without_thoughts,
};
pub use template::{ChatNames, Message, render};
pub use tokens::ChatTokens;
