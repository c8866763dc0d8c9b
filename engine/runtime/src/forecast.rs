//! How much memory a run will hold at most, told before it runs.
//!
//! The run is simulated: steps begin in the order in which the schedule starts them, values live
//! until their last reader took them or a cache lets them go, weights stay once they are loaded, a
//! step holds what it says that it needs. Where the budget ends, what can be done without leaves,
//! and frames go to temporary files, as in the ledger.
//!
//! It goes by what nodes said while planning, and knows one step at a time: light steps that run
//! beside a heavy one are not added up.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use kino_graph::Step;
use kino_node::{Ledger, OUT_OF_MEMORY_HINT, OUT_OF_SPILL_HINT, Services, bytes_of_fact};
use kino_port::{PlanError, PlannedWeights, format_bytes};

use crate::demand::{Demand, Need};
use crate::event::CacheStatus;
use crate::turns::Turns;
use crate::waiting::waiting_for_joins;
use crate::wiring::{Wiring, outputs_of};

/// What a run is expected to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forecast {
    /// The most bytes that the ledger will count at one time, those included that are in use
    /// already.
    pub peak: u64,
    /// The most bytes that will lie in temporary files at one time.
    pub spilled: u64,
    /// The weights that steps compute with, resident or not.
    pub weights: u64,
    /// What the steps of one turn of a loop compute in, added up: where turns follow each other
    /// quickly, the allocator holds what each of them gave back, for about a second, while the next
    /// ones compute.
    pub turnover: u64,
}

/// The bytes of a step that must be in memory: all but the frames that it gives.
pub(crate) fn firm(step: &Step) -> u64 {
    step.memory.saturating_sub(step.spillable)
}

/// The error to a step that does not fit even where it is alone: into memory, or, with its frames,
/// into memory and temporary files.
pub fn too_large(step: &Step, services: &Services) -> Option<PlanError> {
    let (main, device) = (&services.ledger, services.device_ledger());
    let on_device = step.traits.heavy && !Arc::ptr_eq(main, device);
    let (needed, allowed) = (firm(step), if on_device { device } else { main }.budget());
    if needed > allowed {
        let (needed, allowed) = (format_bytes(needed), format_bytes(allowed));
        let streamed = match step.streamed {
            Some(_) => ", with its weights read from disk block by block",
            None => "",
        };
        let message =
            format!("it needs about {needed} of memory{streamed}, and {allowed} are allowed");
        return Some(PlanError::new(message).hint(OUT_OF_MEMORY_HINT));
    }
    // Frames lie in main memory whatever computed them.
    let needed = if on_device { step.spillable } else { step.memory };
    let (memory, spill) = (main.budget(), main.spill_budget());
    (needed > memory.saturating_add(spill)).then(|| {
        let [needed, frames, memory, spill] =
            [needed, step.spillable, memory, spill].map(format_bytes);
        PlanError::new(format!(
            "it needs about {needed}, {frames} of that for frames, and {memory} of memory and \
             {spill} of temporary files are allowed"
        ))
        .hint(OUT_OF_SPILL_HINT)
    })
}

/// Foresees the run of a plan of which `demand` is needed. Results stay in a cache of
/// `cache_budget` bytes. Where the device has memory of its own, what lies there is not counted.
pub(crate) fn forecast(
    wiring: &Wiring<'_>,
    demand: &Demand<CacheStatus>,
    services: &Services,
    cache_budget: u64,
) -> Forecast {
    let ledger = &*services.ledger;
    let device_counts = Arc::ptr_eq(&services.ledger, services.device_ledger());
    if wiring.plan.steps.iter().all(|step| step.memory == 0) {
        return now(ledger);
    }
    let mut run = Simulation::new(wiring, demand, ledger, cache_budget);
    run.device_counts = device_counts;
    loop {
        for step in run.turns.released() {
            run.ready(step as usize);
        }
        let Some(step) = run.heavy.pop().or_else(|| run.light.pop()) else { break };
        run.step(step as usize);
    }
    run.forecast
}

