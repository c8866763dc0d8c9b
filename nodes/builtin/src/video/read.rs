//! `video.read`: frames from a video file.

use std::borrow::Cow;
use std::ops::ControlFlow;

use candle_core::{DType, Device, Tensor};
use kino_node::{
    AudioFact, Cx, FrameRate, FramesBuilder, FramesFact, Inputs, NodeDef, Outputs, Result,
    Services, TensorFact, Value,
};
use kino_port::{
    Fact, Facts, NodeTraits, PlanError, Port, PortType, Signature, StepInfo, bool as bool_port,
    edge, int, path as path_port, ports, real,
};
use kino_world::media::{FrameSink, VideoInfo, VideoReader};

use crate::audio::{fact_of, unless_cancelled};
use crate::error::{IntoNode, at_port};
use crate::files::{PlannedInput, ffmpeg, open};
use crate::infer::{InferCx, InferResult, f32_bytes, refuse};

/// Reads a video.
pub(crate) static READ: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("video.read"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(READ_ABOUT),
        inputs: ports![
            path_port("path")
                .about("An mp4, mov, GIF, animated WebP or animated PNG, relative to the graph."),
            frame_number("start", 0)
                .about("The first frame, from 0; at the rate of `fps`, if given."),
            frame_number("count", 1)
                .or_none()
                .about("How many frames; if not given, all that follow."),
            real("fps", 16.0)
                .within(0.01, 1000.0)
                .or_none()
                .unit("frames/s")
                .about("Resamples to this rate; if not given, every frame of the file once."),
            bool_port("tone_map", false)
                .about("Brings HDR (PQ, HLG) to the range of a screen instead of refusing it."),
        ],
        outputs: ports![
            edge("frames", PortType::Frames).about("The frames, upright, in 0…1."),
            edge("times", PortType::Tensor)
                .about("When each frame is shown, in seconds from the first one on: `[count]`."),
            edge("audio", PortType::Audio)
                .about("The sound of these frames; one of no length where the video has none."),
        ],
        traits: NodeTraits::HEAVY,
    },
    infer: infer_read,
    run: read,
};

const READ_ABOUT: &str = "Reads a video as frames. The contents decide what it is, not the name: \
mp4 or QuickTime with H.264 (8 bits, 4:2:0, progressive), GIF, animated WebP, animated PNG. Only \
the frames asked for are decoded, from the key frame before `start` on. Edit lists are followed, \
the picture is turned upright, and matrix and range are the file's own; HDR is refused unless \
`tone_map` is set. Pixels that are not square are read as they are stored. Other containers and \
codecs are read through a program `ffmpeg`, decoded from their beginning, where one is on the PATH \
or named in the settings or in KINO_FFMPEG. Shape: `[f, h, w, 3]`.\n\n\
Where the rate varies, each frame is given once, the frames' rate is the mean, and `times` says \
when each is shown. `fps` makes the rate constant: it gives, for each moment, the frame that is on \
the screen then, so that frames are repeated or left out; `start` and `count` then count those.\n\n\
`audio` is what is heard while these frames are shown, in step with them to the sample; where all \
that follow are read, to its own end. AAC is passed on packet by packet.\n\n\
Example:\n    \"clip\": (op: \"video.read\", with: {\"path\": \"clip.mp4\", \"start\": 24, \
\"count\": 49, \"fps\": 16}),";

const fn frame_number(name: &'static str, least: i128) -> Port {
    int(name, least).between(least, 1 << 24)
}

/// The part of a video that is read.
#[derive(Clone, Copy)]
struct Part {
    start: usize,
    count: usize,
    fps: Option<f64>,
}

