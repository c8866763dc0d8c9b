//! What all steppers share.

use candle_core::Tensor;

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

/// The error of a step after the last.
pub(super) fn run_is_over(steps: usize) -> Error {
    Error::input(format!("all {steps} steps of this schedule are done"))
}
