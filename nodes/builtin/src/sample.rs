//! `dit.sample`: from noise to data along the velocity that a transformer gives.

mod cache;
mod clips;
mod control;
mod given;
mod known;
mod noise;
mod picture;

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use kino_models::model::{EmbeddingSpec, GivenInput, GuidanceInput, RunSize};
use kino_models::patch::unpatchify;
use kino_models::sampling::{Schedule, ScheduleKind, Solver, StepCacheKind};
use kino_node::{
    Clip, ClipFact, Conditioning, ConditioningFact, Cx, Embeddings, Error, Given, GivenFact,
    Guider, GuiderHandle, ImageConditioning, Inputs, Latent, Mask, NodeDef, Outputs, Patches,
    PatchesFact, Result, SamplingStep, Services, Sigmas, TensorFact, Value, ValueType,
};
use kino_port::{
    Fact, Facts, NodeTraits, PlanError, PlannedWeights, PortType, Sigma, Signature, StepInfo,
    StreamedWeights, count, edge, int, list, optional, optional_list, ports, real, text,
};

use crate::error::{IntoNode, check_cancel};
use crate::infer::{InferCx, InferResult, f32_bytes, known, named_facts, refuse};
use crate::models::{DitHandle, Models, Network, streamed};
use crate::patches::{grid_of, object_to_tensor, patch_tuple};
use crate::schedule::{ClassifierFree, MAX_STEPS, levels, tokens};
use cache::CacheChoice;
use clips::{Leading, Packed, Text, items_of_clips, texts_of_clips};
use control::{controls, infer_control, without_pictures};
use given::{check_given, givens_of_clips};
use known::{Known, check_known, check_mask, check_start, noised, skipped};

/// Turns noise into clean latents, step by step, led by the text.
pub(crate) static SAMPLE: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("dit.sample"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(ABOUT),
        inputs: ports![
            edge("dit", PortType::Dit).about("The diffusion transformer."),
            edge("patches", PortType::Patches)
                .about("Noise as packed patches, of one or several clips."),
            list("text", PortType::Conditioning).about(
                "One text for all clips, or one a clip: by name where both are maps, else in order."
            ),
            optional("image", PortType::ImageConditioning)
                .about("What an image encoder saw, for a transformer that reads pictures."),
            optional_list("given", PortType::Given).about(
                "Frames that a clip must contain, of some or all clips: by name, else in order."
            ),
            optional_list("control", PortType::Control).about(
                "What clips follow beside their text (Wan VACE), some or all: by name, else in \
                 order."
            ),
            optional("start", PortType::Patches)
                .about("Latents to begin with instead of noise alone, as many clips as `patches`."),
            real("strength", 1.0).within(0.0, 1.0).about(
                "How much of a `start` is made anew: 1 is everything, a small value hardly \
                 anything."
            ),
            optional_list("mask", PortType::Mask).about(
                "Where clips are made anew (1) and where they stay (0), of the size of the frames: \
                 one for all clips, or one a clip."
            ),
            optional_list("known", PortType::Latent)
                .about("What stays outside the masks, one latent a clip; `start` if not given."),
            optional("sigmas", PortType::Sigmas)
                .about("Falling noise levels of the run; they replace `steps` and `shift`."),
            optional("guider", PortType::Guider)
                .about("Joins velocities with and without text; it replaces `guidance`."),
            count("steps", 20)
                .between(1, MAX_STEPS)
                .unit("steps")
                .about("Steps from noise to data."),
            real("guidance", 4.0)
                .within(1.0, 30.0)
                .about(
                    "How strongly the text leads; 1 is not at all, and costs half. A transformer that \
                     was distilled for it is told (FLUX.1 dev), or takes no notice (schnell)."
                ),
            real("guidance_low", 4.0).within(1.0, 30.0).or_none().about(
                "The same at low noise levels, where the transformer has two experts; `guidance` if \
                 not given. With a `guidance` of 1 neither is led by it."
            ),
            real("shift", 1.0).within(0.01, 100.0).or_none().about(
                "How far noise levels are pushed towards noise; the model's own if not given."
            ),
            real("fps", 25.0).within(1.0, 240.0).or_none().about(
                "Frames a second of the clip, for a transformer that is told (LTX-Video: 25 if not \
                 given). What is written gets its rate from `video.write`."
            ),
            text("scheduler", "auto").choices(&SCHEDULERS).about(
                "How steps are taken: as the model's scheduler does, or by UniPC, Euler, \
                 DPM-Solver++ or latent consistency."
            ),
            int("seed", 0)
                .between(0, u64::MAX as i128)
                .draws()
                .about("Which noise `lcm` adds in each step; the other schedulers add none."),
            real("cache", 0.0).within(0.0, 1.0).about(
                "Reuses what the transformer's blocks gave in the step before where less than this \
                 has changed: faster, and no longer quite the same. 0 computes every step."
            ),
            text("cache_kind", "auto").choices(&cache::KINDS).about(
                "What tells how much has changed: `teacache`, by the timestep, for models for which \
                 that was measured (usual: 0.05 to 0.3), or `first_block`, by the first block, for \
                 all (usual: 0.05 to 0.2). `auto`: the first of the two that the model has."
            ),
        ],
        outputs: ports![
            edge("patches", PortType::Patches).about(
                "Clean latents as packed patches, without the pictures of a control before them."
            ),
            edge("trace", PortType::Tensor).about(
                "The latent after each step, before what is given is put in place and with the \
                 pictures of a control: `[steps, c, f, h, w]` of one clip, `[steps, tokens, \
                 c·pt·ph·pw]` of several."
            ),
        ],
        traits: NodeTraits::EXPENSIVE,
    },
    infer,
    run,
};

