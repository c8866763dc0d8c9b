//! Fifth pass, [`CheckedGraph`] → [`Inferred`]: asks every node that may be needed what is known of
//! its results before anything runs, and gives it a key.
//!
//! The name of a file is always known here: a text that a node computes is put in place of its
//! edge, and one that only a run gives is refused. What is known is bounded, as nodes compute with
//! it: a text by [`kino_port::MAX_TEXT`], all values of a plan by [`MAX_BYTES`].
//!
//! A graph that is only checked goes through the same pass ([`Values::only_check`]): inputs without
//! a value, drawn numbers, and whatever nodes leave to planning are then unknown, what follows from
//! them is in doubt ([`Asked`]), and nothing is said of what planning may know better. No keys are
//! made.

use std::collections::HashMap;
use std::sync::Arc;

use kino_port::{
    Fact, Facts, Literal, MAX_TEXT, PlanError, PlanErrorKind, Port, PortType, StepInfo,
};
use petgraph::Direction;
use petgraph::graph::NodeIndex;

use crate::Catalog;
use crate::binding::{Binding, BindingSource, Piece};
use crate::check::CheckedGraph;
use crate::diagnostic::{Diagnostic, Location, Report, Severity};
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
    pub(crate) facts: Vec<Fact>,
    pub(crate) asked: Asked,
    /// What becomes its step. While a graph is only checked, there is one where a node chooses
    /// among its inputs or names a file, and where something stands against it.
    pub(crate) parts: Option<Box<StepParts>>,
}

/// What is known of a node beside its facts.
pub(crate) struct StepParts {
    pub(crate) key: Key,
    /// Steps are numbered by their node until the plan is made. All of them, or, while a graph is
    /// only checked, perhaps none.
    pub(crate) inputs: Vec<StepInput>,
    pub(crate) info: StepInfo,
    pub(crate) counted: Option<Counted>,
    /// What stands against it; it counts only where the node turns out to be needed.
    pub(crate) problems: Vec<Diagnostic>,
}

/// How far a node could be asked. The later ones say less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Asked {
    /// It has said what it knows.
    Known,
    /// While a graph is only checked: planning may know more of it.
    InDoubt,
    /// The same, and not even whether it is there: a turn of a loop whose turns are not counted yet.
    Unasked,
    /// It, or something before it, was refused, so that nothing can be said of it.
    Refused,
}

impl InferredNode {
    fn refused() -> Self {
        InferredNode { facts: Vec::new(), asked: Asked::Refused, parts: None }
    }

    /// Its parts, empty where it has none yet.
    fn parts(&mut self) -> &mut StepParts {
        self.parts.get_or_insert_with(|| {
            let (inputs, info, problems) = (Vec::new(), StepInfo::default(), Vec::new());
            let (key, counted) = (Key([0; 32]), None);
            Box::new(StepParts { key, inputs, info, counted, problems })
        })
    }

