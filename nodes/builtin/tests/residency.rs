//! Models in memory and on disk: shared by content, let go under pressure, and never another than
//! the one that was planned with.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use common::{Copied, Rig, copy, handle, int, known, number, reference, text};
use kino_node::{Ledger, Services, Value};
use kino_nodes::{DitHandle, Models, TextHandle, VaeHandle};
use kino_port::Fact;
use kino_world::Folders;

/// Flips a byte of the weights in place, at the end of the data, and keeps the time.
fn flip_last_byte(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 0x40;
    std::fs::write(path, bytes).unwrap();
}

fn noise(rig: &Rig, vae: &Value) -> Value {
    let inputs = [
        ("vae", vae.clone()),
        ("width", int(32)),
        ("height", int(32)),
        ("frames", int(1)),
        ("seed", int(1)),
    ];
    rig.one("latent.noise", &inputs)
}

#[test]
fn a_copy_of_a_vae_has_the_same_space_and_another_vae_of_the_same_sizes_has_not() {
    let rig = Rig::new("spaces");
    let shapes = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../shapes/model"));
    let (same, other) = (Copied::of(shapes, "same"), Copied::of(shapes, "other"));
    flip_last_byte(&other.vae());
    let embedded = rig.model("embedded:shapes");
    let (same, other) = (rig.model(same.path()), rig.model(other.path()));
    let latent = noise(&rig, &embedded.vae);
    let decode = |vae: &Value| vec![("vae", vae.clone()), ("latent", latent.clone())];
    rig.run("vae.decode", &decode(&embedded.vae));
    rig.run("vae.decode", &decode(&same.vae));
    let refused = rig.fails("vae.decode", &decode(&other.vae));
    assert!(refused.contains("in the space of another VAE, of the same sizes"), "{refused}");
    // A tensor lies in no space: it is taken by its shape.
    let tensor = Value::Tensor(latent.tensor().unwrap());
    rig.run("vae.decode", &[("vae", other.vae), ("latent", tensor)]);
}

#[test]
fn a_config_that_changes_what_latents_mean_is_another_space() {
    let rig = Rig::new("space-config");
    let (a, b) = (Copied::new("config-a"), Copied::new("config-b"));
    let config = b.0.join("vae/config.json");
    let read = std::fs::read_to_string(&config).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&read).unwrap();
    let space = |copied: &Copied| handle::<VaeHandle>(&rig.model(copied.path()).vae).space();
    json["_diffusers_version"] = "9.9".into();
    std::fs::write(&config, json.to_string()).unwrap();
    assert_eq!(space(&a), space(&b), "who wrote a config does not count");
    json["latents_std"][3] = 7.5.into();
    std::fs::write(&config, json.to_string()).unwrap();
    assert_ne!(space(&a).id, space(&b).id);
}

#[test]
fn folders_of_one_relative_name_do_not_exchange_each_other() {
    let both = Copied(std::env::temp_dir().join(format!("kino-both-{}", std::process::id())));
    copy(&reference("wan_t2v/model"), &both.0.join("a/model"));
    copy(&reference("wan_t2v/model"), &both.0.join("b/model"));
    flip_last_byte(&both.0.join("b/model/text_encoder/model.safetensors"));
    let ledger = Ledger::new(u64::MAX);
    let process = Arc::new(kino_nodes::services(Device::Cpu, ledger));
    let models = process.get::<Models>().unwrap();
    let rig_in = |folder: &str| {
        let mut rig = Rig::new(&format!("relative-{folder}"));
        let folders = Folders { graph: both.0.join(folder), out: rig.out.clone() };
        rig.services = process.layer().with(Arc::new(folders));
        rig
    };
    let (a, b) = (rig_in("a"), rig_in("b"));
    let encoder = |rig: &Rig| handle::<TextHandle>(&rig.model("model").text);
    let first = models.text_encoder(&encoder(&a)).unwrap();
    let second = models.text_encoder(&encoder(&b)).unwrap();
    assert!(!Arc::ptr_eq(&first, &second), "other weights");
    assert!(Arc::ptr_eq(&first, &models.text_encoder(&encoder(&a)).unwrap()), "still there");
    assert!(Arc::ptr_eq(&second, &models.text_encoder(&encoder(&b)).unwrap()));
    // What the two models share is loaded once.
    let dit = |rig: &Rig| handle::<DitHandle>(&rig.model("model").dit);
    let (of_a, of_b) = (models.dit(&dit(&a)).unwrap(), models.dit(&dit(&b)).unwrap());
    assert!(of_a.shares_weights(&of_b), "by content, not by name");
}

