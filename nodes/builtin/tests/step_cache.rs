//! Step caches of `dit.sample` against diffusers' First-Block cache and a transcription of TeaCache
//! (`tests/ref/step_cache.py`), and what they must leave as it is.

mod common;
#[path = "common/toy.rs"]
mod toy;

use std::sync::Arc;

use candle_core::{Device, Tensor};
use common::{Copied, Rig, close, distance, int, json, known, named, number, text};
use kino_models::checkpoint::ModelFiles;
use kino_models::families::Families;
use kino_models::families::wan::Wan;
use kino_models::model::{Denoiser, DenoiserInputs, DenoiserSpec, Family, Model, RunSize};
use kino_models::patch::Grid;
use kino_models::sampling::{
    SchedulerConfig, StepCacheKind, StepCacheRule, TeaCacheFit, TeaCacheInput,
};
use kino_models::{Checkpoint, Result, Weights};
use kino_node::{Error, Value};
use kino_nodes::Models;
use kino_port::{Fact, Literal};
use serde_json::Value as Json;

const VALUES: &str = "step_cache/values.safetensors";

/// Wan with something fitted to it, as the file `tea_cache.json` beside it says.
struct Fitted;

impl Family for Fitted {
    fn name(&self) -> &str {
        "Fitted"
    }

    fn recognises(&self, checkpoint: &Checkpoint) -> bool {
        checkpoint.json::<Json>("tea_cache.json").is_ok()
    }

    fn read(&self, checkpoint: &Checkpoint) -> Result<Model> {
        let case: Json = checkpoint.json("tea_cache.json")?;
        let coefficients: Vec<f64> = numbers(&case["coefficients"]);
        let input = match case["projection"].as_bool().unwrap() {
            true => TeaCacheInput::Projection,
            false => TeaCacheInput::Embedding,
        };
        let first_steps = case["first"].as_u64().unwrap() as usize;
        let coefficients = coefficients.try_into().unwrap();
        let fit = TeaCacheFit { coefficients, input, first_steps };
        let mut model = Wan.read(checkpoint)?;
        if let Some(denoiser) = &mut model.denoiser {
            denoiser.spec = Arc::new(WithFit(Arc::clone(&denoiser.spec), fit));
        }
        Ok(model)
    }
}

struct WithFit(Arc<dyn DenoiserSpec>, TeaCacheFit);

impl DenoiserSpec for WithFit {
    fn inputs(&self) -> &DenoiserInputs {
        self.0.inputs()
    }

    fn scheduler(&self) -> &SchedulerConfig {
        self.0.scheduler()
    }

    fn step_cache(&self, kind: StepCacheKind, grid: Grid) -> Option<StepCacheRule> {
        match kind {
            StepCacheKind::TeaCache => Some(StepCacheRule::TeaCache(self.1)),
            StepCacheKind::FirstBlock => self.0.step_cache(kind, grid),
        }
    }

    fn memory(&self, size: &RunSize) -> u64 {
        self.0.memory(size)
    }

    fn load(&self, weights: &Weights) -> Result<Arc<dyn Denoiser>> {
        self.0.load(weights)
    }
}

fn numbers(json: &Json) -> Vec<f64> {
    json.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// A rig whose models know one family more.
fn rig_with(name: &str, family: Arc<dyn Family>) -> Rig {
    let mut rig = Rig::new(name);
    let families = Families::default().with(family);
    let models = Models::with_families(Device::Cpu, Arc::clone(&rig.services.ledger), families);
    let none = kino_node::Services::new(Device::Cpu, kino_node::Ledger::new(0));
    rig.services = std::mem::replace(&mut rig.services, none).with(models);
    rig
}

/// A model that samples with the cases' prompts.
struct Sampler<'a> {
    rig: &'a Rig,
    dit: Value,
    prompts: Value,
}

impl<'a> Sampler<'a> {
    fn new(rig: &'a Rig, model: &str) -> Self {
        let cases = json("step_cache/cases.json");
        let model = rig.model(model);
        let prompts = [
            ("encoder", model.text),
            ("prompt", text(cases["prompt"].as_str().unwrap())),
            ("negative", text(cases["negative"].as_str().unwrap())),
        ];
        Sampler { rig, dit: model.dit, prompts: rig.one("text.encode", &prompts) }
    }

