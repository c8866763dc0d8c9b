//! Plans: what runs, with which keys; records; differences.

mod common;

use std::cell::Cell;

use common::{Files, check, nodes, plan, plan_with};
use kino_graph::{Plan, PlanSettings, StepChange, StepInput, diff};
use kino_port::Literal;

const VIDEO: &str = r#"Graph(version: 1,
    inputs: {"seed": (type: "Int", default: 7), "name": (type: "Text", default: "a/b")},
    nodes: {
        "n": (op: "noise", in: {"seed": "inputs.seed"}, with: {"frames": 17}), // starts here
        "d": (op: "decode", in: {"latent": "n"}),
        "r": (op: "resize", in: {"frames": "d"}, with: {"width": 128}),
        "w": (op: "write", in: {"frames": "r"}, with: {"path": "{graph}-{seed}-{name}.mp4"}),
        "x": (op: "add", with: {"a": 1}),
    })"#;

fn names(plan: &Plan) -> Vec<&str> {
    plan.steps.iter().map(|step| &*step.name).collect()
}

fn set(name: &str, value: Literal) -> (String, Literal) {
    (name.to_owned(), value)
}

#[track_caller]
fn plan_set(text: &str, inputs: &[(String, Literal)]) -> Plan {
    plan_with(&check(text).unwrap(), &nodes(), inputs)
        .unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn only_what_is_needed_runs_and_paths_are_filled() {
    let plan = plan(VIDEO).unwrap();
    assert_eq!(names(&plan), ["n", "d", "r", "w"]);
    assert_eq!(plan.steps[3].inputs[1], StepInput::Literal(Literal::text("g-7-a_b.mp4")));
}

#[test]
fn a_plan_can_stop_early() {
    let graph = check(VIDEO).unwrap();
    let until = |name| {
        let settings = PlanSettings {
            inputs: &[],
            until: Some(name),
            versions: b"",
            machine: &|| b"".to_vec(),
            draw: &|_| 0,
            stem: "g",
            number: None,
            locate: None,
        };
        graph.plan(&nodes(), &settings)
    };
    assert_eq!(names(&until("d").unwrap()), ["n", "d"]);
    assert_eq!(
        until("q").unwrap_err().render().trim(),
        "error[unknown-node]: there is no node `q` to stop at\n  hint: there is `n`, `d`, `r`, `w`, `x`"
    );
}

#[test]
fn keys_follow_values_and_not_the_text() {
    let base = plan(VIDEO).unwrap();
    let respelled =
        VIDEO.replace("\"width\": 128", "/* wide */ \"width\": 0x80").replace("// starts here", "");
    assert_eq!(diff(&base, &plan(&respelled).unwrap()).changes, []);
    let seeded = plan_set(VIDEO, &[set("seed", Literal::Int(8))]);
    let changed = diff(&base, &seeded);
    let reasons: Vec<String> = changed.to_string().lines().map(str::to_owned).collect();
    assert_eq!(
        reasons,
        [
            "~ n: seed 7 → 8",
            "~ d: n changed",
            "~ r: d changed",
            "~ w: r changed, path \"g-7-a_b.mp4\" → \"g-8-a_b.mp4\""
        ]
    );
    let wide = plan(&VIDEO.replace("128", "256")).unwrap();
    let changed: Vec<_> =
        diff(&base, &wide).changes.into_iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(changed, ["r", "w"]);
    let literal =
        plan(&VIDEO.replace("in: {\"seed\": \"inputs.seed\"}, with: {", "with: {\"seed\": 7, "))
            .unwrap();
    assert_eq!(diff(&base, &literal).changes, []);
}

#[test]
fn a_new_and_a_gone_node_are_told_apart() {
    let base = plan(VIDEO).unwrap();
    let other = plan(&VIDEO.replace("\"r\"", "\"q\"").replace(": \"r\"}", ": \"q\"}")).unwrap();
    let changes = diff(&base, &other).changes;
    assert!(
        changes.contains(&("q".into(), StepChange::Added))
            && changes.contains(&("r".into(), StepChange::Removed))
    );
}

#[test]
fn the_environment_and_files_enter_the_keys() {
    let text = r#"Graph(version: 1, nodes: {"r": (op: "read", with: {"path": "x.png"})}, outputs: {"f": "r"})"#;
    let (graph, catalog) = (check(text).unwrap(), nodes());
    let one = plan_with(&graph, &catalog, &[]).unwrap();
    *catalog.content.borrow_mut() = "two".into();
    let two = plan_with(&graph, &catalog, &[]).unwrap();
    assert_eq!(diff(&one, &two).to_string(), "~ r: x.png changed\n");
    let settings = PlanSettings {
        inputs: &[],
        until: None,
        versions: b"",
        machine: &|| b"gpu".to_vec(),
        draw: &|_| 0,
        stem: "g",
        number: None,
        locate: None,
    };
    let gpu = graph.plan(&catalog, &settings).unwrap();
    assert_eq!(
        diff(&two, &gpu).to_string(),
        "~ r: device, compute type or engine version changed\n"
    );
}

#[test]
fn the_machine_is_asked_for_nodes_whose_results_depend_on_it_alone() {
    let text = r#"Graph(version: 1, nodes: {"j": (op: "join", with: {"a": "x"}), "s": (op: "add", with: {"a": 1.0})},
        outputs: {"text": "j", "sum": "s"})"#;
    let (graph, catalog) = (check(text).unwrap(), nodes());
    let keys = |until: Option<&str>, machine: &'static [u8]| {
        let asked = Cell::new(0);
        let machine = || {
            asked.set(asked.get() + 1);
            machine.to_vec()
        };
        let settings = PlanSettings {
            inputs: &[],
            until,
            versions: b"1",
            machine: &machine,
            draw: &|_| 0,
            stem: "g",
            number: None,
            locate: None,
        };
        let plan = graph.plan(&catalog, &settings).unwrap();
        let key =
            |name: &str| plan.steps.iter().find(|step| &*step.name == name).map(|step| step.key);
        (asked.get(), key("j"), key("s"))
    };
    let (asked, _, _) = keys(Some("j"), b"cpu");
    assert_eq!(asked, 0);
    let ((asked, join, add), (_, join_there, add_there)) = (keys(None, b"cpu"), keys(None, b"gpu"));
    assert_eq!((asked, join), (1, join_there));
    assert_ne!(add, add_there);
}

