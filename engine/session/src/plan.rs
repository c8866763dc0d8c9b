//! Plans: what would run and why, what is cached, and the memory that it takes.

use std::fmt;
use std::sync::Arc;

use kino_graph::{Step, StepInput};
use kino_node::Cancel;
use kino_port::format_bytes;
use kino_runtime::{CacheStatus, Forecast};

use crate::error::Result;
use crate::events::RunEvent;
use crate::loaded::Planned;
use crate::run::{Run, RunResult};

/// A plan of one revision of a graph. Clones are the same plan.
#[derive(Clone)]
pub struct Plan {
    pub(crate) planned: Arc<Planned>,
}

impl Plan {
    /// The steps, in the order in which they depend on each other.
    pub fn steps(&self) -> &[Step] {
        &self.planned.plan.steps
    }

    /// All that it says.
    pub fn as_plan(&self) -> &kino_graph::Plan {
        &self.planned.plan
    }

    /// The graph that it is of.
    pub fn graph(&self) -> &kino_graph::Graph {
        &self.planned.loaded.graph
    }

    /// What would become of each step now.
    pub fn status(&self) -> Vec<CacheStatus> {
        let Planned { loaded, plan, .. } = &*self.planned;
        loaded.core.runtime.status(plan, &loaded.registry)
    }

    /// What the ledger would count at most if it ran now, and what would go to temporary files.
    pub fn forecast(&self) -> Forecast {
        let Planned { loaded, plan, services, .. } = &*self.planned;
        loaded.core.runtime.forecast(plan, &loaded.registry, services)
    }

    /// The most memory that this process would take if it ran now: what it holds beside what the
    /// ledger counts, and what steps, values and weights hold together at one time.
    pub fn peak_memory(&self) -> u64 {
        self.planned.loaded.core.peak_of_process(self.forecast())
    }

    /// Why a step will or will not run, in a few words.
    pub fn reason(&self, at: usize, status: &[CacheStatus]) -> String {
        let (steps, own) = (self.steps(), status[at]);
        let step = &steps[at];
        match own {
            CacheStatus::Memory => "its result is in memory".to_owned(),
            CacheStatus::Disk if step.traits.sink => "its file is up to date".to_owned(),
            CacheStatus::Disk => "its result is on disk".to_owned(),
            CacheStatus::Pruned => "all nodes that read it are cached".to_owned(),
            CacheStatus::Lazy => "only if a node needs it".to_owned(),
            CacheStatus::Run => {
                let mut before = step.inputs.iter().flat_map(StepInput::sources);
                let news = before.find(|source| {
                    let at = source.step as usize;
                    status[at] == CacheStatus::Run && steps[at].traits.expensive
                });
                match news {
                    Some(source) => format!("`{}` runs", steps[source.step as usize].name),
                    None if step.traits.sink => "its file is missing or has changed".to_owned(),
                    None if step.traits.expensive => "its result is not in the cache".to_owned(),
                    None => "cheap, so its result is not cached".to_owned(),
                }
            }
        }
    }

    /// The plan for a run that is to begin.
    fn prepared(&self) -> impl FnOnce() -> Result<Arc<Planned>> + Send + 'static {
        let planned = Arc::clone(&self.planned);
        move || Ok(planned)
    }

    /// Runs it.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(&self) -> Result<Run> {
        Run::start(self.prepared(), None, Cancel::default())
    }

    /// Runs it on this thread and tells nobody, until `cancel` is raised. Also a run that failed or
    /// was cancelled has results.
    ///
    /// # Errors
    /// When the engine itself breaks.
    pub fn run(&self, cancel: &Cancel) -> Result<Arc<RunResult>> {
        Run::here(self.prepared(), None, &cancel.child())
    }

    /// The same, told to `listener`, on a thread of its own, which has heard all when this returns.
    ///
    /// # Errors
    /// As [`Plan::run`], and when no thread can be started.
    pub fn run_with(
        &self,
        cancel: &Cancel,
        listener: impl FnMut(RunEvent) + Send + 'static,
    ) -> Result<Arc<RunResult>> {
        Run::here(self.prepared(), Some(Box::new(listener)), &cancel.child())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status();
        for (at, step) in self.steps().iter().enumerate() {
            let (name, op) = (&step.name, &step.op);
            writeln!(f, "{name} ({op}): {:?}, {}", status[at], self.reason(at, &status))?;
            if let Some(streamed) = step.streamed.filter(|_| status[at] == CacheStatus::Run) {
                writeln!(f, "{name}: {streamed}")?;
            }
        }
        write!(f, "peak memory about {}", format_bytes(self.peak_memory()))
    }
}
