//! Parts of FLUX.1 as single files, by the names of its authors and in every form of weights, give
//! what the same weights in a folder give; LoRAs by all their names change the same layers.

mod common;

#[path = "../../models/tests/common/gguf.rs"]
mod gguf;

use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use common::flux::flux;
use common::single::{
    DIT, File, Stored, TEXT, Tensors, VAE, converted, converted_file, load, numbers,
};
use common::{Copied, Rig, distance, int, known, reference, text};
use kino_kernels::BlockType;
use kino_models::convert::{ConvertTo, Destination};
use kino_node::{ConditioningFact, Ledger, Value};
use kino_world::Folders;
use safetensors::Dtype;

/// Width of the transformer: one head of those that single files have.
const DIM: usize = 128;

/// Layers of diffusers' transformer of one double and one single block: name, rows, columns.
fn layers() -> Vec<(String, [usize; 2])> {
    let mut layers: Vec<(String, [usize; 2])> = Vec::new();
    let mut add = |name: &str, shape: [usize; 2]| layers.push((name.to_owned(), shape));
    add("x_embedder", [DIM, 64]);
    add("context_embedder", [DIM, 24]);
    for (name, width) in [("timestep", 256), ("guidance", 256), ("text", 16)] {
        add(&format!("time_text_embed.{name}_embedder.linear_1"), [DIM, width]);
        add(&format!("time_text_embed.{name}_embedder.linear_2"), [DIM, DIM]);
    }
    let double = "transformer_blocks.0";
    for name in ["norm1", "norm1_context"] {
        add(&format!("{double}.{name}.linear"), [6 * DIM, DIM]);
    }
    let heads = ["to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj"];
    for name in [&heads[..], &["to_out.0", "to_add_out"]].concat() {
        add(&format!("{double}.attn.{name}"), [DIM, DIM]);
    }
    for name in ["ff", "ff_context"] {
        add(&format!("{double}.{name}.net.0.proj"), [4 * DIM, DIM]);
        add(&format!("{double}.{name}.net.2"), [DIM, 4 * DIM]);
    }
    let single = "single_transformer_blocks.0";
    add(&format!("{single}.norm.linear"), [3 * DIM, DIM]);
    for name in ["to_q", "to_k", "to_v"] {
        add(&format!("{single}.attn.{name}"), [DIM, DIM]);
    }
    add(&format!("{single}.proj_mlp"), [4 * DIM, DIM]);
    add(&format!("{single}.proj_out"), [DIM, 5 * DIM]);
    add("norm_out.linear", [2 * DIM, DIM]);
    add("proj_out", [64, DIM]);
    layers
}

/// The weights of such a transformer.
fn transformer() -> Tensors {
    let mut weights = Tensors::new();
    for (seed, (name, shape)) in layers().into_iter().enumerate() {
        weights.insert(format!("{name}.weight"), numbers(&shape, seed));
        weights.insert(format!("{name}.bias"), numbers(&shape[..1], seed + 100));
    }
    let norms = ["norm_q", "norm_k", "norm_added_q", "norm_added_k"];
    for (seed, norm) in norms.into_iter().enumerate() {
        let weight = (numbers(&[DIM], seed + 200) + 1.0).unwrap();
        weights.insert(format!("transformer_blocks.0.attn.{norm}.weight"), weight.clone());
        if seed < 2 {
            weights.insert(format!("single_transformer_blocks.0.attn.{norm}.weight"), weight);
        }
    }
    weights
}

/// What the authors' files have: a layer there, and those of diffusers' that are its rows.
const ORIGINAL: [(&str, &[&str]); 26] = [
    ("img_in", &["x_embedder"]),
    ("txt_in", &["context_embedder"]),
    ("time_in.in_layer", &["time_text_embed.timestep_embedder.linear_1"]),
    ("time_in.out_layer", &["time_text_embed.timestep_embedder.linear_2"]),
    ("guidance_in.in_layer", &["time_text_embed.guidance_embedder.linear_1"]),
    ("guidance_in.out_layer", &["time_text_embed.guidance_embedder.linear_2"]),
    ("vector_in.in_layer", &["time_text_embed.text_embedder.linear_1"]),
    ("vector_in.out_layer", &["time_text_embed.text_embedder.linear_2"]),
    ("double_blocks.0.img_mod.lin", &["transformer_blocks.0.norm1.linear"]),
    ("double_blocks.0.txt_mod.lin", &["transformer_blocks.0.norm1_context.linear"]),
    (
        "double_blocks.0.img_attn.qkv",
        &[
            "transformer_blocks.0.attn.to_q",
            "transformer_blocks.0.attn.to_k",
            "transformer_blocks.0.attn.to_v",
        ],
    ),
    (
        "double_blocks.0.txt_attn.qkv",
        &[
            "transformer_blocks.0.attn.add_q_proj",
            "transformer_blocks.0.attn.add_k_proj",
            "transformer_blocks.0.attn.add_v_proj",
        ],
    ),
    ("double_blocks.0.img_attn.proj", &["transformer_blocks.0.attn.to_out.0"]),
    ("double_blocks.0.txt_attn.proj", &["transformer_blocks.0.attn.to_add_out"]),
    ("double_blocks.0.img_attn.norm.query_norm", &["transformer_blocks.0.attn.norm_q"]),
    ("double_blocks.0.img_attn.norm.key_norm", &["transformer_blocks.0.attn.norm_k"]),
    ("double_blocks.0.txt_attn.norm.query_norm", &["transformer_blocks.0.attn.norm_added_q"]),
    ("double_blocks.0.txt_attn.norm.key_norm", &["transformer_blocks.0.attn.norm_added_k"]),
    ("double_blocks.0.img_mlp.0", &["transformer_blocks.0.ff.net.0.proj"]),
    ("double_blocks.0.img_mlp.2", &["transformer_blocks.0.ff.net.2"]),
    ("double_blocks.0.txt_mlp.0", &["transformer_blocks.0.ff_context.net.0.proj"]),
    ("double_blocks.0.txt_mlp.2", &["transformer_blocks.0.ff_context.net.2"]),
    ("single_blocks.0.modulation.lin", &["single_transformer_blocks.0.norm.linear"]),
    (
        "single_blocks.0.linear1",
        &[
            "single_transformer_blocks.0.attn.to_q",
            "single_transformer_blocks.0.attn.to_k",
            "single_transformer_blocks.0.attn.to_v",
            "single_transformer_blocks.0.proj_mlp",
        ],
    ),
    ("single_blocks.0.linear2", &["single_transformer_blocks.0.proj_out"]),
    ("final_layer.linear", &["proj_out"]),
];

