//! Tensors where they lie, seen through DLPack, and tensors and frames in the making.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::{NonNull, null_mut};

use kino_abi::{
    DL_CPU, DL_CUDA, DLDataType, DLDevice, DLTensor, KinoError, KinoFramesBuilder,
    KinoTensorBuilder,
};

use super::dlpack::{dl_type, dtype_of};
use super::kinds::Device;
use super::native::{Value, current_call, host, outcome};
use crate::element::{count_of, elements_of_mut};
use crate::{DType, Element, Error, Result};

/// What a host function says of a tensor.
///
/// # Safety
/// `ask` calls a function of the installed host that writes a tensor's view, unless it fails.
unsafe fn seen(ask: impl FnOnce(*mut DLTensor) -> *mut KinoError) -> Result<DLTensor> {
    let mut tensor = DLTensor {
        data: null_mut(),
        device: DLDevice { device_type: DL_CPU, device_id: 0 },
        ndim: 0,
        dtype: DLDataType { code: 0, bits: 0, lanes: 0 },
        shape: null_mut(),
        strides: null_mut(),
        byte_offset: 0,
    };
    // SAFETY: as the caller promises.
    unsafe { outcome(ask(&mut tensor)) }?;
    Ok(tensor)
}

fn first(tensor: &DLTensor) -> *mut u8 {
    tensor.data.cast::<u8>().wrapping_add(tensor.byte_offset as usize)
}

/// A tensor's shape, and its elements where they lie in main memory without gaps.
pub(crate) struct View {
    /// The view is good as long as its value.
    _value: Value,
    tensor: DLTensor,
    pub(crate) dtype: DType,
    pub(crate) dims: Vec<usize>,
    bytes: usize,
    whole: bool,
}

// SAFETY: the pointers lead into memory of the value, which is only read, from any thread.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    pub(crate) fn of(value: &Value) -> Result<Self> {
        let value = value.clone();
        // SAFETY: the value is alive, the place is valid.
        let tensor = unsafe { seen(|view| (host().view_tensor)(value.raw(), view)) }?;
        let dtype = dtype_of(tensor.dtype)?;
        let ndim = tensor.ndim.max(0) as usize;
        // SAFETY: `shape` and `strides` have `ndim` entries, as long as the value lives.
        let (shape, strides) = unsafe { (list(tensor.shape, ndim), list(tensor.strides, ndim)) };
        let dims: Vec<_> = shape.iter().map(|&dim| dim.max(0) as usize).collect();
        let bytes = count_of(&dims)? * dtype.size();
        let whole = tensor.device.device_type == DL_CPU && is_contiguous(&dims, strides);
        Ok(View { _value: value, tensor, dtype, dims, bytes, whole })
    }

    pub(crate) fn device(&self) -> Device {
        let device = self.tensor.device;
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
        // SAFETY: the view lends that many bytes in main memory, read-only, as long as its value
        // lives.
        Some(unsafe { std::slice::from_raw_parts(first(&self.tensor), self.bytes) })
    }

    /// The tensor as DLPack sees it.
    pub(crate) fn dlpack(&self) -> &DLTensor {
        &self.tensor
    }
}

/// # Safety
/// `first` points to `count` numbers that live on for `'a`, or is null.
unsafe fn list<'a>(first: *const i64, count: usize) -> &'a [i64] {
    match count == 0 || first.is_null() {
        true => &[],
        // SAFETY: as the caller promises.
        false => unsafe { std::slice::from_raw_parts(first, count) },
    }
}

fn is_contiguous(dims: &[usize], strides: &[i64]) -> bool {
    let mut expected = 1i64;
    dims.iter().zip(strides).rev().all(|(&dim, &stride)| {
        let fits = dim == 1 || stride == expected;
        expected *= dim as i64;
        fits
    })
}

/// A builder of the host's, which is given up when this is dropped.
struct Builder(NonNull<KinoTensorBuilder>);

impl Drop for Builder {
    fn drop(&mut self) {
        // SAFETY: the builder belongs to this.
        unsafe { (host().release_tensor_builder)(self.0.as_ptr()) }
    }
}

/// A tensor in the making, written where it will lie.
pub(crate) struct Sink<T> {
    builder: Builder,
    /// The first element; there are `count`.
    memory: *mut u8,
    count: usize,
    /// How many elements were handed out to be filled; the others are not written yet.
    filled: usize,
    _elements: PhantomData<T>,
}

