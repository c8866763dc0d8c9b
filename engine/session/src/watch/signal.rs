//! What wakes a watch.

use std::sync::Arc;
use std::time::Instant;

use kino_node::RunId;
use kino_world::FileChange;

use crate::error::Result;
use crate::loaded::Planned;
use crate::run::RunResult;

/// A run that ended.
pub(crate) struct Ended {
    pub(crate) id: RunId,
    pub(crate) planned: Arc<Planned>,
    /// What it left; an error where the engine panicked.
    pub(crate) done: Result<Arc<RunResult>>,
    pub(crate) at: Instant,
}

/// What the watch waits for.
pub(crate) enum Signal {
    /// Files changed.
    Changed(Vec<FileChange>),
    /// A run ended.
    Ended(Box<Ended>),
    /// It is to end.
    Stopped,
}
