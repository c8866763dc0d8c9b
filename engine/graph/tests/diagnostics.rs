//! A graph in, its problems out: where, what was expected, what to do.

mod common;

use common::{check, plan};

/// Checks and plans the graph, and compares everything that is said of it, warnings too.
#[track_caller]
fn expect(text: &str, expected: &str) {
    let said = match check(text) {
        Err(problems) => problems.render(),
        Ok(graph) => match plan(text) {
            Err(problems) => problems.render(),
            Ok(_) => graph.warnings().render(),
        },
    };
    assert_eq!(said.trim(), expected.trim(), "\nfound:\n{said}");
}

#[track_caller]
fn nodes_of(nodes: &str, expected: &str) {
    expect(&format!("Graph(version: 1, nodes: {{\n{nodes}\n}})"), expected);
}

#[test]
fn a_sound_graph_says_nothing() {
    nodes_of(
        r#""n": (op: "noise", with: {"frames": 17}), "d": (op: "decode", in: {"latent": "n"}),
           "w": (op: "write", in: {"frames": "d.frames"}, with: {"path": "{graph}.mp4"})"#,
        "",
    );
}

#[test]
fn syntax_errors_have_a_place() {
    expect(
        "Graph(version: 1",
        "error[syntax] g.ron:1:6: this bracket is never closed: expected `)`",
    );
    expect(
        "Graph(version: 1 nodes: {})",
        "error[syntax] g.ron:1:18: expected `,` or `)`, found `n`",
    );
    expect(
        r#"Graph(version: 1, about: "x)"#,
        "error[syntax] g.ron:1:26: this string is never closed\n  hint: a quote inside a string is written \\\"",
    );
    expect("", "error[syntax] g.ron:1:1: expected a value, found the end of the file");
    expect(
        "Graph(version: 1) x",
        "error[syntax] g.ron:1:19: expected the end of the file, found more",
    );
}

#[test]
fn unknown_words_come_with_a_suggestion() {
    nodes_of(
        r#""n": (op: "nois"), "d": (op: "decode", in: {"latnet": "n", "latent": "m.latent"}, wiht: {}),
           "w": (op: "write", in: {"frames": "d.frame"}, with: {"path": "{grahp}.mp4"})"#,
        r#"
error[unknown-op] g.ron:2:11: there is no op `nois`
  hint: did you mean `noise`?
error[unknown-port] g.ron:2:45: `decode` has no input `latnet`
  hint: did you mean `latent`?
error[unknown-node] g.ron:2:70: there is no node `m`
  hint: there is `d`, `n`, `w`
error[unknown-key] g.ron:2:83: a node has no field `wiht`
  hint: did you mean `with`?
error[unknown-output] g.ron:3:46: `d` has no output `frame`
  hint: did you mean `frames`?
error[unknown-input] g.ron:3:73: the graph has no input `grahp`
  hint: did you mean `graph`?
"#,
    );
}

#[test]
fn values_are_read_by_the_declared_type() {
    nodes_of(
        r#""n": (op: "noise", with: {"frames": 17.0, "seed": -1}), "d": (op: "decode", in: {"latent": "n"}),
           "r": (op: "resize", in: {"frames": "d"}, with: {"width": 8, "filter": "lancos"}),
           "w": (op: "write", in: {"frames": "r"}, with: {"path": 5})"#,
        r#"
error[value] g.ron:2:37: `frames`: expected a whole number from 1 to 257, found 17.0
  hint: write it without a decimal point
error[value] g.ron:2:51: `seed`: expected a whole number from 0 to 18446744073709551615 or "random", found -1
error[value] g.ron:3:69: `width`: expected a whole number from 16 to 4096, found 8
error[value] g.ron:3:82: `filter`: expected one of "lanczos", "nearest", found "lancos"
  hint: did you mean "lanczos"?
error[value] g.ron:4:67: `path`: expected a path, found 5
"#,
    );
}

#[test]
fn ports_are_fed_once_and_with_the_right_type() {
    nodes_of(
        r#""n": (op: "noise"), "d": (op: "decode", in: {"latent": "n"}), "s": (op: "split", in: {"frames": "n"}),
           "r": (op: "resize", in: {"frames": "s", "width": "d"}, with: {"width": 64}),
           "c": (op: "concat", in: {"parts": ["d", "n"]}), "x": (op: "split", in: {"frames": ["d", "d"]}),
           "w": (op: "write", with: {"path": "a.mp4", "frames": 3})"#,
        r#"
error[type] g.ron:2:97: `n.latent` gives Latent, but `s.frames` takes Frames
  hint: the node `decode` turns Latent into Frames
error[unknown-output] g.ron:3:47: `s` has 2 outputs; name one of them
  hint: write "s.first" or "s.rest"
error[fed-twice] g.ron:3:74: `width` is fed both by an edge and by a value
  see g.ron:3:52: the edge
error[type] g.ron:4:52: `n.latent` gives Latent, but `c.parts` takes Frames
  hint: the node `decode` turns Latent into Frames
error[type] g.ron:4:94: `frames` of `x` takes one value, found a list
error[type] g.ron:5:65: `frames` takes Frames, which cannot be written as a value
  hint: feed it with an edge, in `in`
"#,
    );
}

