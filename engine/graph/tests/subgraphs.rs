//! Graphs used as nodes of other graphs: their inputs and outputs behave like ports.

mod common;

use common::{Files, names, nodes, planned};
use kino_graph::{Graph, Plan, StepInput};
use kino_port::Literal;

#[track_caller]
fn files(files: &[(&str, &str)], expected: &str) {
    let result = kino_graph::check(files[0].0, files[0].1, &nodes(), &Files::of(&files[1..]));
    let said = result.map_or_else(|problems| problems.render(), |graph| graph.warnings().render());
    assert_eq!(said.trim(), expected.trim(), "\nfound:\n{said}");
}

#[test]
fn graphs_that_use_each_other_are_refused_with_their_path() {
    let uses = |path: &str| format!(r#"Graph(version: 1, nodes: {{"n": (op: "{path}")}})"#);
    files(
        &[("a.ron", &uses("./b.ron")), ("b.ron", &uses("./c.ron")), ("c.ron", &uses("./a.ron"))],
        "error[recursion] c.ron:1:37: graphs use each other: a.ron → b.ron → c.ron → a.ron",
    );
    files(
        &[("a.ron", &uses("./b.ron"))],
        "error[unreadable] a.ron:1:37: the graph `b.ron` cannot be read: no such file",
    );
}

#[test]
fn a_graph_used_as_a_node_is_checked_like_a_node() {
    let inner = r#"Graph(version: 1,
        inputs: {"frames": (type: "Frames"), "width": (type: "Int", default: 64, range: (16, 128))},
        nodes: {"r": (op: "resize", in: {"frames": "inputs.frames", "width": "inputs.width"}), "s": (op: "splt")},
        outputs: {"frames": "r"})"#;
    files(
        &[
            (
                "a.ron",
                r#"Graph(version: 1, nodes: {"n": (op: "noise"), "d": (op: "decode", in: {"latent": "n"}),
                    "x": (op: "./up.ron", in: {"frames": "d"}, with: {"width": 8}),
                    "y": (op: "./up.ron", with: {"widht": 16}), "z": (op: "./up.ron", in: {"frames": "n"})},
                    outputs: {"frames": "x.frame"})"#,
            ),
            ("up.ron", inner),
        ],
        r#"
error[value] a.ron:2:80: `width`: expected a whole number from 16 to 128 or "random", found 8
error[missing-input] a.ron:3:21: nothing feeds `frames` of `y`, which takes Frames
  hint: write `in: {"frames": "node.port"}`
error[unknown-port] a.ron:3:50: `./up.ron` has no input `widht`
  hint: did you mean `width`?
error[type] a.ron:3:102: `n.latent` gives Latent, but `z.frames` takes Frames
  hint: the node `decode` turns Latent into Frames
error[unknown-output] a.ron:4:41: `x` has no output `frame`
  hint: did you mean `frames`?
error[unknown-op] up.ron:3:106: there is no op `splt`
  hint: did you mean `split`?
"#,
    );
}

fn graph(texts: &[(&str, &str)]) -> Graph {
    kino_graph::check(texts[0].0, texts[0].1, &nodes(), &Files::of(&texts[1..]))
        .unwrap_or_else(|problems| panic!("{problems}"))
}

fn first_literal<'p>(plan: &'p Plan, node: &str) -> &'p Literal {
    let (_, step) = plan.step(node).unwrap();
    let literals = step.inputs.iter().filter_map(|input| match input {
        StepInput::Literal(literal) => Some(literal),
        _ => None,
    });
    literals.into_iter().next().unwrap()
}

const UP: &str = r#"Graph(version: 1,
    inputs: {"frames": (type: "Frames"), "width": (type: "Int", default: 64, range: (16, 128), step: 16)},
    nodes: {"r": (op: "resize", in: {"frames": "inputs.frames", "width": "inputs.width"}),
            "s": (op: "split", in: {"frames": "r"})},
    outputs: {"first": "s.first", "all": "r"})"#;

