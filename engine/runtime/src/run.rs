//! Runs of plans: what they are asked for, what becomes of them, and what they share.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use kino_graph::{Key, Plan};
use kino_node::{GraphId, Ledger, Registry, RunId, Services};
use kino_port::PlanError;

use crate::demand::{Demand, Need};
use crate::device::Device;
use crate::disk::DiskCache;
use crate::event::{CacheStatus, Event, PlannedStep, Teller};
use crate::forecast::{Forecast, forecast, too_large};
use crate::hits::Hits;
use crate::in_flight::{InFlight, Twins};
use crate::report::Report;
use crate::schedule::Schedule;
use crate::sink;
use crate::stop::StopSignal;
use crate::store::Store;
use crate::waiting::Waiting;
use crate::wiring::Wiring;
use crate::work::Work;

/// Nodes may use much stack; threads that are spawned get as much as the main thread usually has.
const STACK: usize = 8 << 20;

/// How plans are run.
#[derive(Debug)]
pub struct RuntimeOptions {
    /// The bytes of results that are kept in memory between runs; 0 for none.
    pub memory_budget: u64,
    /// Where results of expensive nodes are kept on disk.
    pub disk: Option<DiskCache>,
    /// How many light steps run at the same time; a heavy one may run beside them.
    pub threads: usize,
}

impl Default for RuntimeOptions {
    /// Nothing is kept; as many threads as the machine has.
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        RuntimeOptions { memory_budget: 0, disk: None, threads }
    }
}

/// A plan that is to be run, and all that belongs to this run alone.
#[derive(Clone, Copy)]
pub struct RunSpec<'a> {
    /// What to run.
    pub plan: &'a Plan,
    /// The nodes that it was planned with.
    pub registry: &'a Registry,
    /// What its nodes reach: the services of the process with those of the run over them.
    pub services: &'a Services,
    /// Stops it.
    pub stop: &'a StopSignal,
    /// The workflow as a text that runs again: sinks store it in what they write.
    pub embedded_workflow: &'a str,
    /// Where events go. They come from several threads, one after the other for each step.
    pub events: &'a (dyn Fn(Event) + Sync),
    /// Tells it from other runs; a run that begins later has a greater one.
    pub id: RunId,
}

impl<'a> RunSpec<'a> {
    /// A run of this plan that stops when `stop` says so, embeds nothing, and tells nobody.
    pub fn new(
        plan: &'a Plan,
        registry: &'a Registry,
        services: &'a Services,
        stop: &'a StopSignal,
    ) -> Self {
        let (embedded_workflow, events, id) = ("", &|_| {}, RunId::next());
        RunSpec { plan, registry, services, stop, embedded_workflow, events, id }
    }
}

/// What all runs share: caches, the device, and what is being computed. One runtime serves any
/// number of runs, also at the same time, of graphs in any folders, with any nodes. Where results
/// stay in memory, no run computes what another is computing.
pub struct Runtime {
    store: Store,
    device: Device,
    in_flight: InFlight,
    threads: usize,
}

impl Runtime {
    /// A runtime with nothing in its memory; what it keeps there, and what its steps need, stands in
    /// `ledger`: that of the services that runs are given.
    pub fn new(options: RuntimeOptions, ledger: &Arc<Ledger>) -> Self {
        let store = Store::new(options.memory_budget, options.disk, ledger);
        let threads = options.threads.max(1);
        Runtime { store, device: Device::default(), in_flight: InFlight::default(), threads }
    }

    /// The cache on disk, if there is one.
    pub fn disk(&self) -> Option<&DiskCache> {
        self.store.disk.as_ref()
    }

    /// Drops what the caches hold of a step: it was not made of what its key says.
    pub fn forget(&self, key: &Key) {
        self.store.forget(&key.0);
    }

