//! What a run may read and write: refused in its plan, and again while it runs, whatever leads
//! there.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use kino_session::{Engine, Error, FilePolicy, Graph, Inputs, inputs};

/// A folder with `job/in.png`, which a graph there may read, and `secret/`, which it may not.
struct Place {
    folder: tempfile::TempDir,
}

fn png(path: &Path, side: usize) {
    let side = side as u32;
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), side, side);
    encoder.set_color(png::ColorType::Rgb);
    let pixels = vec![side as u8; (side * side * 3) as usize];
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["job/out", "secret/model"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        png(&folder.path().join("job/in.png"), 4);
        png(&folder.path().join("secret/in.png"), 6);
        Place { folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A graph in `job` with one input, `path`, which this node reads or writes.
    fn open(&self, engine: &Engine, node: &str) -> Graph {
        let text = format!(
            r#"Graph(version: 1, inputs: {{"path": (type: "Path", default: "in.png")}},
                nodes: {{{node}}}, outputs: {{"x": "x"}})"#
        );
        let opened = engine.open_text("job.ron", text, &self.at("job"));
        opened.unwrap_or_else(|error| panic!("{error}"))
    }

    fn image(&self, engine: &Engine) -> Graph {
        self.open(engine, r#""x": (op: "image.read", in: {"path": "inputs.path"})"#)
    }

    /// Reading within `job`, writing within `job/out`.
    fn policy(&self) -> FilePolicy {
        FilePolicy::default().read_within([self.at("job")]).write_within([self.at("job/out")])
    }
}

fn engine() -> Engine {
    Engine::builder().device("cpu").memory("1GB").no_cache().build().unwrap()
}

/// The one thing that stands against a plan: what, and what to do.
fn refused<T>(planned: Result<T, Error>) -> String {
    let Err(error) = planned else { panic!("it is refused") };
    format!("{error}\n{}", error.hint().unwrap_or_default())
}

fn with(path: impl AsRef<Path>) -> Inputs {
    inputs! { "path" => path.as_ref().display() }
}

#[test]
fn what_a_graph_reads_lies_where_its_run_may_read() {
    let place = Place::new();
    symlink(place.at("secret/in.png"), place.at("job/link.png")).unwrap();
    symlink(place.at("secret"), place.at("job/folder")).unwrap();
    symlink("in.png", place.at("job/own.png")).unwrap();
    let engine = engine();
    let graph = place.image(&engine);
    let run = |path: &Path| graph.run(with(path)).out(place.at("job/out")).policy(place.policy());
    for good in ["in.png", "own.png", "./in.png", "../job/in.png", "out/../in.png"] {
        let done = run(Path::new(good)).start().unwrap().wait();
        done.unwrap_or_else(|error| panic!("{good}: {error}"));
    }
    assert!(run(&place.at("job/in.png")).plan().is_ok(), "absolute, and within");
    for bad in [
        "../secret/in.png",
        "link.png",
        "folder/in.png",
        "folder/none.png",
        "/proc/self/environ",
        "/proc/self/fd/0",
        "/sys/kernel/notes",
        "/dev/zero",
        "/etc/passwd",
    ] {
        let told = refused(run(Path::new(bad)).plan());
        // The node, the path, what is allowed, how to allow it.
        let allowed = format!("this run reads only what lies in {}", place.at("job").display());
        for part in ["`x`", bad.trim_start_matches("../"), &allowed, "`FilePolicy::read_within`"] {
            assert!(told.contains(part), "{bad}: {part} in {told}");
        }
    }
    // A run without a policy reads what the user may read.
    assert!(graph.run(with("../secret/in.png")).plan().is_ok());
}

#[test]
fn an_engine_with_a_policy_narrows_all_that_it_opens() {
    let place = Place::new();
    let engine = engine();
    let narrow = engine.with_policy(&place.policy());
    let graph = place.image(&narrow);
    assert!(graph.plan(&with("in.png")).is_ok());
    assert!(graph.plan(&with("../secret/in.png")).is_err());
    // A run cannot widen it.
    let wide = FilePolicy::default().read_within([place.at("secret")]);
    assert!(graph.run(with("../secret/in.png")).policy(wide.clone()).plan().is_err());
    assert!(graph.run(with("in.png")).policy(wide).plan().is_err());
    assert!(place.image(&engine).plan(&with("../secret/in.png")).is_ok());
}

#[test]
fn a_graph_that_is_used_is_not_read_from_elsewhere() {
    let place = Place::new();
    let used = r#"Graph(version: 1, nodes: {"n": (op: "math", with: {"a": 1})},
        outputs: {"n": "n"})"#;
    fs::write(place.at("secret/used.ron"), used).unwrap();
    symlink(place.at("secret/used.ron"), place.at("job/link.ron")).unwrap();
    fs::write(place.at("job/own.ron"), used).unwrap();
    let engine = engine();
    let open = |engine: &Engine, op: &str| {
        let text =
            format!(r#"Graph(version: 1, nodes: {{"x": (op: "{op}")}}, outputs: {{"x": "x.n"}})"#);
        engine.open_text("job.ron", text, &place.at("job"))
    };
    let narrow = engine.with_policy(&place.policy());
    assert!(open(&narrow, "./own.ron").is_ok());
    for op in ["../secret/used.ron", "./link.ron"] {
        let told = refused(open(&narrow, op));
        assert!(told.contains("may not be read") && !told.contains("math"), "{told}");
        // One that was opened before its run was narrowed.
        let run = open(&engine, op).unwrap().run(inputs! {});
        let told = refused(run.policy(place.policy()).plan());
        assert!(told.contains("used.ron may not be read") || told.contains("link.ron"), "{told}");
    }
}

#[test]
fn a_model_is_read_where_its_run_may_read() {
    let place = Place::new();
    let engine = engine();
    let load = r#""x": (op: "model.load", in: {"source": "inputs.path"})"#;
    let text = format!(
        r#"Graph(version: 1, inputs: {{"path": (type: "Text", default: "embedded:shapes")}},
            nodes: {{{load}}}, outputs: {{"x": "x.vae"}})"#
    );
    let graph = engine.open_text("job.ron", text, &place.at("job")).unwrap();
    let plan = |path: &str, policy: FilePolicy| graph.run(with(path)).policy(policy).plan();
    assert!(plan("embedded:shapes", place.policy()).is_ok());
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../nodes/shapes/model");
    let model = model.canonicalize().unwrap();
    // A copy within the folder, one of whose files is a link.
    let copy = place.at("job/model");
    for part in ["", "transformer", "vae", "text_encoder", "tokenizer", "scheduler"] {
        fs::create_dir_all(copy.join(part)).unwrap();
        for entry in fs::read_dir(model.join(part)).unwrap().flatten() {
            if entry.path().is_file() {
                fs::copy(entry.path(), copy.join(part).join(entry.file_name())).unwrap();
            }
        }
    }
    assert!(plan("model", place.policy()).is_ok());
    let outside = model.display().to_string();
    // Open already, by a run that may read it.
    assert!(plan(&outside, FilePolicy::default()).is_ok());
    for path in [&*outside, "../secret/model", "../secret/none"] {
        let told = refused(plan(path, place.policy()));
        assert!(told.contains("may not be read"), "{path}: {told}");
    }
    let config = copy.join("vae/config.json");
    fs::rename(&config, place.at("secret/config.json")).unwrap();
    symlink(place.at("secret/config.json"), &config).unwrap();
    assert!(plan("model", FilePolicy::default()).is_ok());
    let told = refused(plan("model", place.policy()));
    assert!(told.contains("it leads to") && told.contains("secret/config.json"), "{told}");
}

