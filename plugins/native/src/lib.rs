//! The host of plugins that are native libraries.
//!
//! Native code is full trust: nothing here protects the process from what a library does. What is
//! promised instead: a build that is no plugin, speaks another version of the contract, or was cut
//! off while it was copied is refused before any of its code runs, as far as that can be seen; a
//! newer build at the same path is always the one that runs; panics within the plugin's nodes are
//! errors of those nodes; and tensors are copied in neither direction.
//!
//! # Generations
//!
//! `dlclose` is not reliable: thread-locals and detached threads keep a library mapped, and opening
//! a file that was replaced at the same path can give the old code. So every build is copied to a
//! name of its own, loaded from there, told to shut down when its last instance is closed, and left
//! mapped.
//!
//! # Isolation
//!
//! [`IsolatedPlugin`] runs the same library in a process of its own: what crashes is that process,
//! and the node fails; the next run has a fresh one. Tensors lie in shared memory, or on the disk
//! where that is full, copied once in each direction. A worker does one call at a time; idle ones
//! are kept.

#![deny(unsafe_op_in_unsafe_fn)]
#![cfg_attr(not(unix), allow(dead_code))]

mod allocator;
mod dlpack;
mod inspect;
mod library;
mod negotiate;
mod table;

#[cfg(unix)]
mod isolated;
#[cfg(unix)]
mod shared;
#[cfg(unix)]
mod wire;
#[cfg(unix)]
mod worker;

#[cfg(unix)]
pub use isolated::IsolatedPlugin;
pub use library::{NativePlugin, TrustedLibrary};
#[cfg(unix)]
pub use worker::serve;