/// Of two experts one computes at a time: a budget that holds no two is enough, and the numbers are
/// those of a larger one.
#[test]
fn the_expert_that_does_not_compute_leaves_under_pressure() {
    let mut rig = Rig::new("experts");
    let services = |budget| {
        let folders = Folders { graph: reference(""), out: PathBuf::new() };
        let services: Services = kino_nodes::services(Device::Cpu, Ledger::new(budget));
        services.with(Arc::new(folders))
    };
    let sample = |rig: &Rig| {
        let model = rig.model("wan22_a14b/model");
        let noise = Tensor::arange(0f32, 16.0 * 4.0 * 4.0, &Device::Cpu).unwrap();
        let noise = (noise.reshape((16, 1, 4, 4)).unwrap().sin().unwrap() * 1.4).unwrap();
        let latents = ("latents", Value::Tensor(noise));
        let patches = rig.one("patchify", &[("dit", model.dit.clone()), latents]);
        let text = Tensor::ones((8, 40), candle_core::DType::F32, &Device::Cpu).unwrap();
        let inputs = [
            ("dit", model.dit.clone()),
            ("patches", patches),
            ("text", Value::Tensor(text)),
            ("steps", int(6)),
        ];
        let sampled = rig.one("dit.sample", &inputs).tensor().unwrap();
        (sampled, handle::<DitHandle>(&model.dit))
    };
    rig.services = services(u64::MAX);
    let (expected, dit) = sample(&rig);
    let both = rig.services.ledger.used();
    let one = dit.weight_bytes();
    assert_eq!(both, one + dit.low_noise.as_ref().unwrap().part.weight_bytes());
    rig.services = services(both - 1);
    let (found, _) = sample(&rig);
    assert!(rig.services.ledger.used() < both, "one has left");
    assert_eq!(common::distance(&found, &expected), 0.0);
    // The plan counts the larger of the two.
    let planned = rig.model_facts("wan22_a14b/model");
    let Fact::Typed(planned) = planned.dit else { panic!("a transformer") };
    let planned: Arc<DitHandle> = planned.downcast().unwrap();
    assert_eq!(planned.weight_bytes(), one);
}

/// The encoder leaves after encoding, and so on: a budget that holds no two parts is enough.
#[test]
fn parts_that_are_not_used_leave_under_pressure() {
    let mut rig = Rig::new("pressure");
    let services = |budget| {
        let folders = Folders { graph: reference(""), out: PathBuf::new() };
        let ledger = Ledger::new(budget);
        let services: Services = kino_nodes::services(Device::Cpu, ledger);
        services.with(Arc::new(folders))
    };
    rig.services = services(u64::MAX);
    let model = rig.model("embedded:shapes");
    let sizes = [
        handle::<TextHandle>(&model.text).weight_bytes(),
        handle::<DitHandle>(&model.dit).weight_bytes(),
    ];
    rig.services = services(sizes[0] + sizes[1] - 1);
    let ledger = Arc::clone(&rig.services.ledger);
    let models = rig.services.get::<Models>().unwrap();
    let model = rig.model("embedded:shapes");
    let encoder = models.text_encoder(&handle::<TextHandle>(&model.text)).unwrap();
    assert_eq!(ledger.used(), sizes[0]);
    let refused = models.dit(&handle::<DitHandle>(&model.dit)).err().unwrap().to_string();
    assert!(refused.contains("the transformer takes"), "in use, the encoder stays: {refused}");
    drop(encoder);
    models.dit(&handle::<DitHandle>(&model.dit)).unwrap();
    assert_eq!(ledger.used(), sizes[1], "the encoder left");
    models.text_encoder(&handle::<TextHandle>(&model.text)).unwrap();
    assert_eq!(ledger.used(), sizes[0], "and came again");
    assert!(ledger.peak() <= ledger.budget());
}

/// What a plan says of weights is what the ledger finds resident, so that they count once.
#[test]
fn planned_weights_are_those_that_are_resident() {
    let rig = Rig::new("planned-weights");
    let (facts, model) = (rig.model_facts("embedded:shapes"), rig.model("embedded:shapes"));
    let latent = noise(&rig, &model.vae);
    let known_latent = {
        let inputs = [
            ("vae", facts.vae.clone()),
            ("width", number(32)),
            ("height", number(32)),
            ("frames", number(1)),
            ("seed", number(1)),
        ];
        rig.fact("latent.noise", &inputs, 0)
    };
    let info = rig.infer("vae.decode", &[("vae", facts.vae), ("latent", known_latent)]).unwrap();
    let [weights] = info.weights.as_slice() else { panic!("{:?}", info.weights) };
    rig.run("vae.decode", &[("vae", model.vae), ("latent", latent)]);
    let ledger = &rig.services.ledger;
    assert_eq!(ledger.used(), weights.bytes, "the decoder alone is resident");
    let more = 1000;
    let admission = ledger.admit(weights.bytes + more, &[weights.id], &|| Ok(())).unwrap();
    assert_eq!(ledger.used(), weights.bytes + more, "and is not asked for again");
    drop(admission);
}

