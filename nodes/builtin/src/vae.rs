//! `vae.encode` and `vae.decode`: frames to latents and back, chunk by chunk.

use std::borrow::Cow;

use candle_core::Tensor;
use kino_models::tile::Tile;
use kino_node::{
    Cx, Error, Frames, FramesBuilder, FramesFact, Inputs, Latent, LatentFact, LatentSpace, NodeDef,
    Outputs, Result, Services, Value,
};
use kino_port::{
    Fact, Facts, NodeTraits, PlanError, Port, PortType, Signature, StepInfo, edge, int, ports,
};

use crate::error::{IntoNode, check_cancel};
use crate::infer::{InferCx, InferResult, f32_bytes, near, refuse};
use crate::latent::{LONGEST_SIDE, check_frames};
use crate::models::{Models, Network, VaeHandle};

/// Frames to a latent.
pub(crate) static ENCODE: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("vae.encode"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(ENCODE_ABOUT),
        inputs: ports![
            edge("vae", PortType::Vae).about("The autoencoder of a model."),
            edge("frames", PortType::Frames).about("The frames: 1 for an image, else 4k+1."),
            tile(),
        ],
        outputs: ports![
            edge("latent", PortType::Latent)
                .about("The mode of the distribution, normalised: `[c, f, h, w]`.")
        ],
        traits: NodeTraits::EXPENSIVE,
    },
    infer: infer_encode,
    run: encode,
};

const ENCODE_ABOUT: &str = "Encodes frames to a latent: the mode of the distribution, normalised \
with the constants of the model's config (diffusers' autoencoder_kl_wan.py). Shapes: frames `[f, \
H, W, 3]` to `[c, (f − 1)/4 + 1, H/8, W/8]`. Sides must be multiples of 8, and there must be 4k+1 \
frames.\n\n\
The first frame is encoded alone, then chunks of four, so that memory depends on the size of a \
frame and not on the length of the clip. Tiles bound the activations of a chunk; what is kept \
between chunks grows by their overlap.\n\n\
Example:\n    \"latent\": (op: \"vae.encode\", in: {\"vae\": \"model.vae\", \"frames\": \
\"picture\"}),";

/// A latent to frames.
pub(crate) static DECODE: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("vae.decode"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(DECODE_ABOUT),
        inputs: ports![
            edge("vae", PortType::Vae).about("The autoencoder in whose space the latent lies."),
            edge("latent", PortType::Latent).about("A normalised latent `[c, f, h, w]`."),
            tile(),
        ],
        outputs: ports![
            edge("frames", PortType::Frames)
                .about("The frames, `[4·(f − 1) + 1, 8·h, 8·w, 3]` in 0…1.")
        ],
        traits: NodeTraits::EXPENSIVE,
    },
    infer: infer_decode,
    run: decode,
};

const DECODE_ABOUT: &str = "Decodes a latent to frames, one latent frame at a time (diffusers' \
autoencoder_kl_wan.py). Shapes: `[c, f, h, w]` to `[4·(f − 1) + 1, 8·h, 8·w, 3]`, in 0…1; what \
the network gives outside is cut off. The frames have no rate: whoever writes them gives one.\n\n\
Memory depends on the size of a frame, not on the length of the clip. Tiles bound the activations \
of a chunk; what is kept between chunks grows by their overlap. Decoding a clip costs more than a \
step of a small transformer.\n\n\
Example:\n    \"frames\": (op: \"vae.decode\", in: {\"vae\": \"model.vae\", \"latent\": \
\"latent\"}),";

const fn tile() -> Port {
    int("tile", 0).between(0, LONGEST_SIDE).unit("px").about(
        "Side of the tiles that frames are cut into, blended over a quarter; 0 for none. 256 is \
         usual.",
    )
}

/// The tiles that a node asks for.
fn tiles(part: &VaeHandle, side: usize) -> Option<Tile> {
    (side > 0).then(|| Tile::square(side, part.latents().spatial))
}

fn check_side(part: &VaeHandle, axis: &str, side: usize) -> Result<usize, PlanError> {
    let factor = part.latents().spatial;
    if side > 0 && side.is_multiple_of(factor) {
        return Ok(side / factor);
    }
    let near = near(side, 0, factor);
    let message =
        format!("{axis} must be a multiple of {factor} for this VAE, found {side}; {near}");
    Err(PlanError::at("frames", message).hint("a `frames.resize` node brings frames to a size"))
}

