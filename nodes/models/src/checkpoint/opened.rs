//! A model's files as they were when it was opened, held open for as long as it is used.

use std::collections::BTreeMap;
use std::sync::Arc;

use kino_port::FileStamp;
use serde_json::Value;

use super::file::{self, DataFile};
use super::folder::{ModelFiles, ModelFolder};
use super::part::PartFiles;
use super::single::{SinglePart, part_names};
use crate::error::{Error, Result};

/// Configs up to this length stay in memory; of longer ones (tokenizers) the file stays open.
const KEPT: u64 = 1 << 20;
/// The longest config or tokenizer.
const LONGEST_CONFIG: u64 = 256 << 20;
/// The most configs of a model.
const MAX_CONFIGS: usize = 1000;

/// A config as it was when the model was opened.
#[derive(Debug)]
enum Config {
    Kept(Vec<u8>),
    Open(DataFile),
}

/// A tokenizer that a model lacks and that the engine brings.
pub struct BroughtTokenizer {
    /// What people call the encoder whose tokenizer it is.
    pub name: &'static str,
    /// Its files as files of the model: path and contents.
    pub files: Vec<(String, Vec<u8>)>,
}

/// A model that was opened: its configs were read, its weight files are open, their headers were
/// checked and their data sampled. What is read of it later is what was looked at then, or an
/// error.
#[derive(Debug)]
pub struct Checkpoint {
    /// The folder that was opened; none where all parts stand alone.
    folder: Option<ModelFolder>,
    singles: Vec<SinglePart>,
    configs: BTreeMap<String, Config>,
    parts: BTreeMap<String, Result<Arc<PartFiles>, String>>,
    /// Whose tokenizers are not the model's own.
    brought: Vec<&'static str>,
    /// Every file with its stamp, to see whether anything changed since.
    stamps: Vec<(String, Option<FileStamp>)>,
    /// Of configs and weights of the folder, without the stamps of their files.
    content: [u8; 32],
    fingerprint: [u8; 32],
}

impl Checkpoint {
    /// Opens all files of a model.
    ///
    /// A part whose weights cannot be read is no error here: whoever needs it is told.
    ///
    /// # Errors
    /// When the folder or a config cannot be read.
    pub fn open(folder: &ModelFolder) -> Result<Self> {
        let listed = folder.list()?;
        let (mut hasher, mut touched) = (blake3::Hasher::new(), blake3::Hasher::new());
        let mut stamps = Vec::new();
        let mut configs = BTreeMap::new();
        for path in listed.iter().filter(|path| is_config(path)).take(MAX_CONFIGS) {
            let file = folder.open(path)?;
            stamps.push((path.clone(), file.stamp().copied()));
            let bytes = file.read_all(LONGEST_CONFIG)?;
            add(&mut hasher, path, &bytes);
            let kept = bytes.len() as u64 <= KEPT;
            configs
                .insert(path.clone(), if kept { Config::Kept(bytes) } else { Config::Open(file) });
        }
        let mut parts = BTreeMap::new();
        for name in parts_of(&listed) {
            let part = folder.part(&name).map(Arc::new).map_err(|error| error.to_string());
            match &part {
                Ok(files) => {
                    add(&mut hasher, &name, &files.identity().content);
                    let marks = files.files().filter_map(DataFile::stamp).map(file::stamp_bytes);
                    add(&mut touched, &name, &marks.collect::<Vec<_>>().concat());
                }
                Err(message) => add(&mut hasher, &name, message.as_bytes()),
            }
            parts.insert(name, part);
        }
        let weights = listed.iter().filter(|path| is_weights(path));
        stamps.extend(weights.map(|path| (path.clone(), stamp_at(folder, path))));
        let content: [u8; 32] = hasher.finalize().into();
        touched.update(&content);
        let fingerprint = touched.finalize().into();
        let (folder, singles, brought) = (Some(folder.clone()), Vec::new(), Vec::new());
        Ok(Self { folder, singles, configs, parts, brought, stamps, content, fingerprint })
    }

