//! What a graph may ask for: time and memory stay in proportion to its text, whatever it says.

mod common;

use std::time::{Duration, Instant};

use common::{Files, check, nodes, plan, plan_with};
use kino_graph::{Access, Diagnostics, Plan, PlanSettings, StepInput};
use kino_port::Literal;

/// Far above what any of this takes, and far below what it took.
const SOON: Duration = Duration::from_secs(10);

#[track_caller]
fn soon<T>(f: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = f();
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    result
}

fn codes(problems: &Diagnostics) -> Vec<&'static str> {
    let mut codes: Vec<_> = problems.list.iter().map(|problem| problem.code).collect();
    codes.dedup();
    codes
}

/// Graphs of `levels` levels, each of which hands its list on `times` times over.
fn handed_on(levels: usize, times: usize, base: &str) -> String {
    let list = vec!["\"inputs.x\""; times].join(",");
    let mut carried = String::new();
    for level in 0..levels {
        let next = level + 1;
        carried.push_str(&format!(
            "\"./g{level}.ron\": Graph(version: 1, inputs: {{\"x\": (type: \"List(Frames)\")}}, nodes: {{\"n\": (op: \"./g{next}.ron\", in: {{\"x\": [{list}]}})}}),\n"
        ));
    }
    format!(
        "Graph(version: 1, nodes: {{\"r\": (op: \"read\", with: {{\"path\": \"x.png\"}}), \"x\": (op: \"./g0.ron\", in: {{\"x\": {base}}})}}, outputs: {{\"r\": \"r\"}}, \
         graphs: {{{carried} \"./g{levels}.ron\": Graph(version: 1, inputs: {{\"x\": (type: \"List(Frames)\")}}, nodes: {{\"n\": (op: \"noise\")}})}})"
    )
}

#[test]
fn a_list_is_resolved_once_a_level_not_once_a_path() {
    for (levels, times) in [(30, 2), (3, 1_000), (30, 1_000)] {
        soon(|| check(&handed_on(levels, times, "[]")))
            .unwrap_or_else(|problems| panic!("{problems}"));
    }
    let problems = soon(|| check(&handed_on(30, 2, "[\"r\"]"))).unwrap_err();
    assert!(codes(&problems).contains(&"too-large"), "{problems}");
}

/// Graphs of `levels` levels, each of which puts the path that it is given twice into the one that
/// it hands on.
fn doubled_path(levels: usize) -> String {
    let graph = |nodes: &str| {
        format!("Graph(version: 1, inputs: {{\"p\": (type: \"Path\")}}, nodes: {{{nodes}}})")
    };
    let use_of = |level: usize, path: &str| {
        format!("\"n\": (op: \"./g{level}.ron\", with: {{\"p\": \"{path}\"}})")
    };
    let carried = lines(
        levels,
        "",
        |level| format!("\"./g{level}.ron\": {},", graph(&use_of(level + 1, "{p}{p}"))),
        "",
    );
    let last = "\"r\": (op: \"read\", in: {\"path\": \"inputs.p\"}), \
                \"w\": (op: \"write\", in: {\"frames\": \"r\"}, with: {\"path\": \"x.png\"})";
    format!(
        "Graph(version: 1, inputs: {{\"q\": (type: \"Text\", default: \"a\")}}, nodes: {{{}}}, \
         graphs: {{{carried} \"./g{levels}.ron\": {}}})",
        use_of(0, "{q}-{q}"),
        graph(last),
    )
}

#[test]
fn a_path_within_paths_is_filled_once_not_once_a_path() {
    let text = doubled_path(30);
    let graph = soon(|| check(&text)).unwrap_or_else(|problems| panic!("{problems}"));
    let plan = soon(|| plan_with(&graph, &nodes(), &[])).unwrap();
    let read = plan.steps.iter().find(|step| &*step.op == "read").unwrap();
    let StepInput::Literal(Literal::Text(path)) = &read.inputs[0] else { panic!("a path") };
    assert!(path.starts_with("a-aa-aa-a") && path.len() == 160, "{path}");
    // What it means where it is short.
    let graph = check(&doubled_path(1)).unwrap_or_else(|problems| panic!("{problems}"));
    let plan = plan_with(&graph, &nodes(), &[]).unwrap();
    let read = plan.steps.iter().find(|step| &*step.op == "read").unwrap();
    assert_eq!(read.inputs[0], StepInput::Literal(Literal::text("a-aa-a")));
}

