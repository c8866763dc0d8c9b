//! What planning refuses without a fact of the disk or the machine, `kino check` refuses as well,
//! though it sees no file.

mod common;

use std::env;

use common::Place;
use kino_session::{Engine, GRAPH_FILES, GRAPHS, inputs};

/// A graph with readers of a picture and of a clip, a model, and more nodes; `z` is wanted.
fn graph(nodes: &str, z: &str) -> String {
    format!(
        "Graph(version: 1, nodes: {{\n\
         \"m\": (op: \"model.load\", with: {{\"source\": \"embedded:shapes\"}}),\n\
         \"photo\": (op: \"image.read\", with: {{\"path\": \"photo.png\"}}),\n\
         \"clip\": (op: \"video.read\", with: {{\"path\": \"clip.png\"}}),\n\
         {nodes}\n}}, outputs: {{\"z\": \"{z}\"}})"
    )
}

fn place(graph: &str) -> Place {
    let place = Place::new();
    let file = |name: &str| GRAPH_FILES.iter().find(|(path, _)| *path == name).unwrap().1;
    place.write("photo.png", file("pictures/first.png"));
    place.write("clip.png", file("inputs/clip.png"));
    place.write("g.ron", graph);
    place
}

#[track_caller]
fn refused(nodes: &str, z: &str, why: &str) {
    let place = place(&graph(nodes, z));
    for command in ["plan", "check"] {
        let said = place.bad(2, &[command, "g.ron", "--short"]);
        assert!(said.contains(why), "kino {command}: {said}\n{nodes}");
    }
}

const SIZED: &str =
    r#""fit": (op: "frames.fit", in: {"frames": "photo"}, with: {"width": 96, "height": 64}),"#;

