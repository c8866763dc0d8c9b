//! How activations lie: `[t, h, w, c]`, with zeros around their planes; what norms are given.

use candle_core::{DType, Tensor, bail};

use crate::Result;

/// Zeros around a plane: top, bottom, left, right.
pub type Padding = [usize; 4];

/// The learned part of a group norm, and how it is divided.
#[derive(Debug, Clone, Copy)]
pub struct GroupNorm<'a> {
    /// `[c]`
    pub weight: &'a Tensor,
    /// `[c]`
    pub bias: &'a Tensor,
    /// Groups of channels; they divide c.
    pub groups: usize,
    /// What is added to the variance.
    pub eps: f64,
}

/// Whether a tensor can be an activation of [`crate::conv`]: four dimensions, a type that computes.
pub(crate) fn check_activation(what: &str, x: &Tensor) -> Result<[usize; 4]> {
    let Ok((t, h, w, c)) = x.dims4() else {
        bail!("{what}: {:?}; expected [t, h, w, c]", x.dims());
    };
    if !matches!(x.dtype(), DType::F32 | DType::BF16 | DType::F16) {
        bail!("{what}: activations of type {:?}", x.dtype());
    }
    Ok([t, h, w, c])
}
