//! Video to video and inpainting: what sampling begins with, and what it leaves as it is.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{Model, Rig, close, distance, fact_list, int, named, number, several, text};
use kino_node::{
    ClipFact, Latent, LatentFact, Mask, MaskFact, Patches, PatchesFact, TensorFact, Value,
};
use kino_port::{Fact, Literal};

/// The embedded model with a prompt.
struct Shapes {
    rig: Rig,
    model: Model<Value>,
    prompt: Value,
}

impl Shapes {
    fn new(name: &str) -> Self {
        let rig = Rig::new(name);
        let model = rig.model("embedded:shapes");
        let inputs = [
            ("encoder", model.text.clone()),
            ("prompt", text("a red circle moves right on a white background")),
        ];
        let prompt = rig.one("text.encode", &inputs);
        Shapes { rig, model, prompt }
    }

    /// Noise of 48×32 pixels and 5 frames.
    fn noise(&self, seed: i128) -> Value {
        self.noise_of((48, 32), 5, seed)
    }

    fn noise_of(&self, (width, height): (i128, i128), frames: i128, seed: i128) -> Value {
        let size = [("width", int(width)), ("height", int(height)), ("frames", int(frames))];
        let inputs = [&[("vae", self.model.vae.clone()), ("seed", int(seed))], &size[..]].concat();
        self.rig.one("latent.noise", &inputs)
    }

    fn patches(&self, latents: Value) -> Value {
        self.rig.one("patchify", &[("dit", self.model.dit.clone()), ("latents", latents)])
    }

    fn run(&self, patches: Value, more: &[(&str, Value)]) -> Vec<Option<Value>> {
        let always = [
            ("dit", self.model.dit.clone()),
            ("patches", patches),
            ("text", self.prompt.clone()),
            ("guidance", Value::Real(1.0)),
        ];
        self.rig.run("dit.sample", &[&always[..], more].concat())
    }

    /// The tokens after a run.
    fn tokens(&self, patches: Value, more: &[(&str, Value)]) -> Tensor {
        let Some(sampled) = self.run(patches, more).remove(0) else { panic!("patches") };
        sampled.get::<Patches>().unwrap().tokens.clone()
    }
}

fn tokens(patches: &Value) -> Tensor {
    patches.get::<Patches>().unwrap().tokens.clone()
}

fn with_tokens(patches: &Value, tokens: Tensor) -> Value {
    Value::from(Patches { tokens, ..patches.get::<Patches>().unwrap().clone() })
}

/// A mask of 48×32 pixels that is 1 from column `from` on.
fn right_of(from: usize) -> Tensor {
    let row: Vec<f32> = (0..48).map(|x| f32::from(u8::from(x >= from))).collect();
    let row = Tensor::new(row, &Device::Cpu).unwrap().reshape((1, 1, 48)).unwrap();
    row.broadcast_as((1, 32, 48)).unwrap().contiguous().unwrap()
}

fn mask(tensor: Tensor) -> Value {
    Value::from(Mask { tensor })
}

/// A start of a strength is the last levels of the run, from (1 − σ)·start + σ·noise on.
#[test]
fn a_start_is_a_shorter_run_from_noised_latents() {
    let shapes = Shapes::new("start");
    let (noise, data) = (shapes.patches(shapes.noise(1)), shapes.patches(shapes.noise(2)));
    let data = with_tokens(&data, (tokens(&data) * 0.3).unwrap());
    let levels = [("dit", shapes.model.dit.clone()), ("steps", int(10))];
    let sigmas = shapes.rig.one("schedule", &levels).tensor().unwrap(); // [11]
    for scheduler in ["unipc", "dpm++"] {
        let rest = sigmas.narrow(0, 7, 4).unwrap();
        let sigma = f64::from(rest.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap()[0]);
        let inputs = [
            ("start", data.clone()),
            ("strength", Value::Real(0.3)),
            ("sigmas", Value::Tensor(sigmas.clone())),
            ("scheduler", text(scheduler)),
        ];
        let ran = shapes.run(noise.clone(), &inputs);
        let trace = ran[1].as_ref().unwrap().tensor().unwrap();
        assert_eq!(trace.dims(), [3, 16, 2, 4, 6], "three of ten steps");
        let found = ran[0].as_ref().unwrap().get::<Patches>().unwrap().tokens.clone();
        let begin = (tokens(&data) * (1.0 - sigma)).unwrap() + (tokens(&noise) * sigma).unwrap();
        let inputs = [("sigmas", Value::Tensor(rest)), ("scheduler", text(scheduler))];
        let expected = shapes.tokens(with_tokens(&noise, begin.unwrap()), &inputs);
        close(scheduler, &found, &expected, 1e-5);
        assert!(distance(&found, &tokens(&data)) > 0.05, "it moves");
    }
    // The whole way is a run from noise, but for the last millionth.
    let whole = [("start", data.clone()), ("steps", int(4))];
    let plain = shapes.tokens(noise.clone(), &[("steps", int(4))]);
    close("strength 1", &shapes.tokens(noise.clone(), &whole), &plain, 1e-3);
    // Of a whole number of steps fewer than one, nothing is left.
    let none = [
        ("dit", shapes.model.dit.clone()),
        ("patches", noise),
        ("text", shapes.prompt.clone()),
        ("start", data),
        ("strength", Value::Real(0.04)),
    ];
    let fails = shapes.rig.fails("dit.sample", &none);
    assert!(fails.contains("a strength of 0.04 leaves none of 20 steps to run"), "{fails}");
}