#[test]
fn sizes_that_the_graph_fixes_behind_a_reader_are_known() {
    let resized = |size: &str, more: &str| {
        format!(
            r#""r": (op: "frames.resize", in: {{"frames": "photo"}}, with: {{{size}}}), {more}"#
        )
    };
    let encoded = r#""z": (op: "vae.encode", in: {"vae": "m.vae", "frames": "r"})"#;
    let of_8 = "width must be a multiple of 8 for this VAE, found 90";
    refused(&resized(r#""width": 90, "height": 64"#, encoded), "z", of_8);
    // The other side is the picture's.
    refused(&resized(r#""width": 90"#, encoded), "z", of_8);
    let square = r#""s": (op: "frames.fit", in: {"frames": "clip.frames"}, with: {"width": 64, "height": 64}),"#;
    let both =
        format!(r#"{SIZED} {square} "z": (op: "frames.concat", in: {{"parts": ["fit", "s"]}})"#);
    refused(&both, "z", "the first is 96×64 and part 2 is 64×64");
    let crop = r#""z": (op: "frames.crop", in: {"frames": "r"}, with: {"x": 80, "width": 20, "height": 4})"#;
    let past = "the rectangle ends at 100, past the width of the frames, 90";
    refused(&resized(r#""width": 90, "height": 64"#, crop), "z", past);
    let film = r#""z": (op: "video.write", in: {"frames": "r"}, with: {"path": "x.mp4"})"#;
    refused(&resized(r#""width": 15, "height": 15"#, film), "z", "frames of at least 16x16");
    let flat = r#""z": (op: "frames.resize", in: {"frames": "photo"})"#;
    refused(flat, "z", "no size is given");
}

#[test]
fn numbers_of_frames_are_known() {
    let trimmed = r#""z": (op: "frames.trim", in: {"frames": "photo"}, with: {"count": 2})"#;
    refused(trimmed, "z", "the clip has one frame");
    let late = r#""z": (op: "frames.trim", in: {"frames": "clip.frames"}, with: {"start": -2, "count": 5})"#;
    refused(late, "z", "cannot be had");
    // The last five frames are five, which a VAE takes; the last six are not.
    let last = |count: usize| {
        format!(
            r#""t": (op: "frames.trim", in: {{"frames": "clip.frames"}}, with: {{"start": -{count}}}),
            "z": (op: "vae.encode", in: {{"vae": "m.vae", "frames": "t"}})"#
        )
    };
    refused(&last(6), "z", "frames must be 4k+1 for this VAE, found 6");
    place(&graph(&last(5), "z")).good(&["plan", "g.ron"]);
    let two = r#""two": (op: "frames.concat", in: {"parts": ["photo", "photo"]}),
        "z": (op: "image.write", in: {"frames": "two"}, with: {"path": "x.png"})"#;
    refused(two, "z", "a PNG file holds one image, found 2 frames");
}

#[test]
fn what_a_node_is_told_is_checked_whatever_its_frames_are() {
    let large = r#""z": (op: "upscale", in: {"frames": "photo"}, with: {"model": "video-x4", "factor": 8})"#;
    refused(large, "z", "enlarges 4 times, so `factor` is from 1 to 4, found 8");
    for op in ["upscale", "frames.interpolate"] {
        let none =
            format!(r#""z": (op: "{op}", in: {{"frames": "photo"}}, with: {{"model": ""}})"#);
        refused(&none, "z", "no model is named");
    }
    let tile =
        r#""z": (op: "vae.encode", in: {"vae": "m.vae", "frames": "photo"}, with: {"tile": 17})"#;
    refused(tile, "z", "tiles of 17 pixels are too small");
    let given = |ends: &str, with: &str| {
        format!(
            r#""z": (op: "given", in: {{"dit": "m.dit", "vae": "m.vae", {ends}}}, with: {{{with}}})"#
        )
    };
    let (start, both) = (r#""start": "photo""#, r#""start": "photo", "end": "photo""#);
    refused(&given(start, r#""frames": 30"#), "z", "frames must be 4k+1 for this VAE, found 30");
    refused(&given(start, r#""frames": 17, "tile": 16"#), "z", "tiles of 16 pixels are too small");
    refused(&given(both, r#""frames": 1"#), "z", "1 and 1 frames of a clip of 1");
    let divided = r#""i": (op: "frames.info", in: {"frames": "clip.frames"}),
        "z": (op: "math", in: {"a": "i.count"}, with: {"op": "div", "b": 0})"#;
    refused(divided, "z", "cannot be divided by 0");
    let vace = r#""z": (op: "vace", in: {"dit": "m.dit", "vae": "m.vae", "video": "clip.frames"})"#;
    refused(vace, "z.control", "this transformer takes no control");
}

#[test]
fn what_is_given_fits_its_clip_though_nobody_has_seen_it() {
    let sampled = format!(
        r#"{SIZED} "given": (op: "given", in: {{"dit": "m.dit", "vae": "m.vae", "start": "fit"}}, with: {{"frames": 17}}),
        "noise": (op: "latent.noise", in: {{"vae": "m.vae"}}, with: {{"width": 96, "height": 64, "seed": 1}}),
        "p": (op: "patchify", in: {{"dit": "m.dit", "latents": "noise"}}),
        "t": (op: "text.encode", in: {{"encoder": "m.text_encoder"}}, with: {{"prompt": "x"}}),
        "z": (op: "dit.sample", in: {{"dit": "m.dit", "patches": "p", "text": "t", "given": "given"}})"#
    );
    let why = "given of a clip whose latent is [16, 5, 8, 12], found one of [16, 1, 8, 12]";
    refused(&sampled, "z.patches", why);
}

/// Whether a clip has sound at all, only its file tells.
#[test]
fn what_a_file_decides_is_not_refused() {
    let sound = r#""z": (op: "video.write", in: {"frames": "clip.frames", "audio": "clip.audio"}, with: {"path": "x.webp"})"#;
    let rate = r#""i": (op: "frames.info", in: {"frames": "clip.frames"}, with: {"fps": 0.5}),
        "n": (op: "math", in: {"a": "i.fps"}, with: {"op": "floor"}),
        "z": (op: "frames.trim", in: {"frames": "clip.frames", "count": "n"})"#;
    for nodes in [sound, rate] {
        let place = place(&graph(nodes, "z"));
        let ran = place.kino(&["check", "g.ron", "--short"]);
        assert_eq!(ran.code, 0, "{}\n{nodes}", ran.err);
    }
}

#[test]
fn a_file_is_no_folder() {
    let writes = |one: &str, other: &str| {
        format!(
            r#""a": (op: "image.write", in: {{"frames": "photo"}}, with: {{"path": "{one}"}}),
            "z": (op: "image.write", in: {{"frames": "photo"}}, with: {{"path": "{other}"}})"#
        )
    };
    let why = "a file where a folder must be";
    refused(&writes("y.png", "y.png/z.png"), "z", why);
    refused(&writes("y.png/z.png", "y.png"), "z", why);
    refused(&writes("a/y.png", "a/y.png/b/c/f_%05d.png"), "z", why);
    refused(&writes("y.png/f_%05d.png", "y.png"), "z", why);
    let place = place(&graph(&writes("y/z.png", "y.png"), "z"));
    place.good(&["plan", "g.ron"]);
}

#[test]
fn every_edge_of_a_list_that_leads_nowhere_is_told() {
    let lists = graph(
        r#""z": (op: "frames.concat", in: {"parts": ["x0", "photo", "x1", "clip.zz"]})"#,
        "z",
    );
    let said = place(&lists).bad(2, &["check", "g.ron", "--short"]);
    for wrong in ["`x0`", "`x1`", "`zz`"] {
        assert!(said.contains(wrong), "{wrong}: {said}");
    }
    let lists =
        graph(r#""z": (op: "frames.concat", in: {"parts": ["photo", 1, "photo", true]})"#, "z");
    let said = place(&lists).bad(2, &["check", "g.ron", "--short"]);
    assert_eq!(said.matches("expected an edge such as").count(), 2, "{said}");
}

/// Numbers that are drawn, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % sides
    }
}

const NUMBERS: [&str; 16] =
    ["0", "1", "2", "3", "5", "7", "8", "9", "16", "17", "30", "33", "48", "60", "90", "128"];

/// A graph with one of its numbers changed, or one of its edges left out.
fn changed(text: &str, dice: &mut Dice) -> String {
    let is_digit = |at: usize| text.as_bytes()[at].is_ascii_digit();
    let starts: Vec<usize> =
        (1..text.len()).filter(|at| is_digit(*at) && text[..*at].ends_with(": ")).collect();
    // `"port": "node.output", `
    let edges: Vec<(usize, usize)> = text
        .match_indices(", \"")
        .filter_map(|(at, _)| {
            let rest = &text[at + 2..];
            let end = rest.find([',', '}'])?;
            let is_pair = rest[..end].matches('"').count() == 4 && rest[..end].contains("\": \"");
            is_pair.then_some((at, at + 2 + end))
        })
        .collect();
    let mut text = text.to_owned();
    match dice.roll(3) {
        0 => {
            let (from, to) = edges[dice.roll(edges.len())];
            text.replace_range(from..to, "");
        }
        _ => {
            let from = starts[dice.roll(starts.len())];
            let len = text[from..].find(|c: char| !c.is_ascii_digit()).unwrap();
            text.replace_range(from..from + len, NUMBERS[dice.roll(NUMBERS.len())]);
        }
    }
    text
}

/// An image of one frame, of another size than those of the built-in graphs.
fn other_picture() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 50, 34);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header().unwrap().write_image_data(&[128; 50 * 34 * 3]).unwrap();
    bytes
}

/// What planning says against a graph, line by line, without the folder that it lies in.
fn against(engine: &Engine, place: &Place, text: &str) -> Vec<String> {
    let Ok(graph) = engine.open(place.write("g.ron", text)) else { return Vec::new() };
    let planned = graph.run(inputs! {}).out(place.path("out")).plan();
    let said = planned.err().map(|error| error.to_string()).unwrap_or_default();
    let errors = said.lines().filter(|line| line.starts_with("error"));
    errors.map(|line| line.replace(&*place.path("").to_string_lossy(), "")).collect()
}

/// Built-in graphs, each with one thing changed at random, in a folder where all files are there:
/// what planning refuses, a check refuses, unless planning says something else where the files are
/// others. `KINO_FUZZ_ROUNDS` sets how many for each graph,
/// `KINO_FUZZ_SEED` where the generator starts.
#[test]
fn what_planning_refuses_a_check_refuses() {
    let number = |name: &str, otherwise: u64| {
        env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    };
    let (rounds, seed) = (number("KINO_FUZZ_ROUNDS", 25), number("KINO_FUZZ_SEED", 0x5eed_1357));
    println!("{rounds} changes of each graph, seed {seed}");
    let (place, elsewhere) = (Place::new(), Place::new());
    for (path, contents) in GRAPH_FILES {
        place.write(path, contents);
        match path.ends_with(".ron") {
            true => elsewhere.write(path, contents),
            false => elsewhere.write(path, other_picture()),
        };
    }
    let language_model =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/ref/language/qwen3.gguf");
    let engine = Engine::builder().device("cpu").no_cache().build().unwrap();
    let (mut dice, mut refused) = (Dice(seed.max(1)), 0);
    for (name, text) in GRAPHS {
        // What a user gives.
        let text = text.replace(
            r#""image": (type: "Path", about"#,
            r#""image": (type: "Path", default: "pictures/first.png", about"#,
        );
        let text = text.replace(
            r#""model": (type: "Text", about"#,
            &format!(r#""model": (type: "Text", default: {language_model:?}, about"#),
        );
        for _ in 0..rounds {
            let text = changed(&text, &mut dice);
            let path = place.write("g.ron", &text);
            let Ok(graph) = engine.open(&path) else { continue };
            let planned = graph.run(inputs! {}).out(place.path("out")).plan();
            match (planned, graph.check()) {
                (Err(_), Ok(_)) => {
                    let there = against(&engine, &elsewhere, &text);
                    let mut here = against(&engine, &place, &text);
                    here.retain(|line| there.contains(line));
                    assert!(
                        here.is_empty(),
                        "{name}, seed {seed}: only planning: {here:?}\n{text}"
                    );
                }
                (Ok(_), Err(error)) => {
                    panic!("{name}, seed {seed}: only a check says {error}\n{text}");
                }
                (Err(_), Err(_)) => refused += 1,
                (Ok(_), Ok(_)) => {}
            }
        }
    }
    assert!(refused > 0, "{refused}");
}
