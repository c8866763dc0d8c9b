//! Parts of models as GGUF files give what the numbers give that their blocks stand for.

mod common;

#[path = "../../models/tests/common/gguf.rs"]
mod gguf;

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use common::single::{DIT, File, TEXT, Tensors, VAE, Widths, load, numbers, sample, transformer};
use common::{Rig, distance, handle, known, reference, text};
use gguf::{F32, entry, random_blocks};
use kino_kernels::BlockType;
use kino_node::{Services, Value};
use kino_nodes::{DitHandle, TextHandle};
use kino_port::{Fact, PlanError};

/// Widths of whole blocks of 256.
const WIDTHS: Widths = Widths { dim: 256, text: 256, freq: 256, inner: 512 };

/// Random bits that are the same everywhere.
fn bits(mut seed: u64) -> impl FnMut() -> u64 {
    move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed
    }
}

/// A label that says nothing of what the file is: no fault.
fn label() -> Vec<u8> {
    entry("general.architecture", gguf::TEXT, &gguf::text("pig"))
}

/// Weights as a GGUF file has them, and the numbers that they stand for.
struct Pair {
    stored: Vec<gguf::Tensor>,
    wide: Tensors,
}

impl Pair {
    /// Matrices in blocks, all else in 32 bits.
    fn of(weights: &Tensors, blocks: BlockType) -> Self {
        let mut names: Vec<&String> = weights.keys().collect();
        names.sort();
        let mut next = bits(7);
        let (mut stored, mut wide) = (Vec::new(), Tensors::new());
        for name in names {
            let tensor = &weights[name];
            let shape = tensor.dims();
            let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
            if shape.len() != 2 || blocks.bytes_of(shape[1]).is_none() {
                stored.push(gguf::Tensor::f32(name, shape, &values));
                wide.insert(name.clone(), tensor.clone());
                continue;
            }
            let bytes = random_blocks(blocks, values.len(), &mut next);
            let mut numbers = vec![0.0; values.len()];
            kino_kernels::widen_blocks(blocks, &bytes, &mut numbers);
            let numbers = Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap();
            wide.insert(name.clone(), numbers);
            stored.push(gguf::Tensor::new(name, shape, gguf::number(blocks), bytes));
        }
        Pair { stored, wide }
    }

    fn transformer(blocks: BlockType) -> Self {
        Self::of(&transformer(&WIDTHS), blocks)
    }

    fn file(&self, name: &str) -> File {
        write(name, &[label()], &self.stored)
    }

    fn wide(&self, name: &str) -> File {
        File::of(name, &self.wide)
    }
}

fn write(name: &str, metadata: &[Vec<u8>], tensors: &[gguf::Tensor]) -> File {
    let file = File::new(name);
    std::fs::write(&file.0, gguf::file(metadata, tensors)).unwrap();
    file
}

fn part(rig: &Rig, file: &File) -> Value {
    load(rig, &[("transformer", file.path())], DIT)
}

#[test]
fn a_transformer_in_blocks_is_that_of_its_numbers() {
    let rig = Rig::new("gguf-dit");
    for blocks in BlockType::ALL {
        let pair = Pair::transformer(blocks);
        let name = blocks.name();
        let (narrow, wide) =
            (pair.file(&format!("{name}.gguf")), pair.wide(&format!("{name}.safetensors")));
        let (narrow, wide) = (part(&rig, &narrow), part(&rig, &wide));
        let (found, expected) = (sample(&rig, &narrow, 256), sample(&rig, &wide, 256));
        let off = distance(&found, &expected);
        println!("{name}: {off:e}");
        assert!(off < 2e-5, "{name}: {off}");
        // They stay in blocks in memory.
        let bytes = |value: &Value| handle::<DitHandle>(value).weight_bytes();
        let (narrow, wide) = (bytes(&narrow), bytes(&wide));
        assert!(narrow * 3 < wide, "{name}: {narrow} of {wide}");
    }
}

/// What a label says, or that there is none, changes nothing: names and shapes say what a file is.
#[test]
fn no_label_is_looked_at() {
    let rig = Rig::new("gguf-labels");
    let pair = Pair::transformer(BlockType::Q4_K);
    let expected = sample(&rig, &part(&rig, &pair.file("labelled.gguf")), 256);
    let of = |name: &str| vec![entry("general.architecture", gguf::TEXT, &gguf::text(name))];
    let number = vec![entry("general.architecture", 4, &7u32.to_le_bytes())];
    let long = of(&"w".repeat(70_000));
    let labels = ["wan", "flux", "llama", "", "\u{202e}naw"].map(of).into_iter();
    for label in labels.chain([Vec::new(), number, long]) {
        let file = write("label.gguf", &label, &pair.stored);
        let given = [("transformer", known(file.path()))];
        assert_eq!(rig.infer("model.load", &given).unwrap().warnings, []);
        assert_eq!(distance(&sample(&rig, &part(&rig, &file), 256), &expected), 0.0);
    }
}