/// Between steps the known part is what it would be at that level, written out step by step.
#[test]
fn the_known_part_is_put_back_at_every_level() {
    let shapes = Shapes::new("known");
    let (noise, known) = (shapes.patches(shapes.noise(1)), shapes.noise(2));
    let latent = known.get::<Latent>().unwrap();
    let known_tokens = tokens(&shapes.patches(known.clone()));
    // A border at a latent pixel's edge, so that the mask is 0 or 1 everywhere.
    let pixels = mask(right_of(24));
    let inputs =
        |scheduler| [("mask", pixels.clone()), ("known", known.clone()), ("scheduler", scheduler)];
    let cells = shapes.patches(Value::from(Latent {
        tensor: Tensor::cat(
            &[
                Tensor::zeros((16, 2, 4, 3), DType::F32, &Device::Cpu).unwrap(),
                Tensor::ones((16, 2, 4, 3), DType::F32, &Device::Cpu).unwrap(),
            ],
            3,
        )
        .unwrap(),
        space: latent.space.clone(),
    }));
    let free = tokens(&cells);
    let put_back = |x: Tensor, sigma: f64| {
        let noised =
            ((&known_tokens * (1.0 - sigma)).unwrap() + (tokens(&noise) * sigma).unwrap()).unwrap();
        let held = (free.affine(-1.0, 1.0).unwrap() * noised).unwrap();
        ((x * &free).unwrap() + held).unwrap()
    };
    let levels = [1.0f32, 0.8, 0.5, 0.2, 0.0];
    let mut x = tokens(&noise);
    for pair in levels.windows(2) {
        let sigmas = Value::Tensor(Tensor::new(pair, &Device::Cpu).unwrap());
        let step = [("sigmas", sigmas), ("scheduler", text("euler"))];
        x = put_back(shapes.tokens(with_tokens(&noise, x), &step), f64::from(pair[1]));
    }
    let sigmas = Value::Tensor(Tensor::new(&levels, &Device::Cpu).unwrap());
    let all = [&inputs(text("euler"))[..], &[("sigmas", sigmas)]].concat();
    close("step by step", &shapes.tokens(noise.clone(), &all), &x, 1e-5);

    for scheduler in ["unipc", "euler", "dpm++", "lcm"] {
        let more = [&inputs(text(scheduler))[..], &[("steps", int(3))]].concat();
        let found = shapes.tokens(noise.clone(), &more);
        let held = |tokens: &Tensor| (tokens * free.affine(-1.0, 1.0).unwrap()).unwrap();
        assert_eq!(distance(&held(&found), &held(&known_tokens)), 0.0, "{scheduler}");
        assert!(distance(&found, &known_tokens) > 0.1, "{scheduler}: the rest is made anew");
    }
}

#[test]
fn an_empty_mask_keeps_everything_and_a_full_one_nothing() {
    let shapes = Shapes::new("masks");
    let (noise, known) = (shapes.patches(shapes.noise(1)), shapes.noise(2));
    let plain = shapes.tokens(noise.clone(), &[("steps", int(3))]);
    let start = shapes.patches(known.clone());
    let with = |value: f64, port: &str, from: Value| {
        let all = Tensor::full(value as f32, (5, 32, 48), &Device::Cpu).unwrap();
        let inputs = [("mask", mask(all)), (port, from), ("steps", int(3))];
        shapes.tokens(noise.clone(), &inputs)
    };
    assert_eq!(distance(&with(0.0, "known", known.clone()), &tokens(&start)), 0.0);
    assert_eq!(distance(&with(1.0, "known", known.clone()), &plain), 0.0);
    // What is known is the start where nothing else is said.
    assert_eq!(distance(&with(0.0, "start", start.clone()), &tokens(&start)), 0.0);
    let half = with(0.5, "known", known);
    assert!(distance(&half, &plain) > 0.05 && distance(&half, &tokens(&start)) > 0.05);
}

