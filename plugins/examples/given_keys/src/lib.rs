//! Pictures at any frames of a clip, as `Given`, made by a plugin.

use kino_plugin::prelude::*;

/// Gives a clip pictures at any of its frames: it leads from one to the next.
///
/// The node `given` gives a start and an end; this one takes any number of pictures, each encoded
/// by `vae.encode`, with the frame where it shows and how strongly the clip is held to it. An
/// autoencoder that is causal in time (Wan) packs the first frame alone and then four into one
/// latent frame: a picture at frame 0 is encoded as one frame, one elsewhere as five
/// (`frames.concat` of itself), whose last latent frame is the picture standing still. It needs a
/// transformer whose tokens are held one by one (Wan 2.2 TI2V, the embedded model); for
/// `dit.sample`.
///
/// Shapes: latents `[c, f, h, w]` of one size; the latent of the clip
/// `[c, 1 + (frames − 1)/4, h, w]`.
#[node(id = "given.keys", version = "1.0.0")]
pub fn given_keys(
    /// The pictures, each by `vae.encode`.
    latents: Vec<Latent>,
    /// The frame where each shows, from 0; rising.
    at: Vec<usize>,
    /// How strongly the clip is held to each: 1 is exactly, 0 not at all; 1 unless given.
    strengths: Option<Vec<f64>>,
    /// Frames of the whole clip: 4k+1.
    #[param(default = 81, range = 1..=1048576, unit = "frames")]
    frames: usize,
    /// Frames in a latent frame, but for the first.
    #[param(default = 4, range = 1..=64, unit = "frames")]
    packed: usize,
) -> Result<Given> {
    let count = latents.len();
    let strengths = strengths.unwrap_or_else(|| vec![1.0; count]);
    ensure!(at.len() == count, "{count} pictures, and places for {}", at.len());
    ensure!(strengths.len() == count, "{count} pictures, and strengths for {}", strengths.len());
    ensure!((frames - 1).is_multiple_of(packed), "a clip has {packed}k+1 frames, found {frames}");
    let length = 1 + (frames - 1) / packed;
    let Some(first) = latents.first() else { bail!("there is no picture") };
    let [c, _, h, w] = first.tensor.shape::<4>()?;
    let mut tensors: Vec<Option<Tensor>> = vec![None; length];
    let mut mask = vec![0f32; length];
    for (index, latent) in latents.iter().enumerate() {
        let (frame, strength) = (at[index], strengths[index]);
        ensure!(frame < frames, "frame {frame} of a clip of {frames}");
        ensure!((0.0..=1.0).contains(&strength), "a strength lies in 0…1, found {strength}");
        let [channels, n, height, width] = latent.tensor.shape::<4>()?;
        ensure!(
            [channels, height, width] == [c, h, w] && n > 0,
            "picture {index} is encoded as {:?}, the first as {:?}",
            latent.tensor.dims(),
            first.tensor.dims()
        );
        let place = frame.div_ceil(packed);
        ensure!(
            tensors[place].is_none(),
            "two pictures within {packed} frames: the autoencoder packs them into one"
        );
        if place > 0 && n < 2 {
            return Err(Error::new(format!("picture {index} at frame {frame} is encoded alone"))
                .hint("encode it standing still for five frames: `frames.concat` of itself"));
        }
        let last = if place == 0 { 0 } else { n - 1 };
        tensors[place] = Some(latent.tensor.slice(1, last, 1)?);
        mask[place] = strength as f32;
    }
    let free = Tensor::zeros::<f32>(&[c, 1, h, w])?;
    let parts: Vec<&Tensor> = tensors.iter().map(|part| part.as_ref().unwrap_or(&free)).collect();
    let latent = first.with(Tensor::concat(&parts, 1)?);
    let mask = Tensor::from_vec(mask, &[length, 1, 1])?.broadcast(&[length, h, w])?;
    Given::new(&latent, &Mask(mask), frames)
}

kino_plugin::plugin!(given_keys);
