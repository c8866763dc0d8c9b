//! Opens documents: resolves ops, decodes literals by their ports, and opens the graphs used as nodes.

use std::collections::HashMap;
use std::sync::Arc;

use kino_port::{Literal, Port, PortType, Range};
use petgraph::graph::{DiGraph, NodeIndex};

use crate::diagnostic::{Diagnostic, File, Place, Span, suggest};
use crate::document::{self, Document, InputDecl, NodeDecl, Word};
use crate::graph::{GraphInput, Node, Op, Sites};
use crate::literal::decode;
use crate::ron::{Form, Tree};
use crate::template;
use crate::{Catalog, Sources};

/// How deep graphs may use graphs.
const DEEPEST: usize = 32;

/// One use of one document: the root, or a graph used as a node.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) file: u32,
    /// The name of every node in it.
    pub(crate) names: HashMap<String, Entity>,
    pub(crate) inputs: Vec<GraphInput>,
    pub(crate) outputs: Vec<(Word, Word)>,
    /// Who uses this graph: the scope, and what stands at each of our inputs there.
    pub(crate) caller: Option<(usize, Vec<Option<Written>>)>,
}

/// What a node's name stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entity {
    Node(NodeIndex),
    Scope(usize),
    /// Something that was refused; nothing more is said of it.
    Broken,
}

/// What is written for one port.
#[derive(Clone, Debug)]
pub(crate) enum Written {
    Literal(Literal, Place),
    Draw(Place),
    Template(Vec<template::Part>, Place),
    /// Edges with names where a map is written; `true` where a single edge stands.
    Edges(Vec<(Option<String>, Word)>, bool),
    /// Something that was refused; nothing more is said of it.
    Broken,
}

/// A node before its edges are resolved.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) scope: usize,
    pub(crate) bypass: bool,
    pub(crate) written: Vec<Option<Written>>,
}

/// Everything that opening documents fills.
pub(crate) struct Opener<'e> {
    pub(crate) catalog: &'e dyn Catalog,
    pub(crate) sources: &'e dyn Sources,
    pub(crate) problems: Vec<Diagnostic>,
    pub(crate) files: Vec<File>,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) nodes: DiGraph<Node, ()>,
    /// Beside each node, by its index.
    pub(crate) drafts: Vec<Draft>,
    pub(crate) ops: HashMap<String, Arc<Op>>,
    pub(crate) sites: Sites,
    /// Graphs by their path relative to the root: file and span.
    known: HashMap<String, (u32, Span)>,
    /// The paths that are open, outermost first.
    stack: Vec<String>,
}

impl<'e> Opener<'e> {
    pub(crate) fn new(catalog: &'e dyn Catalog, sources: &'e dyn Sources) -> Self {
        Opener {
            catalog,
            sources,
            problems: Vec::new(),
            files: Vec::new(),
            scopes: Vec::new(),
            nodes: DiGraph::new(),
            drafts: Vec::new(),
            ops: HashMap::new(),
            sites: Sites::default(),
            known: HashMap::new(),
            stack: Vec::new(),
        }
    }

    /// Opens the root graph; the text of its `about`, unless its syntax is broken.
    pub(crate) fn open_root(&mut self, name: &str, text: &str) -> Option<String> {
        let text: Arc<str> = text.into();
        self.files.push(File { name: name.to_owned(), text: Arc::clone(&text) });
        let whole = Span::new(0, text.len());
        let document = document::parse(0, &text, whole, &mut self.problems)?;
        self.sites.opening = document.opening;
        self.sites.graphs_opening = document.graphs_opening;
        let own = name.rsplit(['/', '\\']).next().unwrap_or(name);
        self.stack.push(own.to_owned());
        self.open(0, document, "", "", None)
    }