#[test]
fn weights_of_a_model_that_was_exchanged_leave() {
    let rig = Rig::new("exchanged");
    let copied = Copied::new("exchanged");
    let models = rig.services.get::<Models>().unwrap();
    let vae = handle::<VaeHandle>(&rig.model(copied.path()).vae);
    models.decoder(&vae).unwrap();
    let used = rig.services.ledger.used();
    assert!(used > 0);
    flip_last_byte(&copied.vae());
    rig.model(copied.path());
    assert_eq!(rig.services.ledger.used(), 0);
}

#[test]
fn weights_that_change_in_place_after_the_plan_are_an_error() {
    let rig = Rig::new("in-place");
    let copied = Copied::new("in-place");
    let model = rig.model(copied.path());
    let latent = noise(&rig, &model.vae);
    flip_last_byte(&copied.vae());
    let refused =
        rig.fails("vae.decode", &[("vae", model.vae.clone()), ("latent", latent.clone())]);
    assert!(refused.contains("changed while it ran"), "{refused}");
    // A file that is cut is an error, too, and no signal.
    let file = std::fs::OpenOptions::new().write(true).open(copied.vae()).unwrap();
    file.set_len(1000).unwrap();
    let refused = rig.fails("vae.decode", &[("vae", model.vae), ("latent", latent)]);
    assert!(refused.contains("changed while it ran"), "{refused}");
}

#[test]
fn weights_that_are_replaced_after_the_plan_are_those_of_the_plan() {
    let rig = Rig::new("renamed");
    let copied = Copied::new("renamed");
    let model = rig.model(copied.path());
    let latent = noise(&rig, &model.vae);
    let new = copied.0.join("vae/new");
    std::fs::copy(copied.vae(), &new).unwrap();
    flip_last_byte(&new);
    std::fs::rename(new, copied.vae()).unwrap();
    let decode = [("vae", model.vae), ("latent", latent.clone())];
    let planned = rig.one("vae.decode", &decode).tensor().unwrap();
    let whole = Rig::new("renamed-whole");
    let model = whole.model("wan_t2v/model");
    let latent = Value::Tensor(latent.tensor().unwrap());
    let expected = whole.one("vae.decode", &[("vae", model.vae), ("latent", latent)]);
    common::close("frames", &planned, &expected.tensor().unwrap(), 0.0);
}

/// Two files of one length and one time of change, behind a link that is turned.
#[cfg(unix)]
#[test]
fn a_link_that_is_turned_to_other_weights_is_another_key() {
    let rig = Rig::new("link");
    let copied = Copied::new("link");
    let key = || {
        let inputs = [("source", known(copied.path()))];
        rig.infer("model.load", &inputs).unwrap().key
    };
    let (one, two) = (copied.0.join("one"), copied.0.join("two"));
    std::fs::rename(copied.vae(), &one).unwrap();
    std::fs::copy(&one, &two).unwrap();
    flip_last_byte(&two);
    let time = std::fs::metadata(&one).unwrap().modified().unwrap();
    let file = std::fs::OpenOptions::new().append(true).open(&two).unwrap();
    file.set_modified(time).unwrap();
    std::os::unix::fs::symlink(&one, copied.vae()).unwrap();
    let first = key();
    assert_eq!(first, key());
    std::fs::remove_file(copied.vae()).unwrap();
    std::os::unix::fs::symlink(&two, copied.vae()).unwrap();
    assert_ne!(first, key());
}

/// Numbers that configs must not be trusted with.
const HOSTILE: [&str; 14] = [
    "0",
    "1",
    "3",
    "65",
    "-1",
    "1e308",
    "1e-308",
    "2305843009213693952",
    "18446744073709551615",
    "1048576",
    "9223372036854775807",
    "[]",
    "null",
    "\"x\"",
];

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        // xorshift64*: Vigna, arXiv:1402.6246.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit
    }
}

/// All places of a JSON value that hold no object.
fn places(value: &serde_json::Value, path: &str, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| places(value, &format!("{path}/{key}"), found));
        }
        serde_json::Value::Array(items) => {
            found.push(path.to_owned());
            let each = items.iter().enumerate();
            each.for_each(|(index, value)| places(value, &format!("{path}/{index}"), found));
        }
        _ => found.push(path.to_owned()),
    }
}

