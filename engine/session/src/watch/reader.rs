//! Reads what stands there now: the graph, its nodes, its plan, and all that it depends on.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use kino_graph::{Key, Plan, ValueSource};
use kino_node::{Cancel, FilePolicy};

use crate::cancel::unless_cancelled;
use crate::core::Core;
use crate::error::Result;
use crate::inputs::Inputs;
use crate::loaded::{LoadedGraph, PlanOptions, Planned};
use crate::source;

/// What was found, and the files that it depends on.
pub(crate) struct Reading {
    pub(crate) found: Result<Planned>,
    pub(crate) files: BTreeSet<PathBuf>,
}

/// What is to be read.
pub(crate) struct Reader {
    pub(crate) core: Arc<Core>,
    pub(crate) graph: PathBuf,
    pub(crate) policy: FilePolicy,
    pub(crate) inputs: Inputs,
    pub(crate) out: PathBuf,
    pub(crate) until: Option<String>,
    pub(crate) overwrites: bool,
    /// Chooses the seeds of `"random"`: they stay the same from run to run.
    pub(crate) session_seed: u64,
    /// Raised when the watch is to end.
    pub(crate) cancel: Cancel,
}

impl Reader {
    /// Reads, checks and plans the graph, until the watch is to end: however slow files and plugins
    /// are.
    pub(crate) fn read(self: &Arc<Self>) -> Reading {
        let reader = Arc::clone(self);
        self.unless_cancelled(move || {
            let mut files = BTreeSet::new();
            let found = reader.load(&mut files);
            let found = found.and_then(|loaded| reader.plan(&loaded, &mut files));
            Reading { found, files }
        })
    }

    /// Plans a graph again that was read before.
    pub(crate) fn read_again(self: &Arc<Self>, loaded: &Arc<LoadedGraph>) -> Reading {
        let (reader, loaded) = (Arc::clone(self), Arc::clone(loaded));
        self.unless_cancelled(move || {
            let mut files = loaded.source.files().into_iter().collect();
            let found = reader.plan(&loaded, &mut files);
            Reading { found, files }
        })
    }

    fn unless_cancelled(&self, read: impl FnOnce() -> Reading + Send + 'static) -> Reading {
        let reading = unless_cancelled(&self.cancel, read);
        reading.unwrap_or_else(|error| Reading { found: Err(error), files: BTreeSet::new() })
    }

    fn load(&self, files: &mut BTreeSet<PathBuf>) -> Result<Arc<LoadedGraph>> {
        let mut source = source::open(&self.graph).inspect_err(|_| {
            files.insert(self.graph.clone());
        })?;
        source.policy = self.policy.clone();
        LoadedGraph::load(&self.core, source, files).map(Arc::new)
    }

    fn plan(&self, loaded: &Arc<LoadedGraph>, files: &mut BTreeSet<PathBuf>) -> Result<Planned> {
        let inputs = self.inputs.read(&loaded.graph)?;
        // By name: an edit elsewhere draws no other number.
        let draw = |name: &str| {
            let mut hasher = DefaultHasher::new();
            (self.session_seed, name).hash(&mut hasher);
            // Small enough to be typed again.
            hasher.finish() >> 32
        };
        let (inputs, until) = (&*inputs, self.until.as_deref());
        let (out, policy, cancel) = (&*self.out, &self.policy, &self.cancel);
        let (draw, overwrites, is_moved, runs) = (&draw, self.overwrites, false, true);
        let options =
            PlanOptions { inputs, out, until, draw, policy, cancel, overwrites, is_moved, runs };
        loaded.plan(&options, files)
    }
}

/// Whether running one plan gives anything that the other one does not.
pub(crate) fn differ(one: &Plan, other: &Plan) -> bool {
    let keys = |plan: &Plan| -> BTreeSet<(Arc<str>, Key)> {
        plan.steps.iter().map(|step| (Arc::clone(&step.name), step.key)).collect()
    };
    keys(one) != keys(other) || outputs(one) != outputs(other)
}

/// The outputs, each with the name and port of the step that it comes from, or its value.
fn outputs(plan: &Plan) -> Vec<(&str, String)> {
    let Plan { steps, outputs, .. } = plan;
    let from = |item: &ValueSource| match item {
        ValueSource::Edge(source) => {
            format!("{}.{}", steps[source.step as usize].name, source.output)
        }
        ValueSource::Literal(literal) => format!("= {literal}"),
    };
    outputs.iter().map(|(name, item)| (name.as_str(), from(item))).collect()
}
