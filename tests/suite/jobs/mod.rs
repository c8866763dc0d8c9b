//! Ten graphs in any number of folders, to be run at once: some share steps and weights, some read
//! files of one relative path in different folders, one fails, one waits to be cancelled, one has a
//! plugin.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use kino_session::node::{Error, NodeTraits, PortType, Signature, edge, ports};
use kino_session::{Engine, EngineBuilder, Inputs, RunRequest, RunResult, inputs};

/// The graphs, by name. All encode one text with one model; `still` and `clip` differ in how many
/// frames they make of it.
pub(crate) const GRAPHS: [(&str, &str); 10] = [
    ("clip", CLIP),
    ("still", STILL),
    ("redraw", REDRAW),
    ("enlarge", ENLARGE),
    ("sums", SUMS),
    ("outer", OUTER),
    ("noise", NOISE),
    (FAILS, FAILING),
    (WAITS, WAITING),
    (PLUGIN, WITH_PLUGIN),
];

/// The graph with a node that fails.
pub(crate) const FAILS: &str = "fails";
/// The graph with a node that waits until its run is cancelled.
pub(crate) const WAITS: &str = "waits";
/// The graph with a node of a plugin.
pub(crate) const PLUGIN: &str = "plugin";

const CLIP: &str = r#"Graph(version: 1, inputs: {"seed": (type: "Int", default: 1)}, nodes: {
    "model": (op: "model.load", with: {"source": "embedded:shapes"}),
    "text": (op: "text.encode", in: {"encoder": "model.text_encoder"}, with: {"prompt": "a red circle"}),
    "noise": (op: "latent.noise", in: {"vae": "model.vae", "seed": "inputs.seed"},
        with: {"width": 32, "height": 32, "frames": 5}),
    "patches": (op: "patchify", in: {"latents": "noise", "dit": "model.dit"}),
    "sample": (op: "dit.sample", in: {"dit": "model.dit", "patches": "patches", "text": "text"},
        with: {"steps": 2}),
    "latent": (op: "unpatchify", in: {"patches": "sample.patches"}),
    "frames": (op: "vae.decode", in: {"vae": "model.vae", "latent": "latent"}),
    "file": (op: "video.write", in: {"frames": "frames"}, with: {"path": "clip-{seed}.mp4", "fps": 8}),
    "latents": (op: "tensor.write", in: {"tensors": {"latent": "latent", "text": "text"}},
        with: {"path": "clip-{seed}.safetensors"}),
}, outputs: {"frames": "frames", "file": "file"})"#;

const STILL: &str = r#"Graph(version: 1, inputs: {"seed": (type: "Int", default: 1)}, nodes: {
    "model": (op: "model.load", with: {"source": "embedded:shapes"}),
    "text": (op: "text.encode", in: {"encoder": "model.text_encoder"}, with: {"prompt": "a red circle"}),
    "noise": (op: "latent.noise", in: {"vae": "model.vae", "seed": "inputs.seed"},
        with: {"width": 32, "height": 32}),
    "patches": (op: "patchify", in: {"latents": "noise", "dit": "model.dit"}),
    "sample": (op: "dit.sample", in: {"dit": "model.dit", "patches": "patches", "text": "text"},
        with: {"steps": 3, "scheduler": "euler"}),
    "latent": (op: "unpatchify", in: {"patches": "sample.patches"}),
    "frame": (op: "vae.decode", in: {"vae": "model.vae", "latent": "latent"}),
    "large": (op: "upscale", in: {"frames": "frame"}, with: {"factor": 2}),
    "file": (op: "image.write", in: {"frames": "large"}, with: {"path": "still-{seed}.png"}),
}, outputs: {"latent": "latent", "file": "file"})"#;

const REDRAW: &str = r#"Graph(version: 1, nodes: {
    "model": (op: "model.load", with: {"source": "embedded:shapes"}),
    "image": (op: "image.read", with: {"path": "in.png"}),
    "fit": (op: "frames.resize", in: {"frames": "image"}, with: {"width": 32, "height": 32}),
    "latent": (op: "vae.encode", in: {"vae": "model.vae", "frames": "fit"}),
    "again": (op: "vae.decode", in: {"vae": "model.vae", "latent": "latent"}),
    "file": (op: "image.write", in: {"frames": "again"}, with: {"path": "redraw.png"}),
}, outputs: {"latent": "latent", "file": "file"})"#;

const ENLARGE: &str = r#"Graph(version: 1, inputs: {"factor": (type: "Int", default: 3)}, nodes: {
    "image": (op: "image.read", with: {"path": "in.png"}),
    "large": (op: "upscale", in: {"frames": "image", "factor": "inputs.factor"}),
    "file": (op: "image.write", in: {"frames": "large"}, with: {"path": "large-{factor}.png"}),
}, outputs: {"frames": "large", "file": "file"})"#;

