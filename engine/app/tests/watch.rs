//! `kino watch`: what is evaluated after which change, and what is survived. Time is never
//! asserted.

mod common;
mod watching;

use std::fs;
use std::io::Write;
use std::thread::sleep;
use std::time::Duration;

use common::{Place, event, picture};
use watching::{Watching, evaluated, replace};

/// Two branches, with a number from each: `left` and `right`.
fn numbers(left: i32, right: i32) -> String {
    format!(
        r#"Graph(version: 1, nodes: {{
            "one":   (op: "math", with: {{"a": 1, "b": {left}}}),
            "left":  (op: "math", in: {{"a": "one"}}, with: {{"b": 100}}),
            "right": (op: "math", with: {{"a": 1000, "b": {right}}}),
        }}, outputs: {{"left": "left", "right": "right"}})"#
    )
}

const POSTER: &str = r#"Graph(version: 1, nodes: {
    "photo": (op: "image.read", with: {"path": "in/photo.png"}),
    "large": (op: "upscale", in: {"frames": "photo"}, with: {"factor": 2}),
    "other": (op: "math", with: {"a": 1, "b": 2}),
    "file":  (op: "image.write", in: {"frames": "large"}, with: {"path": "{graph}.png"}),
}, outputs: {"file": "file", "other": "other"})"#;

#[test]
fn every_way_to_save_runs_what_changed_and_nothing_else() {
    let place = Place::new();
    let graph = place.write("g.ron", numbers(2, 3));
    let mut watch = Watching::start(&place, &["g.ron"]);
    assert_eq!(evaluated(&watch.first), ["left", "one", "right"]);

    let seen = watch.after(|| fs::write(&graph, numbers(5, 3)).unwrap());
    assert_eq!(evaluated(&seen), ["left", "one"], "written");
    assert_eq!(event(&seen, "outputs")["outputs"]["left"], 106.0);
    let changed = &event(&seen, "changed")["paths"][0];
    assert_eq!((&changed["path"], &changed["change"]), (&"g.ron".into(), &"changed".into()));
    let diff = event(&seen, "diff");
    assert_eq!(diff["changes"][0]["why"][0], "b 2 → 5");
    assert_eq!(diff["changes"][1]["why"][0], "one changed");
    assert_eq!((&diff["changes"][1]["status"], &diff["unchanged"]), (&"run".into(), &1.into()));

    let seen = watch.after(|| replace(&graph, &numbers(5, 4)));
    assert_eq!(evaluated(&seen), ["right"], "another file took its name");

    let seen = watch.after(|| {
        fs::rename(&graph, place.path("g.ron~")).unwrap();
        fs::write(&graph, numbers(6, 4)).unwrap();
        fs::remove_file(place.path("g.ron~")).unwrap();
    });
    assert_eq!(evaluated(&seen), ["left", "one"], "as vim saves");

    let seen = watch.after(|| {
        let text = numbers(6, 7);
        let (half, rest) = text.split_at(90);
        let mut file = fs::File::create(&graph).unwrap();
        file.write_all(half.as_bytes()).unwrap();
        file.flush().unwrap();
        sleep(Duration::from_millis(400));
        file.write_all(rest.as_bytes()).unwrap();
    });
    assert_eq!(evaluated(&seen), ["right"], "written by halves");
    if cfg!(target_os = "linux") {
        assert!(!seen.iter().any(|line| line["event"] == "diagnostics"), "{seen:#?}");
    }

    let seen = watch.after(|| fs::write(&graph, numbers(2, 3)).unwrap());
    assert_eq!(evaluated(&seen), [""; 0], "all of this was computed before");
    assert_eq!(event(&seen, "outputs")["outputs"]["right"], 1003.0);
    let text = format!("// A comment.\n{}", numbers(2, 3));
    let seen = watch.after(|| fs::write(&graph, text).unwrap());
    assert!(!seen.iter().any(|line| line["event"] == "planned"), "nothing runs: {seen:#?}");
    assert_eq!(watch.interrupt(), Some(130));
}

