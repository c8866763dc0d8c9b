//! What packed clips follow beside their texts, as a transformer reads it.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use kino_models::model::{DenoiserInputs, GivenInput};
use kino_models::patch::patchify;
use kino_node::{
    Clip, ClipFact, Control, ControlFact, Inputs, Patches, PatchesFact, Result, ValueType,
};
use kino_port::{Facts, PlanError};

use super::given::some_of_clips;
use crate::error::IntoNode;
use crate::infer::{InferCx, may_be, named_facts, refuse, shown, takes_no_control};
use crate::models::DitHandle;

/// The control of each clip, as an index among the controls.
fn controls_of_clips(
    controls: &[Option<&str>],
    clips: &[ClipFact],
) -> Result<Vec<Option<usize>>, PlanError> {
    let noun = if controls.len() == 1 { "control" } else { "controls" };
    some_of_clips("control", noun, controls, clips)
}

/// Whether this transformer can read this control of this clip.
fn check_control(
    part: &DitHandle,
    clip: &ClipFact,
    patch: [usize; 3],
    control: &ControlFact,
) -> Result<(), PlanError> {
    let inputs = part.spec.inputs();
    if inputs.given != GivenInput::Control {
        return Err(takes_no_control("control"));
    }
    let wrong = |message: String| PlanError::at("control", message);
    let [channels, frames, height, width] = control.shape;
    let own: usize = inputs.extra.iter().map(|extra| extra.channels).sum();
    if let Some(channels) = channels.filter(|channels| *channels != own) {
        return Err(wrong(format!("this transformer reads {own} channels, found {channels}"))
            .hint("give `vace` the transformer that samples"));
    }
    let [pt, ..] = patch;
    let [_, t, h, w] = clip.shape(patch);
    if !may_be([frames, height, width], [t, h, w]) {
        let pictures = control.references;
        let text = |sizes: [Option<usize>; 3]| sizes.map(shown).join("×");
        let message = format!(
            "a control of {} latent pixels ({pictures} of the frames are pictures), noise of {}",
            text([frames, height, width]),
            text([t, h, w])
        );
        return Err(wrong(message).hint(
            "`latent.noise` takes its `frames` from the output `frames` of `vace`, and the size of \
             the clip",
        ));
    }
    if !control.references.is_multiple_of(pt) {
        return Err(wrong(format!(
            "{} pictures before a clip are no whole number of patches of {pt} latent frames",
            control.references
        )));
    }
    match (&control.space, &clip.space) {
        (Some(own), Some(other)) if own.id != other.id => {
            Err(wrong("this control was made with another VAE".to_owned())
                .hint("give `vace` the VAE of the model that samples"))
        }
        _ => Ok(()),
    }
}

/// Holds controls against their clips; gives the clips that come out, without the pictures before
/// them, where they are known.
pub(super) fn infer_control(
    review: &mut InferCx<'_>,
    facts: &Facts,
    part: Option<&DitHandle>,
    patches: &PatchesFact,
) -> Option<PatchesFact> {
    let controls = named_facts(facts, "control");
    let names: Vec<Option<&str>> = controls.iter().map(|(name, _)| name.as_deref()).collect();
    let of_clips = review.take(controls_of_clips(&names, &patches.clips))?;
    let mut pictures = Vec::with_capacity(of_clips.len());
    let mut all_known = true;
    for (clip, of) in patches.clips.iter().zip(of_clips) {
        let Some(of) = of else {
            pictures.push(0);
            continue;
        };
        let Some(control) = controls[of].1.get::<ControlFact>() else {
            all_known = false;
            continue;
        };
        pictures.push(control.references);
        if let Some(part) = part {
            all_known &= review.take(check_control(part, clip, patches.patch, control)).is_some();
        }
    }
    all_known.then(|| {
        let patch = patches.patch;
        let shorter = |(clip, pictures): (&ClipFact, &usize)| {
            let [t, h, w] = clip.grid;
            let grid = [t.map(|t| without(t, *pictures, patch)), h, w];
            ClipFact { grid, ..clip.clone() }
        };
        let clips = patches.clips.iter().zip(&pictures).map(shorter).collect();
        PatchesFact { clips, patch }
    })
}

/// The control of each clip, and the latent frames before it that stand for pictures.
pub(super) fn controls(
    part: &DitHandle,
    inputs: &Inputs<'_>,
    patches: &Patches,
) -> Result<Vec<Option<Arc<Control>>>> {
    let controls = inputs.list::<Control>("control")?;
    let names: Vec<Option<&str>> = controls.iter().map(|(name, _)| name.as_deref()).collect();
    let known = patches.fact();
    let of_clips = controls_of_clips(&names, &known.clips).map_err(refuse)?;
    let of_clip = |(clip, of): (&ClipFact, Option<usize>)| {
        let Some(control) = of.map(|of| &controls[of].1) else { return Ok(None) };
        check_control(part, clip, patches.patch, &control.fact()).map_err(refuse)?;
        Ok(Some(Arc::clone(control)))
    };
    known.clips.iter().zip(of_clips).map(of_clip).collect()
}

