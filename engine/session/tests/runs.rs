//! Runs of one engine, those of watches among them: their identities, their order, what becomes of
//! a panic, and listeners that ask for the end of what they listen to.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kino_session::node::{
    Cx, Inputs, Node, NodeTraits, Outputs, PortType, Services, Signature, StepInfo, Value, edge,
    int, no_infer, ports,
};
use kino_session::{Engine, RunId, WatchEvent, inputs};

/// Nothing that is waited for takes so long, however busy the machine is.
const FOR_EVER: Duration = Duration::from_secs(60);

fn signature(traits: NodeTraits) -> Signature {
    Signature {
        name: "test.node".into(),
        version: "1".into(),
        about: "".into(),
        inputs: ports![int("a", 0)],
        outputs: ports![edge("value", PortType::Int)],
        traits,
    }
}

/// Saves a graph of one node.
fn save(folder: &Path, number: i64) -> String {
    let path = folder.join("g.ron");
    let text = format!(
        r#"Graph(version: 1, inputs: {{"a": (type: "Int", default: {number})}},
            nodes: {{"n": (op: "test.node", in: {{"a": "inputs.a"}})}}, outputs: {{"n": "n"}})"#
    );
    fs::write(path.with_extension("tmp"), text).unwrap();
    fs::rename(path.with_extension("tmp"), &path).unwrap();
    path.to_string_lossy().into_owned()
}

/// An engine with one node, which does `run` with its number.
fn engine(traits: NodeTraits, run: impl Fn(i64) + Send + Sync + 'static) -> Engine {
    let engine = Engine::builder().device("cpu").memory("1GB").no_cache();
    let engine = engine.node_fn(signature(traits), move |_, inputs| {
        let number: i64 = inputs.int("a")?;
        run(number);
        Ok(vec![Some(Value::Int(number.into()))])
    });
    engine.build().unwrap()
}

/// Watches until the listener says that it has heard enough.
fn watch(
    engine: &Engine,
    graph: &str,
    set: kino_session::Inputs,
    mut enough: impl FnMut(&WatchEvent) -> bool + Send + 'static,
) -> std::thread::JoinHandle<()> {
    let request = engine.watch(graph).inputs(set).out(Path::new(graph).with_extension("out"));
    let stop = request.stopper();
    std::thread::spawn(move || {
        let heard = request.run(move |event| {
            if enough(&event) {
                stop.stop();
            }
        });
        heard.unwrap();
    })
}

/// What an older run writes does not come to stand over what a newer one wrote, whichever of the
/// two belongs to a watch.
#[test]
fn the_run_of_a_watch_waits_for_an_older_run_that_writes() {
    let folder = tempfile::tempdir().unwrap();
    let (wrote, writes) = mpsc::channel();
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let engine = engine(NodeTraits::SINK, move |number| {
        wrote.send(format!("{number} begins")).unwrap();
        if number == 1 {
            let _ = gate.lock().unwrap().recv();
        }
        wrote.send(format!("{number} ends")).unwrap();
    });
    let path = save(folder.path(), 0);
    let older = engine.open(&path).unwrap().run(inputs! { "a" => 1 }).out(folder.path());
    let older = older.start().unwrap();
    assert_eq!(writes.recv_timeout(FOR_EVER).unwrap(), "1 begins");
    let ends = |event: &WatchEvent| matches!(event, WatchEvent::RunResult { .. });
    let watching = watch(&engine, &path, inputs! { "a" => 2 }, ends);
    let early = writes.recv_timeout(Duration::from_millis(500));
    assert!(early.is_err(), "{early:?} while the older run writes");
    drop(go);
    older.wait().unwrap();
    watching.join().unwrap();
    assert_eq!(writes.iter().take(3).collect::<Vec<_>>(), ["1 ends", "2 begins", "2 ends"]);
}

#[test]
fn runs_of_watches_have_identities_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(NodeTraits::LIGHT, |_| {});
    let path = save(folder.path(), 0);
    let run = engine.open(&path).unwrap().run(inputs! {}).start().unwrap();
    run.wait().unwrap();
    let (told, tells): (Sender<RunId>, Receiver<RunId>) = mpsc::channel();
    for number in [1, 2] {
        let told = told.clone();
        let watching = watch(&engine, &path, inputs! { "a" => number }, move |event| {
            if let WatchEvent::Run(event) = event {
                told.send(event.run).unwrap();
            }
            matches!(event, WatchEvent::RunResult { .. })
        });
        watching.join().unwrap();
    }
    drop(told);
    let ids: BTreeSet<RunId> = tells.iter().chain([run.id()]).collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert_eq!(ids.first(), Some(&run.id()), "what began later has a greater number");
}

/// A node that breaks the engine itself: it panics where nothing that a node does is expected.
struct Breaks(Signature, Arc<AtomicBool>);

impl Node for Breaks {
    fn signature(&self) -> &Signature {
        let runs = std::thread::current().name() == Some("run");
        assert!(!(runs && self.1.load(Ordering::SeqCst)), "the test asks for it");
        &self.0
    }

    fn infer(
        &self,
        services: &Services,
        facts: &kino_session::node::Facts,
    ) -> Result<StepInfo, Vec<kino_session::node::PlanError>> {
        no_infer(services, facts)
    }

    fn run(&self, _: &mut Cx<'_>, inputs: &Inputs<'_>) -> kino_session::node::Result<Outputs> {
        Ok(vec![Some(Value::Int(inputs.int("a")?))])
    }
}

