//! What an engine holds once: device, nodes, plugins, models, caches, the memory ledger.

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use kino_models::families::Families;
use kino_models::model::Family;
use kino_node::{CustomTypes, Ledger, Node, Registry, Services, spill_room};
use kino_nodes::{Models, TextEndpoint};
use kino_port::parse_bytes;
use kino_runtime::{DiskCache, Forecast, Runtime, RuntimeOptions};
use kino_world::{BundledFiles, HashCache};
use tempfile::TempDir;

use crate::device::{self, DeviceChoice};
use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::inventory::model_folders;
use crate::notice::OnNotice;
use crate::plugins::{Components, NodeSet, NodesError, PluginLoader, PluginWorker, components_in};
use crate::records::OutputRecords;
use crate::revisions::Revisions;
use crate::settings::Settings;
use crate::source::{GRAPH_FILES, GraphSource};

/// What an engine is made of.
pub(crate) struct EngineSettings {
    /// What the user has set; none for what the environment sets.
    pub(crate) user: Option<Settings>,
    pub(crate) device: Option<DeviceChoice>,
    pub(crate) memory: Option<u64>,
    /// Of a device that has memory of its own.
    pub(crate) device_memory: Option<u64>,
    /// The folder of the cache on disk; none for the user's.
    pub(crate) cache: Option<PathBuf>,
    pub(crate) has_cache: bool,
    /// Where compiled components are kept; none for the cache on disk, if there is one.
    pub(crate) compiled: Option<PathBuf>,
    /// The folder of the user's own plugins and of what the user trusts; none for the user's.
    pub(crate) data: Option<PathBuf>,
    pub(crate) cache_limit: Option<u64>,
    pub(crate) keeps: bool,
    pub(crate) threads: Option<usize>,
    pub(crate) locked: bool,
    pub(crate) nodes: Vec<Arc<dyn Node>>,
    pub(crate) worker: Option<PluginWorker>,
    pub(crate) notice: Option<OnNotice>,
    /// Types of values of the program that embeds the engine.
    pub(crate) types: CustomTypes,
    /// Families of models, the one that is asked first last.
    pub(crate) families: Vec<Arc<dyn Family>>,
    /// Adds services of the program that embeds the engine.
    pub(crate) services: Vec<Box<dyn FnOnce(Services) -> Services + Send>>,
}

impl Default for EngineSettings {
    fn default() -> Self {
        EngineSettings {
            user: None,
            device: None,
            memory: None,
            device_memory: None,
            cache: None,
            has_cache: true,
            compiled: None,
            data: None,
            cache_limit: None,
            keeps: true,
            threads: None,
            locked: false,
            nodes: Vec::new(),
            worker: None,
            notice: None,
            types: CustomTypes::default(),
            families: Vec::new(),
            services: Vec::new(),
        }
    }
}

/// What all graphs and runs of an engine share.
pub(crate) struct Core {
    pub(crate) runtime: Runtime,
    /// What all nodes reach; a run lays its own over it.
    pub(crate) services: Arc<Services>,
    /// The folder of the cache on disk, where there is one.
    cache: Option<PathBuf>,
    /// What stands in for it.
    temporary: OnceLock<TempDir>,
    /// See [`kino_runtime::versions`].
    pub(crate) versions: Vec<u8>,
    /// See [`Core::machine`].
    machine: OnceLock<Vec<u8>>,
    /// `cpu`, `cuda` or `metal`.
    pub(crate) device: &'static str,
    /// The revisions of graphs that are in use.
    pub(crate) revisions: Arc<Revisions>,
    built_in: Arc<Registry>,
    pub(crate) plugins: PluginLoader,
    /// Which graphs wrote what.
    pub(crate) outputs: OutputRecords,
    /// What the process held beside what the ledger counts, before anything ran.
    base: OnceLock<u64>,
}

