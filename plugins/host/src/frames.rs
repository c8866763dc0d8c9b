//! Frames that a plugin is making, chunk by chunk.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Tensor;
use kino_contract::{code, frame_rate};
use kino_node::{Frames, FramesBuilder, Ledger, Result};

use crate::error::invalid;

/// Frames in the making; chunks beyond the memory budget go to a file as they come.
pub struct FramesBuffer(Mutex<State>);

enum State {
    Open(FramesBuilder),
    Done(Arc<Frames>),
    Failed,
}

fn used<T>() -> Result<T> {
    Err(invalid("frames that have been used take no more chunks"))
}

impl FramesBuffer {
    /// No frames yet, at `fps` frames a second.
    ///
    /// # Errors
    /// When that is no rate.
    pub fn new(ledger: &Arc<Ledger>, fps: Option<f64>) -> Result<Self> {
        Ok(FramesBuffer(Mutex::new(State::Open(FramesBuilder::new(
            ledger,
            frame_rate(fps).map_err(invalid)?,
        )))))
    }

    /// Appends frames `[n, height, width, 3]`.
    ///
    /// # Errors
    /// When the shape does not fit, or the frames have been used already.
    pub fn push(&self, chunk: &Tensor) -> Result<()> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Open(builder) => {
                builder.push(chunk).map_err(|error| error.or_code(code::INVALID))
            }
            _ => used(),
        }
    }

    /// The frames; from here on they do not change.
    ///
    /// # Errors
    /// When there are none.
    pub fn finish(&self) -> Result<Arc<Frames>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Done(frames) = &*state {
            return Ok(Arc::clone(frames));
        }
        let State::Open(builder) = std::mem::replace(&mut *state, State::Failed) else {
            return Err(invalid("these frames could not be finished"));
        };
        let frames = Arc::new(builder.finish().map_err(|error| error.or_code(code::INVALID))?);
        *state = State::Done(Arc::clone(&frames));
        Ok(frames)
    }
}
