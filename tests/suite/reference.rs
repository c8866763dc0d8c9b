//! The reference values of diffusers, through graphs alone: `model.load` from a folder, the
//! starting latents by `tensor.read`, the results by `tensor.write`.

#[path = "reference/variants.rs"]
mod variants;

use candle_core::Tensor;
use kino_tests::{Rig, difference, golden, reference, to_bytes};

/// A whole pipeline from its starting latents.
fn pipeline(model: &str, start: (&str, &str), prompt: (&str, &str), sample: &str) -> Rig {
    let text = format!(
        r#"Graph(version: 1, nodes: {{
            "model": (op: "model.load", with: {{"source": "{model}", "compute": "f32"}}),
            "text": (op: "text.encode", in: {{"encoder": "model.text_encoder"}},
                with: {{"prompt": {prompt}, "negative": {negative}}}),
            "start": (op: "tensor.read", with: {{"path": "{path}", "name": "{name}"}}),
            "patches": (op: "patchify", in: {{"latents": "start", "dit": "model.dit"}}),
            "sample": (op: "dit.sample", in: {{"dit": "model.dit", "patches": "patches", "text": "text"}},
                with: {{{sample}}}),
            "latent": (op: "unpatchify", in: {{"patches": "sample.patches"}}),
            "frames": (op: "vae.decode", in: {{"vae": "model.vae", "latent": "latent"}}),
            "out": (op: "tensor.write", with: {{"path": "out.safetensors"}}, in: {{"tensors":
                {{"text": "text", "trace": "sample.trace", "latent": "latent", "frames": "frames"}}}}),
        }})"#,
        prompt = kino_port::Literal::text(prompt.0.to_owned()),
        negative = kino_port::Literal::text(prompt.1.to_owned()),
        path = start.0,
        name = start.1,
    );
    Rig::of("reference", &text, &reference())
}

#[track_caller]
fn within(what: &str, found: f64, limit: f64) {
    println!("{what}: {found:e} of {limit:e}");
    assert!(found <= limit, "{what}: {found:e} is over {limit:e}");
}

const NEGATIVE: &str = "worst quality, low quality, blurred details, 色调艳丽";
const FOX: &str = "A red fox runs  through deep snow at dawn, cinematic &amp; slow motion. ";

fn wan(case: &str, prompt: (&str, &str), sample: &str) {
    let file = format!("wan_t2v/golden/{case}.safetensors");
    let rig = pipeline("wan_t2v/model", (&file, "latents_init"), prompt, sample);
    rig.run();
    let steps = golden(&file, "latents_steps");
    within(
        &format!("{case} steps"),
        difference(&rig.tensor("out.safetensors", "trace"), &steps),
        1e-4,
    );
    let frames = to_bytes(&rig.tensor("out.safetensors", "frames"));
    within(&format!("{case} frames"), difference(&frames, &golden(&file, "frames_u8")), 1.0);
}

