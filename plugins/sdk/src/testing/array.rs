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

    /// Computes each element from its index.
    pub(crate) fn made(dtype: DType, dims: &[usize], of: impl Fn(usize) -> f64) -> Self {
        let mut made = Array::zeros(dtype, dims);
        (0..made.count()).for_each(|index| made.set(index, of(index)));
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

    pub(crate) fn get(&self, index: usize) -> f64 {
        macro_rules! number {
            ($ty:ty) => {{
                const SIZE: usize = size_of::<$ty>();
                let mut bytes = [0; SIZE];
                bytes.copy_from_slice(&self.bytes()[index * SIZE..][..SIZE]);
                <$ty>::from_ne_bytes(bytes)
            }};
        }
        match self.dtype {
            DType::U8 => f64::from(self.bytes()[index]),
            DType::U32 => f64::from(number!(u32)),
            DType::I16 => f64::from(number!(i16)),
            DType::I32 => f64::from(number!(i32)),
            DType::I64 => number!(i64) as f64,
            DType::Bf16 => f64::from(Bf16(number!(u16)).to_f32()),
            DType::F16 => f64::from(F16(number!(u16)).to_f32()),
            DType::F32 => f64::from(number!(f32)),
            DType::F64 => number!(f64),
        }
    }

    pub(crate) fn set(&mut self, index: usize, value: f64) {
        macro_rules! put {
            ($number:expr) => {{
                let bytes = $number.to_ne_bytes();
                self.bytes_mut()[index * bytes.len()..][..bytes.len()].copy_from_slice(&bytes);
            }};
        }
        match self.dtype {
            DType::U8 => put!((value as u8)),
            DType::U32 => put!((value as u32)),
            DType::I16 => put!((value as i16)),
            DType::I32 => put!((value as i32)),
            DType::I64 => put!((value as i64)),
            DType::Bf16 => put!(Bf16::from_f32(value as f32).0),
            DType::F16 => put!(F16::from_f32(value as f32).0),
            DType::F32 => put!((value as f32)),
            DType::F64 => put!(value),
        }
    }
}
