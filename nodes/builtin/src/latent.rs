//! `latent.noise` and `latent.blend`: the noise that sampling starts from, and mixtures.

use std::borrow::Cow;

use candle_core::Tensor;
use kino_models::model::LatentLayout;
use kino_models::noise::normal;
use kino_node::{
    Cx, Inputs, Latent, LatentFact, NodeDef, Outputs, Result, Services, Value, ValueType,
};
use kino_port::{
    Fact, Facts, NodeTraits, PlanError, PortType, Signature, StepInfo, count, edge, int, ports,
    real,
};

use crate::infer::{
    InferCx, InferResult, by_either, f32_bytes_of, may_be, near, refuse, shape_text,
};
use crate::models::VaeHandle;

/// The longest side that is asked for, in pixels.
pub(crate) const LONGEST_SIDE: i128 = 16_384;

/// Noise in the latent space of an autoencoder.
pub(crate) static NOISE: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("latent.noise"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(ABOUT),
        inputs: ports![
            edge("vae", PortType::Vae).about("The autoencoder in whose space the noise lies."),
            int("width", 0)
                .between(1, LONGEST_SIDE)
                .required()
                .unit("px")
                .about("Width of the frames that the latent stands for."),
            int("height", 0)
                .between(1, LONGEST_SIDE)
                .required()
                .unit("px")
                .about("Height of the frames that the latent stands for."),
            count("frames", 1)
                .between(1, 1 << 20)
                .unit("frames")
                .about("Frames that the latent stands for: 1 for an image, else 4k+1."),
            int("seed", 0)
                .between(0, u64::MAX as i128)
                .required()
                .draws()
                .about("Which noise: one seed always gives the same."),
        ],
        outputs: ports![
            edge("latent", PortType::Latent)
                .about("Noise `[c, f, h, w]` of mean 0 and variance 1.")
        ],
        traits: NodeTraits::LIGHT,
    },
    infer,
    run,
};

const ABOUT: &str = "Makes the noise that sampling starts from. Its shape is that of a clip in \
the latent space: for Wan, 16 channels, (frames − 1)/4 + 1 latent frames, and an eighth of the \
width and height. Frames must be 4k+1, and sides multiples of the autoencoder's factor times the \
transformer's patch (16).\n\n\
Element i of `[c, f, h, w]`, counted with w fastest, is the i-th normal number of Philox 4x32-10 \
(Salmon et al., SC 2011) keyed by the seed, by Box and Muller's formula in f64. It is the same on \
every machine, device and number of threads.\n\n\
Example:\n    \"noise\": (op: \"latent.noise\", in: {\"vae\": \"model.vae\"}, with: {\"width\": \
96, \"height\": 64, \"frames\": 17, \"seed\": 7}),";

/// A side must be a multiple of the autoencoder's factor and of the transformer's patch.
pub(crate) fn check_side(
    part: &VaeHandle,
    port: &str,
    axis: &str,
    side: usize,
) -> Result<usize, PlanError> {
    let denoiser = part.model.parts.denoiser.as_ref();
    let (_, ph, pw) = denoiser.map_or((1, 1, 1), |denoiser| denoiser.spec.inputs().patch);
    let factor = part.latents().spatial;
    let step = factor * if axis == "height" { ph } else { pw };
    if side > 0 && side.is_multiple_of(step) {
        return Ok(side / factor);
    }
    let near = near(side, 0, step);
    Err(PlanError::at(
        port,
        format!("{axis} must be a multiple of {step} for this model, found {side}; {near}"),
    ))
}

/// Frames must be a whole number of chunks past the first.
pub(crate) fn check_frames(
    part: &VaeHandle,
    port: &str,
    frames: usize,
) -> Result<usize, PlanError> {
    let layout = part.latents();
    layout.latent_frames(frames).ok_or_else(|| {
        let LatentLayout { temporal, first, .. } = layout;
        let near = near(frames, first, temporal);
        let rule = match first % temporal.max(1) {
            0 => format!("{temporal}k"),
            rest => format!("{temporal}k+{rest}"),
        };
        PlanError::at(port, format!("frames must be {rule} for this VAE, found {frames}; {near}"))
    })
}

fn infer(_: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let Some(part) = review.part::<VaeHandle>("vae") else {
        return review.finish(StepInfo::default());
    };
    let size = |port| review.size(port);
    let (width, height, frames) = (size("width"), size("height"), size("frames"));
    let mut side = |axis: &str, value: Option<usize>| {
        value.and_then(|value| review.take(check_side(&part, axis, axis, value)))
    };
    let (width, height) = (side("width", width), side("height", height));
    let frames = frames.and_then(|frames| review.take(check_frames(&part, "frames", frames)));
    let shape = [Some(part.latents().channels), frames, height, width];
    review.finish(StepInfo {
        outputs: vec![Fact::typed(LatentFact { shape, space: Some(part.space()) })],
        memory: f32_bytes_of(&shape),
        ..StepInfo::default()
    })
}

