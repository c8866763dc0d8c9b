//! Where a sampling run stands.

/// The step of a sampling run in which a guider is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingStep {
    /// The step, from 0.
    pub index: usize,
    /// The number of steps.
    pub count: usize,
    /// The noise level: 1 is noise, 0 is data.
    pub sigma: f64,
}

/// What [`SamplingStep`] was called, with its fields' names of then. Guiders that take it are built
/// as before.
#[deprecated(note = "it is called `SamplingStep { index, count, sigma }`")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// The step, from 0.
    pub step: usize,
    /// The number of steps.
    pub of: usize,
    /// The noise level: 1 is noise, 0 is data.
    pub sigma: f64,
}

#[allow(deprecated)]
impl From<SamplingStep> for Moment {
    fn from(now: SamplingStep) -> Self {
        Moment { step: now.index, of: now.count, sigma: now.sigma }
    }
}

#[allow(deprecated)]
impl From<Moment> for SamplingStep {
    fn from(now: Moment) -> Self {
        SamplingStep { index: now.step, count: now.of, sigma: now.sigma }
    }
}
