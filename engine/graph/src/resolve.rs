//! Third pass, [`Expanded`] → [`Resolved`]: follows every edge to the node, value or graph input
//! behind it, through graphs used as nodes and bypassed nodes.
//!
//! The work is linear in what is written and in what is handed on: what feeds an input of a graph
//! used as a node, and what a bypassed node passes on, is followed once and remembered. Lists are
//! shared, and the types of a list's items are looked at once for each type that it is handed to.
//! Whatever goes through items again is counted ([`MAX_BOUND`]).

use std::collections::HashMap;
use std::sync::Arc;

use kino_port::{Literal, Port, PortType};
use petgraph::graph::{DiGraph, NodeIndex};

use crate::Catalog;
use crate::binding::{Binding, BindingSource, ListItem, Piece, SubgraphInput};
use crate::convert::conversion;
use crate::declare::GraphInput;
use crate::diagnostic::{Diagnostic, Location, Report, SourceFile};
use crate::expand::{
    Entity, Expanded, Op, RawNode, RecordSpans, Repeat, RepeatSource, Scope, declared_type, takes,
    times_port,
};
use crate::parse::Ident;
use crate::raw::{RawInput, TurnOutput};
use crate::step::Turn;
use crate::template::{self, Late, Part};

/// The most bypassed nodes and graphs that an edge may go through.
const LONGEST: usize = 256;

/// The most items of a list: graphs that pass lists on can double them at every use.
const MAX_ITEMS: usize = 1 << 16;

/// The most items that all ports of a graph together may be fed.
const MAX_BOUND: usize = 1 << 22;

/// A graph whose edges lead to nodes.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) about: String,
    pub(crate) files: Vec<SourceFile>,
    /// The root's inputs.
    pub(crate) inputs: Vec<GraphInput>,
    /// The nodes; petgraph's edges are added when they are checked.
    pub(crate) nodes: DiGraph<Node, ()>,
    /// By node: it is bypassed, or lies in a bypassed graph.
    pub(crate) dropped: Vec<bool>,
    /// The root's outputs.
    pub(crate) outputs: Vec<(String, Binding)>,
    pub(crate) groups: Groups,
    pub(crate) subgraph_inputs: Vec<SubgraphInput>,
    pub(crate) repeats: Vec<RepeatTimes>,
    /// By scope: where its file lies, seen from the root's.
    pub(crate) dirs: Vec<Arc<str>>,
    pub(crate) spans: RecordSpans,
    /// The root has a node, though it may have been refused.
    pub(crate) has_nodes: bool,
    /// What is probably not meant: inputs that nothing reads.
    pub(crate) unread: Vec<Diagnostic>,
}

/// Graphs used as nodes: name, and the nodes behind its outputs.
pub(crate) type Groups = Vec<(Arc<str>, Vec<NodeIndex>)>;

/// How often a `repeat` runs its body.
#[derive(Clone, Debug)]
pub(crate) struct RepeatTimes {
    /// Its name as a node.
    pub(crate) name: Arc<str>,
    /// What feeds `times`.
    pub(crate) times: Binding,
    /// How many turns were opened.
    pub(crate) turns: usize,
}

/// A node, its inputs in the order of its signature.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) name: Arc<str>,
    pub(crate) op: Arc<Op>,
    pub(crate) location: Location,
    pub(crate) bindings: Vec<Binding>,
    pub(crate) turn: Option<Turn>,
}

