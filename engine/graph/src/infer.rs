//! Fifth pass, [`CheckedGraph`] → [`Inferred`]: asks every node that may be needed what is known of
//! its results before anything runs, and gives it a key.
//!
//! The name of a file is always known here: a text that a node computes is put in place of its
//! edge, and one that only a run gives is refused. What is known is bounded, as nodes compute with
//! it: a text by [`kino_port::MAX_TEXT`], all values of a plan by [`MAX_BYTES`].

use std::collections::HashMap;
use std::sync::Arc;

use kino_port::{Fact, Facts, Literal, MAX_TEXT, PlanError, Port, StepInfo};
use petgraph::Direction;
use petgraph::graph::NodeIndex;

use crate::Catalog;
use crate::binding::{Binding, BindingSource, Piece};
use crate::check::CheckedGraph;
use crate::diagnostic::{Diagnostic, Location, Report};
use crate::key::Keys;
use crate::paths::within;
use crate::resolve::Node;
use crate::step::{Counted, Key, StepInput, StepOutput, ValueSource};
use crate::template::Late;
use crate::values::{PlanSettings, Values, as_part, nowhere, unset};

/// The most bytes that the values of all inputs and outputs may take that are known while planning:
/// one value may feed any number of nodes.
const MAX_BYTES: usize = 256 << 20;

/// So many digits of a step's key stand for `{hash}` in a path: among ten thousand files of one
/// name, two are called alike once in 86 times.
const HASH_DIGITS: usize = 8;

/// The least number of digits for `{n}`, so that names sort as numbers do.
const NUMBER_DIGITS: usize = 3;

/// What is known of a graph before anything runs.
pub(crate) struct Inferred {
    /// By node; nothing for a node that cannot be needed.
    pub(crate) nodes: Vec<Option<InferredNode>>,
    /// The nodes wanted for themselves.
    pub(crate) targets: Vec<NodeIndex>,
}

/// What is known of a node.
pub(crate) struct InferredNode {
    pub(crate) key: Key,
    pub(crate) facts: Vec<Fact>,
    /// Steps are numbered by their node until the plan is made.
    pub(crate) inputs: Vec<StepInput>,
    pub(crate) info: StepInfo,
    pub(crate) counted: Option<Counted>,
    /// What stands against it; it counts only where the node turns out to be needed.
    pub(crate) problems: Vec<Diagnostic>,
    /// It, or something before it, was refused, so that nothing can be said of it.
    pub(crate) blind: bool,
}

/// Asks the nodes, in the graph's order.
pub(crate) fn infer(
    graph: &CheckedGraph,
    catalog: &dyn Catalog,
    settings: &PlanSettings<'_>,
    values: &mut Values<'_>,
    report: &mut Report,
) -> Inferred {
    let targets = targets(graph, settings.until, report);
    infer_before(graph, catalog, settings, targets, values, report)
}

/// Asks the nodes before `targets`, and they themselves.
pub(crate) fn infer_before(
    graph: &CheckedGraph,
    catalog: &dyn Catalog,
    settings: &PlanSettings<'_>,
    targets: Vec<NodeIndex>,
    values: &mut Values<'_>,
    report: &mut Report,
) -> Inferred {
    let mut inferrer = Inferrer {
        graph,
        catalog,
        values,
        report,
        nodes: Vec::new(),
        keys: Keys::new(settings.versions, settings.machine),
        filled: HashMap::new(),
        bytes: 0,
        overflow: None,
    };
    inferrer.nodes.resize_with(graph.nodes.node_count(), || None);
    inferrer.check_subgraph_inputs(false);
    if inferrer.report.list.is_empty() {
        let reached = before(graph, &targets);
        for index in graph.order.iter().filter(|index| reached[index.index()]) {
            let node = inferrer.node(*index);
            inferrer.nodes[index.index()] = Some(node);
        }
        inferrer.check_subgraph_inputs(true);
        inferrer.report.list.extend(inferrer.overflow.take());
    }
    Inferred { nodes: inferrer.nodes, targets }
}

