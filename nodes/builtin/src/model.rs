//! `model.load`: opens a model and hands out its parts.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::{DType, Device};
use kino_models::checkpoint::part_names;
use kino_models::model::{Component, DenoiserSpec, ImageEncoderSpec, TextEncoderSpec, VideoVae};
use kino_node::{Cx, Error, Inputs, ModelPart, NodeDef, Outputs, Result, Services, Value};
use kino_port::{
    Fact, Facts, NodeTraits, PlanError, PlannedRead, Port, PortType, Signature, StepInfo, edge,
    ports, text,
};
use kino_world::Folders;

use crate::error::{is_of_machine, of_model};
use crate::files::{doubled, model_folders, policy};
use crate::infer::{InferResult, refuse};
use crate::lora::Experts;
use crate::models::{DitHandle, Handle, LowNoise, MissingPart, Models, OpenModel, TextHandle};
use crate::source::{ModelRequest, ModelSource, find_part, folders_of, how_to_complete};

/// Opens a model and hands out its parts.
pub(crate) static LOAD: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("model.load"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(ABOUT),
        inputs: ports![
            text("source", "").file().about(
                "`embedded:shapes`, a folder in the diffusers layout (relative to the graph, or to a \
                 folder of the setting `models`), or `hf:OWNER/NAME[@REVISION]`. It may be left out \
                 where every part that is needed has a file; or be a file: the transformer's, or one that \
                 holds several parts, beside which the others have theirs."
            ),
            text("compute", "auto").choices(&COMPUTE).about(
                "The type to compute in. `auto`: bf16 where the weights are bf16 or fp8 and the \
                 machine multiplies bf16 faster, else f32; for an autoencoder on a CPU always f32. \
                 `bf16` is taken for it too where the CPU multiplies bf16 faster: half the memory, \
                 at the cost of detail. `int8` (W8A8): weights of int8 (ConvRot) and Q8_0 multiply \
                 activations rounded to int8, a scale for each token (Q8_0: each 32 numbers); \
                 faster on CPUs without AMX, less exact. All else computes as by `auto`."
            ),
            file(part_names::TRANSFORMER).about(
                "The transformer as a single file, in place of that of `source`; of two experts that \
                 of high noise levels."
            ),
            file(part_names::LOW_NOISE)
                .about("The expert of low noise levels (Wan 2.2 A14B) as a single file."),
            file(part_names::TEXT_ENCODER).about("The text encoder as a single file."),
            file(part_names::TEXT_ENCODER_2).about(
                "The second text encoder as a single file, where a model has two (FLUX: T5 beside \
                 CLIP, in either order)."
            ),
            file(part_names::VAE).about("The autoencoder as a single file."),
            file(part_names::IMAGE_ENCODER).about("The image encoder as a single file."),
        ],
        outputs: ports![
            edge("text_encoder", PortType::TextEncoder).about("Turns prompts into embeddings."),
            edge("image_encoder", PortType::ImageEncoder).about("Turns images into embeddings."),
            edge("dit", PortType::Dit)
                .about("The diffusion transformer: gives the velocity of patches."),
            edge("vae", PortType::Vae).about("The autoencoder: frames to latents and back."),
        ],
        traits: NodeTraits::LIGHT,
    },
    infer,
    run,
};

