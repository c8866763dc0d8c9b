//! H.264 by OpenH264 into mp4, sample by sample.

use std::io::{self, BufWriter, Read as _, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use kino_node::Audio;
use openh264::OpenH264API;
use openh264::encoder::{
    BitRate, Complexity, Encoder, EncoderConfig, FrameRate, IntraFramePeriod, QpRange,
    RateControlMode, UsageType, VuiConfig,
};
use openh264::formats::YUVSlices;

use super::mp4::{Chunk, SoundTrack, Track, file_type, movie, timing};
use super::writer::{VideoSpec, VideoWriter, bytes};
use crate::{AtomicFile, Error, Result};

/// Frames between those that decode on their own.
const GROUP: u32 = 48;

/// The quantiser of every frame, of 12…51: at 16 the error is about one or two of 255.
const QUANTISER: u8 = 16;
/// How much the quantiser rises when the encoder cannot hold a frame.
const COARSER: u8 = 5;

/// An mp4 file in the making. The samples wait in a file of their own, for the tables that stand
/// before them (so that a player can begin before it has read all) are known only at the end.
pub(super) struct Mp4Writer {
    file: AtomicFile,
    samples: BufWriter<AtomicFile>,
    encoder: Encoder,
    quantiser: u8,
    fps: f64,
    track: Track,
    written: u64,
    metadata: Option<String>,
    /// What of the sound is heard while there are frames; none where nothing is.
    sound: Option<Audio>,
    planes: Planes,
}

/// One frame as 4:2:0 planes.
struct Planes {
    width: usize,
    height: usize,
    y: Vec<u8>,
    u: Vec<u8>,
    v: Vec<u8>,
}

impl Mp4Writer {
    pub(super) fn create(path: &Path, spec: &VideoSpec<'_>) -> Result<Self> {
        let (width, height) = (spec.width, spec.height);
        let encoder = open(path, (width, height), spec.fps, QUANTISER)?;
        let file = AtomicFile::create(path)?;
        let samples = BufWriter::new(AtomicFile::create(path)?);
        let (timescale, delta) = timing(spec.fps);
        let (width16, height16) = (width as u16, height as u16);
        let track =
            Track { width: width16, height: height16, timescale, delta, ..Track::default() };
        let half = (width / 2) * (height / 2);
        let planes = Planes {
            width,
            height,
            y: vec![0; width * height],
            u: vec![0; half],
            v: vec![0; half],
        };
        let metadata = spec.metadata.map(str::to_owned);
        let (quantiser, fps) = (QUANTISER, spec.fps);
        let sound = sound_of(spec, timescale, delta, path)?;
        Ok(Mp4Writer {
            file,
            samples,
            encoder,
            quantiser,
            fps,
            track,
            written: 0,
            metadata,
            sound,
            planes,
        })
    }
}

/// The sound of a video, cut to the length of its frames.
fn sound_of(
    spec: &VideoSpec<'_>,
    timescale: u32,
    delta: u32,
    path: &Path,
) -> Result<Option<Audio>> {
    let Some(sound) = spec.audio.filter(|sound| !sound.is_none()) else { return Ok(None) };
    let failed = |error: kino_node::Error| Error::content(path, format!("its sound: {error}"));
    if sound.packets.is_empty() {
        return Err(Error::content(path, "sound stands in mp4 files as AAC alone"));
    }
    let shown = spec.count as u128 * u128::from(delta) * u128::from(sound.rate);
    let ticks = u64::try_from(shown / u128::from(timescale.max(1))).unwrap_or(u64::MAX);
    let heard = sound.slice(0, ticks).map_err(failed)?;
    Ok((!heard.packets.is_empty()).then_some(heard))
}

/// An encoder that gives every frame this quantiser.
fn open(path: &Path, size: (usize, usize), fps: f64, quantiser: u8) -> Result<Encoder> {
    let (width, height) = size;
    // This mode keeps the quantiser at its least, near lossless. The rate binds nothing, but has to
    // be given.
    let rate = ((width * height) as f64 * fps * 4.0).clamp(2e6, 1e8) as u32;
    let config = EncoderConfig::new()
        .skip_frames(false)
        .complexity(Complexity::High)
        .rate_control_mode(RateControlMode::Bufferbased)
        .usage_type(UsageType::CameraVideoRealTime)
        .bitrate(BitRate::from_bps(rate))
        .max_frame_rate(FrameRate::from_hz(fps as f32))
        .qp(QpRange::new(quantiser, quantiser))
        .intra_frame_period(IntraFramePeriod::from_num_frames(GROUP))
        .scene_change_detect(false)
        .adaptive_quantization(false)
        .background_detection(false)
        .num_threads(1)
        .vui(VuiConfig::bt709());
    Encoder::with_api_config(OpenH264API::from_source(), config)
        .map_err(|error| encoder_failed(path, &error))
}

fn encoder_failed(path: &Path, error: &openh264::Error) -> Error {
    Error::content(path, format!("the H.264 encoder failed: {error}"))
}

impl VideoWriter for Mp4Writer {
    fn push(&mut self, frame: &[f32]) -> Result<()> {
        let planes = &mut self.planes;
        planes.fill(&bytes(frame, (planes.width, planes.height))?);
        let half = planes.width / 2;
        let source = YUVSlices::new(
            (&planes.y, &planes.u, &planes.v),
            (planes.width, planes.height),
            (planes.width, half, half),
        );
        let milliseconds = self.track.sizes.len() as u64 * 1000 * u64::from(self.track.delta)
            / u64::from(self.track.timescale.max(1));
        let timestamp = openh264::Timestamp::from_millis(milliseconds);
        let target = self.file.target().to_owned();
        let stream = loop {
            let stream = self.encoder.encode_at(&source, timestamp).map(|stream| stream.to_vec());
            match stream {
                Ok(stream) => break stream,
                // Noise overflows the encoder's buffers when it is quantised finely: begin anew,
                // more coarsely.
                Err(_) if self.quantiser + COARSER <= 51 => {
                    self.quantiser += COARSER;
                    let size = (planes.width, planes.height);
                    self.encoder = open(&target, size, self.fps, self.quantiser)?;
                }
                Err(error) => return Err(encoder_failed(&target, &error)),
            }
        };
        let mut sample = Vec::new();
        let mut sync = false;
        for unit in units(&stream) {
            match unit.first().map(|byte| byte & 0x1f) {
                Some(7) => self.track.sps = unit.to_vec(),
                Some(8) => self.track.pps = unit.to_vec(),
                Some(kind) => {
                    sync |= kind == 5;
                    sample.extend((unit.len() as u32).to_be_bytes());
                    sample.extend(unit);
                }
                None => {}
            }
        }
        if sample.is_empty() {
            return Err(Error::content(&target, "the H.264 encoder gave nothing for a frame"));
        }
        self.samples.write_all(&sample).map_err(self.file.failed())?;
        self.written += sample.len() as u64;
        self.track.sizes.push(sample.len() as u32);
        if sync {
            self.track.sync.push(self.track.sizes.len() as u32);
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<PathBuf>> {
        let Mp4Writer { mut file, samples, mut track, written, metadata, sound, .. } = *self;
        let failed = || Error::io("written", file.target());
        let mut samples = samples.into_inner().map_err(|error| failed()(error.into_error()))?;
        let head = file_type();
        let heard = sound.as_ref().map(Audio::bytes_of_packets).transpose();
        let heard = heard.map_err(|error| Error::content(file.target(), error.to_string()))?;
        let heard = heard.unwrap_or_default();
        let mut sound = sound.map(|sound| SoundTrack { sound, chunks: Vec::new() });
        // The length of the tables does not depend on where the samples stand.
        interleave(&mut track, sound.as_mut(), 0);
        let tables = movie(Some(&track), sound.as_ref(), metadata.as_deref()).len();
        let pieces = interleave(&mut track, sound.as_mut(), (head.len() + tables) as u64 + 16);
        let tables = movie(Some(&track), sound.as_ref(), metadata.as_deref());
        // A box length of 1 says that 64 bits of length follow.
        let length = written + heard.len() as u64 + 16;
        let data = [&1u32.to_be_bytes()[..], b"mdat", &length.to_be_bytes()].concat();
        let failed = file.failed();
        let copy = || -> io::Result<()> {
            file.write_all(&[head, tables, data].concat())?;
            samples.seek(SeekFrom::Start(0))?;
            let mut heard = &heard[..];
            for (of_video, of_sound) in pieces {
                io::copy(&mut samples.file().take(of_video), &mut file)?;
                let (now, later) = heard.split_at(of_sound as usize);
                file.write_all(now)?;
                heard = later;
            }
            Ok(())
        };
        copy().map_err(failed)?;
        Ok(vec![file.finish()?])
    }
}

/// Puts samples and packets into their places behind `offset`: half a second of video, half a
/// second of sound, and so on, so that who reads a file from its beginning has both. Gives the
/// bytes of each in turn. Without sound all samples stand together.
fn interleave(track: &mut Track, sound: Option<&mut SoundTrack>, offset: u64) -> Vec<(u64, u64)> {
    let sum = |sizes: &[u32]| sizes.iter().map(|size| u64::from(*size)).sum::<u64>();
    let count = track.sizes.len();
    let Some(SoundTrack { sound, chunks }) = sound else {
        track.chunks = vec![Chunk { offset, samples: count as u32 }];
        return vec![(sum(&track.sizes), 0)];
    };
    track.chunks.clear();
    chunks.clear();
    let (mut pieces, mut offset) = (Vec::new(), offset);
    let (mut frame, mut packet, mut time) = (0, 0, 0_u64);
    while frame < count || packet < sound.packets.len() {
        // The next half in which something begins.
        let of_frame =
            2 * frame as u64 * u64::from(track.delta) / u64::from(track.timescale.max(1));
        let of_packet = 2 * time / u64::from(sound.rate.max(1));
        let next = match (frame < count, packet < sound.packets.len()) {
            (true, true) => of_frame.min(of_packet),
            (true, false) => of_frame,
            _ => of_packet,
        };
        let half = next + 1;
        let (first, first_packet) = (frame, packet);
        // Times in halves of a second: 2·ticks / ticks a second.
        while frame < count
            && 2 * frame as u64 * u64::from(track.delta) < half * u64::from(track.timescale)
        {
            frame += 1;
        }
        while packet < sound.packets.len() && 2 * time < half * u64::from(sound.rate) {
            time += u64::from(sound.packets[packet].duration);
            packet += 1;
        }
        let of_video = sum(&track.sizes[first..frame]);
        let packets = sound.packets[first_packet..packet].iter();
        let of_sound: u64 = packets.map(|packet| u64::from(packet.bytes)).sum();
        if frame > first {
            track.chunks.push(Chunk { offset, samples: (frame - first) as u32 });
        }
        if packet > first_packet {
            let samples = (packet - first_packet) as u32;
            chunks.push(Chunk { offset: offset + of_video, samples });
        }
        offset += of_video + of_sound;
        if frame > first || packet > first_packet {
            pieces.push((of_video, of_sound));
        }
    }
    pieces
}

impl Planes {
    /// RGB bytes to BT.709 limited range (Rec. ITU-R BT.709-6): Y 16…235, chroma 16…240, each
    /// chroma sample the mean of four pixels.
    fn fill(&mut self, rgb: &[u8]) {
        let (width, half) = (self.width, self.width / 2);
        let pixel = |x: usize, y: usize| {
            let at = (y * width + x) * 3;
            [f32::from(rgb[at]), f32::from(rgb[at + 1]), f32::from(rgb[at + 2])]
        };
        for y in 0..self.height {
            for x in 0..width {
                let [r, g, b] = pixel(x, y);
                let luma = 0.2126 * r + 0.7152 * g + 0.0722 * b;
                self.y[y * width + x] = (16.0 + luma * (219.0 / 255.0)).round() as u8;
            }
        }
        for y in 0..self.height / 2 {
            for x in 0..half {
                let four =
                    [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(dx, dy)| pixel(2 * x + dx, 2 * y + dy));
                let mean =
                    |channel: usize| four.iter().map(|pixel| pixel[channel]).sum::<f32>() / 4.0;
                let (r, g, b) = (mean(0), mean(1), mean(2));
                let luma = 0.2126 * r + 0.7152 * g + 0.0722 * b;
                let chroma = |difference: f32, scale: f32| {
                    (128.0 + difference / scale * (224.0 / 255.0)).round().clamp(16.0, 240.0) as u8
                };
                self.u[y * half + x] = chroma(b - luma, 1.8556);
                self.v[y * half + x] = chroma(r - luma, 1.5748);
            }
        }
    }
}

/// The units between the start codes (`00 00 01`, often with a zero before) of an Annex B stream.
fn units(stream: &[u8]) -> Vec<&[u8]> {
    let mut starts = Vec::new();
    let mut at = 0;
    while at + 3 <= stream.len() {
        if stream[at..at + 3] == [0, 0, 1] {
            starts.push(at);
            at += 3;
        } else {
            at += 1;
        }
    }
    let ends = starts.iter().skip(1).copied().chain([stream.len()]);
    let unit = |(start, end): (usize, usize)| {
        let unit = &stream[start + 3..end];
        let zeros = unit.iter().rev().take_while(|byte| **byte == 0).count();
        &unit[..unit.len() - zeros]
    };
    starts.iter().copied().zip(ends).map(unit).collect()
}
