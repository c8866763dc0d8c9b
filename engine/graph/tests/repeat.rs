//! Loops: a graph that runs a number of times, each turn with what the one before it gave.

mod common;

use common::{Files, names, nodes};
use kino_graph::{Diagnostics, Graph, Plan, StepInput, ValueSource};
use kino_port::Literal;

/// Makes frames of what was last, and hands the last of them on.
const BODY: &str = r#"Graph(version: 1,
    inputs: {"last": (type: "Frames"), "width": (type: "Int", default: 64, range: (16, 128)), "index": (type: "Int")},
    nodes: {"seed": (op: "count", in: {"a": "inputs.index"}, with: {"b": 100}),
            "n": (op: "noise", in: {"seed": "seed"}), "d": (op: "decode", in: {"latent": "n"}),
            "c": (op: "concat", in: {"parts": ["inputs.last", "d"]}),
            "r": (op: "resize", in: {"frames": "c", "width": "inputs.width"}), "s": (op: "split", in: {"frames": "r"})},
    outputs: {"last": "s.first", "frames": "r"})"#;

const OUTER: &str = r#"Graph(version: 1, inputs: {"turns": (type: "Int", default: 3), "w": (type: "Int", default: 32)},
    nodes: {"o": (op: "read", with: {"path": "x.png"}),
            "film": (op: "repeat", in: {"times": "inputs.turns", "last": "o", "width": "inputs.w"}, with: {"graph": "./body.ron"}),
            "w": (op: "write", in: {"frames": "film.frames"}, with: {"path": "{graph}.mp4"})},
    outputs: {"last": "film.last"})"#;

fn checked(texts: &[(&str, &str)]) -> Result<Graph, Diagnostics> {
    kino_graph::check(texts[0].0, texts[0].1, &nodes(), &Files::of(&texts[1..]))
}

fn graph(texts: &[(&str, &str)]) -> Graph {
    checked(texts).unwrap_or_else(|problems| panic!("{problems}"))
}

fn planned(graph: &Graph, inputs: &[(&str, i128)], until: Option<&str>) -> Result<Plan, String> {
    let inputs: Vec<_> = inputs.iter().map(|(name, value)| (*name, Literal::Int(*value))).collect();
    common::planned(graph, &inputs, until)
}

/// The name of the step that feeds an input, and the index of its output.
fn feeds<'p>(plan: &'p Plan, step: &str, port: &str) -> Vec<(&'p str, u32)> {
    let (_, step) = plan.step(step).unwrap_or_else(|| panic!("no {step}: {:?}", names(plan)));
    let at = step.ports.iter().position(|name| **name == *port).unwrap();
    let sources = step.inputs[at].sources();
    sources.map(|from| (&*plan.steps[from.step as usize].name, from.output)).collect()
}

/// What a graph with this body, or this use of it, is refused with, while it is checked or planned.
#[track_caller]
fn refused(outer: &str, body: &str, expected: &str) {
    let said = match checked(&[("outer.ron", outer), ("body.ron", body)]) {
        Err(problems) => problems.render(),
        Ok(graph) => planned(&graph, &[], None).expect_err("it is refused"),
    };
    assert_eq!(said.trim(), expected.trim(), "\nfound:\n{said}");
}

#[test]
fn a_turn_takes_what_the_one_before_it_gave_and_frames_are_joined() {
    let graph = graph(&[("outer.ron", OUTER), ("body.ron", BODY)]);
    let plan = planned(&graph, &[], None).unwrap();
    assert_eq!(plan.steps.len(), 1 + 3 * 6 + 2, "{:?}", names(&plan));
    assert_eq!(feeds(&plan, "film/0/c", "parts")[0], ("o", 0));
    assert_eq!(feeds(&plan, "film/1/c", "parts")[0], ("film/0/s", 0));
    assert_eq!(feeds(&plan, "film/2/c", "parts")[0], ("film/1/s", 0));
    let all = [("film/0/r", 0), ("film/1/r", 0), ("film/2/r", 0)];
    assert_eq!(feeds(&plan, "film/frames", "parts"), all);
    assert_eq!(feeds(&plan, "w", "frames"), [("film/frames", 0)]);
    let ValueSource::Edge(last) = &plan.outputs[0].1 else { panic!("no edge") };
    assert_eq!((&*plan.steps[last.step as usize].name, last.output), ("film/2/s", 0));
    let seeds = (0..3).map(|turn| plan.step(&format!("film/{turn}/n")).unwrap().1.facts.len());
    assert_eq!(seeds.collect::<Vec<_>>(), [1, 1, 1]);
    for turn in 0..3 {
        let (_, seed) = plan.step(&format!("film/{turn}/seed")).unwrap();
        assert_eq!(seed.inputs[0], StepInput::Literal(Literal::Int(turn)));
        let (_, resize) = plan.step(&format!("film/{turn}/r")).unwrap();
        assert_eq!(resize.inputs[1], StepInput::Literal(Literal::Int(32)));
    }
}

