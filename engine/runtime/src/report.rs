//! What became of a run: outputs, what was computed, what failed.

use std::sync::Arc;

use kino_node::Value;

use crate::forecast::Forecast;

/// A step that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepFailure {
    /// The step's name.
    pub name: Arc<str>,
    /// The node that it ran.
    pub op: Arc<str>,
    /// What went wrong.
    pub message: String,
    /// What to do, where that is known.
    pub hint: Option<String>,
    /// A name for programs, see [`kino_port::code`]; empty where it has none.
    pub code: String,
}

/// A step that did not run because another one failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedStep {
    /// The step's name.
    pub name: Arc<str>,
    /// The step that failed.
    pub because: Arc<str>,
}

/// What became of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The outputs of the graph, by name, in its order; those that could not be computed are
    /// missing.
    pub outputs: Vec<(String, Value)>,
    /// The steps that were computed, in the order in which they began.
    pub evaluated: Vec<Arc<str>>,
    /// The steps whose results came from a cache.
    pub cached: Vec<Arc<str>>,
    /// The steps that failed.
    pub failed: Vec<StepFailure>,
    /// The steps behind failed ones.
    pub skipped: Vec<SkippedStep>,
    /// Whether the run was cancelled before it was through.
    pub cancelled: bool,
    /// Seconds from beginning to end.
    pub seconds: f64,
    /// What it was expected to hold when it began.
    pub forecast: Forecast,
}

impl Report {
    /// The graph's output of this name, if it was computed.
    pub fn output(&self, name: &str) -> Option<&Value> {
        self.outputs.iter().find(|(output, _)| output == name).map(|(_, value)| value)
    }

    /// Whether everything was done.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && !self.cancelled
    }
}