/// The same weights as the authors' files have them.
fn original(weights: &Tensors) -> Tensors {
    let mut found = Tensors::new();
    for (name, layers) in ORIGINAL {
        for end in ["weight", "bias"] {
            let parts = layers.iter().filter_map(|layer| weights.get(&format!("{layer}.{end}")));
            let parts: Vec<&Tensor> = parts.collect();
            if parts.len() == layers.len() {
                let end = if name.ends_with("_norm") { "scale" } else { end };
                found.insert(format!("{name}.{end}"), Tensor::cat(&parts, 0).unwrap());
            }
        }
    }
    for norm in ["query_norm", "key_norm"] {
        let own = format!("single_transformer_blocks.0.attn.norm_{}.weight", &norm[..1]);
        found.insert(format!("single_blocks.0.norm.{norm}.scale"), weights[&own].clone());
    }
    // The shift before the scale, where diffusers has the scale before the shift.
    for end in ["weight", "bias"] {
        let both = weights[&format!("norm_out.linear.{end}")].chunk(2, 0).unwrap();
        let swapped = Tensor::cat(&[&both[1], &both[0]], 0).unwrap();
        found.insert(format!("final_layer.adaLN_modulation.1.{end}"), swapped);
    }
    assert_eq!(found.len(), 2 * ORIGINAL.len() - 4 + 4);
    found
}

/// A folder in the diffusers layout without an autoencoder, with this transformer.
fn folder(name: &str, weights: &Tensors) -> Copied {
    let folder = flux(name, false);
    let part = folder.0.join("transformer");
    let file = part.join("diffusion_pytorch_model.safetensors");
    candle_core::safetensors::save(weights, file).unwrap();
    let config = serde_json::json!({
        "_class_name": "FluxTransformer2DModel", "patch_size": 1, "in_channels": 64,
        "num_layers": 1, "num_single_layers": 1, "attention_head_dim": DIM,
        "num_attention_heads": 1, "joint_attention_dim": 24, "pooled_projection_dim": 16,
        "guidance_embeds": true, "axes_dims_rope": [16, 56, 56],
    });
    std::fs::write(part.join("config.json"), config.to_string()).unwrap();
    without(&folder, "vae");
    folder
}

/// Takes a part out of a model's index.
fn without(folder: &Copied, part: &str) {
    let path = folder.0.join("model_index.json");
    let mut index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    index[part] = serde_json::json!([null, null]);
    std::fs::write(path, index.to_string()).unwrap();
}

/// A rig, and a prompt as two small encoders read it.
struct Bench {
    rig: Rig,
    prompt: Value,
    _encoders: Copied,
}

impl Bench {
    fn new(name: &str) -> Self {
        let (rig, encoders) = (Rig::new(name), flux(&format!("{name}-text"), false));
        let inputs = [("encoder", rig.model(encoders.path()).text), ("prompt", text("a red fox"))];
        let prompt = rig.one("text.encode", &inputs);
        Bench { rig, prompt, _encoders: encoders }
    }

    /// Two steps of a transformer.
    fn sample(&self, dit: &Value) -> Tensor {
        let latents = ("latents", Value::Tensor((numbers(&[16, 1, 4, 4], 3) * 6.0).unwrap()));
        let patches = self.rig.one("patchify", &[("dit", dit.clone()), latents]);
        let inputs = [
            ("dit", dit.clone()),
            ("patches", patches),
            ("text", self.prompt.clone()),
            ("steps", int(2)),
        ];
        self.rig.one("dit.sample", &inputs).tensor().unwrap()
    }

    fn of(&self, given: &[(&str, &str)]) -> Tensor {
        self.sample(&self.dit(given))
    }

    fn dit(&self, given: &[(&str, &str)]) -> Value {
        load(&self.rig, &[given, &[("compute", "f32")]].concat(), DIT)
    }
}

