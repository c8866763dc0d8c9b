//! `given`: frames that a clip must contain, in the form in which a transformer is told of them.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use kino_models::model::{GivenInput, LatentLayout};
use kino_node::{
    Cx, Frames, FramesFact, Given, GivenEncoding, GivenFact, Inputs, Latent, Mask, NodeDef,
    Outputs, Result, Services, Value, ValueType,
};
use kino_port::{
    Fact, Facts, NodeTraits, PlanError, PortType, Signature, StepInfo, edge, int, optional, ports,
    real,
};

use crate::infer::{
    InferCx, InferResult, by_either, may_be, near, reads_control, refuse, shown, takes_no_given,
};
use crate::latent::{check_frames, check_side};
use crate::models::{DitHandle, Network, VaeHandle};
use crate::regroup::Regrouped;
use crate::vae::{Encoding, infer_channels, tile, tiles};

/// Frames that a clip must contain.
pub(crate) static GIVEN: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("given"),
        version: Cow::Borrowed("2"),
        about: Cow::Borrowed(ABOUT),
        inputs: ports![
            edge("dit", PortType::Dit).about("The transformer that will make the clip."),
            edge("vae", PortType::Vae).about("The autoencoder of the same model."),
            int("frames", 0)
                .between(1, 1 << 20)
                .required()
                .unit("frames")
                .about("Frames of the whole clip, those that are given included."),
            optional("start", PortType::Frames)
                .about("The first frames of the clip: a picture, or 4k+1 frames."),
            optional("end", PortType::Frames)
                .about("The last frames of the clip: a picture, or 4k frames."),
            real("strength", 1.0)
                .within(0.0, 1.0)
                .about("How strongly the clip is held to them: 1 is exactly, 0 is not at all."),
            tile(),
        ],
        outputs: ports![
            edge("given", PortType::Given)
                .about("What is given of the clip, for `dit.sample` and `vae.decode`.")
        ],
        traits: NodeTraits::EXPENSIVE,
    },
    infer,
    run,
};

const ABOUT: &str = "Says which frames a clip must contain: at its start (a picture that moves, a \
clip that goes on), at its end (a clip that leads there), or both (two that are joined). They are \
encoded in the form that the transformer reads: tokens that are free of noise (Wan 2.2 TI2V, the \
embedded model), or channels beside the latent's own (Wan 2.1 I2V and FLF2V).\n\n\
Feed the result to `dit.sample`, and to `vae.decode`, which puts the frames back as they were: an \
autoencoder loses detail. Frames have the size of the clip; `frames.fit` brings them to it.\n\n\
An autoencoder that is causal in time encodes a first frame alone and then four at a time, so a \
clip at the start has 4k+1 frames. One at the end has no frames before it: its first frame stands \
for them once, and the latent frame that is only that is dropped, so it has 4k frames. A single \
picture stands still for those four. A transformer that reads channels takes any number.\n\n\
Shapes: frames `[f, h, w, 3]`; the latent `[c, f, h, w]` of the whole clip.\n\n\
Example:\n    \"given\": (op: \"given\", in: {\"dit\": \"model.dit\", \"vae\": \"model.vae\", \
\"start\": \"photo\"}, with: {\"frames\": 17}),";

/// Where given frames lie in a clip, in frames and in latent frames.
#[derive(Debug, PartialEq, Eq)]
struct Places {
    encoding: GivenEncoding,
    /// Frames of the clip, at its start, at its end.
    frames: [usize; 3],
    /// The same in latent frames; at both ends those that are given as a whole.
    latents: [usize; 3],
}

