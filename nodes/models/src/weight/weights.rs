//! Weights of a part by name, seen from a scope inside it.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Shape, Tensor};

use super::read;
use crate::checkpoint::{DataFile, ModelFolder, PartFiles};
use crate::error::{Error, Result};

/// Weights of one part of a model, seen from a scope inside it.
///
/// Cheap to clone: the files are shared. Nothing is read before [`Weights::get`].
#[derive(Clone)]
pub struct Weights {
    files: Arc<PartFiles>,
    prefix: String,
    dtype: DType,
    device: Device,
}

impl Weights {
    /// The weights of `files`, to be converted to `dtype` and placed on `device` one by one.
    ///
    /// # Errors
    /// When `dtype` is neither f32 nor bf16.
    pub fn new(files: Arc<PartFiles>, dtype: DType, device: &Device) -> Result<Self> {
        if !matches!(dtype, DType::F32 | DType::BF16) {
            return Err(Error::ComputeType(dtype));
        }
        Ok(Self { files, prefix: String::new(), dtype, device: device.clone() })
    }

    /// Weights of one safetensors file.
    ///
    /// # Errors
    /// When the file cannot be read or is not safetensors, or `dtype` is neither f32 nor bf16.
    pub fn open(path: &Path, dtype: DType, device: &Device) -> Result<Self> {
        let name = path.display().to_string();
        let file = DataFile::open(path, &name)?;
        Self::new(Arc::new(PartFiles::read(&name, vec![file])?), dtype, device)
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
        self.files.place(&self.full(name)).is_some()
    }

    /// The stored shape of a weight, without reading it.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(self.files.place(&self.full(name))?.shape)
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
        let place = self.files.find(&full)?;
        let shape = shape.into();
        if place.shape != shape.dims() {
            return Err(Error::WeightShape {
                file: place.file.name().to_owned(),
                name: full,
                expected: shape.dims().to_vec(),
                found: place.shape.to_vec(),
            });
        }
        read::tensor(&place, &full, dtype, &self.device)
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Weights")
            .field("files", &self.files.describe())
            .field("prefix", &self.prefix)
            .field("dtype", &self.dtype)
            .finish_non_exhaustive()
    }
}

/// Reading weights of a folder without opening all of it.
impl ModelFolder {
    /// The weights of a part (`transformer`, `vae`, `text_encoder`, …) as they are now.
    ///
    /// # Errors
    /// When there are none, or a file is a pickle, truncated, or otherwise not safetensors.
    pub fn weights(&self, part: &str, dtype: DType, device: &Device) -> Result<Weights> {
        Weights::new(Arc::new(self.part(part)?), dtype, device)
    }

    /// The type in which most of a part's weights are stored. Reads headers only.
    ///
    /// # Errors
    /// As [`ModelFolder::weights`].
    pub fn stored_dtype(&self, part: &str) -> Result<DType> {
        Ok(self.part(part)?.main_dtype().unwrap_or(DType::F32))
    }
}