#[test]
fn a_transformer_with_original_names_is_the_one_of_the_folder() {
    let bench = Bench::new("flux-single");
    let weights = transformer();
    let folder = folder("flux-single", &weights);
    let expected = bench.of(&[("source", folder.path())]);
    let original = original(&weights);
    let wrapped: Tensors = original
        .iter()
        .map(|(name, tensor)| (format!("model.diffusion_model.{name}"), tensor.clone()))
        .collect();
    for (name, tensors) in [("original", &original), ("wrapped", &wrapped), ("diffusers", &weights)]
    {
        let file = File::of(&format!("flux-{name}.safetensors"), tensors);
        assert_eq!(distance(&bench.of(&[("transformer", file.path())]), &expected), 0.0, "{name}");
        // Nothing of it is left over.
        let inferred = bench.rig.infer("model.load", &[("transformer", known(file.path()))]);
        let warnings = inferred.unwrap().warnings;
        assert!(warnings.is_empty(), "{name}: {warnings:?}");
        // In place of the folder's own.
        let given = [("source", folder.path()), ("transformer", file.path())];
        assert_eq!(distance(&bench.of(&given), &expected), 0.0, "{name} in the folder");
    }
    let mut short = original.clone();
    short.remove("double_blocks.0.txt_attn.qkv.weight");
    let short = File::of("flux-short.safetensors", &short);
    let given = [("source", folder.path()), ("transformer", short.path())];
    let model: Vec<_> = given.iter().map(|(port, path)| (*port, known(path))).collect();
    let dit = bench.rig.fact("model.load", &model, DIT);
    let refused = bench.rig.objects("schedule", &[("dit", dit)]);
    let expected = "has no weight `double_blocks.0.txt_attn.qkv.weight` \
                    (`transformer_blocks.0.attn.add_q_proj.weight` in the diffusers layout)";
    assert!(refused.contains(expected), "{refused}");
    // A layer that is several here, of another size, in another program's wrapper.
    let mut odd = wrapped;
    let name = "model.diffusion_model.double_blocks.0.img_attn.qkv.weight";
    odd.insert(name.to_owned(), numbers(&[3 * DIM, 12], 0));
    let odd = File::of("flux-odd.safetensors", &odd);
    let dit = bench.rig.fact("model.load", &[("transformer", known(odd.path()))], DIT);
    let refused = bench.rig.objects("schedule", &[("dit", dit)]);
    let expected = "weight `model.diffusion_model.double_blocks.0.img_attn.qkv.weight` (some rows of it are \
                    `transformer_blocks.0.attn.to_q.weight` in the diffusers layout): expected [";
    assert!(refused.contains(expected) && refused.contains("found [128, 12]"), "{refused}");
}

#[test]
fn a_transformer_in_blocks_is_that_of_its_numbers() {
    let bench = Bench::new("flux-gguf");
    let original = original(&transformer());
    let mut seed = 7u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed
    };
    for blocks in [BlockType::Q8_0, BlockType::Q4_0] {
        let (mut stored, mut wide) = (Vec::new(), Tensors::new());
        let mut names: Vec<&String> = original.keys().collect();
        names.sort();
        for name in names {
            let (tensor, shape) = (&original[name], original[name].dims());
            let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
            if shape.len() != 2 || blocks.bytes_of(shape[1]).is_none() {
                stored.push(gguf::Tensor::f32(name, shape, &values));
                wide.insert(name.clone(), tensor.clone());
                continue;
            }
            let bytes = gguf::random_blocks(blocks, values.len(), &mut next);
            let mut numbers = vec![0.0; values.len()];
            kino_kernels::widen_blocks(blocks, &bytes, &mut numbers);
            wide.insert(name.clone(), Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap());
            stored.push(gguf::Tensor::new(name, shape, gguf::number(blocks), bytes));
        }
        let narrow = File::new(&format!("flux-{}.gguf", blocks.name()));
        let label = gguf::entry("general.architecture", gguf::TEXT, &gguf::text("flux"));
        std::fs::write(&narrow.0, gguf::file(&[label], &stored)).unwrap();
        let wide = File::of(&format!("flux-{}.safetensors", blocks.name()), &wide);
        let found = bench.of(&[("transformer", narrow.path())]);
        let off = distance(&found, &bench.of(&[("transformer", wide.path())]));
        println!("{}: {off:e}", blocks.name());
        assert!(off < 5e-5, "{}: {off}", blocks.name());
        let bytes = |file: &File| {
            let dit = bench.dit(&[("transformer", file.path())]);
            common::handle::<kino_nodes::DitHandle>(&dit).weight_bytes()
        };
        assert!(bytes(&narrow) * 2 < bytes(&wide), "they stay in blocks in memory");
    }
}

/// One scale of a whole layer of the file counts for each layer that it is cut into.
#[test]
fn scaled_weights_of_eight_bits_are_cut_with_their_scales() {
    let bench = Bench::new("flux-fp8");
    let (mut stored, mut wide) = (Vec::new(), Tensors::new());
    let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    for (index, (name, tensor)) in original(&transformer()).into_iter().enumerate() {
        let shape = tensor.dims().to_vec();
        let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        if shape.len() != 2 {
            stored.push((name.clone(), Stored(Dtype::F32, shape, floats(&values))));
            wide.insert(name, tensor);
            continue;
        }
        let scale = 0.0005 + index as f32 * 1e-5;
        let bytes: Vec<u8> =
            (0..values.len()).map(|at| ((at * 7919 + index * 31) % 251) as u8 & 0xbf).collect();
        let numbers = bytes.iter().map(|byte| kino_kernels::e4m3(*byte) * scale).collect();
        wide.insert(name.clone(), Tensor::from_vec(numbers, &shape[..], &Device::Cpu).unwrap());
        let of = name.strip_suffix("weight").unwrap();
        stored.push((format!("{of}scale_weight"), Stored(Dtype::F32, vec![1], floats(&[scale]))));
        stored.push((name, Stored(Dtype::F8_E4M3, shape, bytes)));
    }
    stored.push(("scaled_fp8".to_owned(), Stored(Dtype::F8_E4M3, vec![2], vec![0; 2])));
    let narrow = File::new("flux-fp8.safetensors");
    let views: Vec<(&str, &Stored)> = stored.iter().map(|(n, s)| (n.as_str(), s)).collect();
    safetensors::serialize_to_file(views, None, &narrow.0).unwrap();
    let wide = File::of("flux-wide.safetensors", &wide);
    let found = bench.of(&[("transformer", narrow.path())]);
    let off = distance(&found, &bench.of(&[("transformer", wide.path())]));
    println!("{off:e}");
    assert!(off < 5e-5, "{off}");
    let inferred = bench.rig.infer("model.load", &[("transformer", known(narrow.path()))]).unwrap();
    assert!(inferred.warnings.is_empty(), "{:?}", inferred.warnings);
}

