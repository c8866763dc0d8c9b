//! What a watch tells, and what it waits for.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use kino_graph::{Diagnostics, Diff};
use kino_runtime::CacheStatus;
use kino_world::FileChange;

use crate::error::Error;
use crate::events::{Queued, RunEvent};
use crate::plan::Plan;
use crate::run::RunResult;

/// Something that happened in a watch.
#[non_exhaustive]
pub enum WatchEvent {
    /// Files changed.
    Changed(Vec<FileChange>),
    /// A new revision checks and plans; this is how it differs from the one before.
    Diff {
        /// The differences.
        diff: Diff,
        /// The new plan.
        plan: Plan,
        /// What will become of its steps.
        status: Vec<CacheStatus>,
    },
    /// What stands there cannot run, or the engine panicked as it ran; the last good revision stays,
    /// if there is one.
    Failed {
        /// Why.
        error: Error,
        /// Whether there is a good revision.
        has_last: bool,
    },
    /// What is probably not meant.
    Warnings(Diagnostics),
    /// An event of a run.
    Run(RunEvent),
    /// The newest run is over.
    RunResult {
        /// What ran.
        plan: Plan,
        /// What it left.
        done: Arc<RunResult>,
    },
    /// Nothing is left to do until one of these files changes.
    Waiting(BTreeSet<PathBuf>),
}

impl Queued for WatchEvent {
    fn of_run(&mut self) -> Option<&mut RunEvent> {
        match self {
            WatchEvent::Run(event) => Some(event),
            _ => None,
        }
    }
}
