//! DLPack 1.0, as far as the contract uses it (<https://dmlc.github.io/dlpack/latest/c_api.html>).
//! In the header these are DLPack's own types (`cbindgen.toml`).

use std::ffi::c_void;

/// The version of DLPack that a tensor was made for.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DLPackVersion {
    /// 1 here.
    pub major: u32,
    /// 0 here.
    pub minor: u32,
}

/// Where a tensor lies.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DLDevice {
    /// [`DL_CPU`], [`DL_CUDA`] or [`DL_METAL`].
    pub device_type: i32,
    /// Which of them.
    pub device_id: i32,
}

/// The main memory.
pub const DL_CPU: i32 = 1;
/// The memory of an NVIDIA GPU.
pub const DL_CUDA: i32 = 2;
/// The memory of an Apple GPU.
pub const DL_METAL: i32 = 8;

/// The type of an element.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DLDataType {
    /// [`DL_INT`], [`DL_UINT`], [`DL_FLOAT`], [`DL_BFLOAT`] or [`DL_BOOL`].
    pub code: u8,
    /// Bits of one element.
    pub bits: u8,
    /// 1 here.
    pub lanes: u16,
}

/// Signed whole numbers.
pub const DL_INT: u8 = 0;
/// Unsigned whole numbers.
pub const DL_UINT: u8 = 1;
/// IEEE 754 floating-point numbers.
pub const DL_FLOAT: u8 = 2;
/// bfloat16.
pub const DL_BFLOAT: u8 = 4;
/// Truth values, a byte each.
pub const DL_BOOL: u8 = 6;

/// A tensor: where its elements lie and how.
#[repr(C)]
#[derive(Debug)]
pub struct DLTensor {
    /// The first byte of the memory.
    pub data: *mut c_void,
    /// Where that memory is.
    pub device: DLDevice,
    /// The number of dimensions.
    pub ndim: i32,
    /// The type of the elements.
    pub dtype: DLDataType,
    /// The size of each dimension.
    pub shape: *mut i64,
    /// Elements from one to the next along each dimension. A host fills them always; null in what a
    /// plugin gives means row-major without gaps.
    pub strides: *mut i64,
    /// Where the first element lies, in bytes behind `data`.
    pub byte_offset: u64,
}

/// A tensor with what is needed to give it back.
#[repr(C)]
#[derive(Debug)]
pub struct DLManagedTensorVersioned {
    /// The version of this structure.
    pub version: DLPackVersion,
    /// Belongs to whoever made the view.
    pub manager_ctx: *mut c_void,
    /// Gives the view back; to be called exactly once, from any thread.
    pub deleter: Option<unsafe extern "C" fn(view: *mut DLManagedTensorVersioned)>,
    /// [`DL_BITS_FLAG_READ_ONLY`] or 0.
    pub flags: u64,
    /// The tensor.
    pub dl_tensor: DLTensor,
}

/// The elements must not be written.
pub const DL_BITS_FLAG_READ_ONLY: u64 = 1;
