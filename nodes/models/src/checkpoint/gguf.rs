//! The header of a GGUF file (versions 2 and 3; ggml's `docs/gguf.md`).
//!
//! It is a stranger's: every length is held against the file before anything is allocated or
//! skipped, and all sums are checked.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use candle_core::DType;
use kino_kernels::BlockType;

use super::file::DataFile;
use super::header::{AUTHORS_CONFIG, CONFIG, Header, StoredTensor, StoredType};
use crate::error::{Error, Result};

/// How a file begins.
pub(super) const MAGIC: &[u8] = b"GGUF";

/// The longest header that is read: tokenizers of large vocabularies take 10 MB.
const LONGEST_HEADER: u64 = 100_000_000;
/// The longest name of a tensor or key, as the format has it.
const LONGEST_NAME: u64 = 65_535;
/// The longest text of the metadata that is read.
const LONGEST_TEXT: u64 = 1 << 20;
/// The type of texts.
const TEXT: u32 = 8;
/// Tensors, and entries of metadata, of a file at most.
const MOST: u64 = 100_000;
/// Dimensions of a tensor at most: ggml has four, files of video models five.
const MOST_DIMENSIONS: u32 = 8;
/// The largest dimension of a tensor.
const LARGEST_DIMENSION: usize = 1 << 31;
/// Lists in lists of metadata at most.
const DEEPEST: usize = 8;
/// Where tensors begin unless a file says otherwise: at multiples of so many bytes.
pub(super) const ALIGNMENT: u64 = 32;
/// The largest alignment that makes sense.
const LARGEST_ALIGNMENT: u64 = 1 << 20;

/// What ComfyUI-GGUF's converter puts before the name of a tensor whose shape it changed, since
/// ggml has four dimensions.
pub(super) const ORIGINAL_SHAPE: &str = "comfy.gguf.orig_shape.";

/// ggml's types that are not read: number, name, numbers in a block, bytes of a block.
const UNREAD: [(u32, &str, u64, u64); 21] = [
    (9, "Q8_1", 32, 40),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
    (40, "NVFP4", 64, 36),
    (41, "Q1_0", 128, 18),
];

/// The types that are read, by their numbers.
fn readable(number: u32) -> Option<StoredType> {
    let blocks = match number {
        0 => return Some(StoredType::Plain(DType::F32)),
        1 => return Some(StoredType::Plain(DType::F16)),
        30 => return Some(StoredType::Plain(DType::BF16)),
        2 => BlockType::Q4_0,
        3 => BlockType::Q4_1,
        6 => BlockType::Q5_0,
        7 => BlockType::Q5_1,
        8 => BlockType::Q8_0,
        10 => BlockType::Q2_K,
        11 => BlockType::Q3_K,
        12 => BlockType::Q4_K,
        13 => BlockType::Q5_K,
        14 => BlockType::Q6_K,
        _ => return None,
    };
    Some(StoredType::Blocks(blocks))
}

/// A type's name, and numbers and bytes of a block where they are known.
fn about(number: u32) -> (Cow<'static, str>, Option<(u64, u64)>) {
    match readable(number) {
        Some(StoredType::Plain(dtype)) => {
            let name = match dtype {
                DType::F32 => "F32",
                DType::F16 => "F16",
                _ => "BF16",
            };
            (name.into(), Some((1, dtype.size_in_bytes() as u64)))
        }
        Some(StoredType::Int8 | StoredType::E5m2) => ("I8".into(), Some((1, 1))),
        Some(StoredType::Blocks(blocks)) => {
            (blocks.name().into(), Some((blocks.numbers() as u64, blocks.bytes() as u64)))
        }
        None => match UNREAD.iter().find(|(own, ..)| *own == number) {
            Some((_, name, numbers, bytes)) => ((*name).into(), Some((*numbers, *bytes))),
            None => (format!("ggml's type {number}").into(), None),
        },
    }
}

/// The number of the type that is called so.
pub(super) fn number_of(name: &str) -> Option<u32> {
    const LAST: u32 = 41;
    (0..=LAST).find(|number| about(*number).0 == name)
}

