//! `upscale`: a whole factor larger, by a filter or by a network that has learned edges.

use std::borrow::Cow;
use std::sync::Arc;

use kino_kernels::Filter;
use kino_models::model::UpscalerSpec;
use kino_models::upscale::Tiling;
use kino_node::{
    Cx, Error, Frames, FramesBuilder, Inputs, NodeDef, Outputs, Result, Services, Value,
};
use kino_port::{Facts, NodeTraits, PlanError, Signature, StepInfo, int, ports, text};

use super::chunks::{frames_in, gives};
use super::resize::{frames_out, resized, scale};
use crate::error::{IntoNode, check_cancel};
use crate::files::doubled;
use crate::infer::{InferCx, InferResult, refuse};
use crate::latent::LONGEST_SIDE;
use crate::models::{Models, NetworkSource, OpenNetwork, network_error, network_file};

/// Enlarges frames by a whole factor.
pub(crate) static UPSCALE: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("upscale"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(ABOUT),
        inputs: ports![
            frames_in(),
            int("factor", 2).between(1, 8).unit("x").about("How many times wider and higher."),
            text("model", LANCZOS).choices(&MODELS).file().about(
                "`lanczos`, a filter; `video-x4`, a network in the binary; or a safetensors file."
            ),
            int("tile", 0).between(0, LONGEST_SIDE).unit("px").about(
                "Side of the tiles that a network is given, beside their overlap; 0 chooses one by \
                 the memory that it takes."
            ),
        ],
        outputs: ports![frames_out()],
        traits: NodeTraits::HEAVY,
    },
    infer,
    run,
};

const ABOUT: &str = "Enlarges frames by a whole factor, each for itself. `lanczos` is a filter of \
three lobes: it adds no detail and keeps blur as blur. A network makes edges sharp that an \
autoencoder, a compressor or a small camera has softened; it invents texture.\n\n\
`video-x4` lies in the binary and was made for video: SRVGGNetCompact of Real-ESRGAN \
(realesr-animevideov3, BSD-3-Clause, Copyright (c) 2021, Xintao Wang), 1.2 MFLOP for a pixel of the \
input. A path names a safetensors file of SRVGGNetCompact, RRDBNet (the ESRGAN family) or SPAN, of \
any size; what it is, its names and shapes say. A network that enlarges more than `factor` has its \
pixels averaged by area; it cannot enlarge more than it was made for. Pickle files (.pth) are \
refused.\n\n\
Frames are cut into tiles that overlap by what the network sees, up to 32 pixels, so that memory \
does not grow with the frame nor with the clip. Shapes: `[f, h, w, 3]` to `[f, factor·h, factor·w, \
3]`, in 0…1.\n\n\
Example:\n    \"large\": (op: \"upscale\", in: {\"frames\": \"frames\"}, with: {\"factor\": 4, \
\"model\": \"video-x4\"}),";

