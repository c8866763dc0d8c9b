//! `--json`: whatever is asked, programs read each line that is printed, and nothing else is said.

mod common;

use common::{Place, Ran};
use serde_json::{Value, json};

const GRAPH: &str = r#"Graph(version: 1, inputs: {"seed": (type: "Int", default: 9007199254740993)},
    nodes: {"sum": (op: "math", in: {"a": "inputs.seed"}, with: {"b": 2})},
    outputs: {"sum": "sum", "seed": "inputs.seed"})"#;

/// What a command prints with `--json`: lines of JSON, and nothing on the other stream.
#[track_caller]
fn lines(place: &Place, args: &[&str]) -> (i32, Vec<Value>) {
    let Ran { code, out, err } = place.kino(&[args, &["--json"]].concat());
    assert_eq!(err, "", "{args:?}");
    let read = |line: &str| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{args:?}: {error}: {line}"))
    };
    (code, out.lines().map(read).collect())
}

/// The commands within a command, as its help names them.
#[track_caller]
fn walk(place: &Place, at: &[&str], visit: &mut dyn FnMut(&[&str])) {
    let (code, told) = lines(place, &[at, &["--help"]].concat());
    let [help] = &told[..] else { panic!("{at:?}: {told:?}") };
    assert_eq!((code, &help["command"]), (0, &json!(at)));
    assert!(help["help"].as_str().unwrap().contains("Usage:"), "{help}");
    visit(at);
    for within in help["commands"].as_array().unwrap() {
        walk(place, &[at, &[within["name"].as_str().unwrap()]].concat(), visit);
    }
}

/// Point 6: every command's help and every command's wrong usage.
#[test]
fn every_command_speaks_json() {
    let place = Place::new();
    let mut commands = Vec::new();
    walk(&place, &[], &mut |command| {
        commands.push(command.join(" "));
        let (code, told) = lines(&place, &[command, &["--no-such-flag"]].concat());
        let problem = &told[0]["diagnostics"][0];
        assert_eq!((code, &problem["code"]), (2, &json!("usage")), "{command:?}");
        let message = problem["message"].as_str().unwrap();
        assert!(message.contains("--no-such-flag"), "{command:?}: {message}");
    });
    for known in ["run", "draw", "completions", "cache size", "plugin new", "plugin check"] {
        assert!(commands.iter().any(|command| command == known), "{known}: {commands:?}");
    }
    assert_eq!(lines(&place, &[]).0, 2);
}

/// What commands print that do what they are asked, or fail.
#[test]
fn results_and_errors_are_json() {
    let place = Place::new();
    place.write("g.ron", GRAPH);
    place.write("bad.ron", "Graph(version: 1, nodes: {\"a\": (op: \"nothing\")})");
    let good: &[&[&str]] = &[
        &["--version"],
        &["help"],
        &["help", "plugin", "new"],
        &["help", "graph"],
        &["help", "types"],
        &["run", "g.ron"],
        &["check", "g.ron"],
        &["plan", "g.ron"],
        &["nodes"],
        &["nodes", "math"],
        &["draw", "g.ron"],
        &["draw", "g.ron", "-f", "dot"],
        &["draw", "g.ron", "-o", "g.svg"],
        &["cache", "size"],
        &["cache", "clear"],
        &["config"],
        &["config", "set", "memory", "1GB"],
        &["config", "unset", "memory"],
        &["init"],
        &["init", "text_to_image"],
        &["init", "film_grain"],
        &["completions", "bash"],
        &["plugin", "new", "one", "--c"],
        &["plugin", "list"],
    ];
    for args in good {
        let (code, told) = lines(&place, args);
        assert_eq!((code, told.is_empty()), (0, false), "{args:?}: {told:?}");
    }
    let bad: &[&[&str]] = &[
        &["run", "bad.ron"],
        &["run", "missing.ron"],
        &["check", "bad.ron"],
        &["plan", "g.ron", "--set", "seed=x"],
        &["watch", "-"],
        &["draw", "bad.ron"],
        &["draw", "g.ron", "-o", "g.png"],
        &["show", "g.ron"],
        &["nodes", "nothing"],
        &["init", "nothing"],
        &["help", "nothing"],
        &["completions", "nothing"],
        &["config", "set", "nothing", "1"],
        &["plugin", "new", "One"],
        &["plugin", "build", "nowhere"],
        &["plugin", "check", "one"],
        &["plugin", "bench", "nowhere"],
        &["plugin", "add", "nowhere"],
        &["plugin", "trust", "nowhere"],
    ];
    for args in bad {
        let (code, told) = lines(&place, args);
        assert_ne!(code, 0, "{args:?}");
        let last = told.last().unwrap_or_else(|| panic!("{args:?} says nothing"));
        assert!(last["diagnostics"][0]["message"].is_string(), "{args:?}: {told:?}");
    }
    assert!(!place.path("g.png").exists());
}

/// Whole numbers that doubles do not hold are texts.
#[test]
fn large_numbers_lose_nothing() {
    let place = Place::new();
    place.write("g.ron", GRAPH);
    let (_, told) = lines(&place, &["run", "g.ron"]);
    let outputs = &common::event(&told, "outputs")["outputs"];
    assert_eq!(outputs["seed"], "9007199254740993");
    assert_eq!(outputs["sum"], "9007199254740995");
    let (_, told) = lines(&place, &["run", "g.ron", "--set", "seed=-5"]);
    assert_eq!(common::event(&told, "outputs")["outputs"]["seed"], -5);
}
