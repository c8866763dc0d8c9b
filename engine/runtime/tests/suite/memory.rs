//! What runs hold in memory and in temporary files, and who waits for whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kino_graph::{Catalog, StepInput};
use kino_node::{FramesFact, Ledger, Services, TensorFact};
use kino_port::{Fact, Facts, PlannedWeights};
use kino_runtime::{DiskCache, Event, NodeCatalog, RunSpec, Runtime, RuntimeOptions, StopSignal};

use crate::caches_on_disk::files;
use crate::nodes::{Log, registry};
use crate::rig::{Draft, Rig, all, int, lit, of, sorted};

const MB: u64 = 1 << 20;

fn rig(ledger: &Arc<Ledger>, memory_budget: u64) -> Rig {
    let options = RuntimeOptions { memory_budget, disk: None, threads: 2 };
    Rig::with_ledger(options, Log::default(), Arc::clone(ledger))
}

/// A film of 50 frames of 24,000 bytes, and the number of its frames.
fn film(seed: i128) -> Draft {
    let mut draft = Draft::default();
    let film = draft.add("film", "film", vec![lit(seed), lit(50)]);
    let frames = draft.add("frames", "frames", vec![of(film)]);
    draft.give(frames, 0);
    draft
}

#[test]
fn five_hundred_edits_keep_memory_and_temporary_files_flat() {
    let ledger = Ledger::with_spill(2 * MB, std::env::temp_dir(), u64::MAX);
    let rig = rig(&ledger, 2 * MB);
    // As a process that holds other things: there is no memory for frames.
    let other = ledger.lease(2 * MB, "something else").unwrap();
    for seed in 0..250 {
        assert_eq!(int(&rig.run(&film(seed)), "frames"), Some(50));
        assert!(ledger.spilled() <= 2 * MB, "{} after {seed} runs", ledger.spilled());
        assert!(ledger.used() <= 3 * MB, "{} after {seed} runs", ledger.used());
    }
    drop(other);
    for seed in 250..500 {
        assert_eq!(int(&rig.run(&film(seed)), "frames"), Some(50));
        assert!(ledger.spilled() <= 2 * MB, "{} after {seed} runs", ledger.spilled());
        assert!(ledger.used() <= 2 * MB, "{} after {seed} runs", ledger.used());
    }
    assert!(rig.evaluated(&film(499)).is_empty(), "the newest is kept");
    drop(rig);
    assert_eq!((ledger.used(), ledger.spilled()), (0, 0));
}

/// So many films of `frames` frames, 24 kB each, made one after another, joined and watched.
fn joined(count: i128, frames: usize) -> Draft {
    let mut draft = Draft::default();
    let mut films = Vec::new();
    for seed in 1..=count {
        // A film waits for the one before it.
        let before =
            films.last().map(|film| draft.add(&format!("f{seed}"), "frames", vec![of(*film)]));
        let length = before.map_or(lit(frames as i128), of);
        let film = draft.add(&format!("film{seed}"), "film", vec![lit(seed), length]);
        let fact = FramesFact {
            count: Some(frames),
            height: Some(20),
            width: Some(100),
            ..FramesFact::default()
        };
        draft.plan.steps[film as usize].facts = vec![Fact::typed(fact)];
        films.push(film);
    }
    let whole = draft.add("whole", "joined", vec![all(&films)]);
    let sum = draft.add("sum", "watched", vec![of(whole)]);
    draft.give(sum, 0);
    draft
}

#[test]
fn what_waits_to_be_joined_takes_no_memory_however_much_it_is() {
    // Of those that were cached, large entries are kept open, small ones read ahead in part.
    for (cached, frames) in [(false, 1000), (true, 1000), (true, 500)] {
        let folder = tempfile::tempdir().unwrap();
        let peak = |count: i128| {
            let ledger = Ledger::with_spill(1 << 30, std::env::temp_dir(), u64::MAX);
            let disk = cached.then(|| DiskCache::open(folder.path(), u64::MAX));
            // One thread: two would read two films at once.
            let options = RuntimeOptions { memory_budget: 0, disk, threads: 1 };
            let rig = Rig::with_ledger(options, Log::default(), Arc::clone(&ledger));
            let report = rig.run(&joined(count, frames));
            assert_eq!(int(&report, "sum"), Some(frames as i128 * count * (count + 1) / 2));
            drop(report);
            assert_eq!((ledger.used(), ledger.spilled()), (0, 0), "nothing is left");
            ledger.peak()
        };
        let few = peak(3);
        // The second time they are read from the disk.
        for _ in 0..=usize::from(cached) {
            let many = peak(12);
            assert!(many <= few + few / 10, "{many} bytes of twelve, {few} of three");
        }
    }
}

