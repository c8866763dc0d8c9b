//! `frames.resize`: another size by a filter, and what else resizes frames.

use std::borrow::Cow;
use std::sync::Arc;

use kino_kernels::Filter;
use kino_node::{
    Cx, Error, Frames, FramesBuilder, FramesFact, Inputs, NodeDef, Outputs, Result, Services, Value,
};
use kino_port::{
    Facts, NodeTraits, PlanError, Port, PortType, Signature, StepInfo, edge, int, ports, text,
};

use super::chunks::{CHUNK, frame_bytes, frames_in, gives, push_changed};
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

/// A height and a width, those that are known.
type Known = (Option<usize>, Option<usize>);

/// The new (height, width) for a wish of 0 or more each, as far as it is known.
fn wished((height, width): Known, wish: Known) -> Result<Known, PlanError> {
    let scaled = |side: Option<usize>, to: usize, from: Option<usize>| {
        let (side, from) = side.zip(from)?;
        Some(((side as f64 * to as f64 / from as f64).round() as usize).max(1))
    };
    Ok(match wish {
        (Some(0), Some(0)) => {
            let error = PlanError::new("no size is given");
            return Err(error.hint("give `width`, `height`, or both"));
        }
        (Some(0), Some(wide)) => (scaled(height, wide, width), Some(wide)),
        (Some(tall), Some(0)) => (Some(tall), scaled(width, tall, height)),
        // Where one is not known, the other is only known to be what it says.
        (tall, wide) => (tall.filter(|tall| *tall > 0), wide.filter(|wide| *wide > 0)),
    })
}

fn infer_resize(_: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let frames = review.partly::<Frames>("frames");
    let wish = (review.size("height"), review.size("width"));
    let size = review.take(wished((frames.height, frames.width), wish));
    review.finish(resized(frames, size.unwrap_or_default()))
}

/// What is known of frames at a new size. Memory: the result, and beside it one chunk of at most
/// [`CHUNK`] frames: wider first, or at the new size before its colours are cut off.
pub(super) fn resized(frames: FramesFact, size: Known) -> StepInfo {
    let chunk = frames.count.unwrap_or(1).min(CHUNK) as u64;
    let work = frames.size().zip(size.0.zip(size.1)).map(|((tall, _), (height, width))| {
        chunk.saturating_mul(frame_bytes(tall.max(height), width))
    });
    gives(frames.sized(size), work)
}

fn resize(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let frames = inputs.value::<Frames>("frames")?;
    let wish = (inputs.int("height")?, inputs.int("width")?);
    let size = (Some(frames.height()), Some(frames.width()));
    let size = wished(size, (Some(wish.0), Some(wish.1))).map_err(refuse)?;
    let size = (size.0.unwrap_or_default(), size.1.unwrap_or_default());
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
        let both = |(height, width): (usize, usize)| (Some(height), Some(width));
        let check = |size, wish, expected| {
            assert_eq!(wished(both(size), both(wish)), Ok(both(expected)));
        };
        check((480, 832), (0, 416), (240, 416));
        check((480, 832), (100, 0), (100, 173));
        check((480, 832), (7, 9), (7, 9));
        check((1000, 1), (1, 0), (1, 1));
        assert!(wished(both((480, 832)), both((0, 0))).is_err());
    }

    #[test]
    fn of_frames_that_nobody_has_seen_a_side_is_known_that_is_given() {
        let unseen = (None, None);
        assert_eq!(wished(unseen, (Some(7), Some(9))), Ok((Some(7), Some(9))));
        assert_eq!(wished(unseen, (Some(7), Some(0))), Ok((Some(7), None)));
        assert_eq!(wished(unseen, (None, Some(9))), Ok((None, Some(9))));
        assert_eq!(wished(unseen, (None, Some(0))), Ok((None, None)));
        assert!(wished(unseen, (Some(0), Some(0))).is_err());
    }
}
