//! Resolves every edge to the node or graph input behind it, through graphs used as nodes and bypassed nodes.

use std::sync::Arc;

use kino_port::PortType;
use petgraph::graph::NodeIndex;

use crate::diagnostic::{Diagnostic, Place, suggest};
use crate::document::Word;
use crate::graph::{Feed, FeedSource, Piece};
use crate::scope::{Entity, Opener, Written};
use crate::template::Part;

/// More steps from an edge to its source than any real graph has: the edge runs in a circle.
const LONGEST: usize = 256;

impl Opener<'_> {
    /// Fills the feeds of every node.
    pub(crate) fn connect(&mut self) {
        for index in self.nodes.node_indices() {
            let draft = &mut self.drafts[index.index()];
            let (scope, written) = (draft.scope, draft.written.clone());
            let place = self.nodes[index].place;
            let mut feeds = Vec::with_capacity(written.len());
            for one in &written {
                feeds.push(match one {
                    None => Feed::absent(place),
                    Some(one) => self
                        .feed(scope, one, 0)
                        .unwrap_or(Feed { source: FeedSource::Broken, place }),
                });
            }
            self.nodes[index].feeds = feeds;
        }
        self.check_calls();
    }

    /// Resolves the edges into graphs used as nodes, even where nothing inside reads them, to find what is wrong.
    fn check_calls(&mut self) {
        for inner in 0..self.scopes.len() {
            let Some((scope, written)) = self.scopes[inner].caller.clone() else { continue };
            for (index, one) in written.iter().enumerate() {
                let Some(one) = one else { continue };
                let Some(feed) = self.feed(scope, one, 0) else { continue };
                let port = self.scopes[inner].inputs[index].port.clone();
                self.check_call(&feed, &port);
            }
        }
    }

    /// Checks what is fed to a graph used as a node against the input's declaration.
    fn check_call(&mut self, feed: &Feed, port: &kino_port::Port) {
        let from = match &feed.source {
            FeedSource::Edge(node, output) => {
                let from = &self.nodes[*node].op.signature.outputs[*output as usize];
                (!matches!(from.ty, PortType::Any)).then(|| from.ty.clone())
            }
            FeedSource::Input(index) => Some(self.scopes[0].inputs[*index].port.ty.clone()),
            FeedSource::List(items) => {
                if !port.is_list() {
                    let message =
                        format!("`{}` takes one value, found a list of {}", port.name, items.len());
                    self.problems.push(Diagnostic::error("type", feed.place, message));
                }
                let items = items.clone();
                items.iter().for_each(|(_, item)| self.check_call(item, port));
                return;
            }
            _ => None,
        };
        if let Some(from) = from.filter(|from| !port.ty.accepts(from)) {
            let message = format!("input `{}` takes {}, found {from}", port.name, port.ty);
            self.problems.push(Diagnostic::error("type", feed.place, message));
        }
    }

    /// The graph's outputs, resolved.
    pub(crate) fn outputs(&mut self) -> Vec<(String, Feed)> {
        let outputs = self.scopes[0].outputs.clone();
        let resolve = |(name, edge): (Word, Word)| Some((name.text, self.edge(0, &edge, 0)?));
        outputs.into_iter().filter_map(resolve).collect()
    }

    fn place(&self, scope: usize, word: &Word) -> Place {
        Place { file: self.scopes[scope].file, span: word.span }
    }

    /// What is behind something written in `scope`.
    fn feed(&mut self, scope: usize, written: &Written, depth: usize) -> Option<Feed> {
        let place = written.place(self.scopes[scope].file);
        let source = match written {
            Written::Literal(literal, _) => FeedSource::Literal(literal.clone()),
            Written::Draw(_) => FeedSource::Draw,
            Written::Broken => FeedSource::Broken,
            Written::Template(parts, _) => self.template(scope, parts, place, depth)?,
            Written::Edges(edges, true) => return self.edge(scope, &edges.first()?.1, depth),
            Written::Edges(edges, false) => {
                let mut items = Vec::with_capacity(edges.len());
                for (name, word) in edges {
                    let name: Option<Arc<str>> = name.as_deref().map(Arc::from);
                    let feed = self.edge(scope, word, depth)?;
                    match feed.source {
                        FeedSource::List(inner) => items.extend(inner),
                        _ => items.push((name, feed)),
                    }
                }
                FeedSource::List(items)
            }
        };
        Some(Feed { source, place })
    }

    fn template(
        &mut self,
        scope: usize,
        parts: &[Part],
        place: Place,
        depth: usize,
    ) -> Option<FeedSource> {
        let mut pieces = Vec::with_capacity(parts.len());
        for part in parts {
            pieces.push(match part {
                Part::Text(text) => Piece::Text(text.clone()),
                Part::Stem => Piece::Stem,
                Part::Input(name) => {
                    let word = Word { text: name.clone(), span: place.span };
                    match self.input(scope, name, &word, depth) {
                        Some(feed) => Piece::Value(feed.source),
                        None => return None,
                    }
                }
            });
        }
        Some(FeedSource::Template(pieces.into()))
    }

    /// What is behind the edge `"node.port"`, `"node"` or `"inputs.NAME"` written in `scope`.
    fn edge(&mut self, scope: usize, word: &Word, depth: usize) -> Option<Feed> {
        let place = self.place(scope, word);
        if depth > LONGEST {
            self.problems.push(Diagnostic::error("cycle", place, "this edge feeds itself"));
            return None;
        }
        let (node, port) = match word.text.split_once('.') {
            Some((node, port)) => (node, Some(port)),
            None => (word.text.as_str(), None),
        };
        if node == "inputs" {
            return match port {
                Some(port) => self.input(scope, port, word, depth),
                None => {
                    let message = "an edge from the graph's inputs is written \"inputs.NAME\"";
                    self.problems.push(Diagnostic::error("unknown-input", place, message));
                    None
                }
            };
        }
        match self.scopes[scope].names.get(node).copied() {
            Some(Entity::Node(index)) => self.output(index, port, place, depth),
            Some(Entity::Scope(inner)) => self.inner_output(inner, node, port, place, depth),
            Some(Entity::Broken) => None,
            None => {
                let mut names: Vec<_> =
                    self.scopes[scope].names.keys().map(String::as_str).collect();
                names.sort_unstable();
                let hint = suggest(node, names);
                let message = format!("there is no node `{node}`");
                self.problems
                    .push(Diagnostic::error("unknown-node", place, message).maybe_hint(hint));
                None
            }
        }
    }

    fn input(&mut self, scope: usize, name: &str, word: &Word, depth: usize) -> Option<Feed> {
        let place = self.place(scope, word);
        let inputs = &self.scopes[scope].inputs;
        let Some(index) = inputs.iter().position(|input| input.port.name == name) else {
            let names: Vec<_> = inputs.iter().map(|input| input.port.name.to_string()).collect();
            let hint = suggest(name, names.iter().map(String::as_str));
            let message = format!("the graph has no input `{name}`");
            self.problems.push(Diagnostic::error("unknown-input", place, message).maybe_hint(hint));
            return None;
        };
        let default = inputs[index].port.default.clone();
        let required = inputs[index].port.is_required();
        let Some((caller, written)) = &self.scopes[scope].caller else {
            return Some(Feed { source: FeedSource::Input(index), place });
        };
        match (written[index].clone(), default) {
            (Some(written), _) => self.feed(*caller, &written, depth + 1),
            (None, Some(default)) => Some(Feed { source: FeedSource::Literal(default), place }),
            (None, None) if required => Some(Feed { source: FeedSource::Broken, place }),
            (None, None) => Some(Feed::absent(place)),
        }
    }

    fn inner_output(
        &mut self,
        inner: usize,
        node: &str,
        port: Option<&str>,
        place: Place,
        depth: usize,
    ) -> Option<Feed> {
        let outputs = &self.scopes[inner].outputs;
        let names: Vec<String> = outputs.iter().map(|(name, _)| name.text.clone()).collect();
        let index = self.pick(node, &names, port, place)?;
        let edge = self.scopes[inner].outputs[index].1.clone();
        let feed = self.edge(inner, &edge, depth + 1)?;
        Some(Feed { place, ..feed })
    }

    fn output(
        &mut self,
        index: NodeIndex,
        port: Option<&str>,
        place: Place,
        depth: usize,
    ) -> Option<Feed> {
        let node = &self.nodes[index];
        let name = Arc::clone(&node.name);
        let names: Vec<String> =
            node.op.signature.outputs.iter().map(|port| port.name.to_string()).collect();
        let output = self.pick(&name, &names, port, place)?;
        if self.drafts[index.index()].bypass {
            return self.bypass(index, output, place, depth);
        }
        Some(Feed { source: FeedSource::Edge(index, output as u32), place })
    }

    /// The output that an edge means: the one it names, or the only one.
    fn pick(
        &mut self,
        node: &str,
        names: &[String],
        port: Option<&str>,
        place: Place,
    ) -> Option<usize> {
        let Some(port) = port else {
            if names.len() == 1 {
                return Some(0);
            }
            let list: Vec<_> = names.iter().map(|name| format!("\"{node}.{name}\"")).collect();
            let message = format!("`{node}` has {} outputs; name one of them", names.len());
            let hint = (!list.is_empty()).then(|| format!("write {}", list.join(" or ")));
            self.problems
                .push(Diagnostic::error("unknown-output", place, message).maybe_hint(hint));
            return None;
        };
        let found = names.iter().position(|name| name == port);
        if found.is_none() {
            let hint = suggest(port, names.iter().map(String::as_str));
            let message = format!("`{node}` has no output `{port}`");
            self.problems
                .push(Diagnostic::error("unknown-output", place, message).maybe_hint(hint));
        }
        found
    }

    /// What a bypassed node passes through: its first fed input of the output's type.
    fn bypass(
        &mut self,
        index: NodeIndex,
        output: usize,
        place: Place,
        depth: usize,
    ) -> Option<Feed> {
        let op = Arc::clone(&self.nodes[index].op);
        let ty = &op.signature.outputs[output].ty;
        let draft = &self.drafts[index.index()];
        let scope = draft.scope;
        let fed = op.signature.inputs.iter().zip(&draft.written);
        let through =
            fed.filter(|(port, _)| port.ty == *ty).find_map(|(_, written)| written.clone());
        match through {
            Some(written) => self.feed(scope, &written, depth + 1),
            None => {
                let name = &self.nodes[index].name;
                let message = format!("`{name}` is bypassed, but no input of type {ty} feeds it");
                self.problems.push(Diagnostic::error("bypass", place, message));
                None
            }
        }
    }
}