#[test]
fn a_longer_run_begins_with_the_turns_of_a_shorter_one() {
    let graph = graph(&[("outer.ron", OUTER), ("body.ron", BODY)]);
    let short = planned(&graph, &[], None).unwrap();
    let long = planned(&graph, &[("turns", 40)], None).unwrap();
    assert_eq!(long.steps.len(), 1 + 40 * 6 + 2);
    for step in short.steps.iter().filter(|step| step.name.starts_with("film/0")) {
        assert_eq!(step.key, long.step(&step.name).unwrap().1.key, "{}", step.name);
    }
    let keys = |plan: &Plan| -> Vec<_> {
        (0..3).map(|turn| plan.step(&format!("film/{turn}/d")).unwrap().1.key).collect()
    };
    assert_eq!(keys(&short), keys(&long));
    assert_ne!(keys(&short)[0], keys(&short)[1], "each turn has a seed of its own");
    let one = planned(&graph, &[("turns", 1)], None).unwrap();
    assert_eq!(feeds(&one, "film/frames", "parts"), [("film/0/r", 0)]);
    let ValueSource::Edge(last) = &one.outputs[0].1 else { panic!("no edge") };
    assert_eq!(&*one.steps[last.step as usize].name, "film/0/s");
}

#[test]
fn a_plan_can_stop_at_a_loop_a_turn_or_a_node_of_it() {
    let graph = graph(&[("outer.ron", OUTER), ("body.ron", BODY)]);
    let until = |name| planned(&graph, &[("turns", 4)], Some(name)).unwrap();
    let film = until("film");
    assert!(film.step("film/frames").is_some() && film.step("w").is_none(), "{:?}", names(&film));
    let turn = until("film/2");
    assert!(turn.step("film/2/s").is_some() && turn.step("film/3/n").is_none());
    assert_eq!(names(&until("film/3/d")), ["film/3/seed", "film/3/n", "film/3/d"]);
    let said = planned(&graph, &[("turns", 4)], Some("film/4/d")).unwrap_err();
    assert!(said.contains("there is no node `film/4/d` to stop at"), "{said}");
}

#[test]
fn the_workflow_of_a_loop_plans_to_the_same() {
    let graph = graph(&[("outer.ron", OUTER), ("body.ron", BODY)]);
    let plan = planned(&graph, &[("turns", 5)], None).unwrap();
    let record = plan.embedded_workflow();
    let again = kino_graph::check("outer.ron", record, &nodes(), &Files::default())
        .unwrap_or_else(|problems| panic!("{problems}\n{record}"));
    let same = planned(&again, &[], None).unwrap();
    assert_eq!(kino_graph::diff(&plan, &same).changes, []);
    assert_eq!((same.steps.len(), same.embedded_workflow()), (plan.steps.len(), record));
}

