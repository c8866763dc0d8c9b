//! A tensor's elements.

use crate::{DType, Error, Result};

/// How many elements are worked on between two looks at the cancel flag; also what a component
/// holds in its memory at once (4 bytes each).
pub(crate) const FILL_PIECE: usize = 1 << 15;

mod sealed {
    pub trait Sealed {}
}

/// A number that can be an element of a tensor.
pub trait Element: Copy + Default + Send + Sync + sealed::Sealed + 'static {
    /// Its type.
    const DTYPE: DType;
}

/// The bits of a half precision number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct F16(pub u16);

/// The bits of a bfloat16 number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bf16(pub u16);

macro_rules! elements {
    ($($ty:ty => $dtype:ident,)*) => {$(
        impl sealed::Sealed for $ty {}
        impl Element for $ty {
            const DTYPE: DType = DType::$dtype;
        }
    )*};
}

elements! {
    u8 => U8,
    u32 => U32,
    i16 => I16,
    i32 => I32,
    i64 => I64,
    Bf16 => Bf16,
    F16 => F16,
    f32 => F32,
    f64 => F64,
}

/// The bytes of elements.
pub(crate) fn bytes_of<T: Element>(elements: &[T]) -> &[u8] {
    // SAFETY: `Element` is sealed to types without padding; every byte of theirs is initialised,
    // and the length is that of the same memory.
    unsafe { std::slice::from_raw_parts(elements.as_ptr().cast(), std::mem::size_of_val(elements)) }
}

/// The bytes of elements, to be written.
pub(crate) fn bytes_of_mut<T: Element>(elements: &mut [T]) -> &mut [u8] {
    let length = std::mem::size_of_val(elements);
    // SAFETY: as in `bytes_of`; and every pattern of bits is a value of each of these types.
    unsafe { std::slice::from_raw_parts_mut(elements.as_mut_ptr().cast(), length) }
}

/// Bytes as elements; none where they are not aligned for it.
pub(crate) fn elements_of<T: Element>(bytes: &[u8]) -> Option<&[T]> {
    // SAFETY: every pattern of bits is a value of the types that `Element` is sealed to.
    let (before, elements, after) = unsafe { bytes.align_to::<T>() };
    (before.is_empty() && after.is_empty()).then_some(elements)
}

/// Bytes as elements, to be written; none where they are not aligned for it.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn elements_of_mut<T: Element>(bytes: &mut [u8]) -> Option<&mut [T]> {
    // SAFETY: as in `elements_of`, and all of these types have no padding.
    let (before, elements, after) = unsafe { bytes.align_to_mut::<T>() };
    (before.is_empty() && after.is_empty()).then_some(elements)
}

/// Checks that elements are asked for as what they are.
pub(crate) fn check_dtype<T: Element>(found: DType) -> Result<()> {
    if T::DTYPE == found {
        return Ok(());
    }
    Err(Error::new(format!("expected a tensor of {}, found one of {found}", T::DTYPE))
        .hint(format!("`tensor.cast(DType::{:?})?` converts it", T::DTYPE)))
}

/// The number of elements in a shape.
pub(crate) fn count_of(dims: &[usize]) -> Result<usize> {
    dims.iter().try_fold(1usize, |count, &dim| count.checked_mul(dim)).ok_or_else(|| {
        Error::new(format!("a tensor of shape {dims:?} has more elements than fit into memory"))
    })
}
