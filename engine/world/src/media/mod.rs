//! Videos out, one trait, formats by extension; videos in, formats by their bytes.

mod aac;
mod animated;
mod audio;
#[cfg_attr(not(feature = "h264"), allow(dead_code, reason = "decoding alone needs all of it"))]
mod avc;
mod boxes;
#[cfg_attr(not(feature = "h264"), allow(dead_code, reason = "decoding alone needs all of it"))]
mod colour;
#[cfg(feature = "h264")]
mod decode;
#[cfg_attr(not(feature = "h264"), allow(dead_code, reason = "decoding alone needs all of it"))]
mod demux;
mod exr;
mod ffmpeg;
mod ffmpeg_audio;
mod ffmpeg_format;
mod ffmpeg_inputs;
mod ffmpeg_write;
#[cfg(feature = "h264")]
mod h264;
#[cfg_attr(not(feature = "h264"), allow(dead_code, reason = "writing video alone needs all of it"))]
mod mp4;
mod png;
mod reader;
mod sequence;
mod sink;
mod sps;
mod timing;
mod wav;
mod webp;
mod writer;

use std::path::Path;

use kino_port::NumberedFiles;

use crate::{Error, Result};
use sequence::{FrameFile, SequenceWriter};

pub use audio::AudioReader;
pub(crate) use boxes::find as find_box;
pub use ffmpeg::{FfmpegChoice, find_ffmpeg};
pub use ffmpeg_audio::encode_aac;
pub use ffmpeg_format::ForeignFormat;
pub use reader::VideoReader;
pub use sink::FrameSink;
pub use timing::VideoInfo;
pub(crate) use webp::exif_of;
pub use writer::{Depth, VideoSpec, VideoWriter};

/// A file format of videos or images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VideoFormat {
    /// H.264 video in mp4.
    Mp4,
    /// Animated WebP.
    WebP,
    /// PNG; several frames make an animated one.
    Png,
    /// A PNG a frame: the path holds a number such as `%05d`.
    PngSequence,
    /// OpenEXR of half floats: one frame.
    Exr,
    /// An EXR a frame.
    ExrSequence,
    /// What a program `ffmpeg` writes.
    Foreign(ForeignFormat),
}

/// The format that a path's extension names; `ffmpeg` is the program for those that are not written
/// here.
///
/// # Errors
/// When it names none that can be written, or one that takes the program, and there is none.
pub fn format_of(path: &Path, ffmpeg: Option<&Path>) -> Result<VideoFormat> {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_sequence = sequence::numbered(path).is_some();
    if NumberedFiles::looks_numbered(&name)
        && !(is_sequence && ["png", "exr"].contains(&&*extension))
    {
        let message = match is_sequence {
            true => format!("{}: a file a frame is written as .png or .exr alone", path.display()),
            false => format!("{}: its number is none that is written", path.display()),
        };
        return Err(Error::refused(
            message,
            "number the files as in frame_%05d.png or frame_%d.png",
        ));
    }
    match extension.as_str() {
        "mp4" if cfg!(feature = "h264") => Ok(VideoFormat::Mp4),
        "mp4" => Err(Error::refused(
            format!("{}: this build cannot write mp4", path.display()),
            "write .webp or .png, or build with the feature `h264`",
        )),
        "webp" => Ok(VideoFormat::WebP),
        "png" if is_sequence => Ok(VideoFormat::PngSequence),
        "exr" if is_sequence => Ok(VideoFormat::ExrSequence),
        "exr" => Ok(VideoFormat::Exr),
        "png" => Ok(VideoFormat::Png),
        other => foreign(path, other, ffmpeg),
    }
}

/// Whether a path ends in a format that is not written here, but perhaps by a program.
pub fn is_foreign(path: &Path) -> bool {
    let own = ["", "mp4", "webp", "png", "exr"];
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    !own.contains(&&*extension) && !NumberedFiles::looks_numbered(&name)
}

/// The format of an ending that is not written here.
fn foreign(path: &Path, extension: &str, ffmpeg: Option<&Path>) -> Result<VideoFormat> {
    const MISSING: &str = "put `ffmpeg` on the PATH or name it with `kino config set ffmpeg PATH`; \
                           without it .mp4, .webp, .png and .exr are written";
    let known = ForeignFormat::known(extension);
    let place = path.display();
    let found = match (known, ffmpeg) {
        (Some(known), Some(_)) => Some(known),
        (Some(_), None) => {
            let message = format!("{place}: .{extension} is written through `ffmpeg`");
            return Err(Error::refused(message, MISSING));
        }
        (None, Some(program)) => ForeignFormat::ask(program, extension)?,
        (None, None) => None,
    };
    if let Some(found) = found {
        return Ok(VideoFormat::Foreign(found));
    }
    let message = match (extension, ffmpeg) {
        ("", _) => format!("`{place}` does not end in a format such as .mp4"),
        (other, Some(_)) => {
            format!("{place}: there is no video format `.{other}`, here or in `ffmpeg`")
        }
        (other, None) => format!("{place}: there is no video format `.{other}`"),
    };
    let known = "use .mp4, .webp, .png (animated), a sequence such as frame_%05d.png or \
                 frame_%05d.exr, or with ffmpeg .webm, .mkv, .mov, .gif, .avi and what else it \
                 writes, such as .ts, .mpg, .ogv, .wmv";
    Err(Error::refused(message, known))
}

