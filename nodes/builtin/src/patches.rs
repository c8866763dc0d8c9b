//! `patchify` and `unpatchify`: latents as packed patches and back.

use std::borrow::Cow;

use candle_core::Tensor;
use kino_models::patch::{Grid, patchify, unpatchify};
use kino_node::{
    Clip, ClipFact, Cx, Inputs, Latent, LatentFact, NodeDef, Outputs, Patches, PatchesFact, Result,
    Services, TensorFact, Value, ValueType,
};
use kino_port::{
    Fact, Facts, NodeTraits, PlanError, PortType, Signature, StepInfo, edge, list, ports, text,
};

use crate::error::IntoNode;
use crate::infer::{InferCx, InferResult, f32_bytes_of, known, named_facts, near, refuse};
use crate::models::DitHandle;

/// Latents to patches.
pub(crate) static PATCHIFY: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("patchify"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(PATCHIFY_ABOUT),
        inputs: ports![
            edge("dit", PortType::Dit).about("The transformer that will read the patches."),
            list("latents", PortType::Latent)
                .about("One latent a clip; a map names the clips. Sizes may differ."),
        ],
        outputs: ports![
            edge("patches", PortType::Patches)
                .about("`[tokens, c·pt·ph·pw]`, clip after clip, each in the order t, h, w.")
        ],
        traits: NodeTraits::LIGHT,
    },
    infer: infer_patchify,
    run: run_patchify,
};

const PATCHIFY_ABOUT: &str = "Cuts latents into spacetime patches and packs them. A patch of Wan \
is one latent frame by 2 × 2 latent pixels, so 17 frames of 96 × 64 pixels are 5·4·6 = 120 \
patches. It is a rearrangement, before any weights: `unpatchify` gives back the very same \
numbers.\n\n\
Several latents of any sizes are packed one after another: attention stays within each clip and \
positions begin anew in each, so one `dit.sample` serves several resolutions and durations at \
once. Shapes: each latent `[c, f, h, w]`; the patches `[tokens, c·pt·ph·pw]`, a patch in the \
order c, t, h, w.\n\n\
Example:\n    \"patches\": (op: \"patchify\", in: {\"dit\": \"model.dit\", \"latents\": \
{\"wide\": \"noise_a\", \"tall\": \"noise_b\"}}),";

/// The clip that a latent becomes.
fn clip(part: &DitHandle, latent: &LatentFact) -> Result<ClipFact, PlanError> {
    let [channels, frames, height, width] = latent.shape;
    let inputs = part.spec.inputs();
    if let Some(channels) = channels
        && channels != inputs.channels
    {
        let own = inputs.channels;
        return Err(PlanError::at(
            "latents",
            format!("this transformer reads latents of {own} channels, found {channels}"),
        )
        .hint("a transformer and a VAE of one model belong together"));
    }
    let (pt, ph, pw) = inputs.patch;
    let factor = latent.space.as_ref().map(|space| space.spatial);
    let sides = [
        ("frames", frames, pt, None),
        ("height", height, ph, factor),
        ("width", width, pw, factor),
    ];
    for (axis, side, patch, factor) in sides {
        let Some(side) = side else { continue };
        if side == 0 || !side.is_multiple_of(patch) {
            let (unit, scale) = factor.map_or(("latent ", 1), |factor| ("", factor));
            let (side, step) = (side.saturating_mul(scale), patch * scale);
            let message = format!(
                "{unit}{axis} must be a multiple of {step}, found {side}; {}",
                near(side, 0, step)
            );
            return Err(PlanError::at("latents", message));
        }
    }
    let along = |side: Option<usize>, patch: usize| side.map(|side| side / patch);
    let grid = [along(frames, pt), along(height, ph), along(width, pw)];
    Ok(ClipFact { name: None, grid, channels: inputs.channels, space: latent.space.clone() })
}

fn infer_patchify(_: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let Some(part) = review.part::<DitHandle>("dit") else {
        return review.finish(StepInfo::default());
    };
    let mut clips = Vec::new();
    let items = named_facts(facts, "latents");
    let expected = items.len();
    for (name, fact) in items {
        let Some(latent) = review.take(known::<Latent>("latents", fact)) else { continue };
        let checked = named(clip(&part, &latent.unwrap_or_default()), name.as_deref());
        clips.extend(review.take(checked));
    }
    if clips.len() < expected {
        return review.finish(StepInfo::default());
    }
    let tokens = clips.iter().map(ClipFact::tokens).sum::<Option<usize>>();
    let memory = f32_bytes_of(&[Some(2), tokens, Some(part.spec.inputs().patch_width())]);
    let fact = PatchesFact { clips, patch: patch_of(&part) };
    review.finish(StepInfo { outputs: vec![Fact::typed(fact)], memory, ..StepInfo::default() })
}

/// The clip with its name, which also stands in what is wrong with it.
fn named(clip: Result<ClipFact, PlanError>, name: Option<&str>) -> Result<ClipFact, PlanError> {
    let Some(name) = name else { return clip };
    match clip {
        Ok(clip) => Ok(ClipFact { name: Some(name.to_owned()), ..clip }),
        Err(error) => {
            let message = format!("`{name}`: {}", error.message);
            Err(PlanError { message, ..error })
        }
    }
}

