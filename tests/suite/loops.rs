//! The graphs in time, on pixels: what is given is in the video where it belongs, what is made
//! joins it, colours stay; a long video takes the memory of a short one, and is taken up where it
//! was killed.
//!
//! Short forms, unless `KINO_TEST_MINUTE` is set (the whole minute of `long_video`) or
//! `KINO_TEST_LOOP_KILLS` says how often it is killed.

#![cfg(unix)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Tensor};
use kino_session::{Cached, Event, Inputs};
use kino_tests::{Rig, difference, ends_before, root};
use kino_world::read_metadata;

/// A graph of `graphs/` whose edges of these names are written as tensors, too.
fn with_tensors(name: &str, edges: &[(&str, &str)], inputs: &[(&str, &str)]) -> Rig {
    let folder = root().join("graphs");
    let text = fs::read_to_string(folder.join(format!("{name}.ron"))).unwrap();
    let edges: Vec<_> =
        edges.iter().map(|(as_name, edge)| format!("\"{as_name}\": \"{edge}\"")).collect();
    let node = format!(
        r#""tensors": (op: "tensor.write", in: {{"tensors": {{{}}}}}, with: {{"path": "t.safetensors"}}), "file":"#,
        edges.join(", ")
    );
    let mut rig = Rig::of(name, &text.replacen("\"file\":", &node, 1), &folder);
    for (input, value) in inputs {
        rig.set(input, value);
    }
    rig.run();
    rig
}

fn tensor(rig: &Rig, name: &str) -> Tensor {
    rig.tensor("t.safetensors", name)
}

fn part(frames: &Tensor, from: usize, count: usize) -> Tensor {
    frames.narrow(0, from, count).unwrap()
}

#[track_caller]
fn same(frames: &Tensor, from: usize, given: &Tensor) {
    let count = given.dim(0).unwrap();
    assert_eq!(
        difference(&part(frames, from, count), given),
        0.0,
        "frames {from} to {}",
        from + count
    );
}

/// A frame as rows of pixels, 0…255.
fn pixels(frames: &Tensor, at: usize) -> Vec<[f64; 3]> {
    let frame = (frames.get(at).unwrap().to_dtype(DType::F64).unwrap() * 255.0).unwrap();
    let flat: Vec<f64> = frame.flatten_all().unwrap().to_vec1().unwrap();
    flat.chunks_exact(3).map(|rgb| [rgb[0], rgb[1], rgb[2]]).collect()
}