/// Configs with hostile numbers are refused or understood; no inference panics on them.
#[test]
fn no_config_makes_a_plan_panic() {
    let seed = 0x0c0f_f1c5;
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    let rig = Rig::new("hostile");
    let copied = Copied::new("hostile");
    let configs = [
        "transformer/config.json",
        "vae/config.json",
        "text_encoder/config.json",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer_config.json",
    ];
    let (mut read, mut refused) = (0, 0);
    for _ in 0..600 {
        let path = copied.0.join(configs[random.below(configs.len())]);
        let good = std::fs::read_to_string(&path).unwrap();
        let mut json: serde_json::Value = serde_json::from_str(&good).unwrap();
        for _ in 0..=random.below(3) {
            let mut found = Vec::new();
            places(&json, "", &mut found);
            let place = found[random.below(found.len())].clone();
            let value = HOSTILE[random.below(HOSTILE.len())];
            if let Some(place) = json.pointer_mut(&place) {
                match place.as_array_mut().filter(|_| random.below(2) == 0) {
                    Some(items) => {
                        let one = items.first().cloned().unwrap_or_default();
                        items.resize([0, 1, 2, 65][random.below(4)], one);
                    }
                    None => *place = serde_json::from_str(value).unwrap(),
                }
            }
        }
        std::fs::write(&path, json.to_string()).unwrap();
        match plan(&rig, copied.path()) {
            true => read += 1,
            false => refused += 1,
        }
        std::fs::write(&path, good).unwrap();
    }
    println!("{read} read, {refused} refused");
    assert!(read > 20 && refused > 20, "{read} read, {refused} refused");
}

/// Every inference that depends on a model; whether the model was read.
fn plan(rig: &Rig, source: &str) -> bool {
    let Ok(load) = rig.infer("model.load", &[("source", known(source))]) else { return false };
    let [encoder, _, dit, vae] = load.outputs.try_into().unwrap();
    let _ = rig.infer("text.encode", &[("encoder", encoder), ("prompt", known("x"))]);
    let first = |op: &str, inputs: &[(&str, Fact)]| {
        rig.infer(op, inputs).ok().and_then(|info| info.outputs.first().cloned())
    };
    for (side, frames) in [(32, 1), (16_384, 1_048_573), (7, 2)] {
        let noise = [
            ("vae", vae.clone()),
            ("width", number(side)),
            ("height", number(side)),
            ("frames", number(frames)),
            ("seed", number(1)),
        ];
        let Some(noise) = first("latent.noise", &noise) else { continue };
        let decode = [("vae", vae.clone()), ("latent", noise.clone())];
        if let Some(frames) = first("vae.decode", &decode) {
            let _ = first("vae.encode", &[("vae", vae.clone()), ("frames", frames)]);
        }
        let patches = [("dit", dit.clone()), ("latents", noise)];
        let Some(patches) = first("patchify", &patches) else { continue };
        let _ = first("dit.sample", &[("dit", dit.clone()), ("patches", patches)]);
    }
    true
}

#[test]
fn a_text_is_encoded_by_the_model_of_the_plan() {
    let rig = Rig::new("planned");
    let copied = Copied::new("planned");
    let model = rig.model(copied.path());
    flip_last_byte(&copied.0.join("text_encoder/model.safetensors"));
    let encode = [("encoder", model.text), ("prompt", text("x"))];
    let refused = rig.fails("text.encode", &encode);
    assert!(refused.contains("changed while it ran"), "{refused}");
}

/// The seam for a device with memory of its own, here one that is none.
#[test]
fn weights_on_a_device_are_not_counted_as_main_memory() {
    let (main, of_device) = (Ledger::new(1 << 20), Ledger::new(u64::MAX));
    let mut rig = Rig::new("device");
    let folders = Folders { graph: reference(""), out: PathBuf::new() };
    let services = kino_nodes::services_of_device(Device::Cpu, main.clone(), of_device.clone());
    rig.services = services.with(Arc::new(folders));
    let models = rig.services.get::<Models>().unwrap();
    let dit = handle::<DitHandle>(&rig.model("embedded:shapes").dit);
    let loaded = models.dit(&dit).unwrap();
    assert_eq!((main.used(), of_device.used()), (0, dit.weight_bytes()));
    assert_eq!((main.reclaimable(), of_device.reclaimable()), (0, 0), "in use");
    drop(loaded);
    assert_eq!(of_device.reclaimable(), dit.weight_bytes());
}
