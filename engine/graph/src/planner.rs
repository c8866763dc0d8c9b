//! Planning: asks every needed node what is known of its results, and gives each step its key.

use std::collections::HashMap;
use std::sync::Arc;

use kino_port::{Fact, Facts, Literal, Port, StepInfo};
use petgraph::Direction;
use petgraph::graph::NodeIndex;

use crate::Catalog;
use crate::cut::said;
use crate::diagnostic::{Diagnostic, Diagnostics, Place, suggest};
use crate::graph::{Feed, FeedSource, Graph, Node};
use crate::key::Keys;
use crate::plan::{Input, Item, Key, Plan, Source};
use crate::record::Edit;

/// What a plan depends on besides the graph.
pub struct Settings<'s> {
    /// Values for the graph's inputs; the others take their defaults.
    pub inputs: &'s [(String, Literal)],
    /// Stop at this node, rather than run everything that is wanted.
    pub until: Option<&'s str>,
    /// Whatever else changes the numbers: device, compute type, kernels, versions. It enters every
    /// key.
    pub environment: &'s [u8],
    /// Draws a random number, for the `"random"` of this name: `inputs.seed`, or `noise.seed`.
    pub draw: &'s dyn Fn(&str) -> u64,
    /// What `{graph}` stands for: the stem of the graph's file.
    pub stem: &'s str,
}

/// A node's results while planning.
pub(crate) struct Known {
    pub(crate) key: Key,
    pub(crate) facts: Vec<Fact>,
    pub(crate) inputs: Vec<Input>,
    pub(crate) infer: StepInfo,
    /// What stands against it; it counts only where the node turns out to be needed.
    pub(crate) problems: Vec<Diagnostic>,
    /// It, or something before it, was refused, so that nothing can be said of it.
    pub(crate) blind: bool,
}

pub(crate) struct Planner<'p> {
    pub(crate) graph: &'p Graph,
    pub(crate) catalog: &'p dyn Catalog,
    pub(crate) settings: &'p Settings<'p>,
    /// The values of the graph's inputs.
    pub(crate) values: Vec<Option<Literal>>,
    /// Numbers drawn, by the place of the `"random"`.
    pub(crate) drawn: HashMap<Place, Literal>,
    pub(crate) problems: Vec<Diagnostic>,
    /// By node.
    pub(crate) known: Vec<Option<Known>>,
    pub(crate) edits: Vec<Edit>,
    keys: Keys,
}

impl Graph {
    /// Plans a run.
    ///
    /// # Errors
    /// Every error of every node, and every value that does not fit.
    pub fn plan(
        &self,
        catalog: &dyn Catalog,
        settings: &Settings<'_>,
    ) -> Result<Plan, Diagnostics> {
        let mut planner = Planner {
            graph: self,
            catalog,
            settings,
            values: Vec::new(),
            drawn: HashMap::new(),
            problems: Vec::new(),
            known: Vec::new(),
            edits: Vec::new(),
            keys: Keys::default(),
        };
        planner.known.resize_with(self.nodes.node_count(), || None);
        planner.set_values();
        planner.check_calls();
        let targets = planner.targets();
        let reached = planner.reach(&targets, false);
        if planner.problems.is_empty() {
            for index in self.order.iter().filter(|index| reached[index.index()]) {
                let known = planner.infer(*index);
                planner.known[index.index()] = Some(known);
            }
            planner.check_calls();
        }
        planner.finish(&targets)
    }
}

