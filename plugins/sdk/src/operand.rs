//! What operations on tensors take besides tensors.

use crate::{DType, Result, Tensor};

/// The second part of an operation on two: a tensor, or one number for all elements.
pub trait Operand {
    /// Runs the operation `name` of a tensor and this.
    #[doc(hidden)]
    fn join(&self, name: &str, with: &Tensor) -> Result<Tensor>;
}

impl Operand for &Tensor {
    fn join(&self, name: &str, with: &Tensor) -> Result<Tensor> {
        with.op(name, &[self], "")
    }
}

/// The number is rounded to the type of the tensor; where that holds whole numbers, it must be one
/// of them.
impl Operand for f64 {
    fn join(&self, name: &str, with: &Tensor) -> Result<Tensor> {
        let halves = matches!(with.dtype(), DType::Bf16 | DType::F16);
        match name {
            "add" if self.is_finite() => with.affine(1.0, *self),
            "sub" if self.is_finite() => with.affine(1.0, -self),
            "mul" if self.is_finite() => with.affine(*self, 0.0),
            // Rounded once, and not the number before.
            "div" if halves && self.recip().is_finite() => with.affine(self.recip(), 0.0),
            _ => {
                let number = Tensor::scalar(*self, with.dtype()).map_err(|error| error.at(name))?;
                with.op(name, &[&number], "")
            }
        }
    }
}
