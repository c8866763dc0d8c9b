//! Reading a stored tensor into memory of its own, in the type in which it is computed with.

use std::ops::Range;

use bytemuck::Zeroable;
use candle_core::{DType, Device, Tensor, WithDType};
use half::{bf16, f16};
use kino_kernels::BlockType;

use super::block_memory::BlockMemory;
use crate::checkpoint::{DataFile, StoredType, TensorEntry};
use crate::error::{Error, Result};

/// Elements that are converted at a time: a multiple of every block's.
const PIECE: usize = 1 << 16;

/// The longest tensor of bytes that is read as a text.
const LONGEST_TEXT: usize = 1 << 16;

/// Where a tensor is to lie.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) device: &'a Device,
    /// Of a pass over blocks.
    pub(super) memory: Option<&'a BlockMemory>,
}

impl<'a> Target<'a> {
    /// Memory of its own, on a device.
    pub(super) fn of(device: &'a Device) -> Self {
        Self { device, memory: None }
    }

    /// A tensor of the numbers that `fill` gives, a range at a time.
    fn tensor<T: WithDType + bytemuck::Pod>(
        self,
        shape: &[usize],
        file: &DataFile,
        mut fill: impl FnMut(Range<usize>, &mut [T]) -> Result<()>,
    ) -> Result<Tensor> {
        let as_bytes = |range, bytes: &mut [u8]| fill(range, bytemuck::cast_slice_mut(bytes));
        let copied = self.memory.and_then(|memory| memory.copied(T::DTYPE, shape, as_bytes));
        if let Some(tensor) = copied {
            return tensor;
        }
        let mut values = zeros::<T>(shape.iter().product(), file)?;
        fill(0..values.len(), &mut values)?;
        Ok(Tensor::from_vec(values, shape, self.device)?)
    }
}

/// A stored tensor as `dtype` where it is to lie.
///
/// What is stored in eight bits a number, or in blocks, can be had as U8, too: its bytes, `[rows,
/// bytes of a row]`, where rows are whole blocks.
///
/// Bytes of the wanted type are read straight to where they stay; others pass through a small
/// buffer. So there is never a second copy of a tensor.
///
/// # Errors
/// When the file was changed or cannot be read, there is no memory for the tensor, or the stored
/// type is not read.
pub(super) fn tensor(entry: &TensorEntry<'_>, dtype: DType, target: Target<'_>) -> Result<Tensor> {
    let stored = check_type(entry)?;
    let read = match (dtype, stored) {
        (DType::U8, StoredType::Plain(DType::F8E4M3) | StoredType::Int8) => {
            bytes(entry, entry.shape, target)
        }
        (DType::U8, StoredType::Blocks(blocks)) => bytes(entry, &row_bytes(entry, blocks)?, target),
        // What these stand for, only tensors beside them say.
        (_, StoredType::Int8) => Err(type_error(entry)),
        (DType::F32, _) => build::<f32>(entry, stored, target),
        (DType::BF16, _) => build::<bf16>(entry, stored, target),
        (other, _) => Err(Error::ComputeType(other)),
    }?;
    entry.file.check_unchanged()?;
    Ok(read)
}

/// Fills `values` with some rows of a stored matrix of plain numbers.
///
/// # Errors
/// As [`tensor`], and when there are no such rows.
pub(super) fn rows<T: Element>(
    entry: &TensorEntry<'_>,
    rows: Range<usize>,
    values: &mut [T],
) -> Result<()> {
    let (StoredType::Plain(stored), &[all, inner]) = (check_type(entry)?, entry.shape) else {
        let name = entry.named();
        return Err(Error::input(format!("{name} is no matrix of plain numbers")));
    };
    if rows.end > all || rows.len() * inner != values.len() {
        let name = entry.named();
        return Err(Error::input(format!("{name} has {all} rows: {rows:?} are none of them")));
    }
    fill_from(entry, StoredType::Plain(stored), rows.start * inner, values)?;
    entry.file.check_unchanged()
}

