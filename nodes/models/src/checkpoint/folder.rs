//! A model as a folder in the diffusers layout: on disk or inside the binary, one code path.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::UNIX_EPOCH;

use candle_core::{DType, Device};
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::weight::{Store, WeightFile, Weights};

/// Files of an embedded model: path inside the folder (`vae/config.json`) and contents.
pub type EmbeddedFiles = &'static [(&'static str, &'static [u8])];

/// Names under which one file holds all the weights of a part; the last two are refused by content.
const SINGLE: [&str; 4] = [
    "diffusion_pytorch_model.safetensors",
    "model.safetensors",
    "diffusion_pytorch_model.bin",
    "pytorch_model.bin",
];

/// Names of the index of weights in several files.
const INDEX: [&str; 2] =
    ["diffusion_pytorch_model.safetensors.index.json", "model.safetensors.index.json"];

/// The folders of a model that may hold weights.
const PARTS: [&str; 5] = ["text_encoder", "transformer", "transformer_2", "vae", "image_encoder"];

/// The configs of a model, as paths inside its folder.
const CONFIGS: [&str; 10] = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "transformer/config.json",
    "transformer_2/config.json",
    "vae/config.json",
    "image_encoder/config.json",
    "image_processor/preprocessor_config.json",
];

/// A model in the diffusers layout: `model_index.json`, `transformer/`, `vae/`, `text_encoder/`, …
///
/// Opening one reads nothing; configs are read when asked for, weights are mapped when asked for.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    origin: Origin,
    contents: Arc<OnceLock<[u8; 32]>>,
}

#[derive(Debug, Clone)]
enum Origin {
    Directory(PathBuf),
    Embedded { name: &'static str, files: EmbeddedFiles },
}

impl ModelFolder {
    /// A folder on disk.
    ///
    /// # Errors
    /// When `path` is no folder.
    pub fn directory(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        if !path.is_dir() {
            let hint = "a model is a folder in the diffusers layout, with model_index.json in it";
            return Err(Error::FileMissing {
                file: path.display().to_string(),
                hint: hint.to_owned(),
            });
        }
        Ok(Self { origin: Origin::Directory(path), contents: Arc::default() })
    }

    /// A folder inside the binary; messages call it `name`.
    pub fn embedded(name: &'static str, files: EmbeddedFiles) -> Self {
        Self { origin: Origin::Embedded { name, files }, contents: Arc::default() }
    }

    /// How messages call a file of this folder.
    pub fn describe(&self, path: &str) -> String {
        match &self.origin {
            Origin::Directory(folder) => folder.join(path).display().to_string(),
            Origin::Embedded { name, .. } => format!("{name}/{path}"),
        }
    }

    /// Whether the folder holds this file.
    pub fn contains(&self, path: &str) -> bool {
        match &self.origin {
            Origin::Directory(folder) => folder.join(path).is_file(),
            Origin::Embedded { files, .. } => files.iter().any(|(name, _)| *name == path),
        }
    }

    /// The bytes of a small file.
    ///
    /// # Errors
    /// When it is missing or cannot be read.
    pub fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        match &self.origin {
            Origin::Directory(folder) if self.contains(path) => std::fs::read(folder.join(path))
                .map_err(|source| Error::Io { file: self.describe(path), source }),
            Origin::Directory(_) => Err(self.missing(path)),
            Origin::Embedded { .. } => Ok(self.embedded_bytes(path)?.to_vec()),
        }
    }

    /// A text file.
    ///
    /// # Errors
    /// When it is missing, cannot be read, or is not UTF-8.
    pub fn text(&self, path: &str) -> Result<String> {
        String::from_utf8(self.bytes(path)?).map_err(|error| Error::Config {
            file: self.describe(path),
            reason: format!("not UTF-8 text: {error}"),
        })
    }

