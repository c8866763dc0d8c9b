//! Checking: text → graph, with every problem of every file at once.

use std::collections::HashMap;
use std::sync::Arc;

use kino_port::{Literal, Port, PortType};
use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::diagnostic::{Diagnostic, Diagnostics, Place, Severity};
use crate::graph::{Call, Feed, FeedSource, Graph, GraphInput, Groups, Node};
use crate::order::{cycles, topological};
use crate::scope::{Entity, Opener, Scope, missing};
use crate::{Catalog, Sources};

/// Reads and checks a graph. Graphs that it uses come from `sources`, relative to it.
///
/// # Errors
/// Every problem found, each with its place.
pub fn check(
    name: &str,
    text: &str,
    catalog: &dyn Catalog,
    sources: &dyn Sources,
) -> Result<Graph, Diagnostics> {
    let mut opener = Opener::new(catalog, sources);
    let Some(about) = opener.open_root(name, text) else {
        return Err(Diagnostics::new(opener.problems, opener.files));
    };
    opener.connect();
    let (outputs, groups) = opener.outputs();
    let unread = unread(&opener.scopes);
    let dropped: Vec<bool> = opener
        .drafts
        .iter()
        .map(|draft| draft.bypass || opener.scopes[draft.scope].dropped)
        .collect();
    let Opener { mut problems, files, mut scopes, mut nodes, calls, sites, .. } = opener;
    join_edges(&mut nodes);
    let (mut order, rest) = topological(&nodes);
    if !rest.is_empty() {
        problems.extend(cycles(&nodes));
    }
    let root = scopes.swap_remove(0);
    let mut checker = Checker { catalog, inputs: &root.inputs, problems, types: HashMap::new() };
    for index in order.iter().chain(&rest).filter(|index| !dropped[index.index()]) {
        checker.node(*index, &mut nodes);
    }
    calls.iter().for_each(|call| checker.call(call));
    let mut problems = checker.problems;
    if problems.is_empty() {
        problems.extend(unread);
        problems.extend(unreachable(&nodes, &outputs, &groups, &dropped));
    }
    if root.names.values().all(|entity| matches!(entity, Entity::Broken)) && problems.is_empty() {
        let message = "the graph has no nodes";
        problems.push(Diagnostic::warning("empty", Place::default(), message));
    }
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        return Err(Diagnostics::new(problems, files));
    }
    order.retain(|index| !dropped[index.index()]);
    let (warnings, mut inputs) = (problems, root.inputs);
    keep_draws(&mut inputs, &nodes);
    Ok(Graph { about, files, warnings, inputs, nodes, order, outputs, groups, calls, sites })
}

/// Leaves `"random"` to the inputs that feed a port which draws: seeds, not sizes.
fn keep_draws(inputs: &mut [GraphInput], nodes: &DiGraph<Node, ()>) {
    let mut draws = vec![false; inputs.len()];
    for node in nodes.node_weights() {
        let fed = node.op.signature.inputs.iter().zip(&node.feeds);
        for (_, feed) in fed.filter(|(port, _)| port.draws) {
            feed.walk(&mut |source| {
                if let FeedSource::Input(index) = source {
                    draws[*index] = true;
                }
            });
        }
    }
    for (input, draws) in inputs.iter_mut().zip(draws) {
        let is_random = input.port.default == Some(Literal::text("random"));
        input.port.draws &= draws || is_random;
    }
}

/// Adds petgraph's edges for the feeds of every node.
fn join_edges(nodes: &mut DiGraph<Node, ()>) {
    let mut edges = Vec::new();
    for index in nodes.node_indices() {
        for feed in &nodes[index].feeds {
            feed.walk(&mut |source| {
                if let FeedSource::Edge(from, _) = source {
                    edges.push((*from, index));
                }
            });
        }
    }
    edges.into_iter().for_each(|(from, to)| {
        nodes.add_edge(from, to, ());
    });
}

/// Checks types in topological order, so that what an `Any` stands for is known when it is read.
struct Checker<'c> {
    catalog: &'c dyn Catalog,
    inputs: &'c [GraphInput],
    problems: Vec<Diagnostic>,
    /// What the `Any` outputs of a node stand for.
    types: HashMap<NodeIndex, PortType>,
}