#[test]
fn a_burst_of_saves_ends_with_the_last() {
    let place = Place::new();
    let graph = place.write("g.ron", numbers(0, 0));
    let mut watch = Watching::start(&place, &["g.ron"]);
    for turn in 1..=60 {
        match turn % 3 {
            0 => replace(&graph, &numbers(turn, 0)),
            _ => fs::write(&graph, numbers(turn, 0)).unwrap(),
        }
    }
    watch.until(|line| line["event"] == "outputs" && line["outputs"]["left"] == 161.0);
    let (left, right) = (watch.count("finished", "left"), watch.count("started", "right"));
    assert!(left < 60, "not every save is a run: {left}");
    assert_eq!(right, 1, "the other branch ran once");
}

#[test]
fn a_broken_graph_leaves_the_last_good_one() {
    let place = Place::new();
    place.write("in/photo.png", picture(0));
    let graph = place.write("g.ron", POSTER);
    let mut watch = Watching::start(&place, &["g.ron"]);

    let broken = POSTER.replace("\"factor\"", "\"facto\"");
    let seen = watch.after(|| fs::write(&graph, &broken).unwrap());
    let problem = &event(&seen, "diagnostics")["diagnostics"][0];
    assert_eq!((&problem["code"], &problem["file"]), (&"unknown-port".into(), &"g.ron".into()));
    assert_eq!(evaluated(&seen), [""; 0]);

    let seen = watch.after(|| fs::write(place.path("in/photo.png"), picture(9)).unwrap());
    assert_eq!(evaluated(&seen), ["file", "large", "photo"], "the last valid graph goes on");
    let seen = watch.after(|| fs::write(&graph, POSTER.replace("2}),\n", "0}),\n")).unwrap());
    assert_eq!(event(&seen, "diagnostics")["diagnostics"][0]["severity"], "error");
    let seen = watch.after(|| fs::write(&graph, "no graph at all").unwrap());
    assert_eq!(evaluated(&seen), [""; 0]);

    let mended = POSTER.replace("\"factor\": 2", "\"factor\": 3");
    let seen = watch.after(|| fs::write(&graph, &mended).unwrap());
    assert_eq!(evaluated(&seen), ["file", "large"]);
    let large = fs::read(place.path("out/g.png")).unwrap();
    let seen = watch.after(|| fs::remove_file(&graph).unwrap());
    assert_eq!(event(&seen, "changed")["paths"][0]["change"], "vanished");
    assert!(event(&seen, "diagnostics")["diagnostics"][0]["message"] != "");
    let seen = watch.after(|| fs::write(&graph, &mended).unwrap());
    assert_eq!(evaluated(&seen), [""; 0], "it came back as it was");
    assert!(fs::read(place.path("out/g.png")).unwrap() == large);
}

#[test]
fn an_input_that_changes_or_vanishes_runs_what_reads_it() {
    let place = Place::new();
    let photo = place.write("in/photo.png", picture(0));
    place.write("g.ron", POSTER);
    let mut watch = Watching::start(&place, &["g.ron"]);
    assert_eq!(evaluated(&watch.first), ["file", "large", "other", "photo"]);
    let first = fs::read(place.path("out/g.png")).unwrap();

    let seen = watch.after(|| fs::write(&photo, picture(50)).unwrap());
    assert_eq!(evaluated(&seen), ["file", "large", "photo"]);
    assert_eq!(event(&seen, "diff")["changes"][0]["why"][0], "in/photo.png changed");
    assert!(fs::read(place.path("out/g.png")).unwrap() != first);
    let seen = watch.after(|| fs::remove_dir_all(place.path("in")).unwrap());
    assert_eq!(event(&seen, "diagnostics")["diagnostics"][0]["code"], "plan");
    let seen = watch.after(|| drop(place.write("in/photo.png", picture(90))));
    assert_eq!(evaluated(&seen), ["file", "large", "photo"]);
    let seen = watch.after(|| replace(&photo, "no picture"));
    assert_eq!(evaluated(&seen), [""; 0], "{seen:#?}");
}