const OUTER: &str = r#"Graph(version: 1, inputs: {"width": (type: "Int", default: 32, range: (1, 4096)), "m": (type: "Int", default: 1)},
    nodes: {"n": (op: "noise", in: {"frames": "inputs.m"}), "d": (op: "decode", in: {"latent": "n"}),
            "x": (op: "./lib/up.ron", in: {"frames": "d", "width": "inputs.width"}),
            "w": (op: "write", in: {"frames": "x.first"}, with: {"path": "{graph}.mp4"})})"#;

#[test]
fn a_value_set_later_is_checked_by_the_inner_graph_too() {
    let graph = graph(&[("outer.ron", OUTER), ("lib/up.ron", UP)]);
    assert!(planned(&graph, &[("width", Literal::Int(128))], None).is_ok());
    assert_eq!(
        planned(&graph, &[("width", Literal::Int(40))], None).unwrap_err(),
        "error[value] outer.ron:3:68: `width` of `x`: expected a whole number from 16 to 128 in steps of 16 \
         or \"random\", found 40\n  hint: near it: 32 and 48"
    );
    files(
        &[("outer.ron", &OUTER.replace("default: 32", "default: 20")), ("lib/up.ron", UP)],
        r#"
error[value] outer.ron:1:60: default of input `width`: `width` of `x` expected a whole number from 16 to 128 in steps of 16 or "random", found 20
  see outer.ron:3:68: used here
  hint: near it: 16 and 32
"#,
    );
}

#[test]
fn a_plan_can_stop_in_a_graph_or_behind_it() {
    let graph = graph(&[("outer.ron", OUTER), ("lib/up.ron", UP)]);
    assert_eq!(names(&planned(&graph, &[], Some("x/r")).unwrap()), ["n", "d", "x/r"]);
    let plan = planned(&graph, &[], Some("x")).unwrap();
    assert_eq!(names(&plan), ["n", "d", "x/r", "x/s"]);
    assert_eq!(
        planned(&graph, &[], Some("x/q")).unwrap_err(),
        "error[unknown-node]: there is no node `x/q` to stop at\n  hint: did you mean `x/s`?"
    );
}

#[test]
fn a_bypassed_graph_passes_its_input_through() {
    let bypassed =
        OUTER.replace("\"width\": \"inputs.width\"}", "\"width\": \"inputs.width\"}, bypass: true");
    let plan = planned(&graph(&[("outer.ron", &bypassed), ("lib/up.ron", UP)]), &[], None).unwrap();
    assert_eq!(names(&plan), ["n", "d", "w"]);
}

#[test]
fn warnings_stand_in_the_file_that_is_to_blame() {
    let inner = UP.replace(
        "\"s\":",
        "\"idle\": (op: \"decode\", in: {\"latent\": \"n\"}), \"n\": (op: \"noise\"), \"s\":",
    );
    files(
        &[("outer.ron", OUTER), ("lib/up.ron", &inner.replace("\"width\": \"inputs.width\"", ""))],
        r#"
warning[unused-input] lib/up.ron:2:51: nothing reads the input `width`
warning[unreachable] lib/up.ron:4:13: nothing needs `idle`: it leads to no output and no file
warning[unreachable] lib/up.ron:4:58: nothing needs `n`: it leads to no output and no file
"#,
    );
}

#[test]
fn broken_outputs_are_found_though_nobody_reads_them() {
    files(
        &[("outer.ron", OUTER), ("lib/up.ron", &UP.replace("\"all\": \"r\"", "\"all\": \"q\""))],
        "error[unknown-node] lib/up.ron:5:42: there is no node `q`\n  hint: there is `r`, `s`",
    );
}

