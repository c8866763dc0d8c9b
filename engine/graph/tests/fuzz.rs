//! Seeded fuzzing: mutated graphs through check and plan. Whatever they say, both end, soon, in
//! bounded memory, and without a panic.
//!
//! `KINO_FUZZ_ROUNDS` sets the number of graphs, `KINO_FUZZ_SEED` where the generator starts.

mod common;

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use common::{Dice, Files, SOUND, nodes, plan_with};

/// What one graph may take, on a machine that does other things as well.
const LIMIT: Duration = Duration::from_secs(20);

/// What the process may have held at most, in kB.
const MAX_MEMORY: u64 = 3 << 20;

/// Texts longer than this are cut: long ones have tests of their own.
const LONGEST: usize = 20_000;

const LISTS: &str = r#"Graph(version: 1, nodes: {"r": (op: "read", with: {"path": "x.png"}), "x": (op: "./a.ron", in: {"x": ["r", "r", "r"]})},
    outputs: {"o": "x"}, graphs: {
    "./a.ron": Graph(version: 1, inputs: {"x": (type: "List(Frames)")}, nodes: {"b": (op: "./b.ron", in: {"x": ["inputs.x", "inputs.x", "inputs.x"]})}, outputs: {"o": "b"}),
    "./b.ron": Graph(version: 1, inputs: {"x": (type: "List(Frames)")}, nodes: {"b": (op: "./c.ron", in: {"x": ["inputs.x", "inputs.x", "inputs.x"]})}, outputs: {"o": "b"}),
    "./c.ron": Graph(version: 1, inputs: {"x": (type: "List(Frames)")}, nodes: {"c": (op: "concat", in: {"parts": "inputs.x"})}, outputs: {"o": "c"})})"#;

/// Texts that are put anywhere.
const WORDS: &[&str] = &[
    "\"random\"",
    "\"inputs.seed\"",
    "\"inputs.x\"",
    "\"./a.ron\"",
    "\"./x.ron\"",
    "bypass: true",
    "List(",
    "\"List(List(Path))\"",
    "-9e999",
    "170141183460469231731687303715884105727",
    "0x_f",
    "[]",
    "{}",
    "()",
    "\"{seed}\"",
    "\"{graph}\"",
    "\"{{\"",
    "step: 3",
    "range: (9, 1)",
    "default: \"random\"",
    "\"..\"",
    "\"../../x.ron\"",
    "Some(1)",
    "inf",
    "NaN",
    "\"n.latent\"",
    "\"\"",
    "\u{202e}",
    "#![enable(x)]",
];

/// The graphs that are mutated: those of the tests, and those that are shipped, their ops named as
/// the tests' catalog names them.
fn corpus() -> Vec<String> {
    let mut texts = vec![SOUND.to_owned(), LISTS.to_owned()];
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../../graphs");
    let mut paths: Vec<_> =
        fs::read_dir(shipped).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|ending| ending == "ron")) {
        let text = fs::read_to_string(path).unwrap();
        let renamed = [
            ("image.read", "read"),
            ("image.write", "write"),
            ("video.write", "write"),
            ("latent.noise", "noise"),
            ("vae.decode", "decode"),
            ("upscale", "resize"),
        ];
        texts.push(renamed.iter().fold(text, |text, (from, to)| text.replace(from, to)));
    }
    assert!(texts.len() > 8, "the shipped graphs are there");
    texts
}

/// A piece of a text between two brackets that belong together, those included.
fn piece(text: &[u8], dice: &mut Dice) -> Option<(usize, usize)> {
    let start = dice.roll(text.len());
    let start = start + text[start..].iter().position(|byte| b"([{".contains(byte))?;
    let mut depth = 0;
    for (at, byte) in text.iter().enumerate().skip(start) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((start, at + 1));
        }
    }
    None
}