    /// Puts a model together: what lies in `folder`, but for parts that stand alone in files, with
    /// `configs` in place of its own (path and contents).
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn assemble(
        folder: Option<&ModelFolder>,
        singles: Vec<SinglePart>,
        configs: Vec<(String, Vec<u8>)>,
    ) -> Result<Self> {
        let mut model = match folder {
            Some(folder) => Self::open(folder)?,
            None => Self {
                folder: None,
                singles: Vec::new(),
                configs: BTreeMap::new(),
                parts: BTreeMap::new(),
                brought: Vec::new(),
                stamps: Vec::new(),
                content: [0; 32],
                fingerprint: [0; 32],
            },
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&model.fingerprint);
        for (path, bytes) in configs {
            add(&mut hasher, &path, &bytes);
            model.configs.insert(path, Config::Kept(bytes));
        }
        for SinglePart { part, files, .. } in &singles {
            add(&mut hasher, part, &files.identity().content);
            let marks = files.files().filter_map(DataFile::stamp).map(file::stamp_bytes);
            add(&mut hasher, "stamps", &marks.collect::<Vec<_>>().concat());
            model.parts.insert((*part).to_owned(), Ok(Arc::clone(files)));
        }
        model.fingerprint = hasher.finalize().into();
        model.singles = singles;
        Ok(model)
    }

    /// The same model with tokenizers that it lacks; a file of its own stays.
    #[must_use]
    pub fn with_tokenizers(mut self, brought: Vec<BroughtTokenizer>) -> Self {
        if brought.is_empty() {
            return self;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.fingerprint);
        for BroughtTokenizer { name, files } in brought {
            self.brought.push(name);
            for (path, bytes) in files {
                add(&mut hasher, &path, &bytes);
                self.configs.entry(path).or_insert(Config::Kept(bytes));
            }
        }
        self.fingerprint = hasher.finalize().into();
        self
    }

    /// The encoders whose tokenizers the model lacks, so that it has those that the engine brings.
    pub fn brought_tokenizers(&self) -> &[&'static str] {
        &self.brought
    }

    /// What the folder, or a file that stands for the model, holds, but for parts that stand alone
    /// in other files: a copy has the same, wherever it lies and whenever it was touched.
    pub fn content(&self, alone: &[&str]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.content);
        if self.folder.is_none() {
            let own = self.parts.iter().filter(|(name, _)| !alone.contains(&name.as_str()));
            for (name, files) in own.filter_map(|(name, files)| Some((name, files.as_ref().ok()?)))
            {
                add(&mut hasher, name, &files.identity().content);
            }
        }
        hasher.finalize().into()
    }

    /// A hash that changes when the model does: configs, headers and data of the weights (of long
    /// files, samples of every tensor), and the stamps of their files.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// Whether opening the folder now would give the same: no file came, went or was touched.
    pub fn is_current(&self) -> bool {
        if !self.singles.iter().all(|single| single.files.is_current(Some(&single.path))) {
            return false;
        }
        let Some(folder) = &self.folder else { return true };
        if self.stamps.iter().all(|(_, stamp)| stamp.is_none()) {
            return folder.path("").is_none(); // in the binary nothing changes
        }
        let Ok(listed) = folder.list() else { return false };
        let mut known: Vec<&str> = self.stamps.iter().map(|(path, _)| path.as_str()).collect();
        known.sort_unstable();
        let now = listed.iter().filter(|path| is_config(path) || is_weights(path));
        now.map(String::as_str).eq(known)
            && self.stamps.iter().all(|(path, stamp)| *stamp == stamp_at(folder, path))
    }

    /// The folder on disk that was opened; none for one in the binary, or of parts alone.
    pub fn folder(&self) -> Option<std::path::PathBuf> {
        self.folder.as_ref()?.path("")
    }

    /// The parts that have weights, by name.
    pub fn part_names(&self) -> impl Iterator<Item = &str> {
        self.parts.keys().map(String::as_str)
    }

    /// The configs and tokenizers that the model has, as paths inside it.
    pub fn configs(&self) -> impl Iterator<Item = &str> {
        self.configs.keys().map(String::as_str)
    }

    /// Whether the model has this config.
    pub fn contains(&self, path: &str) -> bool {
        self.configs.contains_key(path)
    }

    /// Whether a part stands alone in a file.
    pub fn is_single(&self, part: &str) -> bool {
        self.singles.iter().any(|single| single.part == part)
    }

    /// The weight files of a part.
    ///
    /// # Errors
    /// When there are none, or they could not be read when the model was opened.
    pub fn part(&self, name: &str) -> Result<Arc<PartFiles>> {
        match self.parts.get(name) {
            Some(Ok(files)) => Ok(Arc::clone(files)),
            Some(Err(message)) => Err(Error::Part(message.clone())),
            None => Err(match &self.folder {
                None => self.missing(name),
                Some(folder) => match folder.weight_files(name) {
                    Ok(_) => Error::Changed { file: folder.describe(name) },
                    Err(error) => error,
                },
            }),
        }
    }

    /// The identity of a part: a hash of its config and of its weights' contents, and of the
    /// tokenizer that belongs to a text encoder. A copy of the part, wherever it lies, has the same.
    /// Keys of the config that begin with an underscore say who wrote it, and do not count but for
    /// `_class_name`.
    ///
    /// # Errors
    /// As [`Checkpoint::part`], and when its config is no JSON.
    pub fn identity(&self, name: &str) -> Result<[u8; 32]> {
        let mut hasher = blake3::Hasher::new();
        let path = format!("{name}/config.json");
        let config: Value = if self.contains(&path) { self.json(&path)? } else { Value::Null };
        add_json(&mut hasher, &config);
        hasher.update(&self.part(name)?.identity().content);
        // A text encoder is loaded with its tokenizer, without which it gives other embeddings.
        if let Some(number) = name.strip_prefix(part_names::TEXT_ENCODER) {
            let tokenizer = format!("tokenizer{number}/");
            let inside = |path: &&String| path.starts_with(&tokenizer);
            for path in self.configs.keys().filter(inside) {
                add(&mut hasher, path, &self.bytes(path)?);
            }
        }
        Ok(hasher.finalize().into())
    }
}

