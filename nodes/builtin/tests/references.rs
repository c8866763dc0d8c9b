//! Nodes one by one against reference values: prompts to frames by nodes alone, as diffusers and
//! the embedded model's own sampler computed them.

mod common;

use candle_core::{DType, Device, IndexOp, Tensor};
use common::{Rig, close, distance, int, json, reference, text};
use kino_models::ModelFolder;
use kino_models::families::wan::VaeConfig;
use kino_models::families::wan::vae::Vae;
use kino_models::text::T5Encoder;
use kino_models::tile::Tile;
use kino_node::{Conditioning, Control, Frames, Given, Value};

fn real(value: f64) -> Value {
    Value::Real(value)
}

/// Prompt to frames by nodes alone, as `meta.json` says; compared to diffusers' pipeline.
#[track_caller]
fn check_pipeline(family: &str, case: &str) {
    let rig = Rig::new(&format!("pipeline-{family}-{case}"));
    let meta = json(&format!("{family}/golden/meta.json"));
    let about = &meta["files"][case];
    let golden = format!("{family}/golden/{case}.safetensors");
    let model = rig.model(&format!("{family}/model"));
    let prompt = text(about["prompt"].as_str().unwrap());
    let negative = text(about["neg"].as_str().unwrap_or_default());
    let prompts = [("encoder", model.text), ("prompt", prompt), ("negative", negative)];
    let conditioning = rig.one("text.encode", &prompts);
    let start = rig.golden(&golden, "latents_init");
    let patches = rig.one("patchify", &[("dit", model.dit.clone()), ("latents", start)]);
    let euler = about["scheduler"] == "FlowMatchEulerDiscreteScheduler";
    let sampled = rig.run(
        "dit.sample",
        &[
            ("dit", model.dit),
            ("patches", patches),
            ("text", conditioning),
            ("steps", int(about["steps"].as_i64().unwrap().into())),
            ("guidance", real(about["cfg"].as_f64().unwrap())),
            ("shift", real(about["scheduler_shift"].as_f64().unwrap())),
            ("scheduler", text(if euler { "euler" } else { "unipc" })),
        ],
    );
    let [Some(patches), Some(Value::Tensor(trace))] = &sampled[..] else { panic!("two outputs") };
    let steps = rig.golden(&golden, "latents_steps").tensor().unwrap().squeeze(1).unwrap();
    close("latents of every step", trace, &steps, 1e-4);
    let latent = rig.one("unpatchify", &[("patches", patches.clone())]);
    let last = trace.i(trace.dim(0).unwrap() - 1).unwrap();
    assert_eq!(distance(&latent.tensor().unwrap(), &last), 0.0);
    let frames = rig.one("vae.decode", &[("vae", model.vae), ("latent", latent)]);
    let expected = rig.golden(&golden, "frames_u8").tensor().unwrap();
    close_bytes(&frames.tensor().unwrap(), &expected, 1.0);
}

/// Frames in 0…1 against bytes.
#[track_caller]
fn close_bytes(frames: &Tensor, expected: &Tensor, limit: f64) {
    let bytes = (frames * 255.0).unwrap().round().unwrap();
    let expected = expected.reshape(bytes.dims()).unwrap();
    close("frames", &bytes, &expected, limit);
}

#[test]
fn text_to_video_by_nodes_equals_diffusers() {
    check_pipeline("wan_t2v", "pipe_a");
}

#[test]
fn euler_without_guidance_by_nodes_equals_diffusers() {
    check_pipeline("wan_t2v", "pipe_b");
}

#[test]
fn text_to_image_by_nodes_equals_diffusers() {
    check_pipeline("wan_t2v", "pipe_image");
}

