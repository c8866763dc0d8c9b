//! The transformer against diffusers' `WanTransformer3DModel`.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{Golden, close, distance, golden, model};
use kino_models::families::wan::dit::{Context, Dit, rope_tables};
use kino_models::families::wan::{TransformerConfig, Wan};
use kino_models::model::{Family, Packed, Timesteps};
use kino_models::patch::{Grid, patchify, unpatchify};
use kino_models::sampling::{StepCache, StepCacheKind, StepCacheRule};
use kino_models::{Error, Result};

const PATCH: (usize, usize, usize) = (1, 2, 2);

fn dit(path: &str, dtype: DType) -> Dit {
    let folder = model(path);
    let config = TransformerConfig::read(&folder).unwrap();
    Dit::load(&config, &folder.weights("transformer", dtype, &Device::Cpu).unwrap()).unwrap()
}

fn text() -> Tensor {
    let embedded = golden("wan_t2v/golden/text.safetensors").get("embeds.0");
    let rows = embedded.dim(0).unwrap();
    embedded.pad_with_zeros(0, 0, 512 - rows).unwrap() // [512, 40]
}

fn go_on() -> Result<()> {
    Ok(())
}

/// One clip of the reference: its patches, grid and timesteps a token.
struct Case {
    patches: Tensor,
    grid: Grid,
    timesteps: Vec<f64>,
    out: Tensor,
}

fn case(golden: &Golden, name: &str) -> Case {
    let latent = golden.get(&format!("{name}.in")).squeeze(0).unwrap(); // [c, f, h, w]
    let (_, f, h, w) = latent.dims4().unwrap();
    let grid = Grid::of_latent((f, h, w), PATCH).unwrap();
    let mut timesteps = golden.f64s(&format!("{name}.timestep"));
    if timesteps.len() == 1 {
        timesteps = vec![timesteps[0]; grid.tokens()];
    }
    let out = golden.get(&format!("{name}.out")).squeeze(0).unwrap();
    Case { patches: patchify(&latent, PATCH).unwrap(), grid, timesteps, out }
}

fn alone(dit: &Dit, case: &Case, context: &Context) -> Tensor {
    let timesteps = Timesteps::PerToken(&case.timesteps);
    dit.velocity(&case.patches, &[case.grid], timesteps, &[context], &mut go_on).unwrap()
}

#[track_caller]
fn check_model(family: &str) {
    let golden = golden(&format!("{family}/golden/transformer.safetensors"));
    let dit = dit(&format!("{family}/model"), DType::F32);
    let context = dit.context(&text()).unwrap();
    let (a, b) = (case(&golden, "a"), case(&golden, "b"));
    for (name, case) in [("a", &a), ("b", &b)] {
        let out = unpatchify(&alone(&dit, case, &context), case.grid, PATCH).unwrap();
        close(&format!("{family}, {name}"), &out, &case.out, 2e-5);
    }
    // Packed with another clip of another size, time and text, each is what it is alone.
    let other = dit.context(&text().narrow(0, 0, 7).unwrap()).unwrap();
    let packed = Tensor::cat(&[&a.patches, &b.patches, &a.patches], 0).unwrap();
    let timesteps = [a.timesteps.clone(), b.timesteps.clone(), a.timesteps.clone()].concat();
    let grids = [a.grid, b.grid, a.grid];
    let texts = [&context, &context, &other];
    let timesteps = Timesteps::PerToken(&timesteps);
    let packed = dit.velocity(&packed, &grids, timesteps, &texts, &mut go_on).unwrap();
    let mut start = 0;
    for (case, text) in [&a, &b, &a].into_iter().zip(texts) {
        let own = packed.narrow(0, start, case.grid.tokens()).unwrap();
        close(&format!("{family}, packed"), &own, &alone(&dit, case, text), 1e-5);
        start += case.grid.tokens();
    }
}

#[test]
fn text_to_video_equals_the_reference() {
    check_model("wan_t2v");
}

/// Rows that are equal and stand last are computed with once. Where the prompt stands behind them,
/// each is computed with, and attention does not see the order of keys.
#[test]
fn one_row_past_the_prompt_stands_for_all() {
    let golden = golden("wan_t2v/golden/transformer.safetensors");
    let a = case(&golden, "a");
    let text = text();
    let turned: Vec<u32> = (0..512).rev().collect();
    let turned = text.index_select(&Tensor::new(turned, &Device::Cpu).unwrap(), 0).unwrap();
    let dit = dit("wan_t2v/model", DType::F32);
    let [once, each] = [&text, &turned].map(|text| alone(&dit, &a, &dit.context(text).unwrap()));
    close("rows at the end and in front", &once, &each, 1e-5);
}

