//! Weights that do not fit into memory: what is read from disk block by block gives the bytes that
//! weights in memory give, within the budget.

mod common;

#[path = "../../models/tests/common/gguf.rs"]
mod gguf;

use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use common::single::{
    DIT, File, Stored, TEXT, Tensors, Widths, load, numbers, sample, sample_with, transformer_of,
};
use common::{Copied, Rig, fact_list, handle, int, known, number, reference, text};
use kino_kernels::BlockType;
use kino_node::{Conditioning, Control, ControlFact, Ledger, Services, TensorFact, Value};
use kino_nodes::{DitHandle, TextHandle};
use kino_port::{Fact, Literal, StepInfo};
use kino_world::Folders;
use safetensors::Dtype;

const WIDTHS: Widths = Widths { dim: 256, text: 256, freq: 256, inner: 512 };
const BLOCKS: usize = 8;

fn transformer() -> Tensors {
    transformer_of(BLOCKS, &WIDTHS)
}

/// A rig whose ledger allows so much.
fn rig(name: &str, budget: u64) -> Rig {
    let mut rig = Rig::new(name);
    let folders = Folders { graph: reference(""), out: PathBuf::new() };
    let services: Services = kino_nodes::services(Device::Cpu, Ledger::new(budget));
    rig.services = services.with(Arc::new(folders));
    rig
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

/// What a rig's nodes noted.
fn notes(rig: &Rig) -> Vec<String> {
    rig.reports.lock().unwrap().iter().filter_map(|report| report.note.clone()).collect()
}

/// What a run is given beside a transformer, latents and a text, and what is known of it.
struct More {
    values: Vec<(&'static str, Value)>,
    facts: Vec<(&'static str, Fact)>,
}

impl More {
    /// So many steps, and nothing else.
    fn steps(count: i128) -> Self {
        let (values, facts) = (vec![("steps", int(count))], vec![("steps", number(count))]);
        More { values, facts }
    }
}

/// What the plan of a run says.
fn planned(rig: &Rig, given: &[(&str, &str)], more: &More) -> StepInfo {
    planned_of(rig, loaded(rig, given), more)
}

/// What a plan knows of the transformer of such a model.
fn loaded(rig: &Rig, given: &[(&str, &str)]) -> Fact {
    let given: Vec<_> = given.iter().map(|(port, path)| (*port, known(path))).collect();
    rig.fact("model.load", &given, DIT)
}

/// What the plan of a run with this transformer says.
fn planned_of(rig: &Rig, dit: Fact, more: &More) -> StepInfo {
    let latent = Tensor::zeros((16, 1, 4, 4), DType::F32, &Device::Cpu).unwrap();
    let fact = TensorFact { shape: latent.dims().to_vec(), dtype: DType::F32 };
    let latents = ("latents", Fact::typed(fact));
    let patches = rig.fact("patchify", &[("dit", dit.clone()), latents], 0);
    let fact = TensorFact { shape: vec![8, WIDTHS.text], dtype: DType::F32 };
    let inputs = [("dit", dit), ("patches", patches), ("text", Fact::typed(fact))];
    rig.infer("dit.sample", &[&inputs[..], &more.facts].concat()).unwrap()
}

/// Two steps, see [`check_with`].
#[track_caller]
fn check(name: &str, given: &[(&str, &str)]) {
    assert_eq!(check_with(name, given, BLOCKS, &More::steps(2)), Vec::<String>::new());
}

/// Samples with all weights in memory and in ever less of it: the same bytes, the ledger never over
/// its budget, and the plan says what becomes of the blocks. What is noted of the whole run is
/// noted of the others, too; it is returned.
#[track_caller]
fn check_with(name: &str, given: &[(&str, &str)], blocks: usize, more: &More) -> Vec<String> {
    let sampled = |rig: &Rig, dit: &Value| sample_with(rig, dit, WIDTHS.text, &more.values);
    let whole = rig(name, u64::MAX);
    let dit = load(&whole, given, DIT);
    let expected = bits(&sampled(&whole, &dit));
    let noted = notes(&whole);
    let all = planned(&whole, given, more);
    assert_eq!(all.streamed, None);
    let weights = handle::<DitHandle>(&dit).weight_bytes();
    let run = all.memory - weights;
    let mut before = blocks;
    for share in [90, 70, 55] {
        let budget = weights * share / 100 + run;
        let little = rig(name, budget);
        let plan = planned(&little, given, more);
        let streamed = plan.streamed.unwrap_or_else(|| panic!("{name}, {share} %: in memory"));
        assert_eq!(streamed.blocks, blocks);
        assert!(streamed.resident <= before, "{name}, {share} %: {streamed:?}");
        assert!(plan.memory <= budget, "{name}, {share} %: {} of {budget}", plan.memory);
        before = streamed.resident;
        let found = sampled(&little, &load(&little, given, DIT));
        assert_eq!(bits(&found), expected, "{name}, {share} %");
        let (peak, used) = (little.services.ledger.peak(), little.services.ledger.used());
        assert!(peak <= budget && used <= peak, "{name}, {share} %: {peak} of {budget}");
        assert_eq!(notes(&little), [&[streamed.to_string()], &noted[..]].concat());
        if let [weights] = plan.weights.as_slice() {
            assert_eq!(little.services.ledger.resident(&[weights.id]), weights.bytes, "as planned");
        }
    }
    assert!(before < blocks / 2, "{name}: {before} stay");
    noted
}

/// The transformer with matrices of eight bits a number: E4M3 with scales, or whole numbers with a
/// scale for each row, rotated, as ComfyUI writes both.
fn in_eight_bits(name: &str, dtype: Dtype) -> File {
    let mut stored: Vec<(String, Stored)> = Vec::new();
    let bytes_of = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
    for (name, tensor) in transformer() {
        let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        let (shape, layer) = (tensor.dims().to_vec(), name.strip_suffix("weight"));
        let (&[rows, _], Some(layer)) = (shape.as_slice(), layer) else {
            stored.push((name, Stored(Dtype::F32, shape, bytes_of(&values))));
            continue;
        };
        let mut beside = |end: &str, tensor| stored.push((format!("{layer}{end}"), tensor));
        let bytes: Vec<u8> = match dtype {
            Dtype::F8_E4M3 => {
                beside("scale_weight", Stored(Dtype::F32, vec![], bytes_of(&[0.02])));
                // Without the two that are no number.
                values.iter().map(|value| (value * 800.0) as i8 as u8 & 0xbf).collect()
            }
            _ => {
                let scales: Vec<f32> = (0..rows).map(|row| 0.001 + row as f32 * 1e-5).collect();
                beside("weight_scale", Stored(Dtype::F32, vec![rows, 1], bytes_of(&scales)));
                let how =
                    br#"{"format": "int8_tensorwise", "convrot": true, "convrot_groupsize": 64}"#;
                beside("comfy_quant", Stored(Dtype::U8, vec![how.len()], how.to_vec()));
                values.iter().map(|value| (value * 800.0) as i8 as u8).collect()
            }
        };
        stored.push((name, Stored(dtype, shape, bytes)));
    }
    let file = File::new(name);
    let named = stored.iter().map(|(name, tensor)| (name.as_str(), tensor));
    safetensors::serialize_to_file(named, None, &file.0).unwrap();
    file
}

fn in_blocks(name: &str, blocks: BlockType) -> File {
    let mut seed = 7_u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed
    };
    let mut tensors: Vec<(String, Tensor)> = transformer().into_iter().collect();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let stored = tensors.iter().map(|(name, tensor)| match tensor.dims() {
        &[rows, inner] if blocks.bytes_of(inner).is_some() => {
            let bytes = gguf::random_blocks(blocks, rows * inner, &mut next);
            gguf::Tensor::new(name, &[rows, inner], gguf::number(blocks), bytes)
        }
        shape => {
            let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
            gguf::Tensor::f32(name, shape, &values)
        }
    });
    let file = File::new(name);
    let stored: Vec<gguf::Tensor> = stored.collect();
    std::fs::write(&file.0, gguf::file(&[], &stored)).unwrap();
    file
}

#[test]
fn numbers_of_32_and_16_bits() {
    let file = File::of("f32.safetensors", &transformer());
    check("streaming-f32", &[("transformer", file.path())]);
    let narrow = |(name, tensor): (String, Tensor)| (name, tensor.to_dtype(DType::BF16).unwrap());
    let file = File::of("bf16.safetensors", &transformer().into_iter().map(narrow).collect());
    for compute in ["f32", "bf16"] {
        check("streaming-bf16", &[("transformer", file.path()), ("compute", compute)]);
    }
}

#[test]
fn numbers_of_eight_bits() {
    for (name, dtype) in [("fp8", Dtype::F8_E4M3), ("int8", Dtype::I8)] {
        let file = in_eight_bits(&format!("{name}.safetensors"), dtype);
        for compute in ["f32", "bf16"] {
            let given = [("transformer", file.path()), ("compute", compute)];
            check(&format!("streaming-{name}"), &given);
        }
    }
}

#[test]
fn blocks_of_gguf() {
    for blocks in [BlockType::Q8_0, BlockType::Q4_K] {
        let file = in_blocks(&format!("{}.gguf", blocks.name()), blocks);
        check("streaming-gguf", &[("transformer", file.path())]);
    }
}

/// A card widens one matrix at a time. Weights are planned as they are stored, and the run with
/// room for the largest matrix beside them; blocks are streamed that would not leave it.
#[test]
fn a_card_needs_room_for_the_widest_matrix_beside_narrow_ones() {
    let numbers = |tensor: Tensor| if tensor.rank() == 2 { tensor.elem_count() } else { 0 };
    let widest = transformer().into_values().map(numbers).max().unwrap() as u64;
    let files = [
        (in_blocks("card.gguf", BlockType::Q4_K), widest),
        (in_eight_bits("card-int8.safetensors", Dtype::I8), widest),
        (in_eight_bits("card-fp8.safetensors", Dtype::F8_E4M3), widest),
        (File::of("card-f32.safetensors", &transformer()), 0),
    ];
    for (file, widened) in &files {
        for (compute, size) in [("f32", 4), ("bf16", 2)] {
            let given = [("transformer", file.path()), ("compute", compute)];
            let plan = |rig: &Rig, widens: bool| {
                let Fact::Typed(dit) = loaded(rig, &given) else { panic!("no transformer") };
                let mut dit = DitHandle::clone(&dit.downcast::<DitHandle>().unwrap());
                dit.widens = widens;
                planned_of(rig, Fact::typed(dit), &More::steps(2))
            };
            let whole = rig("card", u64::MAX);
            let (cpu, card) = (plan(&whole, false), plan(&whole, true));
            assert_eq!(card.memory - cpu.memory, widened * size, "{} {compute}", file.path());
            assert_eq!((card.weights.len(), &card.weights), (1, &cpu.weights));
            assert_eq!(card.streamed, None);
            let tight = plan(&rig("card", cpu.memory), true);
            assert_eq!(tight.streamed.is_some(), *widened > 0, "{} {compute}", file.path());
            assert!(tight.memory <= cpu.memory, "{} {compute}", file.path());
        }
    }
}

/// Activations that are rounded to int8, too: streamed or not the same bytes, near those of f32.
#[test]
fn products_of_int8() {
    let convrot = in_eight_bits("w8a8.safetensors", Dtype::I8);
    let q8_0 = in_blocks("w8a8.gguf", BlockType::Q8_0);
    for file in [&convrot, &q8_0] {
        let given = [("transformer", file.path()), ("compute", "int8")];
        check("streaming-w8a8", &given);
        let rig = rig("streaming-w8a8", u64::MAX);
        let of = |compute| {
            let given = [("transformer", file.path()), ("compute", compute)];
            sample(&rig, &load(&rig, &given, DIT), WIDTHS.text)
        };
        let (exact, rounded) = (of("f32"), of("int8"));
        let sum = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        let off = (sum(&(&exact - &rounded).unwrap()) / sum(&exact)).sqrt();
        println!("{}: int8 is off by {off}", file.path());
        assert!(off > 0.0 && off < 0.05, "{}: {off}", file.path());
        let plan = rig.infer("model.load", &given.map(|(port, text)| (port, known(text)))).unwrap();
        assert_eq!(plan.warnings.len(), 0);
    }
    // What has no such weights computes as it did, and the plan says so.
    let wide = File::of("wide.safetensors", &transformer());
    let rig = rig("streaming-w8a8", u64::MAX);
    let given = [("transformer", known(wide.path())), ("compute", known("int8"))];
    let warnings = rig.infer("model.load", &given).unwrap().warnings;
    let said = warnings.iter().map(|warning| format!("{warning:?}")).collect::<String>();
    assert!(said.contains("no part has weights of int8 or Q8_0"), "{said}");
}

/// Of two experts one is in memory, as far as it fits.
#[test]
fn two_experts() {
    let other: Tensors = transformer_of(BLOCKS, &WIDTHS)
        .into_iter()
        .map(|(name, tensor)| (name, (tensor * 0.9).unwrap()))
        .collect();
    let (high, low) =
        (File::of("high.safetensors", &transformer()), File::of("low.safetensors", &other));
    check("streaming-experts", &[("transformer", high.path()), ("transformer_2", low.path())]);
}

/// Blocks beside the main ones, which read a control, are streamed side by side with those.
#[test]
fn blocks_that_read_a_control() {
    const BESIDE: usize = BLOCKS / 2;
    let mut tensors = transformer();
    let copied = |(name, tensor): (&String, &Tensor)| {
        let (index, inside) = name.strip_prefix("blocks.")?.split_once('.')?;
        let is_one = index.parse::<usize>().is_ok_and(|index| index < BESIDE);
        is_one.then(|| (format!("vace_blocks.{index}.{inside}"), (tensor * 0.8).unwrap()))
    };
    let beside: Tensors = tensors.iter().filter_map(copied).collect();
    tensors.extend(beside);
    let ends = (0..BESIDE).map(|index| format!("vace_blocks.{index}.after_proj"));
    for (seed, layer) in ends.chain(["vace_blocks.0.before_proj".to_owned()]).enumerate() {
        let weight = numbers(&[WIDTHS.dim, WIDTHS.dim], seed + 40);
        tensors.insert(format!("{layer}.weight"), weight);
        tensors.insert(format!("{layer}.bias"), numbers(&[WIDTHS.dim], seed + 50));
    }
    let embedding = numbers(&[WIDTHS.dim, 96, 1, 2, 2], 60);
    tensors.insert("vace_patch_embedding.weight".to_owned(), embedding);
    tensors.insert("vace_patch_embedding.bias".to_owned(), numbers(&[WIDTHS.dim], 61));
    let file = File::of("vace.safetensors", &tensors);
    let shape = [96, 1, 4, 4];
    let control = |strength| {
        let tensor = (numbers(&shape, 62) * 6.0).unwrap();
        let control = Control { tensor, references: 0, strength, space: None };
        ("control", Value::List(vec![(None, Value::from(control))].into()))
    };
    let fact = ControlFact { shape: shape.map(Some), references: 0, space: None };
    let mut more = More::steps(2);
    more.values.push(control(1.0));
    more.facts.push(("control", fact_list(&[("control", Fact::typed(fact))])));
    let given = [("transformer", file.path())];
    check_with("streaming-control", &given, BLOCKS + BESIDE, &more);
    // It counts, and one that does not reads no block beside the main ones.
    let rig = rig("streaming-control", u64::MAX);
    let dit = load(&rig, &given, DIT);
    let led = |strength| {
        let more = [("steps", int(2)), control(strength)];
        bits(&sample_with(&rig, &dit, WIDTHS.text, &more))
    };
    assert_ne!(led(1.0), led(0.0));
}

/// A pass that is reused reads the first block alone, and the pass after it reads all again.
#[test]
fn a_step_cache() {
    let file = File::of("cached.safetensors", &transformer());
    let mut more = More::steps(7);
    more.values.extend([("cache", Value::Real(0.35)), ("cache_kind", text("first_block"))]);
    more.facts.extend([
        ("cache", Fact::Literal(Literal::Real(0.35))),
        ("cache_kind", known("first_block")),
    ]);
    let noted = check_with("streaming-cache", &[("transformer", file.path())], BLOCKS, &more);
    let [noted] = noted.as_slice() else { panic!("{noted:?}") };
    let reused = noted.strip_prefix("step cache: ").and_then(|rest| rest.split_once(" of 14 "));
    assert!(reused.is_some_and(|(reused, _)| reused.parse::<usize>().unwrap() > 0), "{noted}");
}

#[test]
fn a_lora_beside_weights_that_are_streamed() {
    let file = File::of("base.safetensors", &transformer());
    let mut lora = Tensors::new();
    for (seed, layer) in
        ["blocks.0.self_attn.q", "blocks.3.ffn.0", "blocks.7.cross_attn.k"].into_iter().enumerate()
    {
        let out = if layer.ends_with("ffn.0") { WIDTHS.inner } else { WIDTHS.dim };
        lora.insert(format!("{layer}.lora_A.weight"), numbers(&[4, WIDTHS.dim], seed));
        lora.insert(format!("{layer}.lora_B.weight"), numbers(&[out, 4], seed + 9));
    }
    // The whole change of a layer, too.
    lora.insert("blocks.5.self_attn.k.diff_b".into(), numbers(&[WIDTHS.dim], 77));
    let lora = File::of("style.safetensors", &lora);
    let sampled = |budget: u64| {
        let rig = rig("streaming-lora", budget);
        let plain = load(&rig, &[("transformer", file.path())], DIT);
        let inputs = [("dit", plain.clone()), ("path", text(lora.path()))];
        let styled = rig.one("lora.apply", &inputs);
        let both = [&styled, &plain].map(|dit| bits(&sample(&rig, dit, WIDTHS.text)));
        (both, notes(&rig).len(), rig.services.ledger.peak())
    };
    let (expected, noted, whole) = sampled(u64::MAX);
    assert_ne!(expected[0], expected[1], "it changes something");
    assert_eq!(noted, 0);
    let budget = whole * 8 / 10;
    let (found, noted, peak) = sampled(budget);
    assert_eq!((found, noted), (expected, 2));
    assert!(peak <= budget, "{peak} of {budget}");
}

/// The reference model with more layers in its text encoder.
fn deep_text_encoder() -> Copied {
    let copied = Copied::new("streaming-text");
    let path = copied.0.join("text_encoder/model.safetensors");
    let own = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let mut deep = own.clone();
    for (name, tensor) in &own {
        if let Some(rest) = name.strip_prefix("encoder.block.1.") {
            for index in 3..24 {
                let scaled = (tensor * (1.0 + index as f64 / 100.0)).unwrap();
                deep.insert(format!("encoder.block.{index}.{rest}"), scaled);
            }
        }
    }
    candle_core::safetensors::save(&deep, path).unwrap();
    let path = copied.0.join("text_encoder/config.json");
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["num_layers"] = 24.into();
    std::fs::write(path, config.to_string()).unwrap();
    copied
}

#[test]
fn a_text_encoder() {
    let model = deep_text_encoder();
    let encoded = |rig: &Rig| {
        let encoder = load(rig, &[("source", model.path()), ("compute", "f32")], TEXT);
        let inputs = [("encoder", encoder.clone()), ("prompt", text("deep snow at dawn"))];
        let conditioning = rig.one("text.encode", &inputs).shared::<Conditioning>().unwrap();
        let rows = conditioning.positive.iter().map(|embedding| bits(&embedding.tensor));
        (rows.collect::<Vec<_>>(), handle::<TextHandle>(&encoder).weight_bytes())
    };
    let whole = rig("streaming-text", u64::MAX);
    let (expected, weights) = encoded(&whole);
    let plan = |rig: &Rig| {
        let given = [("source", known(model.path())), ("compute", known("f32"))];
        let encoder = rig.fact("model.load", &given, TEXT);
        rig.infer("text.encode", &[("encoder", encoder), ("prompt", known("x"))]).unwrap()
    };
    let budget = plan(&whole).memory - weights / 4;
    let little = rig("streaming-text", budget);
    let (found, _) = encoded(&little);
    assert_eq!(found, expected);
    let streamed = plan(&little).streamed.unwrap();
    assert!(streamed.blocks == 24 && streamed.resident < 24, "{streamed:?}");
    assert!(plan(&little).memory <= budget);
    assert_eq!(notes(&little), [streamed.to_string()]);
    assert!(little.services.ledger.peak() <= budget);
}

/// What is changed on disk between two passes is an error that names the file; what is taken from
/// its name is still read.
#[test]
fn files_that_change_while_they_are_streamed() {
    let file = File::of("changing.safetensors", &transformer());
    let given = [("transformer", file.path())];
    let plan = planned(&rig("streaming-changing", u64::MAX), &given, &More::steps(2));
    let little = rig("streaming-changing", plan.memory * 3 / 4);
    let dit = load(&little, &given, DIT);
    sample(&little, &dit, WIDTHS.text);
    let inputs = {
        let latents = ("latents", Value::Tensor(numbers(&[16, 1, 4, 4], 3)));
        let patches = little.one("patchify", &[("dit", dit.clone()), latents]);
        let rows = Value::Tensor(numbers(&[8, WIDTHS.text], 5));
        [("dit", dit.clone()), ("patches", patches), ("text", rows)]
    };
    let length = std::fs::metadata(&file.0).unwrap().len();
    let opened = std::fs::OpenOptions::new().write(true).open(&file.0).unwrap();
    opened.set_len(length / 3).unwrap();
    let refused = little.fails("dit.sample", &inputs);
    assert!(refused.contains("changing.safetensors changed while it ran"), "{refused}");
    assert!(little.services.ledger.used() <= little.services.ledger.budget());
    // One that is taken from its name is read on as it was.
    let file = File::of("removed.safetensors", &transformer());
    let given = [("transformer", file.path())];
    let little = rig("streaming-removed", plan.memory * 3 / 4);
    let dit = load(&little, &given, DIT);
    let expected = bits(&sample(&little, &dit, WIDTHS.text));
    std::fs::remove_file(&file.0).unwrap();
    assert_eq!(bits(&sample(&little, &dit, WIDTHS.text)), expected);
}
