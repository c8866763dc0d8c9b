//! Cuts a plan to what is needed, or says everything that stands against it.

use std::collections::HashMap;
use std::sync::Arc;

use kino_port::{Literal, PlanError, PortType};
use petgraph::graph::NodeIndex;

use crate::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::graph::{Feed, FeedSource, Node};
use crate::plan::{Input, Item, Plan, Source, Step};
use crate::planner::Planner;

impl Planner<'_> {
    /// The plan of what `targets` need.
    pub(crate) fn finish(mut self, targets: &[NodeIndex]) -> Result<Plan, Diagnostics> {
        let graph = self.graph;
        let needed = self.reach(targets, true);
        let order: Vec<_> =
            graph.order.iter().copied().filter(|index| needed[index.index()]).collect();
        for index in &order {
            if let Some(known) = &mut self.known[index.index()] {
                self.problems.append(&mut known.problems);
            }
        }
        self.same_path_twice(&order);
        if self.problems.iter().any(|problem| problem.severity == Severity::Error) {
            return Err(Diagnostics::new(self.problems, graph.files.clone()));
        }
        let mut numbers = vec![0u32; graph.nodes.node_count()];
        order.iter().enumerate().for_each(|(number, index)| numbers[index.index()] = number as u32);
        let mut wanted = vec![false; graph.nodes.node_count()];
        targets.iter().for_each(|index| wanted[index.index()] = true);
        let mut shared = HashMap::new();
        let steps = order
            .iter()
            .filter_map(|index| self.step(*index, &numbers, wanted[index.index()], &mut shared))
            .collect();
        let outputs =
            if self.settings.until.is_some() { Vec::new() } else { self.outputs(&numbers) };
        let names = graph.inputs.iter().map(|input| input.port.name.to_string());
        let values = names.zip(&self.values);
        let inputs = values.filter_map(|(name, value)| Some((name, value.clone()?))).collect();
        let record = crate::record::record(graph, self.edits);
        Ok(Plan { steps, outputs, inputs, warnings: graph.warnings(), record })
    }

    /// The step of a node; steps of one op share the names of its ports.
    fn step(
        &mut self,
        index: NodeIndex,
        numbers: &[u32],
        target: bool,
        shared: &mut HashMap<Arc<str>, Arc<[Arc<str>]>>,
    ) -> Option<Step> {
        let node = &self.graph.nodes[index];
        let mut known = self.known[index.index()].take()?;
        let number = |source: &mut Source| source.step = numbers[source.step as usize];
        for input in &mut known.inputs {
            match input {
                Input::Edge(source) => number(source),
                Input::List(items) => items.iter_mut().for_each(|(_, item)| {
                    if let Item::Edge(source) = item {
                        number(source);
                    }
                }),
                _ => {}
            }
        }
        let ports =
            shared.entry(Arc::clone(&node.op.name)).or_insert_with(|| node.op.ports.clone().into());
        let extra = match known.infer.key.as_slice() {
            [] => 0,
            key => {
                let hash = blake3::hash(key);
                u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap_or_default())
            }
        };
        Some(Step {
            name: Arc::clone(&node.name),
            op: Arc::clone(&node.op.name),
            version: Arc::clone(&node.op.version),
            key: known.key,
            ports: Arc::clone(ports),
            inputs: known.inputs,
            facts: known.facts,
            reads: known.infer.reads,
            memory: known.infer.memory,
            spillable: known.infer.spillable,
            weights: known.infer.weights,
            traits: node.op.signature.traits,
            target,
            place: node.place,
            extra,
        })
    }

    fn outputs(&self, numbers: &[u32]) -> Vec<(String, Item)> {
        let item = |feed: &Feed| match &feed.source {
            FeedSource::Edge(node, output) => {
                Some(Item::Edge(Source { step: numbers[node.index()], output: *output }))
            }
            FeedSource::Input(index) => self.values[*index].clone().map(Item::Literal),
            FeedSource::Literal(literal) => Some(Item::Literal(literal.clone())),
            _ => None,
        };
        let outputs = self.graph.outputs.iter();
        outputs.filter_map(|(name, feed)| Some((name.clone(), item(feed)?))).collect()
    }

    /// Two sinks of one plan may not write one file.
    fn same_path_twice(&mut self, order: &[NodeIndex]) {
        let mut first: HashMap<String, NodeIndex> = HashMap::new();
        for index in order {
            let node = &self.graph.nodes[*index];
            let sink = node.op.signature.traits.sink;
            let Some(known) = self.known(*index).filter(|_| sink) else { continue };
            let ports = node.op.signature.inputs.iter().zip(&known.inputs);
            let paths = ports.filter_map(|(port, input)| match input {
                Input::Literal(Literal::Text(path)) if port.ty == PortType::Path => {
                    Some(crate::scope::join("", path))
                }
                _ => None,
            });
            let mut same = Vec::new();
            for path in paths {
                if let Some(other) = first.insert(path.clone(), *index) {
                    same.push((path, &self.graph.nodes[other]));
                }
            }
            for (path, other) in same {
                let message =
                    format!("`{}` and `{}` write the same file `{path}`", other.name, node.name);
                let diagnostic = Diagnostic::error("same-file", node.place, message);
                let hint = "give each a `path` of its own";
                self.problems.push(diagnostic.related(other.place, "the other").hint(hint));
            }
        }
    }
}

/// A node's error, at the feed that it is about.
pub(crate) fn said(node: &Node, error: &PlanError) -> Diagnostic {
    let port = error.port.as_deref();
    let mut fed = node.op.signature.inputs.iter().zip(&node.feeds);
    let feed =
        fed.find(|(candidate, _)| Some(&*candidate.name) == port).map(|(_, feed)| feed.place);
    let subject = match port {
        Some(port) => format!("`{port}` of `{}`", node.name),
        None => format!("`{}`", node.name),
    };
    let message = format!("{subject}: {}", error.message);
    Diagnostic::error("plan", feed.unwrap_or(node.place), message).maybe_hint(error.hint.clone())
}
