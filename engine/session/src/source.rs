//! Where graphs come from: files, the built-in ones, and the standard input.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use kino_graph::GraphLoader;
use kino_node::{FilePolicy, GraphId};
use kino_port::{did_you_mean, path_to_text};
use kino_world::{InputFile, decode_text, read_text};

use crate::error::{Error, Result};

/// The built-in graphs: name and text.
pub const GRAPHS: &[(&str, &str)] = &[
    ("text_to_video", include_str!("../../../graphs/text_to_video.ron")),
    ("text_to_image", include_str!("../../../graphs/text_to_image.ron")),
    ("mixed_sizes", include_str!("../../../graphs/mixed_sizes.ron")),
    ("expanded_prompt", include_str!("../../../graphs/expanded_prompt.ron")),
    ("upscale", include_str!("../../../graphs/upscale.ron")),
    ("image_to_video", include_str!("../../../graphs/image_to_video.ron")),
    ("first_last_frame", include_str!("../../../graphs/first_last_frame.ron")),
    ("video_to_video", include_str!("../../../graphs/video_to_video.ron")),
    ("inpaint", include_str!("../../../graphs/inpaint.ron")),
    ("interpolate", include_str!("../../../graphs/interpolate.ron")),
    ("extend_forward", include_str!("../../../graphs/extend_forward.ron")),
    ("extend_backward", include_str!("../../../graphs/extend_backward.ron")),
    ("join", include_str!("../../../graphs/join.ron")),
    ("loop", include_str!("../../../graphs/loop.ron")),
    ("storyboard", include_str!("../../../graphs/storyboard.ron")),
    ("long_video", include_str!("../../../graphs/long_video.ron")),
];

/// What built-in graphs use: parts, and the pictures and clips that they begin with, by the paths
/// that they write.
pub const GRAPH_FILES: &[(&str, &[u8])] = &[
    ("parts/between.ron", include_bytes!("../../../graphs/parts/between.ron")),
    ("parts/extend.ron", include_bytes!("../../../graphs/parts/extend.ron")),
    ("parts/shot.ron", include_bytes!("../../../graphs/parts/shot.ron")),
    ("inputs/begins.png", include_bytes!("../../../graphs/inputs/begins.png")),
    ("inputs/clip.png", include_bytes!("../../../graphs/inputs/clip.png")),
    ("inputs/ends.png", include_bytes!("../../../graphs/inputs/ends.png")),
    ("inputs/turns.png", include_bytes!("../../../graphs/inputs/turns.png")),
    ("pictures/first.png", include_bytes!("../../../graphs/pictures/first.png")),
    ("pictures/last.png", include_bytes!("../../../graphs/pictures/last.png")),
];

/// The files of [`GRAPH_FILES`] that a graph uses, itself and through its parts.
pub fn files_of_graph(text: &str) -> Vec<(&'static str, &'static [u8])> {
    let mut found: Vec<(&str, &[u8])> = Vec::new();
    let mut texts = vec![text];
    while let Some(text) = texts.pop() {
        for (path, contents) in GRAPH_FILES {
            let is_named = [format!("\"{path}\""), format!("\"./{path}\"")]
                .iter()
                .any(|quoted| text.contains(quoted.as_str()));
            if is_named && !found.iter().any(|(other, _)| other == path) {
                found.push((path, contents));
                texts.extend(std::str::from_utf8(contents));
            }
        }
    }
    found
}

/// The largest text that is taken for a graph, in bytes.
const LARGEST: u64 = 1 << 30;

/// A graph's text and where it came from.
#[derive(Debug)]
pub(crate) struct GraphSource {
    /// What diagnostics call it.
    pub(crate) name: String,
    /// Its text.
    pub(crate) text: String,
    /// What `{graph}` stands for.
    pub(crate) stem: String,
    /// The folder that its paths are relative to.
    pub(crate) folder: PathBuf,
    /// What tells it from other graphs.
    pub(crate) id: GraphId,
    /// What it may read and write, the graphs that it uses included; its own file it need not
    /// allow.
    pub(crate) policy: FilePolicy,
    pub(crate) is_built_in: bool,
    /// What its files are known by.
    owner: String,
    /// Its own file, where it has one.
    file: Option<PathBuf>,
    /// The files of graphs that it uses that were read, or could not be.
    used: Mutex<Vec<PathBuf>>,
}

/// Finds a graph: `-` is the standard input; whatever looks like a path is a file; else a built-in
/// name.
///
/// # Errors
/// When there is no such graph, or it cannot be read.
pub(crate) fn open(path: &Path) -> Result<GraphSource> {
    if path.as_os_str() == "-" {
        return standard_input();
    }
    let graph = path_to_text(path);
    let looks_like_a_path = graph.ends_with(".ron") || graph.contains(['/', '\\']);
    if let (false, Some((name, text))) = (looks_like_a_path, built_in(&graph)) {
        return Ok(GraphSource {
            name: format!("{name}.ron"),
            text: (*text).to_owned(),
            stem: (*name).to_owned(),
            folder: PathBuf::from("."),
            id: GraphId(format!("built-in {name}").into()),
            policy: FilePolicy::default(),
            is_built_in: true,
            owner: format!("built-in {name}"),
            file: None,
            used: Mutex::default(),
        });
    }
    if !looks_like_a_path && !path.exists() {
        return Err(no_such_graph(&graph));
    }
    let text = read(path)?;
    let stem = path.file_stem().map_or_else(|| "graph".into(), |stem| stem.to_string_lossy());
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let place = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    Ok(GraphSource {
        name: graph.into_owned(),
        text,
        stem: stem.into_owned(),
        folder: folder.unwrap_or(Path::new(".")).to_owned(),
        id: GraphId(format!("file {place:?}").into()),
        policy: FilePolicy::default(),
        is_built_in: false,
        owner: format!("file {}", path_to_text(&place)),
        file: Some(path.to_owned()),
        used: Mutex::default(),
    })
}

