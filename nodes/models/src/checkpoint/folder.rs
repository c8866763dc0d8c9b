//! A model as a folder in the diffusers layout: on disk or inside the binary, one code path.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::config_error;
use super::file::DataFile;
use super::other_folder;
use super::part::PartFiles;
use super::snapshot::Snapshot;
use crate::error::{Error, Result};

/// The longest file that is read as a config or a tokenizer.
const LONGEST_CONFIG: u64 = 256 << 20;

/// Files of an embedded model: path inside the folder (`vae/config.json`), contents, and, where it
/// is known, their BLAKE3 digest in hexadecimal, which is believed.
pub type EmbeddedFiles = &'static [(&'static str, &'static [u8], Option<&'static str>)];

/// Names under which one file holds all the weights of a part; the last two are refused by content.
const SINGLE: [&str; 4] = [
    "diffusion_pytorch_model.safetensors",
    "model.safetensors",
    "diffusion_pytorch_model.bin",
    "pytorch_model.bin",
];

/// The file that says which parts a model has.
const MODEL_INDEX: &str = "model_index.json";

/// How the names of weight files begin.
const STEMS: [&str; 2] = ["diffusion_pytorch_model", "model"];

/// Names of the index of weights in several files.
const INDEX: [&str; 2] =
    ["diffusion_pytorch_model.safetensors.index.json", "model.safetensors.index.json"];

/// A model in the diffusers layout: `model_index.json`, `transformer/`, `vae/`, `text_encoder/`, …
///
/// It reads nothing before it is asked, and then what lies there at that time; a
/// [`Checkpoint`](super::Checkpoint) holds the files as they were when it was opened.
#[derive(Debug, Clone)]
pub struct ModelFolder(Origin);

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
        Ok(Self(Origin::Directory(path)))
    }

    /// A folder inside the binary; messages call it `name`.
    pub fn embedded(name: &'static str, files: EmbeddedFiles) -> Self {
        Self(Origin::Embedded { name, files })
    }

    /// How messages call a file of this folder.
    pub fn describe(&self, path: &str) -> String {
        match &self.0 {
            Origin::Directory(folder) => folder.join(path).display().to_string(),
            Origin::Embedded { name, .. } => format!("{name}/{path}"),
        }
    }

    /// Whether the folder holds this file.
    pub fn contains(&self, path: &str) -> bool {
        match &self.0 {
            Origin::Directory(folder) => folder.join(path).is_file(),
            Origin::Embedded { files, .. } => files.iter().any(|(name, ..)| *name == path),
        }
    }

    /// Where on disk a file lies; none in the binary.
    pub fn path(&self, path: &str) -> Option<PathBuf> {
        match &self.0 {
            Origin::Directory(folder) => Some(folder.join(path)),
            Origin::Embedded { .. } => None,
        }
    }

    /// Opens a file.
    ///
    /// # Errors
    /// When it is missing or the system refuses it.
    pub fn open(&self, path: &str) -> Result<DataFile> {
        if !self.contains(path) {
            return Err(self.missing(path));
        }
        match &self.0 {
            Origin::Directory(folder) => DataFile::open(&folder.join(path), &self.describe(path)),
            Origin::Embedded { files, .. } => {
                let found = files.iter().find(|(name, ..)| *name == path);
                let (_, bytes, digest) = found.ok_or_else(|| self.missing(path))?;
                Ok(DataFile::embedded(bytes, &self.describe(path), *digest))
            }
        }
    }

    /// The files in the folder itself and in the folders in it, as paths inside it, sorted.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<Vec<String>> {
        let mut found = match &self.0 {
            Origin::Embedded { files, .. } => {
                files.iter().map(|(path, ..)| (*path).to_owned()).collect()
            }
            Origin::Directory(folder) => {
                let io = |source| Error::Io { file: folder.display().to_string(), source };
                let mut found = Vec::new();
                for name in entries(folder).map_err(io)? {
                    let inner = folder.join(&name);
                    if inner.is_dir() {
                        let files = entries(&inner).map_err(io)?.into_iter();
                        found.extend(files.map(|file| format!("{name}/{file}")));
                    } else {
                        found.push(name);
                    }
                }
                found
            }
        };
        found.sort();
        Ok(found)
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
        if let Some(path) = single.into_iter().find(|path| self.contains(path)) {
            return Ok(vec![path]);
        }
        match self.variants(part)?.as_slice() {
            [(_, index)] if index.ends_with(".json") => self.indexed_files(part, index),
            [(_, path)] => Ok(vec![path.clone()]),
            several @ [_, _, ..] => {
                let names: Vec<&str> = several.iter().map(|(name, _)| &**name).collect();
                Err(Error::FileMissing {
                    file: self.describe(&format!("{part}/{}", SINGLE[0])),
                    hint: format!(
                        "there are the variants {}: rename the files of the one that is meant, or \
                         move the others away",
                        names.join(", ")
                    ),
                })
            }
            [] => match self.broken_link(part)? {
                Some(path) => Err(self.missing(&path)),
                None => Err(self.without_weights(part)),
            },
        }
    }

    /// That a part has no weights, and how to get them.
    fn without_weights(&self, part: &str) -> Error {
        let [diffusers, transformers] = [SINGLE[0], SINGLE[1]].map(|name| format!("{part}/{name}"));
        let way = self.how_to_complete(&[&*diffusers, &*transformers]);
        let way = way.map_or(String::new(), |way| format!("; {way}"));
        let looked =
            format!("looked for {}, {} and their .index.json in {part}/", SINGLE[0], SINGLE[1]);
        Error::FileMissing { file: self.describe(&diffusers), hint: looked + &way }
    }

    /// The variants in which a part lies (`fp16` of `model.fp16.safetensors`), each with its file,
    /// or with the index of several.
    fn variants(&self, part: &str) -> Result<Vec<(String, String)>> {
        let mut found: Vec<(String, String)> = Vec::new();
        for path in self.list()? {
            let Some(name) = path.strip_prefix(part).and_then(|rest| rest.strip_prefix('/')) else {
                continue;
            };
            let inner =
                STEMS.into_iter().find_map(|stem| name.strip_prefix(stem)?.strip_prefix('.'));
            let Some(inner) = inner else { continue };
            let index =
                inner.strip_prefix("safetensors.index.").and_then(|v| v.strip_suffix(".json"));
            let variant = index.or_else(|| inner.strip_suffix(".safetensors"));
            let is_word = |v: &&str| !v.contains('.') && !v.contains("-of-");
            if let Some(variant) = variant.filter(is_word) {
                found.push((variant.to_owned(), path.clone()));
            }
        }
        Ok(found)
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

    /// Opens the weight files of a part (`transformer`, `vae`, `text_encoder`, …).
    ///
    /// # Errors
    /// When there are none, or a file is a pickle, truncated, or otherwise not safetensors.
    pub fn part(&self, part: &str) -> Result<PartFiles> {
        let paths = self.weight_files(part)?;
        let files = paths.iter().map(|path| self.open(path)).collect::<Result<Vec<_>>>()?;
        let place = if paths.len() == 1 { &paths[0] } else { part };
        PartFiles::read(&self.describe(place), files)
    }

    /// A file of weights of a part that is a link which leads nowhere.
    fn broken_link(&self, part: &str) -> Result<Option<String>> {
        let inside = |path: &String| {
            path.strip_prefix(part).is_some_and(|rest| rest.starts_with('/'))
                && path.ends_with(".safetensors")
        };
        Ok(self.list()?.into_iter().filter(inside).find(|path| self.leads_nowhere(path)))
    }

    fn leads_nowhere(&self, path: &str) -> bool {
        let place = self.path(path);
        place.is_some_and(|place| place.symlink_metadata().is_ok() && !place.exists())
    }

    /// That a file is missing, and how to get it.
    pub(super) fn missing(&self, path: &str) -> Error {
        let state = match self.leads_nowhere(path) {
            true => "its link leads nowhere",
            false => "the folder is not a complete model in the diffusers layout",
        };
        if path == MODEL_INDEX
            && let Some(other) = self.other_than_model()
        {
            return Error::FileMissing { file: self.describe(path), hint: other };
        }
        let anew = "put the file there, or get the model anew (`kino models pull hf:OWNER/NAME`)";
        let way = self.how_to_complete(&[path]).unwrap_or_else(|| anew.to_owned());
        Error::FileMissing { file: self.describe(path), hint: format!("{state}; {way}") }
    }

    /// What the folder is, where it is no model but one part of one, or holds several.
    fn other_than_model(&self) -> Option<String> {
        let Origin::Directory(folder) = &self.0 else { return None };
        let config: Option<serde_json::Value> = self.json("config.json").ok();
        let is_in_model = folder.parent().is_some_and(|above| above.join(MODEL_INDEX).is_file());
        other_folder::told(&self.list().ok()?, config.as_ref(), is_in_model)
    }

    /// How to get a file that has one of these paths, where the folder is a snapshot of the hub.
    fn how_to_complete(&self, paths: &[&str]) -> Option<String> {
        let Origin::Directory(folder) = &self.0 else { return None };
        let snapshot = Snapshot::of(folder)?;
        match paths.iter().any(|path| snapshot.is_lacking(path)) {
            true => Some(snapshot.another_source()),
            false => Some(snapshot.commands()),
        }
    }
}

