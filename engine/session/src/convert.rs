//! Models in other forms: which part, where to, and the files that come of it, whole or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use kino_models::ModelFolder;
use kino_models::checkpoint::{Checkpoint, ModelFiles, SingleFormat, part_names};
pub use kino_models::convert::ConvertTo;
use kino_models::convert::{Conversion, Destination};
use kino_models::families::{Families, open_folder};
use kino_nodes::{OpenModel, path_of_read};
use kino_port::format_bytes;
use kino_world::AtomicFile;
use kino_world::hub::HubModel;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::inventory::{EMBEDDED, model_folders};
use crate::settings::Settings;

/// What is to be converted, and to what.
#[derive(Clone, Debug)]
pub struct ConvertRequest {
    /// The model, as a graph names it.
    pub source: String,
    /// A file that ends in `.safetensors` or `.gguf`, or a folder in the diffusers layout.
    pub destination: PathBuf,
    /// The part; needed for a file of a model that has several.
    pub part: Option<String>,
    /// The type of numbers.
    pub to: ConvertTo,
    /// Whether what stands at the destination may be replaced.
    pub force: bool,
    /// Whether nothing is written.
    pub dry_run: bool,
}

/// A part as it was, or would be, written.
#[derive(Clone, Debug)]
pub struct ConvertedPart {
    /// Which part of a model it is.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// The length of the file.
    pub bytes: u64,
    /// How many tensors it has.
    pub tensors: usize,
    /// How many elements of it are of which type.
    pub types: BTreeMap<String, u64>,
    /// The SHA-256 of the file in hexadecimal, where it was written.
    pub sha256: Option<String>,
    /// What whoever uses it might want to know.
    pub notes: Vec<String>,
}

/// How far a conversion is.
#[derive(Clone, Copy, Debug)]
pub enum ConvertEvent<'a> {
    /// So many bytes will be written.
    Planned(u64),
    /// The next part is written.
    Part(&'a str),
    /// So many bytes more were written.
    Written(u64),
}

