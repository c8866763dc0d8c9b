//! Executes plans: schedule, both caches, cancel, failure, events, reload.
//!
//! A run starts at what is wanted and follows the plan backwards, until it meets what is cached.
//! What is left runs on worker threads: independent branches side by side, one heavy step at a
//! time. A value is dropped as soon as its last reader took it. Results of expensive nodes go to
//! disk before any reader starts, so a run that is killed resumes.
//!
//! This crate knows no concrete node: it finds them in a [`kino_node::Registry`] by the names that
//! a plan holds.

#![forbid(unsafe_code)]

mod by_key;
mod catalog;
mod demand;
mod device;
mod disk;
mod entry;
mod event;
mod forecast;
mod hits;
mod in_flight;
mod machine;
mod memory;
mod pace;
mod panic;
mod reads;
mod report;
mod run;
mod schedule;
mod sink;
mod stop;
mod store;
mod turns;
mod waiting;
mod wanted;
mod wiring;
mod work;

pub use catalog::{LIBRARIES, NUMERICS, NodeCatalog, machine, versions};
pub use disk::DiskCache;
pub use event::{CacheStatus, Cached, Event, PlannedStep};
pub use forecast::{Forecast, too_large};
pub use machine::{memory_of_machine, peak_of_process, resident_of_process};
pub use report::{Report, SkippedStep, StepFailure};
pub use run::{RunSpec, Runtime, RuntimeOptions};
pub use stop::StopSignal;
