//! `vace`: what a clip follows beside its text, in the form in which Wan VACE reads it.

mod channels;
mod reference;

use std::borrow::Cow;
use std::sync::Arc;

use kino_models::model::{ExtraChannels, GivenInput};
use kino_node::{
    Control, ControlFact, Cx, Frames, FramesFact, Inputs, Mask, MaskFact, NodeDef, Outputs, Result,
    Services, Value, ValueType,
};
use kino_port::{
    Fact, Facts, Literal, NodeTraits, PlanError, PortType, Signature, StepInfo, edge, int,
    optional, optional_list, ports, real,
};

use crate::infer::{InferCx, InferResult, f32_bytes, known, named_facts, refuse, takes_no_control};
use crate::latent::{LONGEST_SIDE, check_frames, check_side};
use crate::models::{DitHandle, Network, VaeHandle};
use crate::vae::{Encoding, tile, tiles};

/// What a clip follows beside its text.
pub(crate) static VACE: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("vace"),
        version: Cow::Borrowed("2"),
        about: Cow::Borrowed(ABOUT),
        inputs: ports![
            edge("dit", PortType::Dit).about("The transformer that will make the clip."),
            edge("vae", PortType::Vae).about("The autoencoder of the same model."),
            optional("video", PortType::Frames).about(
                "The clip to follow (depth, pose, edges, a layout) or to change; a clip of 4k+1 \
                 frames, or the first frames of one."
            ),
            optional("mask", PortType::Mask).about(
                "Where the video is made anew (1) and where it stays (0), of its size and 1 or as \
                 many frames; all of it is made anew if not given."
            ),
            optional_list("references", PortType::Frames)
                .about("Pictures of what the clip shows, of any size."),
            int("width", 0)
                .between(1, LONGEST_SIDE)
                .or_none()
                .unit("px")
                .about("Width of the clip; that of the video if not given."),
            int("height", 0)
                .between(1, LONGEST_SIDE)
                .or_none()
                .unit("px")
                .about("Height of the clip; that of the video if not given."),
            int("frames", 0)
                .between(1, 1 << 20)
                .or_none()
                .unit("frames")
                .about("Frames of the clip; those of the video if not given."),
            real("strength", 1.0)
                .within(0.0, 10.0)
                .about("How strongly the clip follows: 1 is as in training, 0 is not at all."),
            tile(),
        ],
        outputs: ports![
            edge("control", PortType::Control).about("What the clip follows, for `dit.sample`."),
            edge("frames", PortType::Int).about(
                "Frames that its noise stands for: those of the clip, and four more for each \
                 picture. Feed it to `latent.noise`."
            ),
        ],
        traits: NodeTraits::EXPENSIVE,
    },
    infer,
    run,
};

const ABOUT: &str = "Says what a clip follows beside its text, for a transformer of Wan VACE \
(arXiv:2503.07598): a video that leads it, a mask of what stays of that video, and pictures of what \
the clip shows. It becomes two latents, of what stays and of what is made anew, each grey in the \
other's place, and the mask, with a channel for each pixel that a latent pixel stands for \
(diffusers' pipeline_wan_vace.py). A mask counts as 1 above one half.\n\n\
Feed `control` to `dit.sample`, and `frames` to `latent.noise`: pictures become latent frames before \
the clip, the last one first, which `dit.sample` takes away in the end. A picture of another shape \
is scaled until it fits, and stands on white. Past the last frame of the video all is made anew: a \
video of one frame whose mask is 0 is a picture that moves.\n\n\
Without a video, `width`, `height` and `frames` say the size of the clip. With strength 0, and \
without a control, such a transformer makes a clip from text alone.\n\n\
Shapes: frames `[f, h, w, 3]`, a mask `[f or 1, h, w]`; the control is `[2·c + s·s, pictures + \
latent frames, h/s, w/s]`, s pixels to a latent pixel.\n\n\
Example:\n    \"vace\": (op: \"vace\", in: {\"dit\": \"model.dit\", \"vae\": \"model.vae\", \
\"video\": \"depth\", \"references\": [\"photo\"]}),";

