//! LTX-Video through the nodes: prompts to frames as diffusers' pipelines make them.

mod common;

use candle_core::{DType, IndexOp, Tensor};
use common::{Model, Rig, close, distance, int, json, known, number, text};
use kino_node::{Frames, Value};

/// Runs a case up to its latents, and compares them step by step.
fn check(name: &str, case: &serde_json::Value) {
    let label = case["name"].as_str().unwrap();
    let (rig, about) =
        (Rig::new(&format!("ltx-{name}-{label}")), json(&format!("ltx/{name}/case.json")));
    let golden = |part: &str| {
        rig.golden(&format!("ltx/{name}/golden.safetensors"), &format!("{label}.{part}"))
    };
    let Model { text: encoder, dit, vae } = rig.model(&format!("ltx/{name}/model"));
    let prompts = [
        ("encoder", encoder),
        ("prompt", text(about["prompt"].as_str().unwrap())),
        ("negative", text(about["negative"].as_str().unwrap())),
    ];
    let start = ("latents", golden("latents_init"));
    let size = |key: &str| int(case[key].as_i64().unwrap().into());
    let mut inputs = vec![
        ("dit", dit.clone()),
        ("patches", rig.one("patchify", &[("dit", dit.clone()), start])),
        ("text", rig.one("text.encode", &prompts)),
        ("steps", size("steps")),
        ("guidance", Value::Real(case["guidance"].as_f64().unwrap())),
    ];
    let fps = case["fps"].as_f64().unwrap();
    if fps != 25.0 {
        inputs.push(("fps", Value::Real(fps)));
    }
    let given = case["given"] == true;
    let picture = given.then(|| {
        let bytes = golden("first_u8").tensor().unwrap().to_dtype(DType::F32).unwrap();
        Value::Tensor((bytes / 255.0).unwrap())
    });
    let given = picture.map(|picture| {
        let ports = [
            ("dit", dit.clone()),
            ("vae", vae.clone()),
            ("frames", size("frames")),
            ("start", picture.clone()),
        ];
        (rig.one("given", &ports), picture)
    });
    if let Some((given, _)) = &given {
        inputs.push(("given", given.clone()));
    }
    let sampled = rig.run("dit.sample", &inputs);
    let [Some(patches), Some(Value::Tensor(trace))] = &sampled[..] else { panic!("two outputs") };
    let steps = golden("latents_steps").tensor().unwrap();
    // The trace has what is given not yet in its place.
    let first = usize::from(given.is_some());
    let free = |steps: &Tensor| steps.narrow(2, first, steps.dim(2).unwrap() - first).unwrap();
    close(&format!("{name} {label}: latents"), &free(trace), &free(&steps), 1e-4);
    let latent = rig.one("unpatchify", &[("patches", patches.clone())]);
    let last = steps.i(steps.dim(0).unwrap() - 1).unwrap();
    close(&format!("{name} {label}: last"), &latent.tensor().unwrap(), &last, 1e-4);
    let mut decode = vec![("vae", vae.clone()), ("latent", latent)];
    if let Some((given, _)) = &given {
        decode.push(("given", given.clone()));
    }
    let decoded = rig.one("vae.decode", &decode);
    let frames = decoded.tensor().unwrap();
    let shape: Vec<usize> =
        ["frames", "height", "width"].map(|key| case[key].as_u64().unwrap() as usize).into();
    assert_eq!(frames.dims(), [shape[0], shape[1], shape[2], 3]);
    if let Some((_, picture)) = given {
        let first = frames.narrow(0, 0, 1).unwrap();
        assert_eq!(distance(&first, &picture.tensor().unwrap()), 0.0, "what is given stays");
    }
}

#[test]
fn text_and_image_to_video_equal_diffusers() {
    for case in json("ltx/v090/case.json")["samples"].as_array().unwrap() {
        check("v090", case);
    }
}

#[test]
fn the_pipeline_of_0_9_5_equals_diffusers() {
    for case in json("ltx/v095/case.json")["samples"].as_array().unwrap() {
        check("v095", case);
    }
}

