//! H.264 in mp4 files, read: what a track says before it is decoded, and its pictures in the order
//! in which they are shown, decoded by OpenH264.
//!
//! OpenH264 gives pictures in that order, each as soon as nothing earlier can come any more. So
//! each belongs to the earliest of the samples that went in and have not come out; no times pass
//! through the decoder. At the end, as many must have come out as went in.

use std::path::Path;

use super::colour::{Colour, Conversion};
use super::demux::{Refused, Timeline, Track, TrackKind, first, read_sample};
use super::sps::Sps;
use super::timing::Timing;
use crate::orientation::Orientation;
use crate::{Error, InputFile, Result};

/// The longest sample that is read.
const LONGEST_SAMPLE: u32 = 256 << 20;

/// A track that can be decoded.
pub(super) struct AvcTrack {
    pub(super) track: Track,
    pub(super) timeline: Timeline,
    pub(super) sps: Sps,
    pub(super) conversion: Conversion,
    pub(super) orientation: Orientation,
    /// The parameter sets, each behind a start code.
    pub(super) sets: Vec<u8>,
    /// Bytes of a unit's length in a sample.
    pub(super) length_size: usize,
}

/// What to do about what OpenH264 cannot decode.
const CONVERT: &str = "convert it first: ffmpeg -i IN -c:v libx264 -pix_fmt yuv420p OUT.mp4";
/// What to do about what only other programs read.
const FOREIGN: &str = "put `ffmpeg` on the PATH or name it in KINO_FFMPEG: then it is read through \
                       that; or convert it: ffmpeg -i IN -c:v libx264 -pix_fmt yuv420p OUT.mp4";

/// The error to what is found broken while it is decoded.
pub(super) fn convert_first(path: &Path, message: String) -> Error {
    Error::content(path, message).advise(CONVERT)
}

/// The error to what only other programs read.
pub(super) fn foreign(path: &Path, message: String) -> Error {
    Error::content(path, message).advise(FOREIGN)
}

/// Whether an error says that only other programs read a file.
pub(super) fn is_foreign(error: &Error) -> bool {
    error.hint() == Some(FOREIGN)
}

/// What the four letters of a sample description stand for.
fn codec(format: &[u8; 4]) -> String {
    let known = match format {
        b"hvc1" | b"hev1" | b"dvh1" | b"dvhe" => "HEVC (H.265)",
        b"av01" => "AV1",
        b"vp08" => "VP8",
        b"vp09" => "VP9",
        b"mp4v" => "MPEG-4 part 2",
        b"apch" | b"apcn" | b"apcs" | b"apco" | b"ap4h" | b"ap4x" => "ProRes",
        b"jpeg" | b"mjpa" | b"mjpb" => "Motion JPEG",
        b"encv" => "encrypted video",
        b"s263" | b"h263" => "H.263",
        b"vvc1" | b"vvi1" => "VVC (H.266)",
        other => {
            return format!(
                "video of the form `{}`",
                String::from_utf8_lossy(other).escape_default()
            );
        }
    };
    known.to_owned()
}

/// The video track that players show.
fn choose(tracks: Vec<Track>) -> Option<Track> {
    let mut videos: Vec<Track> =
        tracks.into_iter().filter(|track| track.kind == TrackKind::Video).collect();
    let shown = |track: &Track| track.enabled && !track.samples.is_empty();
    let best = videos.iter().position(shown);
    let best = best.or_else(|| videos.iter().position(|track| !track.samples.is_empty()));
    match best {
        Some(index) => Some(videos.swap_remove(index)),
        None => videos.pop(),
    }
}

