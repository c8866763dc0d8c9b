//! Failing, panicking and cancelled nodes: what they take along, and what they do not.

use kino_graph::{Catalog, StepInput};
use kino_port::{Fact, Facts, Literal};
use kino_runtime::Report;

use crate::nodes::BRITTLE;
use crate::rig::{Draft, Rig, all, int, lit, of, sorted};

/// A node `bad` with two steps behind it, and a branch beside it.
fn with_bad(op: &str) -> Report {
    let mut draft = Draft::default();
    let good = draft.add("good", "add", vec![lit(1), lit(2)]);
    let bad = draft.add("bad", op, vec![of(good), lit(0)]);
    let behind = draft.add("behind", "add", vec![of(bad), of(good)]);
    let last = draft.add("last", "sum", vec![all(&[behind, good])]);
    let beside = draft.add("beside", "add", vec![of(good), lit(40)]);
    draft.give(last, 0).give(beside, 0);
    let rig = Rig::new();
    let report = rig.run(&draft);
    assert_eq!(sorted(&report.evaluated), ["bad", "beside", "good"]);
    assert_eq!(int(&report, "beside"), Some(43));
    assert_eq!(int(&report, "last"), None);
    let mut skipped: Vec<_> =
        report.skipped.iter().map(|step| (&*step.name, &*step.because)).collect();
    skipped.sort_unstable();
    assert_eq!(skipped, [("behind", "bad"), ("last", "bad")]);
    assert!(!report.is_complete() && !report.cancelled);
    assert_eq!((report.failed.len(), &*report.failed[0].name), (1, "bad"));
    report
}

#[test]
fn a_failing_node_fails_its_dependents_and_nothing_else() {
    let report = with_bad("fail");
    assert_eq!(report.failed[0].message, "it broke");
    assert_eq!(report.failed[0].hint.as_deref(), Some("mend it"));
}

#[test]
fn a_panic_is_that_nodes_error() {
    let report = with_bad("panic");
    assert_eq!(report.failed[0].message, "the node panicked: at 3");
}

/// What a run that must end gives; a worker that is lost would let it wait for ever.
fn ends<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(run()));
    told.recv_timeout(std::time::Duration::from_secs(60)).expect("the run ends")
}

#[test]
fn a_value_that_panics_is_the_error_of_the_step_that_gave_it() {
    for (index, what) in BRITTLE.iter().enumerate() {
        let (report, mended) = ends(move || {
            let folder = tempfile::tempdir().unwrap();
            let rig = Rig::on_disk(folder.path());
            let mut draft = Draft::default();
            let bad = draft.add("bad", "brittle", vec![lit(index as i128), lit(0)]);
            let behind = draft.add("behind", "sum", vec![all(&[bad])]);
            for number in 0..50 {
                let beside = draft.add(&format!("b{number}"), "add", vec![lit(number), lit(40)]);
                draft.give(beside, 0);
            }
            draft.give(behind, 0);
            (rig.run(&draft), rig.run(&Draft::chain()))
        });
        assert_eq!((report.failed.len(), &*report.failed[0].name), (1, "bad"), "{what}");
        let said = &report.failed[0].message;
        assert_eq!(*said, format!("the step panicked: no {what}"));
        assert_eq!(int(&mended, "c"), Some(111), "the runtime serves on");
        if *what != "unleased" {
            assert_eq!((report.skipped.len(), report.cancelled), (1, false), "{what}");
            assert_eq!(int(&report, "b49"), Some(89), "what stands beside it runs");
        }
    }
}

#[test]
fn a_panic_while_planning_is_that_nodes_error() {
    let rig = Rig::new();
    let catalog = rig.catalog();
    let number = |value: i128| Some(Fact::Literal(Literal::Int(value)));
    let facts = |b: i128| Facts::new(vec![("a".into(), number(1)), ("b".into(), number(b))]);
    assert!(catalog.infer("panic.in.plan", &facts(1)).is_ok());
    let errors = catalog.infer("panic.in.plan", &facts(0)).unwrap_err();
    let said = "the node panicked while planning: attempt to divide by zero";
    assert_eq!(errors[0].message, said);
}

#[test]
fn a_node_that_gives_nothing_is_an_error() {
    let report = with_bad("wrong");
    assert_eq!(report.failed[0].message, "the node gave nothing at `value`");
}

#[test]
fn a_node_that_went_missing_is_an_error() {
    let mut draft = Draft::chain();
    draft.plan.steps[1].op = "gone".into();
    let rig = Rig::new();
    let report = rig.run(&draft);
    assert_eq!(report.failed[0].message, "there is no node `gone`");
    assert_eq!(sorted(&report.evaluated), ["a", "b"]);
}

