//! Where the frames of a video go that is read.

use std::ops::ControlFlow;

/// Takes the frames of a video.
pub trait FrameSink {
    /// Takes frame `index` of the file, `[height, width, 3]`, RGB in 0…1; says whether to go on.
    fn frame(&mut self, index: usize, rgb: Vec<f32>) -> ControlFlow<()>;

    /// Whether frames are still wanted; asked while none is ready.
    fn is_wanted(&mut self) -> bool {
        true
    }
}