/// Whether a format takes frames of this size.
///
/// # Errors
/// When it does not; the message says which sizes it takes.
pub fn check_size(format: &VideoFormat, width: usize, height: usize) -> Result<()> {
    /// The shortest side of H.264.
    const LEAST: usize = 16;
    let most = match format {
        VideoFormat::Mp4 => 3840,
        VideoFormat::WebP | VideoFormat::Foreign(_) => 16383,
        // Their own bounds lie beyond what memory holds.
        VideoFormat::Png
        | VideoFormat::PngSequence
        | VideoFormat::Exr
        | VideoFormat::ExrSequence => 1 << 24,
    };
    if width == 0 || height == 0 || width.max(height) > most {
        return Err(Error::refused(
            format!(
                "frames of {width}x{height} do not fit this format, which takes 1 to {most} pixels a side"
            ),
            "resize them first with `frames.resize`",
        ));
    }
    if *format == VideoFormat::Mp4 && width.min(height) > 2160 {
        return Err(Error::refused(
            format!(
                "frames of {width}x{height} are too large for H.264 here: the shorter side has at most 2160 pixels"
            ),
            "resize them first with `frames.resize`, or write .webp",
        ));
    }
    if *format == VideoFormat::Mp4 && width.min(height) < LEAST {
        return Err(Error::refused(
            format!("H.264 takes frames of at least {LEAST}x{LEAST}, found {width}x{height}"),
            "enlarge them first with `upscale`, or write .png",
        ));
    }
    if *format == VideoFormat::Mp4 && (width % 2 == 1 || height % 2 == 1) {
        let even = |side: usize| side / 2 * 2;
        return Err(Error::refused(
            format!("H.264 takes even sizes, found {width}x{height}"),
            &format!(
                "near it: {}x{}; resize with `frames.resize`, or write .webp",
                even(width),
                even(height)
            ),
        ));
    }
    Ok(())
}

/// Begins a video file; its format follows from the extension.
///
/// # Errors
/// When the format or size is not possible, or the file cannot be made.
pub fn create(path: &Path, spec: &VideoSpec<'_>) -> Result<Box<dyn VideoWriter>> {
    create_with_depth(path, spec, Depth::Eight)
}

/// As [`create`], of so many bits a channel.
///
/// # Errors
/// As [`create`], and when the format has no such depth.
pub fn create_with_depth(
    path: &Path,
    spec: &VideoSpec<'_>,
    depth: Depth,
) -> Result<Box<dyn VideoWriter>> {
    let format = format_of(path, spec.ffmpeg)?;
    if depth == Depth::Sixteen
        && matches!(format, VideoFormat::Mp4 | VideoFormat::WebP | VideoFormat::Foreign(_))
    {
        let message = format!("{}: 16 bits a channel are written as PNG alone", path.display());
        return Err(Error::refused(message, "end the path with .png"));
    }
    check_size(&format, spec.width, spec.height)?;
    if spec.count == 0 {
        return Err(Error::refused("a video has at least one frame, found none", ""));
    }
    if !(spec.fps > 0.0 && spec.fps <= 1000.0) {
        return Err(Error::refused(
            format!("expected a rate of up to 1000 frames a second, found {}", spec.fps),
            "",
        ));
    }
    match format {
        #[cfg(feature = "h264")]
        VideoFormat::Mp4 => Ok(Box::new(h264::Mp4Writer::create(path, spec)?)),
        #[cfg(not(feature = "h264"))]
        VideoFormat::Mp4 => {
            Err(Error::refused("this build cannot write mp4", "build with the feature `h264`"))
        }
        VideoFormat::WebP => Ok(Box::new(webp::WebPWriter::create(path, spec)?)),
        VideoFormat::Png => Ok(Box::new(png::PngWriter::create(path, spec, depth)?)),
        VideoFormat::PngSequence => {
            Ok(Box::new(SequenceWriter::<png::PngWriter>::create(path, spec, depth)?))
        }
        VideoFormat::Exr if spec.count > 1 => Err(Error::refused(
            format!("an EXR file holds one image, found {} frames", spec.count),
            "number the files, as in frame_%05d.exr",
        )),
        VideoFormat::Foreign(foreign) => {
            Ok(Box::new(ffmpeg_write::ForeignWriter::create(path, spec, &foreign)?))
        }
        VideoFormat::Exr => Ok(Box::new(exr::ExrWriter::create(path, spec, depth)?)),
        VideoFormat::ExrSequence => {
            Ok(Box::new(SequenceWriter::<exr::ExrWriter>::create(path, spec, depth)?))
        }
    }
}
