//! The nodes that need no weights: numbers, texts, switches, noise, sizes, tensors.

mod common;

use candle_core::{Device, Tensor};
use common::{Rig, close, fact_list, int, known, named, number, several, text, values};
use kino_node::{FrameRate, Frames, FramesFact, Latent, LatentFact, SigmasFact, TensorFact, Value};
use kino_port::{Fact, Literal};

#[track_caller]
fn check_math(a: Literal, b: Literal, op: &str, expected: Literal) {
    let rig = Rig::new("math");
    let facts =
        [("a", Fact::Literal(a.clone())), ("b", Fact::Literal(b.clone())), ("op", known(op))];
    let planned = rig.fact("math", &facts, 0);
    assert_eq!(planned.literal(), Some(&expected), "{a} {op} {b} while planning");
    let inputs = [("a", Value::from_literal(&a)), ("b", Value::from_literal(&b)), ("op", text(op))];
    let ran = rig.one("math", &inputs);
    assert_eq!(format!("{ran:?}"), format!("{:?}", Value::from_literal(&expected)));
}

#[test]
fn math_computes_the_same_while_planning_and_running() {
    use Literal::{Int, Real};
    check_math(Int(4), Int(1), "add", Int(5));
    check_math(Int(4), Int(6), "sub", Int(-2));
    check_math(Int(4), Int(4), "mul", Int(16));
    check_math(Int(17), Int(4), "div", Int(4));
    check_math(Int(17), Int(4), "mod", Int(1));
    check_math(Int(2), Int(10), "pow", Int(1024));
    check_math(Int(3), Int(8), "min", Int(3));
    check_math(Int(3), Int(8), "max", Int(8));
    check_math(Int(1), Real(0.5), "add", Real(1.5));
    check_math(Real(17.0), Int(4), "div", Real(4.25));
    check_math(Real(-1.5), Int(1), "mod", Real(0.5));
    check_math(Real(2.0), Real(0.5), "pow", Real(std::f64::consts::SQRT_2));
    check_math(Real(-2.5), Int(0), "floor", Int(-3));
    check_math(Real(-2.5), Int(0), "ceil", Int(-2));
    check_math(Real(2.5), Int(0), "round", Int(3));
    check_math(Int(7), Int(0), "round", Int(7));
}

#[test]
fn an_expression_is_computed_from_named_numbers() {
    let rig = Rig::new("expression");
    let named = |seconds: Fact| {
        let items = [("seconds", seconds), ("fps", number(8))];
        Fact::List(items.map(|(name, fact)| (Some(name.into()), fact)).into())
    };
    let expr = |expression: &str, values: Fact| {
        [("expr", known(expression)), ("values", values), ("b", number(1)), ("op", known("add"))]
    };
    let seconds = Fact::Literal(Literal::Real(1.5));
    let planned = rig.fact("math", &expr("4*floor(seconds*fps/4)+b", named(seconds.clone())), 0);
    assert_eq!(planned.literal(), Some(&Literal::Int(13)));
    let value = |literal: &Literal| Value::from_literal(literal);
    let items = [("seconds", value(&Literal::Real(1.5))), ("fps", int(8))];
    let items = items.map(|(name, value)| (Some(name.into()), value)).into();
    let inputs = [
        ("expr", text("4*floor(seconds*fps/4)+b")),
        ("values", Value::List(items)),
        ("b", int(1)),
        ("op", text("add")),
    ];
    assert_eq!(format!("{:?}", rig.one("math", &inputs)), "13");

    let objects = |expression: &str, values| rig.objects("math", &expr(expression, values));
    let unknown = "expr: `second*2` names `second`, which is not there; did you mean `seconds`?";
    assert_eq!(objects("second*2", named(Fact::Unknown)), unknown, "before its numbers are known");
    assert!(objects("seconds*", named(seconds.clone())).contains("ends where a number or a name"));
    assert!(objects("seconds/0", named(seconds)).contains("cannot be divided by 0"));
    assert!(objects("1", Fact::List(vec![(None, number(1))])).contains("needs a name"));
    let twice = Fact::List(["n", "n"].map(|name| (Some(name.into()), number(1))).into());
    assert_eq!(objects("n", twice), "values: `n` is there twice");
    let own = Fact::List(vec![(Some("b".into()), number(5))]);
    let own = rig.fact("math", &expr("b", own), 0);
    assert_eq!(own.literal(), Some(&Literal::Int(5)), "a name of `values` before the port");
    let nothing = [("b", number(1)), ("op", known("add")), ("expr", known(""))];
    assert!(rig.objects("math", &nothing).starts_with("a: nothing feeds it"));
}