    /// Opens a document as a scope, the nodes in it first drafted, then resolved by others.
    fn open(
        &mut self,
        file: u32,
        document: Document<'_>,
        dir: &str,
        prefix: &str,
        caller: Option<(usize, Vec<Option<Written>>)>,
    ) -> Option<String> {
        for (name, span) in &document.graphs {
            self.known.entry(join(dir, &name.text)).or_insert((file, *span));
        }
        let scope = self.scopes.len();
        let inputs = document.inputs.iter().map(|decl| self.declared(file, decl)).collect();
        let (names, outputs) = (HashMap::with_capacity(document.nodes.len()), document.outputs);
        self.scopes.push(Scope { file, names, inputs, outputs, caller });
        for decl in document.nodes {
            let name = decl.name.text.clone();
            let entity = self.entity(scope, dir, prefix, decl);
            self.scopes[scope].names.insert(name, entity);
        }
        Some(document.about)
    }

    fn entity(&mut self, scope: usize, dir: &str, prefix: &str, decl: NodeDecl<'_>) -> Entity {
        let file = self.scopes[scope].file;
        if decl.op.text.ends_with(".ron")
            || decl.op.text.starts_with("./")
            || decl.op.text.starts_with("../")
        {
            return self.subgraph(scope, dir, prefix, decl);
        }
        let Some(op) = self.op(&decl.op.text) else {
            let place = Place { file, span: decl.op.span };
            let hint = suggest(&decl.op.text, self.catalog.names());
            let hint = hint.unwrap_or_else(|| "`kino nodes` lists all ops".to_owned());
            self.problems.push(
                Diagnostic::error(
                    "unknown-op",
                    place,
                    format!("there is no op `{}`", decl.op.text),
                )
                .hint(hint),
            );
            return Entity::Broken;
        };
        let place = Place { file, span: decl.name.span };
        let dir = if op.signature.traits.sink { "" } else { dir };
        let written = self.written(file, dir, &decl, &op.signature.inputs);
        let name = format!("{prefix}{}", decl.name.text).into();
        let index = self.nodes.add_node(Node { name, op, place, feeds: Vec::new() });
        self.drafts.push(Draft { scope, bypass: decl.bypass, written });
        Entity::Node(index)
    }

    fn op(&mut self, name: &str) -> Option<Arc<Op>> {
        if let Some(op) = self.ops.get(name) {
            return Some(Arc::clone(op));
        }
        let signature = self.catalog.signature(name)?.clone();
        let ports = signature.inputs.iter().map(|port| Arc::from(&*port.name)).collect();
        let op = Arc::new(Op { name: name.into(), signature, ports });
        self.ops.insert(name.to_owned(), Arc::clone(&op));
        Some(op)
    }

    fn subgraph(&mut self, scope: usize, dir: &str, prefix: &str, decl: NodeDecl<'_>) -> Entity {
        let place = Place { file: self.scopes[scope].file, span: decl.op.span };
        let path = join(dir, &decl.op.text);
        if let Some(first) = self.stack.iter().position(|open| *open == path) {
            let chain = [&self.stack[first..], std::slice::from_ref(&path)].concat().join(" → ");
            self.problems.push(Diagnostic::error(
                "recursion",
                place,
                format!("graphs use each other: {chain}"),
            ));
            return Entity::Broken;
        }
        let Some((file, span)) = self.file(&path, place) else { return Entity::Broken };
        if self.stack.len() > DEEPEST {
            let message = format!("graphs use graphs more than {DEEPEST} deep");
            self.problems.push(Diagnostic::error("recursion", place, message));
            return Entity::Broken;
        }
        let text = Arc::clone(&self.files[file as usize].text);
        let Some(document) = document::parse(file, &text, span, &mut self.problems) else {
            return Entity::Broken;
        };
        let inputs: Vec<_> =
            document.inputs.iter().map(|decl| self.declared(file, decl).port).collect();
        let written = self.written(self.scopes[scope].file, dir, &decl, &inputs);
        self.require(place.file, &decl, &inputs, &written);
        let inner = self.scopes.len();
        let inner_dir = path.rsplit_once('/').map_or(String::new(), |(dir, _)| format!("{dir}/"));
        self.stack.push(path);
        let prefix = format!("{prefix}{}/", decl.name.text);
        self.open(file, document, &inner_dir, &prefix, Some((scope, written)));
        self.stack.pop();
        Entity::Scope(inner)
    }