    /// What stands against it.
    pub(crate) fn problems(&self) -> &[Diagnostic] {
        self.parts.as_ref().map_or(&[], |parts| &parts.problems)
    }
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
        facts: Vec::new(),
        filled: HashMap::new(),
        counted: HashMap::new(),
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
            let node = self.nodes[index.index()].as_ref();
            let node = node.filter(|node| node.asked != Asked::Refused);
            let ports = graph.nodes[index].bindings.len();
            match node.and_then(|node| node.parts.as_ref()) {
                Some(parts) if parts.inputs.len() == ports => {
                    let sources = parts.inputs.iter().flat_map(StepInput::sources);
                    open.extend(sources.map(|source| NodeIndex::new(source.step as usize)));
                }
                _ => open.extend(graph.nodes.neighbors_directed(index, Direction::Incoming)),
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
    /// What is known of a node's inputs, kept from node to node.
    facts: Vec<Option<Fact>>,
    /// The paths that are known so far, by where their pieces lie: one may stand in many others, and
    /// twice in each.
    filled: HashMap<*const Piece, Arc<str>>,
    /// How many nodes write by a name that counts, by what makes their files.
    counted: HashMap<Key, u64>,
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
                    BindingSource::Input(index) if !inferred && !self.values.open[*index] => {
                        self.values.inputs[*index].as_ref()
                    }
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
        if self.overflow.is_some() {
            return InferredNode::refused();
        }
        if self.may_not_be_there(node) {
            let facts = vec![Fact::Unknown; node.op.signature.outputs.len()];
            return InferredNode { facts, asked: Asked::Unasked, parts: None };
        }
        // What is said of this node's inputs is its own.
        let before = self.report.list.len();
        let keeps_inputs = !self.values.only_check || node.op.chooses;
        let mut asked = Asked::Known;
        let mut inputs = Vec::with_capacity(if keeps_inputs { node.bindings.len() } else { 0 });
        let mut facts = std::mem::take(&mut self.facts);
        facts.clear();
        for (port, binding) in node.op.signature.inputs.iter().zip(&node.bindings) {
            let (input, fact) = self.input(node, port, binding, keeps_inputs);
            // A lazy input may belong to a branch that is never taken.
            match self.asked(port, binding) {
                Asked::Refused if port.lazy => {}
                of_input => asked = asked.max(of_input),
            }
            self.count(&fact, binding.location);
            facts.push(fact);
            if keeps_inputs {
                inputs.push(input);
            }
        }
        let mut counted = None;
        if has_late(node, &inputs) {
            counted = self.put_late(index, &mut inputs, &mut facts);
        }
        let problems = self.report.list.split_off(before);
        let mut known = InferredNode { facts: Vec::new(), asked, parts: None };
        if keeps_inputs {
            known.parts().inputs = inputs;
            known.parts().counted = counted;
        }
        if !problems.is_empty() {
            known.parts().problems = problems;
            known.asked = Asked::Refused;
        }
        if known.asked < Asked::Unasked {
            let facts = Facts::shared(Arc::clone(&node.op.ports), facts);
            match self.catalog.infer(&node.op.name, &facts) {
                Ok(info) => self.inferred(node, &mut known, info),
                Err(errors) => self.refused(node, &mut known, &errors),
            }
            self.facts = facts.into_values();
        } else {
            self.facts = facts;
        }
        // What it gives of itself is one value, however many it takes.
        if known.asked == Asked::Unasked {
            known.asked = Asked::InDoubt;
        }
        if known.asked < Asked::Refused && known.facts.is_empty() {
            known.facts.resize(node.op.signature.outputs.len(), Fact::Unknown);
        }
        known
    }

    /// Takes in what a node says of itself.
    fn inferred(&mut self, node: &Node, known: &mut InferredNode, mut info: StepInfo) {
        let signature = &node.op.signature;
        if info.unseen && self.values.only_check {
            known.asked = known.asked.max(Asked::InDoubt);
        }
        let in_doubt = known.asked == Asked::InDoubt;
        let warnings = std::mem::take(&mut info.warnings);
        if !warnings.is_empty() {
            let warnings = warnings.iter().map(|warning| plan_error(node, warning));
            let warnings = warnings.map(|it| Diagnostic { severity: Severity::Warning, ..it });
            known.parts().problems.extend(warnings);
        }
        known.facts = std::mem::take(&mut info.outputs);
        known.facts.resize(signature.outputs.len(), Fact::Unknown);
        let bytes: usize = known.facts.iter().map(fact_bytes).sum();
        if bytes > MAX_TEXT {
            let message = format!("a result is {bytes} bytes long, at most {MAX_TEXT} fit");
            known.parts().problems.push(plan_error(node, &PlanError::new(message)));
            known.asked = Asked::Refused;
            known.facts.clear();
            return;
        }
        self.bytes += bytes;
        let Some(parts) = &mut known.parts else { return };
        // Where planning may know which input is needed, nothing is said of any.
        if info.chosen.is_some() || in_doubt {
            for (port, input) in signature.inputs.iter().zip(&mut parts.inputs) {
                if port.lazy && info.chosen.is_none_or(|chosen| port.name != chosen) {
                    *input = StepInput::Absent;
                }
            }
        }
        parts.info = info;
        if !self.values.only_check {
            parts.key = key(&mut self.keys, &self.nodes, node, &parts.inputs, &parts.info.key);
        }
    }

