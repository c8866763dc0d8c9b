//! A checked graph: every name resolved, graphs used as nodes inlined, types known.

use std::sync::Arc;

use kino_port::{Literal, Port, Range, Signature};
use petgraph::graph::{DiGraph, NodeIndex};

use crate::diagnostic::{Diagnostic, Diagnostics, File, Place};

/// A graph without errors, ready to be planned.
///
/// Graphs that it uses as nodes are inlined: their nodes are called `outer/inner`.
#[derive(Clone, Debug)]
pub struct Graph {
    pub(crate) about: String,
    pub(crate) files: Vec<File>,
    pub(crate) warnings: Vec<Diagnostic>,
    pub(crate) inputs: Vec<GraphInput>,
    /// Nodes and who feeds whom.
    pub(crate) nodes: DiGraph<Node, ()>,
    /// Topological order, without bypassed nodes.
    pub(crate) order: Vec<NodeIndex>,
    pub(crate) outputs: Vec<(String, Feed)>,
    /// Graphs used as nodes: name, and the nodes behind its outputs.
    pub(crate) groups: Groups,
    pub(crate) calls: Vec<Call>,
    pub(crate) sites: Sites,
}

/// Graphs used as nodes: name, and the nodes behind its outputs.
pub(crate) type Groups = Vec<(Arc<str>, Vec<NodeIndex>)>;

/// Where a record of the graph puts what it adds to the root's text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sites {
    /// Just behind the graph's opening bracket.
    pub(crate) opening: u32,
    /// Just behind the opening bracket of `graphs`.
    pub(crate) graphs_opening: Option<u32>,
    /// Graphs read from other files: the name to carry each by, its file, and where what is carried
    /// starts in it.
    pub(crate) others: Vec<(String, u32, u32)>,
}

/// An input of the root graph.
#[derive(Clone, Debug)]
pub(crate) struct GraphInput {
    pub(crate) port: Port,
    /// The whole declaration.
    pub(crate) place: Place,
    /// Just behind its opening bracket.
    pub(crate) opening: u32,
    /// The default, where one is written.
    pub(crate) default: Option<Place>,
}

/// What all nodes of one op share.
#[derive(Debug)]
pub(crate) struct Op {
    pub(crate) name: Arc<str>,
    pub(crate) version: Arc<str>,
    pub(crate) signature: Signature,
    /// The input ports' names, shared with the facts of every inference.
    pub(crate) ports: Vec<Arc<str>>,
}

/// A node, its inputs in the order of its signature.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) name: Arc<str>,
    pub(crate) op: Arc<Op>,
    pub(crate) place: Place,
    pub(crate) feeds: Vec<Feed>,
}

/// What feeds a port, and where that is written.
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    pub(crate) source: FeedSource,
    pub(crate) place: Place,
}

/// What feeds a port.
#[derive(Clone, Debug)]
pub(crate) enum FeedSource {
    /// Nothing: the default holds, if there is one.
    Absent,
    /// Something that was refused; nothing more is said of it.
    Broken,
    Literal(Literal),
    /// `"random"`: a number drawn while planning, within the range of the port that it is written
    /// for.
    Draw(Option<Range>),
    /// A path, perhaps with `{names}` in it.
    Template(Arc<Template>),
    /// An input of the root graph.
    Input(usize),
    Edge(NodeIndex, u32),
    List(Vec<(Option<Arc<str>>, Feed)>),
}

/// What is fed to an input of a graph used as a node, where that has a range or choices: values
/// that are known only while planning are checked against it as well.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// The graph's name as a node.
    pub(crate) node: Arc<str>,
    pub(crate) port: Port,
    pub(crate) feed: Feed,
}

/// A path.
#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) pieces: Vec<Piece>,
    /// Where the file that it is written in lies, seen from the root's.
    pub(crate) dir: Arc<str>,
}

/// A piece of a path template.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    Text(String),
    /// `{graph}`: the stem of the root graph's file.
    Stem,
    /// An input's value.
    Value(Feed),
}

impl Feed {
    pub(crate) fn absent(place: Place) -> Self {
        Feed { source: FeedSource::Absent, place }
    }

    /// Calls `visit` for every edge and graph input within.
    pub(crate) fn walk(&self, visit: &mut impl FnMut(&FeedSource)) {
        self.source.walk(visit);
    }

