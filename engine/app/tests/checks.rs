//! What `kino check` finds before anything runs, and how problems are told.

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Place, picture};
use serde_json::Value;

/// A graph that makes frames with the embedded model, with so many of them of such a width, and
/// more nodes.
fn film(frames: &str, width: &str, more: &str) -> String {
    format!(
        "Graph(version: 1, nodes: {{\n\
         \"model\": (op: \"model.load\", with: {{\"source\": \"embedded:shapes\"}}),\n\
         \"noise\": (op: \"latent.noise\", in: {{\"vae\": \"model.vae\"}},\n\
             with: {{\"width\": {width}, \"height\": 64, \"frames\": {frames}, \"seed\": 1}}),\n\
         \"frames\": (op: \"vae.decode\", in: {{\"vae\": \"model.vae\", \"latent\": \"noise\"}}),\n\
         {more}\n}}, outputs: {{\"frames\": \"frames\"}})"
    )
}

/// The one node that writes to a path.
fn writes(path: &str) -> String {
    let file = format!(
        "\"file\": (op: \"video.write\", in: {{\"frames\": \"frames\"}}, with: {{\"path\": \"{path}\"}}),"
    );
    film("9", "64", &file)
}

/// `kino check` and `kino plan` refuse a graph and say so.
#[track_caller]
fn refused(graph: &str, why: &str) {
    let place = Place::new();
    place.write("g.ron", graph);
    for command in ["check", "plan"] {
        let said = place.bad(2, &[command, "g.ron", "--short"]);
        assert!(said.contains(why), "kino {command}: {said}");
    }
}