#[test]
fn values_known_while_planning_flow_into_literals() {
    let text = r#"Graph(version: 1, nodes: {"a": (op: "add", with: {"a": 1, "b": 2}), "b": (op: "add", in: {"a": "a", "b": "a"})},
        outputs: {"sum": "b"})"#;
    let plan = plan(text).unwrap();
    assert_eq!(plan.steps[1].facts[0].literal(), Some(&Literal::Real(6.0)));
}

#[test]
fn a_branch_that_is_not_taken_is_not_planned() {
    let text = |on: &str| {
        format!(
            r#"Graph(version: 1, inputs: {{"on": (type: "Bool", default: {on})}}, nodes: {{
                "good": (op: "noise", with: {{"frames": 17}}), "bad": (op: "noise", with: {{"frames": 16}}),
                "s": (op: "switch", in: {{"on": "inputs.on", "a": "good", "b": "bad"}}),
                "d": (op: "decode", in: {{"latent": "s"}})}}, outputs: {{"frames": "d"}})"#
        )
    };
    assert_eq!(names(&plan(&text("true")).unwrap()), ["good", "s", "d"]);
    let said = plan(&text("false")).unwrap_err().render();
    assert!(said.contains("`frames` of `bad`: expected 4k+1 frames, found 16"), "{said}");
}

#[test]
fn inputs_without_a_default_must_be_set() {
    let text = r#"Graph(version: 1, inputs: {"x": (type: "Real"), "f": (type: "Frames")}, nodes: {
        "a": (op: "add", in: {"a": "inputs.x"}), "r": (op: "resize", in: {"frames": "inputs.f"})},
        outputs: {"sum": "a", "frames": "r"})"#;
    assert_eq!(
        plan(text).unwrap_err().render().trim(),
        "error[unset-input] g.ron:1:33: input `x` has no value\n  \
           hint: set it with `--set x=…`; it takes a number\n\
         error[unset-input] g.ron:1:54: input `f` has no value\n  \
           hint: a value of type Frames comes from another graph that uses this one"
    );
}

