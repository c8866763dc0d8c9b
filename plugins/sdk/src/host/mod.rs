//! What the engine offers, in two forms of the same shape: the C table in native builds, the
//! imports of the component in WebAssembly.

#[cfg(not(target_arch = "wasm32"))]
pub mod native;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod native_tensor;
#[cfg(target_arch = "wasm32")]
pub mod wasm;

#[cfg(not(target_arch = "wasm32"))]
pub use native::Value;
#[cfg(target_arch = "wasm32")]
pub use wasm::Value;

#[cfg(target_arch = "wasm32")]
pub(crate) use wasm::{CallRef, Sink, View, log};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use {
    native::{CallRef, log},
    native_tensor::{Sink, View},
};

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// UTF-8 text or a path.
    Text,
    /// A whole number.
    Int,
    /// A real number.
    Real,
    /// True or false.
    Bool,
    /// A tensor; also a mask, image conditioning, noise levels.
    Tensor,
    /// Several values.
    List,
    /// A value of a named type with named fields.
    Record,
    /// Bytes, such as a file's contents.
    Bytes,
    /// A value that can only be passed on: parts of models, guiders.
    Opaque,
}

/// Where a tensor's elements lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The main memory.
    Cpu,
    /// The memory of an NVIDIA GPU, by its number.
    Cuda(usize),
    /// The memory of an Apple GPU, by its number.
    Metal(usize),
}