    /// Puts `{hash}` and then `{n}` into the paths of a node that writes: what makes its file is
    /// known by now, but for these. While a graph is only checked, no two of its nodes have one
    /// number.
    fn put_late(
        &mut self,
        index: NodeIndex,
        inputs: &mut [StepInput],
        facts: &mut [Option<Fact>],
    ) -> Option<Counted> {
        let node = &self.graph.nodes[index];
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
        let of_file = match self.values.only_check {
            true => Key([0; 32]),
            false => key(&mut self.keys, &self.nodes, node, inputs, &[]),
        };
        let hash = of_file.to_string();
        // Two nodes that write the same, each by a name that counts, write two files.
        let equals = self.counted.entry(of_file).or_default();
        let of_file = of_file.nth(*equals);
        *equals += 1;
        let mut counted = None;
        let (number, other) = (self.values.number(), index.index() as u64 + 1);
        for (at, _) in signature.inputs.iter().enumerate().filter(|(_, port)| port.names_file()) {
            let mut put = |text: &mut String| {
                *text = text.replace(Late::Hash.place(), &hash[..HASH_DIGITS]);
                let Some((before, behind)) = text.split_once(Late::Number.place()) else { return };
                let n = number.map_or(other, |number| number(before, behind, of_file));
                let names = behind.matches('/').count();
                *text = text.replace(Late::Number.place(), &format!("{n:0NUMBER_DIGITS$}"));
                counted = Some(Counted { behind: names, key: of_file });
            };
            inputs[at].each_text(&mut put);
            if let Some(fact) = &mut facts[at] {
                *fact = match &inputs[at] {
                    StepInput::Literal(literal) => Fact::Literal(literal.clone()),
                    StepInput::List(items) => Fact::List(items.iter().map(as_fact).collect()),
                    StepInput::Absent | StepInput::Edge(_) => continue,
                };
            }
        }
        counted
    }

