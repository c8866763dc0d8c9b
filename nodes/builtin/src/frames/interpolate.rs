//! `frames.interpolate`: frames between frames, along their motion.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use kino_models::model::InterpolatorSpec;
use kino_node::{
    Cx, Error, FrameRate, Frames, FramesBuilder, FramesFact, Inputs, NodeDef, Outputs, Result,
    Services, Value,
};
use kino_port::{
    Facts, NodeTraits, PlanError, PortType, Signature, StepInfo, edge, int, ports, text,
};

use super::chunks::{frame_bytes, frames_in, gives};
use super::motion::{Between, MotionFrame};
use crate::error::{IntoNode, check_cancel};
use crate::infer::{InferCx, InferResult, refuse};
use crate::models::{Models, OpenNetwork, network_error, network_file};

/// More frames a second, at the same speed.
pub(crate) static INTERPOLATE: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("frames.interpolate"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(ABOUT),
        inputs: ports![
            frames_in(),
            int("factor", 2)
                .between(1, 16)
                .unit("x")
                .about("How many times as many frames a second; one less lie between two."),
            text("model", MOTION).choices(&MODELS).file().about(
                "`motion`, block matching without a network; or a safetensors file of RIFE."
            ),
        ],
        outputs: ports![
            edge("frames", PortType::Frames)
                .about("The frames with new ones between, at a rate `factor` times higher.")
        ],
        traits: NodeTraits::HEAVY,
    },
    infer,
    run,
};

const ABOUT: &str = "Puts frames between frames, so that motion is smooth at a higher rate. Blocks of \
8 × 8 pixels are matched from each frame to the next and back, from coarse to fine and then by \
quarters of a pixel, and pixels at the edges of what moves choose between the motions around them. \
A new frame takes each pixel from both frames along its motion, mixed by how near they are; of two \
that meet, the one is taken that covers the other in the frames themselves, and what only one frame \
shows is taken from that one. The given frames stay as they are.\n\n\
Where a new shot begins, the nearer frame is repeated; a fade is mixed. Motion is found up to about a \
tenth of the shorter side.\n\n\
A path names a safetensors file of RIFE 4.13 or later (IFNet, arXiv:2011.06294) with the names of \
Practical-RIFE or of ComfyUI's files, of any channels; it finds larger motion and costs more. Shots are \
not told apart by it: trim between them. Pickle files (.pkl, .pth) are refused. Shapes: `[f, h, w, 3]` to `[(f − 1)·factor + 1, h, w, 3]`.\n\n\
Example:\n    \"smooth\": (op: \"frames.interpolate\", in: {\"frames\": \"frames\"}, with: \
{\"factor\": 2}),";

