//! What is computed again, and what is not.

use kino_graph::StepInput;
use kino_port::Literal;
use kino_runtime::{CacheStatus, Cached, Event, RuntimeOptions};

use crate::nodes::Log;
use crate::rig::{Draft, Rig, int, lit, of, on_disk, run};

/// `a` → `b` → `c` of light additions; the literal of `b` varies.
fn light(literal: i128) -> Draft {
    let mut draft = Draft::default();
    let a = draft.add("a", "add", vec![lit(1), lit(2)]);
    let b = draft.add("b", "add", vec![of(a), lit(literal)]);
    let c = draft.add("c", "add", vec![of(b), StepInput::Absent]);
    draft.give(c, 0);
    draft
}

#[test]
fn a_single_run_keeps_nothing() {
    let rig = Rig::new();
    assert_eq!(rig.evaluated(&light(1)), ["a", "b", "c"]);
    assert_eq!(rig.evaluated(&light(1)), ["a", "b", "c"]);
}

#[test]
fn memory_keeps_what_did_not_change() {
    let rig = Rig::in_memory();
    assert_eq!(rig.evaluated(&light(1)), ["a", "b", "c"]);
    assert_eq!(rig.evaluated(&light(1)), [""; 0]);
    assert_eq!(rig.evaluated(&light(2)), ["b", "c"]);
    let report = rig.run(&light(1));
    assert_eq!(report.cached.iter().map(|name| &**name).collect::<Vec<_>>(), ["c"]);
    assert_eq!(int(&report, "c"), Some(4));
}

#[test]
fn disk_keeps_what_is_expensive_across_runtimes() {
    let folder = tempfile::tempdir().unwrap();
    let mut draft = Draft::chain();
    let d = draft.add("d", "add", vec![of(2), lit(1000)]);
    draft.give(d, 0);
    assert_eq!(Rig::on_disk(folder.path()).evaluated(&draft), ["a", "b", "c", "d"]);
    let rig = Rig::on_disk(folder.path());
    let report = rig.run(&draft);
    assert_eq!((report.evaluated.len(), report.cached.len()), (1, 1));
    assert_eq!((int(&report, "c"), int(&report, "d")), (Some(111), Some(1111)));
}

#[test]
fn the_status_tells_what_the_run_then_does() {
    let folder = tempfile::tempdir().unwrap();
    let mut draft = Draft::chain();
    let d = draft.add("d", "add", vec![of(2), lit(1000)]);
    draft.give(d, 0);
    let rig = Rig::on_disk(folder.path());
    assert_eq!(rig.status(&draft), [CacheStatus::Run; 4]);
    rig.run(&draft);
    use CacheStatus::{Disk, Pruned, Run};
    assert_eq!(rig.status(&draft), [Pruned, Pruned, Disk, Run]);
    let planned = |event: &Event| match event {
        Event::Planned { steps } => Some(steps.iter().map(|step| step.status).collect::<Vec<_>>()),
        _ => None,
    };
    rig.run(&draft);
    let planned: Vec<_> = rig.events.lock().unwrap().iter().filter_map(planned).collect();
    assert_eq!(planned, [vec![Run; 4], vec![Pruned, Pruned, Disk, Run]]);
}

#[test]
fn what_disk_gave_stays_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    Rig::on_disk(folder.path()).run(&Draft::chain());
    let rig =
        Rig::with(RuntimeOptions { memory_budget: 9999, ..on_disk(folder.path()) }, Log::default());
    rig.run(&Draft::chain());
    rig.run(&Draft::chain());
    let from = |event: &Event| match event {
        Event::Finished { cached, .. } => Some(*cached),
        _ => None,
    };
    let from: Vec<_> = rig.events.lock().unwrap().iter().filter_map(from).collect();
    assert_eq!(from, [Cached::Disk, Cached::Memory]);
}