#[test]
fn what_no_node_joins_becomes_a_list() {
    let body = r#"Graph(version: 1, inputs: {"word": (type: "Text"), "index": (type: "Int")},
        nodes: {"j": (op: "join", in: {"a": "inputs.word"}, with: {"b": "!"}), "c": (op: "count", in: {"a": "inputs.index"}, with: {"b": 1})},
        outputs: {"word": "j", "said": "j", "n": "c"})"#;
    let outer = r#"Graph(version: 1, nodes: {"l": (op: "repeat", with: {"graph": "./body.ron", "times": 3, "word": "a"}),
        "t": (op: "texts", in: {"texts": "l.said"}), "u": (op: "texts", in: {"texts": ["l.word", "l.said"]})}, outputs: {"t": "t", "u": "u"})"#;
    let plan = planned(&graph(&[("outer.ron", outer), ("body.ron", body)]), &[], None).unwrap();
    let all = [("l/0/j", 0), ("l/1/j", 0), ("l/2/j", 0)];
    assert_eq!(feeds(&plan, "t", "texts"), all);
    assert_eq!(feeds(&plan, "u", "texts"), [&all[2..], &all].concat());
    let said =
        |turn: usize| plan.step(&format!("l/{turn}/j")).unwrap().1.facts[0].literal().cloned();
    assert_eq!(said(2), Some(Literal::text("a!!!")));
    refused(
        &outer.replace("\"t\": \"t\"", "\"t\": \"l.said\""),
        body,
        "error[type] outer.ron:2:127: `t` is a list, but an output of a graph is one value\n  \
         hint: feed a node with it that takes a list",
    );
}

#[test]
fn latents_and_masks_go_into_graphs_and_round_loops() {
    let body = r#"Graph(version: 1, inputs: {"latent": (type: "Latent"), "mask": (type: "Mask"), "frames": (type: "Frames")},
        nodes: {"m": (op: "mix", in: {"a": "inputs.latent", "mask": "inputs.mask"}), "r": (op: "resize", in: {"frames": "inputs.frames"})},
        outputs: {"latent": "m.latent", "mask": "m.mask", "frames": "r"})"#;
    let uses = |op: &str| {
        format!(
            r#"Graph(version: 1, nodes: {{"n": (op: "noise"), "k": (op: "rect"), "f": (op: "read", with: {{"path": "x.png"}}),
            "x": (op: {op}, in: {{"latent": "n", "mask": "k", "frames": "f"}})}}, outputs: {{"latent": "x.latent", "mask": "x.mask", "frames": "x.frames"}})"#
        )
    };
    let once = graph(&[("outer.ron", &uses("\"./body.ron\"")), ("body.ron", body)]);
    let plan = planned(&once, &[], None).unwrap();
    assert_eq!(feeds(&plan, "x/m", "mask"), [("k", 0)]);
    let looped = uses("\"repeat\", with: {\"graph\": \"./body.ron\", \"times\": 4}");
    let plan = planned(&graph(&[("outer.ron", &looped), ("body.ron", body)]), &[], None).unwrap();
    assert_eq!(feeds(&plan, "x/3/m", "a"), [("x/2/m", 0)]);
    assert_eq!(feeds(&plan, "x/3/m", "mask"), [("x/2/m", 1)]);
    assert_eq!(feeds(&plan, "x/0/r", "frames"), [("f", 0)]);
}

#[test]
fn the_number_of_turns_may_be_computed_before_anything_runs() {
    let outer = OUTER
        .replace(
            "\"o\":",
            "\"t\": (op: \"count\", in: {\"a\": \"inputs.turns\"}, with: {\"b\": 4}), \"o\":",
        )
        .replace("\"times\": \"inputs.turns\"", "\"times\": \"t\"");
    let graph = graph(&[("outer.ron", &outer), ("body.ron", BODY)]);
    assert!(graph.warnings().list.is_empty(), "{}", graph.warnings());
    let plan = planned(&graph, &[("turns", 5)], None).unwrap();
    assert!(plan.step("film/8/d").is_some() && plan.step("film/9/d").is_none());
    assert!(plan.step("t").is_none(), "its value is known");
    let said = planned(&graph, &[("turns", -4)], None).unwrap_err();
    assert!(
        said.starts_with("error[value] outer.ron:3:")
            && said
                .contains("`times` of `film`: expected a whole number from 1 to 100000, found 0"),
        "{said}"
    );
}

