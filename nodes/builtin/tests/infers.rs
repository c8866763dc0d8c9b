//! What nodes know and refuse before anything runs: facts from configs, errors with advice.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{Copied, Rig, fact_list, known, number};
use kino_node::{
    ClipFact, ConditioningFact, ControlFact, FrameRate, FramesFact, LatentFact, MaskFact,
    PatchesFact, TensorFact,
};
use kino_port::{Fact, Literal};

fn latent(shape: [usize; 4]) -> Fact {
    Fact::typed(LatentFact { shape: shape.map(Some), space: None })
}

fn tensor(shape: &[usize]) -> Fact {
    Fact::typed(TensorFact { shape: shape.to_vec(), dtype: DType::F32 })
}

fn frames(count: usize, height: usize, width: usize) -> Fact {
    Fact::typed(frames_fact(count, height, width))
}

fn frames_fact(count: usize, height: usize, width: usize) -> FramesFact {
    let [count, height, width] = [count, height, width].map(Some);
    FramesFact { count, height, width, fps: FrameRate::None }
}

fn clip(name: Option<&str>, grid: [usize; 3], channels: usize) -> ClipFact {
    ClipFact { name: name.map(str::to_owned), grid: grid.map(Some), channels, space: None }
}

fn patches(clips: Vec<ClipFact>) -> Fact {
    Fact::typed(PatchesFact { clips, patch: [1, 2, 2] })
}

#[test]
fn facts_travel_from_the_model_to_the_frames() {
    let rig = Rig::new("travel");
    let model = rig.model_facts("embedded:shapes");
    let text = rig.fact("text.encode", &[("encoder", model.text), ("prompt", known("x"))], 0);
    // A word, the end, and one row for all that follow.
    let expected =
        ConditioningFact { distinct_rows: Some(3), ..ConditioningFact::of_text(48, 128) };
    assert_eq!(text.get(), Some(&expected));
    let size = [("width", number(96)), ("height", number(64)), ("frames", number(17))];
    let noise = [&[("vae", model.vae.clone()), ("seed", number(1))], &size[..]].concat();
    let noise = rig.fact("latent.noise", &noise, 0);
    let latents = fact_list(&[("wide", noise)]);
    let packed = rig.fact("patchify", &[("dit", model.dit.clone()), ("latents", latents)], 0);
    let known_patches: &PatchesFact = packed.get().unwrap();
    assert_eq!(known_patches.clips[0].grid, [5, 4, 6].map(Some));
    assert_eq!(known_patches.clips[0].name.as_deref(), Some("wide"));
    let inputs = [("dit", model.dit), ("patches", packed), ("text", text), ("steps", number(20))];
    let infer = rig.infer("dit.sample", &inputs).unwrap();
    assert_eq!(infer.outputs[1].get::<TensorFact>().unwrap().shape, [20, 16, 5, 8, 12]);
    assert!(infer.memory > 4 * 5_000_000, "weights and activations: {}", infer.memory);
    let unpacked = rig.fact("unpatchify", &[("patches", infer.outputs[0].clone())], 0);
    assert_eq!(unpacked.get::<LatentFact>().unwrap().shape, [16, 5, 8, 12].map(Some));
    let decode = [("vae", model.vae), ("latent", unpacked)];
    let infer = rig.infer("vae.decode", &decode).unwrap();
    let expected = frames_fact(17, 64, 96);
    assert_eq!(infer.outputs[0].get(), Some(&expected));
    let write = [("frames", infer.outputs[0].clone()), ("path", known("x.mp4"))];
    assert!(rig.infer("video.write", &write).unwrap().memory > 0);
}

