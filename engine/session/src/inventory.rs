//! The models at hand: what is embedded, what lies in the local Hugging Face cache and in the
//! user's folders of models, and what each of them is. Nothing is fetched, nothing of weights is
//! loaded: configs and headers are read, and samples of the data.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device};
use kino_models::ModelFolder;
use kino_models::checkpoint::{DataFile, PartFiles};
use kino_models::families::{Families, open_folder};
use kino_models::interpolate::read_interpolator;
pub use kino_models::language::LanguageSummary;
use kino_models::language::read_language_model;
use kino_models::model::Model;
use kino_models::upscale::read_upscaler;
use kino_models::weight::{LoraSpec, Weights};
pub use kino_nodes::{ModelFolders, ModelPlace};
use kino_nodes::{OpenModel, is_weights, model_meant_by, models_below, name_in, path_of_read};
use kino_world::extra_model_paths;
use kino_world::hub::{HubCache, HubGap, HubModel, HubSnapshot};

use crate::error::{Error, Result};
use crate::settings::Settings;

/// The model in the binary.
pub(crate) const EMBEDDED: &str = "embedded:shapes";
/// Entries of folders that are looked at, at most.
const MOST: usize = 20_000;

/// Where a model was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelOrigin {
    /// In the binary.
    Embedded,
    /// In the local Hugging Face cache.
    Hub,
    /// In a folder of the setting `models`, or where its path says.
    Folder,
}

impl ModelOrigin {
    /// Its name: `embedded`, `hub`, `folder`.
    pub fn name(self) -> &'static str {
        match self {
            ModelOrigin::Embedded => "embedded",
            ModelOrigin::Hub => "hub",
            ModelOrigin::Folder => "folder",
        }
    }
}

/// A model, or a file of one, that is at hand.
#[derive(Clone, Debug)]
pub struct FoundModel {
    /// What a graph writes for it.
    pub source: String,
    /// Where it was found.
    pub origin: ModelOrigin,
    /// Its folder or file; none in the binary.
    pub path: Option<PathBuf>,
    /// The family that knows it.
    pub family: Option<String>,
    /// Its parts.
    pub parts: Vec<FoundPart>,
    /// What it is, if it is a language model.
    pub language: Option<LanguageSummary>,
    /// The encoders whose tokenizers it lacks: those that the engine brings are taken. Known of a model
    /// that is shown.
    pub brought_tokenizers: Vec<String>,
    /// What of it is not there.
    pub gaps: Vec<HubGap>,
    /// Why it cannot be used, or not all of it.
    pub problem: Option<String>,
    /// What to do about that.
    pub hint: Option<String>,
    /// Whether another one of its name is taken where a graph writes it.
    pub is_shadowed: bool,
}

/// A part of a model.
#[derive(Clone, Debug)]
pub struct FoundPart {
    /// What it is: `transformer`, `vae`, `lora`.
    pub name: String,
    /// The length of its files in bytes.
    pub bytes: u64,
    /// How many elements are stored in which type.
    pub types: BTreeMap<String, u64>,
    /// Whether scales stand beside its matrices of eight bits with an exponent; none where it has no
    /// such matrices.
    pub has_fp8_scales: Option<bool>,
    /// How many tensors it has.
    pub tensors: usize,
    /// Its files, each with its length in bytes.
    pub files: Vec<(String, u64)>,
    /// Why it cannot be used.
    pub problem: Option<String>,
}

impl FoundPart {
    fn of(name: &str, files: &PartFiles) -> Self {
        FoundPart {
            name: name.to_owned(),
            bytes: files.bytes(),
            types: files.stored_types(),
            has_fp8_scales: files.has_fp8_scales(),
            tensors: files.names().len(),
            files: files.file_names().map(|(name, bytes)| (name.to_owned(), bytes)).collect(),
            problem: None,
        }
    }

    fn without_weights(name: &str, problem: String) -> Self {
        FoundPart {
            name: name.to_owned(),
            bytes: 0,
            types: BTreeMap::new(),
            has_fp8_scales: None,
            tensors: 0,
            files: Vec::new(),
            problem: Some(problem),
        }
    }