/// `kino check` has nothing against a graph but what it warns of.
#[track_caller]
fn passed(graph: &str, warning: &str) {
    let place = Place::new();
    place.write("g.ron", graph);
    let ran = place.kino(&["check", "g.ron", "--short"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains(warning), "{}", ran.err);
    assert!(!warning.is_empty() || ran.err.is_empty(), "{}", ran.err);
}

#[test]
fn what_a_model_does_not_take_is_found() {
    refused(&film("10", "64", ""), "`frames` of `noise`: frames must be 4k+1");
    refused(&film("9", "60", ""), "`width` of `noise`:");
    let clips = |more: &str| {
        let more = format!(
            "\"patches\": (op: \"patchify\", in: {{\"latents\": {{\"a\": \"noise\", \"b\": \"noise\", \"c\": \
             \"noise\"}}, \"dit\": \"model.dit\"}}),\n{more}"
        );
        film("9", "64", &more)
    };
    let other = clips(
        "\"latent\": (op: \"unpatchify\", in: {\"patches\": \"patches\"}, with: {\"clip\": \"d\"}),\n\
         \"again\": (op: \"vae.decode\", in: {\"vae\": \"model.vae\", \"latent\": \"latent\"}),\n\
         \"file\": (op: \"video.write\", in: {\"frames\": \"again\"}, with: {\"path\": \"a.mp4\"}),",
    );
    refused(&other, "`clip` of `latent`");
    let texts = clips(
        "\"t\": (op: \"text.encode\", in: {\"encoder\": \"model.text_encoder\"}, with: {\"prompt\": \"x\"}),\n\
         \"sample\": (op: \"dit.sample\", in: {\"dit\": \"model.dit\", \"patches\": \"patches\", \
         \"text\": [\"t\", \"t\"]}),\n\
         \"latent\": (op: \"unpatchify\", in: {\"patches\": \"sample.patches\"}, with: {\"clip\": \"a\"}),\n\
         \"again\": (op: \"vae.decode\", in: {\"vae\": \"model.vae\", \"latent\": \"latent\"}),\n\
         \"file\": (op: \"video.write\", in: {\"frames\": \"again\"}, with: {\"path\": \"a.mp4\"}),",
    );
    refused(&texts, "`text` of `sample`");
}

#[test]
fn where_files_go_is_checked() {
    refused(&writes("../../x.mp4"), "not a path within it");
    refused(&writes("~/x.mp4"), "`~` is no home there");
    refused(&writes("x"), "does not end in a format such as .mp4");
    refused(&writes("frame_%05d.gif"), "written as .png or .exr alone");
    let two = film(
        "9",
        "64",
        "\"a\": (op: \"video.write\", in: {\"frames\": \"frames\"}, with: {\"path\": \"x.mp4\"}),\n\
         \"b\": (op: \"video.write\", in: {\"frames\": \"frames\"}, with: {\"path\": \"./x.mp4\"}),",
    );
    refused(&two, "write the same file");
    let odd = writes("a.mp4").replace("\"height\": 64", "\"height\": 64, \"nothing\": 1");
    refused(&odd, "has no input `nothing`");
}

/// Two files that are named by numbers which are drawn are two, and one number names one file.
#[test]
fn files_that_are_named_by_drawn_numbers_differ() {
    let graph = |other: &str| {
        let nodes = "\"a\": (op: \"video.write\", in: {\"frames\": \"frames\"}, with: {\"path\": \"{one}.mp4\"}),\n\
             \"b\": (op: \"video.write\", in: {\"frames\": \"frames\", \"path\": \"inputs.path\"}),";
        let inputs = format!(
            "inputs: {{\"one\": (type: \"Int\", default: \"random\", range: (0, 3)), \"two\": (type: \"Int\", \
             default: \"random\", range: (0, 3)), \"path\": (type: \"Path\", default: \"{{{other}}}.mp4\")}}, nodes: {{"
        );
        let fed = "in: {\"vae\": \"model.vae\", \"seed\": \"sum\"}";
        film("9", "64", nodes)
            .replace("nodes: {", &inputs)
            .replace(", \"seed\": 1", "")
            .replace("in: {\"vae\": \"model.vae\"}", fed)
            .replace(
                "\"noise\": (",
                "\"sum\": (op: \"math\", in: {\"a\": \"inputs.one\", \"b\": \"inputs.two\"}),\n\"noise\": (",
            )
    };
    passed(&graph("two"), "");
    refused(&graph("one"), "write the same file");
}

/// The numbers that feed a model may be computed, and come from inputs or from turns of a loop.
#[test]
fn what_is_computed_is_checked() {
    let computed = |expr: &str| {
        film("9", "64", "").replace("in: {\"vae\": \"model.vae\"},", "in: {\"vae\": \"model.vae\", \"frames\": \"n\"},")
            .replace("\"frames\": 9, ", "")
            .replace(
                "\"noise\": (",
                &format!("\"n\": (op: \"math\", in: {{\"values\": {{\"s\": \"inputs.s\"}}}}, with: {{\"expr\": \"{expr}\"}}),\n\"noise\": ("),
            )
            .replace("nodes: {", "inputs: {\"s\": (type: \"Int\", default: 2)}, nodes: {")
    };
    passed(&computed("4*s + 1"), "");
    refused(&computed("4*s + 2"), "`frames` of `noise`: frames must be 4k+1");
    // Without a default only planning knows the number.
    let open = computed("4*s + 2").replace(", default: 2", "");
    passed(&open, "");
    // A seed that is drawn may be any number.
    passed(&computed("1 + 4*(s % 3)").replace("default: 2", "default: 7"), "");
    let turns = |times: &str| {
        format!(
            "Graph(version: 1, nodes: {{\"film\": (op: \"repeat\", with: {{\"graph\": \"./b.ron\", \
             \"times\": {times}}}), \"sum\": (op: \"text.join\", in: {{\"parts\": \"film.text\"}})}}, \
             outputs: {{\"text\": \"sum\"}}, graphs: {{\"./b.ron\": Graph(version: 1, inputs: \
             {{\"index\": (type: \"Int\")}}, nodes: {{\"pick\": (op: \"text.pick\", in: {{\"index\": \
             \"inputs.index\"}}, with: {{\"texts\": [\"a\", \"b\", \"c\"]}})}}, outputs: {{\"text\": \
             \"pick\"}})}})"
        )
    };
    passed(&turns("3"), "");
    refused(&turns("4"), "`index` of `film/3/pick`");
    passed(&turns("1"), "");
}

/// What only the disk or the machine decides stands against no graph.
#[test]
fn what_the_machine_decides_is_left_to_planning() {
    let missing = |read: &str| {
        format!(
            "Graph(version: 1, nodes: {{\"in\": ({read}), \"info\": (op: \"frames.info\", in: {{\"frames\": \
             \"in.frames\"}}), \"sum\": (op: \"math\", in: {{\"a\": \"info.count\"}}, with: {{\"op\": \"div\", \
             \"b\": 2}}), \"t\": (op: \"text.pick\", in: {{\"index\": \"sum\"}}, with: {{\"texts\": [\"a.png\", \
             \"b.png\"]}}), \"out\": (op: \"image.write\", in: {{\"frames\": \"in.frames\", \"path\": \
             \"t.text\"}})}})"
        )
    };
    passed(&missing("op: \"image.read\", with: {\"path\": \"nowhere.png\"}"), "");
    passed(&missing("op: \"video.read\", with: {\"path\": \"nowhere.mp4\"}"), "");
    // Nothing is opened and hashed, so that what never ends does not matter.
    passed(&missing("op: \"image.read\", with: {\"path\": \"/dev/zero\"}"), "");
    let model = film("9", "64", "").replace("embedded:shapes", "models/none");
    passed(&model, "warning: `source` of `model`:");
    let hub = film("9", "64", "").replace("embedded:shapes", "hub:nobody/has-this");
    passed(&hub, "is not in the local Hugging Face cache");
    refused(&film("9", "64", "").replace("embedded:shapes", "embedded:other"), "no model `other`");
    // As many turns as a clip has frames: nobody has counted them.
    let turns = "Graph(version: 1, nodes: {\"in\": (op: \"video.read\", with: {\"path\": \"nowhere.mp4\"}), \
        \"info\": (op: \"frames.info\", in: {\"frames\": \"in.frames\"}), \
        \"film\": (op: \"repeat\", in: {\"times\": \"info.count\"}, with: {\"graph\": \"./b.ron\"}), \
        \"sum\": (op: \"text.join\", in: {\"parts\": \"film.text\"})}, outputs: {\"text\": \"sum\"}, \
        graphs: {\"./b.ron\": Graph(version: 1, inputs: {\"index\": (type: \"Int\")}, nodes: {\"pick\": \
        (op: \"text.pick\", in: {\"index\": \"inputs.index\"}, with: {\"texts\": [\"a\"]})}, \
        outputs: {\"text\": \"pick\"})})";
    passed(turns, "");
    let place = Place::new();
    place.write("g.ron", missing("op: \"image.read\", with: {\"path\": \"nowhere.png\"}"));
    let said = place.bad(2, &["plan", "g.ron", "--short"]);
    assert!(said.contains("g.ron:1:") && said.contains("nowhere.png"), "{said}");
}

/// A branch that is not taken is not held against a graph, and one that may be is not either.
#[test]
fn branches_that_are_not_taken_are_left_out() {
    let switch = |on: &str| {
        film("9", "64", "").replace(
            "\"frames\": (",
            "\"odd\": (op: \"latent.noise\", in: {\"vae\": \"model.vae\"}, with: {\"width\": 60, \
                 \"height\": 64, \"seed\": 1}),\n\"which\": (op: \"switch\", in: {\"a\": \"noise\", \"b\": \
                 \"odd\", \"on\": \"inputs.on\"}),\n\"frames\": (",
        )
        .replace("\"latent\": \"noise\"", "\"latent\": \"which\"")
        .replace("nodes: {", &format!("inputs: {{\"on\": (type: \"Bool\"{on})}}, nodes: {{"))
    };
    passed(&switch(", default: true"), "");
    refused(&switch(", default: false"), "`width` of `odd`");
    passed(&switch(""), "");
}

/// A text that doubles itself is bounded, and the node that it happens at is named.
#[test]
fn a_text_that_doubles_itself_is_refused() {
    let nodes: String = (1..45)
        .map(|at| {
            let before = at - 1;
            format!(
                "\"a{at}\": (op: \"text.join\", in: {{\"parts\": [\"a{before}\", \"a{before}\"]}}),"
            )
        })
        .collect();
    let graph = format!(
        "Graph(version: 1, nodes: {{\"a0\": (op: \"text.join\", with: {{\"parts\": [\"x\"]}}), {nodes}}}, \
         outputs: {{\"o\": \"a44\"}})"
    );
    refused(&graph, "`parts` of `a19`: the joined text is");
}

/// A list that a node gives is no item of another list.
#[test]
fn a_list_in_a_list_is_a_type_error() {
    let graph = |parts: &str| {
        format!(
            "Graph(version: 1, nodes: {{\"film\": (op: \"words\"), \"s\": (op: \"text.join\", in: \
             {{\"parts\": {parts}}})}}, outputs: {{\"s\": \"s\"}})"
        )
    };
    let engine = words();
    for parts in ["[\"film.parts\"]", "[\"film.parts\", \"film.text\"]", "{\"a\": \"film.parts\"}"]
    {
        let error = engine.open_text("g.ron", graph(parts), ".".as_ref()).err().unwrap();
        let said = error.to_string();
        assert!(said.contains("gives List(Text), but an item of `s.parts` is one Text"), "{said}");
        assert!(said.contains("feed `parts` with that list alone"), "{said}");
    }
    for parts in ["\"film.parts\"", "[\"film.text\", \"film.text\"]"] {
        let graph = engine.open_text("g.ron", graph(parts), ".".as_ref()).unwrap();
        graph.check().unwrap();
        let done = graph.run(kino_session::inputs! {}).start().unwrap().wait().unwrap();
        assert!(done.report.failed.is_empty());
    }
    // Handed to a graph used as a node.
    let inner = "Graph(version: 1, nodes: {\"film\": (op: \"words\"), \"g\": (op: \"./g.ron\", in: {\"texts\": \
        [\"film.parts\"]})}, outputs: {\"s\": \"g.s\"}, graphs: {\"./g.ron\": Graph(version: 1, inputs: \
        {\"texts\": (type: \"List(Text)\")}, nodes: {\"s\": (op: \"text.join\", in: {\"parts\": \
        \"inputs.texts\"})}, outputs: {\"s\": \"s\"})})";
    let error = engine.open_text("outer.ron", inner, ".".as_ref()).err().unwrap().to_string();
    assert!(error.contains("but an item of `g.texts` is one Text"), "{error}");
}

/// An engine with a node that gives a list of texts and one text.
fn words() -> kino_session::Engine {
    use kino_session::node::{NodeTraits, PortType, Signature, Value, edge, ports};
    let words = Signature {
        name: "words".into(),
        version: "1".into(),
        about: "Gives words.".into(),
        inputs: ports![],
        outputs: vec![
            edge("parts", PortType::List(Box::new(PortType::Text))),
            edge("text", PortType::Text),
        ]
        .into(),
        traits: NodeTraits::LIGHT,
    };
    let text = |text: &str| Value::Text(text.into());
    let engine = kino_session::Engine::builder().device("cpu").no_cache();
    let engine = engine.node_fn(words, move |_, _| {
        let list = Value::List(vec![(None, text("a")), (None, text("b"))].into());
        Ok(vec![Some(list), Some(text("c"))])
    });
    engine.build().unwrap()
}

#[test]
fn math_takes_numbers() {
    let graph = |node: &str| {
        format!(
            "Graph(version: 1, nodes: {{\"n\": ({node}), \"t\": (op: \"text.join\", with: {{\"parts\": \
             [\"x\"]}})}}, outputs: {{\"n\": \"n\", \"t\": \"t\"}})"
        )
    };
    refused(&graph("op: \"math\", in: {\"b\": \"t\"}, with: {\"a\": 2}"), "`math` takes numbers");
    let place = Place::new();
    place.write("g.ron", graph("op: \"math\", with: {\"a\": \"x\", \"b\": 2}"));
    let said = place.bad(2, &["check", "g.ron"]);
    assert!(said.contains("expected a number, found \"x\""), "{said}");
    assert!(said.contains("`math` takes numbers"), "{said}");
    passed(&graph("op: \"math\", with: {\"a\": 2, \"b\": 1.5}"), "");
    let read = graph("op: \"math\", with: {\"a\": 2, \"expr\": \"a + b\"}");
    passed(&read, "`b` is 0, as it is where nothing feeds it");
    passed(&graph("op: \"math\", with: {\"a\": 2, \"b\": 3, \"expr\": \"a + b\"}"), "");
    passed(&graph("op: \"math\", with: {\"a\": 2, \"expr\": \"a + 1\"}"), "");
    refused(
        &graph("op: \"math\", with: {\"b\": 2}"),
        "nothing feeds it, and there is no expression",
    );
}

fn many(count: usize, op: &str) -> String {
    let nodes: String = (0..count)
        .map(|at| format!("\"n{at}\": (op: \"{op}\", with: {{\"a\": {at}}}),\n"))
        .collect();
    format!("Graph(version: 1, nodes: {{\n{nodes}}}, outputs: {{\"o\": \"n0\"}})")
}

/// Problems are counted; the first are drawn, `--all` draws all, `--short` gives a line to each.
#[test]
fn problems_are_counted_and_capped() {
    let place = Place::new();
    place.write("g.ron", many(23, "mth"));
    place.write("one.ron", many(1, "mth"));
    for command in ["check", "plan", "run"] {
        let said = place.bad(2, &[command, "g.ron"]);
        assert_eq!(said.matches("there is no op `mth`").count(), 20, "{said}");
        assert!(said.contains("23 problems; the first 20 are shown: `--all` shows all"), "{said}");
        let said = place.bad(2, &[command, "g.ron", "--all"]);
        assert_eq!(said.matches("there is no op `mth`").count(), 23, "{said}");
        assert!(said.ends_with("\n23 problems\n"), "{said}");
        let said = place.bad(2, &[command, "g.ron", "--short"]);
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 24, "{said}");
        assert_eq!(lines[0], "g.ron:2:12: there is no op `mth`");
        assert_eq!(lines[22], "g.ron:24:13: there is no op `mth`");
        assert_eq!(lines[23], "23 problems");
        let said = place.bad(2, &[command, "one.ron"]);
        assert!(!said.contains("problem"), "{said}");
    }
    place.write("g.ron", many(3, "math"));
    let ran = place.kino(&["check", "g.ron", "--short"]);
    assert_eq!(ran.code, 0);
    let expected = "g.ron:3:1: warning: nothing needs `n1`: it leads to no output and no file\n\
                    g.ron:4:1: warning: nothing needs `n2`: it leads to no output and no file\n2 warnings\n";
    assert_eq!(ran.err, expected);
}

