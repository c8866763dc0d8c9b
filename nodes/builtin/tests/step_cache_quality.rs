//! What step caches cost on the embedded model, and what was fitted to it for TeaCache: the
//! procedure of its authors (arXiv:2411.19108, §3.3; github.com/ali-vilab/TeaCache, issue 2), on
//! other prompts and seeds than those that are measured.
//!
//! `KINO_TEST_QUALITY=1` measures all prompts and thresholds, and fits anew.

mod common;

use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Tensor};
use common::{Model, Rig, distance, int, text, values};
use kino_models::cancel::CheckCancel;
use kino_models::checkpoint::ModelFiles;
use kino_models::families::wan::dit::Dit;
use kino_models::families::wan::{TransformerConfig, Wan};
use kino_models::model::{
    Denoiser, DenoiserInputs, DenoiserSpec, Embeddings, Family, Packed, Projected, RunSize,
    Timesteps,
};
use kino_models::sampling::{SchedulerConfig, TeaCacheFit, TeaCacheInput};
use kino_models::{Checkpoint, ModelFolder, Result, Weights};
use kino_node::Value;

const STEPS: i128 = 20;
/// Width, height and frames.
const SIZE: [i128; 3] = [96, 64, 17];

fn is_long() -> bool {
    std::env::var_os("KINO_TEST_QUALITY").is_some()
}

/// What a model samples: noise of a seed as patches, and the texts that lead it.
fn start<'a>(
    rig: &Rig,
    model: &Model<Value>,
    prompt: &str,
    (seed, size): (i128, [i128; 3]),
) -> Vec<(&'a str, Value)> {
    let words = [("encoder", model.text.clone()), ("prompt", text(prompt))];
    let noise = [
        ("vae", model.vae.clone()),
        ("seed", int(seed)),
        ("width", int(size[0])),
        ("height", int(size[1])),
        ("frames", int(size[2])),
    ];
    let latents = rig.one("latent.noise", &noise);
    let patches = [("dit", model.dit.clone()), ("latents", latents)];
    vec![
        ("dit", model.dit.clone()),
        ("patches", rig.one("patchify", &patches)),
        ("text", rig.one("text.encode", &words)),
        ("steps", int(STEPS)),
    ]
}

/// What was found of a rule at a threshold.
#[derive(Default)]
struct Row {
    reused: usize,
    passes: usize,
    psnr: Vec<f64>,
    seconds: f64,
    seconds_of_whole: f64,
}

