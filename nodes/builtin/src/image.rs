//! `image.read` and `image.write`: images are videos of one frame.

use std::borrow::Cow;
use std::path::Path;

use candle_core::{Device, Tensor};
use kino_node::{
    Cx, FrameRate, Frames, FramesFact, Inputs, NodeDef, Outputs, Result, Services, Value,
};
use kino_port::{
    Fact, Facts, NodeTraits, PlanError, PortType, Signature, StepInfo, edge, int,
    path as path_port, ports, text,
};
use kino_world::media::{Depth, VideoFormat, format_of};

use crate::error::{IntoNode, at_port};
use crate::files::{PlannedInput, cancellable, open, output};
use crate::infer::{InferCx, InferResult, f32_bytes_of, refuse};
use crate::video::{Look, infer_written, one_frame, write};

/// Reads an image.
pub(crate) static READ: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("image.read"),
        version: Cow::Borrowed("3"),
        about: Cow::Borrowed(READ_ABOUT),
        inputs: ports![
            path_port("path").about("A PNG, JPEG, WebP or EXR file, relative to the graph."),
            text("background", "#000000")
                .about("The colour under what is transparent: red, green, blue, as in #20a0ff.")
        ],
        outputs: ports![edge("frames", PortType::Frames).about("One frame, `[1, h, w, 3]`.")],
        traits: NodeTraits::LIGHT,
    },
    infer: infer_read,
    run: read,
};

const READ_ABOUT: &str = "Reads an image as one frame. The contents decide what it is, not the \
name: PNG, JPEG, WebP or EXR. What is transparent shows `background`; `mask.read` reads the alpha. \
16 bits a channel keep their precision, and the orientation that a camera noted is applied. Colours \
of a profile (ICC, or gAMA, cHRM and cICP of a PNG) are brought to sRGB; what cannot be is refused by \
its name, and so is what is animated, which `video.read` reads. \
Shape: `[1, h, w, 3]` in 0…1.\n\n\
An EXR holds light: of its layers the first with R, G and B (or Y alone) is read, its display \
window, brought to the primaries of BT.709 and encoded by the curve of sRGB. Beyond 1 that curve \
goes on, so that highlights are numbers above 1 and come back as they were when an EXR is written \
again. Its colours are multiplied by alpha, so that light of `background` is added to them; what is \
no number is 0, what is infinite 65504 in light.\n\n\
Example:\n    \"photo\": (op: \"image.read\", with: {\"path\": \"photo.jpg\"}),";

/// Writes images.
pub(crate) static WRITE: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("image.write"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(WRITE_ABOUT),
        inputs: ports![
            edge("frames", PortType::Frames)
                .about("One frame, or several for a numbered sequence."),
            path_port("path").about(
                "Where to write, under the output folder: a .png or .exr file, or a sequence such as \
                 frame_%05d.png."
            ),
            int("bits", 8).between(8, 16).about("Bits a channel of a PNG: 8 or 16; those of an EXR are half floats."),
        ],
        outputs: ports![edge("file", PortType::File).about("The file that was written.")],
        traits: NodeTraits::SINK,
    },
    infer: infer_write,
    run: run_write,
};

const WRITE_ABOUT: &str = "Writes a frame as a PNG of 8 or 16 bits a channel or as an EXR of half \
floats, or several as a numbered sequence. An EXR holds light: the curve of sRGB is undone, also \
beyond 1 and below 0, so that what `image.read` read of one is written within half precision; what is \
no number becomes 0. The file appears whole or not at all, and carries the workflow that made it: `kino show \
FILE` prints it as a graph that runs again.\n\n\
Example:\n    \"file\": (op: \"image.write\", in: {\"frames\": \"frames\"}, with: {\"path\": \
\"{graph}-{seed}.png\"}),";

fn infer_read(services: &Services, facts: &Facts) -> InferResult {
    let background = facts.text("background").map(colour).transpose();
    background.map_err(|error| vec![error])?;
    infer_image(services, facts, |[height, width]| {
        let fact = FramesFact { count: Some(1), height, width, fps: FrameRate::None };
        (Fact::typed(fact), f32_bytes_of(&[Some(2), height, width, Some(3)]))
    })
}

