//! The nodes that compute, run one by one: against reference values, packed against alone, cancelled.

mod common;

use std::sync::Arc;

use candle_core::{DType, Device, IndexOp, Tensor};
use common::{Model, Rig, close, distance, int, json, named, reference, several, text};
use kino_models::ModelFolder;
use kino_models::text::TextEncoder;
use kino_node::{
    Cancel, Conditioning, Error, Frames, Guidance, Guider, Moment, Services, Spill, Value,
};
use kino_nodes::{Models, TextHandle};
use kino_world::{Folders, read_image, read_tensor};

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
    if rig.golden_names(&golden).contains(&"frames_u8".to_owned()) {
        let frames = rig.one("vae.decode", &[("vae", model.vae), ("latent", latent)]);
        let expected = rig.golden(&golden, "frames_u8").tensor().unwrap();
        close_bytes(&frames.tensor().unwrap(), &expected, 1.0);
    }
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

/// Noise, text and patches of the embedded model, small.
struct Shapes {
    rig: Rig,
    model: Model<Value>,
}

impl Shapes {
    fn new(name: &str) -> Self {
        let rig = Rig::new(name);
        let model = rig.model("embedded:shapes");
        Shapes { rig, model }
    }

    fn noise(&self, (width, height): (i128, i128), frames: i128, seed: i128) -> Value {
        let size = [("width", int(width)), ("height", int(height)), ("frames", int(frames))];
        let inputs = [&[("vae", self.model.vae.clone()), ("seed", int(seed))], &size[..]].concat();
        self.rig.one("latent.noise", &inputs)
    }

    fn text(&self, prompt: &str) -> Value {
        let inputs = [("encoder", self.model.text.clone()), ("prompt", text(prompt))];
        self.rig.one("text.encode", &inputs)
    }

    fn patches(&self, latents: Value) -> Value {
        self.rig.one("patchify", &[("dit", self.model.dit.clone()), ("latents", latents)])
    }

    fn sample(&self, patches: Value, text: Value, more: &[(&str, Value)]) -> Vec<Option<Value>> {
        let inputs = [
            ("dit", self.model.dit.clone()),
            ("patches", patches),
            ("text", text),
            ("steps", int(3)),
        ];
        let kept =
            inputs.into_iter().filter(|(name, _)| more.iter().all(|(other, _)| other != name));
        let inputs: Vec<_> = kept.chain(more.iter().cloned()).collect();
        self.rig.run("dit.sample", &inputs)
    }

    /// The latent of a sampled clip.
    fn latent(&self, sampled: &[Option<Value>], clip: &str) -> Tensor {
        let patches = sampled[0].clone().unwrap();
        let inputs = [("patches", patches), ("clip", text(clip))];
        self.rig.one("unpatchify", &inputs).tensor().unwrap()
    }
}

#[test]
fn unpatchify_is_the_inverse_of_patchify() {
    let shapes = Shapes::new("patches");
    let sizes = [("wide", (96, 32), 9), ("tall", (32, 64), 5), ("image", (48, 48), 1)];
    let latents = sizes.map(|(name, size, frames)| (name, shapes.noise(size, frames, 3)));
    let patches = shapes.patches(named(&latents));
    for (index, (name, latent)) in latents.iter().enumerate() {
        for clip in [(*name).to_owned(), index.to_string()] {
            let inputs = [("patches", patches.clone()), ("clip", text(&clip))];
            let Value::Latent(back) = shapes.rig.one("unpatchify", &inputs) else { panic!() };
            assert_eq!(distance(&back.tensor, &latent.tensor().unwrap()), 0.0, "{clip}");
            assert!(back.space.is_some());
        }
    }
    assert_eq!(
        shapes.rig.fails("unpatchify", &[("patches", patches.clone())]),
        "input `clip`: 3 clips are packed here: which one?"
    );
    let wrong = [("patches", patches), ("clip", text("round"))];
    assert_eq!(shapes.rig.fails("unpatchify", &wrong), "input `clip`: there is no clip `round`");
}