/// A list of 60,000 edges from `giver`, handed whole to 200 uses of a graph that hands it whole to
/// 200 uses of one that declares it as `input`.
fn handed_whole(giver: &str, input: &str) -> String {
    let base = vec!["\"r\""; 60_000].join(",");
    let uses = |op| {
        lines(200, "", |i| format!("\"n{i}\": (op: \"{op}\", in: {{\"x\": [\"inputs.x\"]}}),"), "")
    };
    let graph = |input: &str, nodes: &str| {
        format!("Graph(version: 1, inputs: {{\"x\": ({input})}}, nodes: {{{nodes}}})")
    };
    let (outer, inner) = (uses("./b.ron"), uses("./c.ron"));
    let ty = "type: \"List(Real)\"";
    format!(
        "Graph(version: 1, nodes: {{\"r\": {giver}, \"x\": (op: \"./a.ron\", in: {{\"x\": [{base}]}})}}, outputs: {{\"r\": \"r\"}}, graphs: {{\
         \"./a.ron\": {}, \"./b.ron\": {}, \"./c.ron\": {}}})",
        graph(ty, &outer),
        graph(ty, &inner),
        graph(input, "\"n\": (op: \"noise\")"),
    )
}

#[test]
fn the_types_of_a_shared_list_are_looked_at_once() {
    let (real, ty) = ("(op: \"add\", with: {\"a\": 1})", "type: \"List(Real)\"");
    let graph = soon(|| check(&handed_whole(real, ty)));
    soon(|| plan_with(&graph.unwrap_or_else(|problems| panic!("{problems}")), &nodes(), &[]))
        .unwrap();
    // Where the innermost graph takes something else, every use of it says so.
    let problems = soon(|| check(&handed_whole(real, "type: \"List(Frames)\""))).unwrap_err();
    let said = "gives Real, but `x/n0/n0.x` takes Frames";
    assert!(problems.list.iter().any(|problem| problem.message.contains(said)));
    assert_eq!(problems.list.len(), 40_000);
}

/// Values that only planning tells are checked again for every input with a range.
#[test]
fn the_items_that_ranges_are_checked_against_are_counted() {
    let real = "(op: \"add\", with: {\"a\": 1})";
    let ranged = "type: \"List(Real)\", range: (0, 9)";
    let problems = soon(|| check(&handed_whole(real, ranged))).unwrap_err();
    assert_eq!(codes(&problems), ["too-large"]);
}

#[test]
fn lists_are_counted_over_all_their_readers() {
    let base = vec!["\"r\""; 60_000].join(",");
    let mut readers = String::new();
    for i in 0..10_000 {
        readers
            .push_str(&format!("\"c{i}\": (op: \"concat\", in: {{\"parts\": [\"inputs.x\"]}}),\n"));
    }
    let text = format!(
        "Graph(version: 1, nodes: {{\"r\": (op: \"read\", with: {{\"path\": \"x.png\"}}), \"x\": (op: \"./h.ron\", in: {{\"x\": [{base}]}})}}, outputs: {{\"r\": \"r\"}}, \
         graphs: {{\"./h.ron\": Graph(version: 1, inputs: {{\"x\": (type: \"List(Frames)\")}}, nodes: {{{readers}}})}})"
    );
    let problems = soon(|| check(&text)).unwrap_err();
    assert_eq!(codes(&problems), ["too-large"]);
}

#[test]
fn the_text_of_a_graph_is_not_read_any_number_of_times() {
    let inner = format!("Graph(version: 1, about: \"{}\")", "x".repeat(1 << 20));
    let mut uses = String::new();
    for i in 0..10_000 {
        uses.push_str(&format!("\"n{i}\": (op: \"./x.ron\"),"));
    }
    let text = format!("Graph(version: 1, nodes: {{{uses}}})");
    let files = Files::of(&[("x.ron", &inner)]);
    let problems = soon(|| kino_graph::check("g.ron", &text, &nodes(), &files)).unwrap_err();
    assert_eq!(codes(&problems), ["too-large"]);
}

