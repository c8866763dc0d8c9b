//! Frames that are given of packed clips, as a transformer is told of them.

use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor};
use kino_models::model::{DenoiserInputs, ExtraChannels, GivenInput};
use kino_models::patch::patchify;
use kino_node::{ClipFact, Error, Given, GivenEncoding, GivenFact, Result};
use kino_port::PlanError;

use crate::error::IntoNode;
use crate::infer::{may_be, reads_control, shape_text, takes_no_given};
use crate::models::DitHandle;

/// What is given of each clip, as an index among the givens: by name, or in order.
///
/// Clips that no name speaks of are free.
pub(super) fn givens_of_clips(
    givens: &[Option<&str>],
    clips: &[ClipFact],
) -> Result<Vec<Option<usize>>, PlanError> {
    some_of_clips("given", "given", givens, clips)
}

/// The item of a list port that each clip has, where it has one: by name, or in order. `noun` is
/// what they are called.
pub(super) fn some_of_clips(
    port: &str,
    noun: &str,
    givens: &[Option<&str>],
    clips: &[ClipFact],
) -> Result<Vec<Option<usize>>, PlanError> {
    if givens.is_empty() {
        return Ok(vec![None; clips.len()]);
    }
    let named = givens.iter().all(Option::is_some) && clips.iter().all(|clip| clip.name.is_some());
    if !named {
        if givens.len() == clips.len() {
            return Ok((0..clips.len()).map(Some).collect());
        }
        let message = format!("{} {noun} for {} clips", givens.len(), clips.len());
        return Err(PlanError::at(port, message)
            .hint("they go to clips in order, or by name where both are maps"));
    }
    let names: Vec<&str> = clips.iter().filter_map(|clip| clip.name.as_deref()).collect();
    if let Some(unknown) = givens.iter().flatten().find(|given| !names.contains(*given)) {
        return Err(PlanError::at(port, format!("there is no clip `{unknown}`"))
            .hint(format!("the clips are: {}", names.join(", "))));
    }
    let of = |clip: &ClipFact| givens.iter().position(|given| *given == clip.name.as_deref());
    Ok(clips.iter().map(of).collect())
}

/// Whether what is given can be given of this clip to this transformer.
pub(super) fn check_given(
    part: &DitHandle,
    clip: &ClipFact,
    patch: [usize; 3],
    given: &GivenFact,
) -> Result<(), PlanError> {
    let fits = match part.spec.inputs().given {
        GivenInput::None => return Err(takes_no_given("given")),
        GivenInput::Control => return Err(reads_control("given")),
        GivenInput::Tokens => given.encoding == GivenEncoding::Apart,
        GivenInput::Channels => given.encoding == GivenEncoding::Whole,
    };
    if !fits {
        return Err(PlanError::at("given", "this was encoded for a transformer of another kind")
            .hint("give `given` the transformer that samples"));
    }
    let shape = clip.shape(patch);
    if !may_be(given.shape, shape) {
        let [given, found] = [given.shape, shape].map(|shape| shape_text(&shape));
        let message = format!("given of a clip whose latent is {given}, found one of {found}");
        return Err(PlanError::at("given", message)
            .hint("`frames` and the size of what is given are those of the clip"));
    }
    match (&given.space, &clip.space) {
        (Some(own), Some(other)) if own.id != other.id => {
            Err(PlanError::at("given", "what is given lies in the space of another VAE")
                .hint("give `given` the VAE of the model that samples"))
        }
        _ => Ok(()),
    }
}

/// Tokens that are held to what is given, in packed clips.
pub(super) struct Held {
    /// What is given, times how strongly, `[tokens, width]`.
    given: Tensor,
    /// How free each token is, `[tokens, 1]`: 1 wholly, 0 not at all.
    free: Tensor,
    /// The same, token by token.
    free_of: Vec<f64>,
}

impl Held {
    /// The tokens of clips of these sizes with what is given of each; none where nothing is.
    ///
    /// Clips are `[c, f, h, w]`, cut into patches.
    pub(super) fn of(
        clips: &[([usize; 4], Option<Arc<Given>>)],
        patch: (usize, usize, usize),
        device: &Device,
    ) -> Result<Option<Self>> {
        if clips.iter().all(|(_, given)| given.is_none()) {
            return Ok(None);
        }
        let (mut tokens, mut free) = (Vec::new(), Vec::new());
        for (shape, given) in clips {
            let (latent, mask) = match given {
                Some(given) => (
                    given.latent.tensor.to_device(device)?.to_dtype(DType::F32)?,
                    (given.mask.tensor.to_device(device)? * given.strength)?.unsqueeze(0)?,
                ),
                None => (
                    Tensor::zeros(shape, DType::F32, device)?,
                    Tensor::zeros((1, shape[1], shape[2], shape[3]), DType::F32, device)?,
                ),
            };
            // A token is given as far as all of it is.
            let held = patchify(&mask, patch).node()?.min_keepdim(D::Minus1)?; // [tokens, 1]
            let patches = patchify(&latent, patch).node()?; // [tokens, width]
            tokens.push(patches.broadcast_mul(&held)?);
            free.push(held.affine(-1.0, 1.0)?);
        }
        let (given, free) = (Tensor::cat(&tokens, 0)?, Tensor::cat(&free, 0)?);
        let free_of = free.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?;
        Ok(Some(Held { given, free, free_of }))
    }

