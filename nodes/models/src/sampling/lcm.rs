//! The steps of latent consistency models, for flows.

use candle_core::Tensor;

use super::levels::Schedule;
use super::sum::{StepNoise, run_is_over, weighted_sum};
use crate::error::Result;

/// Walks a schedule by jumping to the predicted data and adding noise again: x₀ = x − σ·v, then
/// x(σ′) = (1 − σ′)·x₀ + σ′·noise, fresh in every step.
///
/// Multistep consistency sampling (Song et al., arXiv:2303.01469, algorithm 1; Luo et al.,
/// arXiv:2310.04378) as diffusers' `scheduling_flow_match_lcm.py` has it. Models that were
/// distilled for it need two to eight steps.
#[derive(Debug, Clone)]
pub struct Lcm {
    schedule: Schedule,
    index: usize,
}

impl Lcm {
    /// A stepper at the start of `schedule`.
    pub fn new(schedule: Schedule) -> Self {
        Self { schedule, index: 0 }
    }

    /// Moves `sample` one level down along `velocity`; `noise` is asked for where the next level
    /// is above 0. Any shape; all alike.
    ///
    /// # Errors
    /// When the run is over, or shapes or devices differ, or those of `noise`.
    pub fn step(
        &mut self,
        velocity: &Tensor,
        sample: &Tensor,
        noise: &mut StepNoise<'_>,
    ) -> Result<Tensor> {
        let levels = self.schedule.sigmas();
        let Some(&next) = levels.get(self.index + 1) else {
            return Err(run_is_over(self.schedule.steps()));
        };
        let keep = 1.0 - next;
        let from_data = [(keep, sample), (-keep * levels[self.index], velocity)];
        let moved = match next {
            0.0 => weighted_sum(&from_data)?,
            _ => weighted_sum(&[from_data[0], from_data[1], (next, &noise()?)])?,
        };
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