impl Places {
    fn of(
        layout: LatentLayout,
        encoding: GivenEncoding,
        (frames, latent_frames): (usize, usize),
        [start, end]: [usize; 2],
    ) -> Result<Self, PlanError> {
        let (first, temporal) = (layout.first, layout.temporal.max(1));
        if start.saturating_add(end) > frames {
            let message = match (start, end) {
                (start, 0) => format!("{start} frames at the start of a clip of {frames}"),
                (0, end) => format!("{end} frames at the end of a clip of {frames}"),
                both => format!("{} and {} frames of a clip of {frames}", both.0, both.1),
            };
            return Err(PlanError::at("frames", message)
                .hint("`frames` counts all of the clip, those that are given included"));
        }
        let (at_start, at_end) = match encoding {
            GivenEncoding::Whole => (
                // Latent frames of which every frame is given.
                start.checked_sub(first).map_or(0, |past| past / temporal + 1),
                end / temporal,
            ),
            GivenEncoding::Apart => {
                let at_start = if start == 0 { Some(0) } else { layout.latent_frames(start) };
                let at_start = at_start.ok_or_else(|| {
                    let near = near(start, first, temporal);
                    let rule = rule(temporal, first % temporal);
                    not_whole("start", format!("{rule} frames, found {start}; {near}"))
                })?;
                let at_end = match end {
                    1 => 1,
                    end if end.is_multiple_of(temporal) => end / temporal,
                    end => {
                        let near = match end < temporal {
                            true => format!("near it: 1 and {temporal}"),
                            false => near(end, 0, temporal),
                        };
                        let rule = rule(temporal, 0);
                        let message = format!("one picture or {rule} frames, found {end}; {near}");
                        return Err(not_whole("end", message));
                    }
                };
                (at_start, at_end)
            }
        };
        if encoding == GivenEncoding::Apart && at_start + at_end > latent_frames {
            return Err(PlanError::at(
                "frames",
                format!("what is given at the start and at the end meets in a clip of {frames}"),
            ));
        }
        let latents = [latent_frames, at_start, at_end];
        Ok(Places { encoding, frames: [frames, start, end], latents })
    }
}

/// How many frames there must be, in words: `4k+1`.
fn rule(step: usize, rest: usize) -> String {
    match rest {
        0 => format!("{step}k"),
        rest => format!("{step}k+{rest}"),
    }
}

fn not_whole(port: &str, found: String) -> PlanError {
    PlanError::at(port, format!("the {port} of a clip for this VAE is {found}"))
}

/// How this transformer is told of given frames.
fn encoding(part: &DitHandle) -> Result<GivenEncoding, PlanError> {
    match part.spec.inputs().given {
        GivenInput::Tokens => Ok(GivenEncoding::Apart),
        GivenInput::Channels => Ok(GivenEncoding::Whole),
        GivenInput::None => Err(takes_no_given("dit")),
        GivenInput::Control => Err(reads_control("dit")),
    }
}

/// A strength below 1 needs tokens that can be noised in part.
fn check_strength(encoding: GivenEncoding, strength: f64) -> Result<(), PlanError> {
    match encoding == GivenEncoding::Whole && strength != 1.0 {
        true => Err(PlanError::at(
            "strength",
            format!("this transformer holds to given frames wholly: 1 is needed, found {strength}"),
        )),
        false => Ok(()),
    }
}

/// A height and a width, those that are known.
type Size = [Option<usize>; 2];

/// Frames at both ends are of one size, which the autoencoder takes: that size, as far as it is
/// known.
fn check_size(part: &VaeHandle, [start, end]: [Option<Size>; 2]) -> Result<Size, Vec<PlanError>> {
    if let (Some(start), Some(end)) = (start, end)
        && !may_be(start, end)
    {
        let [start, end] = [start, end].map(|[h, w]| format!("{}×{}", shown(w), shown(h)));
        let message = format!("frames of {end} at the end, of {start} at the start");
        let error = PlanError::at("end", message).hint("a `frames.fit` node brings them to a size");
        return Err(vec![error]);
    }
    let Some(own) = start.or(end) else {
        return Err(vec![
            PlanError::new("nothing is given").hint("feed `start`, `end`, or both with frames"),
        ]);
    };
    let size = by_either(own, end.unwrap_or_default());
    let side = |(axis, side): (usize, &Option<usize>)| {
        let port = if start.is_some_and(|start| start[axis].is_some()) { "start" } else { "end" };
        check_side(part, port, ["height", "width"][axis], (*side)?).err()
    };
    let wrong = size.iter().enumerate().filter_map(side);
    let wrong: Vec<PlanError> =
        wrong.map(|error| error.hint("a `frames.fit` node brings frames to a size")).collect();
    if wrong.is_empty() { Ok(size) } else { Err(wrong) }
}