#[test]
fn seeds_inside_are_drawn_within_their_range_and_recorded() {
    let inner = r#"#![enable(implicit_some)]
Graph(version: 1, // Draws its own seed.
    inputs: {"seed": (type: "Int", default: "random", range: (1, 10)), "name": (type: "Text", default: "two
lines")},
    nodes: {"n": (op: "noise", in: {"seed": "inputs.seed"}), "d": (op: "decode", in: {"latent": "n"}),
            "w": (op: "write", in: {"frames": "d"}, with: {"path": "{name}-{seed}.mp4"})},
    outputs: {"frames": "d"}) // done"#;
    let outer = r#"Graph(version: 1, inputs: {"out": (type: "Path", default: "{graph}-{k}.mp4"), "k": /* named */ Input (type: "Text"),},
    nodes: {"a": (op: "./a.ron"), "b": (op: "./a.ron", with: {"seed": "random", "name": "b"}),
            "c": (op: "concat", in: {"parts": ["a", "b"]}),
            "w": (op: "write", in: {"frames": "c", "path": "inputs.out"})})"#;
    let graph = graph(&[("outer.ron", outer), ("a.ron", inner)]);
    let plan = planned(&graph, &[("k", Literal::text("x/y"))], None).unwrap();
    assert_eq!(first_literal(&plan, "a/n"), &Literal::Int(1 + 42 % 10));
    assert_eq!(first_literal(&plan, "a/w"), &Literal::text("two_lines-3.mp4"));
    assert_eq!(first_literal(&plan, "w"), &Literal::text("outer-x_y.mp4"));
    let record = plan.embedded_workflow();
    assert!(!record.contains("random") && record.contains("// Draws its own seed."), "{record}");
    let again = kino_graph::check("outer.ron", record, &nodes(), &Files::default())
        .unwrap_or_else(|problems| panic!("{problems}\n{record}"));
    let same = planned(&again, &[], None).unwrap();
    assert_eq!(kino_graph::diff(&plan, &same).changes, []);
    assert_eq!((same.steps.len(), same.embedded_workflow()), (plan.steps.len(), record));
}

#[test]
fn paths_that_are_read_lie_beside_the_graph_that_names_them() {
    let inner = r#"Graph(version: 1, inputs: {"picture": (type: "Path", default: "../cat.png")},
    nodes: {"r": (op: "read", in: {"path": "inputs.picture"}), "q": (op: "read", with: {"path": "dog.png"}),
            "w": (op: "write", in: {"frames": "q"}, with: {"path": "dog.mp4"})},
    outputs: {"frames": "r"})"#;
    let outer = r#"Graph(version: 1, nodes: {"a": (op: "./deep/er/a.ron"), "b": (op: "./deep/er/a.ron", with: {"picture": "own.png"}, )},
    outputs: {"a": "a", "b": "b"})"#;
    let graph = graph(&[("outer.ron", outer), ("deep/er/a.ron", inner)]);
    let said = planned(&graph, &[], None).unwrap_err();
    assert!(said.contains("`a/w` and `b/w` write the same file `dog.mp4`"), "{said}");
    let plan = planned(&graph, &[], Some("a")).unwrap();
    assert_eq!(first_literal(&plan, "a/r"), &Literal::text("deep/cat.png"));
    let plan = planned(&graph, &[], Some("b/q")).unwrap();
    assert_eq!(first_literal(&plan, "b/q"), &Literal::text("deep/er/dog.png"));
    let plan = planned(&graph, &[], Some("b/r")).unwrap();
    assert_eq!(first_literal(&plan, "b/r"), &Literal::text("own.png"));
}

