//! kino-models: architectures of generative video models and their schedulers.
//!
//! A pure library: it knows tensors, configs and weights, but no graph and no node.
//!
//! - [`folder`], [`weights`], [`config`]: a model on disk or inside the binary, checked as it is
//!   read.
//! - [`text`], [`dit`], [`vae`]: prompt to embeddings, patches to velocity, frames to latent and
//!   back.
//! - [`schedule`], [`guidance`]: the noise levels of a run, the steps down them, and what steers
//!   them.
//!
//! Long computations take a `tick` that runs after every block and may return [`Error::Cancelled`].

#![deny(unsafe_code)] // one block maps weight files into memory: see `weights`

pub mod config;
pub mod dit;
pub mod error;
pub mod folder;
pub mod guidance;
mod layers;
pub mod schedule;
pub mod text;
pub mod vae;
pub mod weights;

pub use error::{Error, Result};
pub use folder::ModelFolder;
pub use weights::Weights;