/// What ComfyUI calls the folder of networks that enlarge pictures.
const KINDS: [&str; 1] = ["upscale_models"];
const LANCZOS: &str = "lanczos";
const EMBEDDED: &str = "video-x4";
const MODELS: [Cow<'static, str>; 2] = [Cow::Borrowed(LANCZOS), Cow::Borrowed(EMBEDDED)];

/// Opens the network that a graph names, or the one of a fingerprint; none for the filter.
fn open(
    services: &Services,
    model: &str,
    planned: Option<&str>,
) -> Result<Option<Arc<OpenNetwork<dyn UpscalerSpec>>>, PlanError> {
    let source = match model {
        LANCZOS => return Ok(None),
        EMBEDDED => NetworkSource::Embedded {
            name: EMBEDDED,
            bytes: kino_shapes::VIDEO_X4,
            digest: kino_shapes::VIDEO_X4_DIGEST,
        },
        path => {
            let what = "a model is `lanczos`, `video-x4`, or a safetensors file";
            network_file(services, ("model", path), &KINDS, what)?
        }
    };
    let models = services.get::<Models>().map_err(|error| PlanError::new(error.to_string()))?;
    let opened = models.open_upscaler(&source, planned).map_err(network_error("model"))?;
    opened.allowed(services, "model").map(Some)
}

/// How frames are cut for a network.
fn tiling(
    opened: &OpenNetwork<dyn UpscalerSpec>,
    size: [usize; 2],
    factor: usize,
    tile: usize,
) -> Result<Tiling, PlanError> {
    Tiling::new(Arc::clone(&opened.spec), size, factor, tile).map_err(|error| {
        PlanError::at("factor", error.to_string())
            .hint("for more, feed a second `upscale` node; `lanczos` takes every factor")
    })
}

fn infer(services: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let model = facts.text("model");
    let opened = model.and_then(|model| review.take(open(services, model, None)));
    let mut info = StepInfo::default();
    if let (Some(model), Some(Some(opened))) = (model, &opened) {
        info.key = opened.identity().to_vec();
        info.reads = opened.reads(model);
        info.warnings.extend(doubled(services, ("model", model), &KINDS));
    }
    let (frames, factor) = (review.partly::<Frames>("frames"), review.size("factor"));
    let enlarged = |side: Option<usize>| Some(side?.saturating_mul(factor?));
    let size = (enlarged(frames.height), enlarged(frames.width));
    let (Some(factor), Some(Some(opened))) = (factor, &opened) else {
        let is_filter = matches!(opened, Some(None));
        let work = resized(frames.clone(), size);
        return review.finish(match is_filter {
            true => work,
            false => StepInfo { outputs: work.outputs, ..info },
        });
    };
    let tile = review.size("tile").unwrap_or(0);
    // Whether the factor can be had does not depend on the size.
    let own = frames.size().unwrap_or((1, 1));
    let cut = review.take(tiling(opened, [own.0, own.1], factor, tile));
    let work = cut
        .filter(|_| frames.size().is_some())
        .map(|cut| (cut.memory().saturating_add(opened.weight_bytes()), opened.planned()));
    let (work, weights) = work.unzip();
    let weights = weights.unwrap_or_default();
    let StepInfo { outputs, memory, spillable, .. } = gives(frames.sized(size), work);
    review.finish(StepInfo { outputs, memory, spillable, weights, ..info })
}

fn run(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let frames = inputs.value::<Frames>("frames")?;
    let factor: usize = inputs.int("factor")?;
    let enlarged = |side: usize| {
        let side = side.checked_mul(factor);
        side.ok_or_else(|| Error::input("factor", format!("frames {factor} times larger")))
    };
    let size = (enlarged(frames.height())?, enlarged(frames.width())?);
    let model = inputs.text("model")?;
    // The network that the plan was made with; without a plan, the one that lies there now.
    let planned = cx.reads.iter().find(|read| read.path == model).map(|read| &*read.hash);
    match open(cx.services, model, planned).map_err(refuse)? {
        None => scale(cx, &frames, size, Filter::Lanczos),
        Some(opened) => {
            let own = [frames.height(), frames.width()];
            let cut = tiling(&opened, own, factor, inputs.int("tile")?).map_err(refuse)?;
            learned(cx, &frames, &opened, &cut)
        }
    }
}

/// Frames enlarged by a network, a few at a time.
fn learned(
    cx: &mut Cx<'_>,
    frames: &Frames,
    opened: &OpenNetwork<dyn UpscalerSpec>,
    cut: &Tiling,
) -> Result<Outputs> {
    cx.check_cancel()?;
    // The sizes may be known only now: what cannot be had is this node's error.
    cx.services.device_ledger().check(cut.memory(), "a tile on its way through the network")?;
    let network = cx.services.get::<Models>()?.upscaler(opened)?;
    let mut large = FramesBuilder::new(&cx.services.ledger, frames.fps());
    let mut done = 0;
    cx.progress(0, frames.count());
    for chunk in frames.chunks() {
        let chunk = chunk?;
        let count = chunk.dim(0)?;
        for start in (0..count).step_by(cut.frames_at_once()) {
            let few = cut.frames_at_once().min(count - start);
            let few = chunk.narrow(0, start, few)?.to_device(cx.device())?;
            let enlarged = cut.upscale(&**network, &few, &mut check_cancel(cx.cancel)).node()?;
            large.push(&enlarged)?;
            done += few.dim(0)?;
            cx.progress(done, frames.count());
        }
    }
    Ok(vec![Some(Value::from(large.finish()?))])
}
