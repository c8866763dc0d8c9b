//! Plugins in the sandbox: good ones give results, whatever bad ones do is their error alone.

mod abuse;
mod good;
mod load;

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use candle_core::Device;
use kino_host::{Artifact, Call, Files, Granted, Limits};
use kino_node::{Cancel, Error, Result, Spill, Value};
use kino_wasm::{Engine, WasmPlugin};

/// The component of the tests, built by `tests/guests/build`.
pub(crate) const GUESTS: &[u8] = include_bytes!("../components/guests.wasm");

/// One engine for all tests, as in a process.
pub(crate) fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new(None).unwrap())
}

/// The component as it is, compiled once.
pub(crate) fn guests() -> Arc<WasmPlugin> {
    static GUEST: OnceLock<Arc<WasmPlugin>> = OnceLock::new();
    Arc::clone(GUEST.get_or_init(|| WasmPlugin::load(engine(), "guests", GUESTS).unwrap()))
}

/// What a call reaches in these tests.
pub(crate) struct World {
    pub(crate) spill: Arc<Spill>,
    pub(crate) cancel: Cancel,
    pub(crate) files: Box<dyn Files>,
    pub(crate) limits: Limits,
    pub(crate) log: Mutex<Vec<(u32, String)>>,
}

impl World {
    pub(crate) fn new() -> Self {
        World {
            spill: Spill::new(std::env::temp_dir(), 1 << 30),
            cancel: Cancel::default(),
            files: Box::new(Granted::new(Path::new("."), &[])),
            limits: Limits { time: Duration::from_secs(60), memory: 256 << 20 },
            log: Mutex::default(),
        }
    }

    pub(crate) fn seconds(mut self, seconds: f64) -> Self {
        self.limits.time = Duration::from_secs_f64(seconds);
        self
    }

    pub(crate) fn call<T>(&self, f: impl FnOnce(&Call<'_>) -> T) -> T {
        let listener = |level: u32, _: &str, message: &str| {
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            log.push((level, message.to_owned()));
        };
        f(&Call {
            plugin: "guests",
            step: "step",
            device: &Device::Cpu,
            spill: &self.spill,
            cancel: &self.cancel,
            wanted: &[true],
            report: &|_| {},
            files: &*self.files,
            limits: self.limits,
            listener: Some(&listener),
        })
    }

    /// Opens an instance of a node and runs it once.
    pub(crate) fn run(&self, node: &str, input: Option<Value>) -> Result<Option<Value>> {
        let outputs = self.call(|call| guests().open(node, None, call)?.run(call, &[input]));
        outputs.map(|outputs| outputs.into_iter().next().flatten())
    }
}

/// An error as users read it: what happened, and what to do.
pub(crate) fn text(error: &Error) -> String {
    match error {
        Error::Failed { message, hint: Some(hint) } => format!("{message}\n{hint}"),
        other => other.to_string(),
    }
}
