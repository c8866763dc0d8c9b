//! What feeds a port once every name is resolved. It knows no pass.

use std::collections::HashSet;
use std::sync::Arc;

use kino_port::{Literal, Port, Range};
use petgraph::graph::NodeIndex;

use crate::diagnostic::Location;

/// What feeds a port, and where that is written.
#[derive(Clone, Debug)]
pub(crate) struct Binding {
    pub(crate) source: BindingSource,
    pub(crate) location: Location,
    /// The use of a graph that it is written in: a path that is read lies beside that graph's file.
    pub(crate) scope: u32,
}

/// What feeds a port.
#[derive(Clone, Debug)]
pub(crate) enum BindingSource {
    /// Nothing: the default holds, if there is one.
    Absent,
    /// Something that was refused; nothing more is said of it.
    Broken,
    Literal(Arc<Literal>),
    /// `"random"`: a number drawn while planning, within the range of the port that it is written
    /// for.
    Draw(Option<Arc<Range>>),
    /// A path, perhaps with `{names}` in it.
    Template(Arc<[Piece]>),
    /// An input of the root graph.
    Input(usize),
    Edge(NodeIndex, u32),
    /// Shared by all that read the list, as graphs hand lists on.
    List(Arc<Vec<ListItem>>),
}

/// An item of a list, with its name where it has one.
pub(crate) type ListItem = (Option<Arc<str>>, Binding);

/// A piece of a path template.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    Text(String),
    /// `{graph}`: the stem of the root graph's file.
    Stem,
    /// An input's value.
    Value(Binding),
}

/// What feeds an input of a graph used as a node, where that has a range or choices: values that
/// are known only while planning are checked against it as well.
#[derive(Clone, Debug)]
pub(crate) struct SubgraphInput {
    /// The graph's name as a node.
    pub(crate) node: Arc<str>,
    pub(crate) port: Port,
    pub(crate) binding: Binding,
}

impl Binding {
    /// The same, as whoever stands at `location` in `scope` sees it. Values stay where they are
    /// written.
    pub(crate) fn seen_from(self, location: Location, scope: usize) -> Self {
        let is_edge = matches!(self.source, BindingSource::Edge(..));
        Binding { location, scope: if is_edge { scope as u32 } else { self.scope }, ..self }
    }

    /// Calls `visit` for this binding, or for every item of a list.
    pub(crate) fn each(&self, visit: &mut impl FnMut(&Binding)) {
        match &self.source {
            BindingSource::List(items) => items.iter().for_each(|(_, item)| item.each(visit)),
            _ => visit(self),
        }
    }

    /// Calls `visit` for every edge and graph input within, those in paths included. A path that
    /// stands in others is gone through once: graphs that put one twice into another at every level
    /// double it each time.
    pub(crate) fn sources(&self, visit: &mut impl FnMut(&BindingSource)) {
        match &self.source {
            // Most of them are one of these.
            BindingSource::Absent | BindingSource::Broken | BindingSource::Literal(_) => {}
            source @ (BindingSource::Edge(..) | BindingSource::Input(_)) => visit(source),
            _ => self.sources_beyond(&mut HashSet::new(), visit),
        }
    }

    fn sources_beyond(
        &self,
        seen: &mut HashSet<*const Piece>,
        visit: &mut impl FnMut(&BindingSource),
    ) {
        match &self.source {
            source @ (BindingSource::Edge(..) | BindingSource::Input(_)) => visit(source),
            BindingSource::List(items) => {
                items.iter().for_each(|(_, item)| item.sources_beyond(seen, visit));
            }
            BindingSource::Template(pieces) => {
                let values = pieces.iter().filter_map(|piece| match piece {
                    Piece::Value(binding) => Some(binding),
                    Piece::Text(_) | Piece::Stem => None,
                });
                // All bindings live as long as this looks at them, so that addresses tell them.
                if seen.insert(pieces.as_ptr()) {
                    values.for_each(|binding| binding.sources_beyond(seen, visit));
                }
            }
            _ => {}
        }
    }

    /// Calls `visit` for every node that feeds it.
    pub(crate) fn nodes(&self, visit: &mut impl FnMut(NodeIndex)) {
        self.sources(&mut |source| {
            if let BindingSource::Edge(node, _) = source {
                visit(*node);
            }
        });
    }
}
