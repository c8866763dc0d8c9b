//! Nodes as an author writes them, run through the C shim.

use kino_plugin::prelude::*;
use kino_plugin::testing;
use kino_plugin::tracing::{info, warn};

/// Multiplies every frame by a gain.
#[node(id = "example.gain", version = "1.0.0", like = "frames")]
pub fn gain(
    cx: &mut Cx,
    #[port(about = "What to scale.")] frames: Frames,
    #[param(default = 1.0, range = 0.0..=4.0, unit = "x")] gain: f64,
) -> Result<Frames> {
    frames.map(cx, |input, output| {
        for (o, i) in output.iter_mut().zip(input) {
            *o = i * gain as f32;
        }
    })
}

/// How to join.
#[derive(Choice)]
enum Joiner {
    Space,
    CommaSpace,
    #[choice("none")]
    Nothing,
}

/// Joins words. Nothing else.
#[node(id = "example.join", version = "1.0.0", output = "sentence")]
fn join(
    /// What to join.
    words: Vec<String>,
    #[param(default = Joiner::Space)] with: Joiner,
    ending: Option<&str>,
) -> String {
    let between = match with {
        Joiner::Space => " ",
        Joiner::CommaSpace => ", ",
        Joiner::Nothing => "",
    };
    words.join(between) + ending.unwrap_or_default()
}

/// Distance of each pixel.
#[port_type("example.depth")]
#[derive(Clone)]
pub struct Depth {
    /// `[h, w]`.
    pub tensor: Tensor,
    /// The nearest distance.
    pub near: f64,
    /// What is to be said of it.
    pub note: Option<String>,
}

#[node(id = "example.deepen", version = "1.0.0")]
fn deepen(depth: Depth, by: f64, names: Vec<(String, f32)>) -> Result<(Depth, Vec<String>)> {
    let tensor = depth.tensor.mul(by)?;
    let names = names.into_iter().map(|(name, number)| format!("{name}={number}")).collect();
    Ok((Depth { tensor, near: depth.near * by, note: depth.note }, names))
}

#[derive(Outputs)]
struct Parts {
    /// The whole part.
    whole: i64,
    #[output(name = "rest", about = "What is left.")]
    fraction: Option<f64>,
}

#[node(id = "example.split", version = "1.0.0", heavy, expensive)]
fn split(cx: &Cx, number: f64) -> Parts {
    let fraction = cx.wants(1).then(|| number.fract());
    Parts { whole: number.trunc() as i64, fraction }
}

#[node(id = "example.types", version = "1.0.0", outputs("vae", "any", "sum"))]
fn types(
    vae: Vae,
    any: Any,
    #[param(draws, default = 18446744073709551615)] seed: u64,
    #[param(range = -8..=8, step = 4, default = -4)] offset: i32,
    #[param(choices("a", "b"), default = "a")] kind: String,
    #[param(default = true)] on: bool,
    path: Path,
    sigmas: Sigmas,
    mask: Option<Mask>,
) -> Result<(Vae, Any, f64)> {
    ensure!(on && kind == "b" && &*path == "x/y", "kind {kind}, path {path}, on {on}");
    let mask = mask.map(|mask| mask.count()).unwrap_or_default();
    Ok((vae, any, sigmas.iter().sum::<f64>() + mask as f64 + f64::from(offset) + seed as f64))
}

#[node(id = "example.fail", version = "1.0.0")]
fn fail(cx: &mut Cx, how: &str) -> Result<bool> {
    info!(how, answer = 42, "About to fail");
    match how {
        "error" => Err(Error::new("it is broken").hint("mend it")),
        "io" => Ok("seven".parse::<u8>()? == 7),
        "file" => Ok(cx.read_text("missing.txt")?.is_empty()),
        "panic" => panic!("{how} on purpose"),
        "shape" => Ok(Tensor::zeros::<f32>(&[2])?.as_slice::<f64>()?.is_empty()),
        "sum" => Ok(Tensor::zeros::<f32>(&[2])?.add(&Tensor::zeros::<f32>(&[3])?)?.rank() == 1),
        _ => bail!("there is no way `{how}`"),
    }
}

kino_plugin::plugin!(gain, join, deepen, split, types, fail);

#[test]
fn gain_multiplies_every_chunk_and_reports_progress() -> Result<()> {
    let frames = Frames::random(7, [5, 8, 6, 3]);
    let out = testing::run::<gain>().input("frames", &frames).param("gain", 2.5).call()?;
    let found = out.frames("frames")?;
    testing::assert_close(&found.joined()?, &frames.joined()?.mul(2.5)?, 0.0);
    assert_eq!((found.count(), found.height(), found.width()), (5, 8, 6));
    assert_eq!((found.fps(), found.chunk_count()), (Some(8.0), Ok(3)));
    assert_eq!(out.progress(), [(2, 5), (4, 5), (5, 5)]);
    Ok(())
}

