//! FLUX.1: text and pictures to pictures.

mod autoencoder;
mod config;
mod detect;
pub mod dit;
mod family;
mod names;
mod transformer;
pub mod vae;

pub use autoencoder::AutoencoderConfig;
pub use family::Flux;
pub use transformer::TransformerConfig;
