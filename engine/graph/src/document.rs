//! A graph as it is written: every part with its place, nothing resolved yet.

use std::collections::HashMap;

use crate::diagnostic::{Diagnostic, Fault, Place, Span, suggest};
use crate::ron::{self, Form, Key, Tree};

/// The version of the graph language that this crate reads.
pub const VERSION: i128 = 1;

/// A name or text with its place.
#[derive(Clone, Debug)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) span: Span,
}

/// A graph as written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Document<'a> {
    pub(crate) about: String,
    pub(crate) inputs: Vec<InputDecl<'a>>,
    pub(crate) nodes: Vec<NodeDecl<'a>>,
    pub(crate) outputs: Vec<(Word, Word)>,
    /// Graphs carried inside the file: name and the span of the text.
    pub(crate) graphs: Vec<(Word, Span)>,
    /// Just behind the opening bracket of the graph.
    pub(crate) opening: u32,
    /// Just behind the opening bracket of `graphs`, where that is written.
    pub(crate) graphs_opening: Option<u32>,
}

/// An input of the graph as written: its fields are decoded when its type is known.
#[derive(Clone, Debug)]
pub(crate) struct InputDecl<'a> {
    pub(crate) name: Word,
    pub(crate) ty: Option<Word>,
    pub(crate) default: Option<Tree<'a>>,
    pub(crate) range: Option<Tree<'a>>,
    pub(crate) step: Option<Tree<'a>>,
    pub(crate) choices: Option<Tree<'a>>,
    pub(crate) about: String,
    pub(crate) unit: String,
    pub(crate) span: Span,
}

/// A node as written.
#[derive(Clone, Debug)]
pub(crate) struct NodeDecl<'a> {
    pub(crate) name: Word,
    pub(crate) op: Word,
    /// Edges by port.
    pub(crate) edges: Vec<(Word, Tree<'a>)>,
    /// Literals by port.
    pub(crate) literals: Vec<(Word, Tree<'a>)>,
    pub(crate) bypass: bool,
}

/// Reads the graph that stands at `span` of a text; `None` with a diagnostic where the syntax is broken.
pub(crate) fn parse<'a>(
    file: u32,
    text: &'a str,
    span: Span,
    problems: &mut Vec<Diagnostic>,
) -> Option<Document<'a>> {
    if text.len() > u32::MAX as usize {
        let place = Place { file, span: Span::default() };
        problems.push(Diagnostic::error("syntax", place, "a graph's text is smaller than 4 GiB"));
        return None;
    }
    match ron::read(text, span) {
        Ok(tree) => Parser { file, problems }.graph(tree),
        Err(Fault { message, span, hint }) => {
            let diagnostic = Diagnostic::error("syntax", Place { file, span }, message);
            problems.push(diagnostic.maybe_hint(hint));
            None
        }
    }
}

struct Parser<'p> {
    file: u32,
    problems: &'p mut Vec<Diagnostic>,
}

