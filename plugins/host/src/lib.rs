//! What all hosts of plugins share.
//!
//! A plugin is a folder with a manifest and artifacts; a lock file says which builds of it are
//! trusted and with what. Its [`Descriptor`] becomes signatures; each of its nodes becomes a
//! [`kino_node::Node`] that runs instances of an [`Artifact`], which a host of native libraries or
//! of components implements. Values cross as [`Item`]s: opaque, with accessors.

#![forbid(unsafe_code)]

mod artifact;
mod consent;
mod convert;
mod draft;
mod find;
mod grants;
mod growing;
mod item;
mod lock;
mod manifest;
mod node;
pub mod ops;
mod plugin;
mod trust;

pub use artifact::{Artifact, Call, Files, Instance, Limits, Listener, NoFiles};
pub use consent::Consent;
pub use convert::ReadView;
pub use draft::{Draft, Fill, WriteView};
pub use find::{Found, PLUGINS, Shelf};
pub use grants::Granted;
pub use growing::{Growing, Pushed};
pub use item::{Item, Kind, Shared};
pub use kino_contract::{Descriptor, NodeSpec, TypeSpec, is_word};
pub use lock::{Entry, Grants, LOCK, LimitsEntry, Lock};
pub use manifest::{Asks, Kind as BuildKind, MANIFEST, Manifest, library_name};
pub use plugin::Plugin;
pub use trust::{Acceptance, Allowed, accept, decide, sha256, sha256_of};