#[test]
fn a_timestep_per_token_equals_the_reference() {
    let timesteps = golden("wan22_ti2v/golden/transformer.safetensors").f64s("a.timestep");
    assert!(timesteps.iter().any(|t| *t != timesteps[0]), "the case must mix timesteps");
    check_model("wan22_ti2v");
}

/// Wan VACE: blocks beside the main ones read a control, whose strength is of the clip.
#[test]
fn a_control_leads_as_in_the_reference() {
    let golden = golden("wan_vace/golden.safetensors");
    let dit = dit("wan_vace/model", DType::F32);
    assert_eq!(dit.block_count(), 5, "three main blocks, two beside them");
    let cut = |name: &str| patchify(&golden.get(name), PATCH).unwrap();
    let (x, control) = (cut("x"), cut("x_control"));
    let grid = Grid { frames: 3, rows: 2, columns: 3 };
    let context = dit.context(&golden.get("x_text").squeeze(0).unwrap()).unwrap();
    let run = |patches: &Tensor, extra: Option<&Tensor>, strengths: &[f64]| {
        let times = vec![417.0; patches.dim(0).unwrap() / grid.tokens()];
        let grids = vec![grid; times.len()];
        let timesteps = Timesteps::PerClip(&times);
        let latents = Packed {
            patches,
            extra,
            grids: &grids,
            timesteps,
            strengths,
            frame_rate: None,
            guidance: None,
        };
        let mut blocks = 0;
        let mut tick = || {
            blocks += 1;
            Ok(())
        };
        let contexts = vec![&context; grids.len()];
        let found = dit.velocity_of(&latents, &contexts, &mut tick);
        found.map(|found| (found, blocks))
    };
    let mut alone = Vec::new();
    for (name, strength, passed) in [("whole", 1.0, 5), ("part", 0.35, 5), ("none", 0.0, 3)] {
        let (found, blocks) = run(&x, Some(&control), &[strength]).unwrap();
        assert_eq!(blocks, passed, "a control of no strength costs nothing");
        let expected = golden.get(&format!("x_{name}"));
        close(name, &unpatchify(&found, grid, PATCH).unwrap(), &expected, 2e-5);
        alone.push(found);
    }
    let (without, _) = run(&x, None, &[]).unwrap();
    assert_eq!(distance(&without, &alone[2]), 0.0);
    assert!(distance(&alone[0], &alone[2]) > 1e-2, "the control leads");
    // Clips of different strengths, packed, are what they are alone.
    let three = |one: &Tensor| Tensor::cat(&[one, one, one], 0).unwrap();
    let (packed, _) = run(&three(&x), Some(&three(&control)), &[1.0, 0.35, 0.0]).unwrap();
    for (index, alone) in alone.iter().enumerate() {
        let own = packed.narrow(0, index * grid.tokens(), grid.tokens()).unwrap();
        close(&format!("packed, {index}"), &own, alone, 1e-5);
    }
    let says = |extra: &Tensor, strengths: &[f64]| {
        run(&x, Some(extra), strengths).unwrap_err().to_string()
    };
    assert!(says(&control, &[1.0, 1.0]).contains("2 strengths for 1 clips"));
    let narrow = control.narrow(1, 0, 100).unwrap();
    assert!(says(&narrow, &[1.0]).contains("[18, 100]; this transformer reads [18, 384]"));
}