impl Checkpoint {
    fn missing(&self, path: &str) -> Error {
        if let Some(folder) = &self.folder {
            return folder.missing(path);
        }
        let hint = "the model is put together of single files, and none of them is this part";
        Error::FileMissing { file: self.describe(path), hint: hint.to_owned() }
    }
}

impl ModelFiles for Checkpoint {
    fn describe(&self, path: &str) -> String {
        let part = path.split_once('/').map_or(path, |(part, _)| part);
        match (self.singles.iter().find(|single| single.part == part), &self.folder) {
            (Some(single), _) => single.path.display().to_string(),
            (None, Some(folder)) => folder.describe(path),
            (None, None) => path.to_owned(),
        }
    }

    fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        match self.configs.get(path) {
            Some(Config::Kept(bytes)) => Ok(bytes.clone()),
            Some(Config::Open(file)) => file.read_all(LONGEST_CONFIG),
            // One that came after the model was opened is no part of it.
            None => Err(self.missing(path)),
        }
    }
}

/// Reading all of a folder once.
impl ModelFolder {
    /// The [`Checkpoint::fingerprint`] of the folder as it is now.
    ///
    /// # Errors
    /// When a file that is there cannot be read.
    pub fn fingerprint(&self) -> Result<[u8; 32]> {
        Ok(Checkpoint::open(self)?.fingerprint())
    }
}

fn is_config(path: &str) -> bool {
    [".json", ".model", ".txt"].iter().any(|ending| path.ends_with(ending))
}

fn is_weights(path: &str) -> bool {
    [".safetensors", ".bin"].iter().any(|ending| path.ends_with(ending))
}

/// The folders of parts: those that hold weights.
fn parts_of(listed: &[String]) -> Vec<String> {
    let folder = |path: &String| Some(path.split_once('/')?.0.to_owned());
    let with_weights =
        |path: &&String| is_weights(path) || path.ends_with(".safetensors.index.json");
    let mut parts: Vec<String> = listed.iter().filter(with_weights).filter_map(folder).collect();
    parts.dedup();
    parts
}

fn stamp_at(folder: &ModelFolder, path: &str) -> Option<FileStamp> {
    file::stamp_at(&folder.path(path).unwrap_or_default())
}

/// Adds a named run of bytes so that no two lists of them hash alike.
fn add(hasher: &mut blake3::Hasher, name: &str, bytes: &[u8]) {
    hasher.update(&(name.len() as u64).to_le_bytes());
    hasher.update(name.as_bytes());
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

/// Adds a JSON value, the keys of objects sorted, without those that say who wrote it.
fn add_json(hasher: &mut blake3::Hasher, value: &Value) {
    match value {
        Value::Object(fields) => {
            let counts = |key: &str| !key.starts_with('_') || key == "_class_name";
            let fields: BTreeMap<_, _> =
                fields.iter().filter(|(key, _)| counts(key.as_str())).collect();
            add(hasher, "object", &(fields.len() as u64).to_le_bytes());
            for (key, value) in fields {
                add(hasher, "key", key.as_bytes());
                add_json(hasher, value);
            }
        }
        Value::Array(items) => {
            add(hasher, "array", &(items.len() as u64).to_le_bytes());
            items.iter().for_each(|item| add_json(hasher, item));
        }
        plain => add(hasher, "plain", plain.to_string().as_bytes()),
    }
}
