//! Checkpoints of other sizes than the published ones, made and run by diffusers
//! (`tests/ref/variants.py`): what a config says is all that is known of them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use kino_models::families::wan::VaeConfig;
use kino_models::families::wan::vae::Vae;
use kino_models::{Error, Weights};
use kino_tests::{Rig, difference, reference, to_bytes};
use serde_json::Value;

/// More of them, made by hand: `KINO_TEST_VARIANTS=FOLDER`.
const MORE: &str = "KINO_TEST_VARIANTS";

/// One checkpoint with its values.
struct Variant {
    folder: PathBuf,
    case: Value,
}

impl Variant {
    fn read(folder: PathBuf) -> Option<Self> {
        let case = std::fs::read(folder.join("case.json")).ok()?;
        let case = serde_json::from_slice(&case).expect("JSON");
        Some(Variant { folder, case })
    }

    fn name(&self) -> &str {
        self.case["name"].as_str().expect("a name")
    }

    fn golden(&self, name: &str) -> Option<Tensor> {
        kino_world::read_tensor(&self.folder.join("golden.safetensors"), name).ok()
    }

    fn need(&self, name: &str) -> Tensor {
        self.golden(name).unwrap_or_else(|| panic!("{}: no `{name}`", self.name()))
    }

    /// Everything that is to be compared, by one graph; `text` is a file with the text's rows.
    fn graph(&self, text: &Path) -> String {
        let mut nodes = String::new();
        let mut outputs = Vec::new();
        let mut node = |name: &str, node: String| {
            let _ = writeln!(nodes, "\"{name}\": ({node}),");
        };
        let read = |name: &str| {
            format!(
                r#"op: "tensor.read", with: {{"path": "golden.safetensors", "name": "{name}"}}"#
            )
        };
        node(
            "model",
            r#"op: "model.load", with: {"source": "model", "compute": "f32"}"#.to_owned(),
        );
        if let Some(prompt) = self.case.get("prompt") {
            node(
                "embeds",
                format!(
                    r#"op: "text.encode", in: {{"encoder": "model.text_encoder"}}, with: {{"prompt": {prompt}}}"#
                ),
            );
            outputs.push("\"embeds\": \"embeds\"");
        }
        if self.golden("z").is_some() {
            for name in ["video_u8", "z"] {
                node(name, read(name));
            }
            let encode = r#"op: "vae.encode", in: {"vae": "model.vae", "frames": "video_u8"}"#;
            let decode = r#"op: "vae.decode", in: {"vae": "model.vae", "latent": "z"}"#;
            node("encoded", encode.to_owned());
            node("decoded", decode.to_owned());
            outputs.extend(["\"encoded\": \"encoded\"", "\"decoded\": \"decoded\""]);
        }
        if self.golden("latents_init").is_some() {
            let path = serde_json::to_string(text).expect("a path");
            node("text", format!(r#"op: "tensor.read", with: {{"path": {path}, "name": "text"}}"#));
            node("noise", read("latents_init"));
            let leading = self.leading(&mut node, &read);
            node(
                "patches",
                r#"op: "patchify", in: {"latents": "noise", "dit": "model.dit"}"#.to_owned(),
            );
            let low = self.case.get("guidance_low");
            let low = low.map_or_else(String::new, |low| format!(", \"guidance_low\": {low}"));
            node(
                "sample",
                format!(
                    r#"op: "dit.sample", in: {{"dit": "model.dit", "patches": "patches",
                    "text": "text"{leading}}}, with: {{"steps": {}, "guidance": {}{low}}}"#,
                    self.case["steps"], self.case["guidance"]
                ),
            );
            node("latent", r#"op: "unpatchify", in: {"patches": "sample.patches"}"#.to_owned());
            node(
                "frames",
                r#"op: "vae.decode", in: {"vae": "model.vae", "latent": "latent"}"#.to_owned(),
            );
            outputs.extend(["\"trace\": \"sample.trace\"", "\"frames\": \"frames\""]);
            if self.golden("image_embeds").is_some() {
                outputs.push("\"seen\": \"seen\"");
            }
        }
        format!(
            r#"Graph(version: 1, nodes: {{{nodes} "out": (op: "tensor.write",
            with: {{"path": "out.safetensors"}}, in: {{"tensors": {{{}}}}})}})"#,
            outputs.join(", ")
        )
    }

    /// Nodes of what leads the clip beside its text: the edges to `dit.sample`.
    fn leading(
        &self,
        node: &mut impl FnMut(&str, String),
        read: &impl Fn(&str) -> String,
    ) -> String {
        let mut edges = String::new();
        let has = |name: &str| self.golden(name).is_some();
        let ends = [("start", "first_u8"), ("end", "last_u8")];
        let ends: Vec<_> = ends.into_iter().filter(|(_, name)| has(name)).collect();
        if !ends.is_empty() {
            let mut given = String::new();
            for (port, name) in ends {
                node(name, read(name));
                let _ = write!(given, r#", "{port}": "{name}""#);
            }
            let frames = &self.case["frames"];
            node(
                "given",
                format!(
                    r#"op: "given", in: {{"dit": "model.dit", "vae": "model.vae"{given}}},
                    with: {{"frames": {frames}}}"#
                ),
            );
            edges += r#", "given": "given""#;
        }
        let seen: Vec<_> =
            ["seen_first_u8", "seen_last_u8"].into_iter().filter(|name| has(name)).collect();
        if !seen.is_empty() {
            seen.iter().for_each(|name| node(name, read(name)));
            node(
                "seen",
                format!(
                    r#"op: "image.encode", in: {{"encoder": "model.image_encoder", "image": {seen:?}}}"#
                ),
            );
            edges += r#", "image": "seen""#;
        }
        if let Some(strength) = self.case.get("strength") {
            let count = self.case["references"].as_u64().expect("a number");
            let pictures: Vec<_> = (0..count).map(|index| format!("shown_{index}_u8")).collect();
            pictures.iter().for_each(|name| node(name, read(name)));
            let mut from = match pictures.is_empty() {
                true => String::new(),
                false => format!(", \"references\": {pictures:?}"),
            };
            let mut size = String::new();
            if has("film_u8") {
                node("film", read("film_u8"));
                node("mask", read("mask"));
                from += r#", "video": "film", "mask": "mask""#;
            } else {
                for side in ["width", "height", "frames"] {
                    let _ = write!(size, ", \"{side}\": {}", self.case[side]);
                }
            }
            node(
                "vace",
                format!(
                    r#"op: "vace", in: {{"dit": "model.dit", "vae": "model.vae"{from}}},
                    with: {{"strength": {strength}{size}}}"#
                ),
            );
            edges += r#", "control": "vace.control""#;
        }
        edges
    }

    /// What is farther from diffusers than allowed, one line each; and all figures to the log.
    fn check(&self) -> Vec<String> {
        let place = tempfile::tempdir().expect("a folder");
        let text = place.path().join("text.safetensors");
        if let Some(rows) = self.golden("text") {
            let all = self.case["rows"].as_u64().expect("rows") as usize;
            let padding = all - rows.dims()[0];
            let padded = rows.pad_with_zeros(0, 0, padding).expect("rows");
            padded.save_safetensors("text", &text).expect("a file");
        }
        let rig = Rig::of(self.name(), &self.graph(&text), &self.folder);
        rig.run();
        let out = |name: &str| rig.tensor("out.safetensors", name);
        let largest = |tensor: &Tensor| {
            let tensor = tensor.to_dtype(DType::F64).and_then(|all| all.abs()?.max_all());
            tensor.and_then(|all| all.to_scalar::<f64>()).expect("numbers").max(1.0)
        };
        let mut far = Vec::new();
        let mut within = |what: &str, found: &Tensor, expected: &Tensor, limit: f64| {
            let found = difference(found, expected) / largest(expected);
            println!("{}, {what}: {found:.2e} of {limit:.0e}", self.name());
            if found > limit {
                far.push(format!("{}, {what}: {found:.2e} is over {limit:.0e}", self.name()));
            }
        };
        if let Some(embeds) = self.golden("embeds") {
            within("text", &out("embeds"), &embeds, 5e-5);
        }
        if let Some(latent) = self.golden("latent") {
            within("encoded", &out("encoded"), &latent, 2e-5);
            within("decoded", &out("decoded"), &self.need("decoded"), 2e-5);
        }
        if let Some(steps) = self.golden("latents_steps") {
            within("steps", &out("trace"), &steps, 1e-4);
            // Bytes are compared as such: within 1 of 255.
            let (frames, expected) = (to_bytes(&out("frames")), self.need("frames_u8"));
            let expected = expected.to_dtype(DType::F32).expect("numbers");
            within("frames", &frames, &expected, 1.001 / largest(&expected));
        }
        if let Some(embeds) = self.golden("image_embeds") {
            within("seen", &out("seen"), &embeds, 2e-5);
        }
        far
    }
}

