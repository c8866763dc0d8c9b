//! `vae.encode` and `vae.decode`: frames to latents and back, chunk by chunk.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use candle_core::Tensor;
use kino_models::model::{DecodeNoise, FrameEncoder, WholeDecode};
use kino_models::tile::{Grid, Tile, TileJoin};
use kino_node::{
    Cx, Error, FrameRate, Frames, FramesBuilder, FramesFact, Given, GivenFact, Inputs, Latent,
    LatentFact, LatentSpace, NodeDef, Outputs, Result, Services, Value, ValueType,
};
use kino_port::{
    Fact, Facts, NodeTraits, PlanError, Port, PortType, Signature, StepInfo, edge, int, optional,
    ports, real,
};

use crate::error::{IntoNode, check_cancel};
use crate::infer::{InferCx, InferResult, f32_bytes_of, may_be, near, refuse, shape_text};
use crate::latent::{LONGEST_SIDE, check_frames};
use crate::models::{Models, Network, VaeHandle};
use crate::regroup::Regrouped;

/// Frames to a latent.
pub(crate) static ENCODE: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("vae.encode"),
        version: Cow::Borrowed("2"),
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
frame and not on the length of the clip. Tiles are encoded one after another, each through the \
whole clip: memory is then that of one tile, and neighbours are computed twice where they \
overlap.\n\n\
Example:\n    \"latent\": (op: \"vae.encode\", in: {\"vae\": \"model.vae\", \"frames\": \
\"picture\"}),";