#[test]
fn the_command_line_is_read_by_the_declared_type() {
    let text = r#"Graph(version: 1, inputs: {"i": (type: "Int", default: 1, range: (0, 9)), "r": (type: "Real", default: 1),
        "t": (type: "Text", default: ""), "l": (type: "List(Text)", default: []), "b": (type: "Bool", default: true), "n": (type: "Int", default: 5)},
        nodes: {"a": (op: "add", in: {"a": "inputs.r"}), "m": (op: "noise", in: {"seed": "inputs.i", "frames": "inputs.n"})},
        outputs: {"sum": "a", "latent": "m"})"#;
    let graph = check(text).unwrap();
    assert_eq!(graph.read_input("i", "5").unwrap(), Literal::Int(5));
    assert_eq!(graph.read_input("i", "random").unwrap(), Literal::text("random"));
    assert_eq!(graph.read_input("r", "2").unwrap(), Literal::Real(2.0));
    assert_eq!(graph.read_input("t", "true, 5").unwrap(), Literal::text("true, 5"));
    assert_eq!(graph.read_input("b", "false").unwrap(), Literal::Bool(false));
    let texts = |texts: &[&str]| {
        Literal::List(texts.iter().map(|text| Literal::text((*text).to_owned())).collect())
    };
    assert_eq!(graph.read_input("l", "a, b").unwrap(), texts(&["a", "b"]));
    assert_eq!(graph.read_input("l", r#"["a, b", "c"]"#).unwrap(), texts(&["a, b", "c"]));
    assert_eq!(graph.read_input("l", "[]").unwrap(), texts(&[]));
    let said = |name, raw| graph.read_input(name, raw).unwrap_err().render();
    assert!(said("l", r#"["a"#).starts_with("error[value]: input `l`: `[\"a` is no list: "));
    assert!(said("l", "[a]").contains("write texts in quotes"), "{}", said("l", "[a]"));
    assert_eq!(
        said("i", "12"),
        "error[value]: input `i`: expected a whole number from 0 to 9 or \"random\", found 12\n"
    );
    assert_eq!(
        said("i", "x"),
        "error[value]: input `i`: expected a whole number from 0 to 9 or \"random\", found `x`\n"
    );
    // Only what feeds a seed can be drawn.
    assert_eq!(
        said("n", "random"),
        "error[value]: input `n`: expected a whole number, found \"random\"\n"
    );
    assert_eq!(
        said("q", "x"),
        "error[unknown-input]: the graph has no input `q`\n  hint: there is `i`, `r`, `t`, `l`, `b`, `n`\n"
    );
}

const OUTER: &str = r#"// A comment that stays.
Graph(version: 1,
    inputs: {"seed": (type: "Int"), "width": (type: "Int", default: 32, range: (16, 64), about: "px")},
    nodes: {
        "n": (op: "noise", in: {"seed": "inputs.seed"}),
        "m": (op: "noise", with: {"seed": "random"}),
        "d": (op: "decode", in: {"latent": "n"}),
        "e": (op: "decode", in: {"latent": "m"}),
        "up": (op: "./sub/up.ron", in: {"frames": "d", "width": "inputs.width"}),
        "c": (op: "concat", in: {"parts": {"one": "up.frames", "two": "e"}}),
    },
    outputs: {"frames": "c"})"#;

const INNER: &str = r#"Graph(version: 1,
    inputs: {"frames": (type: "Frames"), "width": (type: "Int")},
    nodes: {"again": (op: "./twice.ron", in: {"frames": "inputs.frames", "width": "inputs.width"}),
            "noise": (op: "noise", with: {"seed": "random"}), "dec": (op: "decode", in: {"latent": "noise"}),
            "both": (op: "concat", in: {"parts": ["again.frames", "dec"]})},
    outputs: {"frames": "both"})
"#;

const TWICE: &str = r#"Graph(version: 1, inputs: {"frames": (type: "Frames"), "width": (type: "Int")},
    nodes: {"a": (op: "resize", in: {"frames": "inputs.frames", "width": "inputs.width"}),
            "b": (op: "resize", in: {"frames": "a", "width": "inputs.width"})},
    outputs: {"frames": "b"})"#;

#[test]
fn a_record_is_one_text_that_plans_to_the_same_keys() {
    let files = Files::of(&[("sub/up.ron", INNER), ("sub/twice.ron", TWICE)]);
    let graph = kino_graph::check("outer.ron", OUTER, &nodes(), &files).unwrap();
    let draws = std::cell::Cell::new(100);
    let draw = |_: &str| {
        draws.set(draws.get() + 1);
        draws.get()
    };
    let inputs = [set("seed", Literal::text("random")), set("width", Literal::Int(48))];
    let settings = PlanSettings {
        inputs: &inputs,
        until: None,
        versions: b"",
        machine: &|| b"cpu".to_vec(),
        draw: &draw,
        stem: "outer",
        number: None,
        locate: None,
    };
    let plan = graph.plan(&nodes(), &settings).unwrap();
    assert_eq!(
        names(&plan).iter().filter(|name| name.starts_with("up/")).count(),
        5,
        "the inner graphs are inlined"
    );
    let record = plan.embedded_workflow();
    assert!(
        record.starts_with("// A comment that stays.") && !record.contains("random"),
        "{record}"
    );
    let again = kino_graph::check("outer.ron", record, &nodes(), &Files::default())
        .unwrap_or_else(|problems| panic!("{problems}\n{record}"));
    let settings = PlanSettings { inputs: &[], draw: &|_| 0, ..settings };
    let same = again.plan(&nodes(), &settings).unwrap();
    assert_eq!(diff(&plan, &same).changes, []);
    assert_eq!(same.steps.len(), plan.steps.len());
    assert_eq!(same.embedded_workflow(), record);
}

#[test]
fn a_bypassed_node_passes_its_input_through() {
    let bypassed =
        plan(&VIDEO.replace("\"width\": 128}", "\"width\": 128}, bypass: true")).unwrap();
    assert_eq!(names(&bypassed), ["n", "d", "w"]);
}

#[test]
fn all_of_ron_is_read() {
    let plain = r#"Graph(version: 1, about: "x", nodes: {"n": (op: "noise", with: {"seed": 26, "frames": 17}),
        "a": (op: "add", with: {"a": 1500, "b": inf})}, outputs: {"latent": "n", "sum": "a"})"#;
    let fancy = "\u{feff}#![enable(implicit_some, unwrap_newtypes)]\n#![enable(unwrap_variant_newtypes)] /* a */ \
        ( r#version: 0x1, about: Some('x'), nodes: { r#\"n\"#: Node (op: \"noi\\x73e\", with: {\"seed\": 0b1_1010u64, \
        \"frames\": +0o21,},), \"a\": (with: {\"b\": inf, \"a\": 1.5e3f32}, op: \"a\\\n   dd\")}, \
        outputs: {\"sum\": \"a\", \"\\u{6c}atent\": \"n\"}) // end";
    let (plain, fancy) = (plan(plain).unwrap(), plan(fancy).unwrap_or_else(|e| panic!("{e}")));
    assert_eq!(diff(&plain, &fancy).changes, []);
    assert_eq!(fancy.step("n").unwrap().1.inputs[1], StepInput::Literal(Literal::Int(17)));
}

