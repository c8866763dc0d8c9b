//! What `--version` prints.

use std::sync::LazyLock;

/// The version alone.
pub(crate) const SHORT: &str = env!("CARGO_PKG_VERSION");

/// What this binary was built with, by name.
pub(crate) const FEATURES: &[(&str, bool)] = &[
    ("h264", cfg!(feature = "h264")),
    ("wasm", cfg!(feature = "wasm")),
    ("cuda", cfg!(feature = "cuda")),
    ("metal", cfg!(feature = "metal")),
];

/// The version with the features.
pub(crate) fn long() -> &'static str {
    static LONG: LazyLock<String> = LazyLock::new(written);
    &LONG
}

fn written() -> String {
    let features: Vec<String> = FEATURES
        .iter()
        .map(|(name, is_there)| format!("{}{name}", if *is_there { "+" } else { "-" }))
        .collect();
    let (features, kernels) = (features.join(" "), kino_session::cpu_kernels());
    let language = kino_graph::VERSION;
    format!("{SHORT}\nfeatures: {features}\ngraph language: {language}\nCPU kernels: {kernels}")
}