/// Follows every edge of a graph, and of those that it uses.
pub(crate) fn resolve(expanded: Expanded, catalog: &dyn Catalog, report: &mut Report) -> Resolved {
    let Expanded { about, files, scopes, nodes, repeats, spans } = expanded;
    let read = scopes.iter().map(|scope| vec![false; scope.inputs.len()]).collect();
    let mut resolver = Resolver {
        catalog,
        report,
        scopes,
        nodes,
        repeats,
        read,
        fed: HashMap::new(),
        listed: HashMap::new(),
        passed: HashMap::new(),
        looked_at: HashMap::new(),
        bound: 0,
    };
    let mut subgraph_inputs = resolver.subgraph_inputs();
    let repeats = resolver.repeats(&mut subgraph_inputs);
    let bindings = resolver.bindings();
    let (outputs, groups) = resolver.outputs();
    let unread = resolver.unread();
    let Resolver { mut scopes, nodes, .. } = resolver;
    let dropped = nodes.iter().map(|node| node.bypass || scopes[node.scope].dropped).collect();
    let dirs = scopes.iter().map(|scope| Arc::clone(&scope.dir)).collect();
    let mut graph = DiGraph::with_capacity(nodes.len(), nodes.len());
    for (RawNode { name, op, location, scope, .. }, bindings) in nodes.into_iter().zip(bindings) {
        let turn = scopes[scope].turn;
        graph.add_node(Node { name, op, location, bindings, turn });
    }
    let root = if scopes.is_empty() { None } else { Some(scopes.swap_remove(0)) };
    let broken = |entity: &Entity| matches!(entity, Entity::Broken);
    let has_nodes = root.as_ref().is_some_and(|root| !root.names.values().all(broken));
    Resolved {
        about,
        files,
        inputs: root.map_or_else(Vec::new, |root| root.inputs),
        nodes: graph,
        dropped,
        outputs,
        groups,
        subgraph_inputs,
        repeats,
        dirs,
        spans,
        has_nodes,
        unread,
    }
}

/// The bypassed nodes and graphs that an edge goes through, from its end to its source.
type Trail = Vec<Arc<str>>;

struct Resolver<'r> {
    catalog: &'r dyn Catalog,
    report: &'r mut Report,
    scopes: Vec<Scope>,
    nodes: Vec<RawNode>,
    repeats: Vec<Repeat>,
    /// By scope and input: whether anything reads it.
    read: Vec<Vec<bool>>,
    /// What feeds an input of a graph used as a node, by scope and input.
    fed: HashMap<(usize, usize), Option<Binding>>,
    /// What loops give as lists, by loop and output.
    listed: HashMap<(usize, usize), Option<Binding>>,
    /// What bypassed nodes pass on, by output.
    passed: HashMap<(usize, usize), Option<Binding>>,
    /// The lists whose types were looked at.
    looked_at: HashMap<ListForPort, LookedAt>,
    /// The items that ports are fed, so far.
    bound: usize,
}

/// A shared list by its address, and of the port that it is handed to the type of an item and
/// whether it takes lists.
type ListForPort = (*const Vec<ListItem>, PortType, bool);

/// What looking at the types of a list's items has shown.
struct LookedAt {
    /// Keeps the list, and with it its address.
    _list: Arc<Vec<ListItem>>,
    /// The first item that does not fit.
    misfit: Option<usize>,
}

