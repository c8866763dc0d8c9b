//! `text.generate` as a user meets it: a graph in, a text out, computed once; what is wrong with a
//! model is told before anything runs.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use kino_session::{Engine, Inputs, RunResult};
use kino_tests::{Evaluated, engine};

/// A graph whose text is an output, alone and joined with a name.
fn graph(model: &Path, more: &str) -> String {
    let model = model.display().to_string();
    format!(
        r#"Graph(version: 1, inputs: {{
            "prompt": (type: "Text", default: "a cat"), "seed": (type: "Int", default: 7),
            "name": (type: "Text", default: "a"),
        }}, nodes: {{
            "full": (op: "text.generate", in: {{"prompt": "inputs.prompt", "seed": "inputs.seed"}},
                with: {{"model": {model:?}, "max_tokens": 12, {more}}}),
            "both": (op: "text.join", in: {{"parts": ["full", "inputs.name"]}}),
        }}, outputs: {{"text": "full", "both": "both"}})"#
    )
}

/// An engine with a cache of its own, and where it lies.
struct Rig {
    folder: tempfile::TempDir,
    engine: Engine,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine(folder.path()).keep_results(false).build().unwrap();
        Rig { folder, engine }
    }

    fn run(&self, graph: &str, set: &[(&str, &str)]) -> Result<Arc<RunResult>, String> {
        let graph = self.engine.open_text("g.ron", graph, self.folder.path());
        let graph = graph.map_err(|error| error.to_string())?;
        let mut inputs = Inputs::new();
        set.iter().for_each(|(name, value)| inputs.set(*name, *value));
        let run = graph.run(inputs).out(self.folder.path().join("out")).start();
        run.and_then(|run| run.wait()).map_err(|error| error.to_string())
    }
}

fn reference(name: &str) -> std::path::PathBuf {
    kino_tests::reference().join("language").join(name)
}

#[test]
fn a_text_is_written_once_for_each_seed_and_prompt() {
    let graph = graph(&reference("qwen3.gguf"), r#""temperature": 1.5"#);
    let rig = Rig::new();
    let run = |set: &[(&str, &str)]| {
        let done = rig.run(&graph, set).unwrap();
        let text: String = done.output("text").unwrap();
        let names: Vec<String> = done.report.names().iter().map(|name| name.to_string()).collect();
        (text, names)
    };
    let (text, names) = run(&[]);
    assert_eq!(names, ["full", "both"]);
    assert!(!text.is_empty() && !text.contains("<think>"), "{text}");
    // What it is joined with changes nothing of it.
    assert_eq!(run(&[("name", "b")]), (text.clone(), vec!["both".to_owned()]));
    let (other, names) = run(&[("seed", "8")]);
    assert!(other != text && names.contains(&"full".to_owned()), "{names:?}");
    let (other, _) = run(&[("prompt", "a dog")]);
    assert_ne!(other, text);
    assert_eq!(run(&[]).0, text);
    // Another process, with nothing in its caches, writes the same.
    let again: String = Rig::new().run(&graph, &[]).unwrap().output("text").unwrap();
    assert_eq!(again, text);
}

#[test]
fn what_is_wrong_with_a_model_is_told_before_anything_runs() {
    let rig = Rig::new();
    let told = |model: &Path, more: &str| rig.run(&graph(model, more), &[]).unwrap_err();
    let at = |name: &str| rig.folder.path().join(name);
    let check = |told: String, expected: &[&str]| {
        for expected in expected {
            assert!(told.contains(expected), "{told}\n{expected}");
        }
    };
    check(
        told(&at("none.gguf"), ""),
        &["none.gguf does not exist", "a language model is a GGUF file"],
    );
    fs::write(at("text.gguf"), "GGUF and so on").unwrap();
    check(told(&at("text.gguf"), ""), &["text.gguf"]);
    // Another architecture, by the name that it gives itself.
    let mut bytes = fs::read(reference("qwen3.gguf")).unwrap();
    let place = bytes.windows(5).position(|window| window == b"qwen3").unwrap();
    bytes[place..place + 5].copy_from_slice(b"gemma");
    fs::write(at("other.gguf"), &bytes).unwrap();
    check(
        told(&at("other.gguf"), ""),
        &["a language model of the architecture `gemma`", "llama, qwen2, qwen3"],
    );
    // Neither tokenizer nor sizes: weights of a video model.
    check(told(&kino_tests::reference().join("gguf/types.gguf"), ""), &["architecture `pig`"]);
    check(told(&reference("qwen3.gguf"), r#""family": "sora""#), &["family", "wan"]);
}

/// What a text takes is foreseen: a budget below it is refused in the plan.
#[test]
fn a_model_that_does_not_fit_is_refused_in_the_plan() {
    let folder = tempfile::tempdir().unwrap();
    let engine = kino_session::Engine::builder().device("cpu").memory("1MB");
    let engine = engine.cache(folder.path().join("cache")).data(folder.path().join("data"));
    let rig = Rig { engine: engine.build().unwrap(), folder };
    let told = rig.run(&graph(&reference("qwen3_k.gguf"), ""), &[]).unwrap_err();
    assert!(told.contains("full") && told.contains("memory"), "{told}");
}