/// Fills `bytes` with some rows of a stored matrix as they are, each of as many bytes as
/// `row_length`.
///
/// # Errors
/// When the file was changed or cannot be read.
pub(super) fn rows_as_bytes(
    entry: &TensorEntry<'_>,
    row_length: usize,
    rows: Range<usize>,
    bytes: &mut [u8],
) -> Result<()> {
    entry.read(entry.offset + (rows.start * row_length) as u64, bytes)?;
    entry.file.check_unchanged()
}

/// The shape of a matrix in blocks, its rows in bytes.
fn row_bytes(entry: &TensorEntry<'_>, blocks: BlockType) -> Result<[usize; 2]> {
    match *entry.shape {
        [rows, inner] => blocks.bytes_of(inner).map(|bytes| [rows, bytes]),
        _ => None,
    }
    .ok_or_else(|| {
        let (name, shape) = (entry.named(), entry.shape);
        Error::input(format!("{name} is {shape:?}: no rows of whole blocks {}", blocks.name()))
    })
}

/// The form in which a tensor is stored, if that is read.
///
/// # Errors
/// When it is not.
pub(super) fn check_type(entry: &TensorEntry<'_>) -> Result<StoredType> {
    entry.stored.ok_or_else(|| type_error(entry))
}

/// The error about a form that is not read.
pub(super) fn type_error(entry: &TensorEntry<'_>) -> Error {
    let (file, dtype) = (entry.file.name().to_owned(), entry.type_name.to_owned());
    Error::WeightType { file, name: entry.named(), dtype }
}

/// The number of a tensor that is one number of a type that weights have not: alphas are whole
/// numbers in some files, and f64 in others.
///
/// # Errors
/// When the file was changed or cannot be read.
pub(super) fn whole_number(entry: &TensorEntry<'_>) -> Result<Option<f64>> {
    let mut bytes = [0; 8];
    let Some(bytes) = bytes.get_mut(..entry.length as usize) else { return Ok(None) };
    let is_known = ["I64", "I32", "I16", "U8", "F64"].contains(&entry.type_name);
    if !is_known || bytes.is_empty() {
        return Ok(None);
    }
    entry.read(entry.offset, bytes)?;
    entry.file.check_unchanged()?;
    Ok(match (entry.type_name, &*bytes) {
        ("I64", &[a, b, c, d, e, f, g, h]) => {
            Some(i64::from_le_bytes([a, b, c, d, e, f, g, h]) as f64)
        }
        ("F64", &[a, b, c, d, e, f, g, h]) => Some(f64::from_le_bytes([a, b, c, d, e, f, g, h])),
        ("I32", &[a, b, c, d]) => Some(i32::from_le_bytes([a, b, c, d]).into()),
        ("I16", &[a, b]) => Some(i16::from_le_bytes([a, b]).into()),
        ("U8", &[a]) => Some(a.into()),
        _ => None,
    })
}

/// The bytes of a short tensor of bytes, whatever they say; none where it is none.
///
/// # Errors
/// When the file was changed or cannot be read.
pub(super) fn text(entry: &TensorEntry<'_>) -> Result<Option<Vec<u8>>> {
    let length: usize = entry.shape.iter().product();
    if entry.type_name != "U8" || length > LONGEST_TEXT {
        return Ok(None);
    }
    let mut bytes = vec![0; length];
    entry.read(entry.offset, &mut bytes)?;
    entry.file.check_unchanged()?;
    Ok(Some(bytes))
}

/// A type in which models compute.
pub(super) trait Element: WithDType + bytemuck::Pod {
    /// From a stored number.
    fn from_f32(value: f32) -> Self;
}

impl Element for f32 {
    fn from_f32(value: f32) -> Self {
        value
    }
}

impl Element for bf16 {
    fn from_f32(value: f32) -> Self {
        bf16::from_f32(value)
    }
}

fn build<T: Element>(
    entry: &TensorEntry<'_>,
    stored: StoredType,
    target: Target<'_>,
) -> Result<Tensor> {
    target.tensor(entry.shape, entry.file, |range, values: &mut [T]| {
        fill_from(entry, stored, range.start, values)
    })
}

