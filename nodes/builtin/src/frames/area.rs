//! `frames.crop` and `frames.fit`: a part of the picture, or all of it in another shape.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::Tensor;
use kino_kernels::Filter;
use kino_node::{Cx, Frames, FramesBuilder, Inputs, NodeDef, Outputs, Result, Services, Value};
use kino_port::{Facts, NodeTraits, PlanError, PortType, Signature, edge, int, ports, text};

use super::chunks::{CHUNK, frame_bytes, frames_in, gives, push_changed};
use crate::infer::{InferCx, InferResult, refuse};
use crate::latent::LONGEST_SIDE;

/// A rectangle of each frame.
pub(crate) static CROP: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("frames.crop"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(CROP_ABOUT),
        inputs: ports![
            frames_in(),
            int("x", 0)
                .between(0, LONGEST_SIDE)
                .unit("px")
                .about("How far the rectangle lies from the left."),
            int("y", 0)
                .between(0, LONGEST_SIDE)
                .unit("px")
                .about("How far the rectangle lies from the top."),
            int("width", 0)
                .between(1, LONGEST_SIDE)
                .required()
                .unit("px")
                .about("Width of the rectangle."),
            int("height", 0)
                .between(1, LONGEST_SIDE)
                .required()
                .unit("px")
                .about("Height of the rectangle."),
        ],
        outputs: ports![
            edge("frames", PortType::Frames)
                .about("The rectangle of each frame, at the same rate.")
        ],
        traits: NodeTraits::LIGHT,
    },
    infer: infer_crop,
    run: crop,
};

const CROP_ABOUT: &str = "Cuts a rectangle out of each frame; nothing is scaled. A rectangle that \
reaches past the frame is an error. Shapes: `[f, h, w, 3]` to `[f, height, width, 3]`.\n\n\
Example:\n    \"face\": (op: \"frames.crop\", in: {\"frames\": \"clip\"}, with: {\"x\": 32, \"y\": \
0, \"width\": 64, \"height\": 64}),";

/// Frames in another shape, by a rule.
pub(crate) static FIT: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("frames.fit"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(FIT_ABOUT),
        inputs: ports![
            frames_in(),
            int("width", 0).between(1, LONGEST_SIDE).required().unit("px").about("The new width."),
            int("height", 0)
                .between(1, LONGEST_SIDE)
                .required()
                .unit("px")
                .about("The new height."),
            text("fit", "crop").choices(&FITS).about(
                "What happens to another aspect ratio: what is too much is cut off, what is \
                 missing is black, or the picture is squashed."
            ),
        ],
        outputs: ports![
            edge("frames", PortType::Frames).about("The frames at the new size, at the same rate.")
        ],
        traits: NodeTraits::HEAVY,
    },
    infer: infer_fit,
    run: fit,
};

const FIT_ABOUT: &str = "Brings frames to a size, by a rule for those of another aspect ratio. \
`crop` cuts off what is too much, the same on both sides; `pad` shows the whole picture between \
black bars; `stretch` squashes it. Only `stretch` changes the proportions of what is shown, but \
for what rounding to whole pixels does. Scaled by Lanczos as in `frames.resize`. Shapes: `[f, h, \
w, 3]` to `[f, height, width, 3]`.\n\n\
Example:\n    \"photo_fit\": (op: \"frames.fit\", in: {\"frames\": \"photo\"}, with: {\"width\": \
96, \"height\": 64}),";

const FITS: [Cow<'static, str>; 3] =
    [Cow::Borrowed("crop"), Cow::Borrowed("pad"), Cow::Borrowed("stretch")];

/// A size, or a place: along the height, then the width.
type Pair = (usize, usize);

/// A rectangle within frames.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rect {
    at: Pair,
    size: Pair,
}

impl Rect {
    fn of(self, frames: &Tensor) -> Result<Tensor> {
        Ok(frames.narrow(1, self.at.0, self.size.0)?.narrow(2, self.at.1, self.size.1)?)
    }
}

/// Why the rectangle does not lie within the frame along an axis.
fn check_extent(axis: &str, at: usize, size: usize, side: usize) -> Result<(), PlanError> {
    let end = at.saturating_add(size);
    if end <= side {
        return Ok(());
    }
    let message = format!("the rectangle ends at {end}, past the {axis} of the frames, {side}");
    Err(PlanError::at(axis, message))
}

fn infer_crop(_: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let frames = review.partly::<Frames>("frames");
    let [x, y, width, height] = ["x", "y", "width", "height"].map(|port| review.size(port));
    for (axis, at, size, side) in
        [("width", x, width, frames.width), ("height", y, height, frames.height)]
    {
        if let (Some(at), Some(size), Some(side)) = (at, size, side) {
            review.take(check_extent(axis, at, size, side));
        }
    }
    let bytes = |(height, width): Pair| frame_bytes(height, width);
    let sizes = frames.size().zip(height.zip(width));
    let work = sizes.map(|(from, to)| CHUNK as u64 * (bytes(from) + bytes(to)));
    review.finish(gives(frames.sized((height, width)), work))
}

fn crop(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let frames = inputs.value::<Frames>("frames")?;
    let rect = Rect {
        at: (inputs.int("y")?, inputs.int("x")?),
        size: (inputs.int("height")?, inputs.int("width")?),
    };
    let frame = (frames.height(), frames.width());
    check_extent("width", rect.at.1, rect.size.1, frame.1).map_err(refuse)?;
    check_extent("height", rect.at.0, rect.size.0, frame.0).map_err(refuse)?;
    changed(cx, &frames, frame == rect.size, |few| rect.of(few))
}