#[test]
fn wan_with_guidance_by_unipc() {
    wan("pipe_a", (FOX, NEGATIVE), r#""steps": 4, "guidance": 5.0"#);
}

#[test]
fn wan_without_guidance_by_euler() {
    let prompt = "The camera pans left as the train leaves the station; people wave from the platform. \
        Neon signs reflect in puddles in a rainy Tokyo street at night.";
    wan(
        "pipe_b",
        (prompt, ""),
        r#""steps": 3, "guidance": 1.0, "scheduler": "euler", "shift": 5.0"#,
    );
}

#[test]
fn wan_single_image() {
    let prompt = ("色调艳丽，过曝，静态 ﬁne ½ 😀", "");
    wan("pipe_image", prompt, r#""steps": 2, "guidance": 3.0, "scheduler": "unipc", "shift": 5.0"#);
}

#[test]
fn text_embeddings_are_those_of_the_reference_padded_with_zeros() {
    let rig = pipeline(
        "wan_t2v/model",
        ("wan_t2v/golden/pipe_a.safetensors", "latents_init"),
        (FOX, ""),
        r#""steps": 1, "guidance": 1.0"#,
    );
    rig.run();
    let text = rig.tensor("out.safetensors", "text");
    assert_eq!(text.dims(), [512, 40]);
    let golden = golden("wan_t2v/golden/text.safetensors", "embeds.0");
    let rows = golden.dims()[0];
    within("text", difference(&text.narrow(0, 0, rows).unwrap(), &golden), 5e-5);
    let rest = text.narrow(0, rows, 512 - rows).unwrap();
    assert_eq!(difference(&rest, &rest.zeros_like().unwrap()), 0.0);
}

/// A pipeline with pictures, from its starting latents: what nodes say, and their inputs.
#[derive(Clone, Copy)]
struct WithPictures<'a> {
    model: &'a str,
    golden: &'a str,
    prompt: (&'a str, &'a str),
    frames: u64,
    sample: &'a str,
    /// The tensors of `golden` that hold the first and the last frame, at the size of the clip.
    pictures: [Option<&'a str>; 2],
    /// What an image encoder sees: nodes by name, as graphs write them.
    seen: &'a [(&'a str, &'a str)],
    /// The names of the reference's values begin with this.
    case: &'a str,
}

impl WithPictures<'_> {
    fn graph(&self) -> String {
        let (mut nodes, mut ends, mut image) = (String::new(), String::new(), String::new());
        for (end, name) in ["start", "end"].into_iter().zip(self.pictures) {
            let Some(name) = name else { continue };
            nodes += &format!(
                "\"{end}\": (op: \"tensor.read\", with: {{\"path\": \"{}\", \"name\": \"{name}\"}}),\n",
                self.golden
            );
            ends += &format!(", \"{end}\": \"{end}\"");
        }
        for (name, node) in self.seen {
            nodes += &format!("\"{name}\": {node},\n");
        }
        if !self.seen.is_empty() {
            let names = self.seen.iter().map(|(name, _)| format!("\"{name}\""));
            nodes += &format!(
                "\"seen\": (op: \"image.encode\", in: {{\"encoder\": \"model.image_encoder\", \
                 \"image\": [{}]}}),\n",
                names.collect::<Vec<_>>().join(", ")
            );
            image = ", \"image\": \"seen\"".to_owned();
        }
        if !ends.is_empty() {
            nodes += &format!(
                "\"given\": (op: \"given\", in: {{\"dit\": \"model.dit\", \"vae\": \"model.vae\"{ends}}}, \
                 with: {{\"frames\": {}}}),\n",
                self.frames
            );
            image += ", \"given\": \"given\"";
        }
        let seen = if self.seen.is_empty() { "" } else { ", \"seen\": \"seen\"" };
        let case = self.case;
        format!(
            r#"Graph(version: 1, nodes: {{
                "model": (op: "model.load", with: {{"source": "{model}", "compute": "f32"}}),
                "text": (op: "text.encode", in: {{"encoder": "model.text_encoder"}},
                    with: {{"prompt": {prompt}, "negative": {negative}}}),
                {nodes}
                "noise": (op: "tensor.read", with: {{"path": "{golden}", "name": "{case}latents_init"}}),
                "patches": (op: "patchify", in: {{"latents": "noise", "dit": "model.dit"}}),
                "sample": (op: "dit.sample", in: {{"dit": "model.dit", "patches": "patches",
                    "text": "text"{image}}}, with: {{{sample}}}),
                "latent": (op: "unpatchify", in: {{"patches": "sample.patches"}}),
                "frames": (op: "vae.decode", in: {{"vae": "model.vae", "latent": "latent"}}),
                "out": (op: "tensor.write", with: {{"path": "out.safetensors"}}, in: {{"tensors":
                    {{"trace": "sample.trace", "frames": "frames"{seen}}}}}),
            }})"#,
            model = self.model,
            golden = self.golden,
            prompt = kino_port::Literal::text(self.prompt.0.to_owned()),
            negative = kino_port::Literal::text(self.prompt.1.to_owned()),
            sample = self.sample,
        )
    }

    /// Runs it: latents of every step within 1e-4, frames within 1 of 255.
    fn check(&self) -> Rig {
        let rig = Rig::of("reference", &self.graph(), &reference());
        rig.run();
        let golden = |name: &str| golden(self.golden, &format!("{}{name}", self.case));
        let out = |name: &str| rig.tensor("out.safetensors", name);
        let (model, case) = (self.model, self.case);
        let steps = difference(&out("trace"), &golden("latents_steps"));
        within(&format!("{model} {case} steps"), steps, 1e-4);
        let frames = difference(&to_bytes(&out("frames")), &golden("frames_u8"));
        within(&format!("{model} {case} frames"), frames, 1.0);
        rig
    }

    /// What stands against it while planning.
    fn objections(&self) -> String {
        let plan = Rig::of("reference", &self.graph(), &reference()).plan();
        plan.err().expect("something stands against it").to_string()
    }
}