/// A watch shows them in the same way.
#[test]
fn a_watch_gives_a_line_to_each_problem() {
    let place = Place::new();
    place.write("g.ron", many(23, "mth"));
    let mut watch = place.command(&["watch", "g.ron", "--short"]);
    let mut watch = watch.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(watch.stderr.take().unwrap()).lines();
    let lines: Vec<String> =
        lines.map(Result::unwrap).take_while(|line| line != "23 problems").collect();
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert_eq!(lines.len(), 23, "{lines:?}");
    assert_eq!(lines[0], "g.ron:2:12: there is no op `mth`");
}

/// Twenty thousand problems are told in little time, whatever shows them, on many lines or on one.
#[test]
fn thousands_of_problems_take_no_time() {
    let place = Place::new();
    for (file, op, code) in [("errors.ron", "mth", 2), ("warnings.ron", "math", 0)] {
        place.write(file, many(20_000, op));
        place.write("line.ron", many(20_000, op).replace('\n', ""));
        for flag in ["--short", "--all", "--json", "--quiet"] {
            for file in [file, "line.ron"] {
                let begun = Instant::now();
                assert_eq!(place.kino(&["check", file, flag]).code, code);
                // 0.5 s is what is wanted of a machine that does nothing else.
                assert!(begun.elapsed() < Duration::from_secs(5), "{flag}: {:?}", begun.elapsed());
            }
        }
    }
    let lines = place.json(&["check", "errors.ron"]);
    assert_eq!(lines[0]["diagnostics"].as_array().unwrap().len(), 20_000);
}