/// What is held before anything runs.
fn now(ledger: &Ledger) -> Forecast {
    Forecast { peak: ledger.used(), spilled: ledger.spilled(), ..Forecast::default() }
}

/// What one step left: its outputs, as far as somebody still holds them.
#[derive(Clone, Copy, Default)]
struct Values {
    /// Bytes in memory and in temporary files.
    bytes: u64,
    spilled: u64,
    /// Edges, and outputs of the plan, that have not taken them yet.
    readers: u32,
    is_cached: bool,
}

/// The state of a run that is foreseen.
struct Simulation<'a> {
    wiring: &'a Wiring<'a>,
    demand: &'a Demand<CacheStatus>,
    /// The slots whose values wait in temporary files for a node that joins them.
    joined: HashMap<u32, u32>,
    ledger: &'a Ledger,
    cache_budget: u64,
    /// Whether the device computes in main memory.
    device_counts: bool,
    /// What was in use before and would not leave; and what would.
    firm: u64,
    reclaimable: u64,
    /// Weights by what identifies them, with their last use.
    weights: HashMap<[u8; 32], (u64, usize)>,
    /// The identities of all that were ever loaded.
    computed_with: HashSet<[u8; 32]>,
    weight_bytes: u64,
    /// By step, and what they take together.
    values: Vec<Values>,
    value_bytes: u64,
    spilled: u64,
    /// Those of `values` that are cached, the first to leave first; and what they take.
    cached: VecDeque<usize>,
    cached_bytes: u64,
    /// By step: sources that are not there yet.
    waiting: Vec<u32>,
    /// By step: the steps that read it, once for each edge.
    readers: Vec<Vec<u32>>,
    heavy: Vec<u32>,
    light: Vec<u32>,
    turns: Turns,
    /// By loop and turn: what its steps compute in.
    turnover: HashMap<(u32, u32), u64>,
    clock: usize,
    forecast: Forecast,
}

impl<'a> Simulation<'a> {
    fn new(
        wiring: &'a Wiring<'a>,
        demand: &'a Demand<CacheStatus>,
        ledger: &'a Ledger,
        cache_budget: u64,
    ) -> Self {
        let steps = wiring.steps();
        let reclaimable = ledger.reclaimable().min(ledger.used());
        let firm = ledger.used() - reclaimable;
        let mut run = Simulation {
            wiring,
            demand,
            joined: waiting_for_joins(wiring),
            ledger,
            cache_budget,
            device_counts: true,
            firm,
            reclaimable,
            weights: HashMap::new(),
            computed_with: HashSet::new(),
            weight_bytes: 0,
            values: vec![Values::default(); steps],
            value_bytes: 0,
            spilled: 0,
            cached: VecDeque::new(),
            cached_bytes: 0,
            waiting: vec![0; steps],
            readers: vec![Vec::new(); steps],
            heavy: Vec::new(),
            light: Vec::new(),
            turns: Turns::new(wiring.plan),
            turnover: HashMap::new(),
            clock: 0,
            forecast: now(ledger),
        };
        for source in outputs_of(wiring.plan) {
            run.values[source.step as usize].readers += 1;
        }
        let computed: Vec<usize> = (0..steps).filter(|step| run.computes(*step)).collect();
        for step in computed {
            for edge in &wiring.edges[wiring.edges_into(step)] {
                run.values[edge.from as usize].readers += 1;
                run.readers[edge.from as usize].push(step as u32);
                run.waiting[step] += 1;
            }
        }
        // The last is put on the pile first, so that the first is started first.
        let needed = |step: &usize| demand.need[*step] != Need::None;
        (0..steps).filter(needed).for_each(|step| run.turns.begin(wiring.turn(step)));
        let ready: Vec<usize> =
            (0..steps).filter(needed).filter(|step| run.waiting[*step] == 0).collect();
        ready.into_iter().rev().for_each(|step| run.ready(step));
        run
    }

