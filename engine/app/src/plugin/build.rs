//! `kino plugin build`: builds what a plugin's manifest names, and puts it into the plugin's
//! folder, whole.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kino_host::BuildKind;

use super::args::Build;
use super::component;
use super::folder::Project;
use crate::failure::{Exit, Failure};
use crate::json::{Value, json};
use crate::render::quantity::bytes;
use crate::screen::Screen;
use crate::{files, setup};

/// Builds a plugin.
///
/// # Errors
/// When a toolchain is missing or the plugin does not compile; the compiler says why.
pub(crate) fn run(args: &Build, screen: &Screen) -> Result<Exit, Failure> {
    let project = Project::open(&args.folder)?;
    let both = args.native == args.wasm;
    let mut built = Vec::new();
    for (kind, asked) in [(BuildKind::Native, args.native), (BuildKind::Wasm, args.wasm)] {
        let Some(target) = project.manifest.artifact(&project.folder, kind) else {
            if asked && !both {
                let what = format!("plugin.ron names no {kind} artifact");
                return Err(Failure::usage(what).hint(format!("add `{kind}: \"…\"` to it")));
            }
            continue;
        };
        if !(asked || both) {
            continue;
        }
        let made = match kind {
            _ if !project.folder.join("Cargo.toml").is_file() => make(&project, &target)?,
            BuildKind::Native => native(&project)?,
            BuildKind::Wasm => wasm(&project)?,
        };
        files::write(&target, &made)?;
        let sha256 = kino_host::sha256_of(&made);
        built.push((target, made.len() as u64, sha256));
        super::check::described(&args.folder, kind, screen)?;
    }
    if screen.json {
        let built = built
            .iter()
            .map(|(path, size, sha256)| json!({ "file": path, "bytes": size, "sha256": sha256 }));
        screen.print_json(&json!({ "built": built.collect::<Vec<_>>() }))?;
    } else {
        for (path, size, sha256) in &built {
            screen.print(&format!(
                "{}  {}  sha256 {}\n",
                path.display(),
                bytes(*size),
                &sha256[..16]
            ))?;
        }
    }
    Ok(Exit::Good)
}

fn native(project: &Project) -> Result<Vec<u8>, Failure> {
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release"]);
    read(&compile(cargo, &project.folder, "native", "", std::env::consts::DLL_SUFFIX)?)
}

fn wasm(project: &Project) -> Result<Vec<u8>, Failure> {
    let toolchain = component::find()?;
    // 128-bit vectors: whatever runs components has them.
    let flags = "-Ctarget-feature=+simd128";
    let module = compile(toolchain.cargo(), &project.folder, "wasm", flags, ".wasm")?;
    toolchain.finish(&read(&module)?)
}

/// What `make` builds, which puts the artifact into the folder itself.
fn make(project: &Project, target: &Path) -> Result<Vec<u8>, Failure> {
    let folder = &project.folder;
    if !folder.join("Makefile").is_file() {
        let what = format!("{} holds no Cargo.toml and no Makefile", folder.display());
        return Err(Failure::usage(what)
            .hint("`kino plugin new NAME --python`, `--js`, `--c`, `--cpp`, `--zig` write one"));
    }
    let status = Command::new("make").current_dir(folder).stdout(Stdio::null()).status();
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
    read(target)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    kino_host::read_artifact(path).map_err(|error| Failure::world(error.to_string()))
}

/// Runs cargo and finds the library that it built.
fn compile(
    mut cargo: Command,
    folder: &Path,
    name: &str,
    flags: &str,
    ending: &str,
) -> Result<PathBuf, Failure> {
    let data = setup::settings()?.data_folder();
    let flags = encoded(folder, &neighbours(&cargo, folder), flags, data);
    let out = cargo
        .current_dir(folder)
        .args(["--lib", "--message-format=json-render-diagnostics", "--target-dir"])
        .arg(Path::new("target").join(name))
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| {
            Failure::usage(format!("cargo cannot be run: {error}"))
                .hint("install Rust: https://rustup.rs")
        })?;
    if !out.status.success() {
        return Err(Failure::usage("the plugin does not compile"));
    }
    let text = String::from_utf8_lossy(&out.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let library = |message: Value| {
        let is_library =
            message["target"]["crate_types"].as_array()?.iter().any(|ty| ty == "cdylib");
        let files = message["filenames"].as_array().filter(|_| is_library)?;
        let file = files.iter().filter_map(Value::as_str).find(|file| file.ends_with(ending))?;
        Some(PathBuf::from(file))
    };
    messages.rev().find_map(library).ok_or_else(|| {
        Failure::usage("cargo built no library to load")
            .hint("Cargo.toml needs `[lib] crate-type = [\"cdylib\", \"rlib\"]`")
    })
}

/// The folders of packages on this machine that a plugin depends on.
fn neighbours(cargo: &Command, folder: &Path) -> Vec<PathBuf> {
    let mut metadata = Command::new(cargo.get_program());
    let set = |(name, value): (&OsStr, Option<&OsStr>)| Some((name.to_owned(), value?.to_owned()));
    metadata.args(["metadata", "--format-version=1"]).current_dir(folder);
    metadata.envs(cargo.get_envs().filter_map(set)).stderr(Stdio::null());
    // What is wrong with the plugin, cargo says when it builds.
    let Ok(out) = metadata.output() else { return Vec::new() };
    let Ok(known) = serde_json::from_slice::<Value>(&out.stdout) else { return Vec::new() };
    let packages = known["packages"].as_array().into_iter().flatten();
    let local = packages.filter(|package| package["source"].is_null());
    let manifests = local.filter_map(|package| package["manifest_path"].as_str());
    manifests.filter_map(|path| Some(Path::new(path).parent()?.to_owned())).collect()
}

/// Flags that keep paths of this machine out of what is built.
fn encoded(folder: &Path, neighbours: &[PathBuf], flags: &str, data: PathBuf) -> String {
    let mut all: Vec<String> = flags.split_whitespace().map(str::to_owned).collect();
    all.push("-Cstrip=symbols".to_owned());
    let home = std::env::home_dir();
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo = cargo.or_else(|| home.as_ref().map(|home| home.join(".cargo")));
    // Later ones win, so what lies within another stands behind it.
    let sources = cargo.as_ref().map(|cargo| cargo.join("registry/src"));
    let sources = sources.and_then(|sources| std::fs::read_dir(sources).ok());
    let sources = sources.into_iter().flatten().flatten().map(|entry| Some(entry.path()));
    let named = |folder: &PathBuf| {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        (Some(folder.clone()), name.unwrap_or_default())
    };
    let places = [
        (home, "~"),
        (Some(PathBuf::from("/usr/lib/rustlib/src")), "rust"),
        (Some(PathBuf::from("/usr/src")), "rust"),
        (cargo, "cargo"),
        (Some(data), "kino"),
    ];
    let places = places.into_iter().chain(sources.map(|place| (place, "crates")));
    let places = places.map(|(place, name)| (place, name.to_owned()));
    let own = (folder.canonicalize().ok(), ".".to_owned());
    for (place, name) in places.chain(neighbours.iter().map(named)).chain([own]) {
        if let Some(place) = place {
            all.push(format!("--remap-path-prefix={}={name}", place.display()));
        }
    }
    all.join("\u{1f}")
}
