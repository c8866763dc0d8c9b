//! The engine: one a process, for any number of graphs and runs.

use std::any::Any;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kino_models::model::Family;
use kino_node::{Cancel, Cx, FilePolicy, Inputs, Ledger, Node, Outputs, Registry, ValueType};
use kino_port::Signature;

use crate::cancel::unless_cancelled;
use crate::core::{Core, EngineSettings, read_size};
use crate::device::DeviceChoice;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::loaded::LoadedGraph;
use crate::node::NodeFn;
use crate::notice::Notice;
use crate::plugins::PluginWorker;
use crate::settings::Settings;
use crate::source::{self, GraphSource};
use crate::watch::WatchRequest;

/// What is dear and shared: device, nodes, plugins, loaded models, caches, the memory ledger.
/// Clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    core: Arc<Core>,
    policy: FilePolicy,
}

/// How an engine is made.
#[must_use = "nothing is made until it is built"]
pub struct EngineBuilder {
    settings: EngineSettings,
    error: Option<Error>,
}

impl Engine {
    /// An engine with the machine's own settings, to be changed.
    pub fn builder() -> EngineBuilder {
        EngineBuilder { settings: EngineSettings::default(), error: None }
    }

    /// The same engine for graphs that are not trusted: those that are opened with it may read and
    /// write only what `policy` allows, the graphs that they use, models and what was granted to
    /// plugins included. Narrows what this engine allows; [`RunRequest::policy`] narrows it further
    /// for one run.
    ///
    /// ```
    /// use kino_session::{Engine, FilePolicy, inputs};
    ///
    /// # let folder = std::env::temp_dir().join(format!("kino-doc-policy-{}", std::process::id()));
    /// # let _ = std::fs::create_dir_all(&folder);
    /// let engine = Engine::builder().device("cpu").memory("1GB").no_cache().build()?;
    /// let policy = FilePolicy::default().read_within([&folder]).write_within([folder.join("out")]);
    /// let graph = engine.with_policy(&policy).open_text("upload.ron", r#"Graph(version: 1,
    ///     nodes: {"secret": (op: "image.read", with: {"path": "/etc/passwd"})},
    ///     outputs: {"frames": "secret"})"#, &folder)?;
    /// let error = graph.plan(&inputs! {}).err().expect("it is refused");
    /// assert!(error.to_string().contains("/etc/passwd may not be read"));
    /// # Ok::<(), kino_session::Error>(())
    /// ```
    ///
    /// [`RunRequest::policy`]: crate::RunRequest::policy
    #[must_use]
    pub fn with_policy(&self, policy: &FilePolicy) -> Engine {
        Engine { core: Arc::clone(&self.core), policy: self.policy.clone().and(policy) }
    }

    /// Opens a graph: a file, a built-in name, or `-` for the standard input.
    ///
    /// # Errors
    /// When it cannot be read, a plugin that it uses cannot be loaded, or all its problems.
    pub fn open(&self, graph: impl AsRef<Path>) -> Result<Graph> {
        self.load(source::open(graph.as_ref())?)
    }

    /// Opens a graph from a text, whose paths are relative to `folder`; `name` stands in messages.
    ///
    /// # Errors
    /// When a plugin that it uses cannot be loaded, or all its problems.
    pub fn open_text(&self, name: &str, text: impl Into<String>, folder: &Path) -> Result<Graph> {
        let stem = Path::new(name).file_stem().map(|stem| stem.to_string_lossy());
        let stem = stem.map_or_else(|| "graph".to_owned(), |stem| stem.into_owned());
        self.load(GraphSource::of_text(name, &stem, text.into(), folder))
    }

    /// As [`Engine::open`], until `cancel` is raised: however slow the standard input or a plugin is.
    ///
    /// # Errors
    /// As [`Engine::open`], and when it was cancelled.
    pub fn open_with(&self, graph: impl Into<PathBuf>, cancel: &Cancel) -> Result<Graph> {
        let (engine, graph) = (self.clone(), graph.into());
        if graph.as_os_str() == "-" {
            return unless_cancelled(cancel, move || engine.open(graph))?;
        }
        let source = source::open(&graph)?;
        match self.core.plugins.may_load(&source.folder) {
            true => unless_cancelled(cancel, move || engine.load(source))?,
            // Nothing is left that takes long.
            false => self.load(source),
        }
    }

    fn load(&self, mut source: GraphSource) -> Result<Graph> {
        source.policy = self.policy.clone();
        let loaded = LoadedGraph::load(&self.core, source, &mut BTreeSet::new())?;
        Ok(Graph { loaded: Arc::new(loaded) })
    }

    /// Runs a graph, and again whatever changes, once started: the same that `kino watch` shows.
    pub fn watch(&self, graph: impl Into<PathBuf>) -> WatchRequest {
        WatchRequest::new(Arc::clone(&self.core), graph.into(), self.policy.clone())
    }

    /// The built-in nodes, and those of every plugin of this folder or of the user that may be
    /// loaded.
    pub fn nodes(&self, folder: &Path) -> Arc<Registry> {
        self.core.plugins.known(folder)
    }

    /// Who holds how much main memory.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.core.services.ledger
    }

    /// Who holds how much of the memory in which the device computes; for a device without memory
    /// of its own that is main memory.
    pub fn device_ledger(&self) -> &Arc<Ledger> {
        self.core.services.device_ledger()
    }

    /// `cpu`, `cuda` or `metal`.
    pub fn device(&self) -> &'static str {
        self.core.device
    }
}