impl Inferred {
    /// The nodes that `targets` need, without the inputs that inference ruled out, and without
    /// those whose value it has put in place of an edge.
    pub(crate) fn needed(&self, graph: &CheckedGraph) -> Vec<bool> {
        let mut reached = vec![false; graph.nodes.node_count()];
        let mut open = self.targets.clone();
        while let Some(index) = open.pop() {
            if std::mem::replace(&mut reached[index.index()], true) {
                continue;
            }
            match self.nodes[index.index()].as_ref().filter(|node| !node.blind) {
                Some(node) => {
                    let sources = node.inputs.iter().flat_map(StepInput::sources);
                    open.extend(sources.map(|source| NodeIndex::new(source.step as usize)));
                }
                None => open.extend(graph.nodes.neighbors_directed(index, Direction::Incoming)),
            }
        }
        reached
    }
}

/// The nodes wanted for themselves, each once.
fn targets(graph: &CheckedGraph, until: Option<&str>, report: &mut Report) -> Vec<NodeIndex> {
    let mut targets = match until {
        Some(until) => stop_at(graph, until, report),
        None => {
            let sink = |index: &NodeIndex| graph.nodes[*index].op.signature.traits.sink;
            let mut targets: Vec<_> = graph.order.iter().copied().filter(sink).collect();
            for (_, binding) in &graph.outputs {
                binding.nodes(&mut |node| targets.push(node));
            }
            targets
        }
    };
    let mut seen = vec![false; graph.nodes.node_count()];
    targets.retain(|index| !std::mem::replace(&mut seen[index.index()], true));
    targets
}

/// The node of this name; for a graph used as a node, the nodes behind its outputs.
fn stop_at(graph: &CheckedGraph, until: &str, report: &mut Report) -> Vec<NodeIndex> {
    if let Some(node) = graph.order.iter().find(|index| *graph.nodes[**index].name == *until) {
        return vec![*node];
    }
    if let Some((_, behind)) = graph.groups.iter().find(|(name, _)| **name == *until) {
        return behind.clone();
    }
    let names = || {
        let nodes = graph.order.iter().map(|index| &*graph.nodes[*index].name);
        nodes.chain(graph.groups.iter().map(|(name, _)| &**name))
    };
    let hint = report.advice(until, names);
    nowhere(report, "unknown-node", format!("there is no node `{until}` to stop at"), hint);
    Vec::new()
}

/// The nodes before `targets`, and they themselves.
pub(crate) fn before(graph: &CheckedGraph, targets: &[NodeIndex]) -> Vec<bool> {
    let mut reached = vec![false; graph.nodes.node_count()];
    let mut open = targets.to_vec();
    while let Some(index) = open.pop() {
        if !std::mem::replace(&mut reached[index.index()], true) {
            open.extend(graph.nodes.neighbors_directed(index, Direction::Incoming));
        }
    }
    reached
}

struct Inferrer<'p, 's> {
    graph: &'p CheckedGraph,
    catalog: &'p dyn Catalog,
    values: &'p mut Values<'s>,
    report: &'p mut Report,
    nodes: Vec<Option<InferredNode>>,
    keys: Keys<'p>,
    /// The paths that are known so far, by where their pieces lie: one may stand in many others, and
    /// twice in each.
    filled: HashMap<*const Piece, Arc<str>>,
    /// What the values known so far take.
    bytes: usize,
    /// Set once that is too much: no further node is asked.
    overflow: Option<Diagnostic>,
}

