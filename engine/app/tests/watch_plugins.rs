//! `kino watch` and plugins: a new build, a broken one, trust, grants. Time is never asserted.

mod common;
mod watching;

use std::fs;

use common::{Place, event};
use watching::{Watching, evaluated};

const GRAIN: &[u8] = include_bytes!("../../../plugins/examples/film_grain/film_grain.wasm");
const GRAIN_MANIFEST: &str = include_str!("../../../plugins/examples/film_grain/plugin.ron");
const EXPAND: &[u8] = include_bytes!("../../../plugins/examples/prompt_expand/prompt_expand.wasm");
const EXPAND_MANIFEST: &str = include_str!("../../../plugins/examples/prompt_expand/plugin.ron");

const GRAPH: &str = r#"Graph(version: 1, nodes: {
    "photo": (op: "image.read", with: {"path": "photo.png"}),
    "grain": (op: "film.grain", in: {"frames": "photo"}),
    "file":  (op: "image.write", in: {"frames": "grain"}, with: {"path": "{graph}.png"}),
    "other": (op: "math", with: {"a": 1, "b": 2}),
}, outputs: {"file": "file", "other": "other"})"#;

/// Another build: a section is appended that nobody reads.
fn build(component: &[u8], number: u8) -> Vec<u8> {
    // A custom section: its id, its length, and a name of one letter.
    [component, &[0, 3, 1, b'b', number]].concat()
}

fn place() -> Place {
    let place = Place::new();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 4, 3);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&[90; 36]).unwrap();
    place.write("photo.png", bytes);
    place.write("g.ron", GRAPH);
    place.write("plugins/film_grain/plugin.ron", GRAIN_MANIFEST);
    place.write("plugins/film_grain/film_grain.wasm", GRAIN);
    place
}

#[test]
fn a_new_build_runs_what_depends_on_it_and_a_broken_one_leaves_the_last() {
    let place = place();
    place.good(&["plugin", "trust", "film_grain", "--dev"]);
    let artifact = place.path("plugins/film_grain/film_grain.wasm");
    let mut watch = Watching::start(&place, &["g.ron"]);
    assert_eq!(evaluated(&watch.first), ["file", "grain", "other", "photo"]);

    let seen = watch.after(|| fs::write(&artifact, build(GRAIN, 1)).unwrap());
    let mut computed = evaluated(&seen);
    // The file stands there with the same picture: whether it is written again does not matter.
    computed.retain(|name| name != "file");
    assert_eq!(computed, ["grain"], "overwritten");
    let why = event(&seen, "diff")["changes"].to_string();
    assert!(why.contains("grain") && why.contains("build"), "{why}");

    let seen = watch.after(|| fs::write(&artifact, &GRAIN[..GRAIN.len() / 2]).unwrap());
    assert_eq!(evaluated(&seen), [""; 0], "half of it");
    let said = event(&seen, "diagnostics").to_string();
    assert!(said.contains("film_grain"), "{said}");

    let seen = watch.after(|| {
        let newer = place.write("newer", build(GRAIN, 2));
        fs::rename(newer, &artifact).unwrap();
    });
    assert!(evaluated(&seen).contains(&"grain".to_owned()), "renamed over: {seen:#?}");

    let seen = watch.after(|| fs::remove_file(&artifact).unwrap());
    assert!(event(&seen, "diagnostics").to_string().contains("is not built"));
    let seen = watch.after(|| fs::write(&artifact, build(GRAIN, 2)).unwrap());
    assert_eq!(evaluated(&seen), [""; 0], "the build of before is back");
    assert_eq!(watch.count("started", "photo"), 1, "what is before the plugin ran once");
    assert_eq!(watch.interrupt(), Some(130));
}

#[test]
fn what_is_not_trusted_runs_once_it_is() {
    let place = place();
    let mut watch = Watching::start(&place, &["g.ron", "--locked"]);
    assert!(event(&watch.first, "diagnostics").to_string().contains("is not trusted"));
    let seen = watch.after(|| {
        place.good(&["plugin", "trust", "film_grain"]);
    });
    assert!(evaluated(&seen).contains(&"grain".to_owned()), "{seen:#?}");
    let artifact = place.path("plugins/film_grain/film_grain.wasm");
    let seen = watch.after(|| fs::write(&artifact, build(GRAIN, 1)).unwrap());
    assert!(event(&seen, "diagnostics").to_string().contains("has changed"));
    assert_eq!(evaluated(&seen), [""; 0], "a build that nobody accepted");
}

#[test]
fn a_plugin_that_is_added_or_mended_is_found() {
    let place = place();
    fs::remove_dir_all(place.path("plugins")).unwrap();
    place.write("mine/plugin.ron", "Plugin(");
    place.write("mine/film_grain.wasm", GRAIN);
    let mut watch = Watching::start(&place, &["g.ron"]);
    assert!(event(&watch.first, "diagnostics").to_string().contains("film.grain"));
    let seen = watch.after(|| {
        place.write("mine/plugin.ron", GRAIN_MANIFEST);
        place.good(&["plugin", "add", "mine"]);
    });
    assert!(evaluated(&seen).contains(&"grain".to_owned()), "{seen:#?}");
}

#[test]
fn a_granted_file_that_changes_runs_the_nodes_that_may_read_it() {
    let place = Place::new();
    place.write("plugins/prompt_expand/plugin.ron", EXPAND_MANIFEST);
    place.write("plugins/prompt_expand/prompt_expand.wasm", EXPAND);
    place.write("rules/style.txt", "cat = a small cat\n");
    place.write(
        "g.ron",
        r#"Graph(version: 1, nodes: {
            "long": (op: "prompt.expand", with: {"text": "cat", "rules": "rules/style.txt"}),
            "other": (op: "math", with: {"a": 1, "b": 2}),
        }, outputs: {"long": "long", "other": "other"})"#,
    );
    place.good(&["plugin", "trust", "prompt_expand"]);
    let mut watch = Watching::start(&place, &["g.ron"]);
    let text = |seen: &[serde_json::Value]| event(seen, "outputs")["outputs"]["long"].to_string();
    assert!(text(&watch.first).contains("small cat"), "{:#?}", watch.first);
    let seen = watch.after(|| drop(place.write("rules/style.txt", "cat = a large cat\n")));
    assert_eq!(evaluated(&seen), ["long"]);
    assert!(text(&seen).contains("large cat"), "{seen:#?}");
    let seen = watch.after(|| drop(place.write("rules/more.txt", "dog = a dog\n")));
    assert_eq!(evaluated(&seen), ["long"], "another file that it may read");
}
