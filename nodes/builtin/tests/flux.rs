//! FLUX.1 through the nodes, against whole pipelines of diffusers (`tests/ref/flux.py`).

mod common;

use candle_core::Tensor;
use common::flux::flux;
use common::{Rig, close, distance, fact_list, int, json, known, number, text};
use kino_node::{Conditioning, ConditioningFact, Value};
use kino_port::Fact;

const GOLDEN: &str = "flux/golden.safetensors";

/// Text and pictures to pictures, with a guidance that the transformer is told and without, with a
/// step cache: latents after every step and the decoded picture.
#[test]
fn pictures_equal_those_of_diffusers() {
    let rig = Rig::new("flux");
    let meta = json("flux/meta.json");
    let prompt = meta["prompt"].as_str().unwrap();
    let models = [flux("flux-dev", false), flux("flux-schnell", true)];
    let cases = meta["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let golden = |what: &str| rig.golden(GOLDEN, &format!("{name}.{what}"));
        let model = rig.model(models[usize::from(name.starts_with("schnell"))].path());
        let inputs = [("encoder", model.text.clone()), ("prompt", text(prompt))];
        let encoded = rig.one("text.encode", &inputs);
        let patches =
            |latent: Value| rig.one("patchify", &[("dit", model.dit.clone()), ("latents", latent)]);
        let noise = golden("noise").tensor().unwrap().unsqueeze(1).unwrap();
        let mut inputs = vec![
            ("dit", model.dit.clone()),
            ("patches", patches(Value::Tensor(noise))),
            ("text", encoded),
            ("steps", int(case["steps"].as_i64().unwrap().into())),
            ("guidance", Value::Real(case["guidance"].as_f64().unwrap())),
        ];
        if let Some(strength) = case.get("strength") {
            let frames =
                [("vae", model.vae.clone()), ("frames", Value::Tensor(first(golden("image"))))];
            inputs.push(("start", patches(rig.one("vae.encode", &frames))));
            inputs.push(("strength", Value::Real(strength.as_f64().unwrap())));
        }
        let threshold = case.get("cache").map(|threshold| threshold.as_f64().unwrap());
        inputs.extend(threshold.map(|threshold| ("cache", Value::Real(threshold))));
        let sampled = rig.run("dit.sample", &inputs);
        let [Some(clean), Some(Value::Tensor(trace))] = &sampled[..] else { panic!() };
        let steps = golden("steps").tensor().unwrap();
        assert_eq!(steps.dim(0).unwrap() as i64, case["run"].as_i64().unwrap());
        close(&format!("{name}, steps"), &trace.squeeze(2).unwrap(), &steps, 5e-5);
        if threshold.is_some() {
            let (reused, reports) = (&case["reused"], rig.reports.lock().unwrap());
            let told = format!("step cache: {reused} of 8 passes were reused");
            let notes = reports.iter().filter_map(|report| report.note.as_ref());
            assert_eq!(notes.collect::<Vec<_>>(), [&told]);
        }
        let latent = rig.one("unpatchify", &[("patches", clean.clone())]);
        let decode = [("vae", model.vae.clone()), ("latent", latent)];
        let frames = rig.one("vae.decode", &decode).tensor().unwrap();
        close(&format!("{name}, picture"), &frames, &first(golden("frame")), 2e-5);
    }
}

/// A picture as frames.
fn first(picture: Value) -> Tensor {
    picture.tensor().unwrap().unsqueeze(0).unwrap()
}

/// Two encoders of one prompt: what both give, their truncation, and that one of them is in memory
/// at a time.
#[test]
fn two_encoders_read_one_prompt() {
    let rig = Rig::new("flux-text");
    let folder = flux("flux-text", false);
    let model = rig.model_facts(folder.path());
    let long = "deep snow at dawn ".repeat(30);
    let inputs = [("encoder", model.text), ("prompt", known(&long))];
    let inferred = rig.infer("text.encode", &inputs).unwrap();
    let fact: &ConditioningFact = inferred.outputs[0].get().unwrap();
    assert_eq!(fact.shape("text"), Some(&[40, 24][..]));
    assert_eq!(fact.shape("pooled"), Some(&[16][..]));
    let warnings: Vec<&str> = inferred.warnings.iter().map(|w| w.message.as_str()).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("than the encoder of `pooled` reads"), "{warnings:?}");
    assert!(warnings[1].contains("than the encoder of `text` reads"), "{warnings:?}");
    assert!(inferred.weights.is_empty(), "one may leave for the next");
    let model = rig.model(folder.path());
    let inputs = [("encoder", model.text), ("prompt", text("a red fox")), ("negative", text("x"))];
    let encoded = rig.one("text.encode", &inputs).shared::<Conditioning>().unwrap();
    for embeddings in [&encoded.positive, &encoded.negative] {
        let names: Vec<&str> = embeddings.iter().map(|one| &*one.name).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(names.contains(&"text") && names.contains(&"pooled"), "{names:?}");
    }
}

