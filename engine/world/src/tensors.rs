//! Tensors in safetensors files: one read by name, several written at once. Pickle files are
//! refused.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use kino_port::{did_you_mean, format_bytes};
use safetensors::tensor::{Metadata, TensorView};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::{AtomicFile, Error, InputFile, Result, looks_like};

/// The longest header that the format allows.
const LONGEST_HEADER: u64 = 100_000_000;

/// A tensor as the header describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// The tensors of a safetensors file whose types are read, by its header alone, sorted by name.
///
/// # Errors
/// When the file cannot be read, is no safetensors file, names a tensor twice, ends early, or goes
/// on behind its last tensor.
pub fn tensor_info(path: &Path) -> Result<Vec<TensorInfo>> {
    InputFile::open(path)?.tensor_info()
}

/// One tensor of a safetensors file, on the CPU.
///
/// # Errors
/// As [`tensor_info`]; also when there is no tensor of this name.
pub fn read_tensor(path: &Path, name: &str) -> Result<Tensor> {
    InputFile::open(path)?.read_tensor(name)
}

impl InputFile {
    /// As [`tensor_info`], of this file.
    ///
    /// # Errors
    /// As [`tensor_info`].
    pub fn tensor_info(&mut self) -> Result<Vec<TensorInfo>> {
        let path = self.path().to_owned();
        let (metadata, _) = header(self, &path)?;
        infos(&metadata, &path)
    }

    /// As [`read_tensor`], of this file.
    ///
    /// # Errors
    /// As [`read_tensor`].
    pub fn read_tensor(&mut self, name: &str) -> Result<Tensor> {
        let path = self.path().to_owned();
        let (metadata, data) = header(self, &path)?;
        tensor(self, &path, (&metadata, data), name)
    }
}

fn infos(metadata: &Metadata, path: &Path) -> Result<Vec<TensorInfo>> {
    let mut infos = Vec::new();
    // A tensor of another type stands in nobody's way who asks for this one.
    for (name, info) in metadata.tensors().into_iter().filter(|(_, info)| is_read(info.dtype)) {
        let dtype = checked_type(&name, info, path)?;
        infos.push(TensorInfo { name, dtype, shape: info.shape.clone() });
    }
    infos.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(infos)
}

fn is_read(dtype: safetensors::Dtype) -> bool {
    DType::try_from(dtype).is_ok()
}

/// The element type of a tensor whose shape takes just the bytes that the header gives it.
fn checked_type(name: &str, info: &safetensors::tensor::TensorInfo, path: &Path) -> Result<DType> {
    let dtype = DType::try_from(info.dtype).map_err(|_| {
        let found = info.dtype;
        let message = format!("tensor `{name}` has the element type {found:?}, which is not read");
        let way = "save it as F32, F16, BF16, F64, U8, U32, I16, I32 or I64";
        Error::content(path, message).advise(way)
    })?;
    let (start, end) = info.data_offsets;
    let size = dtype.size_in_bytes();
    let takes = info.shape.iter().try_fold(size, |bytes, length| bytes.checked_mul(*length));
    if takes.is_none() || takes != end.checked_sub(start) {
        let message = format!(
            "tensor `{name}` of shape {:?} does not take the bytes {start} to {end}, which the \
             header gives it",
            info.shape
        );
        return Err(Error::content(path, message).advise("copy or download it again"));
    }
    Ok(dtype)
}

fn tensor(
    file: &mut InputFile,
    path: &Path,
    (metadata, data): (&Metadata, u64),
    name: &str,
) -> Result<Tensor> {
    let Some(info) = metadata.info(name) else {
        let names = metadata.tensors();
        let mut names: Vec<&str> = names.keys().map(String::as_str).collect();
        names.sort_unstable();
        return Err(Error::content(path, format!("there is no tensor `{name}`"))
            .advise(&among(name, &names)));
    };
    let dtype = checked_type(name, info, path)?;
    let (start, end) = info.data_offsets;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(end - start).map_err(|_| {
        let size = format_bytes((end - start) as u64);
        Error::content(path, format!("there is no memory for the tensor `{name}` of {size}"))
    })?;
    file.seek(SeekFrom::Start(data + start as u64)).map_err(Error::io("read", path))?;
    file.take((end - start) as u64).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() != end - start {
        return Err(truncated(path));
    }
    Tensor::from_raw_buffer(&bytes, dtype, &info.shape, &Device::Cpu)
        .map_err(|error| Error::content(path, format!("tensor `{name}`: {error}")))
}

