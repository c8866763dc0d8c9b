//! First pass, text → [`Document`]: a graph as it is written, every part with its place. It knows
//! neither nodes nor other graphs.

use std::borrow::Cow;
use std::collections::HashMap;

use kino_port::{Literal, PortType};

use crate::diagnostic::{Diagnostic, Location, Report, Span, SyntaxError};
use crate::literal::decode;
use crate::ron::{self, Ast, AstKind, Fields};

/// The version of the graph language that this crate reads.
pub const VERSION: i128 = 1;

/// Maps up to this length are searched from end to end.
const FEW: usize = 16;

/// The longest name of a node, port or input, in bytes.
const LONGEST_NAME: usize = 255;

/// A name or text with its place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ident {
    pub(crate) text: String,
    pub(crate) span: Span,
}

/// A name as it stands in a text, with its place.
#[derive(Clone, Debug)]
pub(crate) struct Word<'a> {
    pub(crate) text: Cow<'a, str>,
    pub(crate) span: Span,
}

impl From<Word<'_>> for Ident {
    fn from(word: Word<'_>) -> Self {
        Ident { text: word.text.into_owned(), span: word.span }
    }
}

impl Ident {
    /// The longest op, edge or type, in bytes: an op may be a path, an edge two names.
    pub(crate) const LONGEST: usize = 4_096;
}

/// A graph as written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Document<'a> {
    pub(crate) about: String,
    pub(crate) inputs: Vec<InputDecl<'a>>,
    pub(crate) nodes: Vec<NodeDecl<'a>>,
    /// The names of nodes that were refused.
    pub(crate) broken: Vec<String>,
    pub(crate) outputs: Vec<(Ident, Ident)>,
    /// Graphs carried inside the file: name and the span of the text.
    pub(crate) graphs: Vec<(Ident, Span)>,
    /// The graph, without what stands before and behind it in its file.
    pub(crate) whole: Span,
    /// Just behind the opening bracket of the graph.
    pub(crate) opening: u32,
    /// Just behind the opening bracket of `graphs`, where that is written.
    pub(crate) graphs_opening: Option<u32>,
}

/// An input of the graph as written: its fields are decoded when its type is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct InputDecl<'a> {
    pub(crate) name: Ident,
    pub(crate) ty: Option<Ident>,
    pub(crate) default: Option<Ast<'a>>,
    pub(crate) range: Option<Ast<'a>>,
    pub(crate) step: Option<Ast<'a>>,
    pub(crate) choices: Option<Ast<'a>>,
    pub(crate) about: String,
    pub(crate) unit: String,
    /// Just behind the opening bracket.
    pub(crate) opening: u32,
    pub(crate) span: Span,
}

/// A node as written.
#[derive(Clone, Debug)]
pub(crate) struct NodeDecl<'a> {
    pub(crate) name: Word<'a>,
    pub(crate) op: Word<'a>,
    /// Edges by port.
    pub(crate) edges: Vec<(Word<'a>, Ast<'a>)>,
    /// Literals by port.
    pub(crate) literals: Vec<(Word<'a>, Ast<'a>)>,
    pub(crate) bypass: bool,
}

/// Reads the graph that stands at `span` of a text; `None` with a diagnostic where the syntax is
/// broken.
pub(crate) fn parse<'a>(
    file: u32,
    text: &'a str,
    span: Span,
    report: &mut Report,
) -> Option<Document<'a>> {
    if text.len() > u32::MAX as usize {
        let location = Location { file, span: Span::default() };
        report.error("syntax", location, "a graph's text is smaller than 4 GiB");
        return None;
    }
    match ron::read(text, span) {
        Ok(tree) => Parser { file, report }.graph(tree),
        Err(SyntaxError { message, span, hint }) => {
            let diagnostic = Diagnostic::error("syntax", Location { file, span }, message);
            report.push(diagnostic.maybe_hint(hint));
            None
        }
    }
}

struct Parser<'p> {
    file: u32,
    report: &'p mut Report,
}