const ABOUT: &str = "Turns noise into clean latents, step by step, led by a text. In each step \
the transformer gives the velocity of every patch, once with the prompt and once with the \
negative prompt; the guider joins the two, and the scheduler moves the latents one noise level \
down (UniPC: arXiv:2302.04867; Euler: arXiv:2209.03003; DPM-Solver++, 2M: arXiv:2211.01095; latent \
consistency, for models distilled to few steps: arXiv:2310.04378).\n\n\
Several clips of any sizes are sampled at once, each as it would be alone. The text's keys and \
values are computed once a run. What is `given` of a clip stays as it is: the transformer sees it \
free of noise, and the rest is made to go with it. A `control` (of `vace`) leads a clip by a video, \
a mask and pictures; noise has latent frames for its pictures, too, and they are taken away in the \
end. Of two experts (Wan 2.2 A14B) one computes at a \
time: the second takes over below a noise level that the model says, and the first may leave \
memory. Steps that are not guided skip the second pass. A step costs two \
passes of the transformer: its time grows with the patches, and in attention with their square. \
Shapes: patches `[tokens, c·pt·ph·pw]`, in and out.\n\n\
Video to video: `start` is brought to the noise level of the first step, (1 − σ)·start + σ·patches, \
and only the last `strength` of the steps are run (arXiv:2108.01073). Inpainting: after each step \
the `known` part, at that step's level, is put back where the `mask` is 0 (arXiv:2201.09865); the \
mask is averaged over the pixels and frames of a latent pixel. Decoding mixes neighbouring latent \
pixels: a few pixels along the mask's edge change, too.\n\n\
Step caches: with a `cache` above 0 a pass whose result has hardly changed since the step before \
adds again what the blocks added then, and costs next to nothing (TeaCache: arXiv:2411.19108, with \
the polynomials and first steps that are published for Wan 2.1 of 1.3B and 14B, or that \
`transformer/tea_cache.json` in the model's folder names; First-Block cache, \
as diffusers' FirstBlockCacheConfig). Each clip decides for itself, with and without text apart; the \
first step and the last are always computed. The run says how many passes were reused.\n\n\
Example:\n    \"sample\": (op: \"dit.sample\", in: {\"dit\": \"model.dit\", \"patches\": \
\"patches\", \"text\": \"text\"}, with: {\"steps\": 20, \"guidance\": 4.0}),";

const SCHEDULERS: [Cow<'static, str>; 5] = [
    Cow::Borrowed("auto"),
    Cow::Borrowed("unipc"),
    Cow::Borrowed("euler"),
    Cow::Borrowed("dpm++"),
    Cow::Borrowed("lcm"),
];

fn infer(services: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    object_to_tensor(&mut review, facts);
    let steps = steps(&mut review, facts);
    let part = review.part::<DitHandle>("dit");
    let patches = facts.typed::<PatchesFact>("patches");
    if let (Some(part), Some(patches)) = (&part, patches) {
        review.take(check_patches(part, &patches.clips, patches.patch));
        if !facts.is_fed("shift") && !facts.is_fed("sigmas") {
            review.take(tokens(part.spec.scheduler(), &patches.clips));
        }
    }
    let texts = named_facts(facts, "text");
    let mut distinct_rows = Some(0);
    for (_, fact) in &texts {
        let Some(text) = review.take(known::<Conditioning>("text", fact)).flatten() else {
            distinct_rows = None;
            continue;
        };
        let rows = text.distinct_rows.or(text.text().map(|(rows, _)| rows));
        distinct_rows = distinct_rows.zip(rows).map(|(most, rows)| most.max(rows));
        if let Some(part) = &part {
            check_text(part, &text, facts.is_fed("image"))
                .into_iter()
                .for_each(|e| review.error(e));
        }
    }
    if let Some(part) = &part {
        infer_image(&mut review, facts, part);
        review.take(check_guidance_low(part, facts.is_fed("guidance_low")));
        review.take(check_frame_rate(part, facts.is_fed("fps")));
    }
    let Some(patches) = patches else {
        infer_start(&mut review, facts, part.as_deref(), steps);
        return review.finish(StepInfo::default());
    };
    let names: Vec<Option<&str>> = texts.iter().map(|(name, _)| name.as_deref()).collect();
    review.take(texts_of_clips(&names, &patches.clips));
    let cache = infer_cache(&mut review, facts, part.as_deref(), patches);
    infer_given(&mut review, facts, part.as_deref(), patches);
    let clean = infer_control(&mut review, facts, part.as_deref(), patches);
    let steps = infer_known(&mut review, facts, part.as_deref(), (patches, steps));
    let warnings = cache.zip(steps).and_then(|(cache, steps)| cache.idle(steps));
    let trace = steps.map_or(Fact::Unknown, |steps| trace_fact(patches, steps));
    let held = held(|port| facts.is_fed(port));
    let mut tokens = patches.clips.iter().map(ClipFact::tokens);
    let tokens = tokens.try_fold(0_usize, |all, tokens| Some(all.saturating_add(tokens?)));
    // Of clips that are not known nothing is said of what they need.
    let part = part.zip(tokens);
    let (texts, beside) = ((texts.len(), distinct_rows), (held, cache.map(|cache| cache.kind)));
    let planned = part.map(|(part, tokens)| {
        let run = run_bytes(&part, tokens, texts, beside);
        Planned::of(&part, services.device_ledger().budget(), run)
    });
    let Planned { memory, weights, streamed } = planned.unwrap_or_default();
    review.finish(StepInfo {
        outputs: vec![clean.map_or(Fact::Unknown, Fact::typed), trace],
        memory,
        weights,
        streamed,
        optional: of_previews(services, &patches.clips),
        warnings: warnings.into_iter().collect(),
        ..StepInfo::default()
    })
}

