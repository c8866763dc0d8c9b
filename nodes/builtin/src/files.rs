//! What all nodes share that read or write files: whatever path a graph names is found and opened
//! here, as far as the run's policy allows it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use kino_node::{Cancel, Cx, Error, FilePolicy, OutputFile, OutputGuard, Result, Services, Value};
use kino_port::{PlanError, PlannedFile, PlannedRead, path_to_text};
use kino_world::media::FfmpegChoice;
use kino_world::{BundledFiles, FileHash, Folders, HashCache, InputFile, hash_file};

use crate::error::{IntoNode, at_input, at_port};
use crate::source::ModelFolders;

/// A file that a node reads, while planning: opened, with its contents' hash for the key.
pub(crate) struct PlannedInput {
    /// The file itself.
    pub(crate) file: InputFile,
    /// As the graph writes it, with its hash.
    pub(crate) read: PlannedRead,
}

impl PlannedInput {
    /// Finds the file at `path`, which is relative to the graph, reads what is needed of it with
    /// `read`, and hashes it. What is no such file is told before all of it is read.
    ///
    /// # Errors
    /// Those of `read`, and when the file cannot be read; while a graph is only checked, that
    /// nobody looks.
    pub(crate) fn look<T>(
        services: &Services,
        path: &str,
        mut read: impl FnMut(&mut InputFile) -> Result<T, PlanError>,
    ) -> Result<(Self, T), PlanError> {
        if services.only_checks() {
            return Err(PlanError::unseen());
        }
        let missing = |error: Error| PlanError::new(error.to_string());
        services.get::<Folders>().map_err(missing)?;
        let hashes = services.get::<HashCache>().map_err(missing)?;
        let mut file = open_allowed(services, path).map_err(at_input("path"))?;
        let mut known = read(&mut file)?;
        let stopped = || is_cancelled(services);
        let hashed = hashes.hash_opened(&mut file, &stopped).node();
        let FileHash { hash, stamp } = hashed.map_err(at_input("path"))?;
        if stamp != file.stamp() {
            // It was changed, and what was read before belongs to what it was.
            known = read(&mut file)?;
        }
        let files = vec![PlannedFile { path: file.path().to_owned(), stamp: Some(stamp) }];
        let read = PlannedRead { path: path.to_owned(), hash, files, ..PlannedRead::default() };
        Ok((PlannedInput { file, read }, known))
    }

    /// What the file adds to a key.
    pub(crate) fn key(&self) -> Vec<u8> {
        self.read.hash.as_bytes().to_vec()
    }
}

/// Whether nobody wants the plan any more that is being made.
fn is_cancelled(services: &Services) -> bool {
    services.find::<Cancel>().is_some_and(|cancel| cancel.is_cancelled())
}

/// What the run may read and write.
pub(crate) fn policy(services: &Services) -> Arc<FilePolicy> {
    services.find().unwrap_or_default()
}

/// Where something lies that a graph reads, relative to it, if the run may read it. Whoever opens
/// it asks [`policy`] again once it is open.
pub(crate) fn input(services: &Services, path: &str) -> Result<PathBuf> {
    let place = services.get::<Folders>()?.input(path);
    let place = match services.find::<BundledFiles>() {
        // What a built-in graph begins with, unless the user has put a file in its place.
        Some(bundled) if !place.exists() => bundled.place(path).node()?.unwrap_or(place),
        _ => place,
    };
    policy(services).check_read(&place)?;
    Ok(place)
}

/// The user's folders of models.
pub(crate) fn model_folders(services: &Services) -> Arc<ModelFolders> {
    services.find().unwrap_or_default()
}

/// That several files of models of these kinds (or folders of models, where no kind is given) have
/// the name that a graph gives at `port`, none of which lies beside the graph.
pub(crate) fn doubled(
    services: &Services,
    (port, path): (&str, &str),
    kinds: &[&str],
) -> Option<PlanError> {
    let own = services.get::<Folders>().ok()?.input(path);
    let folders = model_folders(services);
    match kinds {
        _ if own.exists() => None,
        [] => folders.doubled_folder((port, path)),
        kinds => folders.doubled((port, path), kinds),
    }
}

