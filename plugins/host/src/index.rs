//! Where plugins are found: beside the graph, then among the user's own. Only manifests are read.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use kino_port::path_of_text;

use crate::error::{PluginError, Result};
use crate::lock::{LockEntry, LockFile};
use crate::manifest::{MANIFEST_FILE, Manifest};

/// The folder beside a graph that holds its plugins.
pub const PLUGINS_FOLDER: &str = "plugins";

/// A plugin that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundPlugin {
    /// Its folder.
    pub folder: PathBuf,
    /// What it says of itself.
    pub manifest: Manifest,
    /// The folder of the lock file that decides on it.
    pub lock: PathBuf,
}

/// All plugins that a graph may use.
#[derive(Default)]
pub struct PluginIndex {
    /// Those whose manifest reads, those beside the graph first.
    pub found: Vec<FoundPlugin>,
    /// Folders whose manifest does not read, with the reason.
    pub broken: Vec<(PathBuf, PluginError)>,
    /// Plugins of the user that are left aside for one beside the graph, with its folder.
    pub shadowed: Vec<(FoundPlugin, PathBuf)>,
}

impl PluginIndex {
    /// Looks for plugins: folders that the graph's lock names, `plugins` beside the graph, and the
    /// user's own. Of a plugin that stands beside the graph and in the graph's lock, a copy of the
    /// user's is left aside: the lock says which is meant.
    ///
    /// # Errors
    /// When a lock does not read.
    pub fn scan(graph: &Path, user: Option<&Path>) -> Result<Self> {
        let mut index = PluginIndex::default();
        let lock = LockFile::read(graph)?;
        for folder in lock.plugins.values().filter_map(LockEntry::folder_path) {
            let folder =
                if folder == "." { graph.to_owned() } else { graph.join(path_of_text(folder)) };
            index.add(&folder, graph);
        }
        index.add_all(&graph.join(PLUGINS_FOLDER), graph);
        let beside = index.found.len();
        if let Some(user) = user {
            index.add_all(user, user);
        }
        let own = index.found.split_off(beside);
        for found in own {
            let id = &found.manifest.id;
            match index.plugin(id).filter(|_| lock.plugins.contains_key(id)) {
                Some(beside) => index.shadowed.push((found, beside.folder.clone())),
                None => index.found.push(found),
            }
        }
        Ok(index)
    }

    /// Plugins that lie near a graph, but where they are not looked for: the folder of the graph
    /// itself, and those directly in it.
    pub fn near(graph: &Path) -> Vec<FoundPlugin> {
        /// In a folder of more than these nobody looks further.
        const MOST: usize = 1000;
        let mut index = PluginIndex::default();
        index.add(graph, graph);
        let entries = std::fs::read_dir(graph).into_iter().flatten().flatten().take(MOST);
        let mut folders: Vec<_> = entries.map(|entry| entry.path()).collect();
        folders.sort();
        folders.iter().for_each(|folder| index.add(folder, graph));
        index.found
    }

    fn add_all(&mut self, folder: &Path, lock: &Path) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        // What begins with a point is a folder in the making.
        let whole =
            |entry: &std::fs::DirEntry| !entry.file_name().to_string_lossy().starts_with('.');
        let mut folders: Vec<_> =
            entries.flatten().filter(whole).map(|entry| entry.path()).collect();
        folders.sort();
        folders.iter().for_each(|folder| self.add(folder, lock));
    }

    fn add(&mut self, folder: &Path, lock: &Path) {
        let same = |known: &Path| {
            known == folder || known.canonicalize().ok() == folder.canonicalize().ok()
        };
        if !folder.join(MANIFEST_FILE).is_file()
            || self.found.iter().any(|found| same(&found.folder))
        {
            return;
        }
        match Manifest::read(folder) {
            Ok(manifest) => self.found.push(FoundPlugin {
                folder: folder.to_owned(),
                manifest,
                lock: lock.to_owned(),
            }),
            Err(error) => self.broken.push((folder.to_owned(), error)),
        }
    }

    /// The plugin of this id.
    pub fn plugin(&self, id: &str) -> Option<&FoundPlugin> {
        self.found.iter().find(|found| found.manifest.id == id)
    }

    /// The plugin that has a node.
    pub fn of_node(&self, node: &str) -> Option<&FoundPlugin> {
        self.found.iter().find(|found| found.manifest.nodes.iter().any(|known| known == node))
    }

    /// Node ids and plugin ids that two plugins claim, or a plugin and the engine: a sentence each.
    pub fn conflicts(&self, is_built_in: impl Fn(&str) -> bool) -> Vec<String> {
        let mut faults = Vec::new();
        let mut owners: HashMap<&str, &FoundPlugin> = HashMap::new();
        let mut names: HashMap<&str, &FoundPlugin> = HashMap::new();
        for found in &self.found {
            let FoundPlugin { folder, manifest, .. } = found;
            if let Some(other) = names.insert(&manifest.id, found) {
                faults.push(format!(
                    "two plugins are called `{}`: in {} and in {}",
                    manifest.id,
                    other.folder.display(),
                    folder.display()
                ));
                continue;
            }
            for node in &manifest.nodes {
                if is_built_in(node) {
                    let (id, folder) = (&manifest.id, folder.display());
                    faults.push(format!(
                        "the plugin `{id}` ({folder}) claims `{node}`, which is built in"
                    ));
                } else if let Some(other) = owners.insert(node, found) {
                    faults.push(format!(
                        "two plugins claim the node `{node}`: `{}` ({}) and `{}` ({})",
                        other.manifest.id,
                        other.folder.display(),
                        manifest.id,
                        folder.display()
                    ));
                }
            }
        }
        faults
    }
}
