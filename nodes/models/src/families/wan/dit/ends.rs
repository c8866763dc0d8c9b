//! Patches to tokens and back: the first layer of a transformer and the last.

use crate::error::Result;
use crate::families::wan::transformer::TransformerConfig;
use crate::weight::{Linear, Weights};

/// A convolution whose stride is its size is a linear layer on patches of so many channels.
pub(super) fn load_patch_embedding(
    config: &TransformerConfig,
    channels: usize,
    weights: &Weights,
) -> Result<Linear> {
    let ((pt, ph, pw), dim) = (config.patch_size, config.dim());
    let weight = weights.get("weight", (dim, channels, pt, ph, pw))?; // [dim, c, pt, ph, pw]
    let weight = weight.reshape((dim, channels * config.patch_volume()))?; // [dim, c·pt·ph·pw]
    Ok(Linear::new(weights.pack(weight)?, Some(weights.get("bias", dim)?)))
}

/// The model's output has channels last, (pt, ph, pw, c); its rows are sorted once so that
/// velocities come out in the order of patches, (c, pt, ph, pw).
pub(super) fn load_out(config: &TransformerConfig, weights: &Weights) -> Result<Linear> {
    let (dim, channels) = (config.dim(), config.out_channels);
    let volume = config.patch_volume();
    let rows = volume * channels;
    let weight = weights.get("weight", (rows, dim))?.reshape((volume, channels, dim))?;
    let weight = weight.transpose(0, 1)?.contiguous()?.reshape((rows, dim))?;
    let bias = weights.get("bias", rows)?.reshape((volume, channels))?;
    let bias = bias.t()?.contiguous()?.reshape(rows)?;
    Ok(Linear::new(weights.pack(weight)?, Some(bias)))
}