/// How many tensors of the latents' size are kept: what is begun with, what stays outside masks,
/// what is given and the latents with it in place.
fn held(is_fed: impl Fn(&str) -> bool) -> usize {
    let fed = |port| usize::from(is_fed(port));
    fed("start") + 4 * fed("mask") + 2 * fed("given")
}

/// The step cache that is asked for, if one is and the transformer has it.
fn infer_cache(
    review: &mut InferCx<'_>,
    facts: &Facts,
    part: Option<&DitHandle>,
    patches: &PatchesFact,
) -> Option<CacheChoice> {
    let (threshold, kind) = (facts.real("cache")?, facts.text("cache_kind")?);
    let clips: Vec<Clip> = patches.clips.iter().map(ClipFact::clip).collect::<Option<_>>()?;
    review.take(CacheChoice::new(part?, threshold, kind, &clips)).flatten()
}

/// Holds what is given against its clips.
fn infer_given(
    review: &mut InferCx<'_>,
    facts: &Facts,
    part: Option<&DitHandle>,
    patches: &PatchesFact,
) {
    let givens = named_facts(facts, "given");
    let names: Vec<Option<&str>> = givens.iter().map(|(name, _)| name.as_deref()).collect();
    let of_clips = review.take(givens_of_clips(&names, &patches.clips));
    let (Some(part), Some(of_clips)) = (part, of_clips) else { return };
    review.take(check_all_given(part, &of_clips));
    for (clip, of) in patches.clips.iter().zip(of_clips) {
        let known = of.and_then(|of| givens[of].1.get::<GivenFact>());
        if let Some(given) = known {
            review.take(check_given(part, clip, patches.patch, given));
        }
    }
}

/// Holds what sampling begins with and what stays against the clips; gives the steps that are run,
/// if they are known.
fn infer_known(
    review: &mut InferCx<'_>,
    facts: &Facts,
    part: Option<&DitHandle>,
    (patches, steps): (&PatchesFact, Option<usize>),
) -> Option<usize> {
    if let Some(start) = review.known::<Patches>("start") {
        review.take(check_start(&start, patches));
    }
    review_items::<Mask>(review, facts, ("mask", "mask"), patches, check_mask);
    review_items::<Latent>(review, facts, ("known", "latent"), patches, check_known);
    infer_start(review, facts, part, steps)
}

/// Holds what is asked of a start against each other; gives the steps that are run, if they are
/// known.
fn infer_start(
    review: &mut InferCx<'_>,
    facts: &Facts,
    part: Option<&DitHandle>,
    steps: Option<usize>,
) -> Option<usize> {
    let fed = |port: &str| !named_facts(facts, port).is_empty();
    review.take(check_fed(fed("start"), facts.real("strength"), fed("mask"), fed("known")));
    let (steps, strength) = (steps?, facts.real("strength")?);
    let run = part?.spec.steps_of_strength(steps, strength);
    review.take(skipped(run, (steps, strength))).map(|skipped| steps - skipped)
}

/// Holds the items of a list port against their clips.
fn review_items<T: ValueType>(
    review: &mut InferCx<'_>,
    facts: &Facts,
    (port, noun): (&str, &str),
    patches: &PatchesFact,
    check: impl Fn(&T::Fact, &ClipFact, [usize; 3]) -> Result<(), PlanError>,
) {
    let items = named_facts(facts, port);
    if items.is_empty() {
        return;
    }
    let names: Vec<Option<&str>> = items.iter().map(|(name, _)| name.as_deref()).collect();
    let Some(of_clip) = review.take(items_of_clips(port, noun, &names, &patches.clips)) else {
        return;
    };
    for (clip, index) in patches.clips.iter().zip(of_clip) {
        if let Some(item) = review.take(known::<T>(port, items[index].1)).flatten() {
            review.take(check(&item, clip, patches.patch));
        }
    }
}

