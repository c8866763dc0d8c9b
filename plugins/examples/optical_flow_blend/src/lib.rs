//! New frames between frames, along the motion from one to the next.

mod motion;

use kino_plugin::prelude::*;
use motion::{Motion, Picture};

/// Adds frames between frames, along their motion; the rate grows with their number.
///
/// For every block of a new frame at the time t between its neighbours, the motion d is sought
/// for which the picture before, at p − t·d, and the picture after, at p + (1 − t)·d, agree best
/// (bilateral block matching: Choi et al. 2007, Motion-Compensated Frame Interpolation Using
/// Bilateral Motion Estimation). A pixel takes the motion of whichever block around it makes both
/// agree best, and is blended from both along it. What is hidden in one of the pictures, or moves
/// farther than `reach`, comes out as a plain blend.
#[node(id = "motion.interpolate", version = "1.0.0", heavy, expensive)]
pub fn optical_flow_blend(
    cx: &mut Cx,
    frames: Frames,
    /// Frames for each that there is: 2 adds one between each two.
    #[param(default = 2, range = 2..=4)]
    factor: usize,
    /// The side of a block.
    #[param(default = 8, range = 4..=64, unit = "px")]
    block: usize,
    /// The farthest motion from one frame to the next, along each side.
    #[param(default = 7, range = 1..=32, unit = "px")]
    reach: usize,
) -> Result<Frames> {
    let size = [frames.height(), frames.width()];
    let mut made = FramesBuilder::new(frames.fps().map(|fps| fps * factor as f64))?;
    let mut before: Option<Picture> = None;
    for index in 0..frames.count() {
        let after = Picture::new(frames.frame(index)?, size);
        if let Some(before) = &before {
            for step in 1..factor {
                let t = step as f32 / factor as f32;
                let motion = Motion::estimate(cx, before, &after, t, block, reach as isize)?;
                made.push(&picture(size, |out| motion.blend(cx, before, &after, out))?)?;
            }
        }
        made.push(&Tensor::from_slice(after.rgb(), &[1, size[0], size[1], 3])?)?;
        before = Some(after);
        cx.progress(index + 1, frames.count());
    }
    made.finish()
}

/// A chunk of one frame, `[1, height, width, 3]`.
fn picture(
    [height, width]: [usize; 2],
    fill: impl FnOnce(&mut [f32]) -> Result<()>,
) -> Result<Tensor> {
    Tensor::try_new_with(&[1, height, width, 3], fill)
}

kino_plugin::plugin!(optical_flow_blend);
