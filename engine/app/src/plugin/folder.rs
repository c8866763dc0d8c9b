//! A plugin's folder as its author works in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kino_host::{AllowedBuild, BuildKind, FoundPlugin, Limits, Manifest, Module};
use kino_session::OnNotice;

use crate::failure::Failure;
use crate::setup;

/// A plugin's folder with its manifest.
pub(crate) struct Project {
    /// The folder.
    pub(crate) folder: PathBuf,
    /// What the plugin says of itself.
    pub(crate) manifest: Manifest,
}

impl Project {
    /// Reads the manifest of a folder.
    ///
    /// # Errors
    /// When there is none, or it does not read.
    pub(crate) fn open(folder: &Path) -> Result<Self, Failure> {
        if !folder.join(kino_host::MANIFEST_FILE).is_file() {
            let (shown, file) = (folder.display(), kino_host::MANIFEST_FILE);
            return Err(Failure::usage(format!("{shown} is no plugin: it holds no {file}"))
                .hint("`kino plugin new NAME` creates one"));
        }
        Ok(Project { folder: folder.to_owned(), manifest: Manifest::read(folder)? })
    }

    /// The builds that stand in the folder.
    pub(crate) fn builds(&self) -> Vec<BuildKind> {
        let stands = |kind: &BuildKind| {
            self.manifest.artifact(&self.folder, *kind).is_some_and(|path| path.is_file())
        };
        [BuildKind::Wasm, BuildKind::Native].into_iter().filter(stands).collect()
    }

    /// The plugin as one that was found.
    pub(crate) fn found(&self) -> FoundPlugin {
        let (folder, manifest) = (self.folder.clone(), self.manifest.clone());
        FoundPlugin { lock: folder.clone(), folder, manifest }
    }

    /// Loads a build. Whoever names the folder on the command line trusts it.
    ///
    /// # Errors
    /// When it is not there, or no plugin.
    pub(crate) fn load(
        &self,
        kind: BuildKind,
        notice: OnNotice,
    ) -> Result<Arc<dyn Module>, Failure> {
        let path = self.manifest.artifact(&self.folder, kind);
        let path = path.filter(|path| path.is_file()).ok_or_else(|| {
            Failure::usage(format!("the plugin `{}` has no {kind} build", self.manifest.id))
                .hint(format!("`kino plugin build {}` makes it", self.folder.display()))
        })?;
        let artifact = self.load_file(kind, path, notice)?;
        kino_session::plugins::verify_descriptor(&self.found(), &*artifact)?;
        Ok(artifact)
    }

    /// Loads a build that stands elsewhere, whatever it says of itself.
    ///
    /// # Errors
    /// When it is no plugin.
    pub(crate) fn load_file(
        &self,
        kind: BuildKind,
        path: PathBuf,
        notice: OnNotice,
    ) -> Result<Arc<dyn Module>, Failure> {
        let sha256 = kino_host::sha256(&path)?;
        let allowed = AllowedBuild {
            id: self.manifest.id.clone(),
            kind,
            path,
            sha256: Some(sha256.clone()),
            isolate: false,
            read: self.manifest.asks.read.clone(),
            limits: Limits::default(),
        };
        let (worker, user) = (setup::worker()?, setup::settings()?);
        let open = kino_session::plugins::open;
        Ok(open(&allowed, &sha256, Some(&worker), &user, Some(notice))?)
    }

    /// A file that the plugin asks to read, for inputs of type Path.
    pub(crate) fn sample_file(&self) -> String {
        let first = |asked: &String| {
            let path = self.folder.join(asked);
            if path.is_file() {
                return Some(asked.clone());
            }
            let mut names: Vec<_> = std::fs::read_dir(path).ok()?.flatten().collect();
            names.sort_by_key(std::fs::DirEntry::file_name);
            let file = names.into_iter().find(|entry| entry.path().is_file())?;
            Some(format!("{asked}/{}", file.file_name().to_string_lossy()))
        };
        self.manifest.asks.read.iter().find_map(first).unwrap_or_else(|| "missing".to_owned())
    }
}
