//! Whether a plugin that was found may be loaded, and with what.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kino_node::{open_regular, read_regular};
use kino_port::{path_of_text, path_to_text};
use sha2::{Digest, Sha256};

use crate::consent::{Consent, real};
use crate::error::{PluginError, Result};
use crate::grants::{Beyond, places_of};
use crate::index::{FoundPlugin, PLUGINS_FOLDER};
use crate::lock::{Grants, LockEntry, LockFile, RawLimits};
use crate::manifest::{BuildKind, memory_limit, readable};
use crate::module::Limits;

/// A build that may be loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct AllowedBuild {
    /// The plugin's id.
    pub id: String,
    /// How it is loaded.
    pub kind: BuildKind,
    /// The artifact.
    pub path: PathBuf,
    /// The sha256 that the artifact must have, in hexadecimal; none while its author works on it.
    pub sha256: Option<String>,
    /// Whether native code runs in a process of its own.
    pub isolate: bool,
    /// Files and folders that it may read, relative to the graph.
    pub read: Vec<String>,
    /// Places outside of the graph's folder to which these lead, and to which the user has agreed.
    pub beyond: Vec<PathBuf>,
    /// What it may use up in one call.
    pub limits: Limits,
}

/// What the user accepts of a plugin, beyond its asking.
#[derive(Clone, Debug, Default)]
pub struct TrustOptions {
    /// Load its native library; the user trusts it by name.
    pub native: bool,
    /// Run native code in a process of its own.
    pub isolate: bool,
    /// Trust every build of its folder.
    pub dev: bool,
    /// Files and folders that it may read beyond what it asks for.
    pub read: Vec<String>,
    /// Memory for one call.
    pub memory: Option<String>,
    /// Seconds for one call.
    pub seconds: Option<f64>,
}

/// The largest artifact that is loaded, in bytes.
pub const LARGEST_ARTIFACT: u64 = 1 << 30;

/// The bytes of a component or library.
///
/// # Errors
/// When it is no regular file, cannot be read, or is larger than any plugin.
pub fn read_artifact(path: &Path) -> Result<Vec<u8>> {
    read_regular(path, LARGEST_ARTIFACT).map_err(PluginError::file(path))
}

/// The sha256 of an artifact, in hexadecimal.
///
/// # Errors
/// When it cannot be read.
pub fn sha256(path: &Path) -> Result<String> {
    Ok(sha256_of(&read_artifact(path)?))
}

/// The sha256 of bytes, in hexadecimal.
pub fn sha256_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Decides on a plugin for graphs of the folder `graphs`, by the lock file that is in charge of it
/// and by what this user has agreed to.
///
/// # Errors
/// When it may not be loaded: what stands against it, and the command that would accept it.
pub fn allowed_build(
    found: &FoundPlugin,
    graphs: &Path,
    lock: &LockFile,
    consent: &Consent,
    locked: bool,
) -> Result<AllowedBuild> {
    let manifest = &found.manifest;
    let id = &manifest.id;
    let entry = lock.plugins.get(id);
    let kind = entry.map_or(manifest.preferred(), |entry| entry.kind);
    // Of a stranger's code the build that lies there is accepted, not every later one.
    let is_agreed = entry.is_some_and(|entry| consent.covers_code(&found.folder, entry));
    let command = command(found, kind, entry, locked || !is_agreed);
    let hint = || format!("look at {}, then `{command}` accepts it", found.folder.display());
    let refuse = |what: String| PluginError::refused(format!("the plugin `{id}` {what}"), hint());
    let Some(entry) = entry else {
        return Err(refuse("is not trusted: the lock file does not pin it".to_owned()));
    };
    if entry.dev.is_some() && locked {
        return Err(PluginError::refused(
            format!("the plugin `{id}` is trusted in dev mode, which --locked refuses"),
            format!("`{command}` pins the current build"),
        ));
    }
    if let Some(dev) = &entry.dev
        && real(&found.lock.join(path_of_text(dev))) != real(&found.folder)
    {
        return Err(refuse(format!("is trusted in dev mode in the folder {dev}, not in this one")));
    }
    if kind == BuildKind::Native && entry.trust != Some(BuildKind::Native) {
        return Err(refuse("is native code, which is not trusted by name".to_owned()));
    }
    if !consent.covers_code(&found.folder, entry) {
        let what = match (entry.kind, &entry.dev) {
            (BuildKind::Wasm, _) => "is in dev mode by its lock file",
            (BuildKind::Native, _) => "is native code, which the lock file trusts",
        };
        return Err(refuse(format!("{what}, but you have not accepted it here")));
    }
    if !consent.covers_isolation(id, graphs, entry) {
        return Err(refuse(
            "is to run in this process by its lock file; you have accepted it in a process of its \
             own"
            .to_owned(),
        ));
    }
    let path = artifact(found, kind)?;
    if entry.dev.is_none() {
        if entry.asks != manifest.asks {
            return Err(refuse("asks for something else than when it was accepted".to_owned()));
        }
        if entry.version != manifest.version {
            let (was, is) = (&entry.version, &manifest.version);
            return Err(refuse(format!("is version {is}; version {was} was accepted")));
        }
        let found = sha256(&path)?;
        if found != entry.sha256 {
            let what = format!(
                "the plugin `{id}` has changed: its {kind} build has another sha256 than the one that \
                 was accepted"
            );
            let hint = match locked {
                true => hint(),
                false => {
                    let dev = format!("`{command} --dev` accepts every build while you work on it");
                    format!("{}; {dev}", hint())
                }
            };
            return Err(PluginError::refused(what, hint));
        }
    }
    let mut read = entry.grants.read.clone();
    if entry.dev.is_some() {
        // In dev mode, what a plugin asks for changes with it.
        read.extend(
            manifest.asks.read.iter().filter(|asked| !entry.grants.read.contains(asked)).cloned(),
        );
    }
    let beyond = agreed_places(found, (graphs, &read), consent, &command)?;
    let limits = limits(&entry.limits)?;
    let usual = Limits::default();
    let is_more = limits.memory > usual.memory || limits.time > usual.time;
    if is_more && !consent.owns(found) && !consent.covers_limits(id, graphs, &limits) {
        let (memory, time) = (bytes_text(limits.memory), limits.time.as_secs_f64());
        return Err(refuse(format!(
            "may use {memory} and {time} s in one call by its lock file, more than the usual {} and \
             {} s, but you have not accepted that here",
            bytes_text(usual.memory),
            usual.time.as_secs_f64()
        )));
    }
    Ok(AllowedBuild {
        id: id.clone(),
        kind,
        path,
        sha256: entry.dev.is_none().then(|| entry.sha256.clone()),
        isolate: entry.isolate,
        read,
        beyond,
        limits,
    })
}