impl AvcTrack {
    /// The track of a file that is shown.
    pub(super) fn open(file: &mut InputFile, tracks: Vec<Track>, tone_map: bool) -> Result<Self> {
        let path = file.path().to_owned();
        let refused = |message: Refused| Error::content(&path, message);
        let track = choose(tracks);
        let track = track.ok_or_else(|| refused("it has no track of video".to_owned()))?;
        if !matches!(&track.format, b"avc1" | b"avc3") {
            let codec = codec(&track.format);
            return Err(foreign(&path, format!("it holds {codec}; H.264 is read here")));
        }
        if track.samples.is_empty() {
            return Err(refused("it has a track of video without frames".to_owned()));
        }
        let odd = track.samples.iter().position(|s| s.size == 0 || s.size > LONGEST_SAMPLE);
        if let Some(index) = odd {
            let (size, count) = (track.samples[index].size, track.samples.len());
            let message = format!("it is damaged: frame {} of {count} has {size} bytes", index + 1);
            return Err(refused(message));
        }
        let timeline = track.timeline().map_err(&refused)?;
        if timeline.shown.is_empty() {
            return Err(refused("its edits show none of its frames".to_owned()));
        }
        let (sps, sets, length_size, colour) = description(file, &track).map_err(&refused)?;
        check(&sps, &path)?;
        let colour = colour.or(sps.colour).unwrap_or([2; 3]);
        let (colour, full_range) = (colour, sps.full_range);
        let described = described_range(&track).map_err(&refused)?;
        let colour = Colour {
            primaries: colour[0],
            transfer: colour[1],
            matrix: colour[2],
            full_range: described.or(full_range).unwrap_or(false),
        };
        let conversion = colour.conversion((sps.width, sps.height), tone_map);
        let conversion = conversion.map_err(|message| {
            let advice = if message.contains("HDR") {
                "set `tone_map` to true, or convert it first"
            } else {
                CONVERT
            };
            Error::content(&path, message).advise(advice)
        })?;
        let orientation = Orientation::of_matrix(track.matrix).ok_or_else(|| {
            foreign(&path, "it is shown turned by no right angle, or skewed".to_owned())
        })?;
        if sps.pixel.0 != sps.pixel.1 {
            let (width, height) = sps.pixel;
            tracing::warn!(width, height, path = %path.display(), "Its pixels are not square; they are read as they are stored.");
        }
        Ok(AvcTrack { track, timeline, sps, conversion, orientation, sets, length_size })
    }

    /// Width and height, upright.
    pub(super) fn size(&self) -> (usize, usize) {
        let (width, height) = (self.sps.width, self.sps.height);
        if self.orientation.is_turned() { (height, width) } else { (width, height) }
    }

    pub(super) fn timing(&self) -> Timing {
        let ticks = self.timeline.shown.iter().map(|shown| shown.time).collect();
        Timing { ticks, end: self.timeline.end, scale: self.track.timescale }
    }

    /// The bytes that decoding takes beside the frames that it gives: what the decoder keeps,
    /// pictures on their way, one that is not turned yet, tables.
    pub(super) fn memory(&self) -> u64 {
        let pixels = (self.sps.width * self.sps.height) as u64;
        let kept = u64::from(self.sps.references.min(16)) + 4 + WAITING as u64 + 2;
        let turned = if self.orientation.is_upright() { 0 } else { 1 };
        let tables = self.track.samples.len() * size_of::<super::demux::Sample>();
        kept * pixels * 3 / 2 + turned * pixels * 12 + (8 << 20) + tables as u64
    }
}

/// Pictures that may wait between decoding and conversion.
pub(super) const WAITING: usize = 3;

/// Refuses what OpenH264 does not decode, by name.
fn check(sps: &Sps, path: &Path) -> Result<()> {
    let refuse = |what: String| Err(foreign(path, format!("its H.264 {what}")));
    if sps.bits != [8, 8] {
        return refuse(format!("has {} bits a channel; 8 are read here", sps.bits[0]));
    }
    if sps.chroma > 1 || sps.chroma == 0 {
        let name = ["is grey (4:0:0)", "", "is 4:2:2", "is 4:4:4"];
        let name = name.get(sps.chroma as usize).copied().unwrap_or("has colours of no known form");
        return refuse(format!("{name}; 4:2:0 is read here"));
    }
    if sps.interlaced {
        return refuse("is interlaced, which is not read here".to_owned());
    }
    if sps.width.saturating_mul(sps.height) > crate::image::MAX_PIXELS {
        return refuse(format!("claims frames of {}x{}", sps.width, sps.height));
    }
    Ok(())
}

