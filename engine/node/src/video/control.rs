//! What a clip follows beside its text.

use candle_core::{Device, Tensor};
use kino_port::PortType;
use serde::{Deserialize, Serialize};

use super::LatentSpace;
use super::latent::{space_as_field, space_of_field};
use crate::stored::{TensorHeader, TensorReader};
use crate::types::{Field, Fields, TensorFact, Tensors, ValueType, check_shape};
use crate::{Error, Result};

/// What a clip follows beside its text, encoded as a transformer reads it: a clip, where it stays
/// and where it is made, and pictures of what it shows.
#[derive(Clone, Debug)]
pub struct Control {
    /// `[c, f, h, w]`, f32: latent frames of the pictures, then those of the clip.
    pub tensor: Tensor,
    /// The latent frames before the clip that stand for pictures.
    pub references: usize,
    /// How strongly it counts: 1 as in training, 0 not at all.
    pub strength: f64,
    /// The space of the latents that it was made of, where it is known.
    pub space: Option<LatentSpace>,
}

/// What is known of a control.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlFact {
    /// `[c, f, h, w]`, the pictures included, those that are known.
    pub shape: [Option<usize>; 4],
    /// The latent frames before the clip that stand for pictures.
    pub references: usize,
    /// The space of the latents that it was made of, where it is known.
    pub space: Option<LatentSpace>,
}

/// All of a [`Control`] but the elements of its tensor.
#[derive(Serialize, Deserialize)]
pub struct ControlHeader {
    tensor: TensorHeader,
    references: usize,
    /// The bits, so that nothing is rounded.
    strength: u64,
    space: Option<LatentSpace>,
}

impl ValueType for Control {
    const PORT: PortType = PortType::Control;
    type Fact = ControlFact;
    type Header = ControlHeader;

    fn check(&self) -> Result<()> {
        check_shape::<Self>(&self.tensor)?;
        let (_, frames, _, _) = self.tensor.dims4()?;
        if self.references >= frames {
            return Err(Error::failed(format!(
                "{} of {frames} latent frames of a control are pictures: none is left for a clip",
                self.references
            )));
        }
        match self.strength.is_finite() && self.strength >= 0.0 {
            true => Ok(()),
            false => Err(Error::failed(format!(
                "the strength of a control is 0 or more, found {}",
                self.strength
            ))),
        }
    }

    fn fact(&self) -> ControlFact {
        let shape = self.tensor.dims4().map_or([0; 4], |(c, f, h, w)| [c, f, h, w]);
        ControlFact {
            shape: shape.map(Some),
            references: self.references,
            space: self.space.clone(),
        }
    }

    fn shape(&self) -> Option<Vec<usize>> {
        Some(self.tensor.dims().to_vec())
    }

    fn tensor(&self) -> Result<Tensor> {
        Ok(self.tensor.clone())
    }

    fn tensor_of_fact(fact: &ControlFact) -> Option<TensorFact> {
        TensorFact::of_sizes(&fact.shape)
    }

    fn field(&self, name: &str) -> Result<Option<Field>> {
        Ok(match name {
            "tensor" => Some(Field::Tensor(self.tensor.clone())),
            "references" => Some(Field::Int(self.references)),
            "strength" => Some(Field::Real(self.strength)),
            "space" => space_as_field(&self.space),
            _ => None,
        })
    }

    fn from_fields(fields: &dyn Fields) -> Result<Self> {
        Ok(Control {
            tensor: fields.need_tensor("tensor")?,
            references: fields.int("references")?.unwrap_or(0),
            strength: fields.real("strength")?.unwrap_or(1.0),
            space: space_of_field(fields)?,
        })
    }

    fn to_device(&self, device: &Device) -> Result<Option<Self>> {
        Ok(Some(Control { tensor: self.tensor.to_device(device)?, ..self.clone() }))
    }

    fn header(&self) -> ControlHeader {
        ControlHeader {
            tensor: TensorHeader::of(&self.tensor),
            references: self.references,
            strength: self.strength.to_bits(),
            space: self.space.clone(),
        }
    }

    fn tensors(&self) -> Tensors<'_> {
        Box::new([Ok(self.tensor.clone())].into_iter())
    }

    fn restore(header: ControlHeader, tensors: &mut TensorReader<'_>) -> Result<Self> {
        Ok(Control {
            tensor: tensors.next(&header.tensor)?,
            references: header.references,
            strength: f64::from_bits(header.strength),
            space: header.space,
        })
    }
}