/// The size of a control.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    /// Frames of the clip, and those that the video has.
    frames: usize,
    given: usize,
    /// Height and width in pixels.
    size: [usize; 2],
    /// Latent frames of the clip, and pictures before them.
    latents: usize,
    references: usize,
}

impl Layout {
    /// `[c, f, h, w]` of the control, the pictures included.
    fn shape(&self, dit: &DitHandle, vae: &VaeHandle) -> [usize; 4] {
        let channels = dit.spec.inputs().extra.iter().map(|extra| extra.channels).sum();
        let spatial = vae.latents().spatial;
        let frames = self.references.saturating_add(self.latents);
        [channels, frames, self.size[0] / spatial, self.size[1] / spatial]
    }

    /// What the encoding needs of it.
    fn sizes(&self, vae: &VaeHandle) -> channels::Sizes {
        channels::Sizes {
            frames: self.frames,
            given: self.given,
            size: self.size,
            latents: self.latents,
            spatial: vae.latents().spatial,
        }
    }

    /// Frames that noise must stand for.
    fn noise_frames(&self, vae: &VaeHandle) -> usize {
        vae.latents().frames(self.references.saturating_add(self.latents))
    }
}

/// What is asked for: everything but the frames themselves.
struct Asked {
    video: Option<FramesFact>,
    mask: Option<MaskFact>,
    /// Frames of each picture and its size, where it is known.
    references: Vec<Option<FramesFact>>,
    width: Option<usize>,
    height: Option<usize>,
    frames: Option<usize>,
}

