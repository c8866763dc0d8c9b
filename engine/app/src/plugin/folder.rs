//! A plugin's folder as its author works in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kino_host::{AllowedBuild, BuildKind, FoundPlugin, Limits, Manifest, Module};
use kino_session::OnNotice;

use crate::failure::Failure;
use crate::screen::Screen;
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

    /// The builds to be loaded: those that stand there and were asked for, but native code only if
    /// the user has accepted it on this machine, or says so (`native`) now.
    ///
    /// # Errors
    /// When there is none, or only native code that nobody accepted; `command` is what was said.
    pub(crate) fn accepted_builds(
        &self,
        (native, wasm): (bool, bool),
        command: &str,
        screen: &Screen,
    ) -> Result<Vec<BuildKind>, Failure> {
        let mut builds = self.builds();
        builds.retain(|kind| match kind {
            BuildKind::Native => !wasm || native,
            BuildKind::Wasm => !native || wasm,
        });
        let (id, shown) = (&self.manifest.id, self.folder.display());
        if builds.is_empty() {
            return Err(Failure::usage(format!("the plugin `{id}` is not built"))
                .hint(format!("`kino plugin build {shown}`")));
        }
        if native || !builds.contains(&BuildKind::Native) || self.is_accepted()? {
            return Ok(builds);
        }
        builds.retain(|kind| *kind != BuildKind::Native);
        if builds.is_empty() {
            let what = format!("the plugin `{id}` is native code, which can do whatever you can");
            return Err(Failure::usage(what).hint(format!(
                "you have not accepted it here; if you trust its author, `kino plugin {command} \
                 {shown} --native`"
            )));
        }
        if !screen.quiet && !screen.json {
            let left_out =
                "the native build is left out: you have not accepted it here (`--native` takes it)";
            screen.tell(&format!("{}\n", screen.err.dim(left_out)));
        }
        Ok(builds)
    }

    /// Whether the user has accepted the native build that stands there.
    fn is_accepted(&self) -> Result<bool, Failure> {
        let consent = kino_session::plugins::consent(&setup::settings()?)?;
        let library = self.manifest.artifact(&self.folder, BuildKind::Native);
        let sha256 = library.as_deref().map(kino_host::sha256).transpose()?.unwrap_or_default();
        Ok(consent.covers_library(&self.folder, &sha256))
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
            beyond: Vec::new(),
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
