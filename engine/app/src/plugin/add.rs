//! `kino plugin add`: copies a plugin to the user's own, whole or not at all, and pins it.

use std::fs;
use std::path::{Path, PathBuf};

use kino_host::{
    AllowedBuild, BuildKind, FoundPlugin, LARGEST_ARTIFACT, Limits, LockFile, MANIFEST_FILE,
    Manifest, ResourceRequest,
};
use kino_session::plugins::{self, user_folder};
use tempfile::TempDir;

use super::args::Add;
use super::folder::Project;
use super::trust::{open, print_summary};
use crate::failure::{Exit, Failure};
use crate::screen::Screen;
use crate::setup;

/// Installs a plugin for this user.
///
/// # Errors
/// When it is none, is not built, or cannot be copied; then nothing has changed.
pub(crate) fn run(args: &Add, screen: &Screen) -> Result<Exit, Failure> {
    let settings = setup::settings()?;
    let user = user_folder(&settings);
    let world = |error: std::io::Error| Failure::world(format!("{}: {error}", user.display()));
    let read =
        |path: &Path, error: std::io::Error| Failure::world(format!("{}: {error}", path.display()));
    let given = &args.folder;
    let is_file = given.is_file() && given.file_name().is_some_and(|name| name != MANIFEST_FILE);
    // What is no plugin leaves nothing behind, and nobody who watches hears of it.
    let (manifest, project) = match is_file {
        true => (describe(given, args.accept.native, screen)?, None),
        false => {
            let folder = if given.is_file() { given.parent().unwrap_or(given) } else { given };
            let project = Project::open(folder)?;
            let found = FoundPlugin { lock: user.clone(), ..project.found() };
            let entry = kino_host::pin(&found, &args.accept.options(false))?;
            open(&found, &entry, screen)?;
            (project.manifest.clone(), Some((project, entry)))
        }
    };
    fs::create_dir_all(&user).map_err(world)?;
    let fresh = tempfile::Builder::new().prefix(".new-").tempdir_in(&user).map_err(world)?;
    let to = fresh.path();
    match &project {
        Some((project, _)) => copy(project, to).map_err(|error| read(given, error))?,
        None => {
            let artifact = manifest.artifact(to, manifest.preferred()).unwrap_or_default();
            copy_artifact(given, &artifact).map_err(|error| read(given, error))?;
            manifest.write(to)?;
        }
    }
    let target = user.join(&manifest.id);
    let mut found = FoundPlugin { folder: to.to_owned(), manifest, lock: user.clone() };
    let entry = match project {
        // What was opened is what is pinned: a copy of anything else is refused when it is loaded.
        Some((_, entry)) => entry,
        None => kino_host::pin(&found, &args.accept.options(false))?,
    };
    let id = found.manifest.id.clone();
    let insert = |lock: &mut LockFile| drop(lock.plugins.insert(id, entry.clone()));
    let pin = || Ok(LockFile::change(&user, insert)?);
    replace(&fresh, &target, &user, world, pin)?;
    found.folder = target;
    plugins::record_consent(&settings, &found, &user, &entry)?;
    print_summary(&found, &user, &entry, screen)?;
    Ok(Exit::Good)
}

/// Puts a finished folder in place of another, then does the rest; what stood there before comes
/// back if either fails.
fn replace(
    fresh: &TempDir,
    target: &Path,
    user: &Path,
    world: impl Fn(std::io::Error) -> Failure,
    rest: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let aside = tempfile::Builder::new().prefix(".old-").tempdir_in(user).map_err(&world)?;
    let old = aside.path().join("plugin");
    let had = target.exists();
    if had {
        fs::rename(target, &old).map_err(&world)?;
    }
    let placed = fs::rename(fresh.path(), target).map_err(&world);
    placed.and_then(|()| rest()).inspect_err(|_| {
        // Whatever of this fails leaves a plugin that its lock does not pin, which is refused.
        let _ = fs::remove_dir_all(target);
        if had {
            let _ = fs::rename(&old, target);
        }
    })
}

