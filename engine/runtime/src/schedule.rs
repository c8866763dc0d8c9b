//! The state of a run: what waits for what, which values live, what may start. All of it lies
//! behind one lock, which is held for a few table look-ups a step; nodes, caches and events run
//! outside.

mod collect;
mod flow;

use std::collections::HashMap;
use std::sync::Arc;

use kino_graph::ValueSource;
use kino_node::{Lease, Ledger, Outputs, Value};

use crate::demand::Need;
use crate::entry::Verified;
use crate::event::Event;
use crate::report::SkippedStep;
use crate::store::Hit;
use crate::turns::Turns;
use crate::wiring::{Wiring, outputs_of};

/// How far a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing asks for it, or nothing does any more.
    Idle,
    /// A node may ask for it.
    Maybe,
    /// It waits for inputs, or for its turn, or runs.
    Live,
    /// Its outputs are there.
    Finished,
    /// It failed, or the step of this index failed, on which it depends.
    Failed(u32),
}

/// How far an edge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// Its reader has not asked for the value.
    No,
    /// Its reader needs the value.
    Yes,
    /// Its reader took the value, or does not want it any more.
    Over,
}

/// A piece of work for one worker.
pub(crate) enum Job {
    /// Read outputs from an opened cache entry.
    Load(u32, Verified),
    /// Verify a cache entry once more and read its outputs.
    Reload(u32),
    /// Ask a node for the lazy inputs that it needs; the values are those of its other inputs.
    Choose(u32, Vec<Option<Value>>),
    /// Compute.
    Run(u32, Vec<Option<Value>>),
}

impl Job {
    /// The step that it is of.
    pub(crate) fn step(&self) -> u32 {
        match self {
            Job::Load(step, _) | Job::Reload(step) | Job::Choose(step, _) | Job::Run(step, _) => {
                *step
            }
        }
    }
}

/// What became of a job.
pub(crate) enum Ended {
    /// The outputs are there.
    Finished(u32, Outputs),
    /// The outputs were read from a cache.
    Loaded(u32, Outputs),
    /// Another run computed the outputs.
    Adopted(u32, Outputs),
    /// The node needs its lazy inputs of these port indices; its other values come back.
    Chose(u32, Vec<Option<Value>>, Vec<u32>),
    /// The step failed, and its dependents with it.
    Failed(u32),
    /// The step gave up because the run was cancelled.
    Stopped,
}

impl Ended {
    /// The step that it is of, where it says.
    pub(crate) fn step(&self) -> Option<u32> {
        match self {
            Ended::Finished(step, _)
            | Ended::Loaded(step, _)
            | Ended::Adopted(step, _)
            | Ended::Chose(step, ..)
            | Ended::Failed(step) => Some(*step),
            Ended::Stopped => None,
        }
    }
}

/// What nobody reads any more.
#[derive(Default)]
pub(crate) struct Garbage {
    pub(crate) values: Vec<Value>,
    /// After the values: what they took is free by then.
    pub(crate) leases: Vec<Lease>,
}

impl Garbage {
    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty() && self.leases.is_empty()
    }
}

pub(crate) struct Schedule<'p> {
    pub(crate) wiring: &'p Wiring<'p>,
    threads: usize,
    phase: Vec<Phase>,
    /// By step: asked edges whose values are not there yet.
    waiting: Vec<u32>,
    /// By slot: edges, and outputs of the plan, that have not taken the value yet.
    readers: Vec<u32>,
    /// By step: edges out of it that are not over.
    outstanding: Vec<u32>,
    values: Vec<Option<Value>>,
    /// By slot: the lease on what is there, beside leases that the value has itself.
    leases: Vec<Option<Lease>>,
    /// By step: the leases of values that only it still reads; it gives them back when it ends.
    lent: HashMap<u32, Vec<Lease>>,
    ledger: Arc<Ledger>,
    asked: Vec<Asked>,
    /// The edges out of each step, as indices; `first_out` has where each step's begin.
    out: Vec<u32>,
    first_out: Vec<u32>,
    hits: Vec<Option<Hit>>,
    /// The other inputs of nodes that have chosen among their lazy ones.
    held: HashMap<u32, Vec<Option<Value>>>,
    /// The text that an input was last given.
    last_text: Arc<str>,
    light: Vec<u32>,
    heavy: Vec<u32>,
    turns: Turns,
    light_running: usize,
    heavy_running: bool,
    pub(crate) running: usize,
    pub(crate) idle: usize,
    pub(crate) stopped: bool,
    /// Steps that began to compute, in that order.
    pub(crate) evaluated: Vec<u32>,
    /// Steps whose results came from a cache.
    pub(crate) cached: Vec<u32>,
    /// Steps behind failed ones.
    skipped: Vec<u32>,
    /// Events to be sent once the lock is free.
    pub(crate) outbox: Vec<Event>,
    /// What is to be dropped once the lock is free.
    pub(crate) garbage: Garbage,
}