#[test]
fn a_loop_within_a_graph_that_is_used_twice_is_two() {
    let outer = r#"Graph(version: 1, nodes: {"o": (op: "read", with: {"path": "x.png"}),
        "a": (op: "./mid.ron", in: {"first": "o"}, with: {"turns": 2}), "b": (op: "./mid.ron", in: {"first": "a"}, with: {"turns": 5})},
        outputs: {"frames": "b"})"#;
    let mid = r#"Graph(version: 1, inputs: {"first": (type: "Frames"), "turns": (type: "Int", default: 1)},
        nodes: {"film": (op: "repeat", in: {"last": "inputs.first", "times": "inputs.turns"}, with: {"graph": "./body.ron"})},
        outputs: {"frames": "film.frames"})"#;
    let graph = graph(&[("outer.ron", outer), ("mid.ron", mid), ("body.ron", BODY)]);
    let plan = planned(&graph, &[], None).unwrap();
    assert_eq!(feeds(&plan, "a/film/frames", "parts").len(), 2);
    assert_eq!(feeds(&plan, "b/film/frames", "parts").len(), 5);
    assert_eq!(feeds(&plan, "b/film/0/c", "parts")[0], ("a/film/frames", 0));
}

#[test]
fn a_bypassed_loop_passes_its_input_through() {
    let outer = OUTER.replace("\"./body.ron\"}", "\"./body.ron\"}, bypass: true");
    let plan = planned(&graph(&[("outer.ron", &outer), ("body.ron", BODY)]), &[], None).unwrap();
    assert_eq!(names(&plan), ["o", "w"]);
}

#[test]
fn what_is_handed_on_as_it_came_is_the_same_in_all_turns() {
    let body = r#"Graph(version: 1, inputs: {"f": (type: "Frames"), "g": (type: "Frames")},
        nodes: {"r": (op: "resize", in: {"frames": "inputs.f"})}, outputs: {"f": "inputs.g", "g": "r", "kept": "inputs.f"})"#;
    let outer = r#"Graph(version: 1, nodes: {"a": (op: "read", with: {"path": "a.png"}), "b": (op: "read", with: {"path": "b.png"}),
        "l": (op: "repeat", in: {"f": "a", "g": "b"}, with: {"graph": "./body.ron", "times": 600})}, outputs: {"f": "l.f", "k": "l.kept"})"#;
    let plan = planned(&graph(&[("outer.ron", outer), ("body.ron", body)]), &[], None).unwrap();
    assert_eq!(feeds(&plan, "l/0/r", "frames"), [("a", 0)]);
    assert_eq!(feeds(&plan, "l/1/r", "frames"), [("b", 0)]);
    assert_eq!(feeds(&plan, "l/2/r", "frames"), [("l/0/r", 0)]);
    assert_eq!(feeds(&plan, "l/kept", "parts").len(), 600);
    let same = body.replace("\"f\": \"inputs.g\"", "\"f\": \"inputs.f\"");
    let plan = planned(&graph(&[("outer.ron", outer), ("body.ron", &same)]), &[], None).unwrap();
    assert_eq!(feeds(&plan, "l/kept", "parts"), vec![("a", 0); 600]);
}

