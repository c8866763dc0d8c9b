//! `latent.noise`: the noise that sampling starts from.

use std::borrow::Cow;

use candle_core::Tensor;
use kino_models::model::LatentLayout;
use kino_node::{Cx, Inputs, Latent, LatentFact, NodeDef, Outputs, Result, Services, Value};
use kino_port::{
    Fact, Facts, NodeTraits, PlanError, PortType, Signature, StepInfo, count, edge, int, ports,
};

use crate::infer::{InferCx, InferResult, f32_bytes, near, refuse};
use crate::models::VaeHandle;
use crate::philox::normal;

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
    let (Some(width), Some(height), Some(frames)) = (width, height, frames) else {
        return review.finish(StepInfo::default());
    };
    let shape = [part.latents().channels, frames, height, width];
    review.finish(StepInfo {
        outputs: vec![Fact::typed(LatentFact { shape, space: Some(part.space()) })],
        memory: f32_bytes(&shape),
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
