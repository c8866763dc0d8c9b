//! Every graph of `graphs/`, run whole; and what is evaluated again when something changes.

use std::fs;

use candle_core::{Device, Tensor};
use kino_tests::{Evaluated, Rig, difference};
use kino_world::{read_image, read_metadata};

const ALL: [&str; 10] =
    ["model", "lora", "text", "noise", "patches", "sample", "latent", "frames", "large", "file"];

/// `text_to_video`, as small as it gets.
fn small() -> Rig {
    let mut rig = Rig::load("text_to_video");
    rig.set("width", "32").set("height", "32").set("frames", "5").set("steps", "2");
    rig
}

fn sorted<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names: Vec<_> = names.into_iter().collect();
    names.sort_unstable();
    names
}

#[test]
fn text_to_video_runs_once() {
    let rig = small();
    assert_eq!(sorted(rig.run().names()), sorted(ALL));
    let file = rig.out("text_to_video-4-001.mp4");
    assert_eq!(&fs::read(&file).unwrap()[4..8], b"ftyp");
    assert!(
        read_metadata(&file).unwrap().unwrap().contains("default: 2"),
        "the steps set are recorded"
    );
    assert_eq!(rig.run().names(), [""; 0]);
}

#[test]
fn a_new_seed_keeps_the_text_encoding() {
    let mut rig = small();
    rig.run();
    rig.set("seed", "8");
    // The encoder is asked for its handle again, not its weights' work: the encoding itself comes
    // from disk.
    let evaluated = rig.run();
    let computed =
        ["model", "lora", "noise", "patches", "sample", "latent", "frames", "large", "file"];
    assert_eq!(sorted(evaluated.names()), sorted(computed));
}

#[test]
fn going_back_to_an_old_prompt_computes_nothing_expensive() {
    let mut rig = small();
    rig.run();
    rig.set("prompt", "a blue square stays still on a white background");
    assert!(rig.run().names().contains(&"text"));
    rig.set("prompt", "a red circle moves right on a white background");
    assert_eq!(rig.run().names(), [""; 0], "a file of another number did not replace it");
    // It is written again from what is kept.
    fs::remove_file(rig.out("text_to_video-4-001.mp4")).unwrap();
    assert_eq!(sorted(rig.run().names()), ["file", "large"]);
}

#[test]
fn a_lost_or_edited_file_is_written_again() {
    let rig = small();
    rig.run();
    let file = rig.out("text_to_video-4-001.mp4");
    let whole = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    assert_eq!(rig.run().names(), ["large", "file"]);
    assert!(fs::read(&file).unwrap() == whole);
    fs::write(&file, b"something else").unwrap();
    assert_eq!(rig.run().names(), ["large", "file"]);
    assert_eq!(fs::read(&file).unwrap(), b"something else", "what somebody edited stays");
    assert!(fs::read(rig.out("text_to_video-4-002.mp4")).unwrap() == whole);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let (one, two) = (small(), small());
    one.run();
    two.run();
    let file = |rig: &Rig| fs::read(rig.out("text_to_video-4-001.mp4")).unwrap();
    assert!(file(&one) == file(&two));
}

#[test]
fn text_to_image_writes_a_png() {
    let mut rig = Rig::load("text_to_image");
    rig.set("steps", "2").set("width", "48").set("seed", "3").run();
    let image = read_image(&rig.out("text_to_image-3-001.png")).unwrap();
    assert_eq!((image.width, image.height), (192, 256));
}

/// The steepest step from a pixel to the one beside it, of all frames and colours; the 1000th of
/// them, so that no single pixel decides.
fn steepness(frames: &Tensor) -> f32 {
    let width = frames.dim(2).unwrap();
    let steps = frames.narrow(2, 1, width - 1).unwrap() - frames.narrow(2, 0, width - 1).unwrap();
    let steps = steps.unwrap().abs().unwrap().flatten_all().unwrap();
    let mut steps = steps.to_vec1::<f32>().unwrap();
    steps.sort_by(f32::total_cmp);
    steps[steps.len() - 1000]
}

