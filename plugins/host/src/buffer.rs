//! Tensors that plugins fill: memory of the host that becomes a tensor without a copy.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytemuck::Pod;
use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use kino_contract::code;
use kino_contract::ops::MAX_DIMENSIONS;
use kino_node::{Error, Result};

use crate::error::invalid;

/// A tensor in the making. It is zeros until it is written, and does not change once it is used.
pub struct TensorBuffer {
    shape: Vec<usize>,
    dtype: DType,
    count: usize,
    state: Mutex<State>,
}

enum State {
    Open(Elements),
    /// Lent to somebody who writes.
    Lent(Elements),
    Done(Tensor),
}

/// The elements that were written so far, and memory for the rest.
enum Elements {
    U8(Vec<u8>),
    U32(Vec<u32>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    BF16(Vec<bf16>),
    F16(Vec<f16>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

/// Does the same for whatever elements there are.
macro_rules! each {
    ($elements:expr, $vec:pat => $do:expr) => {
        match $elements {
            Elements::U8($vec) => $do,
            Elements::U32($vec) => $do,
            Elements::I16($vec) => $do,
            Elements::I32($vec) => $do,
            Elements::I64($vec) => $do,
            Elements::BF16($vec) => $do,
            Elements::F16($vec) => $do,
            Elements::F32($vec) => $do,
            Elements::F64($vec) => $do,
        }
    };
}

/// Fills memory that was set aside for elements.
pub trait FillElements {
    /// Makes up to `count` elements; those that it does not make are zeros.
    fn fill<T: Pod>(&self, elements: &mut Vec<T>, count: usize);
}

/// The memory of a draft, to be written.
pub struct WriteView {
    /// The first element; row-major without gaps.
    pub data: *mut u8,
    /// The number of bytes.
    pub bytes: usize,
}

impl Elements {
    fn none() -> Self {
        Elements::U8(Vec::new())
    }

    fn reserve(dtype: DType, count: usize) -> Result<Self> {
        Ok(match dtype {
            DType::U8 => Elements::U8(reserve(count)?),
            DType::U32 => Elements::U32(reserve(count)?),
            DType::I16 => Elements::I16(reserve(count)?),
            DType::I32 => Elements::I32(reserve(count)?),
            DType::I64 => Elements::I64(reserve(count)?),
            DType::BF16 => Elements::BF16(reserve(count)?),
            DType::F16 => Elements::F16(reserve(count)?),
            DType::F32 => Elements::F32(reserve(count)?),
            DType::F64 => Elements::F64(reserve(count)?),
            other => {
                return Err(invalid(format!("plugins do not make tensors of {other:?}")));
            }
        })
    }
}

/// Memory for elements, none of them written.
fn reserve<T>(count: usize) -> Result<Vec<T>> {
    let mut elements = Vec::new();
    elements.try_reserve_exact(count).map_err(|_| {
        let bytes = count * size_of::<T>();
        Error::coded(
            code::OUT_OF_MEMORY,
            format!("this machine has no {bytes} bytes of memory for a tensor"),
        )
    })?;
    Ok(elements)
}

/// All elements; those that nobody has written are zeros.
fn all<T: Pod>(elements: &mut Vec<T>, count: usize) -> &mut [T] {
    elements.resize(count, T::zeroed());
    elements
}

/// Writes bytes at an offset in bytes, which lie within `count` elements. What follows on what is
/// written already is not zeroed before.
fn put<T: Pod>(elements: &mut Vec<T>, count: usize, offset: usize, bytes: &[u8]) {
    match bytemuck::try_cast_slice(bytes) {
        Ok(next) if offset == size_of_val(elements.as_slice()) => elements.extend_from_slice(next),
        _ => {
            let end = (offset + bytes.len()).div_ceil(size_of::<T>());
            let written = elements.len().max(end).min(count);
            let to: &mut [u8] = bytemuck::cast_slice_mut(all(elements, written));
            to[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
    }
}

impl TensorBuffer {
    /// The bytes that a tensor of a shape takes.
    ///
    /// # Errors
    /// When no tensor has the shape.
    pub fn size(dtype: DType, shape: &[usize]) -> Result<u64> {
        if shape.len() > MAX_DIMENSIONS {
            return Err(invalid(format!(
                "a tensor of {} dimensions: at most {MAX_DIMENSIONS} are possible",
                shape.len()
            )));
        }
        // A dimension beside an empty one must be possible, too.
        let possible = shape
            .iter()
            .try_fold(1isize, |count, dim| count.checked_mul(isize::try_from(*dim).ok()?.max(1)));
        let count = possible.map(|_| shape.iter().product::<usize>());
        let bytes = count.and_then(|count| count.checked_mul(dtype.size_in_bytes()));
        let bytes = bytes.filter(|bytes| isize::try_from(*bytes).is_ok());
        let impossible = || invalid(format!("no tensor has the shape {shape:?}"));
        bytes.map(|bytes| bytes as u64).ok_or_else(impossible)
    }

    /// Zeros of a shape.
    ///
    /// # Errors
    /// When the shape is impossible, larger than `most` bytes, or the element type is none that
    /// plugins use.
    pub fn zeros(dtype: DType, shape: &[usize], most: u64) -> Result<Self> {
        let bytes = TensorBuffer::size(dtype, shape)?;
        if bytes > most {
            return Err(Error::coded(
                code::LIMIT,
                format!(
                    "a tensor of {shape:?} takes {bytes} bytes, more than the {most} that are left"
                ),
            ));
        }
        let count = shape.iter().product();
        let elements = Elements::reserve(dtype, count)?;
        let state = Mutex::new(State::Open(elements));
        Ok(TensorBuffer { shape: shape.to_vec(), dtype, count, state })
    }

    /// As [`TensorBuffer::zeros`], with elements that `fill` makes of the memory that was set aside.
    ///
    /// # Errors
    /// As [`TensorBuffer::zeros`].
    pub fn filled(
        dtype: DType,
        shape: &[usize],
        most: u64,
        fill: &impl FillElements,
    ) -> Result<Self> {
        let draft = TensorBuffer::zeros(dtype, shape, most)?;
        if let State::Open(elements) = &mut *draft.state() {
            each!(elements, vec => fill.fill(vec, draft.count));
        }
        Ok(draft)
    }

    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The type of its elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lends the memory to somebody who writes; it stays where it is until [`TensorBuffer::give_back`].
    ///
    /// # Errors
    /// When it is lent already, or in use as a tensor.
    pub fn lend(&self) -> Result<WriteView> {
        let mut state = self.state();
        match std::mem::replace(&mut *state, State::Open(Elements::none())) {
            State::Open(mut elements) => {
                let view = each!(&mut elements, vec => {
                    let all = all(vec, self.count);
                    WriteView { data: all.as_mut_ptr().cast(), bytes: size_of_val(all) }
                });
                *state = State::Lent(elements);
                Ok(view)
            }
            other => {
                let lent = matches!(other, State::Lent(_));
                *state = other;
                Err(invalid(if lent {
                    "this tensor is being written already"
                } else {
                    "this tensor is in use and cannot be written any more"
                }))
            }
        }
    }

    /// Ends what [`TensorBuffer::lend`] began.
    pub fn give_back(&self) {
        let mut state = self.state();
        *state = match std::mem::replace(&mut *state, State::Open(Elements::none())) {
            State::Lent(elements) => State::Open(elements),
            other => other,
        };
    }

    /// Fills it through a function that writes all its bytes.
    ///
    /// # Errors
    /// What the function says, or when it is in use as a tensor.
    pub fn fill(&self, write: impl FnOnce(&mut [u8]) -> std::io::Result<()>) -> Result<()> {
        let mut state = self.state();
        let State::Open(elements) = &mut *state else {
            return Err(invalid("this tensor is in use and cannot be written any more"));
        };
        each!(elements, vec => write(bytemuck::cast_slice_mut(all(vec, self.count))))?;
        Ok(())
    }

    /// Writes bytes at an offset.
    ///
    /// # Errors
    /// When they do not fit, or it is in use as a tensor.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut state = self.state();
        let State::Open(elements) = &mut *state else {
            return Err(invalid("this tensor is in use and cannot be written any more"));
        };
        let whole = self.count * self.dtype.size_in_bytes();
        let from = usize::try_from(offset).ok();
        let from =
            from.filter(|from| from.checked_add(bytes.len()).is_some_and(|end| end <= whole));
        let Some(from) = from else {
            return Err(invalid(format!(
                "{} bytes at {offset} lie beyond the {whole} bytes of the tensor",
                bytes.len()
            )));
        };
        each!(elements, vec => put(vec, self.count, from, bytes));
        Ok(())
    }

    /// The tensor; from here on it does not change.
    ///
    /// # Errors
    /// When somebody still writes to it.
    pub fn finish(&self) -> Result<Tensor> {
        let mut state = self.state();
        match std::mem::replace(&mut *state, State::Open(Elements::none())) {
            State::Open(elements) => {
                let shape = self.shape.as_slice();
                let tensor = each!(elements, mut vec => {
                    all(&mut vec, self.count);
                    Tensor::from_vec(vec, shape, &Device::Cpu)?
                });
                *state = State::Done(tensor.clone());
                Ok(tensor)
            }
            State::Done(tensor) => {
                *state = State::Done(tensor.clone());
                Ok(tensor)
            }
            State::Lent(elements) => {
                *state = State::Lent(elements);
                Err(invalid("this tensor is still being written: give its view back first"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_becomes_a_tensor_in_place() {
        let draft = TensorBuffer::zeros(DType::F32, &[2, 3], 1 << 20).unwrap();
        let view = draft.lend().unwrap();
        assert_eq!(view.bytes, 24);
        assert!(draft.finish().unwrap_err().to_string().contains("still being written"));
        draft.give_back();
        draft.write(4, &2.5f32.to_le_bytes()).unwrap();
        assert!(draft.write(22, &[0; 4]).unwrap_err().to_string().contains("beyond the 24 bytes"));
        assert!(draft.write(u64::MAX, &[0; 4]).is_err());
        let tensor = draft.finish().unwrap();
        let (storage, _) = tensor.storage_and_layout();
        let candle_core::Storage::Cpu(storage) = &*storage else { panic!() };
        let at: *const f32 = storage.as_slice::<f32>().unwrap().as_ptr();
        assert!(std::ptr::eq(at.cast(), view.data));
        assert_eq!(tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()[1], 2.5);
        assert!(draft.lend().is_err());
    }

    #[test]
    fn a_tensor_is_seen_where_it_lies() {
        use kino_node::Value;
        let tensor = Tensor::arange(0f32, 24.0, &Device::Cpu).unwrap().reshape((2, 12)).unwrap();
        let row = tensor.narrow(0, 1, 1).unwrap();
        let (storage, _) = tensor.storage_and_layout();
        let candle_core::Storage::Cpu(storage) = &*storage else { panic!() };
        let at = storage.as_slice::<f32>().unwrap()[12..].as_ptr();
        let view = crate::PluginValue::Value(Value::Tensor(row)).view().unwrap();
        assert!(std::ptr::eq(at.cast(), view.data));
        assert_eq!((view.shape, view.strides), (vec![1, 12], vec![12, 1]));
    }

    #[test]
    fn what_is_not_written_is_zero() {
        let bytes: Vec<u8> = (1..=40).collect();
        for (dtype, pieces) in [
            (DType::F64, &[(0, 8), (8, 16)][..]),
            (DType::F64, &[(4, 3), (7, 9), (30, 1)]),
            (DType::U32, &[(16, 8), (0, 4)]),
            (DType::U8, &[(39, 1), (0, 0)]),
            (DType::I16, &[]),
        ] {
            let count = 40 / dtype.size_in_bytes();
            let draft = TensorBuffer::zeros(dtype, &[count], 40).unwrap();
            let mut expected = [0; 40];
            for &(at, length) in pieces {
                draft.write(at as u64, &bytes[at..at + length]).unwrap();
                expected[at..at + length].copy_from_slice(&bytes[at..at + length]);
            }
            draft.finish().unwrap();
            let mut found = Vec::new();
            draft.finish().unwrap().write_bytes(&mut found).unwrap();
            assert_eq!(found, expected, "{dtype:?} {pieces:?}");
        }
    }

    #[test]
    fn impossible_shapes_are_refused() {
        for shape in [&[usize::MAX, 2][..], &[0, usize::MAX], &[1 << 40], &[1 << 20, 1 << 20, 4]] {
            assert!(TensorBuffer::zeros(DType::F64, shape, 1 << 30).is_err(), "{shape:?}");
        }
        let error =
            TensorBuffer::zeros(DType::F64, &[1 << 44], u64::MAX).err().unwrap().to_string();
        assert!(error.starts_with("this machine has no"), "{error}");
    }
}
