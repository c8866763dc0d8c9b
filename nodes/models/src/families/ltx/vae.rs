//! The video autoencoder `AutoencoderKLLTXVideo`: frames to latents and back.
//!
//! Formulas follow `autoencoder_kl_ltx.py` of diffusers. The encoder sees only frames before, so a
//! clip is encoded chunk by chunk; what a convolution needs of the chunk before stands in a cache.
//! The decoder of published models sees frames that are still to come, so a latent is decoded
//! whole. From 0.9.1 on it may be told how noisy the latent is, and add noise of its own.
//!
//! Activations are channels-last, `[t, h, w, c]`; latents that leave this module are `[c, f, h, w]`
//! and normalised.

mod decoder;
mod encoder;
mod layers;
mod size;

use candle_core::{DType, Tensor};

use super::autoencoder::VaeConfig;
use crate::error::Result;
use crate::weight::Weights;
pub(super) use decoder::Decoder;
pub(super) use encoder::Encoder;
pub(super) use size::{decode_peak, encode_peak};

/// Mean and standard deviation of each latent channel, `[c]` in f32: weights of the file.
#[derive(Debug, Clone)]
struct Statistics {
    mean: Tensor,
    deviation: Tensor,
    scaling: f64,
}

impl Statistics {
    fn read(config: &VaeConfig, weights: &Weights) -> Result<Self> {
        let read = |name| weights.get_as(name, config.latent_channels, DType::F32);
        let (mean, deviation) = (read("latents_mean")?, read("latents_std")?);
        Ok(Self { mean, deviation, scaling: config.scaling_factor })
    }

    /// (z − μ)·scaling/σ over the last dimension.
    fn normalize(&self, latent: &Tensor) -> Result<Tensor> {
        let centred = latent.broadcast_sub(&self.mean)?.affine(self.scaling, 0.0)?;
        Ok(centred.broadcast_div(&self.deviation)?)
    }

    /// z·σ/scaling + μ over the last dimension.
    fn restore(&self, latent: &Tensor) -> Result<Tensor> {
        let wide = latent.broadcast_mul(&self.deviation)?.affine(1.0 / self.scaling, 0.0)?;
        Ok(wide.broadcast_add(&self.mean)?)
    }
}
