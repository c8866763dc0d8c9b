//! From noise to data: the noise levels of a run, the steps down them, and what steers them.

mod config;
mod euler;
pub mod guidance;
mod levels;
mod stepper;
mod sum;
mod unipc;

pub use config::{ScheduleKind, SchedulerConfig, SolverType};
pub use euler::Euler;
pub use guidance::CfgScale;
pub use levels::Schedule;
pub use stepper::Solver;
pub use unipc::{UniPc, UniPcOptions};