/// A graph of `count` lines, each made by `line`.
fn lines(count: usize, before: &str, line: impl Fn(usize) -> String, after: &str) -> String {
    let mut text = String::from(before);
    (0..count).for_each(|i| text.push_str(&line(i)));
    text.push_str(after);
    text
}

#[test]
fn ten_thousand_problems_are_told_in_linear_time() {
    let bad_edges = |i| format!("\"n{i}\": (op: \"decode\", in: {{\"latent\": \"m{i}\"}}),\n");
    let unknown_ops = |i| format!("\"n{i}\": (op: \"nois{i}\"),\n");
    let one_line = |i| format!("\"n{i}\": (op: \"decode\", in: {{\"latent\": \"m{i}\"}}), ");
    let twice = |i: usize| format!("\"n{}\": (op: \"noise\"),\n", i / 2);
    for text in [
        lines(10_000, "Graph(version: 1, nodes: {", bad_edges, "})"),
        lines(10_000, "Graph(version: 1, nodes: {", unknown_ops, "})"),
        lines(10_000, "Graph(version: 1, nodes: {", one_line, "})"),
        lines(20_000, "Graph(version: 1, nodes: {", twice, "})"),
    ] {
        let problems = soon(|| check(&text)).unwrap_err();
        assert_eq!(problems.list.len(), 10_000);
        let said = soon(|| problems.render());
        assert_eq!(said.lines().filter(|line| line.starts_with("error")).count(), 10_000);
        soon(|| serde_json::to_string(&problems).unwrap());
    }
}

#[test]
fn a_hundred_thousand_inputs_are_read_in_linear_time() {
    let input = |i| format!("\"i{i}\": (type: \"Real\", default: {i}),\n");
    let nodes_text = lines(
        100_000,
        "nodes: {",
        |i| format!("\"n{i}\": (op: \"add\", in: {{\"a\": \"inputs.i{i}\"}}),\n"),
        "}",
    );
    let unused = lines(
        100_000,
        "Graph(version: 1, inputs: {",
        input,
        "}, nodes: {\"a\": (op: \"add\", with: {\"a\": 1})}, outputs: {\"a\": \"a\"})",
    );
    let graph = soon(|| check(&unused)).unwrap();
    assert_eq!(graph.warnings().list.len(), 100_000);
    soon(|| graph.warnings().render());
    soon(|| plan_with(&graph, &nodes(), &[])).unwrap();
    let used = lines(
        100_000,
        "Graph(version: 1, inputs: {",
        input,
        &format!("}}, {nodes_text}, outputs: {{\"a\": \"n1\"}})"),
    );
    soon(|| check(&used)).unwrap();
}

#[test]
fn positions_of_many_places_are_those_of_each() {
    let text = lines(
        300,
        "Graph(version: 1, nodes: {\n",
        |i| format!("\"é{i}\": /* 長 */ (op: \"x\"), {}", if i % 3 == 0 { "\n" } else { "" }),
        "})",
    );
    let problems = check(&text).unwrap_err();
    let positions = problems.positions();
    for place in problems.list.iter().filter_map(|problem| problem.location) {
        assert_eq!(positions.of(place), problems.position(place));
    }
}

#[test]
fn nesting_of_types_is_bounded() {
    for levels in [17, 1_000, 1_000_000] {
        let ty = format!("{}Int{}", "List(".repeat(levels), ")".repeat(levels));
        let text = format!("Graph(version: 1, inputs: {{\"a\": (type: \"{ty}\")}})");
        let problems = check(&text).unwrap_err();
        assert!(
            codes(&problems).iter().all(|code| ["unknown-type", "too-long"].contains(code)),
            "{problems}"
        );
        let said = ty.parse::<kino_port::PortType>().unwrap_err();
        assert_eq!(said, "lists of lists go at most 16 deep");
    }
}

