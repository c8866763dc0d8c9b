//! What operations on tensors take besides tensors.

use crate::{Result, Tensor};

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

impl Operand for f64 {
    fn join(&self, name: &str, with: &Tensor) -> Result<Tensor> {
        match name {
            "add" => with.affine(1.0, *self),
            "sub" => with.affine(1.0, -self),
            "mul" => with.affine(*self, 0.0),
            _ => with.op(name, &[&Tensor::scalar(*self, with.dtype())?], ""),
        }
    }
}

/// How sizes are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The nearest element.
    Nearest,
    /// A straight line between neighbours.
    Bilinear,
    /// Three lobes of a windowed sinc.
    Lanczos,
}

impl Filter {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Filter::Nearest => "nearest",
            Filter::Bilinear => "bilinear",
            Filter::Lanczos => "lanczos",
        }
    }
}

/// What lies beyond the ends of a padded dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// Zeros.
    Zeros,
    /// The last element again.
    Edge,
}

/// How a kernel moves over an image; [`Default`]: every pixel, no padding, one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Pixels from one place to the next.
    pub stride: usize,
    /// Zeros beyond each border.
    pub padding: usize,
    /// Pixels between two weights.
    pub dilation: usize,
    /// Groups of channels that do not see each other.
    pub groups: usize,
}

impl Default for Conv {
    fn default() -> Self {
        Conv { stride: 1, padding: 0, dilation: 1, groups: 1 }
    }
}
