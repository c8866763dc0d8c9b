//! What runs beside what, when values are dropped, and in which order events come.

use std::collections::HashMap;
use std::sync::Barrier;
use std::sync::atomic::Ordering;

use kino_graph::{StepInput, Turn};
use kino_runtime::{Cached, Event, RuntimeOptions};

use crate::nodes::Log;
use crate::rig::{Draft, Rig, all, int, lit, of};

#[test]
fn inputs_run_before_their_readers_and_outputs_are_right() {
    let rig = Rig::new();
    let report = rig.run(&Draft::chain());
    let order: Vec<&str> = report.evaluated.iter().map(|name| &**name).collect();
    assert_eq!(order, ["a", "b", "c"]);
    assert_eq!(int(&report, "c"), Some(111));
}

#[test]
fn nodes_that_nothing_asks_for_do_not_run() {
    let mut draft = Draft::chain();
    let a = draft.add("aside", "add", vec![of(0), lit(1)]);
    draft.add("further", "fail", vec![of(a), lit(1)]);
    assert_eq!(Rig::new().evaluated(&draft), ["a", "b", "c"]);
}

#[test]
fn a_target_runs_without_being_an_output() {
    let mut draft = Draft::default();
    let a = draft.add("a", "both", vec![lit(1), lit(1)]);
    draft.plan.steps[a as usize].target = true;
    assert_eq!(Rig::new().evaluated(&draft), ["a"]);
}

#[test]
fn independent_branches_run_at_the_same_time() {
    // Each waits until the other has begun.
    let log = Log { meeting: Some(Barrier::new(2)), ..Log::default() };
    let rig = Rig::with(RuntimeOptions { threads: 2, ..RuntimeOptions::default() }, log);
    let mut draft = Draft::default();
    let a = draft.add("a", "meet", vec![lit(1), lit(1)]);
    let b = draft.add("b", "meet", vec![lit(2), lit(2)]);
    let sum = draft.add("sum", "sum", vec![all(&[a, b])]);
    draft.give(sum, 0);
    assert_eq!(int(&rig.run(&draft), "sum"), Some(6));
}

#[test]
fn light_steps_do_not_wait_behind_heavy_ones() {
    for threads in 1..3 {
        let log = Log { meeting: Some(Barrier::new(2)), ..Log::default() };
        let rig = Rig::with(RuntimeOptions { threads, ..RuntimeOptions::default() }, log);
        let mut draft = Draft::default();
        let a = draft.add("a", "meet.heavy", vec![lit(1), lit(1)]);
        // Behind more heavy steps than there are threads, and behind a light one.
        let more: Vec<u32> = (0..4)
            .map(|number| draft.add(&format!("more{number}"), "heavy", vec![lit(number), lit(0)]))
            .collect();
        let before = draft.add("before", "add", vec![lit(5), lit(5)]);
        let b = draft.add("b", "meet", vec![of(before), lit(2)]);
        let sum = draft.add("sum", "sum", vec![all(&[&[a, b], &more[..]].concat())]);
        draft.give(sum, 0);
        assert_eq!(int(&rig.run(&draft), "sum"), Some(2 + 12 + 6));
    }
}

#[test]
fn the_device_runs_one_heavy_step_at_a_time() {
    let rig = Rig::threads(4);
    let mut draft = Draft::default();
    let mut ends = Vec::new();
    for branch in 0..8 {
        let mut step = draft.add(&format!("b{branch}"), "heavy", vec![lit(branch), lit(0)]);
        for link in 0..50 {
            let op = if link % 2 == 0 { "add" } else { "heavy" };
            step = draft.add(&format!("b{branch}_{link}"), op, vec![of(step), lit(1)]);
        }
        ends.push(step);
    }
    let sum = draft.add("sum", "sum", vec![all(&ends)]);
    draft.give(sum, 0);
    assert_eq!(int(&rig.run(&draft), "sum"), Some(28 + 8 * 50));
    assert!(!rig.log.shared_device.load(Ordering::SeqCst));
}