/// The names in a folder; those that are no text, no file of a model has.
fn entries(folder: &Path) -> std::io::Result<Vec<String>> {
    let names = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
    Ok(names.collect::<std::io::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

impl ModelFiles for ModelFolder {
    fn describe(&self, path: &str) -> String {
        self.describe(path)
    }

    fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        self.open(path)?.read_all(LONGEST_CONFIG)
    }
}

/// The small files of a model: configs and tokenizers.
pub trait ModelFiles {
    /// How messages call a file of the model.
    fn describe(&self, path: &str) -> String;

    /// The bytes of a small file.
    ///
    /// # Errors
    /// When it is missing or cannot be read.
    fn bytes(&self, path: &str) -> Result<Vec<u8>>;

    /// A text file.
    ///
    /// # Errors
    /// When it is missing, cannot be read, or is not UTF-8.
    fn text(&self, path: &str) -> Result<String> {
        String::from_utf8(self.bytes(path)?).map_err(|error| Error::Config {
            file: self.describe(path),
            reason: format!("not UTF-8 text: {error}"),
        })
    }

    /// A JSON file as `T`. Unknown keys are ignored; a missing one is named.
    ///
    /// # Errors
    /// When the file is missing, is not JSON, or lacks a key that `T` needs.
    fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T>
    where
        Self: Sized,
    {
        let bytes = self.bytes(path)?;
        serde_json::from_slice(&bytes).map_err(|error| Error::Config {
            file: self.describe(path),
            reason: config_error::reason::<T>(&bytes, &error),
        })
    }
}
