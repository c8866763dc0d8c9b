//! Second pass, [`Document`]s → [`Expanded`]: opens the graphs that are used as nodes, one scope
//! for each use of each graph, and reads what is written for every port. No edge is followed yet.

mod repeat;

use std::collections::HashMap;
use std::sync::Arc;

use kino_port::{Port, PortType, REPEAT, Signature};

use crate::declare::{GraphInput, check_templates, declared};
use crate::diagnostic::{Diagnostic, Location, Report, SourceFile, Span};
use crate::names::NameIndex;
use crate::parse::{self, Document, Ident, NodeDecl};
use crate::paths::{folder, is_graph, join};
use crate::raw::{RawInput, TurnOutput, raw_inputs};
use crate::step::Turn;
use crate::{Catalog, GraphLoader};

pub(crate) use repeat::times_port;

/// How deep graphs may use graphs.
const DEEPEST: usize = 32;

/// The most nodes, inputs and outputs that a graph may have with all that it uses: graphs that use
/// graphs twice over grow beyond any memory.
const MOST: usize = 500_000;

/// The most bytes of text that are read for graphs used as nodes, each use counted.
const MAX_BYTES: usize = 64 << 20;

/// A name counts as one more part for every so many bytes.
const PART_BYTES: usize = 64;

/// A graph with all that it uses, before any edge is followed.
#[derive(Debug, Default)]
pub(crate) struct Expanded {
    /// What the root says of itself.
    pub(crate) about: String,
    pub(crate) files: Vec<SourceFile>,
    /// The root first.
    pub(crate) scopes: Vec<Scope>,
    pub(crate) nodes: Vec<RawNode>,
    pub(crate) repeats: Vec<Repeat>,
    pub(crate) spans: RecordSpans,
}

/// How often each loop repeats, by its name as a node.
pub(crate) type Turns = HashMap<Arc<str>, usize>;

/// A `repeat`: a graph that is used once for each turn.
#[derive(Debug)]
pub(crate) struct Repeat {
    /// Its name as a node.
    pub(crate) name: Arc<str>,
    pub(crate) location: Location,
    /// Where it is written.
    pub(crate) scope: usize,
    /// What is written for the number of its turns.
    pub(crate) times: RawInput,
    /// The scopes of the turns that were opened.
    pub(crate) turns: Vec<usize>,
    /// What it gives, in the order of the body's outputs.
    pub(crate) outputs: Vec<RepeatOutput>,
    pub(crate) output_index: NameIndex,
}

/// An output of a `repeat`.
#[derive(Debug)]
pub(crate) struct RepeatOutput {
    pub(crate) name: Arc<str>,
    pub(crate) source: RepeatSource,
}

/// What is behind an output of a `repeat`.
#[derive(Debug)]
pub(crate) enum RepeatSource {
    /// It is carried: what the last turn gave.
    Last(TurnOutput),
    /// The node, by its index in [`Expanded::nodes`], that joins what all turns gave.
    Joined(usize),
    /// What all turns gave, as a list.
    Listed(Vec<TurnOutput>),
}

/// One use of one document: the root, or a graph used as a node.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) file: u32,
    /// Where its file lies, seen from the root's: empty, or with `/` at its end.
    pub(crate) dir: Arc<str>,
    /// Its name as a node; empty for the root.
    pub(crate) name: Arc<str>,
    /// The name of every node in it.
    pub(crate) names: HashMap<Arc<str>, Entity>,
    pub(crate) inputs: Vec<GraphInput>,
    pub(crate) input_index: NameIndex,
    pub(crate) outputs: Vec<(Ident, Ident)>,
    pub(crate) output_index: NameIndex,
    /// Who uses this graph; none for the root.
    pub(crate) caller: Option<Caller>,
    /// The turn of a loop that it is, or lies in.
    pub(crate) turn: Option<Turn>,
    /// It lies in a bypassed graph, so that nothing in it runs.
    pub(crate) dropped: bool,
}

