//! Commands that run nothing: check, plan, nodes, draw.

mod common;

use common::Place;

const BROKEN: &str = r#"Graph(
    version: 1,
    nodes: {
        "sum": (op: "mth", with: {"a": 1.0, "b": 2.0}),
        "more": (op: "math", with: {"a": 1.0, "op": "plus"}),
    },
    outputs: {"sum": "sum"},
)
"#;

/// What the README tells to run is there: a built-in graph, or a file of the project.
#[test]
fn the_graphs_that_the_readme_runs_are_there() {
    let root = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let place = Place::new();
    let mut checked = 0;
    for after in readme.split("kino run ").skip(1) {
        let word = |c: char| c.is_ascii_alphanumeric() || "_/.-".contains(c);
        let graph = after.split(|c| !word(c)).next().unwrap();
        match graph {
            "--json" | "graph.ron" => continue, // any graph
            _ if graph.contains('/') => {
                place.good(&["check", root.join(graph).to_str().unwrap()]);
            }
            _ => {
                place.good(&["check", graph]);
            }
        }
        checked += 1;
    }
    assert!(checked > 10, "{checked}");
}

#[test]
fn built_in_graphs_check_and_plan() {
    let place = Place::new();
    let said = place.good(&["check", "text_to_video"]);
    assert_eq!(said, "ok: 10 nodes, 19 inputs\n");
    let listed = place.json(&["init"]);
    let listed = listed[0]["graphs"].as_array().unwrap();
    let names = listed.iter().map(|graph| graph["name"].as_str().unwrap());
    // One needs a language model, which nobody brings.
    let others = ["upscale", "interpolate", "expanded_prompt"];
    let made: Vec<&str> = names.filter(|name| !others.contains(name)).collect();
    assert!(made.len() > 12 && made.contains(&"image_to_video"), "{made:?}");
    for graph in made {
        place.good(&["check", graph]);
        let table = place.good(&["plan", graph]);
        assert!(table.contains("dit.sample") && table.contains("peak memory"), "{table}");
    }
    place.good(&["check", "upscale"]);
    place.good(&["check", "interpolate"]);
    place.good(&["check", "expanded_prompt"]);
    // What they begin with is put beside the cache.
    let files = place.files(".");
    assert!(files.iter().all(|file| file.starts_with("cache/graphs/")), "{files:?}");
}

/// A graph that is named runs in an empty folder, with the pictures that it begins with; a picture
/// of the user counts before them.
#[test]
fn built_in_graphs_bring_their_pictures() {
    let place = Place::new();
    let quick = ["--set", "width=32", "--set", "height=32", "--set", "steps=1"];
    let run = |more: &[&str]| place.good(&[&["run", "extend_forward"][..], &quick, more].concat());
    run(&["--set", "frames=9"]);
    assert!(place.path("out/extend_forward-7-001.mp4").exists());
    place.write("inputs/begins.png", "no picture");
    let args = [&["run", "extend_forward"][..], &quick].concat();
    let said = place.bad(2, &args);
    assert!(said.contains("begins.png"), "{said}");
}

#[test]
fn init_writes_a_graph_with_what_it_uses() {
    let place = Place::new();
    let said = place.good(&["init", "join"]);
    assert_eq!(said, "join.ron\nparts/between.ron\ninputs/begins.png\ninputs/ends.png\n");
    place.good(&["check", "join.ron"]);
    assert!(place.good(&["plan", "join.ron"]).contains("between/sample"));
    // What is there already is as it should be.
    assert_eq!(place.good(&["init", "loop"]), "loop.ron\ninputs/turns.png\n");
    place.write("parts/extend.ron", "mine");
    let said = place.bad(2, &["init", "long_video"]);
    assert!(said.contains("parts/extend.ron") && said.contains("--force"), "{said}");
    assert!(!place.path("long_video.ron").exists() && !place.path("pictures").exists());
    place.good(&["init", "long_video", "--force"]);
    assert!(place.good(&["plan", "long_video.ron", "-s", "turns=2"]).contains("film/1/sample"));
}

#[test]
fn problems_are_drawn_with_their_text() {
    let place = Place::new();
    place.write("broken.ron", BROKEN);
    let said = place.bad(2, &["check", "broken.ron"]);
    assert!(said.contains("did you mean `math`?"), "{said}");
    assert!(said.contains("\"sum\": (op: \"mth\""), "the source is shown: {said}");
    assert!(said.contains("broken.ron:4"), "{said}");
    assert!(said.contains("\"add\""), "all problems at once: {said}");
}

