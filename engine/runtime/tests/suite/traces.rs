//! What a trace sees of a run: a span a node, an event a step of it.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::rig::{Draft, Rig, lit, of};

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
    let writer = Writer::default();
    let mut draft = Draft::default();
    let a = draft.add("a", "add", vec![lit(1), lit(1)]);
    let b = draft.add("b", "steps", vec![of(a), lit(1)]);
    draft.give(b, 0);
    // One light thread is this one, so its subscriber sees all.
    tracing::subscriber::with_default(writer.clone(), || Rig::threads(1).run(&draft));
    assert_eq!(
        *writer.seen.lock().unwrap(),
        [
            "node name=a op=add",
            "node name=b op=steps",
            "- step=0 of=3",
            "- step=1 of=3",
            "- step=2 of=3",
            "- step=3 of=3",
        ]
    );
}