/// The autoencoder: kernels in blocks lie in rows of a block, with their own shape beside them.
#[test]
fn an_autoencoder_in_blocks_is_that_of_its_numbers() {
    let rig = Rig::new("gguf-vae");
    let own = reference("wan_t2v/model/vae/diffusion_pytorch_model.safetensors");
    let weights = candle_core::safetensors::load(&own, &Device::Cpu).unwrap();
    let mut next = bits(11);
    for blocks in [BlockType::Q8_0, BlockType::Q4_0] {
        let (mut stored, mut wide, mut shapes) = (Vec::new(), weights.clone(), vec![label()]);
        for (name, tensor) in &weights {
            let (shape, count) = (tensor.dims(), tensor.elem_count());
            let plain = tensor.to_dtype(candle_core::DType::F32).unwrap();
            let values: Vec<f32> = plain.flatten_all().unwrap().to_vec1().unwrap();
            wide.insert(name.clone(), plain);
            if shape.len() < 4 || !count.is_multiple_of(32) || name.ends_with("gamma") {
                stored.push(gguf::Tensor::f32(name, shape, &values));
                continue;
            }
            let packed = random_blocks(blocks, count, &mut next);
            let mut numbers = vec![0.0; count];
            kino_kernels::widen_blocks(blocks, &packed, &mut numbers);
            wide.insert(name.clone(), Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap());
            let number = gguf::number(blocks);
            stored.push(gguf::Tensor::new(name, &[count / 32, 32], number, packed));
            let sizes = shape.iter().flat_map(|size| (*size as i32).to_le_bytes());
            let head = [&5u32.to_le_bytes()[..], &(shape.len() as u64).to_le_bytes()].concat();
            let list = [head, sizes.collect()].concat();
            shapes.push(entry(&format!("comfy.gguf.orig_shape.{name}"), 9, &list));
        }
        let narrow = write("vae.gguf", &shapes, &stored);
        let wide = File::of("vae-wide.safetensors", &wide);
        let latents = Value::Tensor((common::single::numbers(&[16, 2, 3, 4], 3) * 6.0).unwrap());
        let decoded = |file: &File| {
            // The config is the folder's: of so few channels it does not follow from the weights.
            let given = [("source", "wan_t2v/model"), ("vae", file.path())];
            let vae = load(&rig, &given, VAE);
            let frames = rig.one("vae.decode", &[("vae", vae), ("latent", latents.clone())]);
            frames.shared::<kino_node::Frames>().unwrap().whole().unwrap()
        };
        let off = distance(&decoded(&narrow), &decoded(&wide));
        assert!(off < 1e-6, "{blocks:?}: {off}");
    }
}

/// As ComfyUI-GGUF's converter writes what has more than four dimensions.
#[test]
fn a_patch_embedding_in_another_shape_has_its_own() {
    let rig = Rig::new("gguf-shape");
    let mut pair = Pair::transformer(BlockType::Q4_K);
    let expected = sample(&rig, &part(&rig, &pair.file("five.gguf")), 256);
    let name = "patch_embedding.weight";
    let tensor = pair.stored.iter_mut().find(|tensor| tensor.name == name).unwrap();
    assert_eq!(tensor.shape, [256, 16, 1, 2, 2]);
    tensor.shape = vec![256, 64];
    let sizes = [256i32, 16, 1, 2, 2].into_iter().flat_map(i32::to_le_bytes);
    let list = [&5u32.to_le_bytes()[..], &5u64.to_le_bytes(), &sizes.collect::<Vec<_>>()].concat();
    let shape = entry(&format!("comfy.gguf.orig_shape.{name}"), 9, &list);
    let file = write("two.gguf", &[label(), shape], &pair.stored);
    assert_eq!(distance(&sample(&rig, &part(&rig, &file), 256), &expected), 0.0);
    // Without it the file does not say what the embedding was.
    let file = write("none.gguf", &[label()], &pair.stored);
    let told = rig.objects("model.load", &[("transformer", known(file.path()))]);
    assert!(told.contains("`patch_embedding.weight` is [256, 64], expected five sizes"), "{told}");
}

