//! Where sampling begins other than at noise, and what it leaves as it is: `start`, `mask` and
//! `known` of `dit.sample`.
//!
//! A rectified flow has data at noise level σ by x(σ) = (1 − σ)·x₀ + σ·noise (arXiv:2209.03003; the
//! `scale_noise` of diffusers' flow schedulers). Video to video begins with that of its video at
//! the level of the first step that is left (SDEdit, arXiv:2108.01073; diffusers'
//! `pipeline_wan_video2video.py`). Inpainting puts that of the known part in its place at every
//! level (RePaint, arXiv:2201.09865, without its resampling; diffusers'
//! `pipeline_stable_diffusion_3_inpaint.py`). The noise is the clip's own, with which it would have
//! begun, so that the known part runs along one straight line.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use kino_models::patch::patchify;
use kino_node::{
    Clip, ClipFact, Latent, LatentFact, LatentSpace, Mask, MaskFact, Patches, PatchesFact, Result,
};
use kino_port::PlanError;

use crate::error::IntoNode;
use crate::infer::{may_be, shape_text, shown};
use crate::patches::patch_tuple;

/// Data at a noise level. Shapes: any, all alike.
pub(super) fn noised(data: &Tensor, noise: &Tensor, sigma: f64) -> Result<Tensor> {
    Ok(((data * (1.0 - sigma))? + (noise * sigma)?)?)
}

/// The steps that a start of this strength leaves out, where so many are run.
pub(super) fn skipped(run: usize, (steps, strength): (usize, f64)) -> Result<usize, PlanError> {
    let run = run.min(steps);
    if run > 0 {
        return Ok(steps - run);
    }
    let message = format!("a strength of {strength} leaves none of {steps} steps to run");
    let least = 1.0 / steps as f64;
    Err(PlanError::at("strength", message)
        .hint(format!("take more steps, or a strength of at least {least}")))
}

/// What stands against a start of these patches for noise of those.
pub(super) fn check_start(start: &PatchesFact, noise: &PatchesFact) -> Result<(), PlanError> {
    let alike = |(a, b): (&ClipFact, &ClipFact)| {
        let same = |a: &LatentSpace, b: &LatentSpace| a.id == b.id;
        let spaces = a.space.as_ref().zip(b.space.as_ref());
        may_be(a.grid, b.grid) && a.channels == b.channels && spaces.is_none_or(|(a, b)| same(a, b))
    };
    let fits = start.patch == noise.patch
        && start.clips.len() == noise.clips.len()
        && start.clips.iter().zip(&noise.clips).all(alike);
    if fits {
        return Ok(());
    }
    let sizes = |patches: &PatchesFact| {
        let size = |clip: &ClipFact| clip.grid.map(shown).join("×");
        let clips: Vec<String> = patches.clips.iter().map(size).collect();
        clips.join(", ")
    };
    let (found, expected) = (sizes(start), sizes(noise));
    let message = match found == expected {
        true => "the start is of another space or patch than the noise".to_owned(),
        false => format!(
            "the start has clips of {found} patches (time×height×width), the noise of {expected}"
        ),
    };
    Err(PlanError::at("start", message)
        .hint("encode frames of the size and number that `latent.noise` has"))
}

/// What stands against a known latent of this clip.
pub(super) fn check_known(
    known: &LatentFact,
    clip: &ClipFact,
    patch: [usize; 3],
) -> Result<(), PlanError> {
    let shape = clip.shape(patch);
    if !may_be(known.shape, shape) {
        let [own, found] = [shape, known.shape].map(|shape| shape_text(&shape));
        let message = format!("the clip's latent is {own}, what is known {found}");
        return Err(PlanError::at("known", message)
            .hint("encode frames of the size and number that `latent.noise` has"));
    }
    match (&known.space, &clip.space) {
        (Some(own), Some(other)) if own.id != other.id => {
            Err(PlanError::at("known", "what is known lies in the space of another VAE")
                .hint("encode it with the VAE of the model that samples"))
        }
        _ => Ok(()),
    }
}

/// The latent of a clip: `[c, f, h, w]`.
fn shape_of(clip: &Clip, [pt, ph, pw]: [usize; 3]) -> [usize; 4] {
    let [t, h, w] = clip.grid;
    [clip.channels, t * pt, h * ph, w * pw]
}

/// Frames and pixels that a latent frame and pixel stand for; those of an unknown space stand for
/// themselves.
fn factors(space: Option<&LatentSpace>) -> (usize, usize) {
    space.map_or((1, 1), |space| (space.temporal, space.spatial))
}

/// What stands against a mask of this clip.
pub(super) fn check_mask(
    mask: &MaskFact,
    clip: &ClipFact,
    patch: [usize; 3],
) -> Result<(), PlanError> {
    let [_, frames, height, width] = clip.shape(patch);
    let (temporal, spatial) = factors(clip.space.as_ref());
    let frames = frames.map(|frames| (frames - 1).saturating_mul(temporal) + 1);
    let size = [height, width].map(|side| side.map(|side| side.saturating_mul(spatial)));
    let [count, tall, wide] = mask.shape;
    if may_be([tall, wide], size) && (count == Some(1) || may_be([count], [frames])) {
        return Ok(());
    }
    let message = format!(
        "a mask has the size of the clip, {}×{} and 1 or {} frames, found {}×{} and {}",
        shown(size[1]),
        shown(size[0]),
        shown(frames),
        shown(wide),
        shown(tall),
        shown(count)
    );
    Err(PlanError::at("mask", message))
}