/// The checkpoints in a folder, by name.
fn variants(folder: &Path) -> Vec<Variant> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut found: Vec<_> =
        entries.filter_map(|entry| Variant::read(entry.expect("an entry").path())).collect();
    found.sort_by(|a, b| a.name().cmp(b.name()));
    found
}

#[test]
fn checkpoints_of_other_sizes_work_by_their_configs() {
    let mut all = variants(&reference().join("variants"));
    assert!(all.len() >= 5, "{} checkpoints", all.len());
    if let Some(more) = std::env::var_os(MORE) {
        all.extend(variants(Path::new(&more)));
    }
    let checked = |variant: &Variant| {
        let check = || variant.check();
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).unwrap_or_else(|problem| {
            let text = problem.downcast_ref::<String>().cloned();
            vec![format!("{}: {}", variant.name(), text.unwrap_or_default())]
        })
    };
    let far: Vec<String> = all.iter().flat_map(checked).collect();
    assert!(far.is_empty(), "{} of {} checkpoints:\n{}", far.len(), all.len(), far.join("\n"));
}

/// A checkpoint of Wan 2.1's autoencoder at its real widths: its config, and weights of the real
/// size that are all zero and take no room on disk.
fn real_autoencoder(folder: &Path) {
    let write = |path: &str, text: &str| {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    };
    write(
        "model_index.json",
        r#"{"_class_name": "WanPipeline", "vae": ["diffusers", "AutoencoderKLWan"]}"#,
    );
    write(
        "scheduler/scheduler_config.json",
        r#"{"_class_name": "UniPCMultistepScheduler", "prediction_type": "flow_prediction",
            "use_flow_sigmas": true, "flow_shift": 3.0, "num_train_timesteps": 1000}"#,
    );
    let (mean, deviation) = ([0.0; 16], [1.0; 16]);
    let config = serde_json::json!({
        "_class_name": "AutoencoderKLWan", "base_dim": 96, "z_dim": 16, "dim_mult": [1, 2, 4, 4],
        "num_res_blocks": 2, "attn_scales": [], "temperal_downsample": [false, true, true],
        "latents_mean": mean, "latents_std": deviation,
    });
    write("vae/config.json", &config.to_string());
    // The decoder says of each weight that is missing its name, then its shape.
    let config: VaeConfig = serde_json::from_value(config).expect("a config");
    let path = folder.join("vae/diffusion_pytorch_model.safetensors");
    let mut shapes = BTreeMap::from([("encoder.all".to_owned(), vec![53_596_928])]);
    loop {
        sparse(&path, &shapes);
        let weights = Weights::open(&path, DType::F32, &Device::Cpu).expect("weights");
        let vae = Vae::load(&config, &weights.probing(&Default::default())).expect("a config");
        let (name, shape) = match vae.decoder().map(drop) {
            Ok(()) => break,
            Err(Error::MissingWeight { name, .. }) => (name.name.into(), vec![1]),
            Err(Error::WeightShape { name, expected, .. }) => (name.name.into(), expected),
            Err(other) => panic!("{other}"),
        };
        shapes.insert(name, shape);
    }
    let decoder = shapes.iter().filter(|(name, _)| *name != "encoder.all");
    let decoder: usize = decoder.map(|(_, shape)| shape.iter().product::<usize>()).sum();
    assert_eq!(decoder, 73_295_603);
}

