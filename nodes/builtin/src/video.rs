//! `video.write`: frames to a video file that carries its workflow; `read` has the way back.

mod read;

use std::borrow::Cow;
use std::path::Path;

use kino_node::{Audio, Cx, Frames, FramesFact, Inputs, NodeDef, Outputs, Result, Services, Value};
use kino_port::{
    Facts, NodeTraits, PathForm, PlanError, PortType, Signature, StepInfo, edge, optional,
    path as path_port, ports, real,
};
use kino_world::media::{
    Depth, VideoFormat, VideoSpec, check_size, create_with_depth, format_of, is_foreign,
};

use crate::audio::{as_aac, check_aac, known_sound};
use crate::error::{IntoNode, at_port};
use crate::files::{ffmpeg, output, target, target_key, written};
use crate::infer::{InferCx, InferResult, refuse};

pub(crate) use read::READ;

/// The rate of frames that have none.
const FPS: f64 = 16.0;

/// Writes a video.
pub(crate) static WRITE: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("video.write"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(ABOUT),
        inputs: ports![
            edge("frames", PortType::Frames).about("The frames."),
            path_port("path").about(
                "Where to write, under the output folder: .mp4, .webp, .png (animated), or \
                 frame_%05d.png or .exr."
            ),
            real("fps", FPS)
                .within(0.01, 1000.0)
                .or_none()
                .unit("frames/s")
                .about("The rate; if not given that of the frames, else 16."),
            optional("audio", PortType::Audio).about(
                "Its sound: what goes on longer than the frames is left out, less stays less."
            ),
        ],
        outputs: ports![edge("file", PortType::File).about("The file that was written.")],
        traits: NodeTraits::SINK,
    },
    infer,
    run,
};

const ABOUT: &str = "Writes frames as a video. The extension names the format: .mp4 (H.264), \
.webp (animated), .png (animated), or a numbered .png or .exr a frame (frame_%05d.png). H.264 takes \
even sizes. Numbers are rounded to 8 bits a channel, but for EXR, which `image.write` explains.\n\n\
With a program `ffmpeg` on the PATH or in the settings also .webm (VP9 and Opus), .mkv (FFV1, \
10 bits without loss), .mov (ProRes 422 HQ), .gif and .avi (Motion JPEG), and whatever else it \
writes as one file and reads again (.ts, .mpg, .ogv, .wmv, .flv, .y4m, …), with the codecs that it \
chooses itself, at high quality; where a codec knows few rates, such as MPEG-1, it takes the nearest \
and repeats frames. Which endings those are is asked of the program while planning.\n\n\
Sound goes into .mp4, AAC as it is, packet by packet, PCM (of a WAV) through `ffmpeg`, and into \
whatever `ffmpeg` writes that holds sound. It begins with the first frame and is cut where the last one ends; a shorter sound stays \
short, and one of no length is none.\n\n\
The file appears whole or not at all, and carries the workflow that made it: `kino show FILE` \
prints it as a graph that runs again. In the path, `{graph}` is the graph's name and `{NAME}` an \
input.\n\n\
Example:\n    \"file\": (op: \"video.write\", in: {\"frames\": \"frames\"}, with: {\"path\": \
\"{graph}-{seed}.mp4\", \"fps\": 8}),";

fn infer(services: &Services, facts: &Facts) -> InferResult {
    let program = ffmpeg(services);
    let format = |path: &str| format_at(services, Path::new(path), program.as_deref());
    let written = infer_written(services, facts, |path, count| match (format(path)?, count) {
        (VideoFormat::Exr, Some(count)) if count > 1 => Err(one_frame("EXR", count)),
        (format, _) => Ok(format),
    });
    let written = through_program(facts, written, &format, program.as_deref());
    let (Some(path), Some(sound)) = (facts.text("path"), facts.get("audio")) else {
        return written;
    };
    let mut review = InferCx::new(facts);
    let known = known_sound(&mut review, "audio", sound);
    // Whether a file has sound at all is not seen in a check.
    let is_none = match &known {
        Some(sound) => sound.ticks == 0,
        None => services.only_checks(),
    };
    if let (Ok(format), false) = (format(path), is_none) {
        review.take(check_sound(&format, path));
        if let (VideoFormat::Mp4, Some(sound)) = (&format, &known) {
            review.take(check_aac(&sound.form, program.as_deref()));
        }
    }
    // Packets that are cut, and their bytes beside the frames.
    let memory = known.map_or(0, |sound| 2 * sound.bytes);
    match (written, review.finish(StepInfo::default())) {
        (Ok(written), Ok(_)) => {
            let memory = written.memory.saturating_add(memory);
            Ok(StepInfo { memory, ..written })
        }
        (written, sound) => Err(written.err().into_iter().chain(sound.err()).flatten().collect()),
    }
}