impl Resolver<'_> {
    /// Resolves what is fed to graphs used as nodes, even where nothing inside reads it, to find
    /// what is wrong. Gives what has to be checked again while planning.
    fn subgraph_inputs(&mut self) -> Vec<SubgraphInput> {
        let mut checked = Vec::new();
        for inner in 0..self.scopes.len() {
            let Some(caller) = &self.scopes[inner].caller else { continue };
            for index in 0..caller.inputs.len() {
                let Some(caller) = &self.scopes[inner].caller else { continue };
                if caller.inputs[index].is_none() {
                    continue;
                }
                let binding = self.fed(inner, index, &mut Trail::new());
                let node = Arc::clone(&self.scopes[inner].name);
                let port = self.scopes[inner].inputs[index].port.clone();
                let checked_again = port.range.is_some() || !port.choices.is_empty();
                let fits = |binding: &Binding| {
                    self.fits_subgraph(binding, &port, &node)
                        && (!checked_again || self.count(binding))
                };
                match binding.filter(fits) {
                    Some(binding) if checked_again => {
                        checked.push(SubgraphInput { node, port, binding });
                    }
                    Some(_) => {}
                    None => {
                        self.fed.insert((inner, index), None);
                        if let Some(caller) = &mut self.scopes[inner].caller {
                            caller.inputs[index] = Some(RawInput::Broken);
                        }
                    }
                }
            }
        }
        checked
    }

    /// How often each loop repeats: what feeds that, checked like an input of a graph used as a
    /// node.
    fn repeats(&mut self, checked: &mut Vec<SubgraphInput>) -> Vec<RepeatTimes> {
        let port = times_port();
        let mut all = Vec::with_capacity(self.repeats.len());
        for at in 0..self.repeats.len() {
            let Repeat { name, scope, times, turns, .. } = &self.repeats[at];
            let (node, scope, turns) = (Arc::clone(name), *scope, turns.len());
            let times = times.clone();
            let binding = self.binding(scope, &times, &mut Trail::new());
            let binding = binding.filter(|binding| self.fits_subgraph(binding, &port, &node));
            let Some(times) = binding else { continue };
            all.push(RepeatTimes { name: Arc::clone(&node), times: times.clone(), turns });
            checked.push(SubgraphInput { node, port: port.clone(), binding: times });
        }
        all
    }

    /// Checks the type of what is fed to a graph used as a node, against the input's declaration.
    fn fits_subgraph(&mut self, binding: &Binding, port: &Port, node: &str) -> bool {
        if let BindingSource::List(items) = &binding.source {
            if !port.is_list() && port.ty != PortType::Any {
                let message = format!("`{node}.{}` takes one value, found a list", port.name);
                self.report.error("type", binding.location, message);
                return false;
            }
            let Some(misfit) = self.misfit(items, port) else { return true };
            let item = &items[misfit].1;
            let Some(from) = self.given_type(&item.source, port) else { return true };
            return self.refuse_for_subgraph(item, port, node, &from);
        }
        let Some(from) = self.given_type(&binding.source, port) else { return true };
        takes(port, &from) || self.refuse_for_subgraph(binding, port, node, &from)
    }

    /// Says that an input of a graph used as a node takes no value of type `from`; false.
    fn refuse_for_subgraph(
        &mut self,
        binding: &Binding,
        port: &Port,
        node: &str,
        from: &PortType,
    ) -> bool {
        let giver = match &binding.source {
            BindingSource::Edge(from, output) => {
                let from = &self.nodes[from.index()];
                let output = &from.op.signature.outputs[*output as usize];
                format!("{}.{}", from.name, output.name)
            }
            BindingSource::Input(index) => {
                format!("inputs.{}", self.scopes[0].inputs[*index].port.name)
            }
            _ => return true,
        };
        let is_list = matches!(from, PortType::List(of) if port.is_list() && port.accepts(of));
        let taken = match is_list {
            true => format!("an item of `{node}.{}` is one {}", port.name, port.ty),
            false => format!("`{node}.{}` takes {}", port.name, port.ty),
        };
        let hint = conversion(self.catalog, from, &port.ty);
        let message = format!("`{giver}` gives {from}, but {taken}");
        self.report.error("type", binding.location, message).hint = hint;
        false
    }

    /// The first item of a list whose type `port` does not take, looked for once.
    fn misfit(&mut self, items: &Arc<Vec<ListItem>>, port: &Port) -> Option<usize> {
        let list = (Arc::as_ptr(items), port.ty.clone(), port.is_list());
        if let Some(known) = self.looked_at.get(&list) {
            return known.misfit;
        }
        let misfit = items.iter().position(|(_, item)| {
            self.given_type(&item.source, port).is_some_and(|from| !port.accepts(&from))
        });
        self.looked_at.insert(list, LookedAt { _list: Arc::clone(items), misfit });
        misfit
    }

    /// The type of what an edge or an input of the root gives to `port`; none for what is written
    /// there, which is checked where it is written.
    fn given_type(&self, source: &BindingSource, port: &Port) -> Option<PortType> {
        match source {
            BindingSource::Edge(from, output) => {
                let from = &self.nodes[from.index()];
                Some(from.op.signature.outputs[*output as usize].ty.clone())
            }
            BindingSource::Input(index) => {
                let input = &self.scopes[0].inputs[*index].port;
                let ty = input.ty.clone();
                let fits = !input.is_list() || port.is_list();
                Some(if fits { ty } else { PortType::List(Box::new(ty)) })
            }
            _ => None,
        }
    }

    /// What feeds every port of every node.
    fn bindings(&mut self) -> Vec<Vec<Binding>> {
        let mut all = Vec::with_capacity(self.nodes.len());
        for index in 0..self.nodes.len() {
            let RawNode { location, scope, bypass, ref mut inputs, .. } = self.nodes[index];
            // Edges through a bypassed node read what is written for it.
            let inputs = if bypass { inputs.clone() } else { std::mem::take(inputs) };
            let bindings = inputs.iter().map(|input| {
                let unfed = |source| Binding { source, location, scope: scope as u32 };
                match input {
                    None => unfed(BindingSource::Absent),
                    Some(input) => {
                        let binding = self.binding(scope, input, &mut Trail::new());
                        let binding = binding.filter(|binding| self.count(binding));
                        binding.unwrap_or_else(|| unfed(BindingSource::Broken))
                    }
                }
            });
            all.push(bindings.collect());
        }
        all
    }

    /// Counts what a port is fed; false, and said once, where it becomes too much.
    fn count(&mut self, binding: &Binding) -> bool {
        let items = match &binding.source {
            BindingSource::List(items) => items.len(),
            BindingSource::Literal(literal) => literal.items(),
            BindingSource::Input(index) => {
                let default = &self.scopes[0].inputs[*index].port.default;
                default.as_ref().map_or(1, Literal::items)
            }
            _ => 1,
        };
        let before = self.bound;
        self.bound = before.saturating_add(items);
        if self.bound <= MAX_BOUND {
            return true;
        }
        if before <= MAX_BOUND {
            let message = format!("the lists of this graph have over {MAX_BOUND} items together");
            self.report.error("too-large", binding.location, message);
        }
        false
    }

    /// The root's outputs, and of every graph used as a node the nodes behind its outputs.
    fn outputs(&mut self) -> (Vec<(String, Binding)>, Groups) {
        let (mut outputs, mut groups) = (Vec::new(), Vec::new());
        for scope in 0..self.scopes.len() {
            let mut behind = Vec::new();
            for (name, edge) in self.scopes[scope].outputs.clone() {
                let Some(binding) = self.edge(scope, &edge, &mut Trail::new()) else { continue };
                if !self.count(&binding) {
                    continue;
                }
                binding.nodes(&mut |node| behind.push(node));
                if scope > 0 {
                    continue;
                }
                if let BindingSource::List(_) = &binding.source {
                    let message =
                        format!("`{}` is a list, but an output of a graph is one value", name.text);
                    self.report.error("type", binding.location, message).hint =
                        Some("feed a node with it that takes a list".to_owned());
                    continue;
                }
                outputs.push((name.text, binding));
            }
            if scope > 0 {
                groups.push((Arc::clone(&self.scopes[scope].name), behind));
            }
        }
        for at in 0..self.repeats.len() {
            let Repeat { name, location, scope, outputs, .. } = &self.repeats[at];
            let (name, place, count) = (Arc::clone(name), (*scope, *location), outputs.len());
            let mut behind = Vec::new();
            for output in 0..count {
                let given = self.repeat_output(place, at, output, &mut Trail::new());
                given.iter().for_each(|given| given.nodes(&mut |node| behind.push(node)));
            }
            groups.push((name, behind));
        }
        (outputs, groups)
    }

    /// Warns of inputs that nothing reads.
    fn unread(&self) -> Vec<Diagnostic> {
        let scopes = self.scopes.iter().zip(&self.read).filter(|(scope, _)| !scope.dropped);
        let inputs = scopes.flat_map(|(scope, read)| scope.inputs.iter().zip(read));
        let warning = |input: &GraphInput| {
            let message = format!("nothing reads the input `{}`", input.port.name);
            Diagnostic::warning("unused-input", input.location, message)
        };
        inputs.filter(|(_, read)| !**read).map(|(input, _)| warning(input)).collect()
    }

    /// What is behind something written in `scope`.
    fn binding(&mut self, scope: usize, input: &RawInput, trail: &mut Trail) -> Option<Binding> {
        let location = input.location(self.scopes[scope].file);
        let source = match input {
            RawInput::Literal(literal, _) => BindingSource::Literal(Arc::clone(literal)),
            RawInput::Draw(range, _) => BindingSource::Draw(range.clone()),
            RawInput::Broken => BindingSource::Broken,
            RawInput::Template(parts, _) => self.template(scope, parts, location, trail)?,
            RawInput::Items(items, _) => {
                let items = items
                    .iter()
                    .map(|(name, item)| Some((name.clone(), self.binding(scope, item, trail)?)));
                BindingSource::List(Arc::new(items.collect::<Option<_>>()?))
            }
            RawInput::Edge(word) => return self.edge(scope, word, trail),
            RawInput::Turn(from, _) => return self.turn((scope, location), *from, trail),
            RawInput::Turns(all, _) => return self.turns((scope, location), all, trail),
            RawInput::Edges(edges, _) => self.list(scope, edges, location, trail)?,
        };
        Some(Binding { source, location, scope: scope as u32 })
    }

    fn list(
        &mut self,
        scope: usize,
        edges: &[(Option<Arc<str>>, Ident)],
        location: Location,
        trail: &mut Trail,
    ) -> Option<BindingSource> {
        let mut items: Vec<ListItem> = Vec::with_capacity(edges.len());
        let mut all_lead_somewhere = true;
        for (name, word) in edges {
            let Some(binding) = self.edge(scope, word, trail) else {
                all_lead_somewhere = false;
                continue;
            };
            match binding.source {
                // A list that is handed on whole is shared.
                source @ BindingSource::List(_) if edges.len() == 1 => return Some(source),
                BindingSource::List(inner) => {
                    if items.len() + inner.len() <= MAX_ITEMS {
                        items.extend(inner.iter().cloned());
                    } else {
                        let message = format!("this list has over {MAX_ITEMS} items");
                        self.report.error("too-large", location, message);
                        return None;
                    }
                }
                _ => items.push((name.clone(), binding)),
            }
        }
        if !all_lead_somewhere {
            return None;
        }
        let items =
            Binding { source: BindingSource::List(Arc::new(items)), location, scope: scope as u32 };
        self.count(&items).then_some(items.source)
    }

    /// A path whose names are those of the inputs of `scope`.
    fn template(
        &mut self,
        scope: usize,
        parts: &[Part],
        location: Location,
        trail: &mut Trail,
    ) -> Option<BindingSource> {
        let mut pieces = Vec::with_capacity(parts.len());
        for part in parts {
            pieces.push(match part {
                Part::Text(text) => Piece::Text(text.clone()),
                Part::Stem => Piece::Stem,
                Part::Input(name) => match self.late(scope, name) {
                    Some(late) => Piece::Text(late.place().to_owned()),
                    None => Piece::Value(self.input(scope, name, false, location, trail)?),
                },
            });
        }
        Some(BindingSource::Template(pieces.into()))
    }

    /// What a name in a path stands for that no input of `scope` has.
    fn late(&self, scope: usize, name: &str) -> Option<Late> {
        let late = Late::named(name)?;
        let Scope { inputs, input_index, .. } = &self.scopes[scope];
        let names = inputs.iter().map(|input| &*input.port.name);
        input_index.position(name, names).is_none().then_some(late)
    }

    /// What is behind the edge `"node.port"`, `"node"` or `"inputs.NAME"` written in `scope`.
    fn edge(&mut self, scope: usize, word: &Ident, trail: &mut Trail) -> Option<Binding> {
        let location = Location { file: self.scopes[scope].file, span: word.span };
        let (node, port) = match word.text.split_once('.') {
            Some((node, port)) => (node, Some(port)),
            None => (word.text.as_str(), None),
        };
        if node == "inputs" {
            let Some(port) = port else {
                let message = "an edge from the graph's inputs is written \"inputs.NAME\"";
                self.report.error("unknown-input", location, message);
                return None;
            };
            return self.input(scope, port, true, location, trail);
        }
        match self.scopes[scope].names.get(node).copied() {
            Some(Entity::Node(index)) => self.output((scope, location), index, (node, port), trail),
            Some(Entity::Scope(inner)) => {
                self.inner_output((scope, location), inner, (node, port), trail)
            }
            Some(Entity::Repeat(at)) => {
                let Repeat { outputs, output_index, .. } = &self.repeats[at];
                let names = || outputs.iter().map(|output| &*output.name);
                let found = match port {
                    Some(port) => output_index.position(port, names()),
                    None => (outputs.len() == 1).then_some(0),
                };
                let Some(output) = found else {
                    no_output(node, names, port, location, self.report);
                    return None;
                };
                self.repeat_output((scope, location), at, output, trail)
            }
            Some(Entity::Broken) => None,
            None => {
                let names = || {
                    let mut names: Vec<_> =
                        self.scopes[scope].names.keys().map(|name| &**name).collect();
                    names.sort_unstable();
                    names
                };
                let hint = self.report.advice(node, names);
                let message = format!("there is no node `{node}`");
                self.report.error("unknown-node", location, message).hint = hint;
                None
            }
        }
    }

    /// What is behind an input of the graph of `scope`, which an edge or a path names.
    fn input(
        &mut self,
        scope: usize,
        name: &str,
        by_edge: bool,
        location: Location,
        trail: &mut Trail,
    ) -> Option<Binding> {
        let Scope { inputs, input_index, caller, .. } = &self.scopes[scope];
        let names = || inputs.iter().map(|input| &*input.port.name);
        let Some(index) = input_index.position(name, names()) else {
            let of_paths = template::NAMES.iter().copied().filter(|_| !by_edge);
            let hint = self.report.advice(name, || names().chain(of_paths.clone()));
            let message = format!("the graph has no input `{name}`");
            self.report.error("unknown-input", location, message).hint = hint;
            return None;
        };
        self.read[scope][index] = true;
        match caller {
            None => {
                let source = BindingSource::Input(index);
                Some(Binding { source, location, scope: scope as u32 })
            }
            Some(caller) if caller.inputs[index].is_some() => self.fed(scope, index, trail),
            Some(_) => self.unfed(scope, index, location, trail),
        }
    }

    /// What its user feeds to an input of the graph of `scope`, followed once.
    fn fed(&mut self, scope: usize, index: usize, trail: &mut Trail) -> Option<Binding> {
        if let Some(known) = self.fed.get(&(scope, index)) {
            return known.clone();
        }
        let caller = self.scopes[scope].caller.as_ref()?;
        let (outer, input) = (caller.scope, caller.inputs[index].clone()?);
        let binding = self.binding(outer, &input, trail);
        self.fed.insert((scope, index), binding.clone());
        binding
    }

    /// What stands for an input of a graph used as a node that its user does not feed.
    fn unfed(
        &mut self,
        scope: usize,
        index: usize,
        location: Location,
        trail: &mut Trail,
    ) -> Option<Binding> {
        let declared = &self.scopes[scope].inputs[index];
        let Some(default) = declared.port.default.clone() else {
            let required = declared.port.is_required();
            let source = if required { BindingSource::Broken } else { BindingSource::Absent };
            return Some(Binding { source, location, scope: scope as u32 });
        };
        if let Some(known) = self.fed.get(&(scope, index)) {
            return known.clone();
        }
        let location = declared.default.unwrap_or(declared.location);
        let source = match default {
            Literal::Text(text) if declared.port.draws && text == "random" => {
                BindingSource::Draw(declared.port.range.map(Arc::new))
            }
            Literal::Text(text) if declared.port.ty == PortType::Path => {
                self.template(scope, &template::parse(&text).ok()?, location, trail)?
            }
            default => BindingSource::Literal(Arc::new(default)),
        };
        let binding = Some(Binding { source, location, scope: scope as u32 });
        self.fed.insert((scope, index), binding.clone());
        binding
    }

    /// What is behind an output of a graph used as a node.
    fn inner_output(
        &mut self,
        (scope, location): (usize, Location),
        inner: usize,
        (node, port): (&str, Option<&str>),
        trail: &mut Trail,
    ) -> Option<Binding> {
        let Scope { outputs, output_index, .. } = &self.scopes[inner];
        let names = || outputs.iter().map(|(name, _)| &*name.text);
        let found = match port {
            Some(port) => output_index.position(port, names()),
            None => (outputs.len() == 1).then_some(0),
        };
        let Some(index) = found else {
            no_output(node, names, port, location, self.report);
            return None;
        };
        self.turn((scope, location), TurnOutput { scope: inner, output: index }, trail)
    }

    /// What is behind an output of a loop.
    fn repeat_output(
        &mut self,
        at: (usize, Location),
        repeat: usize,
        output: usize,
        trail: &mut Trail,
    ) -> Option<Binding> {
        let (scope, location) = at;
        let all = match &self.repeats[repeat].outputs[output].source {
            RepeatSource::Last(last) => {
                let last = *last;
                return self.turn(at, last, trail);
            }
            RepeatSource::Joined(node) => {
                let source = BindingSource::Edge(NodeIndex::new(*node), 0);
                return Some(Binding { source, location, scope: scope as u32 });
            }
            RepeatSource::Listed(all) => all,
        };
        if let Some(known) = self.listed.get(&(repeat, output)) {
            return Some(Binding { location, ..known.clone()? });
        }
        let all = all.clone();
        let binding = self.turns(at, &all, trail);
        self.listed.insert((repeat, output), binding.clone());
        binding
    }

    /// What all turns of a loop give as one output: a list.
    fn turns(
        &mut self,
        (scope, location): (usize, Location),
        all: &[TurnOutput],
        trail: &mut Trail,
    ) -> Option<Binding> {
        let mut items: Vec<ListItem> = Vec::with_capacity(all.len());
        for from in all {
            let binding = self.turn((scope, location), *from, trail)?;
            if let BindingSource::List(_) = &binding.source {
                let Scope { outputs, .. } = &self.scopes[from.scope];
                let name = &outputs[from.output].0.text;
                let message = format!("`{name}` is collected turn by turn, and is a list already");
                self.report.error("type", location, message);
                return None;
            }
            items.push((None, binding));
        }
        let source = BindingSource::List(Arc::new(items));
        let items = Binding { source, location, scope: scope as u32 };
        self.count(&items).then_some(items)
    }

    /// What is behind an output of a graph used as a node, or of a turn of a loop.
    fn turn(
        &mut self,
        (scope, location): (usize, Location),
        TurnOutput { scope: inner, output }: TurnOutput,
        trail: &mut Trail,
    ) -> Option<Binding> {
        let (name, edge) = self.scopes[inner].outputs[output].clone();
        let step = format!("{}.{}", self.scopes[inner].name, name.text);
        if !self.enter(step.into(), location, trail) {
            return None;
        }
        let bypass = self.scopes[inner].caller.as_ref().is_some_and(|caller| caller.bypass);
        let binding = if bypass {
            self.pass_graph(inner, &edge, location, trail)
        } else {
            self.edge(inner, &edge, trail)
        };
        trail.pop();
        Some(binding?.seen_from(location, scope))
    }

    /// What is behind an output of a node.
    fn output(
        &mut self,
        (scope, location): (usize, Location),
        index: usize,
        (node, port): (&str, Option<&str>),
        trail: &mut Trail,
    ) -> Option<Binding> {
        let outputs = &self.nodes[index].op.signature.outputs;
        let found = match port {
            Some(port) => outputs.iter().position(|output| output.name == port),
            None => (outputs.len() == 1).then_some(0),
        };
        let Some(output) = found else {
            let names = || outputs.iter().map(|output| &*output.name);
            no_output(node, names, port, location, self.report);
            return None;
        };
        if !self.nodes[index].bypass {
            let source = BindingSource::Edge(NodeIndex::new(index), output as u32);
            return Some(Binding { source, location, scope: scope as u32 });
        }
        // Long chains of bypassed nodes are walked once.
        if let Some(passed) = self.passed.get(&(index, output)) {
            return Some(passed.clone()?.seen_from(location, scope));
        }
        if !self.enter(Arc::clone(&self.nodes[index].name), location, trail) {
            return None;
        }
        let binding = self.pass_node(index, output, location, trail);
        trail.pop();
        self.passed.insert((index, output), binding.clone());
        Some(binding?.seen_from(location, scope))
    }

    /// Takes one more step on the way to an edge's source; false where the way is a circle or too
    /// long.
    fn enter(&mut self, step: Arc<str>, location: Location, trail: &mut Trail) -> bool {
        if let Some(first) = trail.iter().position(|before| *before == step) {
            let mut names: Vec<&str> = vec![&step];
            names.extend(trail[first..].iter().rev().map(|name| &**name));
            let message = format!("these nodes feed each other: {}", names.join(" → "));
            self.report.error("cycle", location, message).hint =
                Some("remove one of the edges".to_owned());
            return false;
        }
        if trail.len() >= LONGEST {
            let message = format!("this edge goes through over {LONGEST} bypassed nodes or graphs");
            self.report.error("bypass", location, message);
            return false;
        }
        trail.push(step);
        true
    }

    /// What a bypassed node passes through to an output: its first fed input of the output's type.
    fn pass_node(
        &mut self,
        index: usize,
        output: usize,
        location: Location,
        trail: &mut Trail,
    ) -> Option<Binding> {
        let node = &self.nodes[index];
        let signature = &node.op.signature;
        let ty = signature.outputs[output].ty.clone();
        let through = first_fed(signature.inputs.iter().zip(&node.inputs), &ty);
        let (scope, name) = (node.scope, Arc::clone(&node.name));
        self.pass(scope, through, &ty, &name, location, trail)
    }

    /// What a bypassed graph passes through to the output that `edge` feeds inside it.
    fn pass_graph(
        &mut self,
        inner: usize,
        edge: &Ident,
        location: Location,
        trail: &mut Trail,
    ) -> Option<Binding> {
        // An output that is not well defined is refused where it is declared.
        let parts = (&*self.scopes, &*self.nodes, &*self.repeats);
        let ty = declared_type(parts, inner, &edge.text)?;
        let scope = &self.scopes[inner];
        let caller = scope.caller.as_ref()?;
        let ports = scope.inputs.iter().map(|input| &input.port);
        let through = first_fed(ports.zip(&caller.inputs), &ty);
        let (outer, name) = (caller.scope, Arc::clone(&scope.name));
        self.pass(outer, through, &ty, &name, location, trail)
    }

    fn pass(
        &mut self,
        scope: usize,
        through: Option<RawInput>,
        ty: &PortType,
        name: &str,
        location: Location,
        trail: &mut Trail,
    ) -> Option<Binding> {
        let binding = match through {
            Some(through) => Some(self.binding(scope, &through, trail)?),
            None => None,
        };
        let passed = binding.and_then(first_item);
        if passed.is_none() {
            let message = format!("`{name}` is bypassed, but no input of type {ty} feeds it");
            self.report.error("bypass", location, message);
        }
        passed
    }
}

