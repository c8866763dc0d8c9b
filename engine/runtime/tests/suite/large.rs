//! Plans of ten thousand steps: no recursion, no quadratic work.

use kino_graph::StepInput;

use crate::rig::{Draft, Rig, all, int, lit, of};

const MANY: i128 = 10_000;

fn chain(op: &str) -> Draft {
    let mut draft = Draft::default();
    let mut step = draft.add("s0", op, vec![lit(0), lit(0)]);
    for number in 1..MANY {
        step = draft.add(&format!("s{number}"), op, vec![of(step), lit(1)]);
    }
    draft.give(step, 0);
    draft
}

#[test]
fn a_chain() {
    for threads in 1..4 {
        let report = Rig::threads(threads).run(&chain("add"));
        assert_eq!(int(&report, &format!("s{}", MANY - 1)), Some(MANY - 1));
        assert_eq!(report.evaluated.len(), 10_000);
    }
}

#[test]
fn a_chain_that_is_wholly_cached_touches_one_step() {
    let rig = Rig::with(
        kino_runtime::RuntimeOptions { memory_budget: 1 << 30, ..Default::default() },
        crate::nodes::Log::default(),
    );
    let draft = chain("add");
    assert_eq!(rig.evaluated(&draft).len(), 10_000);
    let report = rig.run(&draft);
    assert_eq!((report.evaluated.len(), report.cached.len()), (0, 1));
}

#[test]
fn side_by_side() {
    for threads in 1..4 {
        let mut draft = Draft::default();
        let add = |number| draft.add(&format!("s{number}"), "add", vec![lit(number), lit(1)]);
        let steps: Vec<u32> = (0..MANY).map(add).collect();
        let sum = draft.add("sum", "sum", vec![all(&steps)]);
        draft.give(sum, 0);
        let report = Rig::threads(threads).run(&draft);
        assert_eq!(int(&report, "sum"), Some(MANY * (MANY - 1) / 2 + MANY));
    }
}

#[test]
fn a_chain_behind_a_failure() {
    let mut draft = chain("add");
    draft.plan.steps[0].op = "fail".into();
    let report = Rig::new().run(&draft);
    assert_eq!((report.failed.len(), report.skipped.len()), (1, 9_999));
}

#[test]
fn a_chain_of_switches_and_a_chain_that_one_refuses() {
    let mut draft = chain("add");
    let on = draft.add("on", "even", vec![lit(1), StepInput::Absent]);
    let last = MANY as u32 - 1;
    let refused = draft.add("refused", "switch", vec![of(on), of(last), lit(5)]);
    let mut value = refused;
    for number in 0..MANY {
        value =
            draft.add(&format!("w{number}"), "switch", vec![of(on), StepInput::Absent, of(value)]);
    }
    draft.plan.outputs.clear();
    draft.give(value, 0);
    let report = Rig::new().run(&draft);
    assert_eq!(int(&report, &format!("w{}", MANY - 1)), Some(5));
    assert_eq!(report.evaluated.len(), 10_002);
}
