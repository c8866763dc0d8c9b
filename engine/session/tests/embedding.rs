//! What a program brings along that embeds the engine: a family of models, a type of values, a
//! service.

#[path = "../../../nodes/builtin/tests/common/toy.rs"]
mod toy;

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use kino_session::node::{
    NodeTraits, PortType, Result, Signature, TensorReader, Tensors, Value, ValueType, edge, ports,
};
use kino_session::{Engine, Frames, RunResult, inputs};

/// A graph of built-in nodes runs a model that no crate of the engine knows.
#[test]
fn a_family_of_the_program_runs() {
    let folder = tempfile::tempdir().unwrap();
    toy::checkpoint(&folder.path().join("model"));
    let text = r#"Graph(version: 1, nodes: {
        "model": (op: "model.load", with: {"source": "model"}),
        "text": (op: "text.encode", in: {"encoder": "model.text_encoder"}, with: {"prompt": "x"}),
        "noise": (op: "latent.noise", in: {"vae": "model.vae"},
            with: {"width": 16, "height": 8, "frames": 4, "seed": 1}),
        "patches": (op: "patchify", in: {"dit": "model.dit", "latents": ["noise"]}),
        "sample": (op: "dit.sample", in: {"dit": "model.dit", "patches": "patches",
            "text": ["text"]}, with: {"steps": 2, "guidance": 1.0}),
        "latent": (op: "unpatchify", in: {"patches": "sample.patches"}),
        "frames": (op: "vae.decode", in: {"vae": "model.vae", "latent": "latent"}),
    }, outputs: {"frames": "frames"})"#;
    let calls = toy::Calls::default();
    let builder = || Engine::builder().device("cpu").memory("1GB").no_cache();
    let open = |engine: Engine| engine.open_text("toy.ron", text, folder.path()).unwrap();
    let engine = builder().family(Arc::new(toy::Toy(Arc::clone(&calls)))).build().unwrap();
    let done = open(engine).run(inputs! {}).start().unwrap().wait();
    let done = done.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(done.output::<Arc<Frames>>("frames").unwrap().count(), 4);
    assert_eq!(calls.lock().unwrap().len(), 2, "once a step");
    let error = open(builder().build().unwrap()).plan(&inputs! {}).err().unwrap().to_string();
    assert!(error.contains("ToyPipeline"), "{error}");
}

/// What the nodes of this test say.
struct Said(i64);

impl ValueType for Said {
    const PORT: PortType = PortType::Custom(Cow::Borrowed("test.said"));
    type Fact = ();
    type Header = i64;

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn fact(&self) {}

    fn header(&self) -> i64 {
        self.0
    }

    fn tensors(&self) -> Tensors<'_> {
        Box::new(std::iter::empty())
    }

    fn restore(header: i64, _: &mut TensorReader<'_>) -> Result<Self> {
        Ok(Said(header))
    }
}

/// Runs an expensive node that says what its service says, with the cache of this folder.
fn said(folder: &Path, service: i64, knows: bool) -> (i64, Arc<RunResult>) {
    let signature = Signature {
        name: "test.say".into(),
        version: "1".into(),
        about: "".into(),
        inputs: ports![],
        outputs: ports![edge("said", Said::PORT)],
        traits: NodeTraits::EXPENSIVE,
    };
    let engine = Engine::builder().device("cpu").memory("1GB").cache(folder);
    let engine = engine
        .service(Arc::new(service))
        .node_fn(signature, |cx, _| Ok(vec![Some(Value::from(Said(*cx.services.get::<i64>()?)))]));
    let engine = if knows { engine.value_type::<Said>() } else { engine };
    let text = r#"Graph(version: 1, nodes: {"n": (op: "test.say")}, outputs: {"said": "n"})"#;
    let graph = engine.build().unwrap().open_text("say.ron", text, folder).unwrap();
    let done = graph.run(inputs! {}).start().unwrap().wait();
    let done = done.unwrap_or_else(|error| panic!("{error}"));
    let said = done.report.output("said").and_then(|value| value.get::<Said>()).unwrap().0;
    (said, done)
}

/// A value of the program's own type comes back from the cache on disk, where the engine was told
/// of the type; where it was not, it is computed again.
#[test]
fn a_type_and_a_service_of_the_program_reach_its_nodes_and_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let (first, done) = said(folder.path(), 1, true);
    assert_eq!((first, done.report.evaluated.len()), (1, 1));
    let (second, done) = said(folder.path(), 2, true);
    assert_eq!((second, done.report.cached.len()), (1, 1), "from the cache on disk");
    let (third, done) = said(folder.path(), 3, false);
    assert_eq!((third, done.report.evaluated.len()), (3, 1));
}

/// A run may be given less memory than the engine has; another one has all of it.
/// A built-in graph begins with a picture, which is put beside the cache of the engine that reads
/// it, and nowhere else where that has none.
#[test]
fn files_of_built_in_graphs_lie_beside_the_cache_of_their_engine() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let builder = || Engine::builder().device("cpu").memory("1GB");
    let plans = |engine: Engine| {
        let graph = engine.open("image_to_video").unwrap();
        graph.plan(&inputs! {}).unwrap();
    };
    plans(builder().cache(&cache).build().unwrap());
    assert!(cache.join("graphs/pictures/first.png").is_file());
    std::fs::remove_dir_all(&cache).unwrap();
    plans(builder().cache(&cache).no_cache().build().unwrap());
    assert!(!cache.exists());
}

#[test]
fn a_run_that_needs_more_than_it_may_is_refused_in_its_plan() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::builder().device("cpu").memory("1GB").no_cache().build().unwrap();
    let graph = engine.open("text_to_image").unwrap();
    let request = |memory: u64| {
        let run = graph.run(inputs! { "width" => 32, "height" => 32, "steps" => 1 });
        run.out(folder.path()).random_seed(1).memory(memory)
    };
    let needs = request(1 << 30).plan().unwrap().forecast().peak;
    assert!(needs > 1 << 20, "{needs}");
    assert!(request(needs).plan().is_ok());
    let error = request(needs - 1).plan().err().unwrap().to_string();
    assert!(error.starts_with("this run needs about "), "{error}");
    let error = request(1 << 20).start().unwrap().wait().unwrap_err();
    assert!(
        error.hint().is_some() && error.to_string().ends_with("and may need 1.0 MB"),
        "{error}"
    );
}

/// A plugin whose component takes a while to compile is told, once; a program that compiles and
/// says that it cannot leaves it to this process.
#[test]
#[cfg(all(unix, feature = "wasm"))]
fn who_waits_for_a_plugin_is_told() {
    use std::sync::Mutex;

    use kino_session::{Notice, PluginWorker};

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let told: Arc<Mutex<Vec<Notice>>> = Arc::default();
    let (hears, folder) = (Arc::clone(&told), tempfile::tempdir().unwrap());
    let slow = PluginWorker {
        program: "/bin/sh".into(),
        args: ["-c", "sleep 1; exit 2", "sh"].map(str::to_owned).into(),
    };
    let engine = Engine::builder().device("cpu").memory("1GB").cache(folder.path()).worker(slow);
    let engine = engine.on_notice(move |notice| hears.lock().unwrap().push(notice.clone()));
    let engine = engine.build().unwrap();
    for _ in 0..2 {
        engine.open(root.join("graphs/prompt_expand.ron")).unwrap();
    }
    let expected = [Notice::Compiling { plugin: "prompt_expand".to_owned() }];
    assert_eq!(*told.lock().unwrap(), expected);
}