/// What a process holds beside what the ledger counts, once it computes: stacks, what codecs keep.
const OVERHEAD: u64 = 8 << 20;
/// The same where it computes with a model: pages of the allocator for buffers of each size,
/// scratch memory; and so much for each thread. Measured with the embedded model. Runs that need
/// little hold less: half as much again as is counted.
const OVERHEAD_OF_MODEL: u64 = 12 << 20;
const OVERHEAD_OF_THREAD: u64 = 8 << 20;
/// The allocator keeps about this part of what is counted: buffers that were given back.
const KEPT: u64 = 8;
/// The most that it keeps of what the turns of a loop gave back: it returns memory to the system
/// after a second (mimalloc's purge delay), and two cores hardly compute in more than that within
/// one.
const KEPT_OF_TURNS: u64 = 128 << 20;

impl Core {
    pub(crate) fn new(settings: EngineSettings) -> Result<Self> {
        kino_kernels::check_cpu().map_err(Error::usage)?;
        let user = settings.user.map_or_else(Settings::of_environment, Ok)?;
        let device = settings.device.or(user.device()).unwrap_or(DeviceChoice::Auto);
        let device = device.open(settings.notice.as_ref())?;
        let kind = device::kind(&device);
        let memory = settings.memory.or(user.bytes("memory"));
        let memory = memory.unwrap_or_else(kino_runtime::memory_of_machine);
        let cache = settings.cache.unwrap_or_else(|| user.cache_folder());
        let of_cache = settings.has_cache.then(|| components_in(&cache));
        let compiled = settings.compiled.or(of_cache);
        let ledger = ledger(memory, &user);
        let services = match device.is_cuda() {
            true => {
                let of_device = settings.device_memory.or(user.bytes("device_memory"));
                let of_device = of_device.unwrap_or_else(|| device::memory(&device));
                kino_nodes::services_of_device(device, ledger, Ledger::new(of_device))
            }
            // A Metal device computes in main memory.
            false => kino_nodes::services(device, ledger),
        };
        let services = services.with(Arc::new(settings.types)).with(Arc::new(user.ffmpeg()));
        let services = services.with(Arc::new(model_folders(&user)?));
        let services = with_families(services, settings.families);
        let of_cache = settings.has_cache.then(|| cache.clone());
        let services = match Endpoint::of(&user, of_cache) {
            Some(endpoint) => services.with(Arc::new(TextEndpoint(Arc::new(endpoint)))),
            None => services,
        };
        let mut options = RuntimeOptions {
            // Values that runs hold need the rest.
            memory_budget: if settings.keeps { memory / 2 } else { 0 },
            ..RuntimeOptions::default()
        };
        options.threads = settings.threads.unwrap_or(options.threads);
        let services = if settings.has_cache {
            let limit = settings.cache_limit.unwrap_or_else(|| user.cache_limit());
            options.disk = Some(DiskCache::open(&cache, limit));
            // What a file holds is remembered between processes.
            services.with(Arc::new(HashCache::at(cache.join("hashes.json"))))
        } else {
            services
        };
        let services = settings.services.into_iter().fold(services, |services, add| add(services));
        let mut built_in = built_in_nodes();
        settings.nodes.into_iter().for_each(|node| built_in.insert(node));
        let built_in = Arc::new(built_in);
        let data = settings.data.unwrap_or_else(|| user.data_folder());
        let outputs = OutputRecords::in_data(&data);
        let plugins = PluginLoader::new(
            Arc::clone(&built_in),
            settings.locked,
            settings.worker.clone(),
            data,
            Components::new(compiled, settings.worker, settings.notice),
        );
        Ok(Core {
            runtime: Runtime::new(options, &services.ledger),
            services: Arc::new(services),
            cache: settings.has_cache.then_some(cache),
            temporary: OnceLock::new(),
            versions: kino_runtime::versions(),
            machine: OnceLock::new(),
            device: kind,
            revisions: Arc::default(),
            built_in,
            plugins,
            outputs,
            base: OnceLock::new(),
        })
    }

    /// The memory of the process when it holds at most what `forecast` says: that, what the process
    /// held when its first plan was made, and what the allocator adds.
    pub(crate) fn peak_of_process(&self, forecast: Forecast) -> u64 {
        let counted = forecast.peak;
        let of_model = match forecast.weights {
            0 => 0,
            _ => OVERHEAD_OF_MODEL + OVERHEAD_OF_THREAD * kino_kernels::threads() as u64,
        };
        let overhead = (OVERHEAD + of_model).min(counted.saturating_add(counted / 2));
        let turnover = forecast.turnover.min(KEPT_OF_TURNS);
        let parts = [self.base(), counted, counted / KEPT, overhead, turnover];
        parts.into_iter().fold(0, u64::saturating_add)
    }