    fn noise(&self, size: &str) -> Value {
        let noise = self.rig.golden(VALUES, &format!("noise_{size}")).tensor().unwrap();
        Value::Tensor(noise.squeeze(0).unwrap())
    }

    fn patches(&self, latents: Value) -> Value {
        self.rig.one("patchify", &[("dit", self.dit.clone()), ("latents", latents)])
    }

    /// The patches, and what the step said of its caches.
    fn patched(&self, patches: Value, more: &[(&str, Value)]) -> (Value, Vec<String>) {
        self.again(patches, &[&[("steps", int(12))], more].concat())
    }

    /// The same without a number of steps.
    fn again(&self, patches: Value, more: &[(&str, Value)]) -> (Value, Vec<String>) {
        self.rig.reports.lock().unwrap().clear();
        let inputs =
            [("dit", self.dit.clone()), ("patches", patches), ("text", self.prompts.clone())];
        let clean = self.rig.one("dit.sample", &[&inputs[..], more].concat());
        let mut reports = self.rig.reports.lock().unwrap();
        (clean, reports.drain(..).filter_map(|report| report.note).collect())
    }

    fn sample(&self, size: &str, more: &[(&str, Value)]) -> (Tensor, Vec<String>) {
        let (clean, notes) = self.patched(self.patches(self.noise(size)), more);
        (self.rig.one("unpatchify", &[("patches", clean)]).tensor().unwrap(), notes)
    }
}

fn cached(threshold: f64, kind: &str) -> Vec<(&'static str, Value)> {
    vec![("cache", Value::Real(threshold)), ("cache_kind", text(kind))]
}

/// How many passes of how many a note says were reused.
fn reused(notes: &[String]) -> (usize, usize) {
    let words: Vec<&str> = notes[0].split(' ').collect();
    (words[2].parse().unwrap(), words[4].parse().unwrap())
}

