//! The macro that makes a plugin of a list of nodes.

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
        type Component = $crate::exports::Exports<$plugin>;
        $crate::host::wasm::bindings::export!(
            Component with_types_in $crate::host::wasm::bindings
        );
    };
}