/// One file of adapters by the names of diffusers, of the authors and of kohya, of layers that are
/// one there: the same numbers on a transformer of either form.
#[test]
fn adapters_of_layers_that_are_several_change_each_of_them() {
    const RANK: usize = 3;
    let bench = Bench::new("flux-lora");
    let weights = transformer();
    let file = File::of("flux-base.safetensors", &original(&weights));
    let folder = folder("flux-lora", &weights);
    let adapted =
        ["img_attn.qkv", "txt_attn.qkv", "img_attn.proj", "linear1", "linear2", "txt_mod.lin"];
    let chosen = |name: &str| adapted.iter().any(|end| name.ends_with(end));
    let (mut diffusers, mut authors, mut kohya) = (Tensors::new(), Tensors::new(), Tensors::new());
    for (seed, (name, layers)) in ORIGINAL.iter().enumerate().filter(|(_, (n, _))| chosen(n)) {
        let shapes =
            layers.iter().map(|layer| weights[&format!("{layer}.weight")].dims2().unwrap());
        let shapes: Vec<(usize, usize)> = shapes.collect();
        let rows = shapes.iter().map(|(rows, _)| rows).sum();
        let down = numbers(&[RANK, shapes[0].1], seed);
        let up = numbers(&[rows, RANK], seed + 50);
        let mut at = 0;
        for (layer, (rows, _)) in layers.iter().zip(&shapes) {
            let own = up.narrow(0, at, *rows).unwrap().contiguous().unwrap();
            at += rows;
            diffusers.insert(format!("transformer.{layer}.lora_A.weight"), down.clone());
            diffusers.insert(format!("transformer.{layer}.lora_B.weight"), own);
        }
        authors.insert(format!("diffusion_model.{name}.lora_A.weight"), down.clone());
        authors.insert(format!("diffusion_model.{name}.lora_B.weight"), up.clone());
        let flat = format!("lora_unet_{}", name.replace('.', "_"));
        let alpha = Tensor::new(RANK as f32, &Device::Cpu).unwrap();
        kohya.insert(format!("{flat}.alpha"), alpha);
        kohya.insert(format!("{flat}.lora_down.weight"), down);
        kohya.insert(format!("{flat}.lora_up.weight"), up);
    }
    let plain = bench.of(&[("source", folder.path())]);
    let mut expected: Option<Tensor> = None;
    for given in [("source", folder.path()), ("transformer", file.path())] {
        let dit = bench.dit(&[given]);
        for (name, tensors) in [("diffusers", &diffusers), ("authors", &authors), ("kohya", &kohya)]
        {
            let lora = File::of(&format!("flux-lora-{name}.safetensors"), tensors);
            let inputs = [("dit", dit.clone()), ("path", text(lora.path()))];
            let found = bench.sample(&bench.rig.one("lora.apply", &inputs));
            let expected = expected.get_or_insert_with(|| found.clone());
            assert_eq!(distance(&found, expected), 0.0, "{name} on {given:?}");
        }
    }
    assert!(distance(&expected.unwrap(), &plain) > 1e-3, "they change the picture");
    // Rows that are no three layers.
    let name = "lora_unet_double_blocks_0_img_attn_qkv";
    let mut odd = Tensors::new();
    odd.insert(format!("{name}.lora_down.weight"), numbers(&[RANK, DIM], 1));
    odd.insert(format!("{name}.lora_up.weight"), numbers(&[3 * DIM + 1, RANK], 1));
    let odd = File::of("flux-lora-odd.safetensors", &odd);
    let inputs = [("dit", bench.dit(&[("source", folder.path())])), ("path", text(odd.path()))];
    let refused = bench.rig.fails("lora.apply", &inputs);
    assert!(refused.contains("made for another size of the model"), "{refused}");
}