const SUMS: &str = r#"Graph(version: 1, nodes: {
    "image": (op: "image.read", with: {"path": "in.png"}),
    "a": (op: "math", with: {"a": 6, "b": 7, "op": "mul"}),
    "b": (op: "math", in: {"a": "a"}, with: {"b": 2}),
    "large": (op: "upscale", in: {"frames": "image"}, with: {"factor": 4}),
    "chosen": (op: "switch", in: {"a": "large", "b": "image"}, with: {"on": false}),
    "small": (op: "frames.resize", in: {"frames": "chosen", "width": "b"}, with: {"height": 20}),
    "file": (op: "image.write", in: {"frames": "small"}, with: {"path": "sums/small.png"}),
}, outputs: {"b": "b", "file": "file"})"#;

const OUTER: &str = r#"Graph(version: 1, nodes: {
    "inner": (op: "./enlarge.ron", with: {"factor": 2}),
    "small": (op: "frames.resize", in: {"frames": "inner.frames"}, with: {"width": 12, "height": 8}),
    "file": (op: "image.write", in: {"frames": "small"}, with: {"path": "outer.png"}),
}, outputs: {"file": "file", "inner": "inner.file"})"#;

const NOISE: &str = r#"Graph(version: 1, inputs: {"seed": (type: "Int", default: 1)}, nodes: {
    "model": (op: "model.load", with: {"source": "embedded:shapes"}),
    "one": (op: "latent.noise", in: {"vae": "model.vae", "seed": "inputs.seed"}, with: {"width": 64, "height": 64}),
    "two": (op: "latent.noise", in: {"vae": "model.vae"}, with: {"width": 64, "height": 64, "seed": 100}),
    "file": (op: "tensor.write", in: {"tensors": {"one": "one", "two": "two"}},
        with: {"path": "noise-{seed}.safetensors"}),
}, outputs: {"one": "one", "file": "file"})"#;

const FAILING: &str = r#"Graph(version: 1, nodes: {
    "image": (op: "image.read", with: {"path": "in.png"}),
    "bad": (op: "test.fail", in: {"a": "image"}),
    "behind": (op: "image.write", in: {"frames": "bad"}, with: {"path": "never.png"}),
    "good": (op: "image.write", in: {"frames": "image"}, with: {"path": "good.png"}),
}, outputs: {"good": "good"})"#;

const WAITING: &str = r#"Graph(version: 1, inputs: {"seed": (type: "Int", default: 1)}, nodes: {
    "model": (op: "model.load", with: {"source": "embedded:shapes"}),
    "text": (op: "text.encode", in: {"encoder": "model.text_encoder"}, with: {"prompt": "a red circle"}),
    "noise": (op: "latent.noise", in: {"vae": "model.vae", "seed": "inputs.seed"},
        with: {"width": 48, "height": 32, "frames": 5}),
    "patches": (op: "patchify", in: {"latents": "noise", "dit": "model.dit"}),
    "sample": (op: "dit.sample", in: {"dit": "model.dit", "patches": "patches", "text": "text"},
        with: {"steps": 4}),
    "latent": (op: "unpatchify", in: {"patches": "sample.patches"}),
    "frames": (op: "vae.decode", in: {"vae": "model.vae", "latent": "latent"}),
    "file": (op: "video.write", in: {"frames": "frames"}, with: {"path": "waits.mp4", "fps": 8}),
    "wait": (op: "test.wait", in: {"a": "noise"}),
}, outputs: {"file": "file", "wait": "wait"})"#;

const WITH_PLUGIN: &str = r#"Graph(version: 1, nodes: {
    "model": (op: "model.load", with: {"source": "embedded:shapes"}),
    "text": (op: "text.encode", in: {"encoder": "model.text_encoder"}, with: {"prompt": "a red circle"}),
    "step": (op: "torture.step", in: {"tensor": "text"}, with: {"wait": 5}),
    "file": (op: "tensor.write", in: {"tensors": {"tensor": "step.tensor"}}, with: {"path": "plugin.safetensors"}),
}, outputs: {"generation": "step.generation", "runs": "step.runs", "file": "file"})"#;

/// One graph in one folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Job {
    /// The graph's name.
    pub(crate) graph: &'static str,
    /// The number of its folder.
    pub(crate) folder: usize,
}

