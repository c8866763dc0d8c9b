//! Frames that a plugin is making, chunk by chunk.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Tensor};
use kino_node::{Error, Frames, FramesBuilder, Ledger, Result, Value};

use crate::value::PluginValue;

/// Frames in the making; chunks beyond the memory budget go to a file as they come.
pub struct FramesBuffer(Mutex<State>);

enum State {
    Open(FramesBuilder),
    Done(Arc<Frames>),
    Failed,
}

/// A rate of frames, where one is known.
fn rate(fps: Option<f64>) -> Result<Option<f64>> {
    match fps {
        Some(fps) if !(fps.is_finite() && fps > 0.0) => {
            Err(Error::failed(format!("a rate is a number above 0, found {fps}")))
        }
        fps => Ok(fps),
    }
}

fn used<T>() -> Result<T> {
    Err(Error::failed("frames that have been used take no more chunks"))
}

impl FramesBuffer {
    /// No frames yet, at `fps` frames a second.
    ///
    /// # Errors
    /// When that is no rate.
    pub fn new(ledger: &Arc<Ledger>, fps: Option<f64>) -> Result<Self> {
        Ok(FramesBuffer(Mutex::new(State::Open(FramesBuilder::new(ledger, rate(fps)?)))))
    }

    /// Appends frames `[n, height, width, 3]`.
    ///
    /// # Errors
    /// When the shape does not fit, or the frames have been used already.
    pub fn push(&self, chunk: &Tensor) -> Result<()> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Open(builder) => builder.push(chunk),
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
            return Err(Error::failed("these frames could not be finished"));
        };
        let frames = Arc::new(builder.finish()?);
        *state = State::Done(Arc::clone(&frames));
        Ok(frames)
    }
}

/// Frames that a plugin is making where chunks are only gathered, to be sent elsewhere. What holds
/// for [`FramesBuffer`] holds here.
pub struct CollectedFrames {
    fps: Option<f64>,
    state: Mutex<Gathered>,
}

#[derive(Default)]
struct Gathered {
    chunks: Vec<(Arc<str>, PluginValue)>,
    count: usize,
    height: usize,
    width: usize,
    /// Whether somebody has looked at the frames.
    used: bool,
}

impl CollectedFrames {
    /// No frames yet, at `fps` frames a second.
    ///
    /// # Errors
    /// When that is no rate.
    pub fn new(fps: Option<f64>) -> Result<Self> {
        Ok(CollectedFrames { fps: rate(fps)?, state: Mutex::default() })
    }

    /// Appends frames `[n, height, width, 3]`.
    ///
    /// # Errors
    /// When the shape does not fit, or the frames have been used already.
    pub fn push(&self, chunk: PluginValue) -> Result<()> {
        let (dtype, shape) = chunk.shape()?;
        let &[n, height, width, 3] = shape.as_slice() else {
            return Err(Error::failed(format!(
                "frames are [count, height, width, 3], found {shape:?}"
            )));
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.used {
            return used();
        }
        if n == 0 {
            return Ok(());
        }
        if height == 0 || width == 0 {
            return Err(Error::failed(format!("frames have no pixels: {shape:?}")));
        }
        if state.count > 0 && (state.height, state.width) != (height, width) {
            return Err(Error::failed(format!(
                "frames of one video have one size: {}x{} so far, then {width}x{height}",
                state.width, state.height
            )));
        }
        let chunk = match dtype {
            DType::F32 => chunk,
            _ => PluginValue::Value(Value::Tensor(chunk.tensor()?.to_dtype(DType::F32)?)),
        };
        (state.height, state.width) = (height, width);
        state.count += n;
        state.chunks.push((Arc::from(""), chunk));
        Ok(())
    }

    /// What was gathered, as a record of type Frames; from here on it does not change.
    ///
    /// # Errors
    /// When there are no frames.
    pub fn finish(&self) -> Result<PluginValue> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.used = true;
        if state.count == 0 {
            return Err(Error::failed("a video has at least one frame, found none"));
        }
        let int = |value: usize| PluginValue::Value(Value::Int(value as i128));
        let mut fields =
            vec![(Arc::from("chunks"), PluginValue::List(state.chunks.as_slice().into()))];
        if let Some(fps) = self.fps {
            fields.push((Arc::from("fps"), PluginValue::Value(Value::Real(fps))));
        }
        fields.push((Arc::from("count"), int(state.count)));
        fields.push((Arc::from("height"), int(state.height)));
        fields.push((Arc::from("width"), int(state.width)));
        Ok(PluginValue::Fields("Frames".into(), fields.into()))
    }
}
