//! One engine runs fifty jobs of ten graphs in five folders from eight threads: each gives what it
//! gives alone, with an engine and a cache of its own, and hears of nothing but itself.

#![cfg(unix)]

mod jobs;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use jobs::{FAILS, Job, Random, WAITS};
use kino_session::{Cached, Cancel, Engine, Error, Event, RunEvent, RunId};

const FOLDERS: usize = 5;
const THREADS: usize = 8;

/// What became of a job.
#[derive(Debug, PartialEq)]
struct Outcome {
    files: BTreeMap<PathBuf, Vec<u8>>,
    outputs: Vec<(String, String)>,
    error: Option<String>,
}

/// What one job gives with an engine of its own.
fn alone(job: Job, root: &Path) -> Outcome {
    let own = tempfile::tempdir().unwrap();
    let data = root.join("data");
    let engine = jobs::engine(own.path()).data(data).build().unwrap();
    let request = job.request(&engine, root, &own.path().join("out"));
    // Nobody cancels it here: only what it writes before it waits.
    let request = if job.graph == WAITS { request.until(Some("file")) } else { request };
    let run = request.start().unwrap();
    let (done, error) = (run.finish().unwrap(), run.wait().err());
    let outputs = if job.graph == WAITS { Vec::new() } else { jobs::outputs(&done) };
    let files = jobs::files(&own.path().join("out").join(job.name()));
    Outcome { files, outputs, error: error.map(|error| error.to_string()) }
}

/// What one job gives among others, and what was heard of it.
fn among_others(job: Job, engine: &Engine, root: &Path, out: &Path) -> (Outcome, Heard) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let cancel = Cancel::default();
    let request = job.request(engine, root, out).cancelled_by(&cancel);
    let run = request.on_event({
        let heard = Arc::clone(&heard);
        move |event: RunEvent| {
            if job.graph == WAITS
                && matches!(&event.event, Event::Progress { name, .. } if &**name == "sample")
            {
                cancel.cancel();
            }
            heard.lock().unwrap().push(event);
        }
    });
    let run = run.start().unwrap();
    let (done, error) = (run.finish().unwrap(), run.wait().err());
    assert_eq!(matches!(&error, Some(Error::Cancelled)), job.graph == WAITS, "{job:?}: {error:?}");
    assert_eq!(matches!(&error, Some(Error::Nodes(_))), job.graph == FAILS, "{job:?}: {error:?}");
    let outputs = if job.graph == WAITS { Vec::new() } else { jobs::outputs(&done) };
    let files = jobs::files(&out.join(job.name()));
    let events = std::mem::take(&mut *heard.lock().unwrap());
    let error = error.map(|error| error.to_string());
    (Outcome { files, outputs, error }, Heard { run: run.id(), events })
}

/// The events of one run.
struct Heard {
    run: RunId,
    events: Vec<RunEvent>,
}

impl Heard {
    /// They are all of this run, begin with its plan, end with its end, and name its steps alone.
    fn check(&self, job: Job) {
        let strangers = self.events.iter().filter(|event| event.run != self.run).count();
        assert_eq!(strangers, 0, "{job:?} heard of other runs");
        let Some(Event::Planned { steps }) = self.events.first().map(|one| &one.event) else {
            panic!("{job:?} begins with {:?}", self.events.first())
        };
        let last = self.events.last().map(|one| &one.event);
        assert!(matches!(last, Some(Event::Done { .. })), "{job:?} ends with {last:?}");
        let steps: HashSet<&str> = steps.iter().map(|step| &*step.name).collect();
        for event in &self.events {
            match &event.event {
                Event::Started { name, .. }
                | Event::Progress { name, .. }
                | Event::Finished { name, .. }
                | Event::Failed { name, .. }
                | Event::Skipped { name, .. } => {
                    assert!(steps.contains(&**name), "{job:?}: {name}")
                }
                _ => {}
            }
        }
        let ends = |event: &&RunEvent| matches!(event.event, Event::Done { .. });
        assert_eq!(self.events.iter().filter(ends).count(), 1, "{job:?}");
    }

    /// How often a step of this op was computed.
    fn computed(&self, wanted: &str) -> usize {
        let here = |event: &&RunEvent| matches!(&event.event, Event::Finished { op, cached: Cached::None, .. } if **op == *wanted);
        self.events.iter().filter(here).count()
    }
}

/// Runs all jobs with one engine.
fn together(jobs: &[Job], root: &Path, own: &Path) -> BTreeMap<Job, (Outcome, Heard)> {
    let engine = jobs::engine(own).data(root.join("data")).build().unwrap();
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let engine = engine.clone();
            scope.spawn(|| {
                let engine = engine;
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = among_others(*job, &engine, root, &own.join("out"));
                    outcomes.lock().unwrap().insert(*job, outcome);
                }
            });
        }
    });
    // What was cancelled left nothing that a later run could take for its own.
    for folder in 0..FOLDERS {
        let job = Job { graph: WAITS, folder };
        let request = job.request(&engine, root, &own.join("out")).until(Some("file"));
        request.start().unwrap().wait().unwrap_or_else(|error| panic!("{job:?}: {error}"));
    }
    outcomes.into_inner().unwrap()
}

#[test]
fn fifty_jobs_at_once_give_what_each_gives_alone() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    jobs::lay_out(root, FOLDERS);
    jobs::add_plugin(root, &root.join("data"), FOLDERS);
    let mut order = Job::all(FOLDERS);
    assert_eq!(order.len(), 50);
    let expected: BTreeMap<Job, Outcome> =
        order.iter().map(|job| (*job, alone(*job, root))).collect();
    let mut random = Random::seeded();
    let rounds = std::env::var("KINO_TEST_ROUNDS").ok().and_then(|text| text.parse().ok());
    for round in 0..rounds.unwrap_or(1) {
        random.shuffle(&mut order);
        let own = root.join(format!("round{round}"));
        let found = together(&order, root, &own);
        let text: usize = found.values().map(|(_, heard)| heard.computed("text.encode")).sum();
        assert_eq!(text, 1, "all jobs share one encoding, which is computed once");
        for (job, (outcome, heard)) in &found {
            heard.check(*job);
            let alone = &expected[job];
            if job.graph == WAITS {
                // Whatever was there when it was cancelled is whole.
                for (path, bytes) in &outcome.files {
                    assert!(alone.files.get(path) == Some(bytes), "{job:?}: {path:?}");
                }
                let now = jobs::files(&own.join("out").join(job.name()));
                assert!(now == alone.files, "{job:?}: run again it writes the same");
                continue;
            }
            let names = |outcome: &Outcome| outcome.files.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(outcome), names(alone), "{job:?}");
            assert!(outcome.files == alone.files, "{job:?}: other bytes than alone");
            assert_eq!(outcome.outputs, alone.outputs, "{job:?}");
            assert_eq!(outcome.error, alone.error, "{job:?}");
            assert!(!outcome.files.is_empty(), "{job:?} writes something");
        }
    }
}
