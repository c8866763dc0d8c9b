//! Executes plans: schedule, memory cache, disk cache, cancel, failure, events.
#![forbid(unsafe_code)]

mod event;

pub use event::{Cached, Event, Outlook, PlannedStep};
