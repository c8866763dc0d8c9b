//! Parts of models that stand alone in files give what the same weights in a folder give.

mod common;

use std::collections::BTreeSet;

use candle_core::{DType, Device, Tensor};
use common::single::{
    DIT, File, Stored, StoredFile, TEXT, Tensors, VAE, Widths, converted_file, load, numbers, write,
};
use common::{Copied, Rig, distance, known, reference, text};
use kino_models::convert::ConvertTo;
use kino_node::Value;
use safetensors::Dtype;

/// Width of the transformer: one head of those that single files have.
const DIM: usize = 128;
const WIDTHS: Widths = Widths { dim: DIM, text: 40, freq: 64, inner: 96 };

fn transformer() -> Tensors {
    common::single::transformer(&WIDTHS)
}

fn sample(rig: &Rig, dit: &Value) -> Tensor {
    common::single::sample(rig, dit, WIDTHS.text)
}

/// The replacements of diffusers' `scripts/convert_wan_to_diffusers.py`, in its order.
fn converted(name: &str) -> String {
    [
        ("time_embedding.0", "condition_embedder.time_embedder.linear_1"),
        ("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
        ("text_embedding.0", "condition_embedder.text_embedder.linear_1"),
        ("text_embedding.2", "condition_embedder.text_embedder.linear_2"),
        ("time_projection.1", "condition_embedder.time_proj"),
        ("head.modulation", "scale_shift_table"),
        ("head.head", "proj_out"),
        ("modulation", "scale_shift_table"),
        ("ffn.0", "ffn.net.0.proj"),
        ("ffn.2", "ffn.net.2"),
        ("norm2", "norm__placeholder"),
        ("norm3", "norm2"),
        ("norm__placeholder", "norm3"),
        ("self_attn.q", "attn1.to_q"),
        ("self_attn.k", "attn1.to_k"),
        ("self_attn.v", "attn1.to_v"),
        ("self_attn.o", "attn1.to_out.0"),
        ("self_attn.norm_q", "attn1.norm_q"),
        ("self_attn.norm_k", "attn1.norm_k"),
        ("cross_attn.q", "attn2.to_q"),
        ("cross_attn.k", "attn2.to_k"),
        ("cross_attn.v", "attn2.to_v"),
        ("cross_attn.o", "attn2.to_out.0"),
        ("cross_attn.norm_q", "attn2.norm_q"),
        ("cross_attn.norm_k", "attn2.norm_k"),
    ]
    .into_iter()
    .fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}

/// A folder in the diffusers layout with this transformer, else the reference model.
fn folder(name: &str, transformer: &Tensors) -> Copied {
    let copied = Copied::of(&reference("wan_t2v/model"), name);
    let renamed: Tensors =
        transformer.iter().map(|(name, tensor)| (converted(name), tensor.clone())).collect();
    let file = copied.0.join("transformer/diffusion_pytorch_model.safetensors");
    candle_core::safetensors::save(&renamed, file).unwrap();
    let path = copied.0.join("transformer/config.json");
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (key, value) in [
        ("num_attention_heads", 1),
        ("attention_head_dim", DIM),
        ("num_layers", 2),
        ("ffn_dim", 96),
    ] {
        config[key] = value.into();
    }
    std::fs::write(path, config.to_string()).unwrap();
    copied
}

#[test]
fn a_transformer_with_original_names_is_the_one_of_the_folder() {
    let rig = Rig::new("single-dit");
    let weights = transformer();
    let folder = folder("single-dit", &weights);
    let expected = sample(&rig, &load(&rig, &[("source", folder.path())], DIT));
    let file = File::of("dit.safetensors", &weights);
    let alone = sample(&rig, &load(&rig, &[("transformer", file.path())], DIT));
    assert_eq!(distance(&alone, &expected), 0.0);
    // In place of the folder's own, and wrapped as whole checkpoints are.
    let wrapped: Tensors = weights
        .iter()
        .map(|(name, tensor)| (format!("model.diffusion_model.{name}"), tensor.clone()))
        .collect();
    let wrapped = File::of("wrapped.safetensors", &wrapped);
    let given = [("source", "wan_t2v/model"), ("transformer", wrapped.path())];
    assert_eq!(distance(&sample(&rig, &load(&rig, &given, DIT)), &expected), 0.0);
    // By the names of diffusers, too.
    let renamed = weights.iter().map(|(name, tensor)| (converted(name), tensor.clone())).collect();
    let renamed = File::of("renamed.safetensors", &renamed);
    let given = [("transformer", renamed.path())];
    assert_eq!(distance(&sample(&rig, &load(&rig, &given, DIT)), &expected), 0.0);
}

#[test]
fn halves_are_widened_exactly() {
    let rig = Rig::new("single-half");
    for dtype in [DType::F16, DType::BF16] {
        let narrow: Tensors = transformer()
            .into_iter()
            .map(|(name, tensor)| (name, tensor.to_dtype(dtype).unwrap()))
            .collect();
        let wide = narrow
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.to_dtype(DType::F32).unwrap()))
            .collect();
        let (narrow, wide) =
            (File::of("narrow.safetensors", &narrow), File::of("wide.safetensors", &wide));
        let of = |file: &File| {
            let given = [("transformer", file.path()), ("compute", "f32")];
            sample(&rig, &load(&rig, &given, DIT))
        };
        assert_eq!(distance(&of(&narrow), &of(&wide)), 0.0, "{dtype:?}");
    }
}