/// Weights of an autoencoder of two levels, by the names of diffusers, and by those of its authors.
fn autoencoder() -> (Tensors, Tensors) {
    const WIDE: usize = 32;
    let mut pairs: Vec<(String, String, Vec<usize>)> = Vec::new();
    let mut conv = |own: String, other: String, [cout, cin, side]: [usize; 3]| {
        pairs.push((
            format!("{own}.weight"),
            format!("{other}.weight"),
            vec![cout, cin, side, side],
        ));
        pairs.push((format!("{own}.bias"), format!("{other}.bias"), vec![cout]));
    };
    let mut norms: Vec<(String, String)> = Vec::new();
    let mut block = |own: String, other: String| {
        for part in ["1", "2"] {
            norms.push((format!("{own}.norm{part}"), format!("{other}.norm{part}")));
        }
        [("conv1", [WIDE, WIDE, 3]), ("conv2", [WIDE, WIDE, 3])]
            .map(|(name, shape)| (format!("{own}.{name}"), format!("{other}.{name}"), shape))
    };
    let mut blocks = Vec::new();
    for (side, count) in [("encoder", 1), ("decoder", 2)] {
        for index in [0, 1] {
            let other = if side == "encoder" {
                format!("down.{index}")
            } else {
                format!("up.{}", 1 - index)
            };
            let own = if side == "encoder" { "down_blocks" } else { "up_blocks" };
            for number in 0..count {
                let own = format!("{side}.{own}.{index}.resnets.{number}");
                blocks.extend(block(own, format!("{side}.{other}.block.{number}")));
            }
            let middle = format!("{side}.mid_block.resnets.{index}");
            blocks.extend(block(middle, format!("{side}.mid.block_{}", index + 1)));
        }
    }
    for (own, other, shape) in blocks {
        conv(own, other, shape);
    }
    for side in ["encoder", "decoder"] {
        let (own, other) = (format!("{side}.mid_block.attentions.0"), format!("{side}.mid.attn_1"));
        for (name, short) in [("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")]
        {
            conv(format!("{own}.{name}"), format!("{other}.{short}"), [WIDE, WIDE, 1]);
        }
        norms.push((format!("{own}.group_norm"), format!("{other}.norm")));
        norms.push((format!("{side}.conv_norm_out"), format!("{side}.norm_out")));
    }
    let same = |name: &str| (name.to_owned(), name.to_owned());
    for (name, shape) in [
        ("encoder.conv_in", [WIDE, 3, 3]),
        ("encoder.conv_out", [32, WIDE, 3]),
        ("decoder.conv_in", [WIDE, 16, 3]),
        ("decoder.conv_out", [3, WIDE, 3]),
    ] {
        let (own, other) = same(name);
        conv(own, other, shape);
    }
    for (own, other) in [
        ("encoder.down_blocks.0.downsamplers.0.conv", "encoder.down.0.downsample.conv"),
        ("decoder.up_blocks.0.upsamplers.0.conv", "decoder.up.1.upsample.conv"),
    ] {
        conv(own.to_owned(), other.to_owned(), [WIDE, WIDE, 3]);
    }
    for (own, other) in norms {
        for end in ["weight", "bias"] {
            pairs.push((format!("{own}.{end}"), format!("{other}.{end}"), vec![WIDE]));
        }
    }
    let (mut diffusers, mut authors) = (Tensors::new(), Tensors::new());
    for (seed, (own, other, shape)) in pairs.into_iter().enumerate() {
        let values = numbers(&shape, seed);
        // Layers of pixels are matrices in diffusers' files, convolutions in the others.
        let own_values = match shape[..] {
            [out, inner, 1, 1] => values.reshape((out, inner)).unwrap(),
            _ => values.clone(),
        };
        diffusers.insert(own, own_values);
        authors.insert(other, values);
    }
    (diffusers, authors)
}

#[test]
fn an_autoencoder_with_original_names_is_the_one_of_the_folder() {
    let rig = Rig::new("flux-ae");
    let (diffusers, authors) = autoencoder();
    let folder = flux("flux-ae", false);
    let part = folder.0.join("vae");
    let file = part.join("diffusion_pytorch_model.safetensors");
    candle_core::safetensors::save(&diffusers, file).unwrap();
    let config = serde_json::json!({
        "_class_name": "AutoencoderKL", "block_out_channels": [32, 32], "layers_per_block": 1,
        "latent_channels": 16, "norm_num_groups": 32, "scaling_factor": 0.3611,
        "shift_factor": 0.1159, "use_quant_conv": false, "use_post_quant_conv": false,
    });
    std::fs::write(part.join("config.json"), config.to_string()).unwrap();
    without(&folder, "transformer");
    let frames = Value::Tensor((numbers(&[2, 12, 8, 3], 1) + 0.5).unwrap());
    let both = |vae: Value| {
        let latent = rig.one("vae.encode", &[("vae", vae.clone()), ("frames", frames.clone())]);
        let decoded = rig.one("vae.decode", &[("vae", vae), ("latent", latent.clone())]);
        (latent.tensor().unwrap(), decoded.tensor().unwrap())
    };
    let expected = both(load(&rig, &[("source", folder.path())], VAE));
    assert_eq!(expected.0.dims(), [16, 2, 6, 4]);
    for (name, tensors) in [("ae", &authors), ("diffusers-ae", &diffusers)] {
        let file = File::of(&format!("{name}.safetensors"), tensors);
        let found = both(load(&rig, &[("vae", file.path())], VAE));
        assert_eq!(distance(&found.0, &expected.0), 0.0, "{name}");
        assert_eq!(distance(&found.1, &expected.1), 0.0, "{name}");
        let inferred = rig.infer("model.load", &[("vae", known(file.path()))]).unwrap();
        assert!(inferred.warnings.is_empty(), "{name}: {:?}", inferred.warnings);
    }
    let mut four = authors.clone();
    four.insert("decoder.conv_in.weight".to_owned(), numbers(&[32, 4, 3, 3], 1));
    let four = File::of("four.safetensors", &four);
    let refused = rig.objects("model.load", &[("vae", known(four.path()))]);
    assert!(refused.contains("latents of 4 channels"), "{refused}");
}