    fn computes(&self, step: usize) -> bool {
        self.demand.need[step] != Need::None && self.demand.hits[step].is_none()
    }

    fn ready(&mut self, step: usize) {
        if self.turns.holds(self.wiring.turn(step), step as u32) {
            return;
        }
        let is_heavy = self.wiring.traits(step).heavy && self.computes(step);
        let pile = if is_heavy { &mut self.heavy } else { &mut self.light };
        pile.push(step as u32);
    }

    /// What is held now.
    fn held(&self) -> u64 {
        self.firm + self.reclaimable + self.weight_bytes + self.value_bytes
    }

    fn step(&mut self, at: usize) {
        self.clock += 1;
        match self.demand.hits[at] {
            Some(CacheStatus::Memory) => {} // counted as in use already
            Some(_) => self.load(at),
            None => self.compute(at),
        }
        self.turns.end(self.wiring.turn(at));
        self.note(0);
        for reader in self.readers[at].clone().into_iter().rev() {
            let waiting = &mut self.waiting[reader as usize];
            *waiting -= 1;
            if *waiting == 0 {
                self.ready(reader as usize);
            }
        }
    }

    /// Reads outputs from the disk.
    fn load(&mut self, at: usize) {
        let bytes = self.output_bytes(at);
        self.make_room(bytes);
        let in_memory = bytes.min(self.room());
        self.note(in_memory);
        let outside = (bytes - in_memory).max(self.set_aside(at));
        self.publish(at, bytes - outside, outside);
    }

    /// The bytes of the outputs that wait in temporary files for a node that joins them.
    fn set_aside(&self, at: usize) -> u64 {
        let facts = self.wiring.plan.steps[at].facts.iter();
        let slots = self.wiring.slots(at).zip(facts);
        let waits = slots.filter(|(slot, _)| {
            self.demand.wanted[*slot] && self.joined.contains_key(&(*slot as u32))
        });
        waits.map(|(_, fact)| bytes_of_fact(fact)).sum()
    }

    /// The bytes in temporary files that a node which joins takes as they are.
    fn taken_over(&self, at: usize) -> u64 {
        let joins = self.wiring.traits(at).joins;
        let edges = self.wiring.edges_into(at).filter(|_| joins);
        edges.map(|edge| self.values[self.wiring.edges[edge].from as usize].spilled).sum()
    }

    fn compute(&mut self, at: usize) {
        let step = &self.wiring.plan.steps[at];
        let sum =
            |weights: &[PlannedWeights]| weights.iter().map(|weights| weights.bytes).sum::<u64>();
        let working = step.memory.saturating_sub(sum(&step.weights));
        // What is joined in temporary files stays where it lies.
        let joined = self.taken_over(at).min(step.spillable.min(working));
        let frames = step.spillable.min(working) - joined;
        let on_device = !self.device_counts && step.traits.heavy;
        let firm = if on_device { 0 } else { working - frames - joined };
        if !on_device {
            self.load_weights(&step.weights);
        }
        self.make_room(firm + frames);
        // Beside what the step needs, where there is room for it.
        if !on_device && self.room() >= firm + sum(&step.optional) {
            self.load_weights(&step.optional);
        }
        let in_memory = frames.min(self.room().saturating_sub(firm));
        // A first turn alone is no loop.
        if let Some(turn) = self.wiring.turn(at) {
            let own = self.turnover.entry((turn.of, turn.number)).or_default();
            *own += firm + in_memory;
            if turn.number > 0 {
                self.forecast.turnover = self.forecast.turnover.max(*own);
            }
        }
        self.forecast.spilled = self.forecast.spilled.max(self.spilled + frames - in_memory);
        self.note(firm + in_memory);
        // Frames lie in main memory whatever computed them.
        let outputs = match on_device {
            true => self.output_bytes(at).min(frames),
            false => self.output_bytes(at),
        };
        let spilled = outputs.min((frames - in_memory + joined).max(self.set_aside(at)));
        self.spilled = self.spilled.saturating_sub(joined);
        self.publish(at, outputs - spilled, spilled);
        self.spilled += joined;
        for edge in &self.wiring.edges[self.wiring.edges_into(at)] {
            let values = &mut self.values[edge.from as usize];
            values.readers = values.readers.saturating_sub(1);
            self.drop_unheld(edge.from as usize);
        }
    }