#[test]
fn a_tensor_becomes_no_patches() {
    let place = Place::new();
    let graph = |op: &str, port: &str| {
        let graph = format!(
            r#"Graph(version: 1, nodes: {{
                "tensor": (op: "tensor.read", with: {{"path": "t.safetensors", "name": "t"}}),
                "next": (op: "{op}", in: {{"{port}": "tensor"}}{}),
            }}, outputs: {{"next": "next"}})"#,
            if op == "upscale" { r#", with: {"factor": 2}"# } else { "" }
        );
        place.write("tensor.ron", graph);
    };
    graph("upscale", "frames");
    place.good(&["check", "tensor.ron"]);
    graph("unpatchify", "patches");
    let said = place.bad(2, &["check", "tensor.ron"]);
    let expected = "`tensor.tensor` gives Tensor, but `next.patches` takes Patches";
    assert!(said.replace('\n', " ").contains(expected), "{said}");
}

/// Lines of any length are drawn: what stands around the place, with its true column.
#[test]
fn problems_far_out_on_a_line_are_drawn() {
    let place = Place::new();
    let filled = |filling: &str| {
        format!("Graph(version: 1, nodes: {{{}\"a\": (op: \"mth\")}})", filling.repeat(70_000))
    };
    for filling in [" ", "\t", "/*ö*/"] {
        place.write("wide.ron", filled(filling));
        for command in ["check", "plan", "draw", "run"] {
            let said = place.bad(2, &[command, "wide.ron"]);
            let column = 27 + 70_000 * filling.chars().count() + 10;
            assert!(said.contains(&format!("wide.ron:1:{column}")), "{said}");
            assert!(said.contains("\"a\": (op: \"mth\")") && said.len() < 4000, "{said}");
        }
    }
    let blanks = " ".repeat(70_000);
    let wide = format!(
        "Graph(version: 1, nodes: {{\"a\": (op: \"math\", in: {{\"a\": \"b\"}}),{blanks}\"b\": \
         (op: \"math\", in: {{\"a\": \"a\"}})}})"
    );
    place.write("circle.ron", &wide);
    let said = place.bad(2, &["check", "circle.ron"]);
    assert!(said.len() < 4000, "{said}");
}

/// Of thousands of problems a few are drawn, and the others counted; JSON has them all.
#[test]
fn thousands_of_problems_are_drawn_in_little_time_and_space() {
    let place = Place::new();
    for end in ["\n", ""] {
        let nodes: String =
            (0..5000).map(|at| format!("\"n{at}\": (op: \"mth{at}\"),{end}")).collect();
        place.write("many.ron", format!("Graph(version: 1, nodes: {{{end}{nodes}}})"));
        let begun = std::time::Instant::now();
        let said = place.bad(2, &["check", "many.ron"]);
        assert!(said.contains("5000 problems; the first 20 are shown"), "{said}");
        assert!(said.contains("`mth0`") && !said.contains("`mth4999`"), "{said}");
        assert!(said.len() < 100_000, "{} bytes", said.len());
        assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    }
    let lines = place.json(&["check", "many.ron"]);
    assert_eq!(lines.last().unwrap()["diagnostics"].as_array().unwrap().len(), 5000);
}

#[test]
fn problems_as_json_have_places() {
    let place = Place::new();
    place.write("broken.ron", BROKEN);
    for command in ["check", "plan", "run", "draw"] {
        let lines = place.json(&[command, "broken.ron"]);
        let problems = lines.last().unwrap()["diagnostics"].as_array().unwrap();
        assert_eq!(problems.len(), 2, "{problems:#?}");
        let first = &problems[0];
        assert_eq!((&first["file"], &first["line"]), (&"broken.ron".into(), &4.into()));
        assert!(first["column"].as_u64().unwrap() > 1);
        assert_eq!(first["code"], "unknown-op");
        assert_eq!(first["severity"], "error");
        assert!(first["message"].is_string());
        assert_eq!(first["hint"], "did you mean `math`?");
    }
    let lines = place.json(&["check", "nowhere.ron"]);
    assert_eq!(lines[0]["diagnostics"][0]["code"], "usage");
}