const ABOUT: &str = "Opens a model and hands out its parts. A model is a folder in the diffusers \
layout: model_index.json beside transformer/, vae/, text_encoder/, tokenizer/ and scheduler/, and \
where the model has them transformer_2/ (a second expert, for low noise levels), image_encoder/ and \
image_processor/. \
Only configs are read here; the weights of a part are safetensors or GGUF files, read by the first \
node that computes with it, then shared by all, and let go where memory ends. Pickle files are refused.\n\n\
Parts may stand alone in files instead, as ComfyUI and the authors of models share them: the \
transformers, autoencoders and encoders of Wan 2.1 and 2.2 and of FLUX.1 by the names of their \
authors or of diffusers, UMT5 and T5 also by those of llama.cpp. Numbers may be f32, f16, bf16, fp8 with or without \
scales, int8 with or without rotation (ConvRot, as ComfyUI writes it), or GGUF's Q2_K to Q6_K, Q4_0, \
Q4_1, Q5_0, Q5_1, Q8_0: matrices of the last three kinds stay so in memory. What they are is read from names and shapes, not from labels. A file of \
several parts (ComfyUI's checkpoints: transformer, autoencoder, text encoders) is a `source` that gives all \
that it holds, or a part where it is named for one. A bare name is also looked for in the folders of the setting `models` \
and in what ComfyUI calls the folders there: checkpoints, diffusion_models, unet, vae, text_encoders, clip, \
clip_vision; `hf:OWNER/NAME[@REVISION]/PATH` is a file of a model of the Hugging Face Hub. The \
tokenizers of UMT5, T5 and CLIP are brought along, for a folder that lacks them, too. Without a `source` the noise levels of Wan are \
shifted by 3 (5 for TI2V, 16 for a first and a last frame), those of FLUX.1 dev by the size of the \
picture: `shift` of `dit.sample` says otherwise.\n\n\
`embedded:shapes` lies in the binary, and is small: it knows clips of one or two objects, worded as \
\"a large red circle moves right on a white background\". Colours: red, green, blue, yellow, purple, \
orange, cyan, pink. Shapes: circle, square, triangle, star, ring. Sizes: small, large. What they do: \
moves right, moves left, moves up, moves down, stays still, spins, grows, shrinks, orbits. Backgrounds: \
black, white, gray, navy, beige. Two objects are joined by \"and\"; a comma and Chinese are read as well, \
48 words at most. Other words mean nothing to it.\n\n\
`hf:OWNER/NAME` is looked up in the local Hugging Face cache (HF_HUB_CACHE, HF_HOME); no graph fetches \
anything: `kino models pull hf:OWNER/NAME` puts a model there.\n\n\
Example:\n    \"model\": (op: \"model.load\", with: {\"source\": \"embedded:shapes\"}),";

const COMPUTE: [Cow<'static, str>; 4] =
    [Cow::Borrowed("auto"), Cow::Borrowed("f32"), Cow::Borrowed("bf16"), Cow::Borrowed("int8")];

/// The path of a part that stands alone in a file; empty where none does.
const fn file(part: &'static str) -> Port {
    text(part, "").file()
}

/// The parts that may stand alone in files, as the ports for them are called.
const FILES: [&str; 6] = [
    part_names::TRANSFORMER,
    part_names::LOW_NOISE,
    part_names::TEXT_ENCODER,
    part_names::TEXT_ENCODER_2,
    part_names::VAE,
    part_names::IMAGE_ENCODER,
];

/// What a graph names: a source, and files of parts.
struct Named<'a> {
    source: &'a str,
    files: Vec<(&'static str, &'a str)>,
}

impl<'a> Named<'a> {
    /// What the text of each port says; none where one is not known yet.
    fn of(text: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let files = FILES.map(|part| Some((part, text(part)?)));
        let files = files.into_iter().collect::<Option<Vec<_>>>()?;
        let files = files.into_iter().filter(|(_, path)| !path.is_empty()).collect();
        Some(Named { source: text("source")?, files })
    }

    /// The file that stands for the model without a folder around it, if the source is one.
    fn source_file(&self) -> Option<&'a str> {
        let ending = self.source.rsplit_once('.')?.1.to_ascii_lowercase();
        // Pickles are no weights that are read, which is told of the file that they are.
        let endings = ["safetensors", "sft", "gguf", "pt", "pth", "bin", "ckpt"];
        endings.contains(&&*ending).then_some(self.source)
    }

    /// The input that names the file of a part.
    fn port_of(&self, part: &str) -> &'static str {
        let port = self.files.iter().map(|(own, _)| *own).find(|own| *own == part);
        port.unwrap_or("source")
    }

    /// What messages call the model.
    fn name(&self) -> &'a str {
        match (self.source, self.files.first()) {
            ("", Some((_, path))) => path,
            (source, _) => source,
        }
    }

    /// Everything that it names, as the graph writes it.
    fn paths(&self) -> impl Iterator<Item = &'a str> {
        let source = Some(self.source).filter(|source| !source.is_empty());
        source.into_iter().chain(self.files.iter().map(|(_, path)| *path))
    }
}

