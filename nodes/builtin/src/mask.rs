//! `mask.read`, `mask.rect`, `mask.feather`, `mask.invert`: which pixels something holds for.

use std::borrow::Cow;

use candle_core::{DType, Device, Tensor};
use kino_node::{Cx, Inputs, Mask, MaskFact, NodeDef, Outputs, Result, Services, Value};
use kino_port::{
    Fact, Facts, NodeTraits, PlanError, Port, PortType, Signature, StepInfo, count, edge, int,
    path as path_port, ports, text,
};

use crate::error::IntoNode;
use crate::files::{cancellable, open};
use crate::image::infer_image;
use crate::infer::{InferCx, InferResult, f32_bytes, f32_bytes_of, refuse};
use crate::latent::LONGEST_SIDE;

/// The widest soft edge, in pixels to each side.
const WIDEST_EDGE: i128 = 1024;

/// BT.709's weights of red, green and blue in lightness, here of encoded values.
const LUMA: [f32; 3] = [0.2126, 0.7152, 0.0722];

const fn mask_out(about: &'static str) -> Port {
    edge("mask", PortType::Mask).about(about)
}

const fn mask_in() -> Port {
    edge("mask", PortType::Mask).about("The mask, `[f, h, w]` in 0…1.")
}

/// A mask from an image.
pub(crate) static READ: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("mask.read"),
        version: Cow::Borrowed("3"),
        about: Cow::Borrowed(READ_ABOUT),
        inputs: ports![
            path_port("path").about("A PNG, JPEG, WebP or EXR file, relative to the graph."),
            text("channel", "lightness").choices(&CHANNELS).about("What of the image is the mask."),
        ],
        outputs: ports![mask_out("One frame, `[1, h, w]`.")],
        traits: NodeTraits::LIGHT,
    },
    infer: infer_read,
    run: read,
};

const READ_ABOUT: &str = "Reads an image as a mask. By `lightness` it is 1 where the image is white, \
0 where it is black, and by how light it is between (0.2126·red + 0.7152·green + 0.0722·blue of the \
encoded values); by `alpha` it is 1 where the image covers, 0 where it is transparent, and 1 \
everywhere if it has no alpha; `red`, `green` and `blue` take that channel's encoded values. \
Shape: `[1, h, w]`; one frame stands for a whole clip.\n\n\
Example:\n    \"sky\": (op: \"mask.read\", with: {\"path\": \"sky.png\"}),";

/// What of an image can be a mask.
static CHANNELS: [Cow<'static, str>; 5] = [
    Cow::Borrowed("lightness"),
    Cow::Borrowed("alpha"),
    Cow::Borrowed("red"),
    Cow::Borrowed("green"),
    Cow::Borrowed("blue"),
];

/// A rectangle as a mask.
pub(crate) static RECT: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("mask.rect"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(RECT_ABOUT),
        inputs: ports![
            side("width").about("Width of the mask: that of the frames it is for."),
            side("height").about("Height of the mask: that of the frames it is for."),
            int("x", 0).between(0, LONGEST_SIDE).unit("px").about("The rectangle's left edge."),
            int("y", 0).between(0, LONGEST_SIDE).unit("px").about("The rectangle's top edge."),
            side("w").about("Width of the rectangle."),
            side("h").about("Height of the rectangle."),
            count("frames", 1)
                .between(1, 1 << 20)
                .unit("frames")
                .about("Frames of the mask; one stands for a whole clip."),
        ],
        outputs: ports![mask_out("`[frames, height, width]`: 1 in the rectangle, 0 elsewhere.")],
        traits: NodeTraits::LIGHT,
    },
    infer: infer_rect,
    run: rect,
};

const RECT_ABOUT: &str = "Makes a mask of a rectangle: 1 within, 0 elsewhere. A rectangle that \
reaches past the mask is an error. Shape: `[frames, height, width]`.\n\n\
Example:\n    \"middle\": (op: \"mask.rect\", with: {\"width\": 96, \"height\": 64, \"x\": 32, \
\"y\": 16, \"w\": 32, \"h\": 32}),";

const fn side(name: &'static str) -> Port {
    int(name, 0).between(1, LONGEST_SIDE).required().unit("px")
}

/// A mask with soft edges.
pub(crate) static FEATHER: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("mask.feather"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(FEATHER_ABOUT),
        inputs: ports![
            mask_in(),
            int("radius", 8)
                .between(0, WIDEST_EDGE)
                .unit("px")
                .about("How far an edge becomes soft, to each side; 0 leaves it."),
        ],
        outputs: ports![mask_out("The mask with soft edges, `[f, h, w]`.")],
        traits: NodeTraits::HEAVY,
    },
    infer: infer_same,
    run: feather,
};