#[test]
fn uses_of_a_body_that_do_not_fit_are_refused_at_their_place() {
    let with = |from: &str, to: &str| OUTER.replacen(from, to, 1);
    refused(
        &with("\"./body.ron\"", "\"./bod.ron\""),
        BODY,
        "error[unreadable] outer.ron:3:117: the graph `bod.ron` cannot be read: no such file",
    );
    refused(
        &with(", with: {\"graph\": \"./body.ron\"}", ""),
        BODY,
        "error[missing-input] outer.ron:3:13: `film` does not say which graph it repeats\n  \
         hint: write `with: {\"graph\": \"./….ron\"}`",
    );
    refused(
        &with("\"./body.ron\"", "7"),
        BODY,
        "error[malformed] outer.ron:3:117: expected the path of a graph in quotes, found a number",
    );
    refused(
        &with("\"times\": \"inputs.turns\"", "\"graph\": \"o\""),
        BODY,
        "error[repeat] outer.ron:3:41: `graph` of `film` must be known before anything runs\n  \
         hint: write it out: `with: {\"graph\": \"./….ron\"}`",
    );
    refused(
        &with("\"times\": \"inputs.turns\", ", ""),
        BODY,
        "error[missing-input] outer.ron:3:13: nothing feeds `times` of `film`, which takes Int\n  \
         hint: write `with: {\"times\": …}`, or feed it with an edge in `in`",
    );
    refused(
        &with("\"last\": \"o\", ", ""),
        BODY,
        "error[missing-input] outer.ron:3:13: nothing feeds `last` of `film`, which takes Frames\n  \
         hint: write `in: {\"last\": \"node.port\"}`",
    );
    refused(
        &with("\"width\": \"inputs.w\"", "\"widht\": \"inputs.w\""),
        BODY,
        "error[unknown-port] outer.ron:3:79: `./body.ron` has no input `widht`\n  \
         hint: did you mean `width`?",
    );
    refused(
        &with("\"width\": \"inputs.w\"", "\"index\": \"inputs.w\""),
        BODY,
        "error[repeat] outer.ron:3:88: `index` of `film` is given: it is the number of the turn",
    );
    refused(
        &with("film.last", "film.lost"),
        BODY,
        "error[unknown-output] outer.ron:5:23: `film` has no output `lost`\n  \
         hint: did you mean `last`?",
    );
    refused(
        &with("\"last\": \"o\"", "\"last\": \"inputs.w\""),
        BODY,
        "error[type] outer.ron:3:74: `inputs.w` gives Int, but `film/0.last` takes Frames",
    );
    refused(
        &with("default: 32", "default: 8"),
        BODY,
        "error[value] outer.ron:1:92: default of input `w`: `width` of `film/0/r` expected a whole number from 16 to \
         4096, found 8\n  see outer.ron:3:88: used here\n\
         error[value] outer.ron:1:92: default of input `w`: `width` of `film/0` expected a whole number from 16 \
         to 128 or \"random\", found 8\n  see outer.ron:3:88: used here",
    );
}

#[test]
fn numbers_of_turns_that_do_not_fit_are_refused_at_their_place() {
    for (times, found) in [("0", "0"), ("-3", "-3"), ("100001", "100001"), ("1.5", "1.5")] {
        let outer = OUTER
            .replace("\"times\": \"inputs.turns\", ", "")
            .replace("\"./body.ron\"}", &format!("\"./body.ron\", \"times\": {times}}}"));
        let said = checked(&[("outer.ron", &outer), ("body.ron", BODY)]).unwrap_err().render();
        let expected = format!(
            "error[value] outer.ron:3:115: `times`: expected a whole number from 1 to 100000, found {found}"
        );
        assert!(said.starts_with(&expected), "{said}");
    }
    let graph = graph(&[("outer.ron", OUTER), ("body.ron", BODY)]);
    for turns in [0, -1, 100_001, i128::MAX] {
        let said = planned(&graph, &[("turns", turns)], None).unwrap_err();
        assert!(said.starts_with("error[value] outer.ron:3:50: `times` of `film`:"), "{said}");
    }
    // Each turn has eleven parts.
    let begun = std::time::Instant::now();
    let said = planned(&graph, &[("turns", 100_000)], None).unwrap_err();
    assert!(
        said.starts_with(
            "error[too-large] outer.ron:3:50: `film` is too long: 100000 turns and all the rest"
        ),
        "{said}"
    );
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    let plan = planned(&graph, &[("turns", 2_000)], None).unwrap();
    assert_eq!(plan.steps.len(), 1 + 2_000 * 6 + 2);
    refused(
        &OUTER.replace("\"times\": \"inputs.turns\"", "\"times\": \"p\"").replace(
            "\"o\": (op",
            "\"p\": (op: \"switch\", in: {\"a\": \"inputs.turns\", \"b\": \"inputs.turns\"}, with: {\"on\": true}), \"o\": (op",
        ),
        BODY,
        "error[repeat] outer.ron:3:50: `times` of `film`: only running `p` tells how often, but that \
         must be known before anything runs\n  \
         hint: write the number out, or make an input of the graph of it",
    );
    refused(
        &OUTER.replace("default: 3)", "range: (1, 9))"),
        BODY,
        "error[unset-input] outer.ron:1:37: input `turns` has no value\n  \
         hint: set it with `--set turns=…`; it takes a whole number from 1 to 9",
    );
}

