//! Graphs as they were read at one time, and requests to run them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use kino_graph::{Access, Diagnostics};
use kino_node::{Cancel, FilePolicy, Registry};
use kino_port::{Literal, Port};

use crate::error::Result;
use crate::events::RunEvent;
use crate::inputs::Inputs;
use crate::loaded::{LoadedGraph, PlanOptions, Planned};
use crate::outputs::located;
use crate::plan::Plan;
use crate::provenance::{self, Provenance};
use crate::run::Run;
use crate::sweep::{self, SweepPoint};

/// A graph that was read at one time, with its lock file, plugins and the graphs that it uses, and
/// checked. Clones are the same revision; what changes on disk later changes nothing here.
#[derive(Clone)]
pub struct Graph {
    pub(crate) loaded: Arc<LoadedGraph>,
}

impl Graph {
    /// The inputs, each with type, default, range, choices and help.
    pub fn inputs(&self) -> impl Iterator<Item = &Port> {
        self.loaded.graph.inputs()
    }

    /// What is probably not meant.
    pub fn warnings(&self) -> Diagnostics {
        self.loaded.graph.warnings()
    }

    /// The graph as it was checked.
    pub fn checked(&self) -> &kino_graph::Graph {
        &self.loaded.graph
    }

    /// The nodes that it was checked with.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.loaded.registry
    }

    /// Finds what stands against every plan with the inputs' defaults, as far as the graph itself
    /// and the models that lie here say it: values, sizes, parts of models, files that two nodes
    /// write. Nothing is hashed. Gives what is probably not meant, and what this machine lacks.
    ///
    /// # Errors
    /// Every problem found.
    pub fn check(&self) -> Result<Diagnostics> {
        let found = self.loaded.check_plan()?;
        let mut all = self.warnings();
        // The files of a graph stay the same, whatever is found in them.
        all.list.extend(found.list);
        Ok(all)
    }

    /// The text that it was read from.
    pub fn text(&self) -> &str {
        &self.loaded.source.text
    }

    /// What the file was made with that it was taken from, if it was.
    pub fn provenance(&self) -> Option<Provenance> {
        provenance::split(&self.loaded.source.text).0
    }

    /// What of the recorded circumstances a plan of it differs in, each in a sentence.
    pub fn differences(&self, plan: &Plan) -> Vec<String> {
        let Some(was) = self.provenance() else { return Vec::new() };
        was.differences(&Provenance::of(plan.as_plan(), self.loaded.core.device))
    }

    /// What would run with these inputs.
    ///
    /// # Errors
    /// Everything that stands against it.
    pub fn plan(&self, inputs: &Inputs) -> Result<Plan> {
        self.run(inputs.clone()).plan()
    }

    /// A run with these inputs, to be started.
    pub fn run(&self, inputs: Inputs) -> RunRequest {
        RunRequest {
            loaded: Arc::clone(&self.loaded),
            inputs,
            out: PathBuf::from("out"),
            until: None,
            seed: None,
            memory: None,
            policy: FilePolicy::default(),
            overwrites: false,
            cancel: Cancel::default(),
            listener: None,
        }
    }
}

/// A run that is to be started.
#[must_use = "nothing runs until it is started"]
pub struct RunRequest {
    loaded: Arc<LoadedGraph>,
    inputs: Inputs,
    out: PathBuf,
    until: Option<String>,
    seed: Option<u64>,
    memory: Option<u64>,
    policy: FilePolicy,
    overwrites: bool,
    cancel: Cancel,
    listener: Option<Box<dyn FnMut(RunEvent) + Send>>,
}

impl RunRequest {
    /// Where files are written; `out` unless said otherwise.
    pub fn out(mut self, folder: impl Into<PathBuf>) -> Self {
        self.out = folder.into();
        self
    }

    /// Only this node, and what it needs.
    pub fn until(mut self, node: Option<&str>) -> Self {
        self.until = node.map(str::to_owned);
        self
    }

