//! A tensor's elements as a slice: what the fast paths read.

use std::ops::{Deref, Range};

use candle_core::{CpuStorage, DType, Device, Storage, StorageRef, Tensor, WithDType, bail};

use half::bf16;

use crate::Result;
use crate::buffer::with_scratch;
use crate::number::{Number, Slice};

/// Whether the fast path may take these tensors: f32 on the CPU, some elements, no gradient to
/// keep.
pub(crate) fn fast(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|t| t.dtype() == DType::F32 && is_plain(t))
}

/// The same for fast paths that read f32 and bf16, one beside the other.
pub(crate) fn fast_mixed(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|t| matches!(t.dtype(), DType::F32 | DType::BF16) && is_plain(t))
}

fn is_plain(t: &Tensor) -> bool {
    matches!(t.device(), Device::Cpu) && t.elem_count() > 0 && !t.track_op()
}

/// A contiguous tensor of f32 or bf16 on the CPU.
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
            Storage::Cpu(CpuStorage::BF16(data)) if range.end <= data.len() => {}
            _ => bail!("a CPU kernel was given {:?} on {:?}", tensor.dtype(), tensor.device()),
        }
        Ok(Self { tensor, range })
    }

    /// The same for an operand that may be absent.
    pub(crate) fn optional(tensor: Option<&Tensor>) -> Result<Option<Self>> {
        tensor.map(Self::new).transpose()
    }

    /// The elements of a tensor of f32, in row-major order.
    pub(crate) fn read(&self) -> Elements<'_> {
        Elements { storage: self.tensor.storage_and_layout().0, range: self.range.clone() }
    }

    /// The numbers, in row-major order.
    pub(crate) fn numbers(&self) -> Numbers<'_> {
        Numbers { storage: self.tensor.storage_and_layout().0, range: self.range.clone() }
    }

    /// The numbers as f32: those of a bf16 tensor are copied.
    pub(crate) fn widened(tensor: &Tensor) -> Result<Self> {
        Self::new(&tensor.to_dtype(DType::F32)?)
    }
}

/// The numbers of a tensor, locked for reading.
pub(crate) struct Numbers<'a> {
    storage: StorageRef<'a>,
    range: Range<usize>,
}

impl Numbers<'_> {
    /// All numbers of the storage of a tensor, for operands that are walked by strides.
    pub(crate) fn whole(tensor: &Tensor) -> Result<Numbers<'_>> {
        let (storage, _) = tensor.storage_and_layout();
        let range = match &*storage {
            Storage::Cpu(CpuStorage::F32(data)) => 0..data.len(),
            Storage::Cpu(CpuStorage::BF16(data)) => 0..data.len(),
            _ => bail!("a CPU kernel was given {:?} on {:?}", tensor.dtype(), tensor.device()),
        };
        Ok(Numbers { storage, range })
    }

    /// The numbers in their own type.
    pub(crate) fn slice(&self) -> Slice<'_> {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(data)) => Slice::F32(&data[self.range.clone()]),
            Storage::Cpu(CpuStorage::BF16(data)) => Slice::Bf16(&data[self.range.clone()]),
            _ => unreachable!("checked when it was made"),
        }
    }

    /// Runs `work` on some of the numbers as f32.
    pub(crate) fn with<R>(&self, range: Range<usize>, work: impl FnOnce(&[f32]) -> R) -> R {
        match self.slice() {
            Slice::F32(numbers) => work(&numbers[range]),
            Slice::Bf16(numbers) => with_scratch(range.len(), |wide| {
                bf16::widen(&numbers[range], wide);
                work(wide)
            }),
        }
    }
}

/// Elements of a [`Dense`] tensor, locked for reading.
pub(crate) struct Elements<'a> {
    storage: StorageRef<'a>,
    range: Range<usize>,
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
pub(crate) fn tensor<T: WithDType>(
    data: Vec<T>,
    shape: impl Into<candle_core::Shape>,
) -> Result<Tensor> {
    Tensor::from_vec(data, shape.into(), &Device::Cpu)
}
