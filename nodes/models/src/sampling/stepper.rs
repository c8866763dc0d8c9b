//! A run down the levels by some method.

use candle_core::Tensor;

use super::config::{ScheduleKind, SchedulerConfig};
use super::dpm::{DpmOptions, DpmSolver};
use super::euler::Euler;
use super::lcm::Lcm;
use super::levels::Schedule;
use super::sum::{SolverMethod, StepAt, StepNoise};
use super::unipc::{UniPc, UniPcOptions};
use crate::error::{Error, Result};

/// Walks a schedule by a method.
#[derive(Debug)]
pub struct Solver {
    schedule: Schedule,
    index: usize,
    method: Box<dyn SolverMethod>,
}

impl Solver {
    /// A solver at the start of `schedule`, with the options of the model's config.
    pub fn new(kind: ScheduleKind, schedule: Schedule, config: &SchedulerConfig) -> Self {
        match kind {
            ScheduleKind::UniPc => Self::by(UniPc::new(UniPcOptions::from(config)), schedule),
            ScheduleKind::Euler => Self::by(Euler, schedule),
            ScheduleKind::DpmSolver => Self::by(DpmSolver::new(DpmOptions::from(config)), schedule),
            ScheduleKind::Lcm => Self::by(Lcm, schedule),
        }
    }

    /// A solver at the start of `schedule`, by a method of its own.
    pub fn by(method: impl SolverMethod + 'static, schedule: Schedule) -> Self {
        Self { schedule, index: 0, method: Box::new(method) }
    }

    /// Moves `sample` one level down along `velocity`. Any shape; both alike. `noise` is asked for
    /// by methods that add noise, at most once a step.
    ///
    /// # Errors
    /// When the run is over, or shapes or devices differ, or those of `noise`.
    pub fn step(
        &mut self,
        velocity: &Tensor,
        sample: &Tensor,
        noise: &mut StepNoise<'_>,
    ) -> Result<Tensor> {
        let (steps, at) =
            (self.schedule.steps(), StepAt { schedule: &self.schedule, index: self.index });
        if self.index >= steps {
            return Err(Error::input(format!("all {steps} steps of this schedule are done")));
        }
        let moved = self.method.step(at, velocity, sample, noise)?;
        self.index += 1;
        Ok(moved)
    }

    /// Steps done so far.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The levels that it walks down.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }
}
