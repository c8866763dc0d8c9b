//! What every format takes: frames, one after another.

use std::path::PathBuf;

use crate::{Error, Result};

/// What a video consists of.
#[derive(Clone, Debug)]
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
pub(super) fn bytes(frame: &[f32], spec: (usize, usize)) -> Result<Vec<u8>> {
    let (width, height) = spec;
    if frame.len() != width * height * 3 {
        let message = format!("expected a frame of {width}x{height}, found {} values", frame.len());
        return Err(Error::refused(message, ""));
    }
    Ok(frame.iter().copied().map(byte).collect())
}