/// A part as a handle, or why there is none.
type FoundPart<S> = std::result::Result<Arc<Handle<S>>, MissingPart>;

/// The parts of a model, in the order of the outputs.
struct Parts {
    text: FoundPart<dyn TextEncoderSpec>,
    image: FoundPart<dyn ImageEncoderSpec>,
    dit: FoundPart<dyn DenoiserSpec>,
    vae: FoundPart<dyn VideoVae>,
}

impl Parts {
    /// The parts of the model that the graph calls `name`.
    fn of(model: &Arc<OpenModel>, name: &str, compute: &str, device: &Device) -> Self {
        let choice = (compute, device);
        let parts = &model.parts;
        Parts {
            text: text_encoders(model, name, choice),
            image: part(model, parts.image_encoder.as_ref(), (name, "image encoder"), choice),
            dit: dit(model, name, choice),
            vae: part(model, parts.vae.as_ref(), (name, "VAE"), choice),
        }
    }

    /// The compute types, which change the numbers.
    fn key(&self, model: &OpenModel) -> Vec<u8> {
        let mut key = model.fingerprint().to_vec();
        let others = self.text.iter().flat_map(|part| &part.others).map(|part| part.compute());
        let dtypes = [
            self.text.as_ref().ok().map(|part| part.compute()),
            self.image.as_ref().ok().map(|part| part.compute()),
            self.dit.as_ref().ok().map(|part| part.compute()),
            self.dit.as_ref().ok().and_then(|part| Some(part.low_noise.as_ref()?.part.compute())),
            self.vae.as_ref().ok().map(|part| part.compute()),
        ];
        for dtype in dtypes.into_iter().chain(others.map(Some)) {
            key.extend(dtype.as_deref().unwrap_or("-").as_bytes());
            key.push(b' ');
        }
        key
    }
}

/// A warning where int8 is asked for and nothing multiplies in it.
fn without_int8(parts: &Parts, compute: &str, device: &Device) -> Option<PlanError> {
    let dit = parts.dit.iter().flat_map(|part| part.experts()).any(|part| part.int8);
    let text = parts.text.iter().flat_map(|part| part.all()).any(|part| part.int8);
    let any = dit || text || parts.image.iter().any(|part| part.int8);
    let message = match device.is_cpu() {
        true => "no part has weights of int8 or Q8_0, so `int8` computes as `auto` does",
        false => "products of int8 are the CPU's, so `int8` computes as `auto` does here",
    };
    (compute == "int8" && !any).then(|| PlanError::at("compute", message))
}

/// A part in words.
fn in_words(part: &str) -> &'static str {
    match part {
        part_names::TRANSFORMER => "transformer",
        part_names::LOW_NOISE => "expert of low noise levels",
        part_names::TEXT_ENCODER => "text encoder",
        part_names::TEXT_ENCODER_2 => "second text encoder",
        part_names::VAE => "VAE",
        _ => "image encoder",
    }
}

fn missing(model: &str, part: &str) -> MissingPart {
    let message = format!("the model `{model}` has no {part}");
    MissingPart { message, hint: None, of_machine: false }
}