fn patch_of(part: &DitHandle) -> [usize; 3] {
    let (pt, ph, pw) = part.spec.inputs().patch;
    [pt, ph, pw]
}

fn run_patchify(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let part = inputs.part::<DitHandle>("dit")?;
    let (mut clips, mut tokens) = (Vec::new(), Vec::new());
    for (name, latent) in inputs.list::<Latent>("latents")? {
        let clip = named(clip(&part, &latent.fact()), name.as_deref()).map_err(refuse)?;
        let ClipFact { name, grid, channels, space } = clip;
        clips.push(Clip { name, grid: grid.map(Option::unwrap_or_default), channels, space });
        let latent = latent.tensor.to_device(cx.device())?;
        tokens.push(patchify(&latent, part.spec.inputs().patch).node()?); // [tokens, c·pt·ph·pw]
    }
    let tokens = match tokens.len() {
        1 => tokens.remove(0),
        _ => Tensor::cat(&tokens, 0)?,
    };
    let patches = Patches { tokens, clips, patch: patch_of(&part) };
    Ok(vec![Some(Value::from(patches))])
}

/// Patches to a latent.
pub(crate) static UNPATCHIFY: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("unpatchify"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(UNPATCHIFY_ABOUT),
        inputs: ports![
            edge("patches", PortType::Patches).about("Packed patches of one or several clips."),
            text("clip", "").about("The clip's name or its index from 0; not needed for one clip."),
        ],
        outputs: ports![
            edge("latent", PortType::Latent).about("The clip's latent `[c, f, h, w]`.")
        ],
        traits: NodeTraits::LIGHT,
    },
    infer: infer_unpatchify,
    run: run_unpatchify,
};

const UNPATCHIFY_ABOUT: &str = "Joins the patches of one clip to its latent: the inverse of \
`patchify`. Shapes: patches `[tokens, c·pt·ph·pw]`; the latent `[c, f, h, w]`.\n\n\
Example:\n    \"wide\": (op: \"unpatchify\", in: {\"patches\": \"sample.patches\"}, with: \
{\"clip\": \"wide\"}),";

/// The index of the clip that a graph asks for.
fn pick(clips: &[ClipFact], wanted: &str) -> Result<usize, PlanError> {
    let names: Vec<String> = clips
        .iter()
        .enumerate()
        .map(|(index, clip)| clip.name.clone().unwrap_or_else(|| index.to_string()))
        .collect();
    let object = |message: String| {
        Err(PlanError::at("clip", message).hint(format!("the clips are: {}", names.join(", "))))
    };
    if wanted.is_empty() {
        return match clips.len() {
            1 => Ok(0),
            several => object(format!("{several} clips are packed here: which one?")),
        };
    }
    let by_name = names.iter().position(|name| name == wanted);
    let by_index = || wanted.parse().ok().filter(|index| *index < clips.len());
    match by_name.or_else(by_index) {
        Some(index) => Ok(index),
        None => object(format!("there is no clip `{wanted}`")),
    }
}

fn infer_unpatchify(_: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    object_to_tensor(&mut review, facts);
    let Some(patches) = facts.typed::<PatchesFact>("patches") else {
        return review.finish(StepInfo::default());
    };
    let picked = facts.text("clip").and_then(|clip| review.take(pick(&patches.clips, clip)));
    let Some(index) = picked else { return review.finish(StepInfo::default()) };
    let clip = &patches.clips[index];
    let shape = clip.shape(patches.patch);
    review.finish(StepInfo {
        outputs: vec![Fact::typed(LatentFact { shape, space: clip.space.clone() })],
        memory: f32_bytes_of(&shape),
        ..StepInfo::default()
    })
}

/// A tensor does not know how its patches lie.
pub(crate) fn object_to_tensor(review: &mut InferCx<'_>, facts: &Facts) {
    if facts.typed::<TensorFact>("patches").is_some() {
        review.error(
            PlanError::at("patches", "a tensor does not say where its patches lie")
                .hint("a `patchify` node makes patches of a latent, which may be a tensor"),
        );
    }
}

fn run_unpatchify(_: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let patches = inputs.value::<Patches>("patches")?;
    let index = pick(&patches.fact().clips, inputs.text("clip")?).map_err(refuse)?;
    let clip = &patches.clips[index];
    let start: usize = patches.clips[..index].iter().map(Clip::tokens).sum();
    let tokens = patches.tokens.narrow(0, start, clip.tokens())?; // [tokens of the clip, width]
    let tensor = unpatchify(&tokens, grid_of(clip), patch_tuple(patches.patch)).node()?;
    Ok(vec![Some(Value::from(Latent { tensor, space: clip.space.clone() }))])
}

/// The grid of a clip as the models see it.
pub(crate) fn grid_of(clip: &Clip) -> Grid {
    let [frames, rows, columns] = clip.grid;
    Grid { frames, rows, columns }
}

/// A patch as the models see it.
pub(crate) fn patch_tuple([pt, ph, pw]: [usize; 3]) -> (usize, usize, usize) {
    (pt, ph, pw)
}
