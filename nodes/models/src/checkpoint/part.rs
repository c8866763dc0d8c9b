//! The weight files of one part of a model: names → type, shape, bytes; and what identifies them.

use std::collections::HashMap;

use candle_core::DType;
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;

use super::file::{self, DataFile};
use super::header::{self, Header};
use crate::error::{Error, Result};

/// Files up to this length are hashed whole.
const HASHED_WHOLE: u64 = 16 << 20;
/// Of longer ones, this many bytes at the start, middle and end of each tensor.
const SAMPLE: u64 = 4096;

/// One safetensors file with its header read.
struct WeightFile {
    file: DataFile,
    header: Header,
}

/// A tensor in a file: where it lies and what it is.
pub(crate) struct TensorEntry<'a> {
    /// The file that it lies in.
    pub(crate) file: &'a DataFile,
    /// Its first byte there.
    pub(crate) offset: u64,
    /// The type in which it is stored, where that is read.
    pub(crate) dtype: Option<DType>,
    /// That type's name.
    pub(crate) type_name: String,
    /// Its shape.
    pub(crate) shape: &'a [usize],
}

/// All the weight files of one part of a model, opened, by tensor name.
pub struct PartFiles {
    folder: String,
    files: Vec<WeightFile>,
    /// Each name with the file that has it, and its name there.
    place: HashMap<String, (usize, String)>,
    identity: Identity,
}

/// What identifies the weights of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// A hash of headers and data; of long files, of samples of the data of every tensor. A copy
    /// has the same.
    pub content: [u8; 32],
    /// The same with the stamps of the files that were not hashed whole: where it is equal, so is
    /// every byte.
    pub exact: [u8; 32],
}

impl PartFiles {
    /// Joins opened files; a name in several of them belongs to the first.
    ///
    /// # Errors
    /// When a file is a pickle, truncated, or otherwise not safetensors.
    pub(crate) fn read(folder: &str, files: Vec<DataFile>) -> Result<Self> {
        let read = |file: DataFile| Ok(WeightFile { header: header::read(&file)?, file });
        let files = files.into_iter().map(read).collect::<Result<Vec<_>>>()?;
        let mut place = HashMap::new();
        for (index, file) in files.iter().enumerate() {
            for name in file.header.tensors.offset_keys() {
                place.entry(name.clone()).or_insert((index, name));
            }
        }
        let identity = identify(&files)?;
        Ok(Self { folder: folder.to_owned(), files, place, identity })
    }

    /// Opens one safetensors file that is all of a part.
    ///
    /// # Errors
    /// When it is a pickle, truncated, or otherwise not safetensors.
    pub fn of_file(file: DataFile) -> Result<Self> {
        let name = file.name().to_owned();
        Self::read(&name, vec![file])
    }

    /// The same weights under other names: those that `rename` gives, the others as they are.
    #[must_use]
    pub fn renamed(mut self, rename: impl Fn(&str) -> Option<String>) -> Self {
        let place = std::mem::take(&mut self.place).into_iter();
        self.place = place.map(|(name, at)| (rename(&name).unwrap_or(name), at)).collect();
        self
    }