    /// The bytes of the outputs that somebody reads.
    fn output_bytes(&self, at: usize) -> u64 {
        let facts = self.wiring.plan.steps[at].facts.iter();
        let wanted = self.wiring.slots(at).map(|slot| self.demand.wanted[slot]);
        facts.zip(wanted).filter(|(_, wanted)| *wanted).map(|(fact, _)| bytes_of_fact(fact)).sum()
    }

    fn publish(&mut self, at: usize, bytes: u64, spilled: u64) {
        let is_cached = bytes <= self.cache_budget && self.cache_budget > 0;
        let is_cached = is_cached && !self.wiring.traits(at).sink;
        let values = &mut self.values[at];
        *values = Values { bytes, spilled, is_cached, ..*values };
        self.value_bytes += bytes;
        self.spilled += spilled;
        if is_cached {
            self.cached.push_back(at);
            self.cached_bytes += bytes;
            while self.cached_bytes > self.cache_budget {
                let Some(first) = self.cached.pop_front() else { break };
                self.uncache(first);
            }
        }
        self.drop_unheld(at);
    }

    fn uncache(&mut self, at: usize) {
        self.cached_bytes -= self.values[at].bytes;
        self.values[at].is_cached = false;
        self.drop_unheld(at);
    }

    fn drop_unheld(&mut self, at: usize) {
        let values = &mut self.values[at];
        if values.readers == 0 && !values.is_cached {
            self.value_bytes -= values.bytes;
            self.spilled -= values.spilled;
            *values = Values::default();
        }
    }

    /// Loads what is not resident of these weights.
    fn load_weights(&mut self, weights: &[PlannedWeights]) {
        for PlannedWeights { id, bytes } in weights {
            if self.computed_with.insert(*id) {
                self.forecast.weights += bytes;
            }
            let resident = self.weights.contains_key(id) || self.ledger.resident(&[*id]) > 0;
            if !resident {
                self.make_room(*bytes);
            }
            // What was resident before the run is counted as in use.
            let known = self.weights.get(id).map_or(if resident { 0 } else { *bytes }, |(b, _)| *b);
            if self.weights.insert(*id, (known, self.clock)).is_none() {
                self.weight_bytes += known;
            }
        }
    }

    fn room(&self) -> u64 {
        self.ledger.budget().saturating_sub(self.held())
    }

    /// Lets leave what can be done without until so many bytes fit: weights that this step does
    /// not use, then cached values that nobody reads, as the ledger asks them.
    fn make_room(&mut self, bytes: u64) {
        let missing = |run: &Self| bytes.saturating_sub(run.room());
        let left = missing(self).min(self.reclaimable);
        self.reclaimable -= left;
        while missing(self) > 0 {
            let idle = self.weights.iter().filter(|(_, (_, used))| *used < self.clock);
            let Some(id) = idle.min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id) else {
                break;
            };
            self.weight_bytes -= self.weights.remove(&id).map_or(0, |(bytes, _)| bytes);
        }
        while missing(self) > 0 {
            let idle = self.cached.iter().position(|at| self.values[*at].readers == 0);
            let Some(at) = idle.and_then(|index| self.cached.remove(index)) else { break };
            self.uncache(at);
        }
    }

    /// Enters what is held while a step needs so many bytes beside it.
    fn note(&mut self, working: u64) {
        self.forecast.peak = self.forecast.peak.max(self.held().saturating_add(working));
        self.forecast.spilled = self.forecast.spilled.max(self.spilled);
    }
}