#[test]
fn what_waits_to_be_joined_stays_in_memory_where_files_are_full() {
    let ledger = Ledger::with_spill(1 << 30, std::env::temp_dir(), 30 * MB);
    let rig = rig(&ledger, 0);
    assert_eq!(int(&rig.run(&joined(4, 1000)), "sum"), Some(10_000));
    assert!(ledger.peak() > 48 * MB, "{}", ledger.peak());
}

#[test]
fn an_entry_that_goes_before_its_turn_comes_is_computed_again() {
    let folder = tempfile::tempdir().unwrap();
    let draft = joined(6, 500);
    assert_eq!(Rig::on_disk(folder.path()).evaluated(&draft).len(), 6 + 5 + 2);
    let rig = Rig::on_disk(folder.path());
    // Two films of 12 MB are read ahead or on the way; somebody removes all when the first is told.
    let report = rig.run_telling(&draft, &|event| {
        if matches!(event, Event::Finished { .. }) {
            files(folder.path()).iter().for_each(|entry| drop(std::fs::remove_file(entry)));
        }
    });
    assert_eq!(int(&report, "sum"), Some(500 * 21));
    let films = report.evaluated.iter().filter(|name| name.starts_with("film")).count();
    assert!((1..=6).contains(&films), "{:?}", report.evaluated);
    assert!(report.is_complete());
}

#[test]
fn steps_that_fit_only_one_by_one_run_so() {
    let ledger = Ledger::new(100 * MB);
    let rig = rig(&ledger, 0);
    let mut draft = Draft::default();
    for number in 0..20 {
        let step = draft.add(&format!("s{number}"), "alone", vec![lit(number), lit(0)]);
        draft.plan.steps[step as usize].memory = 60 * MB;
        draft.give(step, 0);
    }
    assert!(rig.run(&draft).is_complete());
    assert!(!rig.log.shared_device.load(Ordering::SeqCst));
    assert_eq!((ledger.used(), ledger.peak()), (0, 60 * MB));
}

#[test]
fn what_a_skipped_step_would_have_read_counts_no_more() {
    let ledger = Ledger::new(100 * MB);
    let options = RuntimeOptions { memory_budget: 0, disk: None, threads: 1 };
    let rig = Rig::with_ledger(options, Log::default(), Arc::clone(&ledger));
    let mut draft = Draft::default();
    let big = draft.add("big", "big", vec![lit(1), StepInput::Absent]);
    let shape = draft.add("shape", "shape", vec![all(&[big])]);
    let bad = draft.add("bad", "fail", vec![of(shape), lit(0)]);
    let last = draft.add("last", "sum", vec![all(&[big, bad])]);
    let later = draft.add("later", "add", vec![of(shape), lit(2)]);
    draft.give(last, 0).give(later, 0);
    let then = AtomicU64::new(u64::MAX);
    let report = rig.run_telling(&draft, &|event| match event {
        Event::Finished { name, .. } if &*name == "later" => {
            then.store(ledger.used(), Ordering::SeqCst);
        }
        _ => {}
    });
    assert_eq!((report.failed.len(), report.skipped.len()), (1, 1));
    assert_eq!(sorted(&report.evaluated), ["bad", "big", "later", "shape"]);
    assert_eq!(report.evaluated.last().map(|name| &**name), Some("later"));
    assert!(ledger.peak() > 19 * MB, "it was counted before");
    assert_eq!(then.into_inner(), 0);
}

/// A runtime with a cache on disk and a ledger of its own.
fn on_disk(folder: &std::path::Path, ledger: &Arc<Ledger>) -> Rig {
    Rig::with_ledger(crate::rig::on_disk(folder), Log::default(), Arc::clone(ledger))
}