impl Part {
    /// Of what a graph asks for.
    fn of(
        video: &VideoInfo,
        start: usize,
        count: Option<usize>,
        fps: Option<f64>,
    ) -> Result<Self, PlanError> {
        let at_rate = fps.map_or_else(String::new, |fps| format!(" at {fps} a second"));
        let all = video.count(fps).ok_or_else(|| {
            let message = format!("{} seconds{at_rate} are too many frames", video.end);
            PlanError::at("fps", message).hint("give `count`, or a lower rate")
        })?;
        if start >= all {
            let message = format!("the video has {all} frames{at_rate}, found start {start}");
            return Err(PlanError::at("start", message).hint("the first frame is 0"));
        }
        let left = all - start;
        let count = count.unwrap_or(left);
        if count > left {
            let message =
                format!("the video has {left} frames{at_rate} from {start} on, found {count}");
            return Err(PlanError::at("count", message).hint("leave `count` out to read all"));
        }
        Ok(Part { start, count, fps })
    }

    /// The frames of the file, with how often each is given.
    fn frames(&self, video: &VideoInfo) -> (Vec<usize>, Vec<usize>) {
        let (mut frames, mut times) = (Vec::new(), Vec::new());
        for index in self.start..self.start + self.count {
            let frame = video.frame_at(index, self.fps);
            if frames.last() != Some(&frame) {
                frames.push(frame);
                times.push(0);
            }
            if let Some(times) = times.last_mut() {
                *times += 1;
            }
        }
        (frames, times)
    }

    /// When each frame is shown, in seconds from the first one on.
    fn times(&self, video: &VideoInfo) -> Vec<f64> {
        let time = |index: usize| match self.fps {
            Some(fps) => index as f64 / fps,
            None => video.times.get(index).copied().unwrap_or(video.end),
        };
        let begin = time(self.start);
        (self.start..self.start + self.count).map(|index| time(index) - begin).collect()
    }

    /// From when to when its sound is heard, in seconds from the first frame of the file on: until
    /// the end of the sound where the last frame is among them.
    fn heard(&self, video: &VideoInfo) -> (f64, Option<f64>) {
        let time = |index: usize| match self.fps {
            Some(fps) => index as f64 / fps,
            None => video.times.get(index).copied().unwrap_or(video.end),
        };
        let end = self.start + self.count;
        let is_end = video.count(self.fps).is_none_or(|all| end >= all);
        (time(self.start), (!is_end).then(|| time(end)))
    }

    /// The rate of the frames.
    fn fps(&self, video: &VideoInfo) -> Option<f64> {
        self.fps.or(video.fps)
    }
}

fn infer_read(services: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    // What comes by an edge from what only a run knows says nothing yet.
    let is_known = |port: &str| !facts.is_fed(port) || facts.real(port).is_some();
    let path = facts.text("path").filter(|_| !services.only_checks());
    let Some(path) = path else {
        let (count, fps) = (review.size("count"), facts.real("fps"));
        let fps = fps.map_or(FrameRate::Unknown, FrameRate::Fps);
        let frames = FramesFact { count, fps, ..FramesFact::default() };
        let unseen = services.only_checks();
        let outputs = vec![Fact::typed(frames)];
        return review.finish(StepInfo { outputs, unseen, ..StepInfo::default() });
    };
    let Some(mut source) = review.take(PlannedInput::look(services, path)) else {
        return review.finish(StepInfo::default());
    };
    let tone_map = facts.bool("tone_map").unwrap_or(false);
    let video = VideoReader::open_with(&mut source.file, tone_map, ffmpeg(services).as_deref());
    let video = video.map_err(at_port("path"));
    let Some(video) = review.take(video) else { return review.finish(StepInfo::default()) };
    let mut key = source.key();
    key.extend(video.program().unwrap_or_default().bytes());
    let reader = video;
    let video = reader.info();
    let (height, width) = (video.height, video.width);
    let mut fact = FramesFact { height: Some(height), width: Some(width), ..FramesFact::default() };
    let mut infer =
        StepInfo { key, memory: video.memory, reads: vec![source.read], ..StepInfo::default() };
    if is_known("fps") {
        fact.fps = FrameRate::of(facts.real("fps").or(video.fps));
    }
    let (mut times, mut sound) = (Fact::Unknown, Fact::Unknown);
    if let Some(start) = review.size("start")
        && is_known("count")
        && is_known("fps")
    {
        let part = Part::of(video, start, review.size("count"), facts.real("fps"));
        if let Some(part) = review.take(part) {
            let frames = f32_bytes(&[part.count, height, width, 3]);
            infer.memory = infer.memory.saturating_add(frames);
            infer.spillable = frames;
            fact.count = Some(part.count);
            times = Fact::typed(TensorFact { shape: vec![part.count], dtype: DType::F64 });
            let (from, until) = part.heard(video);
            sound = fact_of(reader.sound(&source.file, from, until));
            let bytes = sound.get::<AudioFact>().map_or(0, |sound| sound.bytes);
            infer.memory = infer.memory.saturating_add(bytes);
        }
    }
    infer.outputs = vec![Fact::typed(fact), times, sound];
    review.finish(infer)
}

