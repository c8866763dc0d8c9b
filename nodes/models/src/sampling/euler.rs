//! The Euler step of a rectified flow.

use candle_core::Tensor;

use super::sum::{SolverMethod, StepAt, StepNoise, weighted_sum};
use crate::error::Result;

/// Steps by x(σ′) = x(σ) + (σ′ − σ)·v (arXiv:2209.03003).
#[derive(Debug)]
pub struct Euler;

impl SolverMethod for Euler {
    fn step(
        &mut self,
        at: StepAt<'_>,
        velocity: &Tensor,
        sample: &Tensor,
        _: &mut StepNoise<'_>,
    ) -> Result<Tensor> {
        let (from, to) = at.sigmas();
        weighted_sum(&[(1.0, sample), (to - from, velocity)])
    }
}
