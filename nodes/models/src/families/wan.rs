//! Wan 2.1 and 2.2: text and images to video.

mod autoencoder;
mod config;
mod detect;
pub mod dit;
mod family;
mod names;
mod tea_cache;
mod transformer;
pub mod vae;

pub use autoencoder::VaeConfig;
pub use config::{ModelConfig, ModelIndex, PROMPTS};
pub use family::Wan;
pub use transformer::TransformerConfig;