/// Reads a header, and that every tensor lies inside the file and none in another.
///
/// # Errors
/// A truncated file, or a header that does not follow the format.
pub(super) fn read(file: &DataFile) -> Result<Header> {
    let (mut reader, tensors, entries) = Reader::begin(file)?;
    let metadata = reader.metadata(entries)?;
    let mut found = Vec::new();
    let mut names = HashSet::new();
    for number in 0..tensors {
        let info = reader.tensor(number, tensors)?;
        if !names.insert(info.name.clone()) {
            return reader.invalid(format!("it names the tensor `{}` twice", info.name));
        }
        found.push(info);
    }
    let data_start = reader.at.next_multiple_of(metadata.alignment);
    let tensors = placed(file, found, &metadata, data_start)?;
    let data_start = data_start.min(file.length()); // of a file without tensors
    Ok(Header { data_start, tensors, metadata: metadata.said })
}

/// A tensor as the header describes it.
struct TensorInfo {
    name: String,
    /// As ggml has them: the fastest first.
    dimensions: Vec<usize>,
    number: u32,
    /// From the beginning of the data.
    offset: u64,
}

/// What is used of the metadata.
struct Metadata {
    alignment: u64,
    /// Shapes as they were before a converter changed them, by tensor.
    shapes: HashMap<String, Vec<usize>>,
    /// Texts that are read of a file by name.
    said: HashMap<String, String>,
}

/// The tensors in the order of their places, each inside the file and apart from the others.
fn placed(
    file: &DataFile,
    found: Vec<TensorInfo>,
    metadata: &Metadata,
    data_start: u64,
) -> Result<Vec<StoredTensor>> {
    let invalid = |reason: String| Err(Error::Gguf { file: file.name().to_owned(), reason });
    let mut tensors = Vec::with_capacity(found.len());
    for TensorInfo { name, dimensions, number, offset } in found {
        let (type_name, block) = about(number);
        let elements =
            dimensions.iter().try_fold(1u64, |product, size| product.checked_mul(*size as u64));
        let Some(elements) = elements.filter(|count| *count < 1 << 60) else {
            return invalid(format!("the tensor `{name}` is {dimensions:?}: too many numbers"));
        };
        let length = match block {
            None => 0, // of unknown length: whoever asks for it is told of its type
            Some((numbers, bytes)) => {
                let row = dimensions.first().copied().unwrap_or(1) as u64;
                if !row.is_multiple_of(numbers) {
                    return invalid(format!(
                        "rows of the tensor `{name}` are {row} long, which is no multiple of the \
                         {numbers} numbers in a block of {type_name}"
                    ));
                }
                elements / numbers * bytes
            }
        };
        if !offset.is_multiple_of(metadata.alignment) {
            return invalid(format!(
                "the tensor `{name}` begins at byte {offset} of the data, expected a multiple of {}",
                metadata.alignment
            ));
        }
        let start = data_start.checked_add(offset);
        let Some(end) = start.and_then(|start| start.checked_add(length)) else {
            return invalid(format!(
                "the tensor `{name}` begins at byte {offset} of the data, which no file has"
            ));
        };
        if end > file.length() {
            let (file, found) = (file.name().to_owned(), file.length());
            return Err(Error::Truncated { file, expected: end, found });
        }
        let mut shape: Vec<usize> = dimensions.into_iter().rev().collect();
        if let Some(original) = metadata.shapes.get(&name) {
            if original.iter().try_fold(1u64, |product, size| product.checked_mul(*size as u64))
                != Some(elements)
            {
                return invalid(format!(
                    "the tensor `{name}` is {shape:?}, but was {original:?} before it was converted \
                     ({ORIGINAL_SHAPE}{name}): not as many numbers"
                ));
            }
            shape.clone_from(original);
        }
        let (offset, stored) = (data_start + offset, readable(number));
        tensors.push(StoredTensor {
            name,
            is_rows: false,
            stored,
            type_name,
            shape,
            offset,
            length,
        });
    }
    tensors.sort_by(|a, b| (a.offset, a.length, &a.name).cmp(&(b.offset, b.length, &b.name)));
    let overlap = tensors.windows(2).find(|pair| pair[0].offset + pair[0].length > pair[1].offset);
    match overlap {
        Some([one, other]) => invalid(format!(
            "the tensor `{}` ({} bytes from byte {}) reaches into `{}`, which begins at byte {}",
            one.name, one.length, one.offset, other.name, other.offset
        )),
        _ => Ok(tensors),
    }
}

/// Reads a header from front to back.
pub(super) struct Reader<'a> {
    file: &'a DataFile,
    at: u64,
    /// Bytes of the file from `piece_start` on.
    piece: Vec<u8>,
    piece_start: u64,
}

