//! Nodes replaced while runs are in flight, and runs that make way for newer ones.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{scope, yield_now};

use kino_graph::{Catalog, Key, StepInput};
use kino_node::{Cancel, Cx, Inputs, Node, Outputs, Registry, Result, Services, Value};
use kino_port::{Facts, NodeTraits, PlanError, PortType, Signature, StepInfo, edge, int, ports};
use kino_runtime::{CacheStatus, Report, StopSignal};

use crate::nodes::registry;
use crate::rig::{Draft, Rig, all, int as number, lit, of, run, sorted};

/// A node of one generation: gives its own number.
struct Answer(i64, Signature);

/// A node that waits until it is let go, and counts how often it came to an end. As a sink it does
/// not even hear that it is cancelled.
struct Patient(Arc<Gate>, Signature);

#[derive(Default)]
struct Gate {
    open: AtomicBool,
    waiting: Mutex<Vec<i64>>,
    computed: AtomicUsize,
    cancelled: AtomicUsize,
}

impl Gate {
    fn until_waiting(&self, who: &[i64]) {
        while !who.iter().all(|one| self.waiting.lock().unwrap().contains(one)) {
            yield_now();
        }
    }
}

fn signature(name: &'static str, traits: NodeTraits) -> Signature {
    Signature {
        name: name.into(),
        version: "1".into(),
        about: "".into(),
        inputs: ports![int("a", 0)],
        outputs: ports![edge("value", PortType::Int)],
        traits,
    }
}

impl Node for Answer {
    fn signature(&self) -> &Signature {
        &self.1
    }

    fn infer(&self, _: &Services, _: &Facts) -> Result<StepInfo, Vec<PlanError>> {
        Ok(StepInfo::default())
    }

    fn run(&self, _: &mut Cx<'_>, _: &Inputs<'_>) -> Result<Outputs> {
        Ok(vec![Some(Value::Int(self.0.into()))])
    }
}

impl Node for Patient {
    fn signature(&self) -> &Signature {
        &self.1
    }

    fn infer(&self, _: &Services, _: &Facts) -> Result<StepInfo, Vec<PlanError>> {
        Ok(StepInfo::default())
    }

    fn run(&self, cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
        let own = inputs.int::<i64>("a")?;
        self.0.waiting.lock().unwrap().push(own);
        while !self.0.open.load(Ordering::SeqCst) {
            if self.1.traits.sink {
                yield_now();
                continue;
            }
            if cx.cancel.is_cancelled() {
                self.0.cancelled.fetch_add(1, Ordering::SeqCst);
            }
            cx.check_cancel()?;
            yield_now();
        }
        self.0.computed.fetch_add(1, Ordering::SeqCst);
        Ok(vec![Some(Value::Int(own.into()))])
    }
}

/// The usual nodes, an `answer` that gives `number`, and a `patient` that waits for `gate`.
fn generation(number: i64, gate: &Arc<Gate>) -> Arc<Registry> {
    let mut nodes = Registry::clone(&registry());
    nodes.insert(Arc::new(Answer(number, signature("answer", NodeTraits::LIGHT))));
    nodes.insert(Arc::new(Patient(Arc::clone(gate), signature("patient", NodeTraits::LIGHT))));
    nodes.insert(Arc::new(Patient(Arc::clone(gate), signature("stubborn", NodeTraits::SINK))));
    Arc::new(nodes)
}

/// Adds a step of a node that only generations have.
fn add(draft: &mut Draft, name: &str, op: &str, inputs: Vec<StepInput>, version: i128) -> u32 {
    // A literal that differs stands for the version in the key.
    let like = draft.add(name, "add", [inputs.clone(), vec![lit(version)]].concat());
    let step = &mut draft.plan.steps[like as usize];
    step.op = op.into();
    step.inputs = inputs;
    step.key = Key(*blake3::hash(&[&step.key.0, op.as_bytes()].concat()).as_bytes());
    like
}

fn keys(draft: &Draft) -> Vec<Key> {
    draft.plan.steps.iter().map(|step| step.key).collect()
}

fn superseding(rig: &Rig, draft: &Draft, nodes: &Registry, stop: &StopSignal) -> Report {
    rig.run_until(nodes, draft, stop)
}