#[test]
fn a_gguf_transformer_may_be_the_source_with_the_other_parts_beside_it() {
    let rig = Rig::new("gguf-source");
    let pair = Pair::transformer(BlockType::Q8_0);
    let (file, low) = (pair.file("high_noise.gguf"), pair.file("low_noise.gguf"));
    let vae = reference("wan_t2v/model/vae/diffusion_pytorch_model.safetensors");
    let vae = vae.to_str().unwrap();
    // Its autoencoder has no published sizes; a copy of one that has would be large.
    let given = [("source", file.path()), ("vae", vae)];
    let dit = load(&rig, &given, DIT);
    let expected = sample(&rig, &part(&rig, &file), 256);
    assert_eq!(distance(&sample(&rig, &dit, 256), &expected), 0.0);
    load(&rig, &given, VAE);
    // Two experts: the second takes over at low noise levels.
    let given = [("source", file.path()), ("transformer_2", low.path())];
    let two = load(&rig, &given, DIT);
    assert!(handle::<DitHandle>(&two).low_noise.is_some());
    assert_eq!(distance(&sample(&rig, &two, 256), &expected), 0.0);
    // One in the other's place is told by its name.
    let warned = |high: &File, low: &File| {
        let given = [("source", known(high.path())), ("transformer_2", known(low.path()))];
        rig.infer("model.load", &given).unwrap().warnings
    };
    assert_eq!(warned(&file, &low), []);
    let told = warned(&low, &file);
    assert!(told[0].message.contains("is the expert of low noise levels"), "{told:?}");
    let twice = [("source", known(file.path())), ("transformer", known(low.path()))];
    let told = rig.objects("model.load", &twice);
    assert!(told.starts_with("source: a file that is a source holds the transformer"), "{told}");
    let told = rig.objects("model.load", &[("source", known("nowhere.gguf"))]);
    assert!(told.starts_with("source: ") && told.contains("nowhere.gguf does not exist"), "{told}");
    let told = rig.objects("model.load", &[("source", known(vae))]);
    assert_eq!(told, format!("source: {vae}: this is a VAE, not a transformer"));
}

/// A bare name lies where ComfyUI puts such files.
#[test]
fn a_bare_name_is_found_in_the_folders_of_comfyui() {
    let mut rig = Rig::new("gguf-folders");
    let models = std::env::temp_dir().join(format!("kino-gguf-models-{}", std::process::id()));
    let pair = Pair::transformer(BlockType::Q5_K);
    let bytes = gguf::file(&[label()], &pair.stored);
    for folder in ["unet", "diffusion_models"] {
        std::fs::create_dir_all(models.join(folder)).unwrap();
        std::fs::write(models.join(folder).join(format!("{folder}.gguf")), &bytes).unwrap();
    }
    let folders = kino_nodes::ModelFolders::of([models.clone()]);
    let services =
        std::mem::replace(&mut rig.services, Services::new(Device::Cpu, kino_node::Ledger::new(0)));
    rig.services = services.with(Arc::new(folders.clone()));
    for port in ["source", "transformer"] {
        for folder in ["unet", "diffusion_models"] {
            load(&rig, &[(port, &format!("{folder}.gguf"))], DIT);
        }
    }
    let read = kino_nodes::path_of_read("unet.gguf", &reference(""), &folders).unwrap();
    assert_eq!(read, models.join("unet/unet.gguf"));
    std::fs::remove_dir_all(models).unwrap();
}