#[test]
fn three_packed_clips_equal_each_alone() {
    let shapes = Shapes::new("packed");
    let clips = [
        ("wide", (96, 64), 17, "a red circle moves right on a white background"),
        ("tall", (64, 96), 9, "a small yellow star spins on a navy background"),
        ("image", (64, 64), 1, "a large blue square on a black background"),
    ];
    let latents = clips.map(|(name, size, frames, _)| (name, shapes.noise(size, frames, 5)));
    let texts = clips.map(|(name, .., prompt)| (name, shapes.text(prompt)));
    // The texts stand in another order: they belong to clips by name.
    let mixed = [texts[2].clone(), texts[0].clone(), texts[1].clone()];
    let packed = shapes.sample(shapes.patches(named(&latents)), named(&mixed), &[]);
    let trace = packed[1].as_ref().unwrap().tensor().unwrap();
    assert_eq!(trace.dims(), [3, 5 * 24 + 3 * 24 + 16, 64]);
    for (index, (name, latent)) in latents.iter().enumerate() {
        let alone = shapes.sample(shapes.patches(latent.clone()), texts[index].1.clone(), &[]);
        let (a, b) = (shapes.latent(&packed, name), shapes.latent(&alone, ""));
        close(name, &a, &b, 1e-5);
    }
    let two = several(&[texts[0].1.clone(), texts[1].1.clone()]);
    let inputs = [
        ("dit", shapes.model.dit.clone()),
        ("patches", shapes.patches(named(&latents))),
        ("text", two),
    ];
    assert_eq!(
        shapes.rig.fails("dit.sample", &inputs),
        "input `text`: expected one text, or one for each of the 3 clips, found 2"
    );
}

/// Above a size, the passes with and without text run one after the other: it must not matter.
#[test]
fn large_and_small_runs_agree() {
    let shapes = Shapes::new("large");
    let prompt = shapes.text("a red circle moves right on a white background");
    let small = shapes.noise((64, 64), 5, 1);
    let many: Vec<Value> = (0..5).map(|seed| shapes.noise((64, 64), 5, seed)).collect();
    let one = [("steps", int(1))];
    let packed = shapes.sample(shapes.patches(several(&many)), prompt.clone(), &one);
    let alone = shapes.sample(shapes.patches(small), prompt, &one);
    close("one of 5", &shapes.latent(&packed, "1"), &shapes.latent(&alone, ""), 1e-5);
}

#[test]
fn a_guider_and_a_schedule_stand_for_their_shorthands() {
    let shapes = Shapes::new("guider");
    let noise = shapes.noise((64, 48), 5, 2);
    let run = |more: &[(&str, Value)]| {
        let prompt = shapes.text("a green triangle moves up on a gray background");
        let sampled = shapes.sample(shapes.patches(noise.clone()), prompt, more);
        shapes.latent(&sampled, "")
    };
    let guider = |scale: f64, to: f64| {
        shapes.rig.one("guide.cfg", &[("scale", real(scale)), ("to", real(to))])
    };
    let plain = run(&[("guidance", real(5.0))]);
    assert_eq!(distance(&plain, &run(&[("guider", guider(5.0, 1.0))])), 0.0);
    assert!(distance(&plain, &run(&[("guider", guider(5.0, 0.5))])) > 1e-3);
    let free = run(&[("guidance", real(1.0))]);
    assert_eq!(distance(&free, &run(&[("guider", guider(7.0, 0.0))])), 0.0);
    let levels = [("dit", shapes.model.dit.clone()), ("steps", int(3))];
    let sigmas = shapes.rig.one("schedule", &levels);
    assert_eq!(distance(&plain, &run(&[("guidance", real(5.0)), ("sigmas", sigmas)])), 0.0);
    let rising = Tensor::new(&[0.2f32, 0.6, 0.0], &Device::Cpu).unwrap();
    let inputs = [
        ("dit", shapes.model.dit.clone()),
        ("patches", shapes.patches(noise.clone())),
        ("text", shapes.text("x")),
        ("sigmas", Value::Tensor(rising)),
    ];
    assert!(shapes.rig.fails("dit.sample", &inputs).contains("levels must fall"));
}