impl EngineBuilder {
    /// Where to compute: `auto`, `cpu`, `cuda:N` or `metal`.
    pub fn device(mut self, device: &str) -> Self {
        match device.parse() {
            Ok(choice) => self.settings.device = Some(choice),
            Err(error) => {
                let error = Error::usage(format!("there is no device `{device}`: {error}"));
                self.error.get_or_insert(error);
            }
        }
        self
    }

    /// Where to compute.
    pub fn device_choice(mut self, device: DeviceChoice) -> Self {
        self.settings.device = Some(device);
        self
    }

    /// What a user has set, instead of what the environment of this process sets. Whatever else is
    /// said here counts before it.
    ///
    /// An engine reads no user's file of itself: `Settings::of_user()` reads it, with the
    /// environment over it.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings.user = Some(settings);
        self
    }

    /// The memory that it may use, such as `12GB`.
    pub fn memory(mut self, size: &str) -> Self {
        match read_size(size) {
            Ok(bytes) => self.settings.memory = Some(bytes),
            Err(error) => drop(self.error.get_or_insert(error)),
        }
        self
    }

    /// The memory that it may use of a device that has its own.
    pub fn device_memory(mut self, size: &str) -> Self {
        match read_size(size) {
            Ok(bytes) => self.settings.device_memory = Some(bytes),
            Err(error) => drop(self.error.get_or_insert(error)),
        }
        self
    }

    /// The folder of the cache on disk, instead of the user's.
    pub fn cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.settings.cache = Some(folder.into());
        self
    }

    /// The folder of the user's own plugins, and of what the user has agreed to run, instead of the
    /// user's.
    pub fn data(mut self, folder: impl Into<PathBuf>) -> Self {
        self.settings.data = Some(folder.into());
        self
    }

    /// How many bytes the cache on disk may hold.
    pub fn cache_limit(mut self, bytes: u64) -> Self {
        self.settings.cache_limit = Some(bytes);
        self
    }

    /// The folder in which compiled components are kept; unless it is said, they lie in the cache
    /// on disk, and an engine that has none compiles them anew.
    pub fn compiled(mut self, folder: impl Into<PathBuf>) -> Self {
        self.settings.compiled = Some(folder.into());
        self
    }

    /// Neither reads nor writes a cache on disk.
    pub fn no_cache(mut self) -> Self {
        self.settings.has_cache = false;
        self
    }

    /// Whether results stay in memory between runs, as they do unless said otherwise.
    pub fn keep_results(mut self, keep: bool) -> Self {
        self.settings.keeps = keep;
        self
    }

    /// How many light steps of a run go on at the same time.
    pub fn threads(mut self, threads: usize) -> Self {
        self.settings.threads = Some(threads);
        self
    }

    /// Loads only plugins whose very build the lock file pins.
    pub fn locked(mut self, locked: bool) -> Self {
        self.settings.locked = locked;
        self
    }

    /// One more node that every graph can use, or another one for a name.
    pub fn node(mut self, node: Arc<dyn Node>) -> Self {
        self.settings.nodes.push(node);
        self
    }

    /// One more node that every graph can use: a signature and a function, see [`crate::node`].
    pub fn node_fn<F>(self, signature: Signature, run: F) -> Self
    where
        F: Fn(&mut Cx<'_>, &Inputs<'_>) -> Result<Outputs, kino_node::Error>,
        F: Send + Sync + 'static,
    {
        self.node(Arc::new(NodeFn { signature, run }))
    }

    /// One more type of values, [`PortType::Custom`] with a name of its own: nodes of this program
    /// take and give such values, and they are kept in the caches as all others are. See
    /// [`crate::node`].
    ///
    /// [`PortType::Custom`]: kino_port::PortType::Custom
    pub fn value_type<T: ValueType>(mut self) -> Self {
        self.settings.types = self.settings.types.with::<T>();
        self
    }

    /// One more family of models, asked before those that are known: `model.load` opens what it
    /// recognises, and all nodes run its parts.
    pub fn family(mut self, family: Arc<dyn Family>) -> Self {
        self.settings.families.push(family);
        self
    }

    /// Something that nodes of this program reach by its type, with [`get`] of
    /// [`Cx::services`]; it hides what the engine has of the same type.
    ///
    /// [`get`]: kino_node::Services::get
    pub fn service<T: Any + Send + Sync>(mut self, service: Arc<T>) -> Self {
        self.settings.services.push(Box::new(|services| services.with(service)));
        self
    }

    /// What serves plugins that run in processes of their own, and compiles components.
    pub fn worker(mut self, worker: PluginWorker) -> Self {
        self.settings.worker = Some(worker);
        self
    }

    /// Hears what takes a while before anything runs, such as compiling a plugin.
    pub fn on_notice(mut self, notice: impl Fn(&Notice) + Send + Sync + 'static) -> Self {
        self.settings.notice = Some(Arc::new(notice));
        self
    }

    /// Makes the engine.
    ///
    /// # Errors
    /// When the device cannot be used, or a size is none.
    pub fn build(self) -> Result<Engine> {
        match self.error {
            Some(error) => Err(error),
            None => {
                let core = Arc::new(Core::new(self.settings)?);
                Ok(Engine { core, policy: FilePolicy::default() })
            }
        }
    }
}
