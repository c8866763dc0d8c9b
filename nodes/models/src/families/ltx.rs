//! LTX-Video 0.9.x: text and images to video.

mod autoencoder;
mod config;
mod detect;
mod dit;
mod family;
mod names;
mod transformer;
mod vae;

pub use family::Ltx;