/// Several values of a sweep that one thing is wrong with are one problem.
#[test]
fn a_sweep_says_each_reason_once() {
    let place = Place::new();
    let said = place.bad(2, &["run", "text_to_video", "--sweep", "frames=1..9", "--short"]);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("in steps of 4, found 2, 3, 4, 6, 7, 8\n"), "{said}");
    let said = place.bad(2, &["run", "text_to_video", "--sweep", "frames=2..40", "--short"]);
    assert!(said.contains("found 2, 3, 4, 6, 7, 8, 10, 11 and 22 more\n"), "{said}");
    let said = place.bad(2, &["run", "text_to_video", "--sweep", "frames=1,x,2,y"]);
    assert!(said.contains("found") && !said.contains("problems"), "{said}");
}

/// Whatever a file says, every built-in graph checks, with the numbers that it begins with.
#[test]
fn built_in_graphs_check() {
    let place = Place::new();
    for (name, _) in kino_session::GRAPHS {
        let ran = place.kino(&["check", name, "--short"]);
        assert_eq!((ran.code, &*ran.err), (0, ""), "{name}");
    }
}

/// Every example of the page on the language is a graph that checks.
#[test]
fn the_page_on_graphs_is_true() {
    let place = Place::new();
    let page = kino_graph::LANGUAGE;
    let mut examples = 0;
    for block in page.split("```ron\n").skip(1) {
        let graph = block.split("```").next().unwrap();
        place.write("example.ron", graph);
        let ran = place.kino(&["check", "example.ron", "--short"]);
        assert_eq!((ran.code, &*ran.err), (0, ""), "{graph}");
        examples += 1;
    }
    assert!(examples >= 4, "{examples}");
    let printed = place.good(&["help", "graph"]);
    assert!(printed.starts_with("The graph language\n"), "{printed}");
    for line in page.lines().filter(|line| line.starts_with("## ")) {
        assert!(printed.contains(&line[3..]), "{line}");
    }
    assert!(printed.contains("        \"noise\":  (op: \"latent.noise\""), "{printed}");
    for command in ["graph", "types"] {
        let printed = place.good(&["help", command]);
        let wide = printed.lines().find(|line| line.chars().count() > 100);
        assert_eq!(wide, None);
    }
    // A paragraph is wrapped once: each of its lines is as full as the next word allows.
    let lines: Vec<&str> = printed.lines().collect();
    for pair in lines.windows(2) {
        let is_text = |line: &str| !line.is_empty() && !line.starts_with([' ', '-']);
        if is_text(pair[0]) && is_text(pair[1]) && !page.contains(&format!("# {}\n", pair[0])) {
            let next = pair[1].split(' ').next().unwrap();
            let full = pair[0].chars().count() + 1 + next.chars().count();
            assert!(full > 78, "{pair:?}");
            assert!(pair[0].chars().count() <= 78, "{pair:?}");
        }
    }
    assert_eq!(place.json(&["help", "graph"])[0]["text"], page);
}