/// The embedded model from its noise to its frames, a case of every size.
#[test]
fn the_embedded_model_by_nodes_equals_its_reference() {
    let rig = Rig::new("embedded");
    let model = rig.model("embedded:shapes");
    for case in json("shapes/meta.json")["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        if case.get("image").is_some() || case.get("start").is_some() {
            continue;
        }
        let golden = format!("shapes/{name}.safetensors");
        let prompts = [
            ("encoder", model.text.clone()),
            ("prompt", text(case["prompt"].as_str().unwrap())),
            ("negative", text(case["negative"].as_str().unwrap())),
        ];
        let latents = rig.golden(&golden, "noise");
        let sampled = rig.run(
            "dit.sample",
            &[
                ("dit", model.dit.clone()),
                (
                    "patches",
                    rig.one("patchify", &[("dit", model.dit.clone()), ("latents", latents)]),
                ),
                ("text", rig.one("text.encode", &prompts)),
                ("steps", int(case["steps"].as_i64().unwrap().into())),
                ("guidance", real(case["guidance"].as_f64().unwrap())),
                ("shift", real(case["shift"].as_f64().unwrap())),
            ],
        );
        let [Some(patches), Some(Value::Tensor(trace))] = &sampled[..] else { panic!() };
        let steps = rig.golden(&golden, "latents_steps").tensor().unwrap().squeeze(1).unwrap();
        close(&format!("{name}, latents"), trace, &steps, 1e-3);
        let latent = rig.one("unpatchify", &[("patches", patches.clone())]);
        let frames = rig.one("vae.decode", &[("vae", model.vae.clone()), ("latent", latent)]);
        let expected = rig.golden(&golden, "frames_u8").tensor().unwrap();
        close_bytes(&frames.tensor().unwrap(), &expected, 2.0);
    }
}

/// What is given at the start, at the end or at both, encoded as the reference does.
#[test]
fn given_frames_are_encoded_as_the_reference_does() {
    let rig = Rig::new("given");
    let model = rig.model("embedded:shapes");
    let cases = json("shapes/meta.json");
    let cases = cases["cases"].as_array().unwrap().iter();
    let mut found = 0;
    for case in cases.filter(|case| case.get("start").is_some()) {
        let golden = format!("shapes/{}.safetensors", case["name"].as_str().unwrap());
        let mut inputs = vec![
            ("dit", model.dit.clone()),
            ("vae", model.vae.clone()),
            ("frames", int(case["frames"].as_i64().unwrap().into())),
        ];
        for (port, name) in [("start", "start_u8"), ("end", "end_u8")] {
            if case[port].as_i64().unwrap() > 0 {
                let frames = rig.golden(&golden, name).tensor().unwrap();
                let frames = (frames.to_dtype(DType::F32).unwrap() / 255.0).unwrap();
                inputs.push((port, Value::Tensor(frames)));
            }
        }
        let Some(given) = rig.one("given", &inputs).shared::<Given>() else { panic!() };
        let known = rig.golden(&golden, "known").tensor().unwrap().squeeze(0).unwrap();
        close(&golden, &given.latent.tensor, &known, 2e-5);
        let free = rig.golden(&golden, "mask").tensor().unwrap();
        let mask = given.mask.tensor.i((.., 0, 0)).unwrap();
        assert_eq!(distance(&mask, &free.affine(-1.0, 1.0).unwrap()), 0.0);
        found += 1;
    }
    assert_eq!(found, 3);
}