impl Checker<'_> {
    fn node(&mut self, index: NodeIndex, nodes: &mut DiGraph<Node, ()>) {
        let op = Arc::clone(&nodes[index].op);
        let mut feeds = std::mem::take(&mut nodes[index].feeds);
        let mut joined: Option<PortType> = None;
        for (port, feed) in op.signature.inputs.iter().zip(&mut feeds) {
            match feed.source {
                FeedSource::Absent if port.is_required() => {
                    self.problems.push(missing(&nodes[index].name, port, feed.place));
                    continue;
                }
                FeedSource::Absent | FeedSource::Broken => continue,
                FeedSource::List(ref items) if items.is_empty() && port.is_required() => {
                    self.problems.push(missing(&nodes[index].name, port, feed.place));
                    continue;
                }
                _ => {}
            }
            self.feed(port, feed, &nodes[index].name, nodes);
            if port.ty == PortType::Any
                && let Some(ty) = self.type_of(&feed.source, nodes)
            {
                self.join(&mut joined, ty, feed.place);
            }
        }
        nodes[index].feeds = feeds;
        if let Some(ty) = joined {
            self.types.insert(index, ty);
        }
    }

    /// All inputs of type `Any` of one node have one type.
    fn join(&mut self, joined: &mut Option<PortType>, ty: PortType, place: Place) {
        match joined {
            None => *joined = Some(ty),
            Some(first) if first.accepts(&ty) => {}
            Some(first) if ty.accepts(first) => *joined = Some(ty),
            Some(first) => {
                let message =
                    format!("the inputs of this node have one type: {first} so far, then {ty}");
                self.problems.push(Diagnostic::error("type", place, message));
            }
        }
    }

    /// The type of what feeds a port; `None` where it is not known before running.
    fn type_of(&self, source: &FeedSource, nodes: &DiGraph<Node, ()>) -> Option<PortType> {
        match source {
            FeedSource::Literal(literal) => Some(literal.ty()),
            FeedSource::Draw(_) => Some(PortType::Int),
            FeedSource::Template(_) => Some(PortType::Path),
            FeedSource::Input(index) => {
                let port = &self.inputs[*index].port;
                Some(if port.is_list() {
                    PortType::List(Box::new(port.ty.clone()))
                } else {
                    port.ty.clone()
                })
            }
            FeedSource::Edge(node, output) => {
                match &nodes[*node].op.signature.outputs[*output as usize].ty {
                    PortType::Any => self.types.get(node).cloned(),
                    ty => Some(ty.clone()),
                }
            }
            FeedSource::List(items) => {
                let item = items.first().and_then(|(_, feed)| self.type_of(&feed.source, nodes));
                Some(PortType::List(Box::new(item.unwrap_or(PortType::Any))))
            }
            FeedSource::Absent | FeedSource::Broken => None,
        }
    }

    fn feed(&mut self, port: &Port, feed: &mut Feed, node: &str, nodes: &DiGraph<Node, ()>) {
        let place = feed.place;
        match &mut feed.source {
            FeedSource::List(items) => {
                if !port.is_list() && port.ty != PortType::Any {
                    let message =
                        format!("`{}` of `{node}` takes one value, found a list", port.name);
                    self.problems.push(Diagnostic::error("type", place, message));
                }
                items.iter_mut().for_each(|(_, item)| self.feed(port, item, node, nodes));
            }
            FeedSource::Literal(literal) => match port.admit(literal.clone()) {
                Ok(admitted) => *literal = admitted,
                Err(refusal) => {
                    let message = format!("`{}` of `{node}`: {}", port.name, refusal.message);
                    self.problems
                        .push(Diagnostic::error("value", place, message).maybe_hint(refusal.hint));
                }
            },
            FeedSource::Input(index) => {
                let index = *index;
                self.mismatch(port, &FeedSource::Input(index), place, node, nodes);
                self.default(port, index, place, node);
            }
            source => {
                let source = source.clone();
                self.mismatch(port, &source, place, node, nodes);
            }
        }
    }

    /// The default of a graph's input must fit every port that it feeds.
    fn default(&mut self, port: &Port, index: usize, place: Place, node: &str) {
        let input = &self.inputs[index];
        let (Some(default), Some(at)) = (&input.port.default, input.default) else { return };
        if input.port.draws && *default == Literal::text("random") {
            return;
        }
        if let Err(refusal) = port.admit(default.clone()) {
            let message = format!(
                "default of input `{}`: `{}` of `{node}` {}",
                input.port.name, port.name, refusal.message
            );
            let diagnostic = Diagnostic::error("value", at, message).maybe_hint(refusal.hint);
            self.problems.push(diagnostic.related(place, "used here"));
        }
    }

    /// Checks defaults against the inputs of graphs used as nodes.
    fn call(&mut self, call: &Call) {
        call.feed.walk_placed(&mut |feed| {
            if let FeedSource::Input(index) = feed.source {
                self.default(&call.port, index, feed.place, &call.node);
            }
        });
    }

    fn mismatch(
        &mut self,
        port: &Port,
        source: &FeedSource,
        place: Place,
        node: &str,
        nodes: &DiGraph<Node, ()>,
    ) {
        let Some(from) = self.type_of(source, nodes) else { return };
        let fits = port.ty.accepts(&from)
            || matches!(&from, PortType::List(of) if port.is_list() && port.ty.accepts(of));
        if fits {
            return;
        }
        let giver = match source {
            FeedSource::Edge(from, output) => {
                let from = &nodes[*from];
                format!(
                    "`{}.{}` gives",
                    from.name, from.op.signature.outputs[*output as usize].name
                )
            }
            FeedSource::Input(index) => format!("`inputs.{}` gives", self.inputs[*index].port.name),
            _ => "here stands".to_owned(),
        };
        let message = format!("{giver} {from}, but `{node}.{}` takes {}", port.name, port.ty);
        let hint = conversion(self.catalog, &from, &port.ty);
        self.problems.push(Diagnostic::error("type", place, message).maybe_hint(hint));
    }
}

