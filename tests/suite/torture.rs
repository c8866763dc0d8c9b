//! A hundred generations of one native plugin under a running graph, between runs and while they
//! are under way.
//!
//! The plugin keeps thread-locals with destructors, detached threads that read tensors which they
//! were lent, and tensors that outlive their generation. Its artifact is renamed over, overwritten
//! in place, cut off, replaced by garbage, and removed on the way. New code runs every time; what
//! does not depend on it is not evaluated again; nothing crashes.

#![cfg(all(unix, target_pointer_width = "64"))]

use std::fs;
use std::path::{Path, PathBuf};

use kino_node::Value;
use kino_session::{Engine, Event, Graph, Report, inputs};

const GENERATIONS: usize = 100;

/// Everything but `step` and `after` stays what it is.
const GRAPH: &str = r#"Graph(
    version: 1,
    inputs: {"wait": (type: "Int", default: 0)},
    nodes: {
        "model": (op: "model.load", with: {"source": "embedded:shapes"}),
        "text": (op: "text.encode", in: {"encoder": "model.text_encoder"},
            with: {"prompt": "a red circle"}),
        "step": (op: "torture.step", in: {"tensor": "text", "wait": "inputs.wait"}),
        "after": (op: "math", in: {"a": "step.generation"}, with: {"b": 1000.0}),
    },
    outputs: {"text": "text", "generation": "step.generation", "runs": "step.runs",
        "tensor": "step.tensor", "after": "after"},
)"#;

/// A plugin's build of a generation.
fn build(folder: &Path, generation: usize) -> PathBuf {
    let defines =
        [format!("GENERATION={generation}"), format!("ENDS=\"{}\"", ends(folder).display())];
    let library = folder.join(format!("generation{generation}.so"));
    kino_tests::compile_c("torture/generation.c", &library, &defines);
    library
}

/// Where each build notes that it was told to shut down.
fn ends(folder: &Path) -> PathBuf {
    folder.join("ends")
}

/// An engine whose plugin is replaced again and again.
struct Rig {
    engine: Engine,
    /// The last revision that loaded.
    graph: Option<Graph>,
    artifact: PathBuf,
    folder: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path();
        let artifact =
            kino_tests::trust_native(place, &place.join("data"), "torture", "torture.step");
        fs::write(place.join("torture.ron"), GRAPH).expect("a graph");
        let engine = kino_tests::engine(place).no_cache().build().expect("an engine");
        Rig { engine, graph: None, artifact, folder }
    }

    /// Takes on what stands at the artifact's path.
    ///
    /// # Errors
    /// When it is no plugin; the engine keeps what it has.
    fn reload(&mut self) -> kino_session::Result<()> {
        let graph = self.folder.path().join("torture.ron");
        self.graph = Some(self.engine.open(&graph)?);
        Ok(())
    }

    fn graph(&self) -> &Graph {
        self.graph.as_ref().expect("it was loaded")
    }

    /// Runs the graph as it stands; every node must succeed.
    fn run(&self) -> Report {
        let run = self.graph().run(inputs! {}).out(self.folder.path().join("out"));
        let done = run.start().and_then(|run| run.wait());
        done.unwrap_or_else(|problems| panic!("{problems}")).report.clone()
    }
}

fn int(report: &Report, output: &str) -> i128 {
    match report.output(output) {
        Some(Value::Int(int)) => *int,
        other => panic!("{output}: {other:?}"),
    }
}

/// Puts a build where the engine looks, in one of the ways in which files are replaced; leaves
/// something else there for a while first, which the engine must refuse.
fn replace(rig: &mut Rig, build: &Path, generation: usize) {
    let whole = fs::read(build).expect("the build");
    let must_refuse = |rig: &mut Rig| assert!(rig.reload().is_err(), "generation {generation}");
    match generation % 5 {
        0 => {
            fs::write(&rig.artifact, &whole[..whole.len() / 3]).unwrap();
            must_refuse(rig);
            fs::write(&rig.artifact, &whole).unwrap();
        }
        1 => fs::rename(build, &rig.artifact).unwrap(),
        2 => {
            fs::write(&rig.artifact, b"not a library").unwrap();
            must_refuse(rig);
            fs::write(&rig.artifact, &whole).unwrap();
        }
        3 => {
            let _ = fs::remove_file(&rig.artifact);
            must_refuse(rig);
            fs::rename(build, &rig.artifact).unwrap();
        }
        _ => {
            // Over a longer file, then cut to its length: the tail of the old one stays for a while.
            fs::write(&rig.artifact, [&whole[..], &[7; 4096]].concat()).unwrap();
            fs::write(&rig.artifact, &whole[..whole.len() - 5]).unwrap();
            must_refuse(rig);
            fs::write(&rig.artifact, &whole).unwrap();
        }
    }
}

#[test]
fn a_hundred_generations_under_a_running_graph() {
    let builds = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::new();
    let mut kept: Vec<(usize, Value)> = Vec::new();
    let mut runs = 0;
    for generation in 1..=GENERATIONS {
        let build = build(builds.path(), generation);
        replace(&mut rig, &build, generation);
        rig.reload().unwrap_or_else(|error| panic!("generation {generation}: {error}"));
        let report = rig.run();
        runs += 1;
        let evaluated: Vec<_> = report.evaluated.iter().map(|name| &**name).collect();
        let expected: &[&str] =
            if generation == 1 { &["model", "text", "step", "after"] } else { &["step", "after"] };
        assert_eq!(evaluated, expected, "generation {generation}");
        assert_eq!(int(&report, "generation"), generation as i128);
        assert_eq!(int(&report, "runs"), runs, "state is taken over, generation {generation}");
        kept.push((generation, report.output("tensor").expect("a tensor").clone()));
        assert!(rig.run().evaluated.is_empty(), "nothing has changed");
    }
    let ended = fs::read_to_string(ends(builds.path())).expect("builds that have ended");
    let ended: Vec<usize> = ended.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(ended, (1..GENERATIONS).collect::<Vec<_>>(), "each is told to shut down, once");
    for (generation, value) in kept {
        let numbers: Vec<f32> = value.tensor().unwrap().to_vec1().unwrap();
        assert!(numbers.len() == 1024 && numbers.iter().all(|n| *n == generation as f32));
    }
}

/// The artifact is replaced, in every way, while a step of the build before is running.
#[test]
fn a_run_in_flight_keeps_the_generation_that_it_began_with() {
    let builds = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::new();
    let mut in_flight = 0;
    for generation in (1..GENERATIONS).step_by(2) {
        let [first, next] = [generation, generation + 1].map(|it| build(builds.path(), it));
        fs::rename(&first, &rig.artifact).unwrap();
        rig.reload().unwrap();
        let (began, begins) = std::sync::mpsc::channel();
        let run = rig.graph().run(inputs! { "wait" => 100 + generation });
        let run = run.out(rig.folder.path().join("out")).on_event(move |event| {
            if let Event::Started { name, .. } = event.event
                && &*name == "step"
            {
                let _ = began.send(());
            }
        });
        let run = run.start().expect("it starts");
        begins.recv().expect("the step began");
        replace(&mut rig, &next, generation / 2);
        rig.reload().unwrap_or_else(|error| panic!("generation {}: {error}", generation + 1));
        in_flight += usize::from(!run.is_done());
        let slow = run.wait().unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(int(&slow.report, "generation"), generation as i128);
        let report = rig.run();
        assert_eq!(int(&report, "generation"), generation as i128 + 1);
    }
    assert!(in_flight > GENERATIONS / 4, "{in_flight} runs were under way when builds came");
}