    /// What this process holds beside what the ledger counts; measured once, by the first plan.
    pub(crate) fn base(&self) -> u64 {
        *self.base.get_or_init(|| {
            let resident = kino_runtime::resident_of_process().unwrap_or(0);
            resident.saturating_sub(self.services.ledger.used())
        })
    }

    /// The files that built-in graphs bring along; they are put beside the cache, or into a folder
    /// of this engine's where it has none.
    ///
    /// # Errors
    /// When no such folder can be made.
    pub(crate) fn bundled_files(&self) -> Result<BundledFiles> {
        let folder = match &self.cache {
            Some(cache) => cache.join("graphs"),
            None => self.temporary()?.to_owned(),
        };
        Ok(BundledFiles { folder, files: GRAPH_FILES })
    }

    /// A folder that goes with this engine.
    fn temporary(&self) -> Result<&Path> {
        if self.temporary.get().is_none() {
            let made = tempfile::tempdir();
            let made =
                made.map_err(|error| Error::world(format!("no temporary folder: {error}")))?;
            // Where another thread was quicker, this one goes.
            let _ = self.temporary.set(made);
        }
        self.temporary.get().map(TempDir::path).ok_or_else(|| Error::world("no temporary folder"))
    }

    /// What of the machine changes numbers. It reads a hundred small files and starts the threads
    /// that compute, so it waits until a step is planned whose results depend on them.
    pub(crate) fn machine(&self) -> &[u8] {
        self.machine.get_or_init(|| {
            let (kernels, threads) = (kino_kernels::machine(), kino_kernels::threads());
            kino_runtime::machine(self.device, &kernels, threads)
        })
    }

    /// The nodes for a graph that names these ops, as they stand now. A graph without plugins waits
    /// for none that another one loads.
    ///
    /// # Errors
    /// When plugins that the graph uses cannot be loaded.
    pub(crate) fn nodes(
        &self,
        graph: &GraphSource,
        ops: &BTreeSet<String>,
    ) -> Result<NodeSet, Box<NodesError>> {
        if ops.iter().any(|op| self.built_in.get(op).is_none()) {
            self.plugins.of(graph, ops)
        } else {
            Ok(NodeSet::of(Arc::clone(&self.built_in)))
        }
    }
}

/// Models of other families beside the built-in ones, where there are such.
fn with_families(services: Services, families: Vec<Arc<dyn Family>>) -> Services {
    if families.is_empty() {
        return services;
    }
    let families = families.into_iter().fold(Families::default(), Families::with);
    let (device, ledger) = (services.device.clone(), Arc::clone(services.device_ledger()));
    services.with(Models::with_families(device, ledger, families))
}

/// The nodes that every graph can use.
pub fn built_in_nodes() -> Registry {
    Registry::of(kino_nodes::NODES)
}

/// The ledger of main memory. Unless it is set, frames may take what is free of the disk of
/// temporary files, less a reserve.
fn ledger(memory: u64, user: &Settings) -> Arc<Ledger> {
    let folder = env::temp_dir();
    let spill = user.bytes("spill").unwrap_or_else(|| spill_room(&folder));
    Ledger::with_spill(memory, folder, spill)
}

/// Reads a size such as `12GB`.
///
/// # Errors
/// When it is none.
pub fn read_size(text: &str) -> Result<u64> {
    parse_bytes(text)
        .map_err(|_| Error::usage(format!("{text} is no size")).advising("write 20GB or 500MB"))
}

/// The folder in which the user's compiled components are kept.
pub fn compiled_folder(user: &Settings) -> PathBuf {
    components_in(&user.cache_folder())
}

/// The user's cache on disk.
pub fn disk_cache(user: &Settings) -> DiskCache {
    DiskCache::open(user.cache_folder(), user.cache_limit())
}