/// The format that a path names. While a graph is only checked, no program is asked for endings,
/// and one that is missing here may be elsewhere.
fn format_at(
    services: &Services,
    path: &Path,
    program: Option<&Path>,
) -> Result<VideoFormat, PlanError> {
    if !services.only_checks() || !is_foreign(path) {
        return format_of(path, program).map_err(at_port("path"));
    }
    match program {
        Some(_) => Err(PlanError::unseen()),
        None => format_of(path, None).map_err(|error| at_port("path")(error).of_machine()),
    }
}

/// Tries the program that a format takes, and notes which it is.
fn through_program(
    facts: &Facts,
    written: InferResult,
    format: &dyn Fn(&str) -> Result<VideoFormat, PlanError>,
    program: Option<&Path>,
) -> InferResult {
    let (Some(Ok(VideoFormat::Foreign(foreign))), Some(program), Ok(mut written)) =
        (facts.text("path").map(format), program, written.clone())
    else {
        return written;
    };
    let size = facts.typed::<FramesFact>("frames");
    let fps = facts.real("fps").or(size.and_then(|frames| frames.fps.fps()));
    let size = size.and_then(FramesFact::size);
    let size = size.map_or((352, 288), |(height, width)| (width, height));
    let version = foreign.check(program, size, fps).map_err(at_port("path"));
    let version = version.map_err(|error| vec![error])?;
    written.key.extend(version.bytes());
    Ok(written)
}

/// Objects to sound where the format holds none.
fn check_sound(format: &VideoFormat, path: &str) -> Result<(), PlanError> {
    let name = match format {
        VideoFormat::Mp4 => return Ok(()),
        VideoFormat::Foreign(foreign) if foreign.holds_sound() => return Ok(()),
        VideoFormat::Foreign(foreign) => {
            let name = foreign.extension().to_uppercase();
            return Err(no_sound(&name, path));
        }
        VideoFormat::WebP => "WebP",
        VideoFormat::Png => "PNG",
        VideoFormat::PngSequence => "a sequence of PNG",
        VideoFormat::Exr | VideoFormat::ExrSequence => "EXR",
    };
    Err(no_sound(name, path))
}

fn no_sound(name: &str, path: &str) -> PlanError {
    let error = PlanError::at("audio", format!("{name} holds no sound: `{path}`"));
    error.hint("end the path with .mp4, or leave `audio` out")
}

/// What is known of frames that are written to a path, where `format_for` says in which format so
/// many frames go there.
pub(crate) fn infer_written(
    services: &Services,
    facts: &Facts,
    format_for: impl Fn(&str, Option<usize>) -> Result<VideoFormat, PlanError>,
) -> InferResult {
    let mut review = InferCx::new(facts);
    let frames = review.partly::<Frames>("frames");
    let Some(path) = facts.text("path") else { return review.finish(StepInfo::default()) };
    let place = review.take(target(services, path));
    let format = review.take(format_for(path, frames.count));
    let path_form =
        format.as_ref().map(|format| path_form(format, frames.count)).unwrap_or_default();
    let mut memory = 0;
    if let Some(format) = &format {
        // A side that is not known is taken to be as the other.
        let sides = (frames.width.or(frames.height), frames.height.or(frames.width));
        if let Some((width, height)) = sides.0.zip(sides.1) {
            let fits = check_size(format, width, height);
            review.take(fits.map_err(at_port("frames")));
        }
        memory = frames.size().map_or(0, |(height, width)| writing(format, height, width));
    }
    let key = place.map(|place| target_key(&place)).unwrap_or_default();
    review.finish(StepInfo { key, memory, path_form, ..StepInfo::default() })
}