/// What the autoencoder leaves soft becomes sharp, in the colours and at the places that it had.
#[test]
fn edges_are_sharp_where_a_filter_keeps_their_blur() {
    let folder = kino_tests::root().join("graphs");
    let text = fs::read_to_string(folder.join("text_to_video.ron")).unwrap();
    let more = r#""soft": (op: "upscale", in: {"frames": "frames"}, with: {"factor": 4}),
        "tensors": (op: "tensor.write", with: {"path": "out.safetensors"},
            in: {"tensors": {"soft": "soft", "large": "large"}}), "large":"#;
    let mut rig = Rig::of("sharp", &text.replacen("\"large\":", more, 1), &folder);
    rig.set("steps", "8").set("frames", "5").run();
    let (soft, large) =
        (rig.tensor("out.safetensors", "soft"), rig.tensor("out.safetensors", "large"));
    let (blurred, sharp) = (steepness(&soft), steepness(&large));
    let apart = (&soft - &large).unwrap().abs().unwrap().mean_all().unwrap();
    let apart = apart.to_scalar::<f32>().unwrap();
    println!("steepest step: {blurred} by the filter, {sharp} by the network; {apart} apart");
    assert!(sharp > 1.5 * blurred, "{sharp} of {blurred}");
    assert!(apart < 0.04, "{apart}");
}

/// `image_to_video` as a tiny Wan 2.2 A14B runs it, and what it writes of `frames`.
fn two_experts(inputs: &[(&str, &str)]) -> (Rig, Tensor) {
    let folder = kino_tests::root().join("graphs");
    let text = fs::read_to_string(folder.join("image_to_video.ron")).unwrap();
    let more = r#""tensors": (op: "tensor.write", with: {"path": "out.safetensors"},
            in: {"tensors": {"frames": "frames"}}), "large":"#;
    let mut rig = Rig::of("experts", &text.replacen("\"large\":", more, 1), &folder);
    let model = kino_tests::reference().join("wan22_a14b_i2v/model");
    rig.set("model", model.to_str().unwrap());
    for (name, value) in [("width", "32"), ("height", "32"), ("frames", "5"), ("steps", "4")] {
        rig.set(name, value);
    }
    for (name, value) in inputs {
        rig.set(name, value);
    }
    rig.run();
    let frames = rig.tensor("out.safetensors", "frames");
    (rig, frames)
}

/// The LoRAs of four steps, one for each expert, by the inputs of a built-in graph.
#[test]
fn a_built_in_graph_takes_a_lora_for_each_expert() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        // Layers that both models have, of the sizes of this one.
        let layer = "diffusion_model.blocks.0.self_attn.q";
        let wave = |rows: usize, columns: usize| {
            let values = (0..rows * columns).map(|i| ((i * 37 + name.len()) % 19) as f32 / 19.0);
            Tensor::from_vec(values.collect::<Vec<_>>(), (rows, columns), &Device::Cpu).unwrap()
        };
        let tensors = std::collections::HashMap::from([
            (format!("{layer}.lora_down.weight"), wave(2, 24)),
            (format!("{layer}.lora_up.weight"), wave(24, 2)),
        ]);
        let path = folder.path().join(name);
        candle_core::safetensors::save(&tensors, &path).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (high, low) = (file("fast_high.safetensors"), file("fast_low_noise.safetensors"));
    let of = |inputs: &[(&str, &str)]| two_experts(&[&[("guidance", "1")], inputs].concat()).1;
    let plain = of(&[]);
    let both = of(&[("lora", &high), ("low_noise_lora", &low)]);
    let one = of(&[("lora", &high)]);
    assert!(difference(&plain, &both) > 0.0 && difference(&one, &both) > 0.0);
    assert!(difference(&plain, &one) > 0.0);
    let off = ("low_noise_lora_strength", "0");
    assert_eq!(difference(&of(&[("lora", &high), ("low_noise_lora", &low), off]), &one), 0.0);
    // One that is not there, or is no LoRA, is an error before anything runs.
    let (mut rig, _) = two_experts(&[]);
    let told = rig.set("low_noise_lora", "nowhere.safetensors").plan().err().unwrap().to_string();
    assert!(told.contains("nowhere.safetensors does not exist"), "{told}");
}