#[test]
fn packed_clips_are_held_as_each_alone() {
    let shapes = Shapes::new("packed");
    let clips = [("one", (48, 32), 5), ("two", (32, 48), 1)];
    let latents = |seed: i128| clips.map(|(name, size, n)| (name, shapes.noise_of(size, n, seed)));
    let (noise, known) = (latents(1), latents(2));
    let masks = clips.map(|(name, (width, height), _)| {
        let sizes = [("width", width), ("height", height), ("x", 16), ("w", 16), ("h", 32)];
        (name, shapes.rig.one("mask.rect", &sizes.map(|(port, size)| (port, int(size)))))
    });
    // Masks stand in another order: they belong to clips by name.
    let turned = [masks[1].clone(), masks[0].clone()];
    let inputs = [("mask", named(&turned)), ("known", named(&known)), ("steps", int(3))];
    let packed = shapes.tokens(shapes.patches(named(&noise)), &inputs);
    let mut first = 0;
    for index in 0..clips.len() {
        let inputs = [
            ("mask", masks[index].1.clone()),
            ("known", known[index].1.clone()),
            ("steps", int(3)),
        ];
        let alone = shapes.tokens(shapes.patches(noise[index].1.clone()), &inputs);
        let count = alone.dim(0).unwrap();
        let clip = packed.narrow(0, first, count).unwrap();
        close(clips[index].0, &clip, &alone, 1e-5);
        first += count;
    }
    let three = several(&[masks[0].1.clone(), masks[1].1.clone(), masks[0].1.clone()]);
    let inputs = [
        ("dit", shapes.model.dit.clone()),
        ("patches", shapes.patches(named(&noise))),
        ("text", shapes.prompt.clone()),
        ("mask", three),
        ("known", named(&known)),
    ];
    assert_eq!(
        shapes.rig.fails("dit.sample", &inputs),
        "input `mask`: expected one mask, or one for each of the 2 clips, found 3"
    );
}

/// What does not fit is said while planning, and a run of known strength has a known length.
#[test]
fn what_does_not_fit_is_an_error_of_the_plan() {
    let rig = Rig::new("known-plans");
    let model = rig.model_facts("embedded:shapes");
    let size = [("width", number(48)), ("height", number(32)), ("frames", number(5))];
    let noise = [&[("vae", model.vae.clone()), ("seed", number(1))], &size[..]].concat();
    let noise = rig.fact("latent.noise", &noise, 0);
    let space = noise.get::<LatentFact>().unwrap().space.clone();
    let latents = fact_list(&[("", noise.clone())]);
    let patches = rig.fact("patchify", &[("dit", model.dit.clone()), ("latents", latents)], 0);
    let real = |value: f64| Fact::Literal(Literal::Real(value));
    let with = |more: &[(&'static str, Fact)]| {
        let text = fact_list(&[("", Fact::Unknown)]);
        let always = [("dit", model.dit.clone()), ("patches", patches.clone()), ("text", text)];
        [&always[..], more].concat()
    };
    let mask = |shape: [usize; 3]| ("mask", Fact::typed(MaskFact { shape: shape.map(Some) }));
    let clip =
        ClipFact { name: None, grid: [3, 2, 3].map(Some), channels: 16, space: space.clone() };
    let longer = Fact::typed(PatchesFact { clips: vec![clip], patch: [1, 2, 2] });
    for (inputs, says) in [
        (vec![("strength", real(0.5))], "strength: there is no `start` to keep anything of"),
        (vec![mask([1, 32, 48])], "mask: nothing is known that could stay outside the mask"),
        (vec![("known", noise.clone())], "known: without a mask all is made anew"),
        (
            vec![mask([1, 32, 64]), ("known", noise.clone())],
            "mask: a mask has the size of the clip, 48×32 and 1 or 5 frames, found 64×32 and 1",
        ),
        (
            vec![mask([4, 32, 48]), ("known", noise.clone())],
            "mask: a mask has the size of the clip, 48×32 and 1 or 5 frames, found 48×32 and 4",
        ),
        (
            vec![
                mask([1, 32, 48]),
                ("known", Fact::typed(LatentFact { shape: [16, 2, 4, 4].map(Some), space })),
            ],
            "known: the clip's latent is [16, 2, 4, 6], what is known [16, 2, 4, 4]",
        ),
        (
            vec![("start", longer)],
            "start: the start has clips of 3×2×3 patches (time×height×width), the noise of 2×2×3",
        ),
        (
            vec![("start", patches.clone()), ("strength", real(0.01))],
            "strength: a strength of 0.01 leaves none of 20 steps to run",
        ),
    ] {
        let said = rig.objects("dit.sample", &with(&inputs));
        assert!(said.starts_with(says), "{said}");
    }
    let start = [("start", patches.clone()), ("strength", real(0.6))];
    let planned = rig.infer("dit.sample", &with(&start)).unwrap();
    let trace = planned.outputs[1].get::<TensorFact>().unwrap();
    assert_eq!(trace.shape, [12, 16, 2, 4, 6], "12 of 20 steps");
    let alone = rig.infer("dit.sample", &with(&[])).unwrap();
    assert!(planned.memory > alone.memory);
}