#[test]
fn names_of_any_length_are_told_shortly() {
    let long = "a".repeat(20_000_000);
    let texts = [
        format!("Graph(version: 1, nodes: {{\"n\": (op: \"{long}\")}})"),
        format!("Graph(version: 1, nodes: {{\"{long}\": (op: \"noise\")}})"),
        format!(
            "Graph(version: 1, nodes: {{\"n\": (op: \"decode\", in: {{\"latent\": \"{long}\"}})}})"
        ),
        format!(
            "Graph(version: 1, nodes: {{\"n\": (op: \"noise\", with: {{\"frames\": \"{long}\"}})}})"
        ),
        format!("Graph(version: 1, inputs: {{\"i\": (type: \"{long}\")}})"),
        format!("Graph({long}: 1)"),
        format!("{long}(version: 1)"),
    ];
    for text in texts {
        let problems = soon(|| check(&text)).unwrap_err();
        let said = problems.render();
        assert!(said.len() < 12_000, "{} bytes", said.len());
    }
    let said =
        check(&format!("Graph(version: 1, nodes: {{\"n\": (op: \"{}\")}})", "a".repeat(5_000)))
            .unwrap_err();
    assert!(said.to_string().contains("this is 5000 bytes long, at most 4096 fit"), "{said}");
}

#[test]
fn the_values_of_a_plan_are_bounded() {
    let big = "x".repeat(1 << 20);
    let text = lines(
        1_000,
        &format!(
            "Graph(version: 1, inputs: {{\"t\": (type: \"Path\", default: \"{big}\")}}, nodes: {{"
        ),
        |i| format!("\"r{i}\": (op: \"read\", in: {{\"path\": \"inputs.t\"}}), "),
        &lines(1_000, "}, outputs: {", |i| format!("\"r{i}\": \"r{i}\","), "})"),
    );
    let problems = soon(|| plan(&text)).unwrap_err();
    assert_eq!(codes(&problems), ["too-large"]);
}

/// Plans where `locate` says where files lie.
fn located_by(text: &str, locate: &dyn Fn(Access, &str) -> String) -> Result<Plan, Diagnostics> {
    let settings = PlanSettings {
        inputs: &[],
        until: None,
        versions: b"",
        machine: &|| b"".to_vec(),
        draw: &|_| 0,
        stem: "g",
        number: None,
        locate: Some(locate),
    };
    check(text)?.plan(&nodes(), &settings)
}

/// Plans with outputs beside the graph.
fn located(text: &str) -> Result<Plan, Diagnostics> {
    located_by(text, &|_, path| format!("/g/{}", path.trim_start_matches("./")))
}

#[test]
fn a_graph_does_not_read_what_it_writes() {
    let text = r#"Graph(version: 1, nodes: {"r": (op: "read", with: {"path": "x.png"}), "w": (op: "write", in: {"frames": "r"}, with: {"path": "./x.png"})})"#;
    let said = located(text).unwrap_err().render();
    assert!(said.contains("`r` reads the file `x.png`, which `w` writes"), "{said}");
    assert!(located(&text.replace("./x.png", "y.png")).is_ok());
    assert!(plan(text).is_ok(), "nobody says where outputs lie");
}

#[test]
fn where_a_file_lies_is_asked_once_however_many_read_it() {
    let read = |i| format!("\"r{i}\": (op: \"read\", with: {{\"path\": \"x.png\"}}), ");
    let write = "\"w\": (op: \"write\", in: {\"frames\": \"r0\"}, with: {\"path\": \"y.png\"})";
    let outputs = lines(100, "}, outputs: {", |i| format!("\"r{i}\": \"r{i}\","), "})");
    let text = lines(100, "Graph(version: 1, nodes: {", read, &format!("{write}{outputs}"));
    let asked = std::cell::RefCell::new(Vec::new());
    let locate = |_: Access, path: &str| {
        asked.borrow_mut().push(path.to_owned());
        path.to_owned()
    };
    let planned = located_by(&text, &locate);
    planned.unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(asked.into_inner(), ["y.png", "x.png"]);
}

#[test]
fn a_path_that_only_a_run_tells_is_refused() {
    let text = r#"Graph(version: 1, nodes: {"p": (op: "pick"), "r": (op: "read", in: {"path": "p"}), "g": (op: "gather", in: {"paths": ["p"]})},
        outputs: {"r": "r", "g": "g"})"#;
    let said = plan(text).unwrap_err().render();
    assert_eq!(said.matches("error[late-path]").count(), 2, "{said}");
    assert!(said.contains("`path` of `r`: only running `p` tells this path"), "{said}");
}