    /// What identifies these weights.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The length of all files together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.file.length()).sum()
    }

    /// Whether no file was touched since it was opened, or exchanged for another at its place.
    pub fn is_current(&self, path: Option<&std::path::Path>) -> bool {
        let Some(path) = path else { return true }; // in the binary nothing changes
        let now = file::stamp_at(path);
        self.files.iter().all(|file| file.file.stamp().copied() == now)
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.place.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// What the headers say about themselves under a key; the first file's word counts.
    pub(crate) fn metadata(&self, key: &str) -> Option<&str> {
        let mut headers =
            self.files.iter().filter_map(|file| file.header.tensors.metadata().as_ref());
        headers.find_map(|said| said.get(key)).map(String::as_str)
    }

    /// The shape of a tensor, if it is there.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(self.place(name)?.shape)
    }

    /// The files, in order.
    pub(crate) fn files(&self) -> impl Iterator<Item = &DataFile> {
        self.files.iter().map(|file| &file.file)
    }

    /// The type in which most elements are stored.
    pub fn main_dtype(&self) -> Option<DType> {
        let mut elements: HashMap<&'static str, (usize, DType)> = HashMap::new();
        for info in self.tensors().map(|(_, info)| info) {
            let Some(dtype) = readable(info.dtype) else { continue };
            let count = elements.entry(dtype.as_str()).or_insert((0, dtype));
            count.0 += info.shape.iter().product::<usize>();
        }
        elements.into_values().max_by_key(|(count, dtype)| (*count, dtype.as_str())).map(|e| e.1)
    }

    /// Bytes of the tensors whose names begin with one of these, converted to `dtype`; matrices of
    /// eight bits a number stay as they are.
    pub fn weight_bytes(&self, dtype: DType, prefixes: &[&str]) -> u64 {
        let wanted = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
        let bytes = |info: &TensorInfo| {
            let elements = info.shape.iter().product::<usize>() as u64;
            let narrow = info.dtype == Dtype::F8_E4M3 && info.shape.len() == 2;
            elements.saturating_mul(if narrow { 1 } else { dtype.size_in_bytes() as u64 })
        };
        let tensors = self.tensors().filter(|(name, _)| wanted(name));
        tensors.fold(0, |sum, (_, info)| sum.saturating_add(bytes(info)))
    }

    /// Where a tensor lies.
    ///
    /// # Errors
    /// When there is none of this name; the error names the most similar.
    pub(crate) fn find(&self, name: &str) -> Result<TensorEntry<'_>> {
        self.place(name).ok_or_else(|| self.missing(name))
    }

    /// Where a tensor lies, if it is there.
    pub(crate) fn place(&self, name: &str) -> Option<TensorEntry<'_>> {
        let (index, stored) = self.place.get(name)?;
        let file = &self.files[*index];
        let info = file.header.tensors.info(stored)?;
        Some(TensorEntry {
            file: &file.file,
            offset: file.header.data_start + info.data_offsets.0 as u64,
            dtype: readable(info.dtype),
            type_name: info.dtype.to_string(),
            shape: &info.shape,
        })
    }

    /// How messages call these files together.
    pub(crate) fn describe(&self) -> &str {
        &self.folder
    }

    fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.place.iter().filter_map(|(name, (index, stored))| {
            Some((name.as_str(), self.files[*index].header.tensors.info(stored)?))
        })
    }

    fn missing(&self, name: &str) -> Error {
        let mut names: Vec<&str> = self.place.keys().map(String::as_str).collect();
        names.sort_unstable();
        let nearest = kino_port::nearest(name, names).map(str::to_owned);
        Error::MissingWeight { file: self.folder.clone(), name: name.to_owned(), nearest }
    }
}

impl std::fmt::Debug for PartFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartFiles").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// The stored types that are read.
fn readable(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        Dtype::F8_E4M3 => Some(DType::F8E4M3),
        _ => None,
    }
}

fn identify(files: &[WeightFile]) -> Result<Identity> {
    let mut content = blake3::Hasher::new();
    let mut stamps = blake3::Hasher::new();
    for WeightFile { file, header } in files {
        content.update(&file.length().to_le_bytes());
        if file.length() <= HASHED_WHOLE {
            content.update(file.digest()?.as_bytes());
        } else {
            content.update(&(header.bytes.len() as u64).to_le_bytes());
            content.update(&header.bytes);
            hash_samples(&mut content, file, header)?;
        }
        file.check_unchanged()?;
        if let Some(stamp) = file.stamp().filter(|stamp| stamp.length > HASHED_WHOLE) {
            stamps.update(&file::stamp_bytes(stamp));
        }
    }
    let content = content.finalize();
    stamps.update(content.as_bytes());
    Ok(Identity { content: content.into(), exact: stamps.finalize().into() })
}

/// Hashes samples of every tensor of a long file.
fn hash_samples(hasher: &mut blake3::Hasher, file: &DataFile, header: &Header) -> Result<()> {
    let mut buffer = Vec::new();
    let mut hash = |start: u64, length: u64| {
        buffer.resize(length as usize, 0);
        file.read(start, &mut buffer)?;
        hasher.update(&buffer);
        Ok::<_, Error>(())
    };
    for name in header.tensors.offset_keys() {
        let Some(info) = header.tensors.info(&name) else { continue };
        let (start, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        let (start, length) = (header.data_start + start, end - start);
        if length <= 3 * SAMPLE {
            hash(start, length)?;
            continue;
        }
        for at in [0, (length - SAMPLE) / 2, length - SAMPLE] {
            hash(start + at, SAMPLE)?;
        }
    }
    Ok(())
}
