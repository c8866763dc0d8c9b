//! What a run evaluates, keeps, drops and survives. Time is never asserted, only what was
//! evaluated.

mod cache;
mod caches_on_disk;
mod failure;
mod fuzz;
mod killed;
mod large;
mod memory;
mod nodes;
mod order;
mod random;
mod reads;
mod reload;
mod rig;
mod sinks;
mod verified;
