//! A stepper of any kind.

use candle_core::Tensor;

use super::config::{ScheduleKind, SchedulerConfig};
use super::dpm::{DpmOptions, DpmSolver};
use super::euler::Euler;
use super::lcm::Lcm;
use super::levels::Schedule;
use super::sum::StepNoise;
use super::unipc::{UniPc, UniPcOptions};
use crate::error::Result;

/// A stepper of any kind: plain data between steps, so that a run can be copied or resumed.
#[derive(Debug, Clone)]
pub enum Solver {
    /// UniPC for flow models.
    UniPc(UniPc),
    /// The Euler step.
    Euler(Euler),
    /// DPM-Solver++ for flow models.
    DpmSolver(DpmSolver),
    /// Latent consistency steps.
    Lcm(Lcm),
}

impl Solver {
    /// A stepper at the start of `schedule`, with the options of the model's config.
    pub fn new(kind: ScheduleKind, schedule: Schedule, config: &SchedulerConfig) -> Self {
        match kind {
            ScheduleKind::UniPc => Self::UniPc(UniPc::new(schedule, UniPcOptions::from(config))),
            ScheduleKind::Euler => Self::Euler(Euler::new(schedule)),
            ScheduleKind::DpmSolver => {
                Self::DpmSolver(DpmSolver::new(schedule, DpmOptions::from(config)))
            }
            ScheduleKind::Lcm => Self::Lcm(Lcm::new(schedule)),
        }
    }

    /// Moves `sample` one level down along `velocity`. Any shape; both alike. `noise` is asked for
    /// by steppers that add noise, at most once a step.
    ///
    /// # Errors
    /// When the run is over, or shapes or devices differ, or those of `noise`.
    pub fn step(
        &mut self,
        velocity: &Tensor,
        sample: &Tensor,
        noise: &mut StepNoise<'_>,
    ) -> Result<Tensor> {
        match self {
            Self::UniPc(stepper) => stepper.step(velocity, sample),
            Self::Euler(stepper) => stepper.step(velocity, sample),
            Self::DpmSolver(stepper) => stepper.step(velocity, sample),
            Self::Lcm(stepper) => stepper.step(velocity, sample, noise),
        }
    }

    /// Steps done so far.
    pub fn index(&self) -> usize {
        match self {
            Self::UniPc(stepper) => stepper.index(),
            Self::Euler(stepper) => stepper.index(),
            Self::DpmSolver(stepper) => stepper.index(),
            Self::Lcm(stepper) => stepper.index(),
        }
    }

    /// The levels that it walks down.
    pub fn schedule(&self) -> &Schedule {
        match self {
            Self::UniPc(stepper) => stepper.schedule(),
            Self::Euler(stepper) => stepper.schedule(),
            Self::DpmSolver(stepper) => stepper.schedule(),
            Self::Lcm(stepper) => stepper.schedule(),
        }
    }
}
