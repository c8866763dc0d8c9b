//! Cache entries with changed contents and a checksum that fits, so that the decoder behind it is
//! reached: whatever they hold, a run ends with an output or a failure, never with a panic.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kino_node::Ledger;

use crate::nodes::Log;
use crate::rig::{Draft, Rig, lit, on_disk};

const SEED: u64 = 0x6361_6368_655f_6b65;
/// What one entry may take, on a machine that does other things as well.
const LIMIT: Duration = Duration::from_secs(20);
/// What the process may have held at most, with all tests that run beside this one. A few bytes of
/// an entry can ask for as much as they like.
const MOST_MEMORY: u64 = 1 << 30;
/// What values may take.
const BUDGET: u64 = 64 << 20;
/// Magic, key, length of the header.
const START: usize = 44;

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// How many entries to try; `KINO_FUZZ_ROUNDS` sets it.
fn rounds() -> usize {
    let set = std::env::var("KINO_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok());
    set.unwrap_or(300)
}

/// A rig whose values may take [`BUDGET`].
fn limited(folder: &Path) -> Rig {
    Rig::with_ledger(on_disk(folder), Log::default(), Ledger::new(BUDGET))
}

fn entry(folder: &Path) -> PathBuf {
    let folders = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    let mut found = folders.flat_map(|folder| match folder.is_dir() {
        true => fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).collect(),
        false => vec![folder],
    });
    found.find(|path| path.extension().is_some_and(|end| end == "entry")).expect("one entry")
}

/// Changes some bytes, most often those of lengths and shapes: digits and brackets of JSON, or
/// single bytes anywhere; may also cut, double or lengthen.
fn mutate(content: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let from = START.min(content.len() - 1);
        let at = match random.below(4) {
            0 => random.below(content.len()),
            1 => from + random.below((content.len() - from).min(200)),
            _ => from + random.below(content.len() - from),
        };
        match random.below(8) {
            0 => content[at] = 0xff,
            1 => content[at] ^= 1 << random.below(8),
            2 => content[at] = b"0123456789,:[]{}\"-e."[random.below(20)],
            3 => content.insert(at, b"0123456789"[random.below(10)]),
            4 => drop(content.remove(at)),
            5 => content.truncate((at + 1).max(START + 1)),
            6 => {
                let to = (at + 1 + random.below(60)).min(content.len());
                let piece = content[at..to].to_vec();
                content.splice(at..at, piece);
            }
            _ => {
                let wide = random.next().to_le_bytes();
                let to = (at + 8).min(content.len());
                content[at..to].copy_from_slice(&wide[..to - at]);
            }
        }
    }
}

#[test]
fn entries_whose_checksum_fits_are_taken_apart_without_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(SEED);
    let (mut read, mut missed) = (0, 0);
    for op in ["values", "both"] {
        let folder = folder.path().join(op);
        let mut draft = Draft::default();
        let step = draft.add("step", op, vec![lit(3), lit(4)]);
        draft.give(step, 0);
        Rig::on_disk(&folder).run(&draft);
        let path = entry(&folder.join("values-2"));
        let whole = fs::read(&path).unwrap();
        let content = &whole[..whole.len() - 32];
        for round in 0..rounds() / 2 {
            let mut bytes = content.to_vec();
            mutate(&mut bytes, &mut random);
            let hash = blake3::hash(&bytes);
            bytes.extend(hash.as_bytes());
            fs::write(&path, &bytes).unwrap();
            let begun = Instant::now();
            let report = limited(&folder).run(&draft);
            assert!(begun.elapsed() < LIMIT, "{op}, round {round}: {:?}", begun.elapsed());
            let peak = kino_runtime::peak_of_process().unwrap_or(0);
            assert!(peak < MOST_MEMORY, "{op}, round {round}: {peak} bytes");
            let said = report.failed.first().map(|failure| failure.message.clone());
            let said = said.unwrap_or_default();
            assert!(!said.contains("panicked"), "{op}, round {round}, seed {SEED:#x}: {said}");
            assert!(!report.cancelled, "{op}, round {round}");
            if report.evaluated.is_empty() { read += 1 } else { missed += 1 }
        }
    }
    println!("{read} were read or refused, {missed} computed again");
    assert!(read > 0 && missed > 0, "both ways are reached");
}
