//! Tensors as DLPack views: read-only where they lie, or memory of the host to be written.

use std::ffi::c_void;
use std::sync::Arc;

use candle_core::{DType, DeviceLocation};
use kino_abi::{
    DL_BFLOAT, DL_BITS_FLAG_READ_ONLY, DL_BOOL, DL_CPU, DL_CUDA, DL_FLOAT, DL_INT, DL_METAL,
    DL_UINT, DLDataType, DLDevice, DLManagedTensorVersioned, DLPackVersion, DLTensor,
};
use kino_host::PluginValue;
use kino_node::{Error, Result};

use crate::allocator::allocator;

/// What a view keeps alive.
struct Owner {
    view: DLManagedTensorVersioned,
    shape: Vec<i64>,
    strides: Vec<i64>,
    item: Arc<PluginValue>,
    /// Keeps the elements of a view to read where they are.
    _keeper: Option<PluginValue>,
    writes: bool,
}

/// The element type as DLPack says it.
pub(crate) fn to_dl(dtype: DType) -> Result<DLDataType> {
    let (code, bits) = match dtype {
        DType::U8 => (DL_UINT, 8),
        DType::U32 => (DL_UINT, 32),
        DType::I16 => (DL_INT, 16),
        DType::I32 => (DL_INT, 32),
        DType::I64 => (DL_INT, 64),
        DType::BF16 => (DL_BFLOAT, 16),
        DType::F16 => (DL_FLOAT, 16),
        DType::F32 => (DL_FLOAT, 32),
        DType::F64 => (DL_FLOAT, 64),
        other => return Err(Error::failed(format!("plugins do not see {other:?}"))),
    };
    Ok(DLDataType { code, bits, lanes: 1 })
}

/// The element type that DLPack says.
pub(crate) fn from_dl(dtype: DLDataType) -> Result<DType> {
    Ok(match (dtype.code, dtype.bits, dtype.lanes) {
        (DL_UINT | DL_BOOL, 8, 1) => DType::U8,
        (DL_UINT, 32, 1) => DType::U32,
        (DL_INT, 16, 1) => DType::I16,
        (DL_INT, 32, 1) => DType::I32,
        (DL_INT, 64, 1) => DType::I64,
        (DL_BFLOAT, 16, 1) => DType::BF16,
        (DL_FLOAT, 16, 1) => DType::F16,
        (DL_FLOAT, 32, 1) => DType::F32,
        (DL_FLOAT, 64, 1) => DType::F64,
        (code, bits, lanes) => {
            return Err(Error::advised(
                format!("no tensors have elements of code {code}, {bits} bits, {lanes} lanes"),
                "u8, u32, i16, i32, i64, bf16, f16, f32 and f64 are known",
            ));
        }
    })
}

/// A read-only view.
///
/// # Errors
/// When the item is no tensor, or still being written.
pub(crate) fn read(item: Arc<PluginValue>) -> Result<*mut DLManagedTensorVersioned> {
    allocator().seal(&item)?;
    let found = item.view()?;
    let layout = Layout {
        data: found.data.cast_mut(),
        device: device(found.location),
        dtype: to_dl(found.dtype)?,
        shape: &found.shape,
        strides: &found.strides,
    };
    Ok(lend(item, Some(found.keeper), &layout))
}

/// A view to write a tensor that the maker of this process made.
///
/// # Errors
/// When it is none, in use, or lent already.
pub(crate) fn write(item: Arc<PluginValue>) -> Result<*mut DLManagedTensorVersioned> {
    let (dtype, shape) = item.shape()?;
    let dtype = to_dl(dtype)?;
    let data = allocator().lend(&item)?;
    let mut strides = vec![1; shape.len()];
    for at in (1..shape.len()).rev() {
        strides[at - 1] = strides[at] * shape[at];
    }
    let layout = Layout {
        data,
        device: device(DeviceLocation::Cpu),
        dtype,
        shape: &shape,
        strides: &strides,
    };
    Ok(lend(item, None, &layout))
}

fn device(location: DeviceLocation) -> DLDevice {
    let (device_type, id) = match location {
        DeviceLocation::Cpu => (DL_CPU, 0),
        DeviceLocation::Cuda { gpu_id } => (DL_CUDA, gpu_id),
        DeviceLocation::Metal { gpu_id } => (DL_METAL, gpu_id),
    };
    DLDevice { device_type, device_id: id as i32 }
}

/// Where and how a tensor lies.
struct Layout<'a> {
    data: *mut u8,
    device: DLDevice,
    dtype: DLDataType,
    shape: &'a [usize],
    strides: &'a [usize],
}

fn lend(
    item: Arc<PluginValue>,
    keeper: Option<PluginValue>,
    layout: &Layout<'_>,
) -> *mut DLManagedTensorVersioned {
    let Layout { data, device, dtype, shape, strides } = *layout;
    let signed = |sizes: &[usize]| sizes.iter().map(|size| *size as i64).collect::<Vec<_>>();
    let writes = keeper.is_none();
    let mut owner = Box::new(Owner {
        view: DLManagedTensorVersioned {
            version: DLPackVersion { major: 1, minor: 0 },
            manager_ctx: std::ptr::null_mut(),
            deleter: Some(give_back),
            flags: if writes { 0 } else { DL_BITS_FLAG_READ_ONLY },
            dl_tensor: DLTensor {
                data: data.cast::<c_void>(),
                device,
                ndim: shape.len() as i32,
                dtype,
                shape: std::ptr::null_mut(),
                strides: std::ptr::null_mut(),
                byte_offset: 0,
            },
        },
        shape: signed(shape),
        strides: signed(strides),
        item,
        _keeper: keeper,
        writes,
    });
    owner.view.dl_tensor.shape = owner.shape.as_mut_ptr();
    owner.view.dl_tensor.strides = owner.strides.as_mut_ptr();
    let owner = Box::into_raw(owner);
    // SAFETY: `owner` was just made from a box, so it points to an `Owner`.
    let view = unsafe { &raw mut (*owner).view };
    // SAFETY: as above; nobody else has seen it yet.
    unsafe { (*view).manager_ctx = owner.cast() };
    view
}

/// The deleter of all views.
///
/// # Safety
/// `view` comes from [`lend`] and is given back once: the contract of `DLManagedTensorVersioned`.
unsafe extern "C" fn give_back(view: *mut DLManagedTensorVersioned) {
    if view.is_null() {
        return;
    }
    // SAFETY: by the contract, `view` is one of ours, whose context is its owner.
    let owner = unsafe { Box::from_raw((*view).manager_ctx.cast::<Owner>()) };
    if owner.writes {
        allocator().give_back(&owner.item);
    }
}
