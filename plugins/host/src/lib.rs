//! What all hosts of plugins share.
//!
//! A plugin is a folder with a manifest and artifacts; a lock file says which builds of it are
//! trusted and with what. Its [`Descriptor`] becomes signatures; each of its nodes becomes a
//! [`kino_node::Node`] that runs instances of an [`Artifact`], which a host of native libraries or
//! of components implements. Values cross as [`Item`]s: opaque, with accessors.

#![forbid(unsafe_code)]

mod artifact;
mod convert;
mod descriptor;
mod draft;
mod growing;
mod item;
mod node;
mod plugin;

pub use artifact::{Artifact, Call, Files, Instance, Limits, NoFiles};
pub use convert::ReadView;
pub use descriptor::{Descriptor, NodeSpec};
pub use draft::{Draft, WriteView};
pub use growing::Growing;
pub use item::{Item, Kind};
pub use plugin::Plugin;