#[test]
fn gain_has_a_default_and_a_range() -> Result<()> {
    let frames = Frames::random(7, [1, 2, 2, 3]);
    let out = testing::run::<gain>().input("frames", &frames).call()?;
    testing::assert_close(&out.frames("frames")?.joined()?, &frames.joined()?, 0.0);
    let refused = testing::run::<gain>().input("frames", frames).param("gain", 5).call();
    assert_eq!(
        refused.err().map(|error| error.to_string()).unwrap(),
        "input `gain`: expected a number from 0 to 4, found 5.0"
    );
    let unfed = testing::run::<gain>().call().err().unwrap();
    assert_eq!(unfed.message(), "input `frames` must be fed");
    let unknown = testing::run::<gain>().param("gane", 1.0).call().err().unwrap();
    assert_eq!(unknown.message(), "there is no input `gane`, only frames, gain");
    Ok(())
}

#[test]
fn a_long_video_can_be_cancelled_between_its_pieces() {
    // Miri interprets each instruction.
    let size = if cfg!(miri) { 8 } else { 256 };
    let frames = Frames::random(7, [4, size, size, 3]);
    for after in 0..4 {
        let run = testing::run::<gain>().input("frames", &frames).cancel_after(after);
        assert_eq!(run.call().err(), Some(Error::Cancelled));
    }
}

#[test]
fn lists_options_and_choices_arrive() -> Result<()> {
    let words = vec!["a", "b"];
    let run = || testing::run::<join>().input("words", words.clone());
    assert_eq!(run().call()?.text("sentence")?, "a b");
    assert_eq!(run().param("with", "comma_space").call()?.text("sentence")?, "a, b");
    assert_eq!(run().param("with", "none").param("ending", "!").call()?.text("sentence")?, "ab!");
    let refused = run().param("with", "tab").call().err().unwrap();
    let expected = "expected one of \"space\", \"comma_space\", \"none\", found \"tab\"";
    assert_eq!(refused.message(), format!("input `with`: {expected}"));
    assert_eq!(testing::run::<join>().input("words", "one").call()?.text("sentence")?, "one");
    Ok(())
}

#[test]
fn own_types_are_records_both_ways() -> Result<()> {
    let depth = Depth { tensor: Tensor::random(3, &[2, 3]), near: 0.5, note: None };
    let names = vec![("a".to_owned(), 1.5f32), ("b".to_owned(), 2.0)];
    let run = || testing::run::<deepen>().param("by", 3).input("names", names.clone());
    let out = run().input("depth", &depth).call()?;
    let found: Depth = out.get("depth")?;
    testing::assert_close(&found.tensor, &depth.tensor.mul(3.0)?, 0.0);
    assert_eq!((found.near, found.note), (1.5, None));
    let texts = kino_plugin::port::Input::take(Some(out.get::<Any>("text")?.0));
    assert_eq!(texts, Ok(vec!["a=1.5".to_owned(), "b=2".to_owned()]));
    let wrong = run().input("depth", depth.tensor).call().err().unwrap();
    let expected = "expected example.depth, found Tensor";
    assert_eq!(wrong.message(), format!("input `depth`: {expected}"));
    Ok(())
}

#[test]
fn outputs_that_nobody_reads_can_be_left_out() -> Result<()> {
    let all = testing::run::<split>().input("number", -2.5).call()?;
    assert_eq!((all.int("whole")?, all.real("rest")?), (-2, -0.5));
    let some = testing::run::<split>().input("number", 2.5).without("rest").call()?;
    assert!(some.has("whole") && !some.has("rest"));
    Ok(())
}