#[test]
fn math_objects_to_what_has_no_result() {
    let rig = Rig::new("math-objects");
    let div = |a: Fact, b: Fact| [("a", a), ("b", b), ("op", known("div"))];
    assert_eq!(rig.objects("math", &div(number(3), number(0))), "b: 3 cannot be divided by 0");
    assert_eq!(
        rig.objects("math", &div(known("three"), number(1))),
        "a: expected a number, found \"three\""
    );
    let unknown = rig.fact("math", &div(Fact::Unknown, number(0)), 0);
    assert!(unknown.literal().is_none());
    let inputs = [("a", text("x")), ("b", int(1))];
    assert_eq!(rig.fails("math", &inputs), "input `a`: expected a number, found Text");
}

#[test]
fn switch_chooses_while_planning_and_needs_only_that_side() {
    let rig = Rig::new("switch");
    let bool = |on| Fact::Literal(Literal::Bool(on));
    for (on, side, value) in [(true, "a", 1), (false, "b", 2)] {
        let facts = [("on", bool(on)), ("a", number(1)), ("b", number(2))];
        let infer = rig.infer("switch", &facts).unwrap();
        assert_eq!(infer.chosen, Some(side));
        assert_eq!(infer.outputs[0].literal(), Some(&Literal::Int(value)));
        let chosen = rig.one("switch", &[("on", Value::Bool(on)), (side, int(value))]);
        assert!(matches!(chosen, Value::Int(found) if found == value));
    }
    let infer = rig.infer("switch", &[("on", Fact::Unknown), ("a", number(1))]).unwrap();
    assert_eq!(infer.chosen, None);
    let missing = [("on", Value::Bool(true)), ("b", int(2))];
    assert_eq!(rig.fails("switch", &missing), "input `a`: nothing feeds it");
}

#[test]
fn texts_are_joined_without_empty_ones() {
    let rig = Rig::new("join");
    let parts = ["a cat", "", "at night"];
    let facts = fact_list(&parts.map(|part| ("", known(part))));
    let planned = rig.fact("text.join", &[("parts", facts)], 0);
    assert_eq!(planned.literal(), Some(&Literal::text("a cat, at night")));
    let values = several(&parts.map(text));
    let joined = rig.one("text.join", &[("parts", values), ("separator", text(" / "))]);
    assert!(matches!(joined, Value::Text(text) if &*text == "a cat / at night"));
    let partly = fact_list(&[("", known("x")), ("", Fact::Unknown)]);
    assert!(rig.fact("text.join", &[("parts", partly)], 0).literal().is_none());
}

