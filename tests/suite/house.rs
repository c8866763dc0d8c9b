//! The rules of the house: which crate may know which, that modules form no circle, what each file
//! must say. A rule that could not look fails.

#[path = "house/circles.rs"]
mod circles;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What each crate may depend on, among ours. The command and the tests may know everything.
const ARROWS: &[(&str, &[&str])] = &[
    ("kino-port", &[]),
    ("kino-graph", &["kino-port"]),
    ("kino-node", &["kino-port"]),
    ("kino-runtime", &["kino-graph", "kino-node", "kino-port"]),
    ("kino-world", &["kino-node", "kino-port"]),
    ("kino-hub", &["kino-port", "kino-world"]),
    ("kino-cuda", &[]),
    ("kino-kernels", &[]),
    ("kino-models", &["kino-kernels", "kino-port"]),
    (
        "kino-nodes",
        &["kino-node", "kino-port", "kino-models", "kino-kernels", "kino-world", "kino-shapes"],
    ),
    ("kino-shapes", &[]),
    ("kino-abi", &[]),
    ("kino-contract", &["kino-port"]),
    ("kino-plugin-macros", &[]),
    ("kino-plugin", &["kino-abi", "kino-contract", "kino-port", "kino-plugin-macros"]),
    ("kino-host", &["kino-abi", "kino-contract", "kino-node", "kino-port", "kino-kernels"]),
    ("kino-native", &["kino-abi", "kino-host", "kino-node", "kino-port"]),
    ("kino-wasm", &["kino-abi", "kino-host", "kino-node", "kino-port"]),
    (
        "kino-session",
        &[
            "kino-cuda",
            "kino-graph",
            "kino-host",
            "kino-hub",
            "kino-kernels",
            "kino-models",
            "kino-native",
            "kino-node",
            "kino-nodes",
            "kino-port",
            "kino-runtime",
            "kino-wasm",
            "kino-world",
        ],
    ),
];

/// What a crate must never know, whoever brings it.
const NEVER: &[(&str, &[&str])] = &[
    ("kino-graph", &["candle-core", "rayon", "tempfile", "notify"]),
    ("kino-port", &["candle-core", "ron"]),
    ("kino-runtime", &["libloading", "wasmtime", "notify"]),
    ("kino-contract", &["candle-core", "rayon"]),
    ("kino-plugin", &["candle-core", "rayon"]),
    ("kino-host", &["libloading", "wasmtime"]),
    // What plans and runs graphs reaches no network.
    ("kino-nodes", &["ureq", "kino-hub"]),
    ("kino-world", &["ureq", "rustls"]),
];