const MOTION: &str = "motion";
const MODELS: [Cow<'static, str>; 1] = [Cow::Borrowed(MOTION)];

/// Opens the network that a graph names, or the one of a fingerprint; none for block matching.
fn open(
    services: &Services,
    model: &str,
    planned: Option<&str>,
) -> Result<Option<Arc<OpenNetwork<dyn InterpolatorSpec>>>, PlanError> {
    if model == MOTION {
        return Ok(None);
    }
    let source = network_file(
        services,
        ("model", model),
        &[],
        "a model is `motion`, or a safetensors file",
    )?;
    let models = services.get::<Models>().map_err(|error| PlanError::new(error.to_string()))?;
    let opened = models.open_interpolator(&source, planned).map_err(network_error("model"))?;
    opened.allowed(services, "model").map(Some)
}

/// The number of frames with those between.
fn with_between(count: usize, factor: usize) -> Option<usize> {
    count.checked_sub(1)?.checked_mul(factor)?.checked_add(1)
}

fn infer(services: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let model = facts.text("model");
    let opened = model.and_then(|model| review.take(open(services, model, None)));
    let mut info = StepInfo::default();
    if let (Some(model), Some(Some(opened))) = (model, &opened) {
        (info.key, info.reads) = (opened.identity().to_vec(), opened.reads(model));
        info.weights = opened.planned();
    }
    let (frames, factor) = (review.partly::<Frames>("frames"), review.size("factor"));
    let count = frames.count.zip(factor).and_then(|(count, factor)| with_between(count, factor));
    let fps = factor.map_or(FrameRate::Unknown, |factor| frames.fps.times(factor as f64));
    let sizes = frames.size().zip(factor).zip(opened);
    if sizes.is_none() {
        info.weights = Vec::new();
    }
    let work = sizes.map(|(((height, width), factor), opened)| match opened {
        // What the network needs, and a frame that it gave, cut to its size and clamped.
        Some(opened) => {
            let frame = frame_bytes(height, width);
            let weights = opened.weight_bytes();
            let pass = opened.spec.memory([height, width]);
            pass.saturating_add(2 * frame).saturating_add(weights)
        }
        // Two frames, their motion, and the new ones before they are handed over.
        None => {
            let (frame, pair) = MotionFrame::bytes(height, width);
            let new = frame_bytes(height, width).saturating_mul(factor as u64);
            frame.saturating_mul(2).saturating_add(pair).saturating_add(new)
        }
    });
    let StepInfo { outputs, memory, spillable, .. } =
        gives(FramesFact { count, fps, ..frames }, work);
    review.finish(StepInfo { outputs, memory, spillable, ..info })
}

fn run(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let frames = inputs.value::<Frames>("frames")?;
    let factor: usize = inputs.int("factor")?;
    if factor <= 1 {
        return Ok(vec![Some(Value::from(frames))]);
    }
    let too_many = || Error::input("factor", format!("{factor} times as many frames"));
    let of = with_between(frames.count(), factor).ok_or_else(too_many)?;
    let model = inputs.text("model")?;
    // The network that the plan was made with; without a plan, the one that lies there now.
    let planned = cx.reads.iter().find(|read| read.path == model).map(|read| &*read.hash);
    if let Some(opened) = open(cx.services, model, planned).map_err(refuse)? {
        return learned(Walk::new(cx, &frames, factor, of), factor, &opened);
    }
    let (height, width) = (frames.height(), frames.width());
    Walk::new(cx, &frames, factor, of).all(
        |_, frame| Ok(MotionFrame::new(frame.flatten_all()?.to_vec1()?, height, width)),
        |walk, before, next| walk.push(&between(before, next, factor)?),
    )
}

/// A walk over the frames of a clip: each goes into the result, and before it what lies between
/// the one before and it.
struct Walk<'w, 'c> {
    cx: &'w mut Cx<'c>,
    frames: &'w Frames,
    result: FramesBuilder,
    done: usize,
    of: usize,
}

impl<'w, 'c> Walk<'w, 'c> {
    /// Gives `of` frames, `factor` for one.
    fn new(cx: &'w mut Cx<'c>, frames: &'w Frames, factor: usize, of: usize) -> Self {
        let fps = frames.fps().map(|fps| fps * factor as f64);
        let result = FramesBuilder::new(&cx.services.ledger, fps);
        Walk { cx, frames, result, done: 0, of }
    }

    /// Gives what `prepare` made of every two neighbours to `between`, which pushes what lies there.
    fn all<T>(
        mut self,
        prepare: impl Fn(&Self, &Tensor) -> Result<T>,
        between: impl Fn(&mut Self, &T, &T) -> Result<()>,
    ) -> Result<Outputs> {
        let mut before: Option<T> = None;
        self.cx.progress(0, self.of);
        for chunk in self.frames.chunks() {
            let chunk = chunk?;
            for index in 0..chunk.dim(0)? {
                self.cx.check_cancel()?;
                let frame = chunk.narrow(0, index, 1)?; // [1, h, w, 3]
                let next = prepare(&self, &frame)?;
                if let Some(before) = &before {
                    between(&mut self, before, &next)?;
                }
                self.push(&frame)?;
                before = Some(next);
            }
        }
        Ok(vec![Some(Value::from(self.result.finish()?))])
    }

    /// Adds frames, `[n, h, w, 3]`.
    fn push(&mut self, frames: &Tensor) -> Result<()> {
        self.done += frames.dim(0)?;
        self.result.push(frames)?;
        self.cx.progress(self.done, self.of);
        Ok(())
    }
}

/// The frames between two: `[factor − 1, h, w, 3]`.
fn between(first: &MotionFrame, second: &MotionFrame, factor: usize) -> Result<Tensor> {
    let (height, width) = first.size();
    let motion = Between::new(first, second);
    let mut new = Vec::with_capacity((factor - 1) * height * width * 3);
    for step in 1..factor {
        new.extend(motion.at(step as f32 / factor as f32));
    }
    Ok(Tensor::from_vec(new, (factor - 1, height, width, 3), &Device::Cpu)?)
}

/// Frames between frames by a network.
fn learned(
    walk: Walk<'_, '_>,
    factor: usize,
    opened: &OpenNetwork<dyn InterpolatorSpec>,
) -> Result<Outputs> {
    let services = walk.cx.services;
    let memory = opened.spec.memory([walk.frames.height(), walk.frames.width()]);
    services.device_ledger().check(memory, "a frame between two on its way")?;
    let network = services.get::<Models>()?.interpolator(opened)?;
    walk.all(
        |walk, frame| network.prepare(&frame.to_device(walk.cx.device())?).node(),
        |walk, before, next| {
            for step in 1..factor {
                let at = step as f32 / factor as f32;
                let mut check_cancel = check_cancel(walk.cx.cancel);
                let new = network.between(before, next, at, &mut check_cancel).node()?;
                walk.push(&in_range(&new)?)?;
            }
            Ok(())
        },
    )
}

/// A frame in 0…1, or an error where it holds what is no number.
fn in_range(frame: &Tensor) -> Result<Tensor> {
    kino_kernels::clamp_finite(frame, 0.0, 1.0)?.ok_or_else(|| {
        Error::advised(
            "a frame between two holds values that are infinite or none",
            "the frames given are not finite, or the weights of the model are damaged",
        )
    })
}