    /// Says which inputs of a graph used as a node are not fed.
    fn require(
        &mut self,
        file: u32,
        decl: &NodeDecl<'_>,
        inputs: &[Port],
        written: &[Option<Written>],
    ) {
        for (port, _) in inputs
            .iter()
            .zip(written)
            .filter(|(port, written)| port.is_required() && written.is_none())
        {
            let place = Place { file, span: decl.name.span };
            self.problems.push(missing(&decl.name.text, port, place));
        }
    }

    /// The file and place of the graph at `path`, read at most once.
    fn file(&mut self, path: &str, place: Place) -> Option<(u32, Span)> {
        if let Some(known) = self.known.get(path) {
            return Some(*known);
        }
        match self.sources.read(path) {
            Ok(text) => {
                let (file, span) = (self.files.len() as u32, Span::new(0, text.len()));
                self.files.push(File { name: path.to_owned(), text: text.into() });
                self.known.insert(path.to_owned(), (file, span));
                self.sites.others.push((path.to_owned(), file));
                Some((file, span))
            }
            Err(reason) => {
                let message = format!("the graph `{path}` cannot be read: {reason}");
                self.problems.push(Diagnostic::error("unreadable", place, message));
                None
            }
        }
    }

    /// What is written for each of `ports`; complains of ports that are not there or fed twice.
    fn written(
        &mut self,
        file: u32,
        dir: &str,
        decl: &NodeDecl<'_>,
        ports: &[Port],
    ) -> Vec<Option<Written>> {
        let mut written: Vec<Option<Written>> = vec![None; ports.len()];
        let mut edges: Vec<Option<Span>> = vec![None; ports.len()];
        for (word, tree) in &decl.edges {
            if let Some(index) = self.port(file, decl, word, ports) {
                edges[index] = Some(word.span);
                written[index] = Some(self.edges(file, tree).unwrap_or(Written::Broken));
            }
        }
        for (word, tree) in &decl.literals {
            let Some(index) = self.port(file, decl, word, ports) else { continue };
            if let Some(edge) = edges[index] {
                let place = Place { file, span: word.span };
                let message = format!("`{}` is fed both by an edge and by a value", word.text);
                let related = Place { file, span: edge };
                self.problems.push(
                    Diagnostic::error("fed-twice", place, message).related(related, "the edge"),
                );
            }
            let literal = self.literal(file, dir, tree, &ports[index]);
            written[index] = Some(literal.unwrap_or(Written::Broken));
        }
        written
    }

    fn port(
        &mut self,
        file: u32,
        decl: &NodeDecl<'_>,
        word: &Word,
        ports: &[Port],
    ) -> Option<usize> {
        let found = ports.iter().position(|port| port.name == word.text);
        if found.is_none() {
            let place = Place { file, span: word.span };
            let message = format!("`{}` has no input `{}`", decl.op.text, word.text);
            let hint = suggest(&word.text, ports.iter().map(|port| &*port.name));
            self.problems.push(Diagnostic::error("unknown-port", place, message).maybe_hint(hint));
        }
        found
    }