/// The first item of a list, none where it has none; anything else as it is.
fn first_item(binding: Binding) -> Option<Binding> {
    match &binding.source {
        BindingSource::List(items) => items.first().map(|(_, item)| item.clone()),
        BindingSource::Literal(literal) => match &**literal {
            Literal::List(items) => {
                let first = BindingSource::Literal(Arc::new(items.first()?.clone()));
                Some(Binding { source: first, ..binding })
            }
            _ => Some(binding),
        },
        _ => Some(binding),
    }
}

/// What is written for the first fed port of a type; of a list, its first item.
fn first_fed<'p>(
    ports: impl Iterator<Item = (&'p Port, &'p Option<RawInput>)>,
    ty: &PortType,
) -> Option<RawInput> {
    let mut fed = ports.filter(|(port, _)| port.ty == *ty).filter_map(|(_, one)| one.as_ref());
    Some(match fed.next()? {
        RawInput::Edges(edges, _) => RawInput::Edge(edges.first()?.1.clone()),
        RawInput::Items(items, _) => items.first()?.1.clone(),
        one => one.clone(),
    })
}

/// Says that a node has no such output, or which of its outputs to name.
fn no_output<'n, I: ExactSizeIterator<Item = &'n str>>(
    node: &str,
    names: impl Fn() -> I,
    port: Option<&str>,
    location: Location,
    report: &mut Report,
) {
    let (message, hint) = match port {
        None => {
            let count = names().len();
            let list: Vec<_> = names().take(12).map(|name| format!("\"{node}.{name}\"")).collect();
            let hint = (!list.is_empty()).then(|| format!("write {}", list.join(" or ")));
            (format!("`{node}` has {count} outputs; name one of them"), hint)
        }
        Some(port) => (format!("`{node}` has no output `{port}`"), report.advice(port, names)),
    };
    report.error("unknown-output", location, message).hint = hint;
}