/// Weights that bf16 holds exactly compute in it where the machine multiplies it faster; others
/// only on request. The result stays near that of f32.
#[test]
fn the_compute_type_follows_the_stored_type_and_the_machine() {
    let rig = Rig::new("single-compute");
    let of_type = |dtype: DType| -> File {
        let file = File::new(&format!("{dtype:?}.safetensors"));
        if dtype == DType::F8E4M3 {
            write(&file, &scaled(&transformer(), Some(0.001), true).0);
        } else {
            let tensors: Tensors = transformer()
                .into_iter()
                .map(|(name, tensor)| (name, tensor.to_dtype(dtype).unwrap()))
                .collect();
            candle_core::safetensors::save(&tensors, &file.0).unwrap();
        }
        file
    };
    for dtype in [DType::F32, DType::F16, DType::BF16, DType::F8E4M3] {
        let file = of_type(dtype);
        let by = |compute: &str| {
            let part = load(&rig, &[("transformer", file.path()), ("compute", compute)], DIT);
            let handle = common::handle::<kino_nodes::DitHandle>(&part);
            (sample(&rig, &part), handle.dtype, handle.weight_bytes())
        };
        let (exact, _, wide) = by("f32");
        let (rough, of_rough, narrow) = by("bf16");
        let (auto, of_auto, _) = by("auto");
        assert_eq!(of_rough, DType::BF16);
        // Halves of f32, or what eight bits do not hold.
        assert!(narrow < wide && (dtype == DType::F8E4M3 || narrow * 2 == wide), "{dtype:?}");
        let off = distance(&exact, &rough);
        println!("{dtype:?}: bf16 is off by {off}");
        assert!(off > 0.0 && off < 0.1, "{dtype:?}: {off}");
        let narrow_is_chosen =
            kino_kernels::has_bf16_products() && matches!(dtype, DType::BF16 | DType::F8E4M3);
        let (expected, of_type) = match narrow_is_chosen {
            true => (&rough, DType::BF16),
            false => (&exact, DType::F32),
        };
        assert_eq!((distance(&auto, expected), of_auto), (0.0, of_type), "{dtype:?}");
    }
}

/// An autoencoder on the CPU computes in bf16 on request alone, and only where that is faster.
#[test]
fn an_autoencoder_computes_in_bf16_on_request() {
    let rig = Rig::new("single-vae-compute");
    let by = |compute: &str| {
        let part = load(&rig, &[("source", "embedded:shapes"), ("compute", compute)], VAE);
        common::handle::<kino_nodes::VaeHandle>(&part).dtype
    };
    assert_eq!([by("auto"), by("f32")], [DType::F32; 2]);
    let expected = if kino_kernels::has_bf16_products() { DType::BF16 } else { DType::F32 };
    assert_eq!(by("bf16"), expected);
}

/// A file whose matrices are stored in eight bits, and the same numbers in 32.
fn scaled(weights: &Tensors, scale: Option<f32>, marker: bool) -> (Vec<(String, Stored)>, Tensors) {
    let mut wide = weights.clone();
    let mut stored: Vec<(String, Stored)> = Vec::new();
    for (name, tensor) in weights {
        let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        let shape = tensor.dims().to_vec();
        if shape.len() != 2 {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            stored.push((name.clone(), Stored(Dtype::F32, shape, bytes)));
            continue;
        }
        let by = scale.unwrap_or(1.0);
        let bytes: Vec<u8> = values.iter().map(|value| kino_kernels::to_e4m3(value / by)).collect();
        let exact: Vec<f32> = bytes.iter().map(|byte| kino_kernels::e4m3(*byte) * by).collect();
        wide.insert(name.clone(), Tensor::from_vec(exact, shape.as_slice(), &Device::Cpu).unwrap());
        stored.push((name.clone(), Stored(Dtype::F8_E4M3, shape, bytes)));
        if scale.is_some() {
            let layer = name.strip_suffix("weight").unwrap();
            let bytes = by.to_le_bytes().to_vec();
            stored.push((format!("{layer}scale_weight"), Stored(Dtype::F32, vec![], bytes)));
        }
    }
    if marker {
        stored.push(("scaled_fp8".to_owned(), Stored(Dtype::F8_E4M3, vec![2], vec![0; 2])));
    }
    (stored, wide)
}

#[test]
fn weights_of_eight_bits_are_the_numbers_that_they_stand_for() {
    let rig = Rig::new("single-fp8");
    for (name, scale, marker) in [("scaled", Some(0.001), true), ("plain", None, false)] {
        let (stored, wide) = scaled(&transformer(), scale, marker);
        let (narrow, wide) =
            (File::new(&format!("{name}.safetensors")), File::of("w.safetensors", &wide));
        write(&narrow, &stored);
        let part =
            |file: &File| load(&rig, &[("transformer", file.path()), ("compute", "f32")], DIT);
        let (narrow, wide) = (part(&narrow), part(&wide));
        let (found, expected) = (sample(&rig, &narrow), sample(&rig, &wide));
        let off = distance(&found, &expected);
        assert!(off < 2e-5, "{name}: {off}");
        // They stay narrow in memory: most of the weights are matrices.
        let bytes = |value: &Value| common::handle::<kino_nodes::DitHandle>(value).weight_bytes();
        assert!(bytes(&narrow) * 2 < bytes(&wide), "{} of {}", bytes(&narrow), bytes(&wide));
    }
}