#[test]
fn a_text_is_picked_by_its_number_while_planning_and_running() {
    let rig = Rig::new("pick");
    let texts = ["a cat", "a dog", ""];
    let facts = |index| {
        [("texts", fact_list(&texts.map(|text| ("", known(text))))), ("index", number(index))]
    };
    let values = |index| [("texts", several(&texts.map(text))), ("index", int(index))];
    for (index, expected) in texts.iter().enumerate() {
        let index = index as i128;
        let planned = rig.fact("text.pick", &facts(index), 0);
        assert_eq!(planned.literal(), Some(&Literal::text(*expected)));
        let ran = rig.one("text.pick", &values(index));
        assert!(matches!(ran, Value::Text(text) if *text == **expected));
    }
    let wrapped = [&facts(7)[..], &[("wrap", Fact::Literal(Literal::Bool(true)))]].concat();
    assert_eq!(rig.fact("text.pick", &wrapped, 0).literal(), Some(&Literal::text("a dog")));
    let wrapped = [&values(7)[..], &[("wrap", Value::Bool(true))]].concat();
    assert!(matches!(rig.one("text.pick", &wrapped), Value::Text(text) if &*text == "a dog"));
    let said = "there are 3 texts, 0 to 2, and 3 is asked for";
    assert!(rig.objects("text.pick", &facts(3)).starts_with(&format!("index: {said}")));
    assert!(rig.fails("text.pick", &values(3)).contains(said));
    let none = [("texts", Fact::Literal(Literal::List(Vec::new()))), ("index", number(0))];
    let said = rig.objects("text.pick", &none);
    assert!(said.starts_with("index: there are no texts, and number 0 is asked for"), "{said}");
    let list = Fact::Literal(Literal::List(vec![Literal::text("one")]));
    let planned = rig.fact("text.pick", &[("texts", list), ("index", number(0))], 0);
    assert_eq!(planned.literal(), Some(&Literal::text("one")));
}

#[test]
fn noise_is_that_of_its_seed_and_elements() {
    let rig = Rig::new("noise");
    let vae = rig.model("embedded:shapes").vae;
    let noise = |width: i128, frames: i128, seed: i128| {
        let size = [("width", int(width)), ("height", int(32)), ("frames", int(frames))];
        let inputs = [&[("vae", vae.clone()), ("seed", int(seed))], &size[..]].concat();
        rig.one("latent.noise", &inputs)
    };
    let Some(latent) = noise(48, 9, 7).shared::<Latent>() else { panic!() };
    assert_eq!(latent.tensor.dims(), [16, 3, 4, 6]);
    let space = latent.space.as_ref().unwrap();
    assert_eq!((space.channels, space.temporal, space.spatial), (16, 4, 8));
    let found: Vec<f32> = latent.tensor.flatten_all().unwrap().to_vec1().unwrap();
    let expected: Vec<f32> = (0..found.len() as u64).map(|i| kino_nodes::normal(7, i)).collect();
    assert_eq!(found, expected);
    // Held so that the numbers never change: later versions must give the same videos.
    let held =
        [kino_nodes::normal(7, 0), kino_nodes::normal(7, 1), kino_nodes::normal(u64::MAX, 9)];
    assert_eq!(held.map(f32::to_bits), HELD, "{held:?}");
    let again = noise(48, 9, 7).tensor().unwrap();
    assert_eq!(values(&again), values(&latent.tensor));
    assert_ne!(values(&noise(48, 9, 8).tensor().unwrap()), values(&again));
}

const HELD: [u32; 3] = [1_047_214_238, 1_059_190_518, 1_070_480_313];

#[test]
fn noise_objects_to_sizes_that_do_not_fit_the_model() {
    let rig = Rig::new("noise-objects");
    let vae = rig.model_facts("embedded:shapes").vae;
    let with = |width: i128, height: i128, frames: i128| {
        let size =
            [("width", number(width)), ("height", number(height)), ("frames", number(frames))];
        [&[("vae", vae.clone()), ("seed", number(1))], &size[..]].concat()
    };
    assert_eq!(
        rig.objects("latent.noise", &with(100, 64, 16)),
        "width: width must be a multiple of 16 for this model, found 100; near it: 96 and 112\n\
         frames: frames must be 4k+1 for this VAE, found 16; near it: 13 and 17"
    );
    assert_eq!(
        rig.objects("latent.noise", &with(96, 3, 17)),
        "height: height must be a multiple of 16 for this model, found 3; near it: 16"
    );
    let infer = rig.infer("latent.noise", &with(96, 64, 17)).unwrap();
    let latent: &LatentFact = infer.outputs[0].get().unwrap();
    assert_eq!(latent.shape, [16, 5, 8, 12].map(Some));
    assert_eq!(infer.memory, 16 * 5 * 8 * 12 * 4);
    let run = [
        ("vae", rig.model("embedded:shapes").vae),
        ("width", int(96)),
        ("height", int(64)),
        ("frames", int(16)),
        ("seed", int(1)),
    ];
    let message = "input `frames`: frames must be 4k+1 for this VAE, found 16; near it: 13 and 17";
    assert_eq!(rig.fails("latent.noise", &run), message);
}

