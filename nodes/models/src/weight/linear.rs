//! The linear layer.

use candle_core::Tensor;
use kino_kernels as kernels;

use crate::error::Result;
use crate::weight::Weights;

/// x·Wᵀ + b.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    pub(crate) fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// A layer with bias in the compute type.
    pub(crate) fn load(weights: &Weights, inner: usize, out: usize) -> Result<Self> {
        let bias = Some(weights.get("bias", out)?);
        Ok(Self { weight: weights.get("weight", (out, inner))?, bias })
    }

    /// A layer with bias in f32, whatever the compute type.
    pub(crate) fn load_f32(weights: &Weights, inner: usize, out: usize) -> Result<Self> {
        let f32 = candle_core::DType::F32;
        let bias = Some(weights.get_as("bias", out, f32)?);
        Ok(Self { weight: weights.get_as("weight", (out, inner), f32)?, bias })
    }

    /// A layer without bias.
    pub(crate) fn load_plain(weights: &Weights, inner: usize, out: usize) -> Result<Self> {
        Ok(Self { weight: weights.get("weight", (out, inner))?, bias: None })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(kernels::linear(x, &self.weight, self.bias.as_ref())?)
    }
}