/// Runs a case; latents and the passes that were reused must be the reference's.
fn check(sampler: &Sampler<'_>, case: &Json) {
    let name = case["name"].as_str().unwrap();
    let guidance = case.get("guidance").map_or(4.0, |guidance| guidance.as_f64().unwrap());
    let mut more = cached(case["threshold"].as_f64().unwrap(), case["kind"].as_str().unwrap());
    more.push(("guidance", Value::Real(guidance)));
    let (latent, notes) = sampler.sample(case["size"].as_str().unwrap(), &more);
    let passes: String =
        case["computed"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    let (some, all) = (passes.matches('0').count(), passes.len());
    assert_eq!(notes, [format!("step cache: {some} of {all} passes were reused")], "{name}");
    assert!(some > 0, "{name}");
    let expected = sampler.rig.golden(VALUES, name).tensor().unwrap();
    close(name, &latent, &expected, 1e-4);
    let (full, said) = sampler.sample(case["size"].as_str().unwrap(), &more[2..]);
    assert!(distance(&full, &latent) > 0.1, "{name}: what is reused shows");
    assert!(said.is_empty(), "a run without a cache says nothing of one");
}

#[test]
fn first_block_caches_reuse_the_passes_that_diffusers_reuses() {
    let rig = Rig::new("first-block");
    let models = ["wan_t2v", "wan22_a14b"];
    let samplers = models.map(|model| Sampler::new(&rig, &format!("{model}/model")));
    let cases = json("step_cache/cases.json");
    let mut checked = [0, 0];
    for case in cases["cases"].as_array().unwrap() {
        if case["kind"] == "first_block" {
            let of = models.iter().position(|model| case["model"] == **model).unwrap();
            check(&samplers[of], case);
            checked[of] += 1;
        }
    }
    assert_eq!(checked, [5, 1]);
}

#[test]
fn tea_cache_reuses_the_passes_that_its_authors_program_does() {
    let rig = rig_with("tea-cache", Arc::new(Fitted));
    let cases = json("step_cache/cases.json");
    let mut checked = 0;
    for case in cases["cases"].as_array().unwrap().iter().filter(|one| one["kind"] == "teacache") {
        let copied = Copied::new(&format!("tea-{checked}"));
        std::fs::write(copied.0.join("tea_cache.json"), case.to_string()).unwrap();
        let sampler = Sampler::new(&rig, copied.path());
        check(&sampler, case);
        // Where something is fitted to the model, `auto` takes it.
        let (threshold, size) =
            (case["threshold"].as_f64().unwrap(), case["size"].as_str().unwrap());
        let by = |kind: &str| sampler.sample(size, &cached(threshold, kind));
        let (auto, own) = (by("auto"), by("teacache"));
        assert_eq!((distance(&auto.0, &own.0), auto.1), (0.0, own.1));
        checked += 1;
    }
    assert_eq!(checked, 3);
}

/// Each clip decides for itself: packed with others, it is what it is alone. The same again gives
/// the same bytes, and a threshold of 0 those of a run without a cache.
#[test]
fn packed_clips_reuse_what_they_reuse_alone() {
    let rig = Rig::new("step-cache-packed");
    let sampler = Sampler::new(&rig, "wan_t2v/model");
    let cache = cached(0.58, "auto");
    let (small, large) = (sampler.noise("small"), sampler.noise("large"));
    let clips = named(&[("small", small.clone()), ("large", large.clone()), ("again", small)]);
    let (packed, notes) = sampler.patched(sampler.patches(clips), &cache);
    let mut sum = (0, 0);
    for (name, size) in [("small", "small"), ("large", "large"), ("again", "small")] {
        let (alone, notes) = sampler.sample(size, &cache);
        let own = [("patches", packed.clone()), ("clip", text(name))];
        let own = rig.one("unpatchify", &own).tensor().unwrap();
        close(name, &own, &alone, 1e-4);
        let (some, all) = reused(&notes);
        sum = (sum.0 + some, sum.1 + all);
    }
    assert_eq!(reused(&notes), sum);
    assert!(sum.0 > 10 && sum.1 == 3 * 24, "{sum:?}");
    let (a, b) = (sampler.sample("large", &cache).0, sampler.sample("large", &cache).0);
    assert_eq!(distance(&a, &b), 0.0);
    let (plain, off) =
        (sampler.sample("large", &[]), sampler.sample("large", &cached(0.0, "auto")));
    assert_eq!(distance(&plain.0, &off.0), 0.0);
    assert!(off.1.is_empty());
}

/// Guidance of a part of the run, a start, given frames at a timestep of their own, a control, and
/// steps that add noise go on working; what is given stays as it is.
#[test]
fn a_cache_stands_beside_everything_else() {
    let rig = Rig::new("step-cache-beside");
    let sampler = Sampler::new(&rig, "wan_t2v/model");
    let guider = rig.one("guide.cfg", &[("from", Value::Real(0.25)), ("to", Value::Real(0.75))]);
    let start = sampler.patches(sampler.noise("large"));
    let cases: [(&str, Vec<(&'static str, Value)>, usize); 3] = [
        ("guider", vec![("guider", guider)], 12 + 6),
        ("start", vec![("start", start), ("strength", Value::Real(0.5))], 12),
        ("lcm", vec![("scheduler", text("lcm"))], 24),
    ];
    for (name, more, passes) in cases {
        // So little that all is computed: the same numbers as without.
        let (plain, _) = sampler.sample("large", &more);
        let with = |threshold: f64| {
            sampler.sample("large", &[more.clone(), cached(threshold, "auto")].concat())
        };
        let (none, notes) = with(1e-9);
        close(name, &none, &plain, 1e-4);
        assert_eq!(notes, [format!("step cache: 0 of {passes} passes were reused")], "{name}");
        let (some, notes) = with(0.9);
        assert!(!notes[0].contains(" 0 of") && distance(&some, &plain) > 1e-3, "{name}: {notes:?}");
    }
    let ti2v = rig.model("wan22_ti2v/model");
    let pixels = Tensor::rand(0f32, 1f32, (1, 32, 64, 3), &Device::Cpu).unwrap();
    let given = [
        ("dit", ti2v.dit.clone()),
        ("vae", ti2v.vae.clone()),
        ("frames", int(5)),
        ("start", Value::Tensor(pixels)),
    ];
    let given = rig.one("given", &given);
    let noise = [("vae", ti2v.vae), ("width", int(64)), ("height", int(32)), ("frames", int(5))];
    let noise = rig.one("latent.noise", &[&noise[..], &[("seed", int(1))]].concat());
    let sampler = Sampler { dit: ti2v.dit, ..Sampler::new(&rig, "wan22_ti2v/model") };
    let more = [vec![("given", given.clone())], cached(0.9, "first_block")].concat();
    let (clean, notes) = sampler.patched(sampler.patches(noise), &more);
    assert!(!notes[0].contains(" 0 of"), "{notes:?}");
    let clean = rig.one("unpatchify", &[("patches", clean)]).tensor().unwrap();
    let held = given.shared::<kino_node::Given>().unwrap().latent.tensor.narrow(1, 0, 1).unwrap();
    assert_eq!(distance(&clean.narrow(1, 0, 1).unwrap(), &held), 0.0, "the given frame");
}

#[test]
fn a_cancelled_run_with_a_cache_stops() {
    let rig = Rig::new("step-cache-cancel");
    let sampler = Sampler::new(&rig, "wan_t2v/model");
    rig.cancel.cancel();
    let inputs = [
        ("dit", sampler.dit.clone()),
        ("patches", sampler.patches(sampler.noise("small"))),
        ("text", sampler.prompts.clone()),
        ("cache", Value::Real(0.1)),
    ];
    assert!(matches!(rig.try_run("dit.sample", &inputs), Err(Error::Cancelled)));
}

/// Where a transformer has no such cache, or all steps are computed anyway, the plan says so.
#[test]
fn what_has_no_cache_is_told_in_the_plan() {
    let rig = rig_with("step-cache-plan", Arc::new(toy::Toy(toy::Calls::default())));
    let folder = std::env::temp_dir().join(format!("kino-step-cache-{}", std::process::id()));
    toy::checkpoint(&folder);
    let cache = |kind: &str| {
        let threshold = Fact::Literal(Literal::Real(0.1));
        [("cache", threshold), ("cache_kind", known(kind))]
    };
    for model in ["wan_t2v/model", "wan22_a14b/model", "wan22_ti2v/model"] {
        assert_eq!(
            rig.objects("dit.sample", &facts(&rig, (model, 32, 1), &cache("teacache"))),
            "cache_kind: TeaCache needs a polynomial that was fitted to the model, and none is \
             published for this one (\"first_block\" needs none)",
            "{model}"
        );
        for kind in ["auto", "first_block"] {
            let info = rig.infer("dit.sample", &facts(&rig, (model, 32, 1), &cache(kind))).unwrap();
            assert_eq!(info.warnings, [], "{model}, {kind}");
            let plain = rig.infer("dit.sample", &facts(&rig, (model, 32, 1), &[])).unwrap();
            assert!(info.memory > plain.memory, "what is kept is foreseen");
        }
    }
    let toy = folder.to_str().unwrap();
    for kind in ["auto", "teacache", "first_block"] {
        let told = rig.objects("dit.sample", &facts(&rig, (toy, 16, 4), &cache(kind)));
        assert_eq!(
            told,
            "cache: this transformer has no step cache (leave `cache` out: every step is computed \
             then)",
            "{kind}"
        );
    }
    let few = [cache("auto").to_vec(), vec![("steps", number(2))]].concat();
    let info = rig.infer("dit.sample", &facts(&rig, ("wan_t2v/model", 32, 1), &few)).unwrap();
    let told: Vec<&str> = info.warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(told, ["nothing is reused in 2 steps: the first and the last are always computed"]);
    std::fs::remove_dir_all(folder).unwrap();
}

/// What is known before a model samples a clip.
fn facts<'a>(
    rig: &Rig,
    (model, side, frames): (&str, i128, i128),
    more: &[(&'a str, Fact)],
) -> Vec<(&'a str, Fact)> {
    let model = rig.model_facts(model);
    let size = [
        ("vae", model.vae),
        ("width", number(side)),
        ("height", number(side)),
        ("frames", number(frames)),
        ("seed", number(1)),
    ];
    let latents = rig.fact("latent.noise", &size, 0);
    let patches = [("dit", model.dit.clone()), ("latents", latents)];
    let text = [("encoder", model.text), ("prompt", known("x"))];
    let inputs = [
        ("dit", model.dit),
        ("patches", rig.fact("patchify", &patches, 0)),
        ("text", rig.fact("text.encode", &text, 0)),
    ];
    [&inputs[..], more].concat()
}

/// What step caches cost on the embedded model: the frames against those of the whole run, over
/// some prompts. `KINO_TEST_QUALITY=1` prints more thresholds and prompts.
#[test]
fn frames_stay_close_to_those_of_the_whole_run() {
    let long = std::env::var_os("KINO_TEST_QUALITY").is_some();
    let rig = Rig::new("step-cache-quality");
    let model = rig.model("embedded:shapes");
    let prompts = [
        "a red circle moves right on a white background",
        "a large blue square on a black background",
        "a green triangle turns on a yellow background",
        "a small yellow ring rises on a blue background",
        "a red star and a blue circle on a white background",
        "a purple square shrinks on a white background",
    ];
    let (thresholds, prompts, size): (&[f64], _, [i128; 3]) = match long {
        true => (&[0.1, 0.15, 0.2, 0.3], &prompts[..], [96, 64, 17]),
        false => (&[0.1], &prompts[..1], [64, 64, 5]),
    };
    let sizes = [("width", int(size[0])), ("height", int(size[1])), ("frames", int(size[2]))];
    let mut rows = vec![(0, 0, Vec::new(), 0.0, 0.0); thresholds.len()];
    for (seed, prompt) in prompts.iter().enumerate() {
        let text = [("encoder", model.text.clone()), ("prompt", text(prompt))];
        let text = rig.one("text.encode", &text);
        let noise = [("vae", model.vae.clone()), ("seed", int(seed as i128))];
        let latents = rig.one("latent.noise", &[&noise[..], &sizes].concat());
        let patches = [("dit", model.dit.clone()), ("latents", latents)];
        let sampler = Sampler { rig: &rig, dit: model.dit.clone(), prompts: text };
        let patches = rig.one("patchify", &patches);
        let run = |threshold: f64| {
            let more = [vec![("steps", int(20))], cached(threshold, "first_block")].concat();
            let begun = std::time::Instant::now();
            let (clean, notes) = sampler.again(patches.clone(), &more);
            let seconds = begun.elapsed().as_secs_f64();
            let latent = rig.one("unpatchify", &[("patches", clean)]);
            let frames = rig.one("vae.decode", &[("vae", model.vae.clone()), ("latent", latent)]);
            (frames.tensor().unwrap(), notes, seconds)
        };
        let (whole, _, plain_seconds) = run(0.0);
        for (threshold, row) in thresholds.iter().zip(&mut rows) {
            let (frames, notes, seconds) = run(*threshold);
            let (reused, all) = reused(&notes);
            let off = (frames - &whole).unwrap().sqr().unwrap().mean_all().unwrap();
            let psnr = -10.0 * f64::from(off.to_scalar::<f32>().unwrap()).log10();
            (row.0, row.1) = (row.0 + reused, row.1 + all);
            row.2.push(psnr);
            (row.3, row.4) = (row.3 + seconds, row.4 + plain_seconds);
        }
    }
    for (threshold, (reused, all, psnr, seconds, plain)) in thresholds.iter().zip(&rows) {
        let (mean, least) = (
            psnr.iter().sum::<f64>() / psnr.len() as f64,
            psnr.iter().copied().fold(f64::INFINITY, f64::min),
        );
        println!(
            "threshold {threshold}: {reused} of {all} passes reused, PSNR {mean:.1} dB, at least \
             {least:.1} dB, sampling in {:.2} of the time",
            seconds / plain
        );
        assert!(*reused > 0, "{threshold}");
        // Beyond, the scene may become another.
        assert!(*threshold > 0.1 || least > 20.0, "{threshold}: {psnr:?}");
    }
}