#[test]
fn a_network_that_enlarges_is_read_where_its_run_may_read() {
    let place = Place::new();
    let engine = engine();
    let node = r#""in": (op: "image.read", with: {"path": "in.png"}),
        "x": (op: "upscale", in: {"frames": "in", "model": "inputs.path"}, with: {"factor": 4})"#;
    let text = format!(
        r#"Graph(version: 1, inputs: {{"path": (type: "Text", default: "video-x4")}},
            nodes: {{{node}}}, outputs: {{"x": "x"}})"#
    );
    let graph = engine.open_text("job.ron", text, &place.at("job")).unwrap();
    let plan = |path: &str| graph.run(with(path)).policy(place.policy()).plan();
    assert!(plan("video-x4").is_ok() && plan("lanczos").is_ok());
    symlink(place.at("secret"), place.at("job/folder")).unwrap();
    for path in ["../secret/in.png", "folder/in.png", "folder/none.safetensors", "/etc/passwd"] {
        let told = refused(plan(path));
        assert!(told.contains("`model` of `x`") && told.contains("may not be read"), "{told}");
    }
    let between = r#"Graph(version: 1, nodes: {
        "in": (op: "image.read", with: {"path": "in.png"}),
        "x": (op: "frames.interpolate", in: {"frames": "in"}, with: {"model": "folder/in.png"}),
    }, outputs: {"x": "x"})"#;
    let graph = engine.open_text("job.ron", between, &place.at("job")).unwrap();
    let told = refused(graph.run(inputs! {}).policy(place.policy()).plan());
    assert!(told.contains("`model` of `x`") && told.contains("may not be read"), "{told}");
}

