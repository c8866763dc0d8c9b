//! A graph that was read, with the nodes that it was checked with, and its plans.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kino_graph::{Access, Catalog, Graph, Settings, Sources};
use kino_node::{Registry, Services};
use kino_port::{Facts, Literal, PlanError, Signature, StepInfo, path_to_text};
use kino_runtime::NodeCatalog;
use kino_world::Folders;

use crate::core::Core;
use crate::error::{Error, Result};
use crate::plugins::NodeSet;
use crate::source::{GraphSource, tidy};

/// A graph as it was read at one time, checked, with its nodes.
pub(crate) struct LoadedGraph {
    pub(crate) core: Arc<Core>,
    pub(crate) source: GraphSource,
    pub(crate) graph: Graph,
    pub(crate) registry: Arc<Registry>,
}

/// A plan of a loaded graph, and what its runs reach.
pub(crate) struct Planned {
    pub(crate) loaded: Arc<LoadedGraph>,
    pub(crate) services: Arc<Services>,
    pub(crate) plan: kino_graph::Plan,
}

/// What a plan is made with beside the graph.
pub(crate) struct PlanSettings<'a> {
    pub(crate) inputs: &'a [(String, Literal)],
    pub(crate) out: &'a Path,
    pub(crate) until: Option<&'a str>,
    /// A number for a seed of `"random"` at a place of this name.
    pub(crate) draw: &'a dyn Fn(&str) -> u64,
}

/// The registry for checking alone: it infers nothing, so that checking touches no file.
struct Signatures<'a>(&'a Registry);

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

impl LoadedGraph {
    /// Loads the plugins that a graph uses, and checks it. `files` get all that it depends on,
    /// whether that is good or not.
    pub(crate) fn load(
        core: &Arc<Core>,
        source: GraphSource,
        files: &mut BTreeSet<PathBuf>,
    ) -> Result<Self> {
        let nodes = core.plugins().of(&source).map_err(|unusable| {
            files.extend(source.files().into_iter().chain(unusable.files));
            unusable.error
        })?;
        let NodeSet { registry, files: of_nodes } = nodes;
        let sources: &dyn Sources = &source;
        let catalog = Signatures(&registry);
        let graph = kino_graph::check(&source.name, &source.text, &catalog, sources);
        files.extend(source.files().into_iter().chain(of_nodes));
        let graph = graph.map_err(Error::Graph)?;
        Ok(LoadedGraph { core: Arc::clone(core), source, graph, registry })
    }

    /// Plans it. `seen` get what nodes would read, whether they find it or not.
    pub(crate) fn plan(
        self: &Arc<Self>,
        settings: &PlanSettings<'_>,
        seen: &mut BTreeSet<PathBuf>,
    ) -> Result<Planned> {
        let folders = Folders { graph: self.source.folder.clone(), out: settings.out.to_owned() };
        let folders = Arc::new(folders);
        let locate = |access, path: &str| located(&folders, access, path);
        let services = self.core.services.layer().with(Arc::clone(&folders));
        let services = Arc::new(services.with(Arc::new(self.source.id.clone())));
        let nodes = NodeCatalog { registry: Arc::clone(&self.registry), services: &services };
        let noting = Noting { nodes, seen: RefCell::default() };
        let PlanSettings { inputs, until, draw, .. } = *settings;
        let (environment, stem) = (&*self.core.environment, &*self.source.stem);
        let locate = Some(&locate as _);
        let settings = Settings { inputs, until, environment, draw, stem, locate };
        let plan = self.graph.plan(&noting, &settings);
        let read = noting.seen.into_inner();
        seen.extend(read.iter().filter_map(|read| self.place(read)));
        let plan = plan.map_err(Error::Graph)?;
        Ok(Planned { loaded: Arc::clone(self), services, plan })
    }

    /// Where on disk something lies that this graph reads.
    pub(crate) fn place(&self, read: &str) -> Option<PathBuf> {
        kino_nodes::place(read, &self.source.folder).map(tidy)
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
    path_to_text(&place.unwrap_or(path)).trim_end_matches('/').to_owned()
}

/// Notes what nodes would read, whether they find it or not.
struct Noting<'a> {
    nodes: NodeCatalog<'a>,
    seen: RefCell<BTreeSet<String>>,
}

impl Noting<'_> {
    /// What a node is told to read, as far as its ports say so.
    fn note(&self, op: &str, facts: &Facts) {
        let Some(signature) = self.nodes.signature(op).filter(|node| !node.traits.sink) else {
            return;
        };
        for port in signature.inputs.iter() {
            let is_read = port.names_file();
            if let Some(path) = facts.text(&port.name).filter(|path| is_read && !path.is_empty()) {
                self.seen.borrow_mut().insert(path.to_owned());
            }
        }
    }
}

impl Catalog for Noting<'_> {
    fn signature(&self, op: &str) -> Option<&Signature> {
        self.nodes.signature(op)
    }

    fn names(&self) -> Vec<&str> {
        self.nodes.names()
    }

    fn infer(&self, op: &str, facts: &Facts) -> Result<StepInfo, Vec<PlanError>> {
        self.note(op, facts);
        let infer = self.nodes.infer(op, facts)?;
        self.seen.borrow_mut().extend(infer.reads.iter().map(|read| read.path.clone()));
        Ok(infer)
    }
}