/// Wan 2.1 I2V: a mask and a latent beside the noise, keys and values of a picture beside the
/// text's.
#[test]
fn image_to_video_equals_the_reference() {
    let golden = golden("wan_i2v/golden/transformer.safetensors");
    let dit = dit("wan_i2v/model", DType::F32);
    for name in ["a", "b"] {
        let Case { patches, grid, timesteps, out } = case(&golden, name);
        let width = out.dim(0).unwrap() * 4; // channels of the latent, by 2×2 pixels
        let rest = patches.dim(1).unwrap() - width;
        let image = golden.get(&format!("{name}.image_embeds")).squeeze(0).unwrap();
        let context = dit.context_with(&text(), Some(&image)).unwrap();
        let (latent, extra) =
            (patches.narrow(1, 0, width).unwrap(), patches.narrow(1, width, rest).unwrap());
        let latents = Packed {
            patches: &latent,
            extra: Some(&extra),
            grids: &[grid],
            timesteps: Timesteps::PerClip(&timesteps[..1]),
            strengths: &[],
            frame_rate: None,
            guidance: None,
        };
        let found = dit.velocity_of(&latents, &[&context], &mut go_on).unwrap();
        let found = unpatchify(&found, grid, PATCH).unwrap();
        close(&format!("image to video, {name}"), &found, &out, 2e-5);
        let without = Packed { extra: None, ..latents };
        let error = dit.velocity_of(&without, &[&context], &mut go_on).unwrap_err().to_string();
        assert!(error.contains("beside the latents"), "{error}");
    }
    let error = dit.context(&text()).unwrap_err().to_string();
    assert_eq!(error, "this transformer reads images, and there is none");
}

#[test]
fn one_timestep_a_clip_equals_the_same_at_every_token() {
    let golden = golden("wan_t2v/golden/transformer.safetensors");
    let dit = dit("wan_t2v/model", DType::F32);
    let (context, a) = (dit.context(&text()).unwrap(), case(&golden, "a"));
    let packed = Tensor::cat(&[&a.patches, &a.patches], 0).unwrap();
    let times = Timesteps::PerClip(&[417.0, 30.5]);
    let both = dit.velocity(&packed, &[a.grid; 2], times, &[&context; 2], &mut go_on).unwrap();
    let first = both.narrow(0, 0, a.grid.tokens()).unwrap();
    close("first clip", &first, &alone(&dit, &a, &context), 1e-5);
    let second = Case { timesteps: vec![30.5; a.grid.tokens()], ..a };
    let rest = both.narrow(0, second.grid.tokens(), second.grid.tokens()).unwrap();
    close("second clip", &rest, &alone(&dit, &second, &context), 1e-5);
    assert!(distance(&first, &rest) > 1e-3, "timesteps must matter");
}

#[test]
fn the_time_embedding_equals_the_reference() {
    let dit = dit("wan_t2v/model", DType::F32);
    let expected = golden("wan_t2v/golden/transformer.safetensors").get("a.condition_embedder.0");
    close("temb", &dit.time_embedding(&[417.0]).unwrap(), &expected, 5e-7);
}

#[test]
fn rotations_equal_the_reference() {
    let golden = golden("wan_t2v/golden/transformer.safetensors");
    let grid = Grid { frames: 3, rows: 3, columns: 5 };
    let (cos, sin) = rope_tables(grid, 16, &Device::Cpu).unwrap(); // [45, 8]
    for (table, name) in [(cos, "a.rope.0"), (sin, "a.rope.1")] {
        // The reference holds every value twice, once for each half of a pair.
        let twice = Tensor::stack(&[&table, &table], 2).unwrap().reshape((45, 16)).unwrap();
        close(name, &twice, &golden.get(name), 1e-7);
    }
}

/// At far positions f32 angles would be off by 1e-5 and more; f64 ones are not.
#[test]
fn far_rotations_keep_their_precision() {
    let grid = Grid { frames: 1, rows: 1, columns: 1000 };
    let (cos, _) = rope_tables(grid, 128, &Device::Cpu).unwrap(); // [1000, 64]
    let last = common::values(&cos.get(999).unwrap());
    for pair in 0..21 {
        let exact = (999.0 / 10_000f64.powf(2.0 * f64::from(pair) / 42.0)).cos();
        let found = last[22 + 21 + pair as usize];
        assert!((found - exact).abs() < 1e-7, "pair {pair}: {found} is not {exact}");
    }
}

#[test]
fn patches_come_back_as_the_latent() {
    let count = 6 * 4 * 6 * 8;
    let latent = Tensor::arange(0f32, count as f32, &Device::Cpu).unwrap();
    let latent = latent.reshape((6, 4, 6, 8)).unwrap();
    for patch in [(1, 2, 2), (2, 3, 4), (1, 1, 1)] {
        let grid = Grid::of_latent((4, 6, 8), patch).unwrap();
        let patches = patchify(&latent, patch).unwrap();
        assert_eq!(patches.dims(), [grid.tokens(), count / grid.tokens()]);
        close("round trip", &unpatchify(&patches, grid, patch).unwrap(), &latent, 0.0);
    }
    let error = patchify(&latent, (1, 4, 2)).unwrap_err().to_string();
    assert!(error.contains("4×6×8 cannot be cut into patches of 1×4×2"), "{error}");
}