#[test]
fn every_type_arrives() -> Result<()> {
    let run = || {
        let run = testing::run::<types>().input("vae", testing::opaque("Vae"));
        let run = run.input("any", "anything").param("seed", 3u64).param("path", "x/y");
        run.input("sigmas", Sigmas(vec![1.0, 0.25, 0.0])).param("kind", "b")
    };
    let out = run().call()?;
    assert_eq!((out.text("any")?, out.real("sum")?), ("anything".into(), 1.25 + 3.0 - 4.0));
    assert_eq!(out.get::<Vae>("vae")?.0.type_name(), "Vae");
    let mask = Mask(Tensor::zeros::<f32>(&[1, 2, 5])?);
    let out = run().input("mask", mask).param("offset", 8).call()?;
    assert_eq!(out.real("sum")?, 1.25 + 3.0 + 8.0 + 10.0);
    let flat = run().input("mask", Mask(Tensor::zeros::<f32>(&[2, 5])?)).call().err().unwrap();
    let expected = "input `mask`: a mask is [f, h, w] or [1, f, h, w], found a tensor [2, 5]";
    assert_eq!(flat.message(), expected);
    let bright = Mask(Tensor::zeros::<f32>(&[1, 2, 5])?.add(1.5)?);
    let bright = run().input("mask", bright).call().err().unwrap();
    assert_eq!(bright.message(), "input `mask`: a mask is one value a pixel in 0…1, found 1.5");
    let seed = run().param("seed", i128::from(u64::MAX) + 1).call().err().unwrap();
    let expected = "expected a whole number from 0 to 18446744073709551615 or \"random\"";
    assert_eq!(seed.message(), format!("input `seed`: {expected}, found 18446744073709551616"));
    assert!(run().param("offset", 3).call().err().unwrap().message().contains("in steps of 4"));
    Ok(())
}

#[test]
fn failures_say_why() {
    let failed = |how: &str| testing::run::<fail>().input("how", how).call().err().unwrap();
    assert_eq!(failed("error").to_string(), "it is broken (mend it)");
    assert_eq!(failed("io").message(), "invalid digit found in string");
    assert_eq!(failed("file").message(), "`missing.txt` is not granted: `.file(…)` of the test is");
    assert_eq!(failed("odd").message(), "there is no way `odd`");
    assert_eq!(
        failed("shape").to_string(),
        "expected a tensor of f64, found one of f32 (`tensor.cast(DType::F64)?` converts it)"
    );
    assert_eq!(
        failed("sum").message(),
        "op add: [2] and [3] do not broadcast to one shape: 2 against 3"
    );
    let panic = failed("panic").to_string();
    assert!(panic.starts_with("the plugin panicked at "), "{panic}");
    assert!(panic.contains("tests/nodes.rs:") && panic.contains("panic on purpose"), "{panic}");
}

#[node(id = "example.talk", version = "1.0.0")]
fn talk(cx: &mut Cx, path: Path) -> Result<i64> {
    let text = cx.read_text(&path)?;
    warn!(lines = text.lines().count(), name = "x", "Read {path}");
    cx.progress(1, 2);
    Ok(text.len() as i64)
}

#[test]
fn granted_files_are_read_and_events_reach_the_log() -> Result<()> {
    let out = testing::run::<talk>().file("a.txt", "one\ntwo").param("path", "a.txt").call()?;
    assert_eq!(out.int("int")?, 7);
    assert_eq!(out.progress(), [(1, 2)]);
    let [logged] = out.logs() else { panic!("expected one message: {:?}", out.logs()) };
    assert_eq!((logged.level, logged.target.as_str()), (2, "nodes"));
    assert_eq!(logged.message, "Read a.txt lines=2 name=\"x\"");
    Ok(())
}

/// A guider that is asked in a part of the run.
#[guider(id = "example.part", part)]
fn part_of_run(_step: SamplingStep, with_text: Tensor, _without_text: Tensor, _by: f64) -> Tensor {
    with_text
}

/// Friction 18: `part` gives the parameters that the engine reads, and the function takes none.
#[test]
fn a_guider_has_a_part_of_the_run() -> Result<()> {
    let descriptor: serde_json::Value =
        serde_json::from_str(&testing::descriptor::<part_of_run>()?).unwrap();
    let inputs = descriptor["nodes"][0]["inputs"].as_array().unwrap();
    let names: Vec<_> = inputs.iter().map(|input| input["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["by", "from", "to"]);
    assert_eq!((&inputs[1]["default"], &inputs[2]["default"]), (&0.0.into(), &1.0.into()));
    // The version of the crate is that of its nodes, unless they have their own.
    assert_eq!(descriptor["nodes"][0]["version"], env!("CARGO_PKG_VERSION"));
    let tensor = Tensor::random(1, &[2, 4]);
    let step = SamplingStep { index: 0, count: 2, sigma: 1.0 };
    let run = testing::run::<part_of_run>().sampling_step(step).param("by", 1.0).param("to", 0.5);
    let out = run.input("with_text", &tensor).input("without_text", &tensor).call()?;
    testing::assert_close(&out.tensor("velocity")?, &tensor, 0.0);
    Ok(())
}
