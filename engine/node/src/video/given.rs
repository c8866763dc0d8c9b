//! Frames that a clip must contain.

use candle_core::Device;
use kino_port::PortType;
use serde::{Deserialize, Serialize};

use super::{Latent, LatentSpace, Mask};
use crate::types::{TensorHeader, TensorReader, Tensors, ValueType};
use crate::{Error, Result};

/// What of a clip is given and must come out as it is: the first frames, the last, or any others.
#[derive(Clone, Debug)]
pub struct Given {
    /// The whole clip, `[c, f, h, w]`: encoded where something is given, anything elsewhere.
    pub latent: Latent,
    /// `[f, h, w]` of the latent: 1 where it is given.
    pub mask: Mask,
    /// The number of frames of the clip in pixels.
    pub frames: usize,
    /// How strongly it is held to, from 0 to 1.
    pub strength: f64,
}

/// What is known of given frames.
#[derive(Clone, Debug, PartialEq)]
pub struct GivenFact {
    /// `[c, f, h, w]` of the whole clip.
    pub shape: [usize; 4],
    /// The space that its latent lies in, where it is known.
    pub space: Option<LatentSpace>,
    /// The number of frames of the clip in pixels.
    pub frames: usize,
}

/// All of a [`Given`] but the elements of its tensors.
#[derive(Serialize, Deserialize)]
pub struct GivenHeader {
    latent: (TensorHeader, Option<LatentSpace>),
    mask: TensorHeader,
    frames: usize,
    /// The bits, so that nothing is rounded.
    strength: u64,
}

impl ValueType for Given {
    const PORT: PortType = PortType::Given;
    type Fact = GivenFact;
    type Header = GivenHeader;

    fn check(&self) -> Result<()> {
        self.latent.check()?;
        self.mask.check()?;
        let (latent, mask) = (self.latent.tensor.dims(), self.mask.tensor.dims());
        if mask != &latent[1..] {
            return Err(Error::failed(format!(
                "the mask of what is given is [f, h, w] of its latent {latent:?}, found {mask:?}"
            )));
        }
        if !(0.0..=1.0).contains(&self.strength) {
            return Err(Error::failed(format!(
                "the strength of what is given lies in 0…1, found {}",
                self.strength
            )));
        }
        match self.frames {
            0 => Err(Error::failed("a clip has at least one frame, found none")),
            _ => Ok(()),
        }
    }

    fn fact(&self) -> GivenFact {
        let latent = self.latent.fact();
        GivenFact { shape: latent.shape, space: latent.space, frames: self.frames }
    }

    fn to_device(&self, device: &Device) -> Result<Option<Self>> {
        Ok(match (self.latent.to_device(device)?, self.mask.to_device(device)?) {
            (Some(latent), Some(mask)) => Some(Given { latent, mask, ..*self }),
            _ => None,
        })
    }

    fn header(&self) -> GivenHeader {
        GivenHeader {
            latent: self.latent.header(),
            mask: self.mask.header(),
            frames: self.frames,
            strength: self.strength.to_bits(),
        }
    }

    fn tensors(&self) -> Tensors<'_> {
        Box::new(self.latent.tensors().chain(self.mask.tensors()))
    }

    fn restore(header: GivenHeader, tensors: &mut TensorReader<'_>) -> Result<Self> {
        Ok(Given {
            latent: Latent::restore(header.latent, tensors)?,
            mask: Mask::restore(header.mask, tensors)?,
            frames: header.frames,
            strength: f64::from_bits(header.strength),
        })
    }
}
