//! A run that is cancelled while one block of a transformer computes for a long time ends soon.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use kino_session::{Engine, Error, Event, Inputs, inputs};

/// Nothing that is waited for takes so long, however busy the machine is.
const FOR_EVER: Duration = Duration::from_secs(120);

const GRAPH: &str = r#"Graph(version: 1,
    inputs: {"size": (type: "Int"), "frames": (type: "Int")},
    nodes: {
        "model": (op: "model.load", with: {"source": "embedded:shapes"}),
        "text": (op: "text.encode", in: {"encoder": "model.text_encoder"}, with: {"prompt": "x"}),
        "noise": (op: "latent.noise", in: {"vae": "model.vae", "width": "inputs.size",
            "height": "inputs.size", "frames": "inputs.frames"}, with: {"seed": 1}),
        "patches": (op: "patchify", in: {"dit": "model.dit", "latents": ["noise"]}),
        "sample": (op: "dit.sample", in: {"dit": "model.dit", "patches": "patches",
            "text": ["text"]}, with: {"steps": 1, "guidance": 1.0}),
    }, outputs: {"sampled": "sample.patches"})"#;

/// Blocks of the embedded transformer.
const BLOCKS: u32 = 8;

/// Tokens of a clip of `frames` frames of `size`×`size`: latents are a quarter as long and an
/// eighth as wide and high, patches two by two of those.
fn tokens(size: u32, frames: u32) -> u32 {
    ((frames - 1) / 4 + 1) * (size / 16).pow(2)
}

fn set(size: u32, frames: u32) -> Inputs {
    inputs! { "size" => size, "frames" => frames }
}

#[test]
fn a_large_step_ends_soon_after_it_was_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::builder().device("cpu").memory("16GB").no_cache().build().unwrap();
    let graph = engine.open_text("large.ron", GRAPH, folder.path());
    let graph = graph.unwrap_or_else(|error| panic!("{error}"));
    // How long a block takes here and now; the first run also reads the weights.
    let (size, frames) = (128, 129);
    graph.run(set(16, 1)).start().unwrap().wait().unwrap_or_else(|error| panic!("{error}"));
    let begun = Instant::now();
    graph.run(set(size, frames)).start().unwrap().wait().unwrap();
    let small = begun.elapsed() / BLOCKS;
    // Attention grows with the square of the tokens, all else at least with them.
    let growth = f64::from(tokens(512, 257)) / f64::from(tokens(size, frames));
    let block = small.mul_f64(growth);
    let (tell, told) = mpsc::channel();
    let run = graph.run(set(512, 257)).on_event(move |event| {
        if matches!(&event.event, Event::Progress { name, .. } if &**name == "sample") {
            let _ = tell.send(());
        }
    });
    let run = run.start().unwrap();
    told.recv_timeout(FOR_EVER).expect("it samples");
    std::thread::sleep(Duration::from_millis(300));
    let cancelled = Instant::now();
    run.cancel();
    assert!(matches!(run.wait(), Err(Error::Cancelled)));
    let late = cancelled.elapsed();
    println!("a block takes {block:?} at the very least, the run ended within {late:?}");
    let most = Duration::from_secs(1).max(block / 4);
    assert!(late < most, "{late:?}, where a block takes {block:?} or more");
}