fn mutated(corpus: &[String], dice: &mut Dice) -> String {
    // The first two plan as they are, so that what plans is mutated as often as what does not.
    let among = if dice.roll(2) == 0 { 2 } else { corpus.len() };
    let mut text = corpus[dice.roll(among)].clone().into_bytes();
    let most = 1 + dice.roll(4);
    for _ in 0..=dice.roll(most) {
        if text.is_empty() {
            break;
        }
        let at = dice.roll(text.len());
        match dice.roll(8) {
            0 => text[at] ^= 1 << dice.roll(8),
            1 => {
                text.drain(at..(at + dice.roll(60)).min(text.len()));
            }
            2 => drop(text.splice(at..at, WORDS[dice.roll(WORDS.len())].bytes())),
            3 => {
                // A name or text of elsewhere in place of another.
                let other = &corpus[dice.roll(corpus.len())];
                let quoted: Vec<&str> = other.split('"').skip(1).step_by(2).collect();
                let word = quoted[dice.roll(quoted.len())].as_bytes().to_vec();
                let quote = |from: usize| {
                    text[from..].iter().position(|byte| *byte == b'"').map(|len| from + len)
                };
                if let Some(start) = quote(at)
                    && let Some(end) = quote(start + 1)
                {
                    drop(text.splice(start + 1..end, word));
                }
            }
            4 => {
                if let Some((start, end)) = piece(&text, dice) {
                    text.drain(start..end);
                }
            }
            5 => {
                // A piece many times over, with commas.
                if let Some((start, end)) = piece(&text, dice) {
                    let mut again = text[start..end].to_vec();
                    again.push(b',');
                    let most = 1 << dice.roll(8);
                    let times = dice.roll(most);
                    drop(text.splice(start..start, again.repeat(times.min(LONGEST / again.len()))));
                }
            }
            6 => {
                let other = corpus[dice.roll(corpus.len())].as_bytes();
                if let (Some((start, end)), Some((from, to))) =
                    (piece(&text, dice), piece(other, dice))
                {
                    drop(text.splice(start..end, other[from..to].iter().copied()));
                }
            }
            _ => {
                let byte = text[at];
                let most = 1 << dice.roll(10);
                let times = dice.roll(most);
                drop(text.splice(at..at, std::iter::repeat_n(byte, times)));
            }
        }
        text.truncate(LONGEST);
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn number(name: &str, otherwise: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Checks and plans one graph; whether it was planned.
fn attempt(text: &str, files: &Files) -> bool {
    let catalog = nodes();
    let planned = kino_graph::check("g.ron", text, &catalog, files)
        .and_then(|graph| plan_with(&graph, &catalog, &[]));
    match planned {
        Ok(_) => true,
        Err(problems) => {
            assert!(!problems.render().is_empty());
            false
        }
    }
}

#[test]
fn mutated_graphs_end_soon_in_bounded_memory() {
    let (rounds, seed) = (number("KINO_FUZZ_ROUNDS", 3_000), number("KINO_FUZZ_SEED", 0x5eed_4321));
    println!("{rounds} graphs, seed {seed}");
    let (say, heard) = channel::<Option<String>>();
    // Says which graph hangs, as a test that hangs says nothing.
    let watch = thread::spawn(move || {
        let mut last = None;
        loop {
            match heard.recv_timeout(LIMIT) {
                Ok(Some(text)) => last = Some(text),
                Ok(None) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    eprintln!("this graph takes over {LIMIT:?}:\n{}", last.unwrap_or_default());
                    std::process::abort();
                }
            }
        }
    });
    let (corpus, mut dice, files) = (corpus(), Dice(seed), Files::default());
    let (mut planned, mut slowest) = (0, Duration::ZERO);
    for _ in 0..rounds {
        let text = mutated(&corpus, &mut dice);
        say.send(Some(text.clone())).unwrap();
        let started = Instant::now();
        planned += u64::from(attempt(&text, &files));
        slowest = slowest.max(started.elapsed());
    }
    say.send(None).unwrap();
    watch.join().unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    println!("{planned} planned, slowest {slowest:?}, peak {} MB", peak.unwrap_or(0) / 1024);
    assert!(peak.is_none_or(|peak| peak < MAX_MEMORY), "{peak:?} kB");
    assert!(planned > rounds / 100, "some mutated graphs are sound: {planned} of {rounds}");
}