impl Row {
    fn least(&self) -> f64 {
        self.psnr.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn mean(&self) -> f64 {
        self.psnr.iter().sum::<f64>() / self.psnr.len() as f64
    }
}

/// The frames of a run, what it said of its caches, and the seconds that sampling took.
fn frames(
    rig: &Rig,
    model: &Model<Value>,
    inputs: &[(&str, Value)],
) -> (Tensor, Option<(usize, usize)>, f64) {
    rig.reports.lock().unwrap().clear();
    let begun = std::time::Instant::now();
    let clean = rig.one("dit.sample", inputs);
    let seconds = begun.elapsed().as_secs_f64();
    let note = rig.reports.lock().unwrap().drain(..).find_map(|report| report.note);
    let reused = note.map(|note| {
        let words: Vec<&str> = note.split(' ').collect();
        (words[2].parse().unwrap(), words[4].parse().unwrap())
    });
    let latent = rig.one("unpatchify", &[("patches", clean)]);
    let frames = rig.one("vae.decode", &[("vae", model.vae.clone()), ("latent", latent)]);
    (frames.tensor().unwrap(), reused, seconds)
}

/// In decibels, of frames from 0 to 1.
fn psnr(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (values(a), values(b));
    let squares: f64 = a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum();
    -10.0 * (squares / a.len() as f64).log10()
}

/// A rule at some thresholds, the smallest first: at the first so little that all is computed.
fn measure(
    rig: &Rig,
    (kind, thresholds): (&str, &[f64]),
    (prompts, size): (&[&str], [i128; 3]),
) -> Vec<Row> {
    let model = rig.model("embedded:shapes");
    let mut rows: Vec<Row> = thresholds.iter().map(|_| Row::default()).collect();
    for (seed, prompt) in prompts.iter().enumerate() {
        let inputs = start(rig, &model, prompt, (seed as i128, size));
        let (whole, _, seconds_of_whole) = frames(rig, &model, &inputs);
        for (threshold, row) in thresholds.iter().zip(&mut rows) {
            let cache = [("cache", Value::Real(*threshold)), ("cache_kind", text(kind))];
            let (own, reused, seconds) = frames(rig, &model, &[&inputs[..], &cache].concat());
            let (some, all) = reused.expect("a run with a cache says so");
            if some == 0 {
                assert_eq!(distance(&own, &whole), 0.0, "{kind}: what is computed is the same");
            }
            (row.reused, row.passes) = (row.reused + some, row.passes + all);
            row.psnr.push(psnr(&own, &whole));
            row.seconds += seconds;
            row.seconds_of_whole += seconds_of_whole;
        }
    }
    rows
}

/// Frames with step caches against those of the whole run.
#[test]
fn frames_stay_close_to_those_of_the_whole_run() {
    let rig = Rig::new("step-cache-quality");
    let prompts = [
        "a red circle moves right on a white background",
        "a large blue square on a black background",
        "a green triangle turns on a yellow background",
        "a small yellow ring rises on a blue background",
        "a red star and a blue circle on a white background",
        "a purple square shrinks on a white background",
    ];
    let (prompts, size) = match is_long() {
        true => (&prompts[..], SIZE),
        false => (&prompts[..1], [64, 64, 5]),
    };
    // Of each rule the thresholds, and up to which the scene stays; beyond it may become another.
    let rules =
        [("first_block", [0.1, 0.15, 0.2, 0.3], 0.1), ("teacache", [0.06, 0.08, 0.1, 0.15], 0.08)];
    for (kind, thresholds, safe) in rules {
        let thresholds = match is_long() {
            true => &thresholds[..],
            false => &thresholds[..2],
        };
        let thresholds = [&[1e-6], thresholds].concat();
        let rows = measure(&rig, (kind, &thresholds), (prompts, size));
        assert_eq!(rows[0].reused, 0, "{kind}");
        for (pair, threshold) in rows.windows(2).zip(&thresholds[1..]) {
            let [before, row] = pair else { unreachable!() };
            println!(
                "{kind} {threshold}: {} of {} passes reused, PSNR {:.1} dB, at least {:.1} dB, \
                 sampling in {:.2} of the time",
                row.reused,
                row.passes,
                row.mean(),
                row.least(),
                row.seconds / row.seconds_of_whole
            );
            assert!(row.reused > 0 && row.reused >= before.reused, "{kind} {threshold}");
            let is_close = *threshold > safe || row.least() > 25.0;
            assert!(is_close, "{kind} {threshold}: {:?}", row.psnr);
        }
    }
}

/// What a denoiser gave, pass by pass: the timestep, and the velocity.
type Passes = Arc<Mutex<Vec<(f64, Tensor)>>>;

/// Wan whose denoisers write down what they give.
struct Recorded(Passes);

impl Family for Recorded {
    fn name(&self) -> &str {
        "Recorded"
    }

    fn recognises(&self, checkpoint: &Checkpoint) -> bool {
        Wan.recognises(checkpoint)
    }

    fn read(&self, checkpoint: &Checkpoint) -> Result<kino_models::model::Model> {
        let mut model = Wan.read(checkpoint)?;
        if let Some(denoiser) = &mut model.denoiser {
            let passes = Arc::clone(&self.0);
            denoiser.spec = Arc::new(RecordedSpec(Arc::clone(&denoiser.spec), passes));
        }
        Ok(model)
    }
}

struct RecordedSpec(Arc<dyn DenoiserSpec>, Passes);

impl DenoiserSpec for RecordedSpec {
    fn inputs(&self) -> &DenoiserInputs {
        self.0.inputs()
    }

    fn scheduler(&self) -> &SchedulerConfig {
        self.0.scheduler()
    }

    fn memory(&self, size: &RunSize) -> u64 {
        self.0.memory(size)
    }