fn distance(a: [f64; 3], b: [f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

fn mean(pixels: &[[f64; 3]]) -> [f64; 3] {
    let mut sum = [0.0; 3];
    pixels.iter().for_each(|rgb| sum.iter_mut().zip(rgb).for_each(|(sum, value)| *sum += value));
    sum.map(|sum| sum / pixels.len().max(1) as f64)
}

/// What a frame shows: its plain background, and a subject on it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    background: [f64; 3],
    /// The colour of the subject: of the half of its pixels that differ most from the background.
    subject: [f64; 3],
    /// Where it is, from the left, in pixels.
    x: f64,
    /// How many pixels are part of it.
    size: usize,
}

/// Finds the subject of a frame: what differs by more than `NEAR` from the median of the frame,
/// which is the background's.
fn seen(frames: &Tensor, at: usize) -> Seen {
    const NEAR: f64 = 60.0;
    let width = frames.dim(2).unwrap();
    let all = pixels(frames, at);
    let median = |channel: usize| {
        let mut values: Vec<f64> = all.iter().map(|rgb| rgb[channel]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let middle = [median(0), median(1), median(2)];
    let (mut subject, mut background) = (Vec::new(), Vec::new());
    let mut x = 0.0;
    for (index, rgb) in all.iter().enumerate() {
        let from = distance(*rgb, middle);
        if from > NEAR {
            subject.push((from, *rgb));
            x += (index % width) as f64;
        } else if from < NEAR / 3.0 {
            background.push(*rgb);
        }
    }
    let size = subject.len();
    subject.sort_by(|a, b| b.0.total_cmp(&a.0));
    let core: Vec<_> = subject.iter().take(size.div_ceil(2)).map(|(_, rgb)| *rgb).collect();
    let count = size.max(1) as f64;
    Seen { background: mean(&background), subject: mean(&core), x: x / count, size }
}

/// How much each frame differs from the one before it, all pixels together.
fn steps(frames: &Tensor) -> Vec<f64> {
    let count = frames.dim(0).unwrap();
    let step = |at: usize| {
        let gap = (part(frames, at + 1, 1) - part(frames, at, 1)).unwrap();
        f64::from(gap.abs().unwrap().mean_all().unwrap().to_vec0::<f32>().unwrap())
    };
    (0..count - 1).map(step).collect()
}

/// The step from frame `at` to the next is no larger than 1.5 times the largest beside it.
#[track_caller]
fn no_seam(frames: &Tensor, at: usize) {
    let steps = steps(frames);
    let beside =
        steps[at.saturating_sub(2)..at].iter().chain(&steps[at + 1..(at + 3).min(steps.len())]);
    let beside = beside.copied().fold(0.0, f64::max);
    assert!(
        steps[at] <= 1.5 * beside,
        "frame {at}: {:.5} after and before {beside:.5}: {steps:.5?}",
        steps[at]
    );
}

/// The subject has the colour of that in `of` in every frame, and the background stays.
#[track_caller]
fn keeps_colour(frames: &Tensor, of: Seen, most: f64) {
    for at in 0..frames.dim(0).unwrap() {
        let seen = seen(frames, at);
        assert!(seen.size > 12, "frame {at} shows no subject: {seen:?}");
        let gap = distance(seen.subject, of.subject);
        assert!(gap < most, "frame {at}: the subject changes by {gap:.1}: {seen:?}, first {of:?}");
    }
}

const CLIP: usize = 17;

#[test]
fn a_clip_goes_on_after_its_end() {
    let rig = with_tensors("extend_forward", &[("frames", "frames"), ("clip", "clip")], &[]);
    let (frames, clip) = (tensor(&rig, "frames"), tensor(&rig, "clip"));
    assert_eq!(frames.dims(), [CLIP + 12, 64, 96, 3], "the overlap is counted once");
    same(&frames, 0, &clip);
    no_seam(&frames, CLIP - 1);
    keeps_colour(&frames, seen(&clip, 0), 80.0);
    assert!(rig.out("extend_forward-7-001.mp4").is_file());
}

#[test]
fn a_clip_has_a_beginning_made_for_it() {
    let rig = with_tensors("extend_backward", &[("frames", "frames"), ("clip", "clip")], &[]);
    let (frames, clip) = (tensor(&rig, "frames"), tensor(&rig, "clip"));
    assert_eq!(frames.dims(), [13 + CLIP, 64, 96, 3], "the overlap is counted once");
    same(&frames, 13, &clip);
    no_seam(&frames, 12);
    keeps_colour(&frames, seen(&clip, 0), 80.0);
}

#[test]
fn two_clips_are_joined_without_a_seam() {
    let edges = [("frames", "frames"), ("before", "before"), ("after", "after")];
    let rig = with_tensors("join", &edges, &[]);
    let frames = tensor(&rig, "frames");
    let (before, after) = (tensor(&rig, "before"), tensor(&rig, "after"));
    assert_eq!(frames.dims(), [CLIP + 8 + CLIP, 64, 96, 3]);
    same(&frames, 0, &before);
    same(&frames, CLIP + 8, &after);
    no_seam(&frames, CLIP - 1);
    no_seam(&frames, CLIP + 7);
    keeps_colour(&frames, seen(&before, 0), 80.0);
}

#[test]
fn a_loop_leads_back_to_its_start_without_a_seam() {
    let rig = with_tensors("loop", &[("frames", "frames"), ("clip", "clip")], &[]);
    let (frames, clip) = (tensor(&rig, "frames"), tensor(&rig, "clip"));
    let length = clip.dim(0).unwrap();
    assert_eq!(frames.dims(), [length + 8, 64, 96, 3]);
    same(&frames, 0, &clip);
    no_seam(&frames, length - 1);
    // Shown twice, so that the last frame has the first behind it.
    let twice = Tensor::cat(&[&frames, &frames], 0).unwrap();
    no_seam(&twice, length + 7);
    keeps_colour(&frames, seen(&clip, 0), 80.0);
}

#[test]
fn a_storyboard_shows_its_subject_in_every_shot() {
    let rig =
        with_tensors("storyboard", &[("frames", "shots.frames"), ("subject", "subject")], &[]);
    let (frames, subject) = (tensor(&rig, "frames"), tensor(&rig, "subject"));
    assert_eq!(frames.dims(), [3 * CLIP, 64, 96, 3]);
    (0..3).for_each(|shot| same(&frames, shot * CLIP, &subject));
    keeps_colour(&frames, seen(&subject, 0), 80.0);
    let begin = seen(&subject, 0);
    let ends: Vec<Seen> = (1..=3).map(|shot| seen(&frames, shot * CLIP - 1)).collect();
    assert!(ends[0].x > begin.x + 30.0, "the first shot leads to the right: {ends:?}");
    assert!(ends[1].size > begin.size * 3 / 2, "in the second it grows: {ends:?}");
    assert!(ends[2].size < begin.size / 2, "in the third it shrinks: {ends:?}");
}

#[test]
fn shots_without_a_prompt_are_refused_before_anything_runs() {
    let mut rig = Rig::load("storyboard");
    let said = rig.set("shots", "4").plan().err().expect("it is refused").to_string();
    assert!(
        said.contains("`index` of `shots/3/prompt`: there are 3 texts, 0 to 2, and 3 is asked for"),
        "{said}"
    );
    let one =
        Rig::load("storyboard").set("prompts", "a red circle").set("shots", "1").plan().is_ok();
    assert!(one, "one prompt is a list, too");
}

/// `long_video` of so many turns, small.
fn long(turns: usize) -> Vec<(&'static str, String)> {
    vec![("turns", turns.to_string()), ("enlarge", "1".to_owned())]
}

#[test]
fn a_long_video_keeps_its_colours() {
    let turns = if std::env::var_os("KINO_TEST_MINUTE").is_some() { 30 } else { 4 };
    let inputs = long(turns);
    let inputs: Vec<_> = inputs.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let rig = with_tensors("long_video", &[("frames", "film.frames"), ("first", "first")], &inputs);
    let (made, first) = (tensor(&rig, "frames"), tensor(&rig, "first"));
    assert_eq!(made.dims(), [16 * turns, 64, 96, 3], "overlaps are counted once");
    let frames = Tensor::cat(&[&first, &made], 0).unwrap();
    let begin = seen(&first, 0);
    let (mut drift, mut changes): (f64, f64) = (0.0, 0.0);
    for second in 0..frames.dim(0).unwrap() / 8 {
        let of: Vec<Seen> = (0..8).map(|at| seen(&frames, second * 8 + at)).collect();
        let average = |what: fn(&Seen) -> [f64; 3]| mean(&of.iter().map(what).collect::<Vec<_>>());
        let background = average(|seen| seen.background);
        let subject = average(|seen| seen.subject);
        assert!(of.iter().all(|seen| seen.size > 30), "second {second} has no subject: {of:?}");
        let gap =
            (0..3).map(|at| (background[at] - begin.background[at]).abs()).fold(0.0, f64::max);
        (drift, changes) = (drift.max(gap), changes.max(distance(subject, begin.subject)));
        println!("second {second}: background {background:.2?}, subject {subject:.1?}");
    }
    println!("over {turns} turns the background drifts by {drift:.2}, the subject by {changes:.1}");
    assert!(drift < 2.0, "the background drifts by {drift:.2}");
    assert!(changes < 60.0, "the subject changes by {changes:.1}");
    let seams = (1..turns).map(|turn| 16 * turn);
    seams.for_each(|at| no_seam(&frames, at));
}

/// What the child process runs: the inputs of `long_video`, `name=value`, with blanks between.
const INPUTS: &str = "KINO_TEST_LONG_INPUTS";
/// Where it works.
const FOLDER: &str = "KINO_TEST_LONG_FOLDER";
/// How many steps run at once.
const THREADS: &str = "KINO_TEST_LONG_THREADS";

/// Runs `long_video`, notes in `log` each step that has finished, once it has, and in `peak` the
/// most memory that this process took.
#[test]
#[ignore = "runs in a child process, which is measured or killed"]
fn child() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let threads = std::env::var(THREADS).unwrap().parse().unwrap();
    let engine = kino_tests::engine(&folder).keep_results(false).threads(threads).build().unwrap();
    let graph = engine.open(root().join("graphs/long_video.ron")).unwrap();
    let mut inputs = Inputs::new();
    for input in std::env::var(INPUTS).unwrap().split(' ') {
        let (name, value) = input.split_once('=').unwrap();
        inputs.set(name, value);
    }
    let log = Arc::new(File::options().create(true).append(true).open(folder.join("log")).unwrap());
    let request = graph.run(inputs).out(folder.join("out")).on_event(move |event| {
        if let Event::Finished { name, cached, .. } = &event.event {
            // One call a line: it is in the file once this returns.
            let line = format!("{name} {}\n", *cached == Cached::None);
            (&*log).write_all(line.as_bytes()).unwrap();
        }
    });
    request.start().unwrap().wait().unwrap_or_else(|error| panic!("{error}"));
    let peak = kino_runtime::peak_of_process().unwrap_or_default();
    fs::write(folder.join("peak"), peak.to_string()).unwrap();
}

fn start(folder: &Path, inputs: &str, threads: usize) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--ignored"]).env(FOLDER, folder).env(INPUTS, inputs);
    command.env(THREADS, threads.to_string());
    command.stdout(Stdio::null()).spawn().unwrap()
}

/// The peak of a process that makes a video of so many turns.
fn peak(turns: usize) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let inputs = format!("turns={turns} width=64 frames=5 enlarge=4 steps=1");
    // One step at a time: what is measured does not depend on which ones meet.
    assert!(start(folder.path(), &inputs, 1).wait().unwrap().success());
    fs::read_to_string(folder.path().join("peak")).unwrap().parse().unwrap()
}

