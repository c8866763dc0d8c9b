//! The nodes that a graph can use, and the files that they come from: those that are built in, and
//! those of plugins that the graph names.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use kino_host::{
    AllowedBuild, BuildKind, Consent, FoundPlugin, GrantedFiles, Lock, LockEntry, Module,
    PLUGINS_FOLDER, Plugin, PluginIndex,
};
use kino_node::{Error, Registry};

use crate::engine;
use crate::failure::Failure;
use crate::library::Opened;

/// The nodes that a graph can use.
pub(crate) struct Palette {
    /// The nodes; the same as before unless one of the files changed.
    pub(crate) registry: Arc<Registry>,
    /// The files and folders that nodes come from: after a change in one of them, ask again.
    pub(crate) files: Vec<PathBuf>,
}

/// Nodes that cannot be used as they stand.
pub(crate) struct Unusable {
    /// Why.
    pub(crate) failure: Failure,
    /// The files and folders whose change may mend it.
    pub(crate) files: Vec<PathBuf>,
}

/// Finds nodes for graphs, and keeps those that it has found.
pub(crate) struct Palettes {
    built_in: Arc<Registry>,
    /// Whether only builds that are pinned are loaded.
    locked: bool,
    /// Plugins that are loaded, by their ids.
    loaded: HashMap<String, Loaded>,
    /// The last registry with plugins, and the builds that it is made of.
    last: Option<(Vec<Arc<Plugin>>, Arc<Registry>)>,
}

/// A plugin that is loaded.
struct Loaded {
    allowed: AllowedBuild,
    root: PathBuf,
    plugin: Arc<Plugin>,
}

impl Palettes {
    /// Has the built-in nodes.
    pub(crate) fn new(locked: bool) -> Self {
        let built_in = Arc::new(engine::registry());
        Palettes { built_in, locked, loaded: HashMap::new(), last: None }
    }

    /// The nodes that every graph can use.
    pub(crate) fn built_in(&self) -> Arc<Registry> {
        Arc::clone(&self.built_in)
    }

    /// The nodes for a graph, as they stand now. Only plugins are loaded that the graph names nodes
    /// of.
    ///
    /// # Errors
    /// When those that the graph uses cannot be loaded.
    pub(crate) fn of(&mut self, graph: &Opened) -> Result<Palette, Box<Unusable>> {
        let ops = kino_graph::ops(&graph.name, &graph.text, graph);
        let foreign: Vec<&str> =
            ops.iter().map(String::as_str).filter(|op| self.built_in.get(op).is_none()).collect();
        if foreign.is_empty() {
            return Ok(Palette { registry: self.built_in(), files: Vec::new() });
        }
        let mut files =
            vec![graph.folder.join(PLUGINS_FOLDER), graph.folder.join(kino_host::LOCK_FILE)];
        files.extend([user_folder(), Consent::file(&kino_world::data_dir())]);
        match self.load_all(&graph.folder, &foreign, &mut files) {
            Ok(plugins) => Ok(Palette { registry: self.registry(plugins), files }),
            Err(failure) => Err(Box::new(Unusable { failure, files })),
        }
    }

    /// Loads the plugins that have these nodes; nodes that none has are left to the check.
    fn load_all(
        &mut self,
        root: &Path,
        nodes: &[&str],
        files: &mut Vec<PathBuf>,
    ) -> Result<Vec<Arc<Plugin>>, Failure> {
        let user = user_folder();
        let shelf = PluginIndex::scan(root, Some(&user)).map_err(|error| failure(&error))?;
        // What is missing or broken may be mended.
        let known = shelf.found.iter().map(|found| &found.folder);
        let broken = shelf.broken.iter().map(|(folder, _)| folder);
        files.extend(known.chain(broken).map(|folder| folder.join(kino_host::MANIFEST_FILE)));
        let mut wanted: Vec<&FoundPlugin> = Vec::new();
        for found in nodes.iter().filter_map(|node| shelf.of_node(node)) {
            if !wanted.iter().any(|other| other.folder == found.folder) {
                wanted.push(found);
            }
        }
        let conflicts = shelf.conflicts(|node| self.built_in.get(node).is_some());
        if !conflicts.is_empty() {
            return Err(Failure::usage(conflicts.join("\n")).hint("remove or rename one of them"));
        }
        let unknown: Vec<_> =
            nodes.iter().filter(|node| shelf.of_node(node).is_none()).copied().collect();
        if !unknown.is_empty()
            && let Some((_, error)) = shelf.broken.first()
        {
            let (names, are) = (unknown.join("`, `"), if unknown.len() > 1 { "are" } else { "is" });
            return Err(failure(&Error::Failed {
                message: format!(
                    "{error}\n`{names}` {are} none of the nodes that are known, and may be of that \
                     plugin"
                ),
                hint: error.hint().map(str::to_owned),
            }));
        }
        let mut plugins = Vec::with_capacity(wanted.len());
        let mut faults = Vec::new();
        for found in wanted {
            match self.load(found, root, files) {
                Ok(plugin) => plugins.push(plugin),
                Err(error) => faults.push(error),
            }
        }
        match faults.as_slice() {
            [] => Ok(plugins),
            [one] => Err(failure(one)),
            several => {
                let lines = several.iter().map(|error| match error.hint() {
                    Some(hint) => format!("{error}\n  {hint}"),
                    None => error.to_string(),
                });
                Err(Failure::usage(lines.collect::<Vec<_>>().join("\n")))
            }
        }
    }

