//! Checkpoints: where weights lie, in which form, under which names.

mod check;
mod folder;

pub use check::{invalid, require_positive, unsupported};
pub use folder::{EmbeddedFiles, ModelFolder};