#[test]
fn a_missing_input_is_named() {
    nodes_of(
        r#""d": (op: "decode"), "w": (op: "write", in: {"frames": "d"})"#,
        r#"
error[missing-input] g.ron:2:1: nothing feeds `latent` of `d`, which takes Latent
  hint: write `in: {"latent": "node.port"}`
error[missing-input] g.ron:2:22: nothing feeds `path` of `w`, which takes Path
  hint: write `with: {"path": …}`, or feed it with an edge in `in`
"#,
    );
}

#[test]
fn names_stand_once_and_are_plain() {
    nodes_of(
        r#""n": (op: "noise"), "n": (op: "noise"), "Big": (op: "noise"), "inputs": (op: "noise"),
           "m": (op: "noise", with: {"seed": 1, "seed": 2}, op: "noise")"#,
        r#"
error[duplicate] g.ron:2:21: `n` is written twice
  see g.ron:2:1: the first
error[bad-name] g.ron:2:41: `Big` is no name for a node
  hint: names are lower-case letters, digits and `_`, a letter first
error[bad-name] g.ron:2:63: `inputs` is the graph's own inputs, no name for a node
error[duplicate] g.ron:3:49: `seed` is written twice
  see g.ron:3:38: the first
error[duplicate] g.ron:3:61: `op` is written twice
  see g.ron:3:18: the first
"#,
    );
}

#[test]
fn a_cycle_is_shown_as_a_path() {
    nodes_of(
        r#""a": (op: "add", in: {"a": "c"}), "b": (op: "add", in: {"a": "a"}), "c": (op: "add", in: {"a": "b"}),
           "d": (op: "add", in: {"a": "d"})"#,
        r#"
error[cycle] g.ron:2:1: these nodes feed each other: a → b → c → a
  hint: remove one of the edges
error[cycle] g.ron:3:12: these nodes feed each other: d → d
  hint: remove one of the edges
"#,
    );
}

#[test]
fn what_nothing_needs_is_a_warning() {
    expect(
        r#"Graph(version: 1, inputs: {"x": (type: "Real", default: 1)}, nodes: {
            "a": (op: "add", with: {"a": 1}), "b": (op: "add", in: {"a": "a"}), "c": (op: "add", in: {"a": "a"})},
            outputs: {"sum": "b"})"#,
        r#"
warning[unused-input] g.ron:1:33: nothing reads the input `x`
warning[unreachable] g.ron:2:81: nothing needs `c`: it leads to no output and no file
"#,
    );
}

#[test]
fn the_language_has_a_version() {
    expect(
        "Graph(nodes: {})",
        "error[version] g.ron:1:1: the graph does not say its version\n  hint: write `version: 1,` first",
    );
    expect(
        "Graph(version: 2)",
        "error[version] g.ron:1:16: expected version 1 of the graph language\n  hint: a newer kino may be needed",
    );
}

#[test]
fn inputs_are_checked_where_they_are_declared() {
    expect(
        r#"Graph(version: 1, inputs: {
            "a": (type: "Int", default: 18, range: (1, 257), step: 4), "b": (type: "Frms"), "c": (type: "Int", range: 3),
            "d": (type: "Int", default: 300), "e": (type: "Text", default: "red", choices: ["blue"])},
            nodes: {"n": (op: "noise", in: {"frames": "inputs.d", "seed": "inputs.a"}),
                    "m": (op: "noise", in: {"frames": "inputs.e"})},
            outputs: {"latent": "n"})"#,
        r#"
error[value] g.ron:2:41: default of input `a`: expected a whole number from 1 to 257 in steps of 4 or "random", found 18
  hint: near it: 17 and 21
error[unknown-type] g.ron:2:84: there is no type `Frms`
  hint: did you mean `Frames`?
error[malformed] g.ron:2:119: expected a range `(least, greatest)` of the input's type, Int or Real, found a number
error[value] g.ron:3:41: default of input `d`: `frames` of `n` expected a whole number from 1 to 257, found 300
  see g.ron:4:55: used here
