//! The world outside: media in and out, metadata, paths, file hashes, tensor files, watching.
//!
//! Files appear whole or not at all: everything is written to a temporary name beside the target
//! and renamed.
//!
//! H.264 is encoded and decoded by OpenH264, built from source. Cisco's cover of patent royalties
//! extends to the binaries that Cisco distributes, not to builds from source; whoever distributes a
//! binary of Kinograph where such patents hold must see to that, or build without the feature
//! `h264`.

#![forbid(unsafe_code)]

mod atomic_file;
mod bundled;
mod cache;
mod disk;
mod error;
mod exr;
mod hash;
pub mod hub;
mod image;
mod input;
mod kinds;
mod light;
pub mod media;
mod metadata;
mod model_paths;
mod orientation;
mod paths;
mod png_chunks;
mod profile;
mod tensors;
mod watch;

pub use atomic_file::{AtomicFile, check_folder, remove_leftovers};
pub use bundled::BundledFiles;
pub use cache::{cache_dir, config_dir, data_dir};
pub use disk::free_bytes;
pub use error::{Error, Result};
pub use hash::{FileHash, HashCache, hash_file};
pub use image::{Image, MAX_PIXELS, image_size, read_image};
pub use input::{InputFile, decode_text, read_text};
pub use kinds::looks_like;
pub use metadata::read_metadata;
pub use model_paths::{FolderOfKind, extra_model_paths};
pub use paths::Folders;
pub use tensors::{TensorInfo, read_tensor, tensor_info, write_tensors};
pub use watch::{FileChange, FileChangeKind, FileWatch};