/// All frames as `change` makes them, or as they are.
fn changed(
    cx: &Cx<'_>,
    frames: &Arc<Frames>,
    same: bool,
    change: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Outputs> {
    if same {
        return Ok(vec![Some(Value::from(Arc::clone(frames)))]);
    }
    let mut result = FramesBuilder::new(&cx.services.ledger, frames.fps());
    push_changed(cx, frames, (0, frames.count()), &mut result, change)?;
    Ok(vec![Some(Value::from(result.finish()?))])
}

/// How frames of one size are shown at another: this part of them, in this part of the result.
#[derive(Debug, PartialEq)]
struct Fitted {
    from: Rect,
    to: Rect,
}

impl Fitted {
    fn new(fit: &str, frame: Pair, size: Pair) -> Self {
        let whole = |size: Pair| Rect { at: (0, 0), size };
        match fit {
            "stretch" => Fitted { from: whole(frame), to: whole(size) },
            "pad" => Fitted { from: whole(frame), to: inner(size, frame) },
            _ => Fitted { from: inner(frame, size), to: whole(size) },
        }
    }

    /// The frames as they are shown. Shapes: `[n, h, w, 3]` to `[n, height, width, 3]`.
    fn of(&self, few: &Tensor, (height, width): Pair) -> Result<Tensor> {
        let few = self.from.of(few)?.contiguous()?;
        let (tall, wide) = self.to.size;
        let shown = kino_kernels::resize(&few, tall, wide, Filter::Lanczos)?.clamp(0f32, 1f32)?;
        let (top, left) = self.to.at;
        let shown = shown.pad_with_zeros(1, top, height - tall - top)?;
        Ok(shown.pad_with_zeros(2, left, width - wide - left)?)
    }
}

/// The largest rectangle of the aspect ratio of `shape` in the middle of `within`, in whole pixels.
fn inner(within: Pair, shape: Pair) -> Rect {
    let scaled = |side: usize, to: usize, from: usize| {
        ((side as f64 * to as f64 / from as f64).round() as usize).max(1)
    };
    let (wide, tall) = (scaled(within.0, shape.1, shape.0), scaled(within.1, shape.0, shape.1));
    let size = if wide <= within.1 { (within.0, wide) } else { (tall.min(within.0), within.1) };
    Rect { at: ((within.0 - size.0) / 2, (within.1 - size.1) / 2), size }
}

fn infer_fit(_: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let frames = review.partly::<Frames>("frames");
    let (height, width) = (review.size("height"), review.size("width"));
    let few = CHUNK.min(frames.count.unwrap_or(CHUNK)) as u64;
    let work = frames.size().zip(height.zip(width)).map(|((tall, wide), (height, width))| {
        let (frame, between) = (frame_bytes(tall, wide), frame_bytes(tall, width));
        few.saturating_mul(2 * frame + between + 2 * frame_bytes(height, width))
    });
    review.finish(gives(frames.sized((height, width)), work))
}

fn fit(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let frames = inputs.value::<Frames>("frames")?;
    let size: Pair = (inputs.int("height")?, inputs.int("width")?);
    let frame = (frames.height(), frames.width());
    let fitted = Fitted::new(inputs.text("fit")?, frame, size);
    // The sizes may be known only now: what cannot be had is this node's error.
    let few = frames.count().min(CHUNK) as u64;
    let work = frame_bytes(frame.0, size.1).saturating_add(2 * frame_bytes(size.0, size.1));
    cx.services.ledger.check(few.saturating_mul(work), "a few frames of the new size")?;
    let device = cx.device().clone();
    changed(cx, &frames, frame == size, |few| fitted.of(&few.to_device(&device)?, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proportions_stay_but_for_whole_pixels() {
        for frame in [(480, 832), (100, 100), (64, 96), (1000, 10), (3, 4000)] {
            for size in [(64, 96), (96, 64), (64, 64), (480, 832), (1, 20)] {
                let crop = Fitted::new("crop", frame, size);
                assert_eq!(crop.to, Rect { at: (0, 0), size });
                let pad = Fitted::new("pad", frame, size);
                assert_eq!(pad.from, Rect { at: (0, 0), size: frame });
                for (rect, within, shape) in [(crop.from, frame, size), (pad.to, size, frame)] {
                    let (tall, wide) = rect.size;
                    assert!(rect.at.0 + tall <= within.0 && rect.at.1 + wide <= within.1);
                    assert!(tall == within.0 || wide == within.1, "{rect:?} fills {within:?}");
                    // Half a pixel along the side that was rounded, or one where less is nothing.
                    let (high, broad) = (tall as f64, wide as f64);
                    let off_wide = (broad - high * shape.1 as f64 / shape.0 as f64).abs();
                    let off_tall = (high - broad * shape.0 as f64 / shape.1 as f64).abs();
                    assert!(off_wide <= 1.0 || off_tall <= 1.0, "{rect:?} of {shape:?}");
                }
            }
        }
        assert_eq!(inner((64, 96), (10, 10)), Rect { at: (0, 16), size: (64, 64) });
        assert_eq!(inner((96, 64), (10, 10)), Rect { at: (16, 0), size: (64, 64) });
    }
}
