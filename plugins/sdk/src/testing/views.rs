//! Tensors of the reference host as DLPack.

use std::sync::Arc;

use kino_abi::{
    DL_BITS_FLAG_READ_ONLY, DL_CPU, DLDataType, DLDevice, DLManagedTensorVersioned, DLPackVersion,
    DLTensor, KinoStatus, KinoValue,
};

use super::array::Array;
use super::held::{Draft, Handle, Held, Outcome};
use super::pass::{ended, give, shared};
use crate::host::dlpack::{dl_type, dtype_of};

/// What a view keeps alive.
struct Kept {
    view: DLManagedTensorVersioned,
    shape: Vec<i64>,
    value: Handle,
    writes: bool,
}

unsafe extern "C" fn delete(view: *mut DLManagedTensorVersioned) {
    // SAFETY: `lent` made the view, and the contract deletes it once.
    unsafe {
        let kept = Box::from_raw((*view).manager_ctx.cast::<Kept>());
        if let (true, Ok(draft)) = (kept.writes, kept.value.draft()) {
            draft.written();
        }
    }
}

fn lent(value: Handle, array: *mut Array, writes: bool) -> *mut DLManagedTensorVersioned {
    // SAFETY: the caller holds the value, and with it the array; a reader does not write to it.
    let (dtype, dims, data) = unsafe {
        let data = if writes { (*array).pointer() } else { (*array).bytes().as_ptr().cast_mut() };
        ((*array).dtype, &(*array).dims, data)
    };
    let shape: Vec<i64> = dims.iter().map(|&dim| dim as i64).collect();
    let mut kept = Box::new(Kept {
        view: DLManagedTensorVersioned {
            version: DLPackVersion { major: 1, minor: 0 },
            manager_ctx: std::ptr::null_mut(),
            deleter: Some(delete),
            flags: if writes { 0 } else { DL_BITS_FLAG_READ_ONLY },
            dl_tensor: DLTensor {
                data: data.cast(),
                device: DLDevice { device_type: DL_CPU, device_id: 0 },
                ndim: shape.len() as i32,
                dtype: dl_type(dtype),
                shape: std::ptr::null_mut(),
                strides: std::ptr::null_mut(),
                byte_offset: 0,
            },
        },
        shape,
        value,
        writes,
    });
    kept.view.dl_tensor.shape = kept.shape.as_mut_ptr();
    let kept = Box::into_raw(kept);
    // SAFETY: the box was just made; the view points back to what keeps it.
    unsafe {
        (*kept).view.manager_ctx = kept.cast();
        &raw mut (*kept).view
    }
}

pub(super) unsafe extern "C" fn view_tensor(
    value: *mut KinoValue,
    to: *mut *mut DLManagedTensorVersioned,
) -> KinoStatus {
    // SAFETY: the contract makes the plugin pass a live value and a valid place.
    unsafe {
        ended(shared(value).and_then(|value| {
            let array = std::ptr::from_ref(value.array()?).cast_mut();
            to.write(lent(value, array, false));
            Ok(())
        }))
    }
}

pub(super) unsafe extern "C" fn write_tensor(
    value: *mut KinoValue,
    to: *mut *mut DLManagedTensorVersioned,
) -> KinoStatus {
    // SAFETY: as in `view_tensor`.
    unsafe {
        ended(shared(value).and_then(|value| {
            let array = value.draft()?.write()?;
            to.write(lent(value, array, true));
            Ok(())
        }))
    }
}

pub(super) unsafe extern "C" fn new_tensor(
    dtype: DLDataType,
    shape: *const i64,
    ndim: usize,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: the contract makes the plugin lend a shape of `ndim` entries and a valid place.
    unsafe {
        let dims = match ndim {
            0 => &[],
            _ => std::slice::from_raw_parts(shape, ndim),
        };
        let made = empty(dtype, dims).map(|array| Arc::new(Held::Tensor(Draft::open(array))));
        give(made, to)
    }
}

fn empty(dtype: DLDataType, dims: &[i64]) -> Outcome<Array> {
    let dtype = dtype_of(dtype).map_err(|error| error.to_string())?;
    let sizes: Result<Vec<usize>, _> = dims.iter().map(|&dim| usize::try_from(dim)).collect();
    let sizes = sizes.map_err(|_| format!("a tensor cannot have the shape {dims:?}"))?;
    kino_contract::ops::fits("a tensor", &sizes, dtype, kino_contract::ops::MOST)
        .map_err(|why| why.to_string())?;
    Ok(Array::zeros(dtype, &sizes))
}