const UNSAFE_ALLOWED: &[&str] = &[
    "nodes/kernels/",
    "plugins/abi/",
    "plugins/native/",
    "plugins/sdk/",
    "plugins/wasm/src/compiled.rs",
    "plugins/wasm/tests/guests/",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn packages() -> Vec<Value> {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: Value = serde_json::from_slice(&out.stdout).expect("cargo prints JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

/// The names that a package depends on, tests aside.
fn dependencies(package: &Value) -> BTreeSet<String> {
    let all = package["dependencies"].as_array().expect("dependencies").iter();
    let built = all.filter(|dependency| dependency["kind"].as_str() != Some("dev"));
    built.filter_map(|dependency| dependency["name"].as_str().map(str::to_owned)).collect()
}

/// Folders that builds fill.
const BUILT: &[&str] = &["target", "node_modules"];

/// Every Rust file of the project, with its text: those that git tracks, or where there is no git
/// (an archive), those that lie there.
fn sources() -> Vec<(String, String)> {
    let out = Command::new("git").args(["ls-files", "*.rs"]).current_dir(root()).output();
    let tracked = out.ok().filter(|out| out.status.success()).map(|out| out.stdout);
    let names = match tracked {
        Some(listed) => {
            let listed = String::from_utf8(listed).expect("paths are UTF-8");
            listed.lines().map(str::to_owned).collect()
        }
        None => {
            let mut names = Vec::new();
            walk(&root(), &mut names);
            names
        }
    };
    // A file that is deleted but not committed is still listed.
    let read =
        |name: &String| Some((name.clone(), std::fs::read_to_string(root().join(name)).ok()?));
    let sources: Vec<_> = names.iter().filter_map(read).collect();
    assert!(
        sources.iter().any(|(name, _)| name == "tests/suite/house.rs") && sources.len() > 100,
        "the sources were not found: {} files",
        sources.len()
    );
    sources
}

/// The Rust files in a folder, by their paths from the root.
fn walk(folder: &Path, names: &mut Vec<String>) {
    let entries = std::fs::read_dir(folder).expect("a folder of the project can be read");
    for entry in entries {
        let path = entry.expect("a folder of the project can be read").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() && !path.is_symlink() {
            if !name.starts_with('.') && !BUILT.contains(&name.as_str()) {
                walk(&path, names);
            }
        } else if name.ends_with(".rs") {
            let path = path.strip_prefix(root()).expect("it lies below the root");
            names.push(path.to_str().expect("paths are UTF-8").to_owned());
        }
    }
}

#[test]
fn without_git_the_same_sources_are_found() {
    let mut walked = Vec::new();
    walk(&root(), &mut walked);
    let walked: BTreeSet<_> = walked.into_iter().collect();
    let missing: Vec<_> =
        sources().into_iter().map(|(name, _)| name).filter(|name| !walked.contains(name)).collect();
    assert!(missing.is_empty(), "only git knows {missing:?}");
}

#[test]
fn crates_know_only_what_they_may() {
    let ours: BTreeSet<String> = packages()
        .iter()
        .filter_map(|package| package["name"].as_str().map(str::to_owned))
        .collect();
    let mut wrong = Vec::new();
    for package in packages() {
        let name = package["name"].as_str().expect("a name");
        let found = dependencies(&package);
        if let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == name) {
            let strangers =
                found.iter().filter(|to| ours.contains(*to) && !allowed.contains(&to.as_str()));
            wrong.extend(strangers.map(|to| format!("{name} → {to}")));
        } else {
            assert!(["kino", "kino-tests"].contains(&name), "say in ARROWS what {name} may know");
        }
        if let Some((_, never)) = NEVER.iter().find(|(from, _)| *from == name) {
            wrong.extend(
                never.iter().filter(|to| found.contains(**to)).map(|to| format!("{name} → {to}")),
            );
        }
    }
    assert!(wrong.is_empty(), "forbidden arrows: {wrong:?}");
}

#[test]
fn a_file_says_what_it_is_for() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        if !text.starts_with("//!") {
            wrong.push(format!("{name}: opens without `//!`"));
        }
        // Code is kept to 100 columns by rustfmt, which leaves comments alone.
        let long = text.lines().enumerate().find(|(_, line)| {
            let line = line.trim_start();
            line.starts_with("//") && !line.starts_with("//! |") && line.chars().count() > 100
        });
        if let Some((at, _)) = long {
            wrong.push(format!("{name}:{}: a comment over 100 columns", at + 1));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_unfinished_or_unsafe_without_reason() {
    let marks = [["to", "do!("].concat(), ["unimpl", "emented!("].concat(), ["FIX", "ME"].concat()];
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        wrong.extend(
            marks.iter().filter(|mark| text.contains(*mark)).map(|mark| format!("{name}: {mark}")),
        );
        let may = UNSAFE_ALLOWED.iter().any(|prefix| name.starts_with(prefix));
        let uses = ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|word| text.contains(word));
        if uses && !may && !name.ends_with("house.rs") {
            wrong.push(format!("{name}: unsafe code"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a run may read and write is asked in one place: no other node finds paths by itself.
#[test]
fn nodes_find_files_where_the_policy_of_the_run_is_asked() {
    let allowed = ["nodes/builtin/src/files.rs", "nodes/builtin/src/model.rs"];
    let nodes = sources().into_iter().filter(|(name, _)| name.starts_with("nodes/builtin/src/"));
    let uses: Vec<_> =
        nodes.filter(|(_, text)| text.contains("Folders>")).map(|(name, _)| name).collect();
    assert!(uses.iter().any(|name| name == allowed[0]), "the rule could not look: {uses:?}");
    let strangers: Vec<_> = uses.iter().filter(|name| !allowed.contains(&&***name)).collect();
    assert!(strangers.is_empty(), "use `input`, `open` and `output` of files.rs: {strangers:?}");
}

/// What graphs, files and plugins say reaches a terminal or a log through one function, which
/// writes out what a terminal would obey.
#[test]
fn the_command_prints_through_one_function() {
    const WAYS: [&str; 6] = ["println!(", "print!(", "stdout()", "stderr()", "dbg!(", "to_writer("];
    let sources = sources().into_iter().filter(|(name, _)| name.starts_with("engine/app/src/"));
    let ways = |text: &str| {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let asks = ["stdout().is_terminal()", "stderr().is_terminal()", "use_stderr()"];
        let code = asks.iter().fold(code.to_owned(), |code, asks| code.replace(asks, ""));
        WAYS.iter().filter(|way| code.contains(**way)).copied().collect::<Vec<_>>()
    };
    let found: Vec<_> = sources
        .map(|(name, text)| (name, ways(&text)))
        .filter(|(_, ways)| !ways.is_empty())
        .collect();
    assert!(
        found.iter().any(|(name, _)| name == "engine/app/src/terminal.rs"),
        "the rule could not look: {found:?}"
    );
    let around: Vec<_> =
        found.iter().filter(|(name, _)| name != "engine/app/src/terminal.rs").collect();
    assert!(around.is_empty(), "use `Screen`, or `terminal` itself: {around:?}");
}

/// serde refuses a path that is not UTF-8: what it writes has paths by `kino_node::path_text`, and
/// the command's JSON by `ToJson`.
#[test]
fn no_path_goes_to_json_but_as_a_text_that_reads_back() {
    let (mut wrong, mut looked) = (Vec::new(), 0);
    for (name, text) in sources() {
        // This file holds examples.
        let is_this = name.ends_with("suite/house.rs");
        for (at, field) in serialized_paths(&text).into_iter().filter(|_| !is_this) {
            looked += 1;
            if !field.contains("path_text") {
                wrong.push(format!("{name}:{at}: a path without `#[serde(with = …path_text…)]`"));
            }
        }
        // Events are types of ours, whose fields are looked at above.
        let apart = ["engine/app/src/json.rs", "engine/app/src/render/progress.rs"];
        let is_commands = name.starts_with("engine/app/src/") && !apart.contains(&name.as_str());
        let around = ["serde_json::json", "serde_json::to_value"];
        let uses = around.iter().filter(|way| is_commands && text.contains(**way));
        wrong.extend(uses.map(|way| format!("{name}: `{way}` instead of `crate::json`")));
    }
    assert!(looked >= 5, "no more than {looked} fields with paths were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The fields with paths of types that serde writes: the line, and the field with its attributes.
fn serialized_paths(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((_, line)) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        if !(line.trim_start().starts_with("#[derive(") && line.contains("Serialize")) {
            continue;
        }
        let mut field = String::new();
        for (at, line) in lines.by_ref() {
            let code = line.trim_start();
            if line.len() - code.len() == indent && code.starts_with('}') {
                break;
            }
            field.push_str(code);
            let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            let is_field = !code.starts_with("//") && !code.starts_with('#');
            if is_field && words.into_iter().any(|word| word == "PathBuf" || word == "Path") {
                found.push((at + 1, field.clone()));
            }
            if is_field {
                field.clear();
                // A type of one line.
                if line.len() - code.len() == indent && code.ends_with(';') {
                    break;
                }
            }
        }
    }
    found
}

#[test]
fn paths_that_serde_writes_are_found() {
    let text = "\
#[derive(Clone, Serialize)]
struct A {
    /// PathBuf
    b: u8,
    #[serde(with = \"path_text\")]
    c: PathBuf,
    d: Option<PathBuf>,
}
#[derive(Serialize)]
struct B(PathBuf);
#[derive(Clone)]
struct C {
    e: PathBuf,
}
";
    let found: Vec<_> = serialized_paths(text);
    assert_eq!(found.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [6, 7, 10]);
    assert!(found[0].1.contains("path_text") && !found[1].1.contains("path_text"));
}

#[test]
fn nothing_else_stands_at_the_top() {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "engine",
        "nodes",
        "plugins",
        "graphs",
        "tests",
    ];
    let out = Command::new("git").args(["ls-files"]).current_dir(root()).output();
    let tracked = out.ok().filter(|out| out.status.success()).map(|out| out.stdout);
    let names: BTreeSet<String> = match tracked {
        Some(listed) => {
            let listed = String::from_utf8(listed).expect("paths are UTF-8");
            let tops = listed.lines().filter_map(|path| path.split('/').next());
            tops.map(str::to_owned).collect()
        }
        None => std::fs::read_dir(root())
            .expect("the root can be read")
            .map(|entry| entry.expect("the root can be read").file_name())
            .map(|name| name.into_string().expect("paths are UTF-8"))
            .filter(|name| !BUILT.contains(&name.as_str()))
            .collect(),
    };
    assert!(names.contains("Cargo.toml"), "the root was not found");
    let strangers: Vec<_> = names
        .iter()
        .filter(|name| !name.starts_with('.') && !allowed.contains(&name.as_str()))
        .collect();
    assert!(strangers.is_empty(), "at the top: {strangers:?}");
}

/// A type that two modules need lives in a third.
#[test]
fn modules_form_no_circle() {
    let sources = sources();
    let (mut wrong, mut looked) = (Vec::new(), 0);
    for package in packages() {
        let name = package["name"].as_str().expect("a name");
        let manifest = Path::new(package["manifest_path"].as_str().expect("a path"));
        let folder = manifest.parent().and_then(|folder| folder.strip_prefix(root()).ok());
        let src = folder.expect("a member lies below the root").join("src");
        let files = sources.iter().filter_map(|(path, text)| {
            let path = Path::new(path).strip_prefix(&src).ok()?;
            Some((path.to_str().expect("paths are UTF-8"), text.as_str()))
        });
        let files: Vec<_> = files.collect();
        looked += files.len();
        let circles = circles::circles(&files).into_iter();
        wrong.extend(circles.map(|circle| format!("{name}: {circle}")));
    }
    assert!(looked > 100, "no more than {looked} files were looked at");
    assert!(wrong.is_empty(), "modules in circles:\n{}", wrong.join("\n"));
}