    /// Loads one plugin, unless the very build is loaded already.
    fn load(
        &mut self,
        found: &FoundPlugin,
        root: &Path,
        files: &mut Vec<PathBuf>,
    ) -> Result<Arc<Plugin>, Error> {
        let manifest = &found.manifest;
        files.push(found.lock.join(kino_host::LOCK_FILE));
        let kinds = [BuildKind::Wasm, BuildKind::Native];
        files.extend(kinds.iter().filter_map(|kind| manifest.artifact(&found.folder, *kind)));
        let lock = Lock::read(&found.lock)?;
        let allowed = kino_host::decide(found, &lock, &consent()?, self.locked)?;
        files.extend(allowed.read.iter().map(|granted| root.join(granted)));
        let sha256 = match &allowed.sha256 {
            Some(sha256) => sha256.clone(),
            None => kino_host::sha256(&allowed.path)?,
        };
        let before = self.loaded.get(&allowed.id);
        if let Some(before) = before
            && (&before.allowed, &*before.root, &before.plugin.sha256) == (&allowed, root, &sha256)
        {
            return Ok(Arc::clone(&before.plugin));
        }
        let artifact = open(&allowed, &sha256)?;
        verify_descriptor(found, &*artifact)?;
        let advice = match allowed.sha256 {
            Some(_) => format!("`kino plugin trust {} --read PATH` grants more", allowed.id),
            None => "while the folder is at work, `asks` in its plugin.ron grants more".to_owned(),
        };
        let granted = Arc::new(GrantedFiles::new(root, &allowed.read).advising(advice));
        let plugin = Plugin::new(&allowed.id, sha256, artifact, granted, allowed.limits);
        if let Some(before) = before {
            plugin.inherit(&before.plugin);
        }
        let loaded = Loaded { root: root.to_owned(), plugin: Arc::clone(&plugin), allowed };
        self.loaded.insert(loaded.allowed.id.clone(), loaded);
        Ok(plugin)
    }

    /// The built-in nodes and those of these plugins.
    fn registry(&mut self, plugins: Vec<Arc<Plugin>>) -> Arc<Registry> {
        if plugins.is_empty() {
            return self.built_in();
        }
        if let Some((of, registry)) = &self.last
            && of.len() == plugins.len()
            && of.iter().zip(&plugins).all(|(a, b)| Arc::ptr_eq(a, b))
        {
            return Arc::clone(registry);
        }
        let mut registry = Registry::clone(&self.built_in);
        plugins.iter().flat_map(kino_host::plugin_nodes).for_each(|node| registry.insert(node));
        let registry = Arc::new(registry);
        self.last = Some((plugins, Arc::clone(&registry)));
        registry
    }
}

/// The built-in nodes, and those of every plugin of this folder or of the user that may be loaded.
pub(crate) fn known() -> Arc<Registry> {
    let mut palettes = Palettes::new(false);
    let root = Path::new(".");
    let Ok(shelf) = PluginIndex::scan(root, Some(&user_folder())) else {
        return palettes.built_in();
    };
    let mut plugins = Vec::new();
    for found in &shelf.found {
        match palettes.load(found, root, &mut Vec::new()) {
            Ok(plugin) => plugins.push(plugin),
            Err(error) => tracing::info!("A plugin is left out: {error}."),
        }
    }
    palettes.registry(plugins)
}