fn read(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let mut file = open(cx, inputs.text("path")?)?;
    let (tone_map, ffmpeg) = (inputs.bool("tone_map")?, ffmpeg(cx.services));
    let reader = VideoReader::open_with(&mut file, tone_map, ffmpeg.as_deref()).node()?;
    let video = reader.info();
    let count = inputs.get("count").map(|_| inputs.int("count")).transpose()?;
    let fps = inputs.get("fps").map(|_| inputs.real("fps")).transpose()?;
    let part = Part::of(video, inputs.int("start")?, count, fps).map_err(refuse)?;
    let times = Tensor::new(part.times(video), &Device::Cpu)?; // [count]
    let audio = if cx.wants(2) {
        let wanted = &mut || !cx.cancel.is_cancelled();
        let read = reader.read_sound(&mut file, part.heard(video), wanted).node()?;
        Some(Value::from(unless_cancelled(read)?))
    } else {
        None
    };
    if !cx.wants(0) {
        return Ok(vec![None, Some(Value::Tensor(times)), audio]);
    }
    let frame = f32_bytes(&[video.height, video.width, 3]);
    cx.services.ledger.check(frame.saturating_add(video.memory), "a frame of the video")?;
    let (frames, repeats) = part.frames(video);
    let mut sink = Building {
        cx,
        shape: (1, video.height, video.width, 3),
        repeats: repeats.into_iter(),
        frames: FramesBuilder::new(&cx.services.ledger, part.fps(video)),
        done: 0,
        of: part.count,
        failed: None,
    };
    reader.read(&mut file, &frames, &mut sink).node()?;
    cx.check_cancel()?;
    if let Some(error) = sink.failed {
        return Err(error);
    }
    let frames = sink.frames.finish()?;
    Ok(vec![Some(Value::from(frames)), Some(Value::Tensor(times)), audio])
}

/// Frames of a file on their way into a value.
struct Building<'b> {
    cx: &'b Cx<'b>,
    shape: (usize, usize, usize, usize),
    repeats: std::vec::IntoIter<usize>,
    frames: FramesBuilder,
    done: usize,
    of: usize,
    failed: Option<kino_node::Error>,
}

impl FrameSink for Building<'_> {
    fn frame(&mut self, _: usize, rgb: Vec<f32>) -> ControlFlow<()> {
        let times = self.repeats.next().unwrap_or(0);
        let pushed = Tensor::from_vec(rgb, self.shape, &Device::Cpu) // [1, h, w, 3]
            .map_err(kino_node::Error::from)
            .and_then(|frame| {
                // One frame of a slow file can be a hundred thousand of a fast rate.
                (0..times).try_for_each(|_| {
                    self.cx.check_cancel()?;
                    self.frames.push(&frame)
                })
            });
        self.done += times;
        self.cx.progress(self.done, self.of);
        match pushed {
            Ok(()) if self.is_wanted() => ControlFlow::Continue(()),
            Ok(()) => ControlFlow::Break(()),
            Err(error) => {
                self.failed = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    fn is_wanted(&mut self) -> bool {
        !self.cx.cancel.is_cancelled()
    }
}
