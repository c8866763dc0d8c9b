//! `image.encode`: pictures and their embeddings.

use std::borrow::Cow;

use candle_core::Tensor;
use kino_node::{
    Cx, Frames, FramesFact, ImageConditioning, ImageConditioningFact, Inputs, NodeDef, Outputs,
    Result, Services, Value,
};
use kino_port::{
    Fact, Facts, NodeTraits, PlanError, PortType, Signature, StepInfo, edge, list, ports,
};

use crate::error::{IntoNode, check_cancel};
use crate::infer::{InferCx, InferResult, f32_bytes, known, named_facts, refuse};
use crate::models::{ImageHandle, Models, Network};

/// Turns pictures into the embeddings that a transformer reads.
pub(crate) static ENCODE: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("image.encode"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(ABOUT),
        inputs: ports![
            edge("encoder", PortType::ImageEncoder).about("The image encoder of a model."),
            list("image", PortType::Frames)
                .about("The picture, or the first and the last one of a clip, in this order."),
        ],
        outputs: ports![
            edge("conditioning", PortType::ImageConditioning)
                .about("The embeddings, `[rows, dim]`, picture after picture.")
        ],
        traits: NodeTraits::EXPENSIVE,
    },
    infer,
    run,
};

const ABOUT: &str = "Turns a picture into the embeddings that a transformer reads: what it shows, \
not where its pixels are. Wan 2.1 I2V reads one picture beside the text, FLF2V the first and the \
last of a clip. The picture is brought to the encoder's size as its processor says: resized by its \
shorter side, and cut to a square from the middle; give it as it is, not at the size of the clip. \
The encoder is CLIP's (arXiv:2103.00020), and what is read are the states before its last layer. \
Shapes: frames `[1, h, w, 3]` to `[rows, dim]`.\n\n\
Example:\n    \"seen\": (op: \"image.encode\", in: {\"encoder\": \"model.image_encoder\", \"image\": \
\"photo\"}),";

/// A picture is one frame.
fn check_count(count: usize) -> Result<(), PlanError> {
    match count {
        1 => Ok(()),
        count => Err(PlanError::at("image", format!("a picture is one frame, found {count}"))),
    }
}

fn infer(_: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let part = review.part::<ImageHandle>("encoder");
    let pictures = named_facts(facts, "image");
    for (_, fact) in &pictures {
        let frames: Option<FramesFact> = review.take(known::<Frames>("image", fact)).flatten();
        if let Some(count) = frames.and_then(|frames| frames.count) {
            review.take(check_count(count));
        }
    }
    let Some(part) = part else { return review.finish(StepInfo::default()) };
    let [rows, width] = part.spec.shape();
    let shape = [rows.saturating_mul(pictures.len()), width];
    let memory = part.weight_bytes().saturating_add(part.spec.memory(part.dtype));
    let memory = memory.saturating_add(part.scratch());
    review.finish(StepInfo {
        outputs: vec![Fact::typed(ImageConditioningFact { shape })],
        memory: memory.saturating_add(f32_bytes(&shape).saturating_mul(2)),
        weights: part.planned(Network::Whole, part.weight_bytes()),
        ..StepInfo::default()
    })
}

fn run(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let part = inputs.part::<ImageHandle>("encoder")?;
    let pictures = inputs.list::<Frames>("image")?;
    pictures.iter().try_for_each(|(_, picture)| check_count(picture.count())).map_err(refuse)?;
    cx.check_cancel()?;
    let encoder = cx.services.get::<Models>()?.image_encoder(&part)?;
    let mut rows = Vec::with_capacity(pictures.len());
    for (index, (_, picture)) in pictures.iter().enumerate() {
        cx.progress(index, pictures.len());
        let pixels = picture.chunk(0)?.squeeze(0)?; // [h, w, 3]
        rows.push(encoder.encode(&pixels, &mut check_cancel(cx.cancel)).node()?);
    }
    cx.progress(pictures.len(), pictures.len());
    let tensor = Tensor::cat(&rows, 0)?; // [rows of all, dim]
    Ok(vec![Some(Value::from(ImageConditioning { tensor }))])
}
