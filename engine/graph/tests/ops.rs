//! Which ops a graph names: what is found and loaded before it is checked.

mod common;

use common::Files;

#[track_caller]
fn check(files: &[(&str, &str)], expected: &[&str]) {
    let found = kino_graph::ops(files[0].0, files[0].1, &Files::of(&files[1..]));
    assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

#[test]
fn every_op_is_named_once_and_bypassed_ones_too() {
    let text = r#"Graph(version: 1, nodes: {
        "b": (op: "film.grain", bypass: true), "a": (op: "film.grain"), "c": (op: "math"),
    })"#;
    check(&[("a.ron", text)], &["film.grain", "math"]);
}

#[test]
fn graphs_that_are_used_name_theirs() {
    let main = r#"Graph(version: 1, nodes: {"x": (op: "sub/up.ron"), "y": (op: "./gone.ron")})"#;
    let up = r#"Graph(version: 1, nodes: {"x": (op: "../low.ron"), "z": (op: "example.up")})"#;
    let low = r#"Graph(version: 1, nodes: {"x": (op: "example.low")})"#;
    check(
        &[("in/main.ron", main), ("sub/up.ron", up), ("low.ron", low)],
        &["example.low", "example.up"],
    );
}

#[test]
fn carried_graphs_come_before_files() {
    let main = r#"Graph(version: 1, nodes: {"x": (op: "./up.ron")},
        graphs: {"./up.ron": Graph(version: 1, nodes: {"y": (op: "example.carried")})})"#;
    let file = r#"Graph(version: 1, nodes: {"y": (op: "example.file")})"#;
    check(&[("main.ron", main), ("up.ron", file)], &["example.carried"]);
}

#[test]
fn graphs_that_use_each_other_end() {
    let a = r#"Graph(version: 1, nodes: {"x": (op: "./b.ron"), "y": (op: "example.a")})"#;
    let b = r#"Graph(version: 1, nodes: {"x": (op: "./a.ron"), "y": (op: "./b.ron")})"#;
    check(&[("a.ron", a), ("b.ron", b)], &["example.a"]);
}

#[test]
fn what_is_broken_names_nothing_and_the_rest_is_read() {
    check(&[("a.ron", "Graph(version: 1, nodes: {")], &[]);
    check(&[("a.ron", "")], &[]);
    let text = r#"Graph(version: 2, nodez: {}, nodes: {
        "Bad": (op: "example.a"), "n": (op: 3), "m": (in: {}), "x": (op: "./broken.ron"),
    })"#;
    check(&[("a.ron", text), ("broken.ron", "Graph(")], &["example.a"]);
}

#[test]
fn a_text_is_parsed_once_for_its_ops_and_its_check() {
    let text = r#"Graph(version: 1, nodes: {"a": (op: "./inner.ron"), "b": (op: "nothing.here")})"#;
    let inner = r#"Graph(version: 1, nodes: {"c": (op: "film.grain")})"#;
    let files = Files::of(&[("inner.ron", inner)]);
    let parsed = kino_graph::parse("g.ron", text);
    let ops = parsed.ops(&files);
    assert_eq!(ops.iter().map(String::as_str).collect::<Vec<_>>(), ["film.grain", "nothing.here"]);
    let problems = parsed.check(&common::nodes(), &files).unwrap_err();
    let at_once = kino_graph::check("g.ron", text, &common::nodes(), &files).unwrap_err();
    assert_eq!(problems.list, at_once.list);
    assert_eq!(problems.list.len(), 2, "{:?}", problems.list);
}

#[test]
fn broken_syntax_names_nothing_and_is_reported_by_the_check() {
    let parsed = kino_graph::parse("g.ron", "Graph(version: 1, nodes: {");
    assert!(parsed.ops(&Files::default()).is_empty());
    let problems = parsed.check(&common::nodes(), &Files::default()).unwrap_err();
    assert_eq!(problems.list.iter().map(|problem| problem.code).collect::<Vec<_>>(), ["syntax"]);
}