fn infer_encode(_: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let part = review.part::<VaeHandle>("vae");
    let (Some(part), Some(frames)) = (part, review.known::<Frames>("frames")) else {
        return review.finish(StepInfo::default());
    };
    let height = review.take(check_side(&part, "height", frames.height));
    let width = review.take(check_side(&part, "width", frames.width));
    let count = frames.count.map(|count| check_frames(&part, "frames", count));
    let count = count.and_then(|count| review.take(count));
    let tile = tiles(&part, review.size("tile").unwrap_or(0));
    let weights = part.weight_bytes(Network::Encoder);
    let pass =
        part.spec.encode_memory(frames.count.unwrap_or(2), [frames.height, frames.width], tile);
    let mut infer = StepInfo {
        memory: weights.saturating_add(pass),
        weights: part.planned(Network::Encoder, weights),
        ..StepInfo::default()
    };
    if let (Some(height), Some(width), Some(count)) = (height, width, count) {
        let shape = [part.latents().channels, count, height, width];
        infer.memory = infer.memory.saturating_add(f32_bytes(&shape));
        infer.outputs = vec![Fact::typed(LatentFact { shape, space: Some(part.space()) })];
    }
    review.finish(infer)
}

/// Refuses latents of another space than this autoencoder's; of unknown ones, other channels.
fn check_latent(
    part: &VaeHandle,
    channels: usize,
    space: Option<&LatentSpace>,
) -> Result<(), PlanError> {
    let own = part.space();
    let message = match space {
        _ if channels != own.channels => {
            format!("this VAE has latents of {} channels, found {channels}", own.channels)
        }
        Some(other) if (other.spatial, other.temporal) != (own.spatial, own.temporal) => format!(
            "the latent stands for {}×{}×{} pixels in time and space, this VAE's for {}×{}×{}",
            other.temporal, other.spatial, other.spatial, own.temporal, own.spatial, own.spatial
        ),
        Some(other) if other.id != own.id => {
            "the latent lies in the space of another VAE, of the same sizes but with other weights \
             or another config"
                .to_owned()
        }
        _ => return Ok(()),
    };
    Err(PlanError::at("latent", message)
        .hint("decode with the VAE of the model that the latent was made for"))
}

fn infer_decode(_: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let part = review.part::<VaeHandle>("vae");
    let (Some(part), Some(latent)) = (part, review.known::<Latent>("latent")) else {
        return review.finish(StepInfo::default());
    };
    let [channels, count, height, width] = latent.shape;
    review.take(check_latent(&part, channels, latent.space.as_ref()));
    let factor = part.latents().spatial;
    let (height, width) = (height.saturating_mul(factor), width.saturating_mul(factor));
    let frame_count = part.latents().frames(count);
    let tile = tiles(&part, review.size("tile").unwrap_or(0));
    let weights = part.weight_bytes(Network::Decoder);
    let pass = part.spec.decode_memory(frame_count, [height, width], tile);
    let frames = f32_bytes(&[frame_count, height, width, 3]);
    let fact = FramesFact { count: Some(frame_count), height, width, fps: None };
    review.finish(StepInfo {
        outputs: vec![Fact::typed(fact)],
        memory: weights.saturating_add(pass).saturating_add(frames),
        weights: part.planned(Network::Decoder, weights),
        spillable: frames,
        ..StepInfo::default()
    })
}

fn decode(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let part = inputs.part::<VaeHandle>("vae")?;
    let latent = inputs.value::<Latent>("latent")?;
    let (channels, count, _, _) = latent.tensor.dims4()?;
    check_latent(&part, channels, latent.space.as_ref()).map_err(refuse)?;
    cx.check_cancel()?;
    let vae = cx.services.get::<Models>()?.decoder(&part)?;
    let mut decoder = vae.open(tiles(&part, inputs.int("tile")?)).node()?;
    let mut frames = FramesBuilder::new(&cx.services.ledger, None);
    cx.progress(0, count);
    for index in 0..count {
        cx.check_cancel()?;
        let frame = latent.tensor.narrow(1, index, 1)?.squeeze(1)?; // [c, h, w]
        let chunk = decoder.push(&frame, &mut check_cancel(cx.cancel)).node()?; // [t, H, W, 3]
        if !crate::sample::is_finite(&chunk)? {
            return Err(Error::advised(
                "decoding left the range of numbers: frames hold values that are infinite or none",
                "the latent given is not finite, or the weights of the VAE are damaged",
            ));
        }
        frames.push(&chunk.affine(0.5, 0.5)?)?; // −1…1 to 0…1
        cx.progress(index + 1, count);
    }
    Ok(vec![Some(Value::from(frames.finish()?))])
}