/// A file whose matrices are whole numbers of eight bits, rotated before they were rounded where
/// their rows allow it, as ComfyUI writes them; and the numbers that they stand for.
fn whole_numbers(weights: &Tensors) -> (StoredFile, Tensors) {
    let (mut stored, mut wide) = (StoredFile::new(), weights.clone());
    for (index, (name, tensor)) in weights.iter().enumerate() {
        let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        let shape = tensor.dims().to_vec();
        let Some((&[rows, inner], layer)) = shape.as_array().zip(name.strip_suffix("weight"))
        else {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            stored.push((name.clone(), Stored(Dtype::F32, shape, bytes)));
            continue;
        };
        let group = [64, 16, 4].into_iter().find(|group| inner % group == 0);
        let group = group.filter(|_| index % 5 > 0);
        let bytes: Vec<i8> = values.iter().map(|value| (value * 800.0) as i8).collect();
        let scales: Vec<f32> = (0..rows).map(|row| 0.001 + row as f32 * 1e-5).collect();
        let exact = bytes.iter().enumerate().map(|(i, b)| f32::from(*b) * scales[i / inner]);
        let exact = Tensor::from_iter(exact, &Device::Cpu).unwrap().reshape((rows, inner)).unwrap();
        let (how, exact) = match group {
            Some(group) => (
                format!(
                    r#"{{"format": "int8_tensorwise", "convrot": true, "convrot_groupsize": {group}}}"#
                ),
                kino_kernels::rotate_groups(&exact, group).unwrap(),
            ),
            None => (r#"{"format": "int8_tensorwise"}"#.to_owned(), exact),
        };
        wide.insert(name.clone(), exact);
        let bytes = bytes.into_iter().map(|byte| byte as u8).collect();
        stored.push((name.clone(), Stored(Dtype::I8, shape, bytes)));
        let scales = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
        stored.push((format!("{layer}weight_scale"), Stored(Dtype::F32, vec![rows, 1], scales)));
        let how = how.into_bytes();
        stored.push((format!("{layer}comfy_quant"), Stored(Dtype::U8, vec![how.len()], how)));
    }
    (stored, wide)
}

#[test]
fn whole_numbers_that_were_rotated_are_the_numbers_that_they_stand_for() {
    let rig = Rig::new("single-int8");
    let (stored, wide) = whole_numbers(&transformer());
    let (file, wide) = (File::new("int8.safetensors"), File::of("w8.safetensors", &wide));
    write(&file, &stored);
    let given = [("transformer", known(file.path()))];
    assert_eq!(rig.infer("model.load", &given).unwrap().warnings, []);
    let part = |file: &File| load(&rig, &[("transformer", file.path())], DIT);
    let (narrow, wide) = (part(&file), part(&wide));
    let off = distance(&sample(&rig, &narrow), &sample(&rig, &wide));
    assert!(off < 2e-5, "{off}");
    let bytes = |value: &Value| common::handle::<kino_nodes::DitHandle>(value).weight_bytes();
    assert!(bytes(&narrow) * 2 < bytes(&wide), "{} of {}", bytes(&narrow), bytes(&wide));
    // Converted they are those numbers, each alone, and as they are with all that stands beside.
    for (to, most) in [(ConvertTo::Plain(DType::F32), 2e-5), (ConvertTo::Same, 0.0)] {
        let other = converted_file((&file.0, ""), to, "int8-converted.safetensors").unwrap();
        let off = distance(&sample(&rig, &part(&other)), &sample(&rig, &narrow));
        assert!(off <= most, "{to:?}: {off}");
    }
}

#[test]
fn whole_numbers_that_nothing_is_said_of_are_told_in_the_plan() {
    let rig = Rig::new("single-int8-unsaid");
    let (whole, _) = whole_numbers(&transformer());
    let told = |name: &str, change: &dyn Fn(&str, &mut Stored) -> bool| {
        let (file, mut stored) = (File::new(name), Vec::new());
        for (name, Stored(dtype, shape, bytes)) in &whole {
            let mut tensor = Stored(*dtype, shape.clone(), bytes.clone());
            if change(name, &mut tensor) {
                stored.push((name.clone(), tensor));
            }
        }
        write(&file, &stored);
        let dit = rig.fact("model.load", &[("transformer", known(file.path()))], DIT);
        rig.objects("schedule", &[("dit", dit)])
    };
    let (scale, how) = ("blocks.1.ffn.0.weight_scale", "blocks.1.ffn.0.comfy_quant");
    let said = told("scale.safetensors", &|name, _| name != scale);
    assert!(
        said.contains("has no weight `blocks.1.ffn.0.weight_scale` (`blocks.1.ffn.net.0"),
        "{said}"
    );
    let said = told("how.safetensors", &|name, _| name != how);
    assert!(
        said.contains("has no weight `blocks.1.ffn.0.comfy_quant` (`blocks.1.ffn.net.0"),
        "{said}"
    );
    let says = |text: &'static str| {
        move |name: &str, tensor: &mut Stored| {
            if name == how {
                *tensor = Stored(Dtype::U8, vec![text.len()], text.as_bytes().to_vec());
            }
            true
        }
    };
    let said = told("other.safetensors", &says(r#"{"format": "convrot_w4a4"}"#));
    assert!(said.contains("layout): convrot_w4a4 (of ComfyUI's, int8_tensorwise is read) is not"));
    let said = told("none.safetensors", &says("{"));
    assert!(
        said.contains("comfy_quant` in the diffusers layout) is no JSON that says how the weight"),
        "{said}"
    );
    let odd = r#"{"format": "int8_tensorwise", "convrot": true, "convrot_groupsize": 24}"#;
    let said = told("group.safetensors", &says(odd));
    assert!(
        said.contains("a `convrot_groupsize` of 24, expected a power of 4 that divides"),
        "{said}"
    );
    let said = told("short.safetensors", &|name, tensor| {
        if name == scale {
            *tensor = Stored(Dtype::F32, vec![3], vec![0; 12]);
        }
        true
    });
    assert!(
        said.contains("proj.weight_scale` in the diffusers layout): expected [96, 1], found [3]"),
        "{said}"
    );
}

/// The mark of ComfyUI in every form that files have, scales by both names, and what is no scale.
#[test]
fn scales_and_marks_of_every_kind_are_understood() {
    let rig = Rig::new("single-marks");
    let (stored, wide) = scaled(&transformer(), Some(0.001), false);
    let part = |file: &File| load(&rig, &[("transformer", file.path()), ("compute", "f32")], DIT);
    let expected = sample(&rig, &part(&File::of("marks-wide.safetensors", &wide)));
    let copy = |Stored(dtype, shape, bytes): &Stored| Stored(*dtype, shape.clone(), bytes.clone());
    let of = |change: &dyn Fn(&str, Stored) -> StoredFile, more: StoredFile| {
        let file = File::new("marks.safetensors");
        let each = stored.iter().flat_map(|(name, tensor)| change(name, copy(tensor)));
        write(&file, &each.chain(more).collect::<StoredFile>());
        let given = [("transformer", known(file.path()))];
        assert_eq!(rig.infer("model.load", &given).unwrap().warnings, []);
        distance(&sample(&rig, &part(&file)), &expected)
    };
    let same = |name: &str, tensor: Stored| vec![(name.to_owned(), tensor)];
    for (dtype, shape) in [
        (Dtype::F8_E4M3, vec![0]),
        (Dtype::F8_E4M3, vec![2]),
        (Dtype::F8_E5M2, vec![0]),
        (Dtype::F32, vec![]),
    ] {
        let bytes =
            vec![0; shape.iter().product::<usize>() * if dtype == Dtype::F32 { 4 } else { 1 }];
        let mark = vec![("scaled_fp8".to_owned(), Stored(dtype, shape, bytes))];
        assert!(of(&same, mark) < 2e-5, "{dtype:?}");
    }
    // As ComfyUI writes it since its `comfy_quant`: the other name, a list of one, what the
    // activations were divided by, and a text that says so.
    let newer = |name: &str, tensor: Stored| {
        let Some(layer) = name.strip_suffix("scale_weight") else { return same(name, tensor) };
        let how = br#"{"format": "float8_e4m3fn", "full_precision_matrix_mult": true}"#.to_vec();
        let one = || Stored(Dtype::F32, vec![1], 1f32.to_le_bytes().to_vec());
        vec![
            (format!("{layer}weight_scale"), Stored(Dtype::F32, vec![1], tensor.2)),
            (format!("{layer}input_scale"), one()),
            (format!("{layer}comfy_quant"), Stored(Dtype::U8, vec![how.len()], how)),
        ]
    };
    assert!(of(&newer, Vec::new()) < 2e-5);
    // A scale for each row: halves of it beside numbers of which every other row is twice as large.
    let (doubled, wide) = (&scaled(&transformer(), Some(0.002), false).0, &stored);
    let by_rows = |name: &str, tensor: Stored| {
        let Some(layer) = name.strip_suffix("weight").filter(|_| tensor.0 == Dtype::F8_E4M3) else {
            return if name.ends_with("scale_weight") { Vec::new() } else { same(name, tensor) };
        };
        let other = &doubled.iter().find(|(own, _)| own == name).unwrap().1;
        let inner = tensor.1[1];
        let (mut bytes, mut scales) = (tensor.2, Vec::new());
        for (row, bytes) in bytes.chunks_mut(inner).enumerate() {
            let is_other = row % 2 == 1;
            // What half a number is in eight bits, only large ones are without loss.
            let is_exact = bytes
                .iter()
                .zip(&other.2[row * inner..])
                .all(|(a, b)| kino_kernels::e4m3(*a) * 0.001 == kino_kernels::e4m3(*b) * 0.002);
            if is_other && is_exact {
                bytes.copy_from_slice(&other.2[row * inner..][..inner]);
            }
            let scale: f32 = if is_other && is_exact { 0.002 } else { 0.001 };
            scales.extend(scale.to_le_bytes());
        }
        let rows = tensor.1[0];
        vec![
            (name.to_owned(), Stored(tensor.0, tensor.1, bytes)),
            (format!("{layer}weight_scale"), Stored(Dtype::F32, vec![rows, 1], scales)),
        ]
    };
    assert!(!wide.is_empty() && of(&by_rows, Vec::new()) < 2e-5);
}

/// Eight bits with five of exponent, with a scale and without.
#[test]
fn the_other_eight_bits_are_the_numbers_that_they_stand_for() {
    let rig = Rig::new("single-e5m2");
    for scale in [None, Some(0.25f32)] {
        let (mut stored, mut wide) = (StoredFile::new(), transformer());
        for (name, tensor) in transformer() {
            let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
            let shape = tensor.dims().to_vec();
            // The upper byte of an f16, cut off.
            let by = scale.filter(|_| shape.len() == 2).unwrap_or(1.0);
            let halves = values.iter().map(|value| half::f16::from_f32(value / by).to_bits());
            let bytes: Vec<u8> = halves.map(|bits| (bits >> 8) as u8).collect();
            let exact =
                bytes.iter().map(|b| half::f16::from_bits(u16::from(*b) << 8).to_f32() * by);
            let exact = Tensor::from_vec(exact.collect(), shape.as_slice(), &Device::Cpu).unwrap();
            if let (Some(by), true) = (scale, shape.len() == 2) {
                let name = format!("{}scale_weight", name.strip_suffix("weight").unwrap());
                stored.push((name, Stored(Dtype::F32, vec![], by.to_le_bytes().to_vec())));
            }
            wide.insert(name.clone(), exact);
            stored.push((name, Stored(Dtype::F8_E5M2, shape, bytes)));
        }
        let (narrow, wide) = (File::new("e5m2.safetensors"), File::of("e5m2-w.safetensors", &wide));
        write(&narrow, &stored);
        let of = |file: &File| {
            sample(&rig, &load(&rig, &[("transformer", file.path()), ("compute", "f32")], DIT))
        };
        assert_eq!(distance(&of(&narrow), &of(&wide)), 0.0, "{scale:?}");
        let to = ConvertTo::Plain(DType::F32);
        let file = converted_file((&narrow.0, ""), to, "e5m2-f32.safetensors").unwrap();
        assert_eq!(distance(&of(&file), &of(&wide)), 0.0, "{scale:?}");
    }
}

/// What would be read as other numbers than it is.
#[test]
fn narrow_forms_that_are_not_read_are_told_by_their_name() {
    let rig = Rig::new("single-forms");
    let told = |change: &dyn Fn(&str, &Stored) -> StoredFile| {
        let (stored, _) = scaled(&transformer(), None, false);
        let (file, mut changed) = (File::new("forms.safetensors"), StoredFile::new());
        for (name, tensor) in stored {
            changed.extend(change(&name, &tensor));
            if changed.iter().all(|(own, _)| *own != name) {
                changed.push((name, tensor));
            }
        }
        write(&file, &changed);
        let dit = rig.fact("model.load", &[("transformer", known(file.path()))], DIT);
        rig.objects("schedule", &[("dit", dit)])
    };
    let layer = "blocks.1.ffn.0.";
    let beside = |end: &'static str, tensor: fn() -> Stored| {
        move |name: &str, _: &Stored| match name.strip_suffix("weight") {
            Some(own) if own == layer => vec![(format!("{own}{end}"), tensor())],
            _ => Vec::new(),
        }
    };
    let said = told(&beside("weight_scale_inv", || Stored(Dtype::F32, vec![1, 1], vec![0; 4])));
    let expected = "`blocks.1.ffn.0.weight_scale_inv` (`blocks.1.ffn.net.0.proj.weight_scale_inv` in \
                    the diffusers layout), a scale a block, is not supported yet";
    assert!(said.contains(expected), "{said}");
    let said = told(&|name, tensor| {
        let own = name.strip_suffix("weight").filter(|_| tensor.0 == Dtype::F8_E4M3);
        let scale = |own| match own == layer {
            true => Stored(Dtype::F32, vec![3], vec![0; 12]),
            false => Stored(Dtype::F32, vec![], vec![0; 4]),
        };
        own.map(|own| (format!("{own}weight_scale"), scale(own))).into_iter().collect()
    });
    assert!(
        said.contains("weight `blocks.1.ffn.0.weight_scale` (`blocks")
            && said.contains("layout): expected [], found [3]"),
        "{said}"
    );
    let said = told(&beside("comfy_quant", || {
        let how = br#"{"format": "nvfp4"}"#.to_vec();
        Stored(Dtype::U8, vec![how.len()], how)
    }));
    assert!(
        said.contains("`blocks.1.ffn.0.comfy_quant` (`blocks")
            && said.contains("layout): nvfp4 (of ComfyUI's, int8_tensorwise, float8_e4m3fn"),
        "{said}"
    );
}

#[test]
fn eight_bits_whose_scale_is_missing_are_an_error() {
    let rig = Rig::new("single-unscaled");
    // With the mark of a scaled file, and without: the other weights have scales.
    for marked in [true, false] {
        let (mut stored, _) = scaled(&transformer(), Some(0.01), marked);
        stored.retain(|(name, _)| name != "blocks.1.ffn.0.scale_weight");
        let file = File::new("unscaled.safetensors");
        write(&file, &stored);
        let dit = rig.fact("model.load", &[("transformer", known(file.path()))], DIT);
        let told = rig.objects("schedule", &[("dit", dit)]);
        let expected = "`blocks.1.ffn.0.weight` (`blocks.1.ffn.net.0.proj.weight` in the diffusers \
                        layout) is stored in eight bits, and its scale \
                        `blocks.1.ffn.0.scale_weight` (`blocks.1.ffn.net.0.proj.scale_weight` in the \
                        diffusers layout) is missing";
        assert!(told.contains(expected), "{told}");
        assert!(told.contains("download it again"), "{told}");
    }
}

/// What is left of a damaged file is no smaller transformer.
#[test]
fn a_weight_that_is_missing_is_named_and_not_counted_away() {
    let rig = Rig::new("single-damaged");
    for missing in [
        "blocks.1.self_attn.q.weight",
        "blocks.0.norm3.weight",
        "blocks.0.ffn.0.weight",
        "text_embedding.0.weight",
        "time_embedding.0.weight",
    ] {
        let named =
            format!("has no weight `{missing}` (`{}` in the diffusers layout)", converted(missing));
        let (mut stored, _) = scaled(&transformer(), None, false);
        let whole = stored.len();
        stored.retain(|(name, _)| name != missing);
        assert_eq!(stored.len(), whole - 1, "{missing}");
        let file = File::new("damaged.safetensors");
        write(&file, &stored);
        let from_file = [("transformer", known(file.path()))];
        let told = match rig.infer("model.load", &from_file) {
            Ok(loaded) => rig.objects("schedule", &[("dit", loaded.outputs[DIT].clone())]),
            Err(errors) => format!("{errors:?}"),
        };
        assert!(told.contains(&named), "{missing}: {told}");
    }
    let piece = File::of("wan-00001-of-00002.safetensors", &transformer());
    let told = rig.objects("model.load", &[("transformer", known(piece.path()))]);
    assert!(told.contains("it is piece 1 of 2 of a model"), "{told}");
}

/// What a transformer lacks is known before anything is read or runs.
#[test]
fn what_is_missing_of_another_shape_or_type_is_told_in_the_plan() {
    let rig = Rig::new("single-lacks");
    let told = |name: &str, stored: &[(String, Stored)]| {
        let file = File::new(name);
        write(&file, stored);
        let dit = rig.fact("model.load", &[("transformer", known(file.path()))], DIT);
        rig.objects("schedule", &[("dit", dit)])
    };
    let (whole, _) = scaled(&transformer(), None, false);
    let changed = |change: &dyn Fn(&mut StoredFile)| {
        let mut stored: StoredFile = whole
            .iter()
            .map(|(name, Stored(dtype, shape, bytes))| {
                (name.clone(), Stored(*dtype, shape.clone(), bytes.clone()))
            })
            .collect();
        change(&mut stored);
        stored
    };
    let missing = changed(&|stored| stored.retain(|(name, _)| name != "blocks.1.norm3.bias"));
    let said = told("missing.safetensors", &missing);
    assert!(
        said.contains("has no weight `blocks.1.norm3.bias` (`blocks.1.norm2.bias` in"),
        "{said}"
    );
    let at = |stored: &mut StoredFile, name: &str, to: Stored| {
        stored.iter_mut().find(|(own, _)| own == name).unwrap().1 = to;
    };
    let short = changed(&|stored| {
        at(stored, "blocks.0.ffn.2.bias", Stored(Dtype::F32, vec![3], vec![0; 12]));
    });
    let said = told("short.safetensors", &short);
    let expected = "weight `blocks.0.ffn.2.bias` (`blocks.0.ffn.net.2.bias` in the diffusers layout): \
                    expected [128], found [3]";
    assert!(said.contains(expected), "{said}");
    let odd = changed(&|stored| {
        at(stored, "blocks.0.ffn.2.bias", Stored(Dtype::I8, vec![DIM], vec![0; DIM]));
    });
    let said = told("odd.safetensors", &odd);
    assert!(
        said.contains("weight `blocks.0.ffn.2.bias` (") && said.contains("is stored as I8; this"),
        "{said}"
    );
}

/// Whatever a file calls its weights, messages about it call them so.
#[test]
fn messages_name_weights_as_they_stand_in_their_file() {
    let rig = Rig::new("single-names");
    let of_file = |tensors: &Tensors| {
        let file = File::of("names.safetensors", tensors);
        let load = rig.infer("model.load", &[("transformer", known(file.path()))]).unwrap();
        let dit = load.outputs[DIT].clone();
        let faults = match rig.infer("schedule", &[("dit", dit.clone())]) {
            Ok(_) => String::new(),
            Err(errors) => errors.iter().map(|error| error.message.clone()).collect(),
        };
        let warnings: String = load.warnings.iter().map(|one| one.message.clone()).collect();
        (faults, warnings, dit)
    };
    let (own, diffusers) = ("blocks.1.norm3.bias", "blocks.1.norm2.bias");
    let without = |rename: &dyn Fn(&str) -> String| -> Tensors {
        let rest = transformer().into_iter().filter(|(name, _)| name != own);
        rest.map(|(name, tensor)| (rename(&name), tensor)).collect()
    };
    // Inside what programs put around the names, and by the names of diffusers.
    let (said, ..) = of_file(&without(&|name| format!("model.diffusion_model.{name}")));
    let expected = "has no weight `model.diffusion_model.blocks.1.norm3.bias` (`blocks.1.norm2.bias` in \
                    the diffusers layout); the nearest name it has is `model.diffusion_model.blocks.";
    assert!(said.contains(expected), "{said}");
    let (said, ..) = of_file(&without(&converted));
    assert!(said.contains(&format!("has no weight `{diffusers}`; the nearest")), "{said}");
    // What is left over, under a name that means nothing and one that does.
    let mut more = transformer();
    more.retain(|name, _| !name.contains("norm3"));
    more.insert(diffusers.replace("norm2", "ffn.0.gate"), numbers(&[2], 0));
    let wrapped = |(name, tensor)| (format!("model.diffusion_model.{name}"), tensor);
    let (said, warned, _) = of_file(&more.into_iter().map(wrapped).collect());
    assert_eq!(said, "");
    assert!(
        warned.ends_with("weights: `model.diffusion_model.blocks.1.ffn.0.gate.bias`"),
        "{warned}"
    );
    // A scale that is no number.
    let (mut stored, _) = scaled(&transformer(), Some(0.01), true);
    for (name, Stored(.., bytes)) in &mut stored {
        if name == "blocks.0.self_attn.k.scale_weight" {
            *bytes = f32::NAN.to_le_bytes().to_vec();
        }
    }
    let file = File::new("nan.safetensors");
    write(&file, &stored);
    let dit = rig.fact("model.load", &[("transformer", known(file.path()))], DIT);
    let said = rig.objects("schedule", &[("dit", dit)]);
    let expected = "the scale `blocks.0.self_attn.k.scale_weight` (`blocks.0.attn1.to_k.scale_weight` in \
                    the diffusers layout) is NaN: the file is damaged; download it again";
    assert!(said.contains(expected), "{said}");
    // A LoRA of another size, and one of another family.
    let (_, _, dit) = of_file(&transformer());
    let lora = |layer: &str| {
        let half = |half: &str| format!("{layer}.{half}.weight");
        let halves =
            [(half("lora_A"), numbers(&[2, 64], 0)), (half("lora_B"), numbers(&[64, 2], 1))];
        let file = File::of("lora.safetensors", &halves.into_iter().collect());
        rig.objects("lora.apply", &[("dit", dit.clone()), ("path", known(file.path()))])
    };
    let said = lora("diffusion_model.blocks.0.self_attn.q");
    let expected = "but `blocks.0.self_attn.q.weight` (`blocks.0.attn1.to_q.weight` in the diffusers \
                    layout) is [128, 128]: it was made for another size";
    assert!(said.contains(expected), "{said}");
    let said = lora("unet.mid.q");
    assert!(
        said.contains("the transformer has such as `blocks.0.self_attn.norm_k.weight` ("),
        "{said}"
    );
}

/// The same of an autoencoder and of a text encoder, by each of their names.
#[test]
fn messages_name_weights_of_the_other_parts_as_they_stand_in_their_file() {
    let rig = Rig::new("single-names-others");
    let read = |path: &str| candle_core::safetensors::load(reference(path), &Device::Cpu).unwrap();
    let vae = read("wan_t2v/model/vae/diffusion_pytorch_model.safetensors");
    let lacks = "decoder.up_blocks.1.resnets.0.norm2.gamma";
    let rest = vae.iter().filter(|(name, _)| *name != lacks);
    let rest: Tensors = rest.map(|(name, tensor)| (of_vae(name), tensor.clone())).collect();
    let file = File::of("vae-lacks.safetensors", &rest);
    let vae = rig.fact("model.load", &[("vae", known(file.path()))], VAE);
    let said = rig.objects("vae.decode", &[("vae", vae), ("latent", kino_port::Fact::Unknown)]);
    let own = of_vae(lacks);
    assert!(own.starts_with("decoder.upsamples.4.residual."), "{own}");
    assert!(said.contains(&format!("has no weight `{own}` (`{lacks}` in the diff")), "{said}");
    let lacks = "encoder.block.1.layer.1.DenseReluDense.wo.weight";
    for (rename, own) in [
        (of_umt5 as fn(&str) -> String, "`blocks.1.ffn.fc2.weight` (`encoder.block.1."),
        (str::to_owned, "`encoder.block.1.layer.1.DenseReluDense.wo.weight`; the nearest"),
    ] {
        let rest = read("wan_t2v/model/text_encoder/model.safetensors").into_iter();
        let rest = rest.filter(|(name, _)| *name != lacks);
        let rest: Tensors = rest.map(|(name, tensor)| (rename(&name), tensor)).collect();
        let file = File::of("umt5-lacks.safetensors", &rest);
        let encoder = rig.fact("model.load", &[("text_encoder", known(file.path()))], TEXT);
        let said = rig.objects("text.encode", &[("encoder", encoder), ("prompt", known("a"))]);
        assert!(said.contains(&format!("has no weight {own}")), "{said}");
    }
}

/// What Wan's authors call a weight of UMT5 that transformers calls `name`.
fn of_umt5(name: &str) -> String {
    let pairs = [
        ("shared", "token_embedding"),
        ("encoder.final_layer_norm", "norm"),
        ("encoder.block", "blocks"),
        ("layer.0.SelfAttention.relative_attention_bias", "pos_embedding.embedding"),
        ("layer.0.SelfAttention", "attn"),
        ("layer.0.layer_norm", "norm1"),
        ("layer.1.layer_norm", "norm2"),
        ("layer.1.DenseReluDense.wi_0", "ffn.gate.0"),
        ("layer.1.DenseReluDense.wi_1", "ffn.fc1"),
        ("layer.1.DenseReluDense.wo", "ffn.fc2"),
    ];
    pairs.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}

/// What Wan's authors call a weight of the autoencoder (2.1) that diffusers calls `name`.
fn of_vae(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    let inside = |rest: &[&str]| {
        let rest = rest.join(".");
        [
            ("norm1", "residual.0"),
            ("conv1", "residual.2"),
            ("norm2", "residual.3"),
            ("conv2", "residual.6"),
            ("conv_shortcut", "shortcut"),
        ]
        .into_iter()
        .fold(rest, |rest, (from, to)| rest.replace(from, to))
    };
    let number = |text: &str| text.parse::<usize>().unwrap();
    match parts.as_slice() {
        ["quant_conv", rest] => format!("conv1.{rest}"),
        ["post_quant_conv", rest] => format!("conv2.{rest}"),
        [side, "conv_in", rest] => format!("{side}.conv1.{rest}"),
        [side, "conv_out", rest] => format!("{side}.head.2.{rest}"),
        [side, "norm_out", rest] => format!("{side}.head.0.{rest}"),
        [side, "mid_block", "attentions", "0", rest @ ..] => {
            format!("{side}.middle.1.{}", rest.join("."))
        }
        [side, "mid_block", "resnets", index, rest @ ..] => {
            format!("{side}.middle.{}.{}", 2 * number(index), inside(rest))
        }
        [side, "down_blocks", index, rest @ ..] => {
            format!("{side}.downsamples.{index}.{}", inside(rest))
        }
        [side, "up_blocks", level, "resnets", index, rest @ ..] => {
            format!("{side}.upsamples.{}.{}", 4 * number(level) + number(index), inside(rest))
        }
        [side, "up_blocks", level, "upsamplers", "0", rest @ ..] => {
            format!("{side}.upsamples.{}.{}", 4 * number(level) + 3, rest.join("."))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_autoencoder_with_original_names_is_the_one_of_the_folder() {
    let rig = Rig::new("single-vae");
    let file = reference("wan_t2v/model/vae/diffusion_pytorch_model.safetensors");
    let own = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    let original: Tensors =
        own.iter().map(|(name, tensor)| (of_vae(name), tensor.clone())).collect();
    assert_eq!(original.len(), own.len());
    let names: BTreeSet<&str> = original.keys().map(String::as_str).collect();
    assert!(names.contains("decoder.upsamples.7.time_conv.weight") && names.contains("conv1.bias"));
    let file = File::of("vae.safetensors", &original);
    let alone = load(&rig, &[("vae", file.path())], VAE);
    let folder = load(&rig, &[("source", "wan_t2v/model")], VAE);
    let frames = (numbers(&[5, 16, 16, 3], 2) + 0.5).unwrap();
    let encode = |vae: &Value| {
        let inputs = [("vae", vae.clone()), ("frames", Value::Tensor(frames.clone()))];
        rig.one("vae.encode", &inputs).tensor().unwrap()
    };
    assert_eq!(distance(&encode(&alone), &encode(&folder)), 0.0);
    let decode = |vae: &Value| {
        let inputs = [("vae", vae.clone()), ("latent", Value::Tensor(encode(vae)))];
        rig.one("vae.decode", &inputs).tensor().unwrap()
    };
    assert_eq!(distance(&decode(&alone), &decode(&folder)), 0.0);
}

#[test]
fn a_text_encoder_alone_is_the_one_of_the_folder() {
    let rig = Rig::new("single-text");
    let own = reference("wan_t2v/model/text_encoder/model.safetensors");
    // The tokenizer of the folder is its own: that of UMT5-XXL has more words than this encoder.
    let given = [("source", "wan_t2v/model"), ("text_encoder", own.to_str().unwrap())];
    let encode = |encoder: Value| {
        let inputs = [("encoder", encoder), ("prompt", text("a red circle"))];
        rig.one("text.encode", &inputs).tensor().unwrap()
    };
    let expected = encode(load(&rig, &[("source", "wan_t2v/model")], TEXT));
    assert_eq!(distance(&encode(load(&rig, &given, TEXT)), &expected), 0.0);
    // By the names of Wan's authors, as files of UMT5 are shared that were made of their pickle.
    let tensors = candle_core::safetensors::load(&own, &Device::Cpu).unwrap();
    let tensors: Tensors =
        tensors.into_iter().map(|(name, tensor)| (of_umt5(&name), tensor)).collect();
    assert!(tensors.contains_key("blocks.1.ffn.gate.0.weight"), "{:?}", tensors.keys());
    let file = File::of("umt5-enc.safetensors", &tensors);
    let given = [("source", "wan_t2v/model"), ("text_encoder", file.path())];
    assert_eq!(distance(&encode(load(&rig, &given, TEXT)), &expected), 0.0);
    let alone = load(&rig, &[("text_encoder", own.to_str().unwrap())], TEXT);
    let inputs = [("encoder", alone), ("prompt", text("a red circle"))];
    let failed = rig.fails("text.encode", &inputs);
    assert!(failed.contains("outside the encoder's vocabulary of 608"), "{failed}");
    // Which a prompt that is known says before anything runs.
    let encoder = rig.fact("model.load", &[("text_encoder", known(own.to_str().unwrap()))], TEXT);
    let told = |prompt: &str| {
        let texts = [("prompt", known(prompt)), ("negative", known(prompt))];
        rig.objects("text.encode", &[&[("encoder", encoder.clone())], &texts[..]].concat())
    };
    let said = told("a red circle");
    assert_eq!(said.lines().count(), 1, "what is wrong with the encoder is told once: {said}");
    assert!(said.starts_with("encoder: token ") && said.contains("vocabulary of 608"), "{said}");
    assert!(said.contains("load the encoder from a folder that has its own tokenizer"), "{said}");
}

#[test]
fn a_text_encoder_in_halves_or_eight_bits_is_the_numbers_that_it_stands_for() {
    let rig = Rig::new("single-text-narrow");
    let own = reference("wan_t2v/model/text_encoder/model.safetensors");
    let own: Tensors = candle_core::safetensors::load(own, &Device::Cpu).unwrap();
    let encode = |file: &File| {
        let path = file.path();
        let given = [("source", "wan_t2v/model"), ("text_encoder", path), ("compute", "f32")];
        let inputs = [("encoder", load(&rig, &given, TEXT)), ("prompt", text("a red circle"))];
        rig.one("text.encode", &inputs).tensor().unwrap()
    };
    let of_type = |tensors: &Tensors, dtype: DType| -> Tensors {
        let cast = |tensor: &Tensor| tensor.to_dtype(dtype).unwrap();
        tensors.iter().map(|(name, tensor)| (name.clone(), cast(tensor))).collect()
    };
    let half = of_type(&own, DType::F16);
    let wide = File::of("umt5-wide.safetensors", &of_type(&half, DType::F32));
    assert_eq!(distance(&encode(&File::of("umt5-f16.safetensors", &half)), &encode(&wide)), 0.0);
    // As ComfyUI's scaled files: the matrices of layers in eight bits.
    let (matrices, others): (Tensors, Tensors) =
        of_type(&own, DType::F32).into_iter().partition(|(name, tensor)| {
            tensor.rank() == 2 && name.contains("layer.") && !name.contains("relative")
        });
    let (mut stored, mut wide) = scaled(&matrices, Some(0.01), true);
    for (name, tensor) in &others {
        let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        stored.push((name.clone(), Stored(Dtype::F32, tensor.dims().to_vec(), bytes)));
    }
    wide.extend(others);
    let (narrow, wide) = (File::new("umt5-fp8.safetensors"), File::of("umt5-w.safetensors", &wide));
    write(&narrow, &stored);
    let off = distance(&encode(&narrow), &encode(&wide));
    assert!(off < 2e-5, "{off}");
}

#[test]
fn a_file_of_another_part_is_told_by_what_it_is() {
    let rig = Rig::new("single-wrong");
    let vae = reference("wan_t2v/model/vae/diffusion_pytorch_model.safetensors");
    let vae = vae.to_str().unwrap();
    let refused = |given: &[(&str, &str)]| {
        let given: Vec<_> = given.iter().map(|(port, path)| (*port, known(path))).collect();
        rig.objects("model.load", &given)
    };
    assert_eq!(
        refused(&[("transformer", vae)]),
        format!("transformer: {vae}: this is a VAE, not a transformer")
    );
    let other = File::of("other.safetensors", &[("x.weight".to_owned(), numbers(&[2], 0))].into());
    assert_eq!(
        refused(&[("vae", other.path())]),
        format!(
            "vae: {}: no part of a model that is known has weights of these names (its first is \
             `x.weight`)",
            other.path()
        )
    );
    let narrow = reference("wan_t2v/model/transformer/diffusion_pytorch_model.safetensors");
    let narrow = narrow.to_str().unwrap();
    assert!(refused(&[("transformer", narrow)]).contains("how many heads it has does not follow"));
    assert!(refused(&[]).starts_with("source: no model is named (write a source"));
    let lora = ["lora_down", "lora_up"]
        .map(|half| (format!("diffusion_model.blocks.0.ffn.0.{half}.weight"), numbers(&[4, 4], 1)));
    let lora = File::of("a-lora.safetensors", &lora.into());
    let told = refused(&[("transformer", lora.path())]);
    assert!(told.ends_with("it is a LoRA, which `lora.apply` puts beside a transformer"), "{told}");
    let missing = refused(&[("vae", "nowhere.safetensors")]);
    assert!(missing.contains("nowhere.safetensors does not exist"), "{missing}");
}