#[test]
fn sampling_reports_every_step_with_a_picture() {
    let shapes = Shapes::new("reports");
    let prompt = shapes.text("a red circle moves right on a white background");
    shapes.rig.reports.lock().unwrap().clear();
    shapes.sample(shapes.patches(shapes.noise((96, 64), 5, 1)), prompt, &[]);
    let reports = shapes.rig.reports.lock().unwrap();
    let steps: Vec<_> = reports.iter().map(|report| (report.step, report.of)).collect();
    assert_eq!(steps, [(0, 3), (1, 3), (2, 3), (3, 3)]);
    for report in &reports[1..] {
        let picture = report.preview.as_ref().expect("a picture");
        assert_eq!((picture.width, picture.height), (252, 168)); // 12 × 8, 21 times
        assert_eq!(picture.rgb.len(), 252 * 168 * 3);
        assert!(picture.rgb.iter().any(|byte| *byte != picture.rgb[0]));
    }
}

#[test]
fn cancelling_stops_every_node_that_computes() {
    let shapes = Shapes::new("cancel");
    let prompt = shapes.text("a red circle");
    let noise = shapes.noise((64, 64), 5, 1);
    let patches = shapes.patches(noise.clone());
    let frames = shapes
        .rig
        .one("vae.decode", &[("vae", shapes.model.vae.clone()), ("latent", noise.clone())]);
    shapes.rig.cancel.cancel();
    let Model { text: encoder, dit, vae } = &shapes.model;
    let encode = [("encoder", encoder.clone()), ("prompt", text("x"))];
    assert_eq!(shapes.rig.fails("text.encode", &encode), "cancelled");
    let sample = [("dit", dit.clone()), ("patches", patches), ("text", prompt)];
    assert_eq!(shapes.rig.fails("dit.sample", &sample), "cancelled");
    let decode = [("vae", vae.clone()), ("latent", noise)];
    assert_eq!(shapes.rig.fails("vae.decode", &decode), "cancelled");
    let encode = [("vae", vae.clone()), ("frames", frames.clone())];
    assert_eq!(shapes.rig.fails("vae.encode", &encode), "cancelled");
    let large = [("frames", frames.clone())];
    assert_eq!(shapes.rig.fails("upscale", &large), "cancelled");
    let write = [("frames", frames), ("path", text("x.mp4"))];
    assert_eq!(shapes.rig.fails("video.write", &write), "cancelled");
    let left = std::fs::read_dir(&shapes.rig.out).map_or(0, Iterator::count);
    assert_eq!(left, 0, "nothing is left behind");
}

/// A guider that raises the cancel flag just before the transformer runs.
struct Interrupting(Cancel);

impl Guider for Interrupting {
    fn begin(&self) -> Box<dyn Guidance> {
        Box::new(Interrupting(self.0.clone()))
    }
}

impl Guidance for Interrupting {
    fn guides(&self, _: Moment) -> bool {
        self.0.cancel();
        false
    }

    fn guide(&mut self, _: Moment, with_text: &Tensor, _: &Tensor) -> Result<Tensor, Error> {
        Ok(with_text.clone())
    }
}

#[test]
fn cancelling_takes_effect_within_a_step() {
    let shapes = Shapes::new("interrupt");
    let guider: Arc<dyn Guider> = Arc::new(Interrupting(shapes.rig.cancel.clone()));
    let inputs = [
        ("dit", shapes.model.dit.clone()),
        ("text", shapes.text("a red circle")),
        ("patches", shapes.patches(shapes.noise((64, 64), 5, 1))),
        ("guider", Value::Guider(guider)),
    ];
    shapes.rig.reports.lock().unwrap().clear();
    assert_eq!(shapes.rig.fails("dit.sample", &inputs), "cancelled");
    let reports = shapes.rig.reports.lock().unwrap();
    assert_eq!(reports.iter().map(|report| report.step).collect::<Vec<_>>(), [0]);
}

#[test]
fn weights_are_loaded_once_and_kept_across_runs() {
    let first = Shapes::new("kept");
    first.text("a red circle");
    let models = first.rig.services.get::<Models>().unwrap();
    let Value::Part(part) = &first.model.text else { panic!() };
    let handle = Arc::clone(&part.handle).downcast::<TextHandle>().unwrap();
    let loaded = models.text_encoder(&handle).unwrap();
    let mut second = Rig::new("kept-again");
    second.services = services_with(&models, &second);
    let inputs = [("encoder", second.model("embedded:shapes").text), ("prompt", text("a star"))];
    second.one("text.encode", &inputs);
    assert!(Arc::ptr_eq(&loaded, &models.text_encoder(&handle).unwrap()));
    models.clear();
    assert!(!Arc::ptr_eq(&loaded, &models.text_encoder(&handle).unwrap()));
}

