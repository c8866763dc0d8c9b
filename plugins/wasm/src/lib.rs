//! The host of plugins that are WebAssembly components, in a sandbox.
//!
//! A plugin is a component of the world `kino:plugin/plugin` (`plugins/abi/wit`). [`WasmEngine`]
//! compiles it, [`WasmPlugin`] is one compiled build. A node without state gets an instance of the
//! component for each call, with memory of its own; nodes with state of one graph share one
//! ([`shared`]).
//!
//! **What a plugin can do:** compute in its own memory; read and make values through handles;
//! have operations done on tensors where they lie; read the files that were granted; log, report
//! progress, look at the cancel flag; read a monotonic clock and sleep.
//!
//! **What it cannot:** see files, folders, the environment, arguments, the network, other
//! processes or other plugins. It may import interfaces of WASI 0.2, since standard libraries do:
//! standard output and error become log messages, the wall clock stands still, random numbers are
//! the same in every run, there are no folders, and calling anything else (sockets, files) ends the
//! call with an error that names the function. So a plugin's results depend on its inputs and its
//! granted files alone, but for what it makes of the monotonic clock. The bits of a NaN may differ
//! between kinds of processors.
//!
//! **What bounds it:** the time of a call ([`kino_host::Limits`]), looked at with the cancel flag
//! at every tick of a clock (10 ms) wherever the code is,
//! and between the pieces of a long operation; memory, its own and that of the tensors
//! and texts that it made and still holds; 65,536 handles; 512 KiB of stack; values at most 64
//! deep. Whatever goes wrong is an error of that one call. After a trap, or when it was stopped, an
//! instance of the component is never used again, and nodes with state that shared it begin anew; a
//! component is compiled once and stays.
//!
//! A plugin runs as a coroutine with a stack of its own ([`queue`]): it does not matter how much
//! stack the calling thread has left, and what needs the engine's call is done on the engine's
//! stack.

// Taking up compiled code (`compiled`) is the one thing that is unsafe.
#![deny(unsafe_code)]

mod compile;
mod compiled;
mod config;
mod constructors;
mod engine;
mod imports;
mod instance;
mod plugin;
mod queue;
mod requests;
mod shared;
mod stderr_tail;
mod stop;
mod store;
mod types;
mod wasi;
mod wasi_state;
mod world;

pub use compile::{CompileNotice, CompileOptions, compile_in_this_process};
pub use engine::WasmEngine;
pub use plugin::WasmPlugin;