#[test]
fn an_output_that_was_not_kept_is_a_miss() {
    for memory_budget in [0, 1 << 20] {
        let folder = tempfile::tempdir().unwrap();
        let options = RuntimeOptions { memory_budget, ..on_disk(folder.path()) };
        let rig = Rig::with(options, Log::default());
        let draft = |outputs: &[u32]| {
            let mut draft = Draft::default();
            let both = draft.add("both", "both", vec![lit(3), lit(4)]);
            for output in outputs {
                draft.give(both, *output);
            }
            draft
        };
        assert_eq!(rig.evaluated(&draft(&[0])), ["both"]);
        assert_eq!(rig.evaluated(&draft(&[0])), [""; 0]);
        assert_eq!(rig.evaluated(&draft(&[0, 1])), ["both"]);
        assert_eq!(rig.evaluated(&draft(&[1])), [""; 0]);
        assert_eq!(int(&rig.run(&draft(&[1])), "both"), Some(12));
    }
}

#[test]
fn steps_behind_cached_ones_are_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::on_disk(folder.path());
    let mut draft = Draft::default();
    let model = draft.add("model", "token", vec![StepInput::Absent]);
    let one = draft.add("one", "sum", vec![crate::rig::all(&[model])]);
    let kept = draft.add("kept", "keep", vec![of(one), lit(5)]);
    draft.give(kept, 0);
    assert_eq!(rig.evaluated(&draft), ["kept", "model", "one"]);
    let before = rig.events.lock().unwrap().len();
    assert_eq!(rig.evaluated(&draft), [""; 0]);
    // Planned, finished, done.
    assert_eq!(rig.events.lock().unwrap().len() - before, 3);
}

#[test]
fn parts_of_models_stay_in_memory() {
    let rig = Rig::in_memory();
    let draft = |literal| {
        let mut draft = Draft::default();
        let model = draft.add("model", "token", vec![StepInput::Absent]);
        let one = draft.add("one", "sum", vec![crate::rig::all(&[model])]);
        let last = draft.add("last", "add", vec![of(one), lit(literal)]);
        draft.give(last, 0);
        draft
    };
    rig.run(&draft(1));
    assert_eq!(rig.log.alive.load(std::sync::atomic::Ordering::SeqCst), 1);
    assert_eq!(rig.evaluated(&draft(2)), ["last"]);
}

/// `value` is `a` or `b`, each behind a node of its own.
fn switch(on: StepInput) -> Draft {
    let mut draft = Draft::default();
    let on = match on {
        StepInput::Literal(Literal::Int(number)) => {
            of(draft.add("on", "even", vec![lit(number), StepInput::Absent]))
        }
        other => other,
    };
    let root = draft.add("root", "add", vec![lit(1), lit(1)]);
    let a = draft.add("a", "add", vec![of(root), lit(10)]);
    let before = draft.add("before", "add", vec![of(root), lit(20)]);
    let b = draft.add("b", "add", vec![of(before), lit(30)]);
    let value = draft.add("value", "switch", vec![on, of(a), of(b)]);
    draft.give(value, 0);
    draft
}

#[test]
fn a_switch_evaluates_only_what_it_chose() {
    for threads in 1..4 {
        let rig = Rig::threads(threads);
        assert_eq!(rig.status(&switch(lit(0)))[1..5], [CacheStatus::Lazy; 4]);
        assert_eq!(rig.evaluated(&switch(lit(0))), ["a", "on", "root", "value"]);
        assert_eq!(rig.evaluated(&switch(lit(1))), ["b", "before", "on", "root", "value"]);
        assert_eq!(int(&rig.run(&switch(lit(0))), "value"), Some(12));
        assert_eq!(int(&rig.run(&switch(lit(1))), "value"), Some(52));
        let literal = switch(StepInput::Literal(Literal::Bool(true)));
        assert_eq!(rig.evaluated(&literal), ["a", "root", "value"]);
    }
}