/// A small CLIP text encoder of so many tokens.
fn clip(vocabulary: usize) -> Tensors {
    let mut clip = Tensors::new();
    let mut layer = |name: &str, shape: &[usize]| {
        for (end, shape) in [("weight", shape), ("bias", &shape[..1])] {
            let name = format!("text_model.{name}.{end}");
            clip.insert(name, numbers(shape, shape.len()));
        }
    };
    for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
        layer(&format!("encoder.layers.0.self_attn.{name}"), &[512, 512]);
    }
    layer("encoder.layers.0.mlp.fc1", &[16, 512]);
    layer("encoder.layers.0.mlp.fc2", &[512, 16]);
    for name in ["encoder.layers.0.layer_norm1", "encoder.layers.0.layer_norm2", "final_layer_norm"]
    {
        layer(name, &[512]);
    }
    let embeddings = "text_model.embeddings";
    clip.insert(format!("{embeddings}.token_embedding.weight"), numbers(&[vocabulary, 512], 1));
    clip.insert(format!("{embeddings}.position_embedding.weight"), numbers(&[77, 512], 2));
    clip.insert(
        format!("{embeddings}.position_ids"),
        Tensor::arange(0i64, 77, &Device::Cpu).unwrap(),
    );
    clip
}

/// Tensors with something before their names.
fn below<'a>(prefix: &'a str, tensors: &'a Tensors) -> impl Iterator<Item = (String, Tensor)> + 'a {
    tensors.iter().map(move |(name, tensor)| (format!("{prefix}{name}"), tensor.clone()))
}

/// The parts of a model of which every word has its row, as files of their own and as one file of
/// ComfyUI's: a transformer, an autoencoder, CLIP, T5.
fn parts() -> [Tensors; 4] {
    let mut transformer = original(&transformer());
    transformer.insert("vector_in.in_layer.weight".to_owned(), numbers(&[DIM, 512], 9));
    let mut clip = clip(49_408);
    let table = clip.get_mut("text_model.embeddings.token_embedding.weight").unwrap();
    *table = table.to_dtype(DType::F8E4M3).unwrap();
    let file = reference("t5/text_encoder/model.safetensors");
    let mut t5 = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    t5.insert("shared.weight".to_owned(), numbers(&[32_128, 24], 4));
    [transformer, autoencoder().1, clip, t5]
}

/// One file of a transformer, an autoencoder and both text encoders gives what its parts give.
#[test]
fn one_file_of_all_parts_is_a_model() {
    let rig = Rig::new("flux-whole");
    let own = parts();
    let [transformer, vae, clip, t5] = &own;
    let names = ["flux-own.safetensors", "ae-own.safetensors", "clip-own.safetensors"];
    let [dit_file, vae_file, clip_file] =
        [0, 1, 2].map(|index| File::of(names[index], &own[index]));
    let t5_file = File::of("t5-own.safetensors", t5);
    let one = Tensor::new(1f32, &Device::Cpu).unwrap();
    let beside = ["text_encoders.clip_l.logit_scale", "text_encoders.t5xxl.logit_scale"];
    let all: Tensors = below("model.diffusion_model.", transformer)
        .chain(below("text_encoders.clip_l.transformer.", clip))
        .chain(below("text_encoders.t5xxl.transformer.", t5))
        .chain(beside.map(|name| (name.to_owned(), one.clone())))
        .collect();
    let without_vae = File::of("flux-no-vae.safetensors", &all);
    let all: Tensors = below("vae.", vae).chain(all).collect();
    let whole = File::of("flux-whole.safetensors", &all);
    let alone = [
        ("transformer", dit_file.path()),
        ("vae", vae_file.path()),
        ("text_encoder", clip_file.path()),
        ("text_encoder_2", t5_file.path()),
    ];
    let compute = |given: &[(&str, &str)]| {
        let load = |output: usize| load(&rig, &[given, &[("compute", "f32")]].concat(), output);
        let prompt = [("encoder", load(TEXT)), ("prompt", text("a red fox"))];
        let prompt = rig.one("text.encode", &prompt);
        let dit = load(DIT);
        let latents = ("latents", Value::Tensor((numbers(&[16, 1, 4, 4], 3) * 6.0).unwrap()));
        let patches = rig.one("patchify", &[("dit", dit.clone()), latents]);
        let inputs = [("dit", dit), ("patches", patches), ("text", prompt), ("steps", int(2))];
        let latent = rig.one("unpatchify", &[("patches", rig.one("dit.sample", &inputs))]);
        let latent = Value::Tensor(latent.tensor().unwrap().contiguous().unwrap());
        rig.one("vae.decode", &[("vae", load(VAE)), ("latent", latent)]).tensor().unwrap()
    };
    let expected = compute(&alone);
    assert_eq!(distance(&compute(&[("source", whole.path())]), &expected), 0.0);
    // All of it is read.
    let planned = rig.infer("model.load", &[("source", known(whole.path()))]).unwrap();
    assert!(planned.warnings.is_empty(), "{:?}", planned.warnings);
    // What it lacks has a file of its own; what has one is not taken from it.
    let given = [("source", without_vae.path()), ("vae", vae_file.path())];
    assert_eq!(distance(&compute(&given), &expected), 0.0);
    let mut other = t5.clone();
    other.insert("shared.weight".to_owned(), numbers(&[32_128, 24], 5));
    let other = File::of("t5-other.safetensors", &other);
    let replaced = compute(&[("source", whole.path()), ("text_encoder", other.path())]);
    assert!(distance(&replaced, &expected) > 0.0);
    let replaced_alone = [&alone[..3], &[("text_encoder_2", other.path())]].concat();
    assert_eq!(distance(&replaced, &compute(&replaced_alone)), 0.0);
    // Each part may be taken from it.
    let each = alone.map(|(port, _)| (port, whole.path()));
    assert_eq!(distance(&compute(&each), &expected), 0.0);
    // What of it is damaged is named as it stands in it, whatever the part.
    let refused = |lacks: &str, part: (usize, &str, &[(&str, kino_port::Fact)])| {
        let mut rest = all.clone();
        rest.remove(lacks).unwrap();
        let file = File::of("flux-damaged.safetensors", &rest);
        let (output, op, beside) = part;
        let port = ["encoder", "", "dit", "vae"][output];
        let part = rig.fact("model.load", &[("source", known(file.path()))], output);
        let told = rig.objects(op, &[&[(port, part)], beside].concat());
        assert!(told.contains(&format!("has no weight `{lacks}` (`")), "{told}");
    };
    let prompt = [("prompt", known("a red fox"))];
    let latent = [("latent", kino_port::Fact::Unknown)];
    refused("vae.decoder.up.0.block.1.conv2.bias", (VAE, "vae.decode", &latent));
    let clip = "text_encoders.clip_l.transformer.text_model.final_layer_norm.bias";
    refused(clip, (TEXT, "text.encode", &prompt));
    let single = "model.diffusion_model.single_blocks.0.modulation.lin.bias";
    refused(single, (DIT, "schedule", &[]));
    let vae = rig.fact("model.load", &[("source", known(without_vae.path()))], VAE);
    let latent = ("latent", kino_port::Fact::Unknown);
    let refused = rig.objects("vae.decode", &[("vae", vae), latent]);
    assert!(refused.contains("has no VAE"), "{refused}");
}