impl Planner<'_> {
    /// Says what is wrong.
    pub(crate) fn refuse(
        &mut self,
        code: &'static str,
        place: Option<Place>,
        message: String,
        hint: Option<String>,
    ) {
        let diagnostic =
            Diagnostic::error(code, place.unwrap_or_default(), message).maybe_hint(hint);
        self.problems.push(Diagnostic { place, ..diagnostic });
    }

    /// What is known of a node.
    pub(crate) fn known(&self, index: NodeIndex) -> Option<&Known> {
        self.known[index.index()].as_ref()
    }

    /// The nodes wanted for themselves, each once.
    fn targets(&mut self) -> Vec<NodeIndex> {
        let graph = self.graph;
        let mut targets = match self.settings.until {
            Some(until) => self.until(until),
            None => {
                let sink = |index: &NodeIndex| graph.nodes[*index].op.signature.traits.sink;
                let mut targets: Vec<_> = graph.order.iter().copied().filter(sink).collect();
                for (_, feed) in &graph.outputs {
                    feed.walk(&mut |source| {
                        if let FeedSource::Edge(node, _) = source {
                            targets.push(*node);
                        }
                    });
                }
                targets
            }
        };
        let mut seen = vec![false; graph.nodes.node_count()];
        targets.retain(|index| !std::mem::replace(&mut seen[index.index()], true));
        targets
    }

    /// The node of this name; for a graph used as a node, the nodes behind its outputs.
    fn until(&mut self, until: &str) -> Vec<NodeIndex> {
        let graph = self.graph;
        if let Some(node) = graph.order.iter().find(|index| *graph.nodes[**index].name == *until) {
            return vec![*node];
        }
        if let Some((_, behind)) = graph.groups.iter().find(|(name, _)| **name == *until) {
            return behind.clone();
        }
        let nodes = graph.order.iter().map(|index| &*graph.nodes[*index].name);
        let names: Vec<_> = nodes.chain(graph.groups.iter().map(|(name, _)| &**name)).collect();
        let message = format!("there is no node `{until}` to stop at");
        self.refuse("unknown-node", None, message, suggest(until, names));
        Vec::new()
    }

    /// The nodes before `targets`, and they themselves; `pruned`: without the inputs that inference
    /// ruled out.
    pub(crate) fn reach(&self, targets: &[NodeIndex], pruned: bool) -> Vec<bool> {
        let nodes = &self.graph.nodes;
        let mut reached = vec![false; nodes.node_count()];
        let mut open = targets.to_vec();
        while let Some(index) = open.pop() {
            if std::mem::replace(&mut reached[index.index()], true) {
                continue;
            }
            let chosen = self.known(index).and_then(|known| known.infer.chosen).filter(|_| pruned);
            let Some(chosen) = chosen else {
                open.extend(nodes.neighbors_directed(index, Direction::Incoming));
                continue;
            };
            let node = &nodes[index];
            let kept = node.op.signature.inputs.iter().zip(&node.feeds);
            for (_, feed) in kept.filter(|(port, _)| !port.lazy || port.name == chosen) {
                feed.walk(&mut |source| {
                    if let FeedSource::Edge(from, _) = source {
                        open.push(*from);
                    }
                });
            }
        }
        reached
    }

    fn infer(&mut self, index: NodeIndex) -> Known {
        let graph = self.graph;
        let node = &graph.nodes[index];
        let signature = &node.op.signature;
        // What is said of this node's inputs is its own.
        let before = self.problems.len();
        let mut blind = false;
        let mut inputs = Vec::with_capacity(node.feeds.len());
        let mut facts = Vec::with_capacity(node.feeds.len());
        for ((port, feed), name) in signature.inputs.iter().zip(&node.feeds).zip(&node.op.ports) {
            let (input, fact) = self.input(node, port, feed);
            // A lazy input may belong to a branch that is never taken.
            blind |= !port.lazy && self.is_blind(feed);
            inputs.push(input);
            facts.push((Arc::clone(name), fact));
        }
        let problems = self.problems.split_off(before);
        let mut known = Known {
            key: Key([0; 32]),
            facts: Vec::new(),
            inputs,
            infer: StepInfo::default(),
            blind: blind || !problems.is_empty(),
            problems,
        };
        if !known.blind {
            match self.catalog.infer(&node.op.name, &Facts::new(facts)) {
                Ok(infer) => self.inferred(node, &mut known, infer),
                Err(errors) => {
                    known.problems.extend(errors.iter().map(|error| said(node, error)));
                    known.blind = true;
                }
            }
        }
        known
    }

    /// Takes in what a node says of itself.
    fn inferred(&mut self, node: &Node, known: &mut Known, infer: StepInfo) {
        let signature = &node.op.signature;
        known.infer = infer;
        if let Some(chosen) = known.infer.chosen {
            for (port, input) in signature.inputs.iter().zip(&mut known.inputs) {
                if port.lazy && port.name != chosen {
                    *input = Input::Absent;
                }
            }
        }
        known.facts = std::mem::take(&mut known.infer.outputs);
        known.facts.resize(signature.outputs.len(), Fact::Unknown);
        let nodes = &self.known;
        let key_of =
            |step: u32| nodes[step as usize].as_ref().map_or(Key([0; 32]), |known| known.key);
        let environment = self.settings.environment;
        known.key = self.keys.key(node, &known.inputs, &known.infer.key, environment, key_of);
    }

    fn is_blind(&self, feed: &Feed) -> bool {
        let mut blind = false;
        feed.walk(&mut |source| {
            if let FeedSource::Edge(from, _) = source {
                blind |= self.known(*from).is_none_or(|known| known.blind);
            }
        });
        blind
    }

    /// What feeds a port, and what is known of it. Steps are numbered by their node until the plan
    /// is cut.
    fn input(&mut self, node: &Node, port: &Port, feed: &Feed) -> (Input, Option<Fact>) {
        if let FeedSource::List(items) = &feed.source {
            let mut list = Vec::with_capacity(items.len());
            let mut facts = Vec::with_capacity(items.len());
            for (name, feed) in items {
                match self.item(node, port, feed) {
                    // A list among the inputs of the graph.
                    Some((Item::Literal(Literal::List(values)), _)) => {
                        for value in values {
                            facts.push((None, Fact::Literal(value.clone())));
                            list.push((None, Item::Literal(value)));
                        }
                    }
                    Some((item, fact)) => {
                        list.push((name.clone(), item));
                        facts.push((name.clone(), fact));
                    }
                    None => {}
                }
            }
            return (Input::List(list), Some(Fact::List(facts)));
        }
        match self.item(node, port, feed) {
            Some((Item::Literal(literal), fact)) => (Input::Literal(literal), Some(fact)),
            Some((Item::Edge(source), fact)) => (Input::Edge(source), Some(fact)),
            None => match &port.default {
                Some(default) => {
                    (Input::Literal(default.clone()), Some(Fact::Literal(default.clone())))
                }
                None => (Input::Absent, None),
            },
        }
    }

    fn item(&mut self, node: &Node, port: &Port, feed: &Feed) -> Option<(Item, Fact)> {
        let literal = match &feed.source {
            FeedSource::Absent | FeedSource::Broken | FeedSource::List(_) => return None,
            FeedSource::Edge(from, output) => {
                let source = Source { step: from.index() as u32, output: *output };
                let facts = self.known(*from).map(|known| &known.facts);
                let fact = facts
                    .and_then(|facts| facts.get(*output as usize).cloned())
                    .unwrap_or_default();
                if let Fact::Literal(literal) = &fact {
                    self.admit(node, port, feed.place, literal.clone());
                }
                return Some((Item::Edge(source), fact));
            }
            FeedSource::Literal(literal) => literal.clone(),
            FeedSource::Draw(range) => {
                let drawn = self.drawn(
                    &format!("{}.{}", node.name, port.name),
                    range.or(port.range),
                    feed.place,
                );
                self.admit(node, port, feed.place, drawn)?
            }
            FeedSource::Template(template) => {
                let sink = node.op.signature.traits.sink;
                Literal::text(self.fill(template, feed.place, sink)?)
            }
            FeedSource::Input(index) => self.value(node, port, *index, feed.place)?,
        };
        Some((Item::Literal(literal.clone()), Fact::Literal(literal)))
    }

    /// A value computed while planning must fit the port as one that is written must.
    fn admit(&mut self, node: &Node, port: &Port, place: Place, value: Literal) -> Option<Literal> {
        match port.admit(value) {
            Ok(value) => Some(value),
            Err(refusal) => {
                let message = format!("`{}` of `{}`: {}", port.name, node.name, refusal.message);
                self.refuse("value", Some(place), message, refusal.hint);
                None
            }
        }
    }
}