#[test]
fn mixed_sizes_writes_three_files_from_one_run() {
    let mut rig = Rig::load("mixed_sizes");
    let report = rig.set("steps", "2").run();
    assert_eq!(report.names().iter().filter(|name| **name == "sample").count(), 1);
    for name in
        ["mixed_sizes-wide-001.mp4", "mixed_sizes-tall-001.mp4", "mixed_sizes-square-001.png"]
    {
        assert!(rig.out(name).is_file(), "{name}");
    }
}

/// A graph whose frames are given in part, with two small nodes that write single frames of it: the
/// first and the last, before they are enlarged.
fn with_given(name: &str, inputs: &[(&str, &str)]) -> Rig {
    let folder = kino_tests::root().join("graphs");
    let text = fs::read_to_string(folder.join(format!("{name}.ron"))).unwrap();
    let frames = r#""pictures": (op: "tensor.write", in: {"tensors": {"frames": "frames"}},
            with: {"path": "frames.safetensors"}), "large":"#;
    let mut rig = Rig::of(name, &text.replacen("\"large\":", frames, 1), &folder);
    for (input, value) in inputs {
        rig.set(input, value);
    }
    rig.run();
    rig
}

/// A picture of `graphs/pictures` as `[1, h, w, 3]` in 0…1.
fn given_picture(name: &str) -> Tensor {
    let image = read_image(&kino_tests::root().join("graphs/pictures").join(name)).unwrap();
    let shape = (1, image.height, image.width, 3);
    Tensor::from_vec(image.rgb, shape, &Device::Cpu).unwrap()
}

#[test]
fn image_to_video_begins_with_its_picture() {
    let rig = with_given("image_to_video", &[("steps", "6"), ("frames", "9"), ("seed", "2")]);
    assert_eq!(&fs::read(rig.out("image_to_video-2-001.mp4")).unwrap()[4..8], b"ftyp");
    let frames = rig.tensor("frames.safetensors", "frames");
    assert_eq!(frames.dims(), [9, 64, 96, 3]);
    let first = frames.narrow(0, 0, 1).unwrap();
    assert_eq!(difference(&first, &given_picture("first.png")), 0.0);
    moves_on(&frames, 0);
}

#[test]
fn first_last_frame_begins_and_ends_with_its_pictures() {
    let rig = with_given("first_last_frame", &[("steps", "6"), ("frames", "13"), ("seed", "2")]);
    assert_eq!(&fs::read(rig.out("first_last_frame-2-001.mp4")).unwrap()[4..8], b"ftyp");
    let frames = rig.tensor("frames.safetensors", "frames");
    assert_eq!(frames.dims(), [13, 64, 96, 3]);
    for (at, name) in [(0, "first.png"), (12, "last.png")] {
        let frame = frames.narrow(0, at, 1).unwrap();
        assert_eq!(difference(&frame, &given_picture(name)), 0.0, "{name}");
    }
    moves_on(&frames, 0);
    moves_on(&frames, 11);
}

/// The step from frame `at` to the next is one of a clip, not a cut: the pixels change less, all in
/// all, than from one end of the clip to the other.
#[track_caller]
fn moves_on(frames: &Tensor, at: usize) {
    let frame = |index: usize| frames.narrow(0, index, 1).unwrap();
    let change = |a: usize, b: usize| {
        let gap = (frame(a) - frame(b)).unwrap().abs().unwrap().mean_all().unwrap();
        gap.to_scalar::<f32>().unwrap()
    };
    let (step, all) = (change(at, at + 1), change(0, frames.dim(0).unwrap() - 1));
    println!("step {at}: {step}, from end to end: {all}");
    assert!(step < all && step < 0.05, "a step of {step}, from end to end {all}");
}

