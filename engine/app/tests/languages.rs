//! Plugins in other languages than Rust: what `kino plugin new` begins builds, holds the check and
//! runs; errors reach the user with their text. A language whose tools are not on this machine is
//! left out, and that is said.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{Place, Ran};

/// The languages: the option, the file of the nodes, the program that builds it and an argument that
/// it takes.
const LANGUAGES: [(&str, &str, &str); 5] = [
    ("--python", "node.py", "componentize-py"),
    ("--js", "node.js", "componentize-qjs"),
    ("--c", "plugin.c", "cc"),
    ("--cpp", "plugin.cpp", "c++"),
    ("--zig", "plugin.zig", "zig"),
];

/// Whether a program is there; that it is not is said.
fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok()
        || Command::new(program).arg("version").output().is_ok();
    if !found {
        eprintln!("left out: `{program}` is not on this machine");
    }
    found
}

/// What was said, in one line without a frame.
fn said(err: &str) -> String {
    let words = err.split_whitespace().filter(|word| !["×", "│", "help:"].contains(word));
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn every_language_begins_with_the_contract_as_it_is() {
    let place = Place::new();
    for (option, file, _) in LANGUAGES {
        let name = format!("gain{}", option.trim_start_matches('-'));
        place.good(&["plugin", "new", &name, option]);
        let text = |file: &str| fs::read_to_string(place.path(&format!("{name}/{file}"))).unwrap();
        assert!(text(file).contains(&format!("{name}.gain")), "{option}");
        assert!(text("README.md").starts_with(&format!("# {name}\n")), "{option}");
        for file in [file, "Makefile", "README.md", "plugin.ron", "graph.ron"] {
            let left = ["NAME", "LIBRARY"].iter().find(|word| text(file).contains(*word));
            assert_eq!(left, None, "{option}: {file}");
        }
        // Whatever the plugin is called: `op.NAME` in the contract stays what it is.
        let contract = match option {
            "--python" | "--js" => ("wit/kino-plugin.wit", kino_abi::WIT),
            _ => ("kino_plugin.h", kino_abi::HEADER),
        };
        assert_eq!(text(contract.0), contract.1, "{option}");
        assert!(contract.1.contains("op.NAME"));
    }
    let err = place.bad(2, &["plugin", "new", "both", "--c", "--zig"]);
    assert!(said(&err).contains("cannot be used with"), "{err}");
}

#[test]
fn a_tool_that_is_missing_is_named_with_the_command_that_installs_it() {
    let place = Place::new();
    // A machine with a shell and make, and nothing else.
    fs::create_dir(place.path("bin")).unwrap();
    let which = Command::new("sh").args(["-c", "command -v make"]).output().unwrap();
    let make = String::from_utf8(which.stdout).unwrap();
    if make.trim().is_empty() {
        eprintln!("left out: `make` is not on this machine");
        return;
    }
    std::os::unix::fs::symlink(make.trim(), place.path("bin/make")).unwrap();
    for (option, command) in [
        ("--python", "pip install componentize-py"),
        ("--js", "apt install npm"),
        ("--c", "apt install gcc"),
        ("--cpp", "apt install g++"),
        ("--zig", "pip install ziglang"),
    ] {
        let name = option.trim_start_matches('-');
        place.good(&["plugin", "new", name, option]);
        let mut build = place.command(&["plugin", "build", name]);
        let ran = Ran::of(build.env("PATH", place.path("bin")).output().unwrap());
        assert_eq!(ran.code, 2, "{option}: {}", ran.err);
        assert!(ran.err.contains(command), "{option}: {}", ran.err);
        assert!(said(&ran.err).contains("make did not succeed"), "{option}: {}", ran.err);
    }
    let mut build = place.command(&["plugin", "build", "c"]);
    let ran = Ran::of(build.env("PATH", place.path("nothing")).output().unwrap());
    assert!(said(&ran.err).contains("make cannot be run"), "{}", ran.err);
    fs::remove_file(place.path("c/Makefile")).unwrap();
    let err = said(&place.bad(2, &["plugin", "build", "c"]));
    assert!(err.contains("holds no Cargo.toml and no Makefile"), "{err}");
}

/// A graph that makes frames without a model, and changes them by the new plugin.
fn graph(name: &str) -> String {
    format!(
        r#"Graph(version: 1, nodes: {{
            "photo": (op: "image.read", with: {{"path": "photo.png"}}),
            "changed": (op: "{name}.gain", in: {{"frames": "photo"}}, with: {{"gain": 0.5}}),
            "file": (op: "image.write", in: {{"frames": "changed"}}, with: {{"path": "out.png"}}),
        }}, outputs: {{"file": "file"}})"#
    )
}

/// Builds, checks and runs a new plugin; what the node gives is compared with what it should.
fn begins(option: &str) {
    let place = Place::new();
    let name = format!("new_{}", option.trim_start_matches('-'));
    place.good(&["plugin", "new", &name, option]);
    place.good(&["plugin", "build", &name]);
    let held = place.good(&["plugin", "check", &name, "--seed", "7"]);
    assert!(held.contains("cases held") && !held.contains("never ran"), "{option}: {held}");
    // Alike cases are said once.
    assert!(held.lines().count() < 12, "{option}: {held}");
    place.write(&format!("{name}/photo.png"), common::picture(40));
    place.write(&format!("{name}/g.ron"), graph(&name));
    place.good(&["run", &format!("{name}/g.ron"), "--out", "out"]);
    let pixels = pixels(&place.path("out/out.png"));
    let expected = pixels_of(&common::picture(40)).into_iter().map(|x| f64::from(x) * 0.5);
    for (found, expected) in pixels.into_iter().zip(expected) {
        assert!((f64::from(found) - expected).abs() <= 1.0, "{option}: {found}, {expected}");
    }
}

fn pixels(path: &Path) -> Vec<u8> {
    pixels_of(&fs::read(path).unwrap())
}

fn pixels_of(bytes: &[u8]) -> Vec<u8> {
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    pixels.truncate(info.buffer_size());
    pixels
}

#[test]
fn a_new_plugin_in_c_builds_holds_the_check_and_runs() {
    if has("cc") {
        begins("--c");
    }
}

#[test]
fn a_new_plugin_in_cpp_builds_holds_the_check_and_runs() {
    if has("c++") {
        begins("--cpp");
    }
}

#[test]
fn a_new_plugin_in_zig_builds_holds_the_check_and_runs() {
    if has("zig") {
        begins("--zig");
    }
}

#[test]
fn a_new_plugin_in_python_builds_holds_the_check_and_runs() {
    if has("componentize-py") {
        begins("--python");
    }
}

#[test]
fn a_new_plugin_in_javascript_builds_holds_the_check_and_runs() {
    if has("componentize-qjs") {
        begins("--js");
    }
}