    /// Takes in what a node says against itself. While a graph is only checked, another machine may
    /// have what this one lacks.
    fn refused(&mut self, node: &Node, known: &mut InferredNode, errors: &[PlanError]) {
        let only_check = self.values.only_check;
        let said = errors.iter().filter(|error| error.kind != PlanErrorKind::Unseen || !only_check);
        let of_machine = |error: &PlanError| only_check && error.kind != PlanErrorKind::Graph;
        let problems: Vec<Diagnostic> = said
            .map(|error| match of_machine(error) {
                false => plan_error(node, error),
                true => Diagnostic { severity: Severity::Warning, ..plan_error(node, error) },
            })
            .collect();
        known.asked = match errors.iter().all(of_machine) {
            true => known.asked.max(Asked::InDoubt),
            false => Asked::Refused,
        };
        if !problems.is_empty() {
            known.parts().problems.extend(problems);
        }
        if let Some(parts) = &mut known.parts
            && known.asked == Asked::InDoubt
        {
            let fed = node.op.signature.inputs.iter().zip(&mut parts.inputs);
            fed.filter(|(port, _)| port.lazy).for_each(|(_, input)| *input = StepInput::Absent);
        }
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

    /// How far what feeds a port is known.
    fn asked(&self, port: &Port, binding: &Binding) -> Asked {
        let asked = match &binding.source {
            BindingSource::Edge(from, output) => {
                let known = self.nodes[from.index()].as_ref();
                let asked = known.map_or(Asked::Refused, |known| known.asked);
                let is_list = || {
                    let from = &self.graph.nodes[*from].op.signature.outputs[*output as usize];
                    match from.ty {
                        PortType::List(_) => true,
                        PortType::Any => port.ty != PortType::Any,
                        _ => false,
                    }
                };
                match asked {
                    // How many there are is not known either.
                    Asked::InDoubt if port.is_list() && is_list() => Asked::Unasked,
                    asked => asked,
                }
            }
            BindingSource::Input(index) if self.values.open[*index] => {
                match self.graph.inputs[*index].port.is_list() {
                    true => Asked::Unasked,
                    false => Asked::InDoubt,
                }
            }
            BindingSource::Draw(_) if self.values.only_check => Asked::InDoubt,
            BindingSource::List(items) => {
                let asked = items.iter().map(|(_, item)| self.asked(port, item));
                asked.max().unwrap_or(Asked::Known)
            }
            BindingSource::Template(_) => {
                let mut asked = Asked::Known;
                binding.nodes(&mut |from| {
                    let known = self.nodes[from.index()].as_ref();
                    asked = asked.max(known.map_or(Asked::Refused, |known| known.asked));
                });
                asked
            }
            _ => Asked::Known,
        };
        match asked {
            Asked::Unasked if !port.is_list() => Asked::InDoubt,
            asked => asked,
        }
    }

    /// Whether a node belongs to a turn of a loop that perhaps has only one.
    fn may_not_be_there(&self, node: &Node) -> bool {
        node.turn.is_some_and(|turn| turn.number > 0)
            && self.values.uncounted.iter().any(|of| lies_in(&node.name, of))
    }

    /// What feeds a port, where that is kept, and what is known of it.
    fn input(
        &mut self,
        node: &Node,
        port: &Port,
        binding: &Binding,
        is_kept: bool,
    ) -> (StepInput, Option<Fact>) {
        if let BindingSource::List(items) = &binding.source {
            let mut list = Vec::with_capacity(if is_kept { items.len() } else { 0 });
            let mut facts = Vec::with_capacity(items.len());
            for (name, item) in items.iter() {
                let (name, source, fact) = match self.item(node, port, item) {
                    // A list among the inputs of the graph.
                    Fed::Literal(Literal::List(values)) => {
                        for value in values {
                            if is_kept {
                                list.push((None, ValueSource::Literal(value.clone())));
                            }
                            facts.push((None, Fact::Literal(value)));
                        }
                        continue;
                    }
                    Fed::Literal(value) => {
                        let source = is_kept.then(|| ValueSource::Literal(value.clone()));
                        (name.clone(), source, Fact::Literal(value))
                    }
                    Fed::Edge(source, fact) => {
                        (name.clone(), is_kept.then_some(ValueSource::Edge(source)), fact)
                    }
                    Fed::Open => (name.clone(), None, Fact::Unknown),
                    Fed::Nothing => continue,
                };
                list.extend(source.map(|source| (name.clone(), source)));
                facts.push((name, fact));
            }
            return (StepInput::List(list), Some(Fact::List(facts)));
        }
        let literal = match self.item(node, port, binding) {
            Fed::Literal(literal) => literal,
            Fed::Edge(source, fact) => return (StepInput::Edge(source), Some(fact)),
            Fed::Open => return (StepInput::Absent, Some(Fact::Unknown)),
            Fed::Nothing => match &port.default {
                Some(default) => default.clone(),
                None => return (StepInput::Absent, None),
            },
        };
        let input = match is_kept {
            true => StepInput::Literal(literal.clone()),
            false => StepInput::Absent,
        };
        (input, Some(Fact::Literal(literal)))
    }

    fn item(&mut self, node: &Node, port: &Port, binding: &Binding) -> Fed {
        let literal = match &binding.source {
            BindingSource::Absent | BindingSource::Broken | BindingSource::List(_) => {
                return Fed::Nothing;
            }
            BindingSource::Edge(from, output) => {
                let known = self.nodes[from.index()].as_ref();
                let is_known = known.is_some_and(|known| known.asked == Asked::Known);
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
                        return Fed::Edge(source, fact);
                    }
                }
            }
            // It was checked where it is written.
            BindingSource::Literal(literal) => port.widen((**literal).clone()),
            BindingSource::Draw(_) if self.values.only_check => return Fed::Open,
            BindingSource::Draw(range) => {
                let name = format!("{}.{}", node.name, port.name);
                let drawn = self.values.drawn(
                    &name,
                    range.as_deref().copied().or(port.range),
                    binding.location,
                );
                match self.coerce(node, port, binding.location, drawn) {
                    Some(drawn) => drawn,
                    None => return Fed::Nothing,
                }
            }
            BindingSource::Template(pieces) => match self.fill(pieces, binding.location) {
                Filled::Path(path) => Literal::text(path),
                Filled::Open => return Fed::Open,
                Filled::Refused => return Fed::Nothing,
            },
            BindingSource::Input(index) if self.values.open[*index] => return Fed::Open,
            BindingSource::Input(index) => match self.value(node, port, *index, binding.location) {
                Some(value) => value,
                None => return Fed::Nothing,
            },
        };
        Fed::Literal(match port.names_file() && !node.op.signature.traits.sink {
            true => self.beside(port, binding.scope, literal),
            false => literal,
        })
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
    fn fill(&mut self, pieces: &Arc<[Piece]>, location: Location) -> Filled {
        if let Some(known) = self.filled.get(&pieces.as_ptr()) {
            return Filled::Path(known.to_string());
        }
        let mut path = String::new();
        for piece in pieces.iter() {
            match piece {
                Piece::Text(text) => path.push_str(text),
                Piece::Stem => path.push_str(&self.values.stem()),
                Piece::Value(binding) => match self.known_value(binding) {
                    Some(Some(value)) => path.push_str(&as_part(&value)),
                    Some(None) if self.is_open(binding) => return Filled::Open,
                    Some(None) => {
                        let message = "this path needs a value that is not known before running";
                        self.report.error("template", location, message);
                        return Filled::Refused;
                    }
                    None => return Filled::Refused,
                },
            }
        }
        self.filled.insert(pieces.as_ptr(), path.as_str().into());
        Filled::Path(path)
    }