/// The places outside of the graph's folder to which grants lead, if the user has agreed to each.
fn agreed_places(
    found: &FoundPlugin,
    (graphs, read): (&Path, &[String]),
    consent: &Consent,
    command: &str,
) -> Result<Vec<PathBuf>> {
    let id = &found.manifest.id;
    let mut agreed = Vec::new();
    for (grant, place) in places_of(graphs, read) {
        match place {
            Beyond::Inside => {}
            Beyond::OfTheSystem(place) => {
                return Err(PluginError::refused(
                    format!(
                        "the plugin `{id}` may read `{grant}` by the lock file, which leads to {}: \
                         no plugin reads there",
                        place.display()
                    ),
                    format!(
                        "remove {}; ask whoever gave it to you why",
                        grant_place(graphs, &grant)
                    ),
                ));
            }
            Beyond::Elsewhere(place) if consent.covers_place(id, graphs, &place) => {
                agreed.push(place);
            }
            Beyond::Elsewhere(place) => {
                return Err(PluginError::refused(
                    format!(
                        "the plugin `{id}` may read `{grant}` by the lock file, which leads to {}, \
                         outside of the folder of the graph; you have not agreed to that here",
                        place.display()
                    ),
                    format!("look at what lies there, then `{command}` accepts it"),
                ));
            }
        }
    }
    Ok(agreed)
}

fn grant_place(graphs: &Path, grant: &str) -> String {
    graphs.join(path_of_text(grant)).display().to_string()
}

/// Bytes as they are written in a lock file.
fn bytes_text(bytes: u64) -> String {
    match bytes {
        large if large >= 1_000_000_000 => format!("{:.1} GB", large as f64 / 1e9),
        small => format!("{:.0} MB", small as f64 / 1e6),
    }
}

/// The command that accepts a plugin as it stands, with what was accepted before.
fn command(
    found: &FoundPlugin,
    kind: BuildKind,
    entry: Option<&LockEntry>,
    locked: bool,
) -> String {
    let mut command = format!("kino plugin trust {}", found.manifest.id);
    let mut flag = |name: &str, value: &str| {
        command.push_str(&format!(" --{name}"));
        let quoted = if value.contains(|c: char| c.is_whitespace() || "'\"$&;()<>|*?~`".contains(c))
        {
            format!(" '{}'", value.replace('\'', "'\\''"))
        } else {
            format!(" {value}")
        };
        command.push_str(quoted.trim_end());
    };
    if kind == BuildKind::Native {
        flag("native", "");
    }
    if let Some(entry) = entry {
        if entry.dev.is_some() && !locked {
            flag("dev", "");
        }
        if entry.isolate {
            flag("isolate", "");
        }
        for path in entry.grants.read.iter().filter(|path| !entry.asks.read.contains(path)) {
            flag("read", path);
        }
        if let Some(memory) =
            entry.limits.memory.as_ref().filter(|_| entry.limits.memory != entry.asks.memory)
        {
            flag("memory", memory);
        }
        if let Some(seconds) =
            entry.limits.seconds.filter(|_| entry.limits.seconds != entry.asks.seconds)
        {
            flag("seconds", &seconds.to_string());
        }
    }
    let is_here = found.lock.as_os_str().is_empty() || found.lock == Path::new(".");
    if !is_here && !is_users(found, entry) {
        flag("folder", &found.lock.display().to_string());
    }
    command
}