/// Writes a part of a model, or all parts of it, in another form.
///
/// # Errors
/// When the source is none, has several parts where one is needed, or holds what such a destination
/// does not; when something stands at the destination, or there is no room for it; when it was
/// cancelled.
pub fn convert(
    settings: &Settings,
    request: &ConvertRequest,
    tell: &dyn Fn(ConvertEvent<'_>),
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<ConvertedPart>> {
    let form = form_of(&request.destination)?;
    check_destination(request, form)?;
    let families = Families::default();
    let checkpoint = open(settings, &families, &request.source)?;
    let parts = chosen(request, &checkpoint, form)?;
    let checkpoint = whole(&families, checkpoint, &parts)?;
    let mut planned = Vec::new();
    for name in &parts {
        let conversion = Conversion::plan(&families, &checkpoint, name, (form, request.to));
        let path = match form {
            Destination::File(_) => request.destination.clone(),
            Destination::Folder => request.destination.join(weights_of(name)),
        };
        planned.push((name.clone(), path, conversion.map_err(of_models)?));
    }
    let bytes = planned.iter().map(|(.., conversion)| conversion.bytes()).sum();
    check_room(&request.destination, bytes)?;
    let mut done: Vec<ConvertedPart> = planned.iter().map(told).collect();
    if request.dry_run {
        return Ok(done);
    }
    tell(ConvertEvent::Planned(bytes));
    let progress = Progress { tell, cancelled };
    match form {
        Destination::File(_) => {
            let mut file = AtomicFile::create(&request.destination).map_err(of_world)?;
            for ((name, path, conversion), done) in planned.iter().zip(&mut done) {
                done.sha256 = Some(progress.write(name, path, conversion, &mut file)?);
            }
            file.finish().map_err(of_world)?;
        }
        Destination::Folder => {
            let folder = NewFolder::beside(&request.destination)?;
            for (path, bytes) in configs(&checkpoint, &parts)? {
                folder.file(&path)?.write_all(&bytes).map_err(io(&folder.place(&path)))?;
            }
            for ((name, _, conversion), done) in planned.iter().zip(&mut done) {
                let path = weights_of(name);
                let (mut file, place) = (folder.file(&path)?, folder.place(&path));
                done.sha256 = Some(progress.write(name, &place, conversion, &mut file)?);
                file.sync_all().map_err(io(&place))?;
            }
            folder.finish(&request.destination)?;
        }
    }
    Ok(done)
}

fn told((name, path, conversion): &(String, PathBuf, Conversion)) -> ConvertedPart {
    ConvertedPart {
        name: name.clone(),
        path: path.clone(),
        bytes: conversion.bytes(),
        tensors: conversion.tensors(),
        types: conversion.types(),
        sha256: None,
        notes: conversion.notes().to_vec(),
    }
}

/// Where the weights of a part lie in the diffusers layout.
fn weights_of(part: &str) -> String {
    let of_transformers = part.starts_with("text_encoder") || part.starts_with("image_encoder");
    let stem = if of_transformers { "model" } else { "diffusion_pytorch_model" };
    format!("{part}/{stem}.safetensors")
}

/// What a destination is, by how it ends.
fn form_of(destination: &Path) -> Result<Destination> {
    const OTHERS: [&str; 6] = ["bin", "ckpt", "pt", "pth", "sft", "onnx"];
    let ending = destination.extension().and_then(|end| end.to_str()).unwrap_or_default();
    match ending.to_ascii_lowercase().as_str() {
        "safetensors" => Ok(Destination::File(SingleFormat::Safetensors)),
        "gguf" => Ok(Destination::File(SingleFormat::Gguf)),
        other if OTHERS.contains(&other) => {
            let message = format!("{}: no files of this kind are written", destination.display());
            Err(Error::usage(message)
                .advising("end it with .safetensors or .gguf, or name a folder"))
        }
        _ => Ok(Destination::Folder),
    }
}

/// Refuses what would go lost.
fn check_destination(request: &ConvertRequest, form: Destination) -> Result<()> {
    let place = &request.destination;
    let refuse = |what: &str, hint: &str| {
        Err(Error::usage(format!("{} {what}", place.display())).advising(hint))
    };
    if place.symlink_metadata().is_err() {
        return Ok(());
    }
    match form {
        Destination::File(_) if place.is_dir() => {
            refuse("is a folder", "name a file in it, or a folder without such an ending")
        }
        Destination::Folder if !place.is_dir() => {
            refuse("is a file", "end the destination with .safetensors or .gguf, or name a folder")
        }
        Destination::Folder if fs::read_dir(place).is_ok_and(|mut list| list.next().is_none()) => {
            Ok(())
        }
        // Of a folder all goes that lies in it.
        Destination::Folder if !place.join("model_index.json").is_file() => {
            refuse("is a folder with other things in it", "name one that is not there yet")
        }
        _ if request.force => Ok(()),
        _ => refuse("exists already", "--force replaces it"),
    }
}

/// Opens whatever `model.load` takes.
fn open(settings: &Settings, families: &Families, source: &str) -> Result<Checkpoint> {
    if source == EMBEDDED {
        let folder = ModelFolder::embedded(EMBEDDED, kino_nodes::EMBEDDED_FILES);
        return open_folder(&folder).map_err(of_models);
    }
    let folders = model_folders(settings)?;
    let path = path_of_read(source, Path::new(""), &folders).filter(|path| path.exists());
    let Some(path) = path else {
        let hint = match HubModel::of_source(source) {
            Some(_) => format!("`kino models pull {source}` fetches it"),
            None => "`kino models list` shows what is at hand".to_owned(),
        };
        return Err(Error::usage(format!("{source} is not here")).advising(hint));
    };
    if path.is_dir() {
        let folder = ModelFolder::directory(&path);
        return folder.and_then(|folder| open_folder(&folder)).map_err(of_models);
    }
    families.open_file(&path).map_err(of_models)
}

/// The same, where these parts lack no weight. What cannot be read at all is told by who plans.
fn whole(families: &Families, of: Checkpoint, parts: &[String]) -> Result<Checkpoint> {
    let Ok(model) = families.read(&of) else { return Ok(of) };
    let OpenModel { checkpoint, faults, .. } = OpenModel::new(of, model);
    match faults.into_iter().find(|(part, _)| parts.iter().any(|chosen| chosen == part)) {
        None => Ok(checkpoint),
        Some((_, fault)) => {
            let hint = "it is damaged, or a piece of a model: get it whole, then convert it";
            Err(Error::usage(fault).advising(hint))
        }
    }
}

/// The parts that are written.
fn chosen(request: &ConvertRequest, of: &Checkpoint, form: Destination) -> Result<Vec<String>> {
    let all: Vec<String> = of.part_names().map(str::to_owned).collect();
    let known = || all.join(", ");
    let source = &request.source;
    match (&request.part, all.as_slice(), form) {
        (_, [], _) => Err(Error::usage(format!("{source} has no weights"))),
        (Some(part), all, _) if !all.contains(part) => {
            let message = format!("{source} has no part {part}");
            Err(Error::usage(message).advising(format!("it has {}", known())))
        }
        (Some(part), _, Destination::Folder) if part == part_names::LOW_NOISE => {
            let message = "an expert of low noise levels alone is no model in a folder";
            Err(Error::usage(message).advising("write it as a file of its own"))
        }
        (Some(part), ..) => Ok(vec![part.clone()]),
        (None, [part], _) => Ok(vec![part.clone()]),
        (None, all, Destination::Folder) => Ok(all.to_vec()),
        (None, ..) => {
            let message = format!("{source} has several parts, and a file holds one of them");
            Err(Error::usage(message).advising(format!("name it: --part {}", known())))
        }
    }
}

/// The small files of a model that belong to these parts, or to none; the index lists no others.
fn configs(of: &Checkpoint, parts: &[String]) -> Result<Vec<(String, Vec<u8>)>> {
    let is_left_out = |name: &str| {
        let part = match name.strip_prefix("tokenizer") {
            Some(number) => format!("text_encoder{number}"),
            None if ["image_processor", "feature_extractor"].contains(&name) => {
                part_names::IMAGE_ENCODER.to_owned()
            }
            None => name.to_owned(),
        };
        // What has no weights (a scheduler) belongs to all.
        let is_part = of.part_names().any(|own| own == part) || part.contains("encoder");
        is_part && !parts.contains(&part)
    };
    let mut configs = Vec::new();
    for path in of.configs().filter(|path| !path.ends_with(".index.json")) {
        let top = path.split_once('/').map_or("", |(top, _)| top);
        if !is_left_out(top) {
            configs.push((path.to_owned(), of.bytes(path).map_err(of_models)?));
        }
    }
    let index = configs.iter_mut().find(|(path, _)| path == "model_index.json");
    if let Some((_, bytes)) = index
        && let Ok(Value::Object(mut fields)) = serde_json::from_slice::<Value>(bytes)
    {
        let mut is_changed = false;
        for (name, value) in &mut fields {
            if value.is_array() && is_left_out(name) {
                *value = Value::Array(vec![Value::Null; 2]);
                is_changed = true;
            }
        }
        let has_second = parts.iter().any(|part| part == part_names::LOW_NOISE);
        if let (false, Some(ratio)) = (has_second, fields.get_mut("boundary_ratio")) {
            is_changed |= !ratio.is_null();
            *ratio = Value::Null;
        }
        if is_changed {
            *bytes = Value::Object(fields).to_string().into_bytes();
        }
    }
    Ok(configs)
}

/// Refuses what the disk has no room for.
fn check_room(destination: &Path, bytes: u64) -> Result<()> {
    let destination = std::path::absolute(destination).unwrap_or_else(|_| destination.to_owned());
    let free = destination.ancestors().skip(1).find_map(kino_world::free_bytes);
    match free {
        Some(free) if free < bytes => {
            let (needed, free) = (format_bytes(bytes), format_bytes(free));
            let message =
                format!("{} takes {needed}, and {free} are free there", destination.display());
            Err(Error::world(message).advising("make room, or write it to another disk"))
        }
        _ => Ok(()),
    }
}

struct Progress<'a> {
    tell: &'a dyn Fn(ConvertEvent<'_>),
    cancelled: &'a dyn Fn() -> bool,
}

