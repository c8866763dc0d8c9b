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
use std::sync::Arc;
use std::thread;

use kino_graph::{Graph, Plan, PlanSettings};
use kino_host::{Limits, NoFiles, Plugin, plugin_nodes};
use kino_native::{NativePlugin, TrustedLibrary};
use kino_node::{Registry, Value};
use kino_runtime::{Report, RunSpec, RuntimeOptions, StopSignal};
use kino_tests::Bench;
use kino_world::Folders;

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
    bench: Bench,
    artifact: PathBuf,
    plugin: Option<Arc<Plugin>>,
    _folder: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let folders = Folders { graph: folder.path().into(), out: folder.path().join("out") };
        let options = RuntimeOptions { memory_budget: 1 << 30, ..RuntimeOptions::default() };
        let bench = Bench::new(folders, options);
        let artifact = folder.path().join("libtorture.so");
        Rig { bench, artifact, plugin: None, _folder: folder }
    }

    /// Takes on what stands at the artifact's path.
    ///
    /// # Errors
    /// When it is no plugin; the engine keeps what it has.
    fn reload(&mut self) -> kino_node::Result<()> {
        let trusted = TrustedLibrary { path: &self.artifact, sha256: None };
        let native = NativePlugin::load(trusted)?;
        let sha256 = native.sha256().to_owned();
        let files = Arc::new(NoFiles);
        let plugin = Plugin::new("torture", sha256, Arc::new(native), files, Limits::default());
        if let Some(before) = &self.plugin {
            plugin.inherit(before);
        }
        let mut registry = Registry::of(kino_nodes::NODES);
        plugin_nodes(&plugin).into_iter().for_each(|node| registry.insert(node));
        self.bench.registry = Arc::new(registry);
        self.plugin = Some(plugin);
        Ok(())
    }

    fn plan(&self, wait: i128) -> Plan {
        struct None;
        impl kino_graph::GraphLoader for None {
            fn read(&self, path: &str) -> Result<String, String> {
                Err(path.to_owned())
            }
        }
        let catalog = self.bench.catalog();
        let graph: Graph = kino_graph::check("torture", GRAPH, &catalog, &None)
            .unwrap_or_else(|problems| panic!("{problems}"));
        let inputs = [("wait".to_owned(), kino_port::Literal::Int(wait))];
        let settings = PlanSettings {
            inputs: &inputs,
            until: Option::None,
            environment: b"test",
            draw: &|_| 1,
            stem: "torture",
            locate: Option::None,
        };
        graph.plan(&catalog, &settings).unwrap_or_else(|problems| panic!("{problems}"))
    }

    fn run(&self, plan: &Plan) -> Report {
        let report = self.bench.run(plan);
        assert!(report.is_complete(), "{:?}", report.failed);
        report
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
        let report = rig.run(&rig.plan(0));
        runs += 1;
        let evaluated: Vec<_> = report.evaluated.iter().map(|name| &**name).collect();
        let expected: &[&str] =
            if generation == 1 { &["model", "text", "step", "after"] } else { &["step", "after"] };
        assert_eq!(evaluated, expected, "generation {generation}");
        assert_eq!(int(&report, "generation"), generation as i128);
        assert_eq!(int(&report, "runs"), runs, "state is taken over, generation {generation}");
        kept.push((generation, report.output("tensor").expect("a tensor").clone()));
        assert!(rig.run(&rig.plan(0)).evaluated.is_empty(), "nothing has changed");
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
        let plan = rig.plan(100 + generation as i128);
        let registry = Arc::clone(&rig.bench.registry);
        let services = Arc::clone(&rig.bench.services);
        let runtime = Arc::clone(&rig.bench.runtime);
        let (began, begins) = std::sync::mpsc::channel();
        let run = thread::spawn(move || {
            let tell = |event| {
                if let kino_runtime::Event::Started { name, .. } = event
                    && &*name == "step"
                {
                    let _ = began.send(());
                }
            };
            let stop = StopSignal::default();
            let request = RunSpec::new(&plan, &registry, &services, &stop);
            runtime.run(RunSpec { events: &tell, ..request })
        });
        begins.recv().expect("the step began");
        replace(&mut rig, &next, generation / 2);
        rig.reload().unwrap_or_else(|error| panic!("generation {}: {error}", generation + 1));
        in_flight += usize::from(!run.is_finished());
        let slow = run.join().expect("no panic");
        assert!(slow.is_complete(), "{:?}", slow.failed);
        assert_eq!(int(&slow, "generation"), generation as i128);
        let report = rig.run(&rig.plan(0));
        assert_eq!(int(&report, "generation"), generation as i128 + 1);
    }
    assert!(in_flight > GENERATIONS / 4, "{in_flight} runs were under way when builds came");
}
