//! `kino watch` while something runs: what goes on, what is cancelled, what stays loaded, and how
//! it ends.

mod common;
mod watching;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Stdio;

use common::{Place, QUICK, event};
use serde_json::Value;
use watching::{Watching, evaluated, replace};

fn of_node(line: &Value, kind: &str, node: &str) -> bool {
    line["event"] == kind && line["name"] == node
}

/// A graph that samples for a while, written to `g.ron`.
fn slow(place: &Place) -> String {
    place.good(&["init", "text_to_video"]);
    let text = fs::read_to_string(place.path("text_to_video.ron")).unwrap();
    let text = text.replace("default: 20", "default: 60");
    place.write("g.ron", &text);
    text
}

#[test]
fn a_step_under_way_that_is_still_needed_goes_on() {
    let place = Place::new();
    let text = slow(&place);
    let mut watch = Watching::begin(&place, &["g.ron", "--set", "steps=60"]);
    watch.until(|line| of_node(line, "progress", "sample") && line["step"] == 2);
    fs::write(place.path("g.ron"), text.replace("\"factor\": 4", "\"factor\": 2")).unwrap();
    let seen = watch.until(|line| line["event"] == "waiting");
    let changes = &event(&seen, "diff")["changes"];
    assert_eq!(changes[0]["name"], "large", "{changes}");
    let ends: Vec<_> = seen.iter().filter(|line| line["event"] == "done").collect();
    assert_eq!(ends.len(), 2, "{ends:?}");
    assert_eq!((&ends[0]["run"], &ends[0]["cancelled"]), (&1.into(), &true.into()));
    assert_eq!((&ends[1]["run"], &ends[1]["cancelled"]), (&2.into(), &false.into()));
    assert_eq!(watch.count("started", "sample"), 1, "it is not begun again");
    assert_eq!(watch.count("started", "text"), 1);
    let taken_over = |line: &&Value| of_node(line, "finished", "sample") && line["run"] == 2;
    assert_eq!(seen.iter().find(taken_over).unwrap()["cached"], "memory");
    // The number of the run that made way stays unused.
    assert_eq!(place.files("out"), ["g-4-002.mp4"]);
}

#[test]
fn a_step_under_way_that_became_stale_is_cancelled() {
    let place = Place::new();
    let text = slow(&place);
    let mut watch = Watching::begin(&place, &["g.ron", "--set", "steps=200"]);
    watch.until(|line| of_node(line, "progress", "sample") && line["step"] == 2);
    replace(&place.path("g.ron"), &text.replace("default: 4.0", "default: 3.0"));
    let seen = watch.until(|line| of_node(line, "started", "sample") && line["run"] == 2);
    assert_eq!(event(&seen, "diff")["changes"][0]["name"], "sample");
    let first = |line: &&Value| of_node(line, "finished", "sample");
    assert!(!watch.seen.iter().any(|line| first(&line)));
    assert_eq!(watch.count("started", "text"), 1, "what did not change stays");
    assert_eq!(watch.interrupt(), Some(130));
    assert_eq!(place.files("out"), Vec::<String>::new());
}

/// How often weights of a part were read.
fn weights_read(place: &Place) -> usize {
    fs::read_to_string(place.path("log")).unwrap().matches("Weights read").count()
}

#[test]
fn weights_stay_loaded() {
    let place = Place::new();
    let text = slow(&place);
    let args = [&["g.ron", "-v", "--no-cache"][..], &QUICK].concat();
    let mut watch = Watching::start(&place, &args);
    let loaded = weights_read(&place);
    assert!(loaded >= 3, "text encoder, transformer, autoencoder: {loaded}");
    for seed in 100..103 {
        let seeded = format!("\"seed\": (type: \"Int\", default: {seed},");
        let other = text.replace(r#""seed": (type: "Int", default: 4,"#, &seeded);
        assert_ne!(other, text);
        let seen = watch.after(|| replace(&place.path("g.ron"), &other));
        let expected = ["file", "frames", "large", "latent", "noise", "patches", "sample"];
        assert_eq!(evaluated(&seen), expected);
    }
    assert_eq!(weights_read(&place), loaded);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn a_model_folder_is_watched_with_all_its_files() {
    let place = Place::new();
    let shapes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../nodes/shapes/model");
    copy(&shapes, &place.path("model"));
    place.write(
        "g.ron",
        r#"Graph(version: 1, nodes: {
            "model": (op: "model.load", with: {"source": "model"}),
            "text":  (op: "text.encode", in: {"encoder": "model.text_encoder"}, with: {"prompt": "a red circle"}),
            "other": (op: "math", with: {"a": 1, "b": 1}),
        }, outputs: {"text": "text", "other": "other"})"#,
    );
    let mut watch = Watching::start(&place, &["g.ron", "--no-cache"]);
    assert_eq!(evaluated(&watch.first), ["model", "other", "text"]);
    let config = place.path("model/text_encoder/config.json");
    let text = fs::read_to_string(&config).unwrap();
    let seen = watch.after(|| fs::write(&config, format!("{text} \n")).unwrap());
    assert_eq!(evaluated(&seen), ["model", "text"]);
    assert_eq!(event(&seen, "diff")["changes"][0]["why"][0], "model changed");
    let seen = watch.after(|| fs::write(&config, "{ no json").unwrap());
    assert!(event(&seen, "diagnostics")["diagnostics"][0]["message"] != "");
    let seen = watch.after(|| replace(&config, &text));
    // The time of the file is part of what tells models apart, so this is neither of the two.
    assert!(["model", "text"].iter().any(|node| watch.count("started", node) >= 2), "{seen:#?}");
    let seen = watch.after(|| fs::rename(place.path("model"), place.path("away")).unwrap());
    assert_eq!(event(&seen, "diagnostics")["diagnostics"][0]["code"], "plan");
    watch.after(|| fs::rename(place.path("away"), place.path("model")).unwrap());
    assert_eq!(watch.interrupt(), Some(130));
}

#[test]
fn without_a_terminal_there_are_lines() {
    let place = Place::new();
    let graph = |b: i32| {
        format!(
            r#"Graph(version: 1, nodes: {{"sum": (op: "math", with: {{"a": 1, "b": {b}}})}}, outputs: {{"sum": "sum"}})"#
        )
    };
    place.write("g.ron", graph(1));
    let mut child = place.command(&["watch", "g.ron"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "sum = 2");
    fs::write(place.path("g.ron"), graph(4)).unwrap();
    assert_eq!(lines.next().unwrap(), "sum = 5");
    fs::write(place.path("g.ron"), "broken").unwrap();
    replace(&place.path("g.ron"), &graph(6));
    assert_eq!(lines.next().unwrap(), "sum = 7");
    child.kill().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    for line in ["watching g.ron", "g.ron changed", "~ sum: b 1 → 4", "sum  math"] {
        assert!(said.contains(line), "{line}\n{said}");
    }
}

#[test]
fn it_ends_when_nobody_reads_any_more() {
    let place = Place::new();
    place.write("g.ron", r#"Graph(version: 1, nodes: {"n": (op: "math", with: {"a": 1, "b": 1})}, outputs: {"n": "n"})"#);
    let mut child = place.command(&["watch", "--json", "g.ron"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    lines.find(|line| line.contains("\"waiting\"")).unwrap();
    drop(lines);
    fs::write(place.path("g.ron"), "changed").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