/// The boxes behind the fields of a video's sample description.
fn inner(track: &Track) -> &[u8] {
    track.description.get(78..).unwrap_or_default()
}

/// Primaries, transfer and matrix, and the range, of `colr`.
type Described = (Sps, Vec<u8>, usize, Option<[u8; 3]>);

/// The parameter sets of `avcC` (ISO/IEC 14496-15 §5.3.3), and the colours of `colr`.
fn description(file: &mut InputFile, track: &Track) -> Result<Described, Refused> {
    let cut = || "it is damaged: its H.264 configuration (`avcC`) ends early".to_owned();
    let config = first(inner(track), b"avcC")?;
    let config = config.ok_or("it is damaged: its H.264 configuration (`avcC`) is missing")?;
    let length_size = usize::from(config.get(4).ok_or_else(cut)? & 3) + 1;
    let (mut sets, mut sps, mut at) = (Vec::new(), None, 5);
    // Sequence parameter sets, then picture parameter sets.
    for mask in [0x1f, 0xff] {
        let count = config.get(at).ok_or_else(cut)? & mask;
        at += 1;
        for _ in 0..count {
            let length = config.get(at..).and_then(|rest| rest.first_chunk()).ok_or_else(cut)?;
            let length = usize::from(u16::from_be_bytes(*length));
            let unit = config.get(at + 2..at + 2 + length).ok_or_else(cut)?;
            at += 2 + length;
            sets.extend([0, 0, 0, 1]);
            sets.extend(unit);
            sps = sps.or_else(|| Sps::parse(unit));
        }
    }
    if sps.is_none() {
        // `avc3` has them in its samples.
        let mut sample = Vec::new();
        let sync = track.samples.iter().find(|sample| sample.sync).or(track.samples.first());
        if let Some(sync) = sync {
            let failed = |error: std::io::Error| format!("it cannot be read: {error}");
            read_sample(file, sync, &mut sample).map_err(failed)?;
            sps = units(&sample, length_size).filter_map(Result::ok).find_map(Sps::parse);
        }
    }
    let sps = sps.ok_or("it is damaged: its H.264 says no size of pictures that can be")?;
    let colour = first(inner(track), b"colr")?.and_then(|colr| {
        let named = matches!(colr.get(..4)?, b"nclx" | b"nclc");
        let numbers = [5, 7, 9].map(|at| colr.get(at).copied());
        match numbers {
            [Some(primaries), Some(transfer), Some(matrix)] if named => {
                Some([primaries, transfer, matrix])
            }
            _ => None,
        }
    });
    // A box that says nothing leaves it to the stream.
    let colour = colour.filter(|numbers| *numbers != [2; 3] && numbers[2] != 0);
    Ok((sps, sets, length_size, colour))
}

/// Whether `colr` says that the range is full.
fn described_range(track: &Track) -> Result<Option<bool>, Refused> {
    let colr = first(inner(track), b"colr")?;
    Ok(colr
        .filter(|colr| colr.starts_with(b"nclx"))
        .and_then(|colr| Some(colr.get(10)? & 0x80 != 0)))
}

/// The units of a sample; an error where a length is more than what is left.
pub(super) fn units(sample: &[u8], length_size: usize) -> impl Iterator<Item = Result<&[u8], ()>> {
    let mut rest = sample;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let unit = rest.split_at_checked(length_size).and_then(|(length, after)| {
            let length = length.iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
            let (unit, after) = after.split_at_checked(length)?;
            rest = after;
            Some(unit)
        });
        if unit.is_none() {
            rest = &[];
        }
        Some(unit.ok_or(()))
    })
}
