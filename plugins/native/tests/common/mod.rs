//! Plugins in C, built by the tests, and a way to call them.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use candle_core::{Device, Tensor};
use kino_host::{CallCx, GrantedFiles, Limits, Module};
use kino_native::TrustedLibrary;
use kino_node::{Cancel, Frames, Ledger, Result, Value};

/// Builds a C file of this folder into a library.
pub(crate) fn build(folder: &Path, source: &str, flags: &[&str]) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let name = source.rsplit('/').next().unwrap_or(source);
    let library = folder.join(kino_host::library_name(name));
    let out = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".into()))
        .args([
            "-std=c11",
            "-D_DEFAULT_SOURCE",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-fPIC",
            "-shared",
            "-I",
        ])
        .arg(match source == name {
            true => tests.join("../../abi/include"),
            false => tests.join("c").join(source.trim_end_matches(name)),
        })
        .args(flags)
        .arg("-o")
        .arg(&library)
        .arg(tests.join("c").join(format!("{source}.c")))
        .output()
        .expect("a C compiler");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    library
}

/// Frames `[n, 4, 6, 3]` in chunks of two, counting up from `first`.
pub(crate) fn frames(ledger: &Arc<Ledger>, n: usize, first: f32) -> Value {
    let mut builder = kino_node::FramesBuilder::new(ledger, Some(12.0));
    for chunk in 0..n / 2 {
        let count = 2 * 4 * 6 * 3;
        let from = first + (chunk * count) as f32;
        let tensor = Tensor::arange(from, from + count as f32, &Device::Cpu).unwrap();
        builder.push(&tensor.reshape((2, 4, 6, 3)).unwrap()).unwrap();
    }
    Value::from(builder.finish().unwrap())
}

/// What a call reaches in these tests.
pub(crate) struct World {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) cancel: Cancel,
    pub(crate) files: GrantedFiles,
    pub(crate) limits: Limits,
}

impl World {
    pub(crate) fn new() -> Self {
        World {
            ledger: Ledger::new(1 << 30),
            cancel: Cancel::default(),
            files: GrantedFiles::new(Path::new("."), &[]),
            limits: Limits { time: Duration::from_secs(20), ..Limits::default() },
        }
    }

    pub(crate) fn call<T>(&self, f: impl FnOnce(&CallCx<'_>) -> T) -> T {
        let outside = CallCx::outside("test", &self.ledger, &self.cancel, &self.files);
        f(&CallCx { step: "step", limits: self.limits, ..outside })
    }

    /// Opens an instance, runs it once, closes it.
    pub(crate) fn run(
        &self,
        plugin: &dyn Module,
        node: &str,
        inputs: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>> {
        self.call(|call| plugin.open(node, None, call)?.run(call, inputs))
    }
}

pub(crate) fn as_frames(outputs: Vec<Option<Value>>) -> Arc<Frames> {
    match outputs.first().and_then(|output| output.as_ref()?.shared()) {
        Some(frames) => frames,
        None => panic!("no frames: {outputs:?}"),
    }
}

pub(crate) fn numbers(frames: &Frames) -> Vec<f32> {
    frames.whole().unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// What the test that is also the worker does: it serves where it alone was asked for.
#[cfg(unix)]
pub(crate) fn serve(name: &str) {
    let arguments: Vec<_> = std::env::args().collect();
    let asked = |argument: &str| arguments.iter().any(|given| given == argument);
    if asked("--exact") && asked(name) {
        kino_native::serve().unwrap();
    }
}

/// A library that a test has just built.
pub(crate) fn trust(path: &Path) -> TrustedLibrary<'_> {
    TrustedLibrary { path, sha256: None }
}

/// What starts the test of a test binary that serves a plugin in a process of its own.
#[cfg(unix)]
pub(crate) const WORKER: [&str; 2] = ["--exact", "isolated::serves_as_worker"];

/// The plugin at `path`, in a process of its own.
#[cfg(unix)]
pub(crate) fn isolated(path: &Path) -> kino_native::IsolatedPlugin {
    let program = std::env::current_exe().unwrap();
    kino_native::IsolatedPlugin::start(&program, &WORKER, trust(path)).unwrap()
}