impl Parser<'_> {
    fn problem(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        let place = Place { file: self.file, span };
        let at = self.problems.len();
        self.problems.push(Diagnostic::error(code, place, message));
        &mut self.problems[at]
    }

    fn expected(&mut self, what: &str, found: &Tree<'_>) {
        let message = format!("expected {what}, found {}", found.form.kind());
        self.problem("malformed", found.span, message);
    }

    /// The fields of a struct, each at most once and each known.
    fn fields<'a>(
        &mut self,
        what: &str,
        tree: Tree<'a>,
        known: &[&'static str],
    ) -> Option<HashMap<&'a str, (Key<'a>, Tree<'a>)>> {
        let fields = match tree.form {
            Form::Struct(_, fields) => fields,
            _ => {
                self.expected(what, &tree);
                return None;
            }
        };
        let mut found: HashMap<&str, (Key<'_>, Tree<'_>)> = HashMap::with_capacity(fields.len());
        for (key, value) in fields {
            if !known.contains(&key.name) {
                let hint = suggest(key.name, known.iter().copied());
                let message = format!("{what} has no field `{}`", key.name);
                self.problem("unknown-key", key.span, message).hint = hint;
            } else if let Some((first, _)) = found.get(key.name) {
                let (first, place) = (first.span, Place { file: self.file, span: key.span });
                let message = format!("`{}` stands here twice", key.name);
                let related = Place { file: self.file, span: first };
                self.problems.push(
                    Diagnostic::error("duplicate", place, message).related(related, "the first"),
                );
            } else {
                found.insert(key.name, (key, value));
            }
        }
        Some(found)
    }

    /// The entries of a map whose keys are texts, each at most once. A struct will do.
    fn entries<'a>(&mut self, what: &str, tree: Tree<'a>) -> Vec<(Word, Tree<'a>)> {
        let pairs: Vec<(Word, Tree<'a>)> = match tree.form {
            Form::Map(pairs) => {
                let mut named = Vec::with_capacity(pairs.len());
                for (key, value) in pairs {
                    match key.form {
                        Form::Text(text) => {
                            named.push((Word { text: text.into_owned(), span: key.span }, value))
                        }
                        _ => self.expected("a name in quotes", &key),
                    }
                }
                named
            }
            _ => {
                self.expected(what, &tree);
                Vec::new()
            }
        };
        let mut first: HashMap<String, Span> = HashMap::with_capacity(pairs.len());
        let mut unique = Vec::with_capacity(pairs.len());
        for (word, value) in pairs {
            if let Some(span) = first.get(&word.text) {
                let related = Place { file: self.file, span: *span };
                let place = Place { file: self.file, span: word.span };
                let message = format!("`{}` stands here twice", word.text);
                self.problems.push(
                    Diagnostic::error("duplicate", place, message).related(related, "the first"),
                );
            } else {
                first.insert(word.text.clone(), word.span);
                unique.push((word, value));
            }
        }
        unique
    }

    fn word(&mut self, what: &str, tree: &Tree<'_>) -> Option<Word> {
        match &tree.form {
            Form::Text(text) => Some(Word { text: text.to_string(), span: tree.span }),
            _ => {
                self.expected(what, tree);
                None
            }
        }
    }

    fn graph<'a>(&mut self, tree: Tree<'a>) -> Option<Document<'a>> {
        let whole = tree.span;
        if let Form::Struct(Some(name), _) = &tree.form
            && *name != "Graph"
        {
            let span = Span { start: whole.start, end: whole.start + name.len() as u32 };
            self.problem("malformed", span, format!("expected `Graph(…)`, found `{name}(…)`"));
        }
        let opening = match &tree.form {
            Form::Struct(Some(name), _) => whole.start + name.len() as u32 + 1,
            _ => whole.start + 1,
        };
        let known = ["version", "about", "inputs", "nodes", "outputs", "graphs"];
        let mut fields = self.fields("a graph", tree, &known)?;
        let mut document = Document { opening, ..Document::default() };
        self.version(whole, fields.remove("version").map(|(_, tree)| tree));
        if let Some((_, tree)) = fields.remove("about") {
            document.about = self.word("a text", &tree).map_or_else(String::new, |word| word.text);
        }
        if let Some((_, tree)) = fields.remove("inputs") {
            for (name, value) in self.entries("a map of inputs", tree) {
                self.check_name("an input", &name);
                document.inputs.extend(self.input(name, value));
            }
        }
        if let Some((_, tree)) = fields.remove("nodes") {
            for (name, value) in self.entries("a map of nodes", tree) {
                self.check_name("a node", &name);
                document.nodes.extend(self.node(name, value));
            }
        }
        if let Some((_, tree)) = fields.remove("outputs") {
            for (name, value) in self.entries("a map of outputs", tree) {
                self.check_name("an output", &name);
                let edge = self.word("an edge such as \"node.port\"", &value);
                document.outputs.extend(edge.map(|edge| (name, edge)));
            }
        }
        if let Some((_, tree)) = fields.remove("graphs") {
            document.graphs_opening = Some(tree.span.start + 1);
            for (name, value) in self.entries("a map of graphs", tree) {
                document.graphs.push((name, value.span));
            }
        }
        Some(document)
    }

    fn version(&mut self, whole: Span, tree: Option<Tree<'_>>) {
        let Some(tree) = tree else {
            let span = Span { start: whole.start, end: whole.start + 1 };
            let problem = self.problem("version", span, "the graph does not say its version");
            problem.hint = Some(format!("write `version: {VERSION},` first"));
            return;
        };
        match &tree.form {
            Form::Number(digits) if digits.parse() == Ok(VERSION) => {}
            _ => {
                let problem = self.problem(
                    "version",
                    tree.span,
                    format!("expected version {VERSION} of the graph language"),
                );
                problem.hint = Some("a newer kino may be needed".to_owned());
            }
        }
    }

    fn check_name(&mut self, what: &str, name: &Word) {
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

    fn input<'a>(&mut self, name: Word, tree: Tree<'a>) -> Option<InputDecl<'a>> {
        let span = tree.span;
        let known = ["type", "default", "range", "step", "choices", "about", "unit"];
        let mut fields = self.fields("an input", tree, &known)?;
        let ty = match fields.remove("type") {
            Some((_, tree)) => self.word("a type in quotes", &tree),
            None => {
                self.problem(
                    "missing-key",
                    name.span,
                    format!("input `{}` does not say its type", name.text),
                )
                .hint = Some(
                    "write `type: \"Text\"`, \"Int\", \"Real\", \"Bool\" or \"Path\"".to_owned(),
                );
                None
            }
        };
        let mut text = |parser: &mut Self, field: &str| {
            let word = fields.remove(field).and_then(|(_, tree)| parser.word("a text", &tree));
            word.map_or_else(String::new, |word| word.text)
        };
        let (about, unit) = (text(self, "about"), text(self, "unit"));
        let mut take = |field: &str| fields.remove(field).map(|(_, tree)| tree);
        let (default, range, step) = (take("default"), take("range"), take("step"));
        Some(InputDecl {
            name,
            ty,
            default,
            range,
            step,
            choices: take("choices"),
            about,
            unit,
            span,
        })
    }

    fn node<'a>(&mut self, name: Word, tree: Tree<'a>) -> Option<NodeDecl<'a>> {
        let mut fields = self.fields("a node", tree, &["op", "in", "with", "bypass"])?;
        let op = match fields.remove("op") {
            Some((_, tree)) => self.word("an op in quotes", &tree)?,
            None => {
                self.problem(
                    "missing-key",
                    name.span,
                    format!("node `{}` does not say its op", name.text),
                )
                .hint = Some("write `op: \"…\"`; `kino nodes` lists them".to_owned());
                return None;
            }
        };
        let edges = fields
            .remove("in")
            .map_or_else(Vec::new, |(_, tree)| self.entries("a map of edges", tree));
        let literals = fields
            .remove("with")
            .map_or_else(Vec::new, |(_, tree)| self.entries("a map of values", tree));
        let bypass = match fields.remove("bypass") {
            None => false,
            Some((_, Tree { form: Form::Bool(bypass), .. })) => bypass,
            Some((_, tree)) => {
                self.expected("true or false", &tree);
                false
            }
        };
        Some(NodeDecl { name, op, edges, literals, bypass })
    }
}
