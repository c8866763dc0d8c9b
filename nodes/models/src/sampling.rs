//! From noise to data: the noise levels of a run, the steps down them, and what steers them.

mod config;
mod dpm;
mod euler;
pub mod guidance;
mod lcm;
mod levels;
mod step_cache;
mod stepper;
mod sum;
mod unipc;

pub use config::{ScheduleKind, SchedulerConfig, SolverType, Spacing};
pub use dpm::{DpmDerivative, DpmOptions, DpmSolver};
pub use euler::Euler;
pub use guidance::CfgScale;
pub use lcm::Lcm;
pub use levels::{Schedule, steps_of_strength};
pub use step_cache::{StepCache, StepCacheKind, StepCacheRule, TeaCacheFit, TeaCacheInput};
pub use stepper::Solver;
pub use sum::{SolverMethod, StepAt, StepNoise};
pub use unipc::{UniPc, UniPcOptions};