/// The page on types has a row for each, with its fields; the page on the language names them all.
#[test]
fn the_page_on_types_is_the_table() {
    let place = Place::new();
    let printed = place.good(&["help", "types"]);
    for row in kino_port::PortType::NAMED {
        assert!(printed.lines().any(|line| line.starts_with(row.name)), "{}: {printed}", row.name);
        assert!(kino_graph::LANGUAGE.contains(row.name), "{}", row.name);
        for field in row.fields {
            assert!(printed.contains(&format!("· {}: ", field.name)), "{printed}");
        }
    }
    assert!(printed.contains("from latent.noise, "), "{printed}");
    let types = &place.json(&["help", "types"])[0]["types"];
    assert_eq!(types.as_array().unwrap().len(), kino_port::PortType::NAMED.len());
}

/// Lists whose items have names are told from others, for people and programs, and their examples
/// have names.
#[test]
fn lists_with_names_are_shown_as_such() {
    let place = Place::new();
    let help = place.good(&["nodes", "tensor.write"]);
    assert!(help.contains("{Tensor…}"), "{help}");
    let help = place.good(&["nodes", "text.join"]);
    assert!(help.contains("Text…") && !help.contains("{Text…}"), "{help}");
    let nodes = place.json(&["nodes", "math"]);
    let inputs = nodes[0]["inputs"].as_array().unwrap();
    let named =
        |name: &str| inputs.iter().find(|port| port["name"] == name).unwrap()["named"] == true;
    assert!(named("values") && !named("a"), "{nodes:?}");
}