/// A strength of 0 holds to nothing and one of 1 wholly; between them the clip goes on from where
/// the frames would be at that part of the noise.
#[test]
fn strength_says_how_far_given_frames_are_held() {
    let rig = Rig::new("given-strength");
    let model = rig.model("embedded:shapes");
    let file = "shapes/i2v.safetensors";
    let first = rig.golden(file, "frames_u8").tensor().unwrap().narrow(0, 0, 1).unwrap();
    let first = (first.to_dtype(DType::F32).unwrap() / 255.0).unwrap();
    let prompts = [("encoder", model.text.clone()), ("prompt", text("a red circle"))];
    let prompt = rig.one("text.encode", &prompts);
    let noise = rig.golden(file, "noise").tensor().unwrap().squeeze(0).unwrap();
    let noise = Value::Tensor(noise.narrow(1, 0, 2).unwrap());
    let patches = rig.one("patchify", &[("dit", model.dit.clone()), ("latents", noise)]);
    let sample = |given: Option<Value>| {
        let mut inputs = vec![
            ("dit", model.dit.clone()),
            ("patches", patches.clone()),
            ("text", prompt.clone()),
            ("steps", int(3)),
        ];
        inputs.extend(given.map(|given| ("given", given)));
        let sampled = rig.one("dit.sample", &inputs);
        rig.one("unpatchify", &[("patches", sampled)]).tensor().unwrap()
    };
    let given = |strength: f64| {
        let inputs = [
            ("dit", model.dit.clone()),
            ("vae", model.vae.clone()),
            ("frames", int(5)),
            ("start", Value::Tensor(first.clone())),
            ("strength", real(strength)),
        ];
        rig.one("given", &inputs)
    };
    let known = given(1.0).shared::<Given>().unwrap().latent.tensor.narrow(1, 0, 1).unwrap();
    let off = |latent: &Tensor| {
        let gap = (latent.narrow(1, 0, 1).unwrap() - &known).unwrap().abs().unwrap();
        f64::from(gap.mean_all().unwrap().to_scalar::<f32>().unwrap())
    };
    let free = sample(None);
    assert_eq!(distance(&sample(Some(given(0.0))), &free), 0.0);
    let (weak, strong, whole) =
        (off(&sample(Some(given(0.3)))), off(&sample(Some(given(0.8)))), sample(Some(given(1.0))));
    assert_eq!(off(&whole), 0.0);
    let free = off(&free);
    println!("off by {free} (0), {weak} (0.3), {strong} (0.8)");
    assert!(strong < weak && weak < free && strong > 0.0, "{free}, {weak}, {strong}");
    // What is held in part is not put back: it was made to change.
    let decode = |given: Option<Value>| {
        let mut inputs = vec![("vae", model.vae.clone()), ("latent", Value::Tensor(whole.clone()))];
        inputs.extend(given.map(|given| ("given", given)));
        rig.one("vae.decode", &inputs).tensor().unwrap()
    };
    let decoded = decode(None);
    assert_eq!(distance(&decode(Some(given(0.8))), &decoded), 0.0);
    let exact = decode(Some(given(1.0)));
    assert_eq!(distance(&exact.narrow(0, 0, 1).unwrap(), &first), 0.0);
    let rest = |frames: &Tensor| frames.narrow(0, 1, 4).unwrap();
    assert_eq!(distance(&rest(&exact), &rest(&decoded)), 0.0);
}

/// A transformer that reads channels is given the clip encoded as a whole, grey where nothing is.
#[test]
fn a_clip_for_channels_is_encoded_whole() {
    let rig = Rig::new("given-channels");
    let model = rig.model("wan_i2v/model");
    let golden = "wan_i2v/golden/image_cond.safetensors";
    let picture = |name: &str| {
        let bytes = rig.golden(golden, name).tensor().unwrap().to_dtype(DType::F32).unwrap();
        Value::Tensor((bytes / 255.0).unwrap())
    };
    let inputs = [
        ("dit", model.dit.clone()),
        ("vae", model.vae.clone()),
        ("frames", int(9)),
        ("start", picture("first_u8")),
    ];
    let both = [&inputs[..], &[("end", picture("last_u8"))]].concat();
    for (inputs, name) in [(&inputs[..], "condition"), (&both, "condition_first_last")] {
        let Some(given) = rig.one("given", inputs).shared::<Given>() else { panic!() };
        let condition = rig.golden(golden, name).tensor().unwrap().squeeze(0).unwrap();
        let latent = condition.narrow(0, 4, 16).unwrap(); // after the mask
        close(name, &given.latent.tensor, &latent, 2e-5);
    }
    let weak = [&inputs[..], &[("strength", Value::Real(0.5))]].concat();
    let refused = rig.fails("given", &weak);
    assert!(refused.contains("holds to given frames wholly"), "{refused}");
}

