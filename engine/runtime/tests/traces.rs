//! What a trace sees of a run: a span a node, an event a step of it. It stands alone, because what
//! other threads register decides what a subscriber of one thread sees.

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use candle_core::Device;
use kino_graph::{Key, Plan, Step, StepInput, StepOutput, ValueSource};
use kino_node::{Ledger, NodeDef, Registry, Services, Value, no_infer};
use kino_port::{NodeTraits, PortType, Signature, edge, optional, ports};
use kino_runtime::{RunSpec, Runtime, RuntimeOptions, StopSignal};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

static STEPS: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("steps"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(""),
        inputs: ports![optional("before", PortType::Int)],
        outputs: ports![edge("value", PortType::Int)],
        traits: NodeTraits::LIGHT,
    },
    infer: no_infer,
    run: |cx, _| {
        (0..=2).for_each(|step| cx.progress(step, 2));
        Ok(vec![Some(Value::Int(1))])
    },
};

static NODES: &[&NodeDef] = &[&STEPS];

/// Writes down spans as they are entered and events as they come.
#[derive(Clone, Default)]
struct Writer {
    seen: Arc<Mutex<Vec<String>>>,
    spans: Arc<Mutex<Vec<String>>>,
    next: Arc<AtomicU64>,
}

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() != "message" {
            self.0 += &format!(" {field}={value:?}");
        }
    }
}

impl Subscriber for Writer {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("kino_runtime")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields(span.metadata().name().to_owned());
        span.record(&mut fields);
        self.spans.lock().unwrap().push(fields.0);
        Id::from_u64(self.next.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn enter(&self, span: &Id) {
        let entered = self.spans.lock().unwrap()[span.into_u64() as usize - 1].clone();
        self.seen.lock().unwrap().push(entered);
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields("-".to_owned());
        event.record(&mut fields);
        self.seen.lock().unwrap().push(fields.0);
    }

    fn exit(&self, _: &Id) {}
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
}

#[test]
fn a_span_a_node_and_an_event_a_step() {
    let step =
        |name, key, input| Step::new(name, "steps", Key([key; 32]), vec![input], NodeTraits::LIGHT);
    let first = StepOutput { step: 0, output: 0 };
    let mut plan = Plan::default();
    plan.steps = vec![step("a", 1, StepInput::Absent), step("b", 2, StepInput::Edge(first))];
    plan.outputs = vec![("out".into(), ValueSource::Edge(StepOutput { step: 1, output: 0 }))];
    let services = Services::new(Device::Cpu, Ledger::new(0));
    // One light thread is this one, so its subscriber sees all.
    let options = RuntimeOptions { threads: 1, ..RuntimeOptions::default() };
    let runtime = Runtime::new(options, &services.ledger);
    let (nodes, stop) = (Registry::of(NODES), StopSignal::default());
    let writer = Writer::default();
    tracing::subscriber::with_default(writer.clone(), || {
        runtime.run(RunSpec::new(&plan, &nodes, &services, &stop))
    });
    assert_eq!(
        *writer.seen.lock().unwrap(),
        [
            "node name=a op=steps",
            "- step=0 of=2",
            "- step=1 of=2",
            "- step=2 of=2",
            "node name=b op=steps",
            "- step=0 of=2",
            "- step=1 of=2",
            "- step=2 of=2",
        ]
    );
}
