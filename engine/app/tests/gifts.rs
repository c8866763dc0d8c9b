//! Gifts of strangers that are huge, deep, endless or greedy, or print what a terminal obeys: each
//! is inert, or stops with a message that says what is wrong.

#![cfg(all(unix, feature = "wasm"))]

mod common;
mod giving;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use common::picture;
use giving::{COMPONENT, GRANT, Gift, MANIFEST};

/// A node of the engine cannot be taken by a plugin.
#[test]
fn a_plugin_in_the_place_of_a_built_in_node_is_refused() {
    let mut gift = Gift::with_reader("in.txt");
    gift.plugin(COMPONENT, &MANIFEST.replace("good.echo", "text.join"));
    gift.pin("");
    gift.write(
        "graph.ron",
        r#"Graph(version: 1, nodes: {"t": (op: "text.join", with: {"parts": ["a", "b"]})},
            outputs: {"text": "t"})"#,
    );
    gift.remember();
    assert!(gift.good(&["run", "graph.ron"]).contains("a, b"), "the built-in one");
    gift.stops(&["plugin", "list"], &["`guests`", "`text.join`, which is built in"]);
    gift.is_inert();
}

/// Clears the screen, sets the title, writes the clipboard, in C0 and in C1; reorders letters.
const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{1b}]52;c;eA==\u{7}\u{9b}2J\r\u{8}\u{202e}gnp";