/// A list in a list can be written, and what is no value of a list says what to do.
#[test]
fn lists_of_lists_have_values() {
    let graph = |ty: &str, default: &str| {
        format!(
            "Graph(version: 1, inputs: {{\"x\": (type: \"{ty}\", default: {default})}}, nodes: {{\"a\": \
             (op: \"text.join\", with: {{\"parts\": [\"b\"]}})}}, outputs: {{\"a\": \"a\", \"x\": \"inputs.x\"}})"
        )
    };
    passed(&graph("List(List(Text))", "[[\"a\", \"b\"], []]"), "");
    passed(&graph("List(List(Real))", "[[1, 2.5]]"), "");
    refused(&graph("List(List(Text))", "[[\"a\", 1]]"), "found 1");
    let place = Place::new();
    place.write("g.ron", graph("List(Text)", "{\"k\": \"a\"}"));
    let said = place.bad(2, &["check", "g.ron"]);
    assert!(said.contains("names of items are written where a list is fed"), "{said}");
}

#[test]
fn help_still_explains_commands() {
    let place = Place::new();
    assert_eq!(place.good(&["help", "check"]), place.good(&["check", "--help"]));
    assert_eq!(place.good(&["help", "plugin", "new"]), place.good(&["plugin", "new", "--help"]));
    assert_eq!(place.good(&["help"]), place.good(&["--help"]));
    let said = place.bad(2, &["help", "grph"]);
    assert!(said.contains("there is no help on `grph`"), "{said}");
}