/// The text encoder, with those that read the same prompt beside it.
fn text_encoders(
    model: &Arc<OpenModel>,
    name: &str,
    choice: (&str, &Device),
) -> FoundPart<dyn TextEncoderSpec> {
    let (parts, named) = (&model.parts, (name, "text encoder"));
    let first = handle(model, parts.text_encoder.as_ref(), named, choice)?;
    let others = parts.other_text_encoders.iter();
    let others = others.map(|other| part(model, Some(other), named, choice));
    Ok(Arc::new(TextHandle { others: others.collect::<Result<_, _>>()?, ..first }))
}

/// The transformer, with the expert of low noise levels where there are two.
fn dit(model: &Arc<OpenModel>, name: &str, choice: (&str, &Device)) -> FoundPart<dyn DenoiserSpec> {
    let parts = &model.parts;
    let named = (name, "transformer");
    let high = handle(model, parts.denoiser.as_ref(), named, choice)?;
    let Some(low) = &parts.low_noise else { return Ok(Arc::new(high)) };
    let part = part(model, Some(&low.denoiser), named, choice)?;
    let low_noise = Some(LowNoise { below: low.below, part });
    Ok(Arc::new(DitHandle { low_noise, ..high }))
}

/// A part as a handle that is shared.
fn part<S: ?Sized>(
    model: &Arc<OpenModel>,
    component: Option<&Component<S>>,
    names: (&str, &str),
    choice: (&str, &Device),
) -> FoundPart<S> {
    handle(model, component, names, choice).map(Arc::new)
}

/// A part as a handle, if its config and its weight files are there.
fn handle<S: ?Sized>(
    model: &Arc<OpenModel>,
    component: Option<&Component<S>>,
    (model_name, name): (&str, &str),
    (compute, device): (&str, &Device),
) -> Result<Handle<S>, MissingPart> {
    let Some(Component { part, spec }) = component else { return Err(missing(model_name, name)) };
    let unreadable = |error: kino_models::Error| MissingPart {
        message: error.to_string(),
        hint: model.checkpoint.folder().and_then(|folder| how_to_complete(&folder)),
        of_machine: is_of_machine(&error),
    };
    let files = model.checkpoint.part(part).map_err(unreadable)?;
    if let Some((_, message)) = model.faults.iter().find(|(faulty, _)| faulty == part) {
        return Err(MissingPart { message: message.clone(), hint: None, of_machine: false });
    }
    let identity = model.checkpoint.identity(part).map_err(unreadable)?;
    let stored = files.main_dtype().unwrap_or(DType::F32);
    let (model, spec) = (Arc::clone(model), Arc::clone(spec));
    Ok(Handle {
        dtype: compute_type(compute, stored, device, part),
        int8: compute == "int8" && device.is_cpu() && files.has_int8(),
        widens: !device.is_cpu(),
        model,
        spec,
        files,
        part,
        identity,
        low_noise: None,
        others: Vec::new(),
        adapters: Vec::new(),
    })
}

/// The type to compute in.
///
/// Without a choice it is bf16 where that holds the stored numbers exactly (bf16 and fp8, but not
/// f16) and is faster. Autoencoders on the CPU compute in bf16 only when they are told to, since
/// rounded activations cost detail in each frame, and only where it is faster: published pipelines
/// keep them in f32 as well.
fn compute_type(compute: &str, stored: DType, device: &Device, part: &str) -> DType {
    let on_card = device.is_metal() || device.is_cuda();
    let is_faster = || on_card || kino_kernels::has_bf16_products();
    let exact = matches!(stored, DType::BF16 | DType::F8E4M3);
    match compute {
        "auto" | "int8" if part == "vae" && !on_card => DType::F32,
        "bf16" if part == "vae" && !is_faster() => DType::F32,
        "bf16" => DType::BF16,
        "auto" | "int8" if exact && is_faster() => DType::BF16,
        _ => DType::F32,
    }
}

