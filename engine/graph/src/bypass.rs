//! Bypassed nodes: each output passes the first fed input of its type through.

use kino_port::{Literal, Port, PortType};
use petgraph::graph::NodeIndex;

use crate::diagnostic::Place;
use crate::document::Word;
use crate::graph::{Feed, FeedSource};
use crate::scope::{Entity, Opener};
use crate::wire::Trail;
use crate::written::Written;

impl Opener<'_> {
    /// What a bypassed node passes through to an output.
    pub(crate) fn pass_node(
        &mut self,
        index: NodeIndex,
        output: usize,
        place: Place,
        trail: &mut Trail,
    ) -> Option<Feed> {
        let signature = &self.nodes[index].op.signature;
        let ty = signature.outputs[output].ty.clone();
        let draft = &self.drafts[index.index()];
        let through = first_fed(signature.inputs.iter().zip(&draft.written), &ty);
        let (scope, name) = (draft.scope, self.nodes[index].name.to_string());
        self.pass(scope, through, &ty, &name, place, trail)
    }

    /// What a bypassed graph passes through to the output that `edge` feeds inside it.
    pub(crate) fn pass_graph(
        &mut self,
        inner: usize,
        edge: &Word,
        place: Place,
        trail: &mut Trail,
    ) -> Option<Feed> {
        // An output that is not well defined is refused where it is declared.
        let ty = self.declared_type(inner, &edge.text)?;
        let scope = &self.scopes[inner];
        let caller = scope.caller.as_ref()?;
        let ports = scope.inputs.iter().map(|input| &input.port);
        let through = first_fed(ports.zip(&caller.written), &ty);
        let (outer, name) = (caller.scope, scope.name.to_string());
        self.pass(outer, through, &ty, &name, place, trail)
    }

    fn pass(
        &mut self,
        scope: usize,
        through: Option<Written>,
        ty: &PortType,
        name: &str,
        place: Place,
        trail: &mut Trail,
    ) -> Option<Feed> {
        let Some(through) = through else {
            let message = format!("`{name}` is bypassed, but no input of type {ty} feeds it");
            self.problem("bypass", place, message);
            return None;
        };
        let feed = self.feed(scope, &through, trail)?;
        match feed.source {
            FeedSource::List(items) => items.into_iter().next().map(|(_, item)| item),
            FeedSource::Literal(Literal::List(items)) => {
                let first = items.into_iter().next()?;
                Some(Feed { source: FeedSource::Literal(first), ..feed })
            }
            _ => Some(feed),
        }
    }

    /// The type of what an edge inside a graph stands for, by declarations alone.
    fn declared_type(&self, scope: usize, edge: &str) -> Option<PortType> {
        let (node, port) = match edge.split_once('.') {
            Some((node, port)) => (node, Some(port)),
            None => (edge, None),
        };
        let scope = &self.scopes[scope];
        if node == "inputs" {
            let input = scope.inputs.iter().find(|input| Some(&*input.port.name) == port)?;
            return Some(input.port.ty.clone());
        }
        match scope.names.get(node)? {
            Entity::Broken => None,
            Entity::Node(index) => {
                let outputs = &self.nodes[*index].op.signature.outputs;
                let output =
                    outputs.iter().find(|output| port.is_none_or(|port| output.name == port));
                Some(output?.ty.clone())
            }
            Entity::Scope(inner) => {
                let outputs = &self.scopes[*inner].outputs;
                let found =
                    outputs.iter().find(|(name, _)| port.is_none_or(|port| name.text == port));
                self.declared_type(*inner, &found?.1.text)
            }
        }
    }
}

/// What is written for the first fed port of a type; of a list, its first item.
fn first_fed<'p>(
    ports: impl Iterator<Item = (&'p Port, &'p Option<Written>)>,
    ty: &PortType,
) -> Option<Written> {
    let mut fed = ports.filter(|(port, _)| port.ty == *ty).filter_map(|(_, one)| one.as_ref());
    Some(match fed.next()? {
        Written::Edges(edges, _) => Written::Edge(edges.first()?.1.clone()),
        Written::Templates(items, _) => items.first()?.clone(),
        one => one.clone(),
    })
}
