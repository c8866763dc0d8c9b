//! Whole runs without nodes: prompt to latents, step by step, against diffusers' pipelines.

mod common;

use candle_core::{D, DType, Device, Tensor};
use common::{Golden, close, golden, model, reference};
use kino_models::checkpoint::ModelFiles;
use kino_models::families::wan::dit::{Context, Dit};
use kino_models::families::wan::{PROMPTS, TransformerConfig};
use kino_models::model::Timesteps;
use kino_models::patch::{Grid, patchify, unpatchify};
use kino_models::sampling::guidance::CfgScale;
use kino_models::sampling::{Schedule, Solver};
use kino_models::sampling::{ScheduleKind, SchedulerConfig};
use kino_models::text::T5Encoder;
use kino_models::{ModelFolder, Result};
use serde_json::Value;

const PATCH: (usize, usize, usize) = (1, 2, 2);

fn go_on() -> Result<()> {
    Ok(())
}

fn meta(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(reference(path)).unwrap()).unwrap()
}

/// A model with the parts that sampling needs.
struct Model {
    text: T5Encoder,
    dit: Dit,
    scheduler: SchedulerConfig,
}

impl Model {
    fn load(folder: &ModelFolder) -> Self {
        let weights = folder.weights("transformer", DType::F32, &Device::Cpu).unwrap();
        Self {
            text: T5Encoder::load(
                folder,
                &PROMPTS,
                &folder.weights("text_encoder", DType::F32, &Device::Cpu).unwrap(),
            )
            .unwrap(),
            dit: Dit::load(&TransformerConfig::read(folder).unwrap(), &weights).unwrap(),
            scheduler: SchedulerConfig::read(folder).unwrap(),
        }
    }

    fn context(&self, prompt: &str) -> Context {
        self.dit.context(&self.text.encode(prompt, &mut go_on).unwrap().tensor).unwrap()
    }
}

/// What a case asks for.
struct Run {
    kind: ScheduleKind,
    shift: f64,
    steps: usize,
    scale: f64,
    prompt: String,
    negative: String,
}

/// Frames that are given, and for each latent frame whether it is free (1) or given (0).
struct Given {
    known: Tensor, // [c, f, h, w]
    free: Vec<f64>,
}

/// Called after each step with its number, the latent, and the velocities with and without text.
type AfterStep<'a> = &'a mut dyn FnMut(usize, &Tensor, &[Tensor]);

/// Samples one clip; `latent` is `[c, f, h, w]`.
fn sample(model: &Model, run: &Run, latent: &Tensor, given: Option<&Given>, after: AfterStep<'_>) {
    let (_, f, h, w) = latent.dims4().unwrap();
    let grid = Grid::of_latent((f, h, w), PATCH).unwrap();
    let back = |patches: &Tensor| unpatchify(patches, grid, PATCH).unwrap();
    let mut x = patchify(latent, PATCH).unwrap();
    let free: Vec<f64> = given.map_or(vec![1.0; f], |given| given.free.clone());
    let free: Vec<f64> =
        free.iter().flat_map(|m| std::iter::repeat_n(*m, grid.rows * grid.columns)).collect();
    let (with_text, without) = (model.context(&run.prompt), model.context(&run.negative));
    let guidance = CfgScale::new(run.scale);
    let schedule = Schedule::new(run.kind, run.steps, run.shift, 1000).unwrap();
    let timesteps = schedule.timesteps().to_vec();
    let mut stepper = Solver::new(run.kind, schedule, &model.scheduler);
    for (step, timestep) in timesteps.into_iter().enumerate() {
        let of_tokens: Vec<f64> = free.iter().map(|m| m * timestep).collect();
        let input = given.map_or(x.clone(), |given| placed(&x, given, &free));
        let velocity = |context: &Context| {
            let timesteps = Timesteps::PerToken(&of_tokens);
            model.dit.velocity(&input, &[grid], timesteps, &[context], &mut go_on).unwrap()
        };
        let mut velocities = vec![velocity(&with_text)];
        if guidance.guides(step, run.steps) {
            velocities.push(velocity(&without));
        }
        let guided = match velocities.as_slice() {
            [with_text, without] => guidance.apply(with_text, without, &[grid.tokens()]).unwrap(),
            _ => velocities[0].clone(),
        };
        let mut noise = || panic!("these solvers add no noise");
        x = stepper.step(&guided, &x, &mut noise).unwrap();
        after(step, &back(&x), &velocities.iter().map(back).collect::<Vec<_>>());
    }
}

/// Puts the given frames' patches in place.
fn placed(x: &Tensor, given: &Given, free: &[f64]) -> Tensor {
    let free: Vec<f32> = free.iter().map(|m| *m as f32).collect();
    let free = Tensor::new(free, x.device()).unwrap().unsqueeze(D::Minus1).unwrap();
    let known = patchify(&given.known, PATCH).unwrap();
    let known = known.broadcast_mul(&free.affine(-1.0, 1.0).unwrap()).unwrap();
    (known + x.broadcast_mul(&free).unwrap()).unwrap()
}