/// A decoder that takes noise decodes with what the node says, or with the authors' values.
#[test]
fn noise_of_a_decoder_is_said_by_the_node() {
    let rig = Rig::new("ltx-noise");
    let vae = rig.model("ltx/v095/model").vae;
    let golden = |name: &str| rig.golden("ltx/v095/golden.safetensors", name);
    let decode = |given: &[(&str, Value)]| {
        let inputs = [("vae", vae.clone()), ("latent", golden("v2.z"))];
        rig.one("vae.decode", &[&inputs, given].concat()).tensor().unwrap()
    };
    let noise = |timestep, noise, seed| {
        [("timestep", Value::Real(timestep)), ("noise", Value::Real(noise)), ("seed", int(seed))]
    };
    let expected = golden("v2.decoded").tensor().unwrap();
    close("frames", &decode(&noise(0.3, 0.5, 8)), &expected, 2e-5);
    assert_eq!(distance(&decode(&noise(0.05, 0.025, 0)), &decode(&[])), 0.0);
    assert!(distance(&decode(&noise(0.05, 0.025, 1)), &decode(&[])) > 1e-4);
}

#[test]
fn what_does_not_fit_is_said_in_the_plan() {
    let rig = Rig::new("ltx-plan");
    let model = rig.model_facts("ltx/v090/model");
    let noise = |frames, width| {
        let inputs = [
            ("vae", model.vae.clone()),
            ("width", number(width)),
            ("height", number(32)),
            ("frames", number(frames)),
            ("seed", number(1)),
        ];
        rig.objects("latent.noise", &inputs)
    };
    assert_eq!(noise(7, 32), "frames: frames must be 4k+1 for this VAE, found 7; near it: 5 and 9");
    assert!(noise(5, 20).starts_with("width: width must be a multiple of 8 for this model"));
    let number = |value| kino_port::Fact::Literal(kino_port::Literal::Real(value));
    let decode = [("vae", model.vae), ("latent", Default::default()), ("noise", number(0.1))];
    assert!(
        rig.objects("vae.decode", &decode).starts_with("noise: the decoder of this VAE takes no")
    );
    let wan = rig.model_facts("wan_t2v/model");
    let sample = [("dit", wan.dit), ("text", Default::default()), ("fps", number(24.0))];
    assert!(
        rig.objects("dit.sample", &sample)
            .contains("fps: this transformer is not told a frame rate")
    );
    let unsized_levels = rig.objects("schedule", &[("dit", model.dit.clone())]);
    assert!(unsized_levels.contains("depend on the size of a clip"), "{unsized_levels}");
    let unknown = rig.fact("model.load", &[("source", known("ltx/vae091/model"))], 2);
    assert!(rig.objects("schedule", &[("dit", unknown)]).contains("has no transformer"));
}

/// Frames as a value and back: the encoder takes them in chunks of a latent frame.
#[test]
fn frames_are_encoded_by_the_node() {
    let rig = Rig::new("ltx-encode");
    let vae = rig.model("ltx/v090/model").vae;
    let golden = |name: &str| rig.golden("ltx/v090/golden.safetensors", name).tensor().unwrap();
    for case in ["v1", "v2", "v3"] {
        let bytes = golden(&format!("{case}.video_u8")).to_dtype(DType::F32).unwrap();
        let frames = ("frames", Value::Tensor((bytes / 255.0).unwrap()));
        let latent = rig.one("vae.encode", &[("vae", vae.clone()), frames]);
        close(case, &latent.tensor().unwrap(), &golden(&format!("{case}.latent")), 2e-5);
        let z = Value::Tensor(golden(&format!("{case}.z")));
        let decoded = rig.one("vae.decode", &[("vae", vae.clone()), ("latent", z)]);
        let count = decoded.shared::<Frames>().unwrap().count();
        assert_eq!(count, golden(&format!("{case}.decoded")).dim(0).unwrap());
        close(case, &decoded.tensor().unwrap(), &golden(&format!("{case}.decoded")), 2e-5);
    }
}

/// Weights of a folder by the names of the authors, as their single files have them.
mod originals {
    use std::collections::HashMap;

    use candle_core::{Device, Tensor};

    use crate::common::reference;

    pub(super) type Tensors = HashMap<String, Tensor>;

    pub(super) fn weights(name: &str, part: &str) -> Tensors {
        let path = format!("ltx/{name}/model/{part}/diffusion_pytorch_model.safetensors");
        candle_core::safetensors::load(reference(&path), &Device::Cpu).unwrap()
    }

    /// The names of `transformer`.
    pub(super) fn transformer(name: &str) -> String {
        let words = [
            ("proj_in", "patchify_proj"),
            ("time_embed", "adaln_single"),
            ("norm_q", "q_norm"),
            ("norm_k", "k_norm"),
        ];
        let word = |word: &str| {
            let found = words.iter().find(|(own, _)| *own == word);
            found.map_or(word, |(_, original)| original).to_owned()
        };
        name.split('.').map(word).collect::<Vec<_>>().join(".")
    }