#[test]
fn a_switch_takes_what_is_cached_and_what_others_need() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::on_disk(folder.path());
    let draft = |number, shared: bool| {
        let mut draft = Draft::default();
        let on = draft.add("on", "even", vec![lit(number), StepInput::Absent]);
        let a = draft.add("a", "keep", vec![lit(1), lit(10)]);
        let b = draft.add("b", "keep", vec![lit(2), lit(20)]);
        let value = draft.add("value", "switch", vec![of(on), of(a), of(b)]);
        draft.give(value, 0);
        if shared {
            draft.give(b, 0);
        }
        draft
    };
    assert_eq!(rig.evaluated(&draft(0, false)), ["a", "on", "value"]);
    let report = rig.run(&draft(2, true));
    assert_eq!((int(&report, "value"), int(&report, "b")), (Some(11), Some(22)));
    assert_eq!(crate::rig::sorted(&report.evaluated), ["b", "on", "value"]);
    assert_eq!(rig.evaluated(&draft(1, true)), ["on", "value"]);
    assert_eq!(int(&run(&rig, &draft(1, false)), "value"), Some(22));
}

#[test]
fn what_is_forgotten_is_computed_again() {
    let folder = tempfile::tempdir().unwrap();
    let options = RuntimeOptions { memory_budget: 1 << 20, ..on_disk(folder.path()) };
    let rig = Rig::with(options, Log::default());
    let mut draft = Draft::chain();
    let file = folder.path().join("file").display().to_string();
    draft.add("file", "write", vec![of(2), StepInput::Literal(Literal::text(file))]);
    assert_eq!(rig.evaluated(&draft), ["a", "b", "c", "file"]);
    assert_eq!(rig.evaluated(&draft), [""; 0]);
    for step in &draft.plan.steps[1..] {
        rig.runtime.forget(&step.key);
    }
    assert_eq!(rig.evaluated(&draft), ["b", "c", "file"]);
}

#[test]
fn an_entry_grows_by_the_outputs_that_are_asked_later() {
    let folder = tempfile::tempdir().unwrap();
    let in_memory = RuntimeOptions { memory_budget: 1 << 20, disk: None, threads: 2 };
    for options in [on_disk(folder.path()), in_memory] {
        let rig = Rig::with(options, Log::default());
        let draft = |output| {
            let mut draft = Draft::default();
            let both = draft.add("both", "both", vec![lit(3), lit(4)]);
            draft.give(both, output);
            draft
        };
        let turns = [0, 1, 0, 1].map(|output| {
            let report = rig.run(&draft(output));
            (report.evaluated.len(), int(&report, "both"))
        });
        assert_eq!(turns, [(1, Some(7)), (1, Some(12)), (0, Some(7)), (0, Some(12))]);
    }
}

#[test]
fn steps_of_one_key_are_computed_once() {
    for threads in 1..4 {
        for op in ["add", "keep", "heavy"] {
            let rig = Rig::threads(threads);
            let mut draft = Draft::default();
            let twins = ["a", "b", "c"].map(|name| draft.add(name, op, vec![lit(1), lit(2)]));
            let sum = draft.add("sum", "sum", vec![crate::rig::all(&twins)]);
            draft.give(sum, 0);
            let keys: Vec<_> =
                twins.iter().map(|twin| draft.plan.steps[*twin as usize].key).collect();
            assert!(keys.iter().all(|key| *key == keys[0]), "the rig gives equal steps equal keys");
            let report = rig.run(&draft);
            assert_eq!((report.evaluated.len(), report.cached.len()), (2, 2), "{op}");
            assert_eq!(int(&report, "sum"), Some(9));
            let finished = |event: &&Event| matches!(event, Event::Finished { .. });
            assert_eq!(rig.events.lock().unwrap().iter().filter(finished).count(), 4);
        }
    }
}

#[test]
fn steps_of_one_key_that_are_asked_for_different_outputs_are_computed_once() {
    let rig = Rig::threads(2);
    let mut draft = Draft::default();
    let one = draft.add("one", "both", vec![lit(3), lit(4)]);
    let other = draft.add("other", "both", vec![lit(3), lit(4)]);
    draft.give(one, 0).give(other, 1);
    let report = rig.run(&draft);
    assert_eq!((int(&report, "one"), int(&report, "other")), (Some(7), Some(12)));
    assert_eq!((report.evaluated.len(), report.cached.len()), (1, 1));
}