/// What to do about an op of a plugin that no lock file names, though it lies near the graph.
pub fn advice_to_trust(found: &FoundPlugin) -> String {
    let (kind, id, folder) =
        (found.manifest.preferred(), &found.manifest.id, found.folder.display());
    let trust = command(found, kind, None, false);
    let is_built = found.manifest.artifact(&found.folder, kind).is_some_and(|path| path.exists());
    match is_built {
        true => {
            format!("the plugin `{id}` in {folder} has it: `{trust}` accepts it for this graph")
        }
        false => format!(
            "the plugin `{id}` in {folder} has it: `kino plugin build {folder}` builds it, then \
             `{trust}` accepts it for this graph"
        ),
    }
}

/// Whether a plugin lies where plugins are looked for.
fn is_usual(folder: &Path) -> bool {
    folder.parent().and_then(Path::file_name).is_some_and(|name| name == PLUGINS_FOLDER)
}

/// Whether a plugin is one of the user's own: these have their lock file beside them.
fn is_users(found: &FoundPlugin, entry: Option<&LockEntry>) -> bool {
    is_usual(&found.folder)
        && found.folder.parent() == Some(&found.lock)
        && entry.is_none_or(|entry| entry.folder_path().is_none())
}

/// The artifact of a kind.
///
/// # Errors
/// When the manifest names none, or it does not stand there.
fn artifact(found: &FoundPlugin, kind: BuildKind) -> Result<PathBuf> {
    let (id, folder) = (&found.manifest.id, found.folder.display());
    let path = found.manifest.artifact(&found.folder, kind).ok_or_else(|| {
        PluginError::refused(
            format!("the plugin `{id}` has no {kind} build: its manifest names none"),
            match kind {
                BuildKind::Wasm => format!(
                    "its native build can do whatever you can; if you trust its author, `kino plugin \
                     trust {id} --native` accepts it"
                ),
                BuildKind::Native => format!("`kino plugin trust {id}` accepts the one that it has"),
            },
        )
    })?;
    if path.exists() {
        open_regular(&path).map_err(PluginError::file(&path))?;
        return Ok(path);
    }
    Err(PluginError::refused(
        format!("the plugin `{id}` is not built: {} is not there", path.display()),
        format!("`kino plugin build {folder}` builds it"),
    ))
}

fn limits(entry: &RawLimits) -> Result<Limits> {
    let mut limits = Limits::default();
    if let Some(memory) = &entry.memory {
        limits.memory = memory_limit(memory).map_err(PluginError::malformed)?;
    }
    if let Some(seconds) = entry.seconds {
        limits.time = Duration::try_from_secs_f64(seconds).map_err(|_| {
            PluginError::malformed(format!("`seconds: {seconds}` in a lock file is no time"))
        })?;
    }
    Ok(limits)
}

/// The entry that trusts a plugin as it stands.
///
/// # Errors
/// When it has no such artifact, or it cannot be read.
pub fn pin(found: &FoundPlugin, options: &TrustOptions) -> Result<LockEntry> {
    let manifest = &found.manifest;
    let kind = if options.native || options.isolate {
        BuildKind::Native
    } else if manifest.wasm.is_some() {
        BuildKind::Wasm
    } else {
        return Err(PluginError::refused(
            format!("the plugin `{}` is native code, which can do whatever you can", manifest.id),
            "if you trust its author, add `--native`".to_owned(),
        ));
    };
    let sha256 = match options.dev {
        true => String::new(),
        false => sha256(&artifact(found, kind)?)?,
    };
    for path in &options.read {
        readable(path).map_err(PluginError::malformed)?;
    }
    let mut read = manifest.asks.read.clone();
    read.extend(options.read.iter().filter(|path| !manifest.asks.read.contains(path)).cloned());
    let entry = RawLimits {
        memory: options.memory.clone().or_else(|| manifest.asks.memory.clone()),
        seconds: options.seconds.or(manifest.asks.seconds),
    };
    limits(&entry)?;
    let folder = found.folder.strip_prefix(&found.lock).unwrap_or(&found.folder);
    let folder = match path_to_text(folder).replace('\\', "/") {
        empty if empty.is_empty() => ".".to_owned(),
        folder => folder,
    };
    let (dev, folder) = match (options.dev, is_usual(&found.folder)) {
        (true, _) => (Some(folder), None),
        (false, true) => (None, None),
        (false, false) => (None, Some(folder)),
    };
    Ok(LockEntry {
        version: manifest.version.clone(),
        kind,
        sha256,
        dev,
        folder,
        trust: (kind == BuildKind::Native).then_some(BuildKind::Native),
        isolate: options.isolate,
        asks: manifest.asks.clone(),
        grants: Grants { read },
        limits: entry,
    })
}