/// Who uses a graph as a node.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) scope: usize,
    /// What is written for each of the graph's inputs.
    pub(crate) inputs: Vec<Option<RawInput>>,
    pub(crate) bypass: bool,
    /// Which turn it is, where a loop uses it.
    pub(crate) turn: Option<Turn>,
}

/// What a node's name stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entity {
    /// By its index in [`Expanded::nodes`].
    Node(usize),
    Scope(usize),
    /// By its index in [`Expanded::repeats`].
    Repeat(usize),
    /// Something that was refused; nothing more is said of it.
    Broken,
}

/// A node before its edges are followed.
#[derive(Debug)]
pub(crate) struct RawNode {
    pub(crate) name: Arc<str>,
    pub(crate) op: Arc<Op>,
    pub(crate) location: Location,
    pub(crate) scope: usize,
    pub(crate) bypass: bool,
    /// What is written for each port of its signature.
    pub(crate) inputs: Vec<Option<RawInput>>,
}

/// What all nodes of one op share.
#[derive(Debug)]
pub(crate) struct Op {
    /// Its index among the ops of a graph.
    pub(crate) index: usize,
    pub(crate) name: Arc<str>,
    pub(crate) version: Arc<str>,
    pub(crate) signature: Signature,
    /// The input ports' names, shared with the facts of every inference and the steps of a plan.
    pub(crate) ports: Arc<[Arc<str>]>,
    /// Whether a check needs to know what feeds its nodes: they choose among inputs, or name files.
    pub(crate) chooses: bool,
}

impl Op {
    fn new(index: usize, signature: Signature) -> Self {
        Op {
            index,
            name: (*signature.name).into(),
            version: (*signature.version).into(),
            ports: signature.inputs.iter().map(|port| Arc::from(&*port.name)).collect(),
            chooses: signature.inputs.iter().any(|port| port.lazy || port.names_file()),
            signature,
        }
    }
}

/// Where the embedded workflow of a plan puts what it adds to the texts.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecordSpans {
    /// Just behind the root's opening bracket.
    pub(crate) opening: u32,
    /// Just behind the opening bracket of the root's `graphs`.
    pub(crate) graphs_opening: Option<u32>,
    /// Graphs read from other files: the name to carry each by, its file, and where what is carried
    /// starts in it.
    pub(crate) others: Vec<(String, u32, u32)>,
}

/// Opens a graph, of which `document` is what stands in it, and all that it uses; nothing where its
/// syntax is broken. Of loops that `turns` does not name the first turns are opened, by which all
/// of them are checked.
pub(crate) fn expand(
    name: &str,
    text: &str,
    document: Option<Document<'_>>,
    catalog: &dyn Catalog,
    sources: &dyn GraphLoader,
    turns: &Turns,
    report: &mut Report,
) -> Expanded {
    let mut expander = Expander {
        catalog,
        sources,
        turns,
        report,
        result: Expanded::default(),
        ops: HashMap::new(),
        known: HashMap::new(),
        stack: Vec::new(),
        repeating: None,
        parts: 0,
        bytes: 0,
    };
    expander.root(name, text, document);
    expander.result
}

struct Expander<'e> {
    catalog: &'e dyn Catalog,
    sources: &'e dyn GraphLoader,
    turns: &'e Turns,
    report: &'e mut Report,
    result: Expanded,
    ops: HashMap<String, Arc<Op>>,
    /// Graphs by their path relative to the root: file and span.
    known: HashMap<String, (u32, Span)>,
    /// The paths that are open, outermost first.
    stack: Vec<String>,
    /// The loop whose body is open: its name, and where it is written.
    repeating: Option<(Arc<str>, Location)>,
    /// Nodes, inputs and outputs so far.
    parts: usize,
    /// Bytes read of graphs used as nodes, so far.
    bytes: usize,
}