/// A latent to frames.
pub(crate) static DECODE: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("vae.decode"),
        version: Cow::Borrowed("2"),
        about: Cow::Borrowed(DECODE_ABOUT),
        inputs: ports![
            edge("vae", PortType::Vae).about("The autoencoder in whose space the latent lies."),
            edge("latent", PortType::Latent).about("A normalised latent `[c, f, h, w]`."),
            tile(),
            optional("given", PortType::Given)
                .about("What of the clip was given: these frames are put back as they were."),
            real("timestep", 0.05).within(0.0, 1.0).or_none().about(
                "The noise level at which a decoder decodes that is told one (LTX-Video 0.9.1 and \
                 later: 0.05 if not given)."
            ),
            real("noise", 0.025).within(0.0, 1.0).or_none().about(
                "How much of the latent is replaced by noise before, for the same decoders (0.025 if \
                 not given)."
            ),
            int("seed", 0)
                .between(0, u64::MAX as i128)
                .draws()
                .about("Which noise; decoders that take none have no use for it."),
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
Memory depends on the size of a frame, not on the length of the clip. Tiles, which large frames are \
cut into unless `tile` says otherwise, are decoded one after another, each through the whole clip: \
memory is then that of one tile and of the clip's frames, a third or less at 480×832, and neighbours \
are computed twice where they overlap. Decoding a clip \
costs more than a step of a small transformer.\n\n\
An autoencoder loses detail. Frames that were given to `dit.sample` come out exactly as they were \
where `given` is fed here, too; those of a strength below 1 stay as they were decoded, since they \
were made to change.\n\n\
Example:\n    \"frames\": (op: \"vae.decode\", in: {\"vae\": \"model.vae\", \"latent\": \
\"latent\"}),";

pub(crate) const fn tile() -> Port {
    int("tile", 0).between(0, LONGEST_SIDE).unit("px").about(
        "Side of the tiles that frames are cut into, blended over a quarter. 0 takes the frames \
         whole where that needs at most 2 GiB beside weights and frames, else tiles of 256; a side as \
         long as the frames' takes them whole in any case.",
    )
}

/// What a pass over whole frames may need where nobody says anything of tiles, and the tiles that
/// are taken beyond. A fixed bound, not what is free: the same graph gives the same bytes.
const WHOLE: u64 = 2 << 30;
const AUTOMATIC: usize = 256;

/// The least side of a tile, in pixels of a latent: smaller ones overlap by less than one of them,
/// and what is decoded changes from tile to tile.
const LEAST_TILE: usize = 4;

/// The tiles that a node asks for; where it leaves that open, by what the network needs for so many
/// frames of `[height, width]` pixels.
///
/// # Errors
/// When their edges would be seen.
pub(crate) fn tiles(
    part: &VaeHandle,
    side: usize,
    network: Network,
    (frames, size): (usize, [usize; 2]),
) -> Result<Option<Tile>, PlanError> {
    check_tile(part, side)?;
    let side = match side {
        0 => {
            let whole = match network {
                Network::Encoder => part.spec.encode_memory((frames, size), None, part.dtype),
                Network::Decoder | Network::Whole => {
                    part.spec.decode_memory((frames, size), None, part.dtype)
                }
            };
            if whole <= WHOLE {
                return Ok(None);
            }
            AUTOMATIC
        }
        side => side,
    };
    Ok(Some(Tile::square(side, part.latents().spatial)))
}

/// Whether tiles of this side can be had of frames of any size; 0 leaves them open.
fn check_tile(part: &VaeHandle, side: usize) -> Result<(), PlanError> {
    let least = LEAST_TILE * part.latents().spatial;
    if side == 0 || side >= least {
        return Ok(());
    }
    let message = format!("tiles of {side} pixels are too small: their edges would be seen");
    Err(PlanError::at("tile", message).hint(format!(
        "the least is {least}, {AUTOMATIC} is usual; 0 takes frames whole where memory allows it"
    )))
}

/// The tiles that a plan takes, and what a pass over so many frames of `[height, width]` pixels
/// needs; of frames whose size is not known, only the tiles are checked.
pub(crate) fn infer_pass(
    review: &mut InferCx<'_>,
    part: &VaeHandle,
    network: Network,
    clip: Option<(usize, [usize; 2])>,
) -> Option<(Option<Tile>, u64)> {
    let side = review.size("tile");
    let Some((frames, size)) = clip else {
        review.take(check_tile(part, side.unwrap_or(0)));
        return None;
    };
    let tile = review.take(tiles(part, side.unwrap_or(0), network, (frames, size))).flatten();
    let pass = match network {
        Network::Encoder => part.spec.encode_memory((frames, size), tile, part.dtype),
        Network::Decoder | Network::Whole => {
            part.spec.decode_memory((frames, size), tile, part.dtype)
        }
    };
    Some((tile, pass))
}

/// What a step takes that encodes a clip of this size into channels of this shape, which lie in
/// memory three times while they are put together; `outputs` are what it gives.
pub(crate) fn infer_channels(
    review: &mut InferCx<'_>,
    part: &VaeHandle,
    clip: Option<(usize, [usize; 2])>,
    shape: &[Option<usize>],
    outputs: Vec<Fact>,
) -> StepInfo {
    let info = StepInfo { outputs, ..StepInfo::default() };
    let Some((_, pass)) = infer_pass(review, part, Network::Encoder, clip) else { return info };
    let weights = part.weight_bytes(Network::Encoder);
    let latents = f32_bytes_of(shape).saturating_mul(3);
    let memory = weights.saturating_add(pass).saturating_add(latents);
    StepInfo { memory, weights: part.planned(Network::Encoder, weights), ..info }
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
    let part = review.vae(Network::Encoder);
    let frames = review.partly::<Frames>("frames");
    let Some(part) = part else { return review.finish(StepInfo::default()) };
    let mut side = |axis: &str, side: Option<usize>| {
        side.and_then(|side| review.take(check_side(&part, axis, side)))
    };
    let (height, width) = (side("height", frames.height), side("width", frames.width));
    let count = frames.count.map(|count| check_frames(&part, "frames", count));
    let count = count.and_then(|count| review.take(count));
    let clip = frames.size().map(|(height, width)| (frames.count.unwrap_or(2), [height, width]));
    let pass = infer_pass(&mut review, &part, Network::Encoder, clip);
    let shape = [Some(part.latents().channels), count, height, width];
    let mut infer = StepInfo {
        outputs: vec![Fact::typed(LatentFact { shape, space: Some(part.space()) })],
        ..StepInfo::default()
    };
    if let Some((_, pass)) = pass {
        let weights = part.weight_bytes(Network::Encoder);
        infer.memory = weights.saturating_add(pass).saturating_add(f32_bytes_of(&shape));
        infer.weights = part.planned(Network::Encoder, weights);
    }
    review.finish(infer)
}

/// Refuses latents of another space than this autoencoder's; of unknown ones, other channels.
fn check_latent(
    part: &VaeHandle,
    channels: Option<usize>,
    space: Option<&LatentSpace>,
) -> Result<(), PlanError> {
    let own = part.space();
    let others = channels.filter(|channels| *channels != own.channels);
    let message = match (space, others) {
        (_, Some(channels)) => {
            format!("this VAE has latents of {} channels, found {channels}", own.channels)
        }
        (Some(other), _) if (other.spatial, other.temporal) != (own.spatial, own.temporal) => {
            format!(
                "the latent stands for {}×{}×{} pixels in time and space, this VAE's for {}×{}×{}",
                other.temporal,
                other.spatial,
                other.spatial,
                own.temporal,
                own.spatial,
                own.spatial
            )
        }
        (Some(other), _) if other.id != own.id => {
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
    let part = review.vae(Network::Decoder);
    let latent = review.partly::<Latent>("latent");
    let Some(part) = part else { return review.finish(StepInfo::default()) };
    let [channels, count, height, width] = latent.shape;
    review.take(check_latent(&part, channels, latent.space.as_ref()));
    if let Some(given) = facts.typed::<GivenFact>("given") {
        review.take(check_given(given, latent.shape));
    }
    for port in NOISE {
        review.take(check_noise(&part, port, facts.is_fed(port)));
    }
    let factor = part.latents().spatial;
    let [height, width] = [height, width].map(|side| Some(side?.saturating_mul(factor)));
    let count = count.map(|count| part.latents().frames(count));
    let fact = FramesFact { count, height, width, fps: FrameRate::None };
    let clip = count.zip(fact.size()).map(|(count, (height, width))| (count, [height, width]));
    let pass = infer_pass(&mut review, &part, Network::Decoder, clip);
    let frames = f32_bytes_of(&[count, height, width, Some(3)]);
    let mut infer = StepInfo { outputs: vec![Fact::typed(fact)], ..StepInfo::default() };
    if let Some(((_, size), (tile, pass))) = clip.zip(pass) {
        let weights = part.weight_bytes(Network::Decoder);
        infer.memory = weights.saturating_add(pass).saturating_add(frames);
        infer.weights = part.planned(Network::Decoder, weights);
        // In tiles, or whole, all frames are held until the last is done.
        let is_whole = part.spec.decodes_whole() || tile.is_some_and(|tile| tile.cuts(size));
        infer.spillable = if is_whole { 0 } else { frames };
    }
    review.finish(infer)
}

/// The ports that only decoders have use for that are told of noise.
const NOISE: [&str; 2] = ["timestep", "noise"];

/// Whether this decoder is told of noise.
fn check_noise(part: &VaeHandle, port: &str, is_fed: bool) -> Result<(), PlanError> {
    match is_fed && part.spec.decode_noise().is_none() {
        true => Err(PlanError::at(port, "the decoder of this VAE takes no noise")
            .hint("only some autoencoders (LTX-Video 0.9.1 and later) decode with noise")),
        false => Ok(()),
    }
}

/// The noise with which this decoder decodes, if it takes some.
fn decode_noise(part: &VaeHandle, inputs: &Inputs<'_>) -> Result<Option<DecodeNoise>> {
    for port in NOISE {
        check_noise(part, port, inputs.get(port).is_some()).map_err(refuse)?;
    }
    let Some(own) = part.spec.decode_noise() else { return Ok(None) };
    let or_own = |port: &str, own: f64| match inputs.get(port) {
        Some(_) => inputs.real(port),
        None => Ok(own),
    };
    Ok(Some(DecodeNoise {
        timestep: or_own("timestep", own.timestep)?,
        scale: or_own("noise", own.scale)?,
        seed: inputs.int("seed")?,
    }))
}

/// Refuses what was given of a clip of another size.
fn check_given(given: &GivenFact, shape: [Option<usize>; 4]) -> Result<(), PlanError> {
    if may_be(given.shape, shape) {
        return Ok(());
    }
    let [given, found] = [given.shape, shape].map(|shape| shape_text(&shape));
    let message = format!("given of a clip whose latent is {given}, found the latent {found}");
    Err(PlanError::at("given", message))
}

fn decode(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let part = inputs.part::<VaeHandle>("vae")?;
    let latent = inputs.value::<Latent>("latent")?;
    let (channels, count, height, width) = latent.tensor.dims4()?;
    check_latent(&part, Some(channels), latent.space.as_ref()).map_err(refuse)?;
    let given = inputs.optional::<Given>("given")?;
    if let Some(given) = &given {
        check_given(&given.fact(), [channels, count, height, width].map(Some)).map_err(refuse)?;
    }
    let mut given = given.as_deref().filter(|given| given.strength == 1.0).map(PutBack::new);
    cx.check_cancel()?;
    let vae = cx.services.get::<Models>()?.decoder(&part)?;
    let mut frames = FramesBuilder::new(&cx.services.ledger, None);
    let mut keep = |chunk: Tensor| -> Result<()> {
        if !crate::sample::is_finite(&chunk)? {
            return Err(Error::advised(
                "decoding left the range of numbers: frames hold values that are infinite or none",
                "the latent given is not finite, or the weights of the VAE are damaged",
            ));
        }
        let chunk = chunk.affine(0.5, 0.5)?; // −1…1 to 0…1
        match &mut given {
            Some(given) => given.parts(&chunk)?.iter().try_for_each(|part| frames.push(part)),
            None => frames.push(&chunk),
        }
    };
    let spatial = part.latents().spatial;
    let clip = (part.latents().frames(count), [height * spatial, width * spatial]);
    let tile = tiles(&part, inputs.int("tile")?, Network::Decoder, clip).map_err(refuse)?;
    let tile = tile.filter(|tile| tile.cuts(clip.1));
    let noise = decode_noise(&part, inputs)?;
    let stream = if tile.is_none() { vae.open().node()? } else { None };
    match stream {
        None => {
            let (how, mut done) = (WholeDecode { tile, noise }, |done, all| cx.progress(done, all));
            let mut check_cancel = check_cancel(cx.cancel);
            let all =
                vae.decode_whole(&latent.tensor, &how, &mut done, &mut check_cancel).node()?;
            all.into_iter().try_for_each(keep)?;
        }
        Some(mut decoder) => {
            cx.progress(0, count);
            for index in 0..count {
                cx.check_cancel()?;
                let frame = latent.tensor.narrow(1, index, 1)?.squeeze(1)?; // [c, h, w]
                let mut check_cancel = check_cancel(cx.cancel);
                let frames = match index + 1 < count {
                    true => decoder.push(&frame, &mut check_cancel),
                    false => decoder.finish(&frame, &mut check_cancel),
                };
                keep(frames.node()?)?; // [t, H, W, 3]
                cx.progress(index + 1, count);
            }
        }
    }
    Ok(vec![Some(Value::from(frames.finish()?))])
}

/// Given frames on their way into a decoded clip.
struct PutBack<'a> {
    /// Where the next decoded frame lies in the clip.
    at: usize,
    /// The frames from here on, to there, are as they were decoded.
    free: Range<usize>,
    start: Option<Regrouped<'a>>,
    end: Option<Regrouped<'a>>,
}

impl<'a> PutBack<'a> {
    fn new(given: &'a Given) -> Self {
        let count = |frames: &Option<Arc<Frames>>| frames.as_ref().map_or(0, |f| f.count());
        let chunks = |frames: &'a Option<Arc<Frames>>| {
            frames.as_ref().map(|frames| Regrouped::new(frames.chunks()))
        };
        PutBack {
            at: 0,
            free: count(&given.start)..given.frames - count(&given.end),
            start: chunks(&given.start),
            end: chunks(&given.end),
        }
    }

    /// The frames to keep in place of a decoded chunk `[t, H, W, 3]`, in order.
    fn parts(&mut self, chunk: &Tensor) -> Result<Vec<Tensor>> {
        let (from, to) = (self.at, self.at + chunk.dim(0)?);
        self.at = to;
        let (begin, end) = (self.free.start.clamp(from, to), self.free.end.clamp(from, to));
        let mut parts = Vec::new();
        if let Some(start) = self.start.as_mut().filter(|_| begin > from) {
            parts.push(start.take(begin - from)?);
        }
        if begin < end {
            parts.push(chunk.narrow(0, begin - from, end - begin)?);
        }
        if let Some(given) = self.end.as_mut().filter(|_| end < to) {
            parts.push(given.take(to - end)?);
        }
        Ok(parts)
    }
}

fn encode(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let part = inputs.part::<VaeHandle>("vae")?;
    let frames = inputs.value::<Frames>("frames")?;
    check_side(&part, "height", frames.height()).map_err(refuse)?;
    check_side(&part, "width", frames.width()).map_err(refuse)?;
    let count = check_frames(&part, "frames", frames.count()).map_err(refuse)?;
    cx.check_cancel()?;
    let shape = (frames.count(), [frames.height(), frames.width()]);
    let tile = tiles(&part, inputs.int("tile")?, Network::Encoder, shape).map_err(refuse)?;
    let mut clip = Encoding { progress: (0, count), ..Encoding::new(part.clone(), tile) };
    let tensor = clip.encode(cx, || Regrouped::new(frames.chunks()), count)?; // [c, f, h, w]
    Ok(vec![Some(Value::from(Latent { tensor, space: Some(part.space()) }))])
}

/// Clips on their way through an encoder, one after another.
pub(crate) struct Encoding {
    part: Arc<VaeHandle>,
    tile: Option<Tile>,
    /// Latent frames that are done, and those of all clips together.
    pub(crate) progress: (usize, usize),
}

impl Encoding {
    /// Nothing is encoded yet.
    pub(crate) fn new(part: Arc<VaeHandle>, tile: Option<Tile>) -> Self {
        Encoding { part, tile, progress: (0, 0) }
    }

    /// The latent `[c, count, h, w]` of a clip whose frames `source` gives, anew for each tile.
    pub(crate) fn encode<'a>(
        &mut self,
        cx: &mut Cx<'_>,
        source: impl Fn() -> Regrouped<'a>,
        count: usize,
    ) -> Result<Tensor> {
        let vae = cx.services.get::<Models>()?.encoder(&self.part)?;
        let size = match self.tile {
            Some(_) => source().take(1)?.dims()[1..3].to_vec(),
            None => Vec::new(),
        };
        let tile = match (self.tile, size[..].try_into()) {
            (Some(tile), Ok(size)) => Some((tile, size)).filter(|(tile, _)| tile.cuts(size)),
            _ => None,
        };
        let Some((tile, size)) = tile else {
            let mut latents = Vec::with_capacity(count);
            self.pass(cx, (&**vae, source(), count), |_, latent| {
                latents.push(latent);
                Ok(())
            })?;
            return Ok(Tensor::cat(&latents, 1)?); // [c, f, h, w]
        };
        let grid = Grid::new(tile, size, self.part.latents().spatial, false).node()?;
        let (mut joined, begun) = (TileJoin::new(&grid, count), self.progress);
        self.progress = (begun.0 * grid.count(), begun.1 * grid.count());
        for place in grid.places() {
            let part = |frames: Result<Tensor>| Ok(place.of(&frames?, 1).node()?.contiguous()?);
            let mut whole = source();
            let chunks = std::iter::from_fn(move || whole.next().transpose()).map(part);
            self.pass(cx, (&**vae, Regrouped::new(chunks), count), |index, latent| {
                joined.add(&place, index, &latent.permute((1, 2, 3, 0))?).node() // [1, h, w, c]
            })?;
        }
        self.progress = (begun.0 + count, begun.1);
        let latents = joined.finish(cx.device()).collect::<kino_models::Result<Vec<_>>>();
        let latents = Tensor::cat(&latents.node()?, 0)?; // [f, h, w, c]
        Ok(latents.permute((3, 0, 1, 2))?.contiguous()?)
    }

    /// One pass of frames, or of their part in a tile, through the encoder; `take` is given each
    /// latent frame `[c, 1, h, w]`.
    fn pass(
        &mut self,
        cx: &mut Cx<'_>,
        (vae, mut source, count): (&dyn FrameEncoder, Regrouped<'_>, usize),
        mut take: impl FnMut(usize, Tensor) -> Result<()>,
    ) -> Result<()> {
        let mut encoder = vae.open().node()?;
        cx.progress(self.progress.0, self.progress.1);
        for index in 0..count {
            cx.check_cancel()?;
            let chunk = source.take(encoder.next_frames())?; // [t, H, W, 3]
            let chunk = chunk.affine(2.0, -1.0)?; // 0…1 to −1…1
            let mut check_cancel = check_cancel(cx.cancel);
            let latent = match index + 1 < count {
                true => encoder.push(&chunk, &mut check_cancel),
                false => encoder.finish(&chunk, &mut check_cancel),
            };
            take(index, latent.node()?)?;
            self.progress.0 += 1;
            cx.progress(self.progress.0, self.progress.1);
        }
        Ok(())
    }
}
