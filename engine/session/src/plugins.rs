//! The nodes that a graph can use, and the files that they come from: those that are built in, and
//! those of plugins that the graph names.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use kino_host::{
    AllowedBuild, BuildKind, Consent, FoundPlugin, GrantedFiles, LockEntry, LockFile, Module,
    PLUGINS_FOLDER, Plugin, PluginIndex,
};
use kino_node::Registry;

use crate::error::Error;
use crate::notice::{Notice, OnNotice};
use crate::settings::Settings;
use crate::source::GraphSource;

/// The nodes that a graph can use.
pub(crate) struct NodeSet {
    /// The nodes; the same as before unless one of the files changed.
    pub(crate) registry: Arc<Registry>,
    /// The plugins among them.
    pub(crate) plugins: Vec<Arc<Plugin>>,
    /// The files and folders that nodes come from: after a change in one of them, ask again.
    pub(crate) files: Vec<PathBuf>,
    /// Ops that are missing, and what to do about them.
    pub(crate) missing: HashMap<String, String>,
}

impl NodeSet {
    /// Nodes that come from no file.
    pub(crate) fn of(registry: Arc<Registry>) -> Self {
        NodeSet { registry, plugins: Vec::new(), files: Vec::new(), missing: HashMap::new() }
    }
}

/// Nodes that cannot be used as they stand.
pub(crate) struct NodesError {
    /// Why.
    pub(crate) error: Error,
    /// The files and folders whose change may mend it.
    pub(crate) files: Vec<PathBuf>,
}

/// Finds nodes for graphs, and keeps those that it has found. Who loads a plugin waits for others
/// that load the same one, and for nobody else.
pub(crate) struct PluginLoader {
    built_in: Arc<Registry>,
    /// Whether only builds that are pinned are loaded.
    locked: bool,
    /// What serves plugins that run in processes of their own.
    worker: Option<PluginWorker>,
    /// Where the user's own plugins lie, and what the user has agreed to run.
    data: PathBuf,
    /// What components are compiled with.
    components: Components,
    /// Plugins, by the folder of the graphs that use them and their ids; each is locked while it is
    /// being loaded.
    slots: Mutex<HashMap<(PathBuf, String), Arc<Slot>>>,
    /// The registries with plugins that were used last, the latest last, and the builds that each
    /// is made of: what opens a graph again finds its plugins loaded.
    last: Mutex<Vec<(Builds, Arc<Registry>)>>,
}

/// The builds that a registry is made of.
type Builds = Vec<Arc<Plugin>>;

/// A plugin, once it is loaded. Whoever uses it holds it: graphs that are open, by their nodes, and
/// the registries that were used last.
type Slot = Mutex<Option<Loaded>>;

/// What a [`PluginWorker`] is started with, after its own arguments, to compile a component.
pub const COMPILE: &str = "compile";

/// Compiles a component, as an engine asks its [`PluginWorker`] to. Gives the exit code.
#[cfg(feature = "wasm")]
pub fn compile_component(arguments: &[std::ffi::OsString]) -> i32 {
    kino_wasm::compile_in_this_process(arguments)
}

/// What components are compiled with, made by the first of them.
#[cfg_attr(not(feature = "wasm"), expect(dead_code))]
pub(crate) struct Components {
    /// The folder in which compiled code is kept, where it is.
    cache: Option<PathBuf>,
    /// What compiles them, where it is not this process.
    program: Option<PluginWorker>,
    /// Hears of what takes a while.
    notice: Option<OnNotice>,
    #[cfg(feature = "wasm")]
    engine: std::sync::OnceLock<Result<kino_wasm::WasmEngine, String>>,
}

impl Components {
    /// Compiled code is kept in this folder, if one is given.
    pub(crate) fn new(
        cache: Option<PathBuf>,
        program: Option<PluginWorker>,
        notice: Option<OnNotice>,
    ) -> Self {
        Components {
            cache,
            program,
            notice,
            #[cfg(feature = "wasm")]
            engine: std::sync::OnceLock::new(),
        }
    }