    fn edges(&mut self, file: u32, tree: &Tree<'_>) -> Option<Written> {
        let mut edges = Vec::new();
        let single = matches!(tree.form, Form::Text(_));
        let items: Vec<(Option<String>, &Tree<'_>)> = match &tree.form {
            Form::Text(_) => vec![(None, tree)],
            Form::List(items) => items.iter().map(|item| (None, item)).collect(),
            Form::Map(pairs) => {
                let name = |key: &Tree<'_>| match &key.form {
                    Form::Text(text) => text.to_string(),
                    _ => String::new(),
                };
                pairs.iter().map(|(key, value)| (Some(name(key)), value)).collect()
            }
            _ => {
                let place = Place { file, span: tree.span };
                let message =
                    format!("expected an edge such as \"node.port\", found {}", tree.form.kind());
                self.problems.push(
                    Diagnostic::error("malformed", place, message).hint("a value stands in `with`"),
                );
                return None;
            }
        };
        for (name, item) in items {
            match &item.form {
                Form::Text(text) if name.as_deref() != Some("") => {
                    edges.push((name, Word { text: text.to_string(), span: item.span }));
                }
                other => {
                    let place = Place { file, span: item.span };
                    let message = format!(
                        "expected a named edge such as \"node.port\", found {}",
                        other.kind()
                    );
                    self.problems.push(Diagnostic::error("malformed", place, message));
                }
            }
        }
        Some(Written::Edges(edges, single))
    }

    fn literal(&mut self, file: u32, dir: &str, tree: &Tree<'_>, port: &Port) -> Option<Written> {
        let place = Place { file, span: tree.span };
        if !port.ty.is_literal() && port.ty != PortType::Any {
            let message = format!("`{}` takes {}, which cannot be written out", port.name, port.ty);
            self.problems.push(
                Diagnostic::error("type", place, message).hint("feed it with an edge, in `in`"),
            );
            return None;
        }
        match decode(tree, &port.ty).and_then(|literal| port.admit(literal)) {
            Ok(Literal::Text(text)) if port.draws && text == "random" => Some(Written::Draw(place)),
            Ok(Literal::Text(text)) if port.ty == PortType::Path => match template::parse(&text) {
                Ok(parts) => Some(Written::Template(template::within(dir, parts), place)),
                Err(message) => {
                    self.problems.push(Diagnostic::error("template", place, message));
                    None
                }
            },
            Ok(literal) => Some(Written::Literal(literal, place)),
            Err(refusal) => {
                let message = format!("`{}`: {}", port.name, refusal.message);
                let hint = refusal.hint.or_else(|| nearest_choice(tree, port));
                self.problems.push(Diagnostic::error("value", place, message).maybe_hint(hint));
                None
            }
        }
    }

    /// An input's declaration as a port; what is wrong with it is said.
    fn declared(&mut self, file: u32, decl: &InputDecl<'_>) -> GraphInput {
        let mut port = self.bare_input(file, decl);
        let mut default = decl.default.as_ref().map(|tree| Place { file, span: tree.span });
        if let Some(tree) = &decl.default {
            match decode(tree, &port.ty).and_then(|literal| port.admit(literal)) {
                Ok(literal) => port.default = Some(literal),
                Err(refusal) => {
                    let place = Place { file, span: tree.span };
                    let message = format!("default of input `{}`: {}", port.name, refusal.message);
                    self.problems
                        .push(Diagnostic::error("value", place, message).maybe_hint(refusal.hint));
                    // So that it is not called missing as well.
                    port.default = Some(Literal::text(""));
                    default = None;
                }
            }
        }
        GraphInput { port, place: Place { file, span: decl.span }, default }
    }

    fn bare_input(&mut self, file: u32, decl: &InputDecl<'_>) -> Port {
        let mut ty = PortType::Any;
        if let Some(word) = &decl.ty {
            match word.text.parse() {
                Ok(known) => ty = known,
                Err(message) => {
                    let place = Place { file, span: word.span };
                    let hint = suggest(&word.text, PortType::NAMED.iter().map(|(name, _)| *name));
                    self.problems
                        .push(Diagnostic::error("unknown-type", place, message).maybe_hint(hint));
                }
            }
        }
        let (ty, is_list) = match ty {
            PortType::List(of) => (*of, true),
            ty => (ty, false),
        };
        let draws = ty == PortType::Int;
        let make = if is_list { kino_port::list } else { kino_port::edge };
        let mut port = make("", ty);
        port.name = decl.name.text.clone().into();
        (port.about, port.unit) = (decl.about.clone().into(), decl.unit.clone().into());
        port.draws = draws;
        port.range = self.range(file, decl, &port.ty);
        if let Some(tree) = &decl.choices {
            match decode(tree, &PortType::Text) {
                Ok(Literal::List(choices))
                    if choices.iter().all(|choice| matches!(choice, Literal::Text(_))) =>
                {
                    let text = |choice: Literal| {
                        if let Literal::Text(text) = choice { text } else { "".into() }
                    };
                    port.choices = choices.into_iter().map(text).collect();
                }
                _ => self.malformed(file, tree, "a list of texts"),
            }
        }
        port
    }

    fn malformed(&mut self, file: u32, tree: &Tree<'_>, expected: &str) {
        let place = Place { file, span: tree.span };
        let message = format!("expected {expected}, found {}", tree.form.kind());
        self.problems.push(Diagnostic::error("malformed", place, message));
    }

    fn range(&mut self, file: u32, decl: &InputDecl<'_>, ty: &PortType) -> Option<Range> {
        let step = match decl.step.as_ref().map(|tree| (tree, decode(tree, &PortType::Int))) {
            None => 1,
            Some((_, Ok(Literal::Int(step)))) if step > 0 && *ty == PortType::Int => step,
            Some((tree, _)) => {
                self.malformed(
                    file,
                    tree,
                    "a whole number of at least 1, for an input of type Int",
                );
                1
            }
        };
        let Some(tree) = &decl.range else {
            return (step > 1).then_some(Range::Int { min: 0, max: i128::MAX, step });
        };
        let ends = match &tree.form {
            Form::Tuple(ends) => {
                ends.iter().map(|end| decode(end, ty)).collect::<Result<Vec<_>, _>>().ok()
            }
            _ => None,
        };
        match (ty, ends.as_deref()) {
            (PortType::Int, Some([Literal::Int(min), Literal::Int(max)])) if min <= max => {
                Some(Range::Int { min: *min, max: *max, step })
            }
            (PortType::Real, Some([Literal::Real(min), Literal::Real(max)])) if min <= max => {
                Some(Range::Real { min: *min, max: *max })
            }
            _ => {
                self.malformed(
                    file,
                    tree,
                    "a range `(least, greatest)` of the input's type, Int or Real",
                );
                None
            }
        }
    }
}

