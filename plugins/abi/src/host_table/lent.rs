//! Tensors that a plugin sees where they lie, and tensors that it gives.

use std::ffi::c_void;
use std::ptr::null_mut;

use super::backend::{Backend, HostError, HostResult, TensorLayout, row_major};
use crate::{
    DL_BITS_FLAG_READ_ONLY, DL_CPU, DLDataType, DLManagedTensorVersioned, DLPackVersion, DLTensor,
};

/// Where a tensor lies, with what keeps it there.
pub(super) struct View<B: Backend> {
    tensor: DLTensor,
    _shape: Vec<i64>,
    _strides: Vec<i64>,
    _keeper: Option<B::Keeper>,
}

// SAFETY: the pointers lead into what the view holds itself, which is only read once it is made.
unsafe impl<B: Backend> Send for View<B> {}
// SAFETY: as above.
unsafe impl<B: Backend> Sync for View<B> {}

impl<B: Backend> View<B> {
    /// A layout as DLPack says it; shape and strides lie where they are as long as this lives.
    pub(super) fn new(layout: TensorLayout, keeper: Option<B::Keeper>) -> Self {
        let TensorLayout { data, device, dtype, mut shape, mut strides } = layout;
        let tensor = DLTensor {
            data: data.cast::<c_void>(),
            device,
            ndim: shape.len() as i32,
            dtype,
            shape: shape.as_mut_ptr(),
            strides: strides.as_mut_ptr(),
            byte_offset: 0,
        };
        View { tensor, _shape: shape, _strides: strides, _keeper: keeper }
    }

    pub(super) fn tensor(&self) -> DLTensor {
        DLTensor { ..self.tensor }
    }
}

/// A view that is given back by its deleter.
struct Managed<B: Backend> {
    managed: DLManagedTensorVersioned,
    _view: View<B>,
    _value: B::Value,
}

/// Lends a tensor until its deleter is called.
pub(super) fn lend_managed<B: Backend>(
    value: B::Value,
    view: View<B>,
) -> *mut DLManagedTensorVersioned {
    let lent = Box::into_raw(Box::new(Managed::<B> {
        managed: DLManagedTensorVersioned {
            version: DLPackVersion { major: 1, minor: 0 },
            manager_ctx: null_mut(),
            deleter: Some(give_back::<B>),
            flags: DL_BITS_FLAG_READ_ONLY,
            dl_tensor: view.tensor(),
        },
        _view: view,
        _value: value,
    }));
    // SAFETY: `lent` was just made from a box, and nobody else has seen it yet.
    unsafe {
        (*lent).managed.manager_ctx = lent.cast();
        &raw mut (*lent).managed
    }
}

/// The deleter of lent tensors.
///
/// # Safety
/// `view` comes from [`lend_managed`] and is given back once: the contract of
/// `DLManagedTensorVersioned`.
unsafe extern "C" fn give_back<B: Backend>(view: *mut DLManagedTensorVersioned) {
    if !view.is_null() {
        // SAFETY: by the contract, `view` is one of ours, whose context is what it keeps.
        let lent = unsafe { Box::from_raw((*view).manager_ctx.cast::<Managed<B>>()) };
        super::pass::quietly(|| drop(lent));
    }
}

/// A tensor of a plugin, which is given back when this is dropped.
pub(super) struct Given(*mut DLManagedTensorVersioned);

impl Drop for Given {
    fn drop(&mut self) {
        // SAFETY: the plugin gave the tensor away; its deleter is called here once.
        unsafe {
            if let Some(delete) = (*self.0).deleter {
                delete(self.0);
            }
        }
    }
}

impl Given {
    /// Takes a tensor over.
    ///
    /// # Safety
    /// `given` is null or a tensor that belongs to the caller and is as DLPack 1.x says.
    pub(super) unsafe fn new(given: *mut DLManagedTensorVersioned) -> HostResult<Self> {
        if given.is_null() {
            return Err(HostError::new("a tensor was expected, found null"));
        }
        // SAFETY: the version stands first in every version of DLPack, as the caller promises.
        let version = unsafe { (*given).version };
        let given = Given(given);
        if version.major != 1 {
            // What the rest is, nobody knows, but for the deleter.
            return Err(HostError::new(format!(
                "a tensor of DLPack {}.{} was given, 1.x is known",
                version.major, version.minor
            )));
        }
        Ok(given)
    }

    fn tensor(&self) -> &DLTensor {
        // SAFETY: it is alive until it is dropped, and of a version that is known.
        unsafe { &(*self.0).dl_tensor }
    }

    /// What it is, where it lies in main memory.
    pub(super) fn shape(&self) -> HostResult<(DLDataType, Vec<i64>)> {
        let tensor = self.tensor();
        if tensor.device.device_type != DL_CPU {
            return Err(no_device(tensor.device.device_type));
        }
        let ndim = tensor.ndim.max(0) as usize;
        // SAFETY: DLPack: `shape` has `ndim` entries.
        Ok((tensor.dtype, unsafe { numbers(tensor.shape, ndim) }.to_vec()))
    }

    /// Copies its elements to row-major memory.
    ///
    /// # Safety
    /// `to` has room for all elements, each of `size` bytes, and `shape` is the tensor's.
    pub(super) unsafe fn copy_to(&self, to: *mut u8, shape: &[i64], size: usize) -> HostResult<()> {
        let tensor = self.tensor();
        let count = shape.iter().product::<i64>().max(0) as usize;
        if count == 0 {
            return Ok(());
        }
        if tensor.data.is_null() {
            return Err(HostError::new(
                "the tensor that was given has elements, its `data` is null",
            ));
        }
        let from = tensor.data.cast::<u8>().wrapping_add(tensor.byte_offset as usize);
        let dense = row_major(shape);
        let strides = match tensor.strides.is_null() {
            true => dense.as_slice(),
            // SAFETY: DLPack: `strides` has `ndim` entries where it is not null.
            false => unsafe { numbers(tensor.strides, shape.len()) },
        };
        let same = |at: usize| shape[at] == 1 || strides[at] == dense[at];
        // What lies without gaps goes at once: from which dimension on that is.
        let whole = (0..shape.len()).rev().take_while(|&at| same(at)).last().unwrap_or(shape.len());
        let run = shape[whole..].iter().product::<i64>().max(1) as usize;
        let mut index = vec![0i64; whole];
        for row in 0..count / run {
            let offset: i64 = index.iter().zip(strides).map(|(at, stride)| at * stride).sum();
            let bytes = (offset as isize).wrapping_mul(size as isize);
            // SAFETY: DLPack: elements lie where shape and strides say; `to` has room for all.
            unsafe {
                to.add(row * run * size)
                    .copy_from_nonoverlapping(from.wrapping_offset(bytes), run * size);
            }
            for (at, dim) in index.iter_mut().zip(shape).rev() {
                *at += 1;
                if *at < *dim {
                    break;
                }
                *at = 0;
            }
        }
        Ok(())
    }
}

/// # Safety
/// `first` points to `count` numbers where that is not 0.
unsafe fn numbers<'a>(first: *const i64, count: usize) -> &'a [i64] {
    // SAFETY: as the caller promises.
    if count == 0 { &[] } else { unsafe { std::slice::from_raw_parts(first, count) } }
}

/// The error where the host lends no memory of a device.
pub(super) fn no_device(device: i32) -> HostError {
    let mut error = HostError::coded(
        "device",
        format!("this host does not lend memory of a device of DLPack's type {device} here"),
    );
    error.hint = "tensors of main memory (1, kDLCPU) work everywhere, operations on tensors where \
                  they lie"
        .into();
    error
}