impl<'p> Schedule<'p> {
    pub(crate) fn new(
        wiring: &'p Wiring<'p>,
        need: &[Need],
        hits: Vec<Option<Hit>>,
        threads: usize,
        ledger: &Arc<Ledger>,
    ) -> Self {
        let steps = wiring.steps();
        let phase = |need: &Need| match need {
            Need::None => Phase::Idle,
            Need::Maybe | Need::Certain => Phase::Maybe,
        };
        let mut schedule = Schedule {
            wiring,
            threads: threads.max(1),
            phase: need.iter().map(phase).collect(),
            waiting: vec![0; steps],
            readers: vec![0; wiring.slots_in_all()],
            outstanding: vec![0; steps],
            values: vec![None; wiring.slots_in_all()],
            leases: (0..wiring.slots_in_all()).map(|_| None).collect(),
            lent: HashMap::new(),
            ledger: Arc::clone(ledger),
            asked: vec![Asked::Over; wiring.edges.len()],
            out: Vec::new(),
            first_out: vec![0; steps + 1],
            hits,
            held: HashMap::new(),
            last_text: Arc::from(""),
            light: Vec::new(),
            heavy: Vec::new(),
            turns: Turns::new(wiring.plan),
            light_running: 0,
            heavy_running: false,
            running: 0,
            idle: 0,
            stopped: false,
            evaluated: Vec::new(),
            cached: Vec::new(),
            skipped: Vec::new(),
            outbox: Vec::new(),
            garbage: Garbage::default(),
        };
        schedule.count_readers(need);
        // The last is pushed first, so that the first is started first.
        for step in (0..steps).rev().filter(|step| need[*step] == Need::Certain) {
            schedule.ask(step as u32);
        }
        schedule
    }

    /// Counts the edges into steps that are or may be computed, and sorts them by where they come
    /// from.
    fn count_readers(&mut self, need: &[Need]) {
        let wiring = self.wiring;
        for source in outputs_of(wiring.plan) {
            self.readers[wiring.slot(source)] += 1;
            self.outstanding[source.step as usize] += 1;
        }
        let alive = |edge: u32| {
            let to = wiring.edges[edge as usize].to as usize;
            need[to] != Need::None && self.hits[to].is_none()
        };
        let alive: Vec<u32> = (0..wiring.edges.len() as u32).filter(|edge| alive(*edge)).collect();
        for edge in &alive {
            let Edge { from, slot } = Edge::of(wiring, *edge);
            self.asked[*edge as usize] = Asked::No;
            self.readers[slot] += 1;
            self.outstanding[from] += 1;
            self.first_out[from + 1] += 1;
        }
        for step in 0..wiring.steps() {
            self.first_out[step + 1] += self.first_out[step];
        }
        let mut next = self.first_out.clone();
        self.out = vec![0; alive.len()];
        for edge in alive {
            let at = &mut next[Edge::of(wiring, edge).from];
            self.out[*at as usize] = edge;
            *at += 1;
        }
    }

