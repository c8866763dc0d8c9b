//! kino-models: architectures of generative video models and their schedulers.
//!
//! A pure library: it knows tensors, configs and weights, but no graph and no node.

#![deny(unsafe_code)] // one block maps weight files into memory: see `weights`

pub mod config;
pub mod error;
pub mod folder;
pub mod guidance;
pub mod schedule;
pub mod weights;

pub use error::{Error, Result};
pub use folder::ModelFolder;
pub use weights::Weights;