impl Expander<'_> {
    fn root(&mut self, name: &str, text: &str, document: Option<Document<'_>>) {
        self.result.files.push(SourceFile { name: name.to_owned(), text: text.into() });
        let Some(document) = document else { return };
        self.result.spans.opening = document.opening;
        self.result.spans.graphs_opening = document.graphs_opening;
        self.result.about = document.about.clone();
        self.stack.push(name.rsplit(['/', '\\']).next().unwrap_or(name).to_owned());
        let inputs = document.inputs.iter().map(|decl| declared(0, decl, self.report)).collect();
        self.open(0, document, inputs, "", "", None);
    }

    /// Opens a document as a scope.
    fn open(
        &mut self,
        file: u32,
        document: Document<'_>,
        inputs: Vec<GraphInput>,
        dir: &str,
        name: &str,
        caller: Option<Caller>,
    ) {
        for (name, span) in &document.graphs {
            self.known.entry(join(dir, &name.text)).or_insert((file, *span));
        }
        check_templates(&inputs, self.report);
        let scopes = &mut self.result.scopes;
        let scope = scopes.len();
        let dropped =
            caller.as_ref().is_some_and(|caller| caller.bypass || scopes[caller.scope].dropped);
        let turn = caller.as_ref().and_then(|caller| caller.turn.or(scopes[caller.scope].turn));
        let broken = document.broken.into_iter().map(|name| (name.into(), Entity::Broken));
        let mut names: HashMap<_, _> = broken.collect();
        names.reserve(document.nodes.len());
        scopes.push(Scope {
            file,
            dir: dir.into(),
            name: name.into(),
            names,
            input_index: NameIndex::of(inputs.iter().map(|input| &*input.port.name)),
            inputs,
            output_index: NameIndex::of(document.outputs.iter().map(|(name, _)| &*name.text)),
            outputs: document.outputs,
            caller,
            turn,
            dropped,
        });
        self.result.nodes.reserve(document.nodes.len());
        for decl in document.nodes {
            let own: Arc<str> = Arc::from(&*decl.name.text);
            let full = match name {
                "" => Arc::clone(&own),
                name => {
                    let full = format!("{name}/{own}");
                    self.parts += full.len() / PART_BYTES;
                    full.into()
                }
            };
            let entity = self.entity(scope, full, decl);
            self.result.scopes[scope].names.insert(own, entity);
        }
    }

    /// What a node's declaration stands for; `name` is the node's name with those of the graphs
    /// around it.
    fn entity(&mut self, scope: usize, name: Arc<str>, decl: NodeDecl<'_>) -> Entity {
        if is_graph(&decl.op.text) {
            return self.subgraph(scope, &name, decl);
        }
        if decl.op.text == REPEAT.name {
            return self.repeat(scope, name, decl);
        }
        let file = self.result.scopes[scope].file;
        let Some(op) = self.op(&decl.op.text) else {
            let (op, names) = (&*decl.op.text, || self.catalog.names());
            let hint = self.catalog.advice(op).or_else(|| self.report.advice(op, names));
            let message = format!("there is no op `{op}`");
            self.report.error("unknown-op", Location { file, span: decl.op.span }, message).hint =
                Some(hint.unwrap_or_else(|| "`kino nodes` lists all ops".to_owned()));
            return Entity::Broken;
        };
        let location = Location { file, span: decl.name.span };
        let inputs = raw_inputs(file, &decl, (&op.name, &op.signature.inputs), self.report);
        let node = RawNode { name, op, location, scope, bypass: decl.bypass, inputs };
        self.result.nodes.push(node);
        Entity::Node(self.result.nodes.len() - 1)
    }

    fn op(&mut self, name: &str) -> Option<Arc<Op>> {
        if let Some(op) = self.ops.get(name) {
            return Some(Arc::clone(op));
        }
        let signature = self.catalog.signature(name)?.clone();
        let op = Arc::new(Op::new(self.ops.len(), signature));
        self.ops.insert(name.to_owned(), Arc::clone(&op));
        Some(op)
    }

    fn subgraph(&mut self, scope: usize, name: &str, decl: NodeDecl<'_>) -> Entity {
        let location = Location { file: self.result.scopes[scope].file, span: decl.op.span };
        let op = Ident { text: decl.op.text.to_string(), span: decl.op.span };
        let Some((path, file, span)) = self.locate(scope, &op) else { return Entity::Broken };
        let text = Arc::clone(&self.result.files[file as usize].text);
        let Some(document) = parse::parse(file, &text, span, self.report) else {
            return Entity::Broken;
        };
        self.carried_as(file, &document, &text);
        self.parts += 1 + document.inputs.len() + document.nodes.len() + document.outputs.len();
        if self.parts > MOST {
            let message = format!("with all graphs that it uses, this graph has over {MOST} parts");
            self.report.error("too-large", location, message);
            return Entity::Broken;
        }
        let inputs: Vec<_> =
            document.inputs.iter().map(|decl| declared(file, decl, self.report)).collect();
        let ports: Vec<_> = inputs.iter().map(|input| input.port.clone()).collect();
        let written = raw_inputs(location.file, &decl, (&op.text, &ports), self.report);
        if !decl.bypass {
            self.require(Location { span: decl.name.span, ..location }, name, &ports, &written);
        }
        let inner = self.result.scopes.len();
        let dir = folder(&path);
        self.stack.push(path);
        let caller = Caller { scope, inputs: written, bypass: decl.bypass, turn: None };
        self.open(file, document, inputs, &dir, name, Some(caller));
        self.stack.pop();
        Entity::Scope(inner)
    }

    /// The path, file and place of the graph that `graph` names in `scope`.
    fn locate(&mut self, scope: usize, graph: &Ident) -> Option<(String, u32, Span)> {
        let location = Location { file: self.result.scopes[scope].file, span: graph.span };
        let path = join(&self.result.scopes[scope].dir, &graph.text);
        if !self.may_open(&path, location) {
            return None;
        }
        let (file, span) = self.file(&path, location)?;
        self.bytes += (span.end - span.start) as usize;
        if self.bytes > MAX_BYTES {
            let most = MAX_BYTES >> 20;
            let message =
                format!("the graphs that this one uses are over {most} MiB, each use counted");
            self.report.error("too-large", location, message);
            return None;
        }
        Some((path, file, span))
    }

    /// Whether the graph at `path` may be used here; otherwise it is said why not.
    fn may_open(&mut self, path: &str, location: Location) -> bool {
        if let Some(first) = self.stack.iter().position(|open| open == path) {
            let chain = self.stack[first..].join(" → ");
            let message = format!("graphs use each other: {chain} → {path}");
            self.report.error("recursion", location, message);
            return false;
        }
        if self.stack.len() > DEEPEST {
            let message = format!("graphs use graphs more than {DEEPEST} deep");
            self.report.error("recursion", location, message);
            return false;
        }
        self.parts <= MOST && self.bytes <= MAX_BYTES
    }

    /// Notes how an embedded workflow carries the text of a file: from its first comment on, unless
    /// extensions stand there.
    fn carried_as(&mut self, file: u32, document: &Document<'_>, text: &str) {
        let head = text.get(..document.whole.start as usize).unwrap_or_default();
        let others = &mut self.result.spans.others;
        if (head.contains("#!") || head.starts_with('\u{feff}'))
            && let Ok(at) = others.binary_search_by_key(&file, |other| other.1)
        {
            others[at].2 = document.whole.start;
        }
    }

    /// Says which inputs of a graph used as a node are not fed.
    fn require(
        &mut self,
        location: Location,
        name: &str,
        ports: &[Port],
        inputs: &[Option<RawInput>],
    ) {
        let fed = ports.iter().zip(inputs);
        for (port, _) in fed.filter(|(port, input)| port.is_required() && input.is_none()) {
            self.report.push(missing(name, port, location));
        }
    }

    /// The file and place of the graph at `path`, read at most once.
    fn file(&mut self, path: &str, location: Location) -> Option<(u32, Span)> {
        if let Some(known) = self.known.get(path) {
            return Some(*known);
        }
        match self.sources.read(path) {
            Ok(text) => {
                let files = &mut self.result.files;
                let (file, span) = (files.len() as u32, Span::new(0, text.len()));
                files.push(SourceFile { name: path.to_owned(), text: text.into() });
                self.known.insert(path.to_owned(), (file, span));
                self.result.spans.others.push((path.to_owned(), file, 0));
                Some((file, span))
            }
            Err(reason) => {
                let message = format!("the graph `{path}` cannot be read: {reason}");
                self.report.error("unreadable", location, message);
                None
            }
        }
    }
}