#[test]
fn a_run_in_flight_keeps_the_nodes_that_it_began_with() {
    let (rig, gate) = (Rig::new(), Arc::new(Gate::default()));
    let mut draft = Draft::default();
    let first = add(&mut draft, "first", "patient", vec![lit(1)], 1);
    let answer = add(&mut draft, "answer", "answer", vec![of(first)], 1);
    draft.give(answer, 0);
    rig.reload(generation(1, &gate));
    scope(|scope| {
        let old = scope.spawn(|| run(&rig, &draft));
        gate.until_waiting(&[1]);
        rig.reload(generation(2, &gate));
        gate.open.store(true, Ordering::SeqCst);
        assert_eq!(number(&old.join().unwrap(), "answer"), Some(1));
    });
    assert_eq!(number(&run(&rig, &draft), "answer"), Some(2));
}

#[test]
fn a_catalog_stays_what_it_is() {
    let (rig, gate) = (Rig::new(), Arc::default());
    let before = rig.catalog();
    assert!(before.signature("answer").is_none());
    rig.reload(generation(1, &gate));
    assert!(before.signature("answer").is_none() && !before.names().contains(&"answer"));
    let after = rig.catalog();
    rig.reload(registry());
    assert!(after.signature("answer").is_some() && after.names().contains(&"answer"));
    assert!(after.infer("answer", &Facts::default()).is_ok());
}

#[test]
fn a_hundred_generations_compute_what_changed_and_nothing_else() {
    let (rig, gate) = (Rig::in_memory(), Arc::default());
    for version in 0..100 {
        rig.reload(generation(version, &gate));
        let mut draft = Draft::chain();
        let answer = add(&mut draft, "answer", "answer", vec![of(2)], version.into());
        let sum = draft.add("sum", "sum", vec![all(&[2, answer])]);
        draft.give(answer, 0).give(sum, 0);
        let report = rig.run(&draft);
        assert_eq!(number(&report, "answer"), Some(version.into()));
        assert_eq!(number(&report, "sum"), Some(i128::from(version) + 111));
        let expected: &[&str] =
            if version == 0 { &["a", "answer", "b", "c", "sum"] } else { &["answer", "sum"] };
        assert_eq!(sorted(&report.evaluated), expected, "generation {version}");
        assert_eq!(rig.evaluated(&draft), [""; 0]);
    }
}

#[test]
fn a_newer_run_takes_over_what_it_needs_and_the_rest_is_cancelled() {
    let (rig, gate) = (Rig::in_memory(), Arc::new(Gate::default()));
    let nodes = generation(0, &gate);
    let mut old = Draft::default();
    let kept = add(&mut old, "kept", "patient", vec![lit(1)], 1);
    let stale = add(&mut old, "stale", "patient", vec![lit(2)], 1);
    let sum = old.add("sum", "sum", vec![all(&[kept, stale])]);
    old.give(sum, 0);
    let mut new = Draft::default();
    let kept = add(&mut new, "kept", "patient", vec![lit(1)], 1);
    let fresh = add(&mut new, "fresh", "patient", vec![lit(3)], 1);
    let sum = new.add("sum", "sum", vec![all(&[kept, fresh])]);
    new.give(sum, 0);
    let stop = StopSignal::default();
    scope(|scope| {
        let before = scope.spawn(|| superseding(&rig, &old, &nodes, &stop));
        gate.until_waiting(&[1, 2]);
        stop.supersede(keys(&new));
        while gate.cancelled.load(Ordering::SeqCst) == 0 {
            yield_now();
        }
        let after = scope.spawn(|| superseding(&rig, &new, &nodes, &StopSignal::default()));
        gate.until_waiting(&[3]);
        gate.open.store(true, Ordering::SeqCst);
        let (before, after) = (before.join().unwrap(), after.join().unwrap());
        assert!(before.cancelled && before.failed.is_empty());
        assert_eq!(number(&after, "sum"), Some(4));
        assert_eq!(sorted(&after.evaluated), ["fresh", "sum"]);
        assert_eq!(sorted(&after.cached), ["kept"]);
    });
    assert_eq!(gate.computed.load(Ordering::SeqCst), 2, "`kept` once, `fresh` once");
    assert_eq!(gate.cancelled.load(Ordering::SeqCst), 1);
    assert_eq!(rig.status(&new)[2], CacheStatus::Memory);
}

