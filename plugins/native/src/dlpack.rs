//! Types of elements and devices as DLPack says them.

use candle_core::{DType, DeviceLocation};
use kino_abi::{
    DL_BFLOAT, DL_BOOL, DL_CPU, DL_CUDA, DL_FLOAT, DL_INT, DL_METAL, DL_UINT, DLDataType, DLDevice,
};
use kino_node::{Error, Result};

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

/// A device as DLPack says it.
pub(crate) fn device(location: DeviceLocation) -> DLDevice {
    let (device_type, id) = match location {
        DeviceLocation::Cpu => (DL_CPU, 0),
        DeviceLocation::Cuda { gpu_id } => (DL_CUDA, gpu_id),
        DeviceLocation::Metal { gpu_id } => (DL_METAL, gpu_id),
    };
    DLDevice { device_type, device_id: id as i32 }
}
