//! The bytes of a new file, a piece at a time.

use std::collections::HashMap;

use candle_core::DType;
use half::{bf16, f16};

use super::plan::{Bytes, Conversion};
use crate::cancel::CheckCancel;
use crate::checkpoint::StoredType;
use crate::error::{Error, Result};
use crate::weight::{Scale, pieces};

/// Bytes that are copied at a time.
const COPIED: u64 = 1 << 20;

/// Takes the next bytes of a file.
pub type Sink<'a> = dyn FnMut(&[u8]) -> std::io::Result<()> + 'a;

impl Conversion {
    /// Gives all bytes of the new file to `sink`, in order. No more than a few megabytes of the
    /// source are in memory at a time; of matrices of whole numbers (int8), one of them.
    ///
    /// # Errors
    /// When the source cannot be read or has changed, holds a number that the new type does not, or
    /// the sink fails.
    pub fn write(&self, sink: &mut Sink<'_>, check_cancel: &mut CheckCancel<'_>) -> Result<()> {
        let mut put = |bytes: &[u8]| {
            check_cancel()?;
            sink(bytes).map_err(Error::Write)
        };
        put(&self.layout.header)?;
        let mut scales: HashMap<&str, f32> = HashMap::new();
        for (index, padding) in &self.layout.order {
            let (tensor, bytes) = &self.tensors[*index];
            match bytes {
                Bytes::Given(bytes) => put(bytes)?,
                Bytes::Copied(names) => {
                    names.iter().try_for_each(|name| self.copy(name, &mut put))?;
                }
                Bytes::Scale(names) => put(&self.scale(names, &mut scales)?.to_le_bytes())?,
                Bytes::Plain(names, dtype) => {
                    let mut narrow = Vec::new();
                    self.all_numbers(names, &mut |name, numbers| {
                        narrowed(numbers, *dtype, &mut narrow)
                            .map_err(|number| does_not_fit(self, name, number, *dtype))?;
                        put(&narrow)
                    })?;
                }
                Bytes::Blocks(names, blocks) => self.all_numbers(names, &mut |name, numbers| {
                    let bytes = kino_kernels::quantize_blocks(*blocks, numbers)
                        .map_err(|error| self.unfit(name, &error.to_string()))?;
                    put(&bytes)
                })?,
                Bytes::Fp8(names) => {
                    let scale = self.scale(names, &mut scales)?;
                    self.all_numbers(names, &mut |_, numbers| {
                        let bytes: Vec<u8> = numbers
                            .iter()
                            .map(|number| kino_kernels::to_e4m3(number / scale))
                            .collect();
                        put(&bytes)
                    })?;
                }
            }
            debug_assert!(tensor.length > 0 || tensor.shape.contains(&0));
            put(&vec![0; *padding as usize])?;
        }
        Ok(())
    }

    /// The bytes of a tensor as they are.
    fn copy(&self, name: &str, put: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let entry = self.files.find(name)?;
        let mut buffer = vec![0; entry.length.min(COPIED) as usize];
        let mut at = 0;
        while at < entry.length {
            let piece = &mut buffer[..(entry.length - at).min(COPIED) as usize];
            entry.file.read(entry.offset + at, piece)?;
            at += piece.len() as u64;
            put(piece)?;
        }
        entry.file.check_unchanged()
    }

    /// The numbers of several weights, one after the other.
    fn all_numbers(
        &self,
        names: &[String],
        each: &mut dyn FnMut(&str, &mut [f32]) -> Result<()>,
    ) -> Result<()> {
        let mut names = names.iter();
        names.try_for_each(|name| self.numbers(name, &mut |numbers| each(name, numbers)))
    }

    /// The numbers of a weight, a piece at a time, multiplied by what stands beside them.
    fn numbers(&self, name: &str, each: &mut dyn FnMut(&mut [f32]) -> Result<()>) -> Result<()> {
        let entry = self.files.find(name)?;
        let factor = match self.weights.factor(name)? {
            Scale::One(factor) if entry.stored != Some(StoredType::Int8) => Some(factor),
            _ => None,
        };
        let Some(factor) = factor else {
            // Rows have scales of their own, and may be rotated.
            let weight = self.weights.get_as(name, entry.shape, DType::F32)?;
            let mut numbers = weight.flatten_all()?.to_vec1::<f32>()?;
            return numbers.chunks_mut(COPIED as usize).try_for_each(each);
        };
        pieces(&entry, &mut |numbers| {
            if factor != 1.0 {
                numbers.iter_mut().for_each(|number| *number *= factor);
            }
            each(numbers)
        })
    }

    /// What weights in eight bits are multiplied by: their own scale where they have one, or their
    /// largest number over that of E4M3, found by reading them once.
    fn scale<'a>(&self, names: &'a [String], known: &mut HashMap<&'a str, f32>) -> Result<f32> {
        if let Some(scale) = known.get(&*names[0]) {
            return Ok(*scale);
        }
        let mut own = Vec::new();
        for name in names {
            let is_fp8 = self.files.find(name)?.stored == Some(StoredType::Plain(DType::F8E4M3));
            own.push(match self.weights.factor(name)? {
                Scale::One(scale) if is_fp8 => Some(scale),
                _ => None,
            });
        }
        let scale = match own[0] {
            Some(scale) if own.iter().all(|other| *other == Some(scale)) => scale,
            _ => {
                let mut largest = 0.0f32;
                self.all_numbers(names, &mut |name, numbers| {
                    for number in &*numbers {
                        if !number.is_finite() {
                            return Err(self.unfit(name, &format!("{number} has no place in fp8")));
                        }
                        largest = largest.max(number.abs());
                    }
                    Ok(())
                })?;
                // Of zeros any scale will do, and of numbers so small that it were none, too.
                let scale = largest / kino_kernels::E4M3_MAX;
                if scale >= f32::MIN_POSITIVE { scale } else { 1.0 }
            }
        };
        known.insert(&names[0], scale);
        Ok(scale)
    }

    fn unfit(&self, name: &str, reason: &str) -> Error {
        let file = self.files.describe().to_owned();
        Error::Config { file, reason: format!("weight {}: {reason}", self.files.named(name)) }
    }
}

fn does_not_fit(of: &Conversion, name: &str, number: f32, dtype: DType) -> Error {
    let dtype = dtype.as_str();
    of.unfit(name, &format!("{number} is too large for {dtype}; bf16 and f32 hold it"))
}

/// Numbers as bytes of a type; the first that is too large for it is an error.
fn narrowed(numbers: &[f32], dtype: DType, bytes: &mut Vec<u8>) -> Result<(), f32> {
    bytes.clear();
    bytes.reserve(numbers.len() * dtype.size_in_bytes());
    match dtype {
        DType::F16 => {
            for number in numbers {
                let half = f16::from_f32(*number);
                if half.is_infinite() && number.is_finite() {
                    return Err(*number);
                }
                bytes.extend(half.to_le_bytes());
            }
        }
        DType::BF16 => {
            for number in numbers {
                let half = bf16::from_f32(*number);
                if half.is_infinite() && number.is_finite() {
                    return Err(*number);
                }
                bytes.extend(half.to_le_bytes());
            }
        }
        _ => numbers.iter().for_each(|number| bytes.extend(number.to_le_bytes())),
    }
    Ok(())
}