impl Inferrer<'_, '_> {
    /// Checks the values known so far against the inputs of graphs used as nodes: those of the
    /// graph's inputs, then those that nodes compute.
    fn check_subgraph_inputs(&mut self, inferred: bool) {
        for input in &self.graph.subgraph_inputs {
            input.binding.each(&mut |binding| {
                let value = match &binding.source {
                    BindingSource::Input(index) if !inferred => self.values.inputs[*index].as_ref(),
                    BindingSource::Edge(node, output) if inferred => {
                        let known = self.nodes[node.index()].as_ref();
                        let fact = known.and_then(|known| known.facts.get(*output as usize));
                        fact.and_then(Fact::literal)
                    }
                    _ => None,
                };
                let Some(Err(error)) = value.map(|value| input.port.check(value)) else { return };
                let message =
                    format!("`{}` of `{}`: {}", input.port.name, input.node, error.message);
                self.report.error("value", binding.location, message).hint = error.hint;
            });
        }
    }

    fn node(&mut self, index: NodeIndex) -> InferredNode {
        let node = &self.graph.nodes[index];
        let signature = &node.op.signature;
        if self.overflow.is_some() {
            let (facts, inputs, problems) = (Vec::new(), Vec::new(), Vec::new());
            let (info, counted) = (StepInfo::default(), None);
            let key = Key([0; 32]);
            return InferredNode { key, facts, inputs, info, counted, problems, blind: true };
        }
        let mut counted = None;
        // What is said of this node's inputs is its own.
        let before = self.report.list.len();
        let mut blind = false;
        let mut inputs = Vec::with_capacity(node.bindings.len());
        let mut facts = Vec::with_capacity(node.bindings.len());
        let fed = signature.inputs.iter().zip(&node.bindings);
        for ((port, binding), name) in fed.zip(&*node.op.ports) {
            let (input, fact) = self.input(node, port, binding);
            // A lazy input may belong to a branch that is never taken.
            blind |= !port.lazy && self.is_blind(binding);
            self.count(&fact, binding.location);
            inputs.push(input);
            facts.push((Arc::clone(name), fact));
        }
        if self.has_late(node, &inputs) {
            counted = self.put_late(node, &mut inputs, &mut facts);
        }
        let problems = self.report.list.split_off(before);
        let mut known = InferredNode {
            key: Key([0; 32]),
            facts: Vec::new(),
            inputs,
            info: StepInfo::default(),
            counted,
            blind: blind || !problems.is_empty(),
            problems,
        };
        if !known.blind {
            match self.catalog.infer(&node.op.name, &Facts::new(facts)) {
                Ok(info) => self.inferred(node, &mut known, info),
                Err(errors) => {
                    known.problems.extend(errors.iter().map(|error| plan_error(node, error)));
                    known.blind = true;
                }
            }
        }
        known
    }

    /// Takes in what a node says of itself.
    fn inferred(&mut self, node: &Node, known: &mut InferredNode, mut info: StepInfo) {
        let signature = &node.op.signature;
        if let Some(chosen) = info.chosen {
            for (port, input) in signature.inputs.iter().zip(&mut known.inputs) {
                if port.lazy && port.name != chosen {
                    *input = StepInput::Absent;
                }
            }
        }
        known.facts = std::mem::take(&mut info.outputs);
        known.facts.resize(signature.outputs.len(), Fact::Unknown);
        let bytes: usize = known.facts.iter().map(fact_bytes).sum();
        if bytes > MAX_TEXT {
            let message = format!("a result is {bytes} bytes long, at most {MAX_TEXT} fit");
            known.problems.push(plan_error(node, &PlanError::new(message)));
            known.blind = true;
            known.facts.clear();
            return;
        }
        self.bytes += bytes;
        known.info = info;
        known.key = key(&mut self.keys, &self.nodes, node, &known.inputs, &known.info.key);
    }

    /// Whether a path of a node has something in it that is known last of all.
    fn has_late(&self, node: &Node, inputs: &[StepInput]) -> bool {
        let mut paths = node.op.signature.inputs.iter().zip(inputs);
        paths.any(|(port, input)| {
            port.names_file() && input.texts().iter().any(|text| Late::is_in(text))
        })
    }

