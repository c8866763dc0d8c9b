//! Weights by name: safetensors files, memory-mapped or embedded, checked when they are read.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Shape, Tensor};
use safetensors::{Dtype, SafeTensors, tensor::Metadata};

use crate::error::{Error, Result};

/// The bytes of a weight file.
enum Bytes {
    Mapped(memmap2::Mmap),
    Embedded(&'static [u8]),
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Embedded(bytes) => bytes,
        }
    }
}

/// One safetensors file with its header read.
pub(crate) struct WeightFile {
    file: String,
    bytes: Bytes,
    data_start: usize,
    header: Metadata,
}

impl WeightFile {
    /// Maps the file at `path`; messages name it `file`.
    pub(crate) fn map(path: &Path, file: &str) -> Result<Self> {
        let io = |source| Error::Io { file: file.to_owned(), source };
        let handle = std::fs::File::open(path).map_err(io)?;
        // An empty file cannot be mapped everywhere, and has no header anyway.
        if handle.metadata().map_err(io)?.len() == 0 {
            return Self::parse(Bytes::Embedded(&[]), file);
        }
        // SAFETY: the map is read-only and private to this value. The contract of memmap2 asks that
        // nobody shortens or rewrites the file while it is mapped; model files are written to a
        // temporary name and renamed by every downloader, and their documentation says the same.
        #[allow(unsafe_code)]
        let map = unsafe { memmap2::Mmap::map(&handle) }.map_err(io)?;
        Self::parse(Bytes::Mapped(map), file)
    }

    /// Reads weights that lie in the binary.
    pub(crate) fn embedded(bytes: &'static [u8], file: &str) -> Result<Self> {
        Self::parse(Bytes::Embedded(bytes), file)
    }

    fn parse(bytes: Bytes, file: &str) -> Result<Self> {
        let (data_start, header) = parse_header(bytes.as_slice(), file)?;
        Ok(Self { file: file.to_owned(), bytes, data_start, header })
    }
}

/// The header of a safetensors file, and where its data begin.
///
/// # Errors
/// A pickle, a truncated file, or a header that does not follow the format.
fn parse_header(bytes: &[u8], file: &str) -> Result<(usize, Metadata)> {
    refuse_other_formats(bytes, file)?;
    let found = bytes.len() as u64;
    let Some(length) = header_length(bytes) else {
        return Err(Error::Truncated { file: file.to_owned(), expected: 8, found });
    };
    if length <= 100_000_000 && length + 8 > found {
        return Err(Error::Truncated { file: file.to_owned(), expected: length + 8, found });
    }
    match SafeTensors::read_metadata(bytes) {
        Ok((length, header)) => Ok((length + 8, header)),
        Err(error) => match promised_length(bytes, length) {
            Some(expected) if expected > found => {
                Err(Error::Truncated { file: file.to_owned(), expected, found })
            }
            _ => Err(Error::Safetensors { file: file.to_owned(), reason: error.to_string() }),
        },
    }
}

/// The first eight bytes of the format: the header's length.
fn header_length(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?))
}

/// Recognises by their first bytes what people mistake for safetensors.
///
/// A safetensors header starts with `{` at byte 8; that decides, for a header of 640 bytes begins
/// with the same two bytes as a pickle.
fn refuse_other_formats(bytes: &[u8], file: &str) -> Result<()> {
    if bytes.get(8) == Some(&b'{') {
        return Ok(());
    }
    let reason =
        |reason: &str| Err(Error::Safetensors { file: file.to_owned(), reason: reason.to_owned() });
    let pickle = matches!(bytes, [0x80, 1..=5, ..]) || bytes.starts_with(b"PK");
    if pickle {
        return Err(Error::Pickle { file: file.to_owned() });
    }
    if bytes.starts_with(b"GGUF") {
        return Err(Error::Unsupported { file: file.to_owned(), what: "GGUF".to_owned() });
    }
    if bytes.starts_with(b"version https://git-lfs") {
        return reason("it is a Git LFS pointer; fetch the file itself (`git lfs pull`)");
    }
    if bytes.trim_ascii_start().starts_with(b"<") {
        return reason("it is a web page; download the file itself, not the page about it");
    }
    Ok(())
}

/// The length that the header's offsets ask for, as far as the header can be read.
fn promised_length(bytes: &[u8], header: u64) -> Option<u64> {
    let end = usize::try_from(header.checked_add(8)?).ok()?;
    let json: serde_json::Value = serde_json::from_slice(bytes.get(8..end)?).ok()?;
    let ends = json.as_object()?.values().filter_map(|v| v.get("data_offsets")?.get(1)?.as_u64());
    ends.max()?.checked_add(header + 8)
}

/// All the weight files of one part of a model, by tensor name.
pub(crate) struct Store {
    folder: String,
    files: Vec<WeightFile>,
    place: HashMap<String, usize>,
}