/// The encoder of a text in blocks, by the names of llama.cpp and of transformers.
#[test]
fn a_text_encoder_in_blocks_is_that_of_its_numbers() {
    let rig = Rig::new("gguf-text");
    let (vocabulary, dim, inner, heads) = (608, 256, 512, 4);
    let mut named: Vec<(String, String, Vec<usize>)> = vec![
        ("token_embd".into(), "shared".into(), vec![vocabulary, dim]),
        ("enc.output_norm".into(), "encoder.final_layer_norm".into(), vec![dim]),
    ];
    for layer in 0..2 {
        for (llama, own, shape) in [
            ("attn_q", "layer.0.SelfAttention.q", vec![dim, dim]),
            ("attn_k", "layer.0.SelfAttention.k", vec![dim, dim]),
            ("attn_v", "layer.0.SelfAttention.v", vec![dim, dim]),
            ("attn_o", "layer.0.SelfAttention.o", vec![dim, dim]),
            ("attn_rel_b", "layer.0.SelfAttention.relative_attention_bias", vec![32, heads]),
            ("attn_norm", "layer.0.layer_norm", vec![dim]),
            ("ffn_gate", "layer.1.DenseReluDense.wi_0", vec![inner, dim]),
            ("ffn_up", "layer.1.DenseReluDense.wi_1", vec![inner, dim]),
            ("ffn_down", "layer.1.DenseReluDense.wo", vec![dim, inner]),
            ("ffn_norm", "layer.1.layer_norm", vec![dim]),
        ] {
            let own = format!("encoder.block.{layer}.{own}");
            named.push((format!("enc.blk.{layer}.{llama}"), own, shape));
        }
    }
    let weight = |name: &str| format!("{name}.weight");
    let weights: Tensors = named
        .iter()
        .enumerate()
        .map(|(seed, (_, own, shape))| (weight(own), numbers(shape, seed)))
        .collect();
    let llama: HashMap<String, String> =
        named.iter().map(|(llama, own, _)| (weight(own), weight(llama))).collect();
    // Of the folder is the tokenizer, since that of UMT5-XXL has more words; its transformer reads
    // narrower texts.
    let dit = Pair::transformer(BlockType::Q8_0).file("wide.gguf");
    let source = ("source", "wan_t2v/model");
    let load = |file: &File| {
        let given = [source, ("transformer", dit.path()), ("text_encoder", file.path())];
        load(&rig, &given, TEXT)
    };
    let encode = |file: &File| {
        let encoder = load(file);
        let inputs = [("encoder", encoder), ("prompt", text("a red circle"))];
        rig.one("text.encode", &inputs).tensor().unwrap()
    };
    for blocks in [BlockType::Q4_0, BlockType::Q8_0, BlockType::Q6_K] {
        let mut pair = Pair::of(&weights, blocks);
        let expected = encode(&pair.wide("text.safetensors"));
        let off = distance(&encode(&pair.file("own.gguf")), &expected);
        assert!(off < 2e-5, "{blocks:?}: {off}");
        for tensor in &mut pair.stored {
            tensor.name.clone_from(&llama[&tensor.name]);
        }
        let off = distance(&encode(&pair.file("llama.gguf")), &expected);
        assert!(off < 2e-5, "{blocks:?}: {off}");
        // The tokens' table is of the same blocks: the memory of a quarter and less.
        let file = pair.file("bytes.gguf");
        let encoder = load(&file);
        let bytes = handle::<TextHandle>(&encoder).weight_bytes();
        let all: usize = pair.wide.values().map(|tensor| tensor.elem_count() * 4).sum();
        assert!(bytes * 3 < all as u64, "{bytes} of {all}");
        // A card widens a matrix at a time, and of the table the rows that are looked up.
        let given = [source, ("transformer", dit.path()), ("text_encoder", file.path())];
        let of_plan = rig.fact("model.load", &given.map(|(port, path)| (port, known(path))), TEXT);
        let Fact::Typed(of_plan) = of_plan else { panic!("no encoder") };
        let [cpu, card] = [false, true].map(|widens| {
            let mut encoder = TextHandle::clone(&of_plan.clone().downcast().unwrap());
            encoder.widens = widens;
            let inputs = [("encoder", Fact::typed(encoder)), ("prompt", known("a red circle"))];
            rig.infer("text.encode", &inputs).unwrap().memory
        });
        assert_eq!(card - cpu, (inner * dim * 4) as u64);
    }
    // What it lacks is known before anything runs.
    let mut pair = Pair::of(&weights, BlockType::Q8_0);
    pair.stored.retain(|tensor| !tensor.name.ends_with("block.1.layer.1.layer_norm.weight"));
    pair.stored.iter_mut().for_each(|tensor| tensor.name.clone_from(&llama[&tensor.name]));
    let file = pair.file("lacks.gguf");
    let given = [source, ("transformer", dit.path()), ("text_encoder", file.path())];
    let given = given.map(|(port, path)| (port, known(path)));
    let encoder = rig.fact("model.load", &given, TEXT);
    let told = rig.objects("text.encode", &[("encoder", encoder), ("prompt", known("a"))]);
    assert!(told.contains("has no weight `enc.blk.1.ffn_norm.weight` (`encoder.block.1"), "{told}");
}