/// Every field of a manifest and of a lock file, written raw and as RON escapes it.
#[test]
fn nothing_in_a_manifest_or_lock_file_reaches_the_terminal_raw() {
    let escaped: String = HOSTILE.escape_unicode().to_string();
    let sha256 = kino_host::sha256_of(COMPONENT);
    let fields = r#"id: "guestsX", version: "1.0.0X", about: "aX", nodes: ["good.fileX"],
        wasm: "guests.wasmX", native: "guestsX", asks: (read: ["lutsX"], memory: "1GBX")"#;
    let entry = format!(
        r#"version: "1.0.0X", kind: wasm, sha256: "{sha256}X", dev: "plugins/guestsX",
        folder: "plugins/guestsX", asks: (read: ["lutsX"], memory: "1GBX"),
        grants: (read: ["lutsX"]), limits: (memory: "1GBX")"#
    );
    let tries = |gift: &Gift| {
        for args in [
            &["plugin", "list"][..],
            &["plugin", "list", "--json"],
            &["plugin", "show", "guests"],
            &["plugin", "show", "guests", "--json"],
            &["plugin", "trust", "guests", "--yes"],
            &["plugin", "check", "plugins/guests", "--node", "good.square"],
            &["check", "graph.ron"],
            &["run", "graph.ron"],
        ] {
            gift.shows_nothing(args);
        }
        gift.kept_to_itself();
    };
    let gift = Gift::with_reader("in.txt");
    for hostile in [HOSTILE, &escaped] {
        // One field after another, the others as they should be.
        for at in 0..fields.matches('X').count() {
            let manifest = format!("Plugin({})", nth(fields, at, hostile));
            gift.write("plugins/guests/plugin.ron", manifest);
            gift.pin("");
            tries(&gift);
        }
        gift.write("plugins/guests/plugin.ron", &*MANIFEST);
        for at in 0..entry.matches('X').count() {
            gift.lock(&nth(&entry, at, hostile));
            tries(&gift);
        }
        let lock = format!(r#"(version: 1, plugins: {{"{hostile}": (kind: wasm)}})"#);
        gift.write("kino.lock.ron", lock);
        tries(&gift);
    }
}

/// A text in which the marker of this number is replaced, and the others are gone.
fn nth(text: &str, at: usize, by: &str) -> String {
    let mut parts = text.split('X');
    let mut out = parts.next().unwrap().to_owned();
    for (number, part) in parts.enumerate() {
        out.push_str(if number == at { by } else { "" });
        out.push_str(part);
    }
    out
}

/// Files that are huge, deep, or never end, in the place of each that is read.
#[test]
fn huge_and_deep_files_are_refused_at_once() {
    let deep =
        |open: &str, close: &str| format!("{}{}", open.repeat(200_000), close.repeat(200_000));
    let texts = [
        (
            "deep lists",
            format!(
                "Graph(version: 1, nodes: {{\"a\": (op: \"math\", with: {{\"a\": {}}})}})",
                deep("[", "]")
            ),
        ),
        ("deep records", deep("(a: ", ")")),
        ("deep maps", deep("{\"a\": ", "}")),
        ("open brackets", "(".repeat(1 << 20)),
        ("deep options", deep("Some(", ")")),
        ("comments", deep("/*", "*/")),
        ("one string", format!("\"{}", "x".repeat(20 << 20))),
        ("no text", "\0\u{1}".repeat(1 << 20)),
    ];
    let mut gift = Gift::with_reader("in.txt");
    gift.pin("");
    for file in ["graph.ron", "kino.lock.ron", "plugins/guests/plugin.ron"] {
        let right = fs::read(gift.at(file)).unwrap();
        for (what, text) in &texts {
            gift.write(file, text);
            gift.remember();
            for command in ["check", "run"] {
                let ended = gift.shows_nothing(&[command, "graph.ron"]);
                assert_ne!(ended.ran.code, 0, "{what} as {file}: {command}");
                let length = ended.ran.err.len() + ended.ran.out.len();
                assert!(length < 100_000, "{what} as {file}: {command} says {length} bytes");
            }
            gift.shows_nothing(&["plugin", "list"]);
            gift.kept_to_itself();
        }
        gift.write(file, right);
    }
}

/// Sparse files of a terabyte: nobody reads to their end.
#[test]
fn endless_files_are_refused_at_once() {
    for file in
        ["graph.ron", "kino.lock.ron", "plugins/guests/plugin.ron", "plugins/guests/guests.wasm"]
    {
        let gift = Gift::with_reader("in.txt");
        gift.pin("");
        fs::File::options().write(true).open(gift.at(file)).unwrap().set_len(1 << 40).unwrap();
        for args in [&["check", "graph.ron"][..], &["run", "graph.ron"]] {
            gift.stops(args, &[file.rsplit('/').next().unwrap()]);
        }
        gift.shows_nothing(&["plugin", "list"]);
        gift.shows_nothing(&["plugin", "trust", "guests", "--yes"]);
    }
    for (op, with, output) in [
        ("image.read", "", "frames"),
        ("video.read", "", "frames"),
        ("mask.read", "", "mask"),
        ("tensor.read", r#", "name": "x""#, "tensor"),
    ] {
        let gift = Gift::new();
        let graph = format!(
            r#"Graph(version: 1, nodes: {{"r": (op: "{op}", with: {{"path": "in.png"{with}}})}},
                outputs: {{"o": "r.{output}"}})"#
        );
        gift.write("graph.ron", graph);
        // A picture of 2^31 pixels a side by its header, a header of 2^62 bytes, and zeros.
        let mut bomb = picture(1);
        bomb[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
        let header = [&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f][..], b"{}"].concat();
        for contents in [&bomb[..], &header, b"", b"{", &[0; 100]] {
            gift.write("in.png", contents);
            gift.stops(&["run", "graph.ron"], &["in.png"]);
        }
    }
}

/// Graphs that use each other without end, or far too often.
#[test]
fn graphs_that_never_end_are_refused() {
    let gift = Gift::new();
    gift.write("graph.ron", r#"Graph(version: 1, nodes: {"a": (op: "./graph.ron")})"#);
    gift.stops(&["check", "graph.ron"], &["graph.ron"]);
    gift.write("graph.ron", r#"Graph(version: 1, nodes: {"a": (op: "./b.ron")})"#);
    gift.write("b.ron", r#"Graph(version: 1, nodes: {"a": (op: "./graph.ron")})"#);
    gift.stops(&["check", "graph.ron"], &["b.ron"]);
    // Each uses the next eight times: 8^20 nodes.
    for level in 0..20 {
        let uses: String =
            (0..8).map(|at| format!("\"n{at}\": (op: \"./l{}.ron\"), ", level + 1)).collect();
        gift.write(&format!("l{level}.ron"), format!("Graph(version: 1, nodes: {{{uses}}})"));
    }
    gift.write(
        "l20.ron",
        r#"Graph(version: 1, nodes: {"t": (op: "text.join", with: {"parts": ["a"]})})"#,
    );
    gift.stops(&["check", "l0.ron"], &[]);
    // A text that doubles 60 times.
    let mut nodes =
        String::from(r#""t0": (op: "text.join", with: {"parts": ["aaaaaaaa", "b"]}), "#);
    for at in 1..60 {
        let before = at - 1;
        nodes.push_str(&format!(
            r#""t{at}": (op: "text.join", in: {{"parts": ["t{before}", "t{before}"]}}), "#
        ));
    }
    gift.write(
        "graph.ron",
        format!(r#"Graph(version: 1, nodes: {{{nodes}}}, outputs: {{"t": "t59"}})"#),
    );
    for command in ["plan", "run"] {
        gift.stops(&[command, "graph.ron"], &["text"]);
    }
}

/// Folders that were granted and hold what nobody can walk through.
#[test]
fn a_granted_folder_of_any_shape_is_walked_or_refused() {
    let gift = Gift::with_reader("luts/own.txt");
    gift.pin(GRANT);
    gift.write("luts/own.txt", "own");
    let deep: PathBuf = std::iter::once("luts").chain(std::iter::repeat_n("d", 1500)).collect();
    fs::create_dir_all(gift.at("").join(deep)).unwrap();
    let made = Command::new("mkfifo").arg(gift.at("luts/pipe")).status();
    assert!(made.unwrap().success());
    gift.link("luts/zero", "/dev/zero");
    fs::File::create(gift.at("luts/sparse")).unwrap().set_len(1 << 40).unwrap();
    let ended = gift.shows_nothing(&["run", "graph.ron"]);
    assert!(ended.ran.out.contains("own"), "{}", ended.ran.err);
    let graph = fs::read_to_string(gift.at("graph.ron")).unwrap();
    for file in ["pipe", "zero", "sparse", "d"] {
        gift.write("graph.ron", graph.replace("own.txt", file));
        gift.stops(&["run", "graph.ron"], &[&format!("luts/{file}")]);
    }
}

#[test]
fn a_graph_writes_below_the_folder_of_results_alone() {
    let mut gift = Gift::new();
    gift.write("in.png", picture(9));
    let absolute = gift.home().join("photo.png").display().to_string();
    for path in [
        &*absolute,
        "../photo.png",
        "../../home/photo.png",
        "a/../../in.png",
        "link/photo.png",
        "photo.png",
        "nul\u{1b}l.png",
    ] {
        let _ = fs::remove_dir_all(gift.at("out"));
        gift.link("out/link", gift.home());
        gift.link("out/photo.png", gift.home().join("photo.png"));
        let graph = format!(
            r#"Graph(version: 1, nodes: {{
                "r": (op: "image.read", with: {{"path": "in.png"}}),
                "w": (op: "image.write", in: {{"frames": "r"}}, with: {{"path": {path:?}}})}})"#
        );
        gift.write("graph.ron", graph);
        gift.remember();
        gift.shows_nothing(&["run", "graph.ron"]);
        gift.kept_to_itself();
    }
}

/// A component that takes what it gets: it is stopped, and says so.
#[test]
fn a_component_that_wants_everything_is_stopped() {
    let mut gift = Gift::with_reader("in.txt");
    gift.pin("limits: (memory: \"64MB\", seconds: 2.0)");
    for (node, parts) in [
        ("abuse.memory", &["memory"][..]),
        ("abuse.tensors", &["memory"]),
        ("abuse.handles", &[]),
        ("abuse.loop", &["2 s"]),
        ("abuse.recursion", &["stack"]),
        ("abuse.read_file", &[]),
        ("abuse.network", &[]),
    ] {
        let graph = format!(
            r#"Graph(version: 1, nodes: {{"r": (op: "{node}", with: {{"x": 1}})}}, outputs: {{"o": "r"}})"#
        );
        gift.write("graph.ron", graph);
        gift.remember();
        gift.stops(&["run", "graph.ron"], &[&["`r`", node], parts].concat());
        gift.kept_to_itself();
    }
}

/// Bits that flip in compiled code on disk: it is compiled anew, and the result is the same. All
/// 150 with `KINO_TEST_FLIPS=150`.
#[test]
fn a_flipped_bit_in_compiled_code_is_seen() {
    let flips = std::env::var("KINO_TEST_FLIPS").map_or(8, |text| text.parse().unwrap());
    let gift = Gift::with_reader("in.txt");
    gift.write("in.txt", "text");
    gift.pin(r#"grants: (read: ["in.txt"])"#);
    let run = || gift.good(&["run", "graph.ron"]);
    let right = run();
    assert!(right.contains("text"), "{right}");
    let files = gift.place.files("cache");
    let code: Vec<_> = files.iter().filter(|name| name.ends_with(".compiled")).collect();
    assert_eq!(code.len(), 1, "{files:?}");
    let path = gift.place.path("cache").join(code[0]);
    let bytes = fs::read(&path).unwrap();
    let seed = std::process::id() as usize;
    println!("seed {seed}");
    for flip in 0..flips {
        let bit =
            (seed.wrapping_mul(0x9e37_79b9) + flip * (bytes.len() * 8 / flips)) % (bytes.len() * 8);
        let mut wrong = bytes.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &wrong).unwrap();
        assert!(run().contains("text"), "bit {bit}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "bit {bit}: it was not compiled anew");
    }
}
