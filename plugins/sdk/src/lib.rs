//! Write nodes for Kinograph.

// The macros write paths that begin with the crate's own name.
extern crate self as kino_plugin;

mod cx;
mod element;
mod error;
mod frames;
mod half;
#[doc(hidden)]
pub mod host;
mod log;
#[doc(hidden)]
pub mod node;
mod operand;
mod operations;
pub mod port;
#[doc(hidden)]
pub mod scalars;
#[cfg(not(target_arch = "wasm32"))]
#[doc(hidden)]
pub mod shim;
mod tensor;
#[cfg(all(feature = "testing", not(target_arch = "wasm32")))]
pub mod testing;
mod types;

pub use cx::Cx;
pub use element::{Bf16, DType, Element, F16};
pub use error::{Error, Result};
pub use frames::{FrameView, Frames, FramesBuilder};
pub use host::{Device, Kind, Value};
pub use kino_plugin_macros::{Choice, Outputs, guider, node, port_type};
pub use operand::{Conv, Filter, Operand, Padding};
pub use scalars::Path;
pub use tensor::Tensor;
pub use tracing;
pub use types::{
    Any, Conditioning, Dit, File, Given, Guider, ImageConditioning, ImageEncoder, Latent, Mask,
    Patches, Sigmas, TextEncoder, Vae,
};
#[doc(hidden)]
pub use {kino_abi as abi, serde_json as json};

/// Where a sampling run stands when it asks a guider.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// The step, from 0.
    pub step: usize,
    /// The number of steps.
    pub of: usize,
    /// The noise level: 1 is noise, 0 is data.
    pub sigma: f64,
}

/// All that a plugin's source needs.
pub mod prelude {
    pub use crate::{
        Any, Choice, Conditioning, Conv, Cx, DType, Dit, Error, File, Filter, FrameView, Frames,
        FramesBuilder, Given, Guider, ImageConditioning, ImageEncoder, Latent, Mask, Moment,
        Outputs, Padding, Patches, Path, Result, Sigmas, Tensor, TextEncoder, Vae, bail, ensure,
        guider, node, port_type, tracing,
    };
}

/// The plugin's one list of nodes: `kino_plugin::plugin!(gain, Grain);`. It exports the C entry in
/// native builds and the component's functions in WebAssembly.
#[macro_export]
macro_rules! plugin {
    ($($node:ty),+ $(,)?) => {
        const _: () = {
            struct Exported;

            impl $crate::node::Plugin for Exported {
                const NODES: &'static [$crate::node::NodeDef] =
                    &[$($crate::node::NodeDef::of::<$node>()),+];
            }

            $crate::export_plugin!(Exported);
        };
    };
}

/// Exports a plugin.
#[cfg(not(target_arch = "wasm32"))]
#[doc(hidden)]
#[macro_export]
macro_rules! export_plugin {
    ($plugin:ident) => {
        static TABLE: ::std::sync::OnceLock<$crate::shim::Table> = ::std::sync::OnceLock::new();

        // SAFETY: the contract fixes this name and this signature.
        #[unsafe(export_name = "kino_plugin")]
        unsafe extern "C" fn entry(
            host: *const $crate::abi::KinoHost,
        ) -> *const $crate::abi::KinoPlugin {
            // SAFETY: the contract makes `host` valid as long as the process lives.
            unsafe { $crate::shim::entry::<$plugin>(host, &TABLE) }
        }
    };
}

/// Exports a plugin.
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
#[macro_export]
macro_rules! export_plugin {
    ($plugin:ident) => {
        type Component = $crate::host::wasm::Exports<$plugin>;
        $crate::host::wasm::bindings::export!(
            Component with_types_in $crate::host::wasm::bindings
        );
    };
}
