//! A graph that was read, with the nodes that it was checked with, and its plans.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kino_graph::{Catalog, Diagnostic, Diagnostics, Graph, GraphLoader, PlanSettings, Severity};
use kino_node::{Answers, Cancel, FilePolicy, Node, OnlyCheck, Registry, Services};
use kino_port::{Facts, Literal, PlanError, Signature, StepInfo, format_bytes};
use kino_runtime::NodeCatalog;
use kino_world::{Folders, HashCache};

use crate::core::Core;
use crate::error::{Error, Result};
use crate::outputs::{self, located};
use crate::plugins::NodeSet;
use crate::provenance;
use crate::revisions::Revision;
use crate::source::{GraphSource, tidy};

/// A graph as it was read at one time, checked, with its nodes.
pub(crate) struct LoadedGraph {
    pub(crate) core: Arc<Core>,
    pub(crate) source: GraphSource,
    pub(crate) graph: Graph,
    pub(crate) registry: Arc<Registry>,
    /// Keeps what nodes of plugins remember of the graph's steps, where it has such.
    _revision: Option<Revision>,
}

/// A plan of a loaded graph, and what its runs reach.
pub(crate) struct Planned {
    pub(crate) loaded: Arc<LoadedGraph>,
    pub(crate) services: Arc<Services>,
    pub(crate) plan: kino_graph::Plan,
    /// Whether it may replace files that the graph did not write.
    pub(crate) overwrites: bool,
}

impl Planned {
    /// The plan, if it needs no more memory than this.
    ///
    /// # Errors
    /// When it needs more.
    pub(crate) fn within(self, most: u64) -> Result<Self> {
        let Planned { loaded, services, plan, .. } = &self;
        let needs = loaded.core.runtime.forecast(plan, &loaded.registry, services).peak;
        if needs <= most {
            return Ok(self);
        }
        let (needs, most) = (format_bytes(needs), format_bytes(most));
        Err(Error::usage(format!("this run needs about {needs}, and may need {most}"))
            .advising("fewer frames, a smaller size or a tile need less; or let it need more"))
    }
}

/// What a plan is made with beside the graph.
pub(crate) struct PlanOptions<'a> {
    pub(crate) inputs: &'a [(String, Literal)],
    pub(crate) out: &'a Path,
    pub(crate) until: Option<&'a str>,
    /// A number for a seed of `"random"` at a place of this name.
    pub(crate) draw: &'a dyn Fn(&str) -> u64,
    /// What its runs may read and write, within what the graph may.
    pub(crate) policy: &'a FilePolicy,
    /// Raised when nobody wants the plan any more.
    pub(crate) cancel: &'a Cancel,
    /// Whether its runs may replace files that the graph did not write.
    pub(crate) overwrites: bool,
    /// Whether its files move to folders of their own before it runs: what stands there is looked at
    /// then, by [`LoadedGraph::check_outputs`].
    pub(crate) is_moved: bool,
    /// A run follows, so that other processes have no use for the numbers that it is given.
    pub(crate) runs: bool,
}

/// The registry for checking alone: it infers nothing, so that checking touches no file.
struct Signatures<'a> {
    nodes: &'a Registry,
    /// Ops that are missing, and what to do about them.
    missing: &'a HashMap<String, String>,
}