/// candle has operations that misread views: patches and texts cut out of larger tensors, or lying
/// transposed, give the same numbers as compact ones, in both compute types.
#[test]
fn views_give_the_same_numbers() {
    let golden = golden("wan_t2v/golden/transformer.safetensors");
    let a = case(&golden, "a");
    let (tokens, width) = a.patches.dims2().unwrap();
    let wide = a.patches.pad_with_zeros(0, 3, 2).unwrap().pad_with_zeros(1, 1, 5).unwrap();
    let cut = wide.narrow(0, 3, tokens).unwrap().narrow(1, 1, width).unwrap();
    let turned = a.patches.t().unwrap().contiguous().unwrap().t().unwrap();
    let text = text().pad_with_zeros(0, 2, 1).unwrap().narrow(0, 2, 512).unwrap();
    for dtype in [DType::F32, DType::BF16] {
        let dit = dit("wan_t2v/model", dtype);
        let expected = alone(&dit, &a, &dit.context(&text.contiguous().unwrap()).unwrap());
        for patches in [&cut, &turned] {
            assert!(!patches.is_contiguous());
            let view = Case {
                patches: patches.clone(),
                timesteps: a.timesteps.clone(),
                ..case(&golden, "a")
            };
            let found = alone(&dit, &view, &dit.context(&text).unwrap());
            close("view", &found, &expected, 0.0);
        }
    }
    let latent = unpatchify(&cut, a.grid, PATCH).unwrap();
    close("unpatchify", &latent, &unpatchify(&a.patches, a.grid, PATCH).unwrap(), 0.0);
    let swapped = latent.transpose(2, 3).unwrap().contiguous().unwrap().transpose(2, 3).unwrap();
    close("patchify", &patchify(&swapped, PATCH).unwrap(), &a.patches, 0.0);
}

/// bf16 arithmetic stays near f32: the reference measured 0.0063 for this case.
#[test]
fn bf16_stays_near_f32() {
    let golden = golden("wan_t2v/golden/transformer.safetensors");
    let a = case(&golden, "a");
    let dit = dit("wan_t2v/model", DType::BF16);
    let out = alone(&dit, &a, &dit.context(&text()).unwrap());
    let out = unpatchify(&out, a.grid, PATCH).unwrap();
    let square = |t: &Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
    let relative = (square(&(&out - &a.out).unwrap()) / square(&a.out)).sqrt();
    println!("relative distance of bf16: {relative}");
    assert!(relative < 0.02, "{relative}");
}

#[test]
fn cancelling_takes_effect_within_a_block() {
    let golden = golden("wan_t2v/golden/transformer.safetensors");
    let dit = dit("wan_t2v/model", DType::F32);
    let (context, a) = (dit.context(&text()).unwrap(), case(&golden, "a"));
    let mut blocks = 0;
    let mut tick = || {
        blocks += 1;
        if blocks == 2 { Err(Error::Cancelled) } else { Ok(()) }
    };
    let times = Timesteps::PerClip(&[417.0]);
    let stopped = dit.velocity(&a.patches, &[a.grid], times, &[&context], &mut tick);
    assert!(matches!(stopped, Err(Error::Cancelled)));
    assert_eq!(blocks, 2);
    assert_eq!(dit.block_count(), 3);
}

#[test]
fn what_does_not_fit_is_refused() {
    let golden = golden("wan_t2v/golden/transformer.safetensors");
    let dit = dit("wan_t2v/model", DType::F32);
    let (context, a) = (dit.context(&text()).unwrap(), case(&golden, "a"));
    let refused = |grids: &[Grid], times: Timesteps<'_>, texts: &[&Context], says: &str| {
        let error = dit.velocity(&a.patches, grids, times, texts, &mut go_on).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    };
    let clip = Timesteps::PerClip(&[1.0]);
    refused(&[Grid { rows: 4, ..a.grid }], clip, &[&context], "45 patches do not fill");
    refused(&[a.grid], clip, &[], "0 texts for 1 clips");
    refused(&[a.grid], Timesteps::PerClip(&[]), &[&context], "0 timesteps, but 1");
    refused(&[a.grid], Timesteps::PerToken(&[1.0]), &[&context], "1 timesteps, but 45");
    let error = dit.context(&text().narrow(1, 0, 39).unwrap()).unwrap_err().to_string();
    assert!(error.contains("[512, 39]") && error.contains("[rows, 40]"), "{error}");
}