#[test]
fn a_failed_node_is_not_cached() {
    let rig = Rig::in_memory();
    let mut draft = Draft::default();
    let bad = draft.add("bad", "fail", vec![lit(1), lit(0)]);
    draft.give(bad, 0);
    for _ in 0..2 {
        assert_eq!(rig.run(&draft).failed.len(), 1);
    }
}

#[test]
fn a_switch_survives_what_it_did_not_choose() {
    let rig = Rig::new();
    let draft = |number| {
        let mut draft = Draft::default();
        let on = draft.add("on", "even", vec![lit(number), StepInput::Absent]);
        let bad = draft.add("bad", "fail", vec![lit(1), lit(0)]);
        let good = draft.add("good", "add", vec![lit(1), lit(1)]);
        let value = draft.add("value", "switch", vec![of(on), of(bad), of(good)]);
        draft.give(value, 0);
        draft
    };
    assert_eq!(rig.evaluated(&draft(1)), ["good", "on", "value"]);
    let report = rig.run(&draft(2));
    assert_eq!((report.failed.len(), report.skipped.len()), (1, 1));
    assert_eq!(&*report.skipped[0].name, "value");
}

#[test]
fn a_switch_that_chooses_what_has_already_failed_is_skipped() {
    let rig = Rig::threads(1);
    let mut draft = Draft::default();
    // `slow` fails long before the switch, behind a chain, has chosen.
    let bad = draft.add("bad", "fail", vec![lit(1), lit(0)]);
    draft.give(bad, 0);
    let mut link = draft.add("link", "add", vec![lit(0), lit(0)]);
    for number in 0..20 {
        link = draft.add(&format!("link{number}"), "add", vec![of(link), lit(2)]);
    }
    let on = draft.add("on", "even", vec![of(link), StepInput::Absent]);
    let value = draft.add("value", "switch", vec![of(on), of(bad), lit(1)]);
    draft.give(value, 0);
    let report = rig.run(&draft);
    assert_eq!((report.failed.len(), report.skipped.len()), (1, 1));
    assert!(!report.cancelled);
}

#[test]
fn cancelling_starts_nothing_more() {
    for threads in 1..4 {
        let rig = Rig::threads(threads);
        let mut draft = Draft::default();
        let a = draft.add("a", "add", vec![lit(1), lit(1)]);
        let raise = draft.add("raise", "raise", vec![of(a), lit(1)]);
        let after = draft.add("after", "add", vec![of(raise), lit(1)]);
        draft.give(after, 0).give(a, 0);
        let report = rig.run(&draft);
        assert!(report.cancelled && report.failed.is_empty() && report.skipped.is_empty());
        assert_eq!(sorted(&report.evaluated), ["a", "raise"]);
        assert_eq!((int(&report, "a"), int(&report, "after")), (Some(2), None));
    }
}

#[test]
fn cancelling_stops_what_runs() {
    let rig = Rig::threads(2);
    let mut draft = Draft::default();
    let wait = draft.add("wait", "wait", vec![lit(1), lit(1)]);
    let after = draft.add("after", "add", vec![of(wait), lit(1)]);
    let raise = draft.add("raise", "raise", vec![lit(1), lit(1)]);
    draft.give(after, 0).give(raise, 0);
    let report = rig.run(&draft);
    assert!(report.cancelled && report.failed.is_empty());
    assert!(sorted(&report.evaluated).contains(&"raise".to_owned()));
}

#[test]
fn cancelling_when_all_is_done_is_no_cancelling() {
    let rig = Rig::new();
    let mut draft = Draft::default();
    let raise = draft.add("raise", "raise", vec![lit(1), lit(1)]);
    draft.give(raise, 0);
    let report = rig.run(&draft);
    assert!(report.is_complete());
    // Now the flag is up from the beginning.
    let report = rig.run(&draft);
    assert!(report.cancelled && report.evaluated.is_empty());
}

#[test]
fn a_cancelled_run_resumes_from_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut draft = Draft::chain();
    let raise = draft.add("raise", "raise", vec![of(2), lit(1)]);
    let last = draft.add("last", "keep", vec![of(raise), lit(1)]);
    draft.give(last, 0);
    assert!(Rig::on_disk(folder.path()).run(&draft).cancelled);
    draft.plan.steps[raise as usize].op = "add".into();
    let rig = Rig::on_disk(folder.path());
    assert_eq!(rig.evaluated(&draft), ["last", "raise"]);
}