    /// The most memory in bytes that this run alone may need, as [`Plan::forecast`] counts it: a
    /// plan that needs more is refused. Unless it is said, it may need what the engine has.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// What this run may read and write, beside what [`Engine::with_policy`] says of its graph: a
    /// plan that names anything else is refused, and so is what leads elsewhere once it runs.
    ///
    /// [`Engine::with_policy`]: crate::Engine::with_policy
    pub fn policy(mut self, policy: FilePolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Whether it may replace files that this graph did not write; unless it is said, a plan that
    /// would is refused. Records of what graphs wrote are kept in the user's data folder.
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrites = overwrite;
        self
    }

    /// Seeds of `"random"` are this number instead of one that is drawn.
    pub fn random_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Raising this flag cancels planning and the run, as [`Run::cancel`] does.
    pub fn cancelled_by(mut self, cancel: &Cancel) -> Self {
        self.cancel = cancel.child();
        self
    }

    /// Tells what happens. The listener is called on a thread of its own; while it is slow, it
    /// misses progress and nothing else, and stops nobody.
    pub fn on_event(mut self, listener: impl FnMut(RunEvent) + Send + 'static) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    /// Plans it.
    ///
    /// # Errors
    /// Everything that stands against it, or that it was cancelled.
    pub fn plan(&self) -> Result<Plan> {
        self.plan_once(false)
    }

    fn plan_once(&self, runs: bool) -> Result<Plan> {
        let inputs = self.inputs.read(&self.loaded.graph)?;
        Ok(Plan { planned: Arc::new(self.planned(&inputs, (false, runs))?) })
    }

    fn planned(
        &self,
        inputs: &[(String, Literal)],
        (is_moved, runs): (bool, bool),
    ) -> Result<Planned> {
        let draw = |_: &str| self.seed.unwrap_or_else(random_seed);
        let (out, until, cancel) = (&*self.out, self.until.as_deref(), &self.cancel);
        let (policy, overwrites) = (&self.policy, self.overwrites);
        let draw = &draw;
        let settings =
            PlanOptions { inputs, out, until, draw, policy, cancel, overwrites, is_moved, runs };
        let planned = self.loaded.plan(&settings, &mut BTreeSet::new())?;
        match self.memory {
            Some(most) => planned.within(most),
            None => Ok(planned),
        }
    }

    /// Plans a run for each combination of the values of inputs, the last changing fastest. Runs
    /// that would write one file with different contents get a folder each.
    ///
    /// # Errors
    /// Values that do not fit, and everything that stands against a plan.
    pub fn sweep(&self, sweeps: &[(String, String)]) -> Result<Vec<(SweepPoint, Plan)>> {
        let inputs = self.inputs.read(&self.loaded.graph)?;
        let points = sweep::points(&self.loaded.graph, sweeps)?;
        let mut all = Vec::with_capacity(points.len());
        for point in &points {
            let inputs: Vec<_> = inputs.iter().chain(point).cloned().collect();
            all.push(self.planned(&inputs, (true, true))?);
        }
        let mut plans: Vec<_> = all.iter_mut().map(|one| std::mem::take(&mut one.plan)).collect();
        let folders = self.loaded.folders(&self.out);
        let locate = |path: &str| located(&folders, Access::Write, path);
        sweep::separate(&mut plans, &points, &locate);
        let planned = all.into_iter().zip(plans).map(|(one, plan)| {
            let mut planned = Planned { plan, ..one };
            self.loaded.check_writes(&planned, &self.out)?;
            self.loaded.check_outputs(&mut planned, &folders, self.overwrites)?;
            Ok(Plan { planned: Arc::new(planned) })
        });
        Ok(points.into_iter().zip(planned.collect::<Result<Vec<_>>>()?).collect())
    }

    /// Starts it. It is planned on its own thread, so that this waits for nothing, and planning can
    /// be cancelled like all else; what stands against the plan, [`Run::wait`] says.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(mut self) -> Result<Run> {
        let (listener, cancel) = (self.listener.take(), self.cancel.clone());
        Run::start(move || Ok(self.plan_once(true)?.planned), listener, cancel)
    }
}

/// A number for a seed of `"random"`, drawn anew in every process and call; small enough to be
/// typed again.
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(()) >> 32
}