impl Progress<'_> {
    /// Writes a part into an open file, and gives its hash.
    fn write(
        &self,
        name: &str,
        path: &Path,
        conversion: &Conversion,
        file: &mut dyn Write,
    ) -> Result<String> {
        (self.tell)(ConvertEvent::Part(name));
        let mut hash = Sha256::new();
        let mut sink = |bytes: &[u8]| {
            file.write_all(bytes)?;
            hash.update(bytes);
            (self.tell)(ConvertEvent::Written(bytes.len() as u64));
            Ok(())
        };
        let mut check_cancel = || match (self.cancelled)() {
            true => Err(kino_models::Error::Cancelled),
            false => Ok(()),
        };
        match conversion.write(&mut sink, &mut check_cancel) {
            Ok(()) => {}
            Err(kino_models::Error::Write(error)) => return Err(io(path)(error)),
            Err(error) => return Err(of_models(error)),
        }
        file.flush().map_err(io(path))?;
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// A model in the making beside where it will stand.
struct NewFolder {
    /// Removed when this goes, with whatever is in it then.
    around: tempfile::TempDir,
}

impl NewFolder {
    fn beside(destination: &Path) -> Result<Self> {
        let destination = std::path::absolute(destination).map_err(io(destination))?;
        let (Some(parent), Some(name)) = (destination.parent(), destination.file_name()) else {
            return Err(Error::usage(format!("{} cannot be a model", destination.display())));
        };
        fs::create_dir_all(parent).map_err(io(parent))?;
        let prefix = format!(".{}.", name.to_string_lossy());
        let mut around = tempfile::Builder::new();
        let around = around.prefix(&prefix).suffix(".partial").tempdir_in(parent);
        let folder = NewFolder { around: around.map_err(io(parent))? };
        fs::create_dir(folder.model()).map_err(io(&destination))?;
        Ok(folder)
    }

    fn model(&self) -> PathBuf {
        self.around.path().join("model")
    }

    fn place(&self, path: &str) -> PathBuf {
        self.model().join(path)
    }

    fn file(&self, path: &str) -> Result<File> {
        let place = self.place(path);
        let parent = place.parent().unwrap_or(&place);
        fs::create_dir_all(parent).map_err(io(parent))?;
        File::create_new(&place).map_err(io(&place))
    }

    /// Puts the model where it will stand; what stood there goes.
    fn finish(self, destination: &Path) -> Result<()> {
        let replaced = self.around.path().join("replaced");
        let had = destination.is_dir();
        if had {
            fs::rename(destination, &replaced).map_err(io(destination))?;
        }
        let Err(error) = fs::rename(self.model(), destination) else { return Ok(()) };
        if had && fs::rename(&replaced, destination).is_err() {
            // What was there must not go with the folder around it.
            let kept = self.around.keep().join("replaced").display().to_string();
            return Err(io(destination)(error).advising(format!("what was there lies in {kept}")));
        }
        Err(io(destination)(error))
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let path = path.display().to_string();
    move |error| Error::world(format!("{path} cannot be written: {error}"))
}

fn of_world(error: kino_world::Error) -> Error {
    Error::world(error.to_string())
}

fn of_models(error: kino_models::Error) -> Error {
    match error {
        kino_models::Error::Cancelled => Error::Cancelled,
        kino_models::Error::Io { .. } | kino_models::Error::Changed { .. } => {
            Error::world(error.to_string())
        }
        error => Error::usage(error.to_string()),
    }
}
