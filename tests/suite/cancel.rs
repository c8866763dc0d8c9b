//! What takes long can be cancelled before anything runs: reading a large file, loading a plugin,
//! planning many steps.

#![cfg(unix)]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kino_session::node::{
    Cx, Facts, Inputs, Node, NodeTraits, Outputs, PlanError, PortType, Result, Services, Signature,
    StepInfo, edge, int, ports,
};
use kino_session::{Cancel, Error, inputs};

/// Far less than what is cancelled here would take, and far more than cancelling takes.
const SOON: Duration = Duration::from_secs(10);

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.to_string_lossy().into_owned()
}

#[test]
fn a_run_is_cancelled_while_a_large_file_is_hashed_for_its_plan() {
    let folder = tempfile::tempdir().unwrap();
    // Minutes to read, and no room on the disk.
    let header = format!(
        r#"{{"x": {{"dtype": "U8", "shape": [{0}], "data_offsets": [0, {0}]}}}}"#,
        1_u64 << 38
    );
    let head = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    let path = folder.path().join("large.safetensors");
    fs::write(&path, &head).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(head.len() as u64 + (1 << 38)).unwrap();
    let engine = kino_tests::engine(folder.path()).build().unwrap();
    let text = r#"Graph(version: 1, nodes: {"a": (op: "tensor.read", with: {"path": "large.safetensors"})},
        outputs: {"a": "a"})"#;
    let graph = engine.open_text("g.ron", text, folder.path()).unwrap();
    let begun = Instant::now();
    let run = graph.run(inputs! {}).start().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(!run.is_done(), "it is being planned");
    run.cancel();
    assert!(matches!(run.wait(), Err(Error::Cancelled)));
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

/// A node that counts how often it is inferred, and raises a flag at the third time.
struct Counted {
    signature: Signature,
    inferred: Arc<AtomicUsize>,
    cancel: Cancel,
}

impl Node for Counted {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn infer(&self, _: &Services, _: &Facts) -> Result<StepInfo, Vec<PlanError>> {
        if self.inferred.fetch_add(1, Ordering::Relaxed) == 2 {
            self.cancel.cancel();
        }
        Ok(StepInfo::default())
    }

    fn run(&self, _: &mut Cx<'_>, _: &Inputs<'_>) -> Result<Outputs> {
        panic!("nothing runs of what was cancelled")
    }
}

#[test]
fn planning_asks_no_further_node_once_it_is_cancelled() {
    let (inferred, cancel) = (Arc::new(AtomicUsize::new(0)), Cancel::default());
    let signature = Signature {
        name: "test.counted".into(),
        version: "1".into(),
        about: "".into(),
        inputs: ports![int("a", 0)],
        outputs: ports![edge("value", PortType::Int)],
        traits: NodeTraits::LIGHT,
    };
    let node = Counted { signature, inferred: Arc::clone(&inferred), cancel: cancel.clone() };
    let engine = kino_session::Engine::builder().device("cpu").no_cache().node(Arc::new(node));
    let nodes: String = (1..100)
        .map(|at| format!(r#""n{at}": (op: "test.counted", in: {{"a": "n{}"}}),"#, at - 1))
        .collect();
    let text = format!(
        r#"Graph(version: 1, nodes: {{"n0": (op: "test.counted"), {nodes}}}, outputs: {{"n": "n99"}})"#
    );
    let graph = engine.build().unwrap().open_text("g.ron", text, ".".as_ref()).unwrap();
    let request = graph.run(inputs! {}).cancelled_by(&cancel);
    assert!(matches!(request.plan(), Err(Error::Cancelled)));
    assert_eq!(inferred.load(Ordering::Relaxed), 3, "of a hundred");
}

#[test]
fn opening_is_cancelled_while_a_plugin_loads_and_other_graphs_do_not_wait() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let data = root.join("data");
    let place = |name: &str, loads_for: &str| {
        let folder = root.join(name);
        let library = kino_tests::trust_native(&folder, &data, "torture", "torture.step");
        let ends = format!("ENDS=\"{}\"", root.join("ends").display());
        let defines = ["GENERATION=1".to_owned(), ends, format!("LOADS_FOR={loads_for}")];
        kino_tests::compile_c("torture/generation.c", &library, &defines);
        let graph = r#"Graph(version: 1, nodes: {"t": (op: "torture.step", in: {"tensor": "x"}, with: {"wait": 0}),
            "x": (op: "tensor.read", with: {"path": "x.safetensors"})}, outputs: {"n": "t.runs"})"#;
        (write(&folder, "g.ron", graph), library.parent().unwrap().canonicalize().unwrap())
    };
    let ((slow, one), (quick, two)) = (place("slow", "2000"), place("quick", "0"));
    let consent = format!("(folders: [{one:?}, {two:?}])");
    fs::write(data.join("native.ron"), consent).unwrap();
    let engine = kino_tests::engine(root).build().unwrap();
    let cancel = Cancel::default();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| engine.open_with(&slow, &cancel).map(drop));
        std::thread::sleep(Duration::from_millis(300));
        engine.open(&quick).expect("its plugin is another one");
        assert!(begun.elapsed() < Duration::from_millis(1500), "it waited for another's plugin");
        assert!(!opening.is_finished(), "the plugin is being loaded");
        cancel.cancel();
        assert!(matches!(opening.join().unwrap(), Err(Error::Cancelled)));
        assert!(begun.elapsed() < Duration::from_millis(1500), "it waited for the plugin");
    });
    // What was loaded meanwhile is there for whoever comes next.
    engine.open(&slow).unwrap();
}