/// Copies the manifest and what it names.
fn copy(project: &Project, to: &Path) -> std::io::Result<()> {
    let (folder, manifest) = (&project.folder, &project.manifest);
    fs::copy(folder.join(MANIFEST_FILE), to.join(MANIFEST_FILE))?;
    for kind in [BuildKind::Wasm, BuildKind::Native] {
        let path = manifest.artifact(folder, kind).filter(|path| path.is_file());
        if let Some((path, name)) = path.as_ref().and_then(|path| Some((path, path.file_name()?))) {
            copy_artifact(path, &to.join(name))?;
        }
    }
    Ok(())
}

/// Copies a library or component, unless it is larger than any is that would be loaded.
fn copy_artifact(from: &Path, to: &Path) -> std::io::Result<()> {
    let length = fs::metadata(from)?.len();
    if length > LARGEST_ARTIFACT {
        let what = format!("it has {length} bytes, and no plugin has more than {LARGEST_ARTIFACT}");
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, what));
    }
    fs::copy(from, to).map(drop)
}

/// The manifest of a plugin that is one file: what the file says of itself.
fn describe(file: &Path, native: bool, screen: &Screen) -> Result<Manifest, Failure> {
    let shown = file.display();
    let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let kind = match file.extension().and_then(|end| end.to_str()) {
        Some("wasm") => BuildKind::Wasm,
        Some(end) if std::env::consts::DLL_EXTENSION == end => BuildKind::Native,
        _ => {
            let what = format!("{shown} is neither a plugin's folder nor a component");
            return Err(Failure::usage(what).hint("`kino plugin new NAME` creates a plugin"));
        }
    };
    if kind == BuildKind::Native && !native {
        let what = format!("{shown} is native code, which can do whatever you can");
        return Err(Failure::usage(what).hint("if you trust its author, add `--native`"));
    }
    let prefix = if kind == BuildKind::Native { std::env::consts::DLL_PREFIX } else { "" };
    let id = name.strip_prefix(prefix).unwrap_or(&name).replace('-', "_");
    let nodes = nodes_of(file, &id, kind, screen)?;
    let manifest = Manifest {
        version: nodes.first().map(|(_, version)| version.clone()).unwrap_or_default(),
        about: String::new(),
        nodes: nodes.into_iter().map(|(node, _)| node).collect(),
        native: (kind == BuildKind::Native).then(|| id.clone()),
        wasm: (kind == BuildKind::Wasm).then(|| format!("{id}.wasm")),
        asks: ResourceRequest::default(),
        id,
    };
    let text = manifest.text()?;
    Manifest::parse(&text, &PathBuf::from(format!("{shown}'s {MANIFEST_FILE}"))).map_err(|error| {
        Failure::from(error).hint("write a plugin.ron beside it, and add the folder")
    })
}

/// The nodes of an artifact with their versions, by its descriptor.
fn nodes_of(
    file: &Path,
    id: &str,
    kind: BuildKind,
    screen: &Screen,
) -> Result<Vec<(String, String)>, Failure> {
    let sha256 = kino_host::sha256(file)?;
    let allowed = AllowedBuild {
        id: id.to_owned(),
        kind,
        path: file.to_owned(),
        sha256: Some(sha256.clone()),
        isolate: false,
        read: Vec::new(),
        beyond: Vec::new(),
        limits: Limits::default(),
    };
    let (worker, user) = (setup::worker()?, setup::settings()?);
    let notice = setup::notice(screen, None, false);
    let artifact = plugins::open(&allowed, &sha256, Some(&worker), &user, Some(notice))?;
    let nodes = artifact.descriptor().nodes.iter();
    Ok(nodes
        .map(|node| (node.signature.name.to_string(), node.signature.version.to_string()))
        .collect())
}
