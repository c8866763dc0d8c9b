//! What this user has agreed to on this machine. A lock file travels with its graph: what it says
//! of native code, of dev mode, of files outside the graph's folder and of limits beyond the usual
//! ones counts only where the user has said the same here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use kino_node::read_regular_text;
use serde::{Deserialize, Serialize};

use crate::error::{PluginError, Result};
use crate::grants::{Beyond, places_of};
use crate::index::{FoundPlugin, PLUGINS_FOLDER};
use crate::lock::{LockEntry, RawLimits, hold, write_whole};
use crate::manifest::{BuildKind, LONGEST, memory_limit, ron};
use crate::module::Limits;

/// The name of the file, in the user's data folder.
const FILE: &str = "consent.ron";
/// What it was called while it was about native code alone; what stands there still counts.
const FORMER: &str = "native.ron";

/// What this user has agreed to.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Consent {
    /// The id of the plugin, by the sha256 of its library.
    builds: BTreeMap<String, String>,
    /// Folders in dev mode, of which every build is run.
    #[serde(with = "kino_node::path_text::many")]
    folders: BTreeSet<PathBuf>,
    /// Plugins that were accepted for graphs of a folder.
    accepted: Vec<Accepted>,
    /// Folders that graphs of a folder may read.
    graphs: Vec<ReadConsent>,
    /// The user's data folder.
    #[serde(skip, with = "kino_node::path_text")]
    data: PathBuf,
}

/// A plugin that the user has accepted for graphs of one folder.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// Its id.
    pub plugin: String,
    /// The folder of the graphs, links resolved.
    #[serde(with = "kino_node::path_text")]
    pub graphs: PathBuf,
    /// The build, by its sha256; empty in dev mode.
    #[serde(default)]
    pub sha256: String,
    /// What it may read outside of that folder, links resolved.
    #[serde(default, with = "kino_node::path_text::many")]
    pub read: BTreeSet<PathBuf>,
    /// What it may use up in one call.
    #[serde(default)]
    pub limits: RawLimits,
    /// Whether native code was accepted in a process of its own.
    #[serde(default)]
    pub isolate: bool,
    /// Who accepted it.
    #[serde(default)]
    pub by: String,
    /// When, in seconds since 1970.
    #[serde(default)]
    pub at: u64,
}

