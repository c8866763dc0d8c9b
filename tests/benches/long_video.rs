//! Does a long video take the memory of a short one? Two child processes make `long_video` of so
//! many turns and of ten times as many; what is compared is the most memory that each ever took.
//!
//! `KINO_BENCH_TURNS` says how many (30, a minute); `KINO_BENCH_STEPS` how often each samples (20).

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use kino_session::Inputs;

/// The command's own: what it keeps of what was freed is part of the peak.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Set for a child: how many turns it makes.
const TURNS: &str = "KINO_BENCH_CHILD_TURNS";
/// Where the child works.
const FOLDER: &str = "KINO_BENCH_CHILD_FOLDER";

/// Makes the video, and says the most memory that this process took.
fn child(turns: &str, folder: &Path) {
    let engine = kino_tests::engine(folder).keep_results(false).build().expect("an engine");
    let path = kino_tests::root().join("graphs/long_video.ron");
    let graph = engine.open(&path).expect("the graph");
    let mut inputs = Inputs::new();
    inputs.set("turns", turns);
    inputs.set("steps", std::env::var("KINO_BENCH_STEPS").as_deref().unwrap_or("20"));
    let run = graph.run(inputs).out(folder.join("out")).start().expect("a thread");
    run.wait().unwrap_or_else(|error| panic!("{error}"));
    println!("{}", kino_runtime::peak_of_process().expect("the system says it"));
}

/// The peak of a process that makes a video of so many turns.
fn peak(turns: usize) -> u64 {
    let folder = tempfile::tempdir().expect("a folder");
    let begun = Instant::now();
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    let out = command.env(TURNS, turns.to_string()).env(FOLDER, folder.path()).output();
    let out = out.expect("a child");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let peak: u64 = String::from_utf8_lossy(&out.stdout).trim().parse().expect("a number");
    let (frames, seconds) = (1 + 16 * turns, begun.elapsed().as_secs_f64());
    println!("{turns} turns, {frames} frames: peak {} MB, {seconds:.1} s", peak >> 20);
    peak
}

fn main() {
    if let (Ok(turns), Some(folder)) = (std::env::var(TURNS), std::env::var_os(FOLDER)) {
        return child(&turns, Path::new(&folder));
    }
    let turns = std::env::var("KINO_BENCH_TURNS").ok().and_then(|text| text.parse().ok());
    let turns: usize = turns.unwrap_or(30);
    let (short, long) = (peak(turns), peak(10 * turns));
    let more = 100.0 * (long as f64 / short as f64 - 1.0);
    println!("ten times as long: {more:+.1} %");
    assert!(more <= 10.0, "a longer video takes more memory");
}
