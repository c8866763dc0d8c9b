//! Fourth pass, [`Resolved`] → [`CheckedGraph`]: types, values, order, and what nothing needs.

use std::sync::Arc;

use kino_port::{Literal, Port, PortType};
use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::Catalog;
use crate::binding::{Binding, BindingSource, SubgraphInput};
use crate::convert::conversion;
use crate::declare::GraphInput;
use crate::diagnostic::{Diagnostic, Diagnostics, Location, Report, SourceFile};
use crate::expand::{RecordSpans, missing, takes};
use crate::order::{cycles, topological};
use crate::resolve::{Groups, Node, RepeatTimes, Resolved};

/// A graph without errors, ready to be planned.
#[derive(Clone, Debug)]
pub(crate) struct CheckedGraph {
    pub(crate) about: String,
    pub(crate) files: Vec<SourceFile>,
    pub(crate) warnings: Vec<Diagnostic>,
    pub(crate) inputs: Vec<GraphInput>,
    /// Nodes and who feeds whom.
    pub(crate) nodes: DiGraph<Node, ()>,
    /// Topological order, without bypassed nodes.
    pub(crate) order: Vec<NodeIndex>,
    pub(crate) outputs: Vec<(String, Binding)>,
    pub(crate) groups: Groups,
    pub(crate) subgraph_inputs: Vec<SubgraphInput>,
    pub(crate) repeats: Vec<RepeatTimes>,
    /// By scope: where its file lies, seen from the root's.
    pub(crate) dirs: Vec<Arc<str>>,
    pub(crate) spans: RecordSpans,
}

/// Checks types and values, and puts the nodes in order.
///
/// # Errors
/// Every problem found so far, those of the passes before included.
pub(crate) fn check(
    resolved: Resolved,
    catalog: &dyn Catalog,
    report: Report,
) -> Result<CheckedGraph, Diagnostics> {
    let Resolved { mut nodes, dropped, files, mut inputs, outputs, groups, .. } = resolved;
    join_edges(&mut nodes);
    let (mut order, rest) = topological(&nodes);
    let types = vec![None; nodes.node_count()];
    let mut checker = Checker { catalog, inputs: &inputs, nodes: &nodes, report, types };
    if !rest.is_empty() {
        cycles(&nodes).into_iter().for_each(|cycle| checker.report.push(cycle));
    }
    for index in order.iter().chain(&rest).filter(|index| !dropped[index.index()]) {
        checker.node(*index);
    }
    resolved.subgraph_inputs.iter().for_each(|input| checker.subgraph_input(input));
    let mut problems = checker.report.list;
    if problems.is_empty() {
        problems.extend(resolved.unread);
        let counts = resolved.repeats.iter().map(|repeat| &repeat.times);
        let wanted: Vec<_> = outputs.iter().map(|(_, output)| output).chain(counts).collect();
        problems.extend(unreachable(&nodes, &wanted, &groups, &dropped));
    }
    if !resolved.has_nodes && problems.is_empty() {
        let message = "the graph has no nodes";
        problems.push(Diagnostic::warning("empty", Location::default(), message));
    }
    let report = Report { list: problems };
    if report.has_errors() {
        return Err(Diagnostics::new(report.list, files));
    }
    order.retain(|index| !dropped[index.index()]);
    keep_draws(&mut inputs, &nodes);
    Ok(CheckedGraph {
        about: resolved.about,
        files,
        warnings: report.list,
        inputs,
        nodes,
        order,
        outputs,
        groups,
        subgraph_inputs: resolved.subgraph_inputs,
        repeats: resolved.repeats,
        dirs: resolved.dirs,
        spans: resolved.spans,
    })
}

