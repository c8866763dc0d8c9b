//! The noise that a stepper adds between the levels, for those that do.

use candle_core::{Device, Tensor};
use kino_models::noise::normal;
use kino_models::patch::patchify;
use kino_node::{Clip, Patches};

use crate::patches::patch_tuple;

/// Numbers of a seed that each step has for itself: `latent.noise` takes the first so many.
const OF_STEP: u32 = 40;

/// Fresh noise for a step, packed as `patches`: `[tokens, c·pt·ph·pw]`.
///
/// Element i of a clip's `[c, f, h, w]` is the normal number (step + 1)·2⁴⁰ + i of the seed: it
/// depends on the clip alone, not on what is packed beside it, and is none of those with which
/// `latent.noise` begins.
pub(super) fn of_step(
    patches: &Patches,
    seed: u64,
    step: usize,
    device: &Device,
) -> kino_models::Result<Tensor> {
    let first = (step as u64 + 1) << OF_STEP;
    let of_clip = |clip: &Clip| {
        let ([t, h, w], [pt, ph, pw]) = (clip.grid, patches.patch);
        let shape = (clip.channels, t * pt, h * ph, w * pw);
        let count = (shape.0 * shape.1 * shape.2 * shape.3) as u64;
        let values: Vec<f32> = (0..count).map(|index| normal(seed, first + index)).collect();
        let latent = Tensor::from_vec(values, shape, device)?; // [c, f, h, w]
        patchify(&latent, patch_tuple(patches.patch))
    };
    let clips = patches.clips.iter().map(of_clip).collect::<kino_models::Result<Vec<_>>>()?;
    Ok(Tensor::cat(&clips, 0)?)
}