/// Bytes that are read of the file at a time.
const PIECE: u64 = 1 << 16;

impl<'a> Reader<'a> {
    /// Begins with the header of a file; tells how many tensors and entries of metadata it has.
    ///
    /// # Errors
    /// When it is of a version that is not read, or has too many of them.
    pub(super) fn begin(file: &'a DataFile) -> Result<(Self, u64, u64)> {
        let mut reader = Reader { file, at: 4, piece: Vec::new(), piece_start: 0 };
        let version = reader.u32("the version")?;
        match version {
            2 | 3 => {}
            _ if matches!(version.swap_bytes(), 1..=3) => {
                return reader.invalid("it is big-endian; only little-endian files are read");
            }
            1 => return reader.invalid("it is of version 1; convert it with a current llama.cpp"),
            _ => return reader.invalid(format!("it is of version {version}; 2 and 3 are read")),
        }
        let tensors = reader.count("tensors")?;
        let entries = reader.count("entries of metadata")?;
        Ok((reader, tensors, entries))
    }

    /// An error about the header.
    pub(super) fn invalid<T>(&self, reason: impl Into<String>) -> Result<T> {
        Err(Error::Gguf { file: self.file.name().to_owned(), reason: reason.into() })
    }

    /// Moves over bytes, which must be there.
    fn skip(&mut self, length: u64, what: &str) -> Result<u64> {
        let start = self.at;
        let Some(end) = start.checked_add(length).filter(|end| *end <= LONGEST_HEADER) else {
            return self.invalid(format!(
                "{what} at byte {start} is said to be {length} bytes long; headers are no longer \
                 than {LONGEST_HEADER}"
            ));
        };
        if end > self.file.length() {
            let (file, found) = (self.file.name().to_owned(), self.file.length());
            return Err(Error::Truncated { file, expected: end, found });
        }
        self.at = end;
        Ok(start)
    }

    /// Bytes of a short field.
    pub(super) fn bytes(&mut self, length: u64, what: &str) -> Result<&[u8]> {
        let start = self.skip(length, what)?;
        let known = self.piece_start + self.piece.len() as u64;
        if start < self.piece_start || start + length > known {
            let length = length.max(PIECE).min(self.file.length() - start);
            self.piece.resize(length as usize, 0);
            self.file.read(start, &mut self.piece)?;
            self.piece_start = start;
        }
        let first = (start - self.piece_start) as usize;
        Ok(&self.piece[first..first + length as usize])
    }

