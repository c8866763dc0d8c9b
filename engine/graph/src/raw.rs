//! What is written for the ports of a node, before any name is resolved: edges, values, path
//! templates.

use std::collections::HashMap;
use std::sync::Arc;

use kino_port::{Arity, Literal, Port, PortType, Range};

use crate::diagnostic::{Location, Report, Span};
use crate::literal::decode;
use crate::names::NameIndex;
use crate::parse::{Ident, NodeDecl, Word};
use crate::ron::{Ast, AstKind};
use crate::template::{self, Part};

/// What is written for one port.
#[derive(Clone, Debug)]
pub(crate) enum RawInput {
    Literal(Arc<Literal>, Location),
    /// `"random"`: a number drawn while planning, within the range of the port that it is written
    /// for.
    Draw(Option<Arc<Range>>, Location),
    Template(Vec<Part>, Location),
    /// Several path templates, or a map of named values.
    Items(Vec<(Option<Arc<str>>, RawInput)>, Location),
    Edge(Ident),
    /// A list of edges, or a map of named ones.
    Edges(Vec<(Option<Arc<str>>, Ident)>, Location),
    /// What the body of a `repeat` gives: an output, by its index, of the graph of a scope.
    Turn(TurnOutput, Location),
    /// The same output of every turn, in their order.
    Turns(Vec<TurnOutput>, Location),
    /// Something that was refused; nothing more is said of it.
    Broken,
}

/// An output of one turn of a `repeat`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TurnOutput {
    /// The scope of the turn.
    pub(crate) scope: usize,
    /// The index among the outputs of its graph.
    pub(crate) output: usize,
}

impl RawInput {
    /// Where it is written.
    pub(crate) fn location(&self, file: u32) -> Location {
        match self {
            RawInput::Literal(_, location)
            | RawInput::Draw(_, location)
            | RawInput::Template(_, location)
            | RawInput::Items(_, location)
            | RawInput::Edges(_, location)
            | RawInput::Turn(_, location)
            | RawInput::Turns(_, location) => *location,
            RawInput::Edge(word) => Location { file, span: word.span },
            RawInput::Broken => Location::default(),
        }
    }
}

/// What a node's declaration in `file` writes for each of `ports`, which are those of `op`;
/// complains of ports that are not there or fed twice.
pub(crate) fn raw_inputs(
    file: u32,
    decl: &NodeDecl<'_>,
    (op, ports): (&str, &[Port]),
    report: &mut Report,
) -> Vec<Option<RawInput>> {
    let mut reader = Reader { file, op, report };
    let index = NameIndex::of(ports.iter().map(|port| &*port.name));
    let mut inputs: Vec<Option<RawInput>> = vec![None; ports.len()];
    let mut edges: Vec<Option<Span>> = Vec::new();
    for (word, ast) in &decl.edges {
        if let Some(at) = reader.port(word, ports, &index) {
            edges.resize(ports.len(), None);
            edges[at] = Some(word.span);
            inputs[at] = Some(reader.edges(ast).unwrap_or(RawInput::Broken));
        }
    }
    for (word, ast) in &decl.literals {
        let Some(at) = reader.port(word, ports, &index) else { continue };
        if let Some(Some(edge)) = edges.get(at) {
            let related = reader.location(*edge);
            let message = format!("`{}` is fed both by an edge and by a value", word.text);
            let location = reader.location(word.span);
            let problem = reader.report.error("fed-twice", location, message);
            problem.related.push((related, "the edge".to_owned()));
        }
        inputs[at] = Some(reader.literal(ast, &ports[at]).unwrap_or(RawInput::Broken));
    }
    inputs
}

struct Reader<'r> {
    file: u32,
    op: &'r str,
    report: &'r mut Report,
}

