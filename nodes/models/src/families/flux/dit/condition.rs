//! What steers the blocks: the noise level, the guidance where the model is told it, and the text
//! as a whole.

use candle_core::{DType, Device, Tensor};
use kino_kernels as kernels;

use crate::error::{Error, Result};
use crate::families::flux::transformer::TransformerConfig;
use crate::timestep::sinusoids;
use crate::weight::{Linear, Weights};

/// A text as the blocks read it, made once a run and not once a step.
#[derive(Debug, Clone)]
pub struct Context {
    pub(super) rows: Tensor,   // [rows, dim]
    pub(super) pooled: Tensor, // [1, dim], f32
}

/// Width of a sinusoidal embedding.
const WAVES: usize = 256;

/// Two layers with SiLU between them, in f32 whatever the compute type.
#[derive(Debug)]
struct Embedder {
    inner: Linear,
    out: Linear,
}

impl Embedder {
    fn load(weights: &Weights, width: usize, dim: usize) -> Result<Self> {
        Ok(Self {
            inner: Linear::load_f32(&weights.scope("linear_1"), width, dim)?,
            out: Linear::load_f32(&weights.scope("linear_2"), dim, dim)?,
        })
    }

    /// `[1, width]` → `[1, dim]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.out.forward(&kernels::silu(&self.inner.forward(x)?)?)
    }
}

/// The sum of all that steers the blocks (`CombinedTimestepGuidanceTextProjEmbeddings`).
#[derive(Debug)]
pub(super) struct Conditioner {
    time: Embedder,
    guidance: Option<Embedder>,
    text: Embedder,
    device: Device,
}

impl Conditioner {
    pub(super) fn load(config: &TransformerConfig, weights: &Weights) -> Result<Self> {
        let embedder =
            |name: &str, width| Embedder::load(&weights.scope(name), width, config.dim());
        let guidance = config.guidance_embeds.then(|| embedder("guidance_embedder", WAVES));
        Ok(Self {
            time: embedder("timestep_embedder", WAVES)?,
            guidance: guidance.transpose()?,
            text: embedder("text_embedder", config.pooled_projection_dim)?,
            device: weights.device().clone(),
        })
    }

    /// What the text as a whole adds: `[1, pooled]` → `[1, dim]`, f32.
    pub(super) fn pooled(&self, pooled: &Tensor) -> Result<Tensor> {
        self.text.forward(pooled)
    }

    /// The SiLU of the sum, `[1, dim]` in f32, for a timestep in 0…1000.
    pub(super) fn steering(
        &self,
        (timestep, guidance): (f64, Option<f64>),
        context: &Context,
    ) -> Result<Tensor> {
        // Divided and multiplied again in f32, as the pipeline and the transformer do.
        let timestep = f64::from(timestep as f32 / 1000.0 * 1000.0);
        let mut sum = self.time.forward(&sinusoids(timestep, WAVES, &self.device)?)?;
        match (&self.guidance, guidance) {
            (None, _) => {}
            (Some(embedder), Some(guidance)) => {
                let waves = sinusoids(f64::from(guidance as f32 * 1000.0), WAVES, &self.device)?;
                sum = (sum + embedder.forward(&waves)?)?;
            }
            (Some(_), None) => {
                return Err(Error::input("this transformer is told a guidance, and there is none"));
            }
        }
        Ok(kernels::silu(&(sum + &context.pooled)?)?)
    }
}

/// Shifts, scales and gates of one norm: `parts` rows, each `[1, dim]` in f32.
#[derive(Debug)]
pub(super) struct Modulation {
    layer: Linear,
    parts: usize,
}

impl Modulation {
    /// Reads `linear`.
    pub(super) fn load(weights: &Weights, dim: usize, parts: usize) -> Result<Self> {
        Ok(Self { layer: Linear::load(&weights.scope("linear"), dim, parts * dim)?, parts })
    }

    /// Shape: `steering` `[1, dim]`, already its SiLU.
    pub(super) fn of(&self, steering: &Tensor) -> Result<Vec<Tensor>> {
        let all = self.layer.forward(steering)?.to_dtype(DType::F32)?;
        let parts = all.chunk(self.parts, 1)?.into_iter();
        parts.map(|part| Ok(part.contiguous()?)).collect()
    }
}

/// The last shift and scale: one layer that gives the scale first (diffusers), or one for each,
/// which is what the layer of other files is cut into, that gives the shift first.
#[derive(Debug)]
pub(super) enum FinalModulation {
    Both(Modulation),
    Apart { shift: Linear, scale: Linear },
}

impl FinalModulation {
    pub(super) fn load(dim: usize, weights: &Weights) -> Result<Self> {
        if weights.contains("shift.weight") {
            let half = |name: &str| Linear::load(&weights.scope(name), dim, dim);
            return Ok(Self::Apart { shift: half("shift")?, scale: half("scale")? });
        }
        Ok(Self::Both(Modulation::load(weights, dim, 2)?))
    }

    /// Shift and scale, each `[1, dim]` in f32.
    pub(super) fn of(&self, steering: &Tensor) -> Result<(Tensor, Tensor)> {
        match self {
            Self::Both(layer) => {
                let mut parts = layer.of(steering)?.into_iter();
                let missing = || Error::input("a modulation without shift and scale");
                let (scale, shift) = (parts.next(), parts.next());
                Ok((shift.ok_or_else(missing)?, scale.ok_or_else(missing)?))
            }
            Self::Apart { shift, scale } => {
                let of = |half: &Linear| -> Result<Tensor> {
                    Ok(half.forward(steering)?.to_dtype(DType::F32)?)
                };
                Ok((of(shift)?, of(scale)?))
            }
        }
    }
}
