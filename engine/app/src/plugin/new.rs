//! `kino plugin new`: a folder that builds and passes its test at once.

use std::path::Path;

use kino_host::{LockFile, is_word};

use super::args::New;
use super::folder::Project;
use super::sdk;
use crate::failure::{Exit, Failure};
use crate::json::json;
use crate::screen::Screen;
use crate::{files, setup};

const LIB: &str = include_str!("template/lib.rs.txt");
const C: &str = include_str!("template/plugin.c.txt");
const GRAPH: &str = include_str!("template/graph.ron");

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
    let mut all = common(args, &name);
    all.extend(if args.c { in_c() } else { in_rust(&sdk::folder(args.sdk.as_deref())?) });
    for (file, text) in &all {
        files::write(&path.join(file), text.replace("NAME", &name).as_bytes())?;
    }
    let found = Project::open(&path)?.found();
    let settings = setup::settings()?;
    for entry in LockFile::read(&path)?.plugins.values() {
        kino_session::plugins::record_consent(&settings, &found, entry)?;
    }
    if screen.json {
        screen.print_json(&json!({ "folder": path, "files": all.iter().map(|(file, _)| file).collect::<Vec<_>>() }))?;
        return Ok(Exit::Good);
    }
    let test = if args.c { "make test" } else { "cargo test" };
    screen.print(&format!(
        "{}\n  cd {}\n  {test}\n  kino plugin build\n  kino plugin check\n  kino run graph.ron\n",
        screen.out.bold(&format!("{} is a plugin now; next:", path.display())),
        path.display()
    ))?;
    Ok(Exit::Good)
}

/// What every plugin has: its manifest, a graph, and a lock that trusts the folder.
fn common(args: &New, name: &str) -> Vec<(&'static str, String)> {
    let (native, wasm) = (args.native || args.c || !args.wasm, !args.native && !args.c);
    let mut manifest = format!(
        "Plugin(\n    id: \"{name}\",\n    version: \"0.1.0\",\n    about: \"Multiplies frames\",\n    \
         nodes: [\"{name}.gain\"],\n"
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
    vec![
        ("plugin.ron", manifest),
        ("kino.lock.ron", lock),
        ("graph.ron", GRAPH.to_owned()),
        (".gitignore", "/target\n/out\n".to_owned()),
    ]
}

fn in_rust(sdk: &Path) -> Vec<(&'static str, String)> {
    let sdk = sdk.display().to_string().replace('\\', "/");
    let cargo = format!(
        "[package]\nname = \"NAME\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[lib]\ncrate-type = \
         [\"cdylib\", \"rlib\"]\n\n[dependencies]\nkino-plugin = {{ path = \"{sdk}\" }}\n\n[workspace]\n"
    );
    let readme = "# NAME\n\nA plugin for Kinograph.\n\n```sh\ncargo test          # without the engine\n\
        kino plugin build   # a native library and a component\nkino plugin check   # inputs that break \
        what was not thought of\nkino run graph.ron\n```\n";
    vec![("Cargo.toml", cargo), ("src/lib.rs", LIB.to_owned()), ("README.md", readme.to_owned())]
}

fn in_c() -> Vec<(&'static str, String)> {
    let library = kino_host::library_name("NAME");
    let make = format!(
        "CFLAGS ?= -O3 -Wall -Wextra\n\n{library}: plugin.c kino_plugin.h\n\t$(CC) -std=c11 $(CFLAGS) -fPIC \
         -shared -o $@ plugin.c\n\ntest: {library}\n\tkino plugin check .\n\nclean:\n\trm -f {library}\n\n\
         .PHONY: test clean\n"
    );
    let readme = "# NAME\n\nA plugin for Kinograph in C.\n\n```sh\nmake test           # builds it and tries \
        it with inputs that break what was not thought of\nkino run graph.ron\n```\n";
    vec![
        ("plugin.c", C.to_owned()),
        ("kino_plugin.h", kino_abi::HEADER.to_owned()),
        ("Makefile", make),
        ("README.md", readme.to_owned()),
    ]
}
