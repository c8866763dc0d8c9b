//! Configs: what they say is read, what this version cannot run is refused by name.

mod common;

use common::{model, reference};
use kino_models::checkpoint::ModelFiles;
use kino_models::families::wan::{ModelConfig, PROMPTS};
use kino_models::sampling::{ScheduleKind, SchedulerConfig, SolverType};
use kino_models::text::TokenizerConfig;
use kino_models::{ModelFolder, Result};
use serde_json::{Value, json};

/// A copy of the configs of the tiny text-to-video model with one of them edited.
fn edited(path: &str, edit: impl FnOnce(&mut Value)) -> (tempfile::TempDir, ModelFolder) {
    edited_of("wan_t2v/model", path, edit)
}

/// A copy of the configs of a model with one of them edited.
fn edited_of(
    model: &str,
    path: &str,
    edit: impl FnOnce(&mut Value),
) -> (tempfile::TempDir, ModelFolder) {
    let place = tempfile::tempdir().unwrap();
    let configs = [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "tokenizer/tokenizer_config.json",
        "transformer/config.json",
        "vae/config.json",
    ];
    for config in configs {
        let target = place.path().join(config);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(reference(model).join(config), target).unwrap();
    }
    let file = place.path().join(path);
    let mut value: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    edit(&mut value);
    std::fs::write(&file, value.to_string()).unwrap();
    let folder = ModelFolder::directory(place.path()).unwrap();
    (place, folder)
}

/// Sets one key of one config and expects that reading all of them fails with these words.
#[track_caller]
fn refused(path: &str, key: &str, value: Value, says: &[&str]) {
    let (_place, folder) = edited(path, |config| match value {
        Value::Null => drop(config.as_object_mut().unwrap().remove(key)),
        value => config[key] = value,
    });
    let message = ModelConfig::read(&folder).unwrap_err().to_string();
    assert!(message.contains(path), "the file is named: {message}");
    for word in says {
        assert!(message.contains(word), "`{word}` stands in: {message}");
    }
}

#[test]
fn blocks_beside_the_main_ones_are_said_by_the_config() {
    let vace = ModelConfig::read(&model("wan_vace/model")).unwrap();
    let control = vace.transformer.unwrap().control().unwrap();
    assert_eq!((control.layers, control.channels), (vec![0, 2], 96));
    let file = "transformer/config.json";
    let read = |key: &str, value: Value| {
        let (_place, folder) = edited_of("wan_vace/model", file, |config| config[key] = value);
        ModelConfig::read(&folder).map(|config| config.transformer.unwrap().control().unwrap())
    };
    // Their order in the file means nothing.
    assert_eq!(read("vace_layers", json!([2, 0, 1])).unwrap().layers, [0, 1, 2]);
    for (key, value, says) in [
        ("vace_layers", json!([1, 2]), "begins with 0 and names each layer once"),
        ("vace_layers", json!([]), "begins with 0 and names each layer once"),
        ("vace_layers", json!([0, 2, 2]), "begins with 0 and names each layer once"),
        ("vace_layers", json!([0, 3]), "names the layer 3; there are 3 from 0 on"),
        ("vace_layers", json!([0, -1]), "`vace_layers` is [0,-1]; expected a whole number"),
        ("vace_layers", Value::Null, "needs `vace_layers` and `vace_in_channels`"),
        ("vace_in_channels", Value::Null, "needs `vace_layers` and `vace_in_channels`"),
        ("vace_in_channels", json!(32), "two latents of 16 and a mask are more"),
        ("vace_in_channels", json!(1_u64 << 40), "vace_in_channels"),
        ("vace_in_channels", json!(97), "which is not two latents of 16 and a mask of 64 pixels"),
        ("in_channels", json!(36), "36 in, 16 out"),
    ] {
        let message = read(key, value).unwrap_err().to_string();
        assert!(message.contains(file) && message.contains(says), "{says}: {message}");
    }
    // A plain transformer has none of this.
    refused(file, "_class_name", json!("WanVACETransformer3DModel"), &["needs `vace_layers`"]);
}

#[test]
fn the_tiny_model_is_understood_without_its_weights() {
    let (_place, folder) = edited("model_index.json", |_| ());
    let config = ModelConfig::read(&folder).unwrap();
    assert!(config.index.has("vae") && !config.index.has("transformer_2"));
    assert!(!config.index.expand_timesteps);
    let (text, tokenizer) = config.text.unwrap();
    assert_eq!((text.d_model, text.num_heads, text.d_kv), (40, 4, 12));
    assert_eq!((tokenizer.text_length(), tokenizer.eos_token()), (512, "</s>"));
    let transformer = config.transformer.unwrap();
    assert_eq!((transformer.dim(), transformer.patch_dim(), transformer.num_layers), (64, 64, 3));
    let vae = config.vae.unwrap();
    assert_eq!((vae.spatial_factor(), vae.temporal_factor(), vae.z_dim), (8, 4, 16));
    assert_eq!(
        (vae.latent_frames(17), vae.latent_frames(1), vae.latent_frames(18)),
        (Some(5), Some(1), None)
    );
    assert_eq!((vae.latent_frames(0), vae.frames(5), vae.frames(1)), (None, 17, 1));
    let scheduler = config.scheduler;
    assert_eq!((scheduler.kind(), scheduler.shift()), (ScheduleKind::UniPc, 3.0));
    assert_eq!((scheduler.solver_order, scheduler.solver_type), (2, SolverType::Bh2));
}

