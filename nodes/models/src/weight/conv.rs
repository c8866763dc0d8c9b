//! The convolution layer.

use candle_core::Tensor;
use kino_kernels::{ConvInput, ConvWeights, conv};

use super::weights::Weights;
use crate::error::Result;

/// A convolution over time and space, in the form in which its kernel is held.
#[derive(Debug)]
pub enum Conv {
    /// Numbers of one type, packed for the kernels once, when they are loaded.
    Dense(ConvWeights),
}

impl Conv {
    /// Reads `weight` `[cout, cin, kt, kh, kw]` (without kt where the layer is 2-D) and `bias`.
    ///
    /// # Errors
    /// When one is missing or has another shape.
    pub fn load(
        weights: &Weights,
        [cin, cout]: [usize; 2],
        kernel: &[usize],
        stride: [usize; 3],
    ) -> Result<Self> {
        let shape = [&[cout, cin], kernel].concat();
        let weight = weights.get("weight", shape)?;
        let bias = weights.get("bias", cout)?;
        Ok(Self::Dense(ConvWeights::pack(&weight, Some(&bias), stride)?))
    }

    /// Convolves, and adds `residual` if there is one.
    ///
    /// # Errors
    /// When shapes or types differ.
    pub fn forward(&self, input: ConvInput<'_>, residual: Option<&Tensor>) -> Result<Tensor> {
        match self {
            Self::Dense(weights) => Ok(conv(input, weights, residual)?),
        }
    }
}
