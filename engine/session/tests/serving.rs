//! What cannot be had ends as the error of the node that asked for it, and the same engine serves
//! on.

use std::borrow::Cow;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use kino_node::{NodeDef, Value, no_infer};
use kino_port::{NodeTraits, PortType, Signature, edge, int, ports};
use kino_session::{Engine, Error, inputs};

/// Gives a number that only running tells.
const LATE: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("late"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed("Gives its input, but not before it runs."),
        inputs: ports![int("value", 0).between(0, i64::MAX as i128).about("What it gives.")],
        outputs: ports![edge("value", PortType::Int).about("The number.")],
        traits: NodeTraits::LIGHT,
    },
    infer: no_infer,
    run: |_, inputs| Ok(vec![Some(Value::Int(inputs.int("value")?))]),
};

/// An engine with a gigabyte, and a folder.
struct Served {
    engine: Engine,
    folder: tempfile::TempDir,
}

impl Served {
    fn new() -> Self {
        let engine = Engine::builder().device("cpu").memory("1GB").no_cache().node(Arc::new(LATE));
        Served { engine: engine.build().unwrap(), folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a graph of these nodes and gives its error. What failed gives back what it held: once
    /// the caches hold what a first run left there, a second one changes nothing.
    fn fails(&self, nodes: &str) -> String {
        let said = self.fails_once(nodes);
        let held = self.engine.ledger().used();
        assert_eq!(self.fails_once(nodes), said);
        assert_eq!(self.engine.ledger().used(), held, "{:?}", self.engine.ledger());
        said
    }

    fn fails_once(&self, nodes: &str) -> String {
        let text = format!("Graph(version: 1, nodes: {{{nodes}}})");
        let graph = self.engine.open_text("bad.ron", text, self.path());
        let graph = graph.unwrap_or_else(|error| panic!("{error}"));
        let run = graph.run(inputs! {}).out(self.path());
        match run.start().and_then(|run| run.wait()) {
            Ok(_) => panic!("{nodes} is no error"),
            Err(Error::Nodes(failures)) => {
                assert_eq!(failures.len(), 1, "{failures:?}");
                format!("`{}` runs: {}", failures[0].name, failures[0].message)
            }
            Err(Error::Graph(problems)) => {
                // What reads a value that is too large is too large as well.
                problems.list[0].message.clone()
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Makes a small picture with a model: the engine does what it is there for.
    fn serves(&self, seed: u64) {
        let graph = self.engine.open("text_to_image").unwrap();
        let run =
            graph.run(inputs! { "seed" => seed, "width" => 32, "height" => 32, "steps" => 1 });
        let done = run.out(self.path()).start().unwrap().wait().unwrap();
        let file = done.path("image").unwrap();
        assert_eq!(&fs::read(file).unwrap()[1..4], b"PNG");
        let ledger = self.engine.ledger();
        assert!(ledger.used() <= ledger.budget(), "{ledger:?}");
    }
}

const MODEL: &str = r#""model": (op: "model.load", with: {"source": "embedded:shapes"}),"#;

#[test]
fn after_a_step_of_seventy_terabytes() {
    let served = Served::new();
    served.serves(1);
    let noise = |frames: &str, late: &str| {
        format!(
            r#"{MODEL} {late} "noise": (op: "latent.noise", in: {{"vae": "model.vae" {frames}}},
                with: {{"width": 16384, "height": 16384, "seed": 1}}),
               "file": (op: "tensor.write", in: {{"tensors": {{"x": "noise"}}}}, with: {{"path": "x.safetensors"}})"#
        )
    };
    let late = r#""late": (op: "late", with: {"value": 1048573}),"#;
    let said = served.fails(&noise(r#", "frames": "late""#, late));
    assert!(said.starts_with("`noise` runs: the noise takes 70 TB"), "{said}");
    served.serves(2);
    let planned = noise("", "").replace("\"seed\": 1", "\"seed\": 1, \"frames\": 1048573");
    let said = served.fails(&planned);
    assert!(said.starts_with("`noise`: it needs about 70 TB of memory"), "{said}");
    served.serves(3);
}

#[test]
fn after_a_range_that_is_broken_at_run_time() {
    let served = Served::new();
    let enlarged = |factor: i64| {
        format!(
            r#"{MODEL} "late": (op: "late", with: {{"value": {factor}}}),
               "noise": (op: "latent.noise", in: {{"vae": "model.vae"}}, with: {{"width": 32, "height": 32, "seed": 1}}),
               "frames": (op: "vae.decode", in: {{"vae": "model.vae", "latent": "noise"}}),
               "large": (op: "upscale", in: {{"frames": "frames", "factor": "late"}}),
               "file": (op: "image.write", in: {{"frames": "large"}}, with: {{"path": "x.png"}})"#
        )
    };
    for factor in [0, 9, 100_000, i64::MAX] {
        let said = served.fails(&enlarged(factor));
        assert!(said.starts_with("`large` runs:") && said.contains("`factor`"), "{said}");
        served.serves(factor as u64 % 97);
    }
}

#[test]
fn after_an_image_of_sixty_thousand_pixels_squared() {
    let served = Served::new();
    let mut header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    header.extend([60_000u32.to_be_bytes(), 60_000u32.to_be_bytes()].concat());
    header.extend([8, 2, 0, 0, 0]);
    let check = crc32(&header[12..]);
    header.extend(check.to_be_bytes());
    header.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e\0\0\0\0IEND\xae\x42\x60\x82");
    fs::write(served.path().join("huge.png"), header).unwrap();
    let said = served.fails(
        r#""image": (op: "image.read", with: {"path": "huge.png"}),
           "file": (op: "image.write", in: {"frames": "image"}, with: {"path": "x.png"})"#,
    );
    assert!(said.contains("`image`") && said.contains("60000"), "{said}");
    served.serves(1);
    // One that only the run makes so large.
    let said = served.fails(&format!(
        r#"{MODEL} "late": (op: "late", with: {{"value": 60000}}),
           "noise": (op: "latent.noise", in: {{"vae": "model.vae"}}, with: {{"width": 32, "height": 32, "seed": 1}}),
           "frames": (op: "vae.decode", in: {{"vae": "model.vae", "latent": "noise"}}),
           "large": (op: "frames.resize", in: {{"frames": "frames", "width": "late", "height": "late"}}),
           "file": (op: "image.write", in: {{"frames": "large"}}, with: {{"path": "x.png"}})"#
    ));
    assert!(said.starts_with("`large` runs:"), "{said}");
    served.serves(2);
}

/// CRC-32 of PNG (ISO 3309), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| match crc & 1 {
            1 => crc >> 1 ^ 0xedb8_8320,
            _ => crc >> 1,
        })
    })
}

#[test]
fn two_heavy_runs_under_half_of_their_sum_finish() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::builder().device("cpu").memory("75MB").no_cache().keep_results(false);
    let engine = engine.build().unwrap();
    let text = format!(
        r#"Graph(version: 1, inputs: {{"seed": (type: "Int")}}, nodes: {{{MODEL}
            "noise": (op: "latent.noise", in: {{"vae": "model.vae", "seed": "inputs.seed"}}, with: {{"width": 128, "height": 128, "frames": 9}}),
            "frames": (op: "vae.decode", in: {{"vae": "model.vae", "latent": "noise"}}),
            "large": (op: "upscale", in: {{"frames": "frames"}}, with: {{"factor": 4}})}},
            outputs: {{"frames": "large"}})"#
    );
    let graph = engine.open_text("heavy.ron", text, folder.path()).unwrap();
    let alone = graph.plan(&inputs! { "seed" => 1 }).unwrap().forecast();
    assert!(2 * alone.peak > engine.ledger().budget(), "two do not fit together: {alone:?}");
    let runs: Vec<_> = (1..3)
        .map(|seed| graph.run(inputs! { "seed" => seed }).out(folder.path()).start().unwrap())
        .collect();
    for run in runs {
        let frames: Arc<kino_session::Frames> = run.wait().unwrap().output("frames").unwrap();
        assert_eq!((frames.count(), frames.height()), (9, 512));
    }
}