    /// Puts `{hash}` and then `{n}` into the paths of a node that writes: what makes its file is
    /// known by now, but for these.
    fn put_late(
        &mut self,
        node: &Node,
        inputs: &mut [StepInput],
        facts: &mut [(Arc<str>, Option<Fact>)],
    ) -> Option<Counted> {
        let signature = &node.op.signature;
        if !signature.traits.sink {
            let message = format!(
                "`{}` reads this path: `{{hash}}` and `{{n}}` are known for files that are written",
                node.name
            );
            let hint = "write the name of the file, or feed the reader with an edge".to_owned();
            self.report.error("template", node.location, message).hint = Some(hint);
            return None;
        }
        let of_file = key(&mut self.keys, &self.nodes, node, inputs, &[]);
        let hash = of_file.to_string();
        let mut counted = None;
        let number = self.values.number();
        for (at, _) in signature.inputs.iter().enumerate().filter(|(_, port)| port.names_file()) {
            let mut put = |text: &mut String| {
                *text = text.replace(Late::Hash.place(), &hash[..HASH_DIGITS]);
                let Some((before, behind)) = text.split_once(Late::Number.place()) else { return };
                let n = number.map_or(1, |number| number(before, behind, of_file));
                let names = behind.matches('/').count();
                *text = text.replace(Late::Number.place(), &format!("{n:0NUMBER_DIGITS$}"));
                counted = Some(Counted { behind: names, key: of_file });
            };
            inputs[at].each_text(&mut put);
            if let Some(fact) = &mut facts[at].1 {
                *fact = match &inputs[at] {
                    StepInput::Literal(literal) => Fact::Literal(literal.clone()),
                    StepInput::List(items) => Fact::List(items.iter().map(as_fact).collect()),
                    StepInput::Absent | StepInput::Edge(_) => continue,
                };
            }
        }
        counted
    }

    /// Counts a value that an input holds; says where all of them become too much.
    fn count(&mut self, fact: &Option<Fact>, location: Location) {
        self.bytes += fact.as_ref().map_or(0, fact_bytes);
        if self.bytes > MAX_BYTES && self.overflow.is_none() {
            let most = MAX_BYTES >> 20;
            let message = format!("the values of this plan take over {most} MiB together");
            self.overflow = Some(Diagnostic::error("too-large", location, message));
        }
    }

    fn is_blind(&self, binding: &Binding) -> bool {
        let mut blind = false;
        binding.nodes(&mut |from| {
            blind |= self.nodes[from.index()].as_ref().is_none_or(|known| known.blind);
        });
        blind
    }

    /// What feeds a port, and what is known of it.
    fn input(&mut self, node: &Node, port: &Port, binding: &Binding) -> (StepInput, Option<Fact>) {
        if let BindingSource::List(items) = &binding.source {
            let mut list = Vec::with_capacity(items.len());
            let mut facts = Vec::with_capacity(items.len());
            for (name, item) in items.iter() {
                match self.item(node, port, item) {
                    // A list among the inputs of the graph.
                    Some((ValueSource::Literal(Literal::List(values)), _)) => {
                        for value in values {
                            facts.push((None, Fact::Literal(value.clone())));
                            list.push((None, ValueSource::Literal(value)));
                        }
                    }
                    Some((item, fact)) => {
                        list.push((name.clone(), item));
                        facts.push((name.clone(), fact));
                    }
                    None => {}
                }
            }
            return (StepInput::List(list), Some(Fact::List(facts)));
        }
        match self.item(node, port, binding) {
            Some((ValueSource::Literal(literal), fact)) => {
                (StepInput::Literal(literal), Some(fact))
            }
            Some((ValueSource::Edge(source), fact)) => (StepInput::Edge(source), Some(fact)),
            None => match &port.default {
                Some(default) => {
                    (StepInput::Literal(default.clone()), Some(Fact::Literal(default.clone())))
                }
                None => (StepInput::Absent, None),
            },
        }
    }

