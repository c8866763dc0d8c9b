//! The convolution layer.

use candle_core::Tensor;
use kino_kernels::{ConvInput, ConvWeights, Epilogue, conv, conv_sum};

use super::weights::Weights;
use crate::error::{Error, Result};

/// A convolution over time and space, in the form in which its kernel is held.
#[derive(Debug)]
pub enum Conv {
    /// Numbers of one type, packed for the kernels once, when they are loaded.
    Dense(Box<ConvWeights>),
    /// The same, cut by input channels: those lie in several tensors.
    Parts(Vec<ConvWeights>),
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
        if weights.is_probing() {
            return Ok(Self::Parts(Vec::new()));
        }
        let packed = ConvWeights::pack(&weight, Some(&bias), stride)?;
        Ok(Self::Dense(Box::new(packed)))
    }

    /// Reads a 2-D layer without stride whose input channels lie in several tensors, `cins` in
    /// each: `weight` `[cout, sum of cins, side, side]` and `bias`.
    ///
    /// # Errors
    /// When one is missing or has another shape.
    pub fn load_parts(weights: &Weights, cins: &[usize], cout: usize, side: usize) -> Result<Self> {
        let shape = [cout, cins.iter().sum(), side, side];
        let (weight, bias) = (weights.get("weight", shape.as_slice())?, weights.get("bias", cout)?);
        if weights.is_probing() {
            return Ok(Self::Parts(Vec::new()));
        }
        Self::of_parts(&weight, &bias, cins)
    }

    /// The same of a weight and a bias that are at hand.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn of_parts(weight: &Tensor, bias: &Tensor, cins: &[usize]) -> Result<Self> {
        let mut parts = Vec::with_capacity(cins.len());
        let mut from = 0;
        for (index, cin) in cins.iter().enumerate() {
            let bias = (index == 0).then_some(bias);
            let weight = weight.narrow(1, from, *cin)?;
            parts.push(ConvWeights::pack(&weight, bias, [1, 1, 1])?);
            from += cin;
        }
        Ok(Self::Parts(parts))
    }

    /// Convolves, and adds `residual` if there is one.
    ///
    /// # Errors
    /// When shapes or types differ.
    pub fn forward(&self, input: ConvInput<'_>, residual: Option<&Tensor>) -> Result<Tensor> {
        match self {
            Self::Dense(weights) => Ok(conv(input, weights, residual)?),
            Self::Parts(parts) => match parts.as_slice() {
                [weights] => Ok(conv(input, weights, residual)?),
                _ => Err(parts_differ(1, parts.len())),
            },
        }
    }

    /// Convolves frames `[t, h, w, c]` that lie in as many tensors as the layer was cut for, and
    /// finishes the sums.
    ///
    /// # Errors
    /// When shapes or types differ.
    pub fn finished(&self, frames: &[&Tensor], epilogue: &Epilogue<'_>) -> Result<Tensor> {
        let weights = match self {
            Self::Dense(weights) => std::slice::from_ref(weights.as_ref()),
            Self::Parts(parts) => parts.as_slice(),
        };
        if frames.len() != weights.len() {
            return Err(parts_differ(frames.len(), weights.len()));
        }
        let inputs = frames.iter().map(|frames| ConvInput::new(frames));
        let parts: Vec<(ConvInput<'_>, &ConvWeights)> = inputs.zip(weights).collect();
        Ok(conv_sum(&parts, epilogue)?)
    }
}

fn parts_differ(found: usize, expected: usize) -> Error {
    Error::input(format!("a convolution of {expected} tensors was given {found}"))
}