#[test]
fn lists_of_values_are_set_and_read() {
    let text = r#"Graph(version: 1, inputs: {"all": (type: "List(Path)", default: ["a.png", "b.png"]), "one": (type: "Path", default: "{graph}.png")},
        nodes: {"r": (op: "gather", in: {"paths": "inputs.all"}), "q": (op: "gather", with: {"paths": ["{graph}.png", "{{b}}"]}),
                "s": (op: "gather", in: {"paths": ["inputs.one", "inputs.all"]})},
        outputs: {"r": "r", "q": "q", "s": "s"})"#;
    let graph = check(text).unwrap();
    let set = [set("all", graph.read_input("all", "x.png, y.png").unwrap())];
    let plan = plan_with(&graph, &nodes(), &set).unwrap();
    let paths = |name| format!("{:?}", plan.step(name).unwrap().1.inputs[0]);
    assert_eq!(
        plan.step("r").unwrap().1.inputs[0],
        StepInput::Literal(Literal::List(vec![Literal::text("x.png"), Literal::text("y.png")]))
    );
    assert!(paths("q").contains("\"g.png\"") && paths("q").contains("\"{b}\""), "{}", paths("q"));
    let StepInput::List(items) = &plan.step("s").unwrap().1.inputs[0] else { panic!() };
    assert_eq!(items.len(), 3);
}

#[test]
fn extreme_ranges_do_not_overflow() {
    let most = i128::MAX;
    let text = |value: &str| {
        format!(
            r#"Graph(version: 1, inputs: {{"seed": (type: "Int", default: {value}, range: (-{most}, {most}), step: 7)}},
                nodes: {{"n": (op: "noise", in: {{"seed": "inputs.seed"}})}}, outputs: {{"latent": "n"}})"#
        )
    };
    let said = plan(&text(&most.to_string())).unwrap_err().render();
    assert!(said.contains("near it: "), "{said}");
    assert!(plan(&text("\"random\"")).is_err(), "the node takes no number below 0");
}