/// The transformer makes pictures, its levels are those of a size, and a guider still guides.
#[test]
fn what_the_transformer_takes_is_known_before_anything_runs() {
    let rig = Rig::new("flux-plan");
    let folder = flux("flux-plan", false);
    let model = rig.model_facts(folder.path());
    let noise = |width: i128, frames: i128| {
        let inputs = [
            ("vae", model.vae.clone()),
            ("width", number(width)),
            ("height", number(16)),
            ("frames", number(frames)),
            ("seed", number(1)),
        ];
        rig.fact("latent.noise", &inputs, 0)
    };
    let patches = |latents: Fact| {
        rig.fact("patchify", &[("dit", model.dit.clone()), ("latents", latents)], 0)
    };
    let inputs = [("encoder", model.text.clone()), ("prompt", known("x"))];
    let encoded = fact_list(&[("", rig.fact("text.encode", &inputs, 0))]);
    let sample = |patches: Fact, more: &[(&'static str, Fact)]| {
        let inputs = [("dit", model.dit.clone()), ("patches", patches), ("text", encoded.clone())];
        [&inputs[..], more].concat()
    };
    let clip = patches(noise(16, 3));
    let refused = rig.objects("dit.sample", &sample(clip, &[]));
    assert!(refused.contains("clips of one frame, found 3 latent frames"), "{refused}");
    let two = patches(fact_list(&[("a", noise(16, 1)), ("b", noise(24, 1))]));
    let refused = rig.objects("dit.sample", &sample(two.clone(), &[]));
    assert!(refused.contains("clips of 4 and of 6 patches are packed"), "{refused}");
    let shift = [("shift", Fact::Literal(kino_port::Literal::Real(1.5)))];
    rig.infer("dit.sample", &sample(two.clone(), &shift)).unwrap();
    let schedule = [("dit", model.dit.clone()), ("steps", number(3))];
    let refused = rig.objects("schedule", &schedule);
    assert!(refused.contains("levels of this model depend on the size"), "{refused}");
    let one = [&schedule[..], &[("patches", patches(noise(16, 1)))]].concat();
    rig.infer("schedule", &one).unwrap();
}

/// The levels of `schedule` are those that sampling makes by itself, and a guider costs a second
/// pass and changes the picture; the guidance does so where the transformer is told it.
#[test]
fn guidance_is_told_or_not_taken() {
    let rig = Rig::new("flux-guidance");
    for is_schnell in [false, true] {
        let folder = flux(&format!("flux-guidance-{is_schnell}"), is_schnell);
        let model = rig.model(folder.path());
        let inputs =
            [("encoder", model.text), ("prompt", text("a red fox")), ("negative", text("x"))];
        let encoded = rig.one("text.encode", &inputs);
        let size = [("width", int(16)), ("height", int(16)), ("frames", int(1)), ("seed", int(4))];
        let noise = rig.one("latent.noise", &[&[("vae", model.vae)][..], &size].concat());
        let patches = rig.one("patchify", &[("dit", model.dit.clone()), ("latents", noise)]);
        let sample = |more: &[(&str, Value)]| {
            let inputs = [
                ("dit", model.dit.clone()),
                ("patches", patches.clone()),
                ("text", encoded.clone()),
                ("steps", int(2)),
            ];
            let sampled = rig.one("dit.sample", &[&inputs[..], more].concat());
            rig.one("unpatchify", &[("patches", sampled)]).tensor().unwrap()
        };
        let own = sample(&[]);
        let other = sample(&[("guidance", Value::Real(1.0))]);
        assert_eq!(distance(&own, &other) > 1e-4, !is_schnell);
        let guider = rig.one("guide.cfg", &[("scale", Value::Real(3.0))]);
        assert!(distance(&own, &sample(&[("guider", guider)])) > 1e-4);
        let schedule =
            [("dit", model.dit.clone()), ("steps", int(2)), ("patches", patches.clone())];
        let sigmas = rig.one("schedule", &schedule);
        assert_eq!(distance(&own, &sample(&[("sigmas", sigmas)])), 0.0);
        assert!(distance(&own, &sample(&[("shift", Value::Real(4.0))])) > 1e-4);
    }
}
