//! Step caches of `dit.sample` against diffusers' First-Block cache and a transcription of TeaCache
//! (`tests/ref/step_cache.py`), and what they must leave as it is.

mod common;
#[path = "common/toy.rs"]
mod toy;

use std::sync::Arc;

use candle_core::{Device, Tensor};
use common::single::{self, File, Widths};
use common::{Copied, Model, Rig, close, distance, int, json, known, named, number, text};
use kino_node::{Error, Value};
use kino_port::{Fact, Literal};
use serde_json::Value as Json;

const VALUES: &str = "step_cache/values.safetensors";

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
        self.rig.reports.lock().unwrap().clear();
        let inputs = [
            ("dit", self.dit.clone()),
            ("patches", patches),
            ("text", self.prompts.clone()),
            ("steps", int(12)),
        ];
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

/// `transformer/tea_cache.json` with what a case was made with.
fn fitted(case: &Json) -> String {
    let input = if case["projection"].as_bool().unwrap() { "projection" } else { "embedding" };
    let (coefficients, first_steps) = (&case["coefficients"], &case["first"]);
    serde_json::json!({"coefficients": coefficients, "input": input, "first_steps": first_steps})
        .to_string()
}

#[test]
fn tea_cache_reuses_the_passes_that_its_authors_program_does() {
    let rig = Rig::new("tea-cache");
    let cases = json("step_cache/cases.json");
    let mut checked = 0;
    for case in cases["cases"].as_array().unwrap().iter().filter(|one| one["kind"] == "teacache") {
        let copied = Copied::new(&format!("tea-{checked}"));
        std::fs::write(copied.0.join("transformer/tea_cache.json"), fitted(case)).unwrap();
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

/// Guidance of a part of the run, a start, given frames at a timestep of their own, and
/// steps that add noise go on working; what is given stays as it is.
#[test]
fn a_cache_stands_beside_everything_else() {
    let rig = Rig::new("step-cache-beside");
    let sampler = Sampler::new(&rig, "wan_t2v/model");
    let guider = rig.one("guide.cfg", &[("from", Value::Real(0.25)), ("to", Value::Real(0.75))]);
    let start = sampler.patches(sampler.noise("large"));
    let cases = [
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
    let rig = Rig::with_family("step-cache-plan", Arc::new(toy::Toy(toy::Calls::default())));
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

/// What `tea_cache.json` says goes for the weights beside it, and not for others in their place.
#[test]
fn what_was_fitted_belongs_to_the_weights_beside_it() {
    let rig = Rig::new("tea-cache-file");
    let copied = Copied::new("tea-cache-file");
    let write = |text: &str| {
        std::fs::write(copied.0.join("transformer/tea_cache.json"), text).unwrap();
    };
    let cache = [("cache", Fact::Literal(Literal::Real(0.1))), ("cache_kind", known("teacache"))];
    let widths = Widths { dim: 128, text: 40, freq: 64, inner: 96 };
    let other = File::of("other.safetensors", &single::transformer(&widths));
    let sources = [("source", known(copied.path())), ("compute", known("f32"))];
    let replaced = [&sources[..], &[("transformer", known(other.path()))]].concat();
    let sampled = |load: &[(&str, Fact)]| {
        let parts = rig.infer("model.load", load).unwrap().outputs;
        let model = Model { text: parts[0].clone(), dit: parts[2].clone(), vae: parts[3].clone() };
        rig.infer("dit.sample", &facts_of(&rig, (model, 32, 1), &cache))
    };
    let keys = |load: &[(&str, Fact)]| rig.infer("model.load", load).unwrap().key;
    assert!(sampled(&sources).is_err(), "nothing is fitted to it");
    write(r#"{"coefficients": [0, 0, 0, 1, 0], "input": "embedding", "first_steps": 4}"#);
    let before = keys(&sources);
    assert!(sampled(&sources).is_ok());
    let refused = sampled(&replaced).unwrap_err();
    assert!(refused[0].message.starts_with("TeaCache needs a polynomial"), "{refused:?}");
    // Another polynomial makes another video.
    write(r#"{"coefficients": [0, 0, 0, 2, 0], "input": "embedding", "first_steps": 4}"#);
    assert_ne!(keys(&sources), before);
    let faults = [
        ("{", "not JSON or cut off"),
        (
            r#"{"coefficients": [0, 1, 0], "input": "embedding", "first_steps": 1}"#,
            "array of length 5",
        ),
        (r#"{"coefficients": [0, 0, 0, 1, 0], "input": "embedding"}"#, "`first_steps`"),
        (
            r#"{"coefficients": [0, 0, 0, 1, 0], "input": "time", "first_steps": 1}"#,
            "`embedding` or `projection`",
        ),
        (
            r#"{"coefficients": [0, 0, 0, 1, 0], "input": "embedding", "first_steps": 1, "x": 1}"#,
            "`x` is 1; expected one of `coefficients`",
        ),
    ];
    for (text, expected) in faults {
        write(text);
        let told = rig.objects("model.load", &sources);
        let is_told = told.contains("transformer/tea_cache.json") && told.contains(expected);
        assert!(is_told, "{text}: {told}");
    }
}

/// What is known before a model samples a clip.
fn facts<'a>(
    rig: &Rig,
    (model, side, frames): (&str, i128, i128),
    more: &[(&'a str, Fact)],
) -> Vec<(&'a str, Fact)> {
    facts_of(rig, (rig.model_facts(model), side, frames), more)
}

fn facts_of<'a>(
    rig: &Rig,
    (model, side, frames): (Model<Fact>, i128, i128),
    more: &[(&'a str, Fact)],
) -> Vec<(&'a str, Fact)> {
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
