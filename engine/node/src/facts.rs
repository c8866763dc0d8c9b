//! What nodes tell each other of values that do not exist yet.

use candle_core::DType;

use crate::{Clip, Space};

/// What is known of frames: `[count, height, width, 3]`.
#[derive(Clone, Debug, PartialEq)]
pub struct FramesFact {
    /// The number of frames, where it is known.
    pub count: Option<usize>,
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// Frames a second, where it is known.
    pub fps: Option<f64>,
}

/// What is known of a latent: `[channels, frames, height, width]`.
#[derive(Clone, Debug, PartialEq)]
pub struct LatentFact {
    /// `[channels, frames, height, width]`.
    pub shape: [usize; 4],
    /// The space that it lies in, where it is known.
    pub space: Option<Space>,
}

/// What is known of packed patches.
#[derive(Clone, Debug, PartialEq)]
pub struct PatchesFact {
    /// The clips, in order.
    pub clips: Vec<Clip>,
    /// The patch `(t, h, w)`.
    pub patch: [usize; 3],
}

/// What is known of text embeddings: `[rows, dim]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ConditioningFact {
    /// Rows, the padding included.
    pub rows: usize,
    /// The width of an embedding.
    pub dim: usize,
}

/// What is known of a schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct SigmasFact {
    /// The number of steps.
    pub steps: usize,
}

/// What is known of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorFact {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its element type.
    pub dtype: DType,
}
