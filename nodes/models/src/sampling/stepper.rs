//! A stepper of either kind.

use candle_core::Tensor;

use super::config::{ScheduleKind, SchedulerConfig};
use super::euler::Euler;
use super::levels::Schedule;
use super::unipc::{UniPc, UniPcOptions};
use crate::error::Result;

/// A stepper of either kind: plain data between steps, so that a run can be copied or resumed.
#[derive(Debug, Clone)]
pub enum Solver {
    /// UniPC for flow models.
    UniPc(UniPc),
    /// The Euler step.
    Euler(Euler),
}

impl Solver {
    /// A stepper at the start of `schedule`, with the options of the model's config.
    pub fn new(kind: ScheduleKind, schedule: Schedule, config: &SchedulerConfig) -> Self {
        match kind {
            ScheduleKind::UniPc => Self::UniPc(UniPc::new(schedule, UniPcOptions::from(config))),
            ScheduleKind::Euler => Self::Euler(Euler::new(schedule)),
        }
    }

    /// Moves `sample` one level down along `velocity`. Any shape; both alike.
    ///
    /// # Errors
    /// When the run is over, or shapes or devices differ.
    pub fn step(&mut self, velocity: &Tensor, sample: &Tensor) -> Result<Tensor> {
        match self {
            Self::UniPc(stepper) => stepper.step(velocity, sample),
            Self::Euler(stepper) => stepper.step(velocity, sample),
        }
    }

    /// Steps done so far.
    pub fn index(&self) -> usize {
        match self {
            Self::UniPc(stepper) => stepper.index(),
            Self::Euler(stepper) => stepper.index(),
        }
    }

    /// The levels that it walks down.
    pub fn schedule(&self) -> &Schedule {
        match self {
            Self::UniPc(stepper) => stepper.schedule(),
            Self::Euler(stepper) => stepper.schedule(),
        }
    }
}
