//! Layers that several architectures share.

use candle_core::Tensor;
use kino_kernels as kernels;

use crate::error::Result;
use crate::weights::Weights;

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
