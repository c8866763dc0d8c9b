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
            let plain = said(&place.bad(2, &[command, "job/g.ron"]));
            assert!(plain.contains("this run reads only what lies in"), "{plain}");
            let err = said(&place.bad(2, &[command, "job/g.ron", "--allow-read", "data"]));
            for part in ["`path` of `in`", "may not be read", "this run reads only what lies in"] {
                assert!(err.contains(part), "{command} {path}: {part} in {err}");
            }
            assert!(err.contains("`--allow-read DIR` names another folder"), "{err}");
        }
        assert!(!place.path("out").exists(), "nothing ran");
        if !path.starts_with("/proc") {
            place.good(&["plan", "job/g.ron", "--allow-read", "secret"]);
            // It is remembered, for graphs of this folder.
            place.good(&["plan", "job/g.ron"]);
            place.write("other/g.ron", graph(path));
            symlink(place.path("secret/in.png"), place.path("other/link.png")).ok();
            let err = said(&place.bad(2, &["plan", "other/g.ron"]));
            assert!(err.contains("may not be read"), "{err}");
            std::fs::remove_file(place.path("data/consent.ron")).unwrap();
        }
    }
    for path in ["in.png", "../data/in.png", "./link/../in.png"] {
        place.write("job/g.ron", graph(path));
        std::fs::create_dir_all(place.path("job/link")).unwrap();
        place.good(&["run", "job/g.ron", "--allow-read", "data"]);
    }
    // What the user gives is the user's own.
    place.write(
        "job/given.ron",
        r#"Graph(version: 1, inputs: {"image": (type: "Path")}, nodes: {
            "in": (op: "image.read", in: {"path": "inputs.image"}),
            "out": (op: "image.write", in: {"frames": "in"}, with: {"path": "given.png"}),
        })"#,
    );
    place.good(&["plan", "job/given.ron", "--set", &format!("image={secret}")]);
    // A file of a sweep is given, too; a text is none, whatever folder it happens to name.
    let sweep = ["--sweep", "image=in.png", "--sweep", &format!("image={secret}")];
    place.good(&[["run", "job/given.ron"].as_slice(), &sweep].concat());
    place.write(
        "job/text.ron",
        format!(
            r#"Graph(version: 1, inputs: {{"text": (type: "Text", default: "")}}, nodes: {{
                "in": (op: "image.read", with: {{"path": "{secret}"}}),
                "out": (op: "image.write", in: {{"frames": "in"}}, with: {{"path": "x.png"}}),
            }})"#
        ),
    );
    for text in ["/", "..", "a, /, b", "../secret", "red, .., blue"] {
        let err = said(&place.bad(2, &["plan", "job/text.ron", "--set", &format!("text={text}")]));
        assert!(err.contains("may not be read"), "{text}: {err}");
    }
    // A built-in graph, with what is inside the binary.
    place.good(&["plan", "text_to_video", "--allow-read", "data"]);
}

/// A graph that is used is read as a picture is: what lies elsewhere is neither shown nor carried
/// off in a file.
#[test]
fn graphs_that_a_graph_uses_lie_in_its_folder() {
    let place = Place::new();
    let part = r#"Graph(version: 1, nodes: {"p": (op: "text.join", with: {"parts": ["secret"]})},
        outputs: {"text": "p"})"#;
    place.write("secret/part.ron", part);
    place.write("secret/key.ron", "-----BEGIN PRIVATE KEY-----");
    place.write("job/own.ron", part);
    symlink(place.path("secret/part.ron"), place.path("job/link.ron")).unwrap();
    symlink(place.path("secret/key.ron"), place.path("job/key.ron")).unwrap();
    symlink("/proc/self/environ", place.path("job/environ.ron")).unwrap();
    let uses = |op: &str| {
        format!(
            r#"Graph(version: 1, nodes: {{
                "s": (op: "{op}"),
                "f": (op: "text.join", in: {{"parts": ["s.text"]}}),
            }})"#
        )
    };
    let repeats = r#"Graph(version: 1, nodes: {
        "s": (op: "repeat", with: {"graph": "../secret/key.ron", "times": 2}),
    })"#;
    for op in ["../secret/part.ron", "./link.ron", "./key.ron", "./environ.ron", "repeat"] {
        place.write("job/g.ron", if op == "repeat" { repeats.to_owned() } else { uses(op) });
        for command in ["check", "plan", "run", "draw"] {
            let err = said(&place.bad(2, &[command, "job/g.ron"]));
            assert!(err.contains("may not be read"), "{command} {op}: {err}");
            assert!(!err.contains("BEGIN") && !err.contains("PATH="), "{command} {op}: {err}");
        }
    }
    place.write("job/g.ron", uses("./own.ron"));
    place.good(&["check", "job/g.ron"]);
    place.write("job/g.ron", uses("../secret/part.ron"));
    place.good(&["check", "job/g.ron", "--allow-read", "secret"]);
    place.good(&["plan", "job/g.ron"]);
    // What was agreed to can be looked at, and taken back.
    let listed = place.json(&["consent", "list"]);
    let secret = place.path("secret").canonicalize().unwrap().display().to_string();
    assert_eq!(listed[0]["graphs"][0]["read"][0], secret, "{listed:?}");
    assert!(place.good(&["consent", "list"]).contains(&secret));
    assert!(place.bad(2, &["consent", "withdraw", "job", "data"]).contains("were not allowed"));
    place.good(&["consent", "withdraw", "job", "secret"]);
    let err = said(&place.bad(2, &["plan", "job/g.ron"]));
    assert!(err.contains("may not be read"), "{err}");
    assert!(place.good(&["consent", "list"]).contains("agreed to nothing"));
    // What the system shows of itself nobody agrees to.
    place.write("job/g.ron", uses("./environ.ron"));
    let err = said(&place.bad(2, &["check", "job/g.ron", "--allow-read", "/proc"]));
    assert!(err.contains("no graph reads there") && !err.contains("PATH="), "{err}");
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
        let err = said(&place.bad(2, &[command, "job/g.ron", "--allow-read", "secret"]));
        assert!(err.contains("may read `luts` by the lock file, which leads to"), "{err}");
        assert!(err.contains("kino plugin trust guests --read luts"), "{err}");
        assert!(!err.contains("secret/a.txt"), "{err}");
    }
    let shown = place.good(&["plugin", "show", "guests", "--folder", "job"]);
    assert!(
        shown.contains("luts -> ") && shown.contains("outside of the graph's folder"),
        "{shown}"
    );
    let out = place.good(&trust);
    assert!(out.contains("it may read luts -> "), "{out}");
    let out = place.good(&["run", "job/g.ron"]);
    assert!(out.contains("secret"), "{out}");
    // Turned once more, to where nobody agreed to; and to what no plugin reads.
    for (to, why) in
        [("data", "you have not agreed to that"), ("/proc/self", "no plugin reads there")]
    {
        std::fs::remove_file(place.path("job/luts")).unwrap();
        let to = if to.starts_with('/') { to.into() } else { place.path(to) };
        symlink(to, place.path("job/luts")).unwrap();
        let err = said(&place.bad(2, &["run", "job/g.ron"]));
        assert!(err.contains(why), "{err}");
    }
    assert!(said(&place.bad(2, &trust)).contains("no plugin reads there, whoever agrees"));
    place.good(&["plugin", "untrust", "guests", "--folder", "job"]);
    assert!(place.bad(2, &["run", "job/g.ron"]).contains("is not trusted"));
    place.good(&["plugin", "remove", "guests"]);
    assert!(!place.path("data/plugins/guests").exists());
}