/// The folder of the user's own plugins.
pub(crate) fn user_folder() -> PathBuf {
    kino_world::data_dir().join(PLUGINS_FOLDER)
}

/// What native code this user has agreed to run.
///
/// # Errors
/// When the file that says so does not read.
pub(crate) fn consent() -> Result<Consent, Error> {
    Consent::read(&kino_world::data_dir())
}

/// Remembers that this user has accepted a plugin, where that takes consent.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn record_consent(found: &FoundPlugin, entry: &LockEntry) -> Result<(), Error> {
    Consent::grant(&kino_world::data_dir(), &found.manifest.id, &found.folder, entry)
}

/// What to say of a plugin that cannot be used.
pub(crate) fn failure(error: &Error) -> Failure {
    let failure = Failure::usage(error.to_string());
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// Loads an artifact.
///
/// # Errors
/// When it is none, or another than the one with this sha256.
pub(crate) fn open(allowed: &AllowedBuild, sha256: &str) -> Result<Arc<dyn Module>, Error> {
    match allowed.kind {
        BuildKind::Native => {
            let trusted = kino_native::TrustedLibrary { path: &allowed.path, sha256: Some(sha256) };
            if !allowed.isolate {
                return Ok(Arc::new(kino_native::NativePlugin::load(trusted)?));
            }
            let worker = std::env::current_exe()?;
            Ok(Arc::new(kino_native::IsolatedPlugin::start(
                &worker,
                &[crate::args::WORKER],
                trusted,
            )?))
        }
        BuildKind::Wasm => component(allowed, sha256),
    }
}

#[cfg(feature = "wasm")]
fn component(allowed: &AllowedBuild, sha256: &str) -> Result<Arc<dyn Module>, Error> {
    static ENGINE: OnceLock<Result<kino_wasm::Engine, String>> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| {
        let cache = kino_world::cache_dir().join("components");
        kino_wasm::Engine::new(Some(&cache)).map_err(|error| error.to_string())
    });
    let engine = engine.as_ref().map_err(|error| Error::failed(error.clone()))?;
    let at = |error: std::io::Error| Error::failed(format!("{}: {error}", allowed.path.display()));
    let bytes = std::fs::read(&allowed.path).map_err(at)?;
    if kino_host::sha256_of(&bytes) != sha256 {
        return Err(Error::failed(format!("{} has just changed", allowed.path.display())));
    }
    let plugin = kino_wasm::WasmPlugin::load(engine, &allowed.id, &bytes);
    Ok(plugin.map_err(|error| error.within(allowed.path.display()))?)
}

#[cfg(not(feature = "wasm"))]
fn component(allowed: &AllowedBuild, _: &str) -> Result<Arc<dyn Module>, Error> {
    Err(Error::advised(
        format!("the plugin `{}` is a component, and this kino was built without them", allowed.id),
        "build kino with the feature `wasm`",
    ))
}

/// Holds what a plugin says of its nodes against its manifest.
///
/// # Errors
/// When one names nodes that the other does not.
pub(crate) fn verify_descriptor(found: &FoundPlugin, artifact: &dyn Module) -> Result<(), Error> {
    let manifest = &found.manifest;
    let described = &artifact.descriptor().nodes;
    let missing = |node: &&String| artifact.descriptor().node(node).is_none();
    if let Some(node) = manifest.nodes.iter().find(missing) {
        let (id, names) = (&manifest.id, described.iter().map(|spec| &*spec.signature.name));
        return Err(Error::failed(format!(
            "the plugin `{id}` has no node `{node}`, which its plugin.ron names; it has {}",
            names.collect::<Vec<_>>().join(", ")
        )));
    }
    let unnamed = |name: &str| !manifest.nodes.iter().any(|known| known == name);
    if let Some(spec) = described.iter().find(|spec| unnamed(&spec.signature.name)) {
        let (id, node) = (&manifest.id, &spec.signature.name);
        return Err(Error::advised(
            format!("the plugin `{id}` has a node `{node}` that its plugin.ron does not name"),
            "add it to `nodes` there",
        ));
    }
    Ok(())
}
