//! LoRAs beside the weights of a transformer: whatever their names, the numbers are those of
//! weights into which they were merged.

mod common;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use common::single::{EightBits, File, in_eight_bits, write};
use common::{Copied, Rig, distance, int, known, reference, text};
use kino_node::Value;
use kino_nodes::{DitHandle, Models};

/// A layer as diffusers, Wan's authors, and kohya name it.
struct Layer {
    diffusers: &'static str,
    original: &'static str,
}

/// Linear layers of blocks, one outside of them, and the two that are read in other forms.
const LAYERS: [Layer; 6] = [
    Layer { diffusers: "blocks.0.attn1.to_q", original: "blocks.0.self_attn.q" },
    Layer { diffusers: "blocks.1.attn2.to_out.0", original: "blocks.1.cross_attn.o" },
    Layer { diffusers: "blocks.2.ffn.net.0.proj", original: "blocks.2.ffn.0" },
    Layer { diffusers: "condition_embedder.time_proj", original: "time_projection.1" },
    Layer { diffusers: "proj_out", original: "head.head" },
    Layer { diffusers: "patch_embedding", original: "patch_embedding" },
];

const RANK: usize = 3;
const ALPHA: f64 = 1.5;

type Tensors = HashMap<String, Tensor>;

/// Numbers that look random and are the same everywhere.
fn numbers(shape: &[usize], seed: f64) -> Tensor {
    let count: usize = shape.iter().product();
    let wave = |i: usize| ((i as f64 * 12.9898 + seed * 78.233).sin() * 43758.5453).fract() as f32;
    let values: Vec<f32> = (0..count).map(|i| wave(i) * 0.2).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn weights(model: &str, part: &str) -> Tensors {
    let file = reference(model).join(part).join("diffusion_pytorch_model.safetensors");
    candle_core::safetensors::load(file, &Device::Cpu).unwrap()
}

/// The halves of a layer's adapter: `[rank, inner…]` and `[out, rank]`.
fn halves(weight: &Tensor, seed: f64) -> (Tensor, Tensor) {
    let dims = weight.dims();
    let (mut down, mut up) = (dims.to_vec(), dims.to_vec());
    down[0] = RANK;
    up[1] = RANK;
    up[2..].fill(1);
    (numbers(&down, seed), numbers(&up, seed + 0.5))
}

/// A file of adapters for those of [`LAYERS`] that the model has.
fn lora(model: &Tensors, name: impl Fn(&Layer, bool) -> String, alpha: bool) -> Tensors {
    let mut tensors = Tensors::new();
    for (index, layer) in LAYERS.iter().enumerate() {
        // Not every model has as many blocks.
        let Some(weight) = model.get(&format!("{}.weight", layer.diffusers)) else { continue };
        let (down, up) = halves(weight, index as f64);
        if alpha {
            let key = name(layer, false);
            let end = [".lora_A.weight", ".lora_down.weight"].into_iter();
            let key = end.filter_map(|end| key.strip_suffix(end)).next().unwrap().to_owned();
            tensors.insert(key + ".alpha", Tensor::new(ALPHA as f32, &Device::Cpu).unwrap());
        }
        tensors.insert(name(layer, false), down);
        tensors.insert(name(layer, true), up);
    }
    tensors
}

/// The weights with the adapters in them.
fn merged(mut model: Tensors, scale: f64) -> Tensors {
    for (index, layer) in LAYERS.iter().enumerate() {
        let weight = model.get_mut(&format!("{}.weight", layer.diffusers)).unwrap();
        let (down, up) = halves(weight, index as f64);
        let (down, up) = (down.flatten_from(1).unwrap(), up.flatten_from(1).unwrap());
        let change = (up.matmul(&down).unwrap() * scale).unwrap();
        *weight = (&*weight + change.reshape(weight.dims()).unwrap()).unwrap();
    }
    model
}

/// A folder of files.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("kino-lora-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Files(folder)
    }

    /// Writes a file and gives its path.
    fn write(&self, name: &str, tensors: &Tensors) -> String {
        let path = self.0.join(name);
        candle_core::safetensors::save(tensors, &path).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn sample(rig: &Rig, dit: &Value) -> Tensor {
    let noise = numbers(&[16, 1, 4, 4], 3.0);
    let latents = ("latents", Value::Tensor((noise * 7.0).unwrap()));
    let patches = rig.one("patchify", &[("dit", dit.clone()), latents]);
    let text = Tensor::ones((8, 40), DType::F32, &Device::Cpu).unwrap();
    let inputs = [
        ("dit", dit.clone()),
        ("patches", patches),
        ("text", Value::Tensor(text)),
        ("steps", int(2)),
    ];
    rig.one("dit.sample", &inputs).tensor().unwrap()
}

fn with(rig: &Rig, dit: &Value, path: &str, strength: f64) -> Value {
    let inputs = [("dit", dit.clone()), ("path", text(path)), ("strength", Value::Real(strength))];
    rig.one("lora.apply", &inputs)
}

fn dit_of(value: &Value) -> Arc<DitHandle> {
    common::handle(value)
}

#[test]
fn whatever_the_names_the_numbers_are_those_of_merged_weights() {
    let (rig, files) = (Rig::new("lora-names"), Files::new("names"));
    let own = weights("wan_t2v/model", "transformer");
    let plain = rig.model("wan_t2v/model").dit;
    let copied = Copied::of(&reference("wan_t2v/model"), "lora-merged");
    let merge = |scale: f64| {
        let file = copied.0.join("transformer/diffusion_pytorch_model.safetensors");
        candle_core::safetensors::save(&merged(own.clone(), scale), file).unwrap();
        sample(&rig, &rig.model(copied.path()).dit)
    };
    let half = |up: bool| if up { "B" } else { "A" };
    let word = |up: bool| if up { "up" } else { "down" };
    let peft = |l: &Layer, up| format!("transformer.{}.lora_{}.weight", l.diffusers, half(up));
    let nested = |l: &Layer, up| {
        format!("base_model.model.{}.lora_{}.default.weight", l.diffusers, half(up))
    };
    let comfy = |l: &Layer, up| format!("diffusion_model.{}.lora_{}.weight", l.original, word(up));
    let kohya = |l: &Layer, up| {
        format!("lora_unet_{}.lora_{}.weight", l.original.replace('.', "_"), word(up))
    };
    let of_alpha = ALPHA / RANK as f64;
    let cases = [
        ("peft", lora(&own, peft, false), 1.0),
        ("nested", lora(&own, nested, false), 1.0),
        ("comfy", lora(&own, comfy, true), of_alpha),
        ("kohya", lora(&own, kohya, true), of_alpha),
    ];
    let before = sample(&rig, &plain);
    for (name, tensors, scale) in cases {
        let path = files.write(&format!("{name}.safetensors"), &tensors);
        for strength in [1.0, -0.5] {
            let expected = merge(scale * strength);
            let found = sample(&rig, &with(&rig, &plain, &path, strength));
            let off = distance(&found, &expected);
            println!("{name} {strength}: {off:.1e}, changed {:.1e}", distance(&found, &before));
            assert!(off < 2e-5, "{name}, {strength}: {off}");
            assert!(distance(&found, &before) > 1e-2, "{name} changes something");
        }
        // Two after one another are their sum.
        let twice = with(&rig, &with(&rig, &plain, &path, 0.75), &path, 0.25);
        assert!(distance(&sample(&rig, &twice), &merge(scale)) < 2e-5, "{name}, twice");
    }
    // Taking them away gives the bytes from before, and so does one that does not count.
    let same = |other: &Tensor| distance(other, &before) == 0.0;
    assert!(same(&sample(&rig, &plain)), "the weights stayed as they were");
}

#[test]
fn the_header_may_say_alpha_for_all_layers() {
    let (rig, files) = (Rig::new("lora-alpha"), Files::new("alpha"));
    let own = weights("wan_t2v/model", "transformer");
    let name = |l: &Layer, up: bool| {
        format!("transformer.{}.lora_{}.weight", l.diffusers, if up { "B" } else { "A" })
    };
    let tensors = lora(&own, name, false);
    let said = r#"{"transformer.r": 3, "transformer.lora_alpha": 1.5, "transformer.bias": "none"}"#;
    let about = HashMap::from([("lora_adapter_metadata".to_owned(), said.to_owned())]);
    let path = files.0.join("said.safetensors");
    safetensors::serialize_to_file(&tensors, Some(about), &path).unwrap();
    let dit = rig.model("wan_t2v/model").dit;
    let found = sample(&rig, &with(&rig, &dit, path.to_str().unwrap(), 1.0));
    let plain = files.write("plain.safetensors", &tensors);
    let expected = sample(&rig, &with(&rig, &dit, &plain, ALPHA / RANK as f64));
    assert!(distance(&found, &expected) < 1e-6);
}

#[test]
fn whole_differences_of_weights_and_biases_are_added() {
    let (rig, files) = (Rig::new("lora-diff"), Files::new("diff"));
    let own = weights("wan_t2v/model", "transformer");
    let names = [
        ("blocks.0.self_attn.norm_q.diff", "blocks.0.attn1.norm_q.weight"),
        ("blocks.1.norm3.diff_b", "blocks.1.norm2.bias"),
        ("blocks.2.self_attn.o.diff", "blocks.2.attn1.to_out.0.weight"),
        ("blocks.2.self_attn.o.diff_b", "blocks.2.attn1.to_out.0.bias"),
        ("blocks.2.modulation.diff", "blocks.2.scale_shift_table"),
        ("head.head.diff_b", "proj_out.bias"),
    ];
    let (mut tensors, mut changed) = (Tensors::new(), own);
    for (index, (name, weight)) in names.into_iter().enumerate() {
        let weight = changed.get_mut(weight).unwrap();
        let difference = numbers(weight.dims(), index as f64);
        *weight = (&*weight + (&difference * 0.5).unwrap()).unwrap();
        tensors.insert(format!("diffusion_model.{name}"), difference);
    }
    let copied = Copied::of(&reference("wan_t2v/model"), "lora-diff");
    let file = copied.0.join("transformer/diffusion_pytorch_model.safetensors");
    candle_core::safetensors::save(&changed, file).unwrap();
    let path = files.write("diff.safetensors", &tensors);
    let plain = rig.model("wan_t2v/model").dit;
    let found = sample(&rig, &with(&rig, &plain, &path, 0.5));
    let expected = sample(&rig, &rig.model(copied.path()).dit);
    assert!(distance(&found, &expected) < 1e-6, "{}", distance(&found, &expected));
    assert!(distance(&found, &sample(&rig, &plain)) > 1e-2);
}

#[test]
fn the_weights_are_loaded_once_with_and_without() {
    let (rig, files) = (Rig::new("lora-shared"), Files::new("shared"));
    let own = weights("wan_t2v/model", "transformer");
    let name =
        |l: &Layer, up| format!("{}.lora_{}.weight", l.diffusers, if up { "B" } else { "A" });
    let path = files.write("style.safetensors", &lora(&own, name, false));
    let plain = rig.model("wan_t2v/model").dit;
    let styled = with(&rig, &plain, &path, 0.5);
    let models = rig.services.get::<Models>().unwrap();
    let first = models.dit(&dit_of(&plain)).unwrap();
    let of_plain = rig.services.ledger.used();
    let second = models.dit(&dit_of(&styled)).unwrap();
    assert!(first.shares_weights(&second));
    let adapter: usize = lora(&own, name, false).values().map(Tensor::elem_count).sum();
    assert_eq!(rig.services.ledger.used() - of_plain, 4 * adapter as u64, "the LoRA alone");
    let third = models.dit(&dit_of(&with(&rig, &plain, &path, 2.0))).unwrap();
    assert_eq!(rig.services.ledger.used() - of_plain, 4 * adapter as u64, "read once");
    assert_eq!(
        dit_of(&styled).weight_bytes() - dit_of(&plain).weight_bytes(),
        4 * adapter as u64,
        "and planned"
    );
    drop((first, second, third));
    models.clear();
    assert_eq!(rig.services.ledger.used(), 0);
}

#[test]
fn of_two_experts_the_one_is_changed_that_the_name_or_the_graph_says() {
    let (rig, files) = (Rig::new("lora-experts"), Files::new("experts"));
    let own = weights("wan22_a14b/model", "transformer");
    let name = |l: &Layer, up| {
        format!("diffusion_model.{}.lora_{}.weight", l.original, if up { "up" } else { "down" })
    };
    let layers = lora(&own, name, false);
    let high = files.write("fast_high_noise.safetensors", &layers);
    let low = files.write("fast_low_noise.safetensors", &layers);
    let both = files.write("style.safetensors", &layers);
    let plain = rig.model("wan22_a14b/model").dit;
    let with_part = |path: &str, part: &str| {
        let inputs = [("dit", plain.clone()), ("path", text(path)), ("part", text(part))];
        sample(&rig, &rig.one("lora.apply", &inputs))
    };
    let (of_high, of_low) = (with_part(&high, "auto"), with_part(&low, "auto"));
    let of_both = with_part(&both, "auto");
    let same = |a: &Tensor, b: &Tensor| distance(a, b) == 0.0;
    assert!(same(&of_high, &with_part(&both, "high")) && same(&of_low, &with_part(&both, "low")));
    let results = [&sample(&rig, &plain), &of_high, &of_low, &of_both];
    for (index, a) in results.iter().enumerate() {
        for b in &results[index + 1..] {
            assert!(!same(a, b), "each is another");
        }
    }
    // One after the other they are what the one for both is.
    let two = with(&rig, &with(&rig, &plain, &high, 1.0), &low, 1.0);
    assert!(same(&sample(&rig, &two), &of_both));
}

/// A graph may leave the choice of a LoRA to whoever runs it: without a file nothing changes, with
/// one for each expert each has its own strength.
#[test]
fn a_node_takes_no_file_one_or_one_for_each_expert() {
    let (rig, files) = (Rig::new("lora-pairs"), Files::new("pairs"));
    let own = weights("wan22_a14b/model", "transformer");
    let name = |l: &Layer, up| {
        format!("diffusion_model.{}.lora_{}.weight", l.original, if up { "up" } else { "down" })
    };
    // Names that say no expert.
    let one = files.write("one.safetensors", &lora(&own, name, false));
    let two = files.write("two.safetensors", &lora(&own, name, true));
    let plain = rig.model("wan22_a14b/model").dit;
    let apply = |given: &[(&str, Value)]| {
        rig.one("lora.apply", &[&[("dit", plain.clone())], given].concat())
    };
    let none = apply(&[("path", text(""))]);
    assert!(Arc::ptr_eq(&dit_of(&none), &dit_of(&plain)), "the transformer itself");
    let pair = |strengths: [f64; 2]| {
        sample(
            &rig,
            &apply(&[
                ("path", text(&one)),
                ("strength", Value::Real(strengths[0])),
                ("low_noise", text(&two)),
                ("low_noise_strength", Value::Real(strengths[1])),
            ]),
        )
    };
    let part = |dit: &Value, path: &str, part: &str, strength: f64| {
        let inputs = [("dit", dit.clone()), ("path", text(path)), ("part", text(part))];
        let strength = [("strength", Value::Real(strength))];
        rig.one("lora.apply", &[&inputs[..], &strength[..]].concat())
    };
    let same = |a: &Tensor, b: &Tensor| distance(a, b) == 0.0;
    let high = part(&plain, &one, "high", 0.75);
    let apart = sample(&rig, &part(&high, &two, "low", 0.5));
    assert!(same(&pair([0.75, 0.5]), &apart));
    assert!(same(&pair([0.75, 0.0]), &sample(&rig, &high)));
    assert!(!same(&apart, &sample(&rig, &high)) && !same(&apart, &pair([0.75, 1.0])));
    let low = apply(&[("path", text("")), ("low_noise", text(&two))]);
    assert!(same(&sample(&rig, &low), &pair([0.0, 1.0])), "the low one alone");
}

/// What does not go together is an error at the input that names it.
#[test]
fn a_file_for_each_expert_is_checked_in_the_plan() {
    let (rig, files) = (Rig::new("lora-pairs-told"), Files::new("pairs-told"));
    let own = "diffusion_model.blocks.0.self_attn.q";
    let lora = |inner: usize| -> Tensors {
        let name = |half: &str| format!("{own}.lora_{half}.weight");
        let (down, up) = (numbers(&[2, inner], 0.0), numbers(&[inner, 2], 1.0));
        [(name("down"), down), (name("up"), up)].into()
    };
    let low = files.write("a_low_noise.safetensors", &lora(24));
    let high = files.write("a_high_noise.safetensors", &lora(24));
    let large = files.write("large.safetensors", &lora(128));
    let facts = |model: &str, low: &str, part: &str| {
        let dit = rig.model_facts(model).dit;
        [("dit", dit), ("path", known("")), ("low_noise", known(low)), ("part", known(part))]
    };
    let told = |model: &str, low: &str, part: &str| {
        let said = rig.objects("lora.apply", &facts(model, low, part));
        said.replace(files.0.to_str().unwrap(), "")
    };
    let pair = "wan22_a14b/model";
    assert_eq!(
        told("wan_t2v/model", &large, "auto").lines().next().unwrap(),
        "low_noise: this transformer has no expert of low noise levels (it is one for all: leave \
         `low_noise` out)"
    );
    assert_eq!(
        told(pair, &low, "high"),
        "part: `low_noise` is the file for one expert, which makes `path` that for the other (leave \
         `part` out)"
    );
    let said = told(pair, &large, "auto");
    assert!(said.starts_with("low_noise: /large.safetensors: `diffusion_model.blocks.0"), "{said}");
    let said = told(pair, "nowhere.safetensors", "auto");
    assert!(said.starts_with("low_noise: ") && said.contains("does not exist (a LoRA"), "{said}");
    // The two files exchanged: each is told.
    let dit = rig.model_facts(pair).dit;
    let exchanged = [("dit", dit), ("path", known(&low)), ("low_noise", known(&high))];
    let warnings = rig.infer("lora.apply", &exchanged).unwrap().warnings;
    let said = |port: &str, own: &str, other: &str| {
        warnings.iter().any(|one| {
            one.port.as_deref() == Some(port)
                && one.message.contains(&format!("LoRA of the expert of {own} noise levels"))
                && one.message.ends_with(&format!("beside that of {other} ones"))
        })
    };
    assert!(said("path", "low", "high") && said("low_noise", "high", "low"), "{warnings:?}");
    assert_eq!(warnings.len(), 2, "{warnings:?}");
}

/// Each is an error while planning, which names the tensor and the way out.
#[test]
fn what_does_not_fit_is_refused_in_the_plan() {
    let (rig, files) = (Rig::new("lora-refused"), Files::new("refused"));
    let dit = rig.model_facts("wan_t2v/model").dit;
    let refused = |name: &str, tensors: &[(&str, &[usize])]| {
        let tensors = tensors.iter().map(|(key, shape)| ((*key).to_owned(), numbers(shape, 0.0)));
        let path = files.write(name, &tensors.collect());
        let inputs = [("dit", dit.clone()), ("path", known(&path))];
        rig.objects("lora.apply", &inputs).replace(files.0.to_str().unwrap(), "")
    };
    let (down, up) = ("lora_A.weight", "lora_B.weight");
    let of = |layer: &str, half: &str| format!("{layer}.{half}");
    let q = "transformer.blocks.0.attn1.to_q";
    assert_eq!(
        refused(
            "other.safetensors",
            &[(&of("unet.mid.q", down), &[2, 8]), (&of("unet.mid.q", up), &[8, 2])]
        ),
        "path: /other.safetensors: none of its 1 layers is in this transformer: it was made for \
         another family of models; take one that was made for this family (one of them is \
         `unet.mid.q`; the transformer has such as `blocks.0.attn1.norm_k.weight`)"
    );
    // One of SDXL has layers of its text encoders, too.
    let of_text = "lora_te1_text_model_encoder_layers_0_mlp_fc1";
    let of_unet = "lora_unet_down_blocks_1_attentions_0_proj_in";
    let said = refused(
        "sdxl.safetensors",
        &[
            (&of(of_text, "lora_down.weight"), &[2, 8]),
            (&of(of_text, "lora_up.weight"), &[8, 2]),
            (&of(of_unet, "lora_down.weight"), &[2, 8]),
            (&of(of_unet, "lora_up.weight"), &[8, 2]),
        ],
    );
    assert!(said.contains("none of its 2 layers is in this transformer"), "{said}");
    assert!(said.contains("made for a U-Net, as Stable Diffusion and SDXL have"), "{said}");
    assert!(said.contains(&format!("one of them is `{of_unet}`")), "{said}");
    let said = refused(
        "text.safetensors",
        &[(&of(of_text, "lora_down.weight"), &[2, 8]), (&of(of_text, "lora_up.weight"), &[8, 2])],
    );
    assert!(said.contains("made for a text encoder, which adapters do not change here"), "{said}");
    assert_eq!(
        refused("large.safetensors", &[(&of(q, down), &[2, 128]), (&of(q, up), &[128, 2])]),
        "path: /large.safetensors: `transformer.blocks.0.attn1.to_q.lora_A.weight` is [2, 128] and \
         its other half [128, 2], but `blocks.0.attn1.to_q.weight` is [64, 64]: it was made for another \
         size of the model"
    );
    // One layer of two whose halves do not multiply is no layer of another size.
    let k = "transformer.blocks.0.attn1.to_k";
    assert_eq!(
        refused(
            "damaged.safetensors",
            &[
                (&of(q, down), &[2, 64]),
                (&of(q, up), &[64, 2]),
                (&of(k, down), &[3, 64]),
                (&of(k, up), &[64, 2]),
            ]
        ),
        "path: /damaged.safetensors: `transformer.blocks.0.attn1.to_k.lora_A.weight` is [3, 64] and \
         its other half [64, 2], which do not multiply: download the file again"
    );
    assert_eq!(
        refused("half.safetensors", &[(&of(q, down), &[2, 64])]),
        "path: /half.safetensors: `transformer.blocks.0.attn1.to_q` has no lora_B (or lora_up): \
         download the file again"
    );
    assert_eq!(
        refused("dora.safetensors", &[(&of(q, "dora_scale"), &[64])]),
        "path: /dora.safetensors: DoRA (`transformer.blocks.0.attn1.to_q.dora_scale`) is not \
         supported yet"
    );
    assert_eq!(
        refused("model.safetensors", &[("blocks.0.attn1.to_q.weight", &[64, 64])]),
        "path: /model.safetensors: it holds no LoRA: no name ends in `.lora_A.weight` or \
         `.lora_down.weight` (the first is `blocks.0.attn1.to_q.weight`)"
    );
    let path = files.write(
        "q.safetensors",
        &[(of(q, down), numbers(&[2, 64], 0.0)), (of(q, up), numbers(&[64, 2], 0.0))].into(),
    );
    let inputs = [("dit", dit.clone()), ("path", known(&path)), ("part", known("low"))];
    assert_eq!(
        rig.objects("lora.apply", &inputs),
        "part: this transformer has no expert of low noise levels (it is one for all: leave `part` \
         out)"
    );
    let inputs = [("dit", dit), ("path", known("nowhere.safetensors"))];
    assert!(rig.objects("lora.apply", &inputs).contains("does not exist (a LoRA is a safetensors"));
}

const VALUES: &str = "lora/values.safetensors";

/// The velocity at timestep 1000: one step of Euler from there goes all the way.
fn velocity(rig: &Rig, dit: &Value) -> Tensor {
    let x = rig.golden(VALUES, "x");
    let patches = rig.one("patchify", &[("dit", dit.clone()), ("latents", x.clone())]);
    let inputs = [
        ("dit", dit.clone()),
        ("patches", patches),
        ("text", rig.golden(VALUES, "text")),
        ("steps", int(1)),
        ("guidance", Value::Real(1.0)),
        ("scheduler", text("euler")),
    ];
    let clean = rig.one("unpatchify", &[("patches", rig.one("dit.sample", &inputs))]);
    (x.tensor().unwrap() - clean.tensor().unwrap()).unwrap()
}

fn of_file(name: &str) -> String {
    reference(&format!("lora/{name}.safetensors")).to_str().unwrap().to_owned()
}

/// Files as programs write them, read by diffusers and PEFT (`tests/ref/lora.py`): names, alphas,
/// ranks and alphas of some layers, biases, whole differences.
#[test]
fn files_of_every_naming_give_what_diffusers_gives() {
    let rig = Rig::new("lora-reference");
    let plain = rig.model("wan_t2v/model").dit;
    let expected = |name: &str| rig.golden(VALUES, name).tensor().unwrap();
    let base = expected("base");
    common::close("base", &velocity(&rig, &plain), &base, 2e-5);
    for (name, strengths) in [
        ("peft", ["1.0", "-0.5"]),
        ("peft_bias", ["1.0", "-0.5"]),
        ("peft_patterns", ["1.0", "-0.5"]),
        ("kohya", ["1.0", "0.6"]),
        ("original", ["1.0", "-1.25"]),
        ("lightx2v", ["1.0", "0.75"]),
    ] {
        for strength in strengths {
            let dit = with(&rig, &plain, &of_file(name), strength.parse().unwrap());
            let expected = expected(&format!("{name}_{strength}"));
            common::close(&format!("{name} {strength}"), &velocity(&rig, &dit), &expected, 2e-5);
            assert!(distance(&expected, &base) > 0.1, "it changes something");
        }
        let facts = rig.model_facts("wan_t2v/model").dit;
        let told = rig.infer("lora.apply", &[("dit", facts), ("path", known(&of_file(name)))]);
        assert_eq!(told.unwrap().warnings, [], "all of {name} is used");
    }
    let two = with(&rig, &with(&rig, &plain, &of_file("kohya"), 0.75), &of_file("original"), -0.5);
    common::close("two", &velocity(&rig, &two), &expected("kohya_original"), 2e-5);
}

/// The two files of four steps of Wan 2.2 A14B, as diffusers loads them.
#[test]
fn one_file_an_expert_gives_what_diffusers_gives() {
    let rig = Rig::new("lora-pair");
    let model = rig.model("wan22_a14b/model");
    let high = with(&rig, &model.dit, &of_file("high_noise"), 1.0);
    let both = with(&rig, &high, &of_file("low_noise"), 1.0);
    let prompts = [
        ("encoder", model.text),
        ("prompt", text("A red fox runs through deep snow at dawn.")),
        ("negative", text("blurred details")),
    ];
    let prompts = rig.one("text.encode", &prompts);
    let sampled = |dit: &Value| {
        let noise = rig.golden(VALUES, "pair_noise");
        let patches = rig.one("patchify", &[("dit", dit.clone()), ("latents", noise)]);
        let inputs = [
            ("dit", dit.clone()),
            ("patches", patches),
            ("text", prompts.clone()),
            ("steps", int(4)),
            ("guidance", Value::Real(3.0)),
        ];
        rig.one("unpatchify", &[("patches", rig.one("dit.sample", &inputs))]).tensor().unwrap()
    };
    let expected = rig.golden(VALUES, "pair").tensor().unwrap().squeeze(0).unwrap();
    common::close("pair", &sampled(&both), &expected, 1e-4);
    // The file's name says which expert it is for; the input may say otherwise.
    assert!(distance(&sampled(&high), &expected) > 1e-2);
    let told = |part: &str| {
        let inputs = [("dit", high.clone()), ("path", text(&of_file("low_noise")))];
        let part = [("part", text(part))];
        sampled(&rig.one("lora.apply", &[&inputs[..], &part[..]].concat()))
    };
    assert_eq!(distance(&told("low"), &sampled(&both)), 0.0);
    assert!(distance(&told("high"), &expected) > 1e-2);
}

/// Weights of eight bits stay as they are, with scales or without, and adapters count as beside the
/// numbers that they stand for. A strength of 0 gives the bytes of the weights alone.
#[test]
fn adapters_stand_beside_weights_of_eight_bits() {
    let rig = Rig::new("lora-fp8");
    let (mut stored, mut wide) = (Tensors::new(), Tensors::new());
    let by = 0.004;
    for (name, weight) in weights("wan_t2v/model", "transformer") {
        if weight.rank() != 2 {
            stored.insert(name.clone(), weight.clone());
            wide.insert(name, weight);
            continue;
        }
        let narrow = (weight.to_dtype(DType::F32).unwrap() / by).unwrap();
        let narrow = narrow.to_dtype(DType::F8E4M3).unwrap();
        wide.insert(name.clone(), (narrow.to_dtype(DType::F32).unwrap() * by).unwrap());
        let layer = name.strip_suffix("weight").unwrap();
        let scale = Tensor::new(by as f32, &Device::Cpu).unwrap();
        stored.insert(format!("{layer}scale_weight"), scale);
        stored.insert(name, narrow);
    }
    let model = |name: &str, tensors: &Tensors| {
        let copied = Copied::of(&reference("wan_t2v/model"), name);
        let file = copied.0.join("transformer/diffusion_pytorch_model.safetensors");
        candle_core::safetensors::save(tensors, file).unwrap();
        (rig.model(copied.path()).dit, copied)
    };
    let ((narrow, _kept), (wide, _kept_too)) = (model("fp8", &stored), model("of-fp8", &wide));
    let bytes = |dit: &Value| dit_of(dit).weight_bytes();
    assert!(2 * bytes(&narrow) < bytes(&wide), "they stay narrow");
    let before = velocity(&rig, &narrow);
    let two = |dit: &Value| {
        with(&rig, &with(&rig, dit, &of_file("kohya"), 0.75), &of_file("original"), -0.5)
    };
    let stacks: [&dyn Fn(&Value) -> Value; 4] = [
        &|dit| with(&rig, dit, &of_file("peft_bias"), 1.0),
        &|dit| with(&rig, dit, &of_file("kohya"), -2.0),
        &|dit| with(&rig, dit, &of_file("lightx2v"), 0.75),
        &two,
    ];
    for (index, stack) in stacks.iter().enumerate() {
        let (found, expected) = (velocity(&rig, &stack(&narrow)), velocity(&rig, &stack(&wide)));
        common::close(&format!("stack {index}"), &found, &expected, 2e-5);
        assert!(distance(&found, &before) > 0.1, "{index} changes something");
    }
    for name in ["peft_bias", "kohya", "lightx2v"] {
        let none = with(&rig, &narrow, &of_file(name), 0.0);
        let bits = |t: &Tensor| -> Vec<u32> {
            let flat: Vec<f32> = t.flatten_all().unwrap().to_vec1().unwrap();
            flat.iter().map(|value| value.to_bits()).collect()
        };
        assert_eq!(bits(&velocity(&rig, &none)), bits(&before), "{name}, not at all");
        assert_eq!(bytes(&none), bytes(&narrow), "nor is it planned");
    }
    assert_eq!(distance(&velocity(&rig, &narrow), &before), 0.0, "and none was merged");
}

/// Weights of eight bits of every form that stays narrow in memory: what adapters add is what they
/// add beside the numbers that these stand for, and without them the bytes are those of the weights
/// alone.
#[test]
fn adapters_stand_beside_every_form_of_eight_bits() {
    let rig = Rig::new("lora-eight");
    let own = weights("wan_t2v/model", "transformer");
    let model = |name: &str, file: &File| {
        let copied = Copied::of(&reference("wan_t2v/model"), name);
        let own = copied.0.join("transformer/diffusion_pytorch_model.safetensors");
        std::fs::copy(&file.0, own).unwrap();
        (rig.model(copied.path()).dit, copied)
    };
    let bits = |tensor: &Tensor| -> Vec<u32> {
        let flat: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        flat.iter().map(|value| value.to_bits()).collect()
    };
    let bytes = |dit: &Value| dit_of(dit).weight_bytes();
    for form in [EightBits::Int8Rotated, EightBits::Int8, EightBits::E4m3Rows, EightBits::E4m3] {
        let (stored, exact) = in_eight_bits(&own, form, |_| true);
        let file = File::new("lora-eight.safetensors");
        write(&file, &stored);
        let (narrow, _kept) = model("eight", &file);
        let (wide, _kept_too) = model("wide", &File::of("lora-wide.safetensors", &exact));
        assert!(2 * bytes(&narrow) < bytes(&wide), "{form:?}: they stay narrow");
        let before = velocity(&rig, &narrow);
        common::close(&format!("{form:?}"), &before, &velocity(&rig, &wide), 2e-5);
        for (name, strength) in [("peft_bias", 1.0), ("kohya", -2.0), ("lightx2v", 0.75)] {
            let path = of_file(name);
            let [found, expected] =
                [&narrow, &wide].map(|dit| velocity(&rig, &with(&rig, dit, &path, strength)));
            common::close(&format!("{form:?}, {name}"), &found, &expected, 2e-5);
            assert!(distance(&found, &before) > 0.1, "{form:?}, {name} changes something");
            let none = with(&rig, &narrow, &path, 0.0);
            assert_eq!(bits(&velocity(&rig, &none)), bits(&before), "{form:?}, {name}, not at all");
            assert_eq!(bytes(&none), bytes(&narrow), "nor is it planned");
        }
        assert_eq!(bits(&velocity(&rig, &narrow)), bits(&before), "{form:?}: none was merged");
    }
}

/// Layers that the transformer has not, and tensors of no known kind, are named; the rest counts.
#[test]
fn what_a_file_holds_beside_is_told_in_the_plan() {
    let (rig, files) = (Rig::new("lora-told"), Files::new("told"));
    let dit = rig.model_facts("wan_t2v/model").dit;
    let told = |dit: &kino_port::Fact, name: &str, tensors: &[(&str, &[usize])]| {
        let tensors = tensors.iter().map(|(key, shape)| ((*key).to_owned(), numbers(shape, 0.0)));
        let path = files.write(name, &tensors.collect());
        let info = rig.infer("lora.apply", &[("dit", dit.clone()), ("path", known(&path))]);
        let warnings = info.unwrap_or_else(|e| panic!("{e:?}")).warnings;
        let line = |warning: &kino_port::PlanError| {
            let port = warning.port.as_deref().unwrap_or("-");
            format!("{port}: {}", warning.message)
        };
        warnings.iter().map(line).collect::<Vec<_>>()
    };
    let own = "diffusion_model.blocks.0.self_attn.q";
    let (down, up) = (format!("{own}.lora_down.weight"), format!("{own}.lora_up.weight"));
    let fitting: [(&str, &[usize]); 2] = [(&down, &[2, 64]), (&up, &[64, 2])];
    assert_eq!(told(&dit, "all.safetensors", &fitting), [""; 0]);
    let others: Vec<String> = (0..5)
        .map(|block| format!("diffusion_model.blocks.{block}.cross_attn.k_img.diff_b"))
        .collect();
    let with_others = |count: usize| {
        let others = others[..count].iter().map(|name| (name.as_str(), &[64][..]));
        fitting.iter().copied().chain(others).collect::<Vec<_>>()
    };
    let image = "diffusion_model.blocks";
    assert_eq!(
        told(&dit, "one.safetensors", &with_others(1)),
        [format!(
            "path: of its 2 layers the transformer has not `{image}.0.cross_attn.k_img`, which changes \
             nothing"
        )]
    );
    assert_eq!(
        told(&dit, "five.safetensors", &with_others(5)),
        [format!(
            "path: of its 6 layers the transformer has not 5, which change nothing: \
             `{image}.0.cross_attn.k_img`, `{image}.1.cross_attn.k_img`, `{image}.2.cross_attn.k_img` \
             and 2 more"
        )]
    );
    let odd: [(&str, &[usize]); 1] = [("diffusion_model.blocks.0.gate", &[4])];
    assert_eq!(
        told(&dit, "odd.safetensors", &[&fitting[..], &odd[..]].concat()),
        [
            "path: its tensor `diffusion_model.blocks.0.gate` is of no kind that is known, and changes \
          nothing"
        ]
    );
    // Two experts lack the same, which is told once.
    let pair = rig.model_facts("wan22_a14b/model").dit;
    let own: [(&str, &[usize]); 2] = [(&down, &[2, 24]), (&up, &[24, 2])];
    let both = told(&pair, "pair.safetensors", &[&own[..], &with_others(1)[2..]].concat());
    assert_eq!(both.len(), 1, "{both:?}");
    assert!(both[0].contains("of its 2 layers the transformer has not"), "{both:?}");
}

/// Adapters with a name of their own, and alphas in whatever type their file has them.
#[test]
fn names_of_adapters_and_types_of_alpha_change_nothing() {
    let (rig, files) = (Rig::new("lora-named"), Files::new("named"));
    let dit = rig.model("wan_t2v/model").dit;
    let own = "transformer.blocks.0.attn1.to_q";
    let of = |name: &str, adapter: &str, alpha: Option<Tensor>| {
        let mut tensors: Tensors = [
            (format!("{own}.lora_A{adapter}.weight"), numbers(&[2, 64], 0.0)),
            (format!("{own}.lora_B{adapter}.weight"), numbers(&[64, 2], 1.0)),
        ]
        .into();
        tensors.extend(alpha.map(|alpha| (format!("{own}.alpha"), alpha)));
        sample(&rig, &with(&rig, &dit, &files.write(name, &tensors), 1.0))
    };
    let plain = of("plain.safetensors", "", None);
    for adapter in [".default", ".default_0", ".default.default_0", ".my-style"] {
        assert_eq!(distance(&of("named.safetensors", adapter, None), &plain), 0.0, "{adapter}");
    }
    let four = |dtype| Tensor::new(4f32, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
    let strong = of("strong.safetensors", "", Some(four(DType::F32)));
    assert!(distance(&strong, &plain) > 1e-4);
    for dtype in [DType::F16, DType::BF16, DType::F64, DType::I64, DType::U8, DType::I32] {
        let found = of("typed.safetensors", "", Some(four(dtype)));
        assert_eq!(distance(&found, &strong), 0.0, "{dtype:?}");
    }
    let listed = Some(Tensor::new(&[4f32], &Device::Cpu).unwrap());
    assert_eq!(distance(&of("listed.safetensors", "", listed), &strong), 0.0);
}

/// Files that hold more than one adapter for a layer: which of them is meant, nobody knows.
#[test]
fn two_adapters_of_one_layer_are_refused() {
    let (rig, files) = (Rig::new("lora-twice"), Files::new("twice"));
    let dit = rig.model_facts("wan_t2v/model").dit;
    let told = |name: &str, layers: [&str; 2]| {
        let halves = layers.iter().flat_map(|layer| {
            let (down, up) = (layer.replace("HALF", "lora_A"), layer.replace("HALF", "lora_B"));
            [(down, numbers(&[2, 64], 0.0)), (up, numbers(&[64, 2], 1.0))]
        });
        let path = files.write(name, &halves.collect());
        rig.objects("lora.apply", &[("dit", dit.clone()), ("path", known(&path))])
    };
    let own = "transformer.blocks.0.attn1.to_q";
    let (one, other) = (format!("{own}.HALF.one.weight"), format!("{own}.HALF.two.weight"));
    let said = told("names.safetensors", [&one, &other]);
    assert!(said.contains("are the same of one layer: it holds several adapters"), "{said}");
    let other = "diffusion_model.blocks.0.self_attn.q.HALF.weight";
    let said = told("layers.safetensors", [&one.replace(".one", ""), other]);
    assert!(
        said.contains("another of its layers both change `blocks.0.attn1.to_q.weight`"),
        "{said}"
    );
}

/// A LoRA of a model with other inputs fits but for the layer that reads them, as ComfyUI takes it,
/// too; one of another size fits nowhere.
#[test]
fn a_lora_of_a_model_with_other_inputs_changes_what_it_fits() {
    let (rig, files) = (Rig::new("lora-inputs"), Files::new("inputs"));
    let pair = |layer: &str, down: &[usize], up: &[usize]| {
        let name = |half: &str| format!("diffusion_model.{layer}.{half}.weight");
        [(name("lora_down"), numbers(down, 0.0)), (name("lora_up"), numbers(up, 1.0))]
    };
    let fitting = pair("blocks.0.self_attn.q", &[2, 64], &[64, 2]);
    let patch = pair("patch_embedding", &[2, 36, 1, 2, 2], &[64, 2, 1, 1, 1]);
    let both = files.write("i2v.safetensors", &fitting.iter().chain(&patch).cloned().collect());
    let own = files.write("own.safetensors", &fitting.into());
    let dit = rig.model_facts("wan_t2v/model").dit;
    let info = rig.infer("lora.apply", &[("dit", dit.clone()), ("path", known(&both))]).unwrap();
    let told: Vec<&str> = info.warnings.iter().map(|warning| &*warning.message).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("one of its layers changes nothing: `diffusion_model.patch"));
    let plain = rig.model("wan_t2v/model").dit;
    let of = |path: &str| sample(&rig, &with(&rig, &plain, path, 1.0));
    assert_eq!(distance(&of(&both), &of(&own)), 0.0);
    let large = pair("blocks.0.self_attn.q", &[2, 128], &[128, 2]);
    let large = files.write("large.safetensors", &large.into_iter().chain(patch).collect());
    let told = rig.objects("lora.apply", &[("dit", dit), ("path", known(&large))]);
    assert!(told.contains("it was made for another size of the model"), "{told}");
}

/// The LoRA of one expert beside the other.
#[test]
fn a_lora_beside_the_other_expert_is_told() {
    let (rig, files) = (Rig::new("lora-expert"), Files::new("expert"));
    let own = "diffusion_model.blocks.0.self_attn.q";
    let lora: Tensors = [
        (format!("{own}.lora_down.weight"), numbers(&[2, 24], 0.0)),
        (format!("{own}.lora_up.weight"), numbers(&[24, 2], 1.0)),
    ]
    .into();
    let path = files.write("style_low_noise.safetensors", &lora);
    let pair = rig.model_facts("wan22_a14b/model").dit;
    let told = |part: &str| {
        let given = [("dit", pair.clone()), ("path", known(&path)), ("part", known(part))];
        let warnings = rig.infer("lora.apply", &given).unwrap().warnings;
        warnings.into_iter().map(|warning| warning.message).collect::<Vec<_>>()
    };
    assert_eq!((told("auto"), told("low")), (Vec::new(), Vec::new()));
    let expected = "it is called a LoRA of the expert of low noise levels, and stands beside that of \
                    high ones";
    assert_eq!(told("high"), [expected]);
}

#[test]
fn an_alpha_that_is_no_number_is_an_error_that_names_it() {
    let (rig, files) = (Rig::new("lora-nan"), Files::new("nan"));
    let own = "blocks.0.attn1.to_q";
    let path = files.write(
        "nan.safetensors",
        &[
            (format!("{own}.lora_A.weight"), numbers(&[2, 64], 0.0)),
            (format!("{own}.lora_B.weight"), numbers(&[64, 2], 0.0)),
            (format!("{own}.alpha"), Tensor::new(f32::NAN, &Device::Cpu).unwrap()),
        ]
        .into(),
    );
    let dit = with(&rig, &rig.model("wan_t2v/model").dit, &path, 1.0);
    let noise = ("latents", Value::Tensor(numbers(&[16, 1, 4, 4], 3.0)));
    let patches = rig.one("patchify", &[("dit", dit.clone()), noise]);
    let text = ("text", Value::Tensor(Tensor::ones((8, 40), DType::F32, &Device::Cpu).unwrap()));
    let told = rig.fails("dit.sample", &[("dit", dit), ("patches", patches), text]);
    assert!(told.contains("`blocks.0.attn1.to_q.alpha` is NaN, not a number"), "{told}");
}
