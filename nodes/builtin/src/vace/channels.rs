//! The channels of a control: two latents and a mask, with pictures before them (diffusers'
//! `prepare_video_latents` and `prepare_masks` of pipeline_wan_vace.py).

use candle_core::{DType, Device, Tensor};
use kino_models::model::ExtraChannels;
use kino_node::{Cx, Frames, Mask, Result};

use super::reference::on_white;
use crate::regroup::Regrouped;
use crate::vae::Encoding;

/// The middle of 0…1, which is 0 for an autoencoder.
const GREY: f32 = 0.5;
/// Above this, a mask says that a pixel is made anew.
const MADE: f64 = 0.5;

/// What a control is made of.
pub(super) struct Source<'a> {
    pub(super) video: Option<&'a Frames>,
    pub(super) mask: Option<&'a Mask>,
    pub(super) pictures: Vec<&'a Frames>,
}

/// How large it is.
pub(super) struct Sizes {
    /// Frames of the clip, and those that the video has.
    pub(super) frames: usize,
    pub(super) given: usize,
    /// Height and width in pixels.
    pub(super) size: [usize; 2],
    /// Latent frames of the clip.
    pub(super) latents: usize,
    /// Pixels along each side of a latent pixel.
    pub(super) spatial: usize,
}

/// All channels in their order: `[c, pictures + latent frames, h, w]`.
pub(super) fn encode(
    cx: &mut Cx<'_>,
    mut encoder: Encoding,
    order: &[ExtraChannels],
    sizes: &Sizes,
    source: &Source<'_>,
) -> Result<Tensor> {
    let (latents, pictures) = (sizes.latents, source.pictures.len());
    let passes = if source.video.is_some() { 2 } else { 1 };
    encoder.progress = (0, passes * latents + pictures);
    let inactive = encoder.encode(cx, || Regrouped::new(source.shown(sizes, false)), latents)?;
    let reactive = match source.video {
        Some(_) => encoder.encode(cx, || Regrouped::new(source.shown(sizes, true)), latents)?,
        None => inactive.clone(), // both are grey
    };
    let (_, _, h, w) = inactive.dims4()?;
    let device = inactive.device().clone();
    let mut before = Vec::with_capacity(pictures + 1);
    // Each picture is put before those that are there.
    for picture in source.pictures.iter().rev() {
        let frame = on_white(&picture.chunk(0)?.get(0)?, sizes.size, sizes.spatial)?;
        let frame = || Regrouped::new(std::iter::once(Ok(frame.clone())));
        before.push(encoder.encode(cx, frame, 1)?);
    }
    before.push(inactive);
    let inactive = Tensor::cat(&before, 1)?;
    let padded = |tensor: Tensor| Ok::<_, kino_node::Error>(tensor.pad_with_zeros(1, pictures, 0)?);
    let channels = order.iter().map(|extra| match &*extra.name {
        ExtraChannels::INACTIVE => Ok(inactive.clone()),
        ExtraChannels::REACTIVE => padded(reactive.clone()),
        ExtraChannels::PIXELS => padded(source.pixels(sizes)?.to_device(&device)?),
        _ => Ok(Tensor::zeros((extra.channels, pictures + latents, h, w), DType::F32, &device)?),
    });
    Ok(Tensor::cat(&channels.collect::<Result<Vec<_>>>()?, 0)?)
}