/// What graphs of a folder may read beside what lies in it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ReadConsent {
    #[serde(with = "kino_node::path_text")]
    graphs: PathBuf,
    #[serde(with = "kino_node::path_text::many")]
    read: BTreeSet<PathBuf>,
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
        for name in [FILE, FORMER] {
            let path = data.join(name);
            match read_regular_text(&path, LONGEST) {
                Ok(text) => {
                    let read: Consent = ron().from_str(&text).map_err(|error| {
                        PluginError::malformed(format!("{}: {error}", path.display()))
                    })?;
                    return Ok(Consent { data: data.to_owned(), ..read });
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(PluginError::file(&path)(error)),
            }
        }
        Ok(Consent { data: data.to_owned(), ..Consent::default() })
    }

    /// Whether the user has agreed to run this code: a component that is pinned needs no consent,
    /// native code does, and so does whatever is built in a folder in dev mode.
    pub fn covers_code(&self, folder: &Path, entry: &LockEntry) -> bool {
        match (entry.kind, &entry.dev) {
            (BuildKind::Wasm, None) => true,
            (BuildKind::Native, None) => self.builds.contains_key(&entry.sha256),
            (_, Some(_)) => self.folders.contains(&real(folder)),
        }
    }

    /// Whether native code runs in a process of its own as the user has accepted it, or in one where
    /// that was not asked for.
    pub(crate) fn covers_isolation(&self, plugin: &str, graphs: &Path, entry: &LockEntry) -> bool {
        let is_isolated = self.of(plugin, graphs).last().is_some_and(|accepted| accepted.isolate);
        entry.kind == BuildKind::Wasm || entry.isolate || !is_isolated
    }

    /// Whether the user has accepted a library, by its sha256, or every build of its folder.
    pub fn covers_library(&self, folder: &Path, sha256: &str) -> bool {
        self.builds.contains_key(sha256) || self.folders.contains(&real(folder))
    }

    /// Whether a plugin is one of the user's own, whose lock file was written here.
    pub fn owns(&self, found: &FoundPlugin) -> bool {
        !self.data.as_os_str().is_empty()
            && real(&found.lock) == real(&self.data.join(PLUGINS_FOLDER))
    }

    /// Whether a plugin may read a place outside of the folder of these graphs.
    pub(crate) fn covers_place(&self, plugin: &str, graphs: &Path, place: &Path) -> bool {
        let holds =
            |accepted: &&Accepted| accepted.read.iter().any(|allowed| place.starts_with(allowed));
        self.of(plugin, graphs).any(|accepted| holds(&accepted))
    }

    /// Whether a plugin may use up so much for these graphs.
    pub(crate) fn covers_limits(&self, plugin: &str, graphs: &Path, limits: &Limits) -> bool {
        self.of(plugin, graphs).any(|accepted| {
            let memory = accepted.limits.memory.as_deref().map(memory_limit);
            let usual = Limits::default();
            let memory = memory.and_then(std::result::Result::ok).unwrap_or(usual.memory);
            let seconds = accepted.limits.seconds.unwrap_or(usual.time.as_secs_f64());
            limits.memory <= memory && limits.time.as_secs_f64() <= seconds
        })
    }

    /// What was accepted of a plugin for graphs of a folder, the latest last.
    pub fn of(&self, plugin: &str, graphs: &Path) -> impl Iterator<Item = &Accepted> {
        let (plugin, graphs) = (plugin.to_owned(), real(graphs));
        self.accepted
            .iter()
            .filter(move |accepted| accepted.plugin == plugin && accepted.graphs == graphs)
    }

    /// What graphs of a folder may read beside what lies in it.
    pub fn read_by_graphs(&self, graphs: &Path) -> Vec<PathBuf> {
        let graphs = real(graphs);
        let own = self.graphs.iter().find(|consent| consent.graphs == graphs);
        own.map_or_else(Vec::new, |consent| consent.read.iter().cloned().collect())
    }

    /// All that was accepted of plugins, for graphs of whatever folder.
    pub fn accepted(&self) -> &[Accepted] {
        &self.accepted
    }

    /// By the folder of graphs: what they may read beside what lies in it.
    pub fn readings(&self) -> impl Iterator<Item = (&Path, &BTreeSet<PathBuf>)> {
        self.graphs.iter().map(|consent| (&*consent.graphs, &consent.read))
    }

    /// Remembers in the user's data folder that the user agrees to what an entry says of a plugin,
    /// for graphs of the folder `graphs`, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn grant(data: &Path, found: &FoundPlugin, graphs: &Path, entry: &LockEntry) -> Result<()> {
        let (id, graphs) = (&found.manifest.id, real(graphs));
        let places = places_of(&graphs, &entry.grants.read).into_iter();
        let read = places.filter_map(|(_, beyond)| match beyond {
            Beyond::Elsewhere(place) => Some(place),
            Beyond::Inside | Beyond::OfTheSystem(_) => None,
        });
        std::fs::create_dir_all(data).map_err(PluginError::file(data))?;
        let accepted = Accepted {
            plugin: id.clone(),
            graphs: graphs.clone(),
            sha256: entry.sha256.clone(),
            read: read.collect(),
            limits: entry.limits.clone(),
            isolate: entry.isolate,
            by: user_name(data),
            at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        };
        Consent::change(data, |consent| {
            match (&entry.dev, entry.kind) {
                (Some(_), _) => drop(consent.folders.insert(real(&found.folder))),
                (None, BuildKind::Native) => {
                    drop(consent.builds.insert(entry.sha256.clone(), id.clone()));
                }
                (None, BuildKind::Wasm) => {}
            }
            let is_same = |known: &Accepted| known.plugin == *id && known.graphs == graphs;
            consent.accepted.retain(|known| !is_same(known));
            consent.accepted.push(accepted);
        })
    }

    /// Remembers that graphs of the folder `graphs` may read what lies in `place`.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn grant_reading(data: &Path, graphs: &Path, place: &Path) -> Result<()> {
        let (graphs, place) = (real(graphs), real(place));
        if Consent::read(data)?.read_by_graphs(&graphs).contains(&place) {
            return Ok(());
        }
        Consent::change(data, |consent| {
            match consent.graphs.iter_mut().find(|known| known.graphs == graphs) {
                Some(known) => drop(known.read.insert(place)),
                None => consent.graphs.push(ReadConsent { graphs, read: [place].into() }),
            }
        })
    }

    /// Forgets that graphs of a folder may read `place`, or anything beside what lies in it; returns
    /// the places that they no longer read.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn withdraw_reading(
        data: &Path,
        graphs: &Path,
        place: Option<&Path>,
    ) -> Result<Vec<PathBuf>> {
        let (graphs, place) = (real(graphs), place.map(real));
        let mut gone = Vec::new();
        Consent::change(data, |consent| {
            for known in consent.graphs.iter_mut().filter(|known| known.graphs == graphs) {
                let is_meant = |read: &PathBuf| place.as_ref().is_none_or(|place| place == read);
                gone.extend(known.read.iter().filter(|read| is_meant(read)).cloned());
                known.read.retain(|read| !is_meant(read));
            }
            consent.graphs.retain(|known| !known.read.is_empty());
        })?;
        Ok(gone)
    }

    /// Forgets all that the user has agreed to of a plugin, or of the graphs of one folder alone.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn withdraw(data: &Path, found: &FoundPlugin, graphs: Option<&Path>) -> Result<()> {
        let (id, graphs) = (&found.manifest.id, graphs.map(real));
        Consent::change(data, |consent| {
            let is_meant = |known: &Accepted| {
                known.plugin == *id && graphs.as_ref().is_none_or(|own| known.graphs == *own)
            };
            consent.accepted.retain(|known| !is_meant(known));
            if consent.accepted.iter().all(|known| known.plugin != *id) {
                consent.builds.retain(|_, plugin| plugin != id);
            }
            consent.folders.remove(&real(&found.folder));
        })
    }

    /// Changes what stands in the user's data folder, whole or not at all.
    fn change(data: &Path, change: impl FnOnce(&mut Consent)) -> Result<()> {
        std::fs::create_dir_all(data).map_err(PluginError::file(data))?;
        let _held = hold(data);
        let before = Consent::read(data)?;
        let mut consent = before.clone();
        change(&mut consent);
        if consent == before {
            return Ok(());
        }
        let head = "// What you have agreed to on this machine. `kino plugin trust` and `untrust`, and \
                    `--allow-read`, write this file.";
        write_whole(data, FILE, head, &consent)
    }
}

/// Who is at work: by name as far as the environment says it, else by the number of the user whose
/// data folder this is.
fn user_name(data: &Path) -> String {
    let names = ["USER", "LOGNAME", "USERNAME"].into_iter();
    names
        .filter_map(|name| std::env::var(name).ok())
        .find(|name| !name.is_empty())
        .or_else(|| user_number(data))
        .unwrap_or_default()
}

#[cfg(unix)]
fn user_number(data: &Path) -> Option<String> {
    let about = std::fs::metadata(data).ok()?;
    Some(format!("user {}", std::os::unix::fs::MetadataExt::uid(&about)))
}

#[cfg(not(unix))]
fn user_number(_: &Path) -> Option<String> {
    None
}

/// Where a folder lies, links resolved; as it is written where it cannot be found.
pub(crate) fn real(path: &Path) -> PathBuf {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
