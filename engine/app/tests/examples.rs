//! The graphs with plugins: each runs with the component in the tree, pinned by the lock file
//! beside it, and nothing is computed a second time.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use common::Place;
use serde_json::Value;

fn graphs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../graphs")
}

/// Runs a graph and gives the nodes that were computed, and the file that was written, if one was.
fn run(place: &Place, graph: &str) -> (BTreeSet<String>, Option<PathBuf>) {
    let path = graphs().join(graph);
    let out = place.good(&["run", &path.to_string_lossy(), "--locked", "--json"]);
    let events: Vec<Value> =
        out.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let started = events.iter().filter(|event| event["event"] == "started");
    let ops = started.filter_map(|event| event["op"].as_str().map(str::to_owned)).collect();
    let file = events.iter().find_map(|event| event["files"][0]["path"].as_str());
    (ops, file.map(|file| place.path(file)))
}

#[track_caller]
fn check(graph: &str, op: &str) {
    let place = Place::new();
    let (computed, file) = run(&place, graph);
    assert!(computed.contains(op), "{computed:?}");
    assert!(std::fs::metadata(file.expect("a file")).unwrap().len() > 1000);
    let (again, _) = run(&place, graph);
    // A text that is an output is looked up again; nothing else is.
    assert!(again.is_empty() || again.iter().eq([op]), "{again:?}");
}

#[test]
fn film_grain() {
    check("film_grain.ron", "film.grain");
}

#[test]
fn color_lut() {
    check("color_lut.ron", "color.lut");
}

#[test]
fn optical_flow_blend() {
    check("optical_flow_blend.ron", "motion.interpolate");
}

#[test]
fn prompt_expand() {
    check("prompt_expand.ron", "prompt.expand");
}

#[test]
fn sigmas_karras() {
    check("sigmas_karras.ron", "sigmas.karras");
}

#[test]
fn guide_apg() {
    check("guide_apg.ron", "guide.apg");
}

/// A mask made by a component leads an inpainting: outside of it the clip stays as it was.
#[test]
fn color_key() {
    check("color_key.ron", "key.color");
}

/// What is given of a clip can be made by a component, too.
#[test]
fn given_keys() {
    check("given_keys.ron", "given.keys");
}

/// The colours change only where the table does: reading what was not granted fails by name.
#[test]
fn a_table_elsewhere_is_refused() {
    let place = Place::new();
    let graph = graphs().join("color_lut.ron");
    let secret = place.write("secret.cube", "LUT_3D_SIZE 2\n");
    for path in ["../README.md", "rules/shapes.txt", &secret.to_string_lossy()] {
        let set = format!("table={path}");
        let args = ["run", &graph.to_string_lossy(), "--locked", "--set", &set];
        let said = place.bad(1, &args);
        assert!(said.contains("may not be read"), "{path}: {said}");
    }
}
