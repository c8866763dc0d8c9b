//! What all nodes share that work on frames a few at a time.

use candle_core::Tensor;
use kino_node::{Cx, Frames, FramesBuilder, FramesFact, Result};
use kino_port::{Fact, Port, PortType, StepInfo, edge};

/// Frames that are worked on at once.
pub(super) const CHUNK: usize = 4;

/// The input of nodes that take frames.
pub(super) const fn frames_in() -> Port {
    edge("frames", PortType::Frames).about("The frames, or an image.")
}

/// The bytes of one frame.
pub(super) fn frame_bytes(height: usize, width: usize) -> u64 {
    (height as u64).saturating_mul(width as u64).saturating_mul(3 * 4)
}

/// A step that gives frames, of which a few are worked on at once: its memory is that of the
/// result, which may go to disk, and `work` bytes beside it; none of it is known where the size of
/// either is not.
pub(super) fn gives(fact: FramesFact, work: Option<u64>) -> StepInfo {
    let count = fact.count.unwrap_or(1) as u64;
    let Some(((height, width), work)) = fact.size().zip(work) else {
        return StepInfo { outputs: vec![Fact::typed(fact)], ..StepInfo::default() };
    };
    let result = count.saturating_mul(frame_bytes(height, width));
    StepInfo {
        outputs: vec![Fact::typed(fact)],
        memory: result.saturating_add(work),
        spillable: result,
        ..StepInfo::default()
    }
}

/// Appends what `change` makes of frames `[n, h, w, 3]`, at most [`CHUNK`] at a time, and reports
/// how far it is: `done` frames of `of` were there before.
pub(super) fn push_changed(
    cx: &Cx<'_>,
    frames: &Frames,
    (mut done, of): (usize, usize),
    into: &mut FramesBuilder,
    change: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<()> {
    for chunk in frames.chunks() {
        let chunk = chunk?;
        let count = chunk.dim(0)?;
        for start in (0..count).step_by(CHUNK) {
            cx.check_cancel()?;
            let few = CHUNK.min(count - start);
            into.push(&change(&chunk.narrow(0, start, few)?)?)?;
            done += few;
            cx.progress(done, of);
        }
    }
    Ok(())
}