/// The part of packed clips that is known and stays.
pub(super) struct Known {
    /// What is known, without noise: `[tokens, c·pt·ph·pw]`, as all that follow.
    data: Tensor,
    /// The noise with which the clips begin.
    noise: Tensor,
    /// How free each number is: 1 wholly, 0 not at all.
    free: Tensor,
}

impl Known {
    /// The known part of each clip outside its mask, which is of the size of its frames.
    pub(super) fn new(
        patches: &Patches,
        known: &Tensor,
        masks: &[Arc<Mask>],
        device: &Device,
    ) -> Result<Self> {
        let free = patches.clips.iter().zip(masks).map(|(clip, mask)| {
            let shape = shape_of(clip, patches.patch);
            let mask = mask.tensor.to_device(device)?.to_dtype(DType::F32)?;
            let mask = of_latent(&mask, shape, factors(clip.space.as_ref()))?; // [f, h, w]
            let free = mask.unsqueeze(0)?.broadcast_as(&shape[..])?.contiguous()?;
            patchify(&free, patch_tuple(patches.patch)).node()
        });
        let free = Tensor::cat(&free.collect::<Result<Vec<_>>>()?, 0)?;
        let on_device = |tensor: &Tensor| tensor.to_device(device)?.to_dtype(DType::F32);
        Ok(Known { data: on_device(known)?, noise: on_device(&patches.tokens)?, free })
    }

    /// Latents at a noise level with the known part in its place.
    pub(super) fn put_back(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        let known = noised(&self.data, &self.noise, sigma)?;
        let held = (known * self.free.affine(-1.0, 1.0)?)?;
        Ok(((x * &self.free)? + held)?)
    }
}

/// Latents of clips as patches, on a device.
pub(super) fn packed(
    latents: &[Arc<Latent>],
    patch: [usize; 3],
    device: &Device,
) -> Result<Tensor> {
    let packed = latents.iter().map(|latent| {
        let latent = latent.tensor.to_device(device)?.to_dtype(DType::F32)?;
        patchify(&latent, patch_tuple(patch)).node()
    });
    Ok(Tensor::cat(&packed.collect::<Result<Vec<_>>>()?, 0)?)
}

/// A mask `[1 or frames, height, width]` of pixels as one of latent pixels, `[f, h, w]`: the mean
/// of the pixels and frames that each stands for. The first latent frame stands for one frame.
fn of_latent(
    mask: &Tensor,
    [_, frames, height, width]: [usize; 4],
    (temporal, spatial): (usize, usize),
) -> Result<Tensor> {
    let count = mask.dim(0)?;
    let cells = mask.contiguous()?.reshape((count * height, spatial, width, spatial))?;
    let mask = cells.mean(3)?.mean(1)?.reshape((count, height, width))?;
    if count == 1 {
        return Ok(mask.broadcast_as((frames, height, width))?.contiguous()?);
    }
    let first = mask.narrow(0, 0, 1)?;
    if frames == 1 {
        return Ok(first);
    }
    let rest = mask.narrow(0, 1, count - 1)?.contiguous()?;
    let rest = rest.reshape((frames - 1, temporal, height, width))?.mean(1)?;
    Ok(Tensor::cat(&[first, rest], 0)?)
}

#[cfg(test)]
mod tests {
    use kino_models::sampling::steps_of_strength;

    use super::*;

    #[test]
    fn the_steps_of_a_strength_are_those_of_diffusers() {
        // min(int(steps·strength), steps) of steps are run.
        for (steps, strength, run) in [
            (20, 1.0, 20),
            (20, 0.6, 12),
            (20, 0.05, 1),
            (10, 0.7, 7),
            (100, 0.29, 28), // 0.29·100 is 28.999…
            (3, 0.34, 1),
        ] {
            let found = skipped(steps_of_strength(steps, strength), (steps, strength));
            assert_eq!(found, Ok(steps - run), "{strength} of {steps}");
        }
        let error = skipped(0, (10, 0.09)).unwrap_err();
        assert_eq!(error.message, "a strength of 0.09 leaves none of 10 steps to run");
        assert_eq!(error.hint.unwrap(), "take more steps, or a strength of at least 0.1");
    }

    #[test]
    fn a_mask_of_pixels_is_averaged_over_latent_pixels_and_frames() {
        let value = |frame: usize, y: usize, x: usize| {
            // Frame 0 is free on the left, later frames wholly from frame 3 on.
            f32::from(if frame == 0 { x < 3 } else { frame >= 3 && y < 4 })
        };
        let all =
            (0..5).flat_map(|f| (0..4).flat_map(move |y| (0..6).map(move |x| value(f, y, x))));
        let mask = Tensor::from_vec(all.collect(), (5, 4, 6), &Device::Cpu).unwrap();
        let small = of_latent(&mask, [1, 2, 2, 3], (4, 2)).unwrap();
        let rows: Vec<Vec<Vec<f32>>> = small.to_vec3().unwrap();
        assert_eq!(rows[0], [[1.0, 0.5, 0.0], [1.0, 0.5, 0.0]]);
        assert_eq!(rows[1], [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]);
        let one = of_latent(&mask.narrow(0, 0, 1).unwrap(), [1, 2, 2, 3], (4, 2)).unwrap();
        let rows: Vec<Vec<Vec<f32>>> = one.to_vec3().unwrap();
        assert_eq!(rows[1], rows[0]);
    }
}
