//! Pipes and devices in the place of files: a command says so at once instead of waiting for ever.

#![cfg(unix)]

mod common;

use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Place, Ran};

/// Longer than any of these commands takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with `pipe.NAME`, which nobody writes to, and `zero.NAME`, which never ends.
fn place(names: &[&str]) -> Place {
    let place = Place::new();
    for name in names {
        let made = Command::new("mkfifo").arg(place.path(&format!("pipe.{name}"))).status();
        assert!(made.unwrap().success());
        symlink("/dev/zero", place.path(&format!("zero.{name}"))).unwrap();
    }
    place
}

/// Runs a command that must end by itself.
#[track_caller]
fn ends(place: &Place, args: &[&str]) -> Ran {
    let mut command = place.command(args);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{args:?} did not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ran::of(child.wait_with_output().unwrap())
}

#[track_caller]
fn refused(place: &Place, args: &[&str], file: &str, found: &str) {
    refused_as(place, args, file, &format!("expected a file, found {found}"));
}

fn refused_as(place: &Place, args: &[&str], file: &str, expected: &str) {
    let ran = ends(place, args);
    assert_eq!(ran.code, 2, "{args:?}\n{}\n{}", ran.out, ran.err);
    // As one line, whatever the width at which it was broken.
    let said = ran.err.replace('│', " ");
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains(expected) && said.contains(file), "{args:?}\n{}", ran.err);
}

const FOUND: [(&str, &str); 2] = [("pipe", "a pipe"), ("zero", "a device")];

#[test]
fn as_a_graph() {
    let place = place(&["ron"]);
    for (name, found) in FOUND {
        let file = format!("{name}.ron");
        for command in ["check", "plan", "run"] {
            refused(&place, &[command, &file], &file, found);
        }
    }
    refused(&place, &["check", "/dev/zero"], "/dev/zero", "a device");
}

#[test]
fn as_a_graph_that_another_one_uses() {
    let place = place(&["ron"]);
    for (name, found) in FOUND {
        let file = format!("{name}.ron");
        let graph = format!(
            r#"Graph(version: 1, nodes: {{"inner": (op: "./{file}")}}, outputs: {{"a": "inner.a"}})"#
        );
        place.write("outer.ron", graph);
        match found {
            // It is a link out of the folder, which is not followed.
            "a device" => {
                refused_as(&place, &["check", "outer.ron"], &file, "it leads to /dev/zero");
            }
            _ => refused(&place, &["check", "outer.ron"], &file, found),
        }
    }
}

#[test]
fn as_an_input() {
    let place = place(&["png", "safetensors"]);
    for (name, found) in FOUND {
        for (op, file, with, output) in [
            ("image.read", format!("{name}.png"), "", "frames"),
            ("video.read", format!("{name}.png"), "", "frames"),
            ("tensor.read", format!("{name}.safetensors"), r#", "name": "x""#, "tensor"),
        ] {
            let graph = format!(
                r#"Graph(version: 1, nodes: {{"read": (op: "{op}", with: {{"path": "{file}"{with}}})}},
                    outputs: {{"a": "read.{output}"}})"#
            );
            place.write("reads.ron", graph);
            for command in ["plan", "run"] {
                match found {
                    // A link out of the graph's folder.
                    "a device" => {
                        let expected = "may not be read: it leads to /dev/zero";
                        refused_as(&place, &[command, "reads.ron"], &file, expected);
                    }
                    found => refused(&place, &[command, "reads.ron"], &file, found),
                }
            }
        }
    }
}

#[test]
fn as_a_model() {
    let place = place(&["safetensors"]);
    for (name, _) in FOUND {
        let graph = format!(
            r#"Graph(version: 1, nodes: {{"model": (op: "model.load",
                with: {{"source": "./{name}.safetensors"}}),
                "noise": (op: "latent.noise", in: {{"vae": "model.vae"}})}},
                outputs: {{"a": "noise"}})"#
        );
        place.write("model.ron", graph);
        let ran = ends(&place, &["plan", "model.ron"]);
        assert_eq!(ran.code, 2, "{}", ran.err);
        assert!(ran.err.contains("safetensors"), "{}", ran.err);
    }
}

/// What decides on plugins, and plugins themselves: none is waited for.
#[test]
fn as_what_belongs_to_a_plugin() {
    let graph = r#"Graph(version: 1, nodes: {"x": (op: "bad.gain")}, outputs: {"a": "x"})"#;
    let manifest = r#"Plugin(id: "bad", version: "1", nodes: ["bad.gain"], wasm: "bad.wasm")"#;
    for (name, found) in FOUND {
        let place = place(&["any"]);
        place.write("graph.ron", graph);
        let as_file = |file: &str| {
            let to = place.path(file);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            symlink(place.path(&format!("{name}.any")), to).unwrap();
        };
        as_file("plugins/bad/bad.wasm");
        place.write("plugins/bad/plugin.ron", manifest);
        refused(&place, &["plugin", "trust", "bad"], "bad.wasm", found);
        as_file("kino.lock.ron");
        for args in [&["check", "graph.ron"][..], &["run", "graph.ron"], &["plugin", "list"]] {
            refused(&place, args, "kino.lock.ron", found);
        }
        std::fs::remove_file(place.path("kino.lock.ron")).unwrap();
        as_file("data/native.ron");
        refused(&place, &["plugin", "list"], "native.ron", found);
    }
}

/// A component of more bytes than any has is not read into memory.
#[test]
fn a_plugin_of_any_size_is_none() {
    let place = Place::new();
    let manifest = r#"Plugin(id: "bad", version: "1", nodes: ["bad.gain"], wasm: "bad.wasm")"#;
    place.write("plugins/bad/plugin.ron", manifest);
    let file = std::fs::File::create(place.path("plugins/bad/bad.wasm")).unwrap();
    file.set_len(1 << 40).unwrap();
    let ran = ends(&place, &["plugin", "trust", "bad"]);
    assert_eq!(ran.code, 2, "{}", ran.err);
    assert!(ran.err.contains("is larger than"), "{}", ran.err);
}

#[test]
fn as_a_file_to_show() {
    let place = place(&["png"]);
    for (name, found) in FOUND {
        let file = format!("{name}.png");
        refused(&place, &["show", &file], &file, found);
    }
}