fn run(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let part = inputs.part::<VaeHandle>("vae")?;
    let side = |axis: &str| -> Result<usize> {
        check_side(&part, axis, axis, inputs.int(axis)?).map_err(refuse)
    };
    let frames = check_frames(&part, "frames", inputs.int("frames")?).map_err(refuse)?;
    let shape = (part.latents().channels, frames, side("height")?, side("width")?); // [c, f, h, w]
    let seed: u64 = inputs.int("seed")?;
    let sides = [shape.1, shape.2, shape.3];
    let count = sides.iter().try_fold(shape.0, |count, side| count.checked_mul(*side));
    let count = count.unwrap_or(usize::MAX);
    let mut values = cx.services.ledger.reserve::<f32>(count, "the noise")?;
    values.extend((0..count as u64).map(|index| normal(seed, index)));
    let tensor = Tensor::from_vec(values, shape, cx.device())?;
    Ok(vec![Some(Value::from(Latent { tensor, space: Some(part.space()) }))])
}

/// A mixture of two latents.
pub(crate) static BLEND: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("latent.blend"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(BLEND_ABOUT),
        inputs: ports![
            edge("a", PortType::Latent).about("The latent of weight 1 − `weight`."),
            edge("b", PortType::Latent).about("The latent of weight `weight`, of the same shape."),
            real("weight", 0.5).within(0.0, 1.0).about("0 gives `a`, 1 gives `b`."),
        ],
        outputs: ports![edge("latent", PortType::Latent).about("The mixture, `[c, f, h, w]`.")],
        traits: NodeTraits::LIGHT,
    },
    infer: infer_blend,
    run: blend,
};

const BLEND_ABOUT: &str = "Mixes two latents: (1 − weight)·a + weight·b, element by element. Both \
have one shape, and lie in one space where it is known. Shapes: `[c, f, h, w]`, in and out.\n\n\
A mixture of two noises is no noise of variance 1, but for the weights 0 and 1.\n\n\
Example:\n    \"between\": (op: \"latent.blend\", in: {\"a\": \"day\", \"b\": \"night\"}, with: \
{\"weight\": 0.3}),";

/// What is known of the mixture of two latents.
fn blended(a: &LatentFact, b: &LatentFact) -> Result<LatentFact, PlanError> {
    if !may_be(a.shape, b.shape) {
        let [a, b] = [a.shape, b.shape].map(|shape| shape_text(&shape));
        let message = format!("both latents have one shape, found {a} and {b}");
        return Err(PlanError::at("b", message));
    }
    match (&a.space, &b.space) {
        (Some(one), Some(other)) if one.id != other.id => {
            let message = "the latents lie in the spaces of two different VAEs";
            Err(PlanError::at("b", message).hint("decode one and encode it with the other's VAE"))
        }
        (space, other) => {
            let space = space.as_ref().or(other.as_ref()).cloned();
            Ok(LatentFact { shape: by_either(a.shape, b.shape), space })
        }
    }
}

fn infer_blend(_: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let (a, b) = (review.known::<Latent>("a"), review.known::<Latent>("b"));
    let all_known = a.is_some() && b.is_some();
    let fact = blended(&a.unwrap_or_default(), &b.unwrap_or_default());
    let Some(fact) = review.take(fact) else { return review.finish(StepInfo::default()) };
    // Of a latent without a space it is not known how many pixels it stands for.
    let fact = if all_known || fact.space.is_some() { fact } else { LatentFact::default() };
    let memory = f32_bytes_of(&fact.shape).saturating_mul(3);
    review.finish(StepInfo { outputs: vec![Fact::typed(fact)], memory, ..StepInfo::default() })
}

fn blend(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let (a, b) = (inputs.value::<Latent>("a")?, inputs.value::<Latent>("b")?);
    let LatentFact { space, .. } = blended(&a.fact(), &b.fact()).map_err(refuse)?;
    let weight = inputs.real("weight")?;
    let on_device = |latent: &Latent| latent.tensor.to_device(cx.device());
    let tensor = match weight {
        // Exactly what was given, also where the other is not finite.
        0.0 => on_device(&a)?,
        1.0 => on_device(&b)?,
        _ => ((on_device(&a)? * (1.0 - weight))? + (on_device(&b)? * weight)?)?,
    };
    Ok(vec![Some(Value::from(Latent { tensor, space }))])
}
