//! Frames that are being made of chunks: held by the ledger of a call, or only gathered where they
//! are sent elsewhere.

use std::sync::Arc;

use candle_core::DType;
use kino_contract::{FramesSize, code, frame_rate};
use kino_node::{FramesBuilder, Ledger, Result, Value};

use crate::error::invalid;
use crate::value::PluginValue;

/// Frames that are being made.
pub struct FramesDraft(State);

enum State {
    /// Chunks beyond the memory budget go to a file as they come.
    Held(FramesBuilder),
    Gathered(GatheredFrames),
}

struct GatheredFrames {
    fps: Option<f64>,
    chunks: Vec<(Arc<str>, PluginValue)>,
    size: FramesSize,
}

impl FramesDraft {
    /// No frames yet, of a rate where one is known. Without a ledger they are only gathered.
    ///
    /// # Errors
    /// When that is no rate.
    pub fn new(ledger: Option<&Arc<Ledger>>, fps: Option<f64>) -> Result<Self> {
        let fps = frame_rate(fps).map_err(invalid)?;
        Ok(FramesDraft(match ledger {
            Some(ledger) => State::Held(FramesBuilder::new(ledger, fps)),
            None => State::Gathered(GatheredFrames {
                fps,
                chunks: Vec::new(),
                size: FramesSize::default(),
            }),
        }))
    }

    /// Appends frames `[n, height, width, 3]`.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn push(&mut self, chunk: &PluginValue) -> Result<()> {
        match &mut self.0 {
            State::Held(frames) => {
                frames.push(&chunk.tensor()?).map_err(|error| error.or_code(code::INVALID))
            }
            State::Gathered(frames) => frames.push(chunk),
        }
    }

    /// The frames.
    ///
    /// # Errors
    /// When there are none.
    pub fn finish(self) -> Result<PluginValue> {
        match self.0 {
            State::Held(frames) => {
                let frames = frames.finish().map_err(|error| error.or_code(code::INVALID))?;
                Ok(PluginValue::Value(frames.into()))
            }
            State::Gathered(frames) => frames.finish(),
        }
    }
}

impl GatheredFrames {
    fn push(&mut self, chunk: &PluginValue) -> Result<()> {
        let (dtype, shape) = chunk.shape()?;
        if self.size.push(&shape).map_err(invalid)? {
            let chunk = match dtype {
                DType::F32 => chunk.clone(),
                _ => PluginValue::Value(Value::Tensor(chunk.tensor()?.to_dtype(DType::F32)?)),
            };
            self.chunks.push((Arc::from(""), chunk));
        }
        Ok(())
    }

    /// A record of type Frames.
    fn finish(self) -> Result<PluginValue> {
        let sizes = self.size.fields().map_err(invalid)?;
        let int = |size: usize| PluginValue::Value(Value::Int(size as i128));
        let mut fields = vec![(Arc::from("chunks"), PluginValue::List(self.chunks.into()))];
        let fps = self.fps.map(|fps| PluginValue::Value(Value::Real(fps)));
        fields.extend(fps.map(|fps| (Arc::from("fps"), fps)));
        fields.extend(sizes.map(|(name, size)| (Arc::from(name), int(size))));
        Ok(PluginValue::Fields("Frames".into(), fields.into()))
    }
}
