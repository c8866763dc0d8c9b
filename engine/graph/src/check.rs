//! Checking: text → graph, with every problem of every file at once.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use kino_port::{Literal, Port, PortType};
use petgraph::Direction;
use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::diagnostic::{Diagnostic, Diagnostics, Place, Severity};
use crate::graph::{Feed, FeedSource, Graph, GraphInput, Node};
use crate::scope::{Entity, Opener, missing};
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
    let outputs = opener.outputs();
    let Opener { mut problems, files, mut scopes, mut nodes, drafts, sites, .. } = opener;
    join_edges(&mut nodes);
    let order = topological(&nodes);
    if order.len() < nodes.node_count() {
        problems.extend(cycles(&nodes));
        return Err(Diagnostics::new(problems, files));
    }
    let root = scopes.swap_remove(0);
    let mut checker = Checker { catalog, inputs: &root.inputs, problems, types: HashMap::new() };
    for index in &order {
        if !drafts[index.index()].bypass {
            checker.node(*index, &mut nodes);
        }
    }
    let mut problems = checker.problems;
    let bypassed = |index: &NodeIndex| drafts[index.index()].bypass;
    if problems.is_empty() {
        unused(&nodes, &outputs, &root.inputs, &bypassed, &mut problems);
    }
    if root.names.values().all(|entity| matches!(entity, Entity::Broken)) && problems.is_empty() {
        let message = "the graph has no nodes";
        problems.push(Diagnostic::warning("empty", Place::default(), message));
    }
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        return Err(Diagnostics::new(problems, files));
    }
    let order = order.into_iter().filter(|index| !bypassed(index)).collect();
    Ok(Graph {
        about,
        files,
        warnings: problems,
        inputs: root.inputs,
        nodes,
        order,
        outputs,
        sites,
    })
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

/// Every node after those that feed it, otherwise as written; nodes behind a cycle are left out.
fn topological(nodes: &DiGraph<Node, ()>) -> Vec<NodeIndex> {
    let mut waits: Vec<usize> = nodes
        .node_indices()
        .map(|index| nodes.edges_directed(index, Direction::Incoming).count())
        .collect();
    let free = nodes.node_indices().filter(|index| waits[index.index()] == 0);
    let mut free: BinaryHeap<Reverse<NodeIndex>> = free.map(Reverse).collect();
    let mut order = Vec::with_capacity(waits.len());
    while let Some(Reverse(index)) = free.pop() {
        order.push(index);
        for next in nodes.neighbors(index) {
            waits[next.index()] -= 1;
            if waits[next.index()] == 0 {
                free.push(Reverse(next));
            }
        }
    }
    order
}

/// One diagnostic a cycle, with its path.
fn cycles(nodes: &DiGraph<Node, ()>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for group in kosaraju_scc(nodes) {
        let members: HashSet<_> = group.iter().copied().collect();
        let Some(start) = group.iter().copied().min_by_key(|index| nodes[*index].place.span.start)
        else {
            continue;
        };
        if group.len() == 1 && !nodes.neighbors(start).any(|next| next == start) {
            continue;
        }
        let path = round_trip(nodes, start, &members);
        let shown = if path.len() > 12 { &path[..11] } else { &path[..] };
        let mut names: Vec<&str> = shown.iter().map(|index| &*nodes[*index].name).collect();
        if shown.len() < path.len() {
            names.push("…");
        }
        names.push(&nodes[start].name);
        let message = format!("these nodes feed each other: {}", names.join(" → "));
        found.push(
            Diagnostic::error("cycle", nodes[start].place, message).hint("remove one of the edges"),
        );
    }
    found
}

/// The shortest way from `start` back to itself within `members`.
fn round_trip(
    nodes: &DiGraph<Node, ()>,
    start: NodeIndex,
    members: &HashSet<NodeIndex>,
) -> Vec<NodeIndex> {
    let mut came_from: HashMap<NodeIndex, NodeIndex> = HashMap::new();
    let mut front = vec![start];
    while !front.is_empty() {
        let mut next_front = Vec::new();
        for index in front {
            for next in nodes.neighbors(index).filter(|next| members.contains(next)) {
                if next == start {
                    let mut path = vec![index];
                    while let Some(before) = came_from.get(&path[path.len() - 1]) {
                        path.push(*before);
                    }
                    path.reverse();
                    return path;
                }
                if next != start && !came_from.contains_key(&next) {
                    came_from.insert(next, index);
                    next_front.push(next);
                }
            }
        }
        front = next_front;
    }
    vec![start]
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
        let op = std::sync::Arc::clone(&nodes[index].op);
        let mut feeds = std::mem::take(&mut nodes[index].feeds);
        let mut joined: Option<PortType> = None;
        for (port, feed) in op.signature.inputs.iter().zip(&mut feeds) {
            match feed.source {
                FeedSource::Absent if port.is_required() => {
                    self.problems.push(missing(&nodes[index].name, port, feed.place));
                    continue;
                }
                FeedSource::Absent | FeedSource::Broken => continue,
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
            FeedSource::Draw => Some(PortType::Int),
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
        let hint = self.conversion(&from, &port.ty);
        self.problems.push(Diagnostic::error("type", place, message).maybe_hint(hint));
    }

    /// A hint at an op that turns one type into another, where there is one.
    fn conversion(&self, from: &PortType, to: &PortType) -> Option<String> {
        let turns = |op: &&str| {
            let Some(signature) = self.catalog.signature(op) else { return false };
            signature.inputs.iter().any(|port| port.ty == *from)
                && signature.outputs.iter().any(|port| port.ty == *to)
        };
        let op = self.catalog.names().into_iter().find(turns)?;
        Some(format!("a `{op}` node turns {from} into {to}"))
    }
}

/// Warns of nodes that nothing needs, and of inputs that nothing reads.
fn unused(
    nodes: &DiGraph<Node, ()>,
    outputs: &[(String, Feed)],
    inputs: &[GraphInput],
    bypassed: &dyn Fn(&NodeIndex) -> bool,
    problems: &mut Vec<Diagnostic>,
) {
    let mut needed = vec![false; nodes.node_count()];
    let mut open: Vec<NodeIndex> =
        nodes.node_indices().filter(|i| nodes[*i].op.signature.traits.sink).collect();
    let mut read = vec![false; inputs.len()];
    let note = |source: &FeedSource, open: &mut Vec<NodeIndex>, read: &mut Vec<bool>| match source {
        FeedSource::Edge(node, _) => open.push(*node),
        FeedSource::Input(index) => read[*index] = true,
        _ => {}
    };
    outputs
        .iter()
        .for_each(|(_, feed)| feed.walk(&mut |source| note(source, &mut open, &mut read)));
    for node in nodes.node_weights() {
        node.feeds
            .iter()
            .for_each(|feed| feed.walk(&mut |source| note(source, &mut Vec::new(), &mut read)));
    }
    while let Some(index) = open.pop() {
        if !std::mem::replace(&mut needed[index.index()], true) {
            open.extend(nodes.neighbors_directed(index, Direction::Incoming));
        }
    }
    for index in nodes.node_indices().filter(|index| !needed[index.index()] && !bypassed(index)) {
        let node = &nodes[index];
        if !node.name.contains('/') {
            let message =
                format!("nothing needs `{}`: it leads to no output and no file", node.name);
            problems.push(Diagnostic::warning("unreachable", node.place, message));
        }
    }
    for (input, _) in inputs.iter().zip(read).filter(|(_, read)| !read) {
        let message = format!("nothing reads the input `{}`", input.port.name);
        problems.push(Diagnostic::warning("unused-input", input.place, message));
    }
}
