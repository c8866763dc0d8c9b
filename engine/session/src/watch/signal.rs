//! What wakes a watch.

use std::sync::Arc;
use std::time::Instant;

use kino_world::FileChange;

use crate::loaded::Planned;
use crate::run::RunResult;

/// A run that ended.
pub(crate) struct Ended {
    pub(crate) number: u64,
    pub(crate) planned: Arc<Planned>,
    pub(crate) done: Arc<RunResult>,
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
