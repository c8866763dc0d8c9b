//! Frames that a plugin is making, chunk by chunk.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Tensor;
use kino_node::{Error, Frames, FramesBuilder, Result, Spill, Value};

use crate::item::Item;

/// Frames in the making; chunks beyond the memory budget go to a file as they come.
pub struct Growing(Mutex<State>);

enum State {
    Open(FramesBuilder),
    Done(Arc<Frames>),
    Failed,
}

impl Growing {
    /// No frames yet, at `fps` frames a second.
    pub fn new(spill: &Arc<Spill>, fps: Option<f64>) -> Self {
        Growing(Mutex::new(State::Open(FramesBuilder::new(spill, fps))))
    }

    /// Appends frames `[n, height, width, 3]`.
    ///
    /// # Errors
    /// When the shape does not fit, or the frames have been used already.
    pub fn push(&self, chunk: &Tensor) -> Result<()> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Open(builder) => builder.push(chunk),
            _ => Err(Error::failed("frames that have been used take no more chunks")),
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
            return Err(Error::failed("these frames could not be finished"));
        };
        let frames = Arc::new(builder.finish()?);
        *state = State::Done(Arc::clone(&frames));
        Ok(frames)
    }
}

/// Frames that a plugin is making where chunks are only gathered, to be sent elsewhere.
pub struct Pushed {
    fps: Option<f64>,
    chunks: Mutex<Vec<Item>>,
}

impl Pushed {
    /// No frames yet, at `fps` frames a second.
    pub fn new(fps: Option<f64>) -> Self {
        Pushed { fps, chunks: Mutex::default() }
    }

    /// Appends a tensor.
    ///
    /// # Errors
    /// When it is no tensor `[n, height, width, 3]`.
    pub fn push(&self, chunk: Item) -> Result<()> {
        let (_, shape) = chunk.shape()?;
        if shape.len() != 4 || shape[3] != 3 {
            return Err(Error::failed(format!(
                "frames are [count, height, width, 3], found {shape:?}"
            )));
        }
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner).push(chunk);
        Ok(())
    }

    /// What was gathered, as a record of type Frames.
    pub fn items(&self) -> Item {
        let chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        let chunks = chunks.iter().map(|chunk| (Arc::from(""), chunk.clone())).collect();
        let mut fields = vec![(Arc::from("chunks"), Item::List(chunks))];
        if let Some(fps) = self.fps {
            fields.push((Arc::from("fps"), Item::Value(Value::Real(fps))));
        }
        Item::Fields("Frames".into(), fields.into())
    }
}