/// Leaves `"random"` to the inputs that feed a port which draws: seeds, not sizes.
fn keep_draws(inputs: &mut [GraphInput], nodes: &DiGraph<Node, ()>) {
    let mut draws = vec![false; inputs.len()];
    for node in nodes.node_weights() {
        let fed = node.op.signature.inputs.iter().zip(&node.bindings);
        for (_, binding) in fed.filter(|(port, _)| port.draws) {
            binding.sources(&mut |source| {
                if let BindingSource::Input(index) = source {
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

/// Adds petgraph's edges for the bindings of every node.
fn join_edges(nodes: &mut DiGraph<Node, ()>) {
    let mut edges = Vec::new();
    for index in nodes.node_indices() {
        for binding in &nodes[index].bindings {
            binding.nodes(&mut |from| edges.push((from, index)));
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
    nodes: &'c DiGraph<Node, ()>,
    report: Report,
    /// By node: what its `Any` outputs stand for.
    types: Vec<Option<PortType>>,
}

impl Checker<'_> {
    fn node(&mut self, index: NodeIndex) {
        let node = &self.nodes[index];
        let mut joined: Option<PortType> = None;
        for (port, binding) in node.op.signature.inputs.iter().zip(&node.bindings) {
            let is_missing = match &binding.source {
                BindingSource::Absent => true,
                BindingSource::Broken => continue,
                BindingSource::List(items) => items.is_empty() && port.is_required(),
                _ => false,
            };
            if is_missing {
                if port.is_required() {
                    self.report.push(missing(&node.name, port, binding.location));
                }
                continue;
            }
            self.binding(port, binding, node);
            // What a list holds says nothing of what becomes of it.
            if port.ty == PortType::Any
                && !port.is_list()
                && let Some(ty) = self.type_of(&binding.source)
                && port.accepts(&ty)
            {
                self.join(&mut joined, ty, binding.location);
            }
        }
        let ty = if is_int(node) { Some(PortType::Int) } else { joined };
        self.types[index.index()] = ty;
    }

    /// All inputs of type `Any` of one node have one type.
    fn join(&mut self, joined: &mut Option<PortType>, ty: PortType, location: Location) {
        let Some(first) = joined else {
            *joined = Some(ty);
            return;
        };
        match first.either(&ty) {
            Some(either) => *first = either,
            None => {
                let message =
                    format!("the inputs of this node have one type: {first} so far, then {ty}");
                self.report.error("type", location, message);
            }
        }
    }

    /// The type of what feeds a port; `None` where it is not known before running.
    fn type_of(&self, source: &BindingSource) -> Option<PortType> {
        match source {
            BindingSource::Literal(literal) => Some(literal.ty()),
            BindingSource::Draw(_) => Some(PortType::Int),
            BindingSource::Template(_) => Some(PortType::Path),
            BindingSource::Input(index) => {
                let port = &self.inputs[*index].port;
                Some(if port.is_list() {
                    PortType::List(Box::new(port.ty.clone()))
                } else {
                    port.ty.clone()
                })
            }
            BindingSource::Edge(node, output) => {
                match &self.nodes[*node].op.signature.outputs[*output as usize].ty {
                    PortType::Any => self.types[node.index()].clone(),
                    ty => Some(ty.clone()),
                }
            }
            BindingSource::List(items) => {
                let item = items.first().and_then(|(_, item)| self.type_of(&item.source));
                Some(PortType::List(Box::new(item.unwrap_or(PortType::Any))))
            }
            BindingSource::Absent | BindingSource::Broken => None,
        }
    }

    fn binding(&mut self, port: &Port, binding: &Binding, of: &Node) {
        let node = &*of.name;
        match &binding.source {
            BindingSource::List(items) => {
                if !port.is_list() && (port.ty != PortType::Any || port.numbers) {
                    let message =
                        format!("`{}` of `{node}` takes one value, found a list", port.name);
                    self.report.error("type", binding.location, message);
                }
                for (_, item) in items.iter() {
                    match &item.source {
                        BindingSource::Edge(..) if port.is_list() => {
                            self.mismatch(port, item, of, true);
                        }
                        _ => self.binding(port, item, of),
                    }
                }
            }
            BindingSource::Literal(literal) => {
                if let Err(error) = port.check(literal) {
                    let message = format!("`{}` of `{node}`: {}", port.name, error.message);
                    self.report.error("value", binding.location, message).hint = error.hint;
                }
            }
            BindingSource::Input(index) => {
                self.mismatch(port, binding, of, false);
                self.default(port, *index, binding.location, node);
            }
            _ => self.mismatch(port, binding, of, false),
        }
    }

    /// The default of a graph's input must fit every port that it feeds.
    fn default(&mut self, port: &Port, index: usize, location: Location, node: &str) {
        let input = &self.inputs[index];
        let (Some(default), Some(at)) = (&input.port.default, input.default) else { return };
        if input.port.draws && *default == Literal::text("random") {
            return;
        }
        if let Err(error) = port.check(default) {
            let message = format!(
                "default of input `{}`: `{}` of `{node}` {}",
                input.port.name, port.name, error.message
            );
            let diagnostic = Diagnostic::error("value", at, message).maybe_hint(error.hint);
            self.report.push(diagnostic.related(location, "used here"));
        }
    }

    /// Checks defaults against the inputs of graphs used as nodes.
    fn subgraph_input(&mut self, input: &SubgraphInput) {
        input.binding.each(&mut |binding| {
            if let BindingSource::Input(index) = binding.source {
                self.default(&input.port, index, binding.location, &input.node);
            }
        });
    }

    /// Refuses what is of another type than the port takes. What a node gives as an item of a list
    /// is one value: lists of a list are not joined, as nobody could say how many values there are.
    fn mismatch(&mut self, port: &Port, binding: &Binding, of: &Node, is_item: bool) {
        let Some(from) = self.type_of(&binding.source) else { return };
        if if is_item { port.accepts(&from) } else { takes(port, &from) } {
            return;
        }
        let node = &*of.name;
        let giver = match &binding.source {
            BindingSource::Edge(from, output) => {
                let from = &self.nodes[*from];
                let output = &from.op.signature.outputs[*output as usize];
                format!("`{}.{}` gives", from.name, output.name)
            }
            BindingSource::Input(index) => {
                format!("`inputs.{}` gives", self.inputs[*index].port.name)
            }
            _ => "this is".to_owned(),
        };
        let is_list = is_item && takes(port, &from);
        let taken = match port.numbers {
            true => format!("`{}` takes numbers", of.op.name),
            false if is_list => format!("an item of `{node}.{}` is one {}", port.name, port.ty),
            false => format!("`{node}.{}` takes {}", port.name, port.ty),
        };
        let hint = match is_list {
            true => Some(format!(
                "feed `{}` with that list alone: `\"{}\": \"node.port\"`",
                port.name, port.name
            )),
            false => conversion(self.catalog, &from, &port.ty),
        };
        self.report.error("type", binding.location, format!("{giver} {from}, but {taken}")).hint =
            hint;
    }
}

/// Whether the outputs of type Any of a node are whole numbers, as one of its texts says.
fn is_int(node: &Node) -> bool {
    let signature = &node.op.signature;
    let mut rules = signature.outputs.iter().filter_map(|port| port.int_where);
    rules.any(|(input, values)| {
        let at = signature.input(input).map(|(at, _)| at);
        match at.and_then(|at| node.bindings.get(at)).map(|binding| &binding.source) {
            Some(BindingSource::Literal(literal)) => {
                matches!(&**literal, Literal::Text(text) if values.contains(&&**text))
            }
            _ => false,
        }
    })
}

/// Warns of nodes that no output of their graph, no loop and no file needs.
fn unreachable(
    nodes: &DiGraph<Node, ()>,
    wanted: &[&Binding],
    groups: &Groups,
    dropped: &[bool],
) -> Vec<Diagnostic> {
    let sink = |i: &NodeIndex| nodes[*i].op.signature.traits.sink && !dropped[i.index()];
    let mut open: Vec<NodeIndex> = nodes.node_indices().filter(sink).collect();
    wanted.iter().for_each(|binding| binding.nodes(&mut |node| open.push(node)));
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
        Diagnostic::warning("unreachable", nodes[index].location, message)
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
