//! What all components of a process share: the compiler, its cache, and the clock that interrupts.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use kino_node::{Error, Result};
use wasmtime::component::Component;

use crate::compile::{self, CompileOptions};
use crate::compiled::{self, CompiledCache};
use crate::config::config;
use crate::stop::root;

/// How often a running plugin is looked after.
const TICK: Duration = Duration::from_millis(10);
/// How long the clock goes on ticking when nothing runs.
const LINGER: Duration = Duration::from_secs(1);

/// Compiles and runs components; one for a process is enough, clones are the same.
#[derive(Clone)]
pub struct WasmEngine(Arc<EngineState>);

struct EngineState {
    engine: wasmtime::Engine,
    pooled: bool,
    compiled: Option<CompiledCache>,
    options: CompileOptions,
    clock: Arc<Clock>,
    ticking: OnceLock<Thread>,
}

/// Interrupts plugins that run.
#[derive(Default)]
struct Clock {
    running: AtomicUsize,
    over: AtomicBool,
    parked: AtomicBool,
}

impl Drop for EngineState {
    fn drop(&mut self) {
        self.clock.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.ticking.get() {
            thread.unpark();
        }
    }
}

/// A plugin runs as long as this lives.
pub(crate) struct Running(Arc<Clock>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl WasmEngine {
    /// An engine; compiled code is kept in the folder `cache`, where one is given.
    ///
    /// # Errors
    /// When this machine cannot run components at all.
    pub fn new(cache: Option<&Path>) -> Result<Self> {
        Self::with_options(cache, CompileOptions::default())
    }

    /// An engine that compiles in a certain way.
    ///
    /// # Errors
    /// As [`WasmEngine::new`].
    pub fn with_options(cache: Option<&Path>, options: CompileOptions) -> Result<Self> {
        let pooled = wasmtime::Engine::new(&config(true));
        let (engine, pooled) = match pooled {
            Ok(engine) => (engine, true),
            Err(error) => {
                tracing::debug!("Instances are not pooled: {}", root(&error));
                let engine = wasmtime::Engine::new(&config(false));
                (engine.map_err(|error| cannot(&error))?, false)
            }
        };
        let compiled = cache.map(CompiledCache::new);
        let (clock, ticking) = (Arc::default(), OnceLock::new());
        let state = EngineState { engine, pooled, compiled, options, clock, ticking };
        Ok(WasmEngine(Arc::new(state)))
    }

    /// Whether memory for instances is set aside: where address space is short, instances are
    /// slower to make and code is slower.
    pub fn is_pooled(&self) -> bool {
        self.0.pooled
    }

    pub(crate) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.0.engine
    }

    /// Compiles a component of a plugin, or takes its code from the cache.
    ///
    /// # Errors
    /// When it cannot be compiled, or only beyond bounds, and when `stopped` says so.
    pub(crate) fn compile(
        &self,
        plugin: &str,
        component: &[u8],
        stopped: &dyn Fn() -> bool,
    ) -> Result<Component> {
        let EngineState { engine, pooled, compiled, options, .. } = &*self.0;
        let compile = || compile::compile(engine, *pooled, plugin, component, options, stopped);
        match compiled {
            Some(cache) => cache.compile(engine, component, compile),
            None => compiled::deserialize(engine, &compile()?)
                .map_err(|error| Error::failed(root(&error))),
        }
    }

    /// What a component said of its nodes when it was loaded before.
    pub(crate) fn kept_descriptor(&self, component: &[u8]) -> Option<String> {
        self.0.compiled.as_ref()?.descriptor(component)
    }

    /// Keeps what a component says of its nodes.
    pub(crate) fn keep_descriptor(&self, component: &[u8], descriptor: &str) {
        if let Some(cache) = &self.0.compiled {
            cache.keep_descriptor(component, descriptor);
        }
    }

    /// Has the clock tick while the result lives.
    pub(crate) fn run(&self) -> Result<Running> {
        let clock = &self.0.clock;
        clock.running.fetch_add(1, Ordering::SeqCst);
        let running = Running(Arc::clone(clock));
        match self.0.ticking.get() {
            Some(thread) if clock.parked.load(Ordering::SeqCst) => thread.unpark(),
            Some(_) => {}
            None => {
                let thread = self.start()?;
                self.0.ticking.get_or_init(|| thread);
            }
        }
        Ok(running)
    }

    fn start(&self) -> Result<Thread> {
        let (engine, clock) = (self.0.engine.clone(), Arc::clone(&self.0.clock));
        let builder = std::thread::Builder::new().name("wasm clock".into());
        Ok(builder.spawn(move || tick(&engine, &clock))?.thread().clone())
    }
}

/// Ticks while plugins run and a little longer, then waits for the next one.
fn tick(engine: &wasmtime::Engine, clock: &Clock) {
    let mut last = Instant::now();
    while !clock.over.load(Ordering::Relaxed) {
        if clock.running.load(Ordering::SeqCst) > 0 {
            last = Instant::now();
        } else if last.elapsed() > LINGER {
            clock.parked.store(true, Ordering::SeqCst);
            if clock.running.load(Ordering::SeqCst) == 0 && !clock.over.load(Ordering::Relaxed) {
                std::thread::park();
            }
            clock.parked.store(false, Ordering::SeqCst);
            last = Instant::now();
        }
        std::thread::sleep(TICK);
        engine.increment_epoch();
    }
}

fn cannot(error: &wasmtime::Error) -> Error {
    Error::advised(
        format!("WebAssembly plugins cannot be run on this machine: {}", root(error)),
        "native plugins can",
    )
}