#[test]
fn a_plan_is_json() {
    let json = serde_json::to_value(plan(VIDEO).unwrap()).unwrap();
    assert_eq!(json["inputs"], serde_json::json!({"seed": "7", "name": "\"a/b\""}));
    assert_eq!(json["steps"][1]["op"], "decode");
    assert_eq!(json["steps"][1]["key"].as_str().unwrap().len(), 64);
}

#[test]
fn a_dead_branch_may_be_wrong_in_any_way() {
    let text = r#"Graph(version: 1, inputs: {"w": (type: "Int", default: 16)}, nodes: {
        "sum": (op: "add", with: {"a": 1, "b": 1}), "bad": (op: "add", in: {"a": "sum", "b": "sum"}),
        "one": (op: "add", with: {"a": 1}), "n": (op: "noise", in: {"frames": "inputs.w"}),
        "d": (op: "decode", in: {"latent": "n"}), "r": (op: "read", with: {"path": "x.png"}),
        "s": (op: "switch", in: {"a": "d", "b": "r"}, with: {"on": false})}, outputs: {"s": "s", "one": "one"})"#;
    assert_eq!(names(&plan(text).unwrap()), ["one", "r", "s"]);
    let said = plan_with(&check(text).unwrap(), &nodes(), &[set("w", Literal::Int(300))]);
    assert_eq!(
        names(&said.unwrap()),
        ["one", "r", "s"],
        "300 frames are too many, but nobody asks"
    );
}

#[test]
fn a_long_way_through_bypassed_nodes_ends() {
    let chain = |order: &mut dyn Iterator<Item = usize>, last: usize| {
        let mut text = String::from(
            r#"Graph(version: 1, nodes: {"n0": (op: "read", with: {"path": "x.png"}),"#,
        );
        for i in order {
            let before = i - 1;
            text.push_str(&format!(
                r#""n{i}": (op: "resize", bypass: true, in: {{"frames": "n{before}"}}),"#
            ));
        }
        check(&format!(r#"{text}}}, outputs: {{"frames": "n{last}"}})"#))
    };
    assert_eq!(chain(&mut (1..=100_000), 100_000).unwrap().len(), 1);
    assert_eq!(chain(&mut (1..=250).rev(), 250).unwrap().len(), 1);
    let problems = chain(&mut (1..=100_000).rev(), 100_000).unwrap_err();
    assert_eq!(problems.list[0].code, "bypass");
}

#[test]
fn ten_thousand_outputs_side_by_side_are_planned() {
    let (mut nodes_text, mut outputs) = (String::new(), String::new());
    for i in 0..10_000 {
        nodes_text.push_str(&format!("\"n{i}\": (op: \"add\", with: {{\"a\": {i}}}),\n"));
        outputs.push_str(&format!("\"o{i}\": \"n{i}\", "));
    }
    let plan = plan(&format!("Graph(version: 1, nodes: {{{nodes_text}}}, outputs: {{{outputs}}})"));
    let plan = plan.unwrap();
    assert_eq!((plan.steps.len(), plan.outputs.len()), (10_000, 10_000));
    assert!(plan.steps.iter().all(|step| step.target));
}

#[test]
fn ten_thousand_nodes_are_asked_once_each() {
    let mut text =
        String::from("Graph(version: 1, nodes: {\"n0\": (op: \"add\", with: {\"a\": 1}),\n");
    for i in 1..10_000 {
        text.push_str(&format!(
            "\"n{i}\": (op: \"add\", in: {{\"a\": \"n{}\"}}, with: {{\"b\": 1}}),\n",
            i - 1
        ));
    }
    text.push_str("}, outputs: {\"sum\": \"n9999\"})");
    let catalog = nodes();
    let graph = kino_graph::check("long.ron", &text, &catalog, &Files::default()).unwrap();
    let plan = plan_with(&graph, &catalog, &[]).unwrap();
    assert_eq!((plan.steps.len(), catalog.infers.borrow().len()), (10_000, 10_000));
    assert_eq!(plan.steps[9_999].facts[0].literal(), Some(&Literal::Real(10_000.0)));
}
