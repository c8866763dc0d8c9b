//! Checkpoints: where weights lie, in which form, under which names.
//!
//! Forms of today: a folder in the diffusers layout, single files or sharded, on disk or in the
//! binary; parts that stand alone in files, safetensors or GGUF, as ComfyUI and the authors of
//! models share them; and files that hold several parts (`bundle`).

mod bundle;
mod check;
mod config_error;
mod direct;
mod file;
mod folder;
mod format;
mod gguf;
mod header;
mod layout;
mod metadata;
mod opened;
mod other_folder;
mod part;
mod safetensors;
mod single;
mod snapshot;

pub(crate) use bundle::parts as bundled_parts;
pub use check::{LARGEST_SIZE, invalid, require_positive, require_sizes, unsupported};
pub(crate) use config_error::value_or_null;
pub use file::DataFile;
pub use folder::{EmbeddedFiles, ModelFiles, ModelFolder};
pub use header::StoredType;
pub(crate) use header::{AUTHORS_CONFIG, CONFIG};
pub use layout::GgufValue;
pub(crate) use layout::{FileLayout, NewTensor, lay_out_gguf, lay_out_safetensors};
pub use metadata::FileMetadata;
pub use opened::{BroughtTokenizer, Checkpoint};
pub use part::{Cut, Identity, Originals, PartFiles};
pub(crate) use part::{SCALES, TensorEntry};
pub use single::{
    DetectedPart, NarrowWeight, Rename, SingleForm, SingleFormat, SinglePart, part_names,
};
pub(crate) use single::{count_blocks, written};