#[test]
fn every_class_of_scheduler_is_a_solver() {
    for (class, kind) in [
        ("UniPCMultistepScheduler", ScheduleKind::UniPc),
        ("DPMSolverMultistepScheduler", ScheduleKind::DpmSolver),
        ("FlowMatchEulerDiscreteScheduler", ScheduleKind::Euler),
        ("FlowMatchLCMScheduler", ScheduleKind::Lcm),
    ] {
        let (_place, folder) = edited("scheduler/scheduler_config.json", |config| {
            config["_class_name"] = json!(class);
        });
        assert_eq!(SchedulerConfig::read(&folder).unwrap().kind(), kind);
    }
    let (_place, folder) = edited("scheduler/scheduler_config.json", |config| {
        config["_class_name"] = json!("DPMSolverMultistepScheduler");
        config["algorithm_type"] = json!("sde-dpmsolver++");
    });
    let refused = SchedulerConfig::read(&folder).unwrap_err().to_string();
    assert!(refused.contains("the algorithm_type `sde-dpmsolver++`"), "{refused}");
}

#[test]
fn the_embedded_model_is_understood() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../shapes/model");
    let config = ModelConfig::read(&ModelFolder::directory(path).unwrap()).unwrap();
    assert!(config.index.expand_timesteps);
    assert_eq!(config.text.unwrap().1.text_length(), 48);
    assert_eq!(config.transformer.unwrap().dim(), 192);
}