impl Store {
    /// Joins files; a name in several of them belongs to the first.
    pub(crate) fn new(folder: &str, files: Vec<WeightFile>) -> Self {
        let mut place = HashMap::new();
        for (index, file) in files.iter().enumerate() {
            for name in file.header.offset_keys() {
                place.entry(name).or_insert(index);
            }
        }
        Self { folder: folder.to_owned(), files, place }
    }

    /// The type in which most elements are stored.
    pub(crate) fn main_dtype(&self) -> Option<DType> {
        let mut elements: HashMap<&'static str, (usize, DType)> = HashMap::new();
        for info in self.files.iter().flat_map(|f| f.header.tensors().into_values()) {
            let Some(dtype) = readable(info.dtype) else { continue };
            let count = elements.entry(dtype.as_str()).or_insert((0, dtype));
            count.0 += info.shape.iter().product::<usize>();
        }
        elements.into_values().max_by_key(|(count, dtype)| (*count, dtype.as_str())).map(|e| e.1)
    }

    fn missing(&self, name: &str) -> Error {
        let nearest = self
            .place
            .keys()
            .min_by_key(|known| (strsim::levenshtein(known, name), known.as_str()))
            .cloned();
        Error::MissingWeight { file: self.folder.clone(), name: name.to_owned(), nearest }
    }
}

/// The stored types that are read.
fn readable(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        _ => None,
    }
}

/// Weights of one part of a model, seen from a scope inside it.
///
/// Cheap to clone: the files are shared. Nothing is read before [`Weights::get`].
#[derive(Clone)]
pub struct Weights {
    store: Arc<Store>,
    prefix: String,
    dtype: DType,
    device: Device,
}

impl Weights {
    pub(crate) fn new(store: Arc<Store>, dtype: DType, device: &Device) -> Result<Self> {
        if !matches!(dtype, DType::F32 | DType::BF16) {
            return Err(Error::ComputeType(dtype));
        }
        Ok(Self { store, prefix: String::new(), dtype, device: device.clone() })
    }

    /// Weights of one safetensors file.
    ///
    /// # Errors
    /// When the file cannot be read or is not safetensors, or `dtype` is neither f32 nor bf16.
    pub fn open(path: &Path, dtype: DType, device: &Device) -> Result<Self> {
        let name = path.display().to_string();
        let file = WeightFile::map(path, &name)?;
        Self::new(Arc::new(Store::new(&name, vec![file])), dtype, device)
    }

    /// The same weights, seen from inside `name`: `scope("blocks").scope(3)`.
    #[must_use]
    pub fn scope(&self, name: impl Display) -> Self {
        Self { prefix: self.full(&name.to_string()) + ".", ..self.clone() }
    }

    /// The compute type to which [`Weights::get`] converts.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The device on which [`Weights::get`] places tensors.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether there is a weight of this name in this scope.
    pub fn contains(&self, name: &str) -> bool {
        self.store.place.contains_key(&self.full(name))
    }

    /// The stored shape of a weight, without reading it.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        let full = self.full(name);
        let file = &self.store.files[*self.store.place.get(&full)?];
        Some(file.header.info(&full)?.shape.as_slice())
    }

    /// One weight in the compute type, on the device.
    ///
    /// # Errors
    /// When it is missing, has another shape, or a type that is not read.
    pub fn get(&self, name: &str, shape: impl Into<Shape>) -> Result<Tensor> {
        self.get_as(name, shape, self.dtype)
    }

    /// One weight in a type of the caller's choice: tables and norms stay f32 in a bf16 model.
    ///
    /// # Errors
    /// As [`Weights::get`].
    pub fn get_as(&self, name: &str, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor> {
        let full = self.full(name);
        let index = *self.store.place.get(&full).ok_or_else(|| self.store.missing(&full))?;
        let file = &self.store.files[index];
        let info = file.header.info(&full).ok_or_else(|| self.store.missing(&full))?;
        let shape = shape.into();
        if info.shape != shape.dims() {
            return Err(Error::WeightShape {
                file: file.file.clone(),
                name: full,
                expected: shape.dims().to_vec(),
                found: info.shape.clone(),
            });
        }
        let Some(stored) = readable(info.dtype) else {
            let dtype = info.dtype.to_string();
            return Err(Error::WeightType { file: file.file.clone(), name: full, dtype });
        };
        let (start, end) = info.data_offsets;
        let (start, end) = (file.data_start + start, file.data_start + end);
        let data = &file.bytes.as_slice()[start..end]; // inside: the header was validated
        let tensor = Tensor::from_raw_buffer(data, stored, shape.dims(), &Device::Cpu)?;
        Ok(tensor.to_dtype(dtype)?.to_device(&self.device)?)
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Weights")
            .field("folder", &self.store.folder)
            .field("prefix", &self.prefix)
            .field("dtype", &self.dtype)
            .finish_non_exhaustive()
    }
}
