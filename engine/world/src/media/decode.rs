//! Decoding H.264 by OpenH264: one thread decodes, the other turns pictures into RGB.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use openh264::OpenH264API;
use openh264::decoder::{DecodedYUV, Decoder, DecoderConfig, Flush};
use openh264::formats::YUVSource;

use super::avc::{AvcTrack, WAITING, convert_first, units};
use super::colour::Planes;
use super::demux::{Shown, read_sample};
use super::sink::FrameSink;
use crate::{Error, InputFile, Result};

/// How often a thread that waits looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// Decodes frames of what is shown, by their rising indices; gives each to `sink`.
pub(super) fn decode(
    file: &mut InputFile,
    track: &AvcTrack,
    frames: &[usize],
    sink: &mut dyn FrameSink,
) -> Result<()> {
    let path = file.path().to_owned();
    let stop = AtomicBool::new(false);
    let (give, take) = sync_channel(WAITING);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let give = give;
            Decoding { file, track, stop: &stop, give }.all(frames)
        });
        let mut left = frames.iter();
        let outcome = loop {
            match take.recv_timeout(LOOK) {
                Ok(planes) => {
                    let rgb = match track.conversion.rgb(&planes, track.orientation) {
                        Ok(rgb) => rgb,
                        Err(error) => break Err(Error::io("decoded", &path)(error)),
                    };
                    let Some(&frame) = left.next() else { break Ok(()) };
                    if sink.frame(frame, rgb).is_break() {
                        break Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout) if sink.is_wanted() => {}
                Err(_) => break Ok(()),
            }
        };
        stop.store(true, Ordering::Relaxed);
        drop(take);
        let decoded =
            thread.join().unwrap_or_else(|_| Err(Error::content(&path, "the H.264 decoder broke")));
        outcome.and(decoded.map(drop))
    })
}

/// What the decoding thread works with.
struct Decoding<'d> {
    file: &'d mut InputFile,
    track: &'d AvcTrack,
    stop: &'d AtomicBool,
    give: SyncSender<Planes>,
}

/// A run of rising times, while it is decoded.
struct Run<'g> {
    decoder: Decoder,
    /// What went in and has not come out: time and index, the earliest first.
    inside: BinaryHeap<Reverse<(i64, u32)>>,
    /// What is wanted, in order.
    wanted: std::iter::Peekable<std::slice::Iter<'g, Shown>>,
}