/// Nodes and graphs that are looked through for the type of an edge.
const LOOKED_THROUGH: usize = 64;

impl Expanded {
    /// See [`declared_type`].
    fn declared_type(&self, scope: usize, edge: &str) -> Option<PortType> {
        declared_type((&self.scopes, &self.nodes, &self.repeats), scope, edge)
    }
}

/// The type of what an edge inside a graph stands for, by declarations alone; that of a node which
/// passes on what it is given is looked for behind it.
pub(crate) fn declared_type(
    (scopes, nodes, repeats): (&[Scope], &[RawNode], &[Repeat]),
    scope: usize,
    edge: &str,
) -> Option<PortType> {
    let (mut scope, mut edge) = (&scopes[scope], edge);
    for _ in 0..LOOKED_THROUGH {
        let (node, port) = match edge.split_once('.') {
            Some((node, port)) => (node, Some(port)),
            None => (edge, None),
        };
        if node == "inputs" {
            let names = scope.inputs.iter().map(|input| &*input.port.name);
            let index = scope.input_index.position(port?, names)?;
            return Some(scope.inputs[index].port.ty.clone());
        }
        match scope.names.get(node)? {
            Entity::Broken => return None,
            Entity::Node(index) => {
                let node = &nodes[*index];
                let mut outputs = node.op.signature.outputs.iter();
                let output = outputs.find(|output| port.is_none_or(|port| output.name == port))?;
                let fed = node.op.signature.inputs.iter().zip(&node.inputs);
                let mut fed = fed.filter(|(port, _)| port.ty == PortType::Any);
                match fed.find_map(|(_, input)| input.as_ref()) {
                    Some(RawInput::Edge(word)) if output.ty == PortType::Any => {
                        (scope, edge) = (&scopes[node.scope], &word.text);
                    }
                    _ => return Some(output.ty.clone()),
                }
            }
            Entity::Scope(inner) => {
                scope = &scopes[*inner];
                let names = scope.outputs.iter().map(|(name, _)| &*name.text);
                let index = port.map_or(Some(0), |port| scope.output_index.position(port, names));
                edge = &scope.outputs.get(index?)?.1.text;
            }
            Entity::Repeat(at) => {
                let repeat = &repeats[*at];
                let names = repeat.outputs.iter().map(|output| &*output.name);
                let index = port.map_or(Some(0), |port| repeat.output_index.position(port, names));
                match &repeat.outputs.get(index?)?.source {
                    RepeatSource::Joined(node) => {
                        return Some(nodes[*node].op.signature.outputs.first()?.ty.clone());
                    }
                    RepeatSource::Last(TurnOutput { scope: turn, output }) => {
                        scope = &scopes[*turn];
                        edge = &scope.outputs.get(*output)?.1.text;
                    }
                    RepeatSource::Listed(_) => return None,
                }
            }
        }
    }
    None
}

/// Whether a port takes a value of a type, alone or among others.
pub(crate) fn takes(port: &Port, from: &PortType) -> bool {
    port.accepts(from) || matches!(from, PortType::List(of) if port.is_list() && port.accepts(of))
}

/// A required port that nothing feeds.
pub(crate) fn missing(node: &str, port: &Port, location: Location) -> Diagnostic {
    let many = if port.is_list() { "…" } else { "" };
    let message =
        format!("nothing feeds `{}` of `{node}`, which takes {}{many}", port.name, port.ty);
    let hint = if port.ty.is_literal() {
        format!("write `with: {{\"{}\": …}}`, or feed it with an edge in `in`", port.name)
    } else {
        format!("write `in: {{\"{}\": \"node.port\"}}`", port.name)
    };
    Diagnostic::error("missing-input", location, message).hint(hint)
}
