//! The revisions of graphs that are in use. What nodes of plugins keep between runs belongs to a
//! step of a graph: it goes with the last revision that has the step.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use kino_graph::first_turn;
use kino_host::Plugin;
use kino_node::GraphId;

/// A step that may keep state: its name in the graph, and its node.
pub(crate) type StatefulStep = (String, String);

/// All revisions in use that name nodes of plugins.
#[derive(Default)]
pub(crate) struct Revisions {
    by_graph: Mutex<HashMap<GraphId, InUse>>,
}

/// The revisions of one graph.
#[derive(Default)]
struct InUse {
    steps: HashMap<u64, HashSet<StatefulStep>>,
    last: u64,
    /// Builds that may hold state of the graph.
    plugins: Vec<Weak<Plugin>>,
}

/// A revision in use, until it is dropped.
pub(crate) struct Revision {
    revisions: Arc<Revisions>,
    graph: GraphId,
    number: u64,
}

impl Revisions {
    /// A revision of a graph is used from here on.
    pub(crate) fn begin(
        self: &Arc<Self>,
        graph: &GraphId,
        steps: HashSet<StatefulStep>,
        plugins: &[Arc<Plugin>],
    ) -> Revision {
        let mut by_graph = self.by_graph.lock().unwrap_or_else(PoisonError::into_inner);
        let graphs = by_graph.entry(graph.clone()).or_default();
        graphs.last += 1;
        graphs.steps.insert(graphs.last, steps);
        graphs.plugins.retain(|plugin| plugin.strong_count() > 0);
        for plugin in plugins {
            let plugin = Arc::downgrade(plugin);
            if !graphs.plugins.iter().any(|known| known.ptr_eq(&plugin)) {
                graphs.plugins.push(plugin);
            }
        }
        Revision { revisions: Arc::clone(self), graph: graph.clone(), number: graphs.last }
    }

    /// Whether a revision in use has the step.
    fn uses(&self, graph: &GraphId, step: &str, node: &str) -> bool {
        let by_graph = self.by_graph.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(graphs) = by_graph.get(graph) else { return false };
        // A graph that is open has the first turns of a loop; what runs may have more.
        let step = first_turn(step);
        let mut known = graphs.steps.values().flatten();
        known.any(|(name, of)| (name.as_str(), of.as_str()) == (&*step, node))
    }
}

impl Drop for Revision {
    fn drop(&mut self) {
        let mut by_graph = self.revisions.by_graph.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(graphs) = by_graph.get_mut(&self.graph) else { return };
        graphs.steps.remove(&self.number);
        let plugins: Vec<_> = graphs.plugins.iter().filter_map(Weak::upgrade).collect();
        if graphs.steps.is_empty() {
            by_graph.remove(&self.graph);
        }
        // Closing an instance runs code of the plugin: not while others wait.
        drop(by_graph);
        for plugin in plugins {
            // What is kept is asked when each state's turn comes: another revision may have begun.
            plugin.forget(&self.graph, &|step, node| self.revisions.uses(&self.graph, step, node));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_used_as_long_as_one_revision_has_it() {
        let revisions: Arc<Revisions> = Arc::default();
        let (graph, other) = (GraphId("g".into()), GraphId("h".into()));
        let begin = |steps: &[&str]| {
            let steps = steps.iter().map(|step| ((*step).to_owned(), "p.n".to_owned()));
            revisions.begin(&graph, steps.collect(), &[])
        };
        let uses = |step| revisions.uses(&graph, step, "p.n");
        let first = begin(&["a", "b"]);
        assert!(uses("a") && uses("b") && !uses("c"));
        assert!(!revisions.uses(&graph, "a", "p.m") && !revisions.uses(&other, "a", "p.n"));
        let looped = begin(&["film/0/x", "film/1/x"]);
        assert!(uses("film/0/x") && uses("film/17/x") && !uses("film/17/y") && !uses("film/x"));
        drop(looped);
        let second = begin(&["b"]);
        drop(first);
        assert!(!uses("a") && uses("b"));
        drop(second);
        assert!(!uses("b"));
        // One that begins while what was before is forgotten is heard at once.
        let _third = begin(&["a"]);
        assert!(uses("a"));
    }
}
