//! What happens in a run, as one typed stream: terminals, `--json` and logs read it and nothing
//! else.
//!
//! The sequence: one [`Event::Planned`]; then for each step that is computed [`Event::Started`],
//! any number of [`Event::Progress`], and [`Event::Finished`] or [`Event::Failed`]; for each step
//! whose result comes from a cache [`Event::Finished`] alone; for each step behind a failed one
//! [`Event::Skipped`] alone; last, one [`Event::Done`]. Steps run side by side, so events of
//! different steps mix. Steps that a cancelled run stopped have no last event of their own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kino_node::{OutputFile, Preview};
use serde::{Serialize, Serializer};

use crate::panic::panic_message;

/// Tells whoever listens to a run.
pub(crate) struct Teller<'r> {
    events: &'r (dyn Fn(Event) + Sync),
    /// Set once whoever listens has panicked.
    muted: AtomicBool,
}

impl<'r> Teller<'r> {
    pub(crate) fn new(events: &'r (dyn Fn(Event) + Sync)) -> Self {
        Teller { events, muted: AtomicBool::new(false) }
    }

    /// Sends an event. A listener that panics is not heard from again; the run goes on without it.
    pub(crate) fn say(&self, event: Event) {
        if self.muted.load(Ordering::Relaxed) {
            return;
        }
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.events)(event))) {
            self.muted.store(true, Ordering::Relaxed);
            let message = panic_message(panic.as_ref());
            tracing::error!("Events of this run are lost from here on: {message}.");
        }
    }
}

/// One thing that happened in a run.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// What the run is going to do; always the first event. Entries on disk are taken at their word
    /// here: a step whose entry turns out to be broken is computed, and so may be those before it.
    Planned {
        /// Every step of the plan, in its order.
        steps: Vec<PlannedStep>,
    },
    /// A step began to compute.
    Started {
        /// The step's name.
        #[serde(serialize_with = "text")]
        name: Arc<str>,
        /// The node that it runs.
        #[serde(serialize_with = "text")]
        op: Arc<str>,
    },
    /// A step got on.
    Progress {
        /// The step's name.
        #[serde(serialize_with = "text")]
        name: Arc<str>,
        /// Pieces of work done.
        step: u64,
        /// Pieces of work in all.
        of: u64,
        /// An estimate of the seconds until the step has finished; none before its first piece is
        /// done.
        seconds_left: Option<f64>,
        /// What the result looks like by now; in JSON its size alone.
        #[serde(serialize_with = "size", skip_serializing_if = "Option::is_none")]
        preview: Option<Preview>,
    },
    /// A step's result is there.
    Finished {
        /// The step's name.
        #[serde(serialize_with = "text")]
        name: Arc<str>,
        /// The node that it runs.
        #[serde(serialize_with = "text")]
        op: Arc<str>,
        /// Where the result comes from.
        cached: Cached,
        /// Seconds that it took now: to compute, or to read.
        seconds: f64,
        /// The bytes of the result that lie in memory.
        bytes: u64,
        /// The files that the step wrote, or found standing as it once wrote them.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        files: Vec<OutputFile>,
        /// What the node says of its work, where it was computed in this run: a sentence each.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        notes: Vec<String>,
    },
    /// A step could not compute its result.
    Failed {
        /// The step's name.
        #[serde(serialize_with = "text")]
        name: Arc<str>,
        /// The node that it runs.
        #[serde(serialize_with = "text")]
        op: Arc<str>,
        /// What went wrong.
        message: String,
        /// What to do, where that is known.
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
        /// A name for programs, see [`kino_port::code`]; empty where it has none.
        #[serde(skip_serializing_if = "String::is_empty")]
        code: String,
    },
    /// A step did not run because one that it depends on failed.
    Skipped {
        /// The step's name.
        #[serde(serialize_with = "text")]
        name: Arc<str>,
        /// The node that it would have run.
        #[serde(serialize_with = "text")]
        op: Arc<str>,
        /// The step that failed.
        #[serde(serialize_with = "text")]
        because: Arc<str>,
    },
    /// The run is over; always the last event.
    Done {
        /// Seconds from beginning to end.
        seconds: f64,
        /// Steps that were computed.
        evaluated: usize,
        /// Steps whose results came from a cache.
        cached: usize,
        /// Steps that failed.
        failed: usize,
        /// Steps behind failed ones.
        skipped: usize,
        /// Whether the run was cancelled before it was through.
        cancelled: bool,
    },
}

/// One step of a plan, as a run begins.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedStep {
    /// The step's name.
    #[serde(serialize_with = "text")]
    pub name: Arc<str>,
    /// The node that it runs.
    #[serde(serialize_with = "text")]
    pub op: Arc<str>,
    /// What will become of it.
    pub status: CacheStatus,
    /// An estimate of the bytes that it needs while it runs; 0 where nothing is known.
    pub memory: u64,
}

/// What will become of a step if the plan runs now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheStatus {
    /// It will be computed.
    Run,
    /// It will be computed if a node that evaluates its inputs on demand asks for it.
    Lazy,
    /// Its result is in memory.
    Memory,
    /// Its result is on disk; for a sink: its file is up to date.
    Disk,
    /// Nothing needs it: all nodes that read it are cached.
    Pruned,
}

/// Where a step's result comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cached {
    /// It was computed in this run.
    None,
    /// The cache in memory.
    Memory,
    /// The cache on disk; for a sink: its file is up to date.
    Disk,
}

fn text<S: Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(text)
}

fn size<S: Serializer>(preview: &Option<Preview>, to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Size {
        width: u32,
        height: u32,
    }
    preview
        .as_ref()
        .map(|preview| Size { width: preview.width, height: preview.height })
        .serialize(to)
}
