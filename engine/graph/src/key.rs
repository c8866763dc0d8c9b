//! Keys: a hash over everything that can change a step's results.

use kino_port::Literal;

use crate::resolve::Node;
use crate::step::{Key, StepInput, StepOutput, ValueSource};

/// Hashes what steps depend on. It keeps its buffers from step to step.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    bytes: Vec<u8>,
}

impl Keys {
    /// The key of a node: definition, environment, inputs by value or by `key_of` their steps, and
    /// what inference added.
    pub(crate) fn key(
        &mut self,
        node: &Node,
        inputs: &[StepInput],
        infer: &[u8],
        environment: &[u8],
        key_of: impl Fn(u32) -> Key,
    ) -> Key {
        self.bytes.clear();
        self.text(&node.op.name);
        self.text(&node.op.version);
        for (port, input) in node.op.signature.inputs.iter().zip(inputs) {
            self.text(&port.name);
            match input {
                StepInput::Absent => self.bytes.push(b'0'),
                StepInput::Literal(literal) => self.literal(literal),
                StepInput::Edge(source) => self.edge(*source, &key_of),
                StepInput::List(items) => {
                    self.bytes.push(b'[');
                    self.bytes.extend((items.len() as u64).to_le_bytes());
                    for (name, item) in items {
                        self.text(name.as_deref().unwrap_or_default());
                        match item {
                            ValueSource::Literal(literal) => self.literal(literal),
                            ValueSource::Edge(source) => self.edge(*source, &key_of),
                        }
                    }
                }
            }
        }
        self.bytes.extend((infer.len() as u64).to_le_bytes());
        self.bytes.extend(infer);
        self.bytes.extend(environment);
        Key(*blake3::hash(&self.bytes).as_bytes())
    }

    fn text(&mut self, text: &str) {
        self.bytes.extend((text.len() as u32).to_le_bytes());
        self.bytes.extend(text.as_bytes());
    }

    fn literal(&mut self, literal: &Literal) {
        literal.encode(&mut self.bytes);
    }

    fn edge(&mut self, source: StepOutput, key_of: &impl Fn(u32) -> Key) {
        self.bytes.push(b'e');
        self.bytes.extend(key_of(source.step).0);
        self.bytes.extend(source.output.to_le_bytes());
    }
}