    #[cfg(feature = "wasm")]
    fn engine(&self) -> Result<&kino_wasm::WasmEngine, Error> {
        let make = || {
            let program = self.program.clone().map(|PluginWorker { program, mut args }| {
                args.push(COMPILE.to_owned());
                (program, args)
            });
            let notice = self.notice.clone().map(|notice| -> kino_wasm::CompileNotice {
                Arc::new(move |plugin: &str| {
                    notice(&Notice::Compiling { plugin: plugin.to_owned() });
                })
            });
            let options = kino_wasm::CompileOptions { program, notice };
            let engine = kino_wasm::WasmEngine::with_options(self.cache.as_deref(), options);
            engine.map_err(|error| error.to_string())
        };
        self.engine.get_or_init(make).as_ref().map_err(|error| Error::usage(error.clone()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A program that works for an engine in processes of its own: it serves a plugin by calling
/// `kino_native::serve`. Where [`COMPILE`] and more follows its arguments, it compiles a component
/// by calling [`compile_component`] with what follows that word, and ends with the code that this
/// gives: so a component cannot use up the engine's own process while it is compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginWorker {
    /// The program.
    pub program: PathBuf,
    /// What it is started with.
    pub args: Vec<String>,
}

/// So many registries are kept that no open graph uses: their plugins stay loaded.
const MAX_REGISTRIES: usize = 8;

/// A plugin that was loaded, and may have been let go.
struct Loaded {
    allowed: AllowedBuild,
    plugin: Weak<Plugin>,
}

/// Forgets plugins that nobody uses any more and nobody is loading.
fn prune(slots: &mut HashMap<(PathBuf, String), Arc<Slot>>) {
    slots.retain(|_, slot| {
        let is_used = |loaded: &Loaded| loaded.plugin.strong_count() > 0;
        let loaded = slot.try_lock();
        Arc::strong_count(slot) > 1
            || loaded.map_or(true, |loaded| loaded.as_ref().is_some_and(is_used))
    });
}

/// What to do about ops that a plugin near the graph has, which nothing accepts yet.
fn advice(graph: &Path, ops: Vec<&str>, files: &mut Vec<PathBuf>) -> HashMap<String, String> {
    if ops.is_empty() {
        return HashMap::new();
    }
    let near = PluginIndex::near(graph);
    files.extend(near.iter().map(|found| found.folder.join(kino_host::MANIFEST_FILE)));
    let of =
        |op: &str| near.iter().find(|found| found.manifest.nodes.iter().any(|node| node == op));
    let known = ops.into_iter().filter_map(|op| Some((op.to_owned(), of(op)?)));
    known.map(|(op, found)| (op, kino_host::advice_to_trust(found))).collect()
}

impl PluginLoader {
    /// Has these nodes, which every graph can use.
    pub(crate) fn new(
        built_in: Arc<Registry>,
        locked: bool,
        worker: Option<PluginWorker>,
        data: PathBuf,
        components: Components,
    ) -> Self {
        let (slots, last) = (Mutex::default(), Mutex::default());
        PluginLoader { built_in, locked, worker, data, components, slots, last }
    }

    /// The folder of the user's own plugins.
    fn user_folder(&self) -> PathBuf {
        self.data.join(PLUGINS_FOLDER)
    }

    /// The nodes that every graph can use.
    pub(crate) fn built_in(&self) -> Arc<Registry> {
        Arc::clone(&self.built_in)
    }

    /// The nodes for a graph that names these ops, as they stand now. Only plugins are loaded that
    /// the graph names nodes of.
    ///
    /// # Errors
    /// When those that the graph uses cannot be loaded.
    pub(crate) fn of(
        &self,
        graph: &GraphSource,
        ops: &BTreeSet<String>,
    ) -> Result<NodeSet, Box<NodesError>> {
        let foreign: Vec<&str> =
            ops.iter().map(String::as_str).filter(|op| self.built_in.get(op).is_none()).collect();
        if foreign.is_empty() {
            return Ok(NodeSet::of(self.built_in()));
        }
        let mut files =
            vec![graph.folder.join(PLUGINS_FOLDER), graph.folder.join(kino_host::LOCK_FILE)];
        files.extend([self.user_folder(), Consent::file(&self.data)]);
        match self.load_all(&graph.folder, &foreign, &mut files) {
            Ok(plugins) => {
                let registry = self.registry(plugins.clone());
                let is_missing = |op: &&str| registry.get(op).is_none();
                let missing = foreign.into_iter().filter(is_missing).collect();
                let missing = advice(&graph.folder, missing, &mut files);
                Ok(NodeSet { registry, plugins, files, missing })
            }
            Err(error) => Err(Box::new(NodesError { error, files })),
        }
    }

    /// Whether there may be plugins for graphs of this folder.
    pub(crate) fn may_load(&self, folder: &Path) -> bool {
        let beside = [PLUGINS_FOLDER, kino_host::LOCK_FILE].map(|name| folder.join(name));
        beside.iter().any(|place| place.exists()) || self.user_folder().exists()
    }

    /// Loads the plugins that have these nodes; nodes that none has are left to the check.
    fn load_all(
        &self,
        root: &Path,
        nodes: &[&str],
        files: &mut Vec<PathBuf>,
    ) -> Result<Vec<Arc<Plugin>>, Error> {
        let user = self.user_folder();
        let index = PluginIndex::scan(root, Some(&user))?;
        // What is missing or broken may be mended.
        let known = index.found.iter().map(|found| &found.folder);
        let broken = index.broken.iter().map(|(folder, _)| folder);
        files.extend(known.chain(broken).map(|folder| folder.join(kino_host::MANIFEST_FILE)));
        let mut wanted: Vec<&FoundPlugin> = Vec::new();
        for found in nodes.iter().filter_map(|node| index.of_node(node)) {
            if !wanted.iter().any(|other| other.folder == found.folder) {
                wanted.push(found);
            }
        }
        let conflicts = index.conflicts(|node| self.built_in.get(node).is_some());
        if !conflicts.is_empty() {
            return Err(Error::usage(conflicts.join("\n")).advising("remove or rename one of them"));
        }
        let unknown: Vec<_> =
            nodes.iter().filter(|node| index.of_node(node).is_none()).copied().collect();
        if !unknown.is_empty()
            && let Some((_, error)) = index.broken.first()
        {
            let (names, are) = (unknown.join("`, `"), if unknown.len() > 1 { "are" } else { "is" });
            return Err(Error::Usage {
                message: format!(
                    "{error}\n`{names}` {are} none of the nodes that are known, and may be of that \
                     plugin"
                ),
                hint: error.hint().map(str::to_owned),
            });
        }
        for (own, used) in &index.shadowed {
            let is_wanted = wanted.iter().any(|found| found.folder == *used);
            if let Some(notice) = self.components.notice.as_ref().filter(|_| is_wanted) {
                let plugin = own.manifest.id.clone();
                notice(&Notice::Shadowed { plugin, used: used.clone() });
            }
        }
        let mut plugins = Vec::with_capacity(wanted.len());
        let mut faults = Vec::new();
        for found in wanted {
            match self.load(found, root, files) {
                Ok(plugin) => plugins.push(plugin),
                Err(error) => faults.push(error),
            }
        }
        match faults.len() {
            0 => Ok(plugins),
            1 => Err(faults.remove(0)),
            _ => {
                let lines = faults.iter().map(|error| match error.hint() {
                    Some(hint) => format!("{error}\n  {hint}"),
                    None => error.to_string(),
                });
                Err(Error::usage(lines.collect::<Vec<_>>().join("\n")))
            }
        }
    }

    /// Loads one plugin, unless the very build is loaded already.
    fn load(
        &self,
        found: &FoundPlugin,
        root: &Path,
        files: &mut Vec<PathBuf>,
    ) -> Result<Arc<Plugin>, Error> {
        let manifest = &found.manifest;
        files.push(found.lock.join(kino_host::LOCK_FILE));
        let kinds = [BuildKind::Wasm, BuildKind::Native];
        files.extend(kinds.iter().filter_map(|kind| manifest.artifact(&found.folder, *kind)));
        let folder = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        let slot = {
            let mut slots = lock(&self.slots);
            prune(&mut slots);
            Arc::clone(slots.entry((folder, manifest.id.clone())).or_default())
        };
        let mut loaded = lock(&slot);
        let trusted = LockFile::read(&found.lock)?;
        let consent = Consent::read(&self.data)?;
        let allowed = kino_host::allowed_build(found, root, &trusted, &consent, self.locked)?;
        files.extend(allowed.read.iter().map(|granted| root.join(granted)));
        let sha256 = match &allowed.sha256 {
            Some(sha256) => sha256.clone(),
            None => kino_host::sha256(&allowed.path)?,
        };
        let before = loaded.as_ref().and_then(|before| before.plugin.upgrade());
        if let (Some(Loaded { allowed: known, .. }), Some(before)) = (&*loaded, &before)
            && (known, &before.sha256) == (&allowed, &sha256)
        {
            return Ok(Arc::clone(before));
        }
        let artifact = load(&allowed, &sha256, self.worker.as_ref(), &self.components)?;
        verify_descriptor(found, &*artifact)?;
        let advice = match allowed.sha256 {
            Some(_) => format!("`kino plugin trust {} --read PATH` grants more", allowed.id),
            None => "in dev mode, `asks` in its plugin.ron grants more".to_owned(),
        };
        let granted = GrantedFiles::new(root, &allowed.read).reaching(allowed.beyond.clone());
        let granted = Arc::new(granted.advising(advice));
        let plugin = Plugin::new(&allowed.id, sha256, artifact, granted, allowed.limits);
        if let Some(before) = before {
            plugin.inherit(&before);
            // Graphs that use the build before hold its nodes themselves.
            lock(&self.last).retain(|(of, _)| !of.iter().any(|one| Arc::ptr_eq(one, &before)));
        }
        *loaded = Some(Loaded { plugin: Arc::downgrade(&plugin), allowed });
        Ok(plugin)
    }

    /// The built-in nodes and those of these plugins.
    fn registry(&self, plugins: Vec<Arc<Plugin>>) -> Arc<Registry> {
        if plugins.is_empty() {
            return self.built_in();
        }
        let same = |of: &Vec<Arc<Plugin>>| {
            of.len() == plugins.len() && of.iter().zip(&plugins).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        let mut last = lock(&self.last);
        if let Some(at) = last.iter().position(|(of, _)| same(of)) {
            let used = last.remove(at);
            let registry = Arc::clone(&used.1);
            last.push(used);
            return registry;
        }
        let mut registry = Registry::clone(&self.built_in);
        plugins.iter().flat_map(kino_host::plugin_nodes).for_each(|node| registry.insert(node));
        let registry = Arc::new(registry);
        let oldest = (last.len() == MAX_REGISTRIES).then(|| last.remove(0));
        last.push((plugins, Arc::clone(&registry)));
        drop(last);
        // Closing a plugin may take a while: not while others wait.
        drop(oldest);
        registry
    }

    /// The nodes that every graph can use, and those of every plugin of this folder or of the user
    /// that may be loaded.
    pub(crate) fn known(&self, root: &Path) -> Arc<Registry> {
        let Ok(index) = PluginIndex::scan(root, Some(&self.user_folder())) else {
            return self.built_in();
        };
        let mut plugins = Vec::new();
        for found in &index.found {
            match self.load(found, root, &mut Vec::new()) {
                Ok(plugin) => plugins.push(plugin),
                Err(error) => tracing::info!("A plugin is left out: {error}."),
            }
        }
        self.registry(plugins)
    }
}

/// The folder of the user's own plugins.
pub fn user_folder(user: &Settings) -> PathBuf {
    user.data_folder().join(PLUGINS_FOLDER)
}

/// What this user has agreed to on this machine.
///
/// # Errors
/// When the file that says so does not read.
pub fn consent(user: &Settings) -> Result<Consent, Error> {
    Ok(Consent::read(&user.data_folder())?)
}

/// Remembers that this user has accepted a plugin for graphs of the folder `graphs`.
///
/// # Errors
/// When it cannot be written.
pub fn record_consent(
    user: &Settings,
    found: &FoundPlugin,
    graphs: &Path,
    entry: &LockEntry,
) -> Result<(), Error> {
    Ok(Consent::grant(&user.data_folder(), found, graphs, entry)?)
}

/// Forgets what this user has accepted of a plugin, or of it for graphs of one folder.
///
/// # Errors
/// When it cannot be written.
pub fn withdraw_consent(
    user: &Settings,
    found: &FoundPlugin,
    graphs: Option<&Path>,
) -> Result<(), Error> {
    Ok(Consent::withdraw(&user.data_folder(), found, graphs)?)
}

/// Remembers that graphs of the folder `graphs` may read what lies in `place`.
///
/// # Errors
/// When it cannot be written.
pub fn record_reading(user: &Settings, graphs: &Path, place: &Path) -> Result<(), Error> {
    Ok(Consent::grant_reading(&user.data_folder(), graphs, place)?)
}

/// Forgets that graphs of the folder `graphs` may read `place`, or anything beside what lies in it;
/// returns what they no longer read.
///
/// # Errors
/// When it cannot be written.
pub fn withdraw_reading(
    user: &Settings,
    graphs: &Path,
    place: Option<&Path>,
) -> Result<Vec<PathBuf>, Error> {
    Ok(Consent::withdraw_reading(&user.data_folder(), graphs, place)?)
}

/// Loads an artifact for the user who asks; code that is compiled for it stays in the user's cache.
/// Who gives a `notice` hears where that takes a while.
///
/// # Errors
/// When it is none, or another than the one with this sha256.
pub fn open(
    allowed: &AllowedBuild,
    sha256: &str,
    worker: Option<&PluginWorker>,
    user: &Settings,
    notice: Option<OnNotice>,
) -> Result<Arc<dyn Module>, Error> {
    let cache = components_in(&user.cache_folder());
    load(allowed, sha256, worker, &Components::new(Some(cache), worker.cloned(), notice))
}

/// Where a cache on disk keeps compiled components.
pub(crate) fn components_in(cache: &Path) -> PathBuf {
    cache.join("components")
}

fn load(
    allowed: &AllowedBuild,
    sha256: &str,
    worker: Option<&PluginWorker>,
    components: &Components,
) -> Result<Arc<dyn Module>, Error> {
    match allowed.kind {
        BuildKind::Native => {
            let trusted = kino_native::TrustedLibrary { path: &allowed.path, sha256: Some(sha256) };
            if !allowed.isolate {
                return Ok(Arc::new(kino_native::NativePlugin::load(trusted)?));
            }
            let Some(PluginWorker { program, args }) = worker else {
                return Err(Error::usage(format!(
                    "the plugin `{}` runs in a process of its own",
                    allowed.id
                ))
                .advising(
                    "tell the engine which program serves plugins: `EngineBuilder::worker`",
                ));
            };
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            Ok(Arc::new(kino_native::IsolatedPlugin::start(program, &args, trusted)?))
        }
        BuildKind::Wasm => component(allowed, sha256, components),
    }
}

#[cfg(feature = "wasm")]
fn component(
    allowed: &AllowedBuild,
    sha256: &str,
    components: &Components,
) -> Result<Arc<dyn Module>, Error> {
    let engine = components.engine()?;
    let bytes = kino_host::read_artifact(&allowed.path)?;
    if kino_host::sha256_of(&bytes) != sha256 {
        return Err(Error::usage(format!("{} has just changed", allowed.path.display())));
    }
    let plugin = kino_wasm::WasmPlugin::load(engine, &allowed.id, &bytes);
    Ok(plugin.map_err(|error| error.within(allowed.path.display()))?)
}

#[cfg(not(feature = "wasm"))]
fn component(allowed: &AllowedBuild, _: &str, _: &Components) -> Result<Arc<dyn Module>, Error> {
    Err(Error::usage(format!(
        "the plugin `{}` is a component, and this kino was built without them",
        allowed.id
    ))
    .advising("build kino with the feature `wasm`"))
}

/// Holds what a plugin says of its nodes against its manifest.
///
/// # Errors
/// When one names nodes that the other does not.
pub fn verify_descriptor(found: &FoundPlugin, artifact: &dyn Module) -> Result<(), Error> {
    let manifest = &found.manifest;
    let described = &artifact.descriptor().nodes;
    let missing = |node: &&String| artifact.descriptor().node(node).is_none();
    if let Some(node) = manifest.nodes.iter().find(missing) {
        let (id, names) = (&manifest.id, described.iter().map(|spec| &*spec.signature.name));
        return Err(Error::usage(format!(
            "the plugin `{id}` has no node `{node}`, which its plugin.ron names; it has {}",
            names.collect::<Vec<_>>().join(", ")
        ))
        .advising("`nodes` in plugin.ron and the plugin's own list (`plugin!`) say the same"));
    }
    let unnamed = |name: &str| !manifest.nodes.iter().any(|known| known == name);
    if let Some(spec) = described.iter().find(|spec| unnamed(&spec.signature.name)) {
        let (id, node) = (&manifest.id, &spec.signature.name);
        return Err(Error::usage(format!(
            "the plugin `{id}` has a node `{node}` that its plugin.ron does not name"
        ))
        .advising("add it to `nodes` there"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kino_host::{CallCx, Descriptor, Instance, Limits, NoFiles};

    use super::*;

    /// A plugin that does nothing.
    struct Idle(Descriptor);

    impl Module for Idle {
        fn descriptor(&self) -> &Descriptor {
            &self.0
        }

        fn open(
            &self,
            _: &str,
            _: Option<&[u8]>,
            _: &CallCx<'_>,
        ) -> kino_node::Result<Box<dyn Instance>> {
            Err(kino_node::Error::failed("it is idle"))
        }
    }

    fn idle(id: &str) -> Arc<Plugin> {
        let node = format!(
            r#"{{"nodes": [{{"id": "{id}.node", "version": "1",
            "outputs": [{{"name": "n", "type": "Int"}}]}}]}}"#
        );
        let module = Arc::new(Idle(Descriptor::read(&node).unwrap()));
        Plugin::new(id, "", module, Arc::new(NoFiles), Limits::default())
    }

    /// A server with a folder for each job keeps the plugins of a few, and those in use.
    #[test]
    fn plugins_that_no_graph_uses_are_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().to_owned();
        let built_in = Arc::new(Registry::of(kino_nodes::NODES));
        let loader =
            PluginLoader::new(built_in, false, None, data, Components::new(None, None, None));
        let mut all = Vec::new();
        let mut in_use = None;
        for number in 0..100 {
            let plugin = idle(&format!("p{number}"));
            all.push(Arc::downgrade(&plugin));
            let allowed = AllowedBuild {
                id: plugin.id.clone(),
                kind: BuildKind::Wasm,
                path: PathBuf::new(),
                sha256: None,
                isolate: false,
                read: Vec::new(),
                beyond: Vec::new(),
                limits: Limits::default(),
            };
            let loaded = Loaded { allowed, plugin: Arc::downgrade(&plugin) };
            let slot = Arc::new(Mutex::new(Some(loaded)));
            let place = PathBuf::from(format!("job {number}"));
            lock(&loader.slots).insert((place, plugin.id.clone()), slot);
            let registry = loader.registry(vec![plugin]);
            if number == 10 {
                in_use = Some(registry);
            }
        }
        let loaded = || all.iter().filter(|plugin| plugin.strong_count() > 0).count();
        assert_eq!(loaded(), MAX_REGISTRIES + 1);
        assert!(all[10].strong_count() > 0);
        let mut slots = lock(&loader.slots);
        prune(&mut slots);
        assert_eq!(slots.len(), MAX_REGISTRIES + 1);
        drop(in_use);
        prune(&mut slots);
        assert_eq!((loaded(), slots.len()), (MAX_REGISTRIES, MAX_REGISTRIES));
    }
}