/// A transformer with channels for given frames was made to continue some, in every clip.
fn check_all_given(part: &DitHandle, of_clips: &[Option<usize>]) -> Result<(), PlanError> {
    let free = of_clips.iter().filter(|of| of.is_none()).count();
    if part.spec.inputs().given != GivenInput::Channels || free == 0 {
        return Ok(());
    }
    let which = match (free, of_clips.len()) {
        (1, 1) => "none are".to_owned(),
        (free, all) => format!("of {free} of {all} clips none are"),
    };
    let message = format!("this transformer continues frames that are given, and {which}");
    Err(PlanError::at("given", message)
        .hint("a `given` node says which: a picture at the start, or frames at both ends"))
}

/// Which of `start`, `strength`, `mask` and `known` belong together.
fn check_fed(start: bool, strength: Option<f64>, mask: bool, known: bool) -> Result<(), PlanError> {
    if !start && strength.is_some_and(|strength| strength < 1.0) {
        return Err(PlanError::at("strength", "there is no `start` to keep anything of")
            .hint("feed `start` with the patches of an encoded clip"));
    }
    if mask && !(known || start) {
        return Err(PlanError::at("mask", "nothing is known that could stay outside the mask")
            .hint("feed `known` with an encoded clip, or `start`"));
    }
    if known && !mask {
        return Err(PlanError::at("known", "without a mask all is made anew, and nothing stays")
            .hint("feed `mask`: 1 where the clip is made anew, 0 where it stays"));
    }
    Ok(())
}

/// The weights that previews are drawn with: the decoder of the first clip's latent space.
fn of_previews(services: &Services, clips: &[ClipFact]) -> Vec<PlannedWeights> {
    let space = clips.first().and_then(|clip| clip.space.as_ref());
    let models = services.find::<Models>();
    let part = models.and_then(|models| models.of_space(space?));
    part.map_or_else(Vec::new, |part| {
        part.planned(Network::Decoder, part.weight_bytes(Network::Decoder))
    })
}

/// The number of steps, if it is known.
fn steps(review: &mut InferCx<'_>, facts: &Facts) -> Option<usize> {
    if !facts.is_fed("sigmas") {
        return review.size("steps");
    }
    review.known::<Sigmas>("sigmas").map(|sigmas| sigmas.steps)
}

/// What a denoiser misses among conditioning, or cannot read of it; an image may come by an input
/// of its own.
fn check_text(part: &DitHandle, text: &ConditioningFact, image: bool) -> Vec<PlanError> {
    let inputs = part.spec.inputs().conditioning.iter();
    let read = inputs.filter(|spec| !(image && spec.name == EmbeddingSpec::IMAGE));
    read.filter_map(|spec| check_embedding(part, spec, "text", text.shape(&spec.name), text).err())
        .collect()
}

/// Whether conditioning at a port, if it is there, is as the denoiser reads it.
fn check_embedding(
    part: &DitHandle,
    spec: &EmbeddingSpec,
    port: &str,
    shape: Option<&[usize]>,
    text: &ConditioningFact,
) -> Result<(), PlanError> {
    let is_text = spec.name == Embeddings::TEXT;
    let message = match shape {
        Some(shape) if shape.last() == Some(&spec.width) => {
            let rows = if shape.len() > 1 { shape[0] } else { 1 };
            let checked = part.spec.check_rows(&spec.name, rows);
            return checked.map_err(|error| PlanError::at(port, error.to_string()));
        }
        Some(shape) => {
            let found = shape.last().copied().unwrap_or(0);
            let what = if is_text { "texts".to_owned() } else { format!("`{}`", spec.name) };
            format!("this transformer reads {what} {} wide, found {found}", spec.width)
        }
        None if spec.name == EmbeddingSpec::IMAGE => {
            return Err(PlanError::at(
                "image",
                "this transformer reads a picture, and there is none",
            )
            .hint("an `image.encode` node encodes one with the model's `image_encoder`"));
        }
        None => {
            let names: Vec<&str> = text.embeddings.iter().map(|(name, _)| name.as_str()).collect();
            let found = names.join(", ");
            format!("this transformer reads `{}` of the conditioning, found {found}", spec.name)
        }
    };
    let what = if port == "image" { "an image encoder" } else { "a text encoder" };
    Err(PlanError::at(port, message)
        .hint(format!("a transformer and {what} of one model belong together")))
}

/// Holds a picture's embeddings against what the transformer reads.
fn infer_image(review: &mut InferCx<'_>, facts: &Facts, part: &DitHandle) {
    if facts.is_fed("image") {
        let known = review.known::<ImageConditioning>("image");
        review.take(check_image(part, known.as_ref().map(|known| known.shape)));
    }
}