const TRAIN: &str = "The camera pans left as the train leaves the station; people wave from the \
    platform. Neon signs reflect in puddles in a rainy Tokyo street at night.";

/// Wan 2.2 TI2V: its residual autoencoder, text alone and with a first frame.
#[test]
fn wan_22_ti2v_from_text_and_from_a_picture() {
    let base = WithPictures {
        model: "wan22_ti2v/model",
        golden: "wan22_ti2v/golden/pipe_a.safetensors",
        prompt: (FOX, NEGATIVE),
        frames: 9,
        sample: r#""steps": 4, "guidance": 5.0"#,
        pictures: [None; 2],
        seen: &[],
        case: "",
    };
    base.check();
    WithPictures {
        golden: "wan22_ti2v/golden/pipe_i2v.safetensors",
        prompt: (TRAIN, NEGATIVE),
        sample: r#""steps": 3, "guidance": 4.0"#,
        pictures: [Some("first_u8"), None],
        ..base
    }
    .check();
}

/// Wan 2.1 I2V: what CLIP sees, and a mask and a latent beside the noise.
#[test]
fn wan_21_i2v_from_a_picture() {
    let picture =
        [("picture", r#"(op: "image.read", with: {"path": "wan_i2v/golden/image.png"})"#)];
    let base = WithPictures {
        model: "wan_i2v/model",
        golden: "wan_i2v/golden/pipe_a.safetensors",
        prompt: (FOX, NEGATIVE),
        frames: 9,
        sample: r#""steps": 4, "guidance": 5.0"#,
        pictures: [Some("first_u8"), None],
        seen: &picture,
        case: "",
    };
    let rig = base.check();
    let penultimate = golden("wan_i2v/golden/image_cond.safetensors", "penultimate");
    within("seen", difference(&rig.tensor("out.safetensors", "seen"), &penultimate), 2e-5);
    WithPictures {
        golden: "wan_i2v/golden/pipe_b.safetensors",
        prompt: ("色调艳丽，过曝，静态 ﬁne ½ 😀", ""),
        frames: 5,
        sample: r#""steps": 2, "guidance": 1.0, "scheduler": "euler", "shift": 3.0"#,
        ..base
    }
    .check();
    // What the model needs is said before anything runs.
    let unseen = WithPictures { seen: &[], ..base }.objections();
    assert!(unseen.contains("this transformer reads a picture, and there is none"), "{unseen}");
    let free = WithPictures { pictures: [None; 2], ..base }.objections();
    assert!(free.contains("continues frames that are given, and none are"), "{free}");
    let text = WithPictures { model: "wan_t2v/model", ..base }.objections();
    assert!(text.contains("has no image encoder"), "{text}");
    assert!(text.contains("made for text alone: it takes no given frames"), "{text}");
    let low = r#""steps": 2, "guidance_low": 3.0"#;
    let low = WithPictures { sample: low, ..base }.objections();
    assert!(low.contains("this transformer has no second expert"), "{low}");
}

/// Wan 2.1 FLF2V: two pictures, each with its learned position.
#[test]
fn wan_21_flf2v_from_two_pictures() {
    let read = |name: &str| {
        format!(
            r#"(op: "tensor.read", with: {{"path": "wan_flf2v/golden.safetensors", "name": "{name}"}})"#
        )
    };
    let (first, last) = (read("seen_first_u8"), read("seen_last_u8"));
    let seen = [("first", first.as_str()), ("last", last.as_str())];
    let base = WithPictures {
        model: "wan_flf2v/model",
        golden: "wan_flf2v/golden.safetensors",
        prompt: ("A red fox runs through deep snow at dawn.", "blurred details"),
        frames: 9,
        sample: r#""steps": 4, "guidance": 4.0"#,
        pictures: [Some("first_u8"), Some("last_u8")],
        seen: &seen,
        case: "a.",
    };
    let rig = base.check();
    let embeds = golden("wan_flf2v/golden.safetensors", "image_embeds");
    within("seen", difference(&rig.tensor("out.safetensors", "seen"), &embeds), 2e-5);
    let one = WithPictures { seen: &seen[..1], ..base }.objections();
    assert!(one.contains("reads two pictures"), "{one}");
}

/// Wan 2.2 A14B: the second expert takes over below the boundary, with a guidance of its own.
#[test]
fn wan_22_a14b_by_two_experts() {
    let base = WithPictures {
        model: "wan22_a14b/model",
        golden: "wan22_a14b/golden.safetensors",
        prompt: ("A red fox runs through deep snow at dawn.", "blurred details"),
        frames: 9,
        sample: r#""steps": 6, "guidance": 4.0, "guidance_low": 3.0"#,
        pictures: [None; 2],
        seen: &[],
        case: "a.",
    };
    base.check();
    WithPictures { sample: r#""steps": 4, "guidance": 3.5"#, case: "b.", ..base }.check();
    // Without guidance of the first there is none of the second (diffusers'
    // `do_classifier_free_guidance` asks the first alone).
    let trace = |sample: &str| {
        let rig = Rig::of("reference", &WithPictures { sample, ..base }.graph(), &reference());
        rig.run();
        rig.tensor("out.safetensors", "trace")
    };
    let neither = trace(r#""steps": 6, "guidance": 1.0, "guidance_low": 3.0"#);
    let plain = trace(r#""steps": 6, "guidance": 1.0"#);
    within("neither is guided", difference(&neither, &plain), 0.0);
    WithPictures {
        model: "wan22_a14b_i2v/model",
        golden: "wan22_a14b_i2v/golden.safetensors",
        sample: r#""steps": 6, "guidance": 3.5, "guidance_low": 2.5"#,
        pictures: [Some("first_u8"), None],
        ..base
    }
    .check();
}

/// Wan VACE: a control video, a mask of what stays of it, pictures of what the clip shows.
#[derive(Clone, Copy)]
struct WithControl<'a> {
    case: &'a str,
    /// What `vace` takes: inputs and values, as graphs write them, and what `dit.sample` takes.
    control: (&'a str, &'a str),
    sample: &'a str,
    negative: &'a str,
}

impl WithControl<'_> {
    fn graph(&self, model: &str) -> String {
        let WithControl { case, control: (edges, values), sample, negative } = self;
        let read = |name: &str| {
            format!(
                r#"(op: "tensor.read", with: {{"path": "wan_vace/golden.safetensors", "name": "{name}"}})"#
            )
        };
        format!(
            r#"Graph(version: 1, nodes: {{
                "model": (op: "model.load", with: {{"source": "{model}", "compute": "f32"}}),
                "text": (op: "text.encode", in: {{"encoder": "model.text_encoder"}}, with:
                    {{"prompt": "A red fox runs through deep snow at dawn.", "negative": "{negative}"}}),
                "film": {film}, "mask": {mask}, "wide": {wide}, "tall": {tall}, "noise": {noise},
                "vace": (op: "vace", in: {{"dit": "model.dit", "vae": "model.vae"{edges}}}, with: {{{values}}}),
                "patches": (op: "patchify", in: {{"latents": "noise", "dit": "model.dit"}}),
                "sample": (op: "dit.sample", in: {{"dit": "model.dit", "patches": "patches",
                    "text": "text", "control": "vace.control"}}, with: {{{sample}}}),
                "latent": (op: "unpatchify", in: {{"patches": "sample.patches"}}),
                "frames": (op: "vae.decode", in: {{"vae": "model.vae", "latent": "latent"}}),
                "out": (op: "tensor.write", with: {{"path": "out.safetensors"}}, in: {{"tensors":
                    {{"trace": "sample.trace", "latent": "latent", "frames": "frames"}}}}),
            }})"#,
            film = read("clip_u8"),
            mask = read("mask"),
            wide = read("wide_u8"),
            tall = read("tall_u8"),
            noise = read(&format!("{case}.latents_init")),
        )
    }

    /// Runs it: latents of every step within 1e-4, frames within 1 of 255; the clip is what is left
    /// without the pictures.
    fn check(&self) {
        let rig = Rig::of("reference", &self.graph("wan_vace/model"), &reference());
        rig.run();
        let golden =
            |name: &str| golden("wan_vace/golden.safetensors", &format!("{}.{name}", self.case));
        let out = |name: &str| rig.tensor("out.safetensors", name);
        let steps = out("trace");
        within(
            &format!("VACE {} steps", self.case),
            difference(&steps, &golden("latents_steps")),
            1e-4,
        );
        let last = steps.get(steps.dims()[0] - 1).expect("a step");
        let (all, clip) = (last.dims()[1], out("latent").dims()[1]);
        assert_eq!(difference(&out("latent"), &last.narrow(1, all - clip, clip).expect("it")), 0.0);
        let frames = difference(&to_bytes(&out("frames")), &golden("frames_u8"));
        within(&format!("VACE {} frames", self.case), frames, 1.0);
    }
}