impl Catalog for Signatures<'_> {
    fn signature(&self, op: &str) -> Option<&Signature> {
        self.nodes.get(op).map(|node| node.signature())
    }

    fn names(&self) -> Vec<&str> {
        self.nodes.nodes().map(|node| &*node.signature().name).collect()
    }

    fn advice(&self, op: &str) -> Option<String> {
        self.missing.get(op).cloned()
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
        let sources: &dyn GraphLoader = &source;
        let parsed = kino_graph::parse(&source.name, &source.text);
        let ops = parsed.ops(sources);
        let nodes = core.nodes(&source, &ops).map_err(|unusable| {
            files.extend(source.files().into_iter().chain(unusable.files));
            unusable.error
        })?;
        let NodeSet { registry, plugins, files: of_nodes, missing } = nodes;
        let signatures = Signatures { nodes: &registry, missing: &missing };
        let graph = parsed.check(&signatures, sources);
        files.extend(source.files().into_iter().chain(of_nodes));
        let graph = graph.map_err(Error::Graph)?;
        let revision = (!plugins.is_empty()).then(|| {
            let steps = graph.signatures().filter(|(_, signature)| {
                plugins.iter().any(|plugin| plugin.descriptor().node(&signature.name).is_some())
            });
            let steps = steps.map(|(step, node)| (step.to_owned(), node.name.to_string()));
            core.revisions.begin(&source.id, steps.collect(), &plugins)
        });
        let core = Arc::clone(core);
        Ok(LoadedGraph { core, source, graph, registry, _revision: revision })
    }

    /// Plans it. `seen` get what nodes would read, whether they find it or not.
    pub(crate) fn plan(
        self: &Arc<Self>,
        settings: &PlanOptions<'_>,
        seen: &mut BTreeSet<PathBuf>,
    ) -> Result<Planned> {
        let folders = Arc::new(self.folders(settings.out));
        let services = self.core.services.layer().with(Arc::clone(&folders));
        let services = match self.source.is_built_in {
            true => services.with(Arc::new(self.core.bundled_files()?)),
            false => services,
        };
        let policy = Arc::new(self.source.policy.clone().and(settings.policy));
        for graph in self.source.used() {
            policy.check_read(&graph)?;
        }
        let services = services.with(Arc::new(self.source.id.clone())).with(policy);
        let services = Arc::new(services.with(Arc::new(self.answers())));
        let PlanOptions { inputs, until, draw, cancel, overwrites, is_moved, runs, .. } = *settings;
        // Every path is followed link by link: not once nobody wants the plan any more.
        let locate = |access, path: &str| match cancel.is_cancelled() {
            true => path.to_owned(),
            false => located(&folders, access, path),
        };
        // Whoever hashes a large file looks at it.
        let planning = services.layer().with(Arc::new(cancel.clone()));
        let nodes = NodeCatalog { registry: Arc::clone(&self.registry), services: &planning };
        let noting = Noting { nodes, seen: RefCell::default(), cancel };
        let (versions, stem) = (&*self.core.versions, &*self.source.stem);
        let machine = &|| self.core.machine().to_vec();
        let number = |before: &str, behind: &str, key| {
            outputs::number(&self.core.outputs, &folders, (before, behind), key, runs)
        };
        let (locate, number) = (Some(&locate as _), Some(&number as _));
        let settings =
            PlanSettings { inputs, until, versions, machine, draw, stem, number, locate };
        let plan = self.graph.plan(&noting, &settings);
        if let Some(hashes) = services.find::<HashCache>() {
            hashes.save();
        }
        let read = noting.seen.into_inner();
        seen.extend(read.iter().filter_map(|read| self.path_of_read(read)));
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let plan = plan.map_err(Error::Graph)?;
        self.check_memory(&plan, &services)?;
        let mut planned = Planned { loaded: Arc::clone(self), services, plan, overwrites };
        if !is_moved {
            self.check_outputs(&mut planned, &folders, overwrites)?;
        }
        Ok(planned)
    }

    /// The answers of services outside that it was recorded with.
    fn answers(&self) -> Answers {
        let recorded = provenance::split(&self.source.text).0;
        let recorded = recorded.map(|made| made.answers).unwrap_or_default();
        Answers::new(recorded, provenance::with_answers)
    }

    /// Tries where a plan writes, and refuses to replace files that this graph did not write.
    pub(crate) fn check_outputs(
        &self,
        planned: &mut Planned,
        folders: &Folders,
        overwrites: bool,
    ) -> Result<()> {
        let (records, owner) = (&self.core.outputs, self.source.owner());
        let refused = outputs::check(&planned.plan, folders, records, owner, overwrites);
        if !refused.is_empty() {
            return Err(self.refused(&planned.plan, refused));
        }
        if planned.plan.writes().next().is_some() {
            let warnings = &mut planned.plan.warnings.list;
            warnings.extend(outputs::tell_link(folders).map(|message| Diagnostic {
                severity: Severity::Warning,
                code: "out-is-a-link",
                message,
                location: None,
                related: Vec::new(),
                hint: None,
            }));
        }
        Ok(())
    }

    /// What stands against every plan of it, as far as the graph itself and its models say it;
    /// what this machine lacks is a warning. Nothing is hashed, and no file is read but those that
    /// describe models.
    pub(crate) fn check_plan(&self) -> Result<Diagnostics> {
        let folders = Arc::new(self.folders(Path::new("out")));
        let services = self.core.services.layer().with(Arc::clone(&folders));
        let services = services.with(Arc::new(self.source.policy.clone()));
        let services = services.with(Arc::new(self.answers())).with(Arc::new(OnlyCheck));
        let nodes = NodeCatalog { registry: Arc::clone(&self.registry), services: &services };
        let locate = |access, path: &str| located(&folders, access, path);
        let settings = PlanSettings {
            inputs: &[],
            until: None,
            versions: &[],
            machine: &Vec::new,
            draw: &|_| 0,
            stem: &self.source.stem,
            number: None,
            locate: Some(&locate),
        };
        self.graph.check_plan(&nodes, &settings).map_err(Error::Graph)
    }

    /// Refuses steps that would run and do not fit into memory; one that is cached does not run.
    fn check_memory(&self, plan: &kino_graph::Plan, services: &Services) -> Result<()> {
        let refused = self.core.runtime.too_large(plan, &self.registry, services);
        if refused.is_empty() {
            return Ok(());
        }
        Err(self.refused(plan, refused))
    }

    /// Refuses steps whose files were moved to where the run may not write.
    pub(crate) fn check_writes(&self, planned: &Planned, out: &Path) -> Result<()> {
        let Planned { services, plan, .. } = planned;
        let (folders, policy) = (self.folders(out), services.get::<FilePolicy>()?);
        let refused = plan.writes().filter_map(|file| {
            let place = folders.output(file.path);
            let place = place.map_err(|error| PlanError::new(error.to_string()));
            let checked = place.and_then(|place| {
                policy.check_write(&place).map_err(|error| {
                    let hint = error.hint().map(str::to_owned);
                    PlanError { hint, ..PlanError::new(error.to_string()) }
                })
            });
            Some((file.step, checked.err()?))
        });
        let refused: Vec<_> = refused.collect();
        if refused.is_empty() { Ok(()) } else { Err(self.refused(plan, refused)) }
    }

    /// What stands against steps of a plan, by their numbers.
    fn refused(&self, plan: &kino_graph::Plan, errors: Vec<(usize, PlanError)>) -> Error {
        let list = errors.into_iter().map(|(at, error)| Diagnostic {
            severity: Severity::Error,
            code: "plan",
            message: format!("`{}`: {}", plan.steps[at].name, error.message),
            location: Some(plan.steps[at].location),
            related: Vec::new(),
            hint: error.hint,
        });
        let (list, files) = (list.collect(), self.graph.files().to_vec());
        Error::Graph(Diagnostics { list, files })
    }

    /// The folders that its paths are relative to.
    pub(crate) fn folders(&self, out: &Path) -> Folders {
        Folders { graph: self.source.folder.clone(), out: out.to_owned() }
    }

    /// Where on disk something lies that this graph reads.
    pub(crate) fn path_of_read(&self, read: &str) -> Option<PathBuf> {
        let models = self.core.services.find::<kino_nodes::ModelFolders>();
        let models = models.as_deref().cloned().unwrap_or_default();
        kino_nodes::path_of_read(read, &self.source.folder, &models).map(tidy)
    }
}

/// Notes what nodes would read, whether they find it or not, and asks no further node once planning
/// is cancelled.
struct Noting<'a> {
    nodes: NodeCatalog<'a>,
    seen: RefCell<BTreeSet<String>>,
    cancel: &'a Cancel,
}

impl Noting<'_> {
    /// What a node is told to read, as far as its ports say so.
    fn note(&self, node: &dyn Node, facts: &Facts) {
        let signature = node.signature();
        let named = signature.inputs.iter().filter(|port| port.names_file());
        for port in named.filter(|_| !signature.traits.sink) {
            let path = facts.text(&port.name);
            if let Some(path) = path.filter(|path| !path.is_empty() && port.is_path(path)) {
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
        if self.cancel.is_cancelled() {
            return Err(vec![PlanError::new("planning was cancelled")]);
        }
        let node = self.nodes.node(op)?;
        self.note(node, facts);
        let info = self.nodes.infer_node(node, facts)?;
        if !info.reads.is_empty() {
            self.seen.borrow_mut().extend(info.reads.iter().map(|read| read.path.clone()));
        }
        Ok(info)
    }
}