#[test]
fn a_source_that_is_no_model_is_refused() {
    let rig = Rig::new("source");
    let load = |source: &str| rig.objects("model.load", &[("source", known(source))]);
    assert_eq!(
        load("embedded:cats"),
        "source: no model `cats` is embedded (there is one: embedded:shapes)"
    );
    assert!(load("nowhere").contains("nowhere does not exist (a model is a folder"));
    assert!(load("wan_t2v/golden/meta.json").contains("is a file"));
    assert!(load("wan_t2v/golden").starts_with("source: "));
    for source in ["hf:Nobody/Nothing-kino", "hub:Nobody/Nothing-kino"] {
        let told = load(source);
        assert!(told.contains("hf:Nobody/Nothing-kino is not in the local Hugging Face"), "{told}");
        assert!(
            told.contains("`kino models pull hf:Nobody/Nothing-kino` (or `hf download"),
            "{told}"
        );
    }
}

#[test]
fn a_missing_part_is_said_by_whoever_needs_it() {
    let rig = Rig::new("missing");
    let infer = rig.infer("model.load", &[("source", known("embedded:shapes"))]).unwrap();
    assert_eq!(infer.outputs.len(), 4);
    assert_eq!(infer.reads[0].path, "embedded:shapes");
    let copied = Copied::new("no-vae");
    let index = std::fs::read_to_string(copied.0.join("model_index.json")).unwrap();
    let mut index: serde_json::Value = serde_json::from_str(&index).unwrap();
    index["vae"] = serde_json::json!([null, null]);
    std::fs::write(copied.0.join("model_index.json"), index.to_string()).unwrap();
    let model = rig.model_facts(copied.path());
    let decode = [("vae", model.vae), ("latent", latent([16, 1, 4, 4]))];
    let message = format!("vae: the model `{}` has no VAE", copied.path());
    assert_eq!(rig.objects("vae.decode", &decode), message);
}

#[test]
fn damaged_weights_are_found_before_anything_runs() {
    let rig = Rig::new("damaged");
    let decode = |copied: &Copied| {
        let vae = rig.model_facts(copied.path()).vae;
        rig.objects("vae.decode", &[("vae", vae), ("latent", latent([16, 1, 4, 4]))])
    };
    let copied = Copied::new("cut");
    let bytes = std::fs::read(copied.vae()).unwrap();
    std::fs::write(copied.vae(), &bytes[..bytes.len() / 2]).unwrap();
    assert!(decode(&copied).contains("is truncated"));
    std::fs::write(copied.vae(), b"\x80\x02}q\x00.").unwrap();
    assert!(decode(&copied).contains("pickle"));
    std::fs::remove_file(copied.vae()).unwrap();
    assert!(decode(&copied).contains("is missing"));
    std::fs::write(copied.0.join("vae/config.json"), "{").unwrap();
    assert!(
        rig.objects("model.load", &[("source", known(copied.path()))]).contains("vae/config.json")
    );
}