    /// What will become of each step if the plan runs now, in the plan's order. Entries on disk are
    /// taken at their word: the run verifies them.
    pub fn status(&self, plan: &Plan, registry: &Registry) -> Vec<CacheStatus> {
        let wiring = Wiring::new(plan, registry);
        let find = |step, wanted: &[bool]| self.store.status(&wiring, step, wanted);
        let demand = Demand::new(&wiring, find);
        statuses(&demand)
    }

    /// How much memory a plan will take if it runs now.
    pub fn forecast(&self, plan: &Plan, registry: &Registry, services: &Services) -> Forecast {
        let wiring = Wiring::new(plan, registry);
        let find = |step, wanted: &[bool]| self.store.status(&wiring, step, wanted);
        self.foresee(&wiring, &Demand::new(&wiring, find), services)
    }

    fn foresee(
        &self,
        wiring: &Wiring<'_>,
        demand: &Demand<CacheStatus>,
        services: &Services,
    ) -> Forecast {
        forecast(wiring, demand, services, self.store.memory_budget)
    }

    /// The steps that would run now and cannot, as they do not fit even alone, into memory or with
    /// their frames into temporary files: each by its index.
    pub fn too_large(
        &self,
        plan: &Plan,
        registry: &Registry,
        services: &Services,
    ) -> Vec<(usize, PlanError)> {
        let refused = plan.steps.iter().enumerate();
        let refused = refused.filter_map(|(at, step)| Some((at, too_large(step, services)?)));
        let mut refused: Vec<_> = refused.collect();
        if !refused.is_empty() {
            let status = self.status(plan, registry);
            refused.retain(|(at, _)| status[*at] == CacheStatus::Run);
        }
        refused
    }

    /// Runs a plan to its end, or until it is stopped.
    pub fn run(&self, request: RunSpec<'_>) -> Report {
        let begun = Instant::now();
        let graph = request.services.find::<GraphId>();
        self.in_flight.wait_for_older_sinks(request.id, graph.as_deref(), request.stop);
        let wiring = Wiring::new(request.plan, request.registry);
        let teller = Teller::new(request.events);
        // Entries that could not be read after all. What needs them is computed in a further round,
        // which finds in the caches what the one before it computed.
        let mut unreadable = Vec::new();
        let mut report = Report::default();
        loop {
            let is_first = unreadable.is_empty();
            let (next, found) = self.round(&request, &wiring, &teller, &unreadable, is_first);
            let forecast = if is_first { next.forecast } else { report.forecast };
            let mut evaluated = std::mem::take(&mut report.evaluated);
            evaluated.retain(|name| !next.evaluated.contains(name));
            report = Report { forecast, ..next };
            if !evaluated.is_empty() {
                report.cached.retain(|name| !evaluated.contains(name));
                evaluated.append(&mut report.evaluated);
                report.evaluated = evaluated;
            }
            if found.is_empty() || request.stop.is_stopping() {
                break;
            }
            unreadable.extend(found);
        }
        report.seconds = begun.elapsed().as_secs_f64();
        teller.say(done(&report));
        report
    }