#[test]
fn reading_a_large_entry_waits_for_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mut draft = Draft::default();
    let big = draft.add("big", "big", vec![lit(1), StepInput::Absent]);
    let shape = draft.add("shape", "shape", vec![all(&[big])]);
    draft.give(shape, 0);
    let first = Rig::on_disk(folder.path()).run(&draft);
    let ledger = Ledger::new(30 * MB);
    let rig = on_disk(folder.path(), &ledger);
    let other = ledger.admit(25 * MB, &[], &|| Ok(())).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| tell.send(rig.run(&draft)).unwrap());
        let wait = std::time::Duration::from_millis(500);
        assert!(told.recv_timeout(wait).is_err(), "it waits");
        drop(other);
        let report = told.recv().unwrap();
        assert_eq!(int(&report, "shape"), int(&first, "shape"));
        assert_eq!(*report.cached, ["big".into()]);
    });
    assert_eq!((ledger.used(), ledger.peak()), (0, 25 * MB));
}

#[test]
fn what_is_read_before_the_run_is_counted_until_nobody_wants_it() {
    let folder = tempfile::tempdir().unwrap();
    let small = |draft: &mut Draft| draft.add("small", "big", vec![lit(1), lit(1 << 20)]);
    let mut draft = Draft::default();
    let of_first = small(&mut draft);
    draft.give(of_first, 0);
    assert!(Rig::on_disk(folder.path()).run(&draft).is_complete());
    let mut draft = Draft::default();
    let lazy = small(&mut draft);
    let on = draft.add("on", "even", vec![lit(1), StepInput::Absent]);
    let switch = draft.add("switch", "switch", vec![of(on), of(lazy), lit(5)]);
    draft.give(switch, 0);
    let ledger = Ledger::new(100 * MB);
    let rig = on_disk(folder.path(), &ledger);
    let (during, after) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let report = rig.run_telling(&draft, &|event| match event {
        Event::Finished { name, .. } if &*name == "on" => {
            during.store(ledger.used(), Ordering::SeqCst);
        }
        Event::Done { .. } => after.store(ledger.used(), Ordering::SeqCst),
        _ => {}
    });
    assert_eq!(int(&report, "switch"), Some(5));
    assert_eq!((during.into_inner(), after.into_inner()), (4 * MB, 0));
}

#[test]
fn two_heavy_runs_under_half_of_their_sum_finish() {
    let ledger = Ledger::new(60 * MB);
    let rig = rig(&ledger, 0);
    let heavy = |seed| {
        let mut draft = Draft::default();
        // 20 MB that stay in flight while a step runs that needs 55 MB.
        let big = draft.add("big", "big", vec![lit(seed), StepInput::Absent]);
        let work = draft.add("work", "heavy", vec![lit(seed), lit(1)]);
        let sum = draft.add("sum", "sum", vec![all(&[big, work])]);
        draft.plan.steps[big as usize].memory = 20 * MB;
        draft.plan.steps[work as usize].memory = 55 * MB;
        draft.give(sum, 0);
        draft
    };
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4)
            .map(|seed| {
                scope.spawn({
                    let rig = &rig;
                    move || rig.run(&heavy(seed))
                })
            })
            .collect();
        for run in runs {
            assert!(run.join().unwrap().is_complete());
        }
    });
    assert_eq!(ledger.used(), 0);
    assert!(ledger.peak() <= (55 + 4 * 20) * MB, "{}", ledger.peak());
}

#[test]
fn a_step_that_fits_nowhere_is_refused_in_the_plan() {
    let refuse = |budget: u64, spill: u64| {
        let ledger = Ledger::with_spill(budget, std::env::temp_dir(), spill);
        let services = Services::new(candle_core::Device::Cpu, ledger);
        let catalog = NodeCatalog { registry: registry(), services: &services };
        let info = catalog.infer("large", &Facts::default()).unwrap();
        let mut draft = Draft::default();
        let large = draft.add("large", "large", vec![lit(1), lit(1)]);
        draft.plan.steps[large as usize].memory = info.memory;
        draft.plan.steps[large as usize].spillable = info.spillable;
        draft.give(large, 0);
        let runtime = Runtime::new(RuntimeOptions::default(), &services.ledger);
        runtime.too_large(&draft.plan, &registry(), &services).pop().map(|(_, error)| error)
    };
    assert!(refuse(8_000_000_000, 2_000_000_000).is_none(), "of 10 GB it can move 2 to a file");
    let error = refuse(8_500_000_000, 1_000_000_000).unwrap();
    assert_eq!(
        error.message,
        "it needs about 10 GB, 2.0 GB of that for frames, and 8.5 GB of memory and 1.0 GB of \
         temporary files are allowed"
    );
    assert!(error.hint.unwrap().contains("KINO_SPILL"));
    let error = refuse(7_000_000_000, u64::MAX).unwrap();
    assert_eq!(error.message, "it needs about 8.0 GB of memory, and 7.0 GB are allowed");
    assert!(error.hint.unwrap().contains("fewer"));
}