/// Experts that read other sizes: which, and by how much.
#[test]
fn the_sizes_are_named_in_which_experts_differ() {
    let (place, folder) = edited_of("wan22_a14b/model", "model_index.json", |_| ());
    let low = place.path().join("transformer_2/config.json");
    std::fs::create_dir_all(low.parent().unwrap()).unwrap();
    let read = |edit: &dyn Fn(&mut Value)| {
        let mut config: Value = folder.json("transformer/config.json").unwrap();
        edit(&mut config);
        std::fs::write(&low, config.to_string()).unwrap();
        ModelConfig::read(&folder).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(read(&|_| ()), Ok(()));
    let told = read(&|config| {
        config["in_channels"] = json!(36);
        config["text_dim"] = json!(8);
    });
    let text = folder.json::<Value>("transformer/config.json").unwrap()["text_dim"].clone();
    let differ =
        format!("than the first: `in_channels` is 36, not 16, `text_dim` is 8, not {text}");
    let told = told.unwrap_err();
    assert!(told.contains("transformer_2/config.json") && told.contains(&differ), "{told}");
}

#[test]
fn a_missing_key_is_named() {
    let missing = |path: &str, key: &str| refused(path, key, Value::Null, &[key, "is missing"]);
    missing("model_index.json", "_class_name");
    missing("transformer/config.json", "ffn_dim");
    missing("vae/config.json", "latents_std");
    missing("text_encoder/config.json", "d_kv");
    missing("scheduler/scheduler_config.json", "_class_name");
}

#[test]
fn what_contradicts_itself_is_refused() {
    let transformer = "transformer/config.json";
    refused(transformer, "text_dim", json!(41), &["text_dim is 41", "d_model is 40"]);
    refused(transformer, "num_attention_heads", json!(0), &["num_attention_heads", "0"]);
    refused(transformer, "attention_head_dim", json!(15), &["attention_head_dim", "even"]);
    refused(
        transformer,
        "num_layers",
        json!("three"),
        &["`num_layers` is \"three\"; expected a whole number"],
    );
    refused("vae/config.json", "z_dim", json!(15), &["latents_mean", "16 values", "15"]);
    refused("vae/config.json", "temperal_downsample", json!([true]), &["one shorter"]);
    refused("text_encoder/config.json", "relative_attention_num_buckets", json!(3), &["buckets"]);
    refused("tokenizer/tokenizer_config.json", "model_max_length", json!(0), &["must not be 0"]);
    refused("scheduler/scheduler_config.json", "flow_shift", json!(0.0), &["greater than 0"]);
    let index = "model_index.json";
    let expert = json!(["diffusers", "WanTransformer3DModel"]);
    refused(index, "transformer_2", expert, &["needs a `boundary_ratio`"]);
    refused(index, "boundary_ratio", json!(0.875), &["needs a `transformer_2`"]);
    refused(transformer, "image_dim", json!(48), &["added_kv_proj_dim", "image_dim"]);
    refused(transformer, "added_kv_proj_dim", json!(64), &["added_kv_proj_dim", "image_dim"]);
    refused(transformer, "pos_embed_seq_len", json!(34), &["pos_embed_seq_len", "image_dim"]);
    refused("vae/config.json", "is_residual", json!(true), &["dim_mult", "residual"]);
}

#[test]
fn what_is_not_supported_yet_is_named() {
    let no = |path: &str, key: &str, value: Value, says: &str| {
        refused(path, key, value, &["not supported yet", says]);
    };
    let index = "model_index.json";
    no(index, "_class_name", json!("WanAnimatePipeline"), "WanAnimatePipeline");
    let transformer = "transformer/config.json";
    no(transformer, "in_channels", json!(32), "32 in, 16 out");
    no(transformer, "in_channels", json!(8), "8 in, 16 out");
    // A mask that is not one of four frames.
    no(transformer, "in_channels", json!(40), "no mask of 4 frames");
    no(transformer, "_class_name", json!("FluxTransformer2DModel"), "FluxTransformer2DModel");
    no(transformer, "qk_norm", json!("layer_norm"), "layer_norm");
    let vae = "vae/config.json";
    no(vae, "_class_name", json!("AutoencoderKL"), "AutoencoderKL");
    no(vae, "in_channels", json!(4), "three channels");
    no("text_encoder/config.json", "model_type", json!("t5"), "t5");
    let scheduler = "scheduler/scheduler_config.json";
    no(scheduler, "_class_name", json!("DDIMScheduler"), "DDIMScheduler");
    no(scheduler, "use_karras_sigmas", json!(true), "use_karras_sigmas");
    no(scheduler, "prediction_type", json!("epsilon"), "other than flow");
    no(scheduler, "solver_order", json!(4), "solver_order");
}

#[test]
fn what_a_transformer_does_not_say_is_as_in_diffusers() {
    let file = "transformer/config.json";
    let read = |key: &str, value: Value| {
        let (_place, folder) = edited("transformer/config.json", |config| match value {
            Value::Null => drop(config.as_object_mut().unwrap().remove(key)),
            value => config[key] = value,
        });
        ModelConfig::read(&folder).unwrap().transformer.unwrap()
    };
    let (_place, null) = edited(file, |config| config["out_channels"] = Value::Null);
    assert_eq!(ModelConfig::read(&null).unwrap().transformer.unwrap().out_channels, 16);
    assert_eq!(read("out_channels", Value::Null).out_channels, 16);
    assert_eq!(read("eps", Value::Null).eps, 1e-6);
    assert!(read("cross_attn_norm", Value::Null).cross_attn_norm);
    read("qk_norm", Value::Null);
}

#[test]
fn what_other_kinds_read_is_said_by_their_configs() {
    let ti2v = ModelConfig::read(&model("wan22_ti2v/model")).unwrap();
    assert!(ti2v.index.expand_timesteps && ti2v.scheduler.shift() == 5.0);
    let vae = ti2v.vae.unwrap();
    assert_eq!((vae.spatial_factor(), vae.temporal_factor(), vae.patch()), (16, 4, 2));
    let i2v = ModelConfig::read(&model("wan_i2v/model")).unwrap();
    let transformer = i2v.transformer.unwrap();
    assert_eq!((transformer.mask_channels(), transformer.image_dim), (Some(4), Some(48)));
    assert_eq!(i2v.image.unwrap().0.rows(), 17);
    let a14b = ModelConfig::read(&model("wan22_a14b/model")).unwrap();
    assert_eq!(a14b.low_noise.map(|(below, low)| (below, low.num_layers)), Some((875.0, 2)));
    let flf2v = ModelConfig::read(&model("wan_flf2v/model")).unwrap();
    assert_eq!(flf2v.transformer.unwrap().pos_embed_seq_len, Some(34));
}

#[test]
fn tokenizer_configs_come_in_several_forms() {
    let read = |key: &str, value: Value| -> Result<TokenizerConfig> {
        let (_place, folder) =
            edited("tokenizer/tokenizer_config.json", |config| config[key] = value);
        TokenizerConfig::read(&folder, &PROMPTS)
    };
    let unlimited = json!(1_000_000_000_000_000_019_884_624_838_656.0_f64);
    assert_eq!(read("model_max_length", unlimited).unwrap().text_length(), 512);
    assert_eq!(read("model_max_length", Value::Null).unwrap().text_length(), 512);
    let token = json!({"content": "<end>", "lstrip": false});
    assert_eq!(read("eos_token", token).unwrap().eos_token(), "<end>");
}
