//! What all methods of stepping share.

use std::fmt::Debug;

use candle_core::Tensor;

use super::levels::Schedule;
use crate::error::{Error, Result};

/// Gives fresh noise for the step that is being done, of the sample's shape: mean 0, variance 1.
pub type StepNoise<'a> = dyn FnMut() -> Result<Tensor> + 'a;

/// Σ weight·tensor.
pub(super) fn weighted_sum(terms: &[(f64, &Tensor)]) -> Result<Tensor> {
    let mut sum: Option<Tensor> = None;
    for (weight, tensor) in terms {
        let term = (*tensor * *weight)?;
        sum = Some(match sum {
            Some(sum) => (sum + term)?,
            None => term,
        });
    }
    sum.ok_or_else(|| Error::input("a weighted sum of nothing"))
}

/// Which step of a run is done: from level `index` to the next.
#[derive(Debug, Clone, Copy)]
pub struct StepAt<'a> {
    /// The levels of the run.
    pub schedule: &'a Schedule,
    /// Steps done before; below the number of steps.
    pub index: usize,
}

impl StepAt<'_> {
    /// The levels at both ends of the step.
    pub(super) fn sigmas(&self) -> (f64, f64) {
        let sigmas = self.schedule.sigmas();
        (sigmas[self.index], sigmas[self.index + 1])
    }
}

/// A method of stepping from one noise level to the next, with what it remembers of earlier steps.
pub trait SolverMethod: Debug + Send {
    /// Moves `sample` one level down along `velocity`. Any shape; both alike. `noise` is asked for
    /// by methods that add noise, at most once a step.
    ///
    /// # Errors
    /// When shapes or devices differ, or those of `noise`.
    fn step(
        &mut self,
        at: StepAt<'_>,
        velocity: &Tensor,
        sample: &Tensor,
        noise: &mut StepNoise<'_>,
    ) -> Result<Tensor>;
}
