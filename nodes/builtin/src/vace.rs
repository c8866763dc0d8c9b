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

use crate::infer::{
    InferCx, InferResult, known, may_be, named_facts, refuse, shown, takes_no_control,
};
use crate::latent::{LONGEST_SIDE, check_frames, check_side};
use crate::models::{DitHandle, Network, VaeHandle};
use crate::vae::{Encoding, infer_channels, infer_pass, tile, tiles};

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

/// The size of a control, as far as it is known.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    /// Frames of the clip, and those that the video has.
    frames: Option<usize>,
    given: Option<usize>,
    /// Height and width in pixels.
    size: [Option<usize>; 2],
    /// Latent frames of the clip, and pictures before them.
    latents: Option<usize>,
    references: usize,
}

impl Layout {
    /// `[c, f, h, w]` of the control, the pictures included.
    fn shape(&self, dit: &DitHandle, vae: &VaeHandle) -> [Option<usize>; 4] {
        let channels = dit.spec.inputs().extra.iter().map(|extra| extra.channels).sum();
        let spatial = vae.latents().spatial;
        let [height, width] = self.size.map(|side| side.map(|side| side / spatial));
        [Some(channels), self.latent_frames(), height, width]
    }

    /// Latent frames, those of the pictures included.
    fn latent_frames(&self) -> Option<usize> {
        self.latents.map(|latents| self.references.saturating_add(latents))
    }

    /// What the encoding needs of it.
    fn sizes(&self, vae: &VaeHandle) -> Option<channels::Sizes> {
        let [height, width] = self.size;
        Some(channels::Sizes {
            frames: self.frames?,
            given: self.given?,
            size: [height?, width?],
            latents: self.latents?,
            spatial: vae.latents().spatial,
        })
    }

    /// Frames that noise must stand for.
    fn noise_frames(&self, vae: &VaeHandle) -> Option<usize> {
        self.latent_frames().map(|latents| vae.latents().frames(latents))
    }
}

/// What a number is that feeds an input, where something does, and it is known.
type Wish = Option<Option<usize>>;

/// What is asked for: everything but the frames themselves. What is not fed is none.
struct Asked {
    video: Option<FramesFact>,
    mask: Option<MaskFact>,
    /// Frames of each picture and its size.
    references: Vec<FramesFact>,
    width: Wish,
    height: Wish,
    frames: Wish,
}

impl Asked {
    /// The size of the control as far as it is known, or every reason against it.
    fn layout(&self, dit: &DitHandle, vae: &VaeHandle) -> Result<Layout, Vec<PlanError>> {
        let mut errors = Vec::new();
        errors.extend(check_dit(dit, vae).err());
        let video = self.video.as_ref();
        let mut side = |axis: &str, asked: Wish, of_video: Wish| {
            let checked = side_of(axis, asked, of_video).and_then(|side| {
                let port = if of_video.flatten().is_some() { "video" } else { axis };
                side.map(|side| check_side(vae, port, axis, side)).transpose()?;
                Ok(side)
            });
            checked.map_err(|error| errors.push(error)).ok().flatten()
        };
        let height = side("height", self.height, video.map(|video| video.height));
        let width = side("width", self.width, video.map(|video| video.width));
        let frames = self.frames().map_err(|error| errors.push(error)).ok().flatten();
        let latents = frames.and_then(|frames| {
            let port = if self.frames.is_some() { "frames" } else { "video" };
            let latents = check_frames(vae, port, frames);
            latents.map_err(|error| errors.push(error)).ok()
        });
        errors.extend(self.check_mask().err());
        errors.extend(self.check_references(dit, height.zip(width), vae.latents().spatial));
        if !errors.is_empty() {
            return Err(errors);
        }
        let given = video.map_or(Some(0), |video| video.count);
        let references = self.references.len();
        Ok(Layout { frames, given, size: [height, width], latents, references })
    }