const WRITE: &str = r#""frames": (op: "image.read", with: {"path": "in.png"}),
    "x": (op: "image.write", in: {"frames": "frames", "path": "inputs.path"})"#;

#[test]
fn what_a_graph_writes_lies_where_its_run_may_write() {
    let place = Place::new();
    let engine = engine();
    let graph = place.open(&engine, WRITE);
    let run = |out: &str| graph.run(with("new/x.png")).out(place.at(out)).policy(place.policy());
    run("job/out").start().unwrap().wait().unwrap_or_else(|error| panic!("{error}"));
    assert!(place.at("job/out/new/x.png").is_file());
    for out in ["job", "secret", "job/out/../.."] {
        let told = refused(run(out).plan());
        assert!(told.contains("`x`") && told.contains("this run writes only"), "{told}");
    }
    assert!(!place.at("secret/new").exists());
}

#[test]
fn runs_of_a_sweep_write_where_they_may() {
    let place = Place::new();
    let engine = engine();
    let graph = engine.open_text(
        "job.ron",
        r#"Graph(version: 1, inputs: {"side": (type: "Int", default: 8)}, nodes: {
            "frames": (op: "image.read", with: {"path": "in.png"}),
            "large": (op: "frames.resize", in: {"frames": "frames", "width": "inputs.side"},
                with: {"height": 8}),
            "x": (op: "image.write", in: {"frames": "large"}, with: {"path": "a/x.png"})},
            outputs: {"x": "x"})"#,
        &place.at("job"),
    );
    let graph = graph.unwrap_or_else(|error| panic!("{error}"));
    let sweep = |writes: &[&str]| {
        let folders = writes.iter().map(|name| place.at(name));
        let policy = FilePolicy::default().write_within(folders);
        let run = graph.run(inputs! {}).out(place.at("job/out")).policy(policy);
        run.sweep(&[("side".to_owned(), "8,16".to_owned())])
    };
    assert_eq!(sweep(&["job/out"]).unwrap().len(), 2);
    // Each file may be written by itself; the folders that keep them apart may not.
    let told = refused(sweep(&["job/out/a"]));
    assert!(told.contains("`x`") && told.contains("side=8/a/x.png"), "{told}");
}