#[test]
fn a_changed_model_has_another_key() {
    let rig = Rig::new("key");
    let copied = Copied::new("key");
    let key = |compute: &str| {
        let inputs = [("source", known(copied.path())), ("compute", known(compute))];
        rig.infer("model.load", &inputs).unwrap().key
    };
    let (first, bf16) = (key("auto"), key("bf16"));
    // Its text encoder is stored in bf16, the rest in f32.
    assert_eq!(first != key("f32"), kino_kernels::has_bf16_products());
    assert_ne!(first, bf16);
    let config = copied.0.join("scheduler/scheduler_config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text + "\n").unwrap();
    assert_ne!(first, key("auto"));
}

#[test]
fn latents_that_no_patch_fits_are_refused() {
    let rig = Rig::new("patchify");
    let dit = rig.model_facts("embedded:shapes").dit;
    let check =
        |latents: Fact| rig.objects("patchify", &[("dit", dit.clone()), ("latents", latents)]);
    assert_eq!(
        check(latent([12, 5, 8, 12])),
        "latents: this transformer reads latents of 16 channels, found 12 \
         (a transformer and a VAE of one model belong together)"
    );
    assert_eq!(
        check(fact_list(&[("tall", tensor(&[1, 16, 5, 7, 12])), ("flat", tensor(&[16, 5]))])),
        "latents: `tall`: latent height must be a multiple of 2, found 7; near it: 6 and 8\n\
         latents: a latent is [c, f, h, w] or [1, c, f, h, w], found a tensor [16, 5]"
    );
    let vae = rig.model_facts("wan_t2v/model").vae;
    let encode = [("vae", vae), ("frames", frames(5, 64, 40))];
    let encoded = rig.fact("vae.encode", &encode, 0);
    assert_eq!(
        check(encoded),
        "latents: width must be a multiple of 16, found 40; near it: 32 and 48"
    );
}

#[test]
fn a_clip_that_is_not_packed_is_refused() {
    let rig = Rig::new("clips");
    let two = patches(vec![clip(Some("wide"), [1, 2, 3], 16), clip(None, [1, 1, 1], 16)]);
    let check =
        |name: &str| rig.objects("unpatchify", &[("patches", two.clone()), ("clip", known(name))]);
    assert_eq!(check(""), "clip: 2 clips are packed here: which one? (the clips are: wide, 1)");
    assert_eq!(check("tall"), "clip: there is no clip `tall` (the clips are: wide, 1)");
    assert_eq!(check("2"), "clip: there is no clip `2` (the clips are: wide, 1)");
    let tensor = rig.objects("unpatchify", &[("patches", tensor(&[6, 64]))]);
    assert!(tensor.starts_with("patches: a tensor does not say where its patches lie"));
}

#[test]
fn what_the_transformer_cannot_read_is_refused() {
    let rig = Rig::new("sample");
    let dit = rig.model_facts("embedded:shapes").dit;
    let check = |patches: Fact, text: Fact, more: &[(&str, Fact)]| {
        let inputs = [("dit", dit.clone()), ("patches", patches), ("text", text)];
        rig.objects("dit.sample", &[&inputs, more].concat())
    };
    let good = Fact::typed(ConditioningFact::of_text(48, 128));
    let one = || patches(vec![clip(None, [1, 2, 3], 16)]);
    assert_eq!(
        check(one(), tensor(&[1, 512, 4096]), &[]),
        "text: this transformer reads texts 128 wide, found 4096 \
         (a transformer and a text encoder of one model belong together)"
    );
    assert_eq!(
        check(patches(vec![clip(None, [1, 2, 3], 48)]), good.clone(), &[]),
        "patches: this transformer reads latents of 16 channels, found 48"
    );
    assert_eq!(
        check(one(), fact_list(&[("", good.clone()), ("", good.clone())]), &[]),
        "text: expected one text for one clip, found 2"
    );
    let other =
        Fact::typed(PatchesFact { clips: vec![clip(None, [1, 2, 3], 16)], patch: [1, 1, 1] });
    assert!(
        check(other, good.clone(), &[])
            .starts_with("patches: this transformer reads patches of (1, 2, 2)")
    );
    assert_eq!(
        check(one(), good, &[("sigmas", tensor(&[2, 2]))]),
        "sigmas: noise levels are [steps + 1], found a tensor [2, 2]"
    );
}

#[test]
fn frames_that_the_autoencoder_cannot_hold_are_refused() {
    let rig = Rig::new("vae");
    let model = rig.model_facts("embedded:shapes");
    let encode = [("vae", model.vae.clone()), ("frames", frames(16, 60, 96))];
    assert_eq!(
        rig.objects("vae.encode", &encode),
        "frames: height must be a multiple of 8 for this VAE, found 60; near it: 56 and 64 \
         (a `frames.resize` node brings frames to a size)\n\
         frames: frames must be 4k+1 for this VAE, found 16; near it: 13 and 17"
    );
    let decode = [("vae", model.vae), ("latent", latent([48, 1, 4, 4]))];
    assert_eq!(
        rig.objects("vae.decode", &decode),
        "latent: this VAE has latents of 16 channels, found 48 \
         (decode with the VAE of the model that the latent was made for)"
    );
}

#[test]
fn a_longer_clip_needs_its_frames_and_no_more() {
    let rig = Rig::new("memory");
    let vae = rig.model_facts("wan_t2v/model").vae;
    let memory = |tile: i128, frames: usize| {
        let latent = latent([16, frames, 90, 160]);
        let inputs = [("vae", vae.clone()), ("latent", latent), ("tile", number(tile))];
        rig.infer("vae.decode", &inputs).unwrap().memory
    };
    let frames = 4 * (720 * 1280 * 3 * 4);
    assert_eq!(memory(0, 6) - memory(0, 5), frames);
    // Tile by tile, what neighbours overlap is held as well, and one tile's past in place of all.
    let longer = memory(256, 6) - memory(256, 5);
    assert!(longer > frames && longer < 3 * frames / 2, "{longer}, frames alone are {frames}");
    assert!(memory(256, 5) < memory(0, 5));
}

#[test]
fn files_are_looked_at_while_planning() {
    let rig = Rig::new("files");
    std::fs::create_dir_all(&rig.out).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = rig.out.join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let read = |path: &str| rig.objects("image.read", &[("path", known(path))]);
    assert!(
        read(&file("x.png", b"no image at all"))
            .contains("expected a PNG, JPEG, WebP or EXR image")
    );
    assert!(read("none.png").contains("there is no such file"));
    let known_image = [("path", known("shapes/i2v_input.png"))];
    let infer = rig.infer("image.read", &known_image).unwrap();
    let expected = frames_fact(1, 64, 96);
    assert_eq!(infer.outputs[0].get(), Some(&expected));
    assert_eq!(infer.reads[0].path, "shapes/i2v_input.png");
    assert_eq!(infer.key, infer.reads[0].hash.as_bytes());
    let tensors = rig.out.join("t.safetensors");
    let one = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
    one.save_safetensors("noise", &tensors).unwrap();
    let read = |name: &str| {
        let inputs = [("path", known(tensors.to_str().unwrap())), ("name", known(name))];
        rig.infer("tensor.read", &inputs)
    };
    assert!(read("").is_ok(), "the only one needs no name");
    assert_eq!(read("noize").unwrap_err()[0].hint.as_deref(), Some("did you mean `noise`?"));
    let pickle = [("path", known(&file("p.safetensors", b"\x80\x02}q\x00....")))];
    assert!(rig.objects("tensor.read", &pickle).contains("pickle"));
}

#[test]
fn outputs_that_cannot_be_written_are_refused() {
    let rig = Rig::new("outputs");
    let write = |op: &str, frames: Fact, path: &str| {
        rig.objects(op, &[("frames", frames), ("path", known(path))])
    };
    for path in ["/etc/x.mp4", "../x.mp4", "a/../../x.mp4"] {
        assert!(
            write("video.write", frames(1, 64, 64), path).starts_with("path: outputs lie under")
        );
    }
    assert!(
        write("video.write", frames(1, 64, 64), "x.xyz")
            .contains("there is no video format `.xyz`")
    );
    assert!(
        write("video.write", frames(9, 64, 63), "x.mp4").contains("frames: H.264 takes even sizes")
    );
    assert!(
        write("image.write", frames(1, 64, 64), "x.jpg")
            .starts_with("path: images are written as .png")
    );
    assert!(
        write("image.write", frames(9, 64, 64), "x.png")
            .contains("found 9 frames (number the files")
    );
    let numbered = [("frames", frames(9, 64, 64)), ("path", known("x_%03d.png"))];
    assert!(rig.infer("image.write", &numbered).is_ok());
    let tensors = [("tensors", fact_list(&[("a", Fact::Unknown)])), ("path", known("x.pt"))];
    assert!(rig.objects("tensor.write", &tensors).contains("tensors are written as .safetensors"));
    let elsewhere = Rig::new("outputs-elsewhere");
    let key = |rig: &Rig| rig.infer("image.write", &numbered).unwrap().key;
    assert_ne!(key(&rig), key(&elsewhere), "another folder is another file");
}

#[test]
fn given_frames_that_do_not_fit_are_refused() {
    let rig = Rig::new("given-refused");
    let model = rig.model_facts("embedded:shapes");
    let picture = || frames(1, 64, 96);
    let objects = |count: i128, ends: &[(&str, Fact)]| {
        let fixed =
            [("dit", model.dit.clone()), ("vae", model.vae.clone()), ("frames", number(count))];
        rig.objects("given", &[&fixed[..], ends].concat())
    };
    assert_eq!(objects(17, &[]), "-: nothing is given (feed `start`, `end`, or both with frames)");
    assert_eq!(
        objects(16, &[("start", picture())]),
        "frames: frames must be 4k+1 for this VAE, found 16; near it: 13 and 17"
    );
    assert_eq!(
        objects(17, &[("start", frames(6, 64, 96))]),
        "start: the start of a clip for this VAE is 4k+1 frames, found 6; near it: 5 and 9"
    );
    assert_eq!(
        objects(17, &[("end", frames(6, 64, 96))]),
        "end: the end of a clip for this VAE is one picture or 4k frames, found 6; near it: 4 and 8"
    );
    assert_eq!(
        objects(17, &[("end", frames(2, 64, 96))]),
        "end: the end of a clip for this VAE is one picture or 4k frames, found 2; near it: 1 and 4"
    );
    assert_eq!(
        objects(17, &[("start", frames(9, 64, 96)), ("end", frames(12, 64, 96))]),
        "frames: 9 and 12 frames of a clip of 17 (`frames` counts all of the clip, those that are \
         given included)"
    );
    assert_eq!(
        objects(17, &[("start", picture()), ("end", frames(1, 96, 64))]),
        "end: frames of 64×96 at the end, of 96×64 at the start (a `frames.fit` node brings \
         them to a size)"
    );
    let odd = objects(17, &[("start", frames(1, 60, 96))]);
    assert!(odd.starts_with("start: height must be a multiple of 16"), "{odd}");
    let text = rig.model_facts("wan_t2v/model");
    let inputs =
        [("dit", text.dit), ("vae", text.vae), ("frames", number(17)), ("start", picture())];
    let refused = rig.objects("given", &inputs);
    assert!(refused.contains("made for text alone: it takes no given frames"), "{refused}");
}

/// What is given is given of one clip, to one transformer, in one space.
#[test]
fn given_frames_belong_to_their_clip() {
    let rig = Rig::new("given-clip");
    let model = rig.model_facts("embedded:shapes");
    let noise = [
        ("vae", model.vae.clone()),
        ("width", number(96)),
        ("height", number(64)),
        ("frames", number(17)),
        ("seed", number(1)),
    ];
    let latent = rig.fact("latent.noise", &noise, 0);
    let patches =
        rig.fact("patchify", &[("dit", model.dit.clone()), ("latents", latent.clone())], 0);
    let text = [("encoder", model.text.clone()), ("prompt", known("x"))];
    let text = rig.fact("text.encode", &text, 0);
    let given = |count: i128| {
        let inputs = [
            ("dit", model.dit.clone()),
            ("vae", model.vae.clone()),
            ("frames", number(count)),
            ("start", frames(1, 64, 96)),
        ];
        rig.fact("given", &inputs, 0)
    };
    let sample = |dit: &Fact, given: Fact| {
        [
            ("dit", dit.clone()),
            ("patches", patches.clone()),
            ("text", text.clone()),
            ("given", given),
        ]
    };
    assert!(rig.infer("dit.sample", &sample(&model.dit, given(17))).is_ok());
    let other = rig.objects("dit.sample", &sample(&model.dit, given(21)));
    assert!(other.starts_with("given: given of a clip whose latent is [16, 6, 8, 12]"), "{other}");
    let two = fact_list(&[("", given(17)), ("", given(17))]);
    let two = rig.objects("dit.sample", &sample(&model.dit, two));
    assert!(two.starts_with("given: 2 given for 1 clips"), "{two}");
    let decode = [("vae", model.vae.clone()), ("latent", latent.clone()), ("given", given(21))];
    let decode = rig.objects("vae.decode", &decode);
    assert!(decode.starts_with("given: given of a clip whose latent is"), "{decode}");
    // Encoded for channels, it is no use to a transformer that reads tokens.
    let i2v = rig.model_facts("wan_i2v/model");
    let inputs =
        [("dit", i2v.dit), ("vae", i2v.vae), ("frames", number(17)), ("start", frames(1, 64, 96))];
    let whole = rig.fact("given", &inputs, 0);
    let whole = rig.objects("dit.sample", &sample(&model.dit, whole));
    assert!(
        whole.starts_with("given: this was encoded for a transformer of another kind"),
        "{whole}"
    );
}

/// What a clip follows has the size of the clip, and a transformer that reads it.
#[test]
fn a_control_that_does_not_fit_is_refused() {
    let rig = Rig::new("vace-refused");
    let model = rig.model_facts("wan_vace/model");
    let with = |more: &[(&'static str, Fact)]| {
        let parts = [("dit", model.dit.clone()), ("vae", model.vae.clone())];
        [&parts[..], more].concat()
    };
    let video = || ("video", frames(9, 32, 48));
    let mask = |shape: [usize; 3]| ("mask", Fact::typed(MaskFact { shape: shape.map(Some) }));
    let pictures = |pictures: &[Fact]| {
        ("references", Fact::List(pictures.iter().map(|one| (None, one.clone())).collect()))
    };
    let size = [("width", number(48)), ("height", number(32)), ("frames", number(9))];
    let sized = |more: (&'static str, Fact)| [&size[..], &[more]].concat();
    for (inputs, says) in [
        (
            vec![],
            "height: without a video, the height of the clip must be given (feed `video`, or say \
             `width`, `height` and `frames`)",
        ),
        (size[..2].to_vec(), "frames: without a video, the frames of the clip must be given"),
        (
            vec![video(), ("width", number(64))],
            "width: the width of the video is 48, not 64 (a `frames.fit` node brings the video to \
             the size of the clip)",
        ),
        (
            vec![video(), ("frames", number(5))],
            "frames: a video of 9 frames for a clip of 5 (a `frames.trim` node takes a part of a \
             video)",
        ),
        (
            vec![("video", frames(8, 32, 48))],
            "video: frames must be 4k+1 for this VAE, found 8; near it: 5 and 9",
        ),
        (
            vec![video(), ("frames", number(12))],
            "frames: frames must be 4k+1 for this VAE, found 12; near it: 9 and 13",
        ),
        (
            vec![("video", frames(9, 24, 48))],
            "video: height must be a multiple of 16 for this model, found 24; near it: 16 and 32",
        ),
        (
            sized(mask([1, 32, 48])),
            "mask: there is no video of which anything could stay (feed `video`: outside the mask \
             it stays)",
        ),
        (
            vec![video(), mask([1, 32, 64])],
            "mask: a mask has the size of the video, 48×32, and 1 or 9 frames, found 64×32 and 1",
        ),
        (
            vec![video(), mask([5, 32, 48])],
            "mask: a mask has the size of the video, 48×32, and 1 or 9 frames, found 48×32 and 5",
        ),
        (
            sized(pictures(&[frames(1, 20, 20), frames(3, 20, 20)])),
            "references: a picture is one frame, found 3 (a `frames.trim` node takes one of a clip)",
        ),
        (
            sized(pictures(&[frames(1, 1, 20_000)])),
            "references: a picture of 20000×1 is no pixel wide or high in a clip of 48×32",
        ),
    ] {
        let said = rig.objects("vace", &with(&inputs));
        assert!(said.starts_with(says), "{said}");
    }
    // All that is wrong is said at once.
    let many = rig.objects("vace", &with(&[("video", frames(8, 24, 48)), mask([1, 1, 1])]));
    assert_eq!(many.lines().count(), 3, "{many}");
    let text = rig.model_facts("wan_t2v/model");
    let inputs = [("dit", text.dit.clone()), ("vae", text.vae.clone()), video()];
    let refused = rig.objects("vace", &inputs);
    assert!(refused.starts_with("dit: this transformer takes no control"), "{refused}");
    let ti2v = rig.model_facts("wan22_ti2v/model");
    let inputs = [("dit", model.dit.clone()), ("vae", ti2v.vae), ("video", frames(9, 32, 64))];
    let refused = rig.objects("vace", &inputs);
    assert!(refused.starts_with("vae: this transformer reads latents of 16 channels"), "{refused}");
    let given = [("frames", number(9)), ("start", frames(1, 32, 48))];
    let refused = rig.objects("given", &with(&given));
    assert!(refused.starts_with("dit: this transformer is given frames by a control"), "{refused}");
}

/// A control is of one clip, whose noise has room for its pictures, and goes to its transformer.
#[test]
fn a_control_belongs_to_its_clip() {
    let rig = Rig::new("vace-clip");
    let model = rig.model_facts("wan_vace/model");
    let control = |count: usize, fps: i128| {
        let pictures = (0..count).map(|_| (None, frames(1, 20, 30))).collect();
        let inputs = [
            ("dit", model.dit.clone()),
            ("vae", model.vae.clone()),
            ("video", frames(9, 32, 48)),
            ("references", Fact::List(pictures)),
        ];
        let infer = rig.infer("vace", &inputs).unwrap();
        assert_eq!(infer.outputs[1].literal(), Some(&Literal::Int(fps)), "frames of the noise");
        assert!(infer.memory > 0 && infer.weights.len() == 1);
        infer.outputs[0].clone()
    };
    let two = control(2, 17);
    let fact: &ControlFact = two.get().unwrap();
    assert_eq!((fact.shape, fact.references), ([96, 5, 4, 6].map(Some), 2));
    let noise = |count: i128| {
        let inputs = [
            ("vae", model.vae.clone()),
            ("width", number(48)),
            ("height", number(32)),
            ("frames", number(count)),
            ("seed", number(1)),
        ];
        let latents = rig.fact("latent.noise", &inputs, 0);
        rig.fact("patchify", &[("dit", model.dit.clone()), ("latents", latents)], 0)
    };
    let text = [("encoder", model.text.clone()), ("prompt", known("x"))];
    let text = rig.fact("text.encode", &text, 0);
    let sample = |dit: &Fact, patches: Fact, control: Fact| {
        [("dit", dit.clone()), ("patches", patches), ("text", text.clone()), ("control", control)]
    };
    let planned = rig.infer("dit.sample", &sample(&model.dit, noise(17), two.clone())).unwrap();
    let clean: &PatchesFact = planned.outputs[0].get().unwrap();
    assert_eq!(clean.clips[0].grid, [3, 2, 3].map(Some), "the pictures are taken away");
    let trace: &TensorFact = planned.outputs[1].get().unwrap();
    assert_eq!(trace.shape, [20, 16, 5, 4, 6], "and the trace has them");
    let short = rig.objects("dit.sample", &sample(&model.dit, noise(9), two.clone()));
    assert!(
        short.starts_with(
            "control: a control of 5×4×6 latent pixels (2 of the frames are pictures), noise of \
             3×4×6 (`latent.noise` takes its `frames` from the output `frames` of `vace`"
        ),
        "{short}"
    );
    let text_only = rig.model_facts("wan_t2v/model").dit;
    let other = rig.objects("dit.sample", &sample(&text_only, noise(17), two.clone()));
    assert!(other.starts_with("control: this transformer takes no control"), "{other}");
    let many = fact_list(&[("", control(0, 9)), ("", control(0, 9))]);
    let many = rig.objects("dit.sample", &sample(&model.dit, noise(9), many));
    assert!(many.starts_with("control: 2 controls for 1 clips"), "{many}");
    // Without a control, the model makes clips from text alone.
    let alone = [("dit", model.dit.clone()), ("patches", noise(9)), ("text", text.clone())];
    assert!(rig.infer("dit.sample", &alone).is_ok());
}