    /// Frames of the clip, if they are known.
    fn frames(&self) -> Result<Option<usize>, PlanError> {
        let of_video = self.video.as_ref().map(|video| video.count);
        match (self.frames, of_video) {
            (Some(Some(frames)), Some(Some(count))) if count > frames => {
                let message = format!("a video of {count} frames for a clip of {frames}");
                Err(PlanError::at("frames", message)
                    .hint("a `frames.trim` node takes a part of a video"))
            }
            (Some(frames), _) => Ok(frames),
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
        let fits = count == Some(1) || may_be([count], [video.count]);
        if may_be([height, width], [video.height, video.width]) && fits {
            return Ok(());
        }
        let (tall, wide) = (shown(video.height), shown(video.width));
        let frames = video.count.map_or_else(String::new, |frames| format!(" or {frames}"));
        let message = format!(
            "a mask has the size of the video, {wide}×{tall}, and 1{frames} frames, found {}×{} \
             and {}",
            shown(width),
            shown(height),
            shown(count)
        );
        Err(PlanError::at("mask", message))
    }

    /// Each picture is one frame that fits, and their number whole patches.
    fn check_references(
        &self,
        dit: &DitHandle,
        size: Option<(usize, usize)>,
        spatial: usize,
    ) -> Vec<PlanError> {
        let wrong = |message: String| PlanError::at("references", message);
        let one = |picture: &FramesFact| match picture.count {
            Some(count) if count != 1 => Some(
                wrong(format!("a picture is one frame, found {count}"))
                    .hint("a `frames.trim` node takes one of a clip"),
            ),
            _ => {
                let ((high, wide), (height, width)) = picture.size().zip(size)?;
                let fitted = reference::fitted([high, wide], [height, width], spatial);
                fitted.err().map(wrong)
            }
        };
        let mut errors: Vec<_> = self.references.iter().filter_map(one).collect();
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

/// A side of the clip, if it is known: that of the video, unless there is none.
fn side_of(axis: &str, asked: Wish, of_video: Wish) -> Result<Option<usize>, PlanError> {
    match (asked, of_video) {
        (Some(Some(asked)), Some(Some(found))) if asked != found => {
            let message = format!("the {axis} of the video is {found}, not {asked}");
            Err(PlanError::at(axis, message)
                .hint("a `frames.fit` node brings the video to the size of the clip"))
        }
        (None, None) => Err(size_is_missing(axis)),
        (asked, of_video) => Ok(of_video.flatten().or(asked.flatten())),
    }
}

fn size_is_missing(port: &str) -> PlanError {
    PlanError::at(port, format!("without a video, the {port} of the clip must be given"))
        .hint("feed `video`, or say `width`, `height` and `frames`")
}

fn reads_a_control(dit: &DitHandle) -> Result<(), PlanError> {
    match dit.spec.inputs().given {
        GivenInput::Control => Ok(()),
        GivenInput::None | GivenInput::Tokens | GivenInput::Channels => {
            Err(takes_no_control("dit"))
        }
    }
}

/// The transformer reads a control, and of this autoencoder.
fn check_dit(dit: &DitHandle, vae: &VaeHandle) -> Result<(), PlanError> {
    reads_a_control(dit)?;
    let (inputs, layout) = (dit.spec.inputs(), vae.latents());
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
    let video = facts.is_fed("video").then(|| review.partly::<Frames>("video"));
    let mask = facts.is_fed("mask").then(|| review.partly::<Mask>("mask"));
    let references = named_facts(facts, "references");
    let references = references
        .iter()
        .map(|(_, fact)| review.take(known::<Frames>("references", fact)).flatten())
        .map(Option::unwrap_or_default)
        .collect();
    let [width, height, frames] =
        ["width", "height", "frames"].map(|port| facts.is_fed(port).then(|| review.size(port)));
    let (dit, vae) = match (dit, vae) {
        (Some(dit), Some(vae)) => (dit, vae),
        (dit, _) => {
            dit.and_then(|dit| review.take(reads_a_control(&dit)));
            return review.finish(StepInfo::default());
        }
    };
    let asked = Asked { video, mask, references, width, height, frames };
    let layout = match asked.layout(&dit, &vae) {
        Ok(layout) => layout,
        Err(errors) => {
            errors.into_iter().for_each(|error| review.error(error));
            infer_pass(&mut review, &vae, Network::Encoder, None);
            return review.finish(StepInfo::default());
        }
    };
    let shape = layout.shape(&dit, &vae);
    let fact = ControlFact { shape, references: layout.references, space: Some(vae.space()) };
    let clip = layout.sizes(&vae).map(|sizes| (sizes.frames, sizes.size));
    let noise = layout.noise_frames(&vae);
    let noise = noise.map_or(Fact::Unknown, |frames| Fact::Literal(Literal::Int(frames as i128)));
    let outputs = vec![Fact::typed(fact), noise];
    let info = infer_channels(&mut review, &vae, clip, &shape, outputs);
    review.finish(info)
}

fn run(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let dit = inputs.part::<DitHandle>("dit")?;
    let vae = inputs.part::<VaeHandle>("vae")?;
    let video = inputs.optional::<Frames>("video")?;
    let mask = inputs.optional::<Mask>("mask")?;
    let references = inputs.list::<Frames>("references")?;
    let size = |port: &str| -> Result<Wish> {
        inputs.get(port).map(|_| inputs.int(port).map(Some)).transpose()
    };
    let asked = Asked {
        video: video.as_ref().map(|video| video.fact()),
        mask: mask.as_ref().map(|mask| mask.fact()),
        references: references.iter().map(|(_, picture)| picture.fact()).collect(),
        width: size("width")?,
        height: size("height")?,
        frames: size("frames")?,
    };
    let layout = asked.layout(&dit, &vae).map_err(|mut errors| refuse(errors.remove(0)))?;
    let sizes = layout.sizes(&vae).ok_or_else(|| refuse(size_is_missing("frames")))?;
    cx.check_cancel()?;
    let clip = (sizes.frames, sizes.size);
    let tile = tiles(&vae, inputs.int("tile")?, Network::Encoder, clip).map_err(refuse)?;
    let encoder = Encoding::new(Arc::clone(&vae), tile);
    let pictures: Vec<_> = references.iter().map(|(_, picture)| &**picture).collect();
    let source = channels::Source { video: video.as_deref(), mask: mask.as_deref(), pictures };
    let order = &dit.spec.inputs().extra;
    let tensor = channels::encode(cx, encoder, order, &sizes, &source)?;
    let (strength, references) = (inputs.real("strength")?, layout.references);
    let control = Control { tensor, references, strength, space: Some(vae.space()) };
    control.check()?;
    let frames = layout.noise_frames(&vae).map(|frames| Value::Int(frames as i128));
    Ok(vec![Some(Value::from(control)), frames])
}