/// The example that each node's help shows is a node that checks, with something at its edges.
#[test]
fn the_example_of_each_node_checks() {
    let place = Place::new();
    let nodes = place.json(&["nodes"]);
    let nodes = nodes[0]["nodes"].as_array().unwrap();
    assert!(nodes.len() > 40);
    for node in nodes {
        let op = node["op"].as_str().unwrap();
        let help = place.good(&["nodes", op]);
        let example = help.split_once("\nExample\n").unwrap().1;
        place.write("e.ron", format!("Graph(version: 1, nodes: {{\n{example}\n}})"));
        let said = place.kino(&["check", "e.ron", "--json"]).out;
        let said: serde_json::Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
        for problem in said["diagnostics"].as_array().unwrap() {
            // What feeds it stands in no other node of the example.
            let code = problem["code"].as_str().unwrap();
            let stands_alone = ["unknown-node", "unknown-input", "unreachable", "template"];
            let is_body = code == "unreadable" && op == "repeat";
            assert!(stands_alone.contains(&code) || is_body, "{op}: {problem}\n{example}");
        }
    }
}

/// Where a panic happened can be copied from the screen: no line ends within it.
#[test]
fn places_are_not_broken() {
    let place = Place::new();
    let long = format!("{}/{}", "folder-of-mine/of-a-film".repeat(6), "x.ron");
    place.write("g.ron", format!("Graph(version: 1, nodes: {{\"a\": (op: \"./{long}\")}})"));
    let said = place.bad(2, &["check", "g.ron"]);
    assert!(said.contains(&long), "{said}");
}