const FEATHER_ABOUT: &str = "Makes the edges of a mask soft: from `radius` pixels inside an edge to \
`radius` outside it the mask falls from 1 to 0, and is one half at the edge. It is a blur by a tent \
of half-width `radius` along each axis, which leaves alone what is farther than that from an edge; \
beyond the border the mask is taken to go on. Time is not blurred. Shapes: `[f, h, w]`, in and \
out.\n\n\
Example:\n    \"soft\": (op: \"mask.feather\", in: {\"mask\": \"sky\"}, with: {\"radius\": 12}),";

/// A mask turned round.
pub(crate) static INVERT: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("mask.invert"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(INVERT_ABOUT),
        inputs: ports![mask_in()],
        outputs: ports![mask_out("1 − the mask, `[f, h, w]`.")],
        traits: NodeTraits::LIGHT,
    },
    infer: infer_same,
    run: invert,
};

const INVERT_ABOUT: &str = "Turns a mask round: what was 1 becomes 0. Shapes: `[f, h, w]`, in and \
out.\n\n\
Example:\n    \"ground\": (op: \"mask.invert\", in: {\"mask\": \"sky\"}),";

fn infer_read(services: &Services, facts: &Facts) -> InferResult {
    infer_image(services, facts, |[height, width]| {
        let fact = MaskFact { shape: [Some(1), height, width] };
        (Fact::typed(fact), f32_bytes_of(&[Some(2), height, width, Some(4)]))
    })
}