/// Whether the transformer reads pictures, and of this shape where that is known.
fn check_image(part: &DitHandle, shape: Option<[usize; 2]>) -> Result<(), PlanError> {
    let mut inputs = part.spec.inputs().conditioning.iter();
    let Some(spec) = inputs.find(|spec| spec.name == EmbeddingSpec::IMAGE) else {
        return Err(PlanError::at("image", "this transformer reads no pictures")
            .hint("frames that a clip must contain come by a `given` node"));
    };
    let nothing = ConditioningFact { embeddings: Vec::new(), distinct_rows: None };
    match &shape {
        Some(shape) => check_embedding(part, spec, "image", Some(shape), &nothing),
        None => Ok(()),
    }
}

/// Only of two experts one can be guided otherwise than the other.
fn check_guidance_low(part: &DitHandle, is_fed: bool) -> Result<(), PlanError> {
    match is_fed && part.low_noise.is_none() {
        true => Err(PlanError::at("guidance_low", "this transformer has no second expert")
            .hint("`guidance` holds at every noise level")),
        false => Ok(()),
    }
}

/// Only some transformers are told how fast a clip runs.
fn check_frame_rate(part: &DitHandle, is_fed: bool) -> Result<(), PlanError> {
    match is_fed && part.spec.inputs().frame_rate.is_none() {
        true => Err(PlanError::at("fps", "this transformer is not told a frame rate")
            .hint("`video.write` gives a clip its rate")),
        false => Ok(()),
    }
}

/// The frame rate that the transformer is told, where it is told one.
fn frame_rate(part: &DitHandle, inputs: &Inputs<'_>) -> Result<Option<f64>> {
    let is_fed = inputs.get("fps").is_some();
    check_frame_rate(part, is_fed).map_err(refuse)?;
    match (part.spec.inputs().frame_rate, is_fed) {
        (Some(_), true) => inputs.real("fps").map(Some),
        (own, _) => Ok(own),
    }
}

fn check_patches(part: &DitHandle, clips: &[ClipFact], patch: [usize; 3]) -> Result<(), PlanError> {
    let inputs = part.spec.inputs();
    if patch_tuple(patch) != inputs.patch {
        let (found, own) = (patch, inputs.patch);
        let message = format!("this transformer reads patches of {own:?}, found {found:?}");
        return Err(
            PlanError::at("patches", message).hint("give `patchify` the transformer that samples")
        );
    }
    for grid in clips.iter().filter_map(ClipFact::clip) {
        let checked = part.spec.check_grid(grid_of(&grid));
        checked.map_err(|error| PlanError::at("patches", error.to_string()))?;
    }
    match clips.iter().find(|clip| clip.channels != inputs.channels) {
        Some(clip) => Err(PlanError::at(
            "patches",
            format!(
                "this transformer reads latents of {} channels, found {}",
                inputs.channels, clip.channels
            ),
        )),
        None => Ok(()),
    }
}

fn trace_fact(patches: &PatchesFact, steps: usize) -> Fact {
    let [pt, ph, pw] = patches.patch;
    let shape: Option<Vec<usize>> = match patches.clips.as_slice() {
        [clip] => [Some(steps)].into_iter().chain(clip.shape(patches.patch)).collect(),
        clips => {
            let channels = clips.first().map_or(0, |clip| clip.channels);
            let tokens = clips.iter().map(ClipFact::tokens).sum::<Option<usize>>();
            tokens.map(|tokens| vec![steps, tokens, channels * pt * ph * pw])
        }
    };
    shape.map_or(Fact::Unknown, |shape| Fact::typed(TensorFact { shape, dtype: DType::F32 }))
}

/// What sampling needs: in all, the weights among that, and what becomes of those that do not fit.
#[derive(Default)]
struct Planned {
    memory: u64,
    weights: Vec<PlannedWeights>,
    streamed: Option<StreamedWeights>,
}

impl Planned {
    /// Of a run that needs `run` bytes beside the weights. Of two experts one computes at a time.
    fn of(part: &DitHandle, budget: u64, run: u64) -> Self {
        let fits: Vec<_> = part.experts().map(|expert| expert.fit_run(budget, run)).collect();
        let with_adapters = part.experts().zip(&fits);
        let bytes =
            with_adapters.map(|(part, fit)| fit.bytes.saturating_add(part.adapters_bytes()));
        Planned {
            memory: bytes.max().unwrap_or(0).saturating_add(run),
            weights: part.planned_weights(&fits[0]),
            streamed: fits.iter().filter_map(streamed).max_by_key(|streamed| streamed.bytes),
        }
    }
}