/// A file of weights whose header was changed.
fn with_header(file: &Path, change: impl Fn(&mut serde_json::Map<String, Value>)) -> Vec<u8> {
    let bytes = std::fs::read(file).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    change(&mut header);
    let header = serde_json::to_vec(&header).unwrap();
    [&(header.len() as u64).to_le_bytes(), &header[..], &bytes[8 + length..]].concat()
}

/// What weights of any part lack is told before anything runs.
#[test]
fn weights_that_are_missing_or_do_not_fit_are_refused_by_checks() {
    let shapes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../nodes/shapes");
    let place = Place::new();
    let copy = |from: &Path, to: &str| place.write(to, std::fs::read(from).unwrap());
    let mut files = Vec::new();
    for folder in std::fs::read_dir(shapes.join("model")).unwrap().flatten() {
        let name = folder.file_name().into_string().unwrap();
        match std::fs::read_dir(folder.path()) {
            Ok(inner) => files.extend(
                inner
                    .flatten()
                    .map(|file| format!("{name}/{}", file.file_name().into_string().unwrap())),
            ),
            Err(_) => files.push(name),
        }
    }
    for file in &files {
        copy(&shapes.join("model").join(file), &format!("model/{file}"));
    }
    copy(&shapes.join("upscale/video-x4.safetensors"), "x4.safetensors");
    place.write("frame.png", picture(16));
    place.write("g.ron", r#"Graph(version: 1, nodes: {
        "model": (op: "model.load", with: {"source": "model"}),
        "frame": (op: "image.read", with: {"path": "frame.png"}),
        "small": (op: "frames.resize", in: {"frames": "frame"}, with: {"width": 64, "height": 64}),
        "latent": (op: "vae.encode", in: {"vae": "model.vae", "frames": "small"}),
        "text": (op: "text.encode", in: {"encoder": "model.text_encoder"}, with: {"prompt": "a red circle"}),
        "again": (op: "vae.decode", in: {"vae": "model.vae", "latent": "latent"}),
        "large": (op: "upscale", in: {"frames": "again"}, with: {"model": "x4.safetensors", "factor": 4}),
    }, outputs: {"large": "large", "text": "text"})"#);
    place.good(&["check", "g.ron"]);
    let vae = "model/vae/diffusion_pytorch_model.safetensors";
    let text = "model/text_encoder/model.safetensors";
    for (file, from, weight, at) in [
        (vae, "model/vae/diffusion_pytorch_model.safetensors", "decoder.conv_in.bias", "again"),
        (vae, "model/vae/diffusion_pytorch_model.safetensors", "encoder.conv_in.weight", "latent"),
        (text, "model/text_encoder/model.safetensors", "shared.weight", "text"),
        ("x4.safetensors", "upscale/video-x4.safetensors", "body.24.bias", "large"),
    ] {
        let from = shapes.join(from);
        let missing = with_header(&from, |header| {
            let info = header.remove(weight).unwrap();
            header.insert("other.name".to_owned(), info);
        });
        let odd = with_header(&from, |header| {
            let of_size = if header[weight]["dtype"] == "F32" { "I32" } else { "I16" };
            header[weight]["dtype"] = of_size.into();
        });
        let shape = with_header(&from, |header| {
            let all: u64 = header[weight]["shape"]
                .as_array()
                .unwrap()
                .iter()
                .map(|n| n.as_u64().unwrap())
                .product();
            header[weight]["shape"] = serde_json::json!([all]);
            if weight.ends_with("bias") {
                header[weight]["shape"] = serde_json::json!([1, all]);
            }
        });
        for (what, bytes) in [("missing", missing), ("odd", odd), ("shape", shape)] {
            place.write(file, bytes);
            for command in ["check", "plan"] {
                let err = place.bad(2, &[command, "g.ron", "--short"]);
                assert!(err.contains(weight) && err.contains(&format!("`{at}`")), "{what}: {err}");
            }
        }
        copy(&from, file);
    }
    place.write("model/tokenizer/tokenizer.json", "{}");
    for command in ["check", "plan"] {
        let err = place.bad(2, &[command, "g.ron", "--short"]);
        assert!(err.contains("tokenizer.json") && err.contains("`text`"), "{err}");
    }
}
