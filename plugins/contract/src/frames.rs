//! What the frames of one video have in common, as a plugin gives them chunk by chunk.

/// The number of frames and their size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FramesSize {
    /// How many there are.
    pub count: usize,
    /// Rows of each.
    pub height: usize,
    /// Columns of each.
    pub width: usize,
}

impl FramesSize {
    /// Takes a chunk of this shape, and says whether any frame is in it.
    ///
    /// # Errors
    /// When it is not `[count, height, width, 3]`, has no pixels, or another size than those before.
    pub fn push(&mut self, shape: &[usize]) -> Result<bool, String> {
        let &[count, height, width, 3] = shape else {
            return Err(format!("frames are [count, height, width, 3], found {shape:?}"));
        };
        if count == 0 {
            return Ok(false);
        }
        if height == 0 || width == 0 {
            return Err(format!("frames have no pixels: {shape:?}"));
        }
        if self.count > 0 && (self.height, self.width) != (height, width) {
            return Err(format!(
                "frames of one video have one size: {}x{} so far, then {width}x{height}",
                self.width, self.height
            ));
        }
        *self = FramesSize { count: self.count + count, height, width };
        Ok(true)
    }

    /// The fields that say it, of a record of type Frames.
    ///
    /// # Errors
    /// When there are no frames.
    pub fn fields(&self) -> Result<[(&'static str, usize); 3], String> {
        match self.count {
            0 => Err("a video has at least one frame, found none".into()),
            count => Ok([("count", count), ("height", self.height), ("width", self.width)]),
        }
    }
}

/// A rate of frames, where one is known.
///
/// # Errors
/// When it is none.
pub fn frame_rate(fps: Option<f64>) -> Result<Option<f64>, String> {
    match fps {
        Some(fps) if !(fps.is_finite() && fps > 0.0) => {
            Err(format!("a rate is a number above 0, found {fps}"))
        }
        fps => Ok(fps),
    }
}