/// A required port that nothing feeds.
pub(crate) fn missing(node: &str, port: &Port, place: Place) -> Diagnostic {
    let message = format!("nothing feeds `{}` of `{node}`, which takes {}", port.name, port.ty);
    let hint = if port.ty.is_literal() {
        format!("write `with: {{\"{}\": …}}`, or feed it with an edge in `in`", port.name)
    } else {
        format!("write `in: {{\"{}\": \"node.port\"}}`", port.name)
    };
    Diagnostic::error("missing-input", place, message).hint(hint)
}

fn nearest_choice(tree: &Tree<'_>, port: &Port) -> Option<String> {
    let Form::Text(text) = &tree.form else { return None };
    let near = crate::diagnostic::nearest(text, port.choices.iter().map(|choice| &**choice))?;
    Some(format!("did you mean \"{near}\"?"))
}

/// `path` seen from `dir`, without `.` and inner `..`.
pub(crate) fn join(dir: &str, path: &str) -> String {
    let path = path.replace('\\', "/");
    let absolute = path.starts_with('/');
    let whole = if absolute { path } else { format!("{dir}{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("{}{}", if absolute { "/" } else { "" }, parts.join("/"))
}

impl Written {
    /// Where it is written.
    pub(crate) fn place(&self, file: u32) -> Place {
        match self {
            Written::Literal(_, place) | Written::Draw(place) | Written::Template(_, place) => {
                *place
            }
            Written::Broken => Place::default(),
            Written::Edges(edges, _) => {
                let span = edges.first().map_or(Span::default(), |(_, word)| word.span);
                Place { file, span }
            }
        }
    }
}
