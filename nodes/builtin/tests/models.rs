//! The nodes that compute, run one by one: packed against alone, cancelled, reported, written.

mod common;

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use common::{Model, Rig, close, distance, int, named, reference, several, text};
use kino_models::checkpoint::{Checkpoint, DataFile, ModelFolder, PartFiles};
use kino_models::families::Families;
use kino_models::upscale::read_upscaler;
use kino_models::weight::Weights;
use kino_node::{
    Cancel, Error, Guider, GuiderHandle, GuiderState, Latent, Ledger, Patches, SamplingStep,
    Services, Value,
};
use kino_nodes::{Models, OpenModel, TextHandle};
use kino_world::{Folders, read_image};

fn real(value: f64) -> Value {
    Value::Real(value)
}

/// Planning holds the weights of files against their networks, and takes those in the binary to
/// fit: here they are such files.
#[test]
fn the_weights_in_the_binary_are_all_that_their_networks_ask_for() {
    let folder = tempfile::tempdir().unwrap();
    for (path, bytes, _) in kino_nodes::EMBEDDED_FILES {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let checkpoint = Checkpoint::open(&ModelFolder::directory(folder.path()).unwrap()).unwrap();
    let parts = Families::default().read(&checkpoint).unwrap();
    let model = OpenModel::new(checkpoint, parts);
    assert_eq!((model.faults, model.vae_faults), (Vec::new(), [None, None]));
    let upscaler = folder.path().join("video-x4.safetensors");
    std::fs::write(&upscaler, kino_shapes::VIDEO_X4).unwrap();
    let files = PartFiles::of_file(DataFile::open(&upscaler, "video-x4").unwrap()).unwrap();
    let spec = read_upscaler(&files).unwrap();
    let weights = Weights::new(Arc::new(files), DType::F32, &Device::Cpu).unwrap();
    spec.load(&weights.probing(&Arc::default())).map(drop).unwrap();
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
            let Some(back) = shapes.rig.one("unpatchify", &inputs).shared::<Latent>() else {
                panic!()
            };
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
fn a_latent_that_is_no_number_is_an_error_not_a_black_video() {
    let shapes = Shapes::new("a_latent_that_is_no_number");
    let patches = shapes.patches(shapes.noise((32, 32), 1, 1));
    let text = shapes.text("a red circle");
    for broken in [f64::NAN, f64::INFINITY] {
        let Some(whole) = patches.get::<Patches>() else { panic!("expected patches") };
        let mut damaged = kino_node::Patches::clone(whole);
        // One element of one token is enough to be seen at the end.
        let (tokens, width) = damaged.tokens.dims2().unwrap();
        let mut values = damaged.tokens.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values[5] = broken as f32;
        damaged.tokens = Tensor::from_vec(values, (tokens, width), &Device::Cpu).unwrap();
        let inputs = [
            ("dit", shapes.model.dit.clone()),
            ("patches", Value::from(damaged)),
            ("text", text.clone()),
            ("steps", int(2)),
        ];
        let refused = shapes.rig.fails("dit.sample", &inputs);
        assert!(refused.contains("sampling left the range of numbers"), "{refused}");

        let Some(noise) = shapes.noise((32, 32), 5, 1).shared::<Latent>() else {
            panic!("expected a latent")
        };
        let mut damaged = kino_node::Latent::clone(&noise);
        let scale = Tensor::ones((1, 1, 4, 1), damaged.tensor.dtype(), &Device::Cpu).unwrap();
        let scale = scale.affine(broken, 0.0).unwrap();
        let whole = damaged.tensor.narrow(3, 1, 3).unwrap();
        let column = damaged.tensor.narrow(3, 0, 1).unwrap().broadcast_mul(&scale).unwrap();
        damaged.tensor = Tensor::cat(&[column, whole], 3).unwrap();
        let latent = Value::from(damaged);
        let inputs = [("vae", shapes.model.vae.clone()), ("latent", latent)];
        let refused = shapes.rig.fails("vae.decode", &inputs);
        assert!(refused.contains("decoding left the range of numbers"), "{refused}");
    }
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
    let learned = [("frames", frames.clone()), ("model", text("video-x4"))];
    assert_eq!(shapes.rig.fails("upscale", &learned), "cancelled");
    let write = [("frames", frames), ("path", text("x.mp4"))];
    assert_eq!(shapes.rig.fails("video.write", &write), "cancelled");
    let left = std::fs::read_dir(&shapes.rig.out).map_or(0, Iterator::count);
    assert_eq!(left, 0, "nothing is left behind");
}

/// A guider that raises the cancel flag just before the transformer runs.
struct Interrupting(Cancel);

impl Guider for Interrupting {
    fn begin(&self, _: &Cancel) -> Box<dyn GuiderState> {
        Box::new(Interrupting(self.0.clone()))
    }
}

impl GuiderState for Interrupting {
    fn guides(&self, _: SamplingStep) -> bool {
        self.0.cancel();
        false
    }

    fn guide(&mut self, _: SamplingStep, with_text: &Tensor, _: &Tensor) -> Result<Tensor, Error> {
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
        ("guider", Value::from(GuiderHandle(guider))),
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
    let ledger = Ledger::new(u64::MAX);
    kino_nodes::services(Device::Cpu, ledger).with(Arc::new(folders)).with(Arc::clone(models))
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

/// Solvers that add no noise agree where steps are many; `lcm` adds that of its seed, to each clip
/// what it would get alone.
#[test]
fn every_scheduler_samples() {
    let shapes = Shapes::new("schedulers");
    let prompt = shapes.text("a red circle moves right on a white background");
    let (one, two) = (shapes.noise((64, 48), 5, 2), shapes.noise((32, 32), 1, 3));
    let run = |latents: Value, clip: &str, scheduler: &str, more: &[(&str, Value)]| {
        let inputs = [more, &[("scheduler", text(scheduler))]].concat();
        shapes.latent(&shapes.sample(shapes.patches(latents), prompt.clone(), &inputs), clip)
    };
    let many = [("steps", int(40)), ("guidance", real(1.0))];
    let unipc = run(one.clone(), "", "unipc", &many);
    close("dpm++ and unipc", &run(one.clone(), "", "dpm++", &many), &unipc, 0.1);
    assert_eq!(distance(&run(one.clone(), "", "auto", &many), &unipc), 0.0);
    let lcm = |latents: Value, clip: &str, seed: i128| {
        run(latents, clip, "lcm", &[("steps", int(4)), ("seed", int(seed))])
    };
    let alone = lcm(one.clone(), "", 5);
    assert_eq!(distance(&alone, &lcm(one.clone(), "", 5)), 0.0);
    assert!(distance(&alone, &lcm(one.clone(), "", 6)) > 0.1, "another seed, other noise");
    let packed = lcm(several(&[two, one.clone()]), "1", 5);
    close("lcm packed and alone", &packed, &alone, 1e-4);
    // One step adds none.
    let single =
        |seed: i128| run(one.clone(), "", "lcm", &[("steps", int(1)), ("seed", int(seed))]);
    assert_eq!(distance(&single(1), &single(2)), 0.0);
}
