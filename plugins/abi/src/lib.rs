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
//! - **Evolution.** `major` must be equal. `minor` only grows: fields are added at the end of the
//!   two tables, values to enumerations, names to operations, keys to the descriptor. Both sides
//!   say the size of their table, and nobody reads past the size that the other one gave. A field
//!   that is there keeps its meaning for ever. A plugin built against 1.0 therefore loads on every
//!   host 1.x. A plugin that needs a newer table looks at the host's `size` and `minor` in its
//!   entry, and says what it misses by returning null after [`KinoHost::fail`].
//! - **Strings** are UTF-8, pointer and length, without an ending zero. They are borrowed: whoever
//!   receives one copies what it keeps. Text that belongs to a value lives as long as the value.
//! - **Values** are immutable and counted. Inputs are lent for the call; [`KinoHost::retain`] keeps
//!   one. Every value that a host function gives belongs to the caller, who gives it up by
//!   [`KinoHost::release`] or by returning it as an output.
//! - **Threads.** Functions on values may be called from any thread, at any time. Functions that
//!   take a [`KinoCall`] only during that call, from any thread. `open`, `run`, `save` and `close`
//!   of one instance never run at the same time, but perhaps on different threads; different
//!   instances run side by side.
//! - **Errors.** A function that can fail returns a [`KinoStatus`]. A plugin says why with
//!   [`KinoHost::fail`] before it returns [`KINO_FAILED`]; a host function's reason is what
//!   [`KinoHost::error`] gives on the same thread until the next host call. Nothing unwinds across
//!   the boundary: a plugin catches its panics and exceptions.
//! - **Tensors** are seen as DLPack 1.0 `DLManagedTensorVersioned`: inputs read-only where they
//!   lie; outputs in memory that the host allocates on the plugin's request.

//!
//! **Versions.** 1.1 added [`KinoHost::new_tensor_unwritten`]. A host has what 1.0 had; what came
//! later is there where the table is large enough.

mod dlpack;
pub mod host_table;
mod tables;

use std::mem::offset_of;

pub use dlpack::{
    DL_BFLOAT, DL_BITS_FLAG_READ_ONLY, DL_BOOL, DL_CPU, DL_CUDA, DL_FLOAT, DL_INT, DL_METAL,
    DL_UINT, DLDataType, DLDevice, DLManagedTensorVersioned, DLPackVersion, DLTensor,
};
pub use tables::{
    KINO_BOOL, KINO_BYTES, KINO_CANCELLED, KINO_FAILED, KINO_INT, KINO_LIST, KINO_NONE, KINO_OK,
    KINO_OPAQUE, KINO_REAL, KINO_RECORD, KINO_TENSOR, KINO_TEXT, KinoCall, KinoEntry, KinoField,
    KinoHost, KinoInstance, KinoKind, KinoPlugin, KinoStatus, KinoStr, KinoValue,
};

/// What a plugin's table begins with: `KINOPLUG` in ASCII, read as a little-endian number.
pub const KINO_MAGIC: u64 = 0x47554C504F4E494B;
/// The major version of the contract: host and plugin must have the same.
pub const KINO_MAJOR: u32 = 1;
/// The minor version of the contract: it only adds.
pub const KINO_MINOR: u32 = 1;

/// The size of a [`KinoPlugin`] of version 1.0: no plugin's table is smaller, and what a later
/// version adds is read only where the table's own size reaches it.
pub const PLUGIN_SIZE_1_0: usize = offset_of!(KinoPlugin, shutdown) + size_of::<fn()>();
/// The size of a [`KinoHost`] of version 1.0: so for the host's table.
pub const HOST_SIZE_1_0: usize = offset_of!(KinoHost, op) + size_of::<fn()>();

/// The symbol that a native plugin exports; its type is [`KinoEntry`].
pub const ENTRY: &[u8] = b"kino_plugin";

/// The WIT package of the same contract, for components.
pub const WIT: &str = include_str!("../wit/kino-plugin.wit");

/// The generated header, for plugins in C.
pub const HEADER: &str = include_str!("../include/kino_plugin.h");