error[value] g.ron:3:76: default of input `e`: expected one of "blue", found "red"
error[type] g.ron:5:55: `inputs.e` gives Text, but `m.frames` takes Int
"#,
    );
}

#[test]
fn what_depends_on_the_model_is_an_error_of_the_plan() {
    nodes_of(
        r#""n": (op: "noise", with: {"frames": 16}), "m": (op: "noise", with: {"frames": 2}),
           "d": (op: "decode", in: {"latent": "n"}), "e": (op: "decode", in: {"latent": "m"}),
           "w": (op: "write", in: {"frames": "d"}, with: {"path": "a.mp4"}),
           "v": (op: "write", in: {"frames": "e"}, with: {"path": "b.mp4"})"#,
        r#"
error[plan] g.ron:2:37: `frames` of `n`: expected 4k+1 frames, found 16
  hint: near it: 13 and 17
error[plan] g.ron:2:79: `frames` of `m`: expected 4k+1 frames, found 2
  hint: near it: 13 and 17
"#,
    );
}

#[test]
fn two_sinks_do_not_write_one_file() {
    nodes_of(
        r#""r": (op: "read", with: {"path": "x.png"}),
           "w": (op: "write", in: {"frames": "r"}, with: {"path": "a.mp4"}),
           "v": (op: "write", in: {"frames": "r"}, with: {"path": "a.mp4"})"#,
        r#"
error[same-file] g.ron:4:12: `w` and `v` write the same file `a.mp4`
  see g.ron:3:12: the other
  hint: give each a `path` of its own
"#,
    );
}

#[test]
fn a_numbered_sequence_is_all_of_its_files() {
    let sinks = |one: &str, other: &str| {
        let text = format!(
            r#"Graph(version: 1, nodes: {{"r": (op: "read", with: {{"path": "x.png"}}),
                "w": (op: "write", in: {{"frames": "r"}}, with: {{"path": "{one}"}}),
                "v": (op: "write", in: {{"frames": "r"}}, with: {{"path": "{other}"}})}})"#
        );
        common::plan(&text).err().map(|problems| problems.render()).unwrap_or_default()
    };
    for (one, other) in [
        ("f_%03d.png", "f_%03d.png"),
        ("f_%03d.png", "f_001.png"),
        ("f_001.png", "f_%03d.png"),
        ("f_%03d.png", "./f_%d.png"),
        ("a/f_%d.png", "a/f_1%02d.png"),
    ] {
        let said = sinks(one, other);
        let expected = format!("`w` and `v` write the same file `{other}`");
        assert!(said.contains(&expected), "{one}, {other}: {said}");
    }
    for (one, other) in [
        ("f_%03d.png", "f_1.png"),
        ("f_%03d.png", "f_%03d.webp"),
        ("a/f_%d.png", "b/f_%d.png"),
        ("f_%d.png", "f_0%d.png"),
    ] {
        assert_eq!(sinks(one, other), "", "{one}, {other}");
    }
}

#[test]
fn bypass_needs_something_to_pass() {
    nodes_of(
        r#""n": (op: "noise", bypass: true), "d": (op: "decode", in: {"latent": "n"}),
           "w": (op: "write", in: {"frames": "d"}, with: {"path": "a.mp4"})"#,
        "error[bypass] g.ron:2:70: `n` is bypassed, but no input of type Latent feeds it",
    );
}

#[test]
fn a_bypassed_node_with_an_empty_list_has_nothing_to_pass() {
    let concat = r#""c": (op: "concat", bypass: true, in: {"parts": []})"#;
    let add = r#""c": (op: "./in.ron", bypass: true, with: {"x": []})"#;
    let resize = r#""r": (op: "resize", in: {"frames": "c"})"#;
    for (nodes, output, ty) in [
        (format!("{concat}, {resize}"), "r", "Frames"),
        (concat.to_owned(), "c", "Frames"),
        (add.to_owned(), "c", "Real"),
    ] {
        let problems = check(&format!(
            r#"Graph(version: 1, nodes: {{{nodes}}}, outputs: {{"out": "{output}"}}, graphs: {{
            "./in.ron": Graph(version: 1, inputs: {{"x": (type: "List(Real)")}},
                nodes: {{"a": (op: "add", with: {{"a": 1}})}}, outputs: {{"r": "a"}})}})"#
        ));
        let problems = problems.map(|_| ()).unwrap_err();
        let said = format!("`c` is bypassed, but no input of type {ty} feeds it");
        assert_eq!(problems.list.len(), 1, "{problems}");
        assert_eq!((problems.list[0].code, &problems.list[0].message), ("bypass", &said));
    }
    let handed_on = r#"Graph(version: 1, nodes: {"x": (op: "./in.ron", in: {"x": []})}, outputs: {"r": "x"}, graphs: {
        "./in.ron": Graph(version: 1, inputs: {"x": (type: "List(Frames)")},
            nodes: {"c": (op: "concat", bypass: true, in: {"parts": ["inputs.x"]})}, outputs: {"r": "c"})})"#;
    let problems = check(handed_on).map(|_| ()).unwrap_err();
    assert!(problems.to_string().contains("`x/c` is bypassed, but no input"), "{problems}");
}

