//! Embeddings of an image.

use candle_core::{DType, Device, Tensor};
use kino_port::PortType;

use crate::Result;
use crate::stored::{TensorHeader, TensorReader};
use crate::types::{Field, Fields, TensorFact, Tensors, ValueType, check_shape};

/// The embeddings of an image, as an image encoder gives them.
#[derive(Clone, Debug)]
pub struct ImageConditioning {
    /// `[rows, dim]`.
    pub tensor: Tensor,
}

/// What is known of the embeddings of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageConditioningFact {
    /// Rows and width.
    pub shape: [usize; 2],
}

impl ValueType for ImageConditioning {
    const PORT: PortType = PortType::ImageConditioning;
    type Fact = ImageConditioningFact;
    type Header = TensorHeader;

    fn check(&self) -> Result<()> {
        check_shape::<Self>(&self.tensor)
    }

    fn fact(&self) -> ImageConditioningFact {
        let shape = self.tensor.dims2().map_or([0; 2], |(rows, dim)| [rows, dim]);
        ImageConditioningFact { shape }
    }

    fn shape(&self) -> Option<Vec<usize>> {
        Some(self.tensor.dims().to_vec())
    }

    fn tensor(&self) -> Result<Tensor> {
        Ok(self.tensor.clone())
    }

    fn from_tensor(tensor: &Tensor) -> Result<Self> {
        Ok(ImageConditioning { tensor: tensor.clone() })
    }

    fn fact_of_tensor(tensor: &TensorFact) -> Option<ImageConditioningFact> {
        Some(ImageConditioningFact { shape: tensor.shape.as_slice().try_into().ok()? })
    }

    fn tensor_of_fact(fact: &ImageConditioningFact) -> Option<TensorFact> {
        Some(TensorFact { shape: fact.shape.to_vec(), dtype: DType::F32 })
    }

    fn field(&self, name: &str) -> Result<Option<Field>> {
        Ok((name == "tensor").then(|| Field::Tensor(self.tensor.clone())))
    }

    fn from_fields(fields: &dyn Fields) -> Result<Self> {
        Ok(ImageConditioning { tensor: fields.need_tensor("tensor")? })
    }

    fn to_device(&self, device: &Device) -> Result<Option<Self>> {
        Ok(Some(ImageConditioning { tensor: self.tensor.to_device(device)? }))
    }

    fn header(&self) -> TensorHeader {
        TensorHeader::of(&self.tensor)
    }

    fn tensors(&self) -> Tensors<'_> {
        Box::new([Ok(self.tensor.clone())].into_iter())
    }

    fn restore(header: TensorHeader, tensors: &mut TensorReader<'_>) -> Result<Self> {
        Ok(ImageConditioning { tensor: tensors.next(&header)? })
    }
}
