//! The lock file: which builds of which plugins are trusted, and with what. `kino.lock.ron` stands
//! beside the graph; the user's own plugins have one in the user's data folder.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use kino_node::read_regular_text;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{PluginError, Result};
use crate::manifest::{BuildKind, LONGEST, ResourceRequest, parse, readable, ron};

/// The name of the file.
pub const LOCK_FILE: &str = "kino.lock.ron";

/// The version of its form.
const VERSION: u32 = 1;

/// Which plugins are trusted.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[serde(rename = "Lock")]
pub struct LockFile {
    /// The version of the file's form.
    pub version: u32,
    /// What is trusted, by the plugin's id.
    #[serde(default, deserialize_with = "each_once")]
    pub plugins: BTreeMap<String, LockEntry>,
}

impl Default for LockFile {
    fn default() -> Self {
        LockFile { version: VERSION, plugins: BTreeMap::new() }
    }
}

/// What is trusted of one plugin.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LockEntry {
    /// The version that was accepted.
    #[serde(default)]
    pub version: String,
    /// How it is loaded.
    #[serde(deserialize_with = "wasm_or_native")]
    pub kind: BuildKind,
    /// The sha256 of the artifact, in hexadecimal; empty in a `dev` entry.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// The folder whose every build is trusted while its author works on it, relative to this file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
    /// Where it lies, relative to this file, where that is not in `plugins`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// `native` where the user trusts native code of this plugin.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "native_or_nothing"
    )]
    pub trust: Option<BuildKind>,
    /// Whether native code runs in a process of its own.
    #[serde(default, skip_serializing_if = "is_false")]
    pub isolate: bool,
    /// What the manifest asked for when it was accepted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub asks: ResourceRequest,
    /// Files and folders that it may read, relative to the graph.
    #[serde(default, skip_serializing_if = "Grants::is_empty")]
    pub grants: Grants,
    /// What it may use up in one call; the defaults where not given.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: RawLimits,
}

/// What a plugin may reach.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Grants {
    /// Files and folders to read, relative to the graph.
    #[serde(default)]
    pub read: Vec<String>,
}

impl Grants {
    fn is_empty(&self) -> bool {
        self.read.is_empty()
    }
}

/// What a plugin may use up, as it is written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawLimits {
    /// Memory for one call, such as `2GB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Seconds for one call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

impl LockEntry {
    /// The folder that the entry names, relative to the lock file.
    pub fn folder_path(&self) -> Option<&str> {
        self.dev.as_deref().or(self.folder.as_deref())
    }
}

/// Reads entries by name and refuses a name that stands there twice: one of them would be dropped.
fn each_once<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, LockEntry>, D::Error> {
    struct Entries;

    impl<'de> Visitor<'de> for Entries {
        type Value = BTreeMap<String, LockEntry>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a map from the ids of plugins to what is trusted of them")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = BTreeMap::new();
            while let Some((id, entry)) = map.next_entry::<String, LockEntry>()? {
                if entries.contains_key(&id) {
                    return Err(A::Error::custom(format!("`{id}` is written twice")));
                }
                entries.insert(id, entry);
            }
            Ok(entries)
        }
    }

    deserializer.deserialize_map(Entries)
}

/// A word of a lock file, and what is said where it is another one.
struct Word {
    words: &'static [(&'static str, BuildKind)],
    wrong: &'static str,
}

impl Visitor<'_> for Word {
    type Value = BuildKind;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.wrong)
    }

    fn visit_bytes<E: serde::de::Error>(self, found: &[u8]) -> Result<BuildKind, E> {
        let known = self.words.iter().find(|(word, _)| word.as_bytes() == found);
        known.map(|(_, kind)| *kind).ok_or_else(|| {
            E::custom(format!("{}, found `{}`", self.wrong, String::from_utf8_lossy(found)))
        })
    }

    fn visit_str<E: serde::de::Error>(self, found: &str) -> Result<BuildKind, E> {
        self.visit_bytes(found.as_bytes())
    }
}

/// Reads `trust`; the usual mistake is to write how the plugin is isolated.
fn native_or_nothing<'de, D: Deserializer<'de>>(from: D) -> Result<Option<BuildKind>, D::Error> {
    let wrong = "`trust` is `native` or left out (`isolate: true` gives native code a process of its \
                 own)";
    from.deserialize_identifier(Word { words: &[("native", BuildKind::Native)], wrong }).map(Some)
}

/// Reads `kind`.
fn wasm_or_native<'de, D: Deserializer<'de>>(from: D) -> Result<BuildKind, D::Error> {
    let words = &[("wasm", BuildKind::Wasm), ("native", BuildKind::Native)];
    from.deserialize_identifier(Word { words, wrong: "`kind` is `wasm` or `native`" })
}

fn is_false(truth: &bool) -> bool {
    !truth
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl LockFile {
    /// Reads the lock of a folder; an empty one where there is no such file.
    ///
    /// # Errors
    /// When the file cannot be read or understood; the message names line and column.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(LOCK_FILE);
        let text = match read_regular_text(&path, LONGEST) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(LockFile::default());
            }
            Err(error) => return Err(PluginError::file(&path)(error)),
        };
        let lock: LockFile = parse(&text, &path)?;
        if lock.version != VERSION {
            return Err(PluginError::refused(
                format!(
                    "{}: its version is {}, this Kinograph reads {VERSION}",
                    path.display(),
                    lock.version
                ),
                "use a newer Kinograph",
            ));
        }
        for (id, entry) in &lock.plugins {
            for granted in &entry.grants.read {
                readable(granted).map_err(|what| {
                    PluginError::malformed(format!(
                        "{}: the grants of `{id}`: {what}",
                        path.display()
                    ))
                })?;
            }
        }
        Ok(lock)
    }

    /// Changes the lock of a folder; two commands that do so at once do not lose each other's.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn change(folder: &Path, change: impl FnOnce(&mut LockFile)) -> Result<()> {
        let _held = hold(folder);
        let mut lock = LockFile::read(folder)?;
        change(&mut lock);
        lock.write(folder)
    }

    /// Writes the lock of a folder, whole or not at all; the same lock gives the same text.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let head =
            "// Which plugins are trusted, and with what. `kino plugin trust` writes this file.";
        write_whole(folder, LOCK_FILE, head, self)
    }
}

/// Holds a folder until the result is dropped; others who hold it wait. Where the system cannot
/// lock folders, nobody waits.
pub(crate) fn hold(folder: &Path) -> Option<File> {
    let folder = File::open(folder).ok()?;
    folder.lock().ok()?;
    Some(folder)
}

/// Writes a file of RON below a line of comment, whole or not at all.
pub(crate) fn write_whole(
    folder: &Path,
    name: &str,
    head: &str,
    contents: &impl Serialize,
) -> Result<()> {
    let config = ron::ser::PrettyConfig::new().struct_names(false);
    let text = ron().to_string_pretty(contents, config);
    let text = text.map_err(|error| PluginError::malformed(error.to_string()))?;
    let path = folder.join(name);
    let fault = PluginError::file(&path);
    let prefix = format!(".{name}.");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder).map_err(&fault)?;
    file.write_all(format!("{head}\n{text}\n").as_bytes()).map_err(&fault)?;
    file.as_file().sync_all().map_err(&fault)?;
    file.persist(&path).map_err(|error| fault(error.error))?;
    Ok(())
}
