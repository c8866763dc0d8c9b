//! What a layer multiplies by, and adapters beside it.

use candle_core::{DType, Tensor};
use kino_kernels as kernels;

use crate::error::{Error, Result};

/// The matrix of a linear layer, in the form in which it is held.
#[derive(Debug, Clone)]
pub enum Weight {
    /// Numbers of one type, `[out, inner]`: f32 or bf16.
    Dense(Tensor),
}

impl Weight {
    /// x·Wᵀ + bias. Shapes: `x` `[…, inner]`; the result `[…, out]`.
    ///
    /// # Errors
    /// When shapes or types differ.
    pub fn multiply(&self, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        match self {
            Self::Dense(weight) => Ok(kernels::linear(x, weight, bias)?),
        }
    }
}

/// A change of a weight by a matrix of low rank (LoRA, arXiv:2106.09685): scale·B·A.
///
/// It is applied beside the weight, which is shared and stays as it is.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// A, `[rank, inner]`.
    pub down: Weight,
    /// B, `[out, rank]`.
    pub up: Weight,
    /// How strongly it counts.
    pub scale: f64,
}

impl Adapter {
    /// What it adds to a layer's result: (scale·x·Aᵀ)·Bᵀ.
    ///
    /// # Errors
    /// When shapes or types differ.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let narrow = (self.down.multiply(x, None)? * self.scale)?; // […, rank]
        self.up.multiply(&narrow, None)
    }

    /// What it adds to the weight itself, scale·B·A, `[out, inner]`.
    ///
    /// # Errors
    /// When shapes differ.
    pub(super) fn product(&self) -> Result<Tensor> {
        let (Weight::Dense(down), Weight::Dense(up)) = (&self.down, &self.up);
        Ok((up.matmul(down)? * self.scale)?)
    }

    /// The same in another type.
    pub(super) fn to_dtype(&self, dtype: DType) -> Result<Self> {
        let (Weight::Dense(down), Weight::Dense(up)) = (&self.down, &self.up);
        let cast = |weight: &Tensor| Ok::<_, Error>(Weight::Dense(weight.to_dtype(dtype)?));
        Ok(Self { down: cast(down)?, up: cast(up)?, scale: self.scale })
    }
}