/// Fills `values` with numbers of a tensor, from the `first` on: of blocks, the first of one.
fn fill_from<T: Element>(
    entry: &TensorEntry<'_>,
    stored: StoredType,
    first: usize,
    values: &mut [T],
) -> Result<()> {
    let (numbers, bytes) = unit(stored);
    let skipped = (first / numbers * bytes) as u64;
    fill(&TensorEntry { offset: entry.offset + skipped, ..*entry }, stored, values)
}

/// The numbers that are stored together, and in how many bytes.
fn unit(stored: StoredType) -> (usize, usize) {
    match stored {
        StoredType::Int8 | StoredType::E5m2 => (1, 1),
        StoredType::Plain(dtype) => (1, dtype.size_in_bytes()),
        StoredType::Blocks(blocks) => (blocks.numbers(), blocks.bytes()),
    }
}

/// Fills `values` with numbers, from the first of a tensor on.
fn fill<T: Element>(entry: &TensorEntry<'_>, stored: StoredType, values: &mut [T]) -> Result<()> {
    match stored {
        StoredType::Blocks(blocks) => widen(entry, blocks, values),
        StoredType::Int8 => Ok(()), // refused before
        StoredType::E5m2 => convert(entry, values, e5m2),
        // Files are little-endian; numbers of another order in memory are converted one by one.
        StoredType::Plain(dtype) if dtype == T::DTYPE && cfg!(target_endian = "little") => {
            entry.read(entry.offset, bytemuck::cast_slice_mut(values))
        }
        StoredType::Plain(DType::F16) => {
            convert(entry, values, |bytes| f16::from_le_bytes(bytes).to_f32())
        }
        StoredType::Plain(DType::BF16) => {
            convert(entry, values, |bytes| bf16::from_le_bytes(bytes).to_f32())
        }
        StoredType::Plain(DType::F8E4M3) => {
            convert(entry, values, |[byte]| kino_kernels::e4m3(byte))
        }
        StoredType::Plain(_) => convert(entry, values, f32::from_le_bytes),
    }
}

/// Gives the numbers of a tensor in f32, in order, a piece at a time: whole blocks, and no more
/// than `PIECE_READ` numbers.
///
/// # Errors
/// As [`tensor`], or when `each` fails.
pub(crate) fn pieces(
    entry: &TensorEntry<'_>,
    each: &mut dyn FnMut(&mut [f32]) -> Result<()>,
) -> Result<()> {
    let stored = check_type(entry)?;
    if stored == StoredType::Int8 {
        return Err(type_error(entry));
    }
    let (numbers, bytes) = unit(stored);
    let count: usize = entry.shape.iter().product();
    let mut wide = vec![0.0f32; PIECE_READ.min(count)];
    let mut buffer = vec![0; wide.len() / numbers * bytes];
    let mut at = 0;
    while at < count {
        let wide = &mut wide[..PIECE_READ.min(count - at)];
        let buffer = &mut buffer[..wide.len() / numbers * bytes];
        entry.read(entry.offset + (at / numbers * bytes) as u64, buffer)?;
        match stored {
            StoredType::Blocks(blocks) => kino_kernels::widen_blocks(blocks, buffer, wide),
            StoredType::Plain(DType::F16) => {
                widened(buffer, wide, |bytes| f16::from_le_bytes(bytes).to_f32());
            }
            StoredType::Plain(DType::BF16) => {
                widened(buffer, wide, |bytes| bf16::from_le_bytes(bytes).to_f32());
            }
            StoredType::E5m2 => widened(buffer, wide, e5m2),
            StoredType::Plain(DType::F8E4M3) => {
                widened(buffer, wide, |[byte]| kino_kernels::e4m3(byte));
            }
            _ => widened(buffer, wide, f32::from_le_bytes),
        }
        at += wide.len();
        each(wide)?;
    }
    entry.file.check_unchanged()
}

/// Numbers that [`pieces`] gives at a time: a multiple of every block's.
const PIECE_READ: usize = 1 << 20;

