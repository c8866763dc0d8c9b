//! Keys: a hash over everything that can change a step's results.

use kino_port::Literal;

use crate::expand::Op;
use crate::resolve::Node;
use crate::step::{Key, StepInput, StepOutput, ValueSource};

/// Hashes what steps depend on. It keeps its buffers from step to step.
pub(crate) struct Keys<'e> {
    versions: &'e [u8],
    machine: &'e dyn Fn() -> Vec<u8>,
    /// By op: a hash of its definition, of the versions and of the machine, which is the key of the
    /// keyed hash that the keys of its steps are.
    definitions: Vec<Option<[u8; 32]>>,
    bytes: Vec<u8>,
}

impl<'e> Keys<'e> {
    pub(crate) fn new(versions: &'e [u8], machine: &'e dyn Fn() -> Vec<u8>) -> Self {
        Keys { versions, machine, definitions: Vec::new(), bytes: Vec::new() }
    }

    /// The key of a node: definition, versions, machine, inputs by value or by `key_of` their
    /// steps, and what inference added.
    pub(crate) fn key(
        &mut self,
        node: &Node,
        inputs: &[StepInput],
        infer: &[u8],
        key_of: impl Fn(u32) -> Key,
    ) -> Key {
        let definition = self.definition(&node.op);
        self.bytes.clear();
        for input in inputs {
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
        Key(*blake3::keyed_hash(&definition, &self.bytes).as_bytes())
    }

    fn definition(&mut self, op: &Op) -> [u8; 32] {
        if let Some(Some(known)) = self.definitions.get(op.index) {
            return *known;
        }
        self.bytes.clear();
        self.text(&op.name);
        self.text(&op.version);
        self.bytes.extend((op.ports.len() as u32).to_le_bytes());
        op.ports.iter().for_each(|port| self.text(port));
        self.bytes.extend((self.versions.len() as u32).to_le_bytes());
        self.bytes.extend(self.versions);
        if !op.signature.traits.portable {
            self.bytes.extend((self.machine)());
        }
        let definition = *blake3::hash(&self.bytes).as_bytes();
        let known = self.definitions.len().max(op.index + 1);
        self.definitions.resize(known, None);
        self.definitions[op.index] = Some(definition);
        definition
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
