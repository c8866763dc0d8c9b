//! What is written for the ports of a node: edges, values, path templates.

use std::sync::Arc;

use kino_port::{Literal, Port, PortType, Range};

use crate::diagnostic::{Diagnostic, Place, Span};
use crate::document::{NodeDecl, Word};
use crate::literal::decode;
use crate::ron::{Form, Tree};
use crate::scope::Opener;
use crate::template::{self, Part};

/// What is written for one port.
#[derive(Clone, Debug)]
pub(crate) enum Written {
    Literal(Literal, Place),
    /// `"random"`: a number drawn while planning, within the range of the port that it is written
    /// for.
    Draw(Option<Range>, Place),
    Template(Vec<Part>, Place),
    /// Several path templates.
    Templates(Vec<Written>, Place),
    Edge(Word),
    /// A list of edges, or a map of named ones.
    Edges(Vec<(Option<Arc<str>>, Word)>, Place),
    /// Something that was refused; nothing more is said of it.
    Broken,
}

impl Opener<'_> {
    /// What is written for each of `ports`; complains of ports that are not there or fed twice.
    pub(crate) fn written(
        &mut self,
        scope: usize,
        decl: &NodeDecl<'_>,
        ports: &[Port],
    ) -> Vec<Option<Written>> {
        let file = self.scopes[scope].file;
        let mut written: Vec<Option<Written>> = vec![None; ports.len()];
        let mut edges: Vec<Option<Span>> = Vec::new();
        for (word, tree) in &decl.edges {
            if let Some(index) = self.port(file, decl, word, ports) {
                edges.resize(ports.len(), None);
                edges[index] = Some(word.span);
                written[index] = Some(self.edges(file, tree).unwrap_or(Written::Broken));
            }
        }
        for (word, tree) in &decl.literals {
            let Some(index) = self.port(file, decl, word, ports) else { continue };
            if let Some(Some(edge)) = edges.get(index) {
                let related = Place { file, span: *edge };
                let message = format!("`{}` is fed both by an edge and by a value", word.text);
                let problem = self.problem("fed-twice", Place { file, span: word.span }, message);
                problem.related.push((related, "the edge".to_owned()));
            }
            let literal = self.literal(file, tree, &ports[index]);
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
            let hint = self.advice(&word.text, ports.iter().map(|port| &*port.name));
            let message = format!("`{}` has no input `{}`", decl.op.text, word.text);
            self.problem("unknown-port", Place { file, span: word.span }, message).hint = hint;
        }
        found
    }

    fn edges(&mut self, file: u32, tree: &Tree<'_>) -> Option<Written> {
        let place = Place { file, span: tree.span };
        let mut edges: Vec<(Option<Arc<str>>, Word)> = Vec::new();
        match &tree.form {
            Form::Text(text) => {
                return Some(Written::Edge(Word { text: text.to_string(), span: tree.span }));
            }
            Form::List(items) => {
                for item in items {
                    edges.push((None, self.edge_word(file, item)?));
                }
            }
            Form::Map(pairs) => {
                let mut names = std::collections::HashMap::with_capacity(pairs.len());
                for (key, item) in pairs {
                    let name = self.edge_name(file, key)?;
                    if let Some(first) = names.insert(Arc::clone(&name), key.span) {
                        let related = Place { file, span: first };
                        let message = format!("`{name}` stands here twice");
                        let place = Place { file, span: key.span };
                        let problem = self.problem("duplicate", place, message);
                        problem.related.push((related, "the first".to_owned()));
                    }
                    edges.push((Some(name), self.edge_word(file, item)?));
                }
            }
            other => {
                let message =
                    format!("expected an edge such as \"node.port\", found {}", other.kind());
                self.problem("malformed", place, message).hint =
                    Some("a value stands in `with`".to_owned());
                return None;
            }
        }
        Some(Written::Edges(edges, place))
    }

    fn edge_word(&mut self, file: u32, tree: &Tree<'_>) -> Option<Word> {
        if let Form::Text(text) = &tree.form {
            return Some(Word { text: text.to_string(), span: tree.span });
        }
        let found = tree.form.kind();
        let message = format!("expected an edge such as \"node.port\", found {found}");
        self.problem("malformed", Place { file, span: tree.span }, message);
        None
    }

    fn edge_name(&mut self, file: u32, tree: &Tree<'_>) -> Option<Arc<str>> {
        match &tree.form {
            Form::Text(text) if !text.is_empty() => Some(Arc::from(&**text)),
            other => {
                let message = format!("expected a name in quotes, found {}", other.kind());
                self.problem("malformed", Place { file, span: tree.span }, message);
                None
            }
        }
    }

    fn literal(&mut self, file: u32, tree: &Tree<'_>, port: &Port) -> Option<Written> {
        let place = Place { file, span: tree.span };
        if !port.ty.is_literal() && port.ty != PortType::Any {
            let message = format!("`{}` takes {}, which cannot be written out", port.name, port.ty);
            self.problem("type", place, message).hint =
                Some("feed it with an edge, in `in`".to_owned());
            return None;
        }
        match decode(tree, &port.ty).and_then(|literal| port.admit(literal)) {
            Ok(Literal::Text(text)) if port.draws && text == "random" => {
                Some(Written::Draw(port.range, place))
            }
            Ok(Literal::Text(text)) if port.ty == PortType::Path => self.template(&text, place),
            Ok(Literal::List(items)) if port.ty == PortType::Path => {
                let texts = items.iter().filter_map(|item| match item {
                    Literal::Text(text) => self.template(text, place),
                    _ => None,
                });
                Some(Written::Templates(texts.collect(), place))
            }
            Ok(literal) => Some(Written::Literal(literal, place)),
            Err(refusal) => {
                let message = format!("`{}`: {}", port.name, refusal.message);
                let hint = refusal.hint.or_else(|| nearest_choice(tree, port));
                self.problem("value", place, message).hint = hint;
                None
            }
        }
    }

    /// The template that a path is.
    pub(crate) fn template(&mut self, text: &str, place: Place) -> Option<Written> {
        match template::parse(text) {
            Ok(parts) => Some(Written::Template(parts, place)),
            Err(message) => {
                self.problems.push(Diagnostic::error("template", place, message));
                None
            }
        }
    }
}

fn nearest_choice(tree: &Tree<'_>, port: &Port) -> Option<String> {
    let Form::Text(text) = &tree.form else { return None };
    let near = crate::diagnostic::nearest(text, port.choices.iter().map(|choice| &**choice))?;
    Some(format!("did you mean \"{near}\"?"))
}

impl Written {
    /// Where it is written.
    pub(crate) fn place(&self, file: u32) -> Place {
        match self {
            Written::Literal(_, place)
            | Written::Draw(_, place)
            | Written::Template(_, place)
            | Written::Templates(_, place)
            | Written::Edges(_, place) => *place,
            Written::Edge(word) => Place { file, span: word.span },
            Written::Broken => Place::default(),
        }
    }
}
