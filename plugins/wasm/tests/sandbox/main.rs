//! Plugins in the sandbox: good ones give results, whatever bad ones do is their error alone.

mod abuse;
mod good;
mod load;

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use kino_host::{CallCx, GrantedFiles, Limits, Module, PluginFiles};
use kino_node::{Cancel, Error, GraphId, Ledger, Result, Value};
use kino_wasm::{WasmEngine, WasmPlugin};

/// The component of the tests, built by `tests/guests/build`.
pub(crate) const GUESTS: &[u8] = include_bytes!("../components/guests.wasm");

/// The build of 2.0 that every later host must run: never build it again.
const GUESTS_2_0: &[u8] = include_bytes!("../compiled/guests-2.0.wasm");

/// One engine for all tests, as in a process.
pub(crate) fn engine() -> &'static WasmEngine {
    static ENGINE: OnceLock<WasmEngine> = OnceLock::new();
    ENGINE.get_or_init(|| WasmEngine::new(None).unwrap())
}

/// The component as it is, compiled once.
pub(crate) fn guests() -> Arc<WasmPlugin> {
    static GUEST: OnceLock<Arc<WasmPlugin>> = OnceLock::new();
    Arc::clone(GUEST.get_or_init(|| WasmPlugin::load(engine(), "guests", GUESTS).unwrap()))
}

/// The build of 2.0, compiled once.
fn guests_of_2_0() -> Arc<WasmPlugin> {
    static GUEST: OnceLock<Arc<WasmPlugin>> = OnceLock::new();
    let load = || {
        let sha256 = include_str!("../compiled/guests-2.0.wasm.sha256").trim();
        assert_eq!(kino_host::sha256_of(GUESTS_2_0), sha256, "it was built again");
        WasmPlugin::load(engine(), "guests", GUESTS_2_0).unwrap()
    };
    Arc::clone(GUEST.get_or_init(load))
}

/// What a call reaches in these tests, and the plugin that is called.
pub(crate) struct World {
    pub(crate) plugin: Arc<WasmPlugin>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) cancel: Cancel,
    pub(crate) files: Box<dyn PluginFiles>,
    pub(crate) limits: Limits,
    pub(crate) log: Mutex<Vec<(u32, String)>>,
    pub(crate) graph: Option<GraphId>,
}

impl World {
    pub(crate) fn new() -> Self {
        World {
            plugin: guests(),
            ledger: Ledger::new(1 << 30),
            cancel: Cancel::default(),
            files: Box::new(GrantedFiles::new(Path::new("."), &[])),
            limits: Limits { time: Duration::from_secs(60), memory: 256 << 20 },
            log: Mutex::default(),
            graph: None,
        }
    }

    /// One with the component as it is, and one with the build of 2.0.
    pub(crate) fn both() -> [Self; 2] {
        [World::new(), World { plugin: guests_of_2_0(), ..World::new() }]
    }

    pub(crate) fn seconds(mut self, seconds: f64) -> Self {
        self.limits.time = Duration::from_secs_f64(seconds);
        self
    }

    pub(crate) fn call<T>(&self, f: impl FnOnce(&CallCx<'_>) -> T) -> T {
        let log_sink = |level: u32, _: &str, message: &str| {
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            log.push((level, message.to_owned()));
        };
        let (limits, log_sink) = (self.limits, Some(&log_sink as &_));
        let outside = CallCx::outside("guests", &self.ledger, &self.cancel, &*self.files);
        let graph = self.graph.as_ref();
        f(&CallCx { step: "step", limits, log_sink, graph, ..outside })
    }

    /// Opens an instance of a node and runs it once.
    pub(crate) fn run(&self, node: &str, input: Option<Value>) -> Result<Option<Value>> {
        let outputs = self.call(|call| self.plugin.open(node, None, call)?.run(call, &[input]));
        outputs.map(|outputs| outputs.into_iter().next().flatten())
    }
}

/// An error as users read it: what happened, and what to do.
pub(crate) fn text(error: &Error) -> String {
    match error {
        Error::Failed { message, hint: Some(hint), .. } => format!("{message}\n{hint}"),
        Error::Broken { message, hint, .. } => format!("{message}\n{hint}"),
        other => other.to_string(),
    }
}
