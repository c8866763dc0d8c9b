//! What runs hold in memory and in temporary files, and who waits for whom.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kino_graph::{Catalog, StepInput};
use kino_node::{Ledger, Services};
use kino_port::Facts;
use kino_runtime::{NodeCatalog, RuntimeOptions};

use crate::nodes::{Log, registry};
use crate::rig::{Draft, Rig, all, int, lit, of};

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
    let refuse = |budget: u64| {
        let services = Services::new(candle_core::Device::Cpu, Ledger::new(budget));
        let catalog = NodeCatalog { registry: registry(), services: &services };
        catalog.infer("large", &Facts::default()).err().map(|errors| errors[0].clone())
    };
    assert!(refuse(8_000_000_000).is_none(), "of 10 GB it can move 2 to a file");
    let error = refuse(7_000_000_000).unwrap();
    assert_eq!(error.message, "it needs about 8.0 GB of memory, and 7.0 GB are allowed");
    assert!(error.hint.unwrap().contains("fewer"));
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