    /// The names of `vae`, whose blocks are entries of flat lists in the order of `encoder` and
    /// `decoder`.
    pub(super) fn vae(name: &str, encoder: &[&str], decoder: &[&str]) -> String {
        let listed = [("encoder.", "down_blocks", encoder), ("decoder.", "up_blocks", decoder)];
        let in_list = listed.iter().find_map(|(side, list, entries)| {
            let inner = name.strip_prefix(side)?;
            let entry = entries.iter().enumerate().filter_map(|(index, entry)| {
                Some((entry.len(), index, inner.strip_prefix(entry)?.strip_prefix('.')?))
            });
            let (_, index, inner) = entry.max()?;
            Some(format!("{side}{list}.{index}.{inner}"))
        });
        let name = match name {
            "latents_mean" => "per_channel_statistics.mean-of-means".to_owned(),
            "latents_std" => "per_channel_statistics.std-of-means".to_owned(),
            "decoder.scale_shift_table" => "decoder.last_scale_shift_table".to_owned(),
            name => in_list.unwrap_or_else(|| name.to_owned()),
        };
        let name = name.replace("decoder.time_embedder", "decoder.last_time_embedder");
        let name = name.replace("resnets", "res_blocks").replace("norm3.", "norm3.norm.");
        name.replace("conv_shortcut.conv", "conv_shortcut")
    }
}

