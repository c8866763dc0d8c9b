//! Reads what stands there now: the graph, its nodes, its plan, and all that it depends on.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kino_graph::{Catalog, Graph, Item, Key, Plan};
use kino_node::Registry;
use kino_port::{Facts, Literal, PlanError, Signature, StepInfo};
use kino_runtime::NodeCatalog;

use crate::args;
use crate::engine::{self, Engine};
use crate::failure::Failure;
use crate::library::{self, Opened, tidy};
use crate::palette::{Palette, Palettes};

/// A graph that was read, with what it is planned with.
pub(crate) struct Sheet {
    opened: Opened,
    pub(crate) graph: Graph,
    inputs: Vec<(String, Literal)>,
    pub(crate) registry: Arc<Registry>,
}

/// A sheet and its plan: what can run.
pub(crate) struct Generation {
    pub(crate) sheet: Arc<Sheet>,
    pub(crate) plan: Plan,
}

/// What was found, and the files that it depends on.
pub(crate) struct Reading {
    pub(crate) found: Result<Generation, Failure>,
    pub(crate) files: BTreeSet<PathBuf>,
}

/// What the command line asks for.
pub(crate) struct Reader<'a> {
    pub(crate) args: &'a args::Watch,
    pub(crate) engine: &'a Engine,
    /// Chooses the seeds of `"random"`: they stay the same from run to run.
    pub(crate) luck: u64,
}

impl Reader<'_> {
    /// Reads, checks and plans the graph.
    pub(crate) fn read(&self, palettes: &mut Palettes) -> Reading {
        let mut files = BTreeSet::new();
        let found = self.sheet(palettes, &mut files).and_then(|sheet| {
            let sheet = Arc::new(sheet);
            let plan = self.plan(&sheet, &mut files)?;
            Ok(Generation { sheet, plan })
        });
        Reading { found, files }
    }

    /// Plans a graph again that was read before.
    pub(crate) fn read_again(&self, sheet: &Arc<Sheet>) -> Reading {
        let mut files = sheet.opened.files().into_iter().collect();
        let plan = self.plan(sheet, &mut files);
        Reading { found: plan.map(|plan| Generation { sheet: Arc::clone(sheet), plan }), files }
    }

    fn sheet(
        &self,
        palettes: &mut Palettes,
        files: &mut BTreeSet<PathBuf>,
    ) -> Result<Sheet, Failure> {
        let name = &self.args.source.graph;
        let opened = library::open(name).inspect_err(|_| {
            files.insert(PathBuf::from(name));
        })?;
        let palette = palettes.of(&opened).map_err(|unusable| {
            files.extend(opened.files().into_iter().chain(unusable.files));
            unusable.failure
        })?;
        let Palette { registry, files: sources } = palette;
        let graph = engine::check_opened(&opened, &registry);
        files.extend(opened.files().into_iter().chain(sources));
        let graph = graph?;
        let inputs = engine::read_inputs(&graph, &self.args.target.set)?;
        Ok(Sheet { opened, graph, inputs, registry })
    }

    fn plan(&self, sheet: &Sheet, files: &mut BTreeSet<PathBuf>) -> Result<Plan, Failure> {
        let Sheet { opened, graph, inputs, registry } = sheet;
        let services = &self.engine.services;
        let nodes = NodeCatalog { registry: Arc::clone(registry), services };
        let noting = Noting { nodes, seen: RefCell::default() };
        // By name: an edit elsewhere draws no other number.
        let draw = |name: &str| {
            let mut hasher = DefaultHasher::new();
            (self.luck, name).hash(&mut hasher);
            // Small enough to be typed again.
            hasher.finish() >> 32
        };
        let until = self.args.target.until.as_deref();
        let plan = graph.plan(&noting, &self.engine.settings(opened, inputs, until, &draw));
        let seen = noting.seen.into_inner();
        files.extend(seen.iter().filter_map(|read| place(read, &opened.folder)));
        plan.map_err(Failure::Graph)
    }
}

/// Where on disk something lies that a graph reads.
fn place(read: &str, folder: &Path) -> Option<PathBuf> {
    kino_nodes::place(read, folder).map(tidy)
}

impl Generation {
    /// Whether running this one gives anything that the other one does not.
    pub(crate) fn differs_from(&self, other: &Generation) -> bool {
        let keys = |plan: &Plan| -> BTreeSet<(Arc<str>, Key)> {
            plan.steps.iter().map(|step| (Arc::clone(&step.name), step.key)).collect()
        };
        keys(&self.plan) != keys(&other.plan) || self.outputs() != other.outputs()
    }

    /// The outputs, each with the name and port of the step that it comes from, or its value.
    fn outputs(&self) -> Vec<(&str, String)> {
        let Plan { steps, outputs, .. } = &self.plan;
        let from = |item: &Item| match item {
            Item::Edge(source) => format!("{}.{}", steps[source.step as usize].name, source.output),
            Item::Literal(literal) => format!("= {literal}"),
        };
        outputs.iter().map(|(name, item)| (name.as_str(), from(item))).collect()
    }
}

impl Sheet {
    /// Where on disk something lies that this graph reads.
    pub(crate) fn place(&self, read: &str) -> Option<PathBuf> {
        place(read, &self.opened.folder)
    }
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
            let path = facts.text(&port.name).filter(|path| port.names_file() && !path.is_empty());
            if let Some(path) = path {
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