#[test]
fn a_long_video_takes_the_memory_of_a_short_one() {
    // The least of three: what the allocator keeps depends on how threads meet.
    let least = |turns| (0..3).map(|_| peak(turns)).min().unwrap();
    // What 48 turns give takes 150 MB.
    let (short, long) = (least(12), least(48));
    println!("peaks: {} MB for 12 turns, {} MB for 48", short >> 20, long >> 20);
    assert!(long as f64 <= 1.1 * short as f64, "{long} bytes, {short} for the fourth part");
}

#[test]
fn the_memory_of_a_long_video_is_foreseen_to_be_that_of_a_short_one() {
    let mut rig = Rig::load("long_video");
    let mut foreseen = |turns: &str| rig.set("turns", turns).plan().unwrap().forecast();
    let (short, long) = (foreseen("10"), foreseen("100"));
    assert!(long.peak as f64 <= 1.1 * short.peak as f64, "{long:?}, {short:?}");
    // 16 frames of 384×256 a turn.
    let turn = 16 * 384 * 256 * 3 * 4;
    assert!(long.spilled >= 100 * turn && long.spilled <= 102 * turn, "{long:?}");
}

/// What finished in a folder; nothing that a turn keeps was computed again after it had.
fn finished(folder: &Path) -> BTreeSet<String> {
    let kept = ["given", "sample", "all"];
    let mut finished = BTreeSet::new();
    for line in fs::read_to_string(folder.join("log")).unwrap_or_default().lines() {
        let (name, computed) = line.split_once(' ').unwrap();
        let of = name.rsplit('/').next().unwrap();
        if name.starts_with("film/") && kept.contains(&of) {
            let is_new = finished.insert(name.to_owned());
            assert!(is_new || computed == "false", "`{name}` was computed twice");
        }
    }
    finished
}