#[test]
fn what_is_missing_at_first_is_waited_for() {
    let place = Place::new();
    let graph = place.write("g.ron", "Graph(version: 1, nodes: ");
    let mut watch = Watching::start(&place, &["g.ron"]);
    assert_eq!(event(&watch.first, "diagnostics")["diagnostics"][0]["severity"], "error");
    let seen = watch.after(|| fs::write(&graph, POSTER).unwrap());
    assert_eq!(event(&seen, "diagnostics")["diagnostics"][0]["code"], "plan");
    let seen = watch.after(|| drop(place.write("in/photo.png", picture(1))));
    assert_eq!(evaluated(&seen), ["file", "large", "other", "photo"]);
    assert_eq!(watch.interrupt(), Some(130));

    let said = place.bad(2, &["watch", "none.ron"]);
    assert!(said.contains("there is no file none.ron"), "{said}");
    assert!(place.bad(2, &["watch", "-"]).contains("cannot be watched"));
}

#[test]
fn graphs_used_as_nodes_are_watched() {
    let place = Place::new();
    let inner = |b: i32| {
        format!(
            r#"Graph(version: 1, inputs: {{"a": (type: "Real")}}, nodes: {{
                "sum": (op: "math", in: {{"a": "inputs.a"}}, with: {{"b": {b}}})}}, outputs: {{"sum": "sum"}})"#
        )
    };
    place.write(
        "g.ron",
        r#"Graph(version: 1, nodes: {
            "one": (op: "math", with: {"a": 1, "b": 1}),
            "sub": (op: "./parts/inner.ron", in: {"a": "one"}),
        }, outputs: {"sum": "sub"})"#,
    );
    let mut watch = Watching::start(&place, &["g.ron"]);
    assert!(event(&watch.first, "diagnostics")["diagnostics"][0]["message"] != "");
    let seen = watch.after(|| drop(place.write("parts/inner.ron", inner(5))));
    assert_eq!(evaluated(&seen), ["one", "sub/sum"]);
    let seen = watch.after(|| replace(&place.path("parts/inner.ron"), &inner(7)));
    assert_eq!(evaluated(&seen), ["sub/sum"]);
    assert_eq!(event(&seen, "outputs")["outputs"]["sum"], 9.0);
    let seen = watch.after(|| fs::remove_file(place.path("parts/inner.ron")).unwrap());
    assert!(event(&seen, "diagnostics")["diagnostics"][0]["message"] != "");
    let seen = watch.after(|| drop(place.write("parts/inner.ron", inner(8))));
    assert_eq!(evaluated(&seen), ["sub/sum"]);
}

#[test]
fn a_random_seed_is_drawn_once() {
    let place = Place::new();
    let graph = |width: u32| {
        format!(
            r#"Graph(version: 1, nodes: {{
            "model": (op: "model.load", with: {{"source": "embedded:shapes"}}),
            "noise": (op: "latent.noise", in: {{"vae": "model.vae"}},
                      with: {{"width": 32, "height": 32, "seed": "random"}}),
            "frames": (op: "vae.decode", in: {{"vae": "model.vae", "latent": "noise"}}),
            "small": (op: "frames.resize", in: {{"frames": "frames"}},
                      with: {{"width": {width}, "height": 8}}),
        }}, outputs: {{"small": "small"}})"#
        )
    };
    let file = place.write("g.ron", graph(8));
    let mut watch = Watching::start(&place, &["g.ron"]);
    assert_eq!(evaluated(&watch.first), ["frames", "model", "noise", "small"]);
    let seen = watch.after(|| fs::write(&file, graph(16)).unwrap());
    assert_eq!(evaluated(&seen), ["small"]);
}