#[test]
fn bypassed_nodes_may_not_go_in_circles() {
    nodes_of(
        r#""a": (op: "resize", in: {"frames": "b"}, bypass: true), "b": (op: "resize", in: {"frames": "a"}, bypass: true),
           "w": (op: "write", in: {"frames": "a"}, with: {"path": "a.mp4"})"#,
        r#"
error[cycle] g.ron:2:36: these nodes feed each other: b → a → b
  hint: remove one of the edges
"#,
    );
}

#[test]
fn lists_have_items_and_names_once() {
    nodes_of(
        r#""r": (op: "read", with: {"path": "x.png"}), "c": (op: "concat", in: {"parts": []}),
           "e": (op: "concat", in: {"parts": {"a": "r", "a": "r"}}), "f": (op: "concat", in: {"parts": {a: "r"}}),
           "g": (op: "concat", in: {"parts": ["r", 5]})"#,
        r#"
error[missing-input] g.ron:2:79: nothing feeds `parts` of `c`, which takes Frames…
  hint: write `in: {"parts": "node.port"}`
error[duplicate] g.ron:3:57: `a` is written twice
  see g.ron:3:47: the first
error[malformed] g.ron:3:105: expected a name in quotes, found a bare name
error[malformed] g.ron:4:52: expected an edge such as "node.port", found a number
"#,
    );
}

#[test]
fn a_cycle_does_not_hide_other_problems() {
    nodes_of(
        r#""a": (op: "add", in: {"a": "b"}), "b": (op: "add", in: {"a": "a"}), "n": (op: "noise"),
           "c": (op: "add", in: {"a": "b", "b": "n"}), "d": (op: "decode")"#,
        r#"
error[cycle] g.ron:2:1: these nodes feed each other: a → b → a
  hint: remove one of the edges
error[type] g.ron:3:49: `n.latent` gives Latent, but `c.b` takes Real
error[missing-input] g.ron:3:56: nothing feeds `latent` of `d`, which takes Latent
  hint: write `in: {"latent": "node.port"}`
"#,
    );
}

#[test]
fn a_refused_node_is_not_missed_as_well() {
    nodes_of(
        r#""a": (with: {}), "b": (op: "add", in: {"a": "a"}), "c": 5, "d": (op: "add", in: {"a": "c"})"#,
        r#"
error[missing-key] g.ron:2:1: node `a` does not say its op
  hint: write `op: "…"`; `kino nodes` lists them
error[malformed] g.ron:2:57: expected a node, found a number
"#,
    );
}

#[test]
fn one_type_flows_through_any() {
    nodes_of(
        r#""n": (op: "noise"), "d": (op: "decode", in: {"latent": "n"}),
           "s": (op: "switch", in: {"a": "d", "b": "d"}, with: {"on": true}),
           "t": (op: "switch", in: {"a": "s", "b": "n"}, with: {"on": true}),
           "e": (op: "decode", in: {"latent": "s"})"#,
        r#"
error[type] g.ron:4:52: the inputs of this node have one type: Frames so far, then Latent
error[type] g.ron:5:47: `s.value` gives Frames, but `e.latent` takes Latent
"#,
    );
}

#[test]
fn many_problems_are_all_found() {
    let nodes: String = (0..2_000).map(|i| format!("\"n{i}\": (op: \"nois\"),\n")).collect();
    let problems = check(&format!("Graph(version: 1, nodes: {{\n{nodes}\n}})")).unwrap_err();
    assert_eq!(problems.list.len(), 2_000);
    assert_eq!(problems.position(problems.list[1_999].location.unwrap()), (2_001, 15));
}

#[test]
fn problems_are_json_with_line_and_column() {
    let problems = check(r#"Graph(version: 1, nodes: {"n": (op: "nois")})"#).unwrap_err();
    let json = serde_json::to_value(&problems).unwrap();
    assert_eq!(
        json,
        serde_json::json!([{
            "severity": "error", "code": "unknown-op", "message": "there is no op `nois`",
            "hint": "did you mean `noise`?", "file": "g.ron", "line": 1, "column": 37,
        }])
    );
}
