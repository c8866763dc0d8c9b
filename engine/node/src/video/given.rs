//! Frames that a clip must contain.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use kino_port::PortType;
use serde::{Deserialize, Serialize};

use super::frames::FramesHeader;
use super::latent::{space_as_field, space_of_field};
use super::{Frames, Latent, LatentSpace, Mask};
use crate::stored::{TensorHeader, TensorReader};
use crate::types::{Content, Field, Fields, TensorFact, Tensors, ValueType};
use crate::{Error, Result};

/// What of a clip is given and must come out as it is: its first frames, its last, or both.
#[derive(Clone, Debug)]
pub struct Given {
    /// The whole clip, `[c, f, h, w]`, encoded as `encoding` says.
    pub latent: Latent,
    /// `[f, h, w]` of the latent: 1 where it is given.
    pub mask: Mask,
    /// The number of frames of the clip in pixels.
    pub frames: usize,
    /// How strongly it is held to, from 0 to 1.
    pub strength: f64,
    /// How the latent was encoded.
    pub encoding: GivenEncoding,
    /// The first frames of the clip, as they were given.
    pub start: Option<Arc<Frames>>,
    /// The last frames of the clip, as they were given.
    pub end: Option<Arc<Frames>>,
}

/// How the latent of given frames was encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GivenEncoding {
    /// What is given at the start and at the end, each for itself; anything between.
    Apart,
    /// The clip as a whole, grey where nothing is given.
    Whole,
}

impl GivenEncoding {
    /// What plugins call it.
    pub fn name(self) -> &'static str {
        match self {
            GivenEncoding::Apart => "apart",
            GivenEncoding::Whole => "whole",
        }
    }
}

/// What is known of given frames.
#[derive(Clone, Debug, PartialEq)]
pub struct GivenFact {
    /// `[c, f, h, w]` of the whole clip, those that are known.
    pub shape: [Option<usize>; 4],
    /// The space that its latent lies in, where it is known.
    pub space: Option<LatentSpace>,
    /// The number of frames of the clip in pixels, where it is known.
    pub frames: Option<usize>,
    /// How its latent was encoded.
    pub encoding: GivenEncoding,
}

impl Given {
    /// The first and last frames, those that are given.
    fn clips(&self) -> impl Iterator<Item = &Arc<Frames>> {
        self.start.iter().chain(&self.end)
    }
}

/// All of a [`Given`] but the elements of its tensors.
#[derive(Serialize, Deserialize)]
pub struct GivenHeader {
    latent: (TensorHeader, Option<LatentSpace>),
    mask: TensorHeader,
    frames: usize,
    /// The bits, so that nothing is rounded.
    strength: u64,
    encoding: GivenEncoding,
    start: Option<FramesHeader>,
    end: Option<FramesHeader>,
}

impl ValueType for Given {
    const PORT: PortType = PortType::Given;
    type Fact = GivenFact;
    type Header = GivenHeader;

    fn check(&self) -> Result<()> {
        self.latent.check()?;
        self.mask.check()?;
        self.clips().try_for_each(|frames| frames.check())?;
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
        if self.frames == 0 {
            return Err(Error::failed("a clip has at least one frame, found none"));
        }
        let given = self.clips().map(|frames| frames.count()).fold(0, usize::saturating_add);
        if given > self.frames {
            return Err(Error::failed(format!(
                "{given} frames are given of a clip of {}",
                self.frames
            )));
        }
        let size = |frames: &Frames| (frames.width(), frames.height());
        match (&self.start, &self.end) {
            (Some(start), Some(end)) if size(start) != size(end) => {
                let ((w, h), (wide, high)) = (size(start), size(end));
                Err(Error::failed(format!(
                    "the frames of one clip have one size, found {w}x{h} at its start and \
                     {wide}x{high} at its end"
                )))
            }
            _ => Ok(()),
        }
    }

    fn fact(&self) -> GivenFact {
        let latent = self.latent.fact();
        GivenFact {
            shape: latent.shape,
            space: latent.space,
            frames: Some(self.frames),
            encoding: self.encoding,
        }
    }

