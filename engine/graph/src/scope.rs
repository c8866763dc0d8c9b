//! Opens documents: one scope for each use of each graph, with its nodes drafted and its inputs
//! declared.

use std::collections::HashMap;
use std::sync::Arc;

use kino_port::Port;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::diagnostic::{Diagnostic, File, Place, Span, suggest};
use crate::document::{self, Document, NodeDecl, Word};
use crate::graph::{Call, Feed, GraphInput, Node, Op, Sites};
use crate::written::Written;
use crate::{Catalog, Sources};

/// How deep graphs may use graphs.
const DEEPEST: usize = 32;

/// The most nodes, inputs and outputs that a graph may have with all that it uses: graphs that use
/// graphs twice over grow beyond any memory.
const MOST: usize = 500_000;

/// Problems after which none is given advice: searching for similar names takes longer than finding
/// problems.
const ADVISED: usize = 100;

/// One use of one document: the root, or a graph used as a node.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) file: u32,
    /// Where its file lies, seen from the root's: empty, or with `/` at its end.
    pub(crate) dir: Arc<str>,
    /// Its name as a node; empty for the root.
    pub(crate) name: Arc<str>,
    /// The name of every node in it.
    pub(crate) names: HashMap<String, Entity>,
    pub(crate) inputs: Vec<GraphInput>,
    /// Beside the inputs: whether anything reads them.
    pub(crate) read: Vec<bool>,
    pub(crate) outputs: Vec<(Word, Word)>,
    /// Who uses this graph; none for the root.
    pub(crate) caller: Option<Caller>,
    /// It lies in a bypassed graph, so that nothing in it runs.
    pub(crate) dropped: bool,
}

/// Who uses a graph as a node.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) scope: usize,
    /// What is written for each of the graph's inputs.
    pub(crate) written: Vec<Option<Written>>,
    pub(crate) bypass: bool,
}