/// A LoRA beside blocks changes what it changes beside the numbers that they stand for.
#[test]
fn a_lora_stands_beside_blocks() {
    let rig = Rig::new("gguf-lora");
    let pair = Pair::transformer(BlockType::Q4_K);
    let mut lora = Tensors::new();
    for (index, layer) in ["blocks.0.self_attn.q", "blocks.1.ffn.2", "head.head"].iter().enumerate()
    {
        let shape = pair.wide[&format!("{layer}.weight")].dims().to_vec();
        let key = |end: &str| format!("diffusion_model.{layer}.{end}.weight");
        lora.insert(key("lora_down"), numbers(&[4, shape[1]], 20 + index));
        lora.insert(key("lora_up"), numbers(&[shape[0], 4], 30 + index));
    }
    // A whole difference: that one weight is widened.
    let diff = "diffusion_model.blocks.0.cross_attn.v.diff".to_owned();
    lora.insert(diff, numbers(&[256, 256], 40));
    let lora = File::of("beside.safetensors", &lora);
    let (narrow, wide) = (pair.file("lora.gguf"), pair.wide("lora.safetensors"));
    let (narrow, wide) = (part(&rig, &narrow), part(&rig, &wide));
    let with =
        |dit: &Value| rig.one("lora.apply", &[("dit", dit.clone()), ("path", text(lora.path()))]);
    let plain = sample(&rig, &narrow, 256);
    let (found, expected) = (sample(&rig, &with(&narrow), 256), sample(&rig, &with(&wide), 256));
    let off = distance(&found, &expected);
    assert!(off < 2e-5, "{off}");
    assert!(distance(&found, &plain) > 1e-2, "the adapters change something");
    // The weights themselves are as they were.
    assert_eq!(distance(&sample(&rig, &narrow, 256), &plain), 0.0);
}

#[test]
fn what_is_missing_left_over_or_of_an_unknown_type_is_told_in_the_plan() {
    let rig = Rig::new("gguf-lacks");
    let whole = Pair::transformer(BlockType::Q4_K).stored;
    let told = |name: &str, change: &dyn Fn(&mut Vec<gguf::Tensor>)| {
        let mut stored = whole.clone();
        change(&mut stored);
        let file = write(name, &[label()], &stored);
        let load = rig.infer("model.load", &[("transformer", known(file.path()))]).unwrap();
        let lines = |list: &[PlanError]| -> String {
            let line = |error: &PlanError| format!("{:?}: {}", error.port, error.message);
            list.iter().map(line).collect()
        };
        let errors = rig.infer("schedule", &[("dit", load.outputs[DIT].clone())]);
        (errors.map_or_else(|errors| lines(&errors), |_| String::new()), lines(&load.warnings))
    };
    let find = |stored: &mut Vec<gguf::Tensor>, name: &str| {
        stored.iter().position(|tensor| tensor.name == name).unwrap()
    };
    assert_eq!(told("whole.gguf", &|_| ()), (String::new(), String::new()));
    let (errors, _) = told("missing.gguf", &|stored| {
        let at = find(stored, "blocks.1.ffn.0.bias");
        stored.remove(at);
    });
    assert!(
        errors.contains("has no weight `blocks.1.ffn.0.bias` (`blocks.1.ffn.net.0.proj.bias` in"),
        "{errors}"
    );
    let (errors, _) = told("odd.gguf", &|stored| {
        let at = find(stored, "blocks.1.ffn.2.weight");
        stored[at].number = 20;
        stored[at].bytes = vec![0; 256 * 512 / 32 * 18];
    });
    assert!(
        errors.contains("weight `blocks.1.ffn.2.weight` (`blocks.1.ffn.net.2.weight` in")
            && errors.contains("is stored as IQ4_NL; this version reads"),
        "{errors}"
    );
    let (errors, warnings) = told("more.gguf", &|stored| {
        for name in ["blocks.1.gate.weight", "scaled_fp8", "other"] {
            stored.push(gguf::Tensor::new(name, &[1], F32, vec![0; 4]));
        }
    });
    assert_eq!(errors, "");
    assert_eq!(
        warnings,
        "Some(\"transformer\"): the transformer does not read all of its weights: `blocks.1.gate.weight`, `other`"
    );
}

#[test]
fn a_file_that_was_cut_off_is_told_in_the_plan() {
    let rig = Rig::new("gguf-cut");
    let bytes = gguf::file(&[label()], &Pair::transformer(BlockType::Q4_K).stored);
    let file = File::new("cut.gguf");
    let said = |length: usize| {
        std::fs::write(&file.0, &bytes[..length]).unwrap();
        rig.objects("model.load", &[("transformer", known(file.path()))])
    };
    for length in [10, 1000, bytes.len() - 1] {
        let told = said(length);
        let truncated = format!("transformer: {} is truncated: expected", file.path());
        assert!(told.starts_with(&truncated) && told.contains("download it again"), "{told}");
    }
}