    fn shape(&self) -> Option<Vec<usize>> {
        Some(self.latent.tensor.dims().to_vec())
    }

    fn tensor(&self) -> Result<Tensor> {
        Ok(self.latent.tensor.clone())
    }

    fn tensor_of_fact(fact: &GivenFact) -> Option<TensorFact> {
        TensorFact::of_sizes(&fact.shape)
    }

    fn field(&self, name: &str) -> Result<Option<Field>> {
        let frames = |frames: &Option<Arc<Frames>>| {
            frames.as_ref().map(|frames| Field::Content(Content::new(Arc::clone(frames))))
        };
        Ok(match name {
            "tensor" => Some(Field::Tensor(self.latent.tensor.clone())),
            "mask" => Some(Field::Tensor(self.mask.tensor.clone())),
            "frames" => Some(Field::Int(self.frames)),
            "strength" => Some(Field::Real(self.strength)),
            "encoding" => Some(Field::Text(self.encoding.name().to_owned())),
            "space" => space_as_field(&self.latent.space),
            "start" => frames(&self.start),
            "end" => frames(&self.end),
            _ => None,
        })
    }

    fn from_fields(fields: &dyn Fields) -> Result<Self> {
        let frames = |name| -> Result<_> {
            Ok(fields.content(name)?.and_then(|frames| frames.shared::<Frames>()))
        };
        let encoding = fields.text("encoding")?;
        Ok(Given {
            latent: Latent {
                tensor: fields.need_tensor("tensor")?,
                space: space_of_field(fields)?,
            },
            mask: Mask { tensor: fields.need_tensor("mask")? },
            frames: fields.int("frames")?.unwrap_or(0),
            strength: fields.real("strength")?.unwrap_or(1.0),
            encoding: match encoding.as_deref() {
                Some("whole") => GivenEncoding::Whole,
                _ => GivenEncoding::Apart,
            },
            start: frames("start")?,
            end: frames("end")?,
        })
    }

    fn to_device(&self, device: &Device) -> Result<Option<Self>> {
        Ok(match (self.latent.to_device(device)?, self.mask.to_device(device)?) {
            (Some(latent), Some(mask)) => Some(Given { latent, mask, ..self.clone() }),
            _ => None,
        })
    }

    fn bytes(&self) -> u64 {
        let frames: u64 = self.clips().map(|frames| ValueType::bytes(&**frames)).sum();
        self.latent.bytes() + self.mask.bytes() + frames
    }

    fn spilled(&self) -> u64 {
        self.clips().map(|frames| ValueType::spilled(&**frames)).sum()
    }

    fn unleased(&self) -> u64 {
        let frames: u64 = self.clips().map(|frames| ValueType::unleased(&**frames)).sum();
        self.latent.unleased() + self.mask.unleased() + frames
    }

    fn header(&self) -> GivenHeader {
        let frames = |frames: &Option<Arc<Frames>>| frames.as_ref().map(|frames| frames.header());
        GivenHeader {
            latent: self.latent.header(),
            mask: self.mask.header(),
            frames: self.frames,
            strength: self.strength.to_bits(),
            encoding: self.encoding,
            start: frames(&self.start),
            end: frames(&self.end),
        }
    }

    fn tensors(&self) -> Tensors<'_> {
        let frames = self.clips().flat_map(|frames| frames.tensors());
        Box::new(self.latent.tensors().chain(self.mask.tensors()).chain(frames))
    }

    fn restore(header: GivenHeader, tensors: &mut TensorReader<'_>) -> Result<Self> {
        let latent = Latent::restore(header.latent, tensors)?;
        let mask = Mask::restore(header.mask, tensors)?;
        let mut frames = |header: Option<FramesHeader>| -> Result<_> {
            let frames = header.map(|header| Frames::restore(header, tensors)).transpose()?;
            Ok(frames.map(Arc::new))
        };
        Ok(Given {
            latent,
            mask,
            frames: header.frames,
            strength: f64::from_bits(header.strength),
            encoding: header.encoding,
            start: frames(header.start)?,
            end: frames(header.end)?,
        })
    }
}
