//! What the tests across crates share: a rig that plans and runs a graph as the command does, and
//! reference values.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use kino_graph::{Diagnostics, Graph, GraphLoader, Plan, PlanSettings};
use kino_node::{Cancel, Ledger, Registry, Services};
use kino_port::Literal;
use kino_runtime::{
    DiskCache, Event, NodeCatalog, Report, RunSpec, Runtime, RuntimeOptions, StopSignal,
};
use kino_world::Folders;

/// The top of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// An image as a PNG file.
pub fn png(width: u32, height: u32, pixel: impl Fn(u32, u32) -> [u8; 3]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().expect("a header");
    let rows = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let pixels: Vec<u8> = rows.flat_map(|(x, y)| pixel(x, y)).collect();
    writer.write_image_data(&pixels).expect("an image");
    writer.finish().expect("an end");
    bytes
}

/// The folder of reference values.
pub fn reference() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ref")
}

/// Builds a plugin in C, `source` within `suite`, as a native library.
pub fn compile_c(source: &str, library: &Path, defines: &[String]) {
    let out = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".into()))
        .args(["-std=c11", "-D_DEFAULT_SOURCE", "-Wall", "-Wextra", "-Werror", "-fPIC"])
        .args(["-shared", "-pthread", "-I"])
        .arg(root().join("plugins/abi/include"))
        .args(defines.iter().map(|define| format!("-D{define}")))
        .arg("-o")
        .arg(library)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("suite").join(source))
        .output()
        .expect("a C compiler");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// Graphs in a folder.
struct Folder(PathBuf);

impl GraphLoader for Folder {
    fn read(&self, path: &str) -> Result<String, String> {
        std::fs::read_to_string(self.0.join(path)).map_err(|error| error.to_string())
    }
}

/// A runtime with the nodes and services that its runs use.
pub struct Bench {
    /// The runtime.
    pub runtime: Arc<Runtime>,
    /// The nodes of plans and runs from here on.
    pub registry: Arc<Registry>,
    /// The services of every run.
    pub services: Arc<Services>,
}

impl Bench {
    /// The built-in nodes, with these folders and options.
    pub fn new(folders: Folders, options: RuntimeOptions) -> Self {
        let ledger = Ledger::new(1 << 30);
        let services = kino_nodes::services(Device::Cpu, ledger).with(Arc::new(folders));
        let (runtime, registry) =
            (Arc::new(Runtime::new(options, &services.ledger)), Registry::of(kino_nodes::NODES));
        Bench { runtime, registry: Arc::new(registry), services: Arc::new(services) }
    }

    /// What graphs are checked and planned against.
    pub fn catalog(&self) -> NodeCatalog<'_> {
        NodeCatalog { registry: Arc::clone(&self.registry), services: &self.services }
    }

    /// Runs a plan to its end.
    pub fn run(&self, plan: &Plan) -> Report {
        self.run_with(plan, "", &|_| {})
    }

    /// As [`Bench::run`], with what sinks store and with the events.
    pub fn run_with(
        &self,
        plan: &Plan,
        embedded_workflow: &str,
        events: &(dyn Fn(Event) + Sync),
    ) -> Report {
        let stop = StopSignal::whole(&Cancel::default());
        let request = RunSpec::new(plan, &self.registry, &self.services, &stop);
        self.runtime.run(RunSpec { embedded_workflow, events, ..request })
    }
}

/// A graph with an engine of its own; outputs and caches lie in a temporary folder.
pub struct Rig {
    bench: Bench,
    graph: Graph,
    stem: String,
    inputs: Vec<(String, Literal)>,
    folder: tempfile::TempDir,
}

/// What a run evaluated, by name, in the order of the plan.
pub trait Evaluated {
    /// The names of the nodes that were computed.
    fn names(&self) -> Vec<&str>;
}

impl Evaluated for Report {
    fn names(&self) -> Vec<&str> {
        self.evaluated.iter().map(|name| &**name).collect()
    }
}

