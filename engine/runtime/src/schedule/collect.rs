//! How a step's inputs come together: literals, values of edges, lists.

use std::sync::Arc;

use kino_graph::{StepInput, ValueSource};
use kino_node::Value;
use kino_port::Literal;

use super::Schedule;

impl Schedule<'_> {
    /// Collects the values of a step's inputs, one entry a port. A second time, after the node has
    /// chosen among its lazy inputs, the chosen ones join what was collected before.
    pub(super) fn collect(&mut self, step: usize, values: &mut Vec<Option<Value>>) {
        let wiring = self.wiring;
        let ports = wiring.node(step).map_or(&[][..], |node| &node.signature().inputs);
        let mut edges = wiring.edges_into(step);
        let inputs = &wiring.plan.steps[step].inputs;
        values.reserve_exact(inputs.len().saturating_sub(values.len()));
        for (port, input) in inputs.iter().enumerate() {
            let first = values.len() == port;
            if first {
                values.push(None);
            }
            let value = match input {
                StepInput::Absent if first => {
                    ports.get(port).and_then(|port| port.default.as_ref()).map(Value::from_literal)
                }
                StepInput::Literal(literal) if first => Some(self.literal(literal)),
                StepInput::Absent | StepInput::Literal(_) => None,
                StepInput::Edge(_) => edges.next().and_then(|edge| self.take_asked(edge)),
                StepInput::List(items) => {
                    let edge = |item: &ValueSource| matches!(item, ValueSource::Edge(_));
                    let count = items.iter().filter(|(_, item)| edge(item)).count();
                    let mut taken = edges.by_ref().take(count).map(|edge| self.take_asked(edge));
                    let list = items.iter().map(|(name, item)| match item {
                        ValueSource::Literal(literal) => {
                            Some((name.clone(), Value::from_literal(literal)))
                        }
                        ValueSource::Edge(_) => Some((name.clone(), taken.next().flatten()?)),
                    });
                    // Whole or not at all: the edges of one port are asked for together.
                    let list = list.collect::<Option<Vec<_>>>();
                    list.filter(|_| count > 0 || first).map(|list| Value::List(list.into()))
                }
            };
            if value.is_some() {
                values[port] = value;
            }
        }
    }

    /// The value that a literal stands for. Steps that follow each other often say the same text,
    /// such as the default of one port, which they then share.
    fn literal(&mut self, literal: &Literal) -> Value {
        let Literal::Text(text) = literal else { return Value::from_literal(literal) };
        if *self.last_text != **text {
            self.last_text = Arc::from(&**text);
        }
        Value::Text(Arc::clone(&self.last_text))
    }
}
