//! Cargo as it builds plugins: where it finds the SDK, and the one folder that all plugins of a
//! user are built in, so that what they share is compiled once.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kino_session::Settings;

use super::{component, sdk};
use crate::failure::Failure;
use crate::json::{Value, json};
use crate::{files, setup};

/// The registry that a plugin's Cargo.toml names for the SDK. There is none of this name: cargo is
/// told where the SDK lies, and says this name itself where it was not.
pub(crate) const REGISTRY: &str = "run-kino-plugin-build-first";

/// The dependency on the SDK, as a plugin's Cargo.toml has it: whichever SDK kino brings.
pub(crate) fn sdk_dependency() -> String {
    format!("{{ version = \"*\", registry = \"{REGISTRY}\" }}")
}

/// The file by which cargo finds the SDK when it is started in a plugin's folder.
const CONFIG: &str = ".cargo/config.toml";
const HEAD: &str = "# Written by `kino plugin`, for this machine alone: where cargo finds the SDK, \
                    and where it builds.\n";

/// How a plugin's crate is built.
pub(crate) struct Cargo {
    /// The folder that all plugins are built in.
    target: PathBuf,
    data: PathBuf,
    /// What cargo is told, as a file.
    config: PathBuf,
}

/// What cargo says of a plugin's crate before it builds it.
struct Package {
    /// What the library is called.
    library: String,
    version: String,
    /// The folders of other packages on this machine that it depends on.
    neighbours: Vec<PathBuf>,
}

/// A library that cargo has built, or a module for components.
pub(crate) struct Library {
    pub(crate) bytes: Vec<u8>,
    /// The version of the crate, where it is known.
    pub(crate) version: Option<String>,
}

/// What is built by all plugins of a user: in `CARGO_TARGET_DIR`, else in the user's cache.
pub(crate) fn target_folder(settings: &Settings) -> Result<PathBuf, Failure> {
    let given = std::env::var_os("CARGO_TARGET_DIR").filter(|given| !given.is_empty());
    let folder = given.map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| settings.cache_folder().join("plugin-builds"));
    std::path::absolute(&folder)
        .map_err(|error| Failure::world(format!("{}: {error}", folder.display())))
}

/// A text as TOML has it: the escapes of JSON are among those of its basic strings.
fn quoted(path: &Path) -> String {
    json!(path.display().to_string()).to_string()
}

/// What tells cargo where the SDK lies. `target` is where it builds.
fn config(sdk: &Path, nothing: &Path, target: Option<&Path>) -> String {
    let mut text = format!(
        "[registries.{REGISTRY}]\nindex = \"https://kino.invalid/sdk\"\n\n\
         [source.{REGISTRY}-index]\nregistry = \"https://kino.invalid/sdk\"\n\
         replace-with = \"kino-holds-no-other\"\n\n\
         [source.kino-holds-no-other]\ndirectory = {}\n\n\
         [patch.{REGISTRY}]\nkino-plugin = {{ path = {} }}\n",
        quoted(nothing),
        quoted(sdk)
    );
    if let Some(target) = target {
        text.push_str(&format!("\n[build]\ntarget-dir = {}\n", quoted(target)));
    }
    text
}

impl Cargo {
    /// Finds the SDK and where to build, and tells cargo both by a file of the plugin's folder that
    /// is no part of the plugin: there `cargo test` works, too.
    ///
    /// # Errors
    /// When the settings do not read, or nothing can be written.
    pub(crate) fn prepare(folder: &Path) -> Result<Self, Failure> {
        let settings = setup::settings()?;
        let (data, target) = (settings.data_folder(), target_folder(&settings)?);
        let sdk = sdk::folder(None)?;
        let nothing = data.join("sdk/none");
        let readme = nothing.join("README");
        if !readme.is_file() {
            files::write(&readme, b"Cargo finds no crate here: the SDK comes with kino.\n")?;
        }
        let told = data.join("sdk/cargo.toml");
        write_new(&told, &config(&sdk, &nothing, None))?;
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
        let path = folder.join(CONFIG);
        let is_ours = std::fs::read_to_string(&path).map_or(true, |text| text.starts_with(HEAD));
        if manifest.contains(REGISTRY) && is_ours {
            // Libraries of a crate-type that cargo names without a hash are not told apart in one
            // folder, by whoever starts cargo without us.
            let shared = (!manifest.contains("crate-type")).then_some(&*target);
            write_new(&path, &format!("{HEAD}{}", config(&sdk, &nothing, shared)))?;
        }
        Ok(Cargo { target, data, config: told })
    }

