//! Building components: whichever Rust toolchain for WebAssembly is there, and what to install
//! otherwise.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::Failure;

/// How components can be built on this machine.
pub(crate) enum Toolchain {
    /// Cargo with a target of its own, whose output is a component already.
    Wasip2,
    /// Cargo with the bare target: the output is a module.
    Bare,
    /// A distribution's cargo and rustc, which build the standard library from its sources.
    FromSource {
        /// The folder of `cargo` and `rustc`.
        bin: PathBuf,
        /// The linker.
        linker: PathBuf,
    },
}

const INSTALL: &str = "`rustup target add wasm32-wasip2`; where rustup cannot, a distribution's \
Rust with the sources of its library: on Debian `apt install rustc-web cargo-web rust-web-src \
rust-web-llvm lld`";

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    let out = Command::new(rustc).args(["--print", "sysroot"]).output().ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    out.status.success().then(|| PathBuf::from(text.trim()))
}

/// Finds a toolchain for components.
///
/// # Errors
/// When there is none; the hint says what to install.
pub(crate) fn find() -> Result<Toolchain, Failure> {
    let rustc = std::env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
    if let Some(root) = sysroot(&rustc) {
        let has = |target: &str| root.join("lib/rustlib").join(target).join("lib").is_dir();
        if has("wasm32-wasip2") {
            return Ok(Toolchain::Wasip2);
        }
        if has("wasm32-unknown-unknown") {
            return Ok(Toolchain::Bare);
        }
    }
    let bin = PathBuf::from("/usr/bin");
    let source = sysroot(&bin.join("rustc")).map(|root| root.join("lib/rustlib/src/rust/library"));
    let has_source = source.is_some_and(|source| source.is_dir()) && bin.join("cargo").is_file();
    let missing = |what: &str| {
        Failure::usage(format!("no Rust toolchain for WebAssembly is here{what}")).hint(INSTALL)
    };
    if !has_source {
        return Err(missing(""));
    }
    let linkers = ["/usr/bin/rust-lld", "/usr/bin/wasm-ld"].map(PathBuf::from);
    let versioned = std::fs::read_dir(&bin).into_iter().flatten().flatten();
    let versioned = versioned.map(|entry| entry.path()).filter(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("wasm-ld-"))
    });
    let linker = linkers.into_iter().chain(versioned).find(|path| path.is_file());
    let linker = linker.ok_or_else(|| missing(": it lacks a linker (rust-lld or wasm-ld)"))?;
    Ok(Toolchain::FromSource { bin, linker })
}

impl Toolchain {
    /// The command that builds a crate for this target.
    pub(crate) fn cargo(&self) -> Command {
        match self {
            Toolchain::Wasip2 => cargo(&["--target", "wasm32-wasip2"]),
            Toolchain::Bare => cargo(&["--target", "wasm32-unknown-unknown"]),
            Toolchain::FromSource { bin, linker } => {
                let mut command = Command::new(bin.join("cargo"));
                command
                    .args(["rustc", "--release", "--target", "wasm32-unknown-unknown"])
                    .arg("-Zbuild-std=std,panic_abort")
                    .env("RUSTC", bin.join("rustc"))
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker)
                    .env_remove("RUSTUP_TOOLCHAIN");
                command
            }
        }
    }

    /// What a module of this toolchain is as a component.
    ///
    /// # Errors
    /// When it is no module of a plugin.
    pub(crate) fn finish(&self, module: &[u8]) -> Result<Vec<u8>, Failure> {
        match self {
            Toolchain::Wasip2 => Ok(module.to_owned()),
            _ => encode(module),
        }
    }
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(["rustc", "--release"]).args(arguments);
    command
}

#[cfg(feature = "wasm")]
fn encode(module: &[u8]) -> Result<Vec<u8>, Failure> {
    let fault = |error: &dyn std::fmt::Display| {
        Failure::usage(format!("the module does not become a component: {error:#}"))
            .hint("`kino_plugin::plugin!(…)` makes what a component exports")
    };
    let encoder = wit_component::ComponentEncoder::default().validate(true);
    let mut encoder = encoder.module(module).map_err(|error| fault(&error))?;
    encoder.encode().map_err(|error| fault(&error))
}

#[cfg(not(feature = "wasm"))]
fn encode(_: &[u8]) -> Result<Vec<u8>, Failure> {
    Err(Failure::usage("this kino was built without components")
        .hint("build it with the feature `wasm`"))
}
