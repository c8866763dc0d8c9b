//! Guidance that leaves out what only burns the colours.

use kino_plugin::prelude::*;

/// The change that guidance made in the steps before, fading.
#[derive(Default)]
pub struct Apg(Option<Tensor>);

/// Adaptive projected guidance (arXiv:2410.02416).
///
/// Plain guidance follows c + (scale − 1)·d with d = c − u, where c is the velocity with the prompt
/// and u that without. Here d is first joined with the changes of earlier steps (`momentum`), made
/// no longer than `norm_threshold`, and split into the part along c, which is scaled by `eta`, and
/// the part at right angles to it, which stays: the part along c is what makes colours burn.
///
/// The paper projects predictions of clean data; a guider sees velocities, so the split is done on
/// them, as in diffusers' adaptive_projected_guidance.py. With `eta` 1, `momentum` 0 and no
/// threshold it is classifier-free guidance.
#[guider(id = "guide.apg", version = "1.0.0")]
impl Apg {
    fn guide(
        &mut self,
        _step: SamplingStep,
        with_text: Tensor,
        without_text: Tensor,
        /// How far from "without text" towards "with text" and beyond; 1 is no guidance.
        #[param(default = 6.0, range = 0.0..=100.0)]
        scale: f64,
        /// How much of the change along the velocity is kept; 1 is all.
        #[param(default = 0.0, range = -1.0..=1.0)]
        eta: f64,
        /// How much of the change of the step before is added; below 0 it is taken away.
        #[param(default = -0.5, range = -0.99..=0.99)]
        momentum: f64,
        /// The greatest length of the change (its L2 norm over all tokens); 0 is no bound.
        #[param(default = 0.0, range = 0.0..)]
        norm_threshold: f64,
        /// Where in the run guidance begins: 0 is the first step.
        #[param(name = "from", default = 0.0, range = 0.0..=1.0)]
        _from: f64,
        /// Where in the run guidance ends: 1 is after the last step.
        #[param(name = "to", default = 1.0, range = 0.0..=1.0)]
        _to: f64,
    ) -> Result<Tensor> {
        // Steps outside of `from`…`to` do not come here: the engine leaves them unguided.
        // Sums of squares may leave the halves.
        let [with_text, without_text] =
            [with_text.cast(DType::F32)?, without_text.cast(DType::F32)?];
        let mut change = with_text.sub(&without_text)?;
        if let Some(before) = &self.0 {
            change = change.add(&before.mul(momentum)?)?;
        }
        self.0 = Some(change.clone());
        if norm_threshold > 0.0 {
            let norm = dot(&change, &change)?.sqrt()?;
            change = change.mul(&norm.max(TINY)?.recip()?.mul(norm_threshold)?.min(1.0)?)?;
        }
        let share = dot(&change, &with_text)?.div(&dot(&with_text, &with_text)?.max(TINY)?)?;
        let along = with_text.mul(&share)?;
        let update = change.sub(&along.mul(1.0 - eta)?)?;
        with_text.add(&update.mul(scale - 1.0)?)
    }
}

/// Keeps divisions away from 0.
const TINY: f64 = 1e-24;

/// The inner product of two tensors.
fn dot(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.mul(b)?.sum(&[])
}

kino_plugin::plugin!(Apg);
