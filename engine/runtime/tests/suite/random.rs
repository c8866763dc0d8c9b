//! Random plans, run in parallel, with caches that lose entries: the result is that of a simple
//! evaluation in order.

use std::collections::HashSet;
use std::fs;

use kino_graph::{StepInput, StepOutput, ValueSource};
use kino_port::Literal;
use kino_runtime::{DiskCache, RuntimeOptions};

use crate::nodes::Log;
use crate::rig::{Draft, Rig, all, int, lit, of};

/// xorshift64*
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

fn plan(random: &mut Random, steps: usize) -> Draft {
    let mut draft = Draft::default();
    for number in 0..steps {
        let name = format!("s{number}");
        let back = 1 + random.below(12);
        let any = |random: &mut Random| {
            if number == 0 || random.one_in(6) {
                lit(random.below(100) as i128)
            } else {
                of((number - 1 - random.below(back.min(number))) as u32)
            }
        };
        let (a, b) = (any(random), any(random));
        match random.below(12) {
            0..4 => draft.add(&name, "add", vec![a, b]),
            4 | 5 => draft.add(&name, "keep", vec![a, b]),
            6 => draft.add(&name, "heavy", vec![a, b]),
            7 => draft.add(&name, "both", vec![a, b]),
            8 => {
                let parts: Vec<u32> = (0..number as u32).filter(|_| random.one_in(20)).collect();
                draft.add(&name, "sum", vec![all(&parts)])
            }
            9 if random.one_in(4) => draft.add(&name, "fail", vec![a, b]),
            _ => {
                let on = StepInput::Literal(Literal::Bool(random.one_in(2)));
                draft.add(&name, "switch", vec![on, a, b])
            }
        };
        if random.one_in(8) {
            draft.give(number as u32, 0);
        }
    }
    draft.give(steps as u32 - 1, 0);
    draft
}

/// The value of each step's first output, as far as it is needed; an error where it or an input
/// fails.
fn simple(draft: &Draft, step: u32, known: &mut Vec<Option<Option<i64>>>) -> Option<i64> {
    if let Some(value) = known[step as usize] {
        return value;
    }
    let planned = &draft.plan.steps[step as usize];
    let mut edge = |source: &StepOutput| simple(draft, source.step, known);
    let mut value = |input: &StepInput| match input {
        StepInput::Literal(Literal::Int(value)) => Some(*value as i64),
        StepInput::Edge(source) => edge(source),
        StepInput::List(items) => items.iter().try_fold(0i64, |sum, (_, item)| match item {
            ValueSource::Edge(source) => Some(sum.wrapping_add(edge(source)?)),
            ValueSource::Literal(_) => None,
        }),
        _ => None,
    };
    let result = match (&*planned.op, &planned.inputs[..]) {
        ("fail", inputs) => {
            for input in inputs {
                value(input);
            }
            None
        }
        ("sum", [parts]) => value(parts),
        ("switch", [StepInput::Literal(Literal::Bool(on)), a, b]) => value(if *on { a } else { b }),
        (_, [a, b]) => {
            let (a, b) = (value(a), value(b));
            a.and_then(|a| Some(a.wrapping_add(b?)))
        }
        _ => None,
    };
    known[step as usize] = Some(result);
    result
}

fn check(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let steps = 1 + random.below(120);
    let draft = plan(&mut random, steps);
    let mut known = vec![None; steps];
    let outputs: Vec<(String, Option<i64>)> = draft
        .plan
        .outputs
        .iter()
        .map(|(name, item)| {
            let ValueSource::Edge(source) = item else { panic!("an edge") };
            (name.clone(), simple(&draft, source.step, &mut known))
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    for turn in 0..4 {
        let threads = 1 + random.below(4);
        let disk = (turn > 0).then(|| DiskCache::open(folder.path(), u64::MAX));
        let memory_budget = [0, 3000, 1 << 20][random.below(3)];
        let options = RuntimeOptions { memory_budget, disk, threads };
        let rig = Rig::with(options, Log::default());
        for _ in 0..2 {
            let report = rig.run(&draft);
            for (name, value) in &outputs {
                let found = int(&report, name).map(|value| value as i64);
                assert_eq!(found, *value, "seed {seed}, turn {turn}, output {name}");
            }
            let unique: HashSet<_> = report.evaluated.iter().collect();
            assert_eq!(unique.len(), report.evaluated.len(), "seed {seed}: evaluated twice");
            assert!(!report.cancelled, "seed {seed}: some step never ran");
            assert!(!rig.log.shared_device.load(std::sync::atomic::Ordering::SeqCst));
        }
        lose_some(folder.path(), &mut random);
    }
}

/// Removes or breaks some of the entries.
fn lose_some(folder: &std::path::Path, random: &mut Random) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            lose_some(&path, random);
        } else if random.one_in(3) {
            fs::remove_file(&path).unwrap();
        } else if random.one_in(4) {
            fs::write(&path, "broken").unwrap();
        }
    }
}

#[test]
fn parallel_runs_equal_a_simple_evaluation() {
    (0..100).for_each(check);
}