#[test]
fn unknown_inputs_are_guessed() {
    let place = Place::new();
    let said = place.bad(2, &["run", "text_to_video", "--set", "promt=x", "--set", "frames=18"]);
    assert!(said.contains("did you mean `prompt`?"), "{said}");
    assert!(said.contains("17 and 21"), "near values are named: {said}");
    let said = place.bad(2, &["run", "text_to_video", "--sweep", "sede=1..3"]);
    assert!(said.contains("did you mean `seed`?"), "{said}");
    let said = place.bad(2, &["run", "text_to_video", "--until", "sampel"]);
    assert!(said.contains("did you mean `sample`?"), "{said}");
}

#[test]
fn a_plan_says_what_runs_and_why() {
    let place = Place::new();
    let plan = &place.json(&["plan", "text_to_video", "--until", "patches"])[0];
    let steps = plan["steps"].as_array().unwrap();
    let names: Vec<_> = steps.iter().map(|step| step["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"noise") && !names.contains(&"sample"), "{names:?}");
    assert!(steps.iter().all(|step| step["key"].as_str().unwrap().len() == 64));
    assert!(steps.iter().all(|step| step["status"] == "run"));
    let other = &place.json(&["plan", "text_to_video", "--until", "patches", "-s", "seed=8"])[0];
    let changed: Vec<_> =
        (0..names.len()).filter(|at| steps[*at]["key"] != other["steps"][*at]["key"]).collect();
    let changed: Vec<_> = changed.into_iter().map(|at| names[at]).collect();
    assert_eq!(changed, ["noise", "patches"]);
}

#[test]
fn loops_are_checked_planned_and_explained() {
    let place = Place::new();
    let body = r#"Graph(version: 1, inputs: {"n": (type: "Int"), "index": (type: "Int")},
        nodes: {"sum": (op: "math", in: {"a": "inputs.n", "b": "inputs.index"})}, outputs: {"n": "sum"})"#;
    let outer = r#"Graph(version: 1, inputs: {"turns": (type: "Int", default: 4)},
        nodes: {"all": (op: "repeat", in: {"times": "inputs.turns"}, with: {"graph": "body.ron", "n": 10})}, outputs: {"n": "all.n"})"#;
    place.write("body.ron", body);
    place.write("outer.ron", outer);
    place.good(&["check", "outer.ron"]);
    let plan = &place.json(&["plan", "outer.ron", "--set", "turns=6"])[0];
    let names: Vec<_> = plan["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, (0..6).map(|turn| format!("all/{turn}/sum")).collect::<Vec<_>>());
    let said = place.good(&["run", "outer.ron", "--set", "turns=6"]);
    assert!(said.contains("25"), "10 and 0 to 5: {said}");
    let said = place.bad(2, &["run", "outer.ron", "--set", "turns=0"]);
    assert!(said.contains("expected a whole number from 1 to 100000, found 0"), "{said}");
    place.write("body.ron", body.replace("\"n\": \"sum\"", "\"index\": \"sum\""));
    let said = place.bad(2, &["check", "outer.ron"]);
    assert!(said.contains("body.ron:2:") && said.contains("`repeat` counts itself"), "{said}");
    let help = place.good(&["nodes", "repeat"]);
    assert!(
        ["graph", "times", "carried", "collected"].iter().all(|word| help.contains(word)),
        "{help}"
    );
}

#[test]
fn nodes_are_listed_and_explained() {
    let place = Place::new();
    let listed = place.good(&["nodes"]);
    assert!(listed.contains("dit.sample") && listed.contains("math"), "{listed}");
    let help = place.good(&["nodes", "dit.sample"]);
    for word in
        ["Inputs", "Outputs", "Example", "scheduler", "\"unipc\"", "steps", "= 20", "required"]
    {
        assert!(help.contains(word), "{word}: {help}");
    }
    assert!(place.bad(2, &["nodes", "dit.sampel"]).contains("did you mean `dit.sample`?"));
}

#[test]
fn the_schema_of_nodes_is_complete() {
    let place = Place::new();
    let all = &place.json(&["nodes"])[0];
    for node in all["nodes"].as_array().unwrap() {
        let op = &node["op"];
        assert!(!node["summary"].as_str().unwrap().is_empty(), "{op} has help");
        for side in ["inputs", "outputs"] {
            for port in node[side].as_array().unwrap() {
                assert!(port["type"].is_string(), "{op}");
                assert!(
                    !port["about"].as_str().unwrap().is_empty(),
                    "{op}.{} has help",
                    port["name"]
                );
            }
        }
    }
    let sample = &place.json(&["nodes", "dit.sample"])[0];
    let steps =
        sample["inputs"].as_array().unwrap().iter().find(|port| port["name"] == "steps").unwrap();
    assert_eq!(steps["default"], 20);
    assert_eq!(steps["range"]["min"], 1);
}

#[test]
fn graphs_are_drawn() {
    let place = Place::new();
    place.good(&["draw", "text_to_video", "-o", "graph.svg"]);
    let svg = std::fs::read_to_string(place.path("graph.svg")).unwrap();
    for word in ["<svg", "dit.sample", "video.write", "prompt", "</svg>"] {
        assert!(svg.contains(word), "{word}");
    }
    let dot = place.good(&["draw", "text_to_video", "--format", "dot"]);
    assert!(dot.starts_with("digraph") && dot.contains("dit.sample"), "{dot}");
    place.good(&["draw", "text_to_video", "-o", "graph.mmd"]);
    let mermaid = std::fs::read_to_string(place.path("graph.mmd")).unwrap();
    assert!(mermaid.starts_with("flowchart LR"), "{mermaid}");
}

#[test]
fn texts_of_a_graph_are_escaped_in_pictures() {
    let place = Place::new();
    let graph = r#"Graph(version: 1, about: "a <b> & \"c\"", inputs: {"x": (type: "Text", default: "</text><script>")},
        nodes: {"both": (op: "text.join", in: {"parts": ["inputs.x", "inputs.x"]})}, outputs: {"t": "both"})"#;
    place.write("g.ron", graph);
    let svg = place.good(&["draw", "g.ron"]);
    assert!(!svg.contains("<script>") && svg.contains("&lt;script&gt;"), "{svg}");
    assert!(svg.contains("a &lt;b&gt; &amp; &quot;c&quot;"), "{svg}");
}