#[test]
fn a_long_video_that_is_killed_goes_on_with_the_first_turn_that_is_missing() {
    let kills = std::env::var("KINO_TEST_LOOP_KILLS").ok().and_then(|text| text.parse().ok());
    let kills: usize = kills.unwrap_or(5);
    let inputs = "turns=8 enlarge=2 steps=2";
    let file = |folder: &Path| fs::read(folder.join("out/long_video-7-001.mp4"));
    let whole = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    assert!(start(whole.path(), inputs, 2).wait().unwrap().success());
    let (took, expected) = (begun.elapsed(), file(whole.path()).unwrap());
    assert!(finished(whole.path()).len() >= 3 * 8, "{:?}", finished(whole.path()));
    let seed = RandomState::new().build_hasher().finish();
    println!("seed {seed}");
    let mut random = seed | 1;
    let (mut killed, mut rounds, mut again) = (0, 0, 0);
    while killed < kills {
        let folder = tempfile::tempdir().unwrap();
        rounds += 1;
        loop {
            let before = finished(folder.path()).len();
            // Xorshift (Marsaglia 2003).
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let moment = took.mul_f64((random % 1000) as f64 / 1500.0);
            let is_over = ends_before(&mut start(folder.path(), inputs, 2), moment);
            let after = finished(folder.path());
            again += if before > 0 { before } else { 0 };
            assert!(after.len() >= before);
            if is_over {
                break;
            }
            killed += 1;
            if let Ok(found) = file(folder.path()) {
                assert!(found == expected, "a file that has its name is whole");
            }
        }
        assert!(file(folder.path()).unwrap() == expected, "byte for byte");
    }
    println!(
        "{killed} kills in {rounds} rounds of {took:?} each; {again} finished steps were found again"
    );
}

#[test]
fn a_longer_film_takes_the_turns_of_a_shorter_one() {
    let mut rig = Rig::load("long_video");
    rig.set("enlarge", "1").set("steps", "2").set("turns", "2").run();
    let again = rig.set("turns", "3").run();
    let computed: Vec<&str> = again.evaluated.iter().map(|name| &**name).collect();
    assert!(computed.contains(&"film/2/sample") && computed.contains(&"file"), "{computed:?}");
    let before = ["film/0/sample", "film/1/sample", "film/0/given", "film/1/all"];
    assert!(!computed.iter().any(|name| before.contains(name)), "{computed:?}");
    let record = read_metadata(&rig.out("long_video-7-002.mp4")).unwrap().unwrap();
    assert!(record.contains("parts/extend.ron") && record.contains("default: 3"), "{record}");
    // What is in the file makes it again, and nothing has to be computed for that.
    assert!(Rig::of("again", &record, &root().join("graphs")).plan().is_ok());
}