/// A file with both parts of a model, and what its authors say of it.
fn bundle(name: &str, lists: [&[&str]; 2], config: &str) -> std::path::PathBuf {
    let mut all = originals::Tensors::new();
    for (own, tensor) in originals::weights(name, "transformer") {
        all.insert(format!("model.diffusion_model.{}", originals::transformer(&own)), tensor);
    }
    for (own, tensor) in originals::weights(name, "vae") {
        all.insert(format!("vae.{}", originals::vae(&own, lists[0], lists[1])), tensor);
    }
    let unread = all["vae.per_channel_statistics.std-of-means"].clone();
    all.insert("vae.per_channel_statistics.mean-of-stds".to_owned(), unread);
    let folder = std::env::temp_dir().join(format!("kino-ltx-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join(format!("{name}.safetensors"));
    let about = std::collections::HashMap::from([("config".to_owned(), config.to_owned())]);
    safetensors::serialize_to_file(all, Some(about), &file).unwrap();
    file
}

/// One file of the authors' is transformer and autoencoder, and gives what the folder gives.
#[test]
fn a_single_file_of_the_authors_is_the_folder() {
    let old: [&[&str]; 2] = [
        &[
            "down_blocks.0",
            "down_blocks.0.downsamplers.0",
            "down_blocks.0.conv_out",
            "down_blocks.1",
            "down_blocks.1.downsamplers.0",
            "down_blocks.1.conv_out",
            "down_blocks.2",
            "mid_block",
        ],
        &[
            "mid_block",
            "up_blocks.0",
            "up_blocks.1.conv_in",
            "up_blocks.1.upsamplers.0",
            "up_blocks.1",
            "up_blocks.2.conv_in",
            "up_blocks.2.upsamplers.0",
            "up_blocks.2",
        ],
    ];
    let rig = Rig::new("ltx-single");
    let config = r#"{"transformer": {"num_attention_heads": 2}}"#;
    let file = bundle("v090", old, config);
    let path = file.to_str().unwrap();
    let folder = rig.model("ltx/v090/model");
    let given = [("transformer", text(path)), ("vae", text(path)), ("compute", text("f32"))];
    let wanted = [false, false, true, true];
    let mut parts = rig.run_wanted(common::node("model.load"), &given, &wanted);
    let mut part = |index: usize| parts[index].take().expect("a part");
    let (dit, vae) = (part(2), part(3));
    let golden = |name: &str| rig.golden("ltx/v090/golden.safetensors", name);
    let sample = |dit: &Value| {
        let latents = ("latents", golden("a.latents_init"));
        let patches = rig.one("patchify", &[("dit", dit.clone()), latents]);
        let rows = ("text", golden("x_text"));
        let inputs = [("dit", dit.clone()), ("patches", patches), rows, ("steps", int(2))];
        // Levels that both have.
        let inputs = [&inputs[..], &[("shift", Value::Real(2.0))]].concat();
        rig.one("dit.sample", &inputs).tensor().unwrap()
    };
    assert!(distance(&sample(&dit), &sample(&folder.dit)) < 1e-5);
    for op in ["vae.decode", "vae.encode"] {
        let run = |vae: &Value| {
            let input = match op {
                "vae.decode" => ("latent", golden("v2.z")),
                _ => ("frames", {
                    let bytes = golden("v2.video_u8").tensor().unwrap();
                    Value::Tensor((bytes.to_dtype(DType::F32).unwrap() / 255.0).unwrap())
                }),
            };
            rig.one(op, &[("vae", vae.clone()), input]).tensor().unwrap()
        };
        assert_eq!(distance(&run(&vae), &run(&folder.vae)), 0.0, "{op}");
    }
    // Nothing of it is left over, and what it lacks is said by name.
    let facts = given.clone().map(|(port, value)| match value {
        Value::Text(value) => (port, known(&value)),
        _ => unreachable!(),
    });
    let planned = rig.infer("model.load", &facts).unwrap();
    assert!(planned.warnings.is_empty(), "{:?}", planned.warnings);
    let wide = bundle("v095", [&[], &[]], "{}");
    let refused = rig.objects("model.load", &[("transformer", known(wide.to_str().unwrap()))]);
    assert!(refused.contains("how many heads it has does not follow"), "{refused}");
    std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
}

/// A text encoder alone is T5 for the model whose transformer it goes with.
#[test]
fn t5_alone_goes_with_the_model_of_its_folder() {
    let rig = Rig::new("ltx-t5");
    let own = common::reference("ltx/v090/model/text_encoder/model.safetensors");
    let given = [
        ("source", text("ltx/v090/model")),
        ("text_encoder", text(own.to_str().unwrap())),
        ("compute", text("f32")),
    ];
    let encoder = rig.run("model.load", &given).remove(0).unwrap();
    let folder = rig.model("ltx/v090/model").text;
    let encode = |encoder: Value| {
        let inputs = [("encoder", encoder), ("prompt", text("deep snow"))];
        let found = rig.one("text.encode", &inputs);
        let found = found.shared::<kino_node::Conditioning>().unwrap();
        let text = found.positive.iter().next().unwrap();
        (text.tensor.clone(), text.mask.clone().unwrap())
    };
    let (alone, folder) = (encode(encoder), encode(folder));
    assert_eq!(distance(&alone.0, &folder.0), 0.0);
    assert_eq!(distance(&alone.1, &folder.1), 0.0);
}

/// The transformer alone in few bits, by the names of its authors: what diffusers computes with the
/// numbers that the libraries which wrote the files say they are (`tests/ref/ltx_files.py`).
#[test]
fn files_in_few_bits_give_what_diffusers_gives_of_their_numbers() {
    const VALUES: &str = "ltx_files/values.safetensors";
    let rig = Rig::new("ltx-narrow");
    let x = rig.golden(VALUES, "x").tensor().unwrap();
    let plain = rig.golden(VALUES, "plain").tensor().unwrap();
    for file in ["q8_0.gguf", "q4_0.gguf", "fp8.safetensors", "fp8_rows.safetensors"] {
        let path = common::reference(&format!("ltx_files/{file}"));
        let inputs = [("transformer", text(path.to_str().unwrap())), ("compute", text("f32"))];
        let wanted = [false, false, true, false];
        let mut parts = rig.run_wanted(common::node("model.load"), &inputs, &wanted);
        let dit = parts[2].take().unwrap();
        let inferred = rig.infer("model.load", &[("transformer", known(path.to_str().unwrap()))]);
        let warnings = inferred.unwrap().warnings;
        assert!(warnings.is_empty(), "{file}: {warnings:?}");
        let latents = ("latents", Value::Tensor(x.clone()));
        let patches = rig.one("patchify", &[("dit", dit.clone()), latents]);
        // One step of Euler from timestep 1000 goes all the way.
        let inputs = [
            ("dit", dit.clone()),
            ("patches", patches),
            ("text", rig.golden(VALUES, "text")),
            ("steps", int(1)),
            ("guidance", Value::Real(1.0)),
            ("scheduler", text("euler")),
            ("shift", Value::Real(1.0)),
        ];
        let clean = rig.one("unpatchify", &[("patches", rig.one("dit.sample", &inputs))]);
        let velocity = (&x - clean.tensor().unwrap()).unwrap();
        let stem = file.split('.').next().unwrap();
        let expected = rig.golden(VALUES, stem).tensor().unwrap();
        close(&format!("{file}: velocity"), &velocity, &expected, 2e-5);
        assert!(distance(&expected, &plain) > 1e-3, "{file}: not the numbers before they were cut");
    }
}

/// A folder's parts as files of their own, by the names of the authors: the same numbers, and the
/// sizes that weights alone do not say. In GGUF, too.
#[test]
fn parts_are_written_as_files_of_their_own() {
    use common::single::converted_file;
    use kino_models::convert::ConvertTo;

    let rig = Rig::new("ltx-convert");
    for name in ["v090", "v095"] {
        let model = format!("ltx/{name}/model");
        let (path, folder) = (common::reference(&model), rig.model(&model));
        let golden = |part: &str| rig.golden(&format!("ltx/{name}/golden.safetensors"), part);
        for ending in ["safetensors", "gguf"] {
            let [dit, vae] = ["transformer", "vae"].map(|part| {
                let file = format!("ltx-{name}-{part}.{ending}");
                converted_file((&path, part), ConvertTo::Plain(DType::F32), &file).unwrap()
            });
            let given = [
                ("transformer", text(dit.path())),
                ("vae", text(vae.path())),
                ("compute", text("f32")),
            ];
            let wanted = [false, false, true, true];
            let mut parts = rig.run_wanted(common::node("model.load"), &given, &wanted);
            let mut part = |index: usize| parts[index].take().expect("a part");
            let (dit, vae) = (part(2), part(3));
            let sample = |dit: &Value| {
                let latents = ("latents", golden("a.latents_init"));
                let patches = rig.one("patchify", &[("dit", dit.clone()), latents]);
                let rows = ("text", rig.golden("ltx/v090/golden.safetensors", "x_text"));
                let inputs = [("dit", dit.clone()), ("patches", patches), rows, ("steps", int(1))];
                // A level that both have: the folder's scheduler does not go along.
                let level = [("shift", Value::Real(2.0)), ("guidance", Value::Real(1.0))];
                rig.one("dit.sample", &[&inputs[..], &level].concat()).tensor().unwrap()
            };
            let off = distance(&sample(&dit), &sample(&folder.dit));
            assert!(off < 1e-5, "{name}, {ending}: {off}");
            let decode = |vae: &Value| {
                let inputs = [("vae", vae.clone()), ("latent", golden("v2.z"))];
                rig.one("vae.decode", &inputs).tensor().unwrap()
            };
            assert_eq!(distance(&decode(&vae), &decode(&folder.vae)), 0.0, "{name}, {ending}");
        }
    }
    // What is narrow stays exact, and becomes narrow in its form.
    let narrow = common::reference("ltx_files/q8_0.gguf");
    let wide = converted_file((&narrow, ""), ConvertTo::Plain(DType::F32), "wide.safetensors");
    let again = converted_file((&wide.unwrap().0, ""), ConvertTo::ScaledFp8, "fp8.safetensors");
    let tensors = candle_core::safetensors::load(&again.unwrap().0, &candle_core::Device::Cpu);
    let tensors = tensors.unwrap();
    let query = "transformer_blocks.0.attn1.to_q";
    assert_eq!(tensors[&format!("{query}.weight")].dtype(), DType::F8E4M3);
    assert!(tensors.contains_key(&format!("{query}.scale_weight")));
    assert_eq!(tensors["patchify_proj.weight"].dtype(), DType::F32);
    assert!(tensors.contains_key("transformer_blocks.0.attn1.q_norm.weight"));
}

/// An autoencoder whose entries of flat lists are numbered otherwise than diffusers' blocks.
#[test]
fn messages_name_weights_of_an_autoencoder_as_its_authors_do() {
    use common::single::{File, VAE, converted_file};
    use kino_models::convert::ConvertTo;
    let rig = Rig::new("ltx-names");
    let folder = common::reference("ltx/v090/model");
    let own = converted_file((&folder, "vae"), ConvertTo::Same, "ltx-whole.safetensors").unwrap();
    let mut tensors = candle_core::safetensors::load(&own.0, &candle_core::Device::Cpu).unwrap();
    let lacks = "decoder.up_blocks.0.res_blocks.0.conv1.conv.bias";
    tensors.remove(lacks).unwrap();
    let file = File::of("ltx-lacks.safetensors", &tensors);
    let vae = rig.fact("model.load", &[("vae", known(file.path()))], VAE);
    let told = rig.objects("vae.decode", &[("vae", vae), ("latent", kino_port::Fact::Unknown)]);
    let expected = format!(
        "has no weight `{lacks}` (`decoder.mid_block.resnets.0.conv1.conv.bias` in the diffusers layout)"
    );
    assert!(told.contains(&expected), "{told}");
}