/// Writes tensors into one safetensors file.
///
/// # Errors
/// When a tensor cannot be brought to the CPU or the file cannot be written.
pub fn write_tensors(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let failed = |error: candle_core::Error| Error::content(path, error.to_string());
    let mut raw = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let tensor = tensor
            .to_device(&Device::Cpu)
            .and_then(|tensor| tensor.force_contiguous())
            .map_err(failed)?;
        let mut bytes = Vec::with_capacity(tensor.elem_count() * tensor.dtype().size_in_bytes());
        tensor.write_bytes(&mut bytes).map_err(failed)?;
        raw.push((name, tensor.dtype(), tensor.dims().to_vec(), bytes));
    }
    let mut views = HashMap::with_capacity(raw.len());
    for (name, dtype, shape, bytes) in &raw {
        let view = TensorView::new((*dtype).into(), shape.clone(), bytes)
            .map_err(|error| Error::content(path, format!("tensor `{name}`: {error}")))?;
        views.insert(name.as_str(), view);
    }
    let bytes = safetensors::serialize(views, None)
        .map_err(|error| Error::content(path, error.to_string()))?;
    let mut file = AtomicFile::create(path)?;
    file.write_all(&bytes).map_err(file.failed())?;
    file.finish().map(drop)
}

fn truncated(path: &Path) -> Error {
    Error::content(path, "the safetensors file ends early: it is shorter than its header says")
        .advise("copy or download it again")
}

/// The header, checked against the file's length, and where the data begins.
fn header(file: &mut InputFile, path: &Path) -> Result<(Metadata, u64)> {
    file.rewind().map_err(Error::io("read", path))?;
    let length = file.stamp().length;
    let mut start = [0; 8];
    if file.read_exact(&mut start).is_err() {
        return Err(truncated(path));
    }
    // A header of 640 bytes begins with the same two bytes as a pickle: the brace behind its length
    // decides.
    let mut first = [0];
    let is_header = file.read_exact(&mut first).is_ok() && first == *b"{";
    if !is_header
        && (start.starts_with(b"PK\x03\x04") || (start[0] == 0x80 && (1..=5).contains(&start[1])))
    {
        let found = looks_like(path).unwrap_or("a pickle");
        return Err(Error::content(path, format!("expected a safetensors file, found {found}"))
            .advise("pickle files run code when they are loaded, so they are refused: convert it to safetensors"));
    }
    let size = u64::from_le_bytes(start);
    if !(2..=LONGEST_HEADER).contains(&size) {
        let found = looks_like(path).unwrap_or("something else");
        return Err(Error::content(path, format!("expected a safetensors file, found {found}")));
    }
    if size + 8 > length {
        return Err(truncated(path));
    }
    let mut bytes = vec![0; size as usize];
    file.seek(SeekFrom::Start(8)).map_err(Error::io("read", path))?;
    file.read_exact(&mut bytes).map_err(Error::io("read", path))?;
    let metadata: Metadata = serde_json::from_slice(&bytes).map_err(|error| {
        Error::content(path, format!("the header of the safetensors file is broken ({error})"))
    })?;
    let broken = |what: String| {
        Error::content(path, what).advise("copy or download it again, or save it anew")
    };
    if let Some(name) = repeated_name(&bytes) {
        return Err(broken(format!("the header of the safetensors file names `{name}` twice")));
    }
    let end = metadata.tensors().values().map(|info| info.data_offsets.1 as u64).max().unwrap_or(0);
    match end.saturating_add(size + 8) {
        whole if whole > length => Err(truncated(path)),
        whole if whole < length => Err(broken(format!(
            "the safetensors file goes on for {} bytes behind its last tensor",
            length - whole
        ))),
        _ => Ok((metadata, size + 8)),
    }
}

/// A name that a header has twice, of which readers take one or the other.
fn repeated_name(header: &[u8]) -> Option<String> {
    struct Names(Option<String>);
    impl<'de> Deserialize<'de> for Names {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            from.deserialize_map(Names(None))
        }
    }
    impl<'de> Visitor<'de> for Names {
        type Value = Names;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a map of tensors")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Names, A::Error> {
            let mut seen = HashSet::new();
            while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
                if !seen.insert(name.clone()) {
                    self.0.get_or_insert(name);
                }
            }
            Ok(self)
        }
    }
    serde_json::from_slice::<Names>(header).ok()?.0
}

/// The nearest names, or all if they are few.
fn among(name: &str, names: &[&str]) -> String {
    match did_you_mean(name, names.iter().copied()) {
        Some(near) => near,
        None if names.len() <= 12 => format!("the file holds {}", names.join(", ")),
        None => {
            format!("the file holds {} tensors, such as {}", names.len(), names[..6].join(", "))
        }
    }
}
