//! A watch whose runs do not end and whose listener does not listen: neither is piled up.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use kino_session::node::{NodeTraits, PortType, Signature, Value, edge, int, ports};
use kino_session::{Engine, WatchEvent, WatchStop};

/// Nothing that is waited for takes so long, however busy the machine is.
const FOR_EVER: Duration = Duration::from_secs(60);
/// Edits in each test.
const EDITS: i64 = 12;

/// Numbers that a node has begun with, and a gate that it waits at, whoever cancels it.
#[derive(Default)]
struct Gate {
    state: Mutex<(Vec<i64>, bool)>,
    opened: Condvar,
}

impl Gate {
    fn pass(&self, number: i64) {
        let mut state = self.state.lock().unwrap();
        state.0.push(number);
        while !state.1 {
            state = self.opened.wait(state).unwrap();
        }
    }

    fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.opened.notify_all();
    }

    fn begun(&self) -> BTreeSet<i64> {
        self.state.lock().unwrap().0.iter().copied().collect()
    }
}

/// An engine whose `test.gate` gives its number once it has passed the gate.
fn engine(folder: &Path, gate: &Arc<Gate>) -> Engine {
    let signature = Signature {
        name: "test.gate".into(),
        version: "1".into(),
        about: "".into(),
        inputs: ports![int("a", 0)],
        outputs: ports![edge("value", PortType::Int)],
        traits: NodeTraits::LIGHT,
    };
    let gate = Arc::clone(gate);
    let engine = kino_tests::engine(folder).no_cache().node_fn(signature, move |_, inputs| {
        let number: i64 = inputs.int("a")?;
        gate.pass(number);
        Ok(vec![Some(Value::Int(number.into()))])
    });
    engine.build().unwrap()
}

/// Saves a graph whose gate has this number, beside many other nodes.
fn save(path: &Path, number: i64, others: usize) {
    let others: String =
        (0..others).map(|at| format!(r#""n{at}": (op: "math", with: {{"a": {at}}}),"#)).collect();
    let outputs = others.matches("(op").count();
    let outputs: String = (0..outputs).map(|at| format!(r#""n{at}": "n{at}","#)).collect();
    let text = format!(
        r#"Graph(version: 1, nodes: {{"a": (op: "test.gate", with: {{"a": {number}}}), {others}}},
            outputs: {{"a": "a", {outputs}}})"#
    );
    fs::write(path.with_extension("tmp"), text).unwrap();
    fs::rename(path.with_extension("tmp"), path).unwrap();
}

/// A watch on a thread of its own, and the end of which number it has told.
struct Watching {
    stop: WatchStop,
    told: Receiver<Told>,
    thread: std::thread::JoinHandle<()>,
}

#[derive(Debug, PartialEq)]
enum Told {
    /// A revision other than the first.
    Revision,
    /// The end of a run.
    Number(i64),
}

impl Watching {
    fn start(engine: &Engine, path: PathBuf, listen: impl Fn() + Send + 'static) -> Self {
        let request = engine.watch(&path).out(path.with_extension("out"));
        let (stop, (tell, told)) = (request.stopper(), mpsc::channel());
        let thread = std::thread::spawn(move || {
            let heard = request.run(move |event| {
                listen();
                let _ = match event {
                    WatchEvent::Diff { .. } => tell.send(Told::Revision),
                    WatchEvent::RunResult { done, .. } => {
                        let number: i128 = done.output("a").unwrap();
                        tell.send(Told::Number(number as i64))
                    }
                    _ => Ok(()),
                };
            });
            heard.unwrap();
        });
        Watching { stop, told, thread }
    }

    #[track_caller]
    fn until(&self, what: &Told) {
        let until = Instant::now() + FOR_EVER;
        while self.told.recv_timeout(until - Instant::now()).expect("it is told") != *what {}
    }

    fn end(self) {
        self.stop.stop();
        self.thread.join().unwrap();
    }
}

/// A node that does not hear that it is cancelled keeps its run alive: four of them at most, and of
/// all newer ones the newest.
#[test]
fn runs_that_do_not_make_way_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let (gate, path) = (Arc::new(Gate::default()), folder.path().join("g.ron"));
    save(&path, 0, 0);
    let watching = Watching::start(&engine(folder.path(), &gate), path.clone(), || {});
    for number in 0..=EDITS {
        if number > 0 {
            save(&path, number, 0);
            watching.until(&Told::Revision);
        }
        // The first ones begin; of the later ones none does.
        let until = Instant::now() + FOR_EVER;
        while number < 4 && !gate.begun().contains(&number) {
            assert!(Instant::now() < until, "{number} begins");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    assert_eq!(gate.begun(), (0..4).collect());
    gate.open();
    watching.until(&Told::Number(EDITS));
    assert_eq!(gate.begun(), (0..4).chain([EDITS]).collect(), "only the newest followed");
    watching.end();
}

/// A listener that stalls is told at last what stands there, and what it missed was not run.
#[test]
fn revisions_that_nobody_hears_of_are_not_piled_up() {
    let folder = tempfile::tempdir().unwrap();
    let (gate, path) = (Arc::new(Gate::default()), folder.path().join("g.ron"));
    gate.open();
    save(&path, 0, 600);
    let (go, goes) = mpsc::channel::<()>();
    let goes = Mutex::new(goes);
    // It stalls at its first event.
    let listen = move || {
        let _ = goes.lock().unwrap().recv();
    };
    let watching = Watching::start(&engine(folder.path(), &gate), path.clone(), listen);
    for number in 1..=EDITS {
        std::thread::sleep(Duration::from_millis(200));
        save(&path, number, 600);
    }
    std::thread::sleep(Duration::from_millis(500));
    let begun = gate.begun();
    assert!(begun.len() <= 5 && !begun.contains(&EDITS), "{begun:?}");
    drop(go);
    watching.until(&Told::Number(EDITS));
    watching.end();
}
