//! Models in other forms: what comes back is what went, byte for byte or within what fewer bits
//! hold, and what is made of it computes the same.

mod common;

#[path = "../../models/tests/common/gguf.rs"]
mod gguf;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use common::single::{
    DIT, EightBits, File, TEXT, Tensors, VAE, Widths, converted, converted_file, in_eight_bits,
    load, open, sample, transformer, write,
};
use common::{Rig, distance, reference, text};
use kino_kernels::BlockType;
use kino_models::ModelFolder;
use kino_models::checkpoint::{Checkpoint, DataFile, PartFiles, SingleFormat};
use kino_models::convert::{Conversion, ConvertTo, Destination};
use kino_models::families::Families;
use kino_node::Frames;
use kino_port::SafetensorsHeader;

const WIDTHS: Widths = Widths { dim: 256, text: 256, freq: 256, inner: 512 };

/// A file that must come of it.
#[track_caller]
fn good(from: (&Path, &str), to: ConvertTo, name: &str) -> File {
    converted_file(from, to, name).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The tensors of a safetensors file, by name: type, shape, bytes.
fn tensors(bytes: &[u8]) -> BTreeMap<String, (String, Vec<usize>, Vec<u8>)> {
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header = SafetensorsHeader::parse(&bytes[8..8 + length], bytes.len() as u64).unwrap();
    let of = |offset: u64, length: u64| bytes[offset as usize..][..length as usize].to_vec();
    let each = header.tensors.into_iter();
    each.map(|t| (t.name, (t.dtype.into_owned(), t.shape, of(t.offset, t.length)))).collect()
}

fn weights(model: &str, part: &str) -> PathBuf {
    let stem = if part.ends_with("encoder") { "model" } else { "diffusion_pytorch_model" };
    reference(model).join(part).join(format!("{stem}.safetensors"))
}

const PARTS: [(&str, &str); 7] = [
    ("wan_t2v/model", "transformer"),
    ("wan_t2v/model", "vae"),
    ("wan_t2v/model", "text_encoder"),
    ("wan_i2v/model", "transformer"),
    ("wan_i2v/model", "image_encoder"),
    ("wan_vace/model", "transformer"),
    ("wan22_ti2v/model", "vae"),
];

/// From a folder into a file of each format and back: tensor by tensor what it was, in f32 and,
/// once they are bf16, in bf16.
#[test]
fn a_part_that_went_around_is_the_same_to_the_byte() {
    let folder = Destination::Folder;
    for (model, part) in PARTS {
        let from = (&*reference(model), part);
        let name = |end: &str| format!("around-{}-{part}{end}", model.replace('/', "-"));
        let single = good(from, ConvertTo::Same, &name(".safetensors"));
        let gguf = good((&single.0, part), ConvertTo::Same, &name(".gguf"));
        let whole = good(from, ConvertTo::Plain(DType::F32), &name("-f32.safetensors"));
        let wide = good((&whole.0, part), ConvertTo::Same, &name("-f32.gguf"));
        let expected = std::fs::read(weights(model, part)).unwrap();
        let back = converted((&single.0, part), folder, ConvertTo::Same).unwrap();
        assert_eq!(tensors(&back), tensors(&expected), "{model} {part}: safetensors");
        if tensors(&expected).values().all(|(dtype, ..)| dtype != "BF16") {
            let back = converted((&gguf.0, part), folder, ConvertTo::Same).unwrap();
            assert_eq!(tensors(&back), tensors(&expected), "{model} {part}: GGUF");
        }
        for dtype in [DType::F32, DType::BF16] {
            let to = ConvertTo::Plain(dtype);
            let expected = converted(from, folder, to).unwrap();
            for file in [&whole, &wide] {
                let back = converted((&file.0, part), folder, to).unwrap();
                assert!(back == expected, "{model} {part}: {}", file.path());
            }
            // Through a GGUF file of that type, where what is small is wider.
            let narrow = good(from, to, &name("-narrow.gguf"));
            let back = converted((&narrow.0, part), folder, to).unwrap();
            assert!(back == expected, "{model} {part}: {dtype:?}");
        }
    }
}

/// The names of a file on its own are those of the authors, and all of them are known again.
#[test]
fn files_of_their_own_have_the_names_that_others_know() {
    let names = |model: &str, part: &str, end: &str| {
        let from = reference(model);
        let format = if end == "gguf" { SingleFormat::Gguf } else { SingleFormat::Safetensors };
        let to = Destination::File(format);
        let bytes = converted((&from, part), to, ConvertTo::Same).unwrap();
        let file = File::new(&format!("names-{}-{part}.{end}", model.replace('/', "-")));
        std::fs::write(&file.0, bytes).unwrap();
        let files = DataFile::open(&file.0, "it").and_then(PartFiles::of_file).unwrap();
        let names: Vec<String> = files.names().into_iter().map(str::to_owned).collect();
        names
    };
    for end in ["safetensors", "gguf"] {
        let dit = names("wan_vace/model", "transformer", end);
        for name in [
            "blocks.0.self_attn.o.weight",
            "blocks.1.cross_attn.norm_q.weight",
            "blocks.1.norm3.bias",
            "blocks.0.ffn.2.weight",
            "blocks.0.modulation",
            "head.modulation",
            "patch_embedding.weight",
            "time_projection.1.weight",
            "vace_blocks.0.after_proj.weight",
            "vace_patch_embedding.bias",
        ] {
            assert!(dit.iter().any(|own| own == name), "{name}: {dit:?}");
        }
        assert!(!dit.iter().any(|own| own.contains("attn1") || own.contains("norm2")), "{dit:?}");
        let vae = names("wan_t2v/model", "vae", end);
        for name in
            ["conv1.weight", "encoder.downsamples.0.residual.2.weight", "decoder.head.2.bias"]
        {
            assert!(vae.iter().any(|own| own == name), "{name}: {vae:?}");
        }
        let nested = names("wan22_ti2v/model", "vae", end);
        let name = "encoder.downsamples.0.downsamples.0.residual.0.gamma";
        assert!(nested.iter().any(|own| own == name), "{nested:?}");
        assert!(!vae.iter().chain(&nested).any(|own| own.contains("_block")), "{vae:?}{nested:?}");
    }
    let llama = names("wan_t2v/model", "text_encoder", "gguf");
    assert!(llama.contains(&"enc.blk.1.ffn_gate.weight".to_owned()), "{llama:?}");
    assert!(llama.iter().all(|name| name.starts_with("enc.") || name == "token_embd.weight"));
}

/// A model whose sizes do not follow from its weights stands alone nevertheless: the embedded one.
#[test]
fn parts_of_the_embedded_model_stand_alone() {
    let rig = Rig::new("convert-embedded");
    let embedded = load(&rig, &[("source", "embedded:shapes")], DIT);
    let prompt = |encoder| {
        let inputs = [("encoder", encoder), ("prompt", text("a red circle spins"))];
        rig.one("text.encode", &inputs)
    };
    let rows = prompt(load(&rig, &[("source", "embedded:shapes")], TEXT));
    let noise = |vae: &kino_node::Value| {
        let [width, height, seed] = [32, 32, 5].map(common::int);
        let inputs = [("vae", vae.clone()), ("width", width), ("height", height), ("seed", seed)];
        rig.one("latent.noise", &inputs)
    };
    let run = |dit: &kino_node::Value, vae: &kino_node::Value| {
        let patches = rig.one("patchify", &[("dit", dit.clone()), ("latents", noise(vae))]);
        let inputs = [
            ("dit", dit.clone()),
            ("patches", patches.clone()),
            ("text", rows.clone()),
            ("steps", common::int(2)),
            ("shift", kino_node::Value::Real(3.0)),
        ];
        let patches = rig.one("dit.sample", &inputs);
        let latent = rig.one("unpatchify", &[("patches", patches)]);
        let frames = rig.one("vae.decode", &[("vae", vae.clone()), ("latent", latent)]);
        frames.shared::<Frames>().expect("frames").whole().unwrap()
    };
    let vae = load(&rig, &[("source", "embedded:shapes")], VAE);
    let expected = run(&embedded, &vae);
    let folder = ModelFolder::embedded("embedded:shapes", kino_nodes::EMBEDDED_FILES);
    let checkpoint = Checkpoint::open(&folder).unwrap();
    for (format, end) in [(SingleFormat::Safetensors, "safetensors"), (SingleFormat::Gguf, "gguf")]
    {
        let files = ["transformer", "vae"].map(|part| {
            let to = (Destination::File(format), ConvertTo::Same);
            let plan = Conversion::plan(&Families::default(), &checkpoint, part, to).unwrap();
            let (file, mut bytes) = (File::new(&format!("embedded-{part}.{end}")), Vec::new());
            let mut sink = |piece: &[u8]| {
                bytes.extend(piece);
                Ok(())
            };
            plan.write(&mut sink, &mut || Ok(())).unwrap();
            std::fs::write(&file.0, bytes).unwrap();
            file
        });
        let dit = load(&rig, &[("transformer", files[0].path())], DIT);
        let vae = load(&rig, &[("vae", files[1].path())], VAE);
        assert_eq!(distance(&run(&dit, &vae), &expected), 0.0, "{end}");
    }
}

/// The numbers that a part stands for, by the names of diffusers.
fn wide(file: &File) -> Tensors {
    let bytes =
        converted((&file.0, ""), Destination::Folder, ConvertTo::Plain(DType::F32)).unwrap();
    let of = |bytes: &[u8]| {
        bytes.as_chunks().0.iter().map(|number| f32::from_le_bytes(*number)).collect::<Vec<_>>()
    };
    let tensor = |(name, (_, shape, bytes)): (String, (String, Vec<usize>, Vec<u8>))| {
        (name, Tensor::from_vec(of(&bytes), shape, &Device::Cpu).unwrap())
    };
    tensors(&bytes).into_iter().map(tensor).collect()
}

/// What fewer bits lose: of each matrix, the distance of its numbers relative to their norm; and of
/// what a model makes with them. Bounds are twice what was found.
#[test]
fn fewer_bits_keep_what_they_hold() {
    let rig = Rig::new("convert-narrow");
    let whole = File::of("narrow-whole.safetensors", &transformer(&WIDTHS));
    let exact = wide(&whole);
    let expected = sample(&rig, &load(&rig, &[("transformer", whole.path())], DIT), WIDTHS.text);
    let blocks = |blocks| (ConvertTo::Blocks(blocks), "gguf");
    for ((to, end), weight_bound, result_bound) in [
        (blocks(BlockType::Q8_0), 0.008, 0.05),
        (blocks(BlockType::Q6_K), 0.03, 0.2),
        (blocks(BlockType::Q5_K), 0.05, 0.8),
        (blocks(BlockType::Q5_1), 0.05, 0.4),
        (blocks(BlockType::Q5_0), 0.06, 0.5),
        (blocks(BlockType::Q4_K), 0.1, 0.7),
        (blocks(BlockType::Q4_1), 0.1, 0.7),
        (blocks(BlockType::Q4_0), 0.12, 0.5),
        (blocks(BlockType::Q3_K), 0.22, 2.3),
        (blocks(BlockType::Q2_K), 0.4, 4.0),
        ((ConvertTo::ScaledFp8, "safetensors"), 0.06, 0.9),
    ] {
        let narrow = good((&whole.0, ""), to, &format!("narrow.{end}"));
        let numbers = wide(&narrow);
        let (mut changed, mut largest) = (0, 0.0f32);
        for (name, exact) in &exact {
            let off = ((exact - &numbers[name]).unwrap()).sqr().unwrap().sum_all().unwrap();
            let norm = exact.sqr().unwrap().sum_all().unwrap();
            let of = |tensor: Tensor| tensor.to_scalar::<f32>().unwrap().sqrt();
            let off = of(off) / of(norm);
            let is_matrix = name.starts_with("blocks.")
                && (name.contains(".to_") || name.contains(".net."))
                && name.ends_with("weight");
            assert_eq!(off > 0.0, is_matrix, "{to:?}: {name} {off}");
            assert!(off < weight_bound, "{to:?}: {name} {off}");
            changed += usize::from(is_matrix);
            largest = largest.max(off);
        }
        println!("{to:?}: {largest} of {weight_bound}");
        assert_eq!(changed, 20, "every matrix of both blocks");
        let dit = load(&rig, &[("transformer", narrow.path()), ("compute", "f32")], DIT);
        let found = sample(&rig, &dit, WIDTHS.text);
        let off = distance(&found, &expected);
        println!("{to:?}: {off}");
        assert!(off > 0.0 && off < result_bound, "{to:?}: {off}");
        // As the numbers that they stand for give, and once narrow they stay what they are.
        let same = File::of("narrow-same.safetensors", &numbers);
        let same = load(&rig, &[("transformer", same.path())], DIT);
        assert!(distance(&found, &sample(&rig, &same, WIDTHS.text)) < 2e-5, "{to:?}");
        let again = good((&narrow.0, ""), to, &format!("narrow-again.{end}"));
        assert_eq!(std::fs::read(&again.0).unwrap(), std::fs::read(&narrow.0).unwrap(), "{to:?}");
    }
}

/// The matrices of blocks, by the names of Wan's authors and of diffusers.
fn is_matrix(name: &str) -> bool {
    let of_attention = name.contains("attn") && !name.contains("norm");
    name.starts_with("blocks.") && name.ends_with("weight") && (of_attention || name.contains("ff"))
}

/// Numbers of a normal distribution of this deviation, the same everywhere (SplitMix64; Box and
/// Muller's method).
fn normal(shape: &[usize], seed: u64, deviation: f64) -> Tensor {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut next = || {
        let (radius, angle) = ((1.0 - uniform()).ln(), uniform() * std::f64::consts::TAU);
        ((-2.0 * radius).sqrt() * angle.cos() * deviation) as f32
    };
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// The root mean square of what the numbers of all matrices are off by, relative to theirs.
fn error_of(file: &File, exact: &Tensors) -> f64 {
    let square = |tensor: &Tensor| {
        tensor.to_dtype(DType::F64).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f64>()
    };
    let (mut off, mut all, mut count) = (0.0, 0.0, 0);
    for (name, numbers) in wide(file).iter().filter(|(name, _)| is_matrix(name)) {
        off += square(&(numbers - &exact[name]).unwrap()).unwrap();
        all += square(&exact[name]).unwrap();
        count += 1;
    }
    assert_eq!(count, 20, "every matrix of both blocks");
    (off / all).sqrt()
}

/// A share in percent, to two digits that count.
fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    let places = (1.0 - percent.log10().floor()).clamp(0.0, 4.0) as usize;
    format!("{percent:.places$}%")
}

/// The README's table of what each form of weights loses is what is measured here: of matrices of
/// normally distributed numbers, and of the same with one column in 64 eight times as large.
#[test]
fn what_each_form_loses_stands_in_the_readme() {
    let (mut even, mut uneven) = (transformer(&WIDTHS), transformer(&WIDTHS));
    let mut names: Vec<String> = even.keys().filter(|name| is_matrix(name)).cloned().collect();
    names.sort();
    for (seed, name) in names.into_iter().enumerate() {
        let numbers = normal(even[&name].dims(), seed as u64, 0.03);
        let columns = (0..numbers.dim(1).unwrap()).map(|column| match column % 64 {
            7 => 8f32,
            _ => 1.0,
        });
        let columns = Tensor::from_iter(columns, &Device::Cpu).unwrap();
        uneven.insert(name.clone(), numbers.broadcast_mul(&columns).unwrap());
        even.insert(name, numbers);
    }
    let given = [("even", even), ("uneven", uneven)].map(|(name, weights)| {
        let whole = File::of(&format!("forms-{name}.safetensors"), &weights);
        let exact = wide(&whole);
        (weights, whole, exact)
    });
    let mut table = Vec::new();
    let mut row = |name: &str, bits: f64, errors: [f64; 2]| {
        let [even, uneven] = errors.map(percent);
        table.push(format!("| {name} | {} | {even} | {uneven} |", (bits * 100.0).round() / 100.0));
    };
    let converted = |to, end: &str| {
        given.each_ref().map(|(_, whole, exact)| {
            error_of(&good((&whole.0, ""), to, &format!("forms-narrow.{end}")), exact)
        })
    };
    for (name, dtype) in [("f16", DType::F16), ("bf16", DType::BF16)] {
        row(name, 16.0, converted(ConvertTo::Plain(dtype), "safetensors"));
    }
    for blocks in [
        BlockType::Q8_0,
        BlockType::Q6_K,
        BlockType::Q5_K,
        BlockType::Q5_1,
        BlockType::Q5_0,
        BlockType::Q4_K,
        BlockType::Q4_1,
        BlockType::Q4_0,
        BlockType::Q3_K,
        BlockType::Q2_K,
    ] {
        let bits = blocks.bytes_of(256).unwrap() as f64 / 32.0;
        row(blocks.name(), bits, converted(ConvertTo::Blocks(blocks), "gguf"));
    }
    row("fp8 (E4M3), a scale a matrix", 8.0, converted(ConvertTo::ScaledFp8, "safetensors"));
    for (name, form) in [
        ("fp8 (E4M3), a scale a row *", EightBits::E4m3Rows),
        ("fp8 (E4M3), no scale *", EightBits::E4m3),
        ("fp8 (E5M2), no scale *", EightBits::E5m2),
        ("int8 (ConvRot), a scale a row *", EightBits::Int8Rotated),
        ("int8, not rotated, a scale a row *", EightBits::Int8),
    ] {
        let errors = given.each_ref().map(|(weights, _, exact)| {
            let file = File::new("forms-eight.safetensors");
            write(&file, &in_eight_bits(weights, form, is_matrix).0);
            error_of(&file, exact)
        });
        row(name, 8.0, errors);
    }
    println!("{}", table.join("\n"));
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let others: Vec<&String> = table.iter().filter(|row| !readme.contains(*row)).collect();
    assert!(others.is_empty(), "the README says something else: {others:#?}");
}

/// ComfyUI's form: a scale beside each matrix, its largest number over 448, and the mark.
#[test]
fn fp8_has_the_form_of_comfyui() {
    let whole = File::of("fp8-whole.safetensors", &transformer(&WIDTHS));
    let narrow = good((&whole.0, ""), ConvertTo::ScaledFp8, "fp8.safetensors");
    let stored = tensors(&std::fs::read(&narrow.0).unwrap());
    assert_eq!(stored["scaled_fp8"], ("F8_E4M3".to_owned(), vec![2], vec![0; 2]));
    for (name, (dtype, shape, bytes)) in &stored {
        let Some(layer) = name.strip_suffix("weight").filter(|_| dtype == "F8_E4M3") else {
            continue;
        };
        let (of_scale, no_shape, scale) = &stored[&format!("{layer}scale_weight")];
        assert_eq!((of_scale.as_str(), no_shape.len(), shape.len()), ("F32", 0, 2), "{name}");
        let scale = f32::from_le_bytes(*scale.first_chunk().unwrap());
        let exact = transformer(&WIDTHS)[name].abs().unwrap().flatten_all().unwrap();
        let largest = exact.max(0).unwrap().to_scalar::<f32>().unwrap();
        assert_eq!(scale, largest / 448.0, "{name}");
        let reached = bytes.iter().map(|byte| kino_kernels::e4m3(*byte).abs()).fold(0.0, f32::max);
        assert_eq!(reached, 448.0, "{name}");
    }
    let scales = stored.keys().filter(|name| name.ends_with("scale_weight")).count();
    assert_eq!(scales, 20);
}

/// Numbers beside which a scale stands that is not of their own form are multiplied by it.
#[test]
fn what_stands_beside_a_matrix_goes_along_or_is_multiplied_in() {
    let rig = Rig::new("convert-factor");
    let mut weights = transformer(&WIDTHS);
    let layer = "blocks.0.self_attn.q";
    let scale = Tensor::new(0.5f32, &Device::Cpu).unwrap();
    weights.insert(format!("{layer}.scale_weight"), scale);
    let scaled = File::of("factor.safetensors", &weights);
    weights.remove(&format!("{layer}.scale_weight"));
    let name = format!("{layer}.weight");
    let half = (&weights[&name] * 0.5).unwrap();
    weights.insert(name, half);
    let plain = File::of("factor-plain.safetensors", &weights);
    let of = |file: &File| sample(&rig, &load(&rig, &[("transformer", file.path())], DIT), 256);
    let expected = of(&plain);
    assert_eq!(distance(&of(&scaled), &expected), 0.0);
    for (to, end) in [
        (ConvertTo::Same, "safetensors"),
        (ConvertTo::Plain(DType::F32), "safetensors"),
        (ConvertTo::Same, "gguf"),
    ] {
        let file = good((&scaled.0, ""), to, &format!("factor-out.{end}"));
        assert_eq!(distance(&of(&file), &expected), 0.0, "{to:?} {end}");
    }
}

/// As ComfyUI-GGUF, diffusers and stable-diffusion.cpp read it: five dimensions, in 32 bits, and
/// the shape once more in the metadata.
#[test]
fn gguf_files_are_labelled_as_others_look_for_it() {
    let whole = File::of("label-whole.safetensors", &transformer(&WIDTHS));
    let file = good((&whole.0, ""), ConvertTo::Blocks(BlockType::Q4_K), "label.gguf");
    let bytes = std::fs::read(&file.0).unwrap();
    let has = |entry: &[u8]| bytes.windows(entry.len()).any(|window| window == entry);
    assert!(has(&gguf::entry("general.architecture", gguf::TEXT, &gguf::text("wan"))));
    assert!(has(&gguf::entry("general.file_type", 4, &14u32.to_le_bytes())));
    let sizes: Vec<u8> = [256i32, 16, 1, 2, 2].into_iter().flat_map(i32::to_le_bytes).collect();
    let list = [&5u32.to_le_bytes()[..], &5u64.to_le_bytes(), &sizes].concat();
    assert!(has(&gguf::entry("comfy.gguf.orig_shape.patch_embedding.weight", 9, &list)));
    let shape: Vec<u8> = [2u64, 2, 1, 16, 256].into_iter().flat_map(u64::to_le_bytes).collect();
    let info = [gguf::text("patch_embedding.weight"), 5u32.to_le_bytes().to_vec(), shape];
    assert!(has(&info.concat()));
}

#[test]
fn what_a_form_does_not_hold_is_told() {
    let whole = File::of("odd-whole.safetensors", &transformer(&WIDTHS));
    let tell = |file: &File, to, end: &str| match converted_file((&file.0, ""), to, end) {
        Err(told) => told,
        Ok(_) => panic!("{to:?} {end}"),
    };
    let q4 = ConvertTo::Blocks(BlockType::Q4_K);
    assert!(tell(&whole, q4, "a.safetensors").contains("end the destination with .gguf"));
    let told = tell(&whole, ConvertTo::ScaledFp8, "a.gguf");
    assert!(told.contains("GGUF files have no fp8: take q8_0"), "{told}");
    let narrow = good((&whole.0, ""), q4, "odd.gguf");
    let told = tell(&narrow, ConvertTo::Same, "a.safetensors");
    let expected = "is stored as Q4_K, which such a destination does not hold: say what it should \
                    become, such as --to bf16";
    assert!(
        told.contains(expected)
            && told.contains("`blocks.0.self_attn.k.weight` (`blocks.0.attn1.to_k.weight` in"),
        "{told}"
    );
    let vae = reference("wan_t2v/model");
    let told = converted_file((&vae, "vae"), q4, "a.gguf").map(|_| ()).unwrap_err();
    assert!(told.contains("it has no matrices that are held in fewer bits than 16"), "{told}");
    let changed = |name: &str, value: f32| {
        let mut weights = transformer(&WIDTHS);
        let mut values: Vec<f32> = weights[name].flatten_all().unwrap().to_vec1().unwrap();
        values[7] = value;
        let shape = weights[name].dims().to_vec();
        weights.insert(name.to_owned(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap());
        File::of("odd-number.safetensors", &weights)
    };
    let name = "blocks.1.ffn.0.weight";
    let told = tell(&changed(name, 1e6), ConvertTo::Plain(DType::F16), "a.safetensors");
    let expected = "weight `blocks.1.ffn.0.weight` (`blocks.1.ffn.net.0.proj.weight` in the diffusers \
                    layout): 1000000 is too large for f16; bf16";
    assert!(told.contains(expected), "{told}");
    for (to, end) in [(q4, "a.gguf"), (ConvertTo::ScaledFp8, "a.safetensors")] {
        let told = tell(&changed(name, f32::NAN), to, end);
        assert!(
            told.contains("weight `blocks.1.ffn.0.weight` (") && told.contains("NaN has no place")
        );
    }
    // Rows of no whole blocks of 256 take those of 32.
    let odd = Widths { dim: 128, text: 64, freq: 64, inner: 96 };
    let odd = File::of("odd-rows.safetensors", &transformer(&odd));
    let (checkpoint, part) = open(&odd.0);
    let to = (Destination::File(SingleFormat::Gguf), q4);
    let plan = Conversion::plan(&Families::default(), &checkpoint, part.unwrap(), to).unwrap();
    let expected = "20 matrices have no rows of whole blocks Q4_K: Q8_0 or as before";
    assert_eq!(plan.notes(), [expected]);
    assert!(plan.types().contains_key("Q8_0") && !plan.types().contains_key("Q4_K"));
}