#[test]
fn a_schedule_has_the_levels_of_the_reference() {
    let rig = Rig::new("schedule");
    let dit = rig.model("wan_t2v/model").dit;
    let meta = common::json("wan_t2v/golden/meta.json");
    let steps = meta["files"]["pipe_a"]["steps"].as_i64().unwrap();
    let shift = meta["files"]["pipe_a"]["scheduler_shift"].as_f64().unwrap();
    let inputs = [("dit", dit), ("steps", int(steps.into())), ("shift", Value::Real(shift))];
    let sigmas = rig.one("schedule", &inputs).tensor().unwrap();
    let expected = rig.golden("wan_t2v/golden/pipe_a.safetensors", "sigmas").tensor().unwrap();
    close("sigmas", &sigmas, &expected, 1e-6);
    let facts = [("dit", rig.model_facts("wan_t2v/model").dit), ("steps", number(steps.into()))];
    let fact = rig.fact("schedule", &facts, 0);
    assert_eq!(fact.get(), Some(&SigmasFact { steps: steps as usize }));
}

fn frames(count: usize, height: usize, width: usize) -> Value {
    let n = count * height * width * 3;
    let ramp = Tensor::arange(0f32, n as f32, &Device::Cpu).unwrap();
    let ramp = ((ramp * 7.0).unwrap() / 251.0).unwrap();
    let ramp = (&ramp - ramp.floor().unwrap()).unwrap().reshape((count, height, width, 3)).unwrap();
    Value::from(Frames::from_tensor(&ramp, Some(12.0)).unwrap())
}

/// Pillow 13.0: `Image.fromarray(ramp, "F").resize((5, 2), filter)` of the ramp 0…11 as 3 × 4.
#[test]
fn frames_are_resized_as_pillow_does() {
    let rig = Rig::new("resize");
    let ramp = Tensor::arange(0f32, 12f32, &Device::Cpu).unwrap().reshape((1, 3, 4, 1)).unwrap();
    let ramp = (ramp.broadcast_as((1, 3, 4, 3)).unwrap() / 11.0).unwrap();
    let input = Value::from(Frames::from_tensor(&ramp, None).unwrap());
    for (filter, expected) in PILLOW {
        let size = [("width", int(5)), ("height", int(2)), ("filter", text(filter))];
        let inputs = [&[("frames", input.clone())], &size[..]].concat();
        let result = rig.one("frames.resize", &inputs).tensor().unwrap();
        let red = (result.narrow(3, 0, 1).unwrap().flatten_all().unwrap() * 11.0).unwrap();
        let expected = Tensor::new(&expected[..], &Device::Cpu).unwrap();
        close(filter, &red, &expected, 2e-5);
    }
}

const PILLOW: [(&str, [f32; 10]); 4] = [
    (
        "lanczos",
        [
            1.056_526_5,
            1.706_693_3,
            2.595_802_3,
            3.484_911_4,
            4.135_078, //
            6.864_922,
            7.515_088_6,
            8.404_198,
            9.293_306,
            9.943_474,
        ],
    ),
    (
        "bicubic",
        [
            1.195_896,
            1.887_250_7,
            2.739_165_3,
            3.591_08,
            4.282_434_5, //
            6.717_565_5,
            7.408_92,
            8.260_835,
            9.112_749,
            9.804_104,
        ],
    ),
    ("bilinear", [1.5, 2.2, 3.0, 3.8, 4.5, 6.5, 7.2, 8.0, 8.8, 9.5]),
    ("nearest", [0.0, 1.0, 2.0, 2.0, 3.0, 8.0, 9.0, 10.0, 10.0, 11.0]),
];