/// What a node's name stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entity {
    Node(NodeIndex),
    Scope(usize),
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
    /// What is fed to the inputs of graphs used as nodes, where values are checked again while
    /// planning.
    pub(crate) calls: Vec<Call>,
    /// What bypassed nodes pass through, by output.
    pub(crate) passed: HashMap<(NodeIndex, usize), Option<Feed>>,
    /// Graphs by their path relative to the root: file and span.
    known: HashMap<String, (u32, Span)>,
    /// The paths that are open, outermost first.
    stack: Vec<String>,
    /// Nodes, inputs and outputs so far.
    parts: usize,
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
            calls: Vec::new(),
            passed: HashMap::new(),
            known: HashMap::new(),
            stack: Vec::new(),
            parts: 0,
        }
    }

    /// Says what is wrong at a place; the diagnostic, for advice.
    pub(crate) fn problem(
        &mut self,
        code: &'static str,
        place: Place,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        let at = self.problems.len();
        self.problems.push(Diagnostic::error(code, place, message));
        &mut self.problems[at]
    }

    /// Advice on a word that is not among `candidates`.
    pub(crate) fn advice<'a>(
        &self,
        word: &str,
        candidates: impl IntoIterator<Item = &'a str> + Clone,
    ) -> Option<String> {
        if self.problems.len() < ADVISED { suggest(word, candidates) } else { None }
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
        let about = document.about.clone();
        self.open(0, document, "", "", None);
        Some(about)
    }

    /// Opens a document as a scope.
    fn open(
        &mut self,
        file: u32,
        document: Document<'_>,
        dir: &str,
        name: &str,
        caller: Option<Caller>,
    ) {
        for (name, span) in &document.graphs {
            self.known.entry(join(dir, &name.text)).or_insert((file, *span));
        }
        let scope = self.scopes.len();
        let inputs: Vec<_> = document.inputs.iter().map(|decl| self.declared(file, decl)).collect();
        self.check_templates(&inputs);
        let dropped = caller
            .as_ref()
            .is_some_and(|caller| caller.bypass || self.scopes[caller.scope].dropped);
        self.scopes.push(Scope {
            file,
            dir: dir.into(),
            name: name.into(),
            names: HashMap::with_capacity(document.nodes.len()),
            read: vec![false; inputs.len()],
            inputs,
            outputs: document.outputs,
            caller,
            dropped,
        });
        let prefix = if name.is_empty() { String::new() } else { format!("{name}/") };
        for name in document.broken {
            self.scopes[scope].names.insert(name, Entity::Broken);
        }
        for mut decl in document.nodes {
            let name = std::mem::take(&mut decl.name.text);
            let full = format!("{prefix}{name}");
            let entity = self.entity(scope, full, decl);
            self.scopes[scope].names.insert(name, entity);
        }
    }

    /// What a node's declaration stands for; `name` is the node's name with those of the graphs
    /// around it.
    fn entity(&mut self, scope: usize, name: String, decl: NodeDecl<'_>) -> Entity {
        if is_graph(&decl.op.text) {
            return self.subgraph(scope, name, decl);
        }
        let file = self.scopes[scope].file;
        let Some(op) = self.op(&decl.op.text) else {
            let hint = self.advice(&decl.op.text, self.catalog.names());
            let message = format!("there is no op `{}`", decl.op.text);
            self.problem("unknown-op", Place { file, span: decl.op.span }, message).hint =
                Some(hint.unwrap_or_else(|| "`kino nodes` lists all ops".to_owned()));
            return Entity::Broken;
        };
        let place = Place { file, span: decl.name.span };
        let written = self.written(scope, &decl, &op.signature.inputs);
        let node = Node { name: name.into(), op, place, feeds: Vec::new() };
        let index = self.nodes.add_node(node);
        self.drafts.push(Draft { scope, bypass: decl.bypass, written });
        Entity::Node(index)
    }

    fn op(&mut self, name: &str) -> Option<Arc<Op>> {
        if let Some(op) = self.ops.get(name) {
            return Some(Arc::clone(op));
        }
        let signature = self.catalog.signature(name)?.clone();
        let ports = signature.inputs.iter().map(|port| Arc::from(&*port.name)).collect();
        let version = Arc::from(&*signature.version);
        let op = Arc::new(Op { name: name.into(), version, signature, ports });
        self.ops.insert(name.to_owned(), Arc::clone(&op));
        Some(op)
    }

    fn subgraph(&mut self, scope: usize, name: String, decl: NodeDecl<'_>) -> Entity {
        let place = Place { file: self.scopes[scope].file, span: decl.op.span };
        let path = join(&self.scopes[scope].dir, &decl.op.text);
        if !self.may_open(&path, place) {
            return Entity::Broken;
        }
        let Some((file, span)) = self.file(&path, place) else { return Entity::Broken };
        let text = Arc::clone(&self.files[file as usize].text);
        let Some(document) = document::parse(file, &text, span, &mut self.problems) else {
            return Entity::Broken;
        };
        self.carried_as(file, &document, &text);
        self.parts += 1 + document.inputs.len() + document.nodes.len() + document.outputs.len();
        if self.parts > MOST {
            let message = format!("with all graphs that it uses, this graph has over {MOST} parts");
            self.problem("too-large", place, message);
            return Entity::Broken;
        }
        let inputs: Vec<_> =
            document.inputs.iter().map(|decl| self.declared(file, decl).port).collect();
        let written = self.written(scope, &decl, &inputs);
        if !decl.bypass {
            self.require(Place { span: decl.name.span, ..place }, &name, &inputs, &written);
        }
        let inner = self.scopes.len();
        let dir = path.rsplit_once('/').map_or(String::new(), |(dir, _)| format!("{dir}/"));
        self.stack.push(path);
        let caller = Caller { scope, written, bypass: decl.bypass };
        self.open(file, document, &dir, &name, Some(caller));
        self.stack.pop();
        Entity::Scope(inner)
    }

    /// Whether the graph at `path` may be used here; otherwise it is said why not.
    fn may_open(&mut self, path: &str, place: Place) -> bool {
        if let Some(first) = self.stack.iter().position(|open| open == path) {
            let chain = self.stack[first..].join(" → ");
            let message = format!("graphs use each other: {chain} → {path}");
            self.problem("recursion", place, message);
            return false;
        }
        if self.stack.len() > DEEPEST {
            let message = format!("graphs use graphs more than {DEEPEST} deep");
            self.problem("recursion", place, message);
            return false;
        }
        self.parts <= MOST
    }

    /// Notes how a record carries the text of a file: from its first comment on, unless extensions
    /// stand there.
    fn carried_as(&mut self, file: u32, document: &Document<'_>, text: &str) {
        let head = text.get(..document.whole.start as usize).unwrap_or_default();
        if (head.contains("#!") || head.starts_with('\u{feff}'))
            && let Some((_, _, start)) = self.sites.others.iter_mut().find(|other| other.1 == file)
        {
            *start = document.whole.start;
        }
    }

    /// Says which inputs of a graph used as a node are not fed.
    fn require(&mut self, place: Place, name: &str, inputs: &[Port], written: &[Option<Written>]) {
        let fed = inputs.iter().zip(written);
        for (port, _) in fed.filter(|(port, written)| port.is_required() && written.is_none()) {
            self.problems.push(missing(name, port, place));
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
                self.sites.others.push((path.to_owned(), file, 0));
                Some((file, span))
            }
            Err(reason) => {
                let message = format!("the graph `{path}` cannot be read: {reason}");
                self.problem("unreadable", place, message);
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

/// Whether an op is another graph's path.
pub(crate) fn is_graph(op: &str) -> bool {
    op.ends_with(".ron") || op.starts_with("./") || op.starts_with("../")
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
