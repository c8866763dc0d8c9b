//! The difference between two plans: which nodes will run, and why.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use kino_port::PlannedRead;

use crate::plan::Plan;
use crate::step::{Step, StepInput, ValueSource};

/// What a new plan changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diff {
    /// One entry a node that differs, new nodes and changed ones in the new plan's order, removed
    /// ones last.
    pub changes: Vec<(Arc<str>, StepChange)>,
    /// The number of nodes whose key stayed.
    pub unchanged: usize,
}

/// How a node differs.
#[derive(Clone, Debug, PartialEq)]
pub enum StepChange {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// Its key changed; the reasons, each in a few words.
    Changed(Vec<String>),
}

impl fmt::Display for Diff {
    /// One line a node: `+` new, `-` gone, `~` changed and why.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, change) in &self.changes {
            match change {
                StepChange::Added => writeln!(f, "+ {name}")?,
                StepChange::Removed => writeln!(f, "- {name}")?,
                StepChange::Changed(reasons) => writeln!(f, "~ {name}: {}", reasons.join(", "))?,
            }
        }
        Ok(())
    }
}

/// What changes from `old` to `new`.
pub fn diff(old: &Plan, new: &Plan) -> Diff {
    let before: HashMap<&str, &Step> = old.steps.iter().map(|step| (&*step.name, step)).collect();
    let mut diff = Diff::default();
    for step in &new.steps {
        match before.get(&*step.name) {
            None => diff.changes.push((Arc::clone(&step.name), StepChange::Added)),
            Some(was) if was.key == step.key => diff.unchanged += 1,
            Some(was) => {
                let reasons = reasons((old, was), (new, step));
                diff.changes.push((Arc::clone(&step.name), StepChange::Changed(reasons)));
            }
        }
    }
    let now: std::collections::HashSet<&str> = new.steps.iter().map(|step| &*step.name).collect();
    let gone = old.steps.iter().filter(|step| !now.contains(&*step.name));
    diff.changes.extend(gone.map(|step| (Arc::clone(&step.name), StepChange::Removed)));
    diff
}

fn reasons((old, was): (&Plan, &Step), (new, is): (&Plan, &Step)) -> Vec<String> {
    let mut reasons = Vec::new();
    if was.op != is.op {
        reasons.push(format!("op {} → {}", was.op, is.op));
        return reasons;
    }
    if was.version != is.version {
        reasons.push(format!("version {} → {}", was.version, is.version));
    }
    for (port, input) in is.ports.iter().zip(&is.inputs) {
        let index = was.ports.iter().position(|name| name == port);
        let before = index.map_or(&StepInput::Absent, |index| &was.inputs[index]);
        reasons.extend(reason(port, (old, before), (new, input)));
    }
    if was.extra != is.extra {
        reasons.push(read_again(was, is));
    }
    if reasons.is_empty() {
        reasons.push("device, compute type or engine version changed".to_owned());
    }
    reasons
}

/// Names the files that changed, where the node says which it reads.
fn read_again(was: &Step, is: &Step) -> String {
    let same = |a: &PlannedRead, b: &PlannedRead| (&a.path, &a.hash) == (&b.path, &b.hash);
    let changed = is.reads.iter().filter(|is| !was.reads.iter().any(|was| same(was, is)));
    let paths: Vec<_> = changed.map(|read| read.path.as_str()).collect();
    match paths.as_slice() {
        [] => "a file or model that it reads changed".to_owned(),
        paths => format!("{} changed", paths.join(" and ")),
    }
}

fn reason(
    port: &str,
    (old, before): (&Plan, &StepInput),
    (new, after): (&Plan, &StepInput),
) -> Option<String> {
    match (before, after) {
        (StepInput::Literal(a), StepInput::Literal(b)) => {
            (a != b).then(|| format!("{port} {a} → {b}"))
        }
        (StepInput::Edge(a), StepInput::Edge(b)) => {
            let (was, is) = (&old.steps[a.step as usize], &new.steps[b.step as usize]);
            if was.name != is.name || a.output != b.output {
                return Some(format!("{port} comes from {}", is.name));
            }
            (was.key != is.key).then(|| format!("{} changed", is.name))
        }
        (StepInput::List(a), StepInput::List(b)) => {
            if a.len() != b.len() {
                return Some(format!("{port} has {} items, had {}", b.len(), a.len()));
            }
            let items = a.iter().zip(b).map(|((_, a), (_, b))| (as_input(a), as_input(b)));
            let mut changed = items.filter_map(|(a, b)| reason(port, (old, &a), (new, &b)));
            let names_differ = a.iter().zip(b).any(|((a, _), (b, _))| a != b);
            changed.next().or_else(|| names_differ.then(|| format!("{port} has other names")))
        }
        (before, after) => (before != after).then(|| format!("{port} is fed differently")),
    }
}

fn as_input(item: &ValueSource) -> StepInput {
    match item {
        ValueSource::Literal(literal) => StepInput::Literal(literal.clone()),
        ValueSource::Edge(source) => StepInput::Edge(*source),
    }
}
