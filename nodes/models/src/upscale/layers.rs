//! What the networks share: a border of zeros around planes, and bytes of activations.

use candle_core::Tensor;
use kino_kernels::{Activation, Epilogue, Padding};

use crate::error::Result;

/// Colours of a pixel.
pub(super) const RGB: usize = 3;

/// One pixel of zeros on every side: what a kernel of three needs.
pub(super) const BORDER: Padding = [1; 4];

/// An activation, with a border around it for the next convolution.
pub(super) fn bordered(activation: Activation<'_>) -> Epilogue<'_> {
    Epilogue { activation, padding: BORDER, ..Epilogue::default() }
}

/// A plane without its border: a view.
pub(super) fn without_border(x: &Tensor) -> Result<Tensor> {
    let (_, h, w, _) = x.dims4()?;
    Ok(x.narrow(1, 1, h - 2)?.narrow(2, 1, w - 2)?)
}

/// Bytes of f32 activations of a size, in planes of `[height, width]` with a border.
pub(super) fn plane_bytes([height, width]: [usize; 2], channels: usize) -> u64 {
    let pixels = (height as u128 + 2) * (width as u128 + 2);
    u64::try_from(pixels * channels as u128 * 4).unwrap_or(u64::MAX)
}

/// The same for planes `factor` times higher and wider.
pub(super) fn enlarged_bytes([height, width]: [usize; 2], factor: usize, channels: usize) -> u64 {
    plane_bytes([height.saturating_mul(factor), width.saturating_mul(factor)], channels)
}
