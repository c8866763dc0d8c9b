//! `kino watch --build`: builds plugins that are in dev mode when their sources change. The watch
//! itself sees the new build as it sees any other.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Instant, SystemTime};

use kino_host::{BuildKind, FoundPlugin, LOCK_FILE, LockFile, MANIFEST_FILE, PluginIndex};
use kino_world::FileWatch;

use super::view::View;
use crate::failure::Failure;
use crate::plugin::build::build;
use crate::plugin::cargo::Says;
use crate::plugin::folder::Project;
use crate::screen::Screen;
use crate::setup;

/// Folders that hold no sources.
const NO_SOURCES: [&str; 4] = ["target", "out", "__pycache__", "node_modules"];
/// So many files of a folder are looked at, and so many folders deep.
const MAX_FILES: usize = 10_000;
const MAX_DEPTH: usize = 8;

/// A plugin whose author works on it.
struct Author {
    project: Project,
    kind: BuildKind,
}

/// Builds what is not up to date, and goes on to build what changes until the process ends.
///
/// # Errors
/// When a lock file does not read, or files cannot be watched. What does not build is told.
pub(crate) fn start(graph: &Path, view: &Arc<View>, screen: &Screen) -> Result<(), Failure> {
    let mut authors = authors(graph.parent().unwrap_or(Path::new("")))?;
    if authors.is_empty() {
        return Err(Failure::usage("no plugin beside the graph is in dev mode, so none is built")
            .hint(
                "`kino plugin trust ID --dev` begins dev mode; `kino plugin new` does so itself",
            ));
    }
    for author in &mut authors {
        if author.is_outdated() {
            author.build(view, screen);
        }
    }
    let (changed, inbox) = mpsc::channel();
    let world = |error: kino_world::Error| Failure::world(error.to_string());
    let files = FileWatch::start(move |changes| drop(changed.send(changes))).map_err(world)?;
    let (view, screen) = (Arc::clone(view), *screen);
    let follow = move || {
        loop {
            files.set(authors.iter().flat_map(Author::sources));
            let Ok(mut changes) = inbox.recv() else { return };
            changes.extend(inbox.try_iter().flatten());
            for author in &mut authors {
                let own = author.sources();
                if changes.iter().any(|one| own.iter().any(|path| one.path.starts_with(path))) {
                    author.build(&view, &screen);
                }
            }
        }
    };
    let thread = std::thread::Builder::new().name("build".into()).spawn(follow);
    thread.map(drop).map_err(|error| Failure::world(error.to_string()))
}

/// The plugins beside a graph that are in dev mode and have something to be built by. What a lock
/// file alone says of dev mode came from elsewhere: building would run its author's code.
fn authors(folder: &Path) -> Result<Vec<Author>, Failure> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let index = PluginIndex::scan(folder, None)?;
    let lock = LockFile::read(folder)?;
    let consent = kino_session::plugins::consent(&setup::settings()?)?;
    let author = |found: &FoundPlugin| {
        let entry = lock.plugins.get(&found.manifest.id)?;
        (entry.dev.is_some() && consent.covers_code(&found.folder, entry)).then_some(())?;
        let has = |name: &str| found.folder.join(name).is_file();
        (has("Cargo.toml") || has("Makefile")).then_some(())?;
        let project = Project { folder: found.folder.clone(), manifest: found.manifest.clone() };
        Some(Author { project, kind: entry.kind })
    };
    Ok(index.found.iter().filter_map(author).collect())
}

impl Author {
    /// The files and folders that a build is made of: all of the plugin's folder but what is built
    /// there, and graphs.
    fn sources(&self) -> Vec<PathBuf> {
        let (folder, manifest) = (&self.project.folder, &self.project.manifest);
        let built: Vec<_> = [BuildKind::Wasm, BuildKind::Native]
            .into_iter()
            .filter_map(|kind| manifest.artifact(folder, kind))
            .collect();
        let is_source = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_other = name.starts_with('.')
                || NO_SOURCES.contains(&&*name)
                || [LOCK_FILE, MANIFEST_FILE, "Cargo.lock", "contract.zig"].contains(&&*name)
                || name.ends_with(".ron");
            !is_other && !built.contains(path)
        };
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(is_source).collect()
    }

    /// Whether the artifact is not there, or older than a source.
    fn is_outdated(&self) -> bool {
        let time = |path: &Path| path.metadata().and_then(|found| found.modified()).ok();
        let path = self.project.manifest.artifact(&self.project.folder, self.kind);
        let Some(built) = path.and_then(|path| time(&path)) else { return true };
        self.sources()
            .iter()
            .filter_map(|path| newest(path, MAX_DEPTH, &mut 0))
            .any(|at| at > built)
    }

    fn build(&mut self, view: &View, screen: &Screen) {
        let id = self.project.manifest.id.clone();
        view.building(&id);
        let (begun, mut said) = (Instant::now(), String::new());
        let built = Project::open(&self.project.folder).and_then(|project| {
            self.project = project;
            build(&mut self.project, self.kind, screen, &mut Says::Into(&mut said))
        });
        view.built(&id, begun.elapsed(), &built.map(|built| built.manifest), &said);
    }
}

/// When the newest file in a folder was written.
fn newest(path: &Path, depth: usize, seen: &mut usize) -> Option<SystemTime> {
    *seen += 1;
    let found = path.symlink_metadata().ok()?;
    if !found.is_dir() || depth == 0 || *seen > MAX_FILES {
        return found.modified().ok();
    }
    let entries = std::fs::read_dir(path).ok()?.flatten();
    entries.filter_map(|entry| newest(&entry.path(), depth - 1, seen)).max()
}
