//! Several graphs at once in a process that is killed at random moments: nothing that had finished
//! is lost, nothing stands half-written, and the next run removes what was in the making.
//!
//! Twenty kills unless `KINO_TEST_KILLS` says otherwise.

#![cfg(unix)]

mod jobs;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jobs::{FAILS, Job, PLUGIN, Random, WAITS};
use kino_session::{CacheStatus, Cached, Event};
use kino_tests::ends_before;

/// Where the child process works.
const FOLDER: &str = "KINO_TEST_KILLED";
const FOLDERS: usize = 3;
const THREADS: usize = 4;
const KILLS: usize = 20;
/// Of so many kills some catch a file in the making.
const MANY: usize = 100;

/// What ends by itself in every folder.
fn all() -> Vec<Job> {
    let ends = |job: &Job| ![FAILS, WAITS, PLUGIN].contains(&job.graph);
    Job::all(FOLDERS).into_iter().filter(ends).collect()
}

/// A step of a job.
type Step = (String, String);

/// Runs all jobs, several at once, and notes in `log` each step that has finished, once it has: its
/// job, its name, whether it was computed.
fn run_all(root: &Path) {
    let engine = jobs::engine(root).keep_results(false).build().unwrap();
    let log = File::options().create(true).append(true).open(root.join("log")).unwrap();
    let (log, jobs, next) = (Arc::new(log), all(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (log, of) = (Arc::clone(&log), job.name());
                    let request = job.request(&engine, root, &root.join("out"));
                    let request = request.on_event(move |event| {
                        if let Event::Finished { name, cached, .. } = &event.event {
                            let computed = *cached == Cached::None;
                            // One call a line: it is in the file once this returns.
                            (&*log)
                                .write_all(format!("{of} {name} {computed}\n").as_bytes())
                                .unwrap();
                        }
                    });
                    let run = request.start().unwrap();
                    run.wait().unwrap_or_else(|error| panic!("{job:?}: {error}"));
                }
            });
        }
    });
}

/// What the child process does.
#[test]
#[ignore = "runs in a child process, which is then killed"]
fn child() {
    run_all(&PathBuf::from(std::env::var_os(FOLDER).unwrap()));
}

fn start(root: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored"])
        .env(FOLDER, root)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// One folder whose runs are killed again and again until all has been done.
struct Round {
    folder: tempfile::TempDir,
    /// The steps of each job whose results are kept: on disk, or as files.
    kept: BTreeMap<String, BTreeSet<String>>,
}

impl Round {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        jobs::lay_out(folder.path(), FOLDERS);
        let mut round = Round { folder, kept: BTreeMap::new() };
        for job in all() {
            let steps = round.plan(job).into_iter().map(|(step, _)| step);
            round.kept.insert(job.name(), steps.collect());
        }
        round
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    /// The steps of a job whose results are kept, and what would become of them now.
    fn plan(&self, job: Job) -> Vec<(String, CacheStatus)> {
        let engine = jobs::engine(self.root()).keep_results(false).build().unwrap();
        let plan = job.request(&engine, self.root(), &self.root().join("out")).plan().unwrap();
        let steps = plan.steps().iter().zip(plan.status());
        let kept = steps.filter(|(step, _)| step.traits.sink || step.traits.expensive);
        kept.map(|(step, status)| (step.name.to_string(), status)).collect()
    }

    /// What has finished so far. No step whose result is kept has been computed again after it had.
    fn finished(&self) -> BTreeSet<Step> {
        let log = fs::read_to_string(self.root().join("log")).unwrap_or_default();
        let mut finished = BTreeSet::new();
        for line in log.lines() {
            let [job, name, computed] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            if self.kept[job].contains(name) {
                let is_new = finished.insert((job.to_owned(), name.to_owned()));
                assert!(is_new || computed == "false", "{job}: `{name}` was computed twice");
            }
        }
        finished
    }

    /// Files that have their names are whole, and what has finished is found again.
    fn check(&self, expected: &BTreeMap<PathBuf, Vec<u8>>) {
        for (path, bytes) in jobs::files(&self.root().join("out")) {
            if !jobs::is_partial(&path) {
                assert!(expected.get(&path) == Some(&bytes), "{path:?} is not whole");
            }
        }
        let finished = self.finished();
        for job in all() {
            for (step, status) in self.plan(job) {
                let is_there = matches!(status, CacheStatus::Disk | CacheStatus::Pruned);
                let was = finished.contains(&(job.name(), step.clone()));
                assert!(!was || is_there, "{job:?}: `{step}` had finished and is {status:?}");
            }
        }
    }

    /// What killed processes left in the making.
    fn leftovers(&self) -> Vec<PathBuf> {
        let of = |folder: &str| jobs::files(&self.root().join(folder));
        let all = of("out").into_keys().chain(of("cache").into_keys());
        all.filter(|path| jobs::is_partial(path)).collect()
    }

    /// All has been done: the files are there, and a further run leaves nothing else.
    fn end(&self, expected: &BTreeMap<PathBuf, Vec<u8>>) {
        let out = jobs::files(&self.root().join("out"));
        let whole: BTreeMap<_, _> =
            out.into_iter().filter(|(path, _)| !jobs::is_partial(path)).collect();
        assert!(whole == *expected, "{:?}", whole.keys());
        let engine = jobs::engine(self.root()).keep_results(false).build().unwrap();
        let graph = self.root().join("0/clip.ron");
        let graph = engine.open(&graph).unwrap();
        let run = graph.run(kino_session::inputs! { "seed" => 1000 });
        run.out(self.root().join("out/0-clip")).start().unwrap().wait().unwrap();
        let left = self.leftovers();
        assert!(left.is_empty(), "the next run removes what was left: {left:?}");
    }
}

/// The files of all jobs when nobody kills them, and how long that takes.
fn undisturbed() -> (BTreeMap<PathBuf, Vec<u8>>, Duration) {
    let round = Round::new();
    let begun = Instant::now();
    assert!(ends_before(&mut start(round.root()), Duration::from_secs(600)), "it ends");
    let took = begun.elapsed();
    (jobs::files(&round.root().join("out")), took)
}

#[test]
fn a_kill_at_any_moment_loses_nothing_finished_and_leaves_nothing_half_written() {
    let kills = std::env::var("KINO_TEST_KILLS").ok().and_then(|text| text.parse().ok());
    let kills: usize = kills.unwrap_or(KILLS);
    let (expected, took) = undisturbed();
    assert!(expected.len() > FOLDERS * 5, "{:?}", expected.keys());
    let mut random = Random::seeded();
    let (mut killed, mut rounds, mut left, mut finished) = (0, 0, 0, 0);
    while killed < kills {
        let round = Round::new();
        rounds += 1;
        loop {
            // Moments of a part of the whole: the next run goes on where this one was killed.
            let time = took.mul_f64(random.below(1000) as f64 / 2000.0);
            let is_over = ends_before(&mut start(round.root()), time);
            left += round.leftovers().len();
            round.check(&expected);
            if is_over {
                break;
            }
            killed += 1;
        }
        finished += round.finished().len();
        round.end(&expected);
    }
    println!(
        "{killed} kills in {rounds} rounds of {took:?} each: {left} files in the making were left, \
         {finished} finished steps were found again"
    );
    assert!(left > 0 || kills < MANY, "no kill caught a file in the making: nothing was tried");
}
