//! What the engine holds a node to, its tests hold it to.

use kino_plugin::prelude::*;
use kino_plugin::{Value, testing};

fn why<T>(found: Result<T>) -> String {
    found.err().expect("it is refused").to_string()
}

/// Fails, or gives something wrong, in the way that it is told.
#[node(
    id = "example.liar",
    version = "1.0.0",
    outputs("frames", "levels", "part"),
    like = "frames"
)]
fn liar(cx: &mut Cx, frames: Frames, how: &str) -> Result<(Option<Frames>, Sigmas, Vae)> {
    let levels = if how == "rising" { vec![0.0, 1.0] } else { vec![1.0, 0.0] };
    let part = if how == "part" { Value::real(1.0)? } else { testing::opaque("Vae").0 };
    let given = match how {
        "nothing" => None,
        "larger" => Some(Frames::random(1, [2, 8, 8, 3])),
        _ => Some(frames.map_each(cx, |x| x)?),
    };
    Ok((given, Sigmas(levels), Vae(part)))
}

#[test]
fn outputs_are_held_against_the_ports() {
    let of = |how: &str| {
        let frames = Frames::random(1, [2, 4, 4, 3]);
        testing::run::<liar>().input("frames", &frames).input("how", how).call()
    };
    assert!(of("right").is_ok());
    assert_eq!(why(of("nothing")), "the node gave nothing at `frames`");
    assert!(why(of("rising")).contains("output `levels`: noise levels must fall"));
    assert_eq!(
        why(of("part")),
        "the node breaks its promise: output `part`: expected Vae, found Real"
    );
    assert_eq!(
        why(of("larger")),
        "the node breaks its promise: output `frames`: 2 frames of 8x8, 8 a second is not like \
         `frames`, 2 frames of 4x4, 8 a second"
    );
}

#[guider(id = "example.short", version = "1.0.0")]
fn short(_step: SamplingStep, with_text: Tensor, _without_text: Tensor) -> Result<Tensor> {
    with_text.sum(&[])
}

#[test]
fn velocities_have_the_shape_of_those_that_came() {
    let velocity = Tensor::random(1, &[2, 3]);
    let run =
        testing::run::<short>().sampling_step(SamplingStep { index: 0, count: 1, sigma: 1.0 });
    let run = run.input("with_text", &velocity).input("without_text", &velocity);
    let why = why(run.call());
    assert!(why.ends_with("output `velocity`: [] is not like `with_text`, [2, 3]"), "{why}");
}

#[node(id = "example.takes", version = "1.0.0", output = "told")]
fn takes(
    tensor: Option<Tensor>,
    text: Option<Conditioning>,
    #[param(range = 0.0..=1.0)] parts: Option<Vec<f64>>,
    #[param(default = 1, range = 1.., draws)] seed: u32,
    latent: Option<Latent>,
    dit: Option<Dit>,
) -> String {
    let dims = tensor.map(|tensor| tensor.dims().to_vec());
    let told = (dims, text.is_some(), parts, seed, latent.is_some(), dit.is_some());
    format!("{told:?}")
}

#[test]
fn inputs_are_taken_as_the_engine_takes_them() {
    let told = |run: testing::Run<'static>| run.call()?.text("told");
    let run = || testing::run::<takes>();
    let frames = Frames::random(1, [2, 4, 4, 3]);
    assert!(told(run().input("tensor", &frames)).unwrap().contains("Some([2, 4, 4, 3])"));
    let rows = Tensor::random(1, &[1, 5, 8]);
    assert!(told(run().input("text", &rows)).unwrap().contains("true"));
    assert!(told(run().param("seed", "random")).unwrap().contains(" 7,"));
    assert_eq!(
        why(told(run().input("parts", vec![0.5, 5.0]))),
        "input `parts`: expected a number from 0 to 1, found 5.0"
    );
    assert_eq!(
        why(told(run().input("latent", Tensor::random(1, &[3])))),
        "input `latent`: a latent is [c, f, h, w] or [1, c, f, h, w], found a tensor [3]"
    );
    assert_eq!(
        why(told(run().input("dit", testing::opaque("Vae")))),
        "input `dit`: expected Dit, found Vae"
    );
    // An open end of a range is that of the type.
    assert_eq!(
        why(told(run().param("seed", 5_000_000_000i64))),
        "input `seed`: expected a whole number from 1 to 4294967295 or \"random\", found 5000000000"
    );
}

#[node(id = "example.endless", version = "1.0.0")]
fn endless(#[param(default = f64::INFINITY)] x: f64) -> f64 {
    x
}

#[node(id = "example.wide", version = "1.0.0", output = "sum")]
fn wide(#[param(default = 1, range = -5..=900)] n: u8) -> i64 {
    n.into()
}

#[node(id = "example.scaled", version = "1.0.0", output = "y", like = "x")]
fn scaled(x: f64) -> f64 {
    x / 10.0
}

#[test]
fn what_a_port_cannot_mean_is_refused() {
    assert_eq!(
        why(testing::descriptor::<endless>()),
        "port `x` of `example.endless`: its default is no finite number, or beyond 64 bits"
    );
    assert_eq!(
        why(testing::descriptor::<wide>()),
        "port `n` of `example.wide`: its range, -5 to 900, leaves that of its type, 0 to 255"
    );
    assert!(why(testing::run::<scaled>().param("x", 1.0).call()).contains("cannot be like"));
}

mod other {
    use super::*;

    #[port_type("example.pair")]
    pub(super) struct Pair {
        pub(super) b: f64,
    }
}

#[port_type("example.pair")]
struct Pair {
    a: f64,
}

#[node(id = "example.pairs", version = "1.0.0", output = "sum")]
fn pairs(one: Pair, two: other::Pair) -> f64 {
    one.a + two.b
}

#[test]
fn a_type_is_one_struct() {
    assert_eq!(why(testing::descriptor::<pairs>()), "two structs are the type `example.pair`");
}

#[node(id = "example.reads", version = "1.0.0", output = "text")]
fn reads(cx: &mut Cx, path: String) -> Result<String> {
    cx.read_text(path)
}

#[test]
fn paths_are_those_of_grants() {
    let read = |path: &str| {
        testing::run::<reads>().file("luts/a.txt", "x").input("path", path).call()?.text("text")
    };
    assert_eq!(read("luts/a.txt").unwrap(), "x");
    assert_eq!(read("./luts/./a.txt").unwrap(), "x");
    let refused = "may not be read: paths are relative to the graph, without `..`";
    assert_eq!(why(read("../luts/a.txt")), format!("`../luts/a.txt` {refused}"));
    let grant = |path: &'static str| {
        std::panic::catch_unwind(move || testing::run::<reads>().file(path, "x")).is_err()
    };
    assert!(["../secret", "/etc/x", "a\\b", "", "."].into_iter().all(grant));
}

#[test]
fn empty_chunks_change_nothing() {
    let mut made = FramesBuilder::new(None).unwrap();
    made.push(&Tensor::random(1, &[2, 4, 4, 3])).unwrap();
    made.push(&Tensor::zeros::<f32>(&[0, 9, 9, 3]).unwrap()).unwrap();
    let frames = made.finish().unwrap();
    assert_eq!((frames.count(), frames.height(), frames.width()), (2, 4, 4));
    assert_eq!(frames.frame(1).unwrap().len(), 48);
    let nothing = Tensor::zeros::<f32>(&[0, 4, 4, 3]).unwrap();
    assert_eq!(why(Frames::new(&nothing, None)), "a video has at least one frame, found none");
}
