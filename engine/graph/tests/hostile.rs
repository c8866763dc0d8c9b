//! Hostile texts: whatever the bytes, checking ends with diagnostics, never with a panic.

mod common;

use common::{check, plan};
use kino_graph::diff;

const SEED: u64 = 0x5eed_1234;
const ROUNDS: usize = 4_000;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

const SOUND: &str = r##"#"not this"
Graph(version: 1, about: r#"raw "text""#, /* a /* nested */ comment */
    inputs: {"seed": (type: "Int", default: 7, range: (0, 99), step: 1), "t": (type: "Text", default: "\u{e9}\x41\n", choices: ["éA\n"]),
             "p": (type: "Path", default: "{graph}-{seed}.png"), "l": (type: "List(Path)", default: ["a.png"])},
    nodes: {"n": (op: "noise", in: {"seed": "inputs.seed"}, with: {"frames": 1_7}), "m": (op: "noise", with: {"seed": "random"}),
            "d": (op: "decode", in: {"latent": "n"}), "c": (op: "concat", in: {"parts": {"a": "d", "b": "u.out", "c": "v.out"}}),
            "a": (op: "add", with: {"a": -1.5e3, "b": +.5}), "s": (op: "switch", in: {"a": "n", "b": "m"}, with: {"on": true}),
            "g": (op: "gather", in: {"paths": "inputs.l"}), "q": (op: "read", in: {"path": "inputs.p"}),
            "u": (op: "./x.ron", in: {"f": "g"}, with: {"w": 32, "seed": "random"}), "v": (op: "./x.ron", in: {"f": "q"}, bypass: true),
            "w": (op: "write", in: {"frames": "c"}, with: {"path": "{graph}-{seed}{{x}}.mp4"}, bypass: false)},
    outputs: {"frames": "c", "sum": "a", "s": "s"},
    graphs: {"./x.ron": Graph(version: 1, inputs: {"f": (type: "Frames"), "w": (type: "Int", default: 64, range: (16, 128)),
                                                   "seed": (type: "Int", default: "random")},
        nodes: {"r": (op: "resize", in: {"frames": "inputs.f", "width": "inputs.w"}), "n": (op: "noise", in: {"seed": "inputs.seed"}),
                "d": (op: "decode", in: {"latent": "n"}), "c": (op: "concat", in: {"parts": ["r", "d"]})}, outputs: {"out": "c"})})"##;

fn sound() -> String {
    SOUND.split_once('\n').unwrap().1.to_owned()
}

#[test]
fn the_graph_that_is_mutated_is_sound() {
    plan(&sound()).unwrap_or_else(|problems| panic!("{problems}"));
}

#[test]
fn mutated_graphs_never_panic() {
    println!("seed {SEED:#x}");
    let mut dice = Dice(SEED);
    let alphabet: Vec<char> = "(){}[]\",:\\/*r#n0.+-_ \n{}é\u{0}".chars().collect();
    for _ in 0..ROUNDS {
        let mut text: Vec<char> = sound().chars().collect();
        for _ in 0..=dice.roll(4) {
            let at = dice.roll(text.len());
            match dice.roll(3) {
                0 => text[at] = alphabet[dice.roll(alphabet.len())],
                1 => text.insert(at, alphabet[dice.roll(alphabet.len())]),
                _ => {
                    let end = (at + dice.roll(40)).min(text.len());
                    text.drain(at..end);
                }
            }
            if text.is_empty() {
                break;
            }
        }
        let text: String = text.into_iter().collect();
        attempt(&text);
    }
}

/// Whatever plans has a record that plans to the same; whatever does not says why.
fn attempt(text: &str) {
    match plan(text) {
        Ok(first) => {
            let again = plan(first.embedded_workflow()).unwrap_or_else(|problems| {
                panic!("{problems}\n{text}\n{}", first.embedded_workflow())
            });
            assert_eq!(diff(&first, &again).changes, [], "{text}\n{}", first.embedded_workflow());
        }
        Err(problems) => assert!(!problems.render().is_empty()),
    }
}

/// A text with some of its bits flipped.
fn flipped(text: &str, dice: &mut Dice) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=dice.roll(3) {
        let at = dice.roll(bytes.len());
        bytes[at] ^= 1 << dice.roll(8);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn flipped_bits_never_panic() {
    println!("seed {SEED:#x}");
    let mut dice = Dice(SEED);
    for _ in 0..ROUNDS {
        attempt(&flipped(&sound(), &mut dice));
    }
}

#[test]
fn words_of_other_places_never_panic() {
    println!("seed {SEED:#x}");
    let mut dice = Dice(SEED);
    let text = sound();
    let words: Vec<&str> = text.split_inclusive(|c: char| !c.is_alphanumeric()).collect();
    for _ in 0..ROUNDS {
        let mut words = words.clone();
        for _ in 0..=dice.roll(3) {
            let (at, from) = (dice.roll(words.len()), dice.roll(words.len()));
            words[at] = words[from];
        }
        attempt(&words.concat());
    }
}

#[test]
fn arbitrary_text_never_panics() {
    println!("seed {SEED:#x}");
    let mut dice = Dice(SEED);
    for _ in 0..20_000 {
        let bytes: Vec<u8> = (0..dice.roll(60)).map(|_| dice.roll(256) as u8).collect();
        let _ = check(&String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn every_prefix_is_refused_politely() {
    let text = sound();
    for cut in (0..text.len()).filter(|cut| text.is_char_boundary(*cut)) {
        assert!(check(&text[..cut]).is_err());
    }
}

#[test]
fn deep_nesting_does_not_exhaust_the_stack() {
    for open in
        ["[", "(", "{", "{\"a\":", "(a:", "Graph(nodes:", "/*", "[[", "Graph(graphs:{\"a\":"]
    {
        let text = open.repeat(100_000);
        assert!(check(&text).is_err());
        assert!(check(&format!("Graph(version: 1, nodes: {text}")).is_err());
    }
}