/// The built-in graph of this name.
pub fn built_in(name: &str) -> Option<&'static (&'static str, &'static str)> {
    GRAPHS.iter().find(|(known, _)| *known == name)
}

/// What to say of a name that no built-in graph has.
pub fn no_such_graph(name: &str) -> Error {
    let error = Error::usage(format!("there is no built-in graph `{name}`, and no such file"));
    let names = GRAPHS.iter().map(|(name, _)| *name);
    match did_you_mean(name, names.clone()) {
        Some(near) => error.advising(near),
        None => {
            let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
            error.advising(format!("built in are {}", names.join(", ")))
        }
    }
}

/// A path without a leading `./`.
pub(crate) fn tidy(path: PathBuf) -> PathBuf {
    path.strip_prefix(".").map(Path::to_owned).unwrap_or(path)
}

fn standard_input() -> Result<GraphSource> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(LARGEST).read_to_end(&mut bytes);
    read.map_err(|error| Error::usage(format!("the standard input is no graph: {error}")))?;
    let no_text = || Error::usage("the standard input is no graph: it is no text");
    let text = decode_text(bytes).ok_or_else(no_text)?;
    Ok(GraphSource::of_text("<stdin>", "graph", text, Path::new(".")))
}

fn read(path: &Path) -> Result<String> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::usage(format!("there is no file {shown}"))
            .advising("`kino init` lists the built-in graphs"),
        _ => Error::usage(format!("{shown} cannot be read: {error}")),
    };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if metadata.len() > LARGEST {
        return Err(Error::usage(format!("{shown} is too large to be a graph")));
    }
    if !metadata.is_file() && !metadata.is_dir() {
        // A pipe or a device would be waited for, or read, for ever.
        return read_text(path, LARGEST).map_err(|error| Error::usage(error.to_string()));
    }
    decode_text(fs::read(path).map_err(unreadable)?).ok_or_else(|| {
        Error::usage(format!("{shown} is no text"))
            .advising("`kino show FILE` prints the graph stored in a video or image")
    })
}

impl GraphSource {
    /// A text that comes from no file; its paths are relative to `folder`.
    pub(crate) fn of_text(name: &str, stem: &str, text: String, folder: &Path) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let of = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        GraphSource {
            name: name.to_owned(),
            text,
            stem: stem.to_owned(),
            folder: folder.to_owned(),
            id: GraphId(format!("text {number}").into()),
            policy: FilePolicy::default(),
            is_built_in: false,
            // A text that is given again under its name in its folder is the same graph, edited.
            owner: format!("text {name} in {}", path_to_text(&of)),
            file: None,
            used: Mutex::default(),
        }
    }

    /// What the files that it writes are known by, in this process and in others.
    pub(crate) fn owner(&self) -> &str {
        &self.owner
    }

    /// The files that it was read from so far, those that are missing included.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.file.iter().cloned().chain(self.used()).collect()
    }

    /// The same without its own.
    pub(crate) fn used(&self) -> Vec<PathBuf> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl GraphSource {
    /// The text of a graph that this one uses, if it may read that.
    fn read_allowed(&self, path: &Path) -> Result<String, kino_node::Error> {
        self.policy.check_read(path)?;
        let failed = |error: kino_world::Error| kino_node::Error::failed(error.to_string());
        let mut file = InputFile::open(path).map_err(failed)?;
        self.policy.check_opened(path, &file.stamp())?;
        let bytes = file.read_at_most(LARGEST).map_err(failed)?;
        decode_text(bytes)
            .ok_or_else(|| kino_node::Error::failed(format!("{} is no text", path.display())))
    }
}

impl GraphLoader for GraphSource {
    /// Graphs that this one uses, relative to its folder; those of a built-in one are built in,
    /// too.
    fn read(&self, path: &str) -> Result<String, String> {
        if self.is_built_in {
            let path = path.trim_start_matches("./");
            let found = built_in(path.trim_end_matches(".ron")).map(|(_, text)| (*text).to_owned());
            let part = || {
                let (_, part) = GRAPH_FILES.iter().find(|(name, _)| *name == path)?;
                String::from_utf8(part.to_vec()).ok()
            };
            return found.or_else(part).ok_or_else(|| "there is no such built-in graph".to_owned());
        }
        let path = tidy(self.folder.join(path));
        self.used.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
        if self.policy.narrows_reading() {
            return self.read_allowed(&path).map_err(|error| match error.hint() {
                Some(hint) => format!("{error}; {hint}"),
                None => error.to_string(),
            });
        }
        match fs::metadata(&path) {
            // Devices and pipes have no end, and whatever is too large is no graph either.
            Ok(about) if about.len() > LARGEST || (!about.is_file() && !about.is_dir()) => {
                read_text(&path, LARGEST).map_err(|error| error.to_string())
            }
            _ => {
                let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()));
                decode_text(bytes?).ok_or_else(|| format!("{} is no text", path.display()))
            }
        }
    }
}
