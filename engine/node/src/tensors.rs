//! Values made of tensors: latents, patches, conditioning, schedules, guiders.

use std::sync::Arc;

use candle_core::Tensor;
use kino_port::Sigma;
use serde::{Deserialize, Serialize};

use crate::{Cancel, Error, Result};

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

/// What leads a model: the embeddings of a prompt, and those of a negative prompt.
#[derive(Clone, Debug, Default)]
pub struct Conditioning {
    /// Of the prompt.
    pub positive: Embeddings,
    /// Of the negative prompt.
    pub negative: Embeddings,
}

impl Conditioning {
    /// Embeddings of two texts alone, each `[rows, dim]`.
    pub fn of_text(positive: Tensor, negative: Tensor) -> Self {
        Conditioning {
            positive: Embeddings::of_text(positive),
            negative: Embeddings::of_text(negative),
        }
    }

    /// The embeddings of both with every tensor replaced.
    ///
    /// # Errors
    /// When `replace` fails.
    pub fn map(&self, replace: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Conditioning {
            positive: self.positive.map(&replace)?,
            negative: self.negative.map(&replace)?,
        })
    }
}

/// The embeddings of one prompt by name: `text`, `pooled`, `image`, and whatever else a family of
/// models reads. Their order is the one in which they were added.
#[derive(Clone, Debug, Default)]
pub struct Embeddings(Vec<Embedding>);

/// One tensor among embeddings.
#[derive(Clone, Debug)]
pub struct Embedding {
    /// What it is called among the embeddings of its prompt.
    pub name: Arc<str>,
    /// The embeddings: `[rows, dim]` of a sequence, `[dim]` of a pooled one.
    pub tensor: Tensor,
    /// `[rows]`, 1 where a row counts and 0 where it is padding; without one, all rows count.
    pub mask: Option<Tensor>,
}

impl Embeddings {
    /// The name of the sequence that a text encoder gives.
    pub const TEXT: &str = "text";

    /// The embeddings of a text alone, `[rows, dim]`.
    pub fn of_text(tensor: Tensor) -> Self {
        Embeddings(vec![Embedding { name: Self::TEXT.into(), tensor, mask: None }])
    }

    /// With one more tensor, in place of the one of its name.
    ///
    /// # Errors
    /// When the mask is not `[rows]` of the tensor.
    pub fn with(mut self, name: &str, tensor: Tensor, mask: Option<Tensor>) -> Result<Self> {
        if let Some(mask) = &mask
            && (tensor.rank() < 2 || mask.dims() != &tensor.dims()[..1])
        {
            return Err(Error::failed(format!(
                "the mask of the embeddings `{name}` {:?} is [rows], found {:?}",
                tensor.dims(),
                mask.dims()
            )));
        }
        self.0.retain(|embedding| &*embedding.name != name);
        self.0.push(Embedding { name: name.into(), tensor, mask });
        Ok(self)
    }

    /// The embedding of a name, where there is one.
    pub fn get(&self, name: &str) -> Option<&Embedding> {
        self.0.iter().find(|embedding| &*embedding.name == name)
    }

    /// The embedding of a name.
    ///
    /// # Errors
    /// When there is none of it.
    pub fn need(&self, name: &str) -> Result<&Embedding> {
        self.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.0.iter().map(|embedding| &*embedding.name).collect();
            let found = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            Error::failed(format!("expected embeddings `{name}`, found {found}"))
        })
    }

    /// The sequence that a text encoder gave, `[rows, dim]`.
    ///
    /// # Errors
    /// When there is none.
    pub fn text(&self) -> Result<&Tensor> {
        Ok(&self.need(Self::TEXT)?.tensor)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Embedding> {
        self.0.iter()
    }

    /// All tensors, those of the masks too.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.0.iter().flat_map(|embedding| [&embedding.tensor].into_iter().chain(&embedding.mask))
    }

    fn map(&self, replace: &impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let one = |embedding: &Embedding| {
            Ok(Embedding {
                name: Arc::clone(&embedding.name),
                tensor: replace(&embedding.tensor)?,
                mask: embedding.mask.as_ref().map(replace).transpose()?,
            })
        };
        Ok(Embeddings(self.0.iter().map(one).collect::<Result<_>>()?))
    }
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
