//! The rules of the house: which crate may know which, how long a file may grow, what each file
//! must say.

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
    ("kino-kernels", &[]),
    ("kino-models", &["kino-kernels"]),
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
            "kino-graph",
            "kino-host",
            "kino-kernels",
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
    ("kino-port", &["candle-core", "serde", "ron"]),
    ("kino-runtime", &["libloading", "wasmtime", "notify"]),
    ("kino-contract", &["candle-core", "rayon"]),
    ("kino-plugin", &["candle-core", "rayon"]),
    ("kino-host", &["libloading", "wasmtime"]),
];

const UNSAFE_ALLOWED: &[&str] = &[
    "nodes/kernels/",
    "nodes/models/src/weights.rs",
    "plugins/abi/",
    "plugins/native/",
    "plugins/sdk/",
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

/// Every tracked Rust file, with its text.
fn sources() -> Vec<(String, String)> {
    let out = Command::new("git").args(["ls-files", "*.rs"]).current_dir(root()).output();
    let listed =
        out.ok().filter(|out| out.status.success()).map(|out| out.stdout).unwrap_or_default();
    let names = String::from_utf8(listed).expect("paths are UTF-8");
    let read =
        |name: &str| Some((name.to_owned(), std::fs::read_to_string(root().join(name)).ok()?));
    names.lines().filter_map(read).collect()
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
fn a_file_is_short_and_says_what_it_is_for() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let lines = text.lines().count();
        if lines > 600 {
            wrong.push(format!("{name}: {lines} lines, 600 at most"));
        }
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
    let out =
        Command::new("git").args(["ls-tree", "--name-only", "HEAD"]).current_dir(root()).output();
    let Some(out) = out.ok().filter(|out| out.status.success()) else { return };
    let names = String::from_utf8(out.stdout).expect("paths are UTF-8");
    let strangers: Vec<_> =
        names.lines().filter(|name| !name.starts_with('.') && !allowed.contains(name)).collect();
    assert!(strangers.is_empty(), "at the top: {strangers:?}");
}