#[test]
fn bodies_that_do_not_fit_are_refused_at_their_place() {
    let with = |from: &str, to: &str| BODY.replacen(from, to, 1);
    refused(
        OUTER,
        &with("\"last\": \"s.first\"", "\"last\": \"n\""),
        "error[type] body.ron:7:23: `last` is carried from turn to turn, but `./body.ron` gives Latent and takes Frames\n  \
         see body.ron:2:22: the input\n  \
         hint: the node `decode` turns Latent into Frames",
    );
    refused(
        OUTER,
        &with("\"index\": (type: \"Int\")", "\"index\": (type: \"Text\")"),
        "error[repeat] body.ron:2:104: `index` of a body is the number of the turn: an Int, found Text\n  \
         see outer.ron:3:13: repeated here",
    );
    refused(
        OUTER,
        &with("\"index\": (type: \"Int\")", "\"index\": (type: \"Int\", range: (0, 1))"),
        "error[value] body.ron:2:104: `index` of `film/2`: expected a whole number from 0 to 1 or \"random\", found 2",
    );
    refused(
        OUTER,
        &with("\"index\":", "\"times\": (type: \"Int\", default: 1), \"index\":"),
        "error[repeat] body.ron:2:104: `times` belongs to `repeat`: its body has no such input\n  \
         see outer.ron:3:13: repeated here",
    );
    refused(
        OUTER,
        &with("\"s.first\", \"frames\": \"r\"}", "\"s.first\", \"index\": \"seed\"}"),
        "error[repeat] body.ron:7:43: no output of a body is called `index`: `repeat` counts itself",
    );
    refused(
        OUTER,
        &with("\"d\": (op: \"decode\"", "\"d\": (op: \"decod\""),
        "error[unknown-op] body.ron:4:65: there is no op `decod`\n  hint: did you mean `decode`?",
    );
    refused(
        OUTER,
        &with(
            "\"seed\": (op",
            "\"x\": (op: \"repeat\", with: {\"graph\": \"./body.ron\", \"times\": 2}), \"seed\": (op",
        ),
        "error[repeat] body.ron:3:23: `x` lies in the body of `film`: loops are not nested\n  \
         see outer.ron:3:13: the loop around it\n  \
         hint: repeat a body that does all of it in one turn",
    );
    refused(
        OUTER,
        &with(
            "\"seed\": (op",
            "\"x\": (op: \"./body.ron\", in: {\"last\": \"r\"}, with: {\"index\": 1}), \"seed\": (op",
        ),
        "error[recursion] body.ron:3:23: graphs use each other: body.ron → body.ron",
    );
}

#[test]
fn what_a_loop_is_fed_with_does_not_depend_on_it() {
    let fed = OUTER.replace("\"last\": \"o\"", "\"last\": \"film.last\"");
    let said = checked(&[("outer.ron", &fed), ("body.ron", BODY)]).unwrap_err().render();
    assert!(
        said.contains("error[cycle]") && said.contains("these nodes feed each other"),
        "{said}"
    );
    let counted = r#"Graph(version: 1, nodes: {
        "a": (op: "repeat", with: {"graph": "./body.ron", "times": 2, "n": 1}),
        "b": (op: "repeat", in: {"times": "a.n"}, with: {"graph": "./body.ron", "n": 1})}, outputs: {"n": "b.n"})"#;
    let body = r#"Graph(version: 1, inputs: {"n": (type: "Int")}, nodes: {"c": (op: "count", in: {"a": "inputs.n"}, with: {"b": 1})}, outputs: {"n": "c"})"#;
    refused(
        counted,
        body,
        "error[repeat] outer.ron:3:43: `times` of `b` depends on `a/0/c`, which is part of a loop: how often a \
         loop repeats must be known before any loop is laid out",
    );
}

#[test]
fn the_texts_of_all_turns_are_bounded() {
    let long = BODY.replace(
        "\"seed\": (op",
        &format!(
            "\"x\": (op: \"join\", with: {{\"a\": \"{}\"}}), \"seed\": (op",
            "x".repeat(1 << 20)
        ),
    );
    let graph = graph(&[("outer.ron", OUTER), ("body.ron", &long)]);
    let said = planned(&graph, &[("turns", 64)], None).unwrap_err();
    assert!(said.contains("64 turns and all the rest are texts of over 64 MiB"), "{said}");
}