/// Bytes that a run of this size needs while sampling, beside the weights.
///
/// `texts` is how many there are, and the rows of the longest that differ; `held` is how many
/// tensors of the latents' size are kept.
fn run_bytes(
    part: &DitHandle,
    tokens: usize,
    (texts, distinct_rows): (usize, Option<usize>),
    (held, step_cache): (usize, Option<StepCacheKind>),
) -> u64 {
    let size = RunSize {
        tokens,
        tokens_at_once: if clips::batched(tokens) { 2 * tokens } else { tokens },
        texts,
        distinct_rows,
        number: part.dtype.size_in_bytes(),
        step_cache,
    };
    let extra = f32_bytes(&[tokens, part.spec.inputs().extra_width()]);
    let held = f32_bytes(&[held, tokens, part.spec.inputs().patch_width()]);
    let scratch = part.experts().map(|expert| expert.scratch()).max().unwrap_or(0);
    let beside = extra.saturating_add(held).saturating_add(scratch);
    part.spec.memory(&size).saturating_add(beside)
}

/// Rows of a text that a mask leaves, or without one up to those past its end, which are equal; of
/// prompt and negative prompt the more.
fn distinct_rows(text: &Conditioning) -> Result<usize> {
    let rows = |embeddings: &Embeddings| {
        let Some(text) = embeddings.get(Embeddings::TEXT) else { return Ok(0) };
        match &text.mask {
            Some(mask) => {
                let mask: Vec<f32> = mask.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
                Ok(mask.iter().filter(|counts| **counts != 0.0).count())
            }
            None => kino_models::text::distinct_rows(&text.tensor).node(),
        }
    };
    Ok(rows(&text.positive)?.max(rows(&text.negative)?))
}

fn run(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let part = inputs.part::<DitHandle>("dit")?;
    let patches = inputs.value::<Patches>("patches")?;
    let known = patches.fact();
    check_patches(&part, &known.clips, patches.patch).map_err(refuse)?;
    let names = inputs.items("text");
    let names: Vec<Option<&str>> = names.iter().map(|(name, _)| name.as_deref()).collect();
    let of_clip = texts_of_clips(&names, &known.clips).map_err(refuse)?;
    let leading = Leading {
        given: givens(&part, inputs, &patches)?,
        control: controls(&part, inputs, &patches)?,
    };
    let image = inputs.optional::<ImageConditioning>("image")?;
    if let Some(image) = &image {
        check_image(&part, Some(image.fact().shape)).map_err(refuse)?;
    }
    check_guidance_low(&part, inputs.get("guidance_low").is_some()).map_err(refuse)?;
    let (threshold, kind) = (inputs.real("cache")?, inputs.text("cache_kind")?);
    let cache = CacheChoice::new(&part, threshold, kind, &patches.clips).map_err(refuse)?;
    let (kind, schedule) = schedule(&part, inputs, &known.clips)?;
    let (schedule, start) = started(cx, inputs, (&part, &patches), schedule)?;
    let known = known_part(cx, inputs, &patches, start.as_ref())?;
    let tokens = patches.clips.iter().map(Clip::tokens).sum();
    let beside = (held(|port| !inputs.items(port).is_empty()), cache.map(|cache| cache.kind));
    let texts = inputs.list::<Conditioning>("text")?;
    let rows = texts.iter().map(|(_, text)| distinct_rows(text)).collect::<Result<Vec<_>>>()?;
    let bytes = run_bytes(&part, tokens, (texts.len(), rows.into_iter().max()), beside);
    cx.check_cancel()?;
    let texts = texts.into_iter().map(|(_, text)| Text::new(&text, image.as_deref())).collect();
    let packed = Packed::new(&part, &patches, (texts, of_clip), (&leading, cx.device()))?;
    let told = part.spec.guidance() == GuidanceInput::Embedded;
    let guidance = told.then(|| inputs.real("guidance")).transpose()?;
    let frame_rate = frame_rate(&part, inputs)?;
    let packed = packed.with_cache(cache).beside(bytes).at_frame_rate(frame_rate);
    let packed = packed.with_guidance(guidance);
    let stepper = Solver::new(kind, schedule, part.spec.scheduler());
    let run = Run { patches: &patches, start, known, seed: inputs.int("seed")? };
    let (x, trace) = denoise(cx, packed, stepper, guiders(&part, inputs)?, run)?;
    let (tokens, clips) = without_pictures(&x, &patches, &leading.control)?;
    let clean = Patches { tokens, clips, patch: patches.patch };
    Ok(vec![Some(Value::from(clean)), trace.map(Value::Tensor)])
}

/// What joins velocities with and without text: of the transformer, or of each of two experts.
struct Guiders {
    high: Arc<dyn Guider>,
    low: Option<Arc<dyn Guider>>,
}

