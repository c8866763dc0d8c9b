//! `text.generate` as a user meets it: a graph in, a text out, computed once; what is wrong with a
//! model is told before anything runs.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

use kino_session::{Engine, Inputs, RunResult, Settings};
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
    let graph = graph(&reference("qwen3.gguf"), r#""temperature": 1.5, "instruction": "Rewrite.""#);
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
        &["none.gguf does not exist", "a language model is `endpoint`, or a GGUF file"],
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

/// The graph that shows it, with a model that answers nonsense.
#[test]
fn the_graph_of_an_expanded_prompt_runs() {
    let rig = Rig::new();
    let graph = kino_tests::root().join("graphs/expanded_prompt.ron");
    let model = reference("qwen3.gguf").display().to_string();
    let mut inputs = Inputs::new();
    for (name, value) in [("model", &*model), ("family", "none"), ("frames", "1"), ("steps", "1")] {
        inputs.set(name, value);
    }
    let run = rig.engine.open(&graph).unwrap().run(inputs).out(rig.folder.path().join("out"));
    let done = run.start().unwrap().wait().unwrap_or_else(|error| panic!("{error}"));
    assert!(!done.output::<String>("prompt").unwrap().is_empty());
    assert!(done.output::<std::path::PathBuf>("video").unwrap().is_file());
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

/// A server on this machine that answers each question with the next of some answers, and keeps
/// what it was asked. The last answer is given from then on.
struct Server {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new(answers: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/v1", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for (at, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let mut request = Vec::new();
                let mut buffer = [0; 4096];
                // The length of the body stands in the head.
                loop {
                    let count = stream.read(&mut buffer).unwrap();
                    request.extend(&buffer[..count]);
                    let text = String::from_utf8_lossy(&request).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let head = head.to_lowercase();
                    let length =
                        head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    if count == 0 || body.len() >= length.unwrap().trim().parse().unwrap() {
                        seen.lock().unwrap().push(text);
                        break;
                    }
                }
                let answer = &answers[at.min(answers.len() - 1)];
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        Server { address, asked }
    }

    /// One that answers with these texts.
    fn saying(texts: &[&str]) -> Self {
        let answer = |text: &&str| {
            let text = text.replace('\n', "\\n");
            http(200, &format!(r#"{{"choices": [{{"message": {{"content": "{text}"}}}}]}}"#))
        };
        Server::new(texts.iter().map(answer).collect())
    }

    fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn http(status: u16, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} S\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

impl Rig {
    /// An engine of a user who has named an endpoint.
    fn asking(address: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings::default()
            .with_flag("llm_url", address.as_ref())
            .and_then(|settings| settings.with_flag("llm_model", "tiny".as_ref()))
            .and_then(|settings| settings.with_flag("llm_key", "KINO_TEST_NO_SUCH_KEY".as_ref()));
        let engine = engine(folder.path()).settings(settings.unwrap()).keep_results(false);
        Rig { engine: engine.build().unwrap(), folder }
    }
}

/// A picture of what an endpoint makes of the prompt.
const PICTURE: &str = r#"Graph(version: 1, inputs: {
    "prompt": (type: "Text", default: "red circle"), "seed": (type: "Int", default: 7),
}, nodes: {
    "full": (op: "text.generate", in: {"prompt": "inputs.prompt"},
        with: {"model": "endpoint", "family": "shapes", "stop": "STOP", "seed": 3}),
    "model": (op: "model.load", with: {"source": "embedded:shapes"}),
    "text": (op: "text.encode", in: {"encoder": "model.text_encoder", "prompt": "full"}),
    "noise": (op: "latent.noise", in: {"vae": "model.vae", "seed": "inputs.seed"},
        with: {"width": 32, "height": 32}),
    "patches": (op: "patchify", in: {"latents": "noise", "dit": "model.dit"}),
    "sample": (op: "dit.sample", in: {"dit": "model.dit", "patches": "patches", "text": "text"},
        with: {"steps": 1}),
    "latent": (op: "unpatchify", in: {"patches": "sample.patches"}),
    "frames": (op: "vae.decode", in: {"vae": "model.vae", "latent": "latent"}),
    "file": (op: "image.write", in: {"frames": "frames"}, with: {"path": "{seed}-{n}.png"}),
}, outputs: {"text": "full", "file": "file"})"#;

/// Asked once; what is written runs again without the endpoint, for the same prompt.
#[test]
fn an_endpoint_is_asked_once_and_its_answer_stays_with_what_is_written() {
    let said = "a large red circle moves right on a white background";
    let server = Server::saying(&[&format!("<think>\nwell\n</think>\n\n{said}\n"), "other"]);
    let rig = Rig::asking(&server.address);
    let done = rig.run(PICTURE, &[]).unwrap();
    assert_eq!((done.output::<String>("text").unwrap().as_str(), server.count()), (said, 1));
    let asked = server.asked.lock().unwrap()[0].clone();
    assert!(asked.starts_with("POST /v1/chat/completions "), "{asked}");
    assert!(!asked.to_lowercase().contains("authorization"), "{asked}");
    for part in [r#""model":"tiny""#, r#""content":"red circle""#, r#""seed":3"#, "STOP"] {
        assert!(asked.contains(part), "{asked}\n{part}");
    }
    // Another picture of the same text asks nobody, and its file has the answer all the same.
    let done = rig.run(PICTURE, &[("seed", "8")]).unwrap();
    assert_eq!((done.output::<String>("text").unwrap().as_str(), server.count()), (said, 1));
    let file: std::path::PathBuf = done.output("file").unwrap();
    let picture = fs::read(&file).unwrap();
    let record = kino_world::read_metadata(&file).unwrap().unwrap();
    assert!(record.contains("kino-record") && record.contains(said), "{record}");
    // Somebody else, who has named no endpoint.
    let other = Rig::new();
    let again = other.run(&record, &[]).unwrap();
    assert_eq!(again.output::<String>("text").unwrap(), said);
    let same = fs::read(again.output::<std::path::PathBuf>("file").unwrap()).unwrap();
    assert!(same == picture, "the same bytes, its record included");
    let told = other.run(&record, &[("prompt", "blue star")]).unwrap_err();
    assert!(told.contains("no endpoint of a language model is set"), "{told}");
    assert!(told.contains("kino config set llm_url"), "{told}");
    // Another question is asked.
    assert_eq!(
        rig.run(PICTURE, &[("prompt", "x")]).unwrap().output::<String>("text").unwrap(),
        "other"
    );
    assert_eq!(server.count(), 2);
}

/// What the node `full` says of its work.
fn notes_of(events: &Mutex<Vec<kino_runtime::Event>>) -> Vec<String> {
    let events = events.lock().unwrap();
    let of = |event: &kino_runtime::Event| match event {
        kino_runtime::Event::Finished { name, notes, .. } if &**name == "full" => notes.clone(),
        _ => Vec::new(),
    };
    events.iter().flat_map(of).collect()
}

/// An answer that ends at `max_tokens` is taken, and that it is cut off is told with its node.
#[test]
fn an_answer_that_is_cut_off_is_told() {
    let noted = |rig: &Rig, graph: &str| {
        let events: Arc<Mutex<Vec<kino_runtime::Event>>> = Arc::default();
        let seen = Arc::clone(&events);
        let graph = rig.engine.open_text("g.ron", graph, rig.folder.path()).unwrap();
        let run = graph.run(Inputs::new()).out(rig.folder.path().join("out"));
        let run = run.on_event(move |event| seen.lock().unwrap().push(event.event));
        run.start().unwrap().wait().unwrap_or_else(|error| panic!("{error}"));
        notes_of(&events)
    };
    let ends = |reason: &str| {
        let choice = format!(r#"{{"message": {{"content": "a fox"}}, "finish_reason": {reason}}}"#);
        let server = Server::new(vec![http(200, &format!(r#"{{"choices": [{choice}]}}"#))]);
        noted(&Rig::asking(&server.address), &graph(Path::new("endpoint"), ""))
    };
    let cut = "the answer is cut off after 12 tokens: a larger `max_tokens` lets it end";
    assert_eq!(ends(r#""length""#), [cut]);
    assert_eq!((ends(r#""stop""#).len(), ends("null").len()), (0, 0));
    // A local model likewise.
    assert_eq!(noted(&Rig::new(), &graph(&reference("qwen3.gguf"), r#""family": "none""#)), [cut]);
}

#[test]
fn an_endpoint_that_does_not_answer_is_that_nodes_error() {
    let graph = graph(Path::new("endpoint"), "");
    let told = |answer: String| Rig::asking(&Server::new(vec![answer]).address).run(&graph, &[]);
    for (answer, expected) in [
        (
            http(401, r#"{"error": {"message": "no\u001b[2J key"}}"#),
            "wants a key (401: no\\u{1b}[2J key)",
        ),
        (http(404, r#"{"error": "model tiny not found"}"#), "404: model tiny not found"),
        (http(429, ""), "asked too often"),
        (http(500, "<html>down"), "fails (500: <html>down)"),
        (http(200, "<html>a page"), "does not answer with JSON: <html>a page"),
        (http(200, r#"{"choices": []}"#), "has no `choices[0].message.content`"),
        (http(200, r#"{"choices": [{"message": {"content": " "}}]}"#), "answered nothing"),
        (
            http(
                200,
                r#"{"choices": [{"message": {"content": null, "refusal": "I can\u0027t."}}]}"#,
            ),
            "refuses to answer: I can't.",
        ),
        (
            http(
                200,
                r#"{"choices": [{"message": {"content": "a f"}, "finish_reason": "content_filter"}]}"#,
            ),
            "stopped the answer (content_filter)",
        ),
        (
            http(200, r#"{"choices": [{"message": {"content": ""}, "finish_reason": "length"}]}"#),
            "came to no answer within the tokens that it may write",
        ),
        (http(307, "").replace("\r\n\r\n", "\r\nLocation: http://127.0.0.1:9/\r\n\r\n"), "(307"),
        ("HTTP/1.1 200 S\r\nContent-Length: 90\r\n\r\n{".to_owned(), "ended early"),
    ] {
        let told = told(answer).unwrap_err();
        assert!(told.contains(expected), "{told}\n{expected}");
    }
    // Nobody listens.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let told = Rig::asking(&format!("http://{closed}/v1")).run(&graph, &[]).unwrap_err();
    assert!(told.contains("cannot be reached") || told.contains("refused"), "{told}");
    // A graph names no address.
    let told = Rig::new().run(&graph, &[]).unwrap_err();
    assert!(told.contains("no endpoint of a language model is set"), "{told}");
}
