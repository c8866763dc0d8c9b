//! The engine as the command puts it together: nodes, services, caches. Each command makes only
//! what it needs.

use std::env;
use std::path::PathBuf;
use std::sync::Arc;

use candle_core::Device;
use kino_graph::{Access, Catalog, Diagnostics, Graph, Settings, Sources};
use kino_node::{Ledger, Registry, Services};
use kino_port::{Facts, Literal, PlanError, Signature, StepInfo, parse_bytes};
use kino_runtime::{DiskCache, NodeCatalog, Options, Runtime};
use kino_world::{Folders, Hashes};

use crate::args::{Source, Target};
use crate::failure::Failure;
use crate::library::Opened;
use crate::palette::Palettes;
use crate::{device, library};

/// How large the cache on disk may grow unless KINO_CACHE_LIMIT says otherwise.
const CACHE_LIMIT: u64 = 20_000_000_000;

/// The nodes that graphs can use.
pub(crate) fn registry() -> Registry {
    Registry::of(kino_nodes::NODES)
}

/// The registry for checking alone: it infers nothing, so that checking touches no file.
pub(crate) struct Signatures<'a>(pub(crate) &'a Registry);

impl Catalog for Signatures<'_> {
    fn signature(&self, op: &str) -> Option<&Signature> {
        self.0.get(op).map(|node| node.signature())
    }

    fn names(&self) -> Vec<&str> {
        self.0.nodes().map(|node| &*node.signature().name).collect()
    }

    fn infer(&self, _: &str, _: &Facts) -> Result<StepInfo, Vec<PlanError>> {
        Ok(StepInfo::default())
    }
}

/// Opens and checks a graph with its nodes, those of plugins among them.
///
/// # Errors
/// When it cannot be read, a plugin that it uses cannot be loaded, or all its problems.
pub(crate) fn check(source: &Source) -> Result<(Opened, Graph, Arc<Registry>), Failure> {
    let opened = library::open(&source.graph)?;
    let palette = Palettes::new(source.locked).of(&opened).map_err(|unusable| unusable.failure)?;
    let graph = check_opened(&opened, &palette.registry)?;
    Ok((opened, graph, palette.registry))
}

/// Checks a graph that was opened.
///
/// # Errors
/// All its problems.
pub(crate) fn check_opened(opened: &Opened, registry: &Registry) -> Result<Graph, Failure> {
    let catalog = Signatures(registry);
    let sources: &dyn Sources = opened;
    let graph = kino_graph::check(&opened.name, &opened.text, &catalog, sources);
    graph.map_err(Failure::Graph)
}

/// Reads `--set` values by the types of the graph's inputs, all problems at once.
///
/// # Errors
/// Every name that is no input, every value that does not fit.
pub(crate) fn read_inputs(
    graph: &Graph,
    set: &[(String, String)],
) -> Result<Vec<(String, Literal)>, Failure> {
    let mut values = Vec::with_capacity(set.len());
    let mut problems = Diagnostics::default();
    for (name, raw) in set {
        match graph.read_input(name, raw) {
            Ok(value) => values.push((name.clone(), value)),
            Err(found) => {
                problems.list.extend(found.list);
                problems.files = found.files;
            }
        }
    }
    if problems.list.is_empty() { Ok(values) } else { Err(Failure::Graph(problems)) }
}

/// What plans run on, and what they are planned with.
pub(crate) struct Engine {
    /// Caches.
    pub(crate) runtime: Runtime,
    /// What all nodes reach.
    pub(crate) services: Services,
    /// What changes numbers beside the graph.
    pub(crate) environment: Vec<u8>,
    /// `cpu`, `cuda` or `metal`.
    pub(crate) device: &'static str,
    /// Where a path of the graph leads.
    locate: Box<dyn Fn(Access, &str) -> String + Send + Sync>,
}

impl Engine {
    /// An engine for a graph; `keeps` results in memory between runs.
    ///
    /// # Errors
    /// When the device cannot be used, or the environment sets a size that is none.
    pub(crate) fn start(opened: &Opened, target: &Target, keeps: bool) -> Result<Self, Failure> {
        let device = target.device.open()?;
        let kind = device::kind(&device);
        let memory = memory()?;
        let services = services(device, opened, target, memory);
        let options = Options {
            // Values that a run holds need the rest.
            memory_budget: if keeps { memory / 2 } else { 0 },
            disk: (!target.no_cache).then(disk_cache).transpose()?,
            ..Options::default()
        };
        let environment = environment(kind);
        let folders = Folders { graph: opened.folder.clone(), out: target.out.clone() };
        let locate = Box::new(move |access, path: &str| located(&folders, access, path));
        Ok(Engine {
            runtime: Runtime::new(options, &services.ledger),
            services,
            environment,
            device: kind,
            locate,
        })
    }