    /// Builds the native library.
    ///
    /// # Errors
    /// When cargo cannot be run, or the plugin does not compile.
    pub(crate) fn native(&self, folder: &Path, says: &mut Says<'_>) -> Result<Library, Failure> {
        let mut cargo = Command::new("cargo");
        cargo.args(["rustc", "--release"]);
        // With a target, what only runs while building is compiled once for both builds.
        if let Some(host) = host() {
            cargo.args(["--target", &host]);
        }
        self.build(cargo, folder, "", std::env::consts::DLL_SUFFIX, says)
    }

    /// Builds the component.
    ///
    /// # Errors
    /// As [`Cargo::native`], and when no toolchain for WebAssembly is there.
    pub(crate) fn component(&self, folder: &Path, says: &mut Says<'_>) -> Result<Library, Failure> {
        let toolchain = component::find()?;
        // 128-bit vectors: whatever runs components has them.
        let flags = "-Ctarget-feature=+simd128";
        let built = self.build(toolchain.cargo(), folder, flags, ".wasm", says)?;
        Ok(Library { bytes: toolchain.finish(&built.bytes)?, ..built })
    }

    /// Runs cargo and finds the library that it built.
    fn build(
        &self,
        mut cargo: Command,
        folder: &Path,
        flags: &str,
        ending: &str,
        says: &mut Says<'_>,
    ) -> Result<Library, Failure> {
        let package = self.package(&cargo, folder);
        let neighbours = package.as_ref().map_or(&[][..], |package| &package.neighbours);
        let world =
            |error: std::io::Error| Failure::world(format!("{}: {error}", self.target.display()));
        std::fs::create_dir_all(&self.target).map_err(world)?;
        let held = File::create(self.target.join(".kino-plugin-build.lock")).map_err(world)?;
        held.lock().map_err(world)?;
        if let Some(package) = &package {
            self.take_over(&package.library, folder).map_err(world)?;
        }
        cargo
            .current_dir(folder)
            .args(["--lib", "--crate-type=cdylib", "--message-format=json-render-diagnostics"])
            .arg("--target-dir")
            .arg(&self.target)
            .arg("--config")
            .arg(&self.config)
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags(neighbours, flags))
            .stdin(Stdio::null());
        // What is this plugin's alone is told to its own crate: with flags of its own, all that it
        // shares with others would be compiled again.
        if let Ok(own) = folder.canonicalize() {
            cargo.args(["--", &format!("--remap-path-prefix={}=.", own.display())]);
        }
        let out = match says {
            Says::ToTerminal => cargo.stderr(Stdio::inherit()).output(),
            Says::Into(_) => cargo.output(),
        };
        let out = out.map_err(|error| {
            Failure::usage(format!("cargo cannot be run: {error}"))
                .hint("install Rust: https://rustup.rs")
        })?;
        if !out.status.success() {
            if let Says::Into(text) = says {
                text.push_str(&String::from_utf8_lossy(&out.stderr));
            }
            return Err(does_not_compile(folder));
        }
        let text = String::from_utf8_lossy(&out.stdout);
        let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let library = |message: Value| {
            let kinds = message["target"]["crate_types"].as_array()?;
            let files = message["filenames"].as_array()?;
            kinds.iter().any(|kind| kind == "cdylib").then_some(())?;
            let file =
                files.iter().filter_map(Value::as_str).find(|file| file.ends_with(ending))?;
            Some(PathBuf::from(file))
        };
        let file = messages.rev().find_map(library).ok_or_else(|| {
            Failure::usage("cargo built no library to load")
                .hint("Cargo.toml and src/lib.rs are those of a library")
        })?;
        let bytes = kino_host::read_artifact(&file)?;
        Ok(Library { bytes, version: package.map(|package| package.version) })
    }

    /// Cargo calls the libraries of two crates of one name alike, and takes the one for the other's:
    /// what another folder's crate of this name left goes before this one's is built.
    fn take_over(&self, library: &str, folder: &Path) -> std::io::Result<()> {
        let owner = self.target.join(format!(".kino-plugin-{library}"));
        let own = kino_port::path_to_text(&folder.canonicalize()?).into_owned();
        if std::fs::read_to_string(&owner).is_ok_and(|known| known == own) {
            return Ok(());
        }
        let names = [
            kino_host::library_name(library),
            format!("lib{library}.so"),
            format!("{library}.wasm"),
        ];
        for triple in std::fs::read_dir(&self.target)?.flatten() {
            let release = triple.path().join("release");
            if !release.is_dir() {
                continue;
            }
            for name in &names {
                for left in [release.join("deps").join(name), release.join(name)] {
                    match std::fs::remove_file(&left) {
                        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                            return Err(error);
                        }
                        _ => {}
                    }
                }
            }
        }
        std::fs::write(owner, own)
    }

    fn package(&self, cargo: &Command, folder: &Path) -> Option<Package> {
        let mut metadata = Command::new(cargo.get_program());
        metadata.args(["metadata", "--format-version=1", "--config"]).arg(&self.config);
        metadata.current_dir(folder).stdin(Stdio::null()).stderr(Stdio::null());
        let set =
            |(name, value): (&OsStr, Option<&OsStr>)| Some((name.to_owned(), value?.to_owned()));
        metadata.envs(cargo.get_envs().filter_map(set));
        // What is wrong with the plugin, cargo says when it builds.
        let known: Value = serde_json::from_slice(&metadata.output().ok()?.stdout).ok()?;
        let members = known["workspace_members"].as_array()?;
        let local = known["packages"].as_array()?.iter().filter(|one| one["source"].is_null());
        let path =
            |one: &Value| Some(Path::new(one["manifest_path"].as_str()?).parent()?.to_owned());
        let own = folder.canonicalize().ok()?;
        let (mut neighbours, mut found) = (Vec::new(), None);
        for one in local {
            let Some(path) = path(one) else { continue };
            if path.canonicalize().is_ok_and(|path| path == own) {
                found = Some(one);
            } else if !members.contains(&one["id"]) {
                neighbours.push(path);
            }
        }
        let found = found?;
        let is_library = |target: &&Value| {
            let kinds = target["kind"].as_array();
            kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == "lib" || kind == "cdylib"))
        };
        let library = found["targets"].as_array()?.iter().find(is_library)?;
        Some(Package {
            library: library["name"].as_str()?.replace('-', "_"),
            version: found["version"].as_str()?.to_owned(),
            neighbours,
        })
    }

    /// Flags that keep paths of this machine out of what is built.
    fn flags(&self, neighbours: &[PathBuf], flags: &str) -> String {
        let mut all: Vec<String> = flags.split_whitespace().map(str::to_owned).collect();
        all.push("-Cstrip=symbols".to_owned());
        let home = std::env::home_dir();
        let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let cargo = cargo.or_else(|| home.as_ref().map(|home| home.join(".cargo")));
        // Later ones win, so what lies within another stands behind it.
        let sources = cargo.as_ref().map(|cargo| cargo.join("registry/src"));
        let sources = sources.and_then(|sources| std::fs::read_dir(sources).ok());
        let mut sources: Vec<_> =
            sources.into_iter().flatten().flatten().map(|entry| Some(entry.path())).collect();
        sources.sort();
        let named = |folder: &PathBuf| {
            let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
            (Some(folder.clone()), name.unwrap_or_default())
        };
        let places = [
            (home, "~"),
            (Some(PathBuf::from("/usr/lib/rustlib/src")), "rust"),
            (Some(PathBuf::from("/usr/src")), "rust"),
            (cargo, "cargo"),
            (Some(self.data.clone()), "kino"),
        ];
        let places = places.into_iter().chain(sources.into_iter().map(|place| (place, "crates")));
        let places = places.map(|(place, name)| (place, name.to_owned()));
        for (place, name) in places.chain(neighbours.iter().map(named)) {
            if let Some(place) = place {
                all.push(format!("--remap-path-prefix={}={name}", place.display()));
            }
        }
        all.join("\u{1f}")
    }
}