impl Rig {
    /// One of the graphs at the top of the workspace.
    pub fn load(name: &str) -> Self {
        let folder = root().join("graphs");
        let text = std::fs::read_to_string(folder.join(format!("{name}.ron")))
            .expect("the graph is there");
        Rig::of(name, &text, &folder)
    }

    /// A graph whose inputs are relative to `folder`.
    pub fn of(stem: &str, text: &str, folder: &Path) -> Self {
        let own = tempfile::tempdir().expect("a temporary folder");
        let folders = Folders { graph: folder.to_owned(), out: own.path().join("out") };
        let disk = Some(DiskCache::open(own.path().join("cache"), 1 << 30));
        let options = RuntimeOptions { disk, ..RuntimeOptions::default() };
        let bench = Bench::new(folders, options);
        let sources = Folder(folder.to_owned());
        let graph = kino_graph::check(stem, text, &bench.catalog(), &sources);
        let graph = graph.unwrap_or_else(|problems| panic!("{problems}"));
        Rig { bench, graph, stem: stem.to_owned(), inputs: Vec::new(), folder: own }
    }

    /// Sets an input for the plans that follow, as on the command line.
    pub fn set(&mut self, name: &str, raw: &str) -> &mut Self {
        let value =
            self.graph.read_input(name, raw).unwrap_or_else(|problems| panic!("{problems}"));
        self.inputs.retain(|(set, _)| set != name);
        self.inputs.push((name.to_owned(), value));
        self
    }

    /// Plans a run.
    ///
    /// # Errors
    /// Everything that stands against it.
    pub fn plan(&self) -> Result<Plan, Diagnostics> {
        let settings = PlanSettings {
            inputs: &self.inputs,
            until: None,
            environment: b"test",
            draw: &|_| 42,
            stem: &self.stem,
            locate: None,
        };
        self.graph.plan(&self.bench.catalog(), &settings)
    }

    /// Plans and runs; every node must succeed.
    pub fn run(&self) -> Report {
        self.run_with(&|_| {})
    }

    /// As [`Rig::run`], with the events.
    pub fn run_with(&self, events: &(dyn Fn(Event) + Sync)) -> Report {
        let plan = self.plan().unwrap_or_else(|problems| panic!("{problems}"));
        let report = self.bench.run_with(&plan, plan.embedded_workflow(), events);
        assert!(report.is_complete(), "{:?} {:?}", report.failed, report.skipped);
        report
    }

    /// A file that the graph wrote.
    pub fn out(&self, path: &str) -> PathBuf {
        self.folder.path().join("out").join(path)
    }

    /// A tensor that the graph wrote.
    pub fn tensor(&self, path: &str, name: &str) -> Tensor {
        kino_world::read_tensor(&self.out(path), name).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// A tensor of the reference values.
pub fn golden(path: &str, name: &str) -> Tensor {
    kino_world::read_tensor(&reference().join(path), name).unwrap_or_else(|error| panic!("{error}"))
}

/// The greatest difference between two tensors of the same number of elements; infinite where one
/// of them is not a number.
pub fn difference(a: &Tensor, b: &Tensor) -> f64 {
    let flat = |tensor: &Tensor| {
        let tensor = tensor.to_dtype(DType::F64).and_then(|tensor| tensor.flatten_all());
        tensor.and_then(|tensor| tensor.to_vec1::<f64>()).expect("numbers")
    };
    let (a, b) = (flat(a), flat(b));
    assert_eq!(a.len(), b.len(), "as many numbers");
    let gap = |(a, b): (&f64, &f64)| Some((a - b).abs()).filter(|gap| !gap.is_nan());
    a.iter().zip(&b).map(|pair| gap(pair).unwrap_or(f64::INFINITY)).fold(0.0, f64::max)
}

/// Frames in 0…1 as bytes.
pub fn to_bytes(frames: &Tensor) -> Tensor {
    (frames * 255.0).and_then(|frames| frames.round()).expect("numbers")
}
