//! Weights, and layers that multiply by them.

mod linear;
mod norm;
mod weights;

pub(crate) use linear::Linear;
pub(crate) use norm::RmsNorm;
pub use weights::Weights;
pub(crate) use weights::{Store, WeightFile};
