//! What all hosts of plugins share.
//!
//! A plugin is a folder with a manifest and artifacts; a lock file says which builds of it are
//! trusted and with what. Its [`Descriptor`] becomes signatures; each of its nodes becomes a
//! [`kino_node::Node`] that runs instances of an [`Module`], which a host of native libraries or
//! of components implements. Values cross as [`PluginValue`]s: opaque, with accessors.

#![forbid(unsafe_code)]

mod buffer;
pub mod calls;
mod consent;
mod convert;
mod draft;
mod dtype;
mod error;
mod grants;
mod index;
mod lock;
mod manifest;
mod module;
mod node;
pub mod ops;
mod plugin;
mod state;
mod trust;
mod value;

pub use buffer::{FillElements, TensorBuffer, WriteView};
pub use consent::{Accepted, Consent};
pub use convert::{ReadView, storage_of};
pub use draft::FramesDraft;
pub use dtype::dtype_of_name;
pub use error::PluginError;
pub use grants::{Beyond, GrantedFiles, places_of};
pub use index::{FoundPlugin, PLUGINS_FOLDER, PluginIndex};
/// The contract as components are built against it.
pub use kino_abi::WIT;
pub use kino_contract::{
    Agree, Descriptor, NodeSpec, TypeSpec, ValueKind, code, has, is_word, names,
};
pub use lock::{Grants, LOCK_FILE, LockEntry, LockFile, RawLimits};
pub use manifest::{BuildKind, MANIFEST_FILE, Manifest, ResourceRequest, library_name};
pub use module::{CallCx, Instance, Limits, LogSink, Module, NoFiles, PluginFiles};
pub use node::plugin_nodes;
pub use plugin::Plugin;
pub use trust::{
    AllowedBuild, LARGEST_ARTIFACT, TrustOptions, advice_to_trust, allowed_build, pin,
    read_artifact, sha256, sha256_of,
};
pub use value::{PluginValue, SharedTensor};
