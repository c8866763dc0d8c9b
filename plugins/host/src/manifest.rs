//! The manifest of a plugin: `plugin.ron` in its folder.

use std::path::{Component, Path, PathBuf};

use kino_contract::is_word;
use kino_node::read_regular_text;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{PluginError, Result};

/// More bytes are read of no manifest, lock or list of what the user agreed to.
pub(crate) const LONGEST: u64 = 16 << 20;

/// The name of the file.
pub const MANIFEST_FILE: &str = "plugin.ron";

/// What a plugin says of itself before anything of it is loaded.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename = "Plugin")]
pub struct Manifest {
    /// Its name among plugins: `[a-z][a-z0-9_]*`.
    pub id: String,
    /// Its version.
    pub version: String,
    /// One sentence on what it does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// The ids of its nodes.
    pub nodes: Vec<String>,
    /// The stem of its native library: `film_grain` is `libfilm_grain.so`, `film_grain.dll`, ….
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<String>,
    /// The file name of its component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wasm: Option<String>,
    /// What it needs to be granted.
    #[serde(default)]
    pub asks: ResourceRequest,
}

/// What a plugin needs beyond its inputs.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[serde(rename = "Asks")]
pub struct ResourceRequest {
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
pub enum BuildKind {
    /// A WebAssembly component, in a sandbox.
    Wasm,
    /// A native library, which can do whatever the user can.
    Native,
}

impl std::fmt::Display for BuildKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            BuildKind::Wasm => "wasm",
            BuildKind::Native => "native",
        })
    }
}

/// The extensions of RON that manifests and locks are read with: optional values are written bare.
pub(crate) fn ron() -> ron::Options {
    ron::Options::default().with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME)
}

/// Reads a file's text; what is wrong in it is said with its line and column.
pub(crate) fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T> {
    ron().from_str(text).map_err(|error| {
        PluginError::malformed(format!("{}:{}: {}", path.display(), error.span.start, error.code))
    })
}

impl Manifest {
    /// Reads the manifest of a plugin's folder.
    ///
    /// # Errors
    /// When it cannot be read or says what cannot be; the message names file, line and column.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST_FILE);
        let text = read_regular_text(&path, LONGEST).map_err(PluginError::file(&path))?;
        Manifest::parse(&text, &path)
    }

    /// Reads the text of a manifest that stands at `path`.
    ///
    /// # Errors
    /// As [`Manifest::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let manifest: Manifest = ron().from_str(text).map_err(|error| {
            PluginError::malformed(format!(
                "{}:{}: {}",
                path.display(),
                error.span.start,
                error.code
            ))
        })?;
        manifest.check().map_err(|ManifestError { value, what }| {
            let (line, column) = line_and_column(text, &value);
            PluginError::malformed(format!("{}:{line}:{column}: {what}", path.display()))
        })?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), ManifestError> {
        if !is_word(&self.id) {
            let what = format!("`id` is letters a-z, digits and _, found {:?}", self.id);
            return Err(ManifestError::at(&self.id, what));
        }
        for text in [&self.version, &self.about] {
            printable(text).map_err(|what| ManifestError::at(text, what))?;
        }
        if self.nodes.is_empty() {
            let what = "`nodes` names the plugin's nodes: at least one".to_owned();
            return Err(ManifestError { value: "nodes".to_owned(), what });
        }
        for node in &self.nodes {
            if !node.contains('.') || !node.split('.').all(is_word) {
                let what = "a node's id is words with points between them, such as `film.grain`";
                return Err(ManifestError::at(node, format!("{what}, found {node:?}")));
            }
        }
        if self.native.is_none() && self.wasm.is_none() {
            let what = "it names neither a `native` library nor a `wasm` component".to_owned();
            return Err(ManifestError { value: "Plugin".to_owned(), what });
        }
        let plain = |name: &String| {
            !name.is_empty() && !name.contains(['/', '\\', ':']) && printable(name).is_ok()
        };
        if let Some(name) = self.native.iter().chain(&self.wasm).find(|name| !plain(name)) {
            let what = format!("artifacts lie in the plugin's folder; {name:?} is no file name");
            return Err(ManifestError::at(name, what));
        }
        for path in &self.asks.read {
            readable(path).map_err(|what| ManifestError::at(path, what))?;
        }
        if let Some(memory) = &self.asks.memory {
            memory_limit(memory).map_err(|what| ManifestError::at(memory, what))?;
        }
        if self.asks.seconds.is_some_and(|seconds| !(seconds.is_finite() && seconds > 0.0)) {
            let what = "`asks.seconds` is a number above 0".to_owned();
            return Err(ManifestError { value: "seconds".to_owned(), what });
        }
        Ok(())
    }

    /// The text that reads as this manifest.
    ///
    /// # Errors
    /// When it cannot be written as text.
    pub fn text(&self) -> Result<String> {
        let config = ron::ser::PrettyConfig::new().struct_names(true);
        let text = ron().to_string_pretty(self, config);
        Ok(text.map_err(|error| PluginError::malformed(error.to_string()))? + "\n")
    }

    /// Writes it into a plugin's folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(MANIFEST_FILE);
        std::fs::write(&path, self.text()?).map_err(PluginError::file(&path))
    }

    /// The file of its artifact of a kind, where the manifest names one.
    pub fn artifact(&self, folder: &Path, kind: BuildKind) -> Option<PathBuf> {
        match kind {
            BuildKind::Wasm => self.wasm.as_ref().map(|name| folder.join(name)),
            BuildKind::Native => self.native.as_ref().map(|stem| folder.join(library_name(stem))),
        }
    }

    /// The kind that is loaded unless the lock says otherwise: the component where there is one.
    pub fn preferred(&self) -> BuildKind {
        if self.wasm.is_some() { BuildKind::Wasm } else { BuildKind::Native }
    }
}

/// What is wrong in a manifest, and the value that it is about.
struct ManifestError {
    value: String,
    what: String,
}

impl ManifestError {
    fn at(text: &str, what: String) -> Self {
        ManifestError { value: format!("{text:?}"), what }
    }
}

/// The line and column where a value first stands in a text, from 1; the start where it does not.
fn line_and_column(text: &str, value: &str) -> (usize, usize) {
    let before = &text[..text.find(value).unwrap_or(0)];
    let line = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line..].chars().count() + 1)
}

/// Texts of plugins are shown on terminals: control characters could hide what they say.
fn printable(text: &str) -> Result<(), String> {
    match text.chars().find(|c| matches!(c, '\n' | '\t') || kino_port::is_hidden(*c)) {
        Some(c) => Err(format!("a text of one line, without control characters, found {c:?}")),
        None => Ok(()),
    }
}

/// Whether something can be granted to be read.
pub(crate) fn readable(path: &str) -> Result<(), String> {
    printable(path)?;
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if path.is_empty() || path.contains('\\') || !Path::new(path).components().all(plain) {
        return Err(format!(
            "what a plugin reads is a path relative to the graph, without `..`, found {path:?}; a \
             link beside the graph leads to files elsewhere"
        ));
    }
    Ok(())
}

/// What a library of this stem is called on this platform.
pub fn library_name(stem: &str) -> String {
    format!("{}{stem}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

/// Reads how much memory a plugin asks for or is allowed.
///
/// # Errors
/// When it is no size, or none at all.
pub(crate) fn memory_limit(text: &str) -> Result<u64, String> {
    match kino_port::parse_bytes(text)? {
        0 => Err(format!("`{text}` is no memory at all: write 256MB or 2GB")),
        bytes => Ok(bytes),
    }
}
