//! Norms that several architectures share.

use candle_core::Tensor;
use kino_kernels as kernels;

use super::weights::Weights;
use crate::error::Result;

/// x/√(mean(x²) + eps)·weight over the last dimension; the weight is kept in f32.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    /// Reads `weight`.
    ///
    /// # Errors
    /// When it is missing or has another width.
    pub fn load(weights: &Weights, width: usize, eps: f64) -> Result<Self> {
        let weight = weights.get_as("weight", width, candle_core::DType::F32)?;
        Ok(Self { weight, eps })
    }

    /// Shapes: any, its last dimension the width.
    ///
    /// # Errors
    /// When the width differs.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(kernels::rms_norm(x, &self.weight, self.eps)?)
    }

    /// The norm, then the rotation of each head by the angle of its row.
    ///
    /// Shapes: `x` `[n, heads·d]`, the rotation's cosines and sines `[n, d/2]`; the result is
    /// `[n, heads, d]`.
    ///
    /// # Errors
    /// When a width differs.
    pub fn rotated(
        &self,
        x: &Tensor,
        heads: usize,
        rotation: (&Tensor, &Tensor),
    ) -> Result<Tensor> {
        Ok(kernels::rms_norm_rope(x, &self.weight, self.eps, heads, rotation)?)
    }
}

/// (x − mean)/√(variance + eps)·weight + bias over the last dimension; both are kept in f32.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// Reads `weight` and `bias`.
    ///
    /// # Errors
    /// When one is missing or has another width.
    pub fn load(weights: &Weights, width: usize, eps: f64) -> Result<Self> {
        let read = |name| weights.get_as(name, width, candle_core::DType::F32);
        Ok(Self { weight: read("weight")?, bias: read("bias")?, eps })
    }

    /// Shapes: any, its last dimension the width.
    ///
    /// # Errors
    /// When the width differs.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(kernels::layer_norm(x, Some(&self.weight), Some(&self.bias), self.eps)?)
    }
}