#[test]
fn values_are_dropped_after_their_last_reader() {
    for threads in 1..4 {
        let rig = Rig::threads(threads);
        let mut draft = Draft::default();
        let mut step = draft.add("t0", "token", vec![StepInput::Absent]);
        for number in 1..100 {
            step = draft.add(&format!("t{number}"), "token", vec![of(step)]);
        }
        draft.give(step, 0);
        let report = rig.run(&draft);
        assert_eq!(report.evaluated.len(), 100);
        // A token and the one that is made from it, never a third.
        assert_eq!(rig.log.most_alive.load(Ordering::SeqCst), 2);
        assert_eq!(rig.log.alive.load(Ordering::SeqCst), 1);
        drop(report);
        assert_eq!(rig.log.alive.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn branches_are_finished_one_after_the_other() {
    let rig = Rig::threads(1);
    let mut draft = Draft::default();
    let sums: Vec<u32> = (0..50)
        .map(|number| {
            let token = draft.add(&format!("t{number}"), "token", vec![StepInput::Absent]);
            draft.add(&format!("s{number}"), "sum", vec![all(&[token])])
        })
        .collect();
    let sum = draft.add("sum", "sum", vec![all(&sums)]);
    draft.give(sum, 0);
    assert_eq!(int(&rig.run(&draft), "sum"), Some(50));
    assert_eq!(rig.log.most_alive.load(Ordering::SeqCst), 1);
}

#[test]
fn what_a_switch_did_not_choose_is_dropped() {
    let rig = Rig::threads(1);
    let mut draft = Draft::default();
    let token = draft.add("token", "token", vec![StepInput::Absent]);
    let one = draft.add("one", "sum", vec![all(&[token])]);
    let on = draft.add("on", "even", vec![of(one), StepInput::Absent]);
    let a = draft.add("a", "sum", vec![all(&[token])]);
    let value = draft.add("value", "switch", vec![of(on), of(a), lit(9)]);
    // If the switch kept `token` alive for `a`, two would be alive here.
    let other = draft.add("other", "token", vec![of(value)]);
    draft.give(other, 0);
    let report = rig.run(&draft);
    assert!(report.is_complete());
    assert_eq!(report.evaluated.len(), 5);
    assert_eq!(rig.log.most_alive.load(Ordering::SeqCst), 1);
}

#[test]
fn events_come_in_the_documented_order() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::on_disk(folder.path());
    rig.run(&Draft::chain());
    rig.events.lock().unwrap().clear();
    let mut draft = Draft::chain();
    let steps = draft.add("steps", "steps", vec![of(2), lit(1)]);
    let fail = draft.add("fail", "fail", vec![of(steps), lit(1)]);
    let behind = draft.add("behind", "add", vec![of(fail), of(steps)]);
    draft.give(behind, 0);
    rig.run(&draft);
    let mut said: HashMap<String, Vec<&str>> = HashMap::new();
    let events = rig.events.lock().unwrap();
    let mut say = |name: &str, what| said.entry(name.to_owned()).or_default().push(what);
    for event in events.iter() {
        match event {
            Event::Planned { .. } => say("", "planned"),
            Event::Started { name, .. } => say(name, "started"),
            Event::Progress { name, seconds_left, step, .. } => {
                assert_eq!(seconds_left.is_some(), *step > 0);
                say(name, "progress");
            }
            Event::Finished { name, cached: Cached::Disk, .. } => say(name, "from disk"),
            Event::Finished { name, .. } => say(name, "finished"),
            Event::Failed { name, .. } => say(name, "failed"),
            Event::Skipped { name, because, .. } => {
                assert_eq!(&**because, "fail");
                say(name, "skipped");
            }
            Event::Done { evaluated, cached, failed, skipped, cancelled, .. } => {
                let counts = (*evaluated, *cached, *failed, *skipped, *cancelled);
                assert_eq!(counts, (2, 1, 1, 1, false));
                say("", "done");
            }
        }
    }
    assert!(matches!(events.first(), Some(Event::Planned { .. })));
    assert!(matches!(events.last(), Some(Event::Done { .. })));
    assert_eq!(said["c"], ["from disk"]);
    let progress = ["started", "progress", "progress", "progress", "progress", "finished"];
    assert_eq!(said["steps"], progress);
    assert_eq!(said["fail"], ["started", "failed"]);
    assert_eq!(said["behind"], ["skipped"]);
    assert!(!said.contains_key("a"));
}

#[test]
fn events_are_tagged_json() {
    let rig = Rig::new();
    let mut draft = Draft::default();
    let fail = draft.add("broken", "fail", vec![lit(1), lit(1)]);
    draft.give(fail, 0);
    rig.run(&draft);
    let events = rig.events.lock().unwrap();
    let json: Vec<serde_json::Value> =
        events.iter().map(|event| serde_json::to_value(event).unwrap()).collect();
    assert_eq!(json[0]["event"], "planned");
    assert_eq!(json[0]["steps"][0]["status"], "run");
    assert_eq!(
        json[2],
        serde_json::json!({
            "event": "failed", "name": "broken", "op": "fail",
            "message": "it broke", "hint": "mend it",
        })
    );
    assert_eq!((&json[3]["event"], &json[3]["failed"]), (&"done".into(), &1.into()));
}

#[test]
fn two_runs_share_the_device_and_the_memory() {
    let rig = Rig::in_memory();
    std::thread::scope(|scope| {
        for run in 0..3 {
            let rig = &rig;
            scope.spawn(move || {
                let mut draft = Draft::default();
                let mut step = draft.add("s0", "heavy", vec![lit(run % 2), lit(0)]);
                for number in 1..200 {
                    step = draft.add(&format!("s{number}"), "heavy", vec![of(step), lit(1)]);
                }
                draft.give(step, 0);
                assert_eq!(int(&rig.run(&draft), "s199"), Some(run % 2 + 199));
            });
        }
    });
    assert!(!rig.log.shared_device.load(Ordering::SeqCst));
}

#[test]
fn a_listener_that_panics_is_not_heard_from_again() {
    let rig = Rig::new();
    let listener = |_: Event| panic!("the pipe is broken");
    let report = rig.run_telling(&Draft::chain(), &listener);
    assert_eq!(int(&report, "c"), Some(111));
}

#[test]
fn a_turn_of_a_loop_begins_when_the_one_before_the_last_is_over() {
    for threads in [1, 2, 8] {
        let mut draft = Draft::default();
        let mut before = None;
        for number in 0..40 {
            // What is made anew in each turn does not wait for the turn before; its sum does.
            let made = draft.add(&format!("made{number}"), "heavy", vec![lit(number), lit(0)]);
            let carried = before.map_or(lit(0), of);
            let sum = draft.add(&format!("sum{number}"), "add", vec![of(made), carried]);
            for step in [made, sum] {
                let turn = Turn { of: 0, number: number as u32 };
                draft.plan.steps[step as usize].turn = Some(turn);
            }
            before = Some(sum);
        }
        draft.give(before.unwrap(), 0);
        let report = Rig::threads(threads).run(&draft);
        assert_eq!(int(&report, "sum39"), Some(40 * 39 / 2));
        let began =
            |name: &str| report.evaluated.iter().position(|began| **began == *name).unwrap();
        for number in 2..40 {
            let over = began(&format!("sum{}", number - 2));
            assert!(began(&format!("made{number}")) > over, "{:?}", report.evaluated);
        }
    }
}

#[test]
fn a_turn_that_fails_or_is_cached_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::on_disk(folder.path());
    let turns = |first: &str| {
        let mut draft = Draft::default();
        for number in 0..6 {
            let op = if number == 0 { first } else { "keep" };
            let step = draft.add(&format!("s{number}"), op, vec![lit(number), lit(1)]);
            draft.plan.steps[step as usize].turn = Some(Turn { of: 0, number: number as u32 });
            draft.give(step, 0);
        }
        draft
    };
    let report = rig.run(&turns("fail"));
    assert_eq!((report.failed.len(), report.evaluated.len()), (1, 6));
    assert_eq!(rig.evaluated(&turns("keep")), ["s0"]);
}
