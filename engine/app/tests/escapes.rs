//! Nothing that graphs, files and folders say is obeyed by a terminal.

mod common;

use std::process::Output;

use common::Place;

/// Clears the screen, sets the title, writes the clipboard, in C0 and in C1; reorders letters.
const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{1b}]52;c;eA==\u{7}\u{9b}2J\r\u{8}\u{202e}gnp";

/// What a text holds that a terminal obeys, colours of letters aside where they are asked for.
fn obeyed(bytes: &[u8], has_colours: bool) -> Option<String> {
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    let is_code =
        |code: &str| code.parse().is_ok_and(|code: u8| code < 5 || (30..38).contains(&code));
    let mut from = 0;
    while let Some(at) = text[from..].find("\x1b[").filter(|_| has_colours) {
        let end = text[from + at..].find('m').map_or(text.len(), |end| from + at + end);
        match text[from + at + 2..end].split(';').all(is_code) {
            true => text.replace_range(from + at..=end, ""),
            false => from += at + 2,
        }
    }
    let at = text.find(kino_port::is_hidden)?;
    Some(text[at..].chars().take(40).collect::<String>().escape_unicode().to_string())
}

#[track_caller]
fn check(place: &Place, args: &[&str], expected: &str) {
    for colour in ["never", "always"] {
        let args = [args, &["--color", colour]].concat();
        let Output { stdout, stderr, .. } = place.command(&args).output().unwrap();
        for bytes in [&stdout, &stderr] {
            assert_eq!(obeyed(bytes, colour == "always"), None, "{args:?}");
        }
        let all = [stdout, stderr].concat();
        let text = String::from_utf8_lossy(&all).into_owned();
        assert!(text.contains(expected), "{args:?}: {expected} is not in\n{text}");
    }
}

#[test]
fn a_graph_that_is_wrong_shows_what_it_holds() {
    let place = Place::new();
    let graph = format!(
        "Graph(version: 1, about: \"x{HOSTILE}\", nodes: {{\n  \"img\": (op: \"image.raed{HOSTILE}\", \
         with: {{\"path\": \"a.png\"}}), // {HOSTILE} hidden\n}}, outputs: {{\"f\": \"img\"}})"
    );
    place.write("g.ron", graph);
    check(&place, &["check", "g.ron"], "\\u{1b}]52;c;eA==\\u{7}\\u{9b}2J\\u{d}\\u{8}\\u{202e}gnp");
    check(&place, &["check", "g.ron", "--json"], "\\u001b]52;c;eA==\\u0007\\u009b2J");
    check(&place, &["plan", "g.ron"], "image.raed\\u{1b}[2J");
    let odd = format!("odd{}.ron", HOSTILE.replace('/', ""));
    place.write(&odd, "Graph(version: 1, nodes: {\"a\": (op: \"nothing\")})");
    check(&place, &["check", &odd], "odd\\u{1b}[2J");
    check(&place, &["run", &format!("missing{HOSTILE}.ron")], "missing\\u{1b}");
}

#[test]
fn a_graph_that_runs_shows_what_it_holds() {
    let place = Place::new();
    let graph = format!(
        "Graph(version: 1, about: \"x{HOSTILE}\", inputs: {{\"words\": (type: \"Text\", default: \
         \"w{HOSTILE}\", about: \"y{HOSTILE}\")}}, nodes: {{\n\"t\": (op: \"text.join\", in: \
         {{\"parts\": [\"inputs.words\"]}}), // {HOSTILE}\n\"r\": (op: \"mask.rect\", with: {{\"width\": 16, \
         \"height\": 16, \"x\": 0, \"y\": 0, \"w\": 8, \"h\": 8}}),\n}}, outputs: {{\"text\": \"t\", \"mask\": \
         \"r\"}})"
    );
    place.write("g.ron", graph);
    check(&place, &["run", "g.ron"], "w\\u{1b}[2J");
    check(&place, &["run", "g.ron", "--json"], "w\\u001b[2J");
    check(&place, &["run", "g.ron", "--set", "words=\u{1b}[31mred"], "\\u{1b}[31mred");
    check(&place, &["plan", "g.ron"], "text.join");
    check(&place, &["check", "g.ron", "--json"], "y\\u001b[2J");
    for format in ["dot", "svg", "text"] {
        check(&place, &["draw", "g.ron", "-f", format], "text");
    }
}

#[test]
fn names_of_files_that_nobody_would_see_are_refused_before_anything_runs() {
    let place = Place::new();
    for path in
        ["o\u{1b}]0;owned\u{7}.png", "o\nout/fake.png  1 kB.png", "o\u{202e}gnp.png", "o\t.png"]
    {
        let graph = format!(
            "Graph(version: 1, nodes: {{\"n\": (op: \"image.read\", with: {{\"path\": \"a.png\"}}), \"w\": (op: \
             \"image.write\", in: {{\"frames\": \"n\"}}, with: {{\"path\": \"{path}\"}})}})"
        );
        place.write("g.ron", graph);
        place.write("a.png", include_bytes!("../../../graphs/pictures/first.png"));
        check(&place, &["plan", "g.ron", "--json"], "which nobody would see in a list of files");
        assert!(!place.path("out").exists());
    }
}

#[test]
fn a_stored_graph_and_folders_of_plugins_are_shown_so_too() {
    let place = Place::new();
    let graph = format!(
        "Graph(version: 1, about: \"x{HOSTILE}\", nodes: {{\"n\": (op: \"image.read\", with: {{\"path\": \
         \"a.png\"}}), \"w\": (op: \"image.write\", in: {{\"frames\": \"n\"}}, with: {{\"path\": \"b.png\"}})}})"
    );
    place.write("g.ron", graph);
    place.write("a.png", include_bytes!("../../../graphs/pictures/first.png"));
    place.good(&["run", "g.ron"]);
    check(&place, &["show", "out/b.png"], "x\\u{1b}[2J");
    let stored = place.good(&["show", "out/b.png"]);
    place.write("again.ron", stored);
    let about = |graph: &str| place.json(&["check", graph])[0]["about"].clone();
    assert_eq!(about("again.ron"), about("g.ron"), "a text between quotation marks means the same");
    let folder = format!("plugins/sn{}", HOSTILE.replace('/', ""));
    place.write(&format!("{folder}/plugin.ron"), "Plugin(");
    check(&place, &["plugin", "list"], "sn\\u{1b}[2J");
}
