//! The linear layer.

use candle_core::{DType, Tensor};
use kino_kernels::LinearEpilogue;

use super::dense::{Adapter, Weight};
use super::weights::Weights;
use crate::error::Result;

/// x·Wᵀ + b, and what adapters add.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
    adapters: Vec<Adapter>,
}

impl Linear {
    /// A layer of these.
    pub fn new(weight: Weight, bias: Option<Tensor>) -> Self {
        Self { weight, bias, adapters: Vec::new() }
    }

    /// A layer with bias in the compute type.
    ///
    /// # Errors
    /// When a weight is missing or has another shape.
    pub fn load(weights: &Weights, inner: usize, out: usize) -> Result<Self> {
        Self::load_as(weights, inner, out, weights.dtype())
    }

    /// A layer with bias in f32, whatever the compute type.
    ///
    /// # Errors
    /// When a weight is missing or has another shape.
    pub fn load_f32(weights: &Weights, inner: usize, out: usize) -> Result<Self> {
        Self::load_as(weights, inner, out, DType::F32)
    }

    fn load_as(weights: &Weights, inner: usize, out: usize, dtype: DType) -> Result<Self> {
        let bias = weights.get_as("bias", out, dtype)?;
        Ok(Self { bias: Some(bias), ..Self::matrix(weights, inner, out, dtype)? })
    }

    /// A layer without bias.
    ///
    /// # Errors
    /// When a weight is missing or has another shape.
    pub fn load_plain(weights: &Weights, inner: usize, out: usize) -> Result<Self> {
        Self::matrix(weights, inner, out, weights.dtype())
    }

    /// The matrix, shared with whoever reads the same weights, and adapters beside it.
    fn matrix(weights: &Weights, inner: usize, out: usize, dtype: DType) -> Result<Self> {
        let (weight, adapters) = weights.matrix(inner, out, dtype)?;
        Ok(Self { weight, bias: None, adapters })
    }

    /// The same layer with an adapter beside its weight.
    #[must_use]
    pub fn with_adapter(mut self, adapter: Adapter) -> Self {
        self.adapters.push(adapter);
        self
    }

    /// Shapes: `x` `[…, inner]`; the result `[…, out]`.
    ///
    /// # Errors
    /// When shapes or types differ.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.finished(x, LinearEpilogue::None)
    }

    /// The same, and what `epilogue` makes of it.
    ///
    /// # Errors
    /// When shapes or types differ.
    pub fn finished(&self, x: &Tensor, epilogue: LinearEpilogue<'_>) -> Result<Tensor> {
        if self.adapters.is_empty() {
            return self.weight.multiply(x, self.bias.as_ref(), epilogue);
        }
        let mut y = self.weight.multiply(x, self.bias.as_ref(), LinearEpilogue::None)?;
        for adapter in &self.adapters {
            y = (y + adapter.apply(x)?)?;
        }
        Ok(epilogue.apply(&y)?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// Beside the weight or merged into it: the sum is the same.
    #[test]
    fn an_adapter_beside_a_weight_equals_one_merged_into_it() {
        let random =
            |rows, columns| Tensor::randn(0f32, 1.0, (rows, columns), &Device::Cpu).unwrap();
        let (weight, down, up, x) = (random(6, 8), random(2, 8), random(6, 2), random(5, 8));
        let merged = (&weight + (up.matmul(&down).unwrap() * 0.7).unwrap()).unwrap();
        let adapter = Adapter { down, up, scale: 0.7 };
        let beside = Linear::new(Weight::Dense(weight.clone()), None).with_adapter(adapter);
        let merged = Linear::new(Weight::Dense(merged), None).forward(&x).unwrap();
        let difference = |other: &Tensor| {
            let gap = (&merged - other).unwrap().abs().unwrap().max_all().unwrap();
            gap.to_scalar::<f32>().unwrap()
        };
        assert!(difference(&beside.forward(&x).unwrap()) < 1e-4);
        let plain = Linear::new(Weight::Dense(weight), None);
        assert!(difference(&plain.forward(&x).unwrap()) > 0.1, "the adapter changes something");
    }
}