impl Parser<'_> {
    fn problem(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.report.error(code, Location { file: self.file, span }, message)
    }

    fn expected(&mut self, what: &str, found: &Ast<'_>) {
        let message = format!("expected {what}, found {}", found.kind.noun());
        self.problem("malformed", found.span, message);
    }

    /// The values of a struct's fields in the order of `known`, each at most once, and where the
    /// struct opens.
    fn fields<'a, const N: usize>(
        &mut self,
        what: &str,
        tree: Ast<'a>,
        known: [&'static str; N],
    ) -> Option<(u32, [Option<Ast<'a>>; N])> {
        let AstKind::Struct(of_struct) = tree.kind else {
            self.expected(what, &tree);
            return None;
        };
        let Fields { opening, fields, .. } = *of_struct;
        let mut values = [const { None }; N];
        let mut spans = [Span::default(); N];
        for (key, value) in fields {
            let Some(index) = known.iter().position(|name| *name == key.name) else {
                let hint = self.report.advice(key.name, || known.iter().copied());
                let message = format!("{what} has no field `{}`", key.name);
                self.problem("unknown-key", key.span, message).hint = hint;
                continue;
            };
            if values[index].is_some() {
                self.duplicate(key.name, spans[index], key.span);
            } else {
                (values[index], spans[index]) = (Some(value), key.span);
            }
        }
        Some((opening, values))
    }

    fn duplicate(&mut self, name: &str, first: Span, span: Span) {
        let related = Location { file: self.file, span: first };
        let problem = self.problem("duplicate", span, format!("`{name}` is written twice"));
        problem.related.push((related, "the first".to_owned()));
    }

    /// The entries of a map whose keys are texts, each at most once.
    fn entries<'a>(&mut self, what: &str, tree: Ast<'a>) -> Vec<(Word<'a>, Ast<'a>)> {
        let AstKind::Map(pairs) = tree.kind else {
            self.expected(what, &tree);
            return Vec::new();
        };
        let mut entries: Vec<(Word<'a>, Ast<'a>)> = Vec::with_capacity(pairs.len());
        // A map of a few ports is searched faster than hashed.
        let mut seen = (pairs.len() > FEW).then(|| HashMap::with_capacity(pairs.len()));
        for (key, value) in pairs {
            let AstKind::Text(text) = key.kind else {
                self.expected("a name in quotes", &key);
                continue;
            };
            if !self.is_short("this name", &text, LONGEST_NAME, key.span) {
                continue;
            }
            let first = match &mut seen {
                Some(seen) => seen.insert(text.clone(), key.span),
                None => {
                    entries.iter().find(|(word, _)| word.text == text).map(|(word, _)| word.span)
                }
            };
            match first {
                Some(first) => {
                    self.duplicate(&text, first, key.span);
                    // All others are compared with the first.
                    seen.as_mut().and_then(|seen| seen.insert(text, first));
                }
                None => entries.push((Word { text, span: key.span }, value)),
            }
        }
        entries
    }

    /// Whether a name is no longer than it may be; otherwise it is said, without the name.
    fn is_short(&mut self, what: &str, text: &str, most: usize, span: Span) -> bool {
        let fits = text.len() <= most;
        if !fits {
            let message = format!("{what} is {} bytes long, at most {most} fit", text.len());
            self.problem("too-long", span, message);
        }
        fits
    }

    /// A short text: an op, an edge, a type.
    fn reference<'a>(&mut self, what: &str, tree: Ast<'a>) -> Option<Word<'a>> {
        let word = self.word(what, tree)?;
        self.is_short("this", &word.text, Ident::LONGEST, word.span).then_some(word)
    }

    fn word<'a>(&mut self, what: &str, tree: Ast<'a>) -> Option<Word<'a>> {
        match tree.kind {
            AstKind::Text(text) => Some(Word { text, span: tree.span }),
            _ => {
                self.expected(what, &tree);
                None
            }
        }
    }

    fn graph<'a>(&mut self, tree: Ast<'a>) -> Option<Document<'a>> {
        let whole = tree.span;
        if let AstKind::Struct(of_struct) = &tree.kind
            && let Some(name) = of_struct.name
            && name != "Graph"
        {
            let span = Span { start: whole.start, end: whole.start + name.len() as u32 };
            self.problem("malformed", span, format!("expected `Graph(…)`, found `{name}(…)`"));
        }
        let known = ["version", "about", "inputs", "nodes", "outputs", "graphs"];
        let (opening, [version, about, inputs, nodes, outputs, graphs]) =
            self.fields("a graph", tree, known)?;
        let mut document = Document { whole, opening, ..Document::default() };
        self.version(whole, version);
        document.about = self.text(about);
        for (name, value) in self.optional_entries("a map of inputs", inputs) {
            self.check_name("an input", &name);
            document.inputs.push(self.input(name.into(), value));
        }
        let nodes = self.optional_entries("a map of nodes", nodes);
        document.nodes.reserve(nodes.len());
        for (name, value) in nodes {
            self.check_name("a node", &name);
            match self.node(name, value) {
                Ok(node) => document.nodes.push(node),
                Err(name) => document.broken.push(name.text.into_owned()),
            }
        }
        let outputs = self.optional_entries("a map of outputs", outputs);
        document.outputs.reserve(outputs.len());
        for (name, value) in outputs {
            self.check_name("an output", &name);
            let edge = self.reference("an edge such as \"node.port\"", value);
            document.outputs.extend(edge.map(|edge| (name.into(), edge.into())));
        }
        document.graphs_opening = graphs.as_ref().map(|tree| tree.span.start + 1);
        for (name, value) in self.optional_entries("a map of graphs", graphs) {
            document.graphs.push((name.into(), value.span));
        }
        Some(document)
    }

    fn optional_entries<'a>(
        &mut self,
        what: &str,
        tree: Option<Ast<'a>>,
    ) -> Vec<(Word<'a>, Ast<'a>)> {
        tree.map_or_else(Vec::new, |tree| self.entries(what, tree))
    }

    /// The text of an optional field.
    fn text(&mut self, tree: Option<Ast<'_>>) -> String {
        let word = tree.and_then(|tree| self.word("a text", tree));
        word.map_or_else(String::new, |word| word.text.into_owned())
    }

    fn version(&mut self, whole: Span, tree: Option<Ast<'_>>) {
        let Some(tree) = tree else {
            let span = Span { start: whole.start, end: whole.start + 1 };
            let problem = self.problem("version", span, "the graph does not say its version");
            problem.hint = Some(format!("write `version: {VERSION},` first"));
            return;
        };
        if decode(&tree, &PortType::Int) != Ok(Literal::Int(VERSION)) {
            let message = format!("expected version {VERSION} of the graph language");
            self.problem("version", tree.span, message).hint =
                Some("a newer kino may be needed".to_owned());
        }
    }

    fn check_name(&mut self, what: &str, name: &Word<'_>) {
        let mut bytes = name.text.bytes();
        let starts = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase());
        let goes_on =
            bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if !(starts && goes_on) {
            let message = format!("`{}` is no name for {what}", name.text);
            self.problem("bad-name", name.span, message).hint =
                Some("names are lower-case letters, digits and `_`, a letter first".to_owned());
        } else if name.text == "inputs" && what == "a node" {
            self.problem(
                "bad-name",
                name.span,
                "`inputs` is the graph's own inputs, no name for a node",
            );
        }
    }

    fn input<'a>(&mut self, name: Ident, tree: Ast<'a>) -> InputDecl<'a> {
        let span = tree.span;
        let known = ["type", "default", "range", "step", "choices", "about", "unit"];
        let Some((opening, [ty, default, range, step, choices, about, unit])) =
            self.fields("an input", tree, known)
        else {
            return InputDecl { name, span, ..InputDecl::default() };
        };
        let ty = match ty {
            Some(tree) => self.reference("a type in quotes", tree).map(Ident::from),
            None => {
                let message = format!("input `{}` does not say its type", name.text);
                self.problem("missing-key", name.span, message).hint = Some(
                    "write `type: \"Text\"`, \"Int\", \"Real\", \"Bool\" or \"Path\"".to_owned(),
                );
                None
            }
        };
        let (about, unit) = (self.text(about), self.text(unit));
        InputDecl { name, ty, default, range, step, choices, about, unit, opening, span }
    }

    /// A node, or its name where it is refused.
    fn node<'a>(&mut self, name: Word<'a>, tree: Ast<'a>) -> Result<NodeDecl<'a>, Word<'a>> {
        let known = ["op", "in", "with", "bypass"];
        let Some((_, [op, edges, literals, bypass])) = self.fields("a node", tree, known) else {
            return Err(name);
        };
        let op = match op {
            Some(tree) => match self.reference("an op in quotes", tree) {
                Some(word) => word,
                None => return Err(name),
            },
            None => {
                let message = format!("node `{}` does not say its op", name.text);
                self.problem("missing-key", name.span, message).hint =
                    Some("write `op: \"…\"`; `kino nodes` lists them".to_owned());
                return Err(name);
            }
        };
        let edges = self.optional_entries("a map of edges", edges);
        let literals = self.optional_entries("a map of values", literals);
        let bypass = match bypass {
            None => false,
            Some(Ast { kind: AstKind::Bool(bypass), .. }) => bypass,
            Some(tree) => {
                self.expected("true or false", &tree);
                false
            }
        };
        Ok(NodeDecl { name, op, edges, literals, bypass })
    }
}