/// A colour written as `#20a0ff`, in 0…1.
fn colour(text: &str) -> Result<[f32; 3], PlanError> {
    let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6);
    let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let signed = digits.is_some_and(|digits| digits.starts_with('+'));
    match number.filter(|_| !signed) {
        Some(number) => Ok([16, 8, 0].map(|shift| (number >> shift & 0xff) as f32 / 255.0)),
        None => {
            let message = format!("expected a colour such as #20a0ff, found `{text}`");
            let hint = "write red, green and blue as two hexadecimal digits each: #ffffff is white";
            Err(PlanError::at("background", message).hint(hint))
        }
    }
}

/// Plans a node that reads the image at its port `path`: `given` says what it gives, and the memory
/// that it needs, by height and width, which only the file tells.
pub(crate) fn infer_image(
    services: &Services,
    facts: &Facts,
    given: impl FnOnce([Option<usize>; 2]) -> (Fact, u64),
) -> InferResult {
    let mut review = InferCx::new(facts);
    let path = facts.text("path").filter(|_| !services.only_checks());
    let Some(path) = path else {
        let unseen = services.only_checks();
        let outputs = vec![given([None; 2]).0];
        return review.finish(StepInfo { outputs, unseen, ..StepInfo::default() });
    };
    let Some(mut source) = review.take(PlannedInput::look(services, path)) else {
        return review.finish(StepInfo::default());
    };
    let size = source.file.image_size().map_err(at_port("path"));
    let Some((width, height)) = review.take(size) else {
        return review.finish(StepInfo::default());
    };
    let (fact, memory) = given([Some(height), Some(width)]);
    review.finish(StepInfo {
        outputs: vec![fact],
        key: source.key(),
        memory,
        reads: vec![source.read],
        ..StepInfo::default()
    })
}

fn read(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let background = colour(inputs.text("background")?).map_err(refuse)?;
    let mut file = open(cx, inputs.text("path")?)?;
    let read = move || {
        file.read_image().map(|mut image| {
            image.over(background);
            image
        })
    };
    let image = cancellable(cx.cancel, read)?.node()?;
    let shape = (1, image.height, image.width, 3);
    let tensor = Tensor::from_vec(image.rgb, shape, &Device::Cpu)?; // [1, h, w, 3]
    Ok(vec![Some(Value::from(Frames::from_tensor(&tensor, None)?))])
}

/// Whether so many frames can be written to such a path.
fn check(path: &str, count: Option<usize>) -> Result<VideoFormat, PlanError> {
    let end = Path::new(path).extension().unwrap_or_default();
    if !["png", "exr"].iter().any(|known| end.eq_ignore_ascii_case(known)) {
        let message = format!("images are written as .png or .exr, found `{path}`");
        return Err(PlanError::at("path", message)
            .hint("end the path with .png or .exr; `video.write` writes .mp4 and .webp"));
    }
    let format = format_of(Path::new(path), None).map_err(at_port("path"))?;
    match count {
        Some(count) if count > 1 && format == VideoFormat::Png => Err(one_frame("PNG", count)),
        Some(count) if count > 1 && format == VideoFormat::Exr => Err(one_frame("EXR", count)),
        _ => Ok(format),
    }
}

fn infer_write(services: &Services, facts: &Facts) -> InferResult {
    let depth = facts.int("bits").map(depth).transpose().map_err(|error| vec![error])?;
    let mut infer = infer_written(services, facts, check)?;
    if depth == Some(Depth::Sixteen)
        && let Some(frames) = facts.typed::<FramesFact>("frames")
    {
        infer.memory += frames.size().map_or(0, |(height, width)| (height * width * 3) as u64);
    }
    Ok(infer)
}

/// How finely so many bits a channel are written.
fn depth(bits: i128) -> Result<Depth, PlanError> {
    match bits {
        8 => Ok(Depth::Eight),
        16 => Ok(Depth::Sixteen),
        other => {
            let message = format!("a PNG has 8 or 16 bits a channel, found {other}");
            Err(PlanError::at("bits", message).hint("8 for screens, 16 to go on working with it"))
        }
    }
}

fn run_write(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let frames = inputs.value::<Frames>("frames")?;
    let path = inputs.text("path")?;
    check(path, Some(frames.count())).map_err(refuse)?;
    let place = output(cx.services, path)?;
    let depth = depth(inputs.int("bits")?).map_err(refuse)?;
    let look = Look { fps: frames.fps().unwrap_or(1.0), depth, audio: None };
    Ok(vec![Some(write(cx, &frames, &place, &look)?)])
}
