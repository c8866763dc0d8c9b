//! The steps of latent consistency models, for flows.

use candle_core::Tensor;

use super::sum::{SolverMethod, StepAt, StepNoise, weighted_sum};
use crate::error::Result;

/// Steps by jumping to the predicted data and adding noise again: x₀ = x − σ·v, then
/// x(σ′) = (1 − σ′)·x₀ + σ′·noise, fresh in every step.
///
/// Multistep consistency sampling (Song et al., arXiv:2303.01469, algorithm 1; Luo et al.,
/// arXiv:2310.04378) as diffusers' `scheduling_flow_match_lcm.py` has it. Models that were
/// distilled for it need two to eight steps.
#[derive(Debug)]
pub struct Lcm;

impl SolverMethod for Lcm {
    /// Asks for `noise` where the next level is above 0.
    fn step(
        &mut self,
        at: StepAt<'_>,
        velocity: &Tensor,
        sample: &Tensor,
        noise: &mut StepNoise<'_>,
    ) -> Result<Tensor> {
        let (from, to) = at.sigmas();
        let keep = 1.0 - to;
        let from_data = [(keep, sample), (-keep * from, velocity)];
        match to {
            0.0 => weighted_sum(&from_data),
            _ => weighted_sum(&[from_data[0], from_data[1], (to, &noise()?)]),
        }
    }
}