    fn load(&self, weights: &Weights) -> Result<Arc<dyn Denoiser>> {
        Ok(Arc::new(RecordedDenoiser(self.0.load(weights)?, Arc::clone(&self.1))))
    }
}

struct RecordedDenoiser(Arc<dyn Denoiser>, Passes);

impl Denoiser for RecordedDenoiser {
    fn project(&self, conditioning: &Embeddings) -> Result<Projected> {
        self.0.project(conditioning)
    }

    fn velocity(
        &self,
        latents: &Packed<'_>,
        conditioning: &[&Projected],
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        let velocity = self.0.velocity(latents, conditioning, check_cancel)?;
        let (Timesteps::PerClip(timesteps) | Timesteps::PerToken(timesteps)) = latents.timesteps;
        let mut start = 0;
        for grid in latents.grids {
            let own = velocity.narrow(0, start, grid.tokens())?.copy()?;
            self.1.lock().unwrap().push((timesteps[0], own));
            start += grid.tokens();
        }
        Ok(velocity)
    }
}

/// Scenes as the model was trained on: one object, in three of ten two, drawn by SplitMix64.
fn prompts_to_fit() -> Vec<String> {
    const COLORS: [&str; 8] =
        ["red", "green", "blue", "yellow", "purple", "orange", "cyan", "pink"];
    const SHAPES: [&str; 5] = ["circle", "square", "triangle", "star", "ring"];
    const SIZES: [&str; 4] = ["small ", "", "", "large "];
    const GROUNDS: [&str; 5] = ["black", "white", "gray", "navy", "beige"];
    const MOTIONS: [&str; 9] = [
        "moves right",
        "moves left",
        "rises",
        "falls",
        "rests",
        "spins",
        "grows",
        "shrinks",
        "orbits",
    ];
    let mut state = 7u64;
    let mut draw = |below: usize| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % below as u64) as usize
    };
    let mut scene = |_| {
        let mut object = || {
            let (size, color, shape) = (SIZES[draw(4)], COLORS[draw(8)], SHAPES[draw(5)]);
            format!("a {size}{color} {shape} {}", MOTIONS[draw(9)])
        };
        let (one, other) = (object(), object());
        let objects = if draw(10) < 3 { format!("{one} and {other}") } else { one };
        format!("{objects} on a {} background", GROUNDS[draw(5)])
    };
    (0..70).map(&mut scene).collect()
}

/// ‖a − b‖₁ / ‖b‖₁
fn relative_change(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (values(a), values(b));
    let off: f64 = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).sum();
    off / b.iter().map(|b| b.abs()).sum::<f64>()
}

/// Of each step but the first of whole runs, with text and without: how far the timestep's
/// embedding has changed, and how far what the transformer gives.
fn changes(prompts: &[String]) -> Vec<(f64, f64)> {
    let passes = Passes::default();
    let rig = Rig::with_family("tea-cache-fit", Arc::new(Recorded(Arc::clone(&passes))));
    let model = rig.model("embedded:shapes");
    let folder = embedded();
    let config = TransformerConfig::read(&folder).unwrap();
    let weights = folder.weights("transformer", DType::F32, &Device::Cpu).unwrap();
    let dit = Dit::load(&config, &weights).unwrap();
    let mut changes = Vec::new();
    for (index, prompt) in prompts.iter().enumerate() {
        rig.run("dit.sample", &start(&rig, &model, prompt, (1000 + index as i128, SIZE)));
        let passes = std::mem::take(&mut *passes.lock().unwrap());
        assert_eq!(passes.len(), 2 * STEPS as usize);
        // Passes with text and without follow each other.
        for ((before, velocity_before), (timestep, velocity)) in passes.iter().zip(&passes[2..]) {
            let [time, time_before] =
                [*timestep, *before].map(|one| dit.time_embedding(&[one]).unwrap());
            let change = relative_change(&time, &time_before);
            changes.push((change, relative_change(velocity, velocity_before)));
        }
    }
    changes
}

fn embedded() -> ModelFolder {
    ModelFolder::embedded("embedded:shapes", kino_shapes::FILES)
}