/// A pass in which some clips are computed and others reused: each is what it is alone, with a
/// timestep for each token and with a control, too.
#[test]
fn clips_that_are_reused_stand_beside_those_that_are_computed() {
    let ti2v = golden("wan22_ti2v/golden/transformer.safetensors");
    let (a, b) = (case(&ti2v, "a"), case(&ti2v, "b"));
    let dit = dit("wan22_ti2v/model", DType::F32);
    let context = dit.context(&text()).unwrap();
    let cache = |threshold: f64| StepCache::new(StepCacheRule::FirstBlock, threshold);
    let run = |cases: &[&Case], add: f64, caches: &mut [StepCache], step: usize| {
        let patches: Vec<Tensor> =
            cases.iter().map(|case| (&case.patches + add).unwrap()).collect();
        let times: Vec<f64> = cases.iter().flat_map(|case| case.timesteps.clone()).collect();
        let grids: Vec<Grid> = cases.iter().map(|case| case.grid).collect();
        let (patches, timesteps) = (Tensor::cat(&patches, 0).unwrap(), Timesteps::PerToken(&times));
        let packed = Packed {
            patches: &patches,
            extra: None,
            grids: &grids,
            timesteps,
            strengths: &[],
            frame_rate: None,
            guidance: None,
        };
        let contexts = vec![&context; grids.len()];
        caches.iter_mut().for_each(|cache| cache.begin_step(step, 9));
        let mut caches: Vec<&mut StepCache> = caches.iter_mut().collect();
        let (mut blocks, count) = (0, &mut caches);
        let mut tick = || {
            blocks += 1;
            Ok(())
        };
        let found = dit.velocity_cached(&packed, &contexts, count, &mut tick).unwrap();
        (found, blocks)
    };
    // Of three clips the one in the middle reuses.
    let mut packed = [cache(0.0), cache(1e9), cache(0.0)];
    let (first, all_blocks) = run(&[&a, &b, &a], 0.0, &mut packed, 0);
    let plain = alone(&dit, &b, &context);
    let of_b = |packed: &Tensor| packed.narrow(0, a.grid.tokens(), b.grid.tokens()).unwrap();
    close("all computed", &of_b(&first), &plain, 1e-5);
    let (second, blocks) = run(&[&a, &b, &a], 0.05, &mut packed, 1);
    assert_eq!(blocks, all_blocks, "two of three go on");
    assert_eq!(packed.map(|cache| cache.passes()), [(2, 0), (1, 1), (2, 0)]);
    let (mut of_a, mut of_b_alone) = ([cache(0.0)], [cache(1e9)]);
    run(&[&b], 0.0, &mut of_b_alone, 0);
    let (reused, few) = run(&[&b], 0.05, &mut of_b_alone, 1);
    assert!(few < all_blocks, "only the first block runs where nothing is computed");
    close("reused", &of_b(&second), &reused, 1e-5);
    let (computed, _) = run(&[&a], 0.05, &mut of_a, 1);
    let last = second.dim(0).unwrap() - a.grid.tokens();
    for start in [0, last] {
        let own = second.narrow(0, start, a.grid.tokens()).unwrap();
        close("computed", &own, &computed, 1e-5);
    }
    // A control is part of what is computed, and of what is reused.
    let golden = golden("wan_vace/golden.safetensors");
    let vace = self::dit("wan_vace/model", DType::F32);
    let cut = |name: &str| patchify(&golden.get(name), PATCH).unwrap();
    let (x, control) = (cut("x"), cut("x_control"));
    let grids = [Grid { frames: 3, rows: 2, columns: 3 }];
    let context = vace.context(&golden.get("x_text").squeeze(0).unwrap()).unwrap();
    let timesteps = Timesteps::PerClip(&[417.0]);
    let extra = Some(&control);
    let packed = Packed {
        patches: &x,
        extra,
        grids: &grids,
        timesteps,
        strengths: &[0.35],
        frame_rate: None,
        guidance: None,
    };
    let expected = vace.velocity_of(&packed, &[&context], &mut go_on).unwrap();
    let mut own = cache(1e9);
    for step in 0..2 {
        own.begin_step(step, 9);
        let found = vace.velocity_cached(&packed, &[&context], &mut [&mut own], &mut go_on);
        close("control", &found.unwrap(), &expected, 1e-5);
    }
    assert_eq!(own.passes(), (1, 1));
    let none = vace.velocity_cached(&packed, &[&context], &mut [], &mut go_on);
    assert!(none.unwrap_err().to_string().contains("0 step caches for 1 clips"));
}