    /// Whether planning may know a value that is not known here.
    fn is_open(&self, binding: &Binding) -> bool {
        match &binding.source {
            BindingSource::Input(index) => self.values.open[*index],
            BindingSource::Edge(from, _) => {
                let known = self.nodes[from.index()].as_ref();
                known.is_some_and(|known| (Asked::InDoubt..Asked::Refused).contains(&known.asked))
            }
            BindingSource::Template(pieces) => pieces.iter().any(|piece| match piece {
                Piece::Value(binding) => self.is_open(binding),
                Piece::Text(_) | Piece::Stem => false,
            }),
            _ => false,
        }
    }

    /// The value of a binding as far as it is known; none at all where that is an error of its own.
    fn known_value(&mut self, binding: &Binding) -> Option<Option<Literal>> {
        Some(match &binding.source {
            BindingSource::Literal(literal) => Some((**literal).clone()),
            BindingSource::Draw(_) if self.values.only_check => {
                let Location { file, span } = binding.location;
                Some(Literal::text(format!("random_{file}_{}", span.start)))
            }
            BindingSource::Draw(range) => {
                let name = format!("a path in file {}", binding.location.file);
                Some(self.values.drawn(&name, range.as_deref().copied(), binding.location))
            }
            BindingSource::Template(inner) => match self.fill(inner, binding.location) {
                Filled::Path(path) => Some(Literal::text(path)),
                Filled::Open => None,
                Filled::Refused => return None,
            },
            BindingSource::Input(index) => {
                let value = self.values.of_path(*index, &self.graph.inputs[*index].port.name);
                if value.is_none() && !self.values.open[*index] {
                    unset(&self.graph.inputs[*index], self.report);
                    return None;
                }
                value
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

/// What feeds a port, or an item of its list.
enum Fed {
    Nothing,
    /// A value that planning knows, and a check does not.
    Open,
    Literal(Literal),
    Edge(StepOutput, Fact),
}

/// A path with the values of its names.
enum Filled {
    Path(String),
    /// A value that planning knows, and a check does not, stands in it.
    Open,
    /// It was said why there is none.
    Refused,
}

/// Whether a node lies in the loop `of`.
pub(crate) fn lies_in(name: &str, of: &str) -> bool {
    name.strip_prefix(of).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether a path of a node has something in it that is known last of all.
fn has_late(node: &Node, inputs: &[StepInput]) -> bool {
    let mut paths = node.op.signature.inputs.iter().zip(inputs);
    paths.any(|(port, input)| {
        port.names_file() && input.texts().iter().any(|text| Late::is_in(text))
    })
}

/// The key of a node, whose sources have theirs.
fn key(
    keys: &mut Keys<'_>,
    nodes: &[Option<InferredNode>],
    node: &Node,
    inputs: &[StepInput],
    added: &[u8],
) -> Key {
    let parts_of = |step: u32| nodes[step as usize].as_ref()?.parts.as_ref();
    let key_of = |step: u32| parts_of(step).map_or(Key([0; 32]), |parts| parts.key);
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