    /// A JSON file as `T`. Unknown keys are ignored; a missing one is named.
    ///
    /// # Errors
    /// When the file is missing, is not JSON, or lacks a key that `T` needs.
    pub fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        serde_json::from_slice(&self.bytes(path)?).map_err(|error| {
            let reason = match error.classify() {
                serde_json::error::Category::Data => error.to_string(),
                _ => format!("not JSON or cut off ({error}); download it again"),
            };
            Error::Config { file: self.describe(path), reason }
        })
    }

    /// Opens the weights of a part (`transformer`, `vae`, `text_encoder`, …), to be converted to
    /// `dtype` and placed on `device` one by one.
    ///
    /// # Errors
    /// When there are none, or a file is a pickle, truncated, or otherwise not safetensors.
    pub fn weights(&self, part: &str, dtype: DType, device: &Device) -> Result<Weights> {
        Weights::new(Arc::new(self.store(part)?), dtype, device)
    }

    /// The type in which most of a part's weights are stored. Reads headers only.
    ///
    /// # Errors
    /// As [`ModelFolder::weights`].
    pub fn stored_dtype(&self, part: &str) -> Result<DType> {
        Ok(self.store(part)?.main_dtype().unwrap_or(DType::F32))
    }

    /// The weight files of a part, as paths inside the folder.
    ///
    /// # Errors
    /// When there are none, or the index of several files cannot be read.
    pub fn weight_files(&self, part: &str) -> Result<Vec<String>> {
        for index in INDEX.map(|name| format!("{part}/{name}")) {
            if self.contains(&index) {
                return self.indexed_files(part, &index);
            }
        }
        let single = SINGLE.map(|name| format!("{part}/{name}"));
        match single.into_iter().find(|path| self.contains(path)) {
            Some(path) => Ok(vec![path]),
            None => Err(Error::FileMissing {
                file: self.describe(&format!("{part}/{}", SINGLE[0])),
                hint: format!(
                    "looked for {}, {} and their .index.json in {part}/",
                    SINGLE[0], SINGLE[1]
                ),
            }),
        }
    }

    fn indexed_files(&self, part: &str, index: &str) -> Result<Vec<String>> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: std::collections::BTreeMap<String, String>,
        }
        let index_of: Index = self.json(index)?;
        let names: BTreeSet<String> = index_of.weight_map.into_values().collect();
        if names.is_empty() {
            let reason = "weight_map is empty".to_owned();
            return Err(Error::Config { file: self.describe(index), reason });
        }
        if let Some(name) = names.iter().find(|n| n.contains(['/', '\\']) || *n == "..") {
            let reason = format!("weight_map names `{name}`, which is not a file beside the index");
            return Err(Error::Config { file: self.describe(index), reason });
        }
        Ok(names.into_iter().map(|name| format!("{part}/{name}")).collect())
    }

    fn store(&self, part: &str) -> Result<Store> {
        let paths = self.weight_files(part)?;
        let files = paths.iter().map(|path| self.weight_file(path)).collect::<Result<Vec<_>>>()?;
        let place = if paths.len() == 1 { &paths[0] } else { part };
        Ok(Store::new(&self.describe(place), files))
    }

    fn weight_file(&self, path: &str) -> Result<WeightFile> {
        match &self.origin {
            Origin::Directory(folder) if self.contains(path) => {
                WeightFile::map(&folder.join(path), &self.describe(path))
            }
            Origin::Directory(_) => Err(self.missing(path)),
            Origin::Embedded { .. } => {
                WeightFile::embedded(self.embedded_bytes(path)?, &self.describe(path))
            }
        }
    }

    fn embedded_bytes(&self, path: &str) -> Result<&'static [u8]> {
        let Origin::Embedded { files, .. } = &self.origin else { return Err(self.missing(path)) };
        let found = files.iter().find(|(name, _)| *name == path);
        found.map(|(_, bytes)| *bytes).ok_or_else(|| self.missing(path))
    }

    fn missing(&self, path: &str) -> Error {
        let hint = "the folder is not a complete model in the diffusers layout".to_owned();
        Error::FileMissing { file: self.describe(path), hint }
    }
}

/// Fingerprints: what a cache key needs to know about a model.
impl ModelFolder {
    /// A hash that changes when the model does: every config, and of each weight file its length,
    /// time of change and header. Weights on disk are not read; embedded ones are hashed whole,
    /// once.
    ///
    /// # Errors
    /// When a file that is there cannot be read.
    pub fn fingerprint(&self) -> Result<[u8; 32]> {
        match &self.origin {
            Origin::Embedded { files, .. } => {
                Ok(*self.contents.get_or_init(|| hash_of_contents(files)))
            }
            Origin::Directory(folder) => self.hash_of_headers(folder),
        }
    }

    fn hash_of_headers(&self, folder: &Path) -> Result<[u8; 32]> {
        let mut hasher = blake3::Hasher::new();
        for path in CONFIGS.into_iter().filter(|path| self.contains(path)) {
            add(&mut hasher, path, &self.bytes(path)?);
        }
        for part in PARTS {
            // A part without weights is no error here: whoever needs it will say so.
            for path in self.weight_files(part).unwrap_or_default() {
                if !self.contains(&path) {
                    continue;
                }
                let mark = file_mark(&folder.join(&path))
                    .map_err(|source| Error::Io { file: self.describe(&path), source })?;
                add(&mut hasher, &path, &mark);
            }
        }
        Ok(hasher.finalize().into())
    }
}

/// Adds a named run of bytes so that no two lists of them hash alike.
fn add(hasher: &mut blake3::Hasher, name: &str, bytes: &[u8]) {
    hasher.update(&(name.len() as u64).to_le_bytes());
    hasher.update(name.as_bytes());
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

fn hash_of_contents(files: EmbeddedFiles) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for (name, bytes) in files {
        add(&mut hasher, name, bytes);
    }
    hasher.finalize().into()
}

/// Length, time of change and header of a weight file.
fn file_mark(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    let about = file.metadata()?;
    let changed = about.modified()?.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    let mut mark = about.len().to_le_bytes().to_vec();
    mark.extend(changed.to_le_bytes());
    let mut length = [0; 8];
    if file.read_exact(&mut length).is_ok() {
        // A header that claims more than the format allows is refused when it is opened.
        let limit = u64::from_le_bytes(length).min(100_000_000);
        file.take(limit).read_to_end(&mut mark)?;
    }
    Ok(mark)
}