#[test]
fn sizes_follow_and_rates_stay() {
    let rig = Rig::new("sizes");
    let wide = [("frames", frames(5, 8, 12)), ("width", int(6))];
    let Some(small) = rig.one("frames.resize", &wide).shared::<Frames>() else { panic!() };
    assert_eq!((small.count(), small.height(), small.width()), (5, 4, 6));
    assert_eq!(small.fps(), Some(12.0));
    let factor = [("frames", frames(5, 8, 12)), ("factor", int(3))];
    let Some(large) = rig.one("upscale", &factor).shared::<Frames>() else { panic!() };
    assert_eq!((large.count(), large.height(), large.width()), (5, 24, 36));
    let all = values(&large.whole().unwrap());
    assert!(all.iter().all(|v| (0.0..=1.0).contains(v)), "Lanczos overshoots, frames do not");
    let frames = |height, width| FramesFact {
        count: Some(5),
        height: Some(height),
        width: Some(width),
        fps: FrameRate::Fps(12.0),
    };
    let fact = Fact::typed(frames(8, 12));
    let planned = rig.fact("upscale", &[("frames", fact.clone()), ("factor", number(3))], 0);
    let expected = frames(24, 36);
    assert_eq!(planned.get(), Some(&expected));
    assert_eq!(
        rig.objects("frames.resize", &[("frames", fact)]),
        "-: no size is given (give `width`, `height`, or both)"
    );
    let latent =
        Fact::typed(TensorFact { shape: vec![16, 5, 8, 12], dtype: candle_core::DType::F32 });
    assert_eq!(
        rig.objects("upscale", &[("frames", latent)]),
        "frames: frames are [count, height, width, 3], found a tensor [16, 5, 8, 12]"
    );
}

#[test]
fn tensors_are_written_and_read_by_name() {
    let rig = Rig::new("tensors");
    let a = Tensor::arange(0f32, 6f32, &Device::Cpu).unwrap().reshape((2, 3)).unwrap();
    let tensors = named(&[("a", Value::Tensor(a.clone())), ("clip", frames(2, 4, 4))]);
    let inputs = [("tensors", tensors), ("path", text("deep/x.safetensors"))];
    let Value::File(file) = rig.one("tensor.write", &inputs) else { panic!() };
    assert_eq!(file.path, rig.out.join("deep/x.safetensors"));
    assert_eq!(file.bytes, std::fs::metadata(&file.path).unwrap().len());
    let path = file.path.to_str().unwrap();
    let back = rig.golden(path, "a").tensor().unwrap();
    assert_eq!(values(&back), values(&a));
    let clip = rig.golden(path, "clip").tensor().unwrap();
    assert_eq!(values(&clip), values(&frames(2, 4, 4).tensor().unwrap()));
    let read = |name: &str| [("path", known(path)), ("name", known(name))];
    let fact = rig.fact("tensor.read", &read("clip"), 0);
    let shape = fact.get::<TensorFact>().unwrap().shape.clone();
    assert_eq!(shape, [2, 4, 4, 3]);
    assert!(rig.objects("tensor.read", &read("clap")).ends_with("(did you mean `clip`?)"));
    assert!(rig.objects("tensor.read", &read("")).contains("holds 2 tensors: which one?"));
    let nameless =
        [("tensors", fact_list(&[("", Fact::Unknown)])), ("path", known("x.safetensors"))];
    assert!(
        rig.objects("tensor.write", &nameless).starts_with("tensors: every tensor needs a name")
    );
}