fn guiders(part: &DitHandle, inputs: &Inputs<'_>) -> Result<Guiders> {
    if let Some(guider) = inputs.optional::<GuiderHandle>("guider")? {
        return Ok(Guiders { high: Arc::clone(&guider.0), low: None });
    }
    if part.spec.guidance() != GuidanceInput::Passes {
        // One pass: the transformer is told the guidance, or none leads it.
        let scale = kino_models::sampling::guidance::CfgScale::new(1.0);
        return Ok(Guiders { high: Arc::new(ClassifierFree(scale)), low: None });
    }
    let by = |port: &str| -> Result<Arc<dyn Guider>> {
        let scale = kino_models::sampling::guidance::CfgScale::new(inputs.real(port)?);
        Ok(Arc::new(ClassifierFree(scale)))
    };
    // Where the text does not lead at all, it leads neither expert, as in diffusers.
    let leads = inputs.real("guidance")? > 1.0 || inputs.get("guider").is_some();
    let low = leads && part.low_noise.is_some() && inputs.get("guidance_low").is_some();
    let low = low.then(|| by("guidance_low")).transpose()?;
    Ok(Guiders { high: by("guidance")?, low })
}

/// What is given of each clip.
fn givens(
    part: &DitHandle,
    inputs: &Inputs<'_>,
    patches: &Patches,
) -> Result<Vec<Option<Arc<Given>>>> {
    let given = inputs.list::<Given>("given")?;
    let names: Vec<Option<&str>> = given.iter().map(|(name, _)| name.as_deref()).collect();
    let known = patches.fact();
    let of_clips = givens_of_clips(&names, &known.clips).map_err(refuse)?;
    check_all_given(part, &of_clips).map_err(refuse)?;
    let of_clip = |(clip, of): (&ClipFact, Option<usize>)| {
        let Some(given) = of.map(|of| &given[of].1) else { return Ok(None) };
        check_given(part, clip, patches.patch, &given.fact()).map_err(refuse)?;
        Ok(Some(Arc::clone(given)))
    };
    known.clips.iter().zip(of_clips).map(of_clip).collect()
}

/// The levels to walk down and how.
fn schedule(
    part: &DitHandle,
    inputs: &Inputs<'_>,
    clips: &[ClipFact],
) -> Result<(ScheduleKind, Schedule)> {
    let config = part.spec.scheduler();
    let kind = match inputs.text("scheduler")? {
        "unipc" => ScheduleKind::UniPc,
        "euler" => ScheduleKind::Euler,
        "dpm++" => ScheduleKind::DpmSolver,
        "lcm" => ScheduleKind::Lcm,
        _ => config.kind(),
    };
    if let Some(sigmas) = inputs.optional::<Sigmas>("sigmas")? {
        let sigmas: Vec<f64> = sigmas.0.iter().map(|sigma| sigma.0).collect();
        let schedule = Schedule::from_sigmas(kind, &sigmas, config.num_train_timesteps);
        return Ok((kind, schedule.map_err(|error| Error::input("sigmas", error.to_string()))?));
    }
    let shift = inputs.get("shift").is_some().then(|| inputs.real("shift")).transpose()?;
    Ok((kind, levels(config, kind, inputs.int("steps")?, (shift, Some(clips)))?))
}

/// The levels that are left where there is a start, and its latents without noise.
fn started(
    cx: &Cx<'_>,
    inputs: &Inputs<'_>,
    (part, patches): (&DitHandle, &Patches),
    schedule: Schedule,
) -> Result<(Schedule, Option<Tensor>)> {
    let (start, strength) = (inputs.optional::<Patches>("start")?, inputs.real("strength")?);
    let fed = |port: &str| !inputs.items(port).is_empty();
    check_fed(start.is_some(), Some(strength), fed("mask"), fed("known")).map_err(refuse)?;
    let Some(start) = start else { return Ok((schedule, None)) };
    check_start(&start.fact(), &patches.fact()).map_err(refuse)?;
    let steps = schedule.steps();
    let run = part.spec.steps_of_strength(steps, strength);
    let skipped = skipped(run, (steps, strength)).map_err(refuse)?;
    let start = start.tokens.to_device(cx.device())?.to_dtype(DType::F32)?;
    Ok((schedule.skip(skipped).node()?, Some(start)))
}

/// What stays outside the masks, where there are some.
fn known_part(
    cx: &Cx<'_>,
    inputs: &Inputs<'_>,
    patches: &Patches,
    start: Option<&Tensor>,
) -> Result<Option<Known>> {
    let masks = of_clips::<Mask>(inputs, ("mask", "mask"), patches, check_mask)?;
    let latents = of_clips::<Latent>(inputs, ("known", "latent"), patches, check_known)?;
    let Some(masks) = masks else { return Ok(None) };
    let latents = match latents {
        Some(latents) => Some(known::packed(&latents, patches.patch, cx.device())?),
        None => start.cloned(),
    };
    latents.map(|known| Known::new(patches, &known, &masks, cx.device())).transpose()
}

/// The item of a list port for each clip, where there are some.
fn of_clips<T: ValueType>(
    inputs: &Inputs<'_>,
    (port, noun): (&str, &str),
    patches: &Patches,
    check: impl Fn(&T::Fact, &ClipFact, [usize; 3]) -> Result<(), PlanError>,
) -> Result<Option<Vec<Arc<T>>>> {
    let items = inputs.list::<T>(port)?;
    if items.is_empty() {
        return Ok(None);
    }
    let names: Vec<Option<&str>> = items.iter().map(|(name, _)| name.as_deref()).collect();
    let known = patches.fact();
    let of_clip = items_of_clips(port, noun, &names, &known.clips).map_err(refuse)?;
    let item = |(clip, index): (&ClipFact, usize)| {
        let item = &items[index].1;
        check(&item.fact(), clip, patches.patch).map_err(refuse)?;
        Ok(Arc::clone(item))
    };
    known.clips.iter().zip(of_clip).map(item).collect::<Result<_>>().map(Some)
}