fn open(services: &Services, named: &Named<'_>) -> std::result::Result<Arc<OpenModel>, PlanError> {
    let missing = |error: Error| PlanError::new(error.to_string());
    let folders = services.get::<Folders>().map_err(missing)?;
    let models = services.get::<Models>().map_err(missing)?;
    let policy = policy(services);
    let of_user = model_folders(services);
    let find = |source| ModelSource::find(source, &folders.graph, &of_user, &policy);
    let file = |port, part, path| find_part((port, part), path, &folders.graph, &of_user, &policy);
    let mut files = Vec::new();
    let mut whole = None;
    let source = match (named.source, named.source_file(), named.files.as_slice()) {
        ("", _, []) => {
            let hint = "write a source (embedded:shapes, a folder, hf:OWNER/NAME), or the files of \
                        the parts: transformer, vae, text_encoder";
            return Err(PlanError::at("source", "no model is named").hint(hint));
        }
        ("", ..) => None,
        (_, Some(path), _) => {
            let part = part_names::TRANSFORMER;
            if named.files.iter().any(|(own, _)| *own == part) {
                let message = "a file that is a source holds the transformer, and there is another";
                return Err(PlanError::at("source", message).hint("name one of them"));
            }
            whole = Some(file("source", part, path)?);
            None
        }
        (source, ..) => Some(find(source)?),
    };
    for (part, path) in &named.files {
        files.push((*part, file(part, part, path)?));
    }
    let asked = ModelRequest { source, whole, files };
    asked.check_files(&policy)?;
    let model = models.open(&asked);
    let model = model.map_err(|error| {
        let text = error.to_string();
        let of_file = asked.files.iter().find(|(_, path)| text.contains(&*path.to_string_lossy()));
        let planned = of_model(of_file.map_or("source", |(part, _)| named.port_of(part)), &error);
        match asked.source.as_ref().and_then(ModelSource::how_to_complete) {
            Some(hint) if of_file.is_none() => planned.hint(hint),
            _ => planned,
        }
    })?;
    if policy.narrows_reading() {
        // Nobody has turned a link between the two.
        asked.check_files(&policy)?;
        if !model.checkpoint.is_current() {
            let message = format!("{} was exchanged while it was opened", named.name());
            return Err(PlanError::at("source", message));
        }
    }
    Ok(model)
}

fn infer(services: &Services, facts: &Facts) -> InferResult {
    let named = Named::of(|port| facts.text(port));
    let (Some(named), Some(compute)) = (named, facts.text("compute")) else {
        return Ok(StepInfo::default());
    };
    let model = open(services, &named).map_err(|error| vec![error])?;
    let parts = Parts::of(&model, named.name(), compute, &services.device);
    if let (Ok(vae), Ok(models)) = (&parts.vae, services.get::<Models>()) {
        models.know(vae);
    }
    let not_int8 = without_int8(&parts, compute, &services.device);
    let hash = blake3::Hash::from_bytes(model.fingerprint()).to_hex().to_string();
    let transformer = named.source_file().map(|path| ("source", part_names::TRANSFORMER, path));
    let files = named.files.iter().map(|(part, path)| (*part, *part, *path)).chain(transformer);
    let doubles =
        files.filter_map(|(port, part, path)| doubled(services, (port, path), folders_of(part)));
    let whole = Some(named.source).filter(|_| named.source_file().is_none());
    let doubles = doubles.chain(whole.and_then(|path| doubled(services, ("source", path), &[])));
    let hex = |hash: [u8; 32]| blake3::Hash::from_bytes(hash).to_hex().to_string();
    let alone: Vec<&str> = named.files.iter().map(|(part, _)| *part).collect();
    let read = |path: &str| {
        let part = named.files.iter().find(|(_, own)| *own == path).map(|(part, _)| *part);
        let content = match part.and_then(|part| model.checkpoint.part(part).ok()) {
            Some(files) => files.identity().content,
            None => model.checkpoint.content(&alone),
        };
        let (path, hash) = (path.to_owned(), hash.clone());
        PlannedRead { path, hash, content: hex(content), ..PlannedRead::default() }
    };
    let left_over = |(part, names): &(&str, String)| {
        let message = format!("the {} does not read all of its weights: {names}", in_words(part));
        PlanError::at(named.port_of(part), message)
    };
    Ok(StepInfo {
        key: parts.key(&model),
        outputs: vec![fact(parts.text), fact(parts.image), fact(parts.dit), fact(parts.vae)],
        reads: named.paths().map(read).collect(),
        warnings: model
            .left_over
            .iter()
            .map(left_over)
            .chain(doubles)
            .chain(not_int8)
            .chain(swapped(&named))
            .chain(model.other_scheduler.iter().map(|message| {
                PlanError::at("source", message.clone())
                    .hint("diffusers takes the former: `scheduler` of `dit.sample` chooses it")
            }))
            .collect(),
        ..StepInfo::default()
    })
}

