//! Plans made by hand, and runtimes to run them on.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use candle_core::Device;
use kino_graph::{Key, Plan, Step, StepInput, StepOutput, ValueSource};
use kino_node::{Ledger, Registry, Services, Value};
use kino_port::Literal;
use kino_runtime::{
    CacheStatus, DiskCache, Event, NodeCatalog, Report, RunSpec, Runtime, RuntimeOptions,
    StopSignal,
};

use crate::nodes::{Log, registry};

/// A plan in the making.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) plan: Plan,
}

/// The first output of a step.
pub(crate) fn of(step: u32) -> StepInput {
    StepInput::Edge(StepOutput { step, output: 0 })
}

/// A whole number.
pub(crate) fn lit(value: i128) -> StepInput {
    StepInput::Literal(Literal::Int(value))
}

/// The first outputs of several steps, as a list.
pub(crate) fn all(steps: &[u32]) -> StepInput {
    let item = |step: &u32| (None, ValueSource::Edge(StepOutput { step: *step, output: 0 }));
    StepInput::List(steps.iter().map(item).collect())
}

impl Draft {
    /// Adds a step and returns its index. Its key covers the node, the literals and the keys of its
    /// inputs.
    pub(crate) fn add(&mut self, name: &str, op: &str, inputs: Vec<StepInput>) -> u32 {
        let mut bytes = op.as_bytes().to_vec();
        inputs.iter().for_each(|input| self.hash(input, &mut bytes));
        let traits = registry().get(op).unwrap().signature().traits;
        let key = Key(*blake3::hash(&bytes).as_bytes());
        self.plan.steps.push(Step::new(name, op, key, inputs, traits));
        self.plan.steps.len() as u32 - 1
    }

    fn hash(&self, input: &StepInput, into: &mut Vec<u8>) {
        let edge = |source: &StepOutput, into: &mut Vec<u8>| {
            into.push(b'e');
            into.extend(self.plan.steps[source.step as usize].key.0);
            into.extend(source.output.to_le_bytes());
        };
        match input {
            StepInput::Absent => into.push(b'-'),
            StepInput::Literal(literal) => literal.encode(into),
            StepInput::Edge(source) => edge(source, into),
            StepInput::List(items) => {
                into.extend((items.len() as u64).to_le_bytes());
                for (_, item) in items {
                    match item {
                        ValueSource::Literal(literal) => literal.encode(into),
                        ValueSource::Edge(source) => edge(source, into),
                    }
                }
            }
        }
    }

    /// Makes an output of the graph of a step's output; its name is the step's.
    pub(crate) fn give(&mut self, step: u32, output: u32) -> &mut Self {
        let name = self.plan.steps[step as usize].name.to_string();
        self.plan.outputs.push((name, ValueSource::Edge(StepOutput { step, output })));
        self
    }

    /// A chain `a`, `b`, `c` of expensive additions, which ends with 1 + 10 + 100 = 111.
    pub(crate) fn chain() -> Draft {
        let mut draft = Draft::default();
        let a = draft.add("a", "keep", vec![lit(1), StepInput::Absent]);
        let b = draft.add("b", "keep", vec![of(a), lit(10)]);
        let c = draft.add("c", "keep", vec![of(b), lit(100)]);
        draft.give(c, 0);
        draft
    }
}

/// A runtime with a log, and nodes that can be replaced.
pub(crate) struct Rig {
    pub(crate) runtime: Runtime,
    services: Arc<Services>,
    registry: RwLock<Arc<Registry>>,
    pub(crate) log: Arc<Log>,
    pub(crate) events: Mutex<Vec<Event>>,
}

impl Rig {
    pub(crate) fn with(options: RuntimeOptions, log: Log) -> Rig {
        Rig::with_ledger(options, log, Ledger::new(u64::MAX))
    }

    pub(crate) fn with_ledger(options: RuntimeOptions, log: Log, ledger: Arc<Ledger>) -> Rig {
        let log = Arc::new(log);
        let services = Services::new(Device::Cpu, ledger).with(Arc::clone(&log));
        let (runtime, services) = (Runtime::new(options, &services.ledger), Arc::new(services));
        Rig { runtime, services, registry: registry().into(), log, events: Mutex::default() }
    }

    pub(crate) fn services(&self) -> &Services {
        &self.services
    }

    pub(crate) fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the nodes of catalogs and runs from here on.
    pub(crate) fn reload(&self, registry: Arc<Registry>) {
        *self.registry.write().unwrap() = registry;
    }

    pub(crate) fn catalog(&self) -> NodeCatalog<'_> {
        NodeCatalog { registry: self.registry(), services: &self.services }
    }

    /// Runs with these nodes, until it is stopped.
    pub(crate) fn run_until(&self, nodes: &Registry, draft: &Draft, stop: &StopSignal) -> Report {
        self.runtime.run(RunSpec::new(&draft.plan, nodes, &self.services, stop))
    }

    /// Two threads, nothing kept.
    pub(crate) fn new() -> Rig {
        Rig::threads(2)
    }

    pub(crate) fn threads(threads: usize) -> Rig {
        Rig::with(RuntimeOptions { threads, ..RuntimeOptions::default() }, Log::default())
    }

    /// Results stay in memory.
    pub(crate) fn in_memory() -> Rig {
        let options = RuntimeOptions { memory_budget: 1 << 20, disk: None, threads: 2 };
        Rig::with(options, Log::default())
    }

    /// Results of expensive nodes stay in `folder`.
    pub(crate) fn on_disk(folder: &Path) -> Rig {
        Rig::with(on_disk(folder), Log::default())
    }

    pub(crate) fn run(&self, draft: &Draft) -> Report {
        self.run_telling(draft, &|event| self.events.lock().unwrap().push(event))
    }

    /// Runs and tells `events`.
    pub(crate) fn run_telling(&self, draft: &Draft, events: &(dyn Fn(Event) + Sync)) -> Report {
        let (nodes, stop) = (self.registry(), StopSignal::whole(&self.log.flag));
        let request = RunSpec::new(&draft.plan, &nodes, &self.services, &stop);
        self.runtime.run(RunSpec { events, ..request })
    }

    /// Runs and returns the names of what was computed, in the order of the alphabet.
    pub(crate) fn evaluated(&self, draft: &Draft) -> Vec<String> {
        let report = self.run(draft);
        assert!(report.is_complete(), "{:?}", report.failed);
        sorted(&report.evaluated)
    }

    pub(crate) fn status(&self, draft: &Draft) -> Vec<CacheStatus> {
        self.runtime.status(&draft.plan, &self.registry())
    }
}

pub(crate) fn on_disk(folder: &Path) -> RuntimeOptions {
    let disk = DiskCache::open(folder, u64::MAX);
    RuntimeOptions { memory_budget: 0, disk: Some(disk), threads: 2 }
}

pub(crate) fn sorted(names: &[Arc<str>]) -> Vec<String> {
    let mut names: Vec<String> = names.iter().map(ToString::to_string).collect();
    names.sort();
    names
}

/// The whole number at an output of the graph.
pub(crate) fn int(report: &Report, output: &str) -> Option<i128> {
    match report.output(output)? {
        Value::Int(value) => Some(*value),
        other => panic!("expected a whole number, found {other:?}"),
    }
}

/// Runs on a runtime without a log's flag.
pub(crate) fn run(rig: &Rig, draft: &Draft) -> Report {
    rig.run_until(&rig.registry(), draft, &StopSignal::default())
}
