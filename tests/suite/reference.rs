//! The reference values of diffusers, through graphs alone: `model.load` from a folder, the
//! starting latents by `tensor.read`, the results by `tensor.write`.

use kino_tests::{Rig, difference, golden, reference, to_bytes};

/// A whole pipeline from its starting latents.
fn pipeline(model: &str, start: (&str, &str), prompt: (&str, &str), sample: &str) -> Rig {
    let text = format!(
        r#"Graph(version: 1, nodes: {{
            "model": (op: "model.load", with: {{"source": "{model}"}}),
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

/// Every case of the embedded model that begins with noise alone, as `meta.json` lists them.
#[test]
fn the_embedded_model_equals_its_reference_sampler() {
    let meta = std::fs::read(reference().join("shapes/meta.json")).expect("the list of cases");
    let meta: serde_json::Value = serde_json::from_slice(&meta).expect("JSON");
    let cases = meta["cases"].as_array().expect("cases");
    let from_noise = cases
        .iter()
        .filter(|case| ["image", "start", "end"].iter().all(|given| case.get(given).is_none()));
    let mut run = 0;
    for case in from_noise {
        shapes(case["name"].as_str().expect("a name"), case["prompt"].as_str().expect("a prompt"));
        run += 1;
    }
    assert!(run >= 6, "{run} cases");
}
