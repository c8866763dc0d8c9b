//! What lies in folders of models, by looking through them, and which of it a name meant that leads
//! to nothing. No file is opened, and what is looked at is bounded.

use std::fs;
use std::path::{Path, PathBuf};

use kino_port::{nearest, path_to_text};

/// What ComfyUI calls the folders in which the files lie that nodes read.
pub const MODEL_KINDS: [&str; 10] = [
    "diffusion_models",
    "unet",
    "checkpoints",
    "vae",
    "text_encoders",
    "clip",
    "clip_vision",
    "loras",
    "upscale_models",
    "LLM",
];

/// How deep folders of models are looked through.
const DEPTH: usize = 4;
/// Entries of folders that are looked at for a name that leads to nothing, at most.
const MOST: usize = 5_000;

/// Whether a name is one of a file of weights that is read.
pub fn is_weights(path: &Path) -> bool {
    let is = |ending: &str| path.extension().is_some_and(|end| end.eq_ignore_ascii_case(ending));
    is("safetensors") || is("gguf")
}

/// The models in the diffusers layout and the files of weights below a folder, sorted; `left` is
/// how many entries may be looked at, and then how many are left of these.
pub fn models_below(folder: &Path, left: &mut usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk((folder, &mut Vec::new()), DEPTH, left, &mut found);
    found.sort();
    found
}

/// The same of a folder that lies within `above`. A link to one of those leads nowhere else.
fn walk(
    (folder, above): (&Path, &mut Vec<PathBuf>),
    depth: usize,
    left: &mut usize,
    found: &mut Vec<PathBuf>,
) {
    if is_model(folder) {
        found.push(folder.to_owned());
        return;
    }
    let real = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    if above.contains(&real) {
        return;
    }
    above.push(real);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if *left == 0 {
            break;
        }
        *left -= 1;
        let path = entry.path();
        if path.is_dir() && depth > 0 {
            walk((&path, above), depth - 1, left, found);
        } else if is_weights(&path) && path.is_file() {
            found.push(path);
        }
    }
    above.pop();
}

fn is_model(folder: &Path) -> bool {
    folder.join("model_index.json").is_file()
}

/// The kind whose folder, inside a folder of models, a path in there begins with, and its path in
/// that one.
fn kind_of(inside: &Path) -> Option<(&str, &Path)> {
    let mut parts = inside.components();
    let kind = parts.next()?.as_os_str().to_str()?;
    let rest = parts.as_path();
    (MODEL_KINDS.contains(&kind) && !rest.as_os_str().is_empty()).then_some((kind, rest))
}

/// What a graph writes for a file in a folder of models: in one of a kind, its path in there.
pub fn name_in(root: &Path, path: &Path, is_kind: bool) -> String {
    let inside = path.strip_prefix(root).unwrap_or(path);
    let of_kind = kind_of(inside).filter(|_| !is_kind && path.is_file());
    path_to_text(of_kind.map_or(inside, |(_, rest)| rest)).into_owned()
}

/// What was looked for and is not there.
pub(crate) struct Missing<'a> {
    /// As the graph writes it.
    pub(crate) path: &'a str,
    /// Where it would lie beside the graph.
    pub(crate) own: &'a Path,
    /// The kinds in whose folders it is looked for.
    pub(crate) kinds: &'a [&'a str],
    /// Whether a model in a folder of its own would do, too.
    pub(crate) is_model: bool,
}

impl Missing<'_> {
    /// The question whether something else was meant that lies beside the graph or in one of
    /// `folders` (with their kind, where they are of one) and may be read; empty where nothing is
    /// alike. It has the same name in another folder or case, or with another ending, or one that
    /// is nearly the same.
    pub(crate) fn did_you_mean<'f>(
        &self,
        folders: impl Iterator<Item = (&'f Path, Option<&'f str>)>,
        may_read: impl Fn(&Path) -> bool,
    ) -> String {
        let mut left = MOST;
        let mut found = self.beside(&mut left);
        for (folder, kind) in folders {
            let below = models_below(folder, &mut left).into_iter();
            found.extend(below.map(|path| (self.name_of(folder, kind, &path), path)));
        }
        found.retain(|(_, path)| (self.is_model || path.is_file()) && may_read(path));
        let wanted = last_of(self.path);
        let names: Vec<String> = found.iter().map(|(name, _)| last_of(name)).collect();
        // Endings that are alike say nothing.
        let stems: Vec<&str> = names.iter().map(|name| stem_of(name)).collect();
        let stem = stem_of(&wanted);
        let meant = names.iter().position(|name| *name == wanted);
        let meant = meant.or_else(|| stems.iter().position(|own| *own == stem)).or_else(|| {
            let near = nearest(stem, stems.iter().copied())?;
            stems.iter().position(|own| *own == near)
        });
        meant.map_or(String::new(), |at| format!("did you mean `{}`? ", found[at].0))
    }

    /// What lies in the folder in which it would lie itself, with the name that a graph writes.
    fn beside(&self, left: &mut usize) -> Vec<(String, PathBuf)> {
        let Some(folder) = self.own.parent() else { return Vec::new() };
        let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(*left);
        let paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        *left -= paths.len();
        let is_one = |path: &PathBuf| is_weights(path) || is_model(path);
        let name = |path: &Path| Some(Path::new(self.path).with_file_name(path.file_name()?));
        let named = |path: PathBuf| Some((path_to_text(&name(&path)?).into_owned(), path));
        paths.into_iter().filter(is_one).filter_map(named).collect()
    }

    /// What the graph would write for something in a folder of models, or in one of a kind.
    fn name_of(&self, folder: &Path, kind: Option<&str>, path: &Path) -> String {
        let inside = path.strip_prefix(folder).unwrap_or(path);
        let is_looked_for = |kind: &str| self.kinds.contains(&kind);
        let written = match kind {
            Some(kind) if is_looked_for(kind) => inside,
            // In there it is not looked for.
            Some(_) => path,
            None => match kind_of(inside).filter(|(kind, _)| is_looked_for(kind)) {
                Some((_, rest)) if path.is_file() => rest,
                _ => inside,
            },
        };
        path_to_text(written).into_owned()
    }
}

/// The last part of a path, in small letters.
fn last_of(path: &str) -> String {
    path.rsplit(['/', '\\']).next().unwrap_or(path).to_lowercase()
}

/// A name without its ending.
fn stem_of(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}