    /// The type in which most of it is stored.
    pub fn main_type(&self) -> Option<&str> {
        let most = self.types.iter().max_by_key(|(_, elements)| **elements);
        most.map(|(name, _)| name.as_str())
    }
}

impl FoundModel {
    fn new(source: impl Into<String>, origin: ModelOrigin, path: Option<PathBuf>) -> Self {
        FoundModel {
            source: source.into(),
            origin,
            path,
            family: None,
            parts: Vec::new(),
            language: None,
            brought_tokenizers: Vec::new(),
            gaps: Vec::new(),
            problem: None,
            hint: None,
            is_shadowed: false,
        }
    }

    /// The length of all its weights in bytes.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).fold(0, u64::saturating_add)
    }

    /// Reads a model in the diffusers layout; with `probe`, what weights of transformers lack, too.
    fn read(mut self, folder: &kino_models::Result<ModelFolder>, probe: bool) -> Self {
        let told = |error: &kino_models::Error| Some(error.to_string());
        let folder = match folder {
            Ok(folder) => folder,
            Err(error) => return FoundModel { problem: told(error), ..self },
        };
        let families = Families::default();
        let checkpoint = match open_folder(folder) {
            Ok(checkpoint) => checkpoint,
            Err(error) => return FoundModel { problem: told(&error), ..self },
        };
        self.family = families.name_of(&checkpoint).map(str::to_owned);
        let read = families.read(&checkpoint);
        let mut names: BTreeSet<String> = checkpoint.part_names().map(str::to_owned).collect();
        // Those that the configs say and that have no weights at all.
        names.extend(read.iter().flat_map(parts_of).map(str::to_owned));
        let is_model = folder.contains("model_index.json");
        for name in names {
            match checkpoint.part(&name) {
                Ok(files) => self.parts.push(FoundPart::of(&name, &files)),
                Err(error) if is_model => {
                    self.parts.push(FoundPart::without_weights(&name, error.to_string()));
                }
                // Any folder in one that is no model.
                Err(_) => {}
            }
        }
        match read {
            Err(error) => self.problem = told(&error),
            Ok(model) if probe => self.probe(OpenModel::new(checkpoint, model)),
            Ok(_) => {}
        }
        self
    }

    /// What the weights of parts lack, or have beside what is read, as planning finds it.
    fn probe(&mut self, model: OpenModel) {
        let brought = model.checkpoint.brought_tokenizers().iter();
        self.brought_tokenizers = brought.map(|name| (*name).to_owned()).collect();
        let left_over = model
            .left_over
            .iter()
            .map(|(part, names)| (*part, format!("weights that it does not read: {names}")));
        let of_vae = model.vae_faults.iter().flatten().map(|said| ("vae", said.clone()));
        for (name, said) in model.faults.iter().cloned().chain(of_vae).chain(left_over) {
            if let Some(part) = self.parts.iter_mut().find(|part| part.name == name) {
                part.problem.get_or_insert(said);
            }
        }
    }

    /// Reads a file that stands alone; with `probe`, what it lacks or has too much, too.
    fn read_file(mut self, path: &Path, probe: bool) -> Self {
        let files = DataFile::open(path, &path.display().to_string()).and_then(PartFiles::of_file);
        let files = match files {
            Ok(files) => files,
            Err(error) => return FoundModel { problem: Some(error.to_string()), ..self },
        };
        let families = Families::default();
        let name = match families.identify(&files) {
            Ok((family, parts)) => {
                self.family = Some(family.to_owned());
                self.parts = parts.iter().map(|(part, own)| FoundPart::of(part, own)).collect();
                if let [_, _, ..] = parts.as_slice() {
                    // Of a file that they share, each has its own weights.
                    let own = parts.iter().map(|(_, own)| own.stored_bytes());
                    self.parts.iter_mut().zip(own).for_each(|(part, bytes)| part.bytes = bytes);
                }
                if probe {
                    self.probe_file(&families, path);
                }
                return self;
            }
            Err(_) if self.read_language(&files, probe) => "language_model",
            Err(_) if read_upscaler(&files).is_ok() => "upscaler",
            Err(_) if read_interpolator(&files).is_ok() => "interpolator",
            Err(_) if LoraSpec::read(&files).is_ok() => "lora",
            Err(error) => {
                self.problem = Some(error.to_string());
                "unknown"
            }
        };
        self.parts.push(FoundPart::of(name, &files));
        self
    }

    /// Whether a file is a language model, which then is told; with `probe`, what it lacks, too.
    fn read_language(&mut self, files: &PartFiles, probe: bool) -> bool {
        let summary = match LanguageSummary::read(files) {
            Ok(summary) => summary,
            Err(error) => {
                let is_one = LanguageSummary::is_one(files);
                self.problem = is_one.then(|| error.to_string());
                return is_one;
            }
        };
        self.family = Some(summary.config.architecture.title().to_owned());
        self.language = Some(summary);
        let probed = read_language_model(files).and_then(|spec| match probe {
            true => {
                let weights = Weights::new(Arc::new(files.clone()), DType::F32, &Device::Cpu)?;
                spec.probe(&weights.probing(&Arc::default()))
            }
            false => Ok(()),
        });
        self.problem = probed.err().map(|error| error.to_string());
        true
    }

    /// The same for the parts of a file.
    fn probe_file(&mut self, families: &Families, path: &Path) {
        let model = families.open_file(path).and_then(|checkpoint| {
            let parts = families.read(&checkpoint)?;
            Ok(OpenModel::new(checkpoint, parts))
        });
        match model {
            Ok(model) => self.probe(model),
            Err(error) => self.problem = Some(error.to_string()),
        }
    }

    fn of_snapshot(cache: &HubCache, snapshot: &HubSnapshot, probe: bool) -> Self {
        let path = Some(snapshot.folder.clone());
        let mut found = FoundModel::new(snapshot.model.source(), ModelOrigin::Hub, path);
        found.gaps = cache.gaps(snapshot);
        if snapshot.folder.join("model_index.json").is_file() {
            found = found.read(&ModelFolder::directory(&snapshot.folder), probe);
        } else {
            for path in kino_world::hub::files_below(&snapshot.folder) {
                let place = snapshot.folder.join(&path);
                if is_weights(&place) && place.is_file() {
                    let one = FoundModel::new("", ModelOrigin::Hub, None).read_file(&place, false);
                    found.family = found.family.or(one.family);
                    found.parts.extend(one.parts);
                }
            }
        }
        if !found.gaps.is_empty() {
            found.hint = Some(cache.how_to_get(&snapshot.model, &found.gaps));
        }
        found
    }
}