/// The polynomials that are published, by the sizes of their models, and what they decide
/// (`tests/ref/step_cache.py`).
#[test]
fn published_models_have_their_polynomials() {
    let cases: serde_json::Value =
        serde_json::from_slice(&std::fs::read(common::reference("step_cache/cases.json")).unwrap())
            .unwrap();
    let small = Grid { frames: 21, rows: 30, columns: 52 };
    let large = Grid { frames: 21, rows: 45, columns: 80 };
    let fit = |model: &str,
               sizes: (usize, usize),
               change: &dyn Fn(&mut serde_json::Value),
               grid| {
        let folder = std::env::temp_dir().join(format!("kino-fit-{}-{model}", std::process::id()));
        std::fs::create_dir_all(folder.join("transformer")).unwrap();
        std::fs::create_dir_all(folder.join("scheduler")).unwrap();
        let from = common::reference("wan_t2v/model");
        let scheduler = "scheduler/scheduler_config.json";
        std::fs::copy(from.join(scheduler), folder.join(scheduler)).unwrap();
        let index = r#"{"_class_name": "WanPipeline", "transformer": ["diffusers", "WanTransformer3DModel"]}"#;
        std::fs::write(folder.join("model_index.json"), index).unwrap();
        let config = std::fs::read(from.join("transformer/config.json")).unwrap();
        let mut config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        let (heads, layers) = sizes;
        config["num_attention_heads"] = heads.into();
        config["attention_head_dim"] = 128.into();
        config["num_layers"] = layers.into();
        change(&mut config);
        std::fs::write(folder.join("transformer/config.json"), config.to_string()).unwrap();
        let opened = kino_models::ModelFolder::directory(&folder).unwrap();
        let read = Wan.read(&kino_models::Checkpoint::open(&opened).unwrap()).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        read.denoiser.unwrap().spec.step_cache(StepCacheKind::TeaCache, grid)
    };
    let from_text = |_: &mut serde_json::Value| {};
    let from_image = |config: &mut serde_json::Value| {
        config["in_channels"] = 36.into();
        config["image_dim"] = 1280.into();
        config["added_kv_proj_dim"] = 5120.into();
    };
    let mut checked = 0;
    for case in cases["rules"].as_array().unwrap() {
        let model = case["model"].as_str().unwrap();
        let rule = match model {
            "t2v_1_3b" => fit(model, (12, 30), &from_text, small),
            "t2v_14b" => fit(model, (40, 40), &from_text, large),
            "i2v_480p" => fit(model, (40, 40), &from_image, small),
            _ => fit(model, (40, 40), &from_image, large),
        };
        let mut cache = StepCache::new(rule.expect(model), case["threshold"].as_f64().unwrap());
        let mut value = 1.0;
        let mut decide = |step: usize| {
            // Each value has changed by so much since the one before.
            value *= 1.0 + if step > 0 { case["changes"][step - 1].as_f64().unwrap() } else { 0.0 };
            value = if value > 1e3 { value / 1e3 } else { value };
            let seen = Tensor::new(&[value as f32], &Device::Cpu).unwrap();
            cache.begin_step(step, 30);
            let must = cache.must_compute(&seen).unwrap();
            if must {
                cache.keep(seen);
            }
            if must { '1' } else { '0' }
        };
        let found: String = (0..30).map(&mut decide).collect();
        assert_eq!(found, case["computed"].as_str().unwrap(), "{model}");
        checked += 1;
    }
    assert_eq!(checked, 8);
    // Nothing is published for other sizes, or for first and last frames.
    assert_eq!(fit("other", (24, 30), &from_text, small), None);
    let both_ends = |config: &mut serde_json::Value| {
        from_image(config);
        config["pos_embed_seq_len"] = 514.into();
    };
    assert_eq!(fit("flf2v", (40, 40), &both_ends, small), None);
}