impl Decoding<'_> {
    /// Frames in runs of rising times: an edit list may go back.
    fn all(mut self, frames: &[usize]) -> Result<ControlFlow<()>> {
        let shown: Vec<Shown> =
            frames.iter().map(|frame| self.track.timeline.shown[*frame]).collect();
        let place =
            |shown: &Shown| (self.track.track.samples[shown.sample as usize].time, shown.sample);
        let runs: Vec<&[Shown]> = shown.chunk_by(|one, next| place(one) < place(next)).collect();
        for run in runs {
            if self.run(run)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn run(&mut self, wanted: &[Shown]) -> Result<ControlFlow<()>> {
        let Some(first) = wanted.first() else { return Ok(ControlFlow::Continue(())) };
        let start = self.key_frame(first.sample as usize)?;
        let config = DecoderConfig::new().flush_after_decode(Flush::NoFlush);
        let decoder = Decoder::with_api_config(OpenH264API::from_source(), config);
        let decoder = decoder.map_err(|error| {
            Error::content(self.file.path(), format!("the H.264 decoder cannot start: {error}"))
        })?;
        let mut run = Run { decoder, inside: BinaryHeap::new(), wanted: wanted.iter().peekable() };
        let (mut sample, mut stream) = (Vec::new(), self.track.sets.clone());
        let count = self.track.track.samples.len();
        for index in start..count {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(ControlFlow::Break(()));
            }
            self.append(index, &mut sample, &mut stream)?;
            let time = self.track.track.samples[index].time;
            run.inside.push(Reverse((time, index as u32)));
            let Run { decoder, inside, wanted } = &mut run;
            let picture = decoder.decode(&stream);
            stream.clear();
            let picture = picture.map_err(|_| self.damaged(index))?;
            if let Some(picture) = picture
                && self.came_out(&picture, inside, wanted)?.is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
            if run.wanted.peek().is_none() {
                break;
            }
        }
        if self.drain(&mut run)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        match run.wanted.peek() {
            None => Ok(ControlFlow::Continue(())),
            Some(missing) => Err(self.damaged(missing.sample as usize)),
        }
    }

    /// The last sample at or before `index` that decodes on its own: what tables call a key frame
    /// may still need pictures before it.
    fn key_frame(&mut self, index: usize) -> Result<usize> {
        let time = self.track.track.samples[index].time;
        let (mut sample, mut stream) = (Vec::new(), Vec::new());
        for candidate in (0..=index).rev() {
            let about = self.track.track.samples[candidate];
            if about.sync && about.time <= time {
                stream.clear();
                if self.append(candidate, &mut sample, &mut stream)? {
                    return Ok(candidate);
                }
            }
        }
        Ok(0)
    }

    /// Appends a sample to a stream of units behind start codes; says whether it decodes on its
    /// own (an IDR picture, unit type 5).
    fn append(&mut self, index: usize, sample: &mut Vec<u8>, stream: &mut Vec<u8>) -> Result<bool> {
        let about = self.track.track.samples[index];
        let path = self.file.path().to_owned();
        read_sample(self.file, &about, sample).map_err(Error::io("read", &path))?;
        let mut is_key = false;
        for unit in units(sample, self.track.length_size) {
            let unit = unit.map_err(|()| self.damaged(index))?;
            let Some(head) = unit.first() else { continue };
            is_key |= head & 0x1f == 5;
            stream.extend([0, 0, 0, 1]);
            stream.extend(unit);
        }
        Ok(is_key)
    }

    /// Takes all that the decoder still holds. As many pictures must have come out as went in: had
    /// one been lost, others would have been taken for it.
    fn drain(&mut self, run: &mut Run<'_>) -> Result<ControlFlow<()>> {
        let Run { decoder, inside, wanted } = run;
        let earliest = inside.peek().map(|Reverse((_, index))| *index as usize);
        let rest = decoder.flush_remaining();
        let rest = rest.map_err(|_| self.damaged(earliest.unwrap_or_default()))?;
        for picture in &rest {
            if self.came_out(picture, inside, wanted)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        match inside.peek() {
            None => Ok(ControlFlow::Continue(())),
            Some(Reverse((_, lost))) => Err(self.damaged(*lost as usize)),
        }
    }

    /// Passes a picture on if it is wanted.
    fn came_out(
        &self,
        picture: &DecodedYUV<'_>,
        inside: &mut BinaryHeap<Reverse<(i64, u32)>>,
        wanted: &mut std::iter::Peekable<std::slice::Iter<'_, Shown>>,
    ) -> Result<ControlFlow<()>> {
        let path = self.file.path();
        let Some(Reverse((_, index))) = inside.pop() else {
            return Err(Error::content(path, "its H.264 holds more pictures than its tables"));
        };
        if wanted.next_if(|shown| shown.sample == index).is_none() {
            return Ok(ControlFlow::Continue(()));
        }
        let planes = copied(picture, (self.track.sps.width, self.track.sps.height), path)?;
        Ok(match self.give.send(planes) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        })
    }

    fn damaged(&self, index: usize) -> Error {
        let (count, path) = (self.track.track.samples.len(), self.file.path());
        let message = format!(
            "frame {} of {count} cannot be decoded: it is damaged, or its H.264 has what OpenH264 \
             does not know",
            index + 1
        );
        convert_first(path, message)
    }
}

/// The picture without what lies between its rows.
fn copied(
    picture: &DecodedYUV<'_>,
    (width, height): (usize, usize),
    path: &Path,
) -> Result<Planes> {
    if picture.dimensions() != (width, height) {
        let (found, tall) = picture.dimensions();
        let message =
            format!("its size changes within: {width}x{height} at first, then {found}x{tall}");
        return Err(convert_first(path, message));
    }
    let (of_y, of_u, of_v) = picture.strides();
    let plane = |from: &[u8], stride: usize, width: usize, height: usize| {
        let mut plane = Vec::new();
        plane
            .try_reserve_exact(width * height)
            .map_err(|_| Error::io("decoded", path)(std::io::ErrorKind::OutOfMemory.into()))?;
        for row in from.chunks(stride).take(height) {
            let row = row.get(..width);
            plane.extend_from_slice(
                row.ok_or_else(|| Error::content(path, "the H.264 decoder gave half a picture"))?,
            );
        }
        match plane.len() == width * height {
            true => Ok(plane),
            false => Err(Error::content(path, "the H.264 decoder gave half a picture")),
        }
    };
    let half = (width.div_ceil(2), height.div_ceil(2));
    Ok(Planes {
        width,
        height,
        y: plane(picture.y(), of_y, width, height)?,
        u: plane(picture.u(), of_u, half.0, half.1)?,
        v: plane(picture.v(), of_v, half.0, half.1)?,
    })
}
