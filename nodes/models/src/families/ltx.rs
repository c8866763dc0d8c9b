//! LTX-Video 0.9.x: text and images to video.

mod autoencoder;
mod config;
mod dit;
mod family;
mod transformer;
mod vae;

pub use family::Ltx;
