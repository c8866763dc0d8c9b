//! Tensors in safetensors files: one read by name, several written at once. Pickle files are
//! refused.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use kino_port::{
    SafetensorsEntry, SafetensorsError, SafetensorsHeader, did_you_mean, format_bytes,
};
use safetensors::tensor::TensorView;

use crate::{AtomicFile, Error, InputFile, Result, looks_like};

/// A tensor as the header describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// The type of its elements once they are read: BOOL becomes F32 of 0 and 1.
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
        let header = header(self, &path)?;
        // A tensor of another type stands in nobody's way who asks for this one.
        let infos = header.tensors.into_iter().filter_map(
            |SafetensorsEntry { name, dtype, shape, .. }| {
                Some(TensorInfo { dtype: read_as(&dtype)?, name, shape })
            },
        );
        let mut infos: Vec<TensorInfo> = infos.collect();
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(infos)
    }

    /// As [`read_tensor`], of this file.
    ///
    /// # Errors
    /// As [`read_tensor`].
    pub fn read_tensor(&mut self, name: &str) -> Result<Tensor> {
        let path = self.path().to_owned();
        let header = header(self, &path)?;
        tensor(self, &path, &header, name)
    }
}

/// What stores truth: bytes of 0 and 1.
const BOOL: &str = "BOOL";

/// The type in which elements of a stored type are read; none where they are not.
fn read_as(stored: &str) -> Option<DType> {
    Some(match stored {
        "U8" => DType::U8,
        "U32" => DType::U32,
        "I16" => DType::I16,
        "I32" => DType::I32,
        "I64" => DType::I64,
        "BF16" => DType::BF16,
        "F16" => DType::F16,
        "F32" | BOOL => DType::F32,
        "F64" => DType::F64,
        "F8_E4M3" => DType::F8E4M3,
        _ => return None,
    })
}

fn tensor(
    file: &mut InputFile,
    path: &Path,
    header: &SafetensorsHeader,
    name: &str,
) -> Result<Tensor> {
    let Some(entry) = header.tensors.iter().find(|entry| entry.name == name) else {
        let mut names: Vec<&str> = header.tensors.iter().map(|entry| entry.name.as_str()).collect();
        names.sort_unstable();
        return Err(Error::content(path, format!("there is no tensor `{name}`"))
            .advise(&among(name, &names)));
    };
    let Some(dtype) = read_as(&entry.dtype) else {
        let found = &entry.dtype;
        let message = format!("tensor `{name}` has the element type {found}, which is not read");
        let way = "save it as F32, F16, BF16, F64, F8_E4M3, U8, U32, I16, I32, I64 or BOOL";
        return Err(Error::content(path, message).advise(way));
    };
    let failed = |error| Error::content(path, format!("tensor `{name}`: {error}"));
    let (mut bytes, length) = (Vec::new(), entry.length);
    bytes.try_reserve_exact(usize::try_from(length).unwrap_or(usize::MAX)).map_err(|_| {
        let size = format_bytes(length);
        Error::content(path, format!("there is no memory for the tensor `{name}` of {size}"))
    })?;
    file.seek(SeekFrom::Start(entry.offset)).map_err(Error::io("read", path))?;
    file.take(length).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() as u64 != length {
        return Err(truncated(path));
    }
    if entry.dtype == BOOL {
        bytes.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
        let truth = Tensor::from_vec(bytes, entry.shape.as_slice(), &Device::Cpu);
        return truth.and_then(|truth| truth.to_dtype(dtype)).map_err(failed);
    }
    Tensor::from_raw_buffer(&bytes, dtype, &entry.shape, &Device::Cpu).map_err(failed)
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

/// The header, checked against the file's length.
fn header(file: &mut InputFile, path: &Path) -> Result<SafetensorsHeader> {
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
    let failed = |error| match error {
        SafetensorsError::EndsEarly { .. } => truncated(path),
        SafetensorsError::NoHeader { .. } => {
            let found = looks_like(path).unwrap_or("something else");
            Error::content(path, format!("expected a safetensors file, found {found}"))
        }
        SafetensorsError::Broken(what) => {
            let message = format!("the safetensors file is broken: {what}");
            Error::content(path, message).advise("copy or download it again, or save it anew")
        }
    };
    let size = SafetensorsHeader::length(start, length).map_err(failed)?;
    let mut bytes = vec![0; size];
    file.seek(SeekFrom::Start(8)).map_err(Error::io("read", path))?;
    file.read_exact(&mut bytes).map_err(Error::io("read", path))?;
    SafetensorsHeader::parse(&bytes, length).map_err(failed)
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