    /// A field of so many bytes.
    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N as u64, what)?);
        Ok(array)
    }

    /// A number of 32 bits.
    pub(super) fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    /// A number of 64 bits.
    pub(super) fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    fn count(&mut self, what: &str) -> Result<u64> {
        let count = self.u64(&format!("the number of {what}"))?;
        match count > MOST {
            true => self.invalid(format!("it has {count} {what}; {MOST} at most are read")),
            false => Ok(count),
        }
    }

    /// A name: a short text.
    pub(super) fn name(&mut self, what: &str) -> Result<String> {
        let (at, length) = (self.at, self.u64(&format!("the length of {what}"))?);
        if length > LONGEST_NAME {
            return self.invalid(format!(
                "{what} at byte {at} is said to be {length} bytes long; {LONGEST_NAME} at most"
            ));
        }
        match String::from_utf8(self.bytes(length, what)?.to_vec()) {
            Ok(name) => Ok(name),
            Err(_) => self.invalid(format!("{what} at byte {at} is not UTF-8")),
        }
    }

    fn metadata(&mut self, entries: u64) -> Result<Metadata> {
        let mut metadata =
            Metadata { alignment: ALIGNMENT, shapes: HashMap::new(), said: HashMap::new() };
        let mut keys = HashSet::new();
        for number in 0..entries {
            let key = self.name(&format!("the key {} of {entries}", number + 1))?;
            let kind = self.u32(&format!("the type of `{key}`"))?;
            if key == "general.alignment" {
                metadata.alignment = self.alignment(&key, kind)?;
            } else if let Some(tensor) = key.strip_prefix(ORIGINAL_SHAPE) {
                let shape = self.shape(&key, kind)?;
                metadata.shapes.insert(tensor.to_owned(), shape);
            } else if [CONFIG, AUTHORS_CONFIG].contains(&&*key) && kind == TEXT {
                let said = self.text(&key)?;
                metadata.said.insert(key.clone(), said);
            } else {
                self.skip_value(&key, kind, 0)?;
            }
            if !keys.insert(key.clone()) {
                return self.invalid(format!("its metadata have `{key}` twice"));
            }
        }
        Ok(metadata)
    }

    fn text(&mut self, key: &str) -> Result<String> {
        let (at, length) = (self.at, self.u64(key)?);
        if length > LONGEST_TEXT {
            return self.invalid(format!(
                "`{key}` at byte {at} is said to be {length} bytes long; {LONGEST_TEXT} at most"
            ));
        }
        match String::from_utf8(self.bytes(length, key)?.to_vec()) {
            Ok(text) => Ok(text),
            Err(_) => self.invalid(format!("`{key}` at byte {at} is not UTF-8")),
        }
    }

    fn alignment(&mut self, key: &str, kind: u32) -> Result<u64> {
        let alignment = match kind {
            4 => u64::from(self.u32(key)?),
            10 => self.u64(key)?,
            _ => return self.invalid(format!("`{key}` is no number of the type U32")),
        };
        match alignment.is_power_of_two() && alignment <= LARGEST_ALIGNMENT {
            true => Ok(alignment),
            false => self.invalid(format!(
                "`{key}` is {alignment}, expected a power of two, {LARGEST_ALIGNMENT} at most"
            )),
        }
    }

    fn shape(&mut self, key: &str, kind: u32) -> Result<Vec<usize>> {
        let of = self.u32(key)?;
        let count = self.u64(key)?;
        if kind != 9 || !matches!(of, 4 | 5 | 10 | 11) || count > u64::from(MOST_DIMENSIONS) {
            return self.invalid(format!(
                "`{key}` is no list of whole numbers, {MOST_DIMENSIONS} at most"
            ));
        }
        let mut shape = Vec::new();
        for _ in 0..count {
            let size = match of {
                4 | 5 => u64::from(self.u32(key)?),
                _ => self.u64(key)?,
            };
            shape.push(self.size(size, key)?);
        }
        Ok(shape)
    }

    /// A size of a tensor.
    fn size(&self, size: u64, what: &str) -> Result<usize> {
        match usize::try_from(size) {
            Ok(size @ 1..) if size <= LARGEST_DIMENSION => Ok(size),
            _ => self.invalid(format!("{what}: a dimension of {size}")),
        }
    }

    /// Moves over a value of the metadata.
    pub(super) fn skip_value(&mut self, key: &str, kind: u32, depth: usize) -> Result<()> {
        let size = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            8 => self.u64(key)?,
            9 if depth < DEEPEST => {
                let of = self.u32(key)?;
                let count = self.u64(key)?;
                return self.skip_list(key, of, count, depth);
            }
            9 => return self.invalid(format!("`{key}` has lists in lists, {DEEPEST} at most")),
            _ => return self.invalid(format!("`{key}` has the type {kind}, which is unknown")),
        };
        self.skip(size, &format!("the value of `{key}`")).map(drop)
    }

    fn skip_list(&mut self, key: &str, of: u32, count: u64, depth: usize) -> Result<()> {
        let size = match of {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            _ => {
                // Each item moves on by eight bytes at least, so the file's length bounds them.
                for _ in 0..count {
                    self.skip_value(key, of, depth + 1)?;
                }
                return Ok(());
            }
        };
        let Some(length) = count.checked_mul(size) else {
            return self.invalid(format!("`{key}` is said to have {count} items"));
        };
        self.skip(length, &format!("the list of `{key}`")).map(drop)
    }

    fn tensor(&mut self, number: u64, tensors: u64) -> Result<TensorInfo> {
        let name = self.name(&format!("the name of tensor {} of {tensors}", number + 1))?;
        let what = format!("the tensor `{name}`");
        let count = self.u32(&what)?;
        if count > MOST_DIMENSIONS {
            return self.invalid(format!(
                "{what} is said to have {count} dimensions; {MOST_DIMENSIONS} at most"
            ));
        }
        let mut dimensions = Vec::new();
        for _ in 0..count {
            let size = self.u64(&what)?;
            dimensions.push(self.size(size, &what)?);
        }
        Ok(TensorInfo { dimensions, number: self.u32(&what)?, offset: self.u64(&what)?, name })
    }
}