fn services_with(models: &Arc<Models>, rig: &Rig) -> Services {
    let folders = Folders { graph: reference(""), out: rig.out.clone() };
    let spill = Spill::new(std::env::temp_dir(), u64::MAX);
    kino_nodes::services(Device::Cpu, spill, folders).with(Arc::clone(models))
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
    let Value::Frames(decoded) = &frames else { panic!() };
    assert_eq!((decoded.count(), decoded.fps()), (9, None));
    let latent = rig.one("vae.encode", &[("vae", vae.clone()), ("frames", frames.clone())]);
    assert_eq!(latent.tensor().unwrap().dims(), [16, 3, 4, 6]);
    // Chunked otherwise, the same frames give the same latent.
    let whole = Frames::from_tensor(&frames.tensor().unwrap(), None).unwrap();
    let again = [("vae", vae.clone()), ("frames", Value::Frames(whole.into()))];
    assert_eq!(
        distance(&rig.one("vae.encode", &again).tensor().unwrap(), &latent.tensor().unwrap()),
        0.0
    );
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
    let direct = TextEncoder::load(&folder, DType::F32, &Device::Cpu).unwrap();
    let inputs =
        [("encoder", encoder), ("prompt", text("a  fox &amp; snow")), ("negative", text("blur"))];
    let Value::Conditioning(found) = rig.one("text.encode", &inputs) else { panic!() };
    let Conditioning { positive, negative } = &*found;
    let encode = |prompt: &str| direct.encode(prompt, &mut || Ok(())).unwrap();
    assert_eq!(distance(positive, &encode("a fox & snow")), 0.0);
    assert_eq!(distance(negative, &encode("blur")), 0.0);
}

#[test]
fn files_carry_their_workflow_and_read_back() {
    let shapes = Shapes::new("files");
    let noise = shapes.noise((64, 48), 5, 1);
    let frames =
        shapes.rig.one("vae.decode", &[("vae", shapes.model.vae.clone()), ("latent", noise)]);
    for path in ["a.mp4", "b.webp", "deep/c.png"] {
        let inputs = [("frames", frames.clone()), ("path", text(path)), ("fps", real(8.0))];
        let Value::File(file) = shapes.rig.one("video.write", &inputs) else { panic!("{path}") };
        assert_eq!(file.path, shapes.rig.out.join(path));
        assert_eq!(file.bytes, std::fs::metadata(&file.path).unwrap().len());
        assert_eq!(file.hash, kino_world::hash_file(&file.path).unwrap());
        let record = kino_world::read_metadata(&file.path).unwrap();
        assert_eq!(record.as_deref(), Some("Graph(version: 1, nodes: {})"), "{path}");
    }
    let all = frames.tensor().unwrap();
    let inputs = [("frames", frames.clone()), ("path", text("f_%02d.png"))];
    let Value::List(files) = shapes.rig.one("image.write", &inputs) else { panic!() };
    assert_eq!(files.len(), 5);
    for (index, (_, file)) in files.iter().enumerate() {
        let Value::File(file) = file else { panic!() };
        let path = file.path.to_str().unwrap();
        let back = shapes.rig.one("image.read", &[("path", text(path))]).tensor().unwrap();
        close(path, &back, &all.narrow(0, index, 1).unwrap(), 0.5001 / 255.0);
        assert_eq!(read_image(&file.path).unwrap().width, 64);
    }
    let several = [("frames", frames), ("path", text("one.png"))];
    let message = "input `frames`: a PNG file holds one image, found 5 frames";
    assert_eq!(shapes.rig.fails("image.write", &several), message);
}

impl Rig {
    /// The names in a reference file.
    fn golden_names(&self, path: &str) -> Vec<String> {
        let infos = kino_world::tensor_info(&reference(path)).unwrap();
        assert!(read_tensor(&reference(path), &infos[0].name).is_ok());
        infos.into_iter().map(|info| info.name).collect()
    }
}