/// A text that names a file, or is one of a few names: those lie beside no graph.
#[test]
fn names_beside_paths_are_no_paths() {
    let inner = r#"Graph(version: 1, inputs: {"model": (type: "Text", default: "nearest")},
    nodes: {"own": (op: "enlarge", with: {"model": "nearest"}), "set": (op: "enlarge", in: {"model": "inputs.model"}),
            "left": (op: "enlarge"), "file": (op: "enlarge", with: {"model": "nearest.safetensors"})},
    outputs: {"own": "own", "set": "set", "left": "left", "file": "file"})"#;
    let outer = r#"Graph(version: 1, nodes: {"a": (op: "./deep/a.ron"), "b": (op: "./deep/a.ron", with: {"model": "x/y.safetensors"})},
    outputs: {"a": "a.file", "b": "b.file"})"#;
    let graph = graph(&[("outer.ron", outer), ("deep/a.ron", inner)]);
    for (step, expected) in [
        ("a/own", "nearest"),
        ("a/set", "nearest"),
        ("a/left", "lanczos"),
        ("a/file", "deep/nearest.safetensors"),
        ("b/set", "x/y.safetensors"),
    ] {
        let plan = planned(&graph, &[], Some(step)).unwrap();
        assert_eq!(first_literal(&plan, step), &Literal::text(expected), "{step}");
    }
}

#[test]
fn paths_name_inputs_of_their_own_graph() {
    files(
        &[(
            "g.ron",
            r#"Graph(version: 1, inputs: {"p": (type: "Path", default: "{sed}.mp4"), "q": (type: "Path", default: "{p}"), "seed": (type: "Int", default: 1)},
                nodes: {"n": (op: "noise", in: {"seed": "inputs.seed"}), "d": (op: "decode", in: {"latent": "n"}), 
                "w": (op: "write", in: {"frames": "d", "path": "inputs.p"}), "v": (op: "write", in: {"frames": "d", "path": "inputs.q"})})"#,
        )],
        r#"
error[unknown-input] g.ron:1:57: the graph has no input `sed` to fill this path with
  hint: did you mean `seed`?
error[template] g.ron:1:100: `p` is a path itself and cannot be part of another
"#,
    );
}

#[test]
fn lists_pass_through_graphs() {
    let inner = r#"Graph(version: 1, inputs: {"parts": (type: "List(Frames)")},
    nodes: {"c": (op: "concat", in: {"parts": "inputs.parts"})}, outputs: {"frames": "c"})"#;
    let outer = |parts: &str| {
        format!(
            r#"Graph(version: 1, nodes: {{"r": (op: "read", with: {{"path": "x.png"}}), "n": (op: "noise"),
                "x": (op: "./cat.ron", in: {{"parts": {parts}}})}}, outputs: {{"frames": "x", "n": "n"}})"#
        )
    };
    let joined = graph(&[("g.ron", &outer(r#"{"one": "r", "two": "r"}"#)), ("cat.ron", inner)]);
    let plan = planned(&joined, &[], None).unwrap();
    let StepInput::List(items) = &plan.step("x/c").unwrap().1.inputs[0] else { panic!("no list") };
    let names: Vec<_> = items.iter().map(|(name, _)| name.as_deref().unwrap()).collect();
    assert_eq!(names, ["one", "two"]);
    files(
        &[("g.ron", &outer(r#"["r", "n"]"#)), ("cat.ron", inner)],
        "error[type] g.ron:2:60: `n.latent` gives Latent, but `x.parts` takes Frames\n  \
         hint: the node `decode` turns Latent into Frames",
    );
}

#[test]
fn graphs_that_double_themselves_are_refused() {
    let mut carried = String::new();
    for level in 0..30 {
        let next = level + 1;
        carried.push_str(&format!(
            r#""./g{level}.ron": Graph(version: 1, nodes: {{"a": (op: "./g{next}.ron"), "b": (op: "./g{next}.ron")}}),
"#
        ));
    }
    let text = format!(
        r#"Graph(version: 1, graphs: {{{carried} "./g30.ron": Graph(version: 1)}}, nodes: {{"x": (op: "./g0.ron")}})"#
    );
    let problems = kino_graph::check("g.ron", &text, &nodes(), &Files::default()).unwrap_err();
    assert!(
        problems.list.iter().any(|problem| problem.code == "too-large"),
        "{}",
        problems.list.len()
    );
}
