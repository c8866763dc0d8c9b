//! The example plugins as starting points: their sources come with the binary.

use std::path::Path;

use kino_host::{LockFile, MANIFEST_FILE, Manifest};

use super::cargo::{Cargo, sdk_dependency};
use super::folder::Project;
use crate::failure::Failure;
use crate::setup;

include!(concat!(env!("OUT_DIR"), "/examples.rs"));

const IGNORED: &str = include_str!("template/gitignore.txt");
const PLUGINS: &str = "plugins/examples/";

/// The text of a file of the examples, as the repository has it.
fn text(path: &str) -> Option<&'static str> {
    FILES.iter().find(|(file, _)| *file == path).map(|(_, text)| *text)
}

/// The examples, by name, with what they do.
pub(crate) fn all() -> Vec<(&'static str, String)> {
    let manifests = FILES.iter().filter_map(|(file, text)| {
        let name = file.strip_prefix(PLUGINS)?.strip_suffix(&format!("/{MANIFEST_FILE}"))?;
        Some((name, Manifest::parse(text, Path::new(file)).ok()?.about))
    });
    manifests.collect()
}

/// The files of an example, by the paths that they get beside each other: its graph, what that
/// reads, and the plugin's sources.
pub(crate) fn files(name: &str) -> Option<Vec<(String, Vec<u8>)>> {
    let graph = text(&format!("graphs/{name}.ron"))?;
    let written = graph.replace("../plugins/examples/", "plugins/");
    let mut found = vec![(format!("{name}.ron"), written.into_bytes())];
    let reads = kino_session::files_of_graph(graph);
    found.extend(reads.into_iter().map(|(path, bytes)| (path.to_owned(), bytes.to_owned())));
    found.push((format!("plugins/{name}/.gitignore"), IGNORED.as_bytes().to_owned()));
    for (file, text) in FILES {
        let read = file
            .strip_prefix("graphs/")
            .filter(|path| !path.ends_with(".ron") && graph.contains(&format!("\"{path}\"")));
        if let Some(read) = read {
            found.push((read.to_owned(), text.as_bytes().to_owned()));
        }
        let Some(path) = file.strip_prefix(PLUGINS) else { continue };
        match path.strip_prefix(name).and_then(|path| path.strip_prefix('/')) {
            Some("Cargo.toml") => {
                let text = alone(text);
                found.push((format!("plugins/{path}"), text.into_bytes()));
            }
            Some(_) => found.push((format!("plugins/{path}"), text.as_bytes().to_owned())),
            None => {}
        }
    }
    Some(found)
}

/// The manifest of a crate outside of the workspace that the examples are.
fn alone(manifest: &str) -> String {
    let workspace = text("plugins/examples/Cargo.toml").unwrap_or_default();
    let value = |key: &str| {
        let lines = workspace.lines().filter_map(|line| line.split_once(" = "));
        lines.into_iter().find(|(known, _)| *known == key).map(|(_, value)| value.to_owned())
    };
    let line = |line: &str| match line.strip_suffix(".workspace = true") {
        Some("kino-plugin") => Some(format!("kino-plugin = {}", sdk_dependency())),
        // Whoever begins with an example chooses its licence, and publishes it or not.
        Some("license" | "publish") => None,
        Some(key) => value(key).map(|value| format!("{key} = {value}")),
        // A library by itself is none that cargo would confuse with another plugin's.
        None if line.starts_with("[lib]") || line.starts_with("crate-type") => None,
        None => Some(line.to_owned()),
    };
    let lines: Vec<_> = manifest.lines().filter_map(line).collect();
    let text = lines.join("\n").replace("\n\n\n", "\n\n");
    format!("{text}\n\n[workspace]\n\n[profile.dev]\nopt-level = 1\n")
}

/// Begins dev mode for a plugin that was written here, and tells cargo where the SDK lies.
///
/// # Errors
/// When the lock file does not read, or cannot be written.
pub(crate) fn trust(name: &str) -> Result<(), Failure> {
    let folder = Path::new("plugins").join(name);
    Cargo::prepare(&folder)?;
    let mut found = Project::open(&folder)?.found();
    found.lock = Path::new("").to_owned();
    let options = kino_host::TrustOptions { dev: true, ..kino_host::TrustOptions::default() };
    let entry = kino_host::pin(&found, &options)?;
    kino_session::plugins::record_consent(&setup::settings()?, &found, &found.lock, &entry)?;
    let id = found.manifest.id.clone();
    let insert = |lock: &mut LockFile| drop(lock.plugins.insert(id, entry));
    Ok(LockFile::change(Path::new("."), insert)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every example is one, with a graph and a crate that stands by itself.
    #[test]
    fn examples_stand_alone() {
        let names: Vec<_> = all().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), 8, "{names:?}");
        for name in names {
            let files = files(name).unwrap();
            let text = |path: &str| {
                let (_, bytes) = files.iter().find(|(file, _)| file == path).unwrap();
                String::from_utf8(bytes.clone()).unwrap()
            };
            let manifest = text(&format!("plugins/{name}/Cargo.toml"));
            for never in ["workspace = true", "crate-type", "path ="] {
                assert!(!manifest.contains(never), "{manifest}");
            }
            for always in ["registry = ", "edition = \"2024\"", "version = \"1.0.0\""] {
                assert!(manifest.contains(always), "{manifest}");
            }
            assert!(!text(&format!("{name}.ron")).contains("../"), "{name}");
            text(&format!("plugins/{name}/src/lib.rs"));
        }
        assert!(files("color_lut").unwrap().iter().any(|(file, _)| file == "luts/evening.cube"));
        assert!(files("given_keys").unwrap().iter().any(|(file, _)| file == "pictures/last.png"));
    }
}
