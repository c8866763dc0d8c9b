//! The order of nodes, and the circles that stand against one. It knows neither types nor values.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use petgraph::Direction;
use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::diagnostic::Diagnostic;
use crate::resolve::Node;

/// Every node after those that feed it, otherwise as written; then those in a cycle or behind one.
pub(crate) fn topological(nodes: &DiGraph<Node, ()>) -> (Vec<NodeIndex>, Vec<NodeIndex>) {
    let mut waits: Vec<usize> = nodes
        .node_indices()
        .map(|index| nodes.edges_directed(index, Direction::Incoming).count())
        .collect();
    let free = nodes.node_indices().filter(|index| waits[index.index()] == 0);
    let mut free: BinaryHeap<Reverse<NodeIndex>> = free.map(Reverse).collect();
    let mut order = Vec::with_capacity(waits.len());
    while let Some(Reverse(index)) = free.pop() {
        order.push(index);
        for next in nodes.neighbors(index) {
            waits[next.index()] -= 1;
            if waits[next.index()] == 0 {
                free.push(Reverse(next));
            }
        }
    }
    let rest = nodes.node_indices().filter(|index| waits[index.index()] > 0).collect();
    (order, rest)
}

/// One diagnostic a cycle, with its path.
pub(crate) fn cycles(nodes: &DiGraph<Node, ()>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for group in kosaraju_scc(nodes) {
        let members: HashSet<_> = group.iter().copied().collect();
        let Some(start) =
            group.iter().copied().min_by_key(|index| nodes[*index].location.span.start)
        else {
            continue;
        };
        if group.len() == 1 && !nodes.neighbors(start).any(|next| next == start) {
            continue;
        }
        let path = round_trip(nodes, start, &members);
        let shown = if path.len() > 12 { &path[..11] } else { &path[..] };
        let mut names: Vec<&str> = shown.iter().map(|index| &*nodes[*index].name).collect();
        if shown.len() < path.len() {
            names.push("…");
        }
        names.push(&nodes[start].name);
        let message = format!("these nodes feed each other: {}", names.join(" → "));
        found.push(
            Diagnostic::error("cycle", nodes[start].location, message)
                .hint("remove one of the edges"),
        );
    }
    found
}

/// The shortest way from `start` back to itself within `members`.
fn round_trip(
    nodes: &DiGraph<Node, ()>,
    start: NodeIndex,
    members: &HashSet<NodeIndex>,
) -> Vec<NodeIndex> {
    let mut came_from: HashMap<NodeIndex, NodeIndex> = HashMap::new();
    let mut front = vec![start];
    while !front.is_empty() {
        let mut next_front = Vec::new();
        for index in front {
            for next in nodes.neighbors(index).filter(|next| members.contains(next)) {
                if next == start {
                    let mut path = vec![index];
                    while let Some(before) = came_from.get(&path[path.len() - 1]) {
                        path.push(*before);
                    }
                    path.reverse();
                    return path;
                }
                if next != start && !came_from.contains_key(&next) {
                    came_from.insert(next, index);
                    next_front.push(next);
                }
            }
        }
        front = next_front;
    }
    vec![start]
}