/// How a path names what is written to it.
fn path_form(format: &VideoFormat, count: Option<usize>) -> PathForm {
    match format {
        VideoFormat::PngSequence | VideoFormat::ExrSequence => PathForm::Numbered { count },
        VideoFormat::Mp4
        | VideoFormat::WebP
        | VideoFormat::Png
        | VideoFormat::Exr
        | VideoFormat::Foreign(_) => PathForm::OneFile,
    }
}

/// Bytes while writing: a frame as numbers, as bytes, and what the encoder makes of it; for H.264
/// as planes, too, and those of the frames before.
fn writing(format: &VideoFormat, height: usize, width: usize) -> u64 {
    let pixel = match format {
        VideoFormat::Mp4 => 3 * (4 + 1) + 9,
        // Two of 16 bits a channel wait for the program.
        VideoFormat::Foreign(_) => 3 * (4 + 3 * 2),
        _ => 3 * (4 + 1) + 2,
    };
    (height as u64).saturating_mul(width as u64).saturating_mul(pixel)
}

fn run(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let frames = inputs.value::<Frames>("frames")?;
    let fps = match inputs.get("fps") {
        Some(_) => inputs.real("fps")?,
        None => frames.fps().unwrap_or(FPS),
    };
    let path = inputs.text("path")?;
    let place = output(cx.services, path)?;
    let audio = inputs.optional::<Audio>("audio")?.filter(|sound| !sound.is_none());
    let audio = match audio {
        Some(sound) => {
            let format = format_of(Path::new(path), ffmpeg(cx.services).as_deref()).node()?;
            check_sound(&format, path).map_err(refuse)?;
            // Other containers hold samples as well.
            Some(if format == VideoFormat::Mp4 { as_aac(cx, &sound)? } else { sound })
        }
        None => None,
    };
    let look = Look { fps, depth: Depth::Eight, audio: audio.as_deref() };
    Ok(vec![Some(write(cx, &frames, &place, &look)?)])
}

/// What a file has beside its frames.
pub(crate) struct Look<'a> {
    /// Frames a second.
    pub(crate) fps: f64,
    /// How finely colours are written.
    pub(crate) depth: Depth,
    /// Its sound.
    pub(crate) audio: Option<&'a Audio>,
}

/// Writes frames to a file; cancelled, it leaves none behind.
pub(crate) fn write(cx: &Cx<'_>, frames: &Frames, place: &Path, look: &Look<'_>) -> Result<Value> {
    let (width, height, count) = (frames.width(), frames.height(), frames.count());
    let record = cx.recorded_workflow();
    let metadata = (!record.is_empty()).then_some(&*record);
    let Look { fps, depth, audio } = *look;
    let (program, cancel) = (ffmpeg(cx.services), Some(cx.cancel));
    let ffmpeg = program.as_deref();
    let spec = VideoSpec { width, height, count, fps, metadata, audio, ffmpeg, cancel };
    let mut writer = create_with_depth(place, &spec, depth).node()?;
    let mut done = 0;
    for chunk in frames.chunks() {
        let chunk = chunk?;
        for index in 0..chunk.dim(0)? {
            cx.check_cancel()?;
            let frame: Vec<f32> = chunk.get(index)?.flatten_all()?.to_vec1()?; // [h·w·3]
            let pushed = writer.push(&frame);
            cx.check_cancel()?;
            pushed.node()?;
            done += 1;
            cx.progress(done, count);
        }
    }
    let finished = writer.finish();
    cx.check_cancel()?;
    written(finished.node()?)
}

/// The error to several frames where a file holds one.
pub(crate) fn one_frame(format: &str, count: usize) -> PlanError {
    let article = if format.starts_with('E') { "an" } else { "a" };
    let message = format!("{article} {format} file holds one image, found {count} frames");
    let end = format.to_lowercase();
    PlanError::at("frames", message).hint(format!(
        "number the files, as in frame_%05d.{end}, or write a video with `video.write`"
    ))
}
