//! What the tests across crates share: a rig that plans and runs a graph as any program does that
//! embeds the engine, plugins to try, and reference values.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use kino_graph::Plan;
use kino_node::{Cancel, Ledger, Registry, Services};
use kino_runtime::{Event, NodeCatalog, RunSpec, Runtime, RuntimeOptions, StopSignal};
use kino_session::{Engine, EngineBuilder, Graph, Inputs, Report};
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
        .arg("-I")
        .arg(root().join("plugins/native/tests/c"))
        .args(defines.iter().map(|define| format!("-D{define}")))
        .arg("-o")
        .arg(library)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("suite").join(source))
        .output()
        .expect("a C compiler");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// A plugin of the graphs in `folder`: its manifest, and a lock file that trusts every build of its
/// native library in the eyes of a user whose data lie in `data`. Returns where the library lies.
pub fn trust_native(folder: &Path, data: &Path, id: &str, node: &str) -> PathBuf {
    let plugin = folder.join("plugins").join(id);
    std::fs::create_dir_all(&plugin).expect("a folder");
    std::fs::create_dir_all(data).expect("a folder");
    let manifest =
        format!(r#"Plugin(id: "{id}", version: "1.0.0", nodes: ["{node}"], native: "{id}")"#);
    let lock = format!(
        r#"(version: 1, plugins: {{"{id}": (kind: native, dev: "plugins/{id}", trust: native)}})"#
    );
    let real = plugin.canonicalize().expect("it is there");
    let consent = format!("(folders: [{:?}])", real.display().to_string());
    std::fs::write(plugin.join("plugin.ron"), manifest).expect("a manifest");
    std::fs::write(folder.join("kino.lock.ron"), lock).expect("a lock file");
    std::fs::write(data.join("native.ron"), consent).expect("consent");
    let (before, after) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    plugin.join(format!("{before}{id}{after}"))
}

/// An engine for tests: on the CPU, with a cache and settings of a user of its own in `folder`.
pub fn engine(folder: &Path) -> EngineBuilder {
    let engine = Engine::builder().device("cpu").memory("2GB").cache_limit(1 << 30);
    engine.cache(folder.join("cache")).data(folder.join("data"))
}

/// A runtime with the nodes and services that its runs use: what benches measure beneath the
/// library, whose threads and reading of graphs they leave out.
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

/// A graph with an engine of its own; outputs and caches lie in a temporary folder, and nothing is
/// kept in memory between runs.
pub struct Rig {
    graph: Graph,
    inputs: Inputs,
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
        let path = root().join("graphs").join(format!("{name}.ron"));
        Rig::open(|engine| engine.open(&path))
    }

    /// A graph whose inputs are relative to `folder`.
    pub fn of(stem: &str, text: &str, folder: &Path) -> Self {
        Rig::open(|engine| engine.open_text(&format!("{stem}.ron"), text, folder))
    }

    fn open(open: impl FnOnce(&Engine) -> kino_session::Result<Graph>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let engine = engine(folder.path()).keep_results(false).build().expect("an engine");
        let graph = open(&engine).unwrap_or_else(|problems| panic!("{problems}"));
        Rig { graph, inputs: Inputs::new(), folder }
    }

    /// Sets an input for the plans that follow, as on the command line.
    pub fn set(&mut self, name: &str, raw: &str) -> &mut Self {
        self.inputs.set(name, raw);
        self
    }

    /// Plans a run.
    ///
    /// # Errors
    /// Everything that stands against it.
    pub fn plan(&self) -> kino_session::Result<kino_session::Plan> {
        self.graph.plan(&self.inputs)
    }

    /// Plans and runs; every node must succeed.
    pub fn run(&self) -> Report {
        let run = self.graph.run(self.inputs.clone()).random_seed(42).out(self.out(""));
        let done = run.start().and_then(|run| run.wait());
        done.unwrap_or_else(|problems| panic!("{problems}")).report.clone()
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

/// Kills a child after a time, and says whether it had ended by itself before.
///
/// # Panics
/// When the child failed by itself.
pub fn ends_before(child: &mut Child, time: Duration) -> bool {
    let until = Instant::now() + time;
    while Instant::now() < until {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "the child failed: {status}");
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // On Unix this is SIGKILL.
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(status.success() || status.code().is_none(), "the child failed: {status}");
    status.success()
}
