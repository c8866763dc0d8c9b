//! Guiders: what joins the velocities with and without text.

use std::sync::Arc;

use candle_core::Tensor;
use kino_port::{PortType, Sigma};

use crate::stored::TensorReader;
use crate::types::{Tensors, ValueType};
use crate::{Cancel, Error, Result};

/// One step of a sampling run, as a guider sees it.
#[derive(Clone, Copy, Debug)]
pub struct SamplingStep {
    /// The step, from 0.
    pub index: usize,
    /// The number of steps of the run.
    pub count: usize,
    /// The noise level.
    pub sigma: Sigma,
}

/// Something that joins the velocities with and without text; it begins anew for each sampling run.
pub trait Guider: Send + Sync {
    /// The state for one sampling run of one clip, which `cancel` stops. A guider outlives the run
    /// that made it.
    fn begin(&self, cancel: &Cancel) -> Box<dyn GuiderState>;
}

/// A guider within one sampling run of one clip.
pub trait GuiderState: Send {
    /// Whether this step needs the velocity without text at all; skipping it halves the step.
    fn guides(&self, step: SamplingStep) -> bool;

    /// The velocity to follow. Shapes: all `[tokens, c·pt·ph·pw]` of one clip.
    ///
    /// # Errors
    /// When the shapes differ or a tensor operation fails.
    fn guide(&mut self, step: SamplingStep, with_text: &Tensor, without: &Tensor)
    -> Result<Tensor>;
}

/// A guider as a value. It lives in this process alone, so it is not kept on disk.
#[derive(Clone)]
pub struct GuiderHandle(pub Arc<dyn Guider>);

impl ValueType for GuiderHandle {
    const PORT: PortType = PortType::Guider;
    const STORABLE: bool = false;
    type Fact = ();
    type Header = ();

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn fact(&self) {}

    fn header(&self) {}

    fn tensors(&self) -> Tensors<'_> {
        Box::new(std::iter::empty())
    }

    fn restore((): (), _: &mut TensorReader<'_>) -> Result<Self> {
        Err(Error::failed("Guider cannot be stored"))
    }
}
