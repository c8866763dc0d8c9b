//! `frames.info`: what is known of a clip, as numbers that a graph can count with.

use std::borrow::Cow;

use kino_node::{Cx, Error, FrameRate, Frames, Inputs, NodeDef, Outputs, Result, Services, Value};
use kino_port::{
    Fact, Facts, Literal, NodeTraits, PortType, Signature, StepInfo, edge, ports, real,
};

use super::chunks::frames_in;
use crate::infer::{InferCx, InferResult};

/// The size, number and rate of frames.
pub(crate) static INFO: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("frames.info"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(ABOUT),
        inputs: ports![
            frames_in(),
            real("fps", 16.0)
                .within(0.01, 1000.0)
                .or_none()
                .unit("frames/s")
                .about("The rate of frames that have none, such as those of an image."),
        ],
        outputs: ports![
            edge("width", PortType::Int).about("Width in pixels."),
            edge("height", PortType::Int).about("Height in pixels."),
            edge("count", PortType::Int).about("The number of frames."),
            edge("fps", PortType::Real).about(
                "Frames a second; an error where the frames have no rate, and `fps` gives none."
            ),
        ],
        traits: NodeTraits::PORTABLE,
    },
    infer,
    run,
};

const ABOUT: &str = "Gives the size, the number and the rate of frames. What is known of them \
before anything runs is known of these numbers, too, so that `math` can compute with them while \
planning and later sizes are still checked.\n\n\
Example:\n    \"size\": (op: \"frames.info\", in: {\"frames\": \"photo\"}),";

fn infer(_: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let frames = review.partly::<Frames>("frames");
    let int = |size: Option<usize>| {
        size.map_or(Fact::Unknown, |size| Fact::Literal(Literal::Int(size as i128)))
    };
    let fps = match frames.fps {
        FrameRate::Fps(fps) => Some(fps),
        FrameRate::None => facts.real("fps"),
        FrameRate::Unknown => None,
    };
    let fps = fps.map_or(Fact::Unknown, |fps| Fact::Literal(Literal::Real(fps)));
    let outputs = vec![int(frames.width), int(frames.height), int(frames.count), fps];
    review.finish(StepInfo { outputs, ..StepInfo::default() })
}

fn run(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let frames = inputs.value::<Frames>("frames")?;
    let instead = inputs.get("fps").map(|_| inputs.real("fps")).transpose()?;
    let fps = match frames.fps().or(instead) {
        Some(fps) => Some(Value::Real(fps)),
        None if cx.wants(3) => {
            let hint = "frames that a model made have none: write the rate where it is needed";
            return Err(Error::advised("these frames have no rate", hint));
        }
        None => None,
    };
    let int = |size: usize| Some(Value::Int(size as i128));
    Ok(vec![int(frames.width()), int(frames.height()), int(frames.count()), fps])
}
