//! Values made of tensors: latents, patches, conditioning, schedules, guiders.

use std::sync::Arc;

use candle_core::Tensor;
use kino_port::Sigma;
use serde::{Deserialize, Serialize};

use crate::{Cancel, Result};

/// The latent space of one autoencoder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// The fingerprint of the autoencoder's configuration and weights.
    pub id: [u8; 32],
    /// Channels of a latent.
    pub channels: usize,
    /// Frames a latent frame stands for, but for the first, which stands for one.
    pub temporal: usize,
    /// Pixels a side that a latent pixel stands for.
    pub spatial: usize,
}

/// A normalised latent.
#[derive(Clone, Debug)]
pub struct Latent {
    /// `[c, f, h, w]`, f32.
    pub tensor: Tensor,
    /// The space that it lies in, where it is known.
    pub space: Option<Space>,
}

/// One clip among packed patches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clip {
    /// Its name, where the list of latents was a map.
    pub name: Option<String>,
    /// Patches along time, height and width.
    pub grid: [usize; 3],
    /// Channels of its latent.
    pub channels: usize,
    /// The space of its latent, where it is known.
    pub space: Option<Space>,
}

impl Clip {
    /// The number of patches: t·h·w.
    pub fn tokens(&self) -> usize {
        self.grid.iter().product()
    }
}

/// Latents cut into spacetime patches, packed over clips.
#[derive(Clone, Debug)]
pub struct Patches {
    /// `[tokens, c·pt·ph·pw]`, clip after clip, each in the order t, h, w.
    pub tokens: Tensor,
    /// The clips, in order.
    pub clips: Vec<Clip>,
    /// The patch `(pt, ph, pw)`.
    pub patch: [usize; 3],
}

/// Text embeddings of a prompt and of a negative prompt, each zero-padded to the model's text
/// length.
#[derive(Clone, Debug)]
pub struct Conditioning {
    /// `[rows, dim]` of the prompt.
    pub positive: Tensor,
    /// `[rows, dim]` of the negative prompt.
    pub negative: Tensor,
}

/// Noise levels of a run: one a step, and the level after the last.
#[derive(Clone, Debug, PartialEq)]
pub struct Sigmas(pub Arc<[Sigma]>);

impl Sigmas {
    /// The number of steps of the run.
    pub fn steps(&self) -> usize {
        self.0.len().saturating_sub(1)
    }
}

/// One step of a sampling run, as a guider sees it.
#[derive(Clone, Copy, Debug)]
pub struct SamplingStep {
    /// The step, from 0.
    pub index: usize,
    /// The number of steps of the run.
    pub count: usize,
    /// The noise level.
    pub sigma: Sigma,
}

/// Something that joins the velocities with and without text; it begins anew for each sampling run.
pub trait Guider: Send + Sync {
    /// The state for one sampling run of one clip, which `cancel` stops. A guider outlives the run
    /// that made it.
    fn begin(&self, cancel: &Cancel) -> Box<dyn Guidance>;
}

/// A guider within one sampling run of one clip.
pub trait Guidance: Send {
    /// Whether this step needs the velocity without text at all; skipping it halves the step.
    fn guides(&self, step: SamplingStep) -> bool;

    /// The velocity to follow. Shapes: all `[tokens, c·pt·ph·pw]` of one clip.
    ///
    /// # Errors
    /// When the shapes differ or a tensor operation fails.
    fn guide(&mut self, step: SamplingStep, with_text: &Tensor, without: &Tensor)
    -> Result<Tensor>;
}