fn infer(_: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let dit = review.part::<DitHandle>("dit");
    let encoding = dit.and_then(|dit| review.take(encoding(&dit)));
    let vae = review.vae(Network::Encoder);
    let ends =
        ["start", "end"].map(|port| facts.is_fed(port).then(|| review.partly::<Frames>(port)));
    if let (Some(encoding), Some(strength)) = (encoding, facts.real("strength")) {
        review.take(check_strength(encoding, strength));
    }
    let Some(vae) = vae else { return review.finish(StepInfo::default()) };
    let size = |frames: &Option<FramesFact>| frames.as_ref().map(|f| [f.height, f.width]);
    let [height, width] = match check_size(&vae, [size(&ends[0]), size(&ends[1])]) {
        Ok(size) => size,
        Err(errors) => {
            errors.into_iter().for_each(|error| review.error(error));
            [None; 2]
        }
    };
    let frames = review.size("frames");
    let latents = frames.and_then(|frames| review.take(check_frames(&vae, "frames", frames)));
    let counts = ends.map(|end| end.map_or(Some(0), |frames| frames.count));
    let Some(encoding) = encoding else { return review.finish(StepInfo::default()) };
    let layout = vae.latents();
    if let Some(clip) = frames.zip(latents) {
        // An end of which nothing is known is held against nothing.
        let known = counts.map(Option::unwrap_or_default);
        review.take(Places::of(layout, encoding, clip, known));
    }
    let along = |side: Option<usize>| side.map(|side| side / layout.spatial);
    let shape = [Some(layout.channels), latents, along(height), along(width)];
    let clip = match (frames, counts, height.zip(width)) {
        (Some(frames), [Some(start), Some(end)], Some((height, width))) => {
            Some((longest(encoding, frames, [start, end]), [height, width]))
        }
        _ => None,
    };
    let fact = GivenFact { shape, space: Some(vae.space()), frames, encoding };
    let info = infer_channels(&mut review, &vae, clip, &shape, vec![Fact::typed(fact)]);
    review.finish(info)
}

/// The frames of the longest clip that is encoded: what is given at the end has copies of its first
/// frame before it.
fn longest(encoding: GivenEncoding, frames: usize, [start, end]: [usize; 2]) -> usize {
    match encoding {
        GivenEncoding::Whole => frames,
        GivenEncoding::Apart => start.max(if end > 0 { end.saturating_add(1) } else { 0 }),
    }
}

fn run(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let vae = inputs.part::<VaeHandle>("vae")?;
    let encoding = encoding(&*inputs.part::<DitHandle>("dit")?).map_err(refuse)?;
    let strength = inputs.real("strength")?;
    check_strength(encoding, strength).map_err(refuse)?;
    let start = inputs.optional::<Frames>("start")?;
    let end = inputs.optional::<Frames>("end")?;
    let size =
        |frames: &Option<Arc<Frames>>| frames.as_ref().map(|f| [f.height(), f.width()].map(Some));
    let size = check_size(&vae, [size(&start), size(&end)]);
    let size = size.map_err(|mut errors| refuse(errors.remove(0)))?;
    let [height, width] = size.map(Option::unwrap_or_default);
    let frames = inputs.int("frames")?;
    let latents = check_frames(&vae, "frames", frames).map_err(refuse)?;
    let count = |frames: &Option<Arc<Frames>>| frames.as_ref().map_or(0, |f| f.count());
    let (layout, counts) = (vae.latents(), [count(&start), count(&end)]);
    let places = Places::of(layout, encoding, (frames, latents), counts).map_err(refuse)?;
    cx.check_cancel()?;
    let clip = (longest(encoding, frames, counts), [height, width]);
    let tile = tiles(&vae, inputs.int("tile")?, Network::Encoder, clip).map_err(refuse)?;
    let encoder = Encoding::new(Arc::clone(&vae), tile);
    let ends = (start.as_deref(), end.as_deref());
    let tensor = match encoding {
        GivenEncoding::Apart => apart(cx, encoder, layout, &places, ends)?,
        GivenEncoding::Whole => whole(cx, encoder, &places, ends)?,
    };
    let [_, at_start, at_end] = places.latents;
    let grid = (height / layout.spatial, width / layout.spatial);
    let mask = ends_mask(latents, [at_start, at_end], grid, tensor.device())?;
    let latent = Latent { tensor, space: Some(vae.space()) };
    let given = Given { latent, mask, frames, strength, encoding, start, end };
    given.check()?;
    Ok(vec![Some(Value::from(given))])
}

/// 1 in the first and last so many latent frames: `[f, h, w]`.
fn ends_mask(
    count: usize,
    [start, end]: [usize; 2],
    (height, width): (usize, usize),
    device: &Device,
) -> Result<Mask> {
    let given = |frame: usize| f32::from(frame < start || frame + end >= count);
    let frames: Vec<f32> = (0..count).map(given).collect();
    let frames = Tensor::from_vec(frames, (count, 1, 1), device)?;
    Ok(Mask { tensor: frames.broadcast_as((count, height, width))?.contiguous()? })
}

