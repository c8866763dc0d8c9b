//! Norms that several architectures share.

use candle_core::Tensor;
use kino_kernels as kernels;

use crate::error::Result;
use crate::weight::weights::Weights;

/// x/√(mean(x²) + eps)·weight over the last dimension; the weight is kept in f32.
#[derive(Debug, Clone)]
pub(crate) struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    pub(crate) fn load(weights: &Weights, width: usize, eps: f64) -> Result<Self> {
        let weight = weights.get_as("weight", width, candle_core::DType::F32)?;
        Ok(Self { weight, eps })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(kernels::rms_norm(x, &self.weight, self.eps)?)
    }
}