#[test]
fn what_another_run_gave_up_is_computed_here() {
    let (rig, gate) = (Rig::in_memory(), Arc::new(Gate::default()));
    let nodes = generation(0, &gate);
    let mut draft = Draft::default();
    let only = add(&mut draft, "only", "patient", vec![lit(1)], 1);
    draft.give(only, 0);
    let (cancel, waits) = (Cancel::default(), StopSignal::default());
    scope(|scope| {
        let before = scope.spawn(|| superseding(&rig, &draft, &nodes, &StopSignal::new(&cancel)));
        gate.until_waiting(&[1]);
        gate.waiting.lock().unwrap().clear();
        let after = scope.spawn(|| superseding(&rig, &draft, &nodes, &waits));
        cancel.cancel();
        assert!(before.join().unwrap().cancelled);
        gate.until_waiting(&[1]);
        gate.open.store(true, Ordering::SeqCst);
        let after = after.join().unwrap();
        assert_eq!(number(&after, "only"), Some(1));
        assert_eq!(sorted(&after.evaluated), ["only"]);
    });
    assert_eq!(gate.computed.load(Ordering::SeqCst), 1);
}

#[test]
fn a_run_that_waits_for_another_can_be_cancelled() {
    let (rig, gate) = (Rig::in_memory(), Arc::new(Gate::default()));
    let nodes = generation(0, &gate);
    let mut draft = Draft::default();
    let only = add(&mut draft, "only", "patient", vec![lit(1)], 1);
    draft.give(only, 0);
    let (waits, goes_on) = (StopSignal::default(), StopSignal::default());
    scope(|scope| {
        let before = scope.spawn(|| superseding(&rig, &draft, &nodes, &goes_on));
        gate.until_waiting(&[1]);
        let after = scope.spawn(|| superseding(&rig, &draft, &nodes, &waits));
        waits.cancel();
        assert!(after.join().unwrap().cancelled);
        gate.open.store(true, Ordering::SeqCst);
        assert!(before.join().unwrap().is_complete());
    });
}

#[test]
fn a_superseded_run_can_be_superseded_again() {
    let (rig, gate) = (Rig::in_memory(), Arc::new(Gate::default()));
    let nodes = generation(0, &gate);
    let mut draft = Draft::default();
    let only = add(&mut draft, "only", "patient", vec![lit(1)], 1);
    draft.give(only, 0);
    let stop = StopSignal::default();
    scope(|scope| {
        let run = scope.spawn(|| superseding(&rig, &draft, &nodes, &stop));
        gate.until_waiting(&[1]);
        stop.supersede(keys(&draft));
        stop.supersede([]);
        assert!(run.join().unwrap().cancelled);
    });
    assert_eq!(gate.computed.load(Ordering::SeqCst), 0);
}

#[test]
fn a_run_waits_for_what_older_ones_are_writing() {
    let (rig, gate) = (Rig::in_memory(), Arc::new(Gate::default()));
    let nodes = generation(0, &gate);
    let (mut old, mut new) = (Draft::default(), Draft::default());
    add(&mut old, "file", "stubborn", vec![lit(1)], 1);
    (old.plan.steps[0].traits, old.plan.steps[0].target) = (NodeTraits::SINK, true);
    let answer = add(&mut new, "answer", "answer", vec![lit(2)], 1);
    new.give(answer, 0);
    let stop = StopSignal::default();
    scope(|scope| {
        let before = scope.spawn(|| superseding(&rig, &old, &nodes, &stop));
        gate.until_waiting(&[1]);
        stop.supersede(keys(&new));
        let after = scope.spawn(|| {
            let report = superseding(&rig, &new, &nodes, &StopSignal::default());
            (report, gate.computed.load(Ordering::SeqCst))
        });
        for _ in 0..1000 {
            yield_now();
        }
        gate.open.store(true, Ordering::SeqCst);
        before.join().unwrap();
        let (report, written) = after.join().unwrap();
        assert_eq!((number(&report, "answer"), written), (Some(0), 1));
    });
}
