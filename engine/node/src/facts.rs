//! What nodes tell each other of values that do not exist yet.

use candle_core::DType;

use crate::{Clip, Embeddings, Space};

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

/// What is known of conditioning: the shape of each tensor of the prompt, by its name. Those of the
/// negative prompt have the same names and widths.
#[derive(Clone, Debug, PartialEq)]
pub struct ConditioningFact {
    /// Name and shape of each.
    pub embeddings: Vec<(String, Vec<usize>)>,
}

impl ConditioningFact {
    /// Embeddings of a text alone: `[rows, dim]`, rows of padding included.
    pub fn of_text(rows: usize, dim: usize) -> Self {
        ConditioningFact { embeddings: vec![(Embeddings::TEXT.to_owned(), vec![rows, dim])] }
    }

    /// The shape of the embeddings of a name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        let found = self.embeddings.iter().find(|(other, _)| other == name);
        found.map(|(_, shape)| shape.as_slice())
    }

    /// Rows and width of the text's embeddings.
    pub fn text(&self) -> Option<(usize, usize)> {
        match *self.shape(Embeddings::TEXT)? {
            [rows, dim] => Some((rows, dim)),
            _ => None,
        }
    }
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
