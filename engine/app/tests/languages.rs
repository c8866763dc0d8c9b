//! Plugins in other languages than Rust: what `kino plugin new` begins builds, holds the check and
//! runs; errors reach the user with their text. A language whose tools are not on this machine is
//! left out, and that is said.

mod common;
mod watching;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Place, Ran, event};
use watching::{Watching, evaluated};

/// The languages beside Rust: the option, and the file of the nodes.
const LANGUAGES: [(&str, &str); 5] = [
    ("--python", "node.py"),
    ("--js", "node.js"),
    ("--c", "plugin.c"),
    ("--cpp", "plugin.cpp"),
    ("--zig", "plugin.zig"),
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
    for (option, file) in LANGUAGES {
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
        assert!(
            contract.1.contains("op.NAME"),
            "{option}: nothing here shows what is not replaced"
        );
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
    let place = Place::sharing_cache("languages");
    let name = format!("new_{}", option.trim_start_matches('-'));
    place.good(&["plugin", "new", &name, option]);
    place.good(&["plugin", "build", &name]);
    let held = place.good(&["plugin", "check", &name, "--seed", "7"]);
    assert!(held.contains("cases held") && !held.contains("never ran"), "{option}: {held}");
    // Alike cases are said once.
    assert!(held.lines().count() < 15, "{option}: {held}");
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

// Components of the tests: `plugins/wasm/tests/languages/build` makes them.

const LANGUAGES_FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/wasm/tests");

/// A component of the tests: as it was built on this machine, else as it was stored at 2.0.
fn component(language: &str) -> Option<PathBuf> {
    let folder = Path::new(LANGUAGES_FOLDER);
    let built = folder.join(format!("languages/built/{language}.wasm"));
    let stored = folder.join(format!("compiled/{language}-2.0.wasm"));
    let found = [built, stored].into_iter().find(|path| path.is_file());
    if found.is_none() {
        eprintln!("left out: {language}.wasm, which plugins/wasm/tests/languages/build makes");
    }
    found
}

/// A place where a component of the tests is trusted, in dev mode.
fn with_component(language: &str) -> Option<Place> {
    let place = Place::sharing_cache("languages");
    let manifest = Path::new(LANGUAGES_FOLDER).join(format!("languages/{language}/plugin.ron"));
    place.write(&format!("plugins/{language}/plugin.ron"), fs::read(manifest).unwrap());
    let component = fs::read(component(language)?).unwrap();
    place.write(&format!("plugins/{language}/{language}.wasm"), component);
    place.good(&["plugin", "trust", language, "--dev", "--seconds", "60"]);
    Some(place)
}

/// Runs one node, whose output is a text, and returns what came of it.
fn node(place: &Place, op: &str, with: &str) -> Ran {
    let graph = format!(
        r#"Graph(version: 1, nodes: {{"node": (op: "{op}", with: {{{with}}})}},
            outputs: {{"out": "node"}})"#
    );
    place.write("g.ron", graph);
    place.kino(&["run", "g.ron", "--json"])
}

/// What a node that fails says: its message and its hint.
#[track_caller]
fn refused(ran: &Ran) -> String {
    assert_eq!(ran.code, 1, "{}\n{}", ran.out, ran.err);
    let lines: Vec<serde_json::Value> =
        ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    event(&lines, "failed").to_string()
}

/// What a node gives.
#[track_caller]
fn given(ran: &Ran) -> String {
    assert_eq!(ran.code, 0, "{}\n{}", ran.out, ran.err);
    let lines: Vec<serde_json::Value> =
        ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    event(&lines, "outputs")["outputs"]["out"].to_string()
}

/// An error of the host that a node does not handle keeps its message and hint in each language;
/// an error of the plugin's own names the line.
fn errors_arrive(language: &str, own: &[&str]) {
    let Some(place) = with_component(language) else { return };
    let run = |node_name: &str, with: &str| {
        refused(&node(&place, &format!("{language}.{node_name}"), with))
    };
    let unknown = run("host_error", r#""which": "op""#);
    assert!(unknown.contains("sqare"), "{unknown}");
    let file = run("host_error", r#""which": "file""#);
    assert!(file.contains("secrets.txt") && file.contains("may not be read"), "{file}");
    assert!(file.contains("nothing was granted"), "its hint: {file}");
    let kind = run("host_error", r#""which": "kind""#);
    assert!(kind.contains("as-f64: expected Real, found Text"), "{kind}");
    let text = run("own_error", "");
    for part in own {
        assert!(text.contains(part), "{part}: {text}");
    }
    let refusal = run("refuse", "");
    assert!(refusal.contains("the table has no row") && refusal.contains("add one"), "{refusal}");
    assert!(refusal.contains("not-found"), "its code: {refusal}");
}

/// The line of a test plugin's source on which a text stands.
fn line(file: &str, of: &str) -> usize {
    let path = Path::new(LANGUAGES_FOLDER).join("languages").join(file);
    let text = fs::read_to_string(path).unwrap();
    text.lines().position(|line| line.contains(of)).unwrap() + 1
}

#[test]
fn errors_in_python_arrive_whole() {
    let at = format!("node.py, line {}", line("python/node.py", "the line that errors name"));
    errors_arrive("python", &["KeyError", "missing", &at]);
}

#[test]
fn errors_in_javascript_arrive_whole() {
    let at = format!("node.js:{}", line("js/node.js", "the line that errors name"));
    errors_arrive("js", &["TypeError", "missing", &at]);
}

#[test]
fn errors_in_rust_arrive_whole() {
    let place = Place::new();
    let example = Path::new(LANGUAGES_FOLDER).join("../../examples/prompt_expand");
    for file in ["plugin.ron", "prompt_expand.wasm"] {
        let bytes = fs::read(example.join(file)).unwrap();
        place.write(&format!("plugins/prompt_expand/{file}"), bytes);
    }
    place.good(&["plugin", "trust", "prompt_expand"]);
    place.write("elsewhere/style.txt", "cat = a small cat\n");
    let with = r#""text": "cat", "rules": "elsewhere/style.txt""#;
    let err = refused(&node(&place, "prompt.expand", with));
    assert!(err.contains("elsewhere/style.txt") && err.contains("may not be read"), "{err}");
    assert!(err.contains("granted are rules"), "its hint: {err}");
}

#[test]
fn errors_in_cpp_arrive_whole() {
    if !has("c++") {
        return;
    }
    let place = Place::new();
    place.good(&["plugin", "new", "wrong", "--cpp"]);
    let mut lock = fs::read_to_string(place.path("wrong/plugin.ron")).unwrap();
    lock = lock.replace("[\"wrong.gain\"]", "[\"wrong.file\", \"wrong.own\", \"wrong.int\"]");
    place.write("wrong/plugin.ron", lock);
    place.write(
        "wrong/plugin.cpp",
        r#"#include "kino.hpp"
            static kino::Value file(const kino::Cx &cx) { return cx.read_file("secrets.txt"); }
            static double own(const kino::Cx &) { return double(std::vector<int>{}.at(3)); }
            static double number(const kino::Cx &) { throw 7; }
            KINO_PLUGIN(kino::node("wrong.file", "1", "", file).output("bytes"),
                        kino::node("wrong.own", "1", "", own).output("number"),
                        kino::node("wrong.int", "1", "", number).output("number"))"#,
    );
    place.good(&["plugin", "build", "wrong"]);
    let run = |op: &str| {
        place.write(
            "wrong/g.ron",
            format!(
                r#"Graph(version: 1, nodes: {{"node": (op: "{op}")}}, outputs: {{"out": "node"}})"#
            ),
        );
        refused(&place.kino(&["run", "wrong/g.ron", "--json"]))
    };
    let err = run("wrong.file");
    assert!(err.contains("secrets.txt") && err.contains("may not be read"), "{err}");
    assert!(err.contains("nothing was granted"), "its hint: {err}");
    let err = run("wrong.own");
    assert!(err.contains("vector") && err.contains("a bug of the plugin"), "{err}");
    assert!(run("wrong.int").contains("no std::exception"));
}

/// What a plugin tries in vain ends as its error, or finds nothing; the command serves on.
fn abuses_end(language: &str, list: &[(&str, Result<&str, &str>)]) {
    let Some(place) = with_component(language) else { return };
    place.good(&["plugin", "trust", language, "--dev", "--seconds", "4", "--memory", "512MB"]);
    for (what, expected) in list {
        let ran = node(&place, &format!("{language}.abuse"), &format!(r#""what": "{what}""#));
        match expected {
            Ok(text) => assert!(given(&ran).contains(text), "{what}: {}", ran.out),
            Err(text) => assert!(refused(&ran).contains(text), "{what}: {}", ran.out),
        }
    }
    assert!(!Path::new("/tmp/escaped").exists());
    // The same component serves on.
    assert!(given(&node(&place, &format!("{language}.join"), r#""text": "a""#)).contains("aa"));
}

#[test]
fn what_python_may_not_do_ends_as_its_error() {
    let abuses = [
        ("file", Err("/etc/passwd")),
        ("write", Err("/tmp/escaped")),
        ("folder", Err("No such file or directory")),
        ("environment", Ok("{}")),
        ("arguments", Ok("[]")),
        ("stdin", Ok("")),
        ("socket", Err("which plugins may not use")),
        ("dns", Err("which plugins may not use")),
        ("http", Err("which plugins may not use")),
        ("process", Err("Error")),
        ("system", Err("Error")),
        ("thread", Err("can't start new thread")),
        ("exit", Err("it ended itself")),
        ("sys_exit", Err("")),
        ("loop", Err("it took longer than the 4 s")),
        ("sleep", Err("it took longer than the 4 s")),
        ("recursion", Err("")),
        ("memory", Err("")),
        ("tensors", Err("left of its memory")),
        ("handles", Err("more than 65536 values")),
        ("dropped", Ok("all were given back")),
        ("clock", Ok("2000-01-01")),
    ];
    abuses_end("python", &abuses);
}

#[test]
fn what_javascript_may_not_do_ends_as_its_error() {
    let abuses = [
        ("file", Ok("")),
        ("http", Err("fetch is not defined")),
        ("process", Err("process")),
        ("exit", Err("quit")),
        ("loop", Err("it took longer than the 4 s")),
        ("recursion", Err("")),
        ("memory", Err("")),
        ("tensors", Err("left of its memory")),
        ("handles", Err("more than 65536 values")),
        ("dropped", Ok("all were given back")),
        ("clock", Ok("2000-01-01")),
    ];
    abuses_end("js", &abuses);
}

/// Builds follow each other under a graph that is watched: whole ones, halves, garbage, none. Each
/// whole one runs what depends on it and takes over what the one before saved.
fn reloads(language: &str, generations: u8) {
    let Some(place) = with_component(language) else { return };
    let file = format!("plugins/{language}/{language}.wasm");
    let component = fs::read(place.path(&file)).unwrap();
    // A custom section that nobody reads: its id, its length, and a name of one letter.
    let build = |number: u8| [&component[..], &[0, 3, 1, b'b', number]].concat();
    place.write(
        "g.ron",
        format!(
            r#"Graph(version: 1, nodes: {{
                "other": (op: "math", with: {{"a": 1, "b": 2}}),
                "count": (op: "{language}.count", in: {{"of": "other"}}),
            }}, outputs: {{"runs": "count.runs", "restored": "count.restored"}})"#
        ),
    );
    let mut watch = Watching::start(&place, &["g.ron"]);
    let counted = |seen: &[serde_json::Value], name: &str| {
        event(seen, "outputs")["outputs"][name].as_i64().unwrap()
    };
    assert_eq!((counted(&watch.first, "runs"), counted(&watch.first, "restored")), (1, 0));
    for generation in 1..=generations {
        if generation % 3 == 1 {
            let broken = match generation % 2 {
                0 => component[..component.len() / 2].to_vec(),
                _ => b"garbage".to_vec(),
            };
            let seen = watch.after(|| drop(place.write(&file, broken)));
            assert!(event(&seen, "diagnostics").to_string().contains(language), "{seen:#?}");
            assert_eq!(evaluated(&seen), [""; 0]);
        }
        let newer = place.write("newer", build(generation));
        let seen = watch.after(|| fs::rename(newer, place.path(&file)).unwrap());
        assert_eq!(evaluated(&seen), ["count"], "generation {generation}");
        let found = (counted(&seen, "runs"), counted(&seen, "restored"));
        assert_eq!(found, (1, generation.into()), "generation {generation}");
    }
    assert_eq!(watch.count("started", "other"), 1, "what is before the plugin ran once");
    assert_eq!(watch.interrupt(), Some(130));
}

/// A long form by `KINO_RELOADS`, the number of builds.
fn generations(short: u8) -> u8 {
    std::env::var("KINO_RELOADS").map_or(short, |number| number.parse().unwrap())
}

#[test]
fn builds_in_javascript_follow_each_other() {
    reloads("js", generations(5));
}

/// Each of them is compiled, which takes seconds.
#[test]
fn builds_in_python_follow_each_other() {
    reloads("python", generations(2));
}

/// The build of 2.0, which every later host must run: never build it again.
#[test]
fn a_component_in_javascript_that_was_built_for_2_0_runs() {
    let stored = Path::new(LANGUAGES_FOLDER).join("compiled/js-2.0.wasm");
    let bytes = fs::read(&stored).unwrap();
    let sha256 = include_str!("../../../plugins/wasm/tests/compiled/js-2.0.wasm.sha256").trim();
    assert_eq!(kino_host::sha256_of(&bytes), sha256, "it was built again");
    let Some(place) = with_component("js") else { return };
    place.write("plugins/js/js.wasm", bytes);
    assert!(given(&node(&place, "js.join", r#""text": "ab""#)).contains("abab"));
    halves(&place, "js");
    // Without a cache of results a component is compiled once, too.
    let run = |cache: &str| {
        let args = ["run", "g.ron", "--out", "out", "--no-cache"];
        let ran =
            Ran::of(place.command(&args).env("KINO_CACHE", place.path(cache)).output().unwrap());
        assert_eq!(ran.code, 0, "{}", ran.err);
        let files = place.files(cache);
        files.into_iter().filter(|file| file.ends_with(".compiled")).collect::<Vec<_>>()
    };
    let kept = run("fresh");
    assert_eq!(kept.len(), 1, "{kept:?}");
    // Whoever uses it says so in its time; what is written anew is another file.
    let file = || fs::metadata(place.path(&format!("fresh/{}", kept[0]))).unwrap().ino();
    let before = file();
    assert_eq!((run("fresh"), file()), (kept.clone(), before));
}

/// A place where a component that was kept is trusted.
fn with_kept(id: &str, manifest: &Path, component: &[u8]) -> Place {
    let place = Place::sharing_cache("languages");
    place.write(&format!("plugins/{id}/plugin.ron"), fs::read(manifest).unwrap());
    place.write(&format!("plugins/{id}/{id}.wasm"), component);
    place.good(&["plugin", "trust", id]);
    place
}

/// Runs the gain of a component, and holds each pixel against half of what went in.
fn halves(place: &Place, id: &str) {
    place.write("photo.png", common::picture(40));
    place.write("g.ron", graph(id));
    place.good(&["run", "g.ron", "--out", "out"]);
    let expected = pixels_of(&common::picture(40)).into_iter().map(|x| f64::from(x) * 0.5);
    for (found, expected) in pixels(&place.path("out/out.png")).into_iter().zip(expected) {
        assert!((f64::from(found) - expected).abs() <= 1.0, "{found}, {expected}");
    }
}

/// The example in C, as it was built for 2.0: never build it again.
#[test]
fn a_component_in_c_that_was_built_for_2_0_runs() {
    let stored = Path::new(LANGUAGES_FOLDER).join("compiled/c-2.0.wasm");
    let bytes = fs::read(&stored).unwrap();
    let sha256 = include_str!("../../../plugins/wasm/tests/compiled/c-2.0.wasm.sha256").trim();
    assert_eq!(kino_host::sha256_of(&bytes), sha256, "it was built again");
    let manifest = Path::new(EXAMPLES).join("c_component/plugin.ron");
    let place = with_kept("c", &manifest, &bytes);
    assert!(given(&node(&place, "c.join", r#""text": "ab""#)).contains("abab"));
    assert!(given(&node(&place, "c.count", r#""of": 1"#)).contains('0'));
    let refused = refused(&node(&place, "c.read", r#""path": "secrets.txt""#));
    assert!(
        refused.contains("secrets.txt") && refused.contains("nothing was granted"),
        "{refused}"
    );
    halves(&place, "c");
}

/// What was written in Python for 2.0, with the world of then; `plugins/wasm/tests/README.md` says
/// why its component is built.
#[test]
fn a_component_in_python_that_was_written_for_2_0_runs() {
    let folder = Path::new(LANGUAGES_FOLDER).join("languages/python-2.0");
    let read = |file: &str| fs::read(folder.join(file)).unwrap();
    let sources = [read("node.py"), read("wit/kino-plugin.wit")].concat();
    let sha256 = String::from_utf8(read("sha256")).unwrap();
    assert_eq!(kino_host::sha256_of(&sources), sha256.trim(), "what was written for 2.0 changed");
    let Some(built) = component("python-2.0") else { return };
    let place = with_kept("old", &folder.join("plugin.ron"), &fs::read(built).unwrap());
    assert!(given(&node(&place, "old.join", r#""text": "ab""#)).contains("abab"));
    assert!(given(&node(&place, "old.echo", r#""value": 7"#)).contains('7'));
    assert!(given(&node(&place, "old.count", r#""of": 1"#)).contains('0'));
    let refused = refused(&node(&place, "old.refuse", ""));
    assert!(refused.contains("the table has no row") && refused.contains("add one"), "{refused}");
    halves(&place, "old");
}

/// What StarlingMonkey makes of the same source, with its default flags.
#[test]
fn what_componentize_js_makes_by_default_runs() {
    let Some(starling) = component("starling") else { return };
    let Some(place) = with_component("js") else { return };
    place.write("plugins/js/js.wasm", fs::read(starling).unwrap());
    assert!(given(&node(&place, "js.join", r#""text": "ab""#)).contains("abab"));
    let err = refused(&node(&place, "js.own_error", ""));
    assert!(err.contains("TypeError") && err.contains("node.js:"), "{err}");
    assert!(refused(&node(&place, "js.host_error", r#""which": "op""#)).contains("sqare"));
}

// The examples, `plugins/examples/languages`.

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/examples/languages");

/// Runs a graph and returns its outputs.
#[track_caller]
fn outputs(place: &Place, graph: &str) -> serde_json::Value {
    place.write("g.ron", graph);
    let ran = place.kino(&["run", "g.ron", "--json", "--out", "out"]);
    assert_eq!(ran.code, 0, "{}\n{}", ran.out, ran.err);
    let lines: Vec<serde_json::Value> =
        ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    event(&lines, "outputs")["outputs"].clone()
}

#[test]
fn the_example_in_cpp_holds_the_check_and_computes_what_it_says() {
    if !has("c++") {
        return;
    }
    let place = Place::new();
    let folder = place.path("plugins/motion");
    place.write(
        "plugins/motion/plugin.ron",
        fs::read(format!("{EXAMPLES}/cpp/plugin.ron")).unwrap(),
    );
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins");
    let library = format!("{}motion{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let built = Command::new("c++")
        .args([
            "-std=c++17",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Werror",
            "-fPIC",
            "-shared",
        ])
        .args([&format!("-I{root}/sdk/cpp"), &format!("-I{root}/abi/include"), "-o"])
        .arg(folder.join(library))
        .arg(format!("{EXAMPLES}/cpp/trail.cpp"))
        .status();
    assert!(built.unwrap().success());
    let held = place.good(&["plugin", "check", "plugins/motion", "--native", "--seed", "3"]);
    assert!(held.contains("cases held") && !held.contains("never ran"), "{held}");
    place.good(&["plugin", "trust", "motion", "--native"]);
    // Each sample of the second picture is 20 of 255 brighter.
    place.write("a.png", common::picture(40));
    place.write("b.png", common::picture(60));
    let graph = |first: &str, second: &str| {
        format!(
            r#"Graph(version: 1, nodes: {{
                "first": (op: "image.read", with: {{"path": "{first}.png"}}),
                "second": (op: "image.read", with: {{"path": "{second}.png"}}),
                "both": (op: "frames.concat", in: {{"parts": ["first", "second"]}}),
                "trail": (op: "motion.trail", in: {{"frames": "both"}}, with: {{"fade": 1.0}}),
                "motion": (op: "motion.measure", in: {{"frames": "trail"}}),
            }}, outputs: {{"motion": "motion"}})"#
        )
    };
    let motion = |first, second| outputs(&place, &graph(first, second))["motion"].to_string();
    assert!(motion("a", "b").contains("0.078"), "{}", motion("a", "b"));
    // What was bright stays: nothing changes.
    assert!(!motion("b", "a").contains("0.078"), "{}", motion("b", "a"));
}

#[test]
fn the_example_in_zig_holds_the_check_and_computes_what_it_says() {
    if !has("zig") {
        return;
    }
    let place = Place::new();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins");
    let (plugin, example) = ("plugins/zed", format!("{EXAMPLES}/zig"));
    let sources = [
        ("plugin.ron", format!("{example}/plugin.ron")),
        ("plugin.zig", format!("{example}/plugin.zig")),
        ("kino.zig", format!("{root}/sdk/zig/kino.zig")),
        ("kino_plugin.h", format!("{root}/abi/include/kino_plugin.h")),
    ];
    for (name, from) in sources {
        place.write(&format!("{plugin}/{name}"), fs::read(from).unwrap());
    }
    let library = format!("{}zed{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let zig = |args: &[&str]| {
        let ran = Command::new("zig").args(args).current_dir(place.path(plugin)).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        ran.stdout
    };
    let contract = zig(&["translate-c", "-lc", "kino_plugin.h"]);
    place.write(&format!("{plugin}/contract.zig"), contract);
    let out = format!("-femit-bin={library}");
    zig(&["build-lib", "-dynamic", "-O", "ReleaseSafe", "-lc", &out, "plugin.zig"]);
    let held = place.good(&["plugin", "check", plugin, "--native", "--seed", "3"]);
    assert!(held.contains("cases held") && !held.contains("never ran"), "{held}");
    place.good(&["plugin", "trust", "zed", "--native"]);
    let found = outputs(
        &place,
        r#"Graph(version: 1, nodes: {
            "one": (op: "math", with: {"a": 1.0}), "four": (op: "math", with: {"a": 4.0}),
            "two": (op: "zed.mean", in: {"numbers": ["one", "four"]}, with: {"more": 1.0}),
            "steps": (op: "zed.steps", with: {"most": 3}),
            "count": (op: "zed.count", in: {"of": "steps"}),
        }, outputs: {"two": "two", "steps": "steps", "count": "count"})"#,
    );
    assert_eq!((found["two"].as_f64(), found["count"].as_i64()), (Some(2.0), Some(0)));
    let steps = found["steps"].to_string();
    assert!(steps.contains('0') && steps.contains('2') && !steps.contains('3'), "{steps}");
}

#[test]
fn the_example_in_python_holds_the_check_and_computes_what_it_says() {
    let Some(looks) = component("looks") else { return };
    let place = Place::sharing_cache("languages");
    place.write(
        "plugins/looks/plugin.ron",
        fs::read(format!("{EXAMPLES}/python/plugin.ron")).unwrap(),
    );
    place.write("plugins/looks/looks.wasm", fs::read(looks).unwrap());
    let held = place.good(&["plugin", "check", "plugins/looks", "--seed", "3"]);
    assert!(held.contains("cases held") && !held.contains("never ran"), "{held}");
    place.good(&["plugin", "trust", "looks"]);
    // A scale of 1 is what classifier-free guidance of 1 is.
    let graph = |guider: &str| {
        format!(
            r#"Graph(version: 1, nodes: {{
                "model": (op: "model.load", with: {{"source": "embedded:shapes"}}),
                "text": (op: "text.encode", in: {{"encoder": "model.text_encoder"}},
                    with: {{"prompt": "a red circle"}}),
                "noise": (op: "latent.noise", in: {{"vae": "model.vae"}},
                    with: {{"width": 32, "height": 32, "frames": 1, "seed": 7}}),
                "patches": (op: "patchify", in: {{"latents": "noise", "dit": "model.dit"}}),
                "guider": {guider},
                "sample": (op: "dit.sample", with: {{"steps": 3}}, in: {{"dit": "model.dit",
                    "patches": "patches", "text": "text", "guider": "guider"}}),
                "latent": (op: "unpatchify", in: {{"patches": "sample.patches"}}),
                "frames": (op: "vae.decode", in: {{"vae": "model.vae", "latent": "latent"}}),
                "film": (op: "looks.film", in: {{"frames": "frames"}}, with: {{"amount": 0.0}}),
                "file": (op: "image.write", in: {{"frames": "film"}}, with: {{"path": "out.png"}}),
            }}, outputs: {{"file": "file"}})"#
        )
    };
    let picture = |guider: &str| {
        outputs(&place, &graph(guider));
        pixels(&place.path("out/out.png"))
    };
    let ours = picture(r#"(op: "looks.fading", with: {"scale": 1.0})"#);
    let plain = picture(r#"(op: "guide.cfg", with: {"scale": 1.0})"#);
    let far = ours.iter().zip(&plain).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(far <= 2, "{far}");
    let strong = picture(r#"(op: "looks.fading", with: {"scale": 12.0})"#);
    assert_ne!(strong, ours);
}