/// CLIP and T5 in either order, with the tokenizers that the engine brings.
#[test]
fn text_encoders_are_told_apart() {
    let rig = Rig::new("flux-encoders");
    let transformer = File::of("flux-small.safetensors", &original(&transformer()));
    let t5 = reference("t5/text_encoder/model.safetensors");
    let clip = File::of("clip.safetensors", &clip(20));
    let (t5, clip) = (t5.to_str().unwrap(), clip.path());
    for (first, second) in [(clip, t5), (t5, clip)] {
        let inputs = [
            ("source", known(transformer.path())),
            ("text_encoder", known(first)),
            ("text_encoder_2", known(second)),
        ];
        let inferred = rig.infer("model.load", &inputs);
        // The transformer reads other widths than these encoders have.
        let errors = format!("{:?}", inferred.err().unwrap());
        assert!(errors.contains("pooled_projection_dim") && errors.contains("512"), "{errors}");
    }
    let twice = [
        ("source", known(transformer.path())),
        ("text_encoder", known(t5)),
        ("text_encoder_2", known(t5)),
    ];
    let refused = rig.objects("model.load", &twice);
    assert!(refused.contains("this is a text encoder, and there is one already"), "{refused}");
    // T5 alone, beside the CLIP of a folder.
    let folder = flux("flux-encoders", false);
    let inputs = [("source", known(folder.path())), ("text_encoder_2", known(t5))];
    let encoder = rig.fact("model.load", &inputs, 0);
    let prompt = [("encoder", encoder), ("prompt", known("a red fox"))];
    let encoded = rig.fact("text.encode", &prompt, 0);
    let fact: &ConditioningFact = encoded.get().unwrap();
    assert_eq!(fact.shape("pooled"), Some(&[16][..]));
    assert_eq!(fact.shape("text"), Some(&[40, 24][..]));
}

/// A rig whose ledger allows so much.
fn rig_of(name: &str, budget: u64) -> Rig {
    let mut rig = Rig::new(name);
    let folders = Folders { graph: reference(""), out: PathBuf::new() };
    let services = kino_nodes::services(Device::Cpu, Ledger::new(budget));
    rig.services = services.with(Arc::new(folders));
    rig
}

/// Blocks of both kinds that do not fit are read ahead of use: the same bytes, within the budget.
#[test]
fn blocks_that_do_not_fit_are_streamed() {
    let mut weights = transformer();
    for (name, tensor) in weights.clone() {
        for (kind, count) in [("transformer_blocks", 3), ("single_transformer_blocks", 5)] {
            let Some(inner) = name.strip_prefix(&format!("{kind}.0.")) else { continue };
            for index in 1..count {
                let other = (&tensor * (1.0 - 0.1 * index as f64)).unwrap();
                weights.insert(format!("{kind}.{index}.{inner}"), other);
            }
        }
    }
    let file = File::of("flux-stream.safetensors", &weights);
    let bench = Bench::new("flux-stream");
    let run = |budget: u64| {
        let rig = rig_of("flux-stream", budget);
        let given = [("transformer", file.path()), ("compute", "f32")];
        let dit = load(&rig, &given, DIT);
        let own = Bench { rig, prompt: bench.prompt.clone(), _encoders: flux("flux-none", false) };
        let values: Vec<f32> = own.sample(&dit).flatten_all().unwrap().to_vec1().unwrap();
        let notes: Vec<String> =
            own.rig.reports.lock().unwrap().iter().filter_map(|r| r.note.clone()).collect();
        let bytes = common::handle::<kino_nodes::DitHandle>(&dit).weight_bytes();
        let (peak, used) = (own.rig.services.ledger.peak(), own.rig.services.ledger.used());
        (values, notes, bytes, peak.max(used))
    };
    let (expected, notes, bytes, _) = run(u64::MAX);
    assert!(notes.is_empty(), "{notes:?}");
    for share in [80, 60] {
        // What sampling so few patches needs beside the weights is a few megabytes.
        let budget = bytes * share / 100 + (6 << 20);
        let (found, notes, _, peak) = run(budget);
        assert!(found == expected, "{share} %: other bytes");
        assert!(peak <= budget, "{share} %: {peak} of {budget}");
        assert!(notes.len() == 1 && notes[0].contains("of 8 blocks stay"), "{share} %: {notes:?}");
    }
}