/// Seconds of any length drive the number of frames; rounding makes an Int of a Real before
/// anything runs, and nothing else does.
#[test]
fn a_real_becomes_a_whole_number_by_rounding() {
    let place = Place::new();
    let graph = |fields: &str| {
        format!(
            r#"Graph(version: 1, inputs: {{"seconds": (type: "Real", default: 1.5)}}, nodes: {{
            "count": (op: "math", {fields}),
            "rect": (op: "mask.rect", in: {{"frames": "count"}},
                with: {{"width": 16, "height": 16, "x": 0, "y": 0, "w": 8, "h": 8}}),
        }}, outputs: {{"count": "count", "mask": "rect"}})"#
        )
    };
    let expression = r#"in: {"values": {"seconds": "inputs.seconds"}}, with: {"expr": "4*floor(seconds*8/4)+1"}"#;
    place.write("g.ron", graph(expression));
    assert!(place.good(&["run", "g.ron"]).contains("count = 13"));
    assert!(place.good(&["run", "g.ron", "--set", "seconds=2.9"]).contains("count = 21"));
    place.write("g.ron", graph(r#"in: {"a": "inputs.seconds"}, with: {"op": "ceil"}"#));
    assert!(place.good(&["run", "g.ron"]).contains("count = 2"));
    place.write("g.ron", graph(r#"in: {"a": "inputs.seconds"}, with: {"b": 2}"#));
    let told = place.bad(2, &["check", "g.ron"]);
    assert!(told.contains("gives Real, but `rect.frames` takes Int"), "{told}");
    assert!(told.contains("`math` node with `op` \"floor\""), "{told}");
}

/// A named list is written with edges or with values.
#[test]
fn a_named_list_is_written_in_with_as_well() {
    let place = Place::new();
    let graph = |values: &str| {
        format!(
            r#"Graph(version: 1, nodes: {{"m": (op: "math", with: {{"expr": "x*y", "values": {values}}})}},
            outputs: {{"product": "m"}})"#
        )
    };
    place.write("g.ron", graph(r#"{"x": 6, "y": 0x7}"#));
    assert!(place.good(&["run", "g.ron"]).contains("product = 42"));
    place.write("g.ron", graph(r#"{"x": 6, "x": 7}"#));
    assert!(place.bad(2, &["check", "g.ron"]).contains("`x` is written twice"));
    place.write("g.ron", graph(r#"{"x": [6], "y": 7}"#));
    let told = place.bad(2, &["check", "g.ron"]);
    assert!(told.contains("`values`: expected"), "{told}");
    place.write("g.ron", graph(r#"{"x": "six", "y": 7}"#));
    assert!(place.bad(2, &["plan", "g.ron"]).contains("expected a number, found \"six\""));
}
