//! `kino plugin new`: a folder that builds and passes its test at once.

use std::path::Path;

use kino_host::{LockFile, is_word};

use super::args::New;
use super::cargo::{self, Cargo};
use super::folder::Project;
use super::language::{Language, Text};
use super::sdk;
use crate::failure::{Exit, Failure};
use crate::json::json;
use crate::screen::Screen;
use crate::{files, setup};

const GRAPH: &str = include_str!("template/graph.ron");
const IGNORED: &str = include_str!("template/gitignore.txt");

/// Begins a plugin.
///
/// # Errors
/// When the name is none, the folder is there already, or nothing can be written.
pub(crate) fn run(args: &New, screen: &Screen) -> Result<Exit, Failure> {
    let path = args.name.clone();
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if !is_word(&name) {
        return Err(Failure::usage(format!("`{name}` is no name for a plugin"))
            .hint("letters a-z, digits and _, a letter first"));
    }
    if path.exists() {
        return Err(Failure::usage(format!("{} is there already", path.display())));
    }
    let language = Language::of(args);
    let sdk = match (language, &args.sdk) {
        (Language::Rust, Some(given)) => {
            let folder = sdk::folder(Some(given))?.display().to_string().replace('\\', "/");
            format!("{{ path = \"{folder}\" }}")
        }
        _ => cargo::sdk_dependency(),
    };
    let written = |text: &Text| match text {
        Text::Template(text) => text
            .replace("LIBRARY", &kino_host::library_name(&name))
            .replace("DEPENDENCY", &sdk)
            .replace("NAME", &name),
        Text::Verbatim(text) => (*text).to_owned(),
    };
    let mut all = common(args, language, &name);
    all.extend(language.files().iter().map(|(file, text)| (*file, written(text))));
    all.extend(
        [("graph.ron", GRAPH), (".gitignore", IGNORED)]
            .map(|(file, text)| (file, written(&Text::Template(text)))),
    );
    for (file, text) in &all {
        files::write(&path.join(file), text.as_bytes())?;
    }
    if language == Language::Rust {
        Cargo::prepare(&path)?;
    }
    trust(&path)?;
    if screen.json {
        screen.print_json(&json!({ "folder": path, "files": all.iter().map(|(file, _)| file).collect::<Vec<_>>() }))?;
        return Ok(Exit::Good);
    }
    screen.print(&format!(
        "{}\n  cd {}\n  kino plugin build\n  kino plugin check\n  kino watch --build graph.ron\n",
        screen.out.bold(&format!("{} is a plugin now; next:", path.display())),
        path.display()
    ))?;
    Ok(Exit::Good)
}

/// Remembers that the user trusts what is built in a folder.
fn trust(path: &Path) -> Result<(), Failure> {
    let found = Project::open(path)?.found();
    let settings = setup::settings()?;
    for entry in LockFile::read(path)?.plugins.values() {
        kino_session::plugins::record_consent(&settings, &found, path, entry)?;
    }
    Ok(())
}

/// What every plugin has: its manifest, and a lock that trusts the folder.
fn common(args: &New, language: Language, name: &str) -> Vec<(&'static str, String)> {
    let (native, wasm) = match language {
        Language::Rust => (args.native || !args.wasm, !args.native),
        other => (!other.is_component(), other.is_component()),
    };
    let mut manifest = format!(
        "Plugin(\n    id: \"{name}\",\n    version: \"0.1.0\",\n    nodes: [\"{name}.gain\"],\n"
    );
    if native {
        manifest.push_str(&format!("    native: \"{name}\",\n"));
    }
    if wasm {
        manifest.push_str(&format!("    wasm: \"{name}.wasm\",\n"));
    }
    manifest.push_str(")\n");
    let trust = if wasm { "kind: wasm" } else { "kind: native, trust: native" };
    let lock = format!(
        "// Every build of this folder is trusted while you work on it; `--locked` refuses it.\n\
         Lock(version: 1, plugins: {{\"{name}\": (dev: \".\", {trust})}})\n"
    );
    vec![("plugin.ron", manifest), ("kino.lock.ron", lock)]
}
