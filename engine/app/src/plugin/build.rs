//! `kino plugin build`: builds what a plugin's manifest names, and puts it into the plugin's
//! folder, whole, with a manifest that says what the build says.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kino_host::BuildKind;

use super::args::Build;
use super::cargo::{Cargo, Library, Says};
use super::check::Described;
use super::folder::Project;
use super::manifest_text;
use crate::failure::{Exit, Failure};
use crate::files;
use crate::json::json;
use crate::render::diagnostics;
use crate::render::quantity::bytes;
use crate::screen::Screen;

/// What was built.
pub(crate) struct Built {
    /// The artifact.
    pub(crate) path: PathBuf,
    size: u64,
    sha256: String,
    /// What has changed in plugin.ron.
    pub(crate) manifest: Vec<String>,
}

/// Builds a plugin.
///
/// # Errors
/// When a toolchain is missing or the plugin does not compile; the compiler says why.
pub(crate) fn run(args: &Build, screen: &Screen) -> Result<Exit, Failure> {
    let mut project = Project::open(&args.folder)?;
    let both = args.native == args.wasm;
    let mut built = Vec::new();
    for (kind, asked) in [(BuildKind::Native, args.native), (BuildKind::Wasm, args.wasm)] {
        if project.manifest.artifact(&project.folder, kind).is_none() {
            if asked && !both {
                let what = format!("plugin.ron names no {kind} artifact");
                return Err(Failure::usage(what).hint(format!("add `{kind}: \"…\"` to it")));
            }
            continue;
        }
        if !(asked || both) {
            continue;
        }
        if !screen.json {
            built.push(build(&mut project, kind, screen, &mut Says::ToTerminal)?);
            continue;
        }
        let mut said = String::new();
        match build(&mut project, kind, screen, &mut Says::Into(&mut said)) {
            Ok(one) => built.push(one),
            Err(failure) => {
                let mut value = diagnostics::as_json(&failure);
                value["compiler"] = said.into();
                screen.print_json(&value)?;
                return Ok(Exit::BadGraph);
            }
        }
    }
    if screen.json {
        let built = built.iter().map(|one| {
            json!({ "file": one.path, "bytes": one.size, "sha256": one.sha256,
                "manifest": one.manifest })
        });
        let nodes = &project.manifest.nodes;
        screen.print_json(&json!({ "built": built.collect::<Vec<_>>(), "nodes": nodes }))?;
        return Ok(Exit::Good);
    }
    for Built { path, size, sha256, manifest } in &built {
        let (path, size) = (path.display(), bytes(*size));
        screen.print(&format!("{path}  {size}  sha256 {}\n", &sha256[..16]))?;
        for changed in manifest {
            screen.print(&format!("plugin.ron: {changed}\n"))?;
        }
    }
    Ok(Exit::Good)
}

/// Builds a plugin's artifact of a kind, which its manifest names. It stands in the folder once it
/// has described itself, and the manifest says the same.
///
/// # Errors
/// As [`run`].
pub(crate) fn build(
    project: &mut Project,
    kind: BuildKind,
    screen: &Screen,
    says: &mut Says<'_>,
) -> Result<Built, Failure> {
    let folder = project.folder.clone();
    let Some(target) = project.manifest.artifact(&folder, kind) else {
        return Err(Failure::usage(format!("plugin.ron names no {kind} artifact")));
    };
    let is_rust = folder.join("Cargo.toml").is_file();
    let made = match kind {
        _ if !is_rust => Library { bytes: make(&folder, &target, says)?, version: None },
        BuildKind::Native => Cargo::prepare(&folder)?.native(&folder, says)?,
        BuildKind::Wasm => Cargo::prepare(&folder)?.component(&folder, says)?,
    };
    let world = |error: std::io::Error| Failure::world(format!("{}: {error}", folder.display()));
    let aside = tempfile::tempdir().map_err(world)?;
    let fresh = aside.path().join(target.file_name().unwrap_or_default());
    std::fs::write(&fresh, &made.bytes).map_err(world)?;
    let Described { nodes, .. } = super::check::described(&folder, kind, Some(&fresh), screen)?;
    let manifest = manifest_text::update(&folder, &nodes, made.version.as_deref())?;
    if !manifest.is_empty() {
        *project = Project::open(&folder)?;
    }
    if is_rust {
        files::write(&target, &made.bytes)?;
    }
    let sha256 = kino_host::sha256_of(&made.bytes);
    Ok(Built { path: target, size: made.bytes.len() as u64, sha256, manifest })
}

/// What `make` builds, which puts the artifact into the folder itself.
fn make(folder: &Path, target: &Path, says: &mut Says<'_>) -> Result<Vec<u8>, Failure> {
    if !folder.join("Makefile").is_file() {
        let what = format!("{} holds no Cargo.toml and no Makefile", folder.display());
        return Err(Failure::usage(what)
            .hint("`kino plugin new NAME --python`, `--js`, `--c`, `--cpp`, `--zig` write one"));
    }
    let mut make = Command::new("make");
    make.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
    let status = match says {
        Says::ToTerminal => make.status(),
        Says::Into(text) => make.stderr(Stdio::piped()).output().map(|out| {
            text.push_str(&String::from_utf8_lossy(&out.stderr));
            out.status
        }),
    };
    let failed = |what: String, hint: &str| Err(Failure::usage(what).hint(hint));
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => {
            return failed(format!("make did not succeed: {status}"), "what it said stands above");
        }
        Err(error) => {
            return failed(format!("make cannot be run: {error}"), "on Debian: `apt install make`");
        }
    }
    if !target.is_file() {
        return failed(
            format!("make succeeded, but left no {}", target.display()),
            "plugin.ron names the artifact, and the first goal of the Makefile makes it; a native \
             library `x` is libx.so, x.dll or libx.dylib",
        );
    }
    Ok(kino_host::read_artifact(target)?)
}