#[test]
fn a_path_that_a_node_computes_while_planning_is_as_good_as_written() {
    let text = r#"Graph(version: 1, nodes: {"j": (op: "join", with: {"a": "x", "b": ".mp4"}), "n": (op: "noise"), "d": (op: "decode", in: {"latent": "n"}),
        "v": (op: "write", in: {"frames": "d"}, with: {"path": "x.mp4"}), "w": (op: "write", in: {"frames": "d", "path": "j"})})"#;
    let said = plan(text).unwrap_err().render();
    assert!(said.contains("`v` and `w` write the same file `x.mp4`"), "{said}");
    let plan = plan(&text.replace("\"x.mp4\"", "\"y.mp4\"")).unwrap();
    let written: Vec<_> =
        plan.writes().map(|file| (&*plan.steps[file.step].name, file.path)).collect();
    assert_eq!(written, [("v", "y.mp4"), ("w", "x.mp4")]);
    assert!(plan.step("j").is_none(), "its value stands in place of its edge");
}

#[test]
fn a_computed_path_lies_beside_the_file_with_its_edge() {
    let inner = r#"Graph(version: 1, inputs: {"given": (type: "Path")}, nodes: {"j": (op: "join", with: {"a": "x", "b": ".png"}),
        "own": (op: "read", in: {"path": "j"}), "theirs": (op: "read", in: {"path": "inputs.given"})}, outputs: {"own": "own", "theirs": "theirs", "name": "j"})"#;
    let outer = r#"Graph(version: 1, nodes: {"j": (op: "join", with: {"a": "y", "b": ".png"}), "s": (op: "./sub/s.ron", in: {"given": "j"}),
        "r": (op: "read", in: {"path": "s.name"})}, outputs: {"own": "s.own", "theirs": "s.theirs", "r": "r"})"#;
    let files = Files::of(&[("sub/s.ron", inner)]);
    let graph = kino_graph::check("g.ron", outer, &nodes(), &files)
        .unwrap_or_else(|problems| panic!("{problems}"));
    let plan = plan_with(&graph, &nodes(), &[]).unwrap_or_else(|problems| panic!("{problems}"));
    let path = |name| plan.step(name).unwrap().1.inputs[0].clone();
    let text = |text: &'static str| StepInput::Literal(Literal::text(text));
    assert_eq!(path("s/own"), text("sub/x.png"));
    assert_eq!(path("s/theirs"), text("y.png"));
    assert_eq!(path("r"), text("x.png"));
}

#[test]
fn a_step_without_a_range_counts_both_ways() {
    let text = |value: &str| {
        format!(
            r#"Graph(version: 1, inputs: {{"i": (type: "Int", default: {value}, step: 2)}}, nodes: {{"a": (op: "add", in: {{"a": "inputs.i"}})}}, outputs: {{"a": "a"}})"#
        )
    };
    for value in ["-2", "0", "4", "-170141183460469231731687303715884105726"] {
        assert!(plan(&text(value)).is_ok(), "{value}");
    }
    let said = plan(&text("-3")).unwrap_err().render();
    assert!(
        said.contains("expected a whole number in steps of 2")
            && said.contains("near it: -4 and -2"),
        "{said}"
    );
    let drawn = plan(&text("\"random\"")).unwrap();
    assert_eq!(drawn.inputs[0].1, Literal::Int(84));
}

#[test]
fn what_a_node_computes_while_planning_is_bounded() {
    let text = lines(
        40,
        "Graph(version: 1, nodes: {\"j0\": (op: \"join\", with: {\"a\": \"x\", \"b\": \"y\"}),",
        |i| format!("\"j{}\": (op: \"join\", in: {{\"a\": \"j{i}\", \"b\": \"j{i}\"}}),", i + 1),
        "}, outputs: {\"j\": \"j40\"})",
    );
    let said = soon(|| plan(&text)).unwrap_err().render();
    assert!(said.contains("`j19`: a result is ") && said.contains("at most 1048576 fit"), "{said}");
}
