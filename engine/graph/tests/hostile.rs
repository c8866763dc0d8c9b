//! Hostile texts: whatever the bytes, checking ends with diagnostics, never with a panic.

mod common;

use common::{Dice, SOUND, check, plan};
use kino_graph::diff;

const SEED: u64 = 0x5eed_1234;
const ROUNDS: usize = 4_000;

#[test]
fn the_graph_that_is_mutated_is_sound() {
    plan(SOUND).unwrap_or_else(|problems| panic!("{problems}"));
}

#[test]
fn mutated_graphs_never_panic() {
    println!("seed {SEED:#x}");
    let mut dice = Dice(SEED);
    let alphabet: Vec<char> = "(){}[]\",:\\/*r#n0.+-_ \n{}é\u{0}".chars().collect();
    for _ in 0..ROUNDS {
        let mut text: Vec<char> = SOUND.chars().collect();
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
        attempt(&flipped(SOUND, &mut dice));
    }
}

#[test]
fn words_of_other_places_never_panic() {
    println!("seed {SEED:#x}");
    let mut dice = Dice(SEED);
    let text = SOUND;
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
    let text = SOUND;
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
