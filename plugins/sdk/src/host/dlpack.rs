//! Types of elements as DLPack says them.

use kino_abi::{DL_BFLOAT, DL_BOOL, DL_FLOAT, DL_INT, DL_UINT, DLDataType};

use crate::{DType, Error, Result};

/// The type of elements that DLPack says.
pub(crate) fn dtype_of(dtype: DLDataType) -> Result<DType> {
    Ok(match (dtype.code, dtype.bits) {
        (DL_UINT | DL_BOOL, 8) => DType::U8,
        (DL_UINT, 32) => DType::U32,
        (DL_INT, 16) => DType::I16,
        (DL_INT, 32) => DType::I32,
        (DL_INT, 64) => DType::I64,
        (DL_BFLOAT, 16) => DType::Bf16,
        (DL_FLOAT, 16) => DType::F16,
        (DL_FLOAT, 32) => DType::F32,
        (DL_FLOAT, 64) => DType::F64,
        (code, bits) => {
            return Err(Error::new(format!("elements of code {code} and {bits} bits are unknown")));
        }
    })
}

/// The type of elements as DLPack writes it.
pub(crate) fn dl_type(dtype: DType) -> DLDataType {
    let code = match dtype {
        DType::U8 | DType::U32 => DL_UINT,
        DType::I16 | DType::I32 | DType::I64 => DL_INT,
        DType::Bf16 => DL_BFLOAT,
        DType::F16 | DType::F32 | DType::F64 => DL_FLOAT,
    };
    DLDataType { code, bits: 8 * dtype.size() as u8, lanes: 1 }
}
