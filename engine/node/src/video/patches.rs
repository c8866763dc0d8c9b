//! Patches: latents as a transformer reads them.

use candle_core::{DType, Device, Tensor};
use kino_port::PortType;
use serde::{Deserialize, Serialize};

use super::LatentSpace;
use crate::stored::{TensorHeader, TensorReader};
use crate::types::{Field, Fields, Opaque, TensorFact, Tensors, ValueType, check_shape};
use crate::{Error, Result};

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
    pub space: Option<LatentSpace>,
}

impl Clip {
    /// The number of patches: t·h·w.
    pub fn tokens(&self) -> usize {
        self.grid.iter().product()
    }

    /// What would have been known of it before it was there.
    pub fn fact(&self) -> ClipFact {
        let (name, space) = (self.name.clone(), self.space.clone());
        ClipFact { name, grid: self.grid.map(Some), channels: self.channels, space }
    }
}

/// What is known of one clip among packed patches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClipFact {
    /// Its name, where the list of latents was a map.
    pub name: Option<String>,
    /// Patches along time, height and width, those that are known.
    pub grid: [Option<usize>; 3],
    /// Channels of its latent.
    pub channels: usize,
    /// The space of its latent, where it is known.
    pub space: Option<LatentSpace>,
}

impl ClipFact {
    /// The number of patches: t·h·w, where it is known.
    pub fn tokens(&self) -> Option<usize> {
        self.grid.into_iter().try_fold(1, |tokens: usize, side| Some(tokens.saturating_mul(side?)))
    }

    /// The clip, if all of it is known.
    pub fn clip(&self) -> Option<Clip> {
        let [t, h, w] = self.grid;
        let (name, space) = (self.name.clone(), self.space.clone());
        Some(Clip { name, grid: [t?, h?, w?], channels: self.channels, space })
    }

    /// The shape of its latent of patches `(t, h, w)`, `[c, f, h, w]`, as far as it is known.
    pub fn shape(&self, patch: [usize; 3]) -> [Option<usize>; 4] {
        let side = |axis: usize| self.grid[axis].map(|side| side.saturating_mul(patch[axis]));
        [Some(self.channels), side(0), side(1), side(2)]
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

/// What is known of packed patches.
#[derive(Clone, Debug, PartialEq)]
pub struct PatchesFact {
    /// The clips, in order.
    pub clips: Vec<ClipFact>,
    /// The patch `(t, h, w)`.
    pub patch: [usize; 3],
}

/// The product, if it is a size.
fn product(sizes: impl IntoIterator<Item = usize>) -> Option<usize> {
    sizes.into_iter().try_fold(1_usize, usize::checked_mul)
}

impl ValueType for Patches {
    const PORT: PortType = PortType::Patches;
    type Fact = PatchesFact;
    type Header = (TensorHeader, Vec<Clip>, [usize; 3]);

    fn check(&self) -> Result<()> {
        check_shape::<Self>(&self.tokens)?;
        let (rows, width) = self.tokens.dims2()?;
        let found = self.tokens.dims();
        let mut tokens = self.clips.iter().map(|clip| product(clip.grid));
        let tokens = tokens.try_fold(0_usize, |sum, tokens| sum.checked_add(tokens?));
        if tokens != Some(rows) {
            let tokens = tokens.map_or_else(|| "too many".to_owned(), |tokens| tokens.to_string());
            return Err(Error::failed(format!(
                "the clips have {tokens} tokens, found a tensor {found:?}"
            )));
        }
        let [pt, ph, pw] = self.patch;
        for Clip { channels, .. } in &self.clips {
            if width == 0 || product([*channels, pt, ph, pw]) != Some(width) {
                return Err(Error::failed(format!(
                    "a token of {channels} channels and {pt}x{ph}x{pw} patches has \
                     {channels}·{pt}·{ph}·{pw} values, found a tensor {found:?}"
                )));
            }
        }
        Ok(())
    }

    fn fact(&self) -> PatchesFact {
        PatchesFact { clips: self.clips.iter().map(Clip::fact).collect(), patch: self.patch }
    }

    fn shape(&self) -> Option<Vec<usize>> {
        Some(self.tokens.dims().to_vec())
    }

    fn tensor(&self) -> Result<Tensor> {
        Ok(self.tokens.clone())
    }

    fn tensor_of_fact(fact: &PatchesFact) -> Option<TensorFact> {
        let tokens = fact.clips.iter().map(ClipFact::tokens).sum::<Option<usize>>()?;
        let width = fact.clips.first()?.channels * fact.patch.iter().product::<usize>();
        Some(TensorFact { shape: vec![tokens, width], dtype: DType::F32 })
    }

    fn field(&self, name: &str) -> Result<Option<Field>> {
        Ok(match name {
            "tensor" => Some(Field::Tensor(self.tokens.clone())),
            "clips" => Some(Field::Opaque(Opaque::new("Clips", self.clips.clone()))),
            "patch" => Some(Field::Ints(self.patch.to_vec())),
            _ => None,
        })
    }

    fn from_fields(fields: &dyn Fields) -> Result<Self> {
        let clips = fields.opaque("clips")?;
        let clips = clips.and_then(|clips| clips.get::<Vec<Clip>>().cloned());
        let clips = clips.ok_or_else(|| {
            Error::failed("a record of type Patches needs `clips` as other patches have them")
        })?;
        let patch = fields.sizes("patch")?.try_into().map_err(|found| {
            Error::failed(format!("the size of a patch is [t, h, w], found {found:?}"))
        })?;
        Ok(Patches { tokens: fields.need_tensor("tensor")?, clips, patch })
    }

    fn to_device(&self, device: &Device) -> Result<Option<Self>> {
        let tokens = self.tokens.to_device(device)?;
        Ok(Some(Patches { tokens, clips: self.clips.clone(), patch: self.patch }))
    }

    fn header(&self) -> Self::Header {
        (TensorHeader::of(&self.tokens), self.clips.clone(), self.patch)
    }

    fn tensors(&self) -> Tensors<'_> {
        Box::new([Ok(self.tokens.clone())].into_iter())
    }

    fn restore(
        (tokens, clips, patch): Self::Header,
        tensors: &mut TensorReader<'_>,
    ) -> Result<Self> {
        Ok(Patches { tokens: tensors.next(&tokens)?, clips, patch })
    }
}
