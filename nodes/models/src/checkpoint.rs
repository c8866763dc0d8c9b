//! Checkpoints: where weights lie, in which form, under which names.
//!
//! Forms of today: a folder in the diffusers layout, single files or sharded, on disk or in the
//! binary.

mod check;
mod file;
mod folder;
mod header;
mod opened;
mod part;

pub use check::{LARGEST_SIZE, invalid, require_positive, require_sizes, unsupported};
pub use file::DataFile;
pub use folder::{EmbeddedFiles, ModelFiles, ModelFolder};
pub use opened::Checkpoint;
pub(crate) use part::TensorEntry;
pub use part::{Identity, PartFiles};