#[test]
fn wan_21_vace_by_a_video_a_mask_and_pictures() {
    let pictures = WithControl {
        case: "a",
        control: (
            r#", "references": ["wide", "tall"]"#,
            r#""width": 48, "height": 32, "frames": 9"#,
        ),
        sample: r#""steps": 4, "guidance": 4.0"#,
        negative: "blurred details",
    };
    pictures.check();
    WithControl {
        case: "b",
        control: (r#", "video": "film", "mask": "mask""#, r#""strength": 0.7"#),
        sample: r#""steps": 3, "guidance": 1.0"#,
        negative: "",
    }
    .check();
    WithControl {
        case: "c",
        control: (r#", "video": "film", "references": ["tall"]"#, ""),
        sample: r#""steps": 3, "guidance": 3.0"#,
        ..pictures
    }
    .check();
    // What a model without these blocks is given is said before anything runs.
    let plan = Rig::of("reference", &pictures.graph("wan_t2v/model"), &reference()).plan();
    let refused = plan.err().expect("something stands against it").to_string();
    assert!(refused.contains("this transformer takes no control"), "{refused}");
}

/// The embedded model against its reference sampler.
fn shapes(case: &str, prompt: &str) {
    let file = format!("shapes/{case}.safetensors");
    let rig = pipeline(
        "embedded:shapes",
        (&file, "noise"),
        (prompt, ""),
        r#""steps": 20, "guidance": 4.0"#,
    );
    rig.run();
    let steps = golden(&file, "latents_steps");
    within(
        &format!("{case} steps"),
        difference(&rig.tensor("out.safetensors", "trace"), &steps),
        1e-3,
    );
    within(
        &format!("{case} text"),
        difference(&rig.tensor("out.safetensors", "text"), &golden(&file, "text")),
        5e-5,
    );
    let frames = to_bytes(&rig.tensor("out.safetensors", "frames"));
    within(&format!("{case} frames"), difference(&frames, &golden(&file, "frames_u8")), 2.0);
}

/// The cases of the embedded model, as `meta.json` lists them: those with given frames, or those
/// that begin with noise alone.
fn cases(given: bool) -> Vec<serde_json::Value> {
    let meta = std::fs::read(reference().join("shapes/meta.json")).expect("the list of cases");
    let meta: serde_json::Value = serde_json::from_slice(&meta).expect("JSON");
    let cases = meta["cases"].as_array().expect("cases").iter();
    let is_given = |case: &serde_json::Value| {
        ["image", "start", "end"].iter().any(|given| case.get(given).is_some())
    };
    cases.filter(|case| is_given(case) == given).cloned().collect()
}

#[test]
fn the_embedded_model_equals_its_reference_sampler() {
    let cases = cases(false);
    for case in &cases {
        shapes(case["name"].as_str().expect("a name"), case["prompt"].as_str().expect("a prompt"));
    }
    assert!(cases.len() >= 6, "{} cases", cases.len());
}

/// A clip of which frames are given, decoded as it is and with these frames put back.
fn with_given(case: &serde_json::Value) {
    let (name, prompt) = (case["name"].as_str().expect("a name"), &case["prompt"]);
    let file = format!("shapes/{name}.safetensors");
    let count = |end: &str| case.get(end).and_then(serde_json::Value::as_i64).unwrap_or(0);
    let (mut nodes, mut ends) = (String::new(), String::new());
    let mut feed = |end: &str, node: String| {
        nodes += &format!("\"{end}\": {node},\n");
        ends += &format!(", \"{end}\": \"{end}\"");
    };
    if let Some(image) = case.get("image").and_then(serde_json::Value::as_str) {
        let path = format!("shapes/{image}");
        feed("start", format!(r#"(op: "image.read", with: {{"path": "{path}"}})"#));
    }
    for end in ["start", "end"].into_iter().filter(|end| count(end) > 0) {
        let of = format!(r#"{{"path": "{file}", "name": "{end}_u8"}}"#);
        feed(end, format!(r#"(op: "tensor.read", with: {of})"#));
    }
    let text = format!(
        r#"Graph(version: 1, nodes: {{
            "model": (op: "model.load", with: {{"source": "embedded:shapes"}}),
            "text": (op: "text.encode", in: {{"encoder": "model.text_encoder"}},
                with: {{"prompt": {prompt}}}),
            {nodes}
            "given": (op: "given", in: {{"dit": "model.dit", "vae": "model.vae"{ends}}},
                with: {{"frames": {frames}}}),
            "noise": (op: "tensor.read", with: {{"path": "{file}", "name": "noise"}}),
            "patches": (op: "patchify", in: {{"latents": "noise", "dit": "model.dit"}}),
            "sample": (op: "dit.sample", in: {{"dit": "model.dit", "patches": "patches",
                "text": "text", "given": "given"}}, with: {{"steps": 20, "guidance": 4.0}}),
            "latent": (op: "unpatchify", in: {{"patches": "sample.patches"}}),
            "frames": (op: "vae.decode", in: {{"vae": "model.vae", "latent": "latent"}}),
            "exact": (op: "vae.decode", in: {{"vae": "model.vae", "latent": "latent",
                "given": "given"}}),
            "out": (op: "tensor.write", with: {{"path": "out.safetensors"}}, in: {{"tensors":
                {{"trace": "sample.trace", "latent": "latent", "frames": "frames",
                "exact": "exact"}}}}),
        }})"#,
        frames = case["frames"],
    );
    let rig = Rig::of("reference", &text, &reference());
    rig.run();
    let out = |name: &str| rig.tensor("out.safetensors", name);
    within(
        &format!("{name} steps"),
        difference(&out("trace"), &golden(&file, "latents_steps")),
        1e-3,
    );
    within(&format!("{name} latent"), difference(&out("latent"), &golden(&file, "latents")), 1e-3);
    let (frames, exact) = (to_bytes(&out("frames")), to_bytes(&out("exact")));
    within(&format!("{name} frames"), difference(&frames, &golden(&file, "frames_u8")), 2.0);
    // The frames given are the result's, to the last bit of a byte; the others are as decoded.
    let all = frames.dims()[0];
    let (start, end) = match case.get("image") {
        Some(_) => (1, 0),
        None => (count("start") as usize, count("end") as usize),
    };
    let part =
        |frames: &Tensor, from: usize, count: usize| frames.narrow(0, from, count).expect("frames");
    let free = (start, all - start - end);
    assert_eq!(difference(&part(&exact, free.0, free.1), &part(&frames, free.0, free.1)), 0.0);
    let given = |count: usize, end: &str, from: usize| {
        if count == 0 {
            return;
        }
        let given = match case.get("image") {
            Some(_) => {
                let image = kino_world::read_image(&reference().join("shapes/i2v_input.png"));
                let rgb = image.expect("a picture").rgb;
                let rgb = rgb.into_iter().map(|value| (value * 255.0).round()).collect();
                Tensor::from_vec(rgb, part(&exact, 0, 1).dims(), exact.device()).expect("a picture")
            }
            None => golden(&file, &format!("{end}_u8")),
        };
        assert_eq!(difference(&part(&exact, from, count), &given), 0.0, "{name}: {end}");
        let decoded = difference(&part(&frames, from, count), &given);
        assert!(decoded > 0.0, "{name}: the autoencoder loses something at the {end}");
    };
    given(start, "start", 0);
    given(end, "end", all - end);
}

#[test]
fn clips_with_given_frames_equal_the_reference_sampler() {
    let cases = cases(true);
    cases.iter().for_each(with_given);
    assert!(cases.len() >= 4, "{} cases", cases.len());
}

/// Frames enlarged by a network, as they come out of a graph: cut off at 0…1.
#[test]
fn enlarged_frames_equal_the_reference_values() {
    // What SPAN makes of these weights reaches far beyond 0…1, with the rounding that this takes.
    let limit = |case: &str| if case == "span_x2" { 4e-5 } else { 4e-6 };
    let cases = [
        ("video_x4", "circle", "video-x4", 4),
        ("video_x4", "noise", "video-x4", 4),
        ("video_x4", "one_row", "video-x4", 4),
        ("values", "rrdb_x4", "upscale/rrdb_x4.safetensors", 4),
        ("values", "rrdb_x2", "upscale/rrdb_x2.safetensors", 2),
        ("values", "rrdb_x1", "upscale/rrdb_x1.safetensors", 1),
        ("values", "srvgg_x2", "upscale/srvgg_x2.safetensors", 2),
        ("values", "span_x2", "upscale/span_x2.safetensors", 2),
        ("values", "span_x4", "upscale/span_x4.safetensors", 4),
    ];
    for (file, case, model, factor) in cases {
        let file = format!("upscale/{file}.safetensors");
        let text = format!(
            r#"Graph(version: 1, nodes: {{
                "start": (op: "tensor.read", with: {{"path": "{file}", "name": "{case}.input"}}),
                "large": (op: "upscale", in: {{"frames": "start"}},
                    with: {{"factor": {factor}, "model": "{model}"}}),
                "out": (op: "tensor.write", with: {{"path": "out.safetensors"}},
                    in: {{"tensors": {{"frames": "large"}}}}),
            }})"#
        );
        let rig = Rig::of("enlarged", &text, &reference());
        rig.run();
        let expected = golden(&file, &format!("{case}.output")).clamp(0f32, 1f32).expect("numbers");
        let found = rig.tensor("out.safetensors", "frames");
        within(case, difference(&found, &expected), limit(case));
    }
}

/// Frames between frames by RIFE, as they come out of a graph.
#[test]
fn interpolated_frames_equal_the_reference_values() {
    for (version, factor, moment) in
        [("v4_25", 2, "0.5"), ("v4_22", 4, "0.25"), ("v4_15", 2, "0.5")]
    {
        let text = format!(
            r#"Graph(version: 1, nodes: {{
                "first": (op: "tensor.read", with: {{"path": "rife/values.safetensors", "name": "first"}}),
                "second": (op: "tensor.read", with: {{"path": "rife/values.safetensors", "name": "second"}}),
                "clip": (op: "frames.concat", in: {{"parts": ["first", "second"]}}),
                "smooth": (op: "frames.interpolate", in: {{"frames": "clip"}},
                    with: {{"factor": {factor}, "model": "rife/{version}.safetensors"}}),
                "out": (op: "tensor.write", with: {{"path": "out.safetensors"}},
                    in: {{"tensors": {{"frames": "smooth"}}}}),
            }})"#
        );
        let rig = Rig::of("between", &text, &reference());
        rig.run();
        let frames = rig.tensor("out.safetensors", "frames");
        assert_eq!(frames.dims(), [factor + 1, 64, 128, 3]);
        let frame = |index: usize| frames.narrow(0, index, 1).expect("a frame");
        let values = |name: &str| golden("rife/values.safetensors", name);
        assert_eq!(difference(&frame(0), &values("first")), 0.0, "given frames stay");
        assert_eq!(difference(&frame(factor), &values("second")), 0.0, "given frames stay");
        let expected = values(&format!("{version}.{moment}"));
        within(version, difference(&frame(1), &expected), 5e-6);
    }
}