impl Asked {
    /// The size of the control, or every reason against it. None where it is not known yet.
    fn layout(&self, dit: &DitHandle, vae: &VaeHandle) -> Result<Option<Layout>, Vec<PlanError>> {
        let mut errors = Vec::new();
        let mut keep = |checked: Result<(), PlanError>| errors.extend(checked.err());
        keep(check_dit(dit, vae));
        let video = self.video.as_ref();
        let height = self.side("height", self.height, video.map(|video| video.height));
        let width = self.side("width", self.width, video.map(|video| video.width));
        let mut checked = |axis: &str, found: Result<usize, PlanError>| {
            let side = found.and_then(|side| {
                let port = if video.is_some() { "video" } else { axis };
                check_side(vae, port, axis, side)?;
                Ok(side)
            });
            side.map_err(|error| errors.push(error)).ok()
        };
        let size = (checked("height", height), checked("width", width));
        let frames = self.frames();
        let counted = match &frames {
            Ok(Some(frames)) => {
                let port = if self.frames.is_some() { "frames" } else { "video" };
                check_frames(vae, port, *frames).map(Some)
            }
            Ok(None) => Ok(None),
            Err(error) => Err(error.clone()),
        };
        let counted = counted.map_err(|error| errors.push(error)).ok().flatten();
        errors.extend(self.check_mask().err());
        if let (Some(height), Some(width)) = size {
            let spatial = vae.latents().spatial;
            errors.extend(self.check_references(dit, [height, width], spatial));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let (Ok(Some(frames)), Some(latents), (Some(height), Some(width))) =
            (frames, counted, size)
        else {
            return Ok(None);
        };
        let given = match video {
            Some(FramesFact { count: None, .. }) => return Ok(None),
            Some(FramesFact { count: Some(count), .. }) => *count,
            None => 0,
        };
        let references = self.references.len();
        Ok(Some(Layout { frames, given, size: [height, width], latents, references }))
    }

    /// A side of the clip: that of the video, unless there is none.
    fn side(
        &self,
        axis: &str,
        asked: Option<usize>,
        of_video: Option<usize>,
    ) -> Result<usize, PlanError> {
        match (asked, of_video) {
            (Some(asked), Some(found)) if asked != found => {
                let message = format!("the {axis} of the video is {found}, not {asked}");
                Err(PlanError::at(axis, message)
                    .hint("a `frames.fit` node brings the video to the size of the clip"))
            }
            (None, None) => Err(size_is_missing(axis)),
            (asked, of_video) => Ok(of_video.or(asked).unwrap_or_default()),
        }
    }

    /// Frames of the clip, if they are known.
    fn frames(&self) -> Result<Option<usize>, PlanError> {
        let of_video = self.video.as_ref().map(|video| video.count);
        match (self.frames, of_video) {
            (Some(frames), Some(Some(count))) if count > frames => {
                let message = format!("a video of {count} frames for a clip of {frames}");
                Err(PlanError::at("frames", message)
                    .hint("a `frames.trim` node takes a part of a video"))
            }
            (Some(frames), _) => Ok(Some(frames)),
            (None, Some(count)) => Ok(count),
            (None, None) => Err(size_is_missing("frames")),
        }
    }

    /// A mask is one of the video.
    fn check_mask(&self) -> Result<(), PlanError> {
        let Some(MaskFact { shape: [count, height, width] }) = self.mask else { return Ok(()) };
        let Some(video) = &self.video else {
            return Err(PlanError::at("mask", "there is no video of which anything could stay")
                .hint("feed `video`: outside the mask it stays"));
        };
        let fits = video.count.is_none_or(|frames| count == 1 || count == frames);
        if (height, width) == (video.height, video.width) && fits {
            return Ok(());
        }
        let (tall, wide) = (video.height, video.width);
        let frames = video.count.map_or_else(String::new, |frames| format!(" or {frames}"));
        let message = format!(
            "a mask has the size of the video, {wide}×{tall}, and 1{frames} frames, found \
             {width}×{height} and {count}"
        );
        Err(PlanError::at("mask", message))
    }

    /// Each picture is one frame that fits, and their number whole patches.
    fn check_references(
        &self,
        dit: &DitHandle,
        size: [usize; 2],
        spatial: usize,
    ) -> Vec<PlanError> {
        let wrong = |message: String| PlanError::at("references", message);
        let one = |picture: &FramesFact| match picture.count {
            Some(count) if count != 1 => Some(
                wrong(format!("a picture is one frame, found {count}"))
                    .hint("a `frames.trim` node takes one of a clip"),
            ),
            _ => reference::fitted([picture.height, picture.width], size, spatial).err().map(wrong),
        };
        let mut errors: Vec<_> = self.references.iter().flatten().filter_map(one).collect();
        let (per_patch, count) = (dit.spec.inputs().patch.0, self.references.len());
        if !count.is_multiple_of(per_patch) {
            errors.push(wrong(format!(
                "a patch of this transformer is {per_patch} latent frames long, and {count} \
                 pictures are no whole number of them"
            )));
        }
        errors
    }
}

fn size_is_missing(port: &str) -> PlanError {
    PlanError::at(port, format!("without a video, the {port} of the clip must be given"))
        .hint("feed `video`, or say `width`, `height` and `frames`")
}

/// The transformer reads a control, and of this autoencoder.
fn check_dit(dit: &DitHandle, vae: &VaeHandle) -> Result<(), PlanError> {
    let inputs = dit.spec.inputs();
    if inputs.given != GivenInput::Control {
        return Err(takes_no_control("dit"));
    }
    let layout = vae.latents();
    let of = |name: &str| inputs.extra.iter().find(|extra| extra.name == name);
    let channels = |name: &str| of(name).map_or(0, |extra| extra.channels);
    let found = [layout.channels, layout.channels, layout.spatial.saturating_pow(2)];
    let names = [ExtraChannels::INACTIVE, ExtraChannels::REACTIVE, ExtraChannels::PIXELS];
    match names.map(channels) {
        expected if expected == found => Ok(()),
        [latent, _, pixels] => {
            let message = format!(
                "this transformer reads latents of {latent} channels and masks of {pixels} pixels, \
                 this VAE's are {} and {}",
                found[0], found[2]
            );
            Err(PlanError::at("vae", message).hint("give `vace` the VAE of the same model"))
        }
    }
}

fn infer(_: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let dit = review.part::<DitHandle>("dit");
    let vae = review.vae(Network::Encoder);
    let (video, mask) = (review.known::<Frames>("video"), review.known::<Mask>("mask"));
    let references = named_facts(facts, "references");
    let references = references
        .iter()
        .map(|(_, fact)| review.take(known::<Frames>("references", fact)).flatten())
        .collect();
    let [width, height, frames] = ["width", "height", "frames"].map(|port| review.size(port));
    let fed_unknown = |port: &str, known: bool| facts.is_fed(port) && !known;
    let unknown = fed_unknown("video", video.is_some())
        || [("width", width), ("height", height), ("frames", frames)]
            .iter()
            .any(|(port, known)| fed_unknown(port, known.is_some()));
    let (Some(dit), Some(vae), false) = (dit, vae, unknown) else {
        return review.finish(StepInfo::default());
    };
    let asked = Asked { video, mask, references, width, height, frames };
    let layout = match asked.layout(&dit, &vae) {
        Ok(Some(layout)) => layout,
        Ok(None) => return review.finish(StepInfo::default()),
        Err(errors) => {
            errors.into_iter().for_each(|error| review.error(error));
            return review.finish(StepInfo::default());
        }
    };
    let shape = layout.shape(&dit, &vae);
    let fact = ControlFact { shape, references: layout.references, space: Some(vae.space()) };
    let clip = (layout.frames, layout.size);
    let tile = tiles(&vae, review.size("tile").unwrap_or(0), Network::Encoder, clip);
    let tile = review.take(tile).flatten();
    let weights = vae.weight_bytes(Network::Encoder);
    let pass = vae.spec.encode_memory(layout.frames, layout.size, tile);
    let noise = Fact::Literal(Literal::Int(layout.noise_frames(&vae) as i128));
    review.finish(StepInfo {
        outputs: vec![Fact::typed(fact), noise],
        memory: weights.saturating_add(pass).saturating_add(f32_bytes(&shape).saturating_mul(3)),
        weights: vae.planned(Network::Encoder, weights),
        ..StepInfo::default()
    })
}

fn run(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let dit = inputs.part::<DitHandle>("dit")?;
    let vae = inputs.part::<VaeHandle>("vae")?;
    let video = inputs.optional::<Frames>("video")?;
    let mask = inputs.optional::<Mask>("mask")?;
    let references = inputs.list::<Frames>("references")?;
    let size = |port: &str| inputs.get(port).is_some().then(|| inputs.int(port)).transpose();
    let asked = Asked {
        video: video.as_ref().map(|video| video.fact()),
        mask: mask.as_ref().map(|mask| mask.fact()),
        references: references.iter().map(|(_, picture)| Some(picture.fact())).collect(),
        width: size("width")?,
        height: size("height")?,
        frames: size("frames")?,
    };
    let layout = asked.layout(&dit, &vae).map_err(|mut errors| refuse(errors.remove(0)))?;
    let layout = layout.ok_or_else(|| refuse(size_is_missing("frames")))?;
    cx.check_cancel()?;
    let clip = (layout.frames, layout.size);
    let tile = tiles(&vae, inputs.int("tile")?, Network::Encoder, clip).map_err(refuse)?;
    let encoder = Encoding::new(Arc::clone(&vae), tile);
    let pictures: Vec<_> = references.iter().map(|(_, picture)| &**picture).collect();
    let source = channels::Source { video: video.as_deref(), mask: mask.as_deref(), pictures };
    let (order, sizes) = (&dit.spec.inputs().extra, layout.sizes(&vae));
    let tensor = channels::encode(cx, encoder, order, &sizes, &source)?;
    let (strength, references) = (inputs.real("strength")?, layout.references);
    let control = Control { tensor, references, strength, space: Some(vae.space()) };
    control.check()?;
    let frames = Value::Int(layout.noise_frames(&vae) as i128);
    Ok(vec![Some(Value::from(control)), Some(frames)])
}