/// The user's folders of models: those of the setting `models`, and what a file of it that ComfyUI
/// calls `extra_model_paths.yaml` names.
///
/// # Errors
/// When such a file cannot be read, or says something else.
pub fn model_folders(settings: &Settings) -> Result<ModelFolders> {
    model_places(&settings.models())
}

/// Those that lie at these paths, of which some may be lists of folders.
///
/// # Errors
/// When a list cannot be read.
pub fn model_places(paths: &[PathBuf]) -> Result<ModelFolders> {
    let mut places = Vec::new();
    for path in paths {
        let is_list = path.extension().is_some_and(|end| end == "yaml" || end == "yml");
        if !is_list || path.is_dir() {
            places.push(ModelPlace::Root(path.clone()));
            continue;
        }
        let folders = extra_model_paths(path).map_err(|error| {
            let hint = error.hint().unwrap_or("the setting `models` names it").to_owned();
            Error::usage(error.to_string()).advising(hint)
        })?;
        places.extend(folders.into_iter().map(ModelPlace::Kind));
    }
    Ok(ModelFolders(places))
}

/// All models at hand: the embedded one, those of the hub's cache, those of the user's folders.
///
/// # Errors
/// When the settings do not read.
pub fn list(settings: &Settings) -> Result<Vec<FoundModel>> {
    let mut found = vec![embedded(false)];
    let cache = HubCache::of_environment();
    found.extend(cache.models().iter().map(|at| FoundModel::of_snapshot(&cache, at, false)));
    let mut seen: BTreeSet<PathBuf> = BTreeSet::new();
    let mut names: BTreeSet<String> = BTreeSet::new();
    let mut left = MOST;
    for place in &model_folders(settings)?.0 {
        let (root, is_kind) = match place {
            ModelPlace::Root(root) => (root, false),
            ModelPlace::Kind(of) => (&of.folder, true),
        };
        for path in models_below(root, &mut left) {
            // One that a link leads to, or another setting, is told once.
            let real = path.canonicalize().unwrap_or_else(|_| path.clone());
            if !seen.insert(real) {
                continue;
            }
            let source = name_in(root, &path, is_kind);
            let is_shadowed = !names.insert(source.clone());
            let one = FoundModel::new(source, ModelOrigin::Folder, Some(path.clone()));
            let one = match path.is_dir() {
                true => one.read(&ModelFolder::directory(&path), false),
                false => one.read_file(&path, false),
            };
            found.push(FoundModel { is_shadowed, ..one });
        }
    }
    Ok(found)
}