    /// The latents as the transformer sees them: given tokens in their place.
    ///
    /// A token that is held with strength s is s·given + (1 − s)·x. Where x is at noise level σ,
    /// that is at (1 − s)·σ: a rectified flow stays one, and the token ends as if it had begun in
    /// the middle of its way. Shapes: `x` and the result `[tokens, width]`.
    pub(super) fn place(&self, x: &Tensor) -> Result<Tensor> {
        Ok((&self.given + x.broadcast_mul(&self.free)?)?)
    }

    /// The timestep of each token where those that are free stand at `timestep`.
    pub(super) fn timesteps(&self, timestep: f64) -> Vec<f64> {
        self.free_of.iter().map(|free| free * timestep).collect()
    }
}

/// The channels that a transformer reads beside the latents' own, of packed clips: `[tokens,
/// e·pt·ph·pw]`, zero where nothing is given; none where there are none.
pub(super) fn extra_channels(
    inputs: &DenoiserInputs,
    clips: &[([usize; 4], Option<Arc<Given>>)],
    device: &Device,
) -> Result<Option<Tensor>> {
    if inputs.extra.is_empty() {
        return Ok(None);
    }
    let mut packed = Vec::with_capacity(clips.len());
    for (shape, given) in clips {
        let given = given.as_deref().filter(|_| inputs.given == GivenInput::Channels);
        let channels = inputs.extra.iter().map(|extra| channels(extra, *shape, given, device));
        let channels = channels.collect::<Result<Vec<_>>>()?;
        packed.push(patchify(&Tensor::cat(&channels, 0)?, inputs.patch).node()?);
    }
    Ok(Some(Tensor::cat(&packed, 0)?))
}

/// Some extra channels of a clip: `[e, f, h, w]`.
fn channels(
    extra: &ExtraChannels,
    [_, count, height, width]: [usize; 4],
    given: Option<&Given>,
    device: &Device,
) -> Result<Tensor> {
    let shape = (extra.channels, count, height, width);
    match (given, &*extra.name) {
        (Some(given), ExtraChannels::MASK) => {
            let frames = frame_mask(given, extra.channels, count)?;
            let mask = Tensor::from_vec(frames, (extra.channels, count, 1, 1), device)?;
            Ok(mask.broadcast_as(shape)?.contiguous()?)
        }
        (Some(given), ExtraChannels::GIVEN) => {
            Ok(given.latent.tensor.to_device(device)?.to_dtype(DType::F32)?)
        }
        _ => Ok(Tensor::zeros(shape, DType::F32, device)?),
    }
}

/// Which frames are given, `[channels, latent frames]`: channel c of a latent frame speaks of its
/// frame c, and all channels of the first one of the first frame (diffusers'
/// `pipeline_wan_i2v.py`).
fn frame_mask(given: &Given, channels: usize, latent_frames: usize) -> Result<Vec<f32>> {
    let count = |frames: Option<usize>| frames.unwrap_or(0);
    let start = count(given.start.as_ref().map(|frames| frames.count()));
    let end = count(given.end.as_ref().map(|frames| frames.count()));
    let frames = given.frames;
    if frames != latent_frames.saturating_sub(1) * channels + 1 {
        return Err(Error::failed(format!(
            "a mask of {channels} channels does not fit {frames} frames in {latent_frames} latent \
             frames"
        )));
    }
    let is_given = |frame: usize| f32::from(frame < start || frame + end >= frames);
    let frame = |channel: usize, latent: usize| match latent {
        0 => 0,
        latent => (latent - 1) * channels + 1 + channel,
    };
    let all = (0..channels).flat_map(|channel| (0..latent_frames).map(move |l| (channel, l)));
    Ok(all.map(|(channel, latent)| is_given(frame(channel, latent))).collect())
}

#[cfg(test)]
mod tests {
    use super::super::clips::named_clips;
    use super::*;

    #[test]
    fn givens_go_to_clips_by_name_else_in_order() {
        let (wide, tall) = (Some("wide"), Some("tall"));
        let check = |givens: &[Option<&str>], names: &[Option<&str>]| {
            givens_of_clips(givens, &named_clips(names)).map_err(|error| error.message)
        };
        assert_eq!(check(&[], &[wide, None]), Ok(vec![None, None]));
        assert_eq!(check(&[None], &[None]), Ok(vec![Some(0)]));
        assert_eq!(check(&[None], &[wide]), Ok(vec![Some(0)]));
        assert_eq!(check(&[tall], &[wide, tall]), Ok(vec![None, Some(0)]));
        assert_eq!(check(&[tall, wide], &[wide, tall]), Ok(vec![Some(1), Some(0)]));
        assert_eq!(check(&[None], &[wide, tall]), Err("1 given for 2 clips".to_owned()));
        assert_eq!(
            check(&[Some("other")], &[wide, tall]),
            Err("there is no clip `other`".to_owned())
        );
    }
}
