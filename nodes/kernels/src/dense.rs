//! A tensor's elements as a slice: what the fast paths read.

use std::ops::{Deref, Range};

use candle_core::{CpuStorage, DType, Device, Storage, StorageRef, Tensor, bail};

use crate::Result;

/// Whether the fast path may take these tensors: f32 on the CPU, some elements, no gradient to
/// keep.
pub(crate) fn fast(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|t| {
        matches!(t.device(), Device::Cpu)
            && t.dtype() == DType::F32
            && t.elem_count() > 0
            && !t.track_op()
    })
}

/// A contiguous f32 tensor on the CPU.
pub(crate) struct Dense {
    tensor: Tensor,
    range: Range<usize>,
}

impl Dense {
    /// Takes a tensor as it is, or a contiguous copy of a view that is not.
    pub(crate) fn new(tensor: &Tensor) -> Result<Self> {
        let tensor = match tensor.is_contiguous() {
            true => tensor.clone(),
            false => tensor.force_contiguous()?,
        };
        let start = tensor.layout().start_offset();
        let range = start..start + tensor.elem_count();
        match &*tensor.storage_and_layout().0 {
            Storage::Cpu(CpuStorage::F32(data)) if range.end <= data.len() => {}
            _ => bail!("a CPU kernel was given {:?} on {:?}", tensor.dtype(), tensor.device()),
        }
        Ok(Self { tensor, range })
    }

    /// The same for an operand that may be absent.
    pub(crate) fn optional(tensor: Option<&Tensor>) -> Result<Option<Self>> {
        tensor.map(Self::new).transpose()
    }

    /// The elements, in row-major order.
    pub(crate) fn read(&self) -> Elements<'_> {
        Elements { storage: self.tensor.storage_and_layout().0, range: self.range.clone() }
    }
}

/// Elements of a [`Dense`] tensor, locked for reading.
pub(crate) struct Elements<'a> {
    storage: StorageRef<'a>,
    range: Range<usize>,
}

impl Elements<'_> {
    /// All elements of a storage, for operands that are walked by strides.
    pub(crate) fn whole(tensor: &Tensor) -> Result<Elements<'_>> {
        let (storage, _) = tensor.storage_and_layout();
        let Storage::Cpu(CpuStorage::F32(data)) = &*storage else {
            bail!("a CPU kernel was given {:?} on {:?}", tensor.dtype(), tensor.device());
        };
        let range = 0..data.len();
        Ok(Elements { storage, range })
    }
}

impl Deref for Elements<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(data)) => &data[self.range.clone()],
            _ => unreachable!("checked when it was made"),
        }
    }
}

/// A tensor on the CPU from its elements.
pub(crate) fn tensor(data: Vec<f32>, shape: impl Into<candle_core::Shape>) -> Result<Tensor> {
    Tensor::from_vec(data, shape.into(), &Device::Cpu)
}