/// What a run begins with.
struct Run<'a> {
    /// Noise.
    patches: &'a Patches,
    /// Latents without noise, where it does not begin with noise alone.
    start: Option<Tensor>,
    /// What stays.
    known: Option<Known>,
    /// Of noise that a stepper adds.
    seed: u64,
}

impl Run<'_> {
    /// The latents at the first level.
    fn begin(&self, sigma: f64, device: &Device) -> Result<Tensor> {
        let noise = self.patches.tokens.to_device(device)?.to_dtype(DType::F32)?;
        let x = match &self.start {
            Some(start) => noised(start, &noise, sigma)?,
            None => noise,
        };
        self.put_back(x, sigma)
    }

    /// Latents at a level, what stays in its place.
    fn put_back(&self, x: Tensor, sigma: f64) -> Result<Tensor> {
        match &self.known {
            Some(known) => known.put_back(&x, sigma),
            None => Ok(x),
        }
    }
}

/// Walks down the levels: the clean latents of all clips, and the trace where it is wanted.
fn denoise(
    cx: &mut Cx<'_>,
    mut packed: Packed,
    mut stepper: Solver,
    guiders: Guiders,
    run: Run<'_>,
) -> Result<(Tensor, Option<Tensor>)> {
    let Run { patches, seed, .. } = run;
    let begin = |guider: &Arc<dyn Guider>| -> Vec<_> {
        patches.clips.iter().map(|_| guider.begin(cx.cancel)).collect()
    };
    let (mut high, mut low) = (begin(&guiders.high), guiders.low.as_ref().map(begin));
    let models = cx.services.get::<Models>()?;
    let schedule = stepper.schedule().clone();
    let of = schedule.steps();
    let mut x = run.begin(schedule.sigmas()[0], cx.device())?;
    let mut trace = Vec::new();
    cx.progress(0, of);
    for (step, timestep) in schedule.timesteps().iter().enumerate() {
        cx.check_cancel()?;
        let sigma = schedule.sigmas()[step];
        let moment = SamplingStep { index: step, count: of, sigma: Sigma(sigma) };
        let mut check_cancel = check_cancel(cx.cancel);
        let is_low = packed.compute_at(&models, *timestep)?;
        let guidances = low.as_mut().filter(|_| is_low).unwrap_or(&mut high);
        let velocity = packed.guided(&x, *timestep, moment, guidances, &mut check_cancel)?;
        let mut noise = || noise::of_step(patches, seed, step, x.device());
        let next = stepper.step(&velocity, &x, &mut noise).node()?;
        let next = run.put_back(next, schedule.sigmas()[step + 1])?;
        if cx.wants(1) {
            trace.push(traced(&next, patches)?);
        }
        let data = || packed.placed(&(&x - (&velocity * sigma)?)?); // x₀ = x − σ·v
        let preview = picture::of_step(cx, patches, data);
        cx.preview(step + 1, of, preview);
        x = next;
    }
    let x = packed.placed(&x)?;
    check_finite(&x)?;
    if let Some(streamed) = packed.streamed() {
        cx.note(streamed.to_string());
    }
    if let Some((reused, of)) = packed.reused() {
        cx.note(format!("step cache: {reused} of {of} passes were reused"));
    }
    let trace = cx.wants(1).then(|| Tensor::stack(&trace, 0)).transpose()?; // [steps, …]
    Ok((x, trace))
}

/// Refuses a latent that is no picture any more, instead of writing a black video.
///
/// One look at the end is enough: what is not a number stays so in every later step.
fn check_finite(x: &Tensor) -> Result<()> {
    if is_finite(x)? {
        return Ok(());
    }
    Err(Error::advised(
        "sampling left the range of numbers: the latent holds values that are infinite or none",
        "the weights may be damaged, the guidance too strong, or the noise or text not finite",
    ))
}

/// Whether all values are numbers and none is infinite.
pub(crate) fn is_finite(x: &Tensor) -> Result<bool> {
    // 0 · v is 0 for every number, NaN for NaN and ±∞, and a sum carries it.
    Ok((x * 0.0)?.sum_all()?.to_dtype(DType::F32)?.to_scalar::<f32>()? == 0.0)
}

/// The latent `[c, f, h, w]` of one clip, or the packed patches of several.
fn traced(tokens: &Tensor, patches: &Patches) -> Result<Tensor> {
    match patches.clips.as_slice() {
        [clip] => unpatchify(tokens, grid_of(clip), patch_tuple(patches.patch)).node(),
        _ => Ok(tokens.clone()),
    }
}
