//! Weights as they are computed with, and layers that multiply by whatever a weight is.

mod block_memory;
mod blocks;
mod conv;
mod dense;
mod embedding;
mod feed_forward;
mod heads;
mod linear;
mod lora;
mod norm;
mod read;
mod residency;
mod weights;

pub use blocks::{BlockPass, Blocks};
pub use conv::Conv;
pub use dense::{Adapter, Scale, Weight};
pub use embedding::Embedding;
pub use feed_forward::{FeedForward, WIDENED_ROWS, by_rows};
pub use heads::Heads;
pub use linear::Linear;
pub use lora::{FusedName, LayerNames, Lora, LoraMatch, LoraSpec};
pub use norm::{LayerNorm, RmsNorm};
pub(crate) use read::pieces;
pub use residency::{BlockList, BlockSizes, Residency, WeightFit};
pub(crate) use weights::is_beside;
pub use weights::{AppliedLora, Probe, TensorStore, Weights};