#[test]
fn a_step_that_fits_nowhere_is_no_error_where_it_is_cached() {
    let ledger = Ledger::new(100 * MB);
    let rig = rig(&ledger, MB);
    let mut draft = Draft::default();
    let step = draft.add("step", "add", vec![lit(1), lit(2)]);
    draft.give(step, 0);
    assert!(rig.run(&draft).is_complete());
    draft.plan.steps[step as usize].memory = 200 * MB;
    let refused =
        |draft: &Draft| rig.runtime.too_large(&draft.plan, &rig.registry(), rig.services()).len();
    assert_eq!((refused(&draft), int(&rig.run(&draft), "step")), (0, Some(3)));
    let mut other = Draft::default();
    let step = other.add("step", "add", vec![lit(7), lit(2)]);
    other.plan.steps[step as usize].memory = 200 * MB;
    other.give(step, 0);
    assert_eq!(refused(&other), 1);
    let report = rig.run(&other);
    assert_eq!(report.failed.len(), 1, "run all the same, it fails alone");
    assert!(report.failed[0].message.contains("more than there is"), "{:?}", report.failed);
    assert!(rig.run(&draft).is_complete(), "the engine serves on");
}

/// Steps `a` to `d`, each of the memory given, and what is foreseen of them in MB.
fn foreseen(rig: &Rig, memory: [u64; 4], also: impl FnOnce(&mut Draft)) -> (u64, u64) {
    let mut draft = Draft::default();
    let a = draft.add("a", "heavy", vec![lit(1), lit(1)]);
    let b = draft.add("b", "heavy", vec![of(a), lit(1)]);
    let c = draft.add("c", "heavy", vec![of(b), lit(1)]);
    let d = draft.add("d", "heavy", vec![of(a), of(c)]);
    for (step, memory) in [a, b, c, d].into_iter().zip(memory) {
        draft.plan.steps[step as usize].memory = memory * MB;
    }
    draft.give(d, 0);
    also(&mut draft);
    let forecast = rig.runtime.forecast(&draft.plan, &rig.registry(), rig.services());
    (forecast.peak / MB, forecast.spilled / MB)
}

/// A value of so many MB.
fn tensor(mb: usize) -> Vec<Fact> {
    let shape = vec![mb, 1 << 18];
    vec![Fact::typed(TensorFact { shape, dtype: candle_core::DType::F32 })]
}

#[test]
fn a_run_is_foreseen_step_by_step() {
    let ledger = Ledger::new(1000 * MB);
    let rig = rig(&ledger, 0);
    let sizes = [30, 50, 20, 40];
    assert_eq!(foreseen(&rig, sizes, |_| {}), (50, 0), "values that are nothing leave the largest");
    let give = |draft: &mut Draft| {
        // `a` lives until `d` has read it, `b` until `c` has.
        for (step, mb) in [(0, 10), (1, 25), (2, 5)] {
            draft.plan.steps[step].facts = tensor(mb);
        }
    };
    assert_eq!(foreseen(&rig, sizes, give), (10 + 50, 0));
    assert_eq!(foreseen(&rig, [30, 26, 40, 20], give), (10 + 25 + 40, 0));
    let weights = |draft: &mut Draft| {
        give(draft);
        let weights = |id, mb: u64| PlannedWeights { id: [id; 32], bytes: mb * MB };
        draft.plan.steps[0].weights = vec![weights(1, 15)];
        draft.plan.steps[1].optional = vec![weights(2, 7)];
        draft.plan.steps[3].weights = vec![weights(1, 15)];
    };
    // What `b` and `c` find resident stays beside them; `d` counts the weights of `a` no more.
    assert_eq!(foreseen(&rig, sizes, weights), (10 + 15 + 7 + 50, 0));
    assert_eq!(foreseen(&rig, [30, 26, 10, 90], weights), (10 + 5 + 15 + 7 + 75, 0));
}