/// Folders with all graphs, and the pictures that they read, which differ from folder to folder.
pub(crate) fn lay_out(root: &Path, folders: usize) {
    for at in 0..folders {
        let folder = root.join(at.to_string());
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in GRAPHS {
            fs::write(folder.join(format!("{name}.ron")), text).unwrap();
        }
        let shade = 40 * at as u8;
        let image = kino_tests::png(24, 16, |x, y| [x as u8 * 10, y as u8 * 15, shade]);
        fs::write(folder.join("in.png"), image).unwrap();
    }
}

/// Lets the graphs of these folders use the plugin.
#[cfg(unix)]
pub(crate) fn add_plugin(root: &Path, data: &Path, folders: usize) {
    let library = root.join("torture.so");
    let defines = ["GENERATION=2".to_owned(), format!("ENDS=\"{}\"", root.join("ends").display())];
    kino_tests::compile_c("torture/generation.c", &library, &defines);
    let mut consent = Vec::new();
    for at in 0..folders {
        let folder = root.join(at.to_string());
        let own = kino_tests::trust_native(&folder, data, "torture", "torture.step");
        fs::copy(&library, &own).unwrap();
        consent.push(own.parent().unwrap().canonicalize().unwrap().display().to_string());
    }
    fs::write(data.join("native.ron"), format!("(folders: {consent:?})")).unwrap();
}

/// An engine with the nodes that these graphs use.
pub(crate) fn engine(folder: &Path) -> EngineBuilder {
    let node = |name: &'static str| Signature {
        name: name.into(),
        version: "1".into(),
        about: "".into(),
        inputs: ports![edge("a", PortType::Any)],
        outputs: ports![edge("value", PortType::Any)],
        traits: NodeTraits::LIGHT,
    };
    let engine = kino_tests::engine(folder);
    let engine = engine.node_fn(node("test.fail"), |_, _| Err(Error::failed("it broke")));
    engine.node_fn(node("test.wait"), |cx, _| {
        loop {
            cx.check_cancel()?;
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    })
}

impl Job {
    /// Every graph in every folder.
    pub(crate) fn all(folders: usize) -> Vec<Job> {
        let of = |folder| GRAPHS.iter().map(move |(graph, _)| Job { graph, folder });
        (0..folders).flat_map(of).collect()
    }

    /// What it is called in messages and folders.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.folder, self.graph)
    }

    /// What its inputs are: seeds differ from folder to folder, so that some steps are shared and
    /// some are not.
    pub(crate) fn inputs(&self) -> Inputs {
        match self.graph {
            "clip" | "noise" | WAITS => inputs! { "seed" => self.folder },
            _ => inputs! {},
        }
    }

    /// Its run; what it writes lies in a folder of its own in `out`.
    pub(crate) fn request(&self, engine: &Engine, root: &Path, out: &Path) -> RunRequest {
        let path = root.join(self.folder.to_string()).join(format!("{}.ron", self.graph));
        let graph = engine.open(&path);
        let graph = graph.unwrap_or_else(|error| panic!("{self:?}: {error}"));
        graph.run(self.inputs()).out(out.join(self.name()))
    }
}

/// All files below a folder, by their paths in it.
pub(crate) fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(bytes) = fs::read(&path) {
                found.insert(path.strip_prefix(folder).unwrap().to_owned(), bytes);
            }
        }
    }
    found
}

/// Whether a file of this name is in the making, or was left so.
pub(crate) fn is_partial(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') || name.starts_with("tmp-")
}

/// The outputs of a run, each in a few words that tell different values apart.
pub(crate) fn outputs(done: &RunResult) -> Vec<(String, String)> {
    let one = |name: &str| {
        if let Ok(number) = done.output::<f64>(name) {
            return number.to_string();
        }
        if let Ok(path) = done.path(name) {
            return path.file_name().unwrap().to_string_lossy().into_owned();
        }
        let tensor = done.tensor(name).unwrap_or_else(|error| panic!("{error}"));
        let numbers = tensor.flatten_all().and_then(|tensor| tensor.to_vec1::<f32>()).unwrap();
        let mut hasher = DefaultHasher::new();
        numbers.iter().for_each(|number| number.to_bits().hash(&mut hasher));
        format!("{:?} {:x}", tensor.dims(), hasher.finish())
    };
    done.report.outputs.iter().map(|(name, _)| (name.clone(), one(name))).collect()
}

/// Numbers that look random, by xorshift64* (Vigna, arXiv:1402.6246).
pub(crate) struct Random(u64);

impl Random {
    /// Numbers from `KINO_TEST_SEED`, or from a seed of their own, which is printed.
    pub(crate) fn seeded() -> Self {
        let set = std::env::var("KINO_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed: u64 = set.unwrap_or_else(kino_session::random_seed);
        println!("KINO_TEST_SEED={seed}");
        Random(seed | 1 << 63)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % end
    }

    /// Puts items into an order of chance.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