/// What a clip follows: two latents and a mask, with pictures before them, as diffusers encodes it.
#[test]
fn a_control_is_encoded_as_diffusers_does() {
    let rig = Rig::new("vace");
    let model = rig.model("wan_vace/model");
    let golden = |name: &str| rig.golden("wan_vace/golden.safetensors", name).tensor().unwrap();
    let bytes = |name: &str| {
        let bytes = golden(name).to_dtype(DType::F32).unwrap();
        Value::Tensor((bytes / 255.0).unwrap())
    };
    let pictures = |names: &[&str]| {
        Value::List(names.iter().map(|name| (None, bytes(name))).collect::<Vec<_>>().into())
    };
    let (film, size) =
        (("video", bytes("clip_u8")), [("width", 48), ("height", 32), ("frames", 9)]);
    let size = size.map(|(name, value)| (name, int(value)));
    let mask = ("mask", Value::Tensor(golden("mask")));
    let cases = [
        ("a", [&size[..], &[("references", pictures(&["wide_u8", "tall_u8"]))]].concat(), 2),
        ("b", vec![film.clone(), mask, ("strength", real(0.7))], 0),
        ("c", vec![film, ("references", pictures(&["tall_u8"]))], 1),
    ];
    for (name, inputs, references) in cases {
        let parts = [("dit", model.dit.clone()), ("vae", model.vae.clone())];
        let made = rig.run("vace", &[&parts[..], &inputs].concat());
        let control = made[0].as_ref().and_then(Value::shared::<Control>).unwrap();
        close(name, &control.tensor, &golden(&format!("{name}.control")), 2e-5);
        let strength = if name == "b" { 0.7 } else { 1.0 };
        assert_eq!((control.references, control.strength), (references, strength));
        let Some(Value::Int(frames)) = made[1] else { panic!("a number of frames") };
        assert_eq!(frames, 9 + 4 * references as i128);
    }
}

/// A video that is shorter than the clip goes on grey, and all of that is made anew.
#[test]
fn past_the_video_all_is_made() {
    let rig = Rig::new("vace-short");
    let model = rig.model("wan_vace/model");
    let film = rig.golden("wan_vace/golden.safetensors", "clip_u8").tensor().unwrap();
    let film = (film.to_dtype(DType::F32).unwrap() / 255.0).unwrap();
    let first = film.narrow(0, 0, 1).unwrap();
    let grey = Tensor::full(0.5f32, (8, 32, 48, 3), &Device::Cpu).unwrap();
    let longer = Tensor::cat(&[&first, &grey], 0).unwrap();
    let mask = |stays: usize, frames: usize| {
        let made = (0..frames).map(|frame| f32::from(frame >= stays)).collect::<Vec<_>>();
        let made = Tensor::from_vec(made, (frames, 1, 1), &Device::Cpu).unwrap();
        Value::Tensor(made.broadcast_as((frames, 32, 48)).unwrap().contiguous().unwrap())
    };
    let control = |video: Tensor, mask: Value| {
        let inputs = [
            ("dit", model.dit.clone()),
            ("vae", model.vae.clone()),
            ("video", Value::Tensor(video)),
            ("mask", mask),
            ("frames", int(9)),
        ];
        let made = rig.run("vace", &inputs);
        made[0].as_ref().and_then(Value::shared::<Control>).unwrap().tensor.clone()
    };
    let (short, whole) = (control(first, mask(1, 1)), control(longer, mask(1, 9)));
    assert_eq!(distance(&short, &whole), 0.0);
}

