//! `frames.resize`: another size by a filter, and what else resizes frames.

use std::borrow::Cow;
use std::sync::Arc;

use kino_kernels::Filter;
use kino_node::{
    Cx, Error, Frames, FramesBuilder, FramesFact, Inputs, NodeDef, Outputs, Result, Services, Value,
};
use kino_port::{
    Fact, Facts, NodeTraits, PlanError, Port, PortType, Signature, StepInfo, edge, int, ports, text,
};

use super::chunks::{CHUNK, frame_bytes, frames_in, push_changed};
use crate::infer::{InferCx, InferResult, refuse};
use crate::latent::LONGEST_SIDE;

/// Brings frames to another size.
pub(crate) static RESIZE: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("frames.resize"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(RESIZE_ABOUT),
        inputs: ports![
            frames_in(),
            int("width", 0)
                .between(0, LONGEST_SIDE)
                .unit("px")
                .about("The new width; 0 keeps the aspect ratio."),
            int("height", 0)
                .between(0, LONGEST_SIDE)
                .unit("px")
                .about("The new height; 0 keeps the aspect ratio."),
            text("filter", "lanczos")
                .choices(&FILTERS)
                .about("How colours between pixels are found."),
        ],
        outputs: ports![frames_out()],
        traits: NodeTraits::HEAVY,
    },
    infer: infer_resize,
    run: resize,
};

const RESIZE_ABOUT: &str = "Brings frames to another size. If only one of `width` and `height` is \
given, the other follows from the aspect ratio. The filters are those of Pillow (Resample.c): \
pixel centres lie at halves, and a filter is widened by the factor of shrinking, so that nothing \
flickers. Lanczos is the sharpest and overshoots a little at edges; what leaves 0…1 is cut off. \
`area` is the mean of what a pixel covers, for shrinking by whole factors. \
Shapes: `[f, h, w, 3]` to `[f, height, width, 3]`.\n\n\
Example:\n    \"small\": (op: \"frames.resize\", in: {\"frames\": \"photo\"}, with: {\"width\": \
832, \"height\": 480}),";

const FILTERS: [Cow<'static, str>; 5] = [
    Cow::Borrowed("lanczos"),
    Cow::Borrowed("bicubic"),
    Cow::Borrowed("bilinear"),
    Cow::Borrowed("area"),
    Cow::Borrowed("nearest"),
];

/// The output of nodes that change the size.
pub(super) const fn frames_out() -> Port {
    edge("frames", PortType::Frames).about("The frames at the new size, at the same rate.")
}

/// The new (height, width) for a wish of 0 or more each.
fn wished(
    (height, width): (usize, usize),
    (tall, wide): (usize, usize),
) -> Result<(usize, usize), PlanError> {
    let scaled = |side: usize, to: usize, from: usize| {
        ((side as f64 * to as f64 / from as f64).round() as usize).max(1)
    };
    match (tall, wide) {
        (0, 0) => Err(PlanError::new("no size is given").hint("give `width`, `height`, or both")),
        (0, wide) => Ok((scaled(height, wide, width), wide)),
        (tall, 0) => Ok((tall, scaled(width, tall, height))),
        both => Ok(both),
    }
}

fn infer_resize(_: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let frames = review.known::<Frames>("frames");
    let (Some(height), Some(width)) = (review.size("height"), review.size("width")) else {
        return review.finish(StepInfo::default());
    };
    let size = frames.as_ref().map_or((1, 1), |frames| (frames.height, frames.width));
    let size = review.take(wished(size, (height, width)));
    match (frames, size) {
        (Some(frames), Some(size)) => review.finish(resized(&frames, size)),
        _ => review.finish(StepInfo::default()),
    }
}

/// What is known of frames at a new size. Memory: the result, and beside it one chunk of at most
/// [`CHUNK`] frames: wider first, or at the new size before its colours are cut off.
pub(super) fn resized(frames: &FramesFact, (height, width): (usize, usize)) -> StepInfo {
    let frame = |height: usize, width: usize| frame_bytes(height, width);
    let count = frames.count.unwrap_or(1);
    let chunk = count.min(CHUNK) as u64;
    let work = chunk.saturating_mul(frame(frames.height.max(height), width));
    StepInfo {
        outputs: vec![Fact::typed(FramesFact { height, width, ..frames.clone() })],
        memory: (count as u64).saturating_mul(frame(height, width)).saturating_add(work),
        spillable: (count as u64).saturating_mul(frame(height, width)),
        ..StepInfo::default()
    }
}

fn resize(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let frames = inputs.value::<Frames>("frames")?;
    let wish = (inputs.int("height")?, inputs.int("width")?);
    let size = wished((frames.height(), frames.width()), wish).map_err(refuse)?;
    let filter = inputs.text("filter")?.parse().map_err(|error| Error::input("filter", error))?;
    scale(cx, &frames, size, filter)
}

/// Frames at a size, by a filter; what leaves 0…1 is cut off.
pub(super) fn scale(
    cx: &mut Cx<'_>,
    frames: &Arc<Frames>,
    (height, width): (usize, usize),
    filter: Filter,
) -> Result<Outputs> {
    if (frames.height(), frames.width()) == (height, width) {
        return Ok(vec![Some(Value::from(Arc::clone(frames)))]);
    }
    // The sizes may be known only now: what cannot be had is this node's error.
    let few = frames.count().min(CHUNK) as u64;
    let work = frame_bytes(frames.height(), width).saturating_add(frame_bytes(height, width));
    cx.services.ledger.check(few.saturating_mul(work), "a few frames of the new size")?;
    let mut resized = FramesBuilder::new(&cx.services.ledger, frames.fps());
    push_changed(cx, frames, (0, frames.count()), &mut resized, |few| {
        let few = few.to_device(cx.device())?;
        let mut few = kino_kernels::resize(&few, height, width, filter)?; // [n, height, width, 3]
        // One after the other, so that there are never three of them.
        few = few.maximum(0f32)?;
        few = few.minimum(1f32)?;
        Ok(few)
    })?;
    Ok(vec![Some(Value::from(resized.finish()?))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_that_is_not_given_follows() {
        assert_eq!(wished((480, 832), (0, 416)), Ok((240, 416)));
        assert_eq!(wished((480, 832), (100, 0)), Ok((100, 173)));
        assert_eq!(wished((480, 832), (7, 9)), Ok((7, 9)));
        assert_eq!(wished((1000, 1), (1, 0)), Ok((1, 1)));
        assert!(wished((480, 832), (0, 0)).is_err());
    }
}