    /// Enters what became of a job.
    pub(crate) fn end(&mut self, ended: Ended) {
        self.running -= 1;
        match ended {
            Ended::Finished(step, outputs) => {
                self.give_back(step);
                self.publish(step, outputs);
            }
            Ended::Loaded(step, outputs) => {
                self.cached.push(step);
                self.publish(step, outputs);
            }
            Ended::Adopted(step, outputs) => {
                self.give_back(step);
                self.evaluated.retain(|evaluated| *evaluated != step);
                self.cached.push(step);
                self.publish(step, outputs);
            }
            Ended::Failed(step) => {
                self.give_back(step);
                self.skip(step, step);
            }
            Ended::Stopped => self.stopped = true,
            Ended::Chose(step, values, ports) => self.chose(step, values, &ports),
        }
    }

    /// Gives back the leases of the values that only this step read; few steps have any.
    fn give_back(&mut self, step: u32) {
        if !self.lent.is_empty() {
            self.lent.remove(&step);
        }
    }

    /// Frees the device for the next heavy step, or a place for the next light one, before a job
    /// has ended.
    pub(crate) fn free(&mut self, heavy: bool) {
        if heavy { self.heavy_running = false } else { self.light_running -= 1 }
    }

    /// Whether a worker that came now would find something to do.
    pub(crate) fn has_work(&self) -> bool {
        !self.stopped
            && (!self.heavy.is_empty() && !self.heavy_running
                || !self.light.is_empty() && self.light_running < self.threads)
    }

    /// The next job, if one may start, and whether it occupies the device.
    pub(crate) fn next(&mut self) -> Option<(Job, bool)> {
        if self.stopped {
            return None;
        }
        for step in self.turns.released() {
            self.ready(step);
        }
        let heavy = if self.heavy_running { None } else { self.heavy.pop() };
        let is_heavy = heavy.is_some();
        let step = match heavy {
            Some(step) => step,
            None if self.light_running < self.threads => self.light.pop()?,
            None => return None,
        };
        if is_heavy {
            self.heavy_running = true
        } else {
            self.light_running += 1
        }
        self.running += 1;
        Some((self.job(step), is_heavy))
    }

    fn job(&mut self, step: u32) -> Job {
        let at = step as usize;
        match self.hits[at].take() {
            Some(Hit::Open(found)) => return Job::Load(step, *found),
            Some(Hit::Later(_)) => return Job::Reload(step),
            _ => {}
        }
        let choose = self.must_choose(step);
        let held = if self.held.is_empty() { None } else { self.held.remove(&step) };
        let mut values = held.unwrap_or_default();
        self.collect(at, &mut values);
        if choose {
            return Job::Choose(step, values);
        }
        self.evaluated.push(step);
        Job::Run(step, values)
    }

    /// Whether a step that is needed has neither finished nor failed: the run was cancelled.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.phase.contains(&Phase::Live)
    }

    /// The steps behind failed ones.
    pub(crate) fn skipped(&self) -> Vec<SkippedStep> {
        let name = |step: u32| Arc::clone(self.wiring.name(step as usize));
        let because = |step: u32| match self.phase[step as usize] {
            Phase::Failed(because) => because,
            _ => step,
        };
        let skipped = self.skipped.iter();
        skipped
            .map(|step| SkippedStep { name: name(*step), because: name(because(*step)) })
            .collect()
    }

    /// Takes the outputs of the plan, as far as they are there.
    pub(crate) fn outputs(&mut self) -> Vec<(String, Value)> {
        let outputs = self.wiring.plan.outputs.iter();
        outputs
            .filter_map(|(name, item)| {
                let value = match item {
                    ValueSource::Literal(literal) => Value::from_literal(literal),
                    ValueSource::Edge(source) => self.values[self.wiring.slot(source)].clone()?,
                };
                Some((name.clone(), value))
            })
            .collect()
    }
}

/// Where an edge comes from, as indices.
struct Edge {
    from: usize,
    slot: usize,
}

impl Edge {
    fn of(wiring: &Wiring<'_>, edge: u32) -> Edge {
        let edge = wiring.edges[edge as usize];
        Edge { from: edge.from as usize, slot: edge.slot as usize }
    }
}