/// One pipeline of a tiny checkpoint: velocities within 5e-5, latents of every step within 1e-4.
#[track_caller]
fn check_pipeline(family: &str, case: &str) {
    let meta = meta(&format!("{family}/golden/meta.json"));
    let about = &meta["files"][case];
    let golden = golden(&format!("{family}/golden/{case}.safetensors"));
    let euler = about["scheduler"] == "FlowMatchEulerDiscreteScheduler";
    let run = Run {
        kind: if euler { ScheduleKind::Euler } else { ScheduleKind::UniPc },
        shift: about["scheduler_shift"].as_f64().unwrap(),
        steps: about["steps"].as_u64().unwrap() as usize,
        scale: about["cfg"].as_f64().unwrap(),
        prompt: about["prompt"].as_str().unwrap().to_owned(),
        negative: about["neg"].as_str().unwrap_or_default().to_owned(),
    };
    check_schedule(&run, &golden);
    let (steps, outputs) = (golden.get("latents_steps"), golden.get("model_out"));
    let start = golden.get("latents_init").squeeze(0).unwrap();
    let (mut seen, mut last) = (0, None);
    sample(&Model::load(&model(&format!("{family}/model"))), &run, &start, None, &mut |i, x, v| {
        for velocity in v {
            let expected = outputs.get(seen).unwrap().squeeze(0).unwrap();
            close(&format!("{family} {case}, call {seen}"), velocity, &expected, 5e-5);
            seen += 1;
        }
        let expected = steps.get(i).unwrap().squeeze(0).unwrap();
        close(&format!("{family} {case}, step {i}"), x, &expected, 1e-4);
        last = Some(x.clone());
    });
    assert_eq!(seen, outputs.dim(0).unwrap(), "as many model calls as the reference");
    // What the VAE decodes is the last latent, no longer normalised: x·std + mean.
    let config: Value = model(&format!("{family}/model")).json("vae/config.json").unwrap();
    let list = |key: &str| -> Tensor {
        let values: Vec<f32> =
            config[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
        Tensor::new(values, &Device::Cpu).unwrap().reshape(((), 1, 1, 1)).unwrap()
    };
    let x = last.unwrap().broadcast_mul(&list("latents_std")).unwrap();
    let x = x.broadcast_add(&list("latents_mean")).unwrap();
    close("input of the VAE", &x, &golden.get("vae_in").squeeze(0).unwrap(), 4e-4);
}

#[track_caller]
fn check_schedule(run: &Run, golden: &Golden) {
    let schedule = Schedule::new(run.kind, run.steps, run.shift, 1000).unwrap();
    assert_eq!(schedule.timesteps(), golden.f64s("timesteps"));
    for (a, b) in schedule.sigmas().iter().zip(golden.f64s("sigmas")) {
        assert!((a - b).abs() <= 1e-6, "sigma {a} is not {b}");
    }
}

#[test]
fn text_to_video_with_guidance() {
    check_pipeline("wan_t2v", "pipe_a");
}

#[test]
fn text_to_video_by_euler_without_guidance() {
    check_pipeline("wan_t2v", "pipe_b");
}

#[test]
fn text_to_image() {
    check_pipeline("wan_t2v", "pipe_image");
}

#[test]
fn text_to_video_with_a_timestep_per_token() {
    check_pipeline("wan22_ti2v", "pipe_a");
}

/// The embedded model against its reference sampler, latents of every step within 1e-3.
///
/// The image-to-video case gives its first frame by an image, which needs the VAE: it is not here.
#[test]
fn the_embedded_model_equals_its_reference() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../shapes/model");
    let model = Model::load(&ModelFolder::directory(path).unwrap());
    let meta = meta("shapes/meta.json");
    let cases = meta["cases"].as_array().unwrap().iter().filter(|case| case.get("image").is_none());
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let golden = golden(&format!("shapes/{name}.safetensors"));
        let run = Run {
            kind: ScheduleKind::UniPc,
            shift: case["shift"].as_f64().unwrap(),
            steps: case["steps"].as_u64().unwrap() as usize,
            scale: case["guidance"].as_f64().unwrap(),
            prompt: case["prompt"].as_str().unwrap().to_owned(),
            negative: case["negative"].as_str().unwrap().to_owned(),
        };
        let given = case.get("start").map(|_| Given {
            known: golden.get("known").squeeze(0).unwrap(),
            free: golden.f64s("mask"),
        });
        let steps = golden.get("latents_steps");
        let start = golden.get("noise").squeeze(0).unwrap();
        sample(&model, &run, &start, given.as_ref(), &mut |step, x, _| {
            let expected = steps.get(step).unwrap().squeeze(0).unwrap();
            close(&format!("{name}, step {step}"), x, &expected, 1e-3);
        });
    }
}
