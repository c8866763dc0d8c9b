//! `frames.interpolate`: frames between frames, along their motion.

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use kino_node::{
    Cx, Error, Frames, FramesBuilder, FramesFact, Inputs, NodeDef, Outputs, Result, Services, Value,
};
use kino_port::{Facts, NodeTraits, PortType, Signature, StepInfo, edge, int, ports};

use super::chunks::{frame_bytes, frames_in, gives};
use super::motion::{Between, MotionFrame};
use crate::infer::{InferCx, InferResult};

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
tenth of the shorter side. Shapes: `[f, h, w, 3]` to `[(f − 1)·factor + 1, h, w, 3]`.\n\n\
Example:\n    \"smooth\": (op: \"frames.interpolate\", in: {\"frames\": \"frames\"}, with: \
{\"factor\": 2}),";

/// The number of frames with those between.
fn with_between(count: usize, factor: usize) -> Option<usize> {
    count.checked_sub(1)?.checked_mul(factor)?.checked_add(1)
}

fn infer(_: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let (Some(frames), Some(factor)) = (review.known::<Frames>("frames"), review.size("factor"))
    else {
        return review.finish(StepInfo::default());
    };
    let count = frames.count.and_then(|count| with_between(count, factor));
    let fps = frames.fps.map(|fps| fps * factor as f64);
    let (frame, pair) = MotionFrame::bytes(frames.height, frames.width);
    // Two frames, their motion, and the new ones before they are handed over.
    let new = frame_bytes(frames.height, frames.width).saturating_mul(factor as u64);
    let work = frame.saturating_mul(2).saturating_add(pair).saturating_add(new);
    review.finish(gives(FramesFact { count, fps, ..frames }, work))
}

fn run(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let frames = inputs.value::<Frames>("frames")?;
    let factor: usize = inputs.int("factor")?;
    if factor <= 1 {
        return Ok(vec![Some(Value::from(frames))]);
    }
    let too_many = || Error::input("factor", format!("{factor} times as many frames"));
    let of = with_between(frames.count(), factor).ok_or_else(too_many)?;
    let (height, width) = (frames.height(), frames.width());
    let fps = frames.fps().map(|fps| fps * factor as f64);
    let mut result = FramesBuilder::new(&cx.services.ledger, fps);
    let (mut before, mut done): (Option<MotionFrame>, usize) = (None, 0);
    cx.progress(0, of);
    for chunk in frames.chunks() {
        let chunk = chunk?;
        for index in 0..chunk.dim(0)? {
            cx.check_cancel()?;
            let frame = chunk.narrow(0, index, 1)?; // [1, h, w, 3]
            let next = MotionFrame::new(frame.flatten_all()?.to_vec1()?, height, width);
            if let Some(before) = &before {
                result.push(&between(before, &next, factor)?)?;
                done += factor - 1;
            }
            result.push(&frame)?;
            before = Some(next);
            done += 1;
            cx.progress(done, of);
        }
    }
    Ok(vec![Some(Value::from(result.finish()?))])
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