/// The polynomial of degree 4 with the least squares, from the fourth power down: `numpy.polyfit(x,
/// y, 4)`, by the modified Gram-Schmidt process on the columns of the powers.
fn polyfit(points: &[(f64, f64)]) -> [f64; 5] {
    let power = |of: usize| points.iter().map(|(x, _)| x.powi(4 - of as i32)).collect();
    let mut columns: [Vec<f64>; 5] = std::array::from_fn(power);
    let mut rest: Vec<f64> = points.iter().map(|(_, y)| *y).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let subtract = |from: &mut [f64], factor: f64, column: &[f64]| {
        from.iter_mut().zip(column).for_each(|(from, column)| *from -= factor * column);
    };
    let (mut upper, mut projected) = ([[0.0; 5]; 5], [0.0; 5]);
    for k in 0..5 {
        upper[k][k] = dot(&columns[k], &columns[k]).sqrt();
        let unit: Vec<f64> = columns[k].iter().map(|value| value / upper[k][k]).collect();
        for later in k + 1..5 {
            upper[k][later] = dot(&unit, &columns[later]);
            subtract(&mut columns[later], upper[k][later], &unit);
        }
        projected[k] = dot(&unit, &rest);
        subtract(&mut rest, projected[k], &unit);
    }
    let mut coefficients = [0.0; 5];
    for k in (0..5).rev() {
        let known: f64 = (k + 1..5).map(|later| upper[k][later] * coefficients[later]).sum();
        coefficients[k] = (projected[k] - known) / upper[k][k];
    }
    coefficients
}

/// numpy 2.4.6: `np.polyfit(x, np.cos(20 * x) + x, 4)` of `x = np.linspace(0.1, 0.6, 12)`.
#[test]
fn the_least_squares_are_those_of_numpy() {
    let points: Vec<(f64, f64)> = (0..12)
        .map(|index| 0.1 + 0.5 * f64::from(index) / 11.0)
        .map(|x| (x, (20.0 * x).cos() + x))
        .collect();
    let expected = [
        1.210226665720601e3,
        -1.569085161660035e3,
        6.783778724506728e2,
        -1.091707328777346e2,
        5.119277016754219,
    ];
    for (own, expected) in polyfit(&points).iter().zip(expected) {
        assert!((own / expected - 1.0).abs() < 1e-9, "{own}, {expected}");
    }
}

/// How far a polynomial is off, as a part of the changes of the output. The second step is left
/// out: it comes from noise alone, changes most, and no usual threshold lets it be reused.
fn misfit(fit: &TeaCacheFit, changes: &[(f64, f64)]) -> f64 {
    let told = changes.iter().map(|(change, output)| (fit.rescaled(*change), *output));
    let later = told.filter(|(told, _)| *told < 0.2);
    let (off, all) = later
        .fold((0.0, 0.0), |(off, all), (told, output)| (off + (told - output).abs(), all + output));
    off / all
}

/// What lies beside the embedded model's weights was fitted to them: it tells the changes of some
/// runs, and is what all give again.
#[test]
fn the_embedded_model_has_the_polynomial_of_its_runs() {
    let fit: TeaCacheFit = embedded().json("transformer/tea_cache.json").unwrap();
    assert_eq!(fit.input, TeaCacheInput::Embedding, "what is compared here");
    let prompts = prompts_to_fit();
    let prompts = if is_long() { &prompts[..] } else { &prompts[..3] };
    let changes = changes(prompts);
    if is_long() {
        let refit = TeaCacheFit { coefficients: polyfit(&changes), ..fit };
        let said = refit.coefficients.map(|coefficient| format!("{coefficient:.8e}")).join(", ");
        println!("fitted to {} passes: {said}", changes.len());
        for (change, _) in &changes {
            let (own, again) = (fit.rescaled(*change), refit.rescaled(*change));
            assert!((own / again - 1.0).abs() < 0.02, "at {change}: {own}, now {again} by {said}");
        }
    }
    let misfit = misfit(&fit, &changes);
    println!("off by {misfit:.2} of the change");
    assert!(misfit < 0.8, "{misfit}: nothing would be off by 1, the change of the input by 2 to 4");
}
