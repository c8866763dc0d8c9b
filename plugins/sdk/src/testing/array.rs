//! A tensor of the reference host: row-major, in memory.

use crate::element::{bytes_of, bytes_of_mut};
use crate::{Bf16, DType, F16};

/// Elements of one type, in row-major order.
#[derive(Clone)]
pub(crate) struct Array {
    pub(crate) dtype: DType,
    pub(crate) dims: Vec<usize>,
    /// Whole words, so that elements of every type are aligned.
    words: Vec<i64>,
}

impl Array {
    pub(crate) fn zeros(dtype: DType, dims: &[usize]) -> Self {
        let bytes = dims.iter().product::<usize>() * dtype.size();
        Array { dtype, dims: dims.to_vec(), words: vec![0; bytes.div_ceil(8).max(1)] }
    }

    /// Computes each element, a number of some precision, from its index.
    pub(crate) fn real(dtype: DType, dims: &[usize], of: impl Fn(usize) -> f64) -> Self {
        let mut made = Array::zeros(dtype, dims);
        (0..made.count()).for_each(|index| made.set(index, of(index)));
        made
    }

    /// Computes each element, a whole number that wraps around in its type, from its index.
    pub(crate) fn whole(dtype: DType, dims: &[usize], of: impl Fn(usize) -> i128) -> Self {
        let mut made = Array::zeros(dtype, dims);
        (0..made.count()).for_each(|index| made.set_int(index, of(index)));
        made
    }

    /// Takes each element, unchanged, from where a function says; zero where it says nothing.
    pub(crate) fn moved(&self, dims: &[usize], from: impl Fn(usize) -> Option<usize>) -> Self {
        let mut made = Array::zeros(self.dtype, dims);
        let size = self.dtype.size();
        for index in 0..made.count() {
            if let Some(from) = from(index) {
                let element = &self.bytes()[from * size..][..size];
                made.bytes_mut()[index * size..][..size].copy_from_slice(element);
            }
        }
        made
    }

    pub(crate) fn count(&self) -> usize {
        self.dims.iter().product()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &bytes_of(&self.words)[..self.count() * self.dtype.size()]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let length = self.count() * self.dtype.size();
        &mut bytes_of_mut(&mut self.words)[..length]
    }

    /// Where the elements lie.
    pub(crate) fn pointer(&mut self) -> *mut u8 {
        self.words.as_mut_ptr().cast()
    }

    /// An element as a number; whole ones beyond 2⁵³ are rounded.
    pub(crate) fn get(&self, index: usize) -> f64 {
        match self.dtype {
            DType::Bf16 => f64::from(Bf16(u16::from_ne_bytes(self.element(index))).to_f32()),
            DType::F16 => f64::from(F16(u16::from_ne_bytes(self.element(index))).to_f32()),
            DType::F32 => f64::from(f32::from_ne_bytes(self.element(index))),
            DType::F64 => f64::from_ne_bytes(self.element(index)),
            _ => self.int(index) as f64,
        }
    }

    /// A whole number; of other types the nearest one towards zero.
    pub(crate) fn int(&self, index: usize) -> i128 {
        match self.dtype {
            DType::U8 => i128::from(self.bytes()[index]),
            DType::U32 => i128::from(u32::from_ne_bytes(self.element(index))),
            DType::I16 => i128::from(i16::from_ne_bytes(self.element(index))),
            DType::I32 => i128::from(i32::from_ne_bytes(self.element(index))),
            DType::I64 => i128::from(i64::from_ne_bytes(self.element(index))),
            _ => self.get(index) as i128,
        }
    }

    /// Stores a number; whole types cut it towards zero and keep it within their range.
    pub(crate) fn set(&mut self, index: usize, value: f64) {
        match self.dtype {
            DType::Bf16 => self.put(index, Bf16::from_f32(value as f32).0.to_ne_bytes()),
            DType::F16 => self.put(index, F16::from_f32(value as f32).0.to_ne_bytes()),
            DType::F32 => self.put(index, (value as f32).to_ne_bytes()),
            DType::F64 => self.put(index, value.to_ne_bytes()),
            _ => {
                let [least, most] = self.dtype.range().unwrap_or_default();
                self.set_int(index, (value as i128).clamp(least.into(), most.into()));
            }
        }
    }

    /// Stores a whole number; whole types wrap it around.
    pub(crate) fn set_int(&mut self, index: usize, value: i128) {
        match self.dtype {
            DType::U8 => self.put(index, (value as u8).to_ne_bytes()),
            DType::U32 => self.put(index, (value as u32).to_ne_bytes()),
            DType::I16 => self.put(index, (value as i16).to_ne_bytes()),
            DType::I32 => self.put(index, (value as i32).to_ne_bytes()),
            DType::I64 => self.put(index, (value as i64).to_ne_bytes()),
            _ => self.set(index, value as f64),
        }
    }

    fn element<const N: usize>(&self, index: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.bytes()[index * N..][..N]);
        bytes
    }

    fn put<const N: usize>(&mut self, index: usize, bytes: [u8; N]) {
        self.bytes_mut()[index * N..][..N].copy_from_slice(&bytes);
    }
}