    fn item(&mut self, node: &Node, port: &Port, binding: &Binding) -> Option<(ValueSource, Fact)> {
        let literal = match &binding.source {
            BindingSource::Absent | BindingSource::Broken | BindingSource::List(_) => return None,
            BindingSource::Edge(from, output) => {
                let known = self.nodes[from.index()].as_ref();
                let is_known = known.is_some_and(|known| !known.blind);
                let fact = known.and_then(|known| known.facts.get(*output as usize).cloned());
                let fact = fact.unwrap_or_default();
                if let Fact::Literal(literal) = &fact
                    && let Err(error) = port.check(literal)
                {
                    self.refuse(node, port, binding.location, error);
                }
                match fact {
                    Fact::Literal(path @ Literal::Text(_)) if port.names_file() => path,
                    fact => {
                        if port.names_file() && is_known && !port.lazy {
                            self.late(node, port, *from, binding.location);
                        }
                        let source = StepOutput { step: from.index() as u32, output: *output };
                        return Some((ValueSource::Edge(source), fact));
                    }
                }
            }
            BindingSource::Literal(literal) => {
                self.coerce(node, port, binding.location, (**literal).clone())?
            }
            BindingSource::Draw(range) => {
                let name = format!("{}.{}", node.name, port.name);
                let drawn = self.values.drawn(
                    &name,
                    range.as_deref().copied().or(port.range),
                    binding.location,
                );
                self.coerce(node, port, binding.location, drawn)?
            }
            BindingSource::Template(pieces) => Literal::text(self.fill(pieces, binding.location)?),
            BindingSource::Input(index) => self.value(node, port, *index, binding.location)?,
        };
        let literal = match port.names_file() && !node.op.signature.traits.sink {
            true => self.beside(port, binding.scope, literal),
            false => literal,
        };
        Some((ValueSource::Literal(literal.clone()), Fact::Literal(literal)))
    }

    /// What is read lies beside the file that names it.
    fn beside(&self, port: &Port, scope: u32, path: Literal) -> Literal {
        let dir = &self.graph.dirs[scope as usize];
        match path {
            Literal::Text(path) if port.is_path(&path) => {
                Literal::text(within(dir, path.into_owned()))
            }
            Literal::List(items) => {
                let items = items.into_iter().map(|item| self.beside(port, scope, item));
                Literal::List(items.collect())
            }
            other => other,
        }
    }

    /// The name of a file must be known: what the file holds is part of a key, and nobody could say
    /// whether two nodes write it.
    fn late(&mut self, node: &Node, port: &Port, from: NodeIndex, location: Location) {
        let from = &self.graph.nodes[from].name;
        let message = format!(
            "`{}` of `{}`: only running `{from}` tells this path, but the name of a file must be \
             known before anything runs",
            port.name, node.name
        );
        self.report.error("late-path", location, message).hint =
            Some("write the path out, or make an input of the graph of it and set that".to_owned());
    }

    fn refuse(
        &mut self,
        node: &Node,
        port: &Port,
        location: Location,
        error: kino_port::PortError,
    ) {
        let message = format!("`{}` of `{}`: {}", port.name, node.name, error.message);
        self.report.error("value", location, message).hint = error.hint;
    }

    /// A value computed while planning must fit the port as one that is written must.
    fn coerce(
        &mut self,
        node: &Node,
        port: &Port,
        location: Location,
        value: Literal,
    ) -> Option<Literal> {
        let admitted = port.coerce(value);
        admitted.map_err(|error| self.refuse(node, port, location, error)).ok()
    }

    /// The value of a graph's input, as `port` sees it.
    fn value(
        &mut self,
        node: &Node,
        port: &Port,
        index: usize,
        location: Location,
    ) -> Option<Literal> {
        let input = &self.graph.inputs[index];
        let Some(value) = self.values.inputs[index].clone() else {
            unset(input, self.report);
            return None;
        };
        match port.coerce(value) {
            Ok(value) => Some(value),
            Err(error) => {
                let message = format!(
                    "input `{}`: `{}` of `{}` {}",
                    input.port.name, port.name, node.name, error.message
                );
                let diagnostic =
                    Diagnostic::error("value", input.location, message).maybe_hint(error.hint);
                self.report.push(diagnostic.related(location, "used here"));
                None
            }
        }
    }