    /// Plans a graph with these inputs.
    ///
    /// # Errors
    /// Everything that stands against it.
    pub(crate) fn plan(
        &self,
        opened: &Opened,
        graph: &Graph,
        registry: &Arc<Registry>,
        inputs: &[(String, Literal)],
        until: Option<&str>,
    ) -> Result<kino_graph::Plan, Failure> {
        let nodes = NodeCatalog { registry: Arc::clone(registry), services: &self.services };
        let settings = self.settings(opened, inputs, until, &|_| draw());
        graph.plan(&nodes, &settings).map_err(Failure::Graph)
    }

    /// What a plan depends on besides the graph.
    pub(crate) fn settings<'s>(
        &'s self,
        opened: &'s Opened,
        inputs: &'s [(String, Literal)],
        until: Option<&'s str>,
        draw: &'s dyn Fn(&str) -> u64,
    ) -> Settings<'s> {
        Settings {
            inputs,
            until,
            environment: &self.environment,
            draw,
            stem: &opened.stem,
            locate: Some(&*self.locate),
        }
    }
}

/// Where a path leads, links resolved as far as files and folders are there: one text for one file.
fn located(folders: &Folders, access: Access, path: &str) -> String {
    let path = match access {
        Access::Read => folders.graph.join(path),
        Access::Write => folders.out.join(path),
    };
    let path = std::path::absolute(&path).unwrap_or(path);
    let there = path.ancestors().find_map(|part| Some((part, part.canonicalize().ok()?)));
    let place = there.and_then(|(part, real)| Some(real.join(path.strip_prefix(part).ok()?)));
    place.unwrap_or(path).to_string_lossy().trim_end_matches('/').to_owned()
}

/// What all nodes share: the device, the folders, a memory budget for frames.
fn services(device: Device, opened: &Opened, target: &Target, memory: u64) -> Services {
    let ledger = Ledger::new(memory);
    let folders = Folders { graph: opened.folder.clone(), out: target.out.clone() };
    let services = kino_nodes::services(device, ledger).with(Arc::new(folders));
    if target.no_cache {
        return services;
    }
    // What a file holds is remembered between processes.
    services.with(Arc::new(Hashes::at(cache_folder().join("hashes.json"))))
}

/// The memory that everything together may take.
fn memory() -> Result<u64, Failure> {
    size_in("KINO_MEMORY", kino_runtime::memory_of_machine())
}

/// A size that the environment may set.
fn size_in(name: &str, otherwise: u64) -> Result<u64, Failure> {
    let Some(text) = env::var_os(name).filter(|text| !text.is_empty()) else {
        return Ok(otherwise);
    };
    let text = text.to_string_lossy();
    parse_bytes(&text).map_err(|_| {
        Failure::usage(format!("{name}={text} is no size")).hint("write 20GB or 500MB")
    })
}

/// What changes numbers beside the graph: the device's kind, what of the machine the kernels depend
/// on, the number of threads.
fn environment(device: &str) -> Vec<u8> {
    let set = env::var("RAYON_NUM_THREADS").ok().and_then(|text| text.parse().ok());
    let machine = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = set.filter(|threads| *threads > 0).unwrap_or_else(machine);
    kino_runtime::environment(device, "", &kino_kernels::machine(), threads)
}

/// A number for a seed of `"random"`, drawn anew in every process and call; small enough to be
/// typed again.
pub(crate) fn draw() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(()) >> 32
}

/// The folder of the cache on disk.
pub(crate) fn cache_folder() -> PathBuf {
    kino_world::cache_dir()
}

/// The cache on disk.
///
/// # Errors
/// When KINO_CACHE_LIMIT is no size.
pub(crate) fn disk_cache() -> Result<DiskCache, Failure> {
    let limit = size_in("KINO_CACHE_LIMIT", CACHE_LIMIT)?;
    Ok(DiskCache::open(cache_folder(), limit))
}
