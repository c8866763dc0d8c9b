//! The table of a language model's tokens.

use candle_core::{DType, Device, Tensor};

use super::dense::Weight;
use super::linear::Linear;
use super::weights::Weights;
use crate::error::Result;

/// Rows that are looked up, in the form in which they are stored: only those that are asked for are
/// widened.
#[derive(Debug)]
pub struct Embedding {
    table: Weight,
    rows: usize,
    dtype: DType,
    device: Device,
}

impl Embedding {
    /// Reads `weight` `[rows, width]`.
    ///
    /// # Errors
    /// When it is missing or has another shape.
    pub fn load(weights: &Weights, rows: usize, width: usize) -> Result<Self> {
        let (dtype, device) = (weights.dtype(), weights.device().clone());
        let table = weights.table(rows, width)?;
        Ok(Self { table, rows, dtype, device })
    }

    /// The linear layer without bias whose matrix the table is, which it shares: the output of a
    /// language model that has none of its own.
    pub fn as_linear(&self) -> Linear {
        Linear::new(self.table.clone(), None)
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Where they lie.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Rows by their numbers, in the compute type. Shape: `[ids, width]`.
    ///
    /// # Errors
    /// When there is no such row.
    pub fn lookup(&self, ids: &[u32]) -> Result<Tensor> {
        self.table.rows(&Tensor::new(ids, &self.device)?, self.dtype)
    }
}