/// A panic of the engine is told, and the watch goes on: however often it happens.
#[test]
fn a_watch_outlives_panics_of_the_engine() {
    let folder = tempfile::tempdir().unwrap();
    let breaks = Arc::new(AtomicBool::new(true));
    let node = Breaks(signature(NodeTraits::LIGHT), Arc::clone(&breaks));
    let engine = Engine::builder().device("cpu").memory("1GB").no_cache().node(Arc::new(node));
    let engine = engine.build().unwrap();
    let path = save(folder.path(), 0);
    let (tell, told) = mpsc::channel();
    let watching = watch(&engine, &path, inputs! {}, move |event| {
        let _ = match event {
            WatchEvent::Failed { error, has_last } => {
                tell.send(Err((error.to_string(), *has_last)))
            }
            WatchEvent::RunResult { done, .. } => tell.send(Ok(done.output::<i128>("n").unwrap())),
            _ => Ok(()),
        };
        matches!(event, WatchEvent::RunResult { .. })
    });
    for number in 1..=6 {
        let said = told.recv_timeout(FOR_EVER).expect("the panic is told");
        assert_eq!(said, Err(("the engine panicked in this run".to_owned(), true)));
        breaks.store(number < 6, Ordering::SeqCst);
        save(folder.path(), number);
    }
    assert_eq!(told.recv_timeout(FOR_EVER).expect("it runs"), Ok(6));
    watching.join().unwrap();
}

/// A listener that waits for the end of its run gets it, and hears the rest afterwards.
#[test]
fn a_listener_may_wait_for_its_own_run() {
    let engine = engine(NodeTraits::LIGHT, |_| {});
    let folder = tempfile::tempdir().unwrap();
    let graph = engine.open(save(folder.path(), 5)).unwrap();
    let (give, given) = mpsc::channel::<kino_session::Run>();
    let (tell, told) = mpsc::channel();
    let mut heard = 0;
    let run = graph.run(inputs! {}).on_event(move |_| {
        if heard == 0 {
            let run = given.recv().unwrap();
            tell.send(run.wait().unwrap().output::<i128>("n").unwrap()).unwrap();
        }
        heard += 1;
        tell.send(-heard).unwrap();
    });
    let run = run.start().unwrap();
    give.send(run.clone()).unwrap();
    assert_eq!(told.recv_timeout(FOR_EVER).expect("it is no deadlock"), 5);
    run.wait().unwrap();
    let heard: Vec<i128> = told.try_iter().collect();
    assert!(heard.len() > 2, "all is heard before anybody else sees the end: {heard:?}");
}

/// What a run left can be had although its listener never returns.
#[test]
fn the_result_does_not_wait_for_the_listener() {
    let engine = engine(NodeTraits::LIGHT, |_| {});
    let folder = tempfile::tempdir().unwrap();
    let graph = engine.open(save(folder.path(), 5)).unwrap();
    let (go, gate) = mpsc::channel::<()>();
    let run =
        graph.run(inputs! {}).on_event(move |_| gate.recv().unwrap_or_default()).start().unwrap();
    let until = std::time::Instant::now() + FOR_EVER;
    let done = loop {
        match run.result() {
            Some(done) => break done.unwrap(),
            None => assert!(std::time::Instant::now() < until, "it is over"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(run.is_done() && done.output::<i128>("n").unwrap() == 5);
    drop(go);
    run.wait().unwrap();
}

/// Somebody puts a file where a run is about to write: what the run computes does not replace it.
#[test]
fn a_file_that_appears_during_a_run_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (_, picture) =
        kino_session::GRAPH_FILES.iter().find(|(path, _)| path.ends_with("first.png")).unwrap();
    fs::write(folder.path().join("in.png"), picture).unwrap();
    let graph = folder.path().join("g.ron");
    let text = r#"Graph(version: 1, inputs: {"a": (type: "Int", default: 2)}, nodes: {
        "n": (op: "test.node", in: {"a": "inputs.a"}),
        "image": (op: "image.read", with: {"path": "in.png"}),
        "large": (op: "upscale", in: {"frames": "image", "factor": "n"}, with: {"model": "lanczos"}),
        "file": (op: "image.write", in: {"frames": "large"}, with: {"path": "x.png"}),
    })"#;
    fs::write(&graph, text).unwrap();
    let out = folder.path().join("out");
    let place = out.join("x.png");
    let appears = place.clone();
    let engine = engine(NodeTraits::LIGHT, move |number| {
        if number == 2 {
            fs::create_dir_all(appears.parent().unwrap()).unwrap();
            fs::write(&appears, "mine").unwrap();
        }
    });
    let open = engine.open(&graph).unwrap();
    let run = |number: i64, overwrite: bool| {
        let request = open.run(inputs! { "a" => number }).out(&out).overwrite(overwrite);
        request.start().unwrap().wait().map(drop).map_err(|error| error.to_string())
    };
    let refused = run(2, false).unwrap_err();
    assert!(refused.contains("`x.png` came to stand there while this ran"), "{refused}");
    assert_eq!(fs::read(&place).unwrap(), b"mine");
    run(2, true).unwrap();
    assert_ne!(fs::read(&place).unwrap(), b"mine");
    // What stood there before, and was this graph's own, is replaced as ever.
    run(3, false).unwrap();
}
