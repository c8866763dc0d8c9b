//! What nodes of plugins keep between runs belongs to a step of a graph: it goes with the last
//! revision in use that has the step.

#![cfg(unix)]

use std::fs;
use std::path::Path;

use kino_session::{Engine, Graph, inputs};

/// A graph with steps of these names, each of which counts its runs. No two of them are equal, or
/// they would be computed once.
fn text(steps: &[&str]) -> String {
    let node = |step: &&str| {
        let (wait, more) = (format!("wait_for_{step}"), 20 * (step.as_bytes()[0] - b'a'));
        format!(
            r#""{wait}": (op: "math", in: {{"a": "inputs.wait"}}, with: {{"b": {more}}}),
            "{step}": (op: "torture.step", in: {{"tensor": "text", "wait": "{wait}"}}),"#
        )
    };
    let nodes: String = steps.iter().map(node).collect();
    let outputs: String = steps.iter().map(|step| format!(r#""{step}": "{step}.runs","#)).collect();
    format!(
        r#"Graph(version: 1, inputs: {{"wait": (type: "Int", default: 0)}}, nodes: {{
            "model": (op: "model.load", with: {{"source": "embedded:shapes"}}),
            "text": (op: "text.encode", in: {{"encoder": "model.text_encoder"}}, with: {{"prompt": "x"}}),
            {nodes} }}, outputs: {{{outputs}}})"#
    )
}

struct Rig {
    engine: Engine,
    folder: tempfile::TempDir,
    runs: i64,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let library = kino_tests::trust_native(root, &root.join("data"), "torture", "torture.step");
        let ends = format!("ENDS=\"{}\"", root.join("ends").display());
        kino_tests::compile_c("torture/generation.c", &library, &["GENERATION=2".into(), ends]);
        let engine = kino_tests::engine(root).no_cache().build().unwrap();
        Rig { engine, folder, runs: 0 }
    }

    /// Writes the graph with these steps, and opens it.
    fn open(&self, steps: &[&str]) -> Graph {
        let path: &Path = &self.folder.path().join("g.ron");
        fs::write(path, text(steps)).unwrap();
        self.engine.open(path).unwrap()
    }

    /// How often each step says that it has run by now.
    fn run(&mut self, graph: &Graph, steps: &[&str]) -> Vec<i128> {
        // Another input, so that nothing comes from a cache.
        self.runs += 1;
        let done = graph.run(inputs! { "wait" => self.runs }).start().unwrap().wait();
        let done = done.unwrap_or_else(|error| panic!("{error}"));
        steps.iter().map(|step| done.output(step).unwrap()).collect()
    }
}

#[test]
fn the_state_of_a_step_goes_with_the_last_revision_that_has_it() {
    let mut rig = Rig::new();
    let both = ["a", "b"];
    let first = rig.open(&both);
    assert_eq!(rig.run(&first, &both), [1, 1]);
    assert_eq!(rig.run(&first, &both), [2, 2]);
    // Both revisions are in use: each goes on where the other was.
    let second = rig.open(&["a", "c"]);
    assert_eq!(rig.run(&second, &["a", "c"]), [3, 1]);
    assert_eq!(rig.run(&first, &both), [4, 3]);
    drop(first);
    // `b` was renamed, and what it knew is gone although its name comes back.
    let third = rig.open(&["a", "b", "c"]);
    drop(second);
    assert_eq!(rig.run(&third, &["a", "b", "c"]), [5, 1, 2]);
    // A graph that is closed leaves nothing, however often it is opened.
    drop(third);
    let again = rig.open(&both);
    assert_eq!(rig.run(&again, &both), [1, 1]);
    // A revision without the plugin is none that has its steps.
    let none = rig.open(&[]);
    drop(again);
    let last = rig.open(&both);
    drop(none);
    assert_eq!(rig.run(&last, &both), [1, 1]);
}

#[test]
fn a_run_under_way_keeps_the_state_of_its_graph() {
    let mut rig = Rig::new();
    let graph = rig.open(&["a"]);
    assert_eq!(rig.run(&graph, &["a"]), [1]);
    let run = graph.run(inputs! { "wait" => 300 }).start().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    drop(graph);
    let graph = rig.open(&["a"]);
    assert_eq!(run.wait().unwrap().output::<i128>("a").unwrap(), 2);
    assert_eq!(rig.run(&graph, &["a"]), [3]);
}