fn read(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let mut file = open(cx, inputs.text("path")?)?;
    let image = cancellable(cx.cancel, move || file.read_image())?.node()?;
    let weights = match inputs.text("channel")? {
        "alpha" => {
            let shape = (1, image.height, image.width);
            return given(match image.alpha {
                Some(alpha) => Tensor::from_vec(alpha, shape, &Device::Cpu)?,
                None => Tensor::ones(shape, DType::F32, &Device::Cpu)?,
            });
        }
        "red" => [1.0, 0.0, 0.0],
        "green" => [0.0, 1.0, 0.0],
        "blue" => [0.0, 0.0, 1.0],
        _ => LUMA,
    };
    let weighed = |rgb: &[f32]| {
        let sum: f32 = rgb.iter().zip(weights).map(|(value, weight)| value * weight).sum();
        sum.clamp(0.0, 1.0)
    };
    let values: Vec<f32> = image.rgb.chunks_exact(3).map(weighed).collect();
    let shape = (1, image.height, image.width);
    given(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

fn given(tensor: Tensor) -> Result<Outputs> {
    Ok(vec![Some(Value::from(Mask { tensor }))])
}

/// Every reason why the rectangle does not lie within the mask.
fn check_extent(port: &str, at: usize, size: usize, side: usize) -> Result<(), PlanError> {
    let end = at.saturating_add(size);
    if end <= side {
        return Ok(());
    }
    let message = format!("the rectangle ends at {end}, past the edge of the mask, {side}");
    Err(PlanError::at(port, message))
}

fn infer_rect(_: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let sizes = ["x", "y", "w", "h", "width", "height", "frames"].map(|port| review.size(port));
    let [x, y, w, h, width, height, frames] = sizes;
    for (port, at, size, side) in [("w", x, w, width), ("h", y, h, height)] {
        if let (Some(at), Some(size), Some(side)) = (at, size, side) {
            review.take(check_extent(port, at, size, side));
        }
    }
    let shape = [frames, height, width];
    review.finish(StepInfo {
        outputs: vec![Fact::typed(MaskFact { shape })],
        memory: f32_bytes_of(&shape).saturating_add(f32_bytes_of(&shape[1..])),
        ..StepInfo::default()
    })
}

fn rect(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let size = |port: &str| inputs.int::<usize>(port);
    let (x, y, w, h) = (size("x")?, size("y")?, size("w")?, size("h")?);
    let (width, height, frames) = (size("width")?, size("height")?, size("frames")?);
    check_extent("w", x, w, width).map_err(refuse)?;
    check_extent("h", y, h, height).map_err(refuse)?;
    let bytes = f32_bytes(&[frames, height, width]);
    cx.services.ledger.check(bytes, "the mask")?;
    let mask = Tensor::ones((1, h, w), DType::F32, &Device::Cpu)?;
    let mask = mask.pad_with_zeros(1, y, height - h - y)?.pad_with_zeros(2, x, width - w - x)?;
    given(mask.repeat((frames, 1, 1))?)
}

fn infer_same(_: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let mask = review.partly::<Mask>("mask");
    let [_, height, width] = mask.shape;
    let plane = f32_bytes_of(&[Some(2), height, width]).saturating_mul(2);
    let memory = f32_bytes_of(&mask.shape).saturating_mul(2).saturating_add(plane);
    review.finish(StepInfo { outputs: vec![Fact::typed(mask)], memory, ..StepInfo::default() })
}

fn feather(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let mask = inputs.value::<Mask>("mask")?;
    let radius: usize = inputs.int("radius")?;
    if radius == 0 {
        return Ok(vec![Some(Value::from(mask))]);
    }
    let (frames, height, width) = mask.tensor.dims3()?;
    let mut soft = Vec::with_capacity(frames);
    for frame in 0..frames {
        cx.check_cancel()?;
        let plane = mask.tensor.get(frame)?.to_device(&Device::Cpu)?; // [h, w]
        let rows = blurred(&plane, radius)?;
        let plane = blurred(&rows.t()?, radius)?.t()?.contiguous()?;
        soft.push(plane.reshape((1, height, width))?);
        cx.progress(frame + 1, frames);
    }
    given(Tensor::cat(&soft, 0)?)
}

/// Each row of `[n, length]` blurred by a tent.
fn blurred(plane: &Tensor, radius: usize) -> Result<Tensor> {
    let (rows, length) = plane.dims2()?;
    let values: Vec<f32> = plane.contiguous()?.flatten_all()?.to_vec1()?;
    let mut out = Vec::with_capacity(values.len());
    for row in values.chunks_exact(length.max(1)) {
        out.extend(tent(row, radius));
    }
    Ok(Tensor::from_vec(out, (rows, length), &Device::Cpu)?)
}

/// A row blurred by the weights (radius − |k|)/radius², |k| < radius, which are those of two boxes
/// of `radius` pixels one after the other; the ends go on.
fn tent(row: &[f32], radius: usize) -> Vec<f32> {
    let last = row.len() - 1;
    let at = |index: isize| f64::from(row[index.clamp(0, last as isize) as usize]);
    let (reach, width) = (radius as isize, radius as f64);
    // Box i is the mean of i … i + radius − 1, taken by a running sum; those that the second box
    // needs begin at 1 − radius.
    let mut sum: f64 = (1 - reach..=0).map(at).sum();
    let mut boxes = Vec::with_capacity(row.len() + radius);
    for first in 1 - reach..=last as isize {
        boxes.push(sum / width);
        sum += at(first + reach) - at(first);
    }
    let mut sum: f64 = boxes[..radius].iter().sum();
    let mut out = Vec::with_capacity(row.len());
    for first in 0..row.len() {
        out.push(((sum / width) as f32).clamp(0.0, 1.0));
        if let Some(next) = boxes.get(first + radius) {
            sum += next - boxes[first];
        }
    }
    out
}

fn invert(_: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let mask = inputs.value::<Mask>("mask")?;
    given(mask.tensor.affine(-1.0, 1.0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same blur, weight by weight.
    fn tent_by_weights(row: &[f32], radius: usize) -> Vec<f64> {
        let (last, reach) = (row.len() as isize - 1, radius as isize);
        let weight = |k: isize| (reach - k.abs()) as f64 / (radius * radius) as f64;
        let at = |i: isize| f64::from(row[i.clamp(0, last) as usize]);
        let around = |i: isize| (1 - reach..reach).map(|k| weight(k) * at(i + k)).sum();
        (0..=last).map(around).collect()
    }

    #[test]
    fn a_tent_by_running_sums_is_the_tent_by_weights() {
        let row: Vec<f32> = (0..23u32).map(|i| (i * 7 % 11) as f32 / 10.0).collect();
        for length in [1, 2, 9, 23] {
            for radius in [1, 2, 5, 40] {
                let (fast, slow) =
                    (tent(&row[..length], radius), tent_by_weights(&row[..length], radius));
                let gap = |(a, b): (&f32, &f64)| (f64::from(*a) - b).abs();
                assert!(
                    fast.iter().zip(&slow).map(gap).all(|gap| gap < 1e-6),
                    "{length}, {radius}"
                );
            }
        }
    }
}