/// Both ends encoded each for itself, zeros between them.
///
/// What is given at the end has no past: copies of its first frame stand for it, and the latent
/// frame that holds only them is dropped.
fn apart(
    cx: &mut Cx<'_>,
    mut encoder: Encoding,
    layout: LatentLayout,
    places: &Places,
    (start, end): (Option<&Frames>, Option<&Frames>),
) -> Result<Tensor> {
    let [count, at_start, at_end] = places.latents;
    let past = usize::from(at_end > 0);
    encoder.progress = (0, at_start + at_end + past);
    let mut parts = Vec::new();
    if let Some(start) = start {
        parts.push(encoder.encode(cx, || Regrouped::new(start.chunks()), at_start)?);
    }
    let mut last = None;
    if let Some(end) = end {
        // A single picture also stands for the frames before it.
        let still = (at_end * layout.temporal).saturating_sub(end.count());
        let first = end.chunk(0)?.narrow(0, 0, 1)?;
        let source = || {
            let copies = std::iter::repeat_n(first.clone(), layout.first + still).map(Ok);
            Regrouped::new(copies.chain(end.chunks()))
        };
        last = Some(encoder.encode(cx, source, past + at_end)?.narrow(1, past, at_end)?);
    }
    let free = count - at_start - at_end;
    if let (Some(part), true) = (parts.last().or(last.as_ref()), free > 0) {
        let (channels, _, height, width) = part.dims4()?;
        parts.push(Tensor::zeros((channels, free, height, width), DType::F32, part.device())?);
    }
    parts.extend(last);
    Ok(Tensor::cat(&parts, 1)?) // [c, f, h, w]
}

/// The clip encoded as a whole, grey where nothing is given.
fn whole(
    cx: &mut Cx<'_>,
    mut encoder: Encoding,
    places: &Places,
    (start, end): (Option<&Frames>, Option<&Frames>),
) -> Result<Tensor> {
    let ([count, ..], [frames, at_start, at_end]) = (places.latents, places.frames);
    encoder.progress = (0, count);
    let like = start.or(end).map(|frames| (frames.height(), frames.width())).unwrap_or_default();
    let grey = Tensor::full(0.5f32, (1, like.0, like.1, 3), &Device::Cpu)?; // the middle of 0…1
    let source = || {
        let between = std::iter::repeat_n(grey.clone(), frames - at_start - at_end).map(Ok);
        let (start, end) = (start.into_iter(), end.into_iter());
        let ends = (start.flat_map(Frames::chunks), end.flat_map(Frames::chunks));
        Regrouped::new(ends.0.chain(between).chain(ends.1))
    };
    encoder.encode(cx, source, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAN: LatentLayout = LatentLayout { channels: 16, temporal: 4, first: 1, spatial: 8 };

    #[track_caller]
    fn check(encoding: GivenEncoding, ends: [usize; 2], expected: Result<[usize; 2], &str>) {
        let found = Places::of(WAN, encoding, (33, 9), ends);
        let found = found.map(|places| [places.latents[1], places.latents[2]]);
        assert_eq!(found.map_err(|error| error.message), expected.map_err(str::to_owned));
    }

    #[test]
    fn given_frames_are_whole_latent_frames() {
        let check = |ends, expected| check(GivenEncoding::Apart, ends, expected);
        check([1, 0], Ok([1, 0]));
        check([17, 16], Ok([5, 4]));
        check([0, 1], Ok([0, 1]));
        check([33, 0], Ok([9, 0]));
        check([0, 32], Ok([0, 8]));
        check(
            [6, 0],
            Err("the start of a clip for this VAE is 4k+1 frames, found 6; near it: 5 and 9"),
        );
        check(
            [0, 6],
            Err("the end of a clip for this VAE is one picture or 4k frames, found 6; near it: 4 \
                 and 8"),
        );
        check([17, 20], Err("17 and 20 frames of a clip of 33"));
        check([0, 36], Err("36 frames at the end of a clip of 33"));
        check([37, 0], Err("37 frames at the start of a clip of 33"));
        check([29, 1], Ok([8, 1]));
    }

    #[test]
    fn a_clip_that_is_encoded_whole_takes_any_number() {
        let check = |ends, expected| check(GivenEncoding::Whole, ends, Ok(expected));
        check([1, 1], [1, 0]);
        check([6, 7], [2, 1]);
        check([4, 4], [1, 1]);
    }
}
