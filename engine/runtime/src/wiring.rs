//! A plan as flat tables: its nodes, its outputs as numbered slots, its edges. Built once a run in
//! O(nodes + edges).

use std::sync::Arc;

use kino_graph::{Plan, Step, StepInput, StepOutput, Turn, ValueSource};
use kino_node::{Node, Registry};
use kino_port::{NodeTraits, PlannedRead};

/// One edge: the output `slot` of step `from` feeds an input of step `to`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edge {
    pub(crate) from: u32,
    pub(crate) slot: u32,
    pub(crate) to: u32,
    /// The index of the input among the ports of the signature.
    pub(crate) port: u32,
    /// Evaluated only when the node asks for it.
    pub(crate) lazy: bool,
}

/// A plan's steps, wired.
pub(crate) struct Wiring<'p> {
    pub(crate) plan: &'p Plan,
    /// By step; none where the registry has no such node.
    nodes: Vec<Option<&'p Arc<dyn Node>>>,
    /// By step, and one more: the first of its slots.
    first_slot: Vec<u32>,
    /// By step, and one more: the first of the edges into it.
    first_edge: Vec<u32>,
    /// By the step that they lead to, then as its inputs stand in the plan.
    pub(crate) edges: Vec<Edge>,
}

/// What a registry has under a node's name.
type Named<'p> = (&'p Arc<str>, Option<&'p Arc<dyn Node>>);

impl<'p> Wiring<'p> {
    pub(crate) fn new(plan: &'p Plan, registry: &'p Registry) -> Self {
        let mut last: Option<Named<'p>> = None;
        let node = |step: &'p Step| match last {
            // Steps of one node share its name, and often follow each other.
            Some((op, node)) if Arc::ptr_eq(op, &step.op) => node,
            _ => last.insert((&step.op, registry.get(&step.op))).1,
        };
        let mut wiring = Wiring {
            plan,
            nodes: plan.steps.iter().map(node).collect(),
            first_slot: Vec::with_capacity(plan.steps.len() + 1),
            first_edge: Vec::with_capacity(plan.steps.len() + 1),
            edges: Vec::with_capacity(plan.steps.len()),
        };
        wiring.first_edge.push(0);
        for index in 0..plan.steps.len() {
            wiring.wire(index);
            wiring.first_edge.push(wiring.edges.len() as u32);
        }
        wiring.number_slots();
        wiring
    }

    /// Numbers all outputs, and turns the edges' output indices into slots.
    fn number_slots(&mut self) {
        let count = |node: &Option<&Arc<dyn Node>>| {
            node.map_or(0, |node| node.signature().outputs.len()) as u32
        };
        let mut counts: Vec<u32> = self.nodes.iter().map(count).collect();
        // A node that the registry lacks has as many outputs as are read.
        let mut read = |step: u32, output: u32| {
            let count = &mut counts[step as usize];
            *count = (*count).max(output + 1);
        };
        self.edges.iter().for_each(|edge| read(edge.from, edge.slot));
        outputs_of(self.plan).for_each(|source| read(source.step, source.output));
        let mut first = 0;
        for count in counts {
            self.first_slot.push(first);
            first += count;
        }
        self.first_slot.push(first);
        for edge in &mut self.edges {
            edge.slot += self.first_slot[edge.from as usize];
        }
    }

    fn wire(&mut self, to: usize) {
        let ports = self.nodes[to].map_or(&[][..], |node| &node.signature().inputs);
        for (port, input) in self.plan.steps[to].inputs.iter().enumerate() {
            let lazy = ports.get(port).is_some_and(|port| port.lazy);
            let mut add = |source: &StepOutput| {
                let (to, port) = (to as u32, port as u32);
                let (from, slot) = (source.step, source.output);
                self.edges.push(Edge { from, slot, to, port, lazy });
            };
            match input {
                StepInput::Absent | StepInput::Literal(_) => {}
                StepInput::Edge(source) => add(source),
                StepInput::List(items) => {
                    for (_, item) in items {
                        if let ValueSource::Edge(source) = item {
                            add(source);
                        }
                    }
                }
            }
        }
    }

    pub(crate) fn steps(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn slots_in_all(&self) -> usize {
        self.first_slot.last().copied().unwrap_or(0) as usize
    }

    pub(crate) fn node(&self, step: usize) -> Option<&'p Arc<dyn Node>> {
        self.nodes[step]
    }

    /// The slots of a step's outputs.
    pub(crate) fn slots(&self, step: usize) -> std::ops::Range<usize> {
        self.first_slot[step] as usize..self.first_slot[step + 1] as usize
    }

    pub(crate) fn slot(&self, source: &StepOutput) -> usize {
        self.first_slot[source.step as usize] as usize + source.output as usize
    }

    /// The indices of the edges into a step.
    pub(crate) fn edges_into(&self, step: usize) -> std::ops::Range<usize> {
        self.first_edge[step] as usize..self.first_edge[step + 1] as usize
    }

    pub(crate) fn traits(&self, step: usize) -> NodeTraits {
        self.plan.steps[step].traits
    }

    pub(crate) fn turn(&self, step: usize) -> Option<Turn> {
        self.plan.steps[step].turn
    }

    pub(crate) fn key(&self, step: usize) -> &[u8; 32] {
        &self.plan.steps[step].key.0
    }

    /// The files that a step was planned to read.
    pub(crate) fn reads(&self, step: usize) -> &'p [PlannedRead] {
        &self.plan.steps[step].reads
    }

    pub(crate) fn name(&self, step: usize) -> &Arc<str> {
        &self.plan.steps[step].name
    }

    pub(crate) fn op(&self, step: usize) -> &Arc<str> {
        &self.plan.steps[step].op
    }
}

/// The outputs of steps that are outputs of the graph.
pub(crate) fn outputs_of(plan: &Plan) -> impl Iterator<Item = &StepOutput> {
    plan.outputs.iter().filter_map(|(_, item)| match item {
        ValueSource::Edge(source) => Some(source),
        ValueSource::Literal(_) => None,
    })
}
