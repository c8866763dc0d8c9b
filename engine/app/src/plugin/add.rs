//! `kino plugin add`: copies a plugin to the user's own, whole or not at all, and pins it.

use std::fs;
use std::path::Path;

use kino_host::{BuildKind, Found, Lock, MANIFEST};

use super::args::Add;
use super::folder::Project;
use super::trust::tell;
use crate::failure::{Exit, Failure};
use crate::palette::{failure, user_folder};
use crate::screen::Screen;

/// Installs a plugin for this user.
///
/// # Errors
/// When it is none, is not built, or cannot be copied.
pub(crate) fn run(args: &Add, screen: &Screen) -> Result<Exit, Failure> {
    let fault = |error| failure(&error);
    let project = Project::open(&args.folder).map_err(fault)?;
    let user = user_folder();
    let world = |error: std::io::Error| Failure::world(format!("{}: {error}", user.display()));
    fs::create_dir_all(&user).map_err(world)?;
    // Whatever is wrong shows before anything is replaced.
    let acceptance = args.accept.acceptance(false);
    kino_host::accept(&project.found(), &acceptance).map_err(fault)?;
    let fresh = tempfile::Builder::new().prefix(".new-").tempdir_in(&user).map_err(world)?;
    copy(&project, fresh.path()).map_err(world)?;
    let target = user.join(&project.manifest.id);
    if target.exists() {
        let old = tempfile::Builder::new().prefix(".old-").tempdir_in(&user).map_err(world)?;
        fs::rename(&target, old.path().join("plugin")).map_err(world)?;
    }
    fs::rename(fresh.keep(), &target).map_err(world)?;
    let found = Found { folder: target, manifest: project.manifest.clone(), lock: user.clone() };
    let entry = kino_host::accept(&found, &acceptance).map_err(fault)?;
    let mut lock = Lock::read(&user).map_err(fault)?;
    lock.plugins.insert(project.manifest.id.clone(), entry.clone());
    lock.write(&user).map_err(fault)?;
    tell(&found, &entry, screen)?;
    Ok(Exit::Good)
}

/// Copies the manifest and what it names.
fn copy(project: &Project, to: &Path) -> std::io::Result<()> {
    let (folder, manifest) = (&project.folder, &project.manifest);
    fs::copy(folder.join(MANIFEST), to.join(MANIFEST))?;
    for kind in [BuildKind::Wasm, BuildKind::Native] {
        let path = manifest.artifact(folder, kind).filter(|path| path.is_file());
        if let Some((path, name)) = path.as_ref().and_then(|path| Some((path, path.file_name()?))) {
            fs::copy(path, to.join(name))?;
        }
    }
    Ok(())
}
