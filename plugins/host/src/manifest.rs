//! The manifest of a plugin: `plugin.ron` in its folder.

use std::path::{Path, PathBuf};

use kino_node::{Error, Result};
use serde::{Deserialize, Serialize};

/// The name of the file.
pub const MANIFEST: &str = "plugin.ron";

/// What a plugin says of itself before anything of it is loaded.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename = "Plugin")]
pub struct Manifest {
    /// Its name among plugins: `[a-z][a-z0-9_]*`.
    pub id: String,
    /// Its version.
    pub version: String,
    /// One sentence on what it does.
    #[serde(default)]
    pub about: String,
    /// The ids of its nodes.
    pub nodes: Vec<String>,
    /// The stem of its native library: `film_grain` is `libfilm_grain.so`, `film_grain.dll`, ….
    #[serde(default)]
    pub native: Option<String>,
    /// The file name of its component.
    #[serde(default)]
    pub wasm: Option<String>,
    /// What it needs to be granted.
    #[serde(default)]
    pub asks: Asks,
}

/// What a plugin needs beyond its inputs.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Asks {
    /// Files and folders to read, relative to the graph.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub read: Vec<String>,
    /// Memory for one call, such as `2GB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Seconds for one call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

/// How a plugin's code is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A WebAssembly component, in a sandbox.
    Wasm,
    /// A native library, which can do whatever the user can.
    Native,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Wasm => "wasm",
            Kind::Native => "native",
        })
    }
}

/// The extensions of RON that manifests and locks are read with: optional values are written bare.
pub(crate) fn ron() -> ron::Options {
    ron::Options::default().with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME)
}

impl Manifest {
    /// Reads the manifest of a plugin's folder.
    ///
    /// # Errors
    /// When it cannot be read or says what cannot be; the message names file, line and column.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST);
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Error::failed(format!("{}: {error}", path.display())))?;
        Manifest::parse(&text, &path)
    }

    /// Reads the text of a manifest that stands at `path`.
    ///
    /// # Errors
    /// As [`Manifest::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let manifest: Manifest = ron().from_str(text).map_err(|error| {
            Error::failed(format!("{}:{}: {}", path.display(), error.span.start, error.code))
        })?;
        manifest.check().map_err(|what| Error::failed(format!("{}: {what}", path.display())))?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), String> {
        let word = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_lowercase())
                && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        if !word(&self.id) {
            return Err(format!("`id` is letters a-z, digits and _, found \"{}\"", self.id));
        }
        if self.nodes.is_empty() {
            return Err("`nodes` names the plugin's nodes: at least one".to_owned());
        }
        for node in &self.nodes {
            if !node.contains('.') || !node.split('.').all(word) {
                return Err(format!(
                    "a node's id is words with points between them, such as `film.grain`, found \
                     \"{node}\""
                ));
            }
        }
        if self.native.is_none() && self.wasm.is_none() {
            return Err("it names neither a `native` library nor a `wasm` component".to_owned());
        }
        let plain = |name: &String| !name.is_empty() && !name.contains(['/', '\\', ':']);
        if let Some(name) = self.native.iter().chain(&self.wasm).find(|name| !plain(name)) {
            return Err(format!(
                "artifacts lie in the plugin's folder; \"{name}\" is no file name"
            ));
        }
        if let Some(memory) = &self.asks.memory {
            parse_bytes(memory)?;
        }
        if self.asks.seconds.is_some_and(|seconds| seconds.is_nan() || seconds <= 0.0) {
            return Err("`asks.seconds` is a number above 0".to_owned());
        }
        Ok(())
    }

    /// The file of its artifact of a kind, where the manifest names one.
    pub fn artifact(&self, folder: &Path, kind: Kind) -> Option<PathBuf> {
        match kind {
            Kind::Wasm => self.wasm.as_ref().map(|name| folder.join(name)),
            Kind::Native => self.native.as_ref().map(|stem| folder.join(library_name(stem))),
        }
    }

    /// The kind that is loaded unless the lock says otherwise: the component where there is one.
    pub fn preferred(&self) -> Kind {
        if self.wasm.is_some() { Kind::Wasm } else { Kind::Native }
    }
}

/// What a library of this stem is called on this platform.
pub fn library_name(stem: &str) -> String {
    format!("{}{stem}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

/// Reads a size such as `256MB`, `1.5GB`, `64KiB` or a number of bytes.
///
/// # Errors
/// When it is none.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..at], text[at..].trim());
    let factor: f64 = match unit {
        "" | "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "KiB" => 1024.0,
        "MiB" => 1048576.0,
        "GiB" => 1073741824.0,
        _ => return Err(format!("`{text}` is no size: write 256MB or 2GB")),
    };
    match number.parse::<f64>() {
        Ok(number) if number > 0.0 => Ok((number * factor) as u64),
        _ => Err(format!("`{text}` is no size: write 256MB or 2GB")),
    }
}
