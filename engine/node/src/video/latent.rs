//! Latents: videos as an autoencoder encodes them.

use candle_core::{DType, Device, Tensor};
use kino_port::PortType;

use super::LatentSpace;
use crate::stored::{TensorHeader, TensorReader};
use crate::types::{Field, Fields, Opaque, TensorFact, Tensors, ValueType, check_shape};
use crate::{Error, Result};

/// A normalised latent.
#[derive(Clone, Debug)]
pub struct Latent {
    /// `[c, f, h, w]`, f32.
    pub tensor: Tensor,
    /// The space that it lies in, where it is known.
    pub space: Option<LatentSpace>,
}

/// What is known of a latent: `[channels, frames, height, width]`. By default nothing is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LatentFact {
    /// `[channels, frames, height, width]`, those that are known.
    pub shape: [Option<usize>; 4],
    /// The space that it lies in, where it is known.
    pub space: Option<LatentSpace>,
}

/// The space of a latent as plugins pass it on.
pub(super) fn space_as_field(space: &Option<LatentSpace>) -> Option<Field> {
    Some(Field::Opaque(Opaque::new("Space", space.clone()?)))
}

/// The space that a plugin passed on.
pub(super) fn space_of_field(fields: &dyn Fields) -> Result<Option<LatentSpace>> {
    Ok(fields.opaque("space")?.and_then(|space| space.get::<LatentSpace>().cloned()))
}

impl ValueType for Latent {
    const PORT: PortType = PortType::Latent;
    type Fact = LatentFact;
    type Header = (TensorHeader, Option<LatentSpace>);

    fn check(&self) -> Result<()> {
        check_shape::<Self>(&self.tensor)?;
        let channels = self.tensor.dim(0)?;
        match &self.space {
            Some(space) if space.channels != channels => Err(Error::failed(format!(
                "a latent of its space has {} channels, found {channels}",
                space.channels
            ))),
            _ => Ok(()),
        }
    }

    fn fact(&self) -> LatentFact {
        let shape = self.tensor.dims4().map_or([0; 4], |(c, f, h, w)| [c, f, h, w]);
        LatentFact { shape: shape.map(Some), space: self.space.clone() }
    }

    fn shape(&self) -> Option<Vec<usize>> {
        Some(self.tensor.dims().to_vec())
    }

    fn tensor(&self) -> Result<Tensor> {
        Ok(self.tensor.clone())
    }

    fn from_tensor(tensor: &Tensor) -> Result<Self> {
        Ok(Latent { tensor: tensor.to_dtype(DType::F32)?, space: None })
    }

    fn fact_of_tensor(tensor: &TensorFact) -> Option<LatentFact> {
        let shape: [usize; 4] = tensor.shape.as_slice().try_into().ok()?;
        Some(LatentFact { shape: shape.map(Some), space: None })
    }

    fn tensor_of_fact(fact: &LatentFact) -> Option<TensorFact> {
        TensorFact::of_sizes(&fact.shape)
    }

    fn field(&self, name: &str) -> Result<Option<Field>> {
        Ok(match name {
            "tensor" => Some(Field::Tensor(self.tensor.clone())),
            "space" => space_as_field(&self.space),
            _ => None,
        })
    }

    fn from_fields(fields: &dyn Fields) -> Result<Self> {
        let space = space_of_field(fields)?;
        Ok(Latent { tensor: fields.need_tensor("tensor")?, space })
    }

    fn to_device(&self, device: &Device) -> Result<Option<Self>> {
        Ok(Some(Latent { tensor: self.tensor.to_device(device)?, space: self.space.clone() }))
    }

    fn header(&self) -> Self::Header {
        (TensorHeader::of(&self.tensor), self.space.clone())
    }

    fn tensors(&self) -> Tensors<'_> {
        Box::new([Ok(self.tensor.clone())].into_iter())
    }

    fn restore((tensor, space): Self::Header, tensors: &mut TensorReader<'_>) -> Result<Self> {
        Ok(Latent { tensor: tensors.next(&tensor)?, space })
    }
}