    /// Calls `visit` for this feed, or for every item of a list.
    pub(crate) fn walk_placed(&self, visit: &mut impl FnMut(&Feed)) {
        match &self.source {
            FeedSource::List(items) => items.iter().for_each(|(_, feed)| feed.walk_placed(visit)),
            _ => visit(self),
        }
    }
}

impl FeedSource {
    pub(crate) fn walk(&self, visit: &mut impl FnMut(&FeedSource)) {
        match self {
            FeedSource::Edge(..) | FeedSource::Input(_) => visit(self),
            FeedSource::List(items) => items.iter().for_each(|(_, feed)| feed.source.walk(visit)),
            FeedSource::Template(template) => template.pieces.iter().for_each(|piece| {
                if let Piece::Value(feed) = piece {
                    feed.walk(visit);
                }
            }),
            _ => {}
        }
    }
}

impl Graph {
    /// What the graph says of itself.
    pub fn about(&self) -> &str {
        &self.about
    }

    /// The graph's inputs, each as a port with type, default, range, choices and help.
    pub fn inputs(&self) -> impl Iterator<Item = &Port> {
        self.inputs.iter().map(|input| &input.port)
    }

    /// The number of nodes, those of inlined graphs included, bypassed ones not.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is no node at all.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// What is probably not meant, though it runs.
    pub fn warnings(&self) -> Diagnostics {
        Diagnostics::new(self.warnings.clone(), self.files.clone())
    }

    /// The files that the graph was read from, its own first: what to watch.
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// Nodes in topological order, for drawing: name, op, and for each fed port its name and its
    /// feeds.
    pub fn sketch(&self) -> Vec<NodeSketch<'_>> {
        self.order.iter().map(|index| self.sketch_of(*index)).collect()
    }

    /// The graph's outputs: name and what feeds each.
    pub fn outputs(&self) -> Vec<(&str, FeedSketch<'_>)> {
        self.outputs
            .iter()
            .filter_map(|(name, feed)| {
                Some((name.as_str(), self.feeds_of(feed).into_iter().next()?))
            })
            .collect()
    }

    fn sketch_of(&self, index: NodeIndex) -> NodeSketch<'_> {
        let node = &self.nodes[index];
        let ports = node.op.signature.inputs.iter().zip(&node.feeds);
        let ports = ports
            .map(|(port, feed)| (port, self.feeds_of(feed)))
            .filter(|(_, feeds)| !feeds.is_empty());
        NodeSketch { name: &node.name, signature: &node.op.signature, inputs: ports.collect() }
    }

    fn feeds_of(&self, feed: &Feed) -> Vec<FeedSketch<'_>> {
        match &feed.source {
            FeedSource::Absent | FeedSource::Broken => Vec::new(),
            FeedSource::Literal(literal) => vec![FeedSketch::Literal(literal.to_string())],
            FeedSource::Draw(_) => vec![FeedSketch::Literal("random".to_owned())],
            FeedSource::Template(_) => {
                let text = &self.files[feed.place.file as usize].text;
                let span = feed.place.span.start as usize..feed.place.span.end as usize;
                vec![FeedSketch::Literal(text.get(span).unwrap_or_default().to_owned())]
            }
            FeedSource::Input(index) => vec![FeedSketch::Input(&self.inputs[*index].port.name)],
            FeedSource::Edge(node, output) => {
                let from = &self.nodes[*node];
                let port = &from.op.signature.outputs[*output as usize];
                vec![FeedSketch::Edge { node: &from.name, port }]
            }
            FeedSource::List(items) => {
                items.iter().flat_map(|(_, feed)| self.feeds_of(feed)).collect()
            }
        }
    }
}

/// A node, as a drawing needs it.
#[derive(Debug)]
pub struct NodeSketch<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is.
    pub signature: &'a Signature,
    /// The fed input ports, each with what feeds it.
    pub inputs: Vec<(&'a Port, Vec<FeedSketch<'a>>)>,
}

/// What feeds a port, as a drawing needs it.
#[derive(Debug)]
pub enum FeedSketch<'a> {
    /// A value, as RON writes it.
    Literal(String),
    /// An input of the graph.
    Input(&'a str),
    /// A node's output.
    Edge {
        /// The node's name.
        node: &'a str,
        /// The output.
        port: &'a Port,
    },
}