/// Warns of nodes that no output of their graph and no file needs.
fn unreachable(
    nodes: &DiGraph<Node, ()>,
    outputs: &[(String, Feed)],
    groups: &Groups,
    dropped: &[bool],
) -> Vec<Diagnostic> {
    let sink = |i: &NodeIndex| nodes[*i].op.signature.traits.sink && !dropped[i.index()];
    let mut open: Vec<NodeIndex> = nodes.node_indices().filter(sink).collect();
    for (_, feed) in outputs {
        feed.walk(&mut |source| {
            if let FeedSource::Edge(node, _) = source {
                open.push(*node);
            }
        });
    }
    let mut needed = vec![false; nodes.node_count()];
    reach(nodes, open, &mut needed);
    // An output of a graph used as a node need not be read: only its own file is to blame for what
    // is inside.
    let mut inside = needed.clone();
    reach(nodes, groups.iter().flat_map(|(_, behind)| behind).copied().collect(), &mut inside);
    let idle = |index: &NodeIndex| {
        let is_inside = nodes[*index].name.contains('/');
        !dropped[index.index()] && !if is_inside { &inside } else { &needed }[index.index()]
    };
    let warning = |index: NodeIndex| {
        let name = nodes[index].name.rsplit('/').next().unwrap_or_default();
        let message = format!("nothing needs `{name}`: it leads to no output and no file");
        Diagnostic::warning("unreachable", nodes[index].place, message)
    };
    nodes.node_indices().filter(idle).map(warning).collect()
}

/// Marks `open` and all nodes before them.
fn reach(nodes: &DiGraph<Node, ()>, mut open: Vec<NodeIndex>, reached: &mut [bool]) {
    while let Some(index) = open.pop() {
        if !std::mem::replace(&mut reached[index.index()], true) {
            open.extend(nodes.neighbors_directed(index, Direction::Incoming));
        }
    }
}

/// Warns of inputs that nothing reads.
fn unread(scopes: &[Scope]) -> Vec<Diagnostic> {
    let scopes = scopes.iter().filter(|scope| !scope.dropped);
    let inputs = scopes.flat_map(|scope| scope.inputs.iter().zip(&scope.read));
    let warning = |input: &GraphInput| {
        let message = format!("nothing reads the input `{}`", input.port.name);
        Diagnostic::warning("unused-input", input.place, message)
    };
    inputs.filter(|(_, read)| !**read).map(|(input, _)| warning(input)).collect()
}

/// A hint at an op that turns one type into another, where there is one.
pub(crate) fn conversion(catalog: &dyn Catalog, from: &PortType, to: &PortType) -> Option<String> {
    let turns = |op: &&str| {
        let Some(signature) = catalog.signature(op) else { return false };
        signature.inputs.iter().any(|port| port.ty == *from)
            && signature.outputs.iter().any(|port| port.ty == *to)
    };
    if from.is_literal() {
        // A text that a node also takes, such as a name, is nothing that it turns into its result.
        let text_for_path = (from, to) == (&PortType::Path, &PortType::Text);
        return text_for_path.then(|| "declare it as Text".to_owned());
    }
    let op = catalog.names().into_iter().find(turns)?;
    Some(format!("the node `{op}` turns {from} into {to}"))
}