impl Reader<'_> {
    fn location(&self, span: Span) -> Location {
        Location { file: self.file, span }
    }

    fn port(&mut self, word: &Word<'_>, ports: &[Port], index: &NameIndex) -> Option<usize> {
        let names = || ports.iter().map(|port| &*port.name);
        let found = index.position(&word.text, names());
        if found.is_none() {
            let hint = self.report.advice(&word.text, names);
            let message = format!("`{}` has no input `{}`", self.op, word.text);
            self.report.error("unknown-port", self.location(word.span), message).hint = hint;
        }
        found
    }

    fn edges(&mut self, ast: &Ast<'_>) -> Option<RawInput> {
        let mut edges: Vec<(Option<Arc<str>>, Ident)> = Vec::new();
        // Each item that is no edge is told.
        let all = match &ast.kind {
            AstKind::Text(_) => return Some(RawInput::Edge(self.edge(ast)?)),
            AstKind::List(items) => {
                for item in items {
                    edges.extend(self.edge(item).map(|edge| (None, edge)));
                }
                items.len()
            }
            AstKind::Map(pairs) => {
                for (name, item) in self.named(pairs)? {
                    edges.extend(self.edge(item).map(|edge| (Some(name), edge)));
                }
                pairs.len()
            }
            other => {
                let message =
                    format!("expected an edge such as \"node.port\", found {}", other.noun());
                self.report.error("malformed", self.location(ast.span), message).hint =
                    Some("values belong in `with`".to_owned());
                return None;
            }
        };
        (edges.len() == all).then(|| RawInput::Edges(edges, self.location(ast.span)))
    }

    fn edge(&mut self, ast: &Ast<'_>) -> Option<Ident> {
        match &ast.kind {
            AstKind::Text(text) if text.len() > Ident::LONGEST => {
                let (len, most) = (text.len(), Ident::LONGEST);
                let message = format!("this edge is {len} bytes long, at most {most} fit");
                self.report.error("too-long", self.location(ast.span), message);
                None
            }
            AstKind::Text(text) => Some(Ident { text: text.to_string(), span: ast.span }),
            other => {
                let found = other.noun();
                let message = format!("expected an edge such as \"node.port\", found {found}");
                self.report.error("malformed", self.location(ast.span), message);
                None
            }
        }
    }

    /// The items of a map with their names, each at most once.
    fn named<'p, 'a>(
        &mut self,
        pairs: &'p [(Ast<'a>, Ast<'a>)],
    ) -> Option<Vec<(Arc<str>, &'p Ast<'a>)>> {
        let mut names = HashMap::with_capacity(pairs.len());
        let mut items = Vec::with_capacity(pairs.len());
        for (key, item) in pairs {
            let name = self.item_name(key)?;
            if let Some(first) = names.insert(Arc::clone(&name), key.span) {
                let related = self.location(first);
                let message = format!("`{name}` is written twice");
                let location = self.location(key.span);
                let problem = self.report.error("duplicate", location, message);
                problem.related.push((related, "the first".to_owned()));
            }
            items.push((name, item));
        }
        Some(items)
    }

    fn item_name(&mut self, ast: &Ast<'_>) -> Option<Arc<str>> {
        match &ast.kind {
            AstKind::Text(text) if !text.is_empty() && text.len() <= Ident::LONGEST => {
                Some(Arc::from(&**text))
            }
            other => {
                let message = format!("expected a name in quotes, found {}", other.noun());
                self.report.error("malformed", self.location(ast.span), message);
                None
            }
        }
    }

    fn literal(&mut self, ast: &Ast<'_>, port: &Port) -> Option<RawInput> {
        let location = self.location(ast.span);
        if !port.ty.is_literal() && port.ty != PortType::Any {
            let message =
                format!("`{}` takes {}, which cannot be written as a value", port.name, port.ty);
            self.report.error("type", location, message).hint =
                Some("feed it with an edge, in `in`".to_owned());
            return None;
        }
        if let AstKind::Map(pairs) = &ast.kind
            && port.is_list()
        {
            // An item is one value, which the port's item says how to read.
            let item = Port { arity: Arity::One, ..port.clone() };
            let items = self.named(pairs)?.into_iter();
            let items = items.map(|(name, ast)| Some((Some(name), self.item(ast, &item)?)));
            return Some(RawInput::Items(items.collect::<Option<_>>()?, location));
        }
        match decode(ast, &port.ty).and_then(|literal| port.coerce(literal)) {
            Ok(Literal::Text(text)) if port.draws && text == "random" => {
                Some(RawInput::Draw(port.range.map(Arc::new), location))
            }
            Ok(Literal::Text(text)) if port.ty == PortType::Path => self.template(&text, location),
            Ok(Literal::List(items)) if port.ty == PortType::Path => {
                let texts = items.iter().filter_map(|item| match item {
                    Literal::Text(text) => Some((None, self.template(text, location)?)),
                    _ => None,
                });
                Some(RawInput::Items(texts.collect(), location))
            }
            Ok(literal) => Some(RawInput::Literal(Arc::new(literal), location)),
            Err(error) => {
                let message = format!("`{}`: {}", port.name, error.message);
                let numbers = || port.numbers.then(|| format!("`{}` takes numbers", self.op));
                let hint = error.hint.or_else(|| nearest_choice(ast, port)).or_else(numbers);
                self.report.error("value", location, message).hint = hint;
                None
            }
        }
    }

    /// A named value of a list.
    fn item(&mut self, ast: &Ast<'_>, item: &Port) -> Option<RawInput> {
        if matches!(ast.kind, AstKind::List(_) | AstKind::Map(_)) {
            let (name, found) = (&item.name, ast.kind.noun());
            let message =
                format!("`{name}`: expected {} for each name, found {found}", item.expected());
            self.report.error("value", self.location(ast.span), message);
            return None;
        }
        self.literal(ast, item)
    }

    /// The template that a path is.
    fn template(&mut self, text: &str, location: Location) -> Option<RawInput> {
        match template::parse(text) {
            Ok(parts) => Some(RawInput::Template(parts, location)),
            Err(message) => {
                self.report.error("template", location, message);
                None
            }
        }
    }
}

fn nearest_choice(ast: &Ast<'_>, port: &Port) -> Option<String> {
    let AstKind::Text(text) = &ast.kind else { return None };
    let near = kino_port::nearest(text, port.choices.iter().map(|choice| &**choice))?;
    Some(format!("did you mean \"{near}\"?"))
}