/// The tensors of a file by their names.
fn stored(file: &File) -> Tensors {
    candle_core::safetensors::load(&file.0, &Device::Cpu).unwrap()
}

/// A transformer in a folder becomes the authors' file, its layers joined and the halves of the
/// last modulation exchanged, and that file becomes the folder again: the same bytes both ways.
#[test]
fn a_transformer_is_written_as_its_authors_have_it_and_back() {
    let weights = transformer();
    let folder = folder("flux-convert", &weights);
    let whole = (folder.0.as_path(), "transformer");
    let written = converted_file(whole, ConvertTo::Same, "flux-written.safetensors").unwrap();
    let (found, expected) = (stored(&written), original(&weights));
    assert_eq!(found.len(), expected.len());
    for (name, tensor) in &expected {
        let own = found.get(name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(own.dims(), tensor.dims(), "{name}");
        assert_eq!(distance(own, tensor), 0.0, "{name}");
    }
    let back = converted((&written.0, ""), Destination::Folder, ConvertTo::Same).unwrap();
    let back = candle_core::safetensors::load_buffer(&back, &Device::Cpu).unwrap();
    assert_eq!(back.len(), weights.len());
    for (name, tensor) in &weights {
        let own = back.get(name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(distance(own, tensor), 0.0, "{name}");
    }
}

/// In few bits a joined layer has one scale, or blocks; what is read of it is near what it was, and
/// a file that has few bits already is written as it is.
#[test]
fn a_transformer_is_written_in_few_bits() {
    let bench = Bench::new("flux-narrow");
    let weights = transformer();
    let folder = folder("flux-narrow", &weights);
    let whole = (folder.0.as_path(), "transformer");
    let expected = bench.of(&[("source", folder.path())]);
    let size = expected.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    for (name, to, limit) in [
        ("flux-few.safetensors", ConvertTo::ScaledFp8, 0.1),
        ("flux-few.gguf", ConvertTo::Blocks(BlockType::Q8_0), 0.02),
    ] {
        let file = converted_file(whole, to, name).unwrap();
        let inferred = bench.rig.infer("model.load", &[("transformer", known(file.path()))]);
        assert!(inferred.unwrap().warnings.is_empty(), "{name}");
        let off = distance(&bench.of(&[("transformer", file.path())]), &expected);
        println!("{name}: {off:e} of {size:e}");
        assert!(off > 0.0 && off < limit * f64::from(size), "{name}: {off} of {size}");
        // What is cut out of it and joined again is what it was.
        let again = converted_file((&file.0, ""), ConvertTo::Same, &format!("again-{name}"));
        let again = again.unwrap();
        if name.ends_with("safetensors") {
            let (own, other) = (stored(&file), stored(&again));
            assert_eq!(own.len(), other.len());
            let scale = &own["double_blocks.0.img_attn.qkv.scale_weight"];
            assert_eq!(scale.elem_count(), 1, "one scale");
            for (name, tensor) in own {
                let wide = |tensor: &Tensor| tensor.to_dtype(DType::F32).unwrap();
                assert_eq!(distance(&wide(&tensor), &wide(&other[&name])), 0.0, "{name}");
            }
        } else {
            let of = |file: &File| bench.of(&[("transformer", file.path())]);
            assert_eq!(distance(&of(&again), &of(&file)), 0.0);
        }
    }
}

/// The other parts, as files of their own.
#[test]
fn the_other_parts_are_written_as_files_of_their_own() {
    let rig = Rig::new("flux-parts");
    let model = flux("flux-parts", false);
    let file = |part: &str| {
        let name = format!("flux-part-{part}.safetensors");
        converted_file((&model.0, part), ConvertTo::Plain(DType::F32), &name).unwrap()
    };
    let [clip, t5, vae] = ["text_encoder", "text_encoder_2", "vae"].map(file);
    let clip_names = stored(&clip);
    assert!(
        clip_names.keys().all(|name| name.starts_with("text_model.")),
        "{:?}",
        clip_names.keys()
    );
    // The folder's own tokenizers stay.
    let alone = [
        ("source", model.path()),
        ("text_encoder", clip.path()),
        ("text_encoder_2", t5.path()),
        ("vae", vae.path()),
    ];
    let compute = |given: &[(&str, &str)]| {
        let prompt = [("encoder", load(&rig, given, TEXT)), ("prompt", text("deep snow"))];
        let prompt = rig.one("text.encode", &prompt);
        let prompt = prompt.shared::<kino_node::Conditioning>().unwrap();
        let rows = prompt.positive.iter().map(|one| one.tensor.flatten_all().unwrap());
        let rows = Tensor::cat(&rows.collect::<Vec<_>>(), 0).unwrap();
        let frames = Value::Tensor((numbers(&[1, 12, 8, 3], 1) + 0.5).unwrap());
        let vae = load(&rig, given, VAE);
        let latent = rig.one("vae.encode", &[("vae", vae), ("frames", frames)]);
        (rows, latent.tensor().unwrap())
    };
    let (found, expected) = (compute(&alone), compute(&[("source", model.path())]));
    assert_eq!(distance(&found.0, &expected.0), 0.0);
    assert_eq!(distance(&found.1, &expected.1), 0.0);
}
