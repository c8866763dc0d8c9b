//! kino-models: architectures of generative video models and their schedulers.
//!
//! A pure library: it knows tensors, configs and weights, but no graph and no node.
//!
//! - [`checkpoint`]: where weights lie, in which form, under which names; on disk or in the binary.
//! - [`weight`]: weights as they are computed with, and the layers that multiply by them.
//! - [`convert`]: parts of models in other forms, for files.
//! - [`families`]: networks, configs and detection of each family of models.
//! - [`model`]: what a model is to whoever runs it: the traits that families implement.
//! - [`text`]: encoders of text that families share.
//! - [`image`]: encoders of pictures that families share.
//! - [`upscale`]: networks that enlarge frames.
//! - [`interpolate`]: networks that make frames between frames.
//! - [`language`]: models that answer in text.
//! - [`noise`]: normal numbers, the same on every platform.
//! - [`sampling`]: the noise levels of a run, the steps down them, and what steers them.
//!
//! Long computations take a `check_cancel` that runs after every block and may return
//! [`Error::Cancelled`].

#![forbid(unsafe_code)]

pub mod cancel;
pub mod checkpoint;
mod clip;
pub mod convert;
pub mod error;
pub mod families;
pub mod image;
pub mod interpolate;
pub mod language;
mod mirror;
pub mod model;
mod names;
pub mod noise;
pub mod patch;
pub mod preview;
pub mod sampling;
pub mod text;
pub mod tile;
mod timestep;
pub mod upscale;
pub mod weight;

pub use checkpoint::{Checkpoint, ModelFolder};
pub use error::{Error, Result};
pub use weight::Weights;