impl<T: Element> Sink<T> {
    pub(crate) fn new(dims: &[usize]) -> Result<Self> {
        let count = count_of(dims)?;
        let shape: Vec<i64> = dims.iter().map(|&dim| dim as i64).collect();
        let (dtype, mut builder) = (dl_type(T::DTYPE), null_mut());
        // SAFETY: the shape is lent with its length, the place is valid; the call lasts, or is null.
        unsafe {
            let (call, shape, ndim) = (current_call(), shape.as_ptr(), shape.len());
            outcome((host().new_tensor_builder)(call, dtype, shape, ndim, 0, &mut builder))
        }?;
        let builder = NonNull::new(builder).map(Builder);
        let builder = builder.ok_or_else(|| Error::new("the host gave no builder"))?;
        // SAFETY: the builder is alive, the place is valid.
        let view = unsafe { seen(|view| (host().builder_view)(builder.0.as_ptr(), view)) }?;
        let memory = first(&view);
        if count > 0 && !memory.cast::<T>().is_aligned() {
            return Err(Error::new("the host's memory is not aligned"));
        }
        Ok(Sink { builder, memory, count, filled: 0, _elements: PhantomData })
    }

    /// The next elements, as zeros: zeroed just before they are filled, they are still at hand.
    fn next(&mut self, count: usize) -> Result<&mut [T]> {
        let (size, first) = (T::DTYPE.size(), self.filled);
        let count = count.min(self.count - first);
        self.filled += count;
        if count == 0 {
            return Ok(&mut []);
        }
        // SAFETY: the builder lends the memory of the whole tensor, writable, to this owner alone,
        // and it is row-major; these elements lie within, and are written before they are a slice.
        let bytes = unsafe {
            let start = self.memory.add(first * size);
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
        let memory = self.memory.cast::<T>();
        while self.filled < self.count {
            let (first, count) = (self.filled, piece.min(self.count - self.filled));
            let mut taken = 0;
            read(first, count, &mut |elements| {
                taken = elements.len().min(count);
                // SAFETY: the builder lends the memory of the whole tensor, writable, to this owner
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
        let builder = std::mem::ManuallyDrop::new(self.builder);
        // SAFETY: the builder is given away, and the place is valid.
        unsafe { Value::made(|value| (host().finish_tensor)(builder.0.as_ptr(), value)) }
    }
}

/// A function of its own: only arguments are known not to overlap, and then this becomes vectors.
fn make_each<T: Element>(out: &mut [MaybeUninit<T>], elements: &[T], each: &impl Fn(T) -> T) {
    out.iter_mut().zip(elements).for_each(|(out, element)| {
        out.write(each(*element));
    });
}

/// Frames in the making.
pub(crate) struct FramesSink(NonNull<KinoFramesBuilder>);

// SAFETY: a builder is used by one thread at a time, whichever.
unsafe impl Send for FramesSink {}
// SAFETY: nothing is done with a shared one.
unsafe impl Sync for FramesSink {}

impl Drop for FramesSink {
    fn drop(&mut self) {
        // SAFETY: the builder belongs to this.
        unsafe { (host().release_frames_builder)(self.0.as_ptr()) }
    }
}

impl FramesSink {
    /// Begins frames of a rate, where that is known.
    pub(crate) fn new(fps: Option<f64>) -> Result<Self> {
        let (fps, mut builder) = (fps.unwrap_or(f64::NAN), null_mut());
        // SAFETY: the place is valid; the call lasts, or is null.
        unsafe { outcome((host().new_frames_builder)(current_call(), fps, &mut builder)) }?;
        NonNull::new(builder).map(FramesSink).ok_or_else(|| Error::new("the host gave no builder"))
    }

    /// Appends a chunk.
    pub(crate) fn push(&mut self, chunk: &Value) -> Result<()> {
        // SAFETY: builder and value are alive.
        unsafe { outcome((host().push_frames)(self.0.as_ptr(), chunk.raw())) }
    }

    /// The frames.
    pub(crate) fn finish(self) -> Result<Value> {
        let builder = std::mem::ManuallyDrop::new(self);
        // SAFETY: the builder is given away, and the place is valid.
        unsafe { Value::made(|value| (host().finish_frames)(builder.0.as_ptr(), value)) }
    }
}