/// The number of a byte of E5M2 (arXiv:2209.05433), which is the upper half of an f16.
fn e5m2([byte]: [u8; 1]) -> f32 {
    f16::from_le_bytes([0, byte]).to_f32()
}

fn widened<const N: usize>(bytes: &[u8], wide: &mut [f32], number: impl Fn([u8; N]) -> f32) {
    for (wide, bytes) in wide.iter_mut().zip(bytes.as_chunks().0) {
        *wide = number(*bytes);
    }
}

/// The bytes of a tensor as they are, in this shape.
fn bytes(entry: &TensorEntry<'_>, shape: &[usize], target: Target<'_>) -> Result<Tensor> {
    target.tensor(shape, entry.file, |range, bytes: &mut [u8]| {
        entry.read(entry.offset + range.start as u64, bytes)
    })
}

/// The numbers of blocks.
fn widen<T: Element>(entry: &TensorEntry<'_>, blocks: BlockType, values: &mut [T]) -> Result<()> {
    let mut wide = vec![0.0; PIECE.min(values.len())];
    let mut buffer = vec![0; PIECE / blocks.numbers() * blocks.bytes()];
    let mut offset = entry.offset;
    for piece in values.chunks_mut(PIECE) {
        let bytes = &mut buffer[..piece.len() / blocks.numbers() * blocks.bytes()];
        entry.read(offset, bytes)?;
        offset += bytes.len() as u64;
        kino_kernels::widen_blocks(blocks, bytes, &mut wide);
        piece.iter_mut().zip(&wide).for_each(|(value, wide)| *value = T::from_f32(*wide));
    }
    Ok(())
}

fn convert<T: Element, const N: usize>(
    entry: &TensorEntry<'_>,
    values: &mut [T],
    number: impl Fn([u8; N]) -> f32,
) -> Result<()> {
    let mut buffer = vec![0; PIECE.min(values.len()) * N];
    let mut offset = entry.offset;
    for piece in values.chunks_mut(PIECE) {
        let bytes = &mut buffer[..piece.len() * N];
        entry.read(offset, bytes)?;
        offset += bytes.len() as u64;
        for (value, bytes) in piece.iter_mut().zip(bytes.as_chunks().0) {
            *value = T::from_f32(number(*bytes));
        }
    }
    Ok(())
}

/// Memory for `count` numbers, or an error where there is none.
fn zeros<T: Zeroable + Clone>(count: usize, file: &DataFile) -> Result<Vec<T>> {
    let mut values = Vec::new();
    values.try_reserve_exact(count).map_err(|_| Error::OutOfMemory {
        file: file.name().to_owned(),
        bytes: count as u64 * size_of::<T>() as u64,
    })?;
    values.resize(count, T::zeroed());
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As tensors are copied to a card.
    #[test]
    fn a_tensor_is_read_in_pieces_as_it_is_read_whole() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("weights");
        let bytes: Vec<u8> =
            (0..40_000u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = DataFile::open(&path, "weights").unwrap();
        let plain = [DType::F32, DType::F16, DType::BF16, DType::F8E4M3].map(StoredType::Plain);
        let blocks = [BlockType::Q8_0, BlockType::Q4_K, BlockType::Q5_K, BlockType::Q6_K];
        let blocks = blocks.map(StoredType::Blocks);
        for stored in plain.into_iter().chain([StoredType::E5m2]).chain(blocks) {
            let shape = [9, 256];
            let entry = TensorEntry {
                name: "weight",
                in_file: "weight",
                is_rows: false,
                file: &file,
                shape: &shape,
                stored: Some(stored),
                type_name: "",
                offset: 77,
                length: 0,
                past_cache: false,
            };
            let mut whole = vec![0f32; 9 * 256];
            fill(&entry, stored, &mut whole).unwrap();
            let mut pieces = vec![0f32; whole.len()];
            for (index, piece) in pieces.chunks_mut(512).enumerate() {
                fill_from(&entry, stored, index * 512, piece).unwrap();
            }
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&pieces), bits(&whole), "{stored:?}");
            assert!(pieces[1024..].iter().any(|x| *x != 0.0), "{stored:?}");
        }
    }
}