/// How strongly each clip follows its control: not at all where it has none.
pub(super) fn strengths(controls: &[Option<Arc<Control>>]) -> Vec<f64> {
    controls
        .iter()
        .map(|control| control.as_ref().map_or(0.0, |control| control.strength))
        .collect()
}

/// The channels of the controls of packed clips: `[tokens, e·pt·ph·pw]`, zero where there is none;
/// none where no clip has one.
///
/// `shapes` are those of the clips' latents, `[c, f, h, w]`.
pub(super) fn control_channels(
    inputs: &DenoiserInputs,
    shapes: &[[usize; 4]],
    controls: &[Option<Arc<Control>>],
    device: &Device,
) -> Result<Option<Tensor>> {
    if controls.iter().all(Option::is_none) {
        return Ok(None);
    }
    let packed = shapes.iter().zip(controls).map(|([_, f, h, w], control)| match control {
        Some(control) => {
            let tensor = control.tensor.to_device(device)?.to_dtype(DType::F32)?;
            patchify(&tensor, inputs.patch).node()
        }
        None => {
            let (pt, ph, pw) = inputs.patch;
            let tokens = (f / pt) * (h / ph) * (w / pw);
            Ok(Tensor::zeros((tokens, inputs.extra_width()), DType::F32, device)?)
        }
    });
    Ok(Some(Tensor::cat(&packed.collect::<Result<Vec<_>>>()?, 0)?))
}

/// The patches of a clip along time without those of the latent frames before it that stand for
/// pictures.
fn without(t: usize, pictures: usize, patch: [usize; 3]) -> usize {
    t.saturating_sub(pictures / patch[0].max(1))
}

/// The clips without the latent frames before them that stand for pictures, of which each has so
/// many.
fn clips_without(clips: &[Clip], pictures: &[usize], patch: [usize; 3]) -> Vec<Clip> {
    let shorter = |(clip, pictures): (&Clip, &usize)| {
        let [t, h, w] = clip.grid;
        Clip { grid: [without(t, *pictures, patch), h, w], ..clip.clone() }
    };
    clips.iter().zip(pictures).map(shorter).collect()
}

/// Packed clips without the latent frames before them that stand for pictures: the tokens and the
/// clips that are left.
pub(super) fn without_pictures(
    tokens: &Tensor,
    patches: &Patches,
    controls: &[Option<Arc<Control>>],
) -> Result<(Tensor, Vec<Clip>)> {
    let of = |control: &Option<Arc<Control>>| control.as_ref().map_or(0, |own| own.references);
    let pictures: Vec<usize> = controls.iter().map(of).collect();
    if pictures.iter().all(|count| *count == 0) {
        return Ok((tokens.clone(), patches.clips.clone()));
    }
    let clips = clips_without(&patches.clips, &pictures, patches.patch);
    let (mut kept, mut at) = (Vec::with_capacity(clips.len()), 0);
    for (all, left) in patches.clips.iter().zip(&clips) {
        let dropped = all.tokens() - left.tokens();
        kept.push(tokens.narrow(0, at + dropped, left.tokens())?);
        at += all.tokens();
    }
    Ok((Tensor::cat(&kept, 0)?, clips))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_before_clips_are_taken_away() {
        let clip = |t: usize| Clip { name: None, grid: [t, 1, 2], channels: 1, space: None };
        let tokens = Tensor::arange(0f32, 14.0, &Device::Cpu).unwrap().reshape((14, 1)).unwrap();
        let patches =
            Patches { tokens: tokens.clone(), clips: vec![clip(3), clip(4)], patch: [1, 1, 1] };
        let control = |references| {
            let tensor = Tensor::zeros((1, 9, 1, 2), DType::F32, &Device::Cpu).unwrap();
            Some(Arc::new(Control { tensor, references, strength: 1.0, space: None }))
        };
        let (left, clips) = without_pictures(&tokens, &patches, &[control(2), control(1)]).unwrap();
        let left: Vec<f32> = left.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(left, [4.0, 5.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0]);
        assert_eq!(clips.iter().map(|clip| clip.grid[0]).collect::<Vec<_>>(), [1, 3]);
        let (all, clips) = without_pictures(&tokens, &patches, &[None, control(0)]).unwrap();
        assert_eq!((all.dims(), clips.len()), (tokens.dims(), 2));
    }

    #[test]
    fn a_clip_without_a_control_does_not_follow() {
        let tensor = Tensor::zeros((1, 1, 1, 1), DType::F32, &Device::Cpu).unwrap();
        let control = Control { tensor, references: 0, strength: 0.4, space: None };
        assert_eq!(strengths(&[None, Some(Arc::new(control))]), [0.0, 0.4]);
    }
}
