//! Resolves every edge to the node or graph input behind it, through graphs used as nodes and
//! bypassed nodes.

use std::sync::Arc;

use kino_port::{Literal, PortType};
use petgraph::graph::NodeIndex;

use crate::check::conversion;
use crate::diagnostic::Place;
use crate::document::Word;
use crate::graph::{Call, Feed, FeedSource, Groups, Piece, Template};
use crate::scope::{Entity, Opener};
use crate::template::{self, Part};
use crate::written::Written;

/// The most bypassed nodes and graphs that an edge may go through.
const LONGEST: usize = 256;

/// The most items of a list: graphs that pass lists on can double them at every use.
const MOST_ITEMS: usize = 1 << 16;

/// The bypassed nodes and graphs that an edge goes through, from its end to its source.
pub(crate) type Trail = Vec<Arc<str>>;

impl Opener<'_> {
    /// Fills the feeds of every node.
    pub(crate) fn connect(&mut self) {
        self.check_calls();
        for index in self.nodes.node_indices() {
            let place = self.nodes[index].place;
            let draft = &mut self.drafts[index.index()];
            let scope = draft.scope;
            // Edges through a bypassed node read what is written for it.
            let written = match draft.bypass {
                true => draft.written.clone(),
                false => std::mem::take(&mut draft.written),
            };
            let mut feeds = Vec::with_capacity(written.len());
            for one in &written {
                feeds.push(match one {
                    None => Feed::absent(place),
                    Some(one) => self
                        .feed(scope, one, &mut Trail::new())
                        .unwrap_or(Feed { source: FeedSource::Broken, place }),
                });
            }
            self.nodes[index].feeds = feeds;
        }
    }

    /// Resolves what is fed to graphs used as nodes, even where nothing inside reads it, to find
    /// what is wrong.
    fn check_calls(&mut self) {
        for inner in 0..self.scopes.len() {
            let Some(caller) = &self.scopes[inner].caller else { continue };
            let (scope, written) = (caller.scope, caller.written.clone());
            for (index, one) in written.iter().enumerate() {
                let Some(one) = one else { continue };
                let feed = self.feed(scope, one, &mut Trail::new());
                let port = self.scopes[inner].inputs[index].port.clone();
                let node = Arc::clone(&self.scopes[inner].name);
                match feed.filter(|feed| self.check_call(feed, &port, &node)) {
                    Some(feed) if port.range.is_some() || !port.choices.is_empty() => {
                        self.calls.push(Call { node, port, feed });
                    }
                    Some(_) => {}
                    None => {
                        if let Some(caller) = &mut self.scopes[inner].caller {
                            caller.written[index] = Some(Written::Broken);
                        }
                    }
                }
            }
        }
    }

    /// Checks the type of what is fed to a graph used as a node, against the input's declaration.
    fn check_call(&mut self, feed: &Feed, port: &kino_port::Port, node: &str) -> bool {
        let (giver, from) = match &feed.source {
            FeedSource::Edge(from, output) => {
                let from = &self.nodes[*from];
                let output = &from.op.signature.outputs[*output as usize];
                (format!("`{}.{}`", from.name, output.name), output.ty.clone())
            }
            FeedSource::Input(index) => {
                let input = &self.scopes[0].inputs[*index].port;
                let fits = !input.is_list() || port.is_list();
                let ty = input.ty.clone();
                let ty = if fits { ty } else { PortType::List(Box::new(ty)) };
                (format!("`inputs.{}`", input.name), ty)
            }
            FeedSource::List(items) => {
                if !port.is_list() && port.ty != PortType::Any {
                    let message = format!("`{node}.{}` takes one value, found a list", port.name);
                    self.problem("type", feed.place, message);
                    return false;
                }
                return items.iter().all(|(_, item)| self.check_call(item, port, node));
            }
            _ => return true,
        };
        let fits = port.ty.accepts(&from)
            || matches!(&from, PortType::List(of) if port.is_list() && port.ty.accepts(of));
        if !fits {
            let hint = conversion(self.catalog, &from, &port.ty);
            let message =
                format!("{giver} gives {from}, but `{node}.{}` takes {}", port.name, port.ty);
            self.problem("type", feed.place, message).hint = hint;
        }
        fits
    }

    /// The root's outputs, resolved, and of every graph used as a node the nodes behind its
    /// outputs.
    pub(crate) fn outputs(&mut self) -> (Vec<(String, Feed)>, Groups) {
        let (mut outputs, mut groups) = (Vec::new(), Vec::new());
        for scope in 0..self.scopes.len() {
            let mut behind = Vec::new();
            for (name, edge) in self.scopes[scope].outputs.clone() {
                let Some(feed) = self.edge(scope, &edge, &mut Trail::new()) else { continue };
                feed.walk(&mut |source| {
                    if let FeedSource::Edge(node, _) = source {
                        behind.push(*node);
                    }
                });
                if scope == 0 {
                    outputs.push((name.text, feed));
                }
            }
            if scope > 0 {
                groups.push((Arc::clone(&self.scopes[scope].name), behind));
            }
        }
        (outputs, groups)
    }

    fn place(&self, scope: usize, word: &Word) -> Place {
        Place { file: self.scopes[scope].file, span: word.span }
    }

    /// What is behind something written in `scope`.
    pub(crate) fn feed(
        &mut self,
        scope: usize,
        written: &Written,
        trail: &mut Trail,
    ) -> Option<Feed> {
        let place = written.place(self.scopes[scope].file);
        let source = match written {
            Written::Literal(literal, _) => FeedSource::Literal(literal.clone()),
            Written::Draw(range, _) => FeedSource::Draw(*range),
            Written::Broken => FeedSource::Broken,
            Written::Template(parts, _) => self.filled(scope, parts, place, trail)?,
            Written::Templates(items, _) => {
                let items = items.iter().map(|item| Some((None, self.feed(scope, item, trail)?)));
                FeedSource::List(items.collect::<Option<_>>()?)
            }
            Written::Edge(word) => return self.edge(scope, word, trail),
            Written::Edges(edges, _) => self.list(scope, edges, place, trail)?,
        };
        Some(Feed { source, place })
    }

    fn list(
        &mut self,
        scope: usize,
        edges: &[(Option<Arc<str>>, Word)],
        place: Place,
        trail: &mut Trail,
    ) -> Option<FeedSource> {
        let mut items = Vec::with_capacity(edges.len());
        for (name, word) in edges {
            let feed = self.edge(scope, word, trail)?;
            match feed.source {
                FeedSource::List(inner) => items.extend(inner),
                _ => items.push((name.clone(), feed)),
            }
            if items.len() > MOST_ITEMS {
                let message = format!("this list has over {MOST_ITEMS} items");
                self.problem("too-large", place, message);
                return None;
            }
        }
        Some(FeedSource::List(items))
    }

    /// A path whose names are those of the inputs of `scope`.
    fn filled(
        &mut self,
        scope: usize,
        parts: &[Part],
        place: Place,
        trail: &mut Trail,
    ) -> Option<FeedSource> {
        let mut pieces = Vec::with_capacity(parts.len());
        for part in parts {
            pieces.push(match part {
                Part::Text(text) => Piece::Text(text.clone()),
                Part::Stem => Piece::Stem,
                Part::Input(name) => {
                    let word = Word { text: name.clone(), span: place.span };
                    Piece::Value(self.input(scope, name, &word, trail)?)
                }
            });
        }
        let dir = Arc::clone(&self.scopes[scope].dir);
        Some(FeedSource::Template(Arc::new(Template { pieces, dir })))
    }

    /// What is behind the edge `"node.port"`, `"node"` or `"inputs.NAME"` written in `scope`.
    fn edge(&mut self, scope: usize, word: &Word, trail: &mut Trail) -> Option<Feed> {
        let place = self.place(scope, word);
        let (node, port) = match word.text.split_once('.') {
            Some((node, port)) => (node, Some(port)),
            None => (word.text.as_str(), None),
        };
        if node == "inputs" {
            let Some(port) = port else {
                let message = "an edge from the graph's inputs is written \"inputs.NAME\"";
                self.problem("unknown-input", place, message);
                return None;
            };
            return self.input(scope, port, word, trail);
        }
        match self.scopes[scope].names.get(node).copied() {
            Some(Entity::Node(index)) => self.output(index, node, port, place, trail),
            Some(Entity::Scope(inner)) => self.inner_output(inner, node, port, place, trail),
            Some(Entity::Broken) => None,
            None => {
                let mut names: Vec<_> =
                    self.scopes[scope].names.keys().map(String::as_str).collect();
                names.sort_unstable();
                let hint = self.advice(node, names);
                let message = format!("there is no node `{node}`");
                self.problem("unknown-node", place, message).hint = hint;
                None
            }
        }
    }

    /// What is behind an input of the graph of `scope`.
    fn input(&mut self, scope: usize, name: &str, word: &Word, trail: &mut Trail) -> Option<Feed> {
        let place = self.place(scope, word);
        let inputs = &self.scopes[scope].inputs;
        let Some(index) = inputs.iter().position(|input| input.port.name == name) else {
            let names = inputs.iter().map(|input| &*input.port.name);
            let stem = (!word.text.starts_with("inputs.")).then_some("graph");
            let hint = self.advice(name, names.chain(stem));
            let message = format!("the graph has no input `{name}`");
            self.problem("unknown-input", place, message).hint = hint;
            return None;
        };
        self.scopes[scope].read[index] = true;
        let Some(caller) = &self.scopes[scope].caller else {
            return Some(Feed { source: FeedSource::Input(index), place });
        };
        if let Some(written) = caller.written[index].clone() {
            return self.feed(caller.scope, &written, trail);
        }
        self.unfed(scope, index, place, trail)
    }

    /// What stands for an input of a graph used as a node that its user does not feed.
    fn unfed(
        &mut self,
        scope: usize,
        index: usize,
        place: Place,
        trail: &mut Trail,
    ) -> Option<Feed> {
        let declared = &self.scopes[scope].inputs[index];
        let Some(default) = declared.port.default.clone() else {
            let required = declared.port.is_required();
            let source = if required { FeedSource::Broken } else { FeedSource::Absent };
            return Some(Feed { source, place });
        };
        let place = declared.default.unwrap_or(declared.place);
        let source = match default {
            Literal::Text(text) if declared.port.draws && text == "random" => {
                FeedSource::Draw(declared.port.range)
            }
            Literal::Text(text) if declared.port.ty == PortType::Path => {
                self.filled(scope, &template::parse(&text).ok()?, place, trail)?
            }
            default => FeedSource::Literal(default),
        };
        Some(Feed { source, place })
    }

    /// What is behind an output of a graph used as a node.
    fn inner_output(
        &mut self,
        inner: usize,
        node: &str,
        port: Option<&str>,
        place: Place,
        trail: &mut Trail,
    ) -> Option<Feed> {
        let outputs = &self.scopes[inner].outputs;
        let found = pick(port, || outputs.iter().map(|(name, _)| name.text.as_str()));
        let Some(index) = found else {
            let names: Vec<_> = outputs.iter().map(|(name, _)| name.text.clone()).collect();
            self.no_output(node, &names, port, place);
            return None;
        };
        let (name, edge) = outputs[index].clone();
        let step = format!("{}.{}", self.scopes[inner].name, name.text);
        if !self.enter(step.into(), place, trail) {
            return None;
        }
        let bypass = self.scopes[inner].caller.as_ref().is_some_and(|caller| caller.bypass);
        let feed = if bypass {
            self.pass_graph(inner, &edge, place, trail)
        } else {
            self.edge(inner, &edge, trail)
        };
        trail.pop();
        Some(Feed { place, ..feed? })
    }

    /// What is behind an output of a node.
    fn output(
        &mut self,
        index: NodeIndex,
        node: &str,
        port: Option<&str>,
        place: Place,
        trail: &mut Trail,
    ) -> Option<Feed> {
        let op = &self.nodes[index].op;
        let found = pick(port, || op.signature.outputs.iter().map(|port| &*port.name));
        let Some(output) = found else {
            let outputs = &op.signature.outputs;
            let names: Vec<_> = outputs.iter().map(|port| port.name.to_string()).collect();
            self.no_output(node, &names, port, place);
            return None;
        };
        if !self.drafts[index.index()].bypass {
            return Some(Feed { source: FeedSource::Edge(index, output as u32), place });
        }
        // Long chains of bypassed nodes are walked once.
        if let Some(passed) = self.passed.get(&(index, output)) {
            return passed.clone().map(|feed| Feed { place, ..feed });
        }
        if !self.enter(Arc::clone(&self.nodes[index].name), place, trail) {
            return None;
        }
        let feed = self.pass_node(index, output, place, trail);
        trail.pop();
        self.passed.insert((index, output), feed.clone());
        Some(Feed { place, ..feed? })
    }

    /// Says that a node has no such output, or which of its outputs to name.
    fn no_output(&mut self, node: &str, names: &[String], port: Option<&str>, place: Place) {
        let (message, hint) = match port {
            None => {
                let list: Vec<_> = names.iter().map(|name| format!("\"{node}.{name}\"")).collect();
                let hint = (!list.is_empty()).then(|| format!("write {}", list.join(" or ")));
                (format!("`{node}` has {} outputs; name one of them", names.len()), hint)
            }
            Some(port) => {
                let hint = self.advice(port, names.iter().map(String::as_str));
                (format!("`{node}` has no output `{port}`"), hint)
            }
        };
        self.problem("unknown-output", place, message).hint = hint;
    }

    /// Takes one more step on the way to an edge's source; false where the way is a circle or too
    /// long.
    fn enter(&mut self, step: Arc<str>, place: Place, trail: &mut Trail) -> bool {
        if let Some(first) = trail.iter().position(|before| *before == step) {
            let mut names: Vec<&str> = vec![&step];
            names.extend(trail[first..].iter().rev().map(|name| &**name));
            let message = format!("these nodes feed each other: {}", names.join(" → "));
            self.problem("cycle", place, message).hint = Some("remove one of the edges".to_owned());
            return false;
        }
        if trail.len() >= LONGEST {
            let message = format!("this edge goes through over {LONGEST} bypassed nodes or graphs");
            self.problem("bypass", place, message);
            return false;
        }
        trail.push(step);
        true
    }
}

/// The index of the output that an edge means: the one it names, or the only one.
fn pick<'n, I>(port: Option<&str>, names: impl Fn() -> I) -> Option<usize>
where
    I: ExactSizeIterator<Item = &'n str>,
{
    match port {
        Some(port) => names().position(|name| name == port),
        None => (names().len() == 1).then_some(0),
    }
}