/// An image of 24×16 with a gradient, in a folder of its own.
fn picture() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let image = kino_tests::png(24, 16, |x, y| [x as u8 * 10, y as u8 * 15, 128]);
    fs::write(folder.path().join("in.png"), image).unwrap();
    folder
}

#[test]
fn upscale_enlarges_a_picture_alone_and_as_a_node() {
    let folder = picture();
    let text = fs::read_to_string(kino_tests::root().join("graphs/upscale.ron")).unwrap();
    let mut rig = Rig::of("upscale", &text, folder.path());
    rig.set("image", "in.png").set("factor", "3").run();
    let image = read_image(&rig.out("upscale-3x-001.png")).unwrap();
    assert_eq!((image.width, image.height), (72, 48));

    fs::write(folder.path().join("upscale.ron"), text).unwrap();
    let outer = r#"Graph(version: 1, nodes: {
        "large": (op: "./upscale.ron", with: {"image": "in.png", "factor": 2}),
        "small": (op: "frames.resize", in: {"frames": "large.frames"}, with: {"width": 12, "height": 8}),
        "file": (op: "image.write", in: {"frames": "small"}, with: {"path": "small.png"}),
    })"#;
    let rig = Rig::of("outer", outer, folder.path());
    let report = rig.run();
    assert_eq!(
        sorted(report.names()),
        ["file", "large/file", "large/image", "large/large", "small"]
    );
    assert_eq!(read_image(&rig.out("small.png")).unwrap().width, 12);
    // The record carries the inner graph: it plans without the file.
    let record = read_metadata(&rig.out("small.png")).unwrap().unwrap();
    fs::remove_file(folder.path().join("upscale.ron")).unwrap();
    assert_eq!(Rig::of("outer", &record, folder.path()).run().names().len(), 5);
}

#[test]
fn a_changed_input_file_is_read_again_and_nothing_else() {
    let folder = picture();
    let text = r#"Graph(version: 1, nodes: {
        "a": (op: "image.read", with: {"path": "in.png"}), "b": (op: "math", with: {"a": 1, "b": 2}),
        "large": (op: "upscale", in: {"frames": "a"}), "sum": (op: "math", in: {"a": "b"}),
        "file": (op: "image.write", in: {"frames": "large"}, with: {"path": "x.png"})})"#;
    let rig = Rig::of("g", text, folder.path());
    assert_eq!(sorted(rig.run().names()), ["a", "file", "large"]);
    assert_eq!(rig.run().names(), [""; 0]);
    fs::write(folder.path().join("in.png"), kino_tests::png(24, 16, |_, _| [0; 3])).unwrap();
    assert_eq!(sorted(rig.run().names()), ["a", "file", "large"]);
}

#[test]
fn what_cannot_work_is_said_before_anything_runs() {
    let said = |text: &str| {
        let folder = picture();
        let plan = Rig::of("g", text, folder.path()).plan();
        plan.err().expect("it stands against the plan").to_string()
    };
    let video = |with: &str| {
        format!(
            r#"Graph(version: 1, nodes: {{"m": (op: "model.load", with: {{"source": "embedded:shapes"}}),
                "n": (op: "latent.noise", in: {{"vae": "m.vae"}}, with: {{"seed": 1, {with}}}),
                "p": (op: "patchify", in: {{"latents": "n", "dit": "m.dit"}})}}, outputs: {{"p": "p"}})"#
        )
    };
    let frames = said(&video(r#""width": 64, "height": 64, "frames": 16"#));
    assert!(frames.contains("13 and 17"), "{frames}");
    let size = said(&video(r#""width": 100, "height": 64"#));
    assert!(size.contains("96") && size.contains("112"), "{size}");
    let part = said(
        r#"Graph(version: 1, nodes: {"m": (op: "model.load", with: {"source": "./none"})}, outputs: {"d": "m.dit"})"#,
    );
    assert!(part.contains("none"), "{part}");
}