/// Encoding and decoding, whole and in tiles, against diffusers.
#[test]
fn frames_to_latents_and_back_equal_diffusers() {
    let rig = Rig::new("vae");
    let vae = rig.model("wan_t2v/model").vae;
    let golden = "wan_t2v/golden/pipe_a.safetensors";
    // What the pipeline decoded, before and after: `vae_in` is no longer normalised.
    let steps = rig.golden(golden, "latents_steps").tensor().unwrap();
    let last = steps.i(steps.dim(0).unwrap() - 1).unwrap(); // [1, c, f, h, w]
    let inputs = [("vae", vae.clone()), ("latent", Value::Tensor(last))];
    let frames = rig.one("vae.decode", &inputs);
    let expected = rig.golden(golden, "vae_out").tensor().unwrap(); // [1, 3, f, h, w]
    let expected = expected.squeeze(0).unwrap().permute((1, 2, 3, 0)).unwrap();
    let expected = expected.affine(0.5, 0.5).unwrap();
    close("decoded", &frames.tensor().unwrap(), &expected, 2e-5);
    let Some(decoded) = frames.get::<Frames>() else { panic!() };
    assert_eq!((decoded.count(), decoded.fps()), (9, None));
    let latent = rig.one("vae.encode", &[("vae", vae.clone()), ("frames", frames.clone())]);
    assert_eq!(latent.tensor().unwrap().dims(), [16, 3, 4, 6]);
    // Chunked otherwise, the same frames give the same latent.
    let whole = Frames::from_tensor(&frames.tensor().unwrap(), None).unwrap();
    let again = [("vae", vae.clone()), ("frames", Value::from(whole))];
    assert_eq!(
        distance(&rig.one("vae.encode", &again).tensor().unwrap(), &latent.tensor().unwrap()),
        0.0
    );
    // In tiles, each of which reads the frames anew, however they are held.
    let folder = ModelFolder::directory(reference("wan_t2v/model")).unwrap();
    let weights = folder.weights("vae", DType::F32, &Device::Cpu).unwrap();
    let direct = Vae::load(&VaeConfig::read(&folder).unwrap(), &weights).unwrap();
    let pixels = frames.tensor().unwrap().affine(2.0, -1.0).unwrap();
    for side in [32, 40, 64] {
        let inputs = [("vae", vae.clone()), ("frames", frames.clone()), ("tile", int(side))];
        let tiled = rig.one("vae.encode", &inputs).tensor().unwrap();
        let tile = Some(Tile::square(side as usize, 8));
        let expected = direct.encode(&pixels, tile, &mut || Ok(())).unwrap();
        close(&format!("tiles of {side}"), &tiled, &expected, 1e-6);
        let whole = distance(&tiled, &latent.tensor().unwrap());
        assert_eq!(whole == 0.0, side == 64, "{side}: {whole}");
    }
    // A tile that holds the whole frame changes nothing; a smaller one does.
    let tiled = |side: i128| {
        let inputs = [("vae", vae.clone()), ("latent", latent.clone()), ("tile", int(side))];
        rig.one("vae.decode", &inputs).tensor().unwrap()
    };
    assert_eq!(distance(&tiled(0), &tiled(64)), 0.0);
    assert!(distance(&tiled(0), &tiled(32)) > 1e-3, "tiles see less, so they must differ");
}

#[test]
fn bytes_to_latents_equal_diffusers() {
    let rig = Rig::new("encode");
    let model = rig.model("wan_t2v/model");
    let config = json("wan_t2v/model/vae/config.json");
    let list = |key: &str| {
        let values = config[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32);
        Tensor::new(values.collect::<Vec<_>>(), &Device::Cpu)
            .unwrap()
            .reshape(((), 1, 1, 1))
            .unwrap()
    };
    for case in ["a", "b", "c"] {
        let golden = |name: &str| {
            let name = format!("{case}.{name}");
            let tensor = rig.golden("wan_t2v/golden/vae.safetensors", &name).tensor().unwrap();
            tensor.to_dtype(DType::F32).unwrap().squeeze(0).unwrap() // [c, f, h, w]
        };
        let frames = golden("video_u8").permute((1, 2, 3, 0)).unwrap(); // [f, h, w, 3]
        let frames = Value::Tensor((frames.contiguous().unwrap() / 255.0).unwrap());
        let latent = rig.one("vae.encode", &[("vae", model.vae.clone()), ("frames", frames)]);
        let mean = golden("mean").broadcast_sub(&list("latents_mean")).unwrap();
        let mean = mean.broadcast_div(&list("latents_std")).unwrap();
        close(case, &latent.tensor().unwrap(), &mean, 2e-5);
    }
}

#[test]
fn prompts_are_encoded_as_the_library_does() {
    let rig = Rig::new("text");
    let encoder = rig.model("wan_t2v/model").text;
    let folder = ModelFolder::directory(reference("wan_t2v/model")).unwrap();
    let direct = T5Encoder::load(
        &folder,
        &kino_models::families::wan::PROMPTS,
        &folder.weights("text_encoder", DType::F32, &Device::Cpu).unwrap(),
    )
    .unwrap();
    let inputs =
        [("encoder", encoder), ("prompt", text("a  fox &amp; snow")), ("negative", text("blur"))];
    let Some(found) = rig.one("text.encode", &inputs).shared::<Conditioning>() else { panic!() };
    let (positive, negative) = (found.positive.text().unwrap(), found.negative.text().unwrap());
    let encode = |prompt: &str| direct.encode(prompt, &mut || Ok(())).unwrap().tensor;
    assert_eq!(distance(positive, &encode("a fox & snow")), 0.0);
    assert_eq!(distance(negative, &encode("blur")), 0.0);
}