impl<'a> Source<'a> {
    /// The clip's frames: where it is made anew if `made`, else where it stays; grey elsewhere.
    fn shown(&self, sizes: &Sizes, made: bool) -> Box<dyn Iterator<Item = Result<Tensor>> + 'a> {
        let ([height, width], frames) = (sizes.size, sizes.frames);
        let grey = move || Ok(Tensor::full(GREY, (1, height, width, 3), &Device::Cpu)?);
        let grey = move |count: usize| (0..count).map(move |_| grey());
        let rest = frames - sizes.given;
        match (self.video, self.mask) {
            (None, _) => Box::new(grey(frames)),
            (Some(_), None) if !made => Box::new(grey(frames)),
            (Some(video), None) => Box::new(video.chunks().chain(grey(rest))),
            (Some(video), Some(mask)) => {
                let mut at = 0;
                let shown = move |chunk: Result<Tensor>| {
                    let chunk = chunk?;
                    let count = chunk.dim(0)?;
                    at += count;
                    hidden_grey(&chunk, &of_frames(mask, at - count, count)?, made)
                };
                Box::new(video.chunks().map(shown).chain(grey(rest)))
            }
        }
    }

    /// The mask, a channel for each pixel of a latent pixel: `[s·s, latent frames, h, w]`. A latent
    /// frame has the mask of the frame in the middle of its equal share of the clip (`nearest-exact`
    /// of torch's `interpolate`).
    fn pixels(&self, sizes: &Sizes) -> Result<Tensor> {
        let ([height, width], s) = (sizes.size, sizes.spatial);
        let (h, w) = (height / s, width / s);
        let made = Tensor::ones((s * s, 1, h, w), DType::F32, &Device::Cpu)?;
        let of_latent = |latent: usize| {
            let frame = (2 * latent + 1) * sizes.frames / (2 * sizes.latents);
            let Some(mask) = self.mask.filter(|_| frame < sizes.given) else {
                return Ok(made.clone());
            };
            let mask = of_frames(mask, frame, 1)?.to_dtype(DType::F32)?; // [1, H, W]
            let cells = mask.reshape((h, s, w, s))?.permute((1, 3, 0, 2))?; // [s, s, h, w]
            Ok(cells.contiguous()?.reshape((s * s, 1, h, w))?)
        };
        let all = (0..sizes.latents).map(of_latent).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&all, 1)?)
    }
}

/// The mask of some frames, `[count, h, w]` in main memory; one frame may stand for all.
fn of_frames(mask: &Mask, from: usize, count: usize) -> Result<Tensor> {
    let mask = mask.tensor.to_device(&Device::Cpu)?;
    Ok(match mask.dim(0)? {
        1 => mask.repeat((count, 1, 1))?,
        _ => mask.narrow(0, from, count)?.contiguous()?,
    })
}

/// Frames with grey where the mask hides them. Shapes: `[n, h, w, 3]` and `[n, h, w]`.
fn hidden_grey(frames: &Tensor, mask: &Tensor, made: bool) -> Result<Tensor> {
    let frames = frames.to_device(&Device::Cpu)?;
    let shown = if made { mask.gt(MADE)? } else { mask.le(MADE)? };
    let shown = shown.unsqueeze(3)?.broadcast_as(frames.shape())?.contiguous()?;
    let grey = Tensor::full(GREY, frames.shape(), &Device::Cpu)?;
    Ok(shown.where_cond(&frames, &grey)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_becomes_a_channel_a_pixel_at_the_middle_of_each_share() {
        // Frame f, row y, column x is its own number.
        let values: Vec<f32> = (0..5 * 4 * 6).map(|index| index as f32 / 120.0).collect();
        let mask = Mask { tensor: Tensor::from_vec(values, (5, 4, 6), &Device::Cpu).unwrap() };
        let sizes = Sizes { frames: 9, given: 5, size: [4, 6], latents: 3, spatial: 2 };
        let source = Source { video: None, mask: Some(&mask), pictures: Vec::new() };
        let pixels = source.pixels(&sizes).unwrap();
        assert_eq!(pixels.dims(), [4, 3, 2, 3]);
        // Latent frames stand for frames 1, 4 and 7, and the last is past the video.
        for (latent, frame) in [(0, Some(1)), (1, Some(4)), (2, None)] {
            for (dy, dx) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let channel = pixels.get(dy * 2 + dx).unwrap().get(latent).unwrap();
                for (y, row) in channel.to_vec2::<f32>().unwrap().into_iter().enumerate() {
                    for (x, found) in row.into_iter().enumerate() {
                        let index = |frame: usize| (frame * 4 + y * 2 + dy) * 6 + x * 2 + dx;
                        let expected = frame.map_or(1.0, |frame| index(frame) as f32 / 120.0);
                        assert_eq!(found, expected, "{latent} {dy} {dx} {y} {x}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_stays_and_what_is_made_are_grey_in_each_others_place() {
        let frames = Tensor::full(0.25f32, (1, 1, 3, 3), &Device::Cpu).unwrap();
        let mask = Tensor::new(&[[[0.5f32, 0.51, 1.0]]], &Device::Cpu).unwrap();
        let shown = |made| {
            let shown = hidden_grey(&frames, &mask, made).unwrap();
            shown.narrow(3, 0, 1).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert_eq!(shown(false), [0.25, 0.5, 0.5]);
        assert_eq!(shown(true), [0.5, 0.25, 0.25]);
    }
}