/// Where what a compiler says goes.
pub(crate) enum Says<'a> {
    /// To the error stream, as it comes.
    ToTerminal,
    /// Into a text, for who shows it.
    Into(&'a mut String),
}

/// The name of this machine as a target of the compiler.
fn host() -> Option<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let out = Command::new(rustc).arg("-vV").stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    text.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned)
}

/// Writes a file unless it stands there already: cargo looks at the times of what it reads.
fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    match std::fs::read_to_string(path) {
        Ok(known) if known == text => Ok(()),
        _ => files::write(path, text.as_bytes()),
    }
}

fn does_not_compile(folder: &Path) -> Failure {
    let failure = Failure::usage("the plugin does not compile");
    // Plugins of older templates name the SDK by its path on one machine.
    let text = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
    let line = text.lines().find(|line| line.trim_start().starts_with("kino-plugin"));
    let path = line.and_then(|line| line.split_once("path = \"")?.1.split('"').next());
    match path {
        Some(path) if !folder.join(path).join("Cargo.toml").is_file() => failure.hint(format!(
            "its Cargo.toml looks for the SDK in {path}, which is not there; write `kino-plugin = \
             {}` for the one that comes with kino",
            sdk_dependency()
        )),
        _ => failure.hint("what the compiler said stands above"),
    }
}
