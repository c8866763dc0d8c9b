//! Videos and images out: one trait, formats by extension.

mod boxes;
#[cfg(feature = "h264")]
mod h264;
#[cfg(feature = "h264")]
mod mp4;
mod png;
mod webp;

use std::path::{Path, PathBuf};

use crate::{Error, Result};

pub(crate) use boxes::find as find_box;
pub(crate) use webp::exif_of;

/// A file format of videos or images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// H.264 video in mp4.
    Mp4,
    /// Animated WebP.
    WebP,
    /// PNG; several frames make an animated one.
    Png,
    /// A PNG a frame: the path holds a number such as `%05d`.
    PngSequence,
}

/// What a video consists of.
#[derive(Clone, Debug)]
pub struct Spec<'s> {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// The number of frames.
    pub count: usize,
    /// Frames a second.
    pub fps: f64,
    /// A text to store in the file.
    pub metadata: Option<&'s str>,
}

/// A video in the making. Dropped before it is finished, it leaves nothing behind.
pub trait VideoWriter {
    /// Appends a frame `[height, width, 3]`, RGB in 0…1.
    ///
    /// # Errors
    /// When it cannot be encoded or written.
    fn push(&mut self, frame: &[f32]) -> Result<()>;

    /// Puts the files in their places and names them.
    ///
    /// # Errors
    /// When the last bytes cannot be written.
    fn finish(self: Box<Self>) -> Result<Vec<PathBuf>>;
}

/// The format that a path's extension names.
///
/// # Errors
/// When it names none that can be written.
pub fn format_of(path: &Path) -> Result<Format> {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    match extension.as_str() {
        "mp4" if cfg!(feature = "h264") => Ok(Format::Mp4),
        "mp4" => Err(Error::refused(
            format!("{}: this build cannot write mp4", path.display()),
            "write .webp or .png, or build with the feature `h264`",
        )),
        "webp" => Ok(Format::WebP),
        "png" if png::numbered(path).is_some() => Ok(Format::PngSequence),
        "png" => Ok(Format::Png),
        other => {
            let path = path.display();
            let message = match other {
                "" => format!("`{path}` does not end in a format such as .mp4"),
                other => format!("{path}: there is no video format `.{other}`"),
            };
            let known = "use .mp4, .webp, .png (animated), or a sequence such as frame_%05d.png";
            Err(Error::refused(message, known))
        }
    }
}

/// Whether a format takes frames of this size.
///
/// # Errors
/// When it does not; the message says which sizes it takes.
pub fn check_size(format: Format, width: usize, height: usize) -> Result<()> {
    let most = if format == Format::Mp4 { 3840 } else { 16383 };
    if width == 0 || height == 0 || width.max(height) > most {
        return Err(Error::refused(
            format!(
                "frames of {width}x{height} do not fit this format, which takes 1 to {most} pixels a side"
            ),
            "resize them first with `frames.resize`",
        ));
    }
    if format == Format::Mp4 && width.min(height) > 2160 {
        return Err(Error::refused(
            format!(
                "frames of {width}x{height} are too large for H.264 here: the shorter side has at most 2160 pixels"
            ),
            "resize them first with `frames.resize`, or write .webp",
        ));
    }
    if format == Format::Mp4 && (width % 2 == 1 || height % 2 == 1) {
        let even = |side: usize| side.saturating_sub(1).max(2) / 2 * 2;
        return Err(Error::refused(
            format!("H.264 takes even sizes, found {width}x{height}"),
            &format!(
                "near it: {}x{}; resize with `frames.resize`, or write .webp",
                even(width + 1),
                even(height + 1)
            ),
        ));
    }
    if format == Format::Mp4 && width.min(height) < 16 {
        return Err(Error::refused(
            format!("H.264 takes frames of at least 16x16, found {width}x{height}"),
            "enlarge them first with `upscale`, or write .png",
        ));
    }
    Ok(())
}

/// Begins a video file; its format follows from the extension.
///
/// # Errors
/// When the format or size is not possible, or the file cannot be made.
pub fn create(path: &Path, spec: &Spec<'_>) -> Result<Box<dyn VideoWriter>> {
    let format = format_of(path)?;
    check_size(format, spec.width, spec.height)?;
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
        Format::Mp4 => Ok(Box::new(h264::Mp4Writer::create(path, spec)?)),
        #[cfg(not(feature = "h264"))]
        Format::Mp4 => {
            Err(Error::refused("this build cannot write mp4", "build with the feature `h264`"))
        }
        Format::WebP => Ok(Box::new(webp::WebPWriter::create(path, spec)?)),
        Format::Png => Ok(Box::new(png::PngWriter::create(path, spec)?)),
        Format::PngSequence => Ok(Box::new(png::SequenceWriter::create(path, spec)?)),
    }
}

/// 0…1 as a byte, rounded.
fn byte(value: f32) -> u8 {
    (value.clamp(0.0, 1.0) * 255.0).round() as u8
}

/// A frame as bytes.
fn bytes(frame: &[f32], spec: (usize, usize)) -> Result<Vec<u8>> {
    let (width, height) = spec;
    if frame.len() != width * height * 3 {
        let message = format!("expected a frame of {width}x{height}, found {} values", frame.len());
        return Err(Error::refused(message, ""));
    }
    Ok(frame.iter().copied().map(byte).collect())
}

/// The duration of a frame as a fraction of seconds in 16 bits each, as APNG wants it: the nearest
/// there is.
fn timing_of(fps: f64) -> (u16, u16) {
    let error = |seconds: u16, of: u16| (f64::from(of) / f64::from(seconds) / fps - 1.0).abs();
    let nearest = |seconds: u16| {
        let of = (fps * f64::from(seconds)).round();
        (1.0..=65535.0).contains(&of).then_some((seconds, of as u16))
    };
    let best = (1..=u16::MAX).filter_map(nearest).min_by(|a, b| {
        let (first, second) = (error(a.0, a.1), error(b.0, b.1));
        first.total_cmp(&second)
    });
    best.unwrap_or((u16::MAX, 1))
}

#[cfg(test)]
mod tests {
    use super::timing_of;

    #[test]
    fn rates_of_animated_png() {
        assert_eq!(timing_of(8.0), (1, 8));
        assert_eq!(timing_of(24_000.0 / 1001.0), (1001, 24_000));
        assert_eq!(timing_of(12.5), (2, 25));
        assert_eq!(timing_of(0.25), (4, 1));
    }
}