    /// Runs a plan until it is done, it is stopped, or an entry of the cache cannot be read: gives
    /// the keys of those. `unreadable` ones are computed.
    fn round(
        &self,
        request: &RunSpec<'_>,
        wiring: &Wiring<'_>,
        teller: &Teller<'_>,
        unreadable: &[[u8; 32]],
        is_first: bool,
    ) -> (Report, Vec<[u8; 32]>) {
        let &RunSpec { plan, services, stop, embedded_workflow, id, .. } = request;
        let graph = services.find::<GraphId>();
        let graph = graph.as_deref();
        let waiting = Waiting::new(wiring, &services.ledger);
        let mut hits = Hits::new(&self.store, wiring, services, &waiting, unreadable);
        let claimed = hits.demand();
        let mut forecast = Forecast::default();
        if is_first {
            teller.say(planned(plan, &claimed));
            forecast = self.foresee(wiring, &claimed, services);
        }
        let (demand, hits) = hits.verified(claimed, self.threads, &|| stop.is_stopping());
        let sinks = hits.iter().enumerate().filter(|(step, _)| wiring.traits(*step).sink);
        let up_to_date = sinks.filter_map(|(_, hit)| hit.as_ref()?.outputs());
        sink::remove_leftovers(up_to_date, services);
        let Demand { need, wanted, .. } = demand;
        let to_do =
            (0..need.len()).filter(|step| need[*step] != Need::None && hits[*step].is_none());
        let to_do: Vec<usize> = to_do.collect();
        let twins = to_do.iter().filter(|step| !wiring.traits(**step).sink);
        let twins = twins.map(|step| (*step, wiring.key(*step), &wanted[wiring.slots(*step)]));
        let twins = Twins::new(wiring.steps(), twins);
        let workers = self.workers(wiring, to_do.into_iter());
        let schedule = Schedule::new(wiring, &need, hits, self.threads, &services.ledger);
        let work = Work {
            wiring,
            wanted: &wanted,
            services,
            store: &self.store,
            device: &self.device,
            in_flight: &self.in_flight,
            twins,
            waiting: &waiting,
            run: id,
            graph,
            stop,
            record: embedded_workflow,
            teller,
            schedule: Mutex::new(schedule),
            wake: Condvar::new(),
            failures: Mutex::default(),
            unreadable: Mutex::default(),
        };
        employ(&work, workers);
        (Report { forecast, ..report(&work) }, work.unreadable())
    }

    /// How many threads a run needs: those for light steps, and one for a heavy step beside them.
    fn workers(&self, wiring: &Wiring<'_>, to_do: impl Iterator<Item = usize>) -> usize {
        let (heavy, light): (Vec<_>, Vec<_>) = to_do.partition(|step| wiring.traits(*step).heavy);
        let heavy = heavy.len().min(1);
        (light.len().min(self.threads) + heavy).max(1)
    }
}

/// Lets this thread and `workers - 1` others work until all is done.
fn employ(work: &Work<'_>, workers: usize) {
    std::thread::scope(|scope| {
        for _ in 1..workers {
            let worker = std::thread::Builder::new().name("step".into()).stack_size(STACK);
            if let Err(error) = worker.spawn_scoped(scope, || work.until_done()) {
                tracing::warn!("No thread could be started: {error}. The run goes on with fewer.");
                break;
            }
        }
        work.until_done();
    });
}

fn statuses(demand: &Demand<CacheStatus>) -> Vec<CacheStatus> {
    let status = |(need, hit): (&Need, &Option<CacheStatus>)| match (need, hit) {
        (_, Some(hit)) => *hit,
        (Need::None, None) => CacheStatus::Pruned,
        (Need::Maybe, None) => CacheStatus::Lazy,
        (Need::Certain, None) => CacheStatus::Run,
    };
    demand.need.iter().zip(&demand.hits).map(status).collect()
}

fn planned(plan: &Plan, demand: &Demand<CacheStatus>) -> Event {
    let statuses = statuses(demand);
    let steps = plan.steps.iter().zip(statuses).map(|(step, status)| PlannedStep {
        name: Arc::clone(&step.name),
        op: Arc::clone(&step.op),
        status,
        memory: step.memory,
    });
    Event::Planned { steps: steps.collect() }
}

fn report(work: &Work<'_>) -> Report {
    let mut schedule = work.schedule();
    let names = |steps: &[u32]| {
        steps.iter().map(|step| Arc::clone(work.wiring.name(*step as usize))).collect()
    };
    Report {
        outputs: schedule.outputs(),
        evaluated: names(&schedule.evaluated),
        cached: names(&schedule.cached),
        failed: std::mem::take(&mut *work.failures()),
        skipped: schedule.skipped(),
        cancelled: schedule.is_unfinished(),
        seconds: 0.0,
        forecast: Forecast::default(),
    }
}

fn done(report: &Report) -> Event {
    Event::Done {
        seconds: report.seconds,
        evaluated: report.evaluated.len(),
        cached: report.cached.len(),
        failed: report.failed.len(),
        skipped: report.skipped.len(),
        cancelled: report.cancelled,
    }
}
