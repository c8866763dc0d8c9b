//! The Euler step of a rectified flow.

use candle_core::Tensor;

use super::levels::Schedule;
use super::sum::{run_is_over, weighted_sum};
use crate::error::Result;

/// Walks a schedule by x(σ′) = x(σ) + (σ′ − σ)·v (arXiv:2209.03003).
#[derive(Debug, Clone)]
pub struct Euler {
    schedule: Schedule,
    index: usize,
}

impl Euler {
    /// A stepper at the start of `schedule`.
    pub fn new(schedule: Schedule) -> Self {
        Self { schedule, index: 0 }
    }

    /// Moves `sample` one level down along `velocity`. Any shape; both alike.
    ///
    /// # Errors
    /// When the run is over, or shapes or devices differ.
    pub fn step(&mut self, velocity: &Tensor, sample: &Tensor) -> Result<Tensor> {
        let levels = self.schedule.sigmas();
        let Some(&next) = levels.get(self.index + 1) else {
            return Err(run_is_over(self.schedule.steps()));
        };
        let moved = weighted_sum(&[(1.0, sample), (next - levels[self.index], velocity)])?;
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