/// A file of weights of these shapes that takes no room on the disk.
fn sparse(path: &Path, shapes: &BTreeMap<String, Vec<usize>>) {
    let mut end = 0;
    let mut header = serde_json::Map::new();
    for (name, shape) in shapes {
        let begin = end;
        end += 4 * shape.iter().product::<usize>();
        let info = serde_json::json!({
            "dtype": "F32", "shape": shape, "data_offsets": [begin, end],
        });
        header.insert(name.clone(), info);
    }
    let header = Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    std::fs::write(path, &bytes).expect("a file");
    let file = std::fs::File::options().write(true).open(path).expect("the file");
    file.set_len((bytes.len() + end) as u64).expect("a sparse file");
}

/// 81 frames of 480×832 at real widths are decoded in 3 GiB, by what a plan foresees of the whole
/// process: with tiles, of which one is decoded after another.
#[test]
fn a_clip_at_real_widths_is_planned_below_3_gib() {
    let place = tempfile::tempdir().expect("a folder");
    real_autoencoder(place.path());
    let engine = kino_tests::engine(place.path()).memory("16GB").build().expect("an engine");
    let peak = |tile: usize| {
        let text = format!(
            r#"Graph(version: 1, nodes: {{
                "model": (op: "model.load", with: {{"source": "."}}),
                "noise": (op: "latent.noise", in: {{"vae": "model.vae"}},
                    with: {{"width": 832, "height": 480, "frames": 81, "seed": 1}}),
                "frames": (op: "vae.decode", in: {{"vae": "model.vae", "latent": "noise"}}, with: {{"tile": {tile}}}),
                "out": (op: "video.write", in: {{"frames": "frames"}}, with: {{"path": "out.png", "fps": 16}}),
            }})"#
        );
        let graph = engine.open_text("real.ron", &text, place.path()).expect("a graph");
        graph.plan(&kino_session::Inputs::new()).expect("a plan").peak_memory()
    };
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let (of_itself, whole, tiled) = (peak(0), peak(832), peak(256));
    println!("whole {:.2} GiB, in tiles of 256 {:.2} GiB", gib(whole), gib(tiled));
    assert!(of_itself < 3 << 30, "{:.2} GiB as it chooses itself", gib(of_itself));
    // Tiles of 256, but for what the process holds by then.
    assert!(of_itself.abs_diff(tiled) < 8 << 20, "{of_itself} {tiled}");
    assert!(2 * tiled < whole, "{:.2} GiB whole", gib(whole));
}