/// Two experts that stand in each other's place, by the names of their files.
fn swapped(named: &Named<'_>) -> Option<PlanError> {
    let own = |part| named.files.iter().find(|(own, _)| *own == part).map(|(_, path)| *path);
    let high = own(part_names::TRANSFORMER).or(named.source_file())?;
    let low = own(part_names::LOW_NOISE)?;
    let is_swapped =
        Experts::said_by(high) == Experts::LOW || Experts::said_by(low) == Experts::HIGH;
    is_swapped.then(|| {
        let message = format!(
            "by its name, `{high}` is the expert of low noise levels, or `{low}` that of high ones: \
             the video will be noise if they are swapped"
        );
        let hint = "`transformer` (or `source`) is that of high noise levels, `transformer_2` that of \
                    low ones";
        PlanError::at(part_names::LOW_NOISE, message).hint(hint)
    })
}

fn fact<T: Send + Sync + 'static>(part: std::result::Result<Arc<T>, MissingPart>) -> Fact {
    match part {
        Ok(part) => Fact::Typed(part),
        Err(missing) => Fact::typed(missing),
    }
}

/// The model that the plan was made with; without a plan, the one that lies there now.
fn planned(cx: &Cx<'_>, named: &Named<'_>) -> Result<Arc<OpenModel>> {
    let name = named.paths().next().unwrap_or_default();
    let Some(read) = cx.reads.iter().find(|read| read.path == name) else {
        return open(cx.services, named).map_err(refuse);
    };
    if let Some(model) = cx.services.get::<Models>()?.opened(&read.hash) {
        return Ok(model);
    }
    // It is not open any more. What lies there now will do if it is the same.
    let model = open(cx.services, named).map_err(refuse)?;
    match blake3::Hash::from_bytes(model.fingerprint()).to_hex().as_str() == read.hash {
        true => Ok(model),
        false => Err(Error::failed(format!("{name} has changed since the plan was made"))),
    }
}

fn run(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let named = Named::of(|port| inputs.text(port).ok());
    let named = named.ok_or_else(|| Error::input("source", "no model is named"))?;
    let model = planned(cx, &named)?;
    let parts = Parts::of(&model, named.name(), inputs.text("compute")?, cx.device());
    if let Ok(vae) = &parts.vae {
        cx.services.get::<Models>()?.know(vae);
    }
    Ok(vec![
        value(cx.wants(0), PortType::TextEncoder, parts.text)?,
        value(cx.wants(1), PortType::ImageEncoder, parts.image)?,
        value(cx.wants(2), PortType::Dit, parts.dit)?,
        value(cx.wants(3), PortType::Vae, parts.vae)?,
    ])
}

/// A part as a value; one that is wanted and missing is an error.
fn value<T: Send + Sync + 'static>(
    wanted: bool,
    ty: PortType,
    part: std::result::Result<Arc<T>, MissingPart>,
) -> Result<Option<Value>> {
    match part {
        Ok(handle) => Ok(Some(Value::Part(ModelPart { ty, handle }))),
        Err(MissingPart { message, hint, .. }) if wanted => {
            Err(Error::failed(message).with_hint(hint))
        }
        Err(_) => Ok(None),
    }
}