/// What a source is that a graph in the folder `graph` would name: parts, sizes, types, and what is
/// missing.
///
/// # Errors
/// When it is not there; the error says how to get it.
pub fn show(settings: &Settings, source: &str, graph: &Path) -> Result<FoundModel> {
    if source == EMBEDDED {
        return Ok(embedded(true));
    }
    let cache = HubCache::of_environment();
    if let Some(model) = HubModel::of_source(source) {
        let model = model.map_err(|message| {
            Error::usage(message).advising("for example hf:Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
        })?;
        let missing =
            |told: kino_world::hub::NotInCache| Error::usage(told.message).advising(told.hint);
        return match &model.file {
            None => {
                let snapshot = cache.find(&model).map_err(missing)?;
                Ok(FoundModel::of_snapshot(&cache, &snapshot, true))
            }
            Some(file) => {
                let path = cache.find_file(&model, file).map_err(missing)?;
                let found = FoundModel::new(source, ModelOrigin::Hub, Some(path.clone()));
                Ok(found.read_file(&path, true))
            }
        };
    }
    let folders = model_folders(settings)?;
    let path = path_of_read(source, graph, &folders).filter(|path| path.exists());
    let Some(path) = path else {
        let message = format!("{source} is neither a file nor a folder here");
        let hint = format!(
            "{}`kino models list` shows what is at hand; hf:OWNER/NAME is a model of the hub",
            model_meant_by(source, graph, &folders)
        );
        return Err(Error::usage(message).advising(hint));
    };
    let found = FoundModel::new(source, ModelOrigin::Folder, Some(path.clone()));
    Ok(match path.is_dir() {
        true => found.read(&ModelFolder::directory(&path), true),
        false => found.read_file(&path, true),
    })
}

fn embedded(probe: bool) -> FoundModel {
    let folder = Ok(ModelFolder::embedded(EMBEDDED, kino_nodes::EMBEDDED_FILES));
    FoundModel::new(EMBEDDED, ModelOrigin::Embedded, None).read(&folder, probe)
}

/// The parts that a model has, by its configs.
fn parts_of(model: &Model) -> impl Iterator<Item = &'static str> {
    let others = model.other_text_encoders.iter().map(|part| part.part);
    let parts = [
        model.text_encoder.as_ref().map(|part| part.part),
        model.image_encoder.as_ref().map(|part| part.part),
        model.denoiser.as_ref().map(|part| part.part),
        model.low_noise.as_ref().map(|low| low.denoiser.part),
        model.vae.as_ref().map(|part| part.part),
    ];
    parts.into_iter().flatten().chain(others)
}
