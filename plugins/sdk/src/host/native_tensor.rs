//! Tensors where they lie, seen through DLPack.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::{NonNull, null_mut};

use kino_abi::{DL_CPU, DL_CUDA, DLManagedTensorVersioned, DLTensor};

use super::dlpack::{dl_type, dtype_of};
use super::kinds::Device;
use super::native::{Value, host, outcome};
use crate::element::{count_of, elements_of_mut};
use crate::{DType, Element, Error, Result};

/// A view that is given back when it is dropped.
struct Lent(NonNull<DLManagedTensorVersioned>);

// SAFETY: the contract lets a view be given back from any thread; its memory is not tied to one.
unsafe impl Send for Lent {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Lent {}

impl Drop for Lent {
    fn drop(&mut self) {
        // SAFETY: the view is alive until its deleter, which is called here once.
        unsafe {
            if let Some(delete) = self.0.as_ref().deleter {
                delete(self.0.as_ptr());
            }
        }
    }
}

impl Lent {
    fn take(
        ask: impl FnOnce(*mut *mut DLManagedTensorVersioned) -> kino_abi::KinoStatus,
    ) -> Result<Self> {
        let mut view = null_mut();
        outcome(ask(&mut view))?;
        NonNull::new(view).map(Lent).ok_or_else(|| Error::new("the host gave no view"))
    }

    fn tensor(&self) -> &DLTensor {
        // SAFETY: the view is alive until it is dropped.
        unsafe { &self.0.as_ref().dl_tensor }
    }

    fn dims(&self) -> Vec<usize> {
        let tensor = self.tensor();
        let ndim = tensor.ndim.max(0) as usize;
        if ndim == 0 || tensor.shape.is_null() {
            return Vec::new();
        }
        // SAFETY: DLPack: `shape` has `ndim` entries.
        let shape = unsafe { std::slice::from_raw_parts(tensor.shape, ndim) };
        shape.iter().map(|&dim| dim.max(0) as usize).collect()
    }

    fn is_contiguous(&self, dims: &[usize]) -> bool {
        let tensor = self.tensor();
        if tensor.strides.is_null() || dims.is_empty() {
            return true;
        }
        // SAFETY: DLPack: `strides` has `ndim` entries where it is not null.
        let strides = unsafe { std::slice::from_raw_parts(tensor.strides, dims.len()) };
        let mut expected = 1i64;
        dims.iter().zip(strides).rev().all(|(&dim, &stride)| {
            let fits = dim == 1 || stride == expected;
            expected *= dim as i64;
            fits
        })
    }

    fn first(&self) -> *mut u8 {
        let tensor = self.tensor();
        tensor.data.cast::<u8>().wrapping_add(tensor.byte_offset as usize)
    }
}

/// A tensor's shape, and its elements where they lie in main memory without gaps.
pub(crate) struct View {
    lent: Lent,
    pub(crate) dtype: DType,
    pub(crate) dims: Vec<usize>,
    bytes: usize,
    whole: bool,
}

impl View {
    pub(crate) fn of(value: &Value) -> Result<Self> {
        // SAFETY: the value is alive, the place is valid.
        let lent = Lent::take(|view| unsafe { (host().view_tensor)(value.raw(), view) })?;
        let dtype = dtype_of(lent.tensor().dtype)?;
        let dims = lent.dims();
        let bytes = count_of(&dims)? * dtype.size();
        let whole = lent.tensor().device.device_type == DL_CPU && lent.is_contiguous(&dims);
        Ok(View { lent, dtype, dims, bytes, whole })
    }

    pub(crate) fn device(&self) -> Device {
        let device = self.lent.tensor().device;
        let number = device.device_id.max(0) as usize;
        match device.device_type {
            DL_CPU => Device::Cpu,
            DL_CUDA => Device::Cuda(number),
            _ => Device::Metal(number),
        }
    }

    /// The elements' bytes where they lie, if that is main memory, without gaps.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        if !self.whole {
            return None;
        }
        if self.bytes == 0 {
            return Some(&[]);
        }
        // SAFETY: the view lends that many bytes in main memory, read-only, as long as it lives.
        Some(unsafe { std::slice::from_raw_parts(self.lent.first(), self.bytes) })
    }

    /// The tensor as DLPack sees it.
    pub(crate) fn dlpack(&self) -> &DLTensor {
        self.lent.tensor()
    }
}

