//! What every format takes: frames, one after another.

use std::path::{Path, PathBuf};

use kino_node::{Audio, Cancel};

use crate::{Error, Result};

/// What a video consists of.
#[derive(Clone, Debug, Default)]
pub struct VideoSpec<'s> {
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
    /// Its sound; what goes on longer than the frames is left out.
    pub audio: Option<&'s Audio>,
    /// The program for formats that are not written here.
    pub ffmpeg: Option<&'s Path>,
    /// Ends what a program takes long for.
    pub cancel: Option<&'s Cancel>,
}

/// How finely colours are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Depth {
    /// 8 bits a channel.
    #[default]
    Eight,
    /// 16 bits a channel: PNG alone.
    Sixteen,
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

/// 0…1 as a byte, rounded.
fn byte(value: f32) -> u8 {
    (value.clamp(0.0, 1.0) * 255.0).round() as u8
}

/// A frame as bytes.
pub(super) fn bytes(frame: &[f32], size: (usize, usize)) -> Result<Vec<u8>> {
    check_frame(frame, size)?;
    Ok(frame.iter().copied().map(byte).collect())
}

/// A frame as numbers of 16 bits, the higher byte first.
pub(super) fn wide_bytes(frame: &[f32], size: (usize, usize)) -> Result<Vec<u8>> {
    check_frame(frame, size)?;
    let wide = |value: &f32| (value.clamp(0.0, 1.0) * 65535.0).round() as u16;
    Ok(frame.iter().flat_map(|value| wide(value).to_be_bytes()).collect())
}

fn check_frame(frame: &[f32], (width, height): (usize, usize)) -> Result<()> {
    if frame.len() != width * height * 3 {
        let message = format!("expected a frame of {width}x{height}, found {} values", frame.len());
        return Err(Error::refused(message, ""));
    }
    Ok(())
}