/// Runs of one engine at once: each reads what its own policy allows, and what one has computed is
/// not handed to another whose plan would refuse it.
#[test]
fn runs_at_once_have_policies_of_their_own() {
    let place = Place::new();
    let engine = Engine::builder().device("cpu").memory("1GB").cache(place.at("cache"));
    let engine = engine.build().unwrap();
    let node = r#""x": (op: "image.read", in: {"path": "inputs.path"}),
        "large": (op: "frames.resize", in: {"frames": "x"}, with: {"width": 8, "height": 8}),
        "file": (op: "image.write", in: {"frames": "large"}, with: {"path": "x.png"})"#;
    let graph = place.open(&engine, node);
    let secret = FilePolicy::default().read_within([place.at("secret")]);
    let run = |path: &str, policy: &FilePolicy, out: usize| {
        let run = graph.run(with(path)).out(place.at(&format!("job/out/{out}")));
        run.policy(policy.clone()).start().unwrap().wait()
    };
    let (run, own, secret) = (&run, &place.policy(), &secret);
    std::thread::scope(|scope| {
        for turn in 0..8 {
            scope.spawn(move || {
                let out = turn * 4;
                assert!(run("in.png", own, out).is_ok());
                assert!(run("../secret/in.png", secret, out + 1).is_ok());
                assert!(refused(run("in.png", secret, out + 2)).contains("may not be read"));
                let told = refused(run("../secret/in.png", own, out + 3));
                assert!(told.contains("may not be read"), "{told}");
            });
        }
    });
}

/// What is computed and kept stays with those whose plans may read it: a result from memory, from
/// disk, and one that another run is computing right now.
#[test]
fn what_is_cached_is_not_handed_to_a_run_that_may_not_read_it() {
    let place = Place::new();
    for turn in 0..2 {
        let engine = Engine::builder().device("cpu").memory("1GB").cache(place.at("cache"));
        let engine = engine.build().unwrap();
        let graph = place.open(
            &engine,
            r#""read": (op: "image.read", in: {"path": "inputs.path"}),
                "x": (op: "frames.resize", in: {"frames": "read"},
                    with: {"width": 512, "height": 512})"#,
        );
        let run = |policy: FilePolicy| {
            graph.run(with("../secret/in.png")).policy(policy).start().unwrap().wait()
        };
        // First by nobody's leave, then from the caches of the runs before.
        let before = (turn == 0).then(|| refused(run(place.policy())));
        assert!(before.is_none_or(|told| told.contains("may not be read")));
        let wide = run(FilePolicy::default()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(wide.report.outputs.len(), 1);
        let told = refused(run(place.policy()));
        assert!(told.contains("secret/in.png may not be read"), "{told}");
    }
}

/// A link that is turned between the plan and the step is seen by the step.
#[test]
fn a_link_that_is_exchanged_after_the_plan_is_not_followed() {
    let place = Place::new();
    let engine = engine();
    let run = |node: &str, path: &str| {
        let run = place.open(&engine, node).run(with(path)).out(place.at("job/out"));
        run.policy(place.policy()).plan().unwrap_or_else(|error| panic!("{error}"))
    };
    // The second is the file that was planned, so that nothing but its place tells it.
    fs::hard_link(place.at("job/in.png"), place.at("secret/same.png")).unwrap();
    for (to, told) in [
        ("secret/in.png", "link.png changed while it ran"),
        ("secret/same.png", "may not be read: it leads to"),
    ] {
        let link = place.at("job/link.png");
        let _ = fs::remove_file(&link);
        symlink("in.png", &link).unwrap();
        let plan = run(r#""x": (op: "image.read", in: {"path": "inputs.path"})"#, "link.png");
        fs::remove_file(&link).unwrap();
        symlink(place.at(to), &link).unwrap();
        let error = plan.start().unwrap().wait().unwrap_err().to_string();
        assert!(error.contains("`x` (image.read)") && error.contains(told), "{error}");
    }
    // A folder in the way of what is written, likewise.
    let plan = run(WRITE, "new/x.png");
    symlink(place.at("secret"), place.at("job/out/new")).unwrap();
    let error = plan.start().unwrap().wait().unwrap_err().to_string();
    assert!(error.contains("through a link"), "{error}");
    assert!(!place.at("secret/x.png").exists());
}