/// A tensor in the making, written where it will lie.
pub(crate) struct Sink<T> {
    value: Value,
    lent: Lent,
    count: usize,
    /// How many elements were handed out to be filled; the others are not written yet.
    filled: usize,
    _elements: PhantomData<T>,
}

impl<T: Element> Sink<T> {
    pub(crate) fn new(dims: &[usize]) -> Result<Self> {
        let count = count_of(dims)?;
        let shape: Vec<i64> = dims.iter().map(|&dim| dim as i64).collect();
        let dtype = dl_type(T::DTYPE);
        // SAFETY: the shape is lent with its length, the place is valid.
        let value = Value::made(|value| unsafe {
            (host().new_tensor_unwritten)(dtype, shape.as_ptr(), shape.len(), value)
        })?;
        // SAFETY: the value is alive, the place is valid.
        let lent = Lent::take(|view| unsafe { (host().write_tensor)(value.raw(), view) })?;
        Ok(Sink { value, lent, count, filled: 0, _elements: PhantomData })
    }

    /// The next elements, as zeros: zeroed just before they are filled, they are still at hand.
    fn next(&mut self, count: usize) -> Result<&mut [T]> {
        let (size, first) = (T::DTYPE.size(), self.filled);
        let count = count.min(self.count - first);
        self.filled += count;
        if count == 0 {
            return Ok(&mut []);
        }
        // SAFETY: the view lends the memory of the whole tensor, writable, to this owner alone, and
        // it is row-major; these elements lie within, and are written before they are a slice.
        let bytes = unsafe {
            let start = self.lent.first().add(first * size);
            start.write_bytes(0, count * size);
            std::slice::from_raw_parts_mut(start, count * size)
        };
        elements_of_mut(bytes).ok_or_else(|| Error::new("the host's memory is not aligned"))
    }

    /// Fills pieces of at most `piece` elements, in order; `fill` gets where each begins.
    pub(crate) fn fill(
        &mut self,
        piece: usize,
        mut fill: impl FnMut(usize, &mut [T]) -> Result<()>,
    ) -> Result<()> {
        while self.filled < self.count {
            let first = self.filled;
            fill(first, self.next(piece.max(1))?)?;
        }
        Ok(())
    }

    /// Fills all of it with what `each` makes of the elements that `read` passes on: it is asked for
    /// so many from one on. Nothing is written twice.
    pub(crate) fn fill_each(
        &mut self,
        piece: usize,
        each: impl Fn(T) -> T,
        mut read: impl FnMut(usize, usize, &mut dyn FnMut(&[T])) -> Result<()>,
    ) -> Result<()> {
        let memory = self.lent.first().cast::<T>();
        if self.count > 0 && !memory.is_aligned() {
            return Err(Error::new("the host's memory is not aligned"));
        }
        while self.filled < self.count {
            let (first, count) = (self.filled, piece.min(self.count - self.filled));
            let mut taken = 0;
            read(first, count, &mut |elements| {
                taken = elements.len().min(count);
                // SAFETY: the view lends the memory of the whole tensor, writable, to this owner
                // alone, and it is row-major and aligned; these elements lie within.
                let out =
                    unsafe { std::slice::from_raw_parts_mut(memory.add(first).cast(), taken) };
                make_each(out, &elements[..taken], &each);
            })?;
            self.filled += taken;
            if taken < count {
                return Err(Error::new("fewer elements were read than were asked for"));
            }
        }
        Ok(())
    }

    /// The tensor, finished.
    pub(crate) fn finish(mut self) -> Result<Value> {
        self.next(usize::MAX)?;
        drop(self.lent);
        Ok(self.value)
    }
}

/// A function of its own: only arguments are known not to overlap, and then this becomes vectors.
fn make_each<T: Element>(out: &mut [MaybeUninit<T>], elements: &[T], each: &impl Fn(T) -> T) {
    out.iter_mut().zip(elements).for_each(|(out, element)| {
        out.write(each(*element));
    });
}
