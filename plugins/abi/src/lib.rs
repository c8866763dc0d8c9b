//! The contract between Kinograph and its plugins: a C ABI (`include/kino_plugin.h` is generated
//! from this crate) and a WIT world (`wit/kino-plugin.wit`) of the same shape.
//!
//! # How a native plugin is used
//!
//! 1. The host finds the symbol `kino_plugin` and calls it once with its own table, a
//!    [`KinoHost`]. The plugin answers with a static [`KinoPlugin`].
//! 2. The host compares magic and major, reads the descriptor (JSON, see `DESCRIPTOR.md`), and
//!    registers the nodes.
//! 3. For a node, it calls [`KinoPlugin::open`], then [`KinoPlugin::run`] any number of times,
//!    perhaps [`KinoPlugin::save`], then [`KinoPlugin::close`].
//! 4. When a newer build has taken over and the last instance is closed, it calls
//!    [`KinoPlugin::shutdown`]. The library stays mapped: threads and thread-locals of the plugin
//!    may outlive it.
//!
//! # Rules
//!
//! Those that hold for every function stand at the head of the header (`cbindgen.toml`), the others
//! at each function.
//!
//! - **Evolution.** `major` must be equal. `minor` only grows: fields are added at the end of the
//!   two tables, and kinds of values, names of operations, functions and types, codes of errors,
//!   and keys of the descriptor. Both sides say the size of their table, and nobody reads past the
//!   size that the other one gave. A field that is there keeps its meaning for ever. A plugin
//!   built against 2.0 therefore loads on every host 2.x. A plugin that needs a newer table looks
//!   at the host's `size` in its entry, and says what it misses by returning null after
//!   [`KinoHost::fail`].
//! - **Between major versions** the entry's signature, [`KinoHost`] up to `fail` and
//!   [`KinoPlugin`] up to `descriptor` keep their places, so that a plugin and a host of different
//!   ones say what to build again.

mod dlpack;
pub mod host_table;
mod tables;
mod version;

use std::mem::offset_of;

pub use dlpack::{
    DL_BFLOAT, DL_BITS_FLAG_READ_ONLY, DL_BOOL, DL_CPU, DL_CUDA, DL_FLOAT, DL_INT, DL_METAL,
    DL_UINT, DLDataType, DLDevice, DLManagedTensorVersioned, DLPackVersion, DLTensor,
};
pub use tables::{
    KINO_BOOL, KINO_BYTES, KINO_INT, KINO_LIST, KINO_NONE, KINO_OPAQUE, KINO_REAL, KINO_RECORD,
    KINO_TENSOR, KINO_TEXT, KinoCall, KinoEntry, KinoError, KinoField, KinoFramesBuilder, KinoHost,
    KinoInstance, KinoKind, KinoPlugin, KinoStr, KinoTensorBuilder, KinoValue,
};
pub use version::{KINO_MAGIC, KINO_MAJOR, KINO_MINOR};

/// The size of a [`KinoPlugin`] of version 2.0: no plugin's table is smaller, and what a later
/// version adds is read only where the table's own size reaches it.
pub const PLUGIN_SIZE_2_0: usize = offset_of!(KinoPlugin, shutdown) + size_of::<fn()>();
/// The size of a [`KinoHost`] of version 2.0: so for the host's table.
pub const HOST_SIZE_2_0: usize = offset_of!(KinoHost, view_tensor_on) + size_of::<fn()>();

/// The symbol that a native plugin exports; its type is [`KinoEntry`].
pub const ENTRY: &[u8] = b"kino_plugin";

/// The WIT package of the same contract, for components.
pub const WIT: &str = include_str!("../wit/kino-plugin.wit");

/// The generated header, for plugins in C.
pub const HEADER: &str = include_str!("../include/kino_plugin.h");