/// Opens the file at `path`, which is relative to the graph, if the run may read it.
fn open_allowed(services: &Services, path: &str) -> Result<InputFile> {
    let (place, policy) = (input(services, path)?, policy(services));
    let file = InputFile::open(&place).node()?;
    policy.check_opened(&place, &file.stamp())?;
    Ok(file)
}

/// Opens the file that a node reads, while running: the one that was hashed while planning.
pub(crate) fn open(cx: &Cx<'_>, path: &str) -> Result<InputFile> {
    let file = open_allowed(cx.services, path)?;
    let mut planned = cx.reads.iter().flat_map(|read| &read.files);
    match planned.find(|planned| planned.path == file.path()) {
        Some(planned) if planned.stamp != Some(file.stamp()) => {
            Err(Error::failed(format!("{path} has changed since the plan was made")))
        }
        _ => Ok(file),
    }
}

/// Does what cannot be cancelled itself, such as decoding an image, on a thread of its own, which
/// is left to end by itself where nobody waits for it any more.
pub(crate) fn cancellable<T: Send + 'static>(
    cancel: &Cancel,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    /// How often it is asked whether somebody still waits.
    const LOOK: Duration = Duration::from_millis(20);
    let (give, take) = sync_channel(1);
    let thread = std::thread::Builder::new().spawn(move || drop(give.send(work())))?;
    loop {
        match take.recv_timeout(LOOK) {
            Ok(done) => return Ok(done),
            Err(RecvTimeoutError::Timeout) if cancel.is_cancelled() => {
                return Err(Error::Cancelled);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => match thread.join() {
                Ok(()) => return Err(Error::failed("the thread gave nothing")),
                Err(panic) => std::panic::resume_unwind(panic),
            },
        }
    }
}

/// The program `ffmpeg` for what is not read and written here: the engine's, or the one that the
/// environment names.
pub(crate) fn ffmpeg(services: &Services) -> Option<PathBuf> {
    match services.find::<FfmpegChoice>() {
        Some(choice) => choice.find(),
        None => FfmpegChoice::of_environment().find(),
    }
}

/// The file that a node will write, under the output folder, while planning.
pub(crate) fn target(services: &Services, path: &str) -> Result<PathBuf, PlanError> {
    let folders = services.get::<Folders>().map_err(|error| PlanError::new(error.to_string()))?;
    if services.only_checks() {
        // Links below the folder of outputs are the disk's.
        let nowhere = Folders { graph: folders.graph.clone(), out: PathBuf::new() };
        return nowhere.output(path).map_err(at_port("path"));
    }
    output(services, path).map_err(at_input("path"))
}

/// The file that a node writes, under the output folder, if the run may write it.
pub(crate) fn output(services: &Services, path: &str) -> Result<PathBuf> {
    let place = services.get::<Folders>()?.output(path).node()?;
    policy(services).check_write(&place)?;
    if let Some(guard) = services.find::<OutputGuard>() {
        (guard.0)(&place)?;
    }
    Ok(place)
}

/// What a target adds to a key: another output folder is another file.
pub(crate) fn target_key(target: &Path) -> Vec<u8> {
    let absolute = std::path::absolute(target).unwrap_or_else(|_| target.to_owned());
    path_to_text(&absolute).into_owned().into_bytes()
}

/// Files that were written, as a value: one, or a list of several.
pub(crate) fn written(paths: Vec<PathBuf>) -> Result<Value> {
    let file = |path: PathBuf| -> Result<Value> {
        let bytes = std::fs::metadata(&path)?.len();
        let hash = hash_file(&path).node()?;
        Ok(Value::File(OutputFile { path, hash, bytes }.into()))
    };
    let mut files = paths.into_iter().map(file).collect::<Result<Vec<_>>>()?;
    match files.len() {
        1 => Ok(files.remove(0)),
        _ => Ok(Value::List(files.into_iter().map(|file| (None, file)).collect())),
    }
}
