//! `--allow-read`: a graph of somebody else reads what lies in its folder and in those that are
//! named, and nothing else.
#![cfg(unix)]

mod common;

use std::os::unix::fs::symlink;

use common::{Place, picture};

/// A component with a node that reads a file.
#[cfg(feature = "wasm")]
const COMPONENT: &[u8] = include_bytes!("../../../plugins/wasm/tests/components/guests.wasm");

fn graph(path: &str) -> String {
    format!(
        r#"Graph(version: 1, nodes: {{
            "in": (op: "image.read", with: {{"path": "{path}"}}),
            "out": (op: "image.write", in: {{"frames": "in"}}, with: {{"path": "x.png"}}),
        }})"#
    )
}

/// What was said, in one line without a frame.
fn said(err: &str) -> String {
    let words = err.split_whitespace().filter(|word| !["×", "│", "help:"].contains(word));
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_graph_reads_its_own_folder_and_those_that_are_named() {
    let place = Place::new();
    place.write("job/in.png", picture(1));
    place.write("secret/in.png", picture(2));
    place.write("data/in.png", picture(3));
    symlink(place.path("secret/in.png"), place.path("job/link.png")).unwrap();
    let secret = place.path("secret/in.png").display().to_string();
    for path in ["../secret/in.png", "link.png", &secret, "/proc/self/environ"] {
        place.write("job/g.ron", graph(path));
        for command in ["plan", "run"] {
            let err = said(&place.bad(2, &[command, "job/g.ron", "--allow-read", "data"]));
            for part in ["`path` of `in`", "may not be read", "this run reads only what lies in"] {
                assert!(err.contains(part), "{command} {path}: {part} in {err}");
            }
            assert!(err.contains("`--allow-read DIR` names another folder"), "{err}");
        }
        assert!(!place.path("out").exists(), "nothing ran");
        if !path.starts_with("/proc") {
            place.good(&["plan", "job/g.ron"]);
            place.good(&["plan", "job/g.ron", "--allow-read", "data", "--allow-read", "secret"]);
        }
    }
    for path in ["in.png", "../data/in.png", "./link/../in.png"] {
        place.write("job/g.ron", graph(path));
        std::fs::create_dir_all(place.path("job/link")).unwrap();
        place.good(&["run", "job/g.ron", "--allow-read", "data"]);
    }
    // A built-in graph, with what is inside the binary.
    place.good(&["plan", "text_to_video", "--allow-read", "data"]);
}

/// What a lock file grants to a plugin reaches no farther than what the run may read.
#[cfg(feature = "wasm")]
#[test]
fn what_was_granted_to_a_plugin_is_bounded_too() {
    let place = Place::new();
    place.write("secret/a.txt", "secret");
    place.write("guests.wasm", COMPONENT);
    place.good(&["plugin", "add", "guests.wasm"]);
    place.write("job/luts/a.txt", "granted");
    let trust = ["plugin", "trust", "guests", "--folder", "job", "--read", "luts"];
    place.good(&trust);
    place.write(
        "job/g.ron",
        r#"Graph(version: 1, nodes: {
            "x": (op: "good.file", with: {"x": "luts/a.txt"}),
        }, outputs: {"x": "x"})"#,
    );
    let out = place.good(&["run", "job/g.ron", "--allow-read", "job"]);
    assert!(out.contains("granted"), "{out}");
    // The folder becomes a link, by whoever wrote the graph.
    std::fs::rename(place.path("job/luts"), place.path("job/before")).unwrap();
    symlink(place.path("secret"), place.path("job/luts")).unwrap();
    for command in ["plan", "run"] {
        let err = said(&place.bad(2, &[command, "job/g.ron", "--allow-read", "job"]));
        assert!(err.contains("`x`: what the plugin `guests` was granted"), "{err}");
        assert!(err.contains("luts may not be read: it leads to"), "{err}");
        assert!(!err.contains("secret/a.txt"), "{err}");
    }
    place.good(&["run", "job/g.ron", "--allow-read", "secret"]);
}
