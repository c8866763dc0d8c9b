//! Which native code this user has agreed to run. A lock file travels with its graph; what it says
//! of native code counts only where the user has said the same on this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kino_node::read_regular_text;
use serde::{Deserialize, Serialize};

use crate::error::{PluginError, Result};
use crate::lock::{LockEntry, hold, write_whole};
use crate::manifest::{BuildKind, LONGEST, ron};

/// The name of the file, in the user's data folder.
const FILE: &str = "native.ron";

/// What this user has agreed to.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Consent {
    /// The id of the plugin, by the sha256 of its library.
    builds: BTreeMap<String, String>,
    /// Folders in dev mode, of which every build is run.
    #[serde(with = "kino_node::path_text::many")]
    folders: BTreeSet<PathBuf>,
}

impl Consent {
    /// Where it stands in the user's data folder.
    pub fn file(data: &Path) -> PathBuf {
        data.join(FILE)
    }

    /// What stands in the user's data folder; nothing where there is no such file.
    ///
    /// # Errors
    /// When the file cannot be read or understood.
    pub fn read(data: &Path) -> Result<Self> {
        let path = Consent::file(data);
        match read_regular_text(&path, LONGEST) {
            Ok(text) => ron()
                .from_str(&text)
                .map_err(|error| PluginError::malformed(format!("{}: {error}", path.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Consent::default()),
            Err(error) => Err(PluginError::file(&path)(error)),
        }
    }

    /// Whether an entry of a lock file asks for no more than the user has agreed to.
    pub(crate) fn covers(&self, folder: &Path, entry: &LockEntry) -> bool {
        match (entry.kind, &entry.dev) {
            (BuildKind::Wasm, _) => true,
            (BuildKind::Native, None) => self.builds.contains_key(&entry.sha256),
            (BuildKind::Native, Some(_)) => self.folders.contains(&real(folder)),
        }
    }

    /// Remembers in the user's data folder that the user agrees to what an entry says of the plugin
    /// in a folder, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn grant(data: &Path, id: &str, folder: &Path, entry: &LockEntry) -> Result<()> {
        if entry.kind == BuildKind::Wasm {
            return Ok(());
        }
        std::fs::create_dir_all(data).map_err(PluginError::file(data))?;
        let _held = hold(data);
        let mut consent = Consent::read(data)?;
        if consent.covers(folder, entry) {
            return Ok(());
        }
        match &entry.dev {
            Some(_) => drop(consent.folders.insert(real(folder))),
            None => drop(consent.builds.insert(entry.sha256.clone(), id.to_owned())),
        }
        let head =
            "// Native code that you have agreed to run. `kino plugin trust` writes this file.";
        write_whole(data, FILE, head, &consent)
    }
}

/// Where a folder lies, links resolved; as it is written where it cannot be found.
pub(crate) fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
