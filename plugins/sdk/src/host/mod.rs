//! What the engine offers, in two forms of the same shape: the C table in native builds, the
//! imports of the component in WebAssembly.

#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod dlpack;
mod kinds;
#[cfg(not(target_arch = "wasm32"))]
pub mod native;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod native_tensor;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod strings;
#[cfg(target_arch = "wasm32")]
pub mod wasm;

pub use kinds::{Device, ValueKind};
#[cfg(not(target_arch = "wasm32"))]
pub use native::{Value, has};
#[cfg(target_arch = "wasm32")]
pub use wasm::{Value, has};

#[cfg(target_arch = "wasm32")]
pub(crate) use wasm::{CallRef, FramesSink, Sink, View, log};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use {
    native::{CallRef, log},
    native_tensor::{FramesSink, Sink, View},
};
