//! Masks: which pixels something holds for.

use candle_core::{DType, Device, Tensor};
use kino_port::PortType;

use crate::Result;
use crate::stored::{TensorHeader, TensorReader};
use crate::types::{Field, Fields, TensorFact, Tensors, ValueType, check_elements, check_shape};

/// One value a pixel: 1 where something holds, 0 where it does not, and all between.
#[derive(Clone, Debug)]
pub struct Mask {
    /// `[f, h, w]`, f32 in 0…1; one frame may stand for all of a video.
    pub tensor: Tensor,
}

/// What is known of a mask. By default nothing is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MaskFact {
    /// `[frames, height, width]`, those that are known.
    pub shape: [Option<usize>; 3],
}

impl ValueType for Mask {
    const PORT: PortType = PortType::Mask;
    type Fact = MaskFact;
    type Header = TensorHeader;

    fn check(&self) -> Result<()> {
        check_shape::<Self>(&self.tensor)?;
        check_elements::<Self>(&self.tensor)
    }

    fn fact(&self) -> MaskFact {
        let shape = self.tensor.dims3().map_or([0; 3], |(f, h, w)| [f, h, w]);
        MaskFact { shape: shape.map(Some) }
    }

    fn shape(&self) -> Option<Vec<usize>> {
        Some(self.tensor.dims().to_vec())
    }

    fn tensor(&self) -> Result<Tensor> {
        Ok(self.tensor.clone())
    }

    fn from_tensor(tensor: &Tensor) -> Result<Self> {
        Ok(Mask { tensor: tensor.to_dtype(DType::F32)? })
    }

    fn fact_of_tensor(tensor: &TensorFact) -> Option<MaskFact> {
        let shape: [usize; 3] = tensor.shape.as_slice().try_into().ok()?;
        Some(MaskFact { shape: shape.map(Some) })
    }

    fn tensor_of_fact(fact: &MaskFact) -> Option<TensorFact> {
        TensorFact::of_sizes(&fact.shape)
    }

    fn field(&self, name: &str) -> Result<Option<Field>> {
        Ok((name == "tensor").then(|| Field::Tensor(self.tensor.clone())))
    }

    fn from_fields(fields: &dyn Fields) -> Result<Self> {
        Ok(Mask { tensor: fields.need_tensor("tensor")? })
    }

    fn to_device(&self, device: &Device) -> Result<Option<Self>> {
        Ok(Some(Mask { tensor: self.tensor.to_device(device)? }))
    }

    fn header(&self) -> TensorHeader {
        TensorHeader::of(&self.tensor)
    }

    fn tensors(&self) -> Tensors<'_> {
        Box::new([Ok(self.tensor.clone())].into_iter())
    }

    fn restore(header: TensorHeader, tensors: &mut TensorReader<'_>) -> Result<Self> {
        Ok(Mask { tensor: tensors.next(&header)? })
    }
}