fn encode(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let part = inputs.part::<VaeHandle>("vae")?;
    let frames = inputs.value::<Frames>("frames")?;
    check_side(&part, "height", frames.height()).map_err(refuse)?;
    check_side(&part, "width", frames.width()).map_err(refuse)?;
    let count = check_frames(&part, "frames", frames.count()).map_err(refuse)?;
    cx.check_cancel()?;
    let vae = cx.services.get::<Models>()?.encoder(&part)?;
    let mut encoder = vae.open(tiles(&part, inputs.int("tile")?)).node()?;
    let mut source = Regrouped::new(&frames);
    let mut latents = Vec::with_capacity(count);
    cx.progress(0, count);
    for index in 0..count {
        cx.check_cancel()?;
        let chunk = source.take(encoder.next_frames())?; // [t, H, W, 3]
        let chunk = chunk.affine(2.0, -1.0)?; // 0…1 to −1…1
        latents.push(encoder.push(&chunk, &mut check_cancel(cx.cancel)).node()?); // [c, 1, h, w]
        cx.progress(index + 1, count);
    }
    let tensor = Tensor::cat(&latents, 1)?; // [c, f, h, w]
    Ok(vec![Some(Value::from(Latent { tensor, space: Some(part.space()) }))])
}

/// Frames in groups of another length than they are held in, without holding them all.
struct Regrouped<'a> {
    chunks: Box<dyn Iterator<Item = Result<Tensor>> + 'a>,
    rest: Option<Tensor>,
}

impl<'a> Regrouped<'a> {
    fn new(frames: &'a Frames) -> Self {
        Regrouped { chunks: Box::new(frames.chunks()), rest: None }
    }

    /// The next `count` frames, fewer at the end: `[count, h, w, 3]`.
    fn take(&mut self, count: usize) -> Result<Tensor> {
        let mut parts = Vec::new();
        let mut missing = count;
        while missing > 0 {
            let Some(chunk) = self.rest.take().map(Ok).or_else(|| self.chunks.next()) else {
                break;
            };
            let chunk = chunk?;
            let length = chunk.dim(0)?;
            let taken = length.min(missing);
            parts.push(chunk.narrow(0, 0, taken)?);
            self.rest = match length - taken {
                0 => None,
                left => Some(chunk.narrow(0, taken, left)?),
            };
            missing -= taken;
        }
        Ok(Tensor::cat(&parts, 0)?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use kino_node::Ledger;

    use super::*;

    #[test]
    fn frames_are_regrouped_without_loss() {
        let ledger = Ledger::new(u64::MAX);
        for held in [&[13usize][..], &[1, 4, 4, 4], &[3, 3, 3, 3, 1], &[1; 13]] {
            let mut builder = FramesBuilder::new(&ledger, None);
            let mut start = 0.0;
            for n in held {
                let values = (*n * 6) as f32;
                let chunk = Tensor::arange(start, start + values, &Device::Cpu).unwrap();
                builder.push(&chunk.reshape((*n, 1, 2, 3)).unwrap()).unwrap();
                start += values;
            }
            let frames = builder.finish().unwrap();
            let mut source = Regrouped::new(&frames);
            let groups: Vec<Tensor> =
                [1, 4, 4, 4].iter().map(|n| source.take(*n).unwrap()).collect();
            assert_eq!(groups.iter().map(|g| g.dims()[0]).collect::<Vec<_>>(), [1, 4, 4, 4]);
            let values: Vec<f32> =
                Tensor::cat(&groups, 0).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            assert!(values.iter().enumerate().all(|(i, v)| *v == i as f32), "{held:?}");
        }
    }
}