#[test]
fn what_leaves_and_what_is_spilled_is_foreseen() {
    let ledger = Ledger::new(100 * MB);
    let rig = rig(&ledger, 0);
    let frames = |draft: &mut Draft| {
        for (step, mb) in [(0, 10), (1, 60), (2, 60)] {
            draft.plan.steps[step].facts = tensor(mb);
        }
        draft.plan.steps[1].spillable = 60 * MB;
        draft.plan.steps[2].spillable = 60 * MB;
    };
    // While `c` makes its frames, `a` and the frames of `b` are there: 10 and 60, and 10 to work.
    assert_eq!(foreseen(&rig, [20, 70, 70, 10], frames), (100, 40));
    let weights = |draft: &mut Draft| {
        frames(draft);
        draft.plan.steps[1].weights = vec![PlannedWeights { id: [1; 32], bytes: 20 * MB }];
        draft.plan.steps[2].memory = 40 * MB;
        draft.plan.steps[2].spillable = 30 * MB;
        draft.plan.steps[2].facts = tensor(30);
    };
    // The weights of `b` leave before the frames of `c` are spilled.
    assert_eq!(foreseen(&rig, [20, 90, 40, 10], weights), (100, 10));
}

#[test]
fn kept_results_are_foreseen_up_to_their_budget() {
    let ledger = Ledger::new(1000 * MB);
    let rig = rig(&ledger, 40 * MB);
    let give = |draft: &mut Draft| {
        for (step, mb) in [(0, 10), (1, 25), (2, 10)] {
            draft.plan.steps[step].facts = tensor(mb);
        }
    };
    // When `d` runs, the cache alone holds `b`, and `a` and `c` are read.
    assert_eq!(foreseen(&rig, [30, 30, 30, 60], give), (10 + 25 + 10 + 60, 0));
    let more = |draft: &mut Draft| {
        give(draft);
        draft.plan.steps[2].facts = tensor(20);
    };
    // Together they are too many: `b` has left by then, after `a`.
    assert_eq!(foreseen(&rig, [30, 30, 30, 60], more), (10 + 20 + 60, 0));
}

#[test]
fn a_device_with_memory_of_its_own_has_a_ledger_of_its_own() {
    let (main, of_device) = (Ledger::new(100 * MB), Ledger::new(500 * MB));
    let services = Services::new(candle_core::Device::Cpu, Arc::clone(&main));
    let services =
        services.with_device_ledger(Arc::clone(&of_device)).with(Arc::new(Log::default()));
    let runtime = Runtime::new(RuntimeOptions::default(), &main);
    let mut draft = Draft::default();
    let heavy = draft.add("heavy", "heavy", vec![lit(1), lit(2)]);
    let light = draft.add("light", "alone", vec![of(heavy), lit(2)]);
    draft.plan.steps[heavy as usize].memory = 300 * MB;
    draft.plan.steps[light as usize].memory = 50 * MB;
    draft.give(light, 0);
    assert!(runtime.too_large(&draft.plan, &registry(), &services).is_empty());
    let forecast = runtime.forecast(&draft.plan, &registry(), &services);
    assert_eq!(forecast.peak, 50 * MB, "main memory alone is foreseen");
    let stop = StopSignal::default();
    assert!(runtime.run(RunSpec::new(&draft.plan, &registry(), &services, &stop)).is_complete());
    assert_eq!((main.peak(), of_device.peak()), (50 * MB, 300 * MB));
    draft.plan.steps[light as usize].memory = 200 * MB;
    assert_eq!(runtime.too_large(&draft.plan, &registry(), &services)[0].0, light as usize);
}

#[test]
fn a_range_holds_for_a_value_that_only_the_run_gives() {
    let rig = Rig::new();
    let mut draft = Draft::default();
    let sum = draft.add("sum", "add", vec![lit(99_999), lit(1)]);
    let ranged = draft.add("ranged", "ranged", vec![of(sum)]);
    draft.give(ranged, 0);
    let report = rig.run(&draft);
    assert_eq!(report.failed.len(), 1);
    assert!(report.failed[0].message.contains("`factor`"), "{}", report.failed[0].message);
    assert!(rig.run(&Draft::chain()).is_complete(), "the engine serves on");
}

#[test]
fn a_node_that_wants_seventy_terabytes_fails_alone() {
    let ledger = Ledger::new(100 * MB);
    let rig = rig(&ledger, 0);
    let mut draft = Draft::chain();
    let greedy = draft.add("greedy", "greedy", vec![lit(0), lit(0)]);
    draft.give(greedy, 0);
    let report = rig.run(&draft);
    assert_eq!(report.failed.len(), 1);
    assert!(report.failed[0].message.contains("70 TB"), "{}", report.failed[0].message);
    assert_eq!(int(&report, "c"), Some(111));
}