    /// A path with the values of its names.
    fn fill(&mut self, pieces: &Arc<[Piece]>, location: Location) -> Option<String> {
        if let Some(known) = self.filled.get(&pieces.as_ptr()) {
            return Some(known.to_string());
        }
        let mut path = String::new();
        for piece in pieces.iter() {
            match piece {
                Piece::Text(text) => path.push_str(text),
                Piece::Stem => path.push_str(&self.values.stem()),
                Piece::Value(binding) => match self.known_value(binding)? {
                    Some(value) => path.push_str(&as_part(&value)),
                    None => {
                        let message = "this path needs a value that is not known before running";
                        self.report.error("template", location, message);
                        return None;
                    }
                },
            }
        }
        self.filled.insert(pieces.as_ptr(), path.as_str().into());
        Some(path)
    }

    /// The value of a binding as far as it is known; none at all where that is an error of its own.
    fn known_value(&mut self, binding: &Binding) -> Option<Option<Literal>> {
        Some(match &binding.source {
            BindingSource::Literal(literal) => Some((**literal).clone()),
            BindingSource::Draw(range) => {
                let name = format!("a path in file {}", binding.location.file);
                Some(self.values.drawn(&name, range.as_deref().copied(), binding.location))
            }
            BindingSource::Template(inner) => {
                Some(Literal::text(self.fill(inner, binding.location)?))
            }
            BindingSource::Input(index) => {
                let value = self.values.inputs[*index].clone();
                if value.is_none() {
                    unset(&self.graph.inputs[*index], self.report);
                }
                Some(value?)
            }
            BindingSource::Edge(from, output) => {
                let known = self.nodes[from.index()].as_ref();
                let fact = known.and_then(|known| known.facts.get(*output as usize));
                fact.and_then(Fact::literal).cloned()
            }
            BindingSource::Absent | BindingSource::Broken | BindingSource::List(_) => None,
        })
    }
}

/// The key of a node, whose sources have theirs.
fn key(
    keys: &mut Keys<'_>,
    nodes: &[Option<InferredNode>],
    node: &Node,
    inputs: &[StepInput],
    added: &[u8],
) -> Key {
    let key_of = |step: u32| nodes[step as usize].as_ref().map_or(Key([0; 32]), |known| known.key);
    keys.key(node, inputs, added, key_of)
}

/// What is known of an item of a list of paths.
fn as_fact((name, item): &(Option<Arc<str>>, ValueSource)) -> (Option<Arc<str>>, Fact) {
    let fact = match item {
        ValueSource::Literal(literal) => Fact::Literal(literal.clone()),
        ValueSource::Edge(_) => Fact::Unknown,
    };
    (name.clone(), fact)
}

/// What a fact's values take; descriptions count nothing.
fn fact_bytes(fact: &Fact) -> usize {
    match fact {
        Fact::Literal(literal) => literal.bytes(),
        Fact::List(items) => items.iter().map(|(_, item)| 16 + fact_bytes(item)).sum(),
        Fact::Unknown | Fact::Typed(_) => 0,
    }
}

/// A node's error, at what feeds the input that it is about.
pub(crate) fn plan_error(node: &Node, error: &PlanError) -> Diagnostic {
    let port = error.port.as_deref();
    let mut fed = node.op.signature.inputs.iter().zip(&node.bindings);
    let fed = fed.find(|(candidate, _)| Some(&*candidate.name) == port);
    let location = fed.map_or(node.location, |(_, binding)| binding.location);
    let subject = match port {
        Some(port) => format!("`{port}` of `{}`", node.name),
        None => format!("`{}`", node.name),
    };
    let message = format!("{subject}: {}", error.message);
    Diagnostic::error("plan", location, message).maybe_hint(error.hint.clone())
}
